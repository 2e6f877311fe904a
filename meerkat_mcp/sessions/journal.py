"""The one door to the logs of a realm: record an event, follow a log.

For every session that something in this process is busy with, the journal keeps a *tail*: the session as of
its last known event, and the latest events with their JSON. Followers hold a cursor and nothing else; they
read from the tail, or from the store when they are further back, so a slow one holds nobody up. Events of
other processes come in through `Store.changes`, a doorbell: the log is the truth.

A decision (`Decision`) is a function from the session to the events that should follow. It may be asked again:
when another writer was first, when it refused on a session that turned out to be stale, or when it found
nothing to do on one. Whoever says the same again because the store gave no answer gives its drafts ids of their own
(`event_id`): then what was taken after all is not taken twice.
"""

import logging
from collections.abc import AsyncGenerator, Callable, Collection, Sequence
from contextlib import asynccontextmanager
from dataclasses import replace
from types import TracebackType
from typing import Protocol

import anyio

from meerkat_mcp.domain.errors import MeerkatError, StoreUnavailable
from meerkat_mcp.domain.events import TURN_PAUSES, Event
from meerkat_mcp.domain.recorded import Recorded, encode, place
from meerkat_mcp.domain.session import SHOWN, Session, advance
from meerkat_mcp.sessions.clock import Clock
from meerkat_mcp.sessions.tail import COMPLETES, Tail, pieces_begin
from meerkat_mcp.stores.base import Append, Claim, SequenceConflict, Store, is_full

WAKE_REST_S = 0.000_02
WAKE_REST_S_MAX = 0.05
"""How long to rest for each follower that was woken, a few times what waking it costs: one is told of every event
at once, a thousand of a flood of events every 20 ms."""
PAGE_EVENTS = 200
"""Small enough for a store to read it in passing, without another thread."""
RECONNECT_DELAY_S = 1.0

Decision = Callable[[Session], Sequence[Event]]

log = logging.getLogger(__name__)


class Listener(Protocol):
    """Is told at once, in the event loop, of what changes in any session. It must neither wait nor raise."""

    def recorded(self, append: Append, seconds: float) -> None:
        """This process recorded something; the store took `seconds` for it."""
        ...

    def heard(self, session_ids: Collection[str]) -> None:
        """Other processes recorded something in these sessions, or this one deleted them."""
        ...

    def lagged(self, seconds: float) -> None:
        """Followers here are told now of what another process recorded so long ago, by its clock."""
        ...


