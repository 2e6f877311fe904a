"""Requests for an MCP session of 2025 that reach another replica: what is sent on and what is not, and as whose."""

import json
import logging
import secrets
from collections.abc import AsyncGenerator
from contextlib import AsyncExitStack, asynccontextmanager
from typing import Any

import anyio
import anyio.abc
import httpx2
import pytest
import uvicorn
from mcp.server import MCPServer
from mcp.server.mcpserver import Context
from starlette.responses import PlainTextResponse
from starlette.types import Receive, Scope, Send
from web.site import Announcing

from meerkat_mcp.domain.errors import InvalidRequest
from meerkat_mcp.web.app import http_app
from meerkat_mcp.web.forwarding import Forwarding
from meerkat_mcp.web.guard import Guard, Load
from meerkat_mcp.web.options import REPLICA_URL_CHARS_MAX, HttpOptions
from meerkat_mcp.web.replicas import MARK, SESSION_ID, WIRE_ID_CHARS_MAX, Arrivals, Place, Replica
from meerkat_mcp.web.tokens import StaticTokens

pytestmark = pytest.mark.anyio

PATIENCE_S = 20.0
KEY = secrets.token_bytes(32)
ADA, EVE = "a-token-of-ada-that-is-long", "a-token-of-eve-that-is-long"
LATEST = "2025-11-25"
ACCEPT = {"accept": "application/json, text/event-stream", "mcp-protocol-version": LATEST}


async def sealing_key() -> bytes:
    return KEY


async def open_replica(url: str = "") -> Replica:
    replica = Replica(sealing_key, url)
    await replica.open()
    return replica


class Server:
    """An MCP server with one tool, which waits until it is told to go on."""

    def __init__(self) -> None:
        self.url = ""
        self.called, self.go_on = anyio.Event(), anyio.Event()
        self.mcp = MCPServer[Any]("waits", log_level="WARNING")

        @self.mcp.tool()
        async def wait(ctx: Context[Any]) -> str:
            """Says how far it is, waits, and is done."""
            await ctx.report_progress(1, 2)
            self.called.set()
            await self.go_on.wait()
            return "done"

    @property
    def mcp_url(self) -> str:
        return f"{self.url}/mcp"


@asynccontextmanager
async def replicas(many: int = 2, **options: Any) -> AsyncGenerator[list[Server]]:
    """Servers of one realm, that know each other."""
    servers = [Server() for _ in range(many)]
    async with anyio.create_task_group() as tasks:
        running: list[Announcing] = []
        try:
            for server in servers:
                replica = Replica(sealing_key)
                app = http_app(server.mcp, HttpOptions(**options), replica=replica)
                how: dict[str, Any] = {"log_level": "warning", "ws": "none", "http": "h11"}
                running.append(Announcing(uvicorn.Config(app, port=0, timeout_graceful_shutdown=1, **how)))
                tasks.start_soon(running[-1].serve)
                with anyio.fail_after(PATIENCE_S):
                    await running[-1].ready.wait()
                server.url = f"http://127.0.0.1:{running[-1].servers[0].sockets[0].getsockname()[1]}"
                replica.url = server.url
            yield servers
        finally:
            for each in running:
                each.should_exit = True


def visitor(**how: Any) -> httpx2.AsyncClient:
    return httpx2.AsyncClient(timeout=PATIENCE_S, headers=ACCEPT | how.pop("headers", {}), **how)


def message(method: str, **params: Any) -> dict[str, Any]:
    return {"jsonrpc": "2.0", "id": 1, "method": method, "params": params}


async def begun(web: httpx2.AsyncClient, server: Server) -> dict[str, str]:
    """The header of a new MCP session."""
    about = {"protocolVersion": LATEST, "capabilities": {}, "clientInfo": {"name": "t", "version": "1"}}
    answer = await web.post(server.mcp_url, json=message("initialize", **about))
    assert answer.status_code == 200
    session = {SESSION_ID: answer.headers[SESSION_ID]}
    ready = {"jsonrpc": "2.0", "method": "notifications/initialized"}
    assert (await web.post(server.mcp_url, json=ready, headers=session)).status_code == 202
    return session


LIST = message("tools/list")
WAIT = message("tools/call", name="wait", arguments={}, _meta={"progressToken": 7})


