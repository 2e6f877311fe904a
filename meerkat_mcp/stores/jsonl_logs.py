"""The logs of a realm of files: appending to them, reading them, and what is kept in memory of those in use.

What decides is done here on the event loop; the files are touched in threads. Each session has a *lane*: who appends
puts it in line and waits for the lane's lock, and whoever gets the lock writes for all that are in line by then, with
one write and one wait for the disk. Lanes do not wait for each other, but for a key that is being claimed.
"""

import logging
from collections import deque
from collections.abc import Callable, Collection, Generator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, replace
from functools import partial
from types import MappingProxyType
from typing import TypeVar

import anyio
from anyio.to_thread import run_sync

from meerkat_mcp.domain.errors import Corrupt, MeerkatError, SessionNotFound, StoreUnavailable, unknown_session
from meerkat_mcp.domain.events import DELTAS
from meerkat_mcp.domain.recorded import Recorded
from meerkat_mcp.domain.session import Session
from meerkat_mcp.stores import jsonl_file
from meerkat_mcp.stores.base import Append, Claim, KeyTaken, SequenceConflict, check_instead
from meerkat_mcp.stores.jsonl_file import Changed, unavailable
from meerkat_mcp.stores.jsonl_folder import Folder
from meerkat_mcp.stores.jsonl_index import Card, Index
from meerkat_mcp.stores.jsonl_log import Foreign, Line, Log, written
from meerkat_mcp.stores.jsonl_notes import Note

THREADS_MAX = 8
EVENTS_PER_WRITE_MAX = 512
LOGS_KEPT_MAX = 256
EVENTS_KEPT_MAX = 500_000
"""Where one event is takes 32 bytes of memory."""

T = TypeVar("T")

log = logging.getLogger(__name__)


@dataclass(slots=True, eq=False)
class _Job:
    """An append in line, and what came of it."""

    append: Append
    error: Exception | None = None
    settled: bool = False

    def settle(self, error: Exception | None = None) -> None:
        """It is written, or refused."""
        self.error, self.settled = error, True


class _Lane:
    """What stands in line before a session's file; kept as long as somebody uses the file."""

    def __init__(self) -> None:
        self.lock = anyio.Lock()
        self.line: deque[_Job] = deque()
        self.users = 0


@dataclass(slots=True)
class _Writing:
    """Appends that go into a file together."""

    at: int
    data: bytearray
    jobs: list[tuple[_Job, list[Line], int]]
    durable: bool = False

    def add(self, job: _Job) -> None:
        """One more; remembers where the file ends after it."""
        data, lines = written(job.append, self.at + len(self.data))
        self.data += data
        self.jobs.append((job, lines, self.at + len(self.data)))
        self.durable = self.durable or job.append.durable


