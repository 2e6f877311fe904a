"""What is taken away by itself, as the config's `retention` says: in the background, by one process of the realm.

A round goes through the realm in small steps, rests after each three times as long as it took, and goes on where it was
when the store could not be reached. It never touches a session that has something to do, and archives none. Whatever it
does can be done twice: a round is no transaction.
"""

import logging
import math
import time
from dataclasses import dataclass, field, fields

import anyio

from meerkat_mcp.domain.config import Config, RetentionConfig
from meerkat_mcp.domain.errors import MeerkatError, SessionNotFound, Unavailable
from meerkat_mcp.domain.events import Owner
from meerkat_mcp.domain.session import Session
from meerkat_mcp.sessions.clock import DAY_MS
from meerkat_mcp.sessions.service import Sessions
from meerkat_mcp.sessions.shelf import Shelf
from meerkat_mcp.sessions.tidying import Pace, lighten, remove_pieces, weigh
from meerkat_mcp.stores.base import Cursor, Selection

DUTY = "retention"
DUTY_S = 60.0
"""A process that died in a round is followed by another one after so long."""
ROUND_INTERVAL_S = 600.0
LOOK_INTERVAL_S = 20.0
FIRST_REST_S = 5.0
REST_S = 0.02
REST_SHARE = 3.0
STEP_SESSIONS = 20
REMEMBERED_MAX = 100_000

log = logging.getLogger(__name__)


@dataclass(slots=True)
class Tidied:
    """What a round took away, or would."""

    sessions: int = 0
    pieces: int = 0
    lightened: int = 0
    freed_bytes: int = 0
    keys: int = 0
    streams: int = 0

    def __str__(self) -> str:
        said = ((name.replace("_", " "), getattr(self, name)) for name in (field.name for field in fields(self)))
        return ", ".join(f"{count} {name}" for name, count in said if count) or "nothing to do"


@dataclass(slots=True)
class _Seen:
    """What is known of a session since it was last looked at: up to which event, and when to look again."""

    seq: int = 0
    updated_ms: int = 0
    clean_seq: int = 0
    weighed_seq: int = 0
    weight: int = 0
    due_ms: float = 0


@dataclass(slots=True)
class _Round:
    """A round, and how far it is."""

    config: Config
    now_ms: int
    pace: Pace
    dry_run: bool = False
    done: Tidied = field(default_factory=Tidied)
    forgot: bool = False
    archived: Cursor | None = None
    after: Cursor | None = None

    def before_ms(self, days: float) -> int:
        """So many days before the round began."""
        return self.now_ms - math.ceil(days * DAY_MS)

    @property
    def archived_before_ms(self) -> int | None:
        """Since when an archived session has to be at rest to be deleted; None: it stays."""
        days = self.config.retention.archived_days
        return None if days is None else self.before_ms(days)

    def is_doomed(self, session: Session) -> bool:
        """Whether this round deletes it."""
        before_ms = self.archived_before_ms
        return before_ms is not None and session.state == "archived" and session.updated_ms < before_ms


class _Relieved(Exception):
    """Another process has the duty now."""


