"""The stdio connection against real processes: what it serves, what it refuses, and every way it ends."""

import json
import os
import signal
import subprocess
import sys
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any, Self

import anyio
import pytest
from mcp import Client, StdioServerParameters

from meerkat_mcp.server import connection, lines

pytestmark = [pytest.mark.anyio, pytest.mark.skipif(sys.platform == "win32", reason="drives POSIX processes")]

ROOT = Path(__file__).parents[2]
LIMIT_SECONDS = 10
EXIT_LIMIT_SECONDS = 2

SERVER = """
import asyncio, itertools, os, subprocess
from contextlib import asynccontextmanager
from functools import partial
from pathlib import Path
import anyio
from mcp.server import MCPServer
from mcp.server.mcpserver import Context
from meerkat_mcp.server import connection, lines, stdio

FORCED, MARKS = os.environ.get("FORCED", ""), Path(os.environ["MARKS"])

def mark(name, text=""):
    (MARKS / "unfinished").write_text(str(text))
    (MARKS / "unfinished").rename(MARKS / name)

@asynccontextmanager
async def lifespan(server):
    mark("up")
    try:
        yield
    finally:
        await anyio.sleep(0.01)  # a cancelled teardown would not get past this
        if "hung" in FORCED:
            mark("hung")
            await anyio.sleep_forever()
        mark("down")

server = MCPServer("probe", lifespan=lifespan)

@server.tool()
async def add(a: int, b: int) -> int:
    print("stray")
    subprocess.run(["echo", "stray child"], check=True)
    return a + b

@server.tool()
async def hang() -> str:
    mark("hanging")
    try:
        await anyio.sleep_forever()
    finally:
        mark("cancelled")

@server.tool()
async def flood(ctx: Context) -> str:
    for count in itertools.count():
        with anyio.move_on_after(0.3) as stalled:
            await ctx.report_progress(count, message="x" * 1000)
        if stalled.cancelled_caught:
            mark("stalled", count)
            await anyio.sleep_forever()

@server.tool()
async def many(count: int, ctx: Context) -> str:
    for number in range(count):
        await ctx.report_progress(number, message="x" * 1000)
    mark("sent")
    return "done"

@server.tool()
async def unencodable() -> str:
    return "\\ud800"

if "threads" in FORCED:
    stdio.pipes_usable = lambda: False
if "small" in FORCED:
    lines.LINE_LIMIT_BYTES = 1024 * 1024
if "brief" in FORCED:
    connection.TEARDOWN_LIMIT_SECONDS = 0.3
if "polling" in FORCED:
    vars(os).pop("pidfd_open", None)
if "no-loop-signals" in FORCED:
    asyncio.SelectorEventLoop.add_signal_handler = asyncio.AbstractEventLoop.add_signal_handler  # has none
stdio.PARENT_POLL_SECONDS = 0.05

def ready():
    mark("ready", f"{stdio.transport_name()}, lifespan entered: {(MARKS / 'up').exists()}")

anyio.run(partial(stdio.serve_stdio, server, on_ready=ready))
mark("returned")
"""
PARENT = "import subprocess, sys; subprocess.run([sys.executable, sys.argv[1]])"
CLIENT = {"protocolVersion": "2025-11-25", "capabilities": {}, "clientInfo": {"name": "test", "version": "0"}}
HELLO = {"jsonrpc": "2.0", "id": "hello", "method": "initialize", "params": CLIENT}


@pytest.fixture
def script(tmp_path: Path) -> Path:
    path = tmp_path / "server.py"
    path.write_text(SERVER)
    return path


def environment(script: Path, forced: str) -> dict[str, str]:
    return os.environ | {"PYTHONPATH": str(ROOT), "MARKS": str(script.parent), "FORCED": forced}


