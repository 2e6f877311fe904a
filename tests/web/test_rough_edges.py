"""What clients did to the server, hostile or clumsy, that it once took badly."""

import json
import signal
from contextlib import suppress

import anyio
import psutil
import pytest
import uvicorn
from starlette.responses import PlainTextResponse
from web.abuse.kinds import LEGACY, World, enveloped, initialize, message_of
from web.abuse.transport import GOOD_HEADERS
from web.abuse.wire import GONE, Wire, chunked, request
from web.conftest import PATIENCE_S, QUICK, OpenServer, Server

from meerkat_mcp.web.connection import Connection

pytestmark = pytest.mark.anyio

TOKEN = "run-token-that-is-long-enough"
GOOD = json.dumps(enveloped("server/discover")).encode()


def wire(server: Server) -> Wire:
    host, port = server.url.removeprefix("http://").split(":")
    return Wire(host, int(port))


def world(server: Server) -> World:
    return World(server.url.removeprefix("http://"), {"all": TOKEN})


async def handshake(one: Wire, here: World) -> str:
    session = (await one.ask(here.post(initialize()))).header("mcp-session-id")
    await one.ask(here.legacy({"jsonrpc": "2.0", "method": "notifications/initialized"}, session=session))
    return session


async def ended(server: Server) -> str:
    server.end(signal.SIGTERM)
    await server.ended()
    return server.said


@pytest.mark.parametrize("where", ["modern", "legacy", "approvals"])
async def test_who_hangs_up_in_the_middle_of_a_body_leaves_one_quiet_line(open_server: OpenServer, where: str):
    async with open_server() as server, wire(server) as one:
        here = world(server)
        session = await handshake(one, here)
        raw = {
            "modern": here.tool("meerkat_run", {"prompt": "hi"}),
            "legacy": here.legacy(json.loads(GOOD), session=session),
            "approvals": here.post({"responses": []}, ("Origin", server.url), path="/sessions/x/approvals"),
        }[where]
        async with wire(server) as other:
            await other.send(raw[:-3])
        await server.until_said(r'"status":499')
        said = await ended(server)
    assert "Traceback" not in said
    assert '"status":500' not in said


async def test_a_broken_chunk_after_the_answer_closes_the_connection(open_server: OpenServer):
    async with open_server() as server, wire(server) as one:
        await one.send(world(server).get("/healthz", ("Transfer-Encoding", "chunked")))
        await one.answer()
        with suppress(*GONE):
            await one.send(b"zz\r\n\r\n")
            await one.answer()
        assert "Traceback" not in await ended(server)


async def test_a_body_with_two_lengths_is_refused(open_server: OpenServer):
    async with open_server() as server, wire(server) as one:
        lengths = [("Content-Length", "5"), ("Transfer-Encoding", "chunked")]
        headers = [*world(server).headers(), *GOOD_HEADERS, *lengths]
        answer = await one.ask(request("POST", "/mcp", headers, chunked(GOOD), length=False))
    assert (answer.status, answer.closes) == (400, True)


async def test_asking_for_lost_messages_of_2025_gets_the_stream_from_now_on(open_server: OpenServer):
    async with open_server() as server, wire(server) as one:
        here = world(server)
        session = await handshake(one, here)
        headers = (("Mcp-Session-Id", session), ("Mcp-Protocol-Version", LEGACY), ("Last-Event-ID", "5"))
        await one.send(here.get("/mcp", *headers))
        assert (await one.answer(head_only=True)).status == 200


async def test_a_huge_length_is_refused_at_once_whoever_calls(open_server: OpenServer, tmp_path):
    tokens = tmp_path / "tokens"
    tokens.write_text(f"run {TOKEN} sessions:run\n")
    tokens.chmod(0o600)
    async with open_server("--token-file", str(tokens)) as server, wire(server) as one:
        headers = [*world(server).headers(), *GOOD_HEADERS, ("Content-Length", "99999999")]
        with anyio.fail_after(PATIENCE_S):
            answer = await one.ask(request("POST", "/mcp", headers, b"{}", length=False))
    assert (answer.status, answer.closes) == (413, True)


async def test_approvals_that_are_too_large_are_413(open_server: OpenServer):
    async with open_server() as server, wire(server) as one:
        body = b" " * 300_000
        answer = await one.ask(world(server).post(body, ("Origin", server.url), path="/sessions/x/approvals"))
    assert answer.status == 413


async def test_who_is_refused_cannot_go_on_sending(open_server: OpenServer, tmp_path):
    tokens = tmp_path / "tokens"
    tokens.write_text(f"run {TOKEN}\n")
    tokens.chmod(0o600)
    async with open_server("--token-file", str(tokens)) as server, wire(server) as one:
        headers = [*world(server).headers(None), ("Transfer-Encoding", "chunked")]
        await one.send(request("POST", "/mcp", headers, length=False))
        assert (await one.answer()).status == 401
        sent = 0
        with anyio.fail_after(PATIENCE_S), suppress(*GONE):
            while sent < 100_000_000:
                await one.send(b"10000\r\n" + b"x" * 65536 + b"\r\n")
                sent += 65536
        assert sent < 20_000_000


async def test_readers_of_a_large_log_who_do_not_read_hold_little_memory(open_server: OpenServer):
    async with open_server() as server, wire(server) as one:
        here = world(server)
        big = {"prompt": "[[chars 400000]]", "wait_seconds": 30}
        ran = message_of(await one.ask(here.tool("meerkat_run", big | {"provider_params": QUICK})))
        session_id = ran["result"]["structuredContent"]["session_id"]
        for _ in range(20):
            await one.ask(here.tool("meerkat_resume", big | {"session_id": session_id}))
        process = psutil.Process(server.process.pid)
        before = process.memory_info().rss
        stalled = [wire(server) for _ in range(20)]
        for reader in stalled:
            await reader.send(here.get(f"/sessions/{session_id}/events"))
            await reader.answer(head_only=True)
        for _ in range(100):
            await one.ask(here.get("/healthz"))
        grown_mb = (process.memory_info().rss - before) / 2**20 / len(stalled)
        for reader in stalled:
            await reader.close()
    assert grown_mb < 4


class Impatient(Connection):
    receive_s = 0.3


@pytest.mark.parametrize(
    "said", [b"", b"GET / HTTP/1.1\r\nHost: x", b"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 9\r\n\r\nab"]
)
async def test_a_connection_on_which_no_request_becomes_whole_is_closed(said: bytes):
    config = uvicorn.Config(PlainTextResponse("here"), port=0, http=Impatient, ws="none", log_config=None)
    server = uvicorn.Server(config)
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(server.serve)
        with anyio.fail_after(PATIENCE_S):
            while not server.started:
                await anyio.lowlevel.checkpoint()
            port = server.servers[0].sockets[0].getsockname()[1]
            async with await anyio.connect_tcp("127.0.0.1", port) as stream:
                await stream.send(b"GET / HTTP/1.1\r\nHost: x\r\n\r\n" + said if said else b"")
                if said:
                    assert (await stream.receive()).startswith(b"HTTP/1.1 200")
                with suppress(anyio.EndOfStream, anyio.BrokenResourceError):
                    while await stream.receive():
                        pass
        server.should_exit = True
