"""A signal while twenty clients are at work: each gets a whole answer, and what any was told is in the store."""

import json
import signal
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import anyio
import pytest
from web.abuse.kinds import META, World, enveloped, initialize, message_of, modern_headers
from web.abuse.wire import GONE, Answer, Wire
from web.conftest import PATIENCE_S, QUICK, OpenServer, Server

from meerkat_mcp.domain.events import DELTAS
from meerkat_mcp.realms import Realm, choose, open_realm
from meerkat_mcp.stores.base import Selection

pytestmark = pytest.mark.anyio

CLIENTS, WATCHERS = 20, 5
END_S = 5.0
TOOLS = [{"name": "weather"}]
LONG = "[[delta_ms 40]][[words 2000]]"
"""Longer than the test. (Not longer still: the demo model makes all of its words before it says the first.)"""
ACKNOWLEDGED = 30
"""So many small turns were told to be completed before the signal comes: else there would be nothing to lose."""


@dataclass
class Told:
    """What clients were told: events as (session, seq, event id), turns by their session, and what went wrong."""

    events: set[tuple[str, int, str]] = field(default_factory=set)
    statuses: dict[str, str] = field(default_factory=dict)
    small: dict[str, str] = field(default_factory=dict)
    answered: int = 0

    def event(self, event: dict[str, Any]) -> None:
        if event["type"] not in DELTAS:
            self.events.add((event["session_id"], event["seq"], event["event_id"]))


class Load:
    """Clients of a server, each in its own way: with progress, without, of 2025, and those that only watch."""

    def __init__(self, server: Server, prompt: str) -> None:
        self.world = World(server.url.removeprefix("http://"), {"all": "nobody-asks-for-one"})
        self.told = Told()
        self.watching = 0
        self._prompt = prompt

    @property
    def completed(self) -> int:
        """How many small turns clients were told to be completed."""
        return list(self.told.small.values()).count("completed")

    def connection(self) -> Wire:
        host, port = self.world.host.split(":")
        return Wire(host, int(port))

    async def client(self, number: int) -> None:
        """Run one turn in the way of this number, until its end."""
        async with self.connection() as wire:
            answer = await wire.ask(await self._request(wire, number))
        for message in messages(answer):
            if message.get("method") == "notifications/progress":
                self.told.event(message["params"]["_meta"]["meerkat/event"])
        assert answer.status == 200, answer
        result = message_of(answer)["result"]["structuredContent"]
        self.told.statuses[result["session_id"]] = result["status"]
        self.told.answered += 1

    async def _request(self, wire: Wire, number: int) -> bytes:
        arguments = {"prompt": self._prompt, "wait_seconds": 60, "stream": number % 3 == 0}
        params = {"name": "meerkat_run", "arguments": arguments}
        if number % 3 == 2:
            session = (await wire.ask(self.world.post(initialize()))).header("mcp-session-id")
            body = {"jsonrpc": "2.0", "id": number, "method": "tools/call", "params": params}
            return self.world.legacy(body, session=session)
        body = enveloped("tools/call", params)
        body["params"]["_meta"] = META | {"progressToken": number}
        return self.world.post(body, *modern_headers("tools/call", params))

    async def watcher(self, session_id: str) -> None:
        """Follow a session's events to their end, which must be a whole one."""
        async with self.connection() as wire:
            await wire.send(self.world.get(f"/sessions/{session_id}/events"))
            assert (await wire.answer(head_only=True)).status == 200
            self.watching += 1
            text = (await wire.chunks()).decode()
        *frames, last, rest = text.split("\n\n")
        assert (last, rest) == ("event: bye\ndata: {}", "")
        for frame in frames:
            if "data: " in frame:
                self.told.event(json.loads(frame[frame.index("data: ") + 6 :]))

    async def hammer(self) -> None:
        """Run small turns until nobody is there; each answer is whole, and says what is so."""
        async with self.connection() as wire:
            while True:
                params = {"name": "meerkat_run", "arguments": {"prompt": "[[say hi]]", "provider_params": QUICK}}
                try:
                    answer = await wire.ask(self.world.modern("tools/call", params))
                except OSError:
                    return
                if not answer.status:
                    return
                assert answer.status in (200, 503), answer
                if answer.status == 200 and not (result := message_of(answer)["result"]).get("isError"):
                    self.told.small[result["structuredContent"]["session_id"]] = result["structuredContent"]["status"]

    async def call(self, tool: str, **arguments: Any) -> dict[str, Any]:
        async with self.connection() as wire:
            return message_of(await wire.ask(self.world.tool(tool, arguments)))["result"]["structuredContent"]

    async def all_at_work(self) -> list[str]:
        """The sessions that run, when there are as many as clients."""
        with anyio.fail_after(PATIENCE_S):
            while True:
                listed = (await self.call("meerkat_sessions", state="running", limit=200))["sessions"]
                if len(listed) >= CLIENTS:
                    return [one["session_id"] for one in listed]


