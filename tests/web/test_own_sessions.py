"""`--own-sessions-only`: to each caller the sessions of others are not there, by whatever way they are looked for."""

import json
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from typing import Any

import anyio
import httpx2
import pytest
from mcp import Client, MCPError
from mcp.client.streamable_http import streamable_http_client
from web.conftest import PATIENCE_S, QUICK, OpenServer, Server

pytestmark = pytest.mark.anyio

ANN, BOB = "ann-token-0123456789", "bob-token-0123456789"


@pytest.fixture
def flags(tmp_path) -> tuple[str, ...]:
    file = tmp_path / "tokens"
    file.write_text(f"ann {ANN}\nbob {BOB}\n")
    file.chmod(0o600)
    return "--token-file", str(file), "--own-sessions-only"


@asynccontextmanager
async def host(server: Server, token: str, mode: str = "auto") -> AsyncGenerator[Client]:
    async with (
        httpx2.AsyncClient(headers={"authorization": f"Bearer {token}"}, timeout=PATIENCE_S) as http,
        Client(streamable_http_client(f"{server.url}/mcp", http_client=http), mode=mode) as client,
    ):
        yield client


async def done(client: Client, tool: str, **arguments: Any) -> dict:
    result = await client.call_tool(tool, arguments)
    assert not result.is_error, result.content[0].text
    return result.structured_content


async def code(client: Client, tool: str, **arguments: Any) -> str:
    result = await client.call_tool(tool, arguments)
    assert result.is_error, result.structured_content
    return json.loads(result.content[0].text)["error"]["code"]


@pytest.fixture(params=["auto", "legacy"])
async def two(request, open_server: OpenServer, flags) -> AsyncGenerator[tuple[Client, Client, str, Server]]:
    """Ann and Bob, and a session of Ann's."""
    async with (
        open_server(*flags) as server,
        host(server, ANN, request.param) as ann,
        host(server, BOB, request.param) as bob,
    ):
        run = await done(ann, "meerkat_run", prompt="[[say secret]]", idempotency_key="k", provider_params=QUICK)
        yield ann, bob, run["session_id"], server


async def test_lists_and_references_lead_to_own_sessions_only(two):
    ann, bob, session_id, _ = two
    assert (await done(bob, "meerkat_sessions"))["sessions"] == []
    (listed,) = (await done(ann, "meerkat_sessions"))["sessions"]
    assert (listed["session_id"], listed["principal"]) == (session_id, "ann")
    for reference in (session_id, session_id[:20], f"den:{session_id}", "last"):
        assert (await done(ann, "meerkat_read", session_id=reference))["turn"]["text"] == "secret"
        assert await code(bob, "meerkat_read", session_id=reference) == "session_not_found"


@pytest.mark.parametrize(
    ("tool", "arguments"),
    [
        ("meerkat_resume", {"prompt": "hi"}),
        ("meerkat_history", {}),
        ("meerkat_interrupt", {}),
        ("meerkat_archive", {}),
        ("meerkat_fork", {}),
        ("meerkat_compact", {"dry_run": True}),
        ("meerkat_delete", {}),
        ("meerkat_config", {"action": "get"}),
        ("meerkat_config", {"action": "patch", "patch": {"max_steps": 3}}),
        ("meerkat_event_stream_open", {}),
    ],
)
async def test_no_tool_reaches_a_session_of_somebody_else(two, tool: str, arguments: dict):
    _, bob, session_id, _ = two
    assert await code(bob, tool, session_id=session_id, **arguments) == "session_not_found"


async def test_streams_keys_and_old_sessions_of_others_are_not_there_either(two):
    ann, bob, session_id, _ = two
    stream = await done(ann, "meerkat_event_stream_open", session_id=session_id, after_seq=0)
    assert (
        await code(bob, "meerkat_event_stream_read", stream_id=stream["stream_id"], timeout_ms=0) == "stream_not_found"
    )
    assert not (await done(bob, "meerkat_event_stream_close", stream_id=stream["stream_id"]))["closed"]
    assert (await done(ann, "meerkat_event_stream_read", stream_id=stream["stream_id"], timeout_ms=0))["events"]
    given = {"prompt": "[[say secret]]", "idempotency_key": "k", "provider_params": QUICK}
    assert (await done(bob, "meerkat_run", **given))["session_id"] != session_id
    assert (await done(ann, "meerkat_run", **given))["session_id"] == session_id
    await done(ann, "meerkat_archive", session_id=session_id)
    assert (await done(bob, "meerkat_delete", older_than="0s"))["total"] == 0
    assert (await done(ann, "meerkat_delete", older_than="0s"))["session_ids"] == [session_id]


