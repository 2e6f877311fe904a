"""Clients that do not read, do not finish, or go away: nobody else notices, and nothing of them stays behind."""

import os
import socket
import statistics
import time
from collections.abc import AsyncGenerator, Awaitable, Callable, Generator, Sequence
from contextlib import asynccontextmanager, contextmanager
from typing import Any

import anyio
import psutil
import pytest
from web.abuse.kinds import LEGACY, META, World, enveloped, initialize, message_of, modern_headers
from web.abuse.wire import Wire
from web.conftest import PATIENCE_S, QUICK, OpenServer, Server

pytestmark = pytest.mark.anyio

CLIENTS = 50
SAMPLES = 25
SLOWER_MAX = 5.0
HELD_BYTES_MAX = 2 * 1024 * 1024
"""What one of them may hold of the server's memory: a page of events, and what waits to be sent."""
RECEIVE_BYTES = 2048
GAUGES = ("meerkat_turns_running", "meerkat_followers", "meerkat_http_in_flight")
CALL_ID = 41


class Site:
    """A server, and a client that does what clients should."""

    def __init__(self, server: Server, wire: Wire) -> None:
        self.server = server
        self.wire = wire
        self.world = World(server.url.removeprefix("http://"), {"all": "nobody-asks-for-one"})
        self.process = psutil.Process(server.process.pid)
        self.idle: dict[str, float] = {}

    def connection(self) -> Wire:
        """Another one."""
        host, port = self.world.host.split(":")
        return Wire(host, int(port))

    async def call(self, tool: str, **arguments: Any) -> dict[str, Any]:
        result = message_of(await self.wire.ask(self.world.tool(tool, arguments)))["result"]
        assert "structuredContent" in result, result
        return result["structuredContent"]

    async def run(self, prompt: str, **arguments: Any) -> str:
        """The id of a new session."""
        given = {"prompt": prompt, "provider_params": QUICK} | arguments
        return (await self.call("meerkat_run", **given))["session_id"]

    async def resume(self, session_id: str) -> None:
        """One turn more."""
        await self.call("meerkat_resume", session_id=session_id, prompt=TURN, wait_seconds=30)

    async def begin(self, prompt: str) -> str:
        """The same; its turn goes on after this."""
        return await self.run(prompt, wait_seconds=0, on_cancel="detach")

    async def gauges(self) -> dict[str, float]:
        text = (await self.wire.ask(self.world.get("/metrics"))).text
        return {line.split()[0]: float(line.split()[1]) for line in text.splitlines() if line.startswith(GAUGES)}

    async def latency(self) -> float:
        """What running a turn and reading it takes, in the middle."""
        taken: list[float] = []
        for _ in range(SAMPLES):
            begun_s = time.perf_counter()
            await self.call("meerkat_history", session_id=await self.run("[[say hi]]"))
            taken.append(time.perf_counter() - begun_s)
        return statistics.median(taken)

    async def ended(self, session_id: str) -> str:
        """How the session's turn ended."""
        with anyio.fail_after(PATIENCE_S):
            while True:
                turn = (await self.call("meerkat_read", session_id=session_id, wait_seconds=10))["turn"]
                if turn["status"] != "running":
                    return turn["status"]

    async def running(self) -> str:
        """The one session that runs, as soon as there is one."""
        with anyio.fail_after(PATIENCE_S):
            while not (found := (await self.call("meerkat_sessions", state="running"))["sessions"]):
                pass
        return found[0]["session_id"]


@pytest.fixture
async def site(open_server: OpenServer) -> AsyncGenerator[Site]:
    async with open_server("--no-access-log") as server:
        host, port = server.url.removeprefix("http://").split(":")
        async with Wire(host, int(port)) as wire:
            found = Site(server, wire)
            await found.run("[[say hi]]")  # what is made on first use is there
            found.idle = await found.gauges()
            yield found


@contextmanager
def sent(site: Site, requests: Sequence[bytes]) -> Generator[list[socket.socket]]:
    """Each request on a connection of its own, on which nothing is read, and which is closed at the end."""
    host, port = site.world.host.split(":")
    connections: list[socket.socket] = []
    try:
        for raw in requests:
            connection = socket.socket()
            connections.append(connection)
            connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, RECEIVE_BYTES)  # before, or it has no effect
            connection.connect((host, int(port)))
            connection.sendall(raw)
        yield connections
    finally:
        for connection in connections:
            connection.close()