class Journal:
    """The logs of one realm, as one process sees them. `run` must be running for it to hear and to wake."""

    def __init__(self, store: Store, clock: Clock) -> None:
        self.store = store
        self.clock = clock
        self.listeners: set[Listener] = set()
        self.ending = False
        self._tails: dict[str, Tail] = {}
        self._loading = anyio.Lock()
        self._missed: set[str] = set()
        self._dirty: set[Tail] = set()
        self._stirred = anyio.Event()

    async def run(self) -> None:
        """Hear what other processes record, wake who follows. Runs until cancelled."""
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(self._wake_followers)
            tasks.start_soon(self._hear_others)

    async def load(self, session_id: str) -> Session:
        """The session as of its last event. Raises SessionNotFound."""
        return await self.store.load(session_id)

    async def log(
        self, session_id: str, *, after: int = 0, through: int | None = None
    ) -> AsyncGenerator[Recorded, None]:
        """The events of a log that are there, in order, read page by page."""
        while True:
            page = await self.store.read(session_id, after=after, through=through, limit=PAGE_EVENTS)
            for recorded in page:
                yield recorded
            if not is_full(page, PAGE_EVENTS):
                return
            after = page[-1].seq

    async def create(
        self, session_id: str, drafts: Sequence[Event], *, claim: Claim | None = None, by: str | None = None
    ) -> Session:
        """Begin a log, for the principal `by`. Raises KeyTaken, StoreUnavailable."""
        append = self.placed(Session(id=session_id), drafts, claim, by)
        with anyio.CancelScope(shield=True):
            await self._append(append)
        return append.session

    async def enter(self, append: Append) -> None:
        """Record what was put together elsewhere: a log, or a page of one, that is a copy.

        Raises SequenceConflict, StoreUnavailable.
        """
        with anyio.CancelScope(shield=True):
            await self._append(append)

    async def record(
        self, session_id: str, decide: Decision, *, claim: Claim | None = None, by: str | None = None
    ) -> Session:
        """Let the log go on with what `decide` makes of the session; nothing, when it decides so.

        `by` is the principal who wants it. Once begun it is finished, even when the caller is cancelled.

        Raises:
            SessionNotFound, KeyTaken, StoreUnavailable, and whatever `decide` raises.
        """
        async with self.tail(session_id) as tail:
            return await self._shielded(tail, decide, claim, by)

    @asynccontextmanager
    async def tail(self, session_id: str) -> AsyncGenerator[Tail]:
        """Keep a log's tail in memory while it is used."""
        async with self._loading:
            while (tail := self._tails.get(session_id)) is None:
                self._missed.clear()
                session = await self.store.load(session_id)
                if session_id not in self._missed:  # else others recorded meanwhile, and it may be older than that
                    self._tails[session_id] = Tail(session, base=session.seq)
            tail.users += 1
        try:
            yield tail
        finally:
            tail.users -= 1
            if not tail.users and self._tails.get(session_id) is tail:
                del self._tails[session_id]

    def follow(self, session_id: str, *, after: int, to_the_last: bool = False) -> "Follower":
        """Stand in a log: what is recorded after `after`, then what comes, each event once, in order.

        A turn follows its own log `to_the_last`: also when the process ends.
        """
        return Follower(self, session_id, after, to_the_last)

    @property
    def followers(self) -> int:
        """How many places in logs are kept here at this moment."""
        return sum(tail.users for tail in self._tails.values())

    def stop_following(self) -> None:
        """The process ends: whoever waits for an event is told that none comes any more. Recording goes on."""
        self.ending = True
        for tail in self._tails.values():
            tail.wake()

    def forget(self, session_id: str) -> None:
        """A session was deleted: let those who follow it find out."""
        tail = self._tails.pop(session_id, None)
        if tail is not None:
            self._stir(tail)
        for listener in self.listeners:
            listener.heard((session_id,))

    # ── recording ──

    async def _shielded(self, tail: Tail, decide: Decision, claim: Claim | None, by: str | None) -> Session:
        session = tail.session
        with anyio.CancelScope(shield=True):
            await tail.lock.acquire()
            try:
                session = await self._record(tail, decide, claim, by)
            finally:
                tail.lock.release()
        return session

    async def _record(self, tail: Tail, decide: Decision, claim: Claim | None, by: str | None) -> Session:
        fresh, follows = tail.doubt is not None and await self._catch_up(tail), None
        while True:
            try:
                drafts = tail.fresh(decide(tail.session))
                append = self.placed(tail.session, drafts, claim, by) if drafts else None
            except MeerkatError:
                if fresh or not await self._catch_up(tail):
                    raise
                fresh = True
                continue
            if append is None:
                if fresh or not await self._catch_up(tail):
                    return tail.session
                fresh = True
                continue
            append = replace(_superseding(append, tail.first_delta), follows=follows)
            try:
                await self._append(append)
            except SequenceConflict:
                if not await self._catch_up(tail):
                    follows = await self._shorter(tail)
                continue
            except StoreUnavailable:
                tail.doubt = tail.session.seq if tail.doubt is None else tail.doubt
                raise
            tail.doubt = None
            self._take(tail, append.session, append.events)
            return tail.session

    async def _shorter(self, tail: Tail) -> int | None:
        """Where a log ends that has lost deltas, as in a failover to a machine that had not got everything: the next
        events go into the places after those that were told of. None if it lost none, or if somebody went on without
        them: then their log counts. Raises SessionNotFound.
        """
        there = await self.store.load(tail.session.id)
        if there.seq >= tail.session.seq:
            return None
        if there.model_copy(update={"seq": tail.session.seq}) == tail.session:
            return there.seq
        tail.begin_anew(there)
        return None

    async def _append(self, append: Append) -> None:
        """Append. When the answer is lost on its way back, the log says whether the work was done."""
        begun_s = anyio.current_time()
        try:
            await self.store.append(append)
        except StoreUnavailable:
            last = append.events[-1]
            if last not in await self.store.read(append.session.id, after=last.seq - 1, limit=1):
                raise
        for listener in self.listeners:
            listener.recorded(append, anyio.current_time() - begun_s)

    def placed(
        self, session: Session, drafts: Sequence[Event], claim: Claim | None = None, by: str | None = None
    ) -> Append:
        """Drafts in the places after a session's last event, if they may come there; nothing is recorded by this."""
        now_ms, events = self.clock.now_ms(), list[Recorded]()
        for draft in drafts:
            session.check(draft)
            event = place(
                draft,
                event_id=draft.event_id or self.clock.new_id(),
                seq=session.seq + 1,
                session_id=session.id,
                turn_id=None,
                timestamp_ms=now_ms,
                principal=by,
            )
            session = advance(session, event)
            events.append(encode(event))
        return Append(session, events, shown=any(isinstance(draft, SHOWN) for draft in drafts), claim=claim)

    # ── hearing ──

    async def _catch_up(self, tail: Tail) -> bool:
        """Take in what others recorded; whether there was any."""
        before, session = tail.session.seq, tail.session
        events = [recorded async for recorded in self.log(session.id, after=before)]
        timestamp_ms = 0
        for recorded in events:
            event = recorded.event
            session, timestamp_ms = advance(session, event), event.timestamp_ms
        if events:
            self._take(tail, session, events)
            for listener in self.listeners:
                listener.lagged(max(0, self.clock.now_ms() - timestamp_ms) / 1000)
        return bool(events)

    def _take(self, tail: Tail, session: Session, events: Sequence[Recorded]) -> None:
        tail.session = session
        tail.extend(events)
        if any(recorded.type in _AWAITED for recorded in events):
            tail.wake()
        else:
            self._stir(tail)

    def _stir(self, tail: Tail) -> None:
        self._dirty.add(tail)
        self._stirred.set()

    async def _wake_followers(self) -> None:
        while True:
            await self._stirred.wait()
            self._stirred = anyio.Event()
            dirty, self._dirty = self._dirty, set()
            for tail in dirty:
                await tail.wake_in_slices()
            await anyio.sleep(min(WAKE_REST_S_MAX, WAKE_REST_S * sum(tail.users for tail in dirty)))

    async def _hear_others(self) -> None:
        while True:
            try:
                async for changed in self.store.changes():
                    await self._hear(changed)
            except StoreUnavailable as exc:
                log.warning("Cannot hear other processes: %s", exc.message)
            await anyio.sleep(RECONNECT_DELAY_S)

    async def _hear(self, changed: Collection[str]) -> None:
        for listener in self.listeners:
            listener.heard(changed)
        for session_id in changed:
            tail = self._tails.get(session_id)
            if tail is not None:
                async with tail.lock:
                    await self._catch_up(tail)
            elif self._loading.locked():
                self._missed.add(session_id)


