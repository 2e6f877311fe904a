"""Those who call a world's processes: what they do, and what they hold against them."""

from collections.abc import Awaitable, Callable
from functools import partial
from random import Random
from typing import Any

import anyio
from simulation import promises
from simulation.house import SERVERS
from simulation.model import TOOLS
from simulation.world import Answer, Process, Watcher, World

from meerkat_mcp.domain import events as e
from meerkat_mcp.domain.messages import JsonObject, ToolResult
from meerkat_mcp.domain.settings import Budget, Settings
from meerkat_mcp.sessions.claims import Started
from meerkat_mcp.sessions.decisions import Approval
from meerkat_mcp.stores.base import Selection

SESSIONS_MAX = 3

CONFIGS: tuple[JsonObject, ...] = (
    {},
    {"agent": {"model": "nobody"}},
    {"limits": {"max_concurrent_turns": 1}},
    {"limits": {"max_queued_prompts": 1}},
    {"compaction": {"keep_steps": 1}},
    {"retry": {"attempts": 1}},
    {"permissions": {"ceiling": "readonly"}},
)

PromptCall = Callable[[Process, str | None], Awaitable[Started]]


class Caller:
    """Somebody who calls one process or another."""

    def __init__(self, world: World, number: int) -> None:
        self.world = world
        self.name = f"c{number + 1}"
        self.random = Random(f"{world.seed} caller {number}")
        self._count = 0

    async def live(self) -> None:
        for _ in range(self.random.randint(4, 14)):
            await anyio.sleep(self.random.choice((0, 0, 0.002, 0.05, 0.4, 3.0)))
            process = await self._process()
            if not self.world.session_ids:
                await self.run(process)
            else:
                await self.random.choice(self.DEEDS)(self, process)

    async def _process(self) -> Process:
        while not (up := [process for process in self.world.up if not process.view.frozen]):
            if not self.world.up:
                await self.world.spawn()
            await anyio.sleep(0.5)
        return self.random.choice(up)

    def _session(self) -> str:
        return self.random.choice(self.world.session_ids)

    def _prompt(self) -> str:
        self._count += 1
        return f"{self.name} says {self._count}"

    async def _ask(self, process: Process, what: str, call: Callable[[], Awaitable[Any]]) -> Answer:
        patience_s = self.random.choice((None, None, None, None, None, 0.0, 0.003, 1.0))
        self.world.say(f"{self.name} → {process.name} {what}{f' for {patience_s} s' if patience_s is not None else ''}")
        answer = await process.call(call, patience_s=patience_s)
        self.world.say(f"{self.name} ← {process.name} {what}: {answer}")
        return answer

    def _heard(self, started: Started, prompt: str) -> None:
        """A turn was promised."""
        self.world.prompts.setdefault(prompt, set()).add(started.turn_id or "")
        self._met(started.session_id)
        assert started.turn_id is not None
        self.world.ledger.told(started.session_id, f"turn {started.turn_id}", promises.begins(started.turn_id))

    def _met(self, session_id: str) -> None:
        if session_id not in self.world.session_ids:
            self.world.session_ids.append(session_id)

    async def _prompted(self, process: Process, what: str, prompt: str, call: PromptCall) -> None:
        """Ask for a turn; with a key it may be asked for again, of anybody, when no answer came."""
        key = f"key of {prompt}" if self.random.random() < 0.5 else None
        for _ in range(self.random.randint(2, 4) if key else 1):
            answer = await self._ask(process, f"{what} {prompt!r} {key or ''}", partial(call, process, key))
            if answer.came:
                self._heard(answer.value, prompt)
            process = await self._process()

    # ── what it does ──

    async def run(self, process: Process) -> None:
        if len(self.world.session_ids) >= SESSIONS_MAX:
            return
        prompt = self._prompt()
        limit = self.random.choice((None, None, 3.0))
        settings = Settings(
            tools=TOOLS,
            mcp_servers=self.random.choice((None, SERVERS, SERVERS)),
            permission_mode=self.random.choice(("readonly", "ask", "ask", "auto")),
            budget=Budget(max_duration_s=limit),
            max_steps=self.random.choice((None, 2)),
        )

        async def call(asked: Process, key: str | None) -> Started:
            return await asked.sessions.run(prompt, settings, idempotency_key=key)

        await self._prompted(process, "run", prompt, call)

    async def resume(self, process: Process) -> None:
        session_id, prompt = self._session(), self._prompt()
        if_busy = self.random.choice(("reject", "interrupt", "queue", "queue"))
        changes = self.random.choice(({}, {}, {"max_steps": self.random.randint(1, 4)}))

        async def call(asked: Process, key: str | None) -> Started:
            return await asked.sessions.resume(
                session_id, prompt, if_busy=if_busy, changes=changes, idempotency_key=key
            )

        await self._prompted(process, f"resume {session_id[-4:]} {if_busy}", prompt, call)

    async def answer(self, process: Process) -> None:
        sessions = self.world.ledger.sessions
        waiting = [known for known in self.world.session_ids if sessions[known].state == "waiting"]
        session_id = self.random.choice(waiting or self.world.session_ids)
        found = await self._ask(process, f"read {session_id[-4:]}", partial(process.sessions.settled, session_id))
        if not found.came or found.value.turn is None:
            return
        self._count += 1
        pending = list(found.value.turn.pending)
        if self.random.random() < 0.2:
            pending = pending[1:]
        results = [
            ToolResult(tool_use_id=call.tool_use_id, content=f"{self.name} {self._count} {call.tool_use_id}")
            for call in pending
        ]
        verdict = self.random.choice(("approve", "approve", "deny"))
        approvals = [
            Approval(call.tool_use_id, verdict, f"{self.name} {self._count}") for call in found.value.turn.approvals
        ]
        if results and approvals and self.random.random() < 0.3:  # one kind first, the other later
            results, approvals = self.random.choice(((results, []), ([], approvals)))
        if not results and not approvals:
            results = [ToolResult(tool_use_id="call-0", content=f"{self.name} {self._count}")]
        turns: set[str | None] = set()
        for _ in range(self.random.choice((1, 1, 2))):
            what = f"answer {session_id[-4:]} {[one.tool_use_id for one in (*results, *approvals)]}"
            call = partial(process.sessions.resume, session_id, tool_results=results, approvals=approvals)
            if (answer := await self._ask(process, what, call)).came:
                turns.add(answer.value.turn_id)
                contents = [result.content for result in results]
                self.world.ledger.told(session_id, what, promises.answered(contents))
                self.world.ledger.told(session_id, what, promises.decided([one.tool_use_id for one in approvals]))
            process = await self._process()
        assert len(turns) < 2, "the same results go to the same turn"

    async def interrupt(self, process: Process) -> None:
        session_id = self._session()
        session = self.world.ledger.sessions[session_id]
        turns = [None, None, *(queued.turn_id for queued in session.queue), session.turn and session.turn.turn_id, "no"]
        expected = self.random.choice(turns)
        what = f"interrupt {session_id[-4:]} {expected or ''}"
        answer = await self._ask(
            process, what, partial(process.sessions.interrupt, session_id, expected_turn_id=expected)
        )
        if answer.came and answer.value.interrupted:
            assert expected in (None, answer.value.turn_id)
            if answer.value.ended:
                self.world.ledger.told(session_id, what, promises.interrupted(answer.value.turn_id))

    async def wait(self, process: Process) -> None:
        session_id, seconds = self._session(), self.random.choice((0, 0.1, 5.0, 20.0))
        turn = self.world.ledger.sessions[session_id].turn
        if turn is not None:
            await self._ask(process, "wait", partial(process.sessions.wait, session_id, turn.turn_id, seconds))

    async def archive(self, process: Process) -> None:
        session_id = self._session()
        for what, call in (("archive", process.shelf.archive), ("restore", process.shelf.restore)):
            answer = await self._ask(process, f"{what} {session_id[-4:]}", partial(call, session_id))
            if answer.came and what == "archive":
                self.world.ledger.told(session_id, what, promises.has("session_archived"))

    async def fork(self, process: Process) -> None:
        if len(self.world.session_ids) >= SESSIONS_MAX:
            return
        session_id = self._session()
        seq = self.world.ledger.sessions[session_id].seq
        at_seq = self.random.choice((None, self.random.randint(1, seq)))
        answer = await self._ask(
            process, f"fork {session_id[-4:]} {at_seq or ''}", partial(process.shelf.fork, session_id, at_seq=at_seq)
        )
        if answer.came:
            self._met(answer.value.id)
            self.world.ledger.told(answer.value.id, "fork", promises.has("session_created"))
            self.world.ledger.told(session_id, "fork", promises.has("session_forked"))

    async def change(self, process: Process) -> None:
        session_id, title = self._session(), self._prompt()
        answer = await self._ask(
            process, f"title {session_id[-4:]}", partial(process.sessions.resume, session_id, title=title)
        )
        if answer.came:
            self.world.ledger.told(session_id, title, promises.has_title(title))

    async def configure(self, process: Process) -> None:
        document = self.random.choice(CONFIGS)
        await self._ask(process, f"config {document}", partial(process.view.put_config, document, expected=None))

    async def compact(self, process: Process) -> None:
        session_id = self._session()
        answer = await self._ask(process, f"compact {session_id[-4:]}", partial(process.sessions.compact, session_id))
        if answer.came:
            self.world.ledger.told(session_id, "compaction", promises.begins(answer.value.turn_id))

    async def look(self, process: Process) -> None:
        session_id = self._session()
        await self._ask(process, "list", partial(process.reading.list, Selection(archived=None)))
        await self._ask(process, f"history {session_id[-4:]}", partial(process.reading.history, session_id))

    async def watch(self, process: Process) -> None:
        session_id = self._session()
        after = self.random.choice((0, 0, self.world.ledger.sessions[session_id].seq))
        watcher = Watcher(process, session_id, after)
        if process.tasks is not None and process.up:
            self.world.say(f"{self.name} watches {session_id[-4:]} in {process.name} from {after}")
            self.world.watchers.append(watcher)
            process.tasks.start_soon(watcher.watch)

    async def stream(self, process: Process) -> None:
        """A stream is read by anybody, from any process; what a lost answer had is read again."""
        session_id = self._session()
        opened = await self._ask(process, "open a stream", partial(process.streams.open, session_id, after_seq=0))
        if not opened.came:
            return
        stream_id, after, seen = opened.value.stream_id, 0, list[e.Event]()
        for _ in range(self.random.randint(1, 4)):
            process = await self._process()
            timeout_s, most = self.random.choice((0.0, 0.01, 3.0)), self.random.choice((1, 3, 100))
            call = partial(process.streams.read, stream_id, after_seq=after, events_max=most, timeout_s=timeout_s)
            answer = await self._ask(process, f"stream from {after}", call)
            if answer.came:
                assert answer.value.status != "closed"
                assert len(answer.value.events) <= most
                seen += [recorded.event for recorded in answer.value.events]
                after = answer.value.next_seq
        self.world.say(f"{self.name} streamed up to {after}")
        recorded = [event for event in self.world.ledger.logs[session_id] if event.seq <= after]
        promises.check_seen(recorded, seen, 0, whole=True)
        await self._ask(process, "close the stream", partial(process.streams.close, stream_id))

    DEEDS = (
        *(run, resume, resume, resume, answer, answer, answer, answer, answer, answer, interrupt, interrupt, wait),
        *(archive, fork, change, configure, compact, look, watch, watch, stream),
    )