class Logs:
    """Keeps the index up to date; `unsaved` are the sessions whose card is not as the index on disk has it.

    Every method raises StoreUnavailable, and Corrupt for a session whose file is damaged, beside what it names.
    """

    def __init__(self, folder: Folder, index: Index) -> None:
        self.unsaved: set[str] = set()
        self.claims = {claim.key: claim for card in index.cards.values() for claim in card.claims}
        self._folder = folder
        self._index = index
        self._claiming: dict[str, anyio.Event] = {}
        self._lanes: dict[str, _Lane] = {}
        self._kept: dict[str, Log] = {}
        self._leaving: set[str] = set()
        self._threads = anyio.CapacityLimiter(THREADS_MAX)

    async def append(self, append: Append) -> None:
        """Write events, together with others that are in line. Raises SequenceConflict, KeyTaken."""
        job, session_id = _Job(append), append.session.id
        with self._lane(session_id) as lane:
            lane.line.append(job)
            try:
                async with lane.lock:
                    with anyio.CancelScope(shield=True):
                        while not job.settled:
                            await self._write(session_id, lane)
            finally:
                if job in lane.line:  # cancelled before anybody took it
                    lane.line.remove(job)
        if job.error is not None:
            raise job.error

    async def session(self, session_id: str) -> Session:
        """The session as of its last event. Raises SessionNotFound."""
        with self._lane(session_id) as lane:
            found = await self._log(session_id, lane)
        if found is None:
            raise unknown_session(session_id)
        return found.session

    async def read(
        self, session_id: str, *, after: int, limit: int, types: Collection[str], through: int | None
    ) -> Sequence[Recorded]:
        """The events of a log, see `Store.read`."""
        with self._lane(session_id) as lane:
            while True:
                found = await self._log(session_id, lane)
                lines = found.table.select(after, through, types, limit) if found else []
                if found is None or not lines:
                    return []
                version, events = found.version, list[Recorded]()
                try:
                    events = await self._in_thread(session_id, partial(self._folder.events, session_id, lines))
                except StoreUnavailable:
                    if found.version == version:
                        raise
                if found.version == version:
                    return events

    async def delete(self, session_id: str) -> bool:
        """Forget a session and remove its file; whether there was one. After StoreUnavailable it may still be there."""
        with self._lane(session_id) as lane:
            async with lane.lock:
                self._drop(session_id)
                broken = self._folder.broken.pop(session_id, None) is not None
                if there := self._forget(session_id) or broken or session_id in self._leaving:
                    self._leaving.add(session_id)
                    await self._in_thread(session_id, partial(self._folder.erase, session_id))
                    self._leaving.discard(session_id)
                return there

    async def tidy(self, session_id: str, without: Collection[int], instead: Sequence[Recorded]) -> None:
        """Take deltas out and put other events in the place of some, see `Store.tidy`. Raises ValueError."""
        with self._lane(session_id) as lane:
            async with lane.lock:
                if (found := await self._opened(session_id)) is None:
                    return
                types = found.table.types
                types.pop(found.session.seq)
                check_instead(types.items(), instead)
                gone = {seq for seq in without if types.get(seq) in DELTAS}
                other = {each.seq: each.body + b"\n" for each in instead if each.seq in types}
                if gone or other:
                    await self._rewrite(session_id, found, gone, other)

    async def put_claim(self, claim: Claim) -> None:
        """Keep a claim, unless its key is taken. Raises SessionNotFound."""
        with self._lane(claim.session_id) as lane:
            async with lane.lock:
                while going_on := self._claiming.get(claim.key):
                    await going_on.wait()
                if claim.key in self.claims:
                    return
                self._claiming[claim.key] = anyio.Event()
                try:
                    await self._note(claim.session_id, Note(0, claim=claim))
                finally:
                    self._claiming.pop(claim.key).set()

    async def prune_claims(self, created_before_ms: int) -> int:
        """Forget claims that are older; how many they were."""
        old = [claim for claim in self.claims.values() if claim.created_ms < created_before_ms]
        for session_id in {claim.session_id for claim in old}:
            with self._lane(session_id) as lane, suppress(Corrupt, SessionNotFound):
                async with lane.lock:
                    await self._note(session_id, Note(0, forgotten_ms=created_before_ms), durable=False)
        return len(old)

    async def finish(self) -> None:
        """Wait until everything in line is written."""
        for lane in list(self._lanes.values()):
            async with lane.lock:
                pass

    # ── writing ──

    async def _note(self, session_id: str, note: Note, *, durable: bool = True) -> None:
        """Write a note that has no events; under the lane's lock. Raises SessionNotFound."""
        if (found := await self._opened(session_id)) is None:
            raise unknown_session(session_id)
        path, data = self._folder.file(session_id), note.line
        write = partial(jsonl_file.append, path, data, at=found.size, durable=durable)
        changed_ns = await self._in_thread(session_id, write)
        before = found.claims
        found.enter((), note, found.size + len(data))
        for claim in before:
            if claim not in found.claims:
                self.claims.pop(claim.key, None)
        if note.claim:
            self.claims[note.claim.key] = note.claim
        card = self._index.cards[session_id]
        self._put(replace(card, size=found.size, changed_ns=changed_ns, claims=found.claims))

    async def _write(self, session_id: str, lane: _Lane) -> None:
        """Write what is in line, or as much of it as goes together; under the lane's lock."""
        try:
            found = await self._opened(session_id) or Log(Session(id=session_id), Session(id=session_id))
        except MeerkatError as error:
            while lane.line:
                lane.line.popleft().settle(error)
            return
        writing = self._composed(lane, found)
        if not writing.jobs:
            if lane.line and (claim := lane.line[0].append.claim):
                await self._claiming[claim.key].wait()
            return
        keys = [job.append.claim.key for job, _, _ in writing.jobs if job.append.claim]
        self._claiming |= {key: anyio.Event() for key in keys}
        path, data = self._folder.file(session_id), bytes(writing.data)
        write = partial(jsonl_file.append, path, data, at=writing.at, durable=writing.durable)
        try:
            changed_ns = await self._in_thread(session_id, write)
        except StoreUnavailable as error:
            for job, _, _ in writing.jobs:
                job.settle(error)
        else:
            self._commit(session_id, found, writing, changed_ns)
        finally:
            for key in keys:
                self._claiming.pop(key).set()
        if found.wasteful and self._kept.get(session_id) is found:
            try:
                await self._rewrite(session_id, found)
            except StoreUnavailable as error:
                log.warning("A file could not be made smaller: %s", error.message)

    def _composed(self, lane: _Lane, found: Log) -> _Writing:
        """Take from the line what can enter now; refuse what cannot."""
        writing, last, events = _Writing(found.size, bytearray(), []), found.session.seq, 0
        claiming: set[str] = set()
        while lane.line and events < EVENTS_PER_WRITE_MAX:
            append = lane.line[0].append
            claim = append.claim
            if claim and (claim.key in self._claiming or claim.key in claiming):
                break  # whether it is taken is known when that is written
            job = lane.line.popleft()
            if claim and claim.key in self.claims:
                job.settle(KeyTaken(self.claims[claim.key]))
            elif append.after != last:
                job.settle(SequenceConflict(append.session.id))
            else:
                writing.add(job)
                last, events = append.events[-1].seq, events + len(append.events)
                if claim:
                    claiming.add(claim.key)
        return writing

    def _commit(self, session_id: str, found: Log, writing: _Writing, changed_ns: int) -> None:
        """It is in the file: have everybody see it."""
        shown = found.shown
        for job, lines, end in writing.jobs:
            found.take(job.append, lines, end)
            if claim := job.append.claim:
                self.claims[claim.key] = claim
            job.settle()
        card = self._index.cards.get(session_id)
        if card is None or found.shown is not shown:
            card = Card.of(found.shown, size=found.size, changed_ns=changed_ns, claims=found.claims)
        else:
            card = replace(card, size=found.size, changed_ns=changed_ns, claims=found.claims)
        self._put(card)
        self._keep(session_id, found)

    async def _rewrite(
        self,
        session_id: str,
        found: Log,
        without: Collection[int] = (),
        instead: Mapping[int, bytes] = MappingProxyType({}),
    ) -> None:
        """Give the disk back what was superseded, and more. If that cannot be done, the log is as good as before."""
        found.version += 1
        found.wasted = 0  # so that it is not tried at every append
        rewrite = partial(self._folder.rewrite, session_id, found, without, instead)
        try:
            fresh, changed_ns = await self._in_thread(session_id, rewrite)
            found.table, found.size = fresh.table, fresh.size
            self._put(replace(self._index.cards[session_id], size=found.size, changed_ns=changed_ns))
        finally:
            found.version += 1

    def _put(self, card: Card) -> None:
        self._index.put(card)
        self.unsaved.add(card.id)

    # ── what is kept ──

    @contextmanager
    def _lane(self, session_id: str) -> Generator[_Lane]:
        lane = self._lanes.setdefault(session_id, _Lane())
        lane.users += 1
        try:
            yield lane
        finally:
            lane.users -= 1
            if not lane.users:
                del self._lanes[session_id]

    async def _log(self, session_id: str, lane: _Lane) -> Log | None:
        """What is known of a session's file; None when there is no such session."""
        found = self._kept.get(session_id)
        if found is None or found.version % 2:
            async with lane.lock:
                return await self._opened(session_id)
        return found

    async def _opened(self, session_id: str) -> Log | None:
        """The same, under the lane's lock."""
        if (found := self._kept.get(session_id)) is not None:
            return found
        if (broken := self._folder.broken.get(session_id)) is not None:
            raise broken
        if (card := self._index.cards.get(session_id)) is None:
            return None
        try:
            found, fresh = await self._in_thread(session_id, partial(self._folder.log, session_id, card))
        except Corrupt as corrupt:
            self._folder.broken[session_id] = corrupt
            self._forget(session_id)
            raise
        if fresh != card:
            self._forget(session_id)
            if fresh is None:
                return None
            self.claims |= {claim.key: claim for claim in fresh.claims}
            self._put(fresh)
        self._keep(session_id, found)
        return found

    def _keep(self, session_id: str, found: Log) -> None:
        """Keep what is known of a file; let go of what was not used for the longest time, when it is too much."""
        was_kept = self._kept.pop(session_id, None) is not None
        self._kept[session_id] = found
        while not was_kept and self._too_much():
            idle = next((one for one in self._kept if one not in self._lanes), None)
            if idle is None:
                return
            del self._kept[idle]

    def _too_much(self) -> bool:
        events = sum(len(found.table) for found in self._kept.values())
        return len(self._kept) > LOGS_KEPT_MAX or events > EVENTS_KEPT_MAX

    def _forget(self, session_id: str) -> bool:
        card = self._index.remove(session_id)
        for claim in card.claims if card else ():
            self.claims.pop(claim.key, None)
        return card is not None

    def _drop(self, session_id: str) -> None:
        if (found := self._kept.pop(session_id, None)) is not None:
            found.version += 2

    async def _in_thread(self, session_id: str, function: Callable[[], T]) -> T:
        """What `function` returns, which works on the session's file."""
        try:
            return await run_sync(function, limiter=self._threads)
        except OSError as error:
            raise unavailable(error, self._folder.file(session_id)) from error
        except (Changed, Foreign) as error:
            self._drop(session_id)
            raise StoreUnavailable(
                f"{self._folder.file(session_id).name} was changed by another program.",
                hint="Only one program may write to it at a time. Try again: then it is read anew.",
            ) from error
