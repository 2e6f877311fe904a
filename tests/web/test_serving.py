"""`meerkat-mcp serve --http`: it starts where it says, refuses what would be open by mistake, and ends in order."""

import json
import signal
import socket

import anyio
import httpx2
import pytest
from web.conftest import PATIENCE_S, QUICK, OpenServer, Server, headers_for, modern

from meerkat_mcp.cli import main
from meerkat_mcp.realms import choose, open_realm

pytestmark = pytest.mark.anyio


def refusal(capsys: pytest.CaptureFixture[str], *flags: str) -> dict:
    assert main(["--json", "serve", "--http", *flags]) == 2
    return json.loads(capsys.readouterr().err)["error"]


async def begin(server: Server, prompt: str, **arguments) -> str:
    """A session whose turn goes on after this."""
    async with server.client() as client:
        given = {"prompt": prompt, "wait_seconds": 0, "on_cancel": "detach", "provider_params": QUICK} | arguments
        return (await client.call_tool("meerkat_run", given)).structured_content["session_id"]


async def test_both_eras_are_served_at_one_address(open_server: OpenServer):
    async with open_server() as server:
        for mode in ({}, {"mode": "legacy"}):
            async with server.client(**mode) as client:
                result = await client.call_tool("meerkat_run", {"prompt": "[[say hi]]", "provider_params": QUICK})
                assert result.structured_content["text"] == "hi"


