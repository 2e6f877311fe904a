"""One log, many readers in the same process."""

from collections.abc import Sequence
from contextlib import suppress
from statistics import median
from time import perf_counter, process_time

import anyio
import anyio.lowlevel
from anyio.abc import ObjectReceiveStream, TaskGroup

from benchmarks.places import clock
from benchmarks.results import Row, Scale, alternating, at_most
from meerkat_mcp.domain.events import Event, Owner, SessionCreated, TextDelta, TurnStarted
from meerkat_mcp.domain.recorded import Recorded
from meerkat_mcp.domain.session import Session
from meerkat_mcp.domain.settings import Settings
from meerkat_mcp.sessions.journal import Follower, Journal
from meerkat_mcp.stores.base import Append
from meerkat_mcp.stores.memory import MemoryStore

READERS = 100
BATCH = 10
"""Events that are recorded together: as a flood leaves the pen."""


class Sink(MemoryStore):
    """Keeps the session and drops the events: readers at the end of the log need none of them."""

    def __init__(self) -> None:
        super().__init__()
        self._at: dict[str, Session] = {}

    async def append(self, append: Append) -> None:
        self._at[append.session.id] = append.session

    async def load(self, session_id: str) -> Session:
        return self._at[session_id]

    async def read(self, session_id: str, *, after: int = 0, **_: object) -> Sequence[Recorded]:
        return ()


class Crowd:
    """Readers of one session in a journal, and what they got."""

    def __init__(self) -> None:
        self.journal = Journal(Sink(), clock)
        self.session_id = clock.new_id()
        self.logs: list[Follower] = []
        self.last = 2
        self.got = 0

    async def begin(self, tasks: TaskGroup, readers: int) -> None:
        owner = Owner(instance_id="i", incarnation="i", host="h", pid=1)
        started = TurnStarted(turn_id="t", prompt="p", owner=owner)
        await self.journal.create(self.session_id, [SessionCreated(settings=Settings()), started])
        tasks.start_soon(self.journal.run)
        for _ in range(readers):
            await tasks.start(self._read)

    async def _read(self, *, task_status: anyio.abc.TaskStatus[None]) -> None:
        async with self.journal.follow(self.session_id, after=2) as log:
            self.logs.append(log)
            task_status.started()
            while True:
                events = await log.next()
                self.got += len(events)

    async def record(self, count: int) -> None:
        deltas: list[Event] = [TextDelta(turn_id="t", text="a few words")] * count
        self.last = (await self.journal.record(self.session_id, lambda _: deltas)).seq

    async def caught_up(self) -> None:
        """Wait until every reader has everything; the store has nothing for those who fell behind the tail."""
        while any(log.seq < self.last for log in self.logs):  # noqa: ASYNC110 - it is not them that are measured
            await anyio.sleep(0.001)
        if self.got < 0.95 * len(self.logs) * (self.last - 2):
            raise RuntimeError(f"readers fell behind: {self.got} of {len(self.logs) * (self.last - 2)}")


def fanout(scale: Scale) -> Sequence[Row]:
    """CPU to hand one event to 100 readers at saturation: a journal's followers, against an anyio stream for each."""
    events = scale.of(1000, 3000)
    costs: tuple[list[float], list[float]] = ([], [])
    for which in alternating(scale.of(3, 7)):
        if which == 0:  # what the recording itself costs is taken off
            cost = anyio.run(_by_journal, READERS, events) - anyio.run(_by_journal, 0, events)
        else:
            cost = anyio.run(_by_streams, READERS, events)
        costs[which].append(cost)
    what = f"CPU to hand an event to {READERS} readers, vs an anyio stream each"
    return [Row("10", what, "us", *map(median, costs), at_most(0.05))]


async def _by_journal(readers: int, events: int) -> float:
    crowd = Crowd()
    async with anyio.create_task_group() as tasks:
        await crowd.begin(tasks, readers)
        before = process_time()
        for _ in range(events // BATCH):
            await crowd.record(BATCH)
        await crowd.caught_up()
        cost = (process_time() - before) / events * 1e6
        tasks.cancel_scope.cancel()
    return cost


async def _by_streams(readers: int, events: int) -> float:
    got = 0
    event = Recorded(1, "text_delta", b"{}")

    async def read(stream: ObjectReceiveStream[Recorded]) -> None:
        nonlocal got
        with suppress(anyio.EndOfStream):
            while True:
                await stream.receive()
                got += 1

    async with anyio.create_task_group() as tasks:
        senders = []
        for _ in range(readers):
            sender, receiver = anyio.create_memory_object_stream[Recorded](float("inf"))
            senders.append(sender)
            tasks.start_soon(read, receiver)
        await anyio.lowlevel.checkpoint()
        before = process_time()
        for number in range(events):
            for sender in senders:
                sender.send_nowait(event)
            if number % BATCH == BATCH - 1:
                await anyio.lowlevel.checkpoint()
        while got < readers * events:  # noqa: ASYNC110 - the same way as above
            await anyio.sleep(0.001)
        cost = (process_time() - before) / events * 1e6
        tasks.cancel_scope.cancel()
    return cost


def fanout_paced(scale: Scale) -> Sequence[Row]:
    """Share of a core that 1000 events/s to 1000 readers take, recording included (into a store that keeps nothing)."""
    shares = [anyio.run(_paced, 1000, scale.of(1, 3)) for _ in range(scale.of(1, 3))]
    return [Row("10", "1000 events/s to 1000 readers", "cores", median(shares), None, at_most(0.5))]


async def _paced(readers: int, seconds: int) -> float:
    crowd = Crowd()
    async with anyio.create_task_group() as tasks:
        await crowd.begin(tasks, readers)
        worked, started, count = process_time(), perf_counter(), 0
        while (due := perf_counter() - started) < seconds:
            if behind := int(due * 1000) - count:
                await crowd.record(behind)
                count += behind
            await anyio.sleep(0.001)
        await crowd.caught_up()
        share = (process_time() - worked) / (perf_counter() - started)
        tasks.cancel_scope.cancel()
    return share