async def until(true: Callable[[], Awaitable[bool]]) -> None:
    with anyio.fail_after(PATIENCE_S):
        while not await true():
            await anyio.lowlevel.checkpoint()


@asynccontextmanager
async def unnoticed(
    site: Site,
    requests: Sequence[bytes],
    ready: Callable[[Site], Awaitable[bool]],
    held_bytes_max: int = HELD_BYTES_MAX,
) -> AsyncGenerator[None]:
    """While these clients are there, others are served as before; when they have gone, nothing of them is left."""
    quick, bytes_before = await site.latency(), site.process.memory_info().rss
    handles = site.process.num_fds() if os.name == "posix" else 0
    with sent(site, requests):
        await until(lambda: ready(site))
        assert await site.latency() < SLOWER_MAX * quick
        yield
        assert await site.latency() < SLOWER_MAX * quick
        grown = site.process.memory_info().rss - bytes_before
        assert grown < held_bytes_max * len(requests), f"{grown / 1024**2:.0f} MiB more"
    await until(lambda: returned(site))
    if os.name == "posix":
        await until(lambda: let_go(site, handles))


def served(count: int) -> Callable[[Site], Awaitable[bool]]:
    """Whether so many requests are being served beside the one that asks."""

    async def reached(site: Site) -> bool:
        return (await site.gauges())["meerkat_http_in_flight"] > count

    return reached


async def returned(site: Site) -> bool:
    return await site.gauges() == site.idle


async def let_go(site: Site, handles: int) -> bool:
    await site.gauges()
    return site.process.num_fds() <= handles


# ── who does not read ──

TALKERS = 20
MUCH = "[[chars 900000]]" * 2
"""Makes more than the 2.3 MB that the kernel takes for a connection whose other end does not read."""
MUCH_HELD_BYTES_MAX = 8 * 1024 * 1024
"""That text is one event, which is there in a few forms while it is being sent."""
TURNS, TURN = 150, "[[chars 20000]]"
"""As much, in many small events."""