class Retention:
    """Keeps a realm small while a server is there: see `run`."""

    def __init__(self, sessions: Sessions, shelf: Shelf, owner: Owner) -> None:
        self._sessions = sessions
        self._shelf = shelf
        self._incarnation = owner.incarnation
        self._store = sessions.journal.store
        self._clock = sessions.journal.clock
        self._round: _Round | None = None
        self._next_ms = 0
        self._duty_until_ms = 0
        self._rested_s = 0.0
        self._swept_ms = 0
        self._swept_for: RetentionConfig | None = None
        self._seen: dict[str, _Seen] = {}

    async def run(self) -> None:
        """A round every ten minutes, in whichever process of the realm has the duty; until cancelled."""
        await anyio.sleep(FIRST_REST_S)
        while True:
            try:
                await self.look()
            except Unavailable as exc:
                log.warning("Keeping the realm small was put off: %s", exc.message)
            except MeerkatError as exc:
                self._round = None
                log.warning("Keeping the realm small went wrong: %s", exc.message)
            await anyio.sleep(LOOK_INTERVAL_S)

    async def look(self) -> Tidied | None:
        """Do a round, or go on with one, when it is time and this process has the duty; what it came to."""
        now_ms = self._clock.now_ms()
        if now_ms < self._next_ms or not await self._on_duty(DUTY_S):
            return None
        if self._round is None:
            self._round = _Round(await self._sessions.config(), now_ms, self._rest)
        try:
            done = await self._go_on(self._round)
        except _Relieved:
            self._round = None
            return None
        self._round = None
        self._next_ms = self._clock.now_ms() + int(ROUND_INTERVAL_S * 1000)
        await self._on_duty(ROUND_INTERVAL_S)  # so that nobody does all of it again before that
        log.info("Kept the realm small: %s.", done)
        return done

    async def tidy(self, *, dry_run: bool = False) -> Tidied:
        """A whole round now, without rests and whoever has the duty; dry, it only says what it would take away.

        Raises:
            StoreUnavailable, Corrupt.
        """
        round_ = _Round(await self._sessions.config(), self._clock.now_ms(), anyio.lowlevel.checkpoint, dry_run)
        return await self._go_on(round_)

    # ── a round ──

    async def _go_on(self, round_: _Round) -> Tidied:
        if not round_.forgot and not round_.dry_run:
            keys_before_ms = round_.before_ms(round_.config.retention.idempotency_key_days)
            idle_before_ms = round_.now_ms - math.ceil(round_.config.limits.stream_idle_s * 1000)
            round_.done.keys = await self._store.prune_claims(created_before_ms=keys_before_ms)
            round_.done.streams = await self._store.prune_streams(used_before_ms=idle_before_ms)
            round_.forgot = True
        await self._delete_archived(round_)
        await self._sweep(round_)
        return round_.done

    async def _delete_archived(self, round_: _Round) -> None:
        if (before_ms := round_.archived_before_ms) is None:
            return
        place = round_.archived or Cursor(updated_ms=before_ms, session_id="")
        while page := await self._store.sessions(Selection(archived=True), after=place, limit=STEP_SESSIONS):
            old = [one.id for one in page if await self._is_old(one, before_ms)]
            round_.done.sessions += len(old) if round_.dry_run else await self._shelf.delete_archived(*old)
            place = round_.archived = _place(page[-1])
            await round_.pace()

    async def _sweep(self, round_: _Round) -> None:
        """Go through what was active since the last round; all of it where that was none, or had another config."""
        wanted = round_.config.retention
        since_ms = self._swept_ms if wanted == self._swept_for and not round_.dry_run else -math.inf
        if since_ms < 0:
            self._seen.clear()
        while page := await self._store.sessions(Selection(archived=None), after=round_.after, limit=STEP_SESSIONS):
            for listed in page:
                if listed.updated_ms >= since_ms:
                    await self._visit(listed, round_)
            round_.after = _place(page[-1])
            await round_.pace()
            if page[-1].updated_ms < since_ms:
                break
        if not round_.dry_run:
            self._swept_ms, self._swept_for = round_.before_ms(wanted.delta_days), wanted
            self._seen = {key: seen for key, seen in self._seen.items() if seen.updated_ms >= self._swept_ms}

    async def _visit(self, listed: Session, round_: _Round) -> None:
        seen = self._seen.get(listed.id, _Seen())
        if seen.seq == listed.seq and round_.now_ms < seen.due_ms and not round_.dry_run:
            return
        try:
            session = await self._store.load(listed.id)
            if session.open_turn is not None or session.queue or round_.is_doomed(session):
                return
            if round_.dry_run:
                await self._count_kept(session, round_)
            await self._tidy_log(session, seen, round_)
        except SessionNotFound:
            return
        except Unavailable:
            raise
        except MeerkatError as exc:  # one damaged log keeps nobody from the others
            log.warning("Session %s was left as it is: %s", listed.id, exc.message)
        seen.seq, seen.updated_ms = listed.seq, listed.updated_ms
        if len(self._seen) < REMEMBERED_MAX and not round_.dry_run:
            self._seen[listed.id] = seen

    async def _tidy_log(self, session: Session, seen: _Seen, round_: _Round) -> None:
        wanted, done = round_.config.retention, round_.done
        ended_before_ms = round_.before_ms(wanted.delta_days)
        pieces = await remove_pieces(
            self._store,
            session,
            after=seen.clean_seq,
            ended_before_ms=ended_before_ms,
            pace=round_.pace,
            dry_run=round_.dry_run,
        )
        seen.clean_seq = pieces.clean_seq
        seen.due_ms = math.inf if pieces.left_ms is None else pieces.left_ms + wanted.delta_days * DAY_MS
        done.pieces, done.freed_bytes = done.pieces + pieces.removed, done.freed_bytes + pieces.freed_bytes
        if wanted.max_event_bytes is None or not session.compacted_seq:
            return
        seen.weight += await weigh(self._store, session, after=seen.weighed_seq, pace=round_.pace)
        seen.weighed_seq = session.seq
        surplus = seen.weight - wanted.max_event_bytes
        if surplus > 0:
            changed, saved = await lighten(
                self._store, session, surplus=surplus, pace=round_.pace, dry_run=round_.dry_run
            )
            seen.weight -= saved
            done.lightened, done.freed_bytes = done.lightened + changed, done.freed_bytes + saved

    async def _count_kept(self, session: Session, round_: _Round) -> None:
        keys_before_ms = round_.before_ms(round_.config.retention.idempotency_key_days)
        idle_before_ms = round_.now_ms - math.ceil(round_.config.limits.stream_idle_s * 1000)
        claims, streams = await self._store.kept_with(session.id)
        round_.done.keys += sum(claim.created_ms < keys_before_ms for claim in claims)
        round_.done.streams += sum(stream.used_ms < idle_before_ms for stream in streams)

    async def _is_old(self, listed: Session, before_ms: int) -> bool:
        """Whether its last event was before then: a list shows the session as of an earlier one."""
        try:
            return (await self._store.load(listed.id)).updated_ms < before_ms
        except SessionNotFound:
            return False

    # ── going slowly ──

    async def _on_duty(self, seconds: float) -> bool:
        now_ms = self._clock.now_ms()
        until_ms = now_ms + int(seconds * 1000)
        if not await self._store.on_duty(DUTY, self._incarnation, now_ms=now_ms, until_ms=until_ms):
            return False
        self._duty_until_ms, self._rested_s = until_ms, time.monotonic()
        return True

    async def _rest(self) -> None:
        """After a step, three times as long as it took; the duty is renewed in time."""
        await anyio.sleep(max(REST_S, REST_SHARE * (time.monotonic() - self._rested_s)))
        if self._duty_until_ms - self._clock.now_ms() < DUTY_S * 500 and not await self._on_duty(DUTY_S):
            raise _Relieved
        self._rested_s = time.monotonic()


def _place(session: Session) -> Cursor:
    return Cursor(updated_ms=session.updated_ms, session_id=session.id)
