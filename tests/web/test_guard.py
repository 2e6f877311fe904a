"""Who may knock: Host and Origin, how often, how many at a time, with how much. What is refused changes nothing."""

from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager, suppress

import anyio
import httpx2
import pytest
from anyio.abc import SocketStream
from starlette.datastructures import Headers
from starlette.responses import PlainTextResponse
from starlette.types import Message, Receive, Scope, Send
from web.conftest import OpenServer, headers_for, modern

from meerkat_mcp.web.bodies import DISCARD_BYTES_MAX, Incoming
from meerkat_mcp.web.guard import Guard, Load, Rates
from meerkat_mcp.web.options import HttpOptions

pytestmark = pytest.mark.anyio


class Behind:
    """What the guard protects: counts who came through, and can be made to take its time."""

    def __init__(self) -> None:
        self.served = 0
        self.gate: anyio.Event | None = None

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        self.served += 1
        if self.gate is not None:
            await self.gate.wait()
        await PlainTextResponse("here")(scope, receive, send)


def knocking(behind: Behind, client: str = "127.0.0.1", **options) -> httpx2.AsyncClient:
    transport = httpx2.ASGITransport(Guard(behind, HttpOptions(**options), Load()), client=(client, 1234))
    return httpx2.AsyncClient(transport=transport, base_url="http://127.0.0.1:9111")


@pytest.mark.parametrize(
    "host", ["127.0.0.1:9111", "localhost:1", "LOCALHOST", "[::1]:9111", "127.0.0.1", "den.example", "10.0.0.7:80"]
)
async def test_its_own_names_are_served_on_any_port(host: str):
    behind = Behind()
    async with knocking(behind, host="10.0.0.7", public_url="https://den.example", insecure=True) as client:
        assert (await client.get("/", headers={"host": host})).text == "here"


@pytest.mark.parametrize(
    "host", ["evil.example", "127.0.0.1.evil.example", "localhost.evil.example:9111", "127.0.0.1:9111:80", "", "[::1"]
)
async def test_other_names_are_misdirected_as_in_dns_rebinding(host: str):
    behind = Behind()
    async with knocking(behind) as client:
        refused = await client.get("/", headers={"host": host})
    assert (refused.status_code, behind.served) == (421, 0)
    assert "--allow-host" in refused.json()["error"]["hint"]


async def test_a_further_host_can_be_allowed():
    async with knocking(Behind(), allowed_hosts=("den.example",)) as client:
        assert (await client.get("/", headers={"host": "den.example:8443"})).status_code == 200


@pytest.mark.parametrize(
    "origin", ["http://127.0.0.1:9111", "http://localhost:6274", "http://[::1]:1", "https://pages.example"]
)
async def test_pages_of_this_machine_and_allowed_ones_may_use_a_local_server(origin: str):
    async with knocking(Behind(), allowed_origins=("https://pages.example",)) as client:
        answer = await client.get("/", headers={"origin": origin})
        assert (answer.status_code, answer.headers["access-control-allow-origin"]) == (200, origin)
        asked = await client.options("/mcp", headers={"origin": origin, "access-control-request-method": "POST"})
        assert asked.status_code == 204
        assert "authorization" in asked.headers["access-control-allow-headers"]


@pytest.mark.parametrize(
    "origin",
    [
        "https://evil.example",
        "http://127.0.0.1.evil.example",
        "http://localhost.evil.example:9111",
        "null",
        "",
        "file://",
        "http://[::1",
        "http://evil.example/#http://localhost",
        "http://localhost@evil.example",
    ],
)
async def test_pages_of_others_may_not(origin: str):
    behind = Behind()
    async with knocking(behind) as client:
        for method in ("GET", "POST", "OPTIONS"):
            refused = await client.request(method, "/mcp", headers={"origin": origin})
            assert refused.status_code == 403
            assert "--allow-origin" in refused.json()["error"]["hint"]
            assert "access-control-allow-origin" not in refused.headers
    assert not behind.served


async def test_on_the_network_pages_of_the_visitors_own_machine_may_not_either():
    async with knocking(Behind(), host="0.0.0.0", public_url="https://den.example", insecure=True) as client:
        for origin, status in (("http://localhost:3000", 403), ("https://den.example", 200)):
            headers = {"origin": origin, "host": "den.example"}
            assert (await client.get("/", headers=headers)).status_code == status


async def test_who_comes_too_often_is_told_to_wait_and_let_in_again_later():
    behind = Behind()
    async with knocking(behind, client="203.0.113.9", rate_max=50, insecure=True) as client:
        statuses = [(await client.get("/")).status_code for _ in range(150)]
        assert statuses[:100] == [200] * 100
        refused = await client.get("/")
        assert (refused.status_code, refused.headers["retry-after"]) == (429, "1")
        with anyio.fail_after(10):
            while (await client.get("/")).status_code == 429:
                await anyio.lowlevel.checkpoint()


async def test_clients_do_not_use_up_each_others_rate_and_this_machine_has_none():
    behind = Behind()
    guard = Guard(behind, HttpOptions(rate_max=1), Load())
    for address, many in (("203.0.113.9", 3), ("203.0.113.8", 1), ("127.0.0.1", 100), ("::1", 100)):
        transport = httpx2.ASGITransport(guard, client=(address, 1))
        async with httpx2.AsyncClient(transport=transport, base_url="http://localhost") as client:
            statuses = [(await client.get("/")).status_code for _ in range(many)]
        assert statuses.count(429) == (1 if many == 3 else 0)


