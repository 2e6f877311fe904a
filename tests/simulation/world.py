"""A small world: a few processes on one store, callers that do this and that, and bad luck. All of it by one seed."""

from collections.abc import Awaitable, Callable
from contextlib import suppress
from dataclasses import dataclass, field
from functools import partial
from random import Random
from typing import Any

import anyio
import anyio.abc
from simulation import promises
from simulation.faults import Crashed, Shared, View, Weather
from simulation.house import House
from simulation.model import WildModel
from simulation.promises import Ledger
from simulation.virtual import VirtualClock

from meerkat_mcp.domain import events as e
from meerkat_mcp.domain.errors import MeerkatError, StoreUnavailable
from meerkat_mcp.domain.session import Session
from meerkat_mcp.sessions import reading
from meerkat_mcp.sessions.journal import Journal
from meerkat_mcp.sessions.providers import Providers, Wire
from meerkat_mcp.sessions.service import Sessions
from meerkat_mcp.sessions.shelf import Shelf
from meerkat_mcp.sessions.streams import Reading, Streams
from meerkat_mcp.sessions.turns import LEASE_S, Turns
from meerkat_mcp.sessions.upkeep import QUIET_INTERVAL_S, RESERVED_S, Upkeep

PROCESSES_MAX = 3
CALL_S = 120.0
"""Longer than any call may take: its own waits are 20 s at most, a frozen process wakes up after 30 s."""
FREEZE_S_MAX = 30.0
REST_S = 60.0


@dataclass
class Answer:
    """What came of a call: a value, an error, or nothing, when its process or its caller was gone first."""

    value: Any = None
    error: MeerkatError | None = None
    came: bool = False
    over: anyio.Event = field(default_factory=anyio.Event)

    def __str__(self) -> str:
        if self.error is not None:
            return f"{self.error.code}: {self.error.message}"
        match self.value:
            case Session(seq=seq, state=state):
                return f"{state} at {seq}"
            case Reading(events=events, next_seq=next_seq):
                return f"{[recorded.seq for recorded in events]}, next {next_seq}"
            case list() | tuple() | object(sessions=_) | object(messages=_):
                return "…"
            case value if self.came:
                return f"{value}"
        return "lost"


@dataclass
class Watcher:
    """A follower in a process, and what it saw."""

    process: "Process"
    session_id: str
    after: int
    seen: list[e.Event] = field(default_factory=list[e.Event])

    async def watch(self) -> None:
        while True:
            with suppress(StoreUnavailable):
                last = self.seen[-1].seq if self.seen else self.after
                async with self.process.journal.follow(self.session_id, after=last) as log:
                    while True:
                        self.seen += [recorded.event for recorded in await log.next()]
            await anyio.sleep(0.05)


class Process:
    """A realm opened by one process, until it is closed or dies."""

    def __init__(self, world: "World", name: str) -> None:
        self.world, self.name = world, name
        self.view = View(world.shared, name)
        self.clock = VirtualClock(Random(f"{world.seed} clock {name}"), world.random.randint(-1000, 1000))
        owner = e.Owner(instance_id=name, incarnation=self.clock.new_id(), host="here", pid=1)
        self.view.incarnation = owner.incarnation
        self.journal = Journal(self.view, self.clock)
        self.serves = world.random.random() < 0.7
        self.turns = Turns(self.journal, owner, world.house, hands_over=self.serves)
        providers = Providers({"demo": Wire(lambda _: world.model)}, lookup=lambda _: None)
        self.sessions = Sessions(self.journal, self.turns, providers)
        self.reading = reading.Reading("den", self.journal, self.turns)
        self.shelf = Shelf(self.sessions)
        self.streams = Streams(self.sessions)
        self.tasks: anyio.abc.TaskGroup | None = None

    async def live(self, *, task_status: anyio.abc.TaskStatus[None]) -> None:
        """As `realms.open_realm` does it."""
        try:
            async with anyio.create_task_group() as tasks:
                self.tasks = tasks
                await tasks.start(self.turns.run)
                tasks.start_soon(self.journal.run)
                if self.serves:
                    tasks.start_soon(Upkeep(self.sessions).run)
                task_status.started()
        except BaseExceptionGroup as group:
            if group.split(Crashed)[1] is not None:
                raise
        finally:
            self.tasks = None

    @property
    def up(self) -> bool:
        return self.tasks is not None and not self.tasks.cancel_scope.cancel_called

    def close(self) -> None:
        if self.tasks is not None:
            self.tasks.cancel_scope.cancel()

    async def leave(self, within_s: float) -> None:
        """As a server ends: its turns come to the end of their step, if that is soon."""
        await self.turns.end(within_s)
        self.close()

    def crash(self) -> None:
        self.view.crash()
        self.close()

    async def call(self, what: Callable[[], Awaitable[Any]], *, patience_s: float | None = None) -> Answer:
        """Have the process do something for a caller, who may lose patience."""
        answer = Answer()

        async def serve() -> None:
            try:
                with anyio.fail_after(CALL_S), anyio.move_on_after(patience_s):
                    answer.value = await what()
                    answer.came = True
            except MeerkatError as exc:
                answer.error = exc
            except TimeoutError:
                raise AssertionError(f"a call did not come back from {self.name} in {CALL_S} s") from None
            finally:
                answer.over.set()

        if self.tasks is not None and self.up:
            self.tasks.start_soon(serve)
            await answer.over.wait()
        return answer