class Follower:
    """A place in a log. `next` may be cancelled and called again; nothing is missed by that."""

    def __init__(self, journal: Journal, session_id: str, after: int, to_the_last: bool) -> None:
        self._journal = journal
        self._to_the_last = to_the_last
        self._kept = journal.tail(session_id)
        self._tail: Tail | None = None
        self._place = 0
        self.seq = after

    async def __aenter__(self) -> "Follower":
        self._tail = await self._kept.__aenter__()
        self._place = self._tail.users
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, exc: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self._kept.__aexit__(kind, exc, trace)

    @property
    def session(self) -> Session:
        """The session, as far as this process knows it."""
        assert self._tail is not None, "a follower is used inside `async with`"
        return self._tail.session

    async def next(self) -> Sequence[Recorded]:
        """The next events, at least one; waits for it. None when the process ends."""
        while True:
            assert self._tail is not None, "a follower is used inside `async with`"
            changed = self._tail.bell(self._place)
            if (events := await self.ready()) or (self._journal.ending and not self._to_the_last):
                return events
            await changed.wait()

    async def ready(self) -> Sequence[Recorded]:
        """The next events that are there already; none, when there are none."""
        tail = self._tail
        assert tail is not None, "a follower is used inside `async with`"
        events = tail.after(self.seq)
        if events is None:
            base = tail.base
            events = await self._journal.store.read(tail.session.id, after=self.seq, through=base, limit=PAGE_EVENTS)
            if not events:
                self.seq = max(self.seq, base)
                events = tail.after(self.seq) or ()
        if events:
            self.seq = events[-1].seq
        return events


_AWAITED = TURN_PAUSES | {"interrupt_requested"}
"""Somebody stands still until one of these comes: it is told at once, even in a flood."""


def _superseding(append: Append, first_delta: int | None) -> Append:
    """A completed text takes the place of its deltas, which begin at `first_delta`; an abandoned step's stay."""
    completes = [at for at, recorded in enumerate(append.events) if recorded.type in COMPLETES]
    begin = (pieces_begin(append.events[:at], first_delta) for at in completes)
    return replace(append, supersedes=next(filter(None, begin), None))