async def test_the_rates_of_many_clients_take_bounded_room():
    rates = Rates(1)
    for number in range(20_000):
        assert rates.take(str(number))
    assert len(rates._buckets) == 10_000


async def test_more_requests_than_may_be_are_refused_and_room_comes_back():
    behind = Behind()
    behind.gate = anyio.Event()
    async with knocking(behind, requests_max=2) as client, anyio.create_task_group() as tasks:
        for _ in range(2):
            tasks.start_soon(client.get, "/")
        with anyio.fail_after(10):
            while behind.served < 2:
                await anyio.lowlevel.checkpoint()
        refused = await client.get("/")
        assert (refused.status_code, refused.headers["retry-after"]) == (503, "1")
        assert "--max-requests" in refused.json()["error"]["hint"]
        tasks.start_soon(client.get, "/healthz")
        with anyio.fail_after(10):
            while behind.served < 3:
                await anyio.lowlevel.checkpoint()
        behind.gate.set()
    async with knocking(behind, requests_max=2) as client:
        assert (await client.get("/")).status_code == 200


async def test_a_server_that_has_ended_its_work_sends_everybody_elsewhere():
    load, behind = Load(), Behind()
    load.closed = True
    transport = httpx2.ASGITransport(Guard(behind, HttpOptions(), load), client=("127.0.0.1", 1))
    async with httpx2.AsyncClient(transport=transport, base_url="http://localhost") as client:
        refused = await client.get("/")
    assert (refused.status_code, refused.headers["connection"], behind.served) == (503, "close", 0)
    assert refused.json()["error"]["retryable"]


async def test_a_body_that_is_too_large_is_refused_before_it_is_read_as_anything(open_server: OpenServer):
    async with open_server("--max-body", "2000") as server:
        (body,) = modern("tools/call", {"name": "meerkat_run", "arguments": {"prompt": "x" * 5000}})
        assert (await server.post(body, **headers_for("tools/call", "meerkat_run"))).status_code == 413

        host, port = server.url.removeprefix("http://").split(":")
        async with await anyio.connect_tcp(host, int(port)) as stream:
            head = f"POST /mcp HTTP/1.1\r\nHost: {host}\r\nContent-Type: application/json\r\n"
            chunk = b"BB8\r\n" + b"x" * 3000 + b"\r\n"
            await stream.send(f"{head}Transfer-Encoding: chunked\r\n\r\n".encode() + chunk)
            with anyio.fail_after(10):
                assert (await stream.receive()).startswith(b"HTTP/1.1 413 ")
                with suppress(anyio.EndOfStream, anyio.BrokenResourceError):
                    while True:  # what comes after it finds nobody who reads it
                        await stream.send(chunk)
        assert (await server.get("/healthz")).status_code == 200


@pytest.mark.parametrize("framing", ["Content-Length: 5000000", "Transfer-Encoding: chunked"])
async def test_who_sends_all_of_a_body_that_is_too_large_before_listening_hears_why_it_is_refused(
    open_server: OpenServer, framing: str
):
    async with open_server("--max-body", "2000") as server, knock(server.url) as stream:
        await stream.send(f"POST /mcp HTTP/1.1\r\nHost: localhost\r\n{framing}\r\n\r\n".encode())
        piece = b"x" * 50_000
        for _ in range(100):
            await stream.send(b"C350\r\n" + piece + b"\r\n" if "chunked" in framing else piece)
        await stream.send(b"0\r\n\r\n" if "chunked" in framing else b"")
        with anyio.fail_after(10):
            assert (await stream.receive()).startswith(b"HTTP/1.1 413 ")


@pytest.mark.parametrize(
    "headers", [{"content-length": "5000", "expect": "100-continue"}, {"content-length": "99999999"}]
)
async def test_nobody_is_asked_to_send_what_is_not_wanted_and_far_too_much_is_not_waited_for(headers: dict[str, str]):
    async def receive() -> Message:
        raise AssertionError("the answer comes first")

    await Incoming(Headers(headers), receive).discard(2000)


async def test_of_a_body_without_end_no_more_is_taken_in_than_there_is_patience_for():
    taken = 0

    async def receive() -> Message:
        nonlocal taken
        taken += 2**20
        return {"type": "http.request", "body": b" " * 2**20, "more_body": True}

    incoming = Incoming(Headers({"transfer-encoding": "chunked"}), receive)
    await incoming.discard(2**20)
    assert (incoming.whole, taken) == (False, DISCARD_BYTES_MAX + 2 * 2**20)


@asynccontextmanager
async def knock(url: str) -> AsyncGenerator[SocketStream]:
    host, port = url.removeprefix("http://").split(":")
    async with await anyio.connect_tcp(host, int(port)) as stream:
        yield stream


async def test_more_mcp_sessions_than_may_be_are_refused_and_modern_clients_need_none(open_server: OpenServer):
    async with open_server("--max-sessions", "1") as server, server.client(mode="legacy"):
        begin = {
            "jsonrpc": "2.0",
            "id": 1,
            "method": "initialize",
            "params": {
                "protocolVersion": "2025-11-25",
                "capabilities": {},
                "clientInfo": {"name": "t", "version": "1"},
            },
        }
        second = await server.post(begin, accept="application/json, text/event-stream")
        assert second.status_code == 503
        async with server.client() as client:
            assert (await client.list_tools()).tools