async def test_every_replica_serves_a_session_and_forgets_it_when_any_is_told_to():
    async with replicas(3) as (one, other, third), visitor() as web:
        session = await begun(web, one)
        for server in (other, third, one):
            answer = await web.post(server.mcp_url, json=LIST, headers=session)
            assert (answer.status_code, answer.headers[SESSION_ID]) == (200, session[SESSION_ID])
            assert '"wait"' in answer.text
        assert (await web.delete(other.mcp_url, headers=session)).status_code == 200
        for server in (one, other, third):
            assert (await web.post(server.mcp_url, json=LIST, headers=session)).status_code == 404


async def test_what_comes_is_passed_back_as_it_comes():
    async with replicas() as (one, other), visitor() as web:
        session = await begun(web, one)
        text = ""
        async with web.stream("POST", other.mcp_url, json=WAIT, headers=session) as answer:
            async for more in answer.aiter_text():
                text += more
                if "notifications/progress" in text:
                    one.go_on.set()
        assert '"done"' in text


async def test_who_hangs_up_hangs_up_there_too():
    async with replicas() as (one, other), visitor() as web:
        session = await begun(web, one)
        for _ in range(3):  # one listens at a time, else it is a conflict
            with anyio.fail_after(PATIENCE_S):
                status = 409
                while status == 409:
                    async with web.stream("GET", other.mcp_url, headers=session) as listening:
                        status = listening.status_code
            assert status == 200


async def test_ids_that_no_replica_gave_lead_nowhere():
    stranger = Replica(lambda: own(secrets.token_bytes(32)), "http://127.0.0.1:1")
    await stranger.open()
    mine = await open_replica("http://127.0.0.1:1")
    async with replicas() as (one, other), visitor() as web:
        given = (await begun(web, one))[SESSION_ID]
        forged = [
            stranger.wire_id("0" * 32),
            mine.mark("127.0.0.1", given),  # sealed by the realm, but for another use
            given[:-1] + ("A" if given[-1] != "A" else "B"),
            given[3:],
            "0" * 32,
            "v1." + "A" * 100,
            "x" * (WIRE_ID_CHARS_MAX + 1),
        ]
        for wire_id in forged:
            for server in (one, other):
                answer = await web.post(server.mcp_url, json=LIST, headers={SESSION_ID: wire_id})
                assert (answer.status_code, answer.json()["error"]["message"]) == (404, "Session not found")


async def own(key: bytes) -> bytes:
    return key


async def test_what_was_sent_on_once_is_never_sent_on_again():
    realm = await open_replica()
    async with replicas() as (one, other), visitor() as web:
        session = await begun(web, one)
        for mark in ("anything", realm.mark("127.0.0.1", session[SESSION_ID])):
            marked = session | {MARK: mark}
            assert (await web.post(other.mcp_url, json=LIST, headers=marked)).status_code == 404
            assert (await web.post(one.mcp_url, json=LIST, headers=marked)).status_code == 200


async def test_a_session_of_a_replica_without_an_address_is_not_found_elsewhere():
    unreachable = await open_replica()
    async with replicas(1) as (one,), visitor() as web:
        wire_id = unreachable.wire_id("0" * 32)
        assert (await web.post(one.mcp_url, json=LIST, headers={SESSION_ID: wire_id})).status_code == 404


async def test_a_session_is_for_whom_it_was_begun_wherever_they_ask():
    auth = StaticTokens(lambda: f"ada {ADA}\neve {EVE}\n", source="tokens")
    as_ada, as_eve = ({"authorization": f"Bearer {token}"} for token in (ADA, EVE))
    async with replicas(auth=auth) as (one, other), visitor(headers=as_ada) as web:
        session = await begun(web, one)
        assert (await web.post(other.mcp_url, json=LIST, headers=session)).status_code == 200
        assert (await web.post(other.mcp_url, json=LIST, headers=session | as_eve)).status_code == 404
        async with visitor() as nobody:
            refused = await nobody.post(other.mcp_url, json=LIST, headers=session)
            assert (refused.status_code, "www-authenticate" in refused.headers) == (401, True)


async def test_the_log_of_both_has_the_client_and_says_which_way_it_came(caplog: pytest.LogCaptureFixture):
    caplog.set_level(logging.INFO, "meerkat_mcp.access")
    transport = httpx2.AsyncHTTPTransport(local_address="127.0.0.2")
    async with replicas() as (one, other), visitor(transport=transport) as web:
        session = await begun(web, one)
        spoofed = session | {"x-forwarded-for": "203.0.113.9"}
        assert (await web.post(other.mcp_url, json=LIST, headers=spoofed)).status_code == 200
        marked = session | {MARK: "anything"}
        assert (await web.post(one.mcp_url, json=LIST, headers=marked)).status_code == 200
    lines = [json.loads(record.message) for record in caplog.records if record.name == "meerkat_mcp.access"]
    ways = [(line["client"], line.get("through"), line.get("sent_on")) for line in lines]
    direct, there, here = (("127.0.0.2", *way) for way in ((None, None), ("127.0.0.1", None), (None, one.url)))
    assert (ways.count(direct), ways.count(there), ways.count(here)) == (3, 1, 1)
    assert len(ways) == 5