class Peer:
    def __init__(self, script: Path, *, forced: str = "", options: list[str] | None = None, **streams: Any) -> None:
        self.marks = script.parent
        streams = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "stderr": subprocess.DEVNULL} | streams
        command = [sys.executable, *(options or []), str(script)]
        self.process = subprocess.Popen(command, env=environment(script, forced), bufsize=0, **streams)
        self.stdin, self.stdout = self.process.stdin, self.process.stdout
        self._rest = b""

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        self.process.kill()
        self.process.wait()
        for stream in filter(None, (self.stdin, self.stdout)):
            stream.close()

    def end(self, how: str) -> None:
        if how == "EOF":
            self.stdin.close()
        else:
            self.process.send_signal(signal.Signals[how])

    async def raw(self, data: bytes) -> None:
        while data:
            data = data[await anyio.to_thread.run_sync(self.stdin.write, data) :]

    async def say(self, message: object) -> None:
        await self.raw(json.dumps(message).encode() + b"\n")

    async def call(self, number: int, tool: str, **arguments: object) -> None:
        params = {"name": tool, "arguments": arguments, "_meta": {"progressToken": number}}
        await self.say({"jsonrpc": "2.0", "id": number, "method": "tools/call", "params": params})

    async def hear(self) -> Any:
        """Return the next message, None for EOF."""
        with anyio.fail_after(LIMIT_SECONDS):
            while b"\n" not in self._rest:
                await anyio.wait_readable(self.stdout)
                chunk = os.read(self.stdout.fileno(), 65536)
                if not chunk:
                    return None
                self._rest += chunk
        line, self._rest = self._rest.split(b"\n", 1)
        return json.loads(line)

    async def answers(self, count: int) -> AsyncIterator[Any]:
        while count:
            message = await self.hear()
            if "id" in message:
                count -= 1
                yield message

    async def greet(self) -> None:
        await self.say(HELLO)
        assert (await self.hear())["id"] == "hello"
        await self.say({"jsonrpc": "2.0", "method": "notifications/initialized"})

    async def hang(self) -> None:
        await self.greet()
        await self.call(1, "hang")
        await self.marked("hanging")

    async def marked(self, name: str) -> str:
        await until(lambda: (self.marks / name).exists())
        return (self.marks / name).read_text()

    async def ended(self) -> None:
        """The server returned in time, after its lifespan was left in order."""
        with anyio.fail_after(EXIT_LIMIT_SECONDS):
            await until(lambda: self.process.poll() is not None)
        assert self.process.returncode == 0
        assert {"down", "returned"} <= {mark.name for mark in self.marks.iterdir()}


async def until(condition: Callable[[], bool]) -> None:
    with anyio.fail_after(LIMIT_SECONDS):
        while not condition():  # noqa: ASYNC110 - what another process does sets no event here
            await anyio.sleep(0.005)


every_transport = pytest.mark.parametrize("forced", ["pipes", "threads"])
every_end = pytest.mark.parametrize("how", ["EOF", "SIGTERM", "SIGINT"])


@every_transport
@pytest.mark.parametrize("mode", ["auto", "legacy"])
async def test_the_real_client_is_served_in_both_eras_and_stray_output_stays_off_the_wire(
    script: Path, forced: str, mode: Any
) -> None:
    parameters = StdioServerParameters(command=sys.executable, args=[str(script)], env=environment(script, forced))
    heard: list[float] = []

    async def progressed(progress: float, *_: object) -> None:
        heard.append(progress)

    with anyio.fail_after(LIMIT_SECONDS):
        async with Client(parameters, mode=mode) as client:
            result = await client.call_tool("add", {"a": 1, "b": 2})
            assert result.structured_content == {"result": 3}
            await client.call_tool("many", {"count": 300}, progress_callback=progressed)
    assert sorted(heard) == list(range(300))
    assert (script.parent / "ready").read_text() == f"{forced}, lifespan entered: True"
    assert (script.parent / "returned").exists()