class World:
    """Everything there is, for one seed."""

    def __init__(self, seed: int, caller: Callable[["World", int], Any]) -> None:
        self.seed = seed
        self._caller = caller
        self.random = Random(f"{seed} world")
        self.model = WildModel(seed)
        self.house = House(seed)
        self.ledger = Ledger()
        self.shared = Shared(seed, committed=self._committed)
        self.processes: list[Process] = []
        self.session_ids: list[str] = []
        self.watchers: list[Watcher] = []
        self.prompts: dict[str, set[str]] = {}
        self.story: list[str] = []
        self._calm = True
        self._tasks: anyio.abc.TaskGroup | None = None

    # ── its course ──

    async def run(self) -> None:
        """Live, come to rest, and keep every promise."""
        async with anyio.create_task_group() as self._tasks:
            for _ in range(self.random.randint(1, PROCESSES_MAX)):
                await self.spawn()
            try:
                async with anyio.create_task_group() as busy:
                    for number in range(self.random.randint(1, 3)):
                        busy.start_soon(self._caller(self, number).live)
                    busy.start_soon(self._fate)
                await self._rest()
            except BaseException:
                for process in self.processes:
                    process.crash()  # whoever is frozen would never hear that all is over
                raise
            for process in self.processes:
                process.close()

    async def spawn(self) -> Process:
        process = Process(self, f"p{len(self.processes) + 1}")
        self.processes.append(process)
        assert self._tasks is not None
        await self._tasks.start(process.live)
        self.say(f"{process.name} starts")
        return process

    def say(self, what: str) -> None:
        self.story.append(f"{anyio.current_time():9.3f}  {what}")

    def _committed(self, view: View, append: Any) -> None:
        kinds = " ".join(f"{recorded.seq}:{recorded.type}" for recorded in append.events)
        self.say(f"          {view.name} records in {append.session.id[-4:]}: {kinds}")
        for recorded in append.events:
            if self._calm and recorded.type == "turn_interrupted" and not append.begins:
                lost = recorded.event.reason == "owner_lost"
                owner = self.ledger.sessions[append.session.id].turn.owner.instance_id
                assert not lost or owner not in [process.name for process in self.up], f"{owner} is there, and works"
        self.ledger.committed(view, append)

    @property
    def up(self) -> list[Process]:
        return [process for process in self.processes if process.up]

    async def _fate(self) -> None:
        """Bad luck, as much of it as this seed has."""
        random = Random(f"{self.seed} fate")
        for _ in range(random.choice((0, 2, 4, 8))):
            await anyio.sleep(random.choice((0.01, 0.3, 2.0, 6.0)))
            awake = [process for process in self.up if not process.view.frozen]
            strike = random.choice((self._crash, self._freeze, self._close, self._storm, self._storm, self._outage))
            if strike in (self._crash, self._freeze, self._close) and not awake:
                continue
            await strike(random, random.choice(awake) if awake else None)
            if len(self.up) < 2 or (len(self.up) < PROCESSES_MAX and random.random() < 0.3):
                await self.spawn()

    async def _crash(self, random: Random, process: Process) -> None:
        known = random.random() < 0.5
        self.say(f"{process.name} crashes, {'on this host' if known else 'elsewhere'}")
        process.crash()
        if known:
            self.shared.dead_at_once.add(process.turns.owner.incarnation)

    async def _close(self, random: Random, process: Process) -> None:
        within_s = random.choice((None, 0.0, 0.5, 3.0))
        self.say(f"{process.name} {'is closed' if within_s is None else f'leaves within {within_s} s'}")
        if within_s is None or process.tasks is None:
            return process.close()
        process.tasks.start_soon(process.leave, within_s)

    async def _freeze(self, random: Random, process: Process) -> None:
        seconds = random.choice((0.5, LEASE_S - 2, LEASE_S + 2, FREEZE_S_MAX))
        self.say(f"{process.name} freezes for {seconds} s")
        self._calm = False
        process.view.freeze()

        async def thaw() -> None:
            await anyio.sleep(seconds)
            self.say(f"{process.name} wakes up")
            process.view.thaw()

        assert self._tasks is not None
        self._tasks.start_soon(thaw)

    async def _storm(self, random: Random, _: Process | None) -> None:
        rates = {"fails": random.choice((0, 0.05, 0.3)), "fails_unknown": random.choice((0, 0.1, 0.5))}
        await self._spell(Weather(slow=random.choice((0.1, 0.6)), **rates), random.choice((0.1, 1.0, 5.0)))

    async def _outage(self, random: Random, _: Process | None) -> None:
        await self._spell(Weather(outage=True), random.choice((0.02, 0.5, 8.0)))

    async def _spell(self, weather: Weather, seconds: float) -> None:
        self.say(f"{weather} for {seconds} s")
        self._calm = False
        self.shared.weather = weather
        await anyio.sleep(seconds)
        self.shared.weather = Weather()
        self.say("fair weather")

    # ── its end ──

    async def _rest(self) -> None:
        """Fair weather, everybody awake: whoever is alive brings everything to an end."""
        self.say("── rest ──")
        await anyio.sleep(FREEZE_S_MAX + LEASE_S)
        await self.shared.store.put_config({}, expected=None)
        somebody = await self.spawn()
        await self._nothing_waits()
        for session_id in self.session_ids:
            for process in self.up:
                await process.call(partial(process.sessions.settled, session_id))
            await self._settle(somebody, session_id)
        with anyio.fail_after(REST_S):
            while any(process.turns.running for process in self.up):  # noqa: ASYNC110 - virtual time
                await anyio.sleep(0.5)
        await anyio.sleep(3)
        logs = {session_id: await self._log(session_id) for session_id in self.session_ids}
        for session_id, log in logs.items():
            promises.check_log(await self.shared.store.load(session_id), log)
        self.ledger.check_told(logs)
        for watcher in self.watchers:
            promises.check_seen(
                self.ledger.logs[watcher.session_id], watcher.seen, watcher.after, whole=watcher.process.up
            )
        self._check_prompts(logs)
        self.ledger.check_tools(self.house.ran)
        assert somebody.turns.running == 0

    async def _nothing_waits(self) -> None:
        """Where servers are, nobody has to ask for what waits: they take it up."""
        if not any(process.serves for process in self.up):
            return
        await anyio.sleep(RESERVED_S + 2 * QUIET_INTERVAL_S)
        for session_id in self.session_ids:
            session = await self.shared.store.load(session_id)
            assert session.ready_ms is None, f"nobody takes up what waits in {session_id}: {session.state}"
            owner = session.turn.owner.instance_id if session.turn is not None else ""
            names = [process.name for process in self.up]
            assert not session.active or owner in names, f"{session_id} runs in {owner}, which is gone"

    async def _settle(self, somebody: Process, session_id: str) -> None:
        for _ in range(30):
            session = (await somebody.call(partial(somebody.sessions.settled, session_id))).value
            if session.state in ("idle", "archived") and not session.queue:
                return
            assert session.turn is not None
            owner = session.turn.owner.instance_id
            if session.active:
                assert owner in [process.name for process in self.up], f"{session_id} runs in {owner}, which is gone"
            queued = [queued.turn_id for queued in session.queue]
            expected = queued[0] if queued else None
            answer = await somebody.call(partial(somebody.sessions.interrupt, session_id, expected_turn_id=expected))
            self.say(f"at rest {session.state} {session_id[-4:]} of {owner} is interrupted: {answer}")
            assert answer.came, f"an interrupt failed: {answer}"
            assert answer.value.ended or not answer.value.interrupted, f"{session_id} of {owner} does not end"
            await anyio.sleep(1)
        raise AssertionError(f"session {session_id} never comes to rest")

    async def _log(self, session_id: str) -> list[e.Event]:
        return [recorded.event for recorded in await self.shared.store.read(session_id, limit=100_000)]

    def _check_prompts(self, logs: dict[str, Any]) -> None:
        """No prompt runs twice, and what was told of one is one turn."""
        ran: dict[str, int] = {}
        for log in logs.values():
            start = log[0].forked_from.at_seq if log[0].forked_from else 0
            for event in log:
                if event.type == "turn_started" and event.kind == "prompt" and event.seq > start:
                    ran[event.prompt] = ran.get(event.prompt, 0) + 1
        assert not [prompt for prompt, times in ran.items() if times > 1], f"ran twice: {ran}"
        for prompt, turns in self.prompts.items():
            assert len(turns) == 1, f"{prompt} is more than one turn: {turns}"
