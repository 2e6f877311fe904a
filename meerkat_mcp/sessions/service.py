"""What one can do with the sessions of a realm: run, resume, wait, interrupt, compact.

The realm owns the turns; a call only starts one and follows it. Nothing here knows how it was called.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import anyio

from meerkat_mcp.domain import events as e
from meerkat_mcp.domain.config import Config
from meerkat_mcp.domain.errors import InvalidRequest, LimitExceeded
from meerkat_mcp.domain.messages import ToolResult
from meerkat_mcp.domain.session import Session
from meerkat_mcp.domain.settings import PermissionMode, Settings
from meerkat_mcp.domain.transcript import TurnOutcome, outcome
from meerkat_mcp.sessions.checks import check, check_results
from meerkat_mcp.sessions.claims import Started, brought_before, digest, earlier, key_of, same
from meerkat_mcp.sessions.compaction import replaceable
from meerkat_mcp.sessions.configuration import ConfigSource, Configuration
from meerkat_mcp.sessions.decisions import Approval, IfBusy, answers, changed, next_turn
from meerkat_mcp.sessions.journal import Decision, Journal
from meerkat_mcp.sessions.plan import Plan, check_budget, plan
from meerkat_mcp.sessions.providers import Providers
from meerkat_mcp.sessions.succession import Succession
from meerkat_mcp.sessions.turns import Place, Turns
from meerkat_mcp.stores.base import Claim, KeyTaken

INTERRUPT_WAIT_S = 10.0
OWNER_CHECK_INTERVAL_S = 1.0


@dataclass(frozen=True, slots=True)
class Interruption:
    """`interrupted`: something was running, or queued, and was told to end. `ended`: it really has."""

    interrupted: bool
    ended: bool
    turn_id: str | None


class Sessions:
    """The verbs. Every method raises SessionNotFound and StoreUnavailable beside what it names."""

    def __init__(
        self,
        journal: Journal,
        turns: Turns,
        providers: Providers,
        ceiling: PermissionMode | None = None,
        source: ConfigSource | None = None,
    ) -> None:
        self.journal = journal
        self.turns = turns
        self.providers = providers
        self.succession = Succession(journal, turns, self.config, self._plan)
        self.configuration = Configuration(journal.store, ceiling=ceiling, source=source)

    async def config(self) -> Config:
        """The config as it holds now: the realm's, over this server's file, under its own permission ceiling."""
        return (await self.configuration.current()).config

    async def run(
        self,
        prompt: str,
        settings: Settings,
        *,
        title: str = "",
        labels: Mapping[str, str] | None = None,
        idempotency_key: str | None = None,
        by: str | None = None,
    ) -> Started:
        """A new session of the principal `by`, and its first turn unless `prompt` is empty.

        Raises:
            ModelUnknown, SchemaInvalid, LimitExceeded, IdempotencyConflict.
        """
        config, planned = await self._checked(prompt, settings, settings.permission_mode)
        session_id, turn_id = self.journal.clock.new_id(), self.journal.clock.new_id() if prompt else None
        labels = dict(labels or {})
        asked = digest(["run", prompt, settings, title, labels])
        key = key_of(idempotency_key, by)
        if (before := await earlier(self.journal.store, key, asked)) is not None:
            return before
        claim = self._claim(key, asked, session_id, turn_id)
        created = e.SessionCreated(settings=settings, title=title, labels=labels)
        if turn_id is None:
            return await self._created(session_id, [created], claim, by)
        started = e.TurnStarted(turn_id=turn_id, prompt=prompt, owner=self.turns.owner)
        place = await self.turns.reserve(config.limits.max_concurrent_turns)
        with anyio.CancelScope(shield=True):
            try:
                session = await self.journal.create(session_id, [created, started], claim=claim, by=by)
            except KeyTaken as exc:
                place.free()
                return same(exc.claim, asked)
            except BaseException:
                place.free()
                raise
            await self.turns.start(session, planned, place, then=self.succession.go_on)
        return Started(session_id, turn_id)

    async def resume(
        self,
        session_id: str,
        prompt: str = "",
        *,
        changes: Mapping[str, Any] | None = None,
        title: str | None = None,
        labels: Mapping[str, str] | None = None,
        tool_results: Sequence[ToolResult] = (),
        approvals: Sequence[Approval] = (),
        approved_by: e.ApprovedBy = "caller",
        if_busy: IfBusy = "reject",
        idempotency_key: str | None = None,
        by: str | None = None,
    ) -> Started:
        """The next turn; or what a waiting one waits for; or, without either, changed settings alone.

        `by` is the principal who wants it.

        Raises:
            SessionBusy, SessionArchived, NotWaiting, ToolResultsMismatch, BudgetExhausted, ModelUnknown,
            ProviderUnauthenticated, SchemaInvalid, LimitExceeded, PermissionDenied, IdempotencyConflict,
            InvalidRequest.
        """
        changes = dict(changes or {})
        if "model" in changes:
            changes.setdefault("provider", None)  # another model may be another provider's
        asked = digest(["resume", session_id, prompt, changes, title, labels, list(tool_results), list(approvals)])
        key = key_of(idempotency_key, by)
        if (before := await earlier(self.journal.store, key, asked)) is not None:
            return before
        session = await self.settled(session_id)
        config, _ = await self._checked(prompt, session.settings.changed(**changes), changes.get("permission_mode"))

        changing = partial(changed, changes=changes, title=title, labels=labels)
        answering = bool(tool_results or approvals)
        if not prompt and not answering:
            given = bool(changes) or (title, labels) != (None, None)
            return await self._configure(session_id, changing, by, given=given)
        check_results(tool_results, config.limits.max_tool_result_chars)
        if answering and (again := await brought_before(self.journal, session, tool_results, approvals, prompt)):
            return again
        turn_id = self.journal.clock.new_id()

        def decide(current: Session) -> Sequence[e.Event]:
            owner = self.turns.owner
            if answering:
                said = answers(current, tool_results, approvals, approved_by, prompt, owner)
                return [*changing(current), *said]
            now_ms = self.journal.clock.now_ms()
            return [*changing(current), *next_turn(current, turn_id, prompt, owner, if_busy, config, now_ms)]

        if session.turn is not None and answering:
            turn_id = session.turn.turn_id
        claim = self._claim(key, asked, session_id, turn_id)
        return await self._admit(session_id, decide, config, turn_id, claim, by)

    async def compact(self, session_id: str, *, by: str | None = None) -> Started:
        """A turn that asks the model for a summary, which then stands for all that was said.

        Raises:
            SessionBusy, SessionArchived, BudgetExhausted, LimitExceeded, InvalidRequest (nothing was said yet).
        """
        session = await self.settled(session_id)
        config, planned = await self._checked("", session.settings)
        if not await replaceable(self.journal, session, config.compaction):
            raise InvalidRequest(
                f"Session {session_id} has no history to compact, or nothing since it was compacted.",
                session_id=session_id,
            )
        planned.summarising()
        turn_id = self.journal.clock.new_id()

        def decide(current: Session) -> Sequence[e.Event]:
            check_budget(current, current.settings.budget.tightened(config.budget), self.journal.clock.now_ms())
            owner = self.turns.owner
            return [e.TurnStarted(turn_id=turn_id, kind="compaction", prompt="Summarise.", owner=owner)]

        return await self._admit(session_id, decide, config, turn_id, by=by)

    async def interrupt(
        self,
        session_id: str,
        *,
        expected_turn_id: str | None = None,
        reason: e.InterruptReason = "requested",
        wait_s: float = INTERRUPT_WAIT_S,
        by: str | None = None,
    ) -> Interruption:
        """End the running or waiting turn, in whatever process, or withdraw a queued prompt; wait for the end."""
        session = await self.settled(session_id)
        found: str | None = None

        def decide(current: Session) -> Sequence[e.Event]:
            nonlocal found
            turn, found = current.turn, None
            if any(queued.turn_id == expected_turn_id for queued in current.queue):
                found = expected_turn_id
                return [e.PromptDropped(turn_id=expected_turn_id)]
            if turn is None or (expected_turn_id or turn.turn_id) != turn.turn_id:
                return ()
            if current.open_turn is not None:
                found = turn.turn_id
            if current.state in ("waiting", "suspended"):
                return [e.TurnInterrupted(turn_id=turn.turn_id, reason=reason)]
            return [e.InterruptRequested(turn_id=turn.turn_id, reason=reason)] if current.state == "running" else ()

        session = await self.journal.record(session_id, decide, by=by)
        if found is None:
            return Interruption(False, False, session.turn.turn_id if session.turn else None)
        ended = await self.wait(session_id, found, wait_s)
        return Interruption(True, ended, found)

    async def wait(self, session_id: str, turn_id: str, seconds: float) -> bool:
        """Wait until the turn has ended or waits for its caller; whether it does. A dead owner is noticed."""
        session = await self.settled(session_id)
        if not _pending(session, turn_id):
            return True
        with anyio.move_on_after(seconds):
            async with self.journal.follow(session_id, after=session.seq) as log:
                while _pending(session, turn_id):
                    with anyio.move_on_after(OWNER_CHECK_INTERVAL_S):
                        events = await log.next()
                        if not events:
                            break
                        if not any(recorded.type in _MARKS for recorded in events):
                            continue
                    session = await self.settled(session_id)
        return not _pending(session, turn_id)

    async def outcome(self, session: Session, turn_id: str) -> TurnOutcome:
        """What came of a turn, so far or in the end."""
        latest = session.turn is not None and session.turn.turn_id == turn_id
        after = session.turn.first_seq - 1 if session.turn is not None and latest else 0
        log = self.journal.log(session.id, after=after, through=session.seq)
        return outcome(turn_id, [recorded.event async for recorded in log])

    async def settled(self, session_id: str) -> Session:
        """The session as it is, after what a dead process left was ended and what waits was begun, if it can be."""
        return await self.succession.settled(session_id)

    # ── admission ──

    async def _checked(
        self, prompt: str, settings: Settings, mode: PermissionMode | None = None
    ) -> tuple[Config, Plan]:
        config = await self.config()
        check(prompt, settings, mode, config)
        return config, self._plan(settings, config)

    def _plan(self, settings: Settings, config: Config) -> Plan:
        return plan(settings, config, self.providers)

    async def _admit(
        self,
        session_id: str,
        decide: Decision,
        config: Config,
        turn_id: str,
        claim: Claim | None = None,
        by: str | None = None,
    ) -> Started:
        """Record the beginning of a turn and work on it; neither without the other. A queued one needs no place."""
        place, full = await self._place(config)

        def admit(current: Session) -> Sequence[e.Event]:
            drafts = decide(current)
            if full is not None and any(isinstance(draft, e.TurnStarted | e.TurnResumed) for draft in drafts):
                raise full
            return drafts

        with anyio.CancelScope(shield=True):
            try:
                session = await self.journal.record(session_id, admit, claim=claim, by=by)
                planned = self._plan(session.settings, config)
                ours = session.active and session.turn is not None and session.turn.turn_id == turn_id
                if ours and place is not None:
                    given, place = place, None
                    await self.turns.start(session, planned, given, then=self.succession.go_on)
            except KeyTaken as exc:
                assert claim is not None, "only a claim's key can be taken"
                return same(exc.claim, claim.digest)
            finally:
                if place is not None:
                    place.free()
        return Started(session_id, turn_id)

    async def _place(self, config: Config) -> tuple[Place | None, LimitExceeded | None]:
        try:
            return await self.turns.reserve(config.limits.max_concurrent_turns), None
        except LimitExceeded as full:
            return None, full

    async def _created(
        self, session_id: str, drafts: Sequence[e.Event], claim: Claim | None, by: str | None
    ) -> Started:
        try:
            await self.journal.create(session_id, drafts, claim=claim, by=by)
        except KeyTaken as exc:
            assert claim is not None, "only a claim's key can be taken"
            return same(exc.claim, claim.digest)
        return Started(session_id, None)

    async def _configure(self, session_id: str, changing: Decision, by: str | None, *, given: bool) -> Started:
        if not given:
            raise InvalidRequest(
                "There is nothing to do.",
                hint="Give a prompt, tool_results, or settings to change.",
                session_id=session_id,
            )
        await self.journal.record(session_id, changing, by=by)
        return Started(session_id, None)

    def _claim(self, key: str | None, asked: str, session_id: str, turn_id: str | None) -> Claim | None:
        return None if key is None else Claim(key, asked, session_id, turn_id or "", self.journal.clock.now_ms())


_MARKS = e.TURN_PAUSES | {"prompt_dropped", "turn_started", "turn_suspended"}


def _pending(session: Session, turn_id: str) -> bool:
    """Whether a turn is still to be worked on: running, suspended, or queued."""
    if any(queued.turn_id == turn_id for queued in session.queue):
        return True
    at_work = session.active or session.state == "suspended"
    return at_work and session.turn is not None and session.turn.turn_id == turn_id