async def test_resources_prompts_and_completions_know_own_sessions_only(two):
    ann, bob, session_id, _ = two
    assert any(session_id in resource.uri for resource in (await ann.list_resources()).resources)
    assert not any(session_id in resource.uri for resource in (await bob.list_resources()).resources)
    assert json.loads((await bob.read_resource("meerkat://sessions")).contents[0].text)["sessions"] == []
    for uri in (f"meerkat://sessions/{session_id}", f"meerkat://sessions/{session_id}/transcript"):
        assert "secret" in (await ann.read_resource(f"meerkat://sessions/{session_id}/transcript")).contents[0].text
        with pytest.raises(MCPError):
            await bob.read_resource(uri)
    with pytest.raises(MCPError):
        await bob.get_prompt("handoff", {"session": session_id})


async def test_the_page_shows_nobody_the_events_of_others(two):
    _, _, session_id, server = two
    for token, status in ((BOB, 404), (None, 401)):
        headers = {"authorization": f"Bearer {token}"} if token else {}
        answer = await server.get(f"/sessions/{session_id}/events", **headers)
        assert answer.status_code == status
        assert "secret" not in answer.text


async def test_subscriptions_tell_nobody_of_what_others_do(open_server: OpenServer, flags):
    async with open_server(*flags) as server, host(server, ANN) as ann, host(server, BOB) as bob:
        run = await done(ann, "meerkat_run", prompt="[[say secret]]", provider_params=QUICK)
        uris = [f"meerkat://sessions/{run['session_id']}", "meerkat://sessions"]
        heard: list[str] = []
        async with bob.listen(resource_subscriptions=uris, resources_list_changed=True) as told:
            assert told.honored.resource_subscriptions == ["meerkat://sessions"]
            await done(
                ann, "meerkat_resume", session_id=run["session_id"], prompt="[[say more]]", provider_params=QUICK
            )
            own = await done(bob, "meerkat_run", prompt="[[say mine]]", provider_params=QUICK)
            with anyio.fail_after(PATIENCE_S):
                async for event in told:
                    heard.append(str(event))
                    if "meerkat://sessions" in heard[-1]:
                        break
        assert not any(run["session_id"] in one for one in heard)
        (listed,) = (await done(bob, "meerkat_sessions"))["sessions"]
        assert listed["session_id"] == own["session_id"]


async def test_a_caller_is_told_who_they_are_and_what_they_may(two):
    _, bob, _, _ = two
    about = (await done(bob, "meerkat_capabilities"))["caller"]
    assert (about["principal"], about["own_sessions_only"], about["denied_tools"]) == ("bob", True, [])


async def test_tools_that_a_caller_may_not_use_say_so_and_are_refused(open_server: OpenServer, tmp_path):
    file = tmp_path / "tokens"
    file.write_text(f"ann {ANN}\nbob {BOB} sessions:read\n")
    file.chmod(0o600)
    async with open_server("--token-file", str(file)) as server, host(server, ANN) as ann, host(server, BOB) as bob:
        mine, theirs = [{tool.name: tool.description for tool in (await one.list_tools()).tools} for one in (ann, bob)]
        assert theirs["meerkat_run"] == f"Not for this caller: needs the scope sessions:run. {mine['meerkat_run']}"
        assert theirs["meerkat_read"] == mine["meerkat_read"]
        about = await done(bob, "meerkat_capabilities")
        assert {"meerkat_run", "meerkat_delete"} < set(about["caller"]["denied_tools"])
        assert about["transport"] == "http"
        with pytest.raises(MCPError):
            await bob.call_tool("meerkat_run", {"prompt": "hi"})
        assert (await done(bob, "meerkat_sessions"))["sessions"] == []