async def test_sessions_are_those_of_the_folders_realm_for_every_command(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("MEERKAT_STATE_ROOT", str(tmp_path / "realms"))
    assert main(["--json", "realm", "current"]) == 0
    current = json.loads(capsys.readouterr().out)
    assert current["realm_id"].startswith("ws-")


@pytest.mark.parametrize("host", ["0.0.0.0", "::", "192.0.2.1", "example.org"])
def test_other_machines_are_let_in_only_when_asked_who_they_are_or_told_so(host: str, capsys):
    said = refusal(capsys, "--host", host, "--port", "0")
    assert said["code"] == "invalid_request"
    assert "--token-file" in said["hint"]
    assert "--insecure" in said["hint"]


@pytest.mark.parametrize(
    "flag", [("--public-url", "https://den.example"), ("--trust-proxy", "10.0.0.1"), ("--allow-host", "den.example")]
)
def test_what_lets_others_in_through_a_proxy_is_no_different(flag: tuple[str, str], capsys):
    said = refusal(capsys, *flag, "--port", "0")
    assert flag[0] in said["message"]
    assert "--insecure" in said["hint"]


@pytest.mark.parametrize(
    ("flags", "hint"),
    [
        (("--own-sessions-only",), "--token-file"),
        (("--oauth-issuer", "https://issuer.example"), "--public-url"),
        (("--public-url", "https://den.example"), "--token-file"),
        (("--token-env", "MEERKAT_NO_SUCH_TOKEN"), "--token-file"),
    ],
)
def test_flags_that_need_another_say_which(flags: tuple[str, ...], hint: str, capsys):
    assert hint in refusal(capsys, *flags)["hint"]


@pytest.mark.parametrize("flags", [("--port", "70000"), ("--public-url", "agents"), ("--root-path", "a b")])
def test_values_that_cannot_be_are_refused(flags: tuple[str, ...], capsys):
    assert refusal(capsys, *flags)["code"] == "invalid_request"


def test_flags_for_http_are_refused_without_it(capsys):
    assert main(["--json", "serve", "--port", "1"]) == 2
    assert "--http" in json.loads(capsys.readouterr().err)["error"]["hint"]


def test_a_port_that_is_taken_is_said_so(tmp_path, capsys):
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = str(taken.getsockname()[1])
        said = refusal(capsys, "--port", port, "--realm", "den", "--state-root", str(tmp_path))
    assert port in said["message"]
    assert "--port 0" in said["hint"]


async def test_health_and_readiness_are_told_to_everybody(open_server: OpenServer):
    async with open_server("--token-env", "T", T="a-token-that-is-long-enough") as server:
        assert (await server.get("/healthz")).json() == {"status": "ok"}
        ready = await server.get("/readyz")
        assert (ready.status_code, ready.json()["checks"]) == (200, {"accepting": True, "lease": True, "store": True})
        assert (await server.get("/metrics")).status_code == 401
        metrics = await server.get("/metrics", authorization="Bearer a-token-that-is-long-enough")
        assert "meerkat_turns_running 0.0" in metrics.text


async def test_a_server_that_ends_says_that_it_is_not_ready_while_a_turn_goes_on(open_server: OpenServer):
    async with open_server("--drain", "30") as server, httpx2.AsyncClient(timeout=PATIENCE_S) as kept:
        session_id = await begin(server, "[[hang]]")
        assert (await kept.get(f"{server.url}/readyz")).status_code == 200
        server.end()
        with anyio.fail_after(PATIENCE_S):
            while (ready := await kept.get(f"{server.url}/readyz")).status_code == 200:
                await anyio.lowlevel.checkpoint()
        assert ready.json()["checks"]["accepting"] is False
        body = modern("tools/call", {"name": "meerkat_run", "arguments": {"prompt": "hi"}})[0]
        refused = await kept.post(f"{server.url}/mcp", json=body, headers=headers_for("tools/call", "meerkat_run"))
        error = json.loads(refused.json()["result"]["content"][0]["text"])["error"]
        assert (error["code"], error["retryable"]) == ("store_unavailable", True)
        body = modern("tools/call", {"name": "meerkat_interrupt", "arguments": {"session_id": session_id}})[0]
        await kept.post(f"{server.url}/mcp", json=body, headers=headers_for("tools/call", "meerkat_interrupt"))
        assert await server.ended() == 0


@pytest.mark.parametrize("how", [signal.SIGTERM, signal.SIGINT])
async def test_a_signal_ends_everything_in_order_and_soon(open_server: OpenServer, tmp_path, how: int):
    async with open_server("--drain", "0") as server:
        hanging = await begin(server, "[[say some]][[hang]]")
        told: list[object] = []

        async def follow() -> None:
            async with server.client() as client:
                await client.list_tools()  # else it asks for the tool's schema when it has the result
                result = await client.call_tool("meerkat_read", {"session_id": hanging, "wait_seconds": 60})
                told.append(result.structured_content["turn"]["status"])

        async def watch() -> None:
            async with (
                httpx2.AsyncClient(timeout=PATIENCE_S) as client,
                client.stream("GET", f"{server.url}/sessions/{hanging}/events") as events,
            ):
                told.append([line async for line in events.aiter_lines() if line.startswith("event: ")])

        async def listen() -> None:
            async with server.client() as client, client.listen(resource_subscriptions=["meerkat://sessions"]) as heard:
                told.append("listening")
                async for _ in heard:
                    pass
                told.append("listened")

        async def stand(session: str) -> None:
            headers = {"accept": "text/event-stream", "mcp-session-id": session, "mcp-protocol-version": "2025-11-25"}
            async with (
                httpx2.AsyncClient(timeout=PATIENCE_S) as client,
                client.stream("GET", f"{server.url}/mcp", headers=headers) as notes,
            ):
                told.append("standing")
                async for _ in notes.aiter_lines():
                    pass
                told.append("stood")

        about = {"protocolVersion": "2025-11-25", "capabilities": {}, "clientInfo": {"name": "t", "version": "1"}}
        begin_legacy = {"jsonrpc": "2.0", "id": 1, "method": "initialize", "params": about}
        begun = await server.post(begin_legacy, accept="application/json, text/event-stream")
        with anyio.fail_after(PATIENCE_S):
            async with anyio.create_task_group() as tasks:
                tasks.start_soon(stand, begun.headers["mcp-session-id"])
                for one in (follow, watch, listen):
                    tasks.start_soon(one)
                while (
                    not {"listening", "standing"} <= {*map(str, told)}
                    or await measured(server, "meerkat_followers") < 3
                ):  # one is the turn
                    await anyio.lowlevel.checkpoint()
                begun_s = anyio.current_time()
                server.end(how)
                assert await server.ended() == 0
                assert anyio.current_time() - begun_s < 5
        assert "running" in told, "the next server takes the turn up"
        assert "listened" in told
        assert "stood" in told
        assert "Traceback" not in server.said
        (events,) = (one for one in told if isinstance(one, list))
        assert "event: turn_suspended" in events
    async with open_realm(choose("den", state_root=tmp_path / "realms")) as realm:
        log = [recorded.event async for recorded in realm.journal.log(hanging)]
        assert log[-1].type == "turn_suspended"


async def test_a_turn_may_finish_while_the_server_ends(open_server: OpenServer):
    async with open_server("--drain", "20") as server:
        with anyio.fail_after(PATIENCE_S):
            async with anyio.create_task_group() as tasks:
                done: list[str] = []

                async def run() -> None:
                    async with server.client() as client:
                        await client.list_tools()
                        prompt = "[[delta_ms 30]][[words 20]]"
                        result = await client.call_tool("meerkat_run", {"prompt": prompt})
                        done.append(result.structured_content["status"])

                tasks.start_soon(run)
                while not await measured(server, "meerkat_turns_running"):
                    await anyio.lowlevel.checkpoint()
                server.end()
                assert await server.ended() == 0
        assert done == ["completed"]


async def test_the_second_signal_ends_at_once(open_server: OpenServer):
    async with open_server("--drain", "3600") as server:
        await begin(server, "[[hang]]")
        server.end()
        with anyio.fail_after(PATIENCE_S):
            while await _accepts(server):
                await anyio.lowlevel.checkpoint()
        server.end()
        assert await server.ended() == 128 + signal.SIGTERM


async def test_a_request_leaves_one_line_without_secrets(open_server: OpenServer):
    token = "a-token-that-is-long-enough"
    async with open_server("--token-env", "T", T=f"ann {token}") as server:
        await server.get(f"/sessions/nowhere/events?token={token}&prompt=secret", authorization=f"Bearer {token}")
        line = (await server.until_said(r'INFO meerkat_mcp.access: (\{.*"/sessions/nowhere/events".*\})\n'))[1]
        said = json.loads(line)
        assert (said["principal"], said["method"], said["status"]) == ("ann", "GET", 400)
        assert token not in server.said
        assert "secret" not in server.said


async def test_without_an_access_log_there_are_no_lines(open_server: OpenServer):
    async with open_server("--no-access-log") as server:
        await server.get("/healthz")
        server.end()
        await server.ended()
        assert "access" not in server.said


async def test_behind_a_proxy_the_page_and_mcp_are_found_below_its_prefix(open_server: OpenServer):
    async with open_server(
        "--root-path", "/agents", "--public-url", "https://den.example", "--trust-proxy", "127.0.0.1", "--insecure"
    ) as server:
        assert "https://den.example/agents/mcp" in server.said
        page = await server.get(
            "/", host="den.example", **{"x-forwarded-for": "203.0.113.9", "x-forwarded-proto": "https"}
        )
        assert page.status_code == 200
        assert "/agents/assets/" in page.text
        line = (await server.until_said(r'access: (\{.*"path":"/agents/".*\})\n'))[1]
        assert json.loads(line)["client"] == "203.0.113.9"


async def test_forwarded_headers_of_strangers_are_not_believed(open_server: OpenServer):
    async with open_server() as server:
        await server.get("/healthz", **{"x-forwarded-for": "203.0.113.9"})
        line = (await server.until_said(r'access: (\{.*"/healthz".*\})\n'))[1]
        assert json.loads(line)["client"] == "127.0.0.1"


async def measured(server: Server, name: str) -> float:
    (line,) = [line for line in (await server.get("/metrics")).text.splitlines() if line.startswith(f"{name} ")]
    return float(line.split()[1])


async def _accepts(server: Server) -> bool:
    try:
        return (await server.get("/healthz")).status_code == 200
    except httpx2.ConnectError:
        return False