@every_transport
async def test_a_flood_arrives_in_order_and_what_cannot_be_encoded_costs_one_request(script: Path, forced: str) -> None:
    async with Peer(script, forced=forced) as peer:
        await peer.greet()
        await peer.call(1, "many", count=5000)  # 5 MB: several times what may be pending
        for number in range(5000):
            assert (await peer.hear())["params"]["progress"] == number
        await peer.call(2, "unencodable")
        assert [("result" in answer, answer["id"]) async for answer in peer.answers(2)] == [(True, 1), (False, 2)]


@every_transport
async def test_a_line_that_holds_no_message_is_answered_and_the_connection_goes_on(script: Path, forced: str) -> None:
    lines = {
        b"not json": (-32700, None),
        b'{"jsonrpc": "2.0", "id": 7, "method": "\xff"}': (-32700, None),
        b'[{"jsonrpc": "2.0", "id": 7, "method": "ping"}]': (-32600, None),
        b"null": (-32600, None),
        b'{"jsonrpc": "2.0", "id": 7}': (-32600, 7),
        b'{"jsonrpc": "2.0", "id": "seven", "method": 3}': (-32600, "seven"),
        b'{"jsonrpc": "2.0", "id": true, "method": "ping"}': (-32600, None),
        b'{"jsonrpc": "2.0", "id": null, "method": "ping"}': (-32600, None),
        b'{"jsonrpc": "2.0", "id": 1.5, "method": "ping"}': (-32600, None),
        b'{"jsonrpc": "2.0", "id": 7, "result": 3}': (-32600, None),
    }
    async with Peer(script, forced=forced) as peer:
        await peer.greet()
        await peer.raw(b"\n \r\n" + b"\r\n".join(lines) + b"\r\n")
        for line, (code, number) in lines.items():
            answer = await peer.hear()
            assert (line, answer["error"]["code"], answer["id"]) == (line, code, number)
        await peer.call(8, "add", a=1, b=1)
        assert (await peer.hear())["id"] == 8


@every_transport
async def test_a_line_that_is_too_long_is_refused_and_the_next_one_is_served(script: Path, forced: str) -> None:
    async with Peer(script, forced=forced) as peer:
        await peer.greet()
        await peer.raw(b'{"jsonrpc": "2.0", "id": 7, "method": "' + b"x" * (2 * lines.LINE_LIMIT_BYTES) + b'"}\n')
        await peer.call(8, "add", a=1, b=1)
        answer = await peer.hear()
        assert (answer["error"]["code"], answer["id"]) == (-32600, None)
        assert str(lines.LINE_LIMIT_BYTES) in answer["error"]["message"]
        assert (await peer.hear())["id"] == 8


def test_a_line_of_exactly_the_limit_is_a_line() -> None:
    splitter = lines.LineSplitter()
    line = b"x" * (lines.LINE_LIMIT_BYTES - 1) + b"\n"
    assert list(splitter.split(b"a\n\n" + line[:7])) == [b"a\n"]
    assert list(splitter.split(line[7:] + b"x" + line)) == [line, None]
    assert list(splitter.split(line[:-1])) == []
    assert list(splitter.split(b"x\nb\r\nc")) == [None, b"b\r\n"]
    assert list(splitter.split(b"\n")) == [b"c\n"]


@every_transport
@every_end
async def test_an_idle_connection_ends(script: Path, forced: str, how: str) -> None:
    async with Peer(script, forced=forced) as peer:
        await peer.greet()
        peer.end(how)
        await peer.ended()
        assert await peer.hear() is None


@pytest.mark.parametrize("forced", ["pipes", "threads", "no-loop-signals"])
@every_end
async def test_a_call_in_flight_is_cut_off_with_an_answer(script: Path, forced: str, how: str) -> None:
    async with Peer(script, forced=forced) as peer:
        await peer.hang()
        peer.end(how)
        await peer.ended()
        await peer.marked("cancelled")
        assert (await peer.hear())["error"]["message"] == "Connection closed"