def messages(answer: Answer) -> Iterator[dict[str, Any]]:
    """The messages of a stream, each of them whole; a plain answer is none."""
    if answer.header("content-type").startswith("text/event-stream"):
        for line in answer.text.splitlines():
            if line.startswith("data: "):
                yield json.loads(line.removeprefix("data: "))


async def logged(realm: Realm, session_id: str) -> list[tuple[int, str, str]]:
    return [(one.seq, str(one.event.event_id), one.type) async for one in realm.journal.log(session_id)]


@pytest.mark.parametrize(
    ("drain", "prompt", "status"),
    [
        ("0", LONG, "running"),
        ("1", LONG, "running"),
        ("30", "[[delta_ms 40]][[words 100]]", "completed"),
    ],
)
async def test_a_signal_under_load_ends_turns_as_configured_and_loses_nothing(
    open_server: OpenServer, tmp_path: Path, drain: str, prompt: str, status: str
):
    async with open_server("--drain", drain, "--no-access-log") as server:
        load = Load(server, prompt)
        call = {"prompt": "[[call weather]]", "tools": TOOLS, "provider_params": QUICK}
        waiting = await load.call("meerkat_run", **call)
        assert waiting["status"] == "waiting"
        with anyio.fail_after(PATIENCE_S):
            async with anyio.create_task_group() as tasks:
                for number in range(CLIENTS):
                    tasks.start_soon(load.client, number)
                sessions = await load.all_at_work()
                for session_id in sessions[:WATCHERS]:
                    tasks.start_soon(load.watcher, session_id)
                for _ in range(3):
                    tasks.start_soon(load.hammer)
                while load.watching < WATCHERS or load.completed < ACKNOWLEDGED:
                    await anyio.lowlevel.checkpoint()
                begun_s = anyio.current_time()
                server.end(signal.SIGTERM)
                assert await server.ended() == 0
                assert anyio.current_time() - begun_s < max(END_S, float(drain))
    told = load.told
    assert told.answered == CLIENTS
    assert set(told.statuses.values()) == {status}
    assert "Traceback" not in server.said, server.said[-3000:]
    assert " ERROR " not in server.said
    async with open_realm(choose("den", state_root=tmp_path / "realms"), turns=False) as realm:
        await all_there(realm, told)
        assert (await realm.journal.load(waiting["session_id"])).state == "waiting"
        known = await realm.store.sessions(Selection(), limit=1000)
        assert {one.id for one in known if one.state == "running"} == set()


async def all_there(realm: Realm, told: Told) -> None:
    """What anybody was told is in the log, and every turn has its one end there, or is left to the next server."""
    assert len(told.events) > 2 * CLIENTS
    assert list(told.small.values()).count("completed") >= ACKNOWLEDGED
    logs = {session: await logged(realm, session) for session in {*told.statuses, *told.small}}
    stored = {(session, seq, event_id) for session, log in logs.items() for seq, event_id, _ in log}
    assert told.events <= stored
    ends = {"completed": "turn_completed", "running": "turn_suspended"}
    for session, status in (*told.statuses.items(), *told.small.items()):
        if status in ends:
            assert [kind for _, _, kind in logs[session]].count(ends[status]) == 1, (session, status)


async def test_who_never_reads_does_not_keep_a_server_from_ending(open_server: OpenServer):
    async with open_server("--drain", "0", "--no-access-log") as server:
        load = Load(server, "")
        session_id = (await load.call("meerkat_run", prompt="[[chars 900000]]" * 3, provider_params=QUICK))[
            "session_id"
        ]
        async with anyio.create_task_group() as tasks:
            for _ in range(10):
                tasks.start_soon(stay, load, session_id)
            with anyio.fail_after(PATIENCE_S):
                while await followers(load) < 10:
                    await anyio.lowlevel.checkpoint()
                begun_s = anyio.current_time()
                server.end(signal.SIGTERM)
                assert await server.ended() == 0
                assert anyio.current_time() - begun_s < END_S
            tasks.cancel_scope.cancel()
    assert "Traceback" not in server.said, server.said[-3000:]


async def stay(load: Load, session_id: str) -> None:
    async with load.connection() as wire:
        with suppress(*GONE):
            await wire.send(load.world.get(f"/sessions/{session_id}/events"))
            await anyio.sleep_forever()


async def followers(load: Load) -> float:
    async with load.connection() as wire:
        text = (await wire.ask(load.world.get("/metrics"))).text
    return next(float(line.split()[1]) for line in text.splitlines() if line.startswith("meerkat_followers "))