@pytest.mark.parametrize("origin", ["http://127.0.0.1:1", "https://pages.example"])
async def test_a_page_that_may_use_one_replica_is_answered_once(origin: str):
    async with replicas(allowed_origins=("https://pages.example",)) as (one, other), visitor() as web:
        session = await begun(web, one)
        answer = await web.post(other.mcp_url, json=LIST, headers=session | {"origin": origin})
        allowed = answer.headers.get_list("access-control-allow-origin")
        assert (answer.status_code, allowed) == (200, [origin])


async def test_rates_are_counted_where_the_client_knocked():
    replica = await open_replica("http://10.0.0.1:9111")
    options = HttpOptions(rate_max=1, replica_url=replica.url)

    async def here(scope: Scope, receive: Receive, send: Send) -> None:
        await PlainTextResponse(scope["client"][0])(scope, receive, send)

    app = Arrivals(Guard(here, options, Load()), replica)
    transport = httpx2.ASGITransport(app, client=("10.0.0.2", 1))
    async with httpx2.AsyncClient(transport=transport, base_url=replica.url) as web:
        marked = {SESSION_ID: "some-id", MARK: replica.mark("203.0.113.9", "some-id")}
        answers = [await web.get("/", headers=marked) for _ in range(9)]
        assert {(answer.status_code, answer.text) for answer in answers} == {(200, "203.0.113.9")}
        for wrong in ({MARK: "anything"}, marked | {SESSION_ID: "another-id"}):
            statuses = [(await web.get("/", headers=wrong)).status_code for _ in range(3)]
            assert 429 in statuses


async def test_a_replica_that_is_gone_or_says_nothing_is_one_that_has_no_such_session():
    forwarding = Forwarding(await open_replica("http://127.0.0.1:1"), "/mcp", silence_s=0.3)
    async with AsyncExitStack() as running:
        frozen = await running.enter_async_context(await anyio.create_tcp_listener(local_host="127.0.0.1"))
        address = frozen.extra(anyio.abc.SocketAttribute.local_address)
        for url in ("http://127.0.0.1:2", f"http://127.0.0.1:{address[1]}"):

            async def asked(scope: Scope, receive: Receive, send: Send, url: str = url) -> None:
                await forwarding.send_on(Place(url, "0" * 32), scope, b"{}", receive, send)

            async with httpx2.AsyncClient(transport=httpx2.ASGITransport(asked), base_url="http://x") as web:
                with anyio.fail_after(PATIENCE_S):
                    answer = await web.post("/mcp")
            assert (answer.status_code, answer.json()["error"]["message"]) == (404, "Session not found")
    await forwarding.close()


async def test_the_longest_address_fits_into_an_id():
    url = "https://" + "a" * (REPLICA_URL_CHARS_MAX - 8)
    HttpOptions(replica_url=url).check()
    replica = await open_replica(url)
    wire_id = replica.wire_id("0" * 32)
    assert wire_id.isascii()
    assert wire_id.isprintable()
    assert len(wire_id) <= WIRE_ID_CHARS_MAX
    assert replica.place(wire_id) == Place(url, "0" * 32)


@pytest.mark.parametrize(
    "url",
    [
        "10.0.0.7:9111",
        "ftp://10.0.0.7",
        "http://0.0.0.0:9111",
        "http://[::]:9111",
        "http://user:word@10.0.0.7",
        "http://10.0.0.7:9111/?a=b",
        "http://10.0.0.7:99999",
        "http:///x",
        "http://a b",
        "http://" + "a" * REPLICA_URL_CHARS_MAX,
    ],
)
def test_what_is_no_address_of_a_replica_is_refused(url: str):
    with pytest.raises(InvalidRequest, match="is no address of a replica"):
        HttpOptions(replica_url=url).check()


@pytest.mark.parametrize(
    "url", ["http://10.0.0.7:9111", "https://a.internal/agents", "http://[fd00::7]:9111", "http://a"]
)
def test_addresses_of_replicas_have_a_name_or_number_and_may_have_a_path(url: str):
    HttpOptions(replica_url=url).check()
