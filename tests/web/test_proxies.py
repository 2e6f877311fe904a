"""Behind nginx and Caddy, with the configs that `docs/deploy` has: what passes, when it passes, and what does not."""

import json
import re
import ssl
from collections.abc import AsyncGenerator, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from functools import partial
from pathlib import Path
from typing import Any

import anyio
import anyio.streams.tls
import httpx2
import pytest
from mcp import Client
from mcp.client.streamable_http import streamable_http_client
from web import proxies
from web.conftest import PATIENCE_S, QUICK, OpenServer

pytestmark = pytest.mark.anyio

TOKEN = "a-token-that-is-long-enough"
FLAGS = ("--public-url", f"https://{proxies.NAME}", "--trust-proxy", "127.0.0.1", "--token-env", "T")
PAGE = Path(__file__).parents[2] / "docs" / "how-to" / "deploy.md"
ERAS: tuple[dict[str, Any], ...] = ({}, {"mode": "legacy"})

Proxied = Callable[..., AbstractAsyncContextManager[str]]


@pytest.fixture(params=["nginx", "caddy"])
def kind(request: pytest.FixtureRequest) -> str:
    return request.param


@pytest.fixture
def proxied(kind: str, tmp_path: Path, pytestconfig: pytest.Config) -> Proxied:
    """Each call puts a proxy of the kind before the servers with the given addresses."""
    program = proxies.nginx() if kind == "nginx" else proxies.caddy(Path(pytestconfig.cache.mkdir("caddy")))
    return partial(proxies.proxied, kind, program, tmp_path / "proxy")


@asynccontextmanager
async def visiting(tmp_path: Path, **options: Any) -> AsyncGenerator[httpx2.AsyncClient]:
    """An HTTP client that trusts the proxy, calls the server by its public name and has a token."""
    trust = ssl.create_default_context(cafile=str(tmp_path / "proxy" / "cert.pem"))
    headers = {"host": proxies.NAME, "authorization": f"Bearer {TOKEN}"}
    transport = httpx2.AsyncHTTPTransport(verify=trust, **options)
    async with httpx2.AsyncClient(transport=transport, headers=headers, timeout=PATIENCE_S) as client:
        yield client


@asynccontextmanager
async def calling(url: str, tmp_path: Path, **options: Any) -> AsyncGenerator[Client]:
    async with (
        visiting(tmp_path) as web,
        Client(streamable_http_client(f"{url}/mcp", http_client=web), **options) as client,
    ):
        yield client


async def run(client: Client, prompt: str, **arguments: Any) -> Any:
    given = {"prompt": prompt, "provider_params": QUICK} | arguments
    return (await client.call_tool("meerkat_run", given)).structured_content


async def state(url: str, tmp_path: Path, session_id: str = "last") -> str:
    async with calling(url, tmp_path) as client:
        read = await client.call_tool("meerkat_read", {"session_id": session_id})
        return read.structured_content["session"]["state"]


@pytest.mark.parametrize("era", ERAS, ids=["2026", "2025"])
async def test_what_a_turn_says_passes_while_it_works_and_a_call_that_is_given_up_ends_it(
    open_server: OpenServer, proxied: Proxied, tmp_path: Path, era: dict[str, Any]
):
    async with open_server(*FLAGS, T=TOKEN) as server, proxied(server.url) as url:
        heard = anyio.Event()

        async def progress(_: float, __: float | None, message: str | None) -> None:
            if "word2" in (message or ""):
                heard.set()

        with anyio.fail_after(PATIENCE_S):
            async with calling(url, tmp_path, **era) as client, anyio.create_task_group() as tasks:
                arguments = {"prompt": "[[words 3]][[hang]]", "provider_params": QUICK, "stream": True}
                tasks.start_soon(partial(client.call_tool, "meerkat_run", arguments, progress_callback=progress))
                await heard.wait()
                assert await state(url, tmp_path) == "running"
                tasks.cancel_scope.cancel()
            while await state(url, tmp_path) in ("running", "stopping"):
                await anyio.lowlevel.checkpoint()


async def test_the_events_of_a_session_pass_as_they_happen(open_server: OpenServer, proxied: Proxied, tmp_path: Path):
    async with open_server(*FLAGS, T=TOKEN) as server, proxied(server.url) as url:
        async with calling(url, tmp_path) as client:
            session = await run(client, "[[say some words]][[hang]]", wait_seconds=0, on_cancel="detach")
        address = f"{url}/sessions/{session['session_id']}/events"
        with anyio.fail_after(PATIENCE_S):
            async with visiting(tmp_path) as web, web.stream("GET", address) as events:
                async for line in events.aiter_lines():
                    if line.startswith("event: text_delta"):
                        break
        assert await state(url, tmp_path) == "running"


async def test_long_prompts_pass_up_to_the_servers_own_limit(open_server: OpenServer, proxied: Proxied, tmp_path: Path):
    async with open_server(*FLAGS, T=TOKEN) as server, proxied(server.url) as url:
        async with calling(url, tmp_path) as client:
            assert (await run(client, "[[say hi]]" + "x" * 900_000))["text"] == "hi"
        async with visiting(tmp_path) as web:
            large = await web.post(f"{url}/mcp", content=b" " * 3_900_000, headers={"content-type": "application/json"})
            assert large.status_code in (400, 406)
            too_large = await answer_to(web, f"{url}/mcp", b" " * 4_300_000)
            assert too_large in (413, None), f"answered {too_large}, and not 413"


async def answer_to(web: httpx2.AsyncClient, address: str, body: bytes) -> int | None:
    """The status of the answer; None: a proxy that has answered hung up on who was still sending."""
    try:
        return (await web.post(address, content=body)).status_code
    except httpx2.NetworkError:
        return None


