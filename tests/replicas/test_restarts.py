"""One server of two goes, in order or not, while clients of both eras work with both."""

import signal
import sys
from typing import Any

import anyio
import httpx2
import pytest
from mcp import Client
from mcp.types import InputRequiredResult
from replicas.conftest import PATIENCE_S, OpenPair, Pair, run, said, says, until
from replicas.test_round_robin import BOX, WRITE, YES, Person
from server.tasking import HttpHost
from web.conftest import Server

pytestmark = [pytest.mark.anyio, pytest.mark.skipif(sys.platform == "win32", reason="sends POSIX signals")]

LEASE_S = 15.0
LOOK_S = 3.0
"""Beyond the lease: servers look after the dead every second."""


async def test_servers_are_restarted_one_after_the_other_and_everything_goes_on(open_pair: OpenPair):
    async with (
        open_pair("--trust-caller", "--drain", "1") as pair,
        httpx2.AsyncClient(timeout=PATIENCE_S) as web,
        pair.client(elicitation_callback=Person()) as client,
    ):
        first = await run(client, "My name is Ada.", idempotency_key="first")
        opened = await said(client, "meerkat_event_stream_open", session_id=first["session_id"], after_seq=0)
        host = HttpHost(web, f"{pair.url}/mcp")
        task_id = await host.run("[[call weather]]", tools=[{"name": "weather"}])
        await host.until(task_id, "input_required")
        arguments = {"prompt": WRITE, "mcp_servers": BOX, "permission_mode": "ask"}
        asked = await client.session.call_tool("meerkat_run", arguments, allow_input_required=True)
        assert isinstance(asked, InputRequiredResult)
        for number in range(2):
            pair.servers[number].end()
            assert await pair.servers[number].ended() == 0
            await goes_on(client, first)
            await pair.again(number)
            await goes_on(client, first)
        read = await said(client, "meerkat_event_stream_read", stream_id=opened["stream_id"], max_events=5)
        assert read["events"][0]["type"] == "session_created"
        assert (await host.get(task_id))["status"] == "input_required"
        answers = dict.fromkeys(asked.input_requests or (), YES)
        done = await client.session.call_tool(
            "meerkat_run", arguments, input_responses=answers, request_state=asked.request_state
        )
        assert "wrote x" in (done.structured_content or {})["text"]


async def goes_on(client: Client, first: dict[str, Any]) -> None:
    """Whichever of the servers are there, both are asked."""
    for _ in range(2):
        again = await run(client, "My name is Ada.", idempotency_key="first")
        assert again["turn_id"] == first["turn_id"]
        told = await said(client, "meerkat_resume", session_id=first["session_id"], prompt="What is my name?")
        assert "Ada" in told["text"]


INITIALIZE = {
    "jsonrpc": "2.0",
    "id": 1,
    "method": "initialize",
    "params": {"protocolVersion": "2025-11-25", "capabilities": {}, "clientInfo": {"name": "t", "version": "1"}},
}
LIST = {"jsonrpc": "2.0", "id": 2, "method": "tools/list"}
ACCEPT = {"accept": "application/json, text/event-stream", "mcp-protocol-version": "2025-11-25"}


@pytest.mark.parametrize("how", [signal.SIGTERM, signal.SIGKILL])
async def test_the_mcp_session_of_a_server_that_went_is_not_found_at_the_other_and_a_new_one_is_begun(
    open_pair: OpenPair, how: int
):
    async with open_pair() as pair, httpx2.AsyncClient(timeout=PATIENCE_S, headers=ACCEPT) as web:
        mine, other = (f"{server.url}/mcp" for server in pair.servers)
        begun = await web.post(mine, json=INITIALIZE)
        session = {"mcp-session-id": begun.headers["mcp-session-id"]}
        for place in (mine, other):
            assert (await web.post(place, json=LIST, headers=session)).status_code == 200
        async with web.stream("GET", other, headers=session) as listening:
            assert listening.status_code == 200
            pair.servers[0].end(how)
            with anyio.fail_after(PATIENCE_S):
                async for _ in listening.aiter_raw():  # it ends, and is not cut off in the middle of a message
                    pass
        await pair.servers[0].ended()
        with anyio.fail_after(5):
            gone = await web.post(other, json=LIST, headers=session)
        assert (gone.status_code, gone.json()["error"]["message"]) == (404, "Session not found")
        await pair.again(0)
        for place in (mine, other):
            assert (await web.post(place, json=LIST, headers=session)).status_code == 404
        assert (await web.post(other, json=INITIALIZE)).status_code == 200