async def test_who_does_not_read_events_slows_nobody_down_not_even_the_turn(site: Site):
    """Those who want the long log are stuck in it; what the others are told of the turn still fits into the kernel."""
    long = await site.run(TURN, wait_seconds=30)
    for _ in range(TURNS):
        await site.resume(long)
    chatty = await site.begin("[[delta_ms 2]][[words 1500]]")
    requests = [site.world.get(f"/sessions/{session}/events") for session in (chatty, long)] * (CLIENTS // 2)
    async with unnoticed(site, requests, served(CLIENTS)):
        assert (await site.gauges())["meerkat_followers"] >= CLIENTS
        assert await site.ended(chatty) == "completed"
        for _ in range(TURNS // 3):  # what is kept for them does not grow with it
            await site.resume(long)


async def test_who_runs_turns_and_does_not_read_of_them_slows_nobody_down(site: Site):
    given = {"prompt": MUCH, "stream": True, "provider_params": QUICK, "labels": {"whose": "the deaf"}}
    params = {"name": "meerkat_run", "arguments": given}
    body = enveloped("tools/call", params)
    body["params"]["_meta"] = META | {"progressToken": 1}
    request = site.world.post(body, *modern_headers("tools/call", params))
    async with anyio.create_task_group() as tasks:  # the memory that such turns take while they run
        for _ in range(TALKERS):
            tasks.start_soon(read, site, request.replace(b"the deaf", b"a reader"))
    async with unnoticed(site, [request] * TALKERS, all_ended, MUCH_HELD_BYTES_MAX):
        gauges = await site.gauges()
        assert gauges["meerkat_turns_running"] == 0
        assert gauges["meerkat_http_in_flight"] > TALKERS, "nobody is stuck"


async def read(site: Site, request: bytes) -> None:
    async with site.connection() as wire:
        assert message_of(await wire.ask(request))["result"]["structuredContent"]["status"] == "completed"


async def all_ended(site: Site) -> bool:
    listed = (await site.call("meerkat_sessions", labels={"whose": "the deaf"}, limit=200))["sessions"]
    return [one["state"] for one in listed] == ["idle"] * TALKERS


async def test_who_listens_for_changes_and_does_not_read_of_them_is_let_go(site: Site):
    """Nobody is stuck here: notices are few and short, so the kernel takes them all."""
    wanted = {"resourcesListChanged": True, "resourceSubscriptions": ["meerkat://sessions"]}
    request = site.world.modern("subscriptions/listen", {"notifications": wanted})
    async with unnoticed(site, [request] * CLIENTS, served(CLIENTS)):
        for number in range(100):
            await site.run("", title=f"a change, number {number}")


# ── who does not finish ──


async def test_two_hundred_half_requests_hold_nobody_up(site: Site):
    """Half of a head costs a connection; half of a body a place among those that are served."""
    whole = site.world.tool("meerkat_run", {"prompt": "hi"})
    heads = [whole[: 20 + number] for number in range(100)]
    bodies = [whole[: -1 - number] for number in range(100)]
    async with unnoticed(site, [*heads, *bodies], served(100)):
        pass
    assert {one["state"] for one in (await site.call("meerkat_sessions", limit=200))["sessions"]} == {"idle"}


async def test_who_sends_a_byte_at_a_time_is_served_when_the_last_one_is_there(site: Site):
    raw = site.world.tool("meerkat_run", {"prompt": "[[say hi]]", "provider_params": QUICK})
    async with site.connection() as wire:
        for at in range(len(raw)):
            await wire.send(raw[at : at + 1])
        with anyio.fail_after(PATIENCE_S):
            assert message_of(await wire.answer())["result"]["structuredContent"]["text"] == "hi"


# ── who goes away ──

WAITING = "[[wait 1]][[say done]]"


@asynccontextmanager
async def calling(site: Site, legacy: bool, **arguments: Any) -> AsyncGenerator[tuple[Wire, str, str]]:
    """A call whose turn runs: its connection, its session of the realm, and its MCP session if it has one."""
    params = {"name": "meerkat_run", "arguments": {"prompt": WAITING, "provider_params": QUICK} | arguments}
    body = {"jsonrpc": "2.0", "id": CALL_ID, "method": "tools/call", "params": params}
    mcp_session = ""
    if legacy:
        mcp_session = (await site.wire.ask(site.world.post(initialize()))).header("mcp-session-id")
        note = {"jsonrpc": "2.0", "method": "notifications/initialized"}
        await site.wire.ask(site.world.legacy(note, session=mcp_session))
        raw = site.world.legacy(body, session=mcp_session)
    else:
        raw = site.world.modern("tools/call", params, id=CALL_ID)
    async with site.connection() as wire:
        await wire.send(raw)
        yield wire, await site.running(), mcp_session


@pytest.mark.parametrize(
    ("legacy", "on_cancel", "status"),
    [(False, "interrupt", "interrupted"), (False, "detach", "completed"), (True, "interrupt", "completed")],
)
async def test_who_hangs_up_stops_the_turn_in_2026_unless_it_said_otherwise(site: Site, legacy, on_cancel, status):
    async with calling(site, legacy, on_cancel=on_cancel) as (wire, session_id, _):
        await wire.close()
    assert await site.ended(session_id) == status
    await until(lambda: returned(site))


@pytest.mark.parametrize(
    ("legacy", "on_cancel", "status"),
    [(True, "interrupt", "interrupted"), (True, "detach", "completed"), (False, "interrupt", "completed")],
)
async def test_a_note_that_a_call_is_cancelled_counts_in_2025_only(site: Site, legacy, on_cancel, status):
    async with calling(site, legacy, on_cancel=on_cancel) as (wire, session_id, mcp_session):
        note = {"jsonrpc": "2.0", "method": "notifications/cancelled", "params": {"requestId": CALL_ID}}
        headers = modern_headers("notifications/cancelled") if not legacy else [("Mcp-Protocol-Version", LEGACY)]
        headers += [("Mcp-Session-Id", mcp_session)] if legacy else []
        assert (await site.wire.ask(site.world.post(note, *headers))).status == 202
        with anyio.fail_after(PATIENCE_S):
            said = message_of(await wire.answer())
        if legacy:
            assert said["error"]["code"] == -32800
        else:
            assert said["result"]["structuredContent"]["status"] == "completed"
    assert await site.ended(session_id) == status


async def test_somebody_elses_note_stops_no_call(site: Site):
    """Ids of requests are each client's own: the same number in another MCP session means another call."""
    async with calling(site, True) as (wire, _, _):
        other = (await site.wire.ask(site.world.post(initialize()))).header("mcp-session-id")
        note = {"jsonrpc": "2.0", "method": "notifications/cancelled", "params": {"requestId": CALL_ID}}
        assert (await site.wire.ask(site.world.legacy(note, session=other))).status == 202
        with anyio.fail_after(PATIENCE_S):
            assert message_of(await wire.answer())["result"]["structuredContent"]["status"] == "completed"