async def test_another_signal_does_not_disturb_the_end_but_the_same_one_kills(script: Path) -> None:
    async with Peer(script, forced="hung") as peer:
        await peer.greet()
        peer.end("SIGINT")
        await peer.marked("hung")
        peer.end("SIGTERM")
        peer.end("SIGINT")
        await until(lambda: peer.process.poll() is not None)
        assert peer.process.returncode == 128 + signal.SIGINT


async def test_a_teardown_that_hangs_is_cut_off(script: Path) -> None:
    assert connection.EOF_GRACE_SECONDS + connection.TEARDOWN_LIMIT_SECONDS < EXIT_LIMIT_SECONDS - 0.5
    async with Peer(script, forced="hung brief") as peer:
        await peer.greet()
        peer.end("EOF")
        with anyio.fail_after(EXIT_LIMIT_SECONDS):
            await until(lambda: peer.process.poll() is not None)
        assert (peer.marks / "returned").exists()


@pytest.mark.parametrize("forced", ["pipes", "polling", "threads", "threads polling"])
async def test_the_death_of_the_parent_ends_a_call_in_flight(script: Path, forced: str) -> None:
    async with Peer(script, forced=forced, options=["-c", PARENT]) as peer:
        await peer.hang()
        peer.process.kill()
        with anyio.fail_after(EXIT_LIMIT_SECONDS):
            await peer.marked("returned")
        assert (await peer.hear())["error"]["message"] == "Connection closed"
        assert await peer.hear() is None


@every_transport
async def test_a_broken_stdout_ends_a_call_in_flight(script: Path, forced: str) -> None:
    async with Peer(script, forced=forced) as peer:
        await peer.hang()
        peer.stdout.close()
        if forced == "threads":  # which notice it only when they write
            await peer.say({"jsonrpc": "2.0", "id": 2, "method": "ping"})
        await peer.ended()


@every_transport
async def test_a_client_that_stops_reading_costs_bounded_memory_and_ends_in_time(script: Path, forced: str) -> None:
    async with Peer(script, forced=forced) as peer:
        await peer.greet()
        await peer.call(1, "flood")
        assert int(await peer.marked("stalled")) * 1000 < 2 * connection.PENDING_LIMIT_BYTES
        await peer.call(2, "hang")
        peer.end("EOF")
        await peer.ended()
        assert not (peer.marks / "hanging").exists()  # no work is taken up for a client that does not read


@every_transport
async def test_requests_of_a_client_that_stops_reading_wait_until_it_reads(script: Path, forced: str) -> None:
    async with Peer(script, forced=f"{forced} small") as peer:
        await peer.greet()
        await peer.call(0, "flood")
        await peer.marked("stalled")
        sent: list[int] = []
        with anyio.move_on_after(1):
            while len(sent) < 1000:
                await anyio.wait_writable(peer.stdin)
                sent.append(len(sent) + 1)
                await peer.say({"jsonrpc": "2.0", "id": sent[-1], "method": "ping", "params": {"x": "x" * 3000}})
        assert len(sent) < 500  # what may lie in this server, and the pipe
        assert [answer["id"] async for answer in peer.answers(len(sent))] == sent


@every_transport
async def test_what_was_answered_before_the_end_is_still_delivered(script: Path, forced: str) -> None:
    async with Peer(script, forced=forced) as peer:
        await peer.greet()
        await peer.call(1, "many", count=500)  # more than a pipe holds
        await peer.marked("sent")
        peer.end("SIGTERM")
        await peer.marked("down")
        assert [answer["id"] async for answer in peer.answers(1)] == [1]
        await peer.ended()


async def test_a_file_as_stdin_is_read_to_its_end(script: Path, tmp_path: Path) -> None:
    lines = tmp_path / "lines"
    lines.write_text(json.dumps(HELLO) + "\nnonsense")
    with lines.open() as source:
        async with Peer(script, stdin=source) as peer:
            refused = {answer["id"]: "error" in answer async for answer in peer.answers(2)}
            assert refused == {"hello": False, None: True}
            await peer.ended()
            assert (peer.marks / "ready").read_text().startswith("threads")