async def test_a_call_through_another_server_is_answered_before_that_one_goes(open_pair: OpenPair):
    async with open_pair("--drain", "20") as pair, httpx2.AsyncClient(timeout=PATIENCE_S, headers=ACCEPT) as web:
        mine, other = (f"{server.url}/mcp" for server in pair.servers)
        session = {"mcp-session-id": (await web.post(mine, json=INITIALIZE)).headers["mcp-session-id"]}
        arguments = {"prompt": "[[words 3]][[wait 2]][[say done]]", "provider_params": {"delta_ms": 0}, "stream": True}
        call = {
            "jsonrpc": "2.0",
            "id": 3,
            "method": "tools/call",
            "params": {"name": "meerkat_run", "arguments": arguments, "_meta": {"progressToken": 1}},
        }
        async with web.stream("POST", other, json=call, headers=session) as answer:
            said = ""
            async for text in answer.aiter_text():
                if "word3" in text and "word3" not in said:
                    pair.servers[1].end()
                said += text
        assert '"status":"completed"' in said.replace("\\\\", "")
        assert await pair.servers[1].ended() == 0


@pytest.fixture(params=["killed", "frozen"])
def lost(request: pytest.FixtureRequest) -> str:
    return request.param


async def test_the_turn_of_a_lost_server_is_ended_by_the_other_and_the_next_prompt_runs(open_pair: OpenPair, lost: str):
    async with open_pair() as pair:
        owner, other = pair.servers
        async with owner.client() as client:
            begun = await run(client, "[[say half]][[wait 8]][[say whole]]", wait_seconds=0, on_cancel="detach")
        async with other.client() as client:
            session_id = begun["session_id"]
            await says(client, session_id, "half")
            owner.end(signal.SIGKILL if lost == "killed" else signal.SIGSTOP)
            opened = await said(client, "meerkat_event_stream_open", session_id=session_id)  # a look at the log alone
            lost_s, ends = anyio.current_time(), list[dict[str, Any]]()
            while not ends:
                assert anyio.current_time() - lost_s < LEASE_S + LOOK_S
                read = await said(client, "meerkat_event_stream_read", stream_id=opened["stream_id"], timeout_ms=1000)
                ends = [event for event in read["events"] if event["type"] == "turn_interrupted"]
            assert ends[0]["reason"] == "owner_lost"
            again = await said(client, "meerkat_resume", session_id=session_id, prompt="[[say on]]")
            assert again["text"] == "on"
            if lost == "frozen":
                await nothing_comes_after(pair, client, session_id)


async def nothing_comes_after(pair: Pair, client: Client, session_id: str) -> None:
    """The owner that was frozen goes on, learns that it lost its turn, and works as before."""
    log = await events(client, session_id)
    pair.servers[0].end(signal.SIGCONT)
    async with pair.servers[0].client() as owner:
        read = await said(owner, "meerkat_read", session_id=session_id)
        assert read["turn"]["text"] == "on"
        await until(lambda: idles(pair.servers[0]))
        assert await events(client, session_id) == log
        assert (await said(owner, "meerkat_resume", session_id=session_id, prompt="[[say back]]"))["text"] == "back"


async def idles(server: Server) -> bool:
    return "meerkat_turns_running 0.0" in (await server.get("/metrics")).text


async def events(client: Client, session_id: str) -> list[dict[str, Any]]:
    """The whole log."""
    opened = await said(client, "meerkat_event_stream_open", session_id=session_id, after_seq=0)
    found, more = list[dict[str, Any]](), True
    while more:
        read = await said(client, "meerkat_event_stream_read", stream_id=opened["stream_id"], timeout_ms=0)
        found += read["events"]
        more = read["more"]
    return found