async def test_the_log_has_the_address_of_the_client_and_not_what_it_says_of_itself(
    open_server: OpenServer, proxied: Proxied, tmp_path: Path
):
    async with open_server(*FLAGS, T=TOKEN) as server, proxied(server.url) as url:
        async with visiting(tmp_path, local_address="127.0.0.2") as web:
            answer = await web.get(f"{url}/sessions/nowhere/events", headers={"x-forwarded-for": "203.0.113.9"})
            assert answer.status_code == 400
        line = (await server.until_said(r'access: (\{.*"/sessions/nowhere/events".*\})\n'))[1]
        assert json.loads(line)["client"] == "127.0.0.2"


async def test_who_has_no_token_gets_no_further_than_to_the_page(
    open_server: OpenServer, proxied: Proxied, tmp_path: Path
):
    async with open_server(*FLAGS, T=TOKEN) as server, proxied(server.url) as url, visiting(tmp_path) as web:
        del web.headers["authorization"]
        paths = ("/", "/healthz", "/metrics", "/mcp", "/sessions/last/events")
        assert [(await web.get(url + path)).status_code for path in paths] == [200, 200, 401, 401, 401]


async def test_the_page_may_act_on_whatever_port_it_is(open_server: OpenServer, proxied: Proxied, tmp_path: Path):
    async with open_server(*FLAGS, T=TOKEN) as server, proxied(server.url) as url, visiting(tmp_path) as web:
        host = f"{proxies.NAME}:{httpx2.URL(url).port}"
        headers = {"host": host, "origin": f"https://{host}"}
        answer = await web.post(f"{url}/sessions/nowhere/approvals", json={}, headers=headers)
        assert (answer.status_code, answer.json()["error"]["code"]) == (400, "invalid_request")


async def test_several_connections_of_a_browser_are_one(open_server: OpenServer, proxied: Proxied, tmp_path: Path):
    async with open_server(*FLAGS, T=TOKEN) as server, proxied(server.url) as url:
        trust = ssl.create_default_context(cafile=str(tmp_path / "proxy" / "cert.pem"))
        trust.set_alpn_protocols(["h2", "http/1.1"])
        port = httpx2.URL(url).port
        how: dict[str, Any] = {"ssl_context": trust, "tls_standard_compatible": False}
        async with await anyio.connect_tcp("127.0.0.1", port, **how) as stream:
            assert stream.extra(anyio.streams.tls.TLSAttribute.alpn_protocol) == "h2"


@pytest.mark.parametrize("era", ERAS, ids=["2026", "2025"])
async def test_below_a_prefix_the_page_and_mcp_are_found(
    open_server: OpenServer, proxied: Proxied, tmp_path: Path, kind: str, era: dict[str, Any]
):
    flags = (*FLAGS, "--root-path", "/agents", "--oauth-issuer", "https://login.example.com")
    async with (
        open_server(*flags, T=TOKEN) as server,
        proxied(server.url, change=below_a_prefix(kind)) as url,
        visiting(tmp_path) as web,
    ):
        assert f"https://{proxies.NAME}/agents/mcp" in server.said
        async with calling(f"{url}/agents", tmp_path, **era) as client:
            assert (await run(client, "[[say hi]]"))["text"] == "hi"
        assert "/agents/assets/page.js" in (await web.get(f"{url}/agents/")).text
        assert (await web.get(f"{url}/agents/assets/page.js")).status_code == 200
        assert (await web.get(f"{url}/agents")).headers["location"].endswith("/agents/")
        found = await web.get(f"{url}/.well-known/oauth-protected-resource/agents/mcp")
        assert found.json()["resource"] == f"https://{proxies.NAME}/agents/mcp"


def below_a_prefix(kind: str) -> proxies.Change:
    """The change that the page shows: for nginx in place of its one location, for Caddy in place of all."""
    language, replaced = ("nginx", r"    location / \{.*?\n    \}\n") if kind == "nginx" else ("caddyfile", r"\A.*\Z")
    shown = re.search(rf"```{language}\n(.*?)```", PAGE.read_text(encoding="utf-8"), re.DOTALL)
    assert shown, "the page shows how a prefix is taken off"
    return lambda config: re.sub(replaced, lambda _: shown[1], config, flags=re.DOTALL)


async def test_while_one_process_is_away_the_other_serves(open_server: OpenServer, proxied: Proxied, tmp_path: Path):
    async with (
        open_server(*FLAGS, T=TOKEN) as one,
        open_server(*FLAGS, T=TOKEN) as other,
        proxied(one.url, other.url) as url,
    ):
        async with calling(url, tmp_path) as client:
            before = await run(client, "My name is Ada.")
        one.end()
        assert await one.ended() == 0
        async with calling(url, tmp_path) as client:
            for _ in range(5):
                arguments = {"session_id": before["session_id"], "prompt": "What is my name?"}
                after = await client.call_tool("meerkat_resume", arguments)
                assert "Ada" in after.structured_content["text"]


async def test_clients_of_2025_reach_their_server_through_any_of_several(
    open_server: OpenServer, proxied: Proxied, tmp_path: Path
):
    async with (
        open_server(*FLAGS, T=TOKEN) as one,
        open_server(*FLAGS, T=TOKEN) as other,
        proxied(one.url, other.url) as url,
        calling(url, tmp_path, mode="legacy") as client,
    ):
        before = await run(client, "My name is Ada.")
        for _ in range(4):
            arguments = {"session_id": before["session_id"], "prompt": "What is my name?"}
            after = await client.call_tool("meerkat_resume", arguments)
            assert "Ada" in after.structured_content["text"]
        lines = one.said + other.said
        assert '"sent_on":"http://127.0.0.1:' in lines
        assert '"client":"127.0.0.1","through":"127.0.0.1"' in lines
