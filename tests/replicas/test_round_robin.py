"""Each request lands on another server than the one before it, and no client of either era notices."""

import sys
from functools import partial
from pathlib import Path
from typing import Any

import anyio
import httpx2
import pytest
from mcp import Client, MCPError
from mcp.types import ElicitResult, InputRequiredResult
from replicas.conftest import PATIENCE_S, Site, refused_as, run, said, says
from server.tasking import APPROVED, HttpHost
from server.test_subscriptions import listening
from web.site import reading

pytestmark = pytest.mark.anyio

TOOL_SERVER = Path(__file__).parents[1] / "cli" / "tool_server.py"
WEATHER = {"name": "weather", "description": "What the weather is.", "input_schema": {"type": "object"}}
BOX: dict[str, Any] = {"box": {"command": sys.executable, "args": [str(TOOL_SERVER)]}}
YES = ElicitResult(action="accept", content={"decision": "approve"})
WRITE = '[[call box__write {"line": "x"}]]'


class Person:
    """Somebody who says yes to every question."""

    def __init__(self) -> None:
        self.asked: list[str] = []

    async def __call__(self, context: Any, params: Any) -> ElicitResult:
        self.asked.append(params.message)
        return YES


async def test_the_proxy_takes_turns(site: Site):
    answers = [await site.get("/healthz") for _ in range(4)]
    assert sorted(answer.headers["x-replica"] for answer in answers) == ["0", "0", "1", "1"]


async def test_a_session_goes_on_wherever_it_is_asked_for(site: Site, era: dict[str, Any]):
    async with site.client(**era) as client:
        first = await run(client, "My name is Ada.")
        for _ in range(3):
            again = await said(client, "meerkat_resume", session_id=first["session_id"], prompt="What is my name?")
            assert "Ada" in again["text"]
        history = await said(client, "meerkat_history", session_id=first["session_id"])
        assert len(history["messages"]) == 8
        listed = await said(client, "meerkat_sessions", limit=200)
        assert first["session_id"] in [session["session_id"] for session in listed["sessions"]]


async def test_a_running_turn_is_read_and_interrupted_from_anywhere(site: Site, era: dict[str, Any]):
    async with site.client(**era) as client:
        for _ in range(2):
            begun = await run(client, "[[say half]][[hang]]", wait_seconds=0, on_cancel="detach")
            await says(client, begun["session_id"], "half")
            waiting = partial(said, client, "meerkat_read", session_id=begun["session_id"], wait_seconds=20)
            reads: list[dict[str, Any]] = []

            async def read() -> None:
                reads.append(await waiting())  # noqa: B023  (it ends within the round)

            async with anyio.create_task_group() as tasks:
                tasks.start_soon(read)
                stopped = await said(client, "meerkat_interrupt", session_id=begun["session_id"])
            assert stopped["interrupted"]
            assert [read["turn"]["status"] for read in reads] == ["interrupted"]


async def test_what_a_turn_says_comes_as_progress_while_it_works(site: Site, era: dict[str, Any]):
    heard = anyio.Event()

    async def progress(_: float, __: float | None, message: str | None) -> None:
        if "word2" in (message or ""):
            heard.set()

    async with site.client(**era) as client, site.client() as other, anyio.create_task_group() as tasks:
        arguments = {"prompt": "[[words 3]][[hang]]", "stream": True, "title": "progress", "on_cancel": "detach"}
        results: list[Any] = []

        async def call() -> None:
            results.append(await client.call_tool("meerkat_run", arguments, progress_callback=progress))

        tasks.start_soon(call)
        with anyio.fail_after(PATIENCE_S):
            await heard.wait()
        listed = await said(other, "meerkat_sessions", query="progress", state="running")
        for session in listed["sessions"]:
            await said(other, "meerkat_interrupt", session_id=session["session_id"])
    assert results[0].structured_content["status"] == "interrupted"


async def test_a_stream_is_read_on_wherever_it_was_opened(site: Site, era: dict[str, Any]):
    async with site.client(**era) as client:
        begun = await run(client, "[[words 30]]", wait_seconds=0, on_cancel="detach")
        opened = await said(client, "meerkat_event_stream_open", session_id=begun["session_id"], after_seq=0)
        seqs, types = list[int](), list[str]()
        with anyio.fail_after(PATIENCE_S):
            while "turn_completed" not in types:
                read = await said(
                    client, "meerkat_event_stream_read", stream_id=opened["stream_id"], max_events=5, timeout_ms=5000
                )
                seqs += [event["seq"] for event in read["events"]]
                types += [event["type"] for event in read["events"]]
        assert seqs == sorted(set(seqs))
        assert types[:2] == ["session_created", "turn_started"]
        await said(client, "meerkat_event_stream_close", stream_id=opened["stream_id"])


async def test_a_key_begins_one_turn_however_often_it_is_used(site: Site, era: dict[str, Any]):
    async with site.client(**era) as client:
        key = f"key-{id(client)}-{anyio.current_time()}"
        results: list[dict[str, Any]] = []

        async def call() -> None:
            results.append(await run(client, "[[words 5]]", idempotency_key=key))

        async with anyio.create_task_group() as tasks:
            for _ in range(4):
                tasks.start_soon(call)
        assert len({(result["session_id"], result["turn_id"]) for result in results}) == 1
        other = {"prompt": "[[say else]]", "idempotency_key": key}
        assert refused_as("idempotency_conflict", await client.call_tool("meerkat_run", other))


async def test_results_of_a_callers_tool_are_taken_anywhere(site: Site, era: dict[str, Any]):
    async with site.client(**era) as client:
        waits = await run(client, '[[call weather {"city": "Oslo"}]]', tools=[WEATHER])
        (call,) = waits["pending_tool_calls"]
        results = [{"tool_use_id": call["tool_use_id"], "content": "rain"}]
        done = await said(client, "meerkat_resume", session_id=waits["session_id"], tool_results=results)
        assert "answered: rain" in done["text"]


async def test_a_person_is_asked_through_whichever_server_the_answer_takes(site: Site, era: dict[str, Any]):
    person = Person()
    async with site.client(elicitation_callback=person, **era) as client:
        for number in range(2):
            done = await run(client, WRITE, mcp_servers=BOX, permission_mode="ask")
            assert done["status"] == "completed"
            assert "wrote x" in done["text"]
            assert len(person.asked) == number + 1


async def test_sealed_state_is_good_at_the_other_server_and_only_for_the_call_that_it_was_given_to(site: Site):
    arguments = {"prompt": WRITE, "mcp_servers": BOX, "permission_mode": "ask"}
    async with Client(f"{site.servers[0]}/mcp", elicitation_callback=Person()) as one:
        asked = await one.session.call_tool("meerkat_run", arguments, allow_input_required=True)
    assert isinstance(asked, InputRequiredResult)
    assert asked.request_state is not None
    answers = dict.fromkeys(asked.input_requests or (), YES)
    state = asked.request_state
    async with Client(f"{site.servers[1]}/mcp", elicitation_callback=Person()) as other:
        call = partial(other.session.call_tool, "meerkat_run", input_responses=answers)
        for wrong, changed in (({"prompt": "else"}, state), (arguments, state[:-9] + "A" * 9), (arguments, "v1.AAAA")):
            with pytest.raises(MCPError, match="Invalid or expired requestState"):
                await call(wrong, request_state=changed)
        done = await call(arguments, request_state=state)
    assert done.structured_content is not None
    assert "wrote x" in done.structured_content["text"]


async def test_tasks_are_looked_at_answered_and_given_up_anywhere(site: Site):
    async with httpx2.AsyncClient(timeout=PATIENCE_S) as web:
        host = HttpHost(web, f"{site.url}/mcp")
        task_id = await host.run(f"{WRITE}[[next]][[say done]]", mcp_servers=BOX, permission_mode="ask")
        for _ in range(2):
            asked = await host.until(task_id, "input_required")
        await host.send("tasks/update", taskId=task_id, inputResponses=dict.fromkeys(asked["inputRequests"], APPROVED))
        assert "done" in (await host.ended(task_id))["text"]
        for _ in range(2):
            hangs = await host.run("[[hang]]")
            await host.send("tasks/cancel", taskId=hangs)
            assert (await host.until(hangs, "cancelled"))["status"] == "cancelled"


@pytest.mark.parametrize("era", ["legacy", "auto"])
async def test_who_subscribed_hears_of_what_any_server_did(site: Site, era: str):
    async with site.client() as client:
        begun = await run(client, "[[say one]]")
        uri = f"meerkat://sessions/{begun['session_id']}"
        async with listening(f"{site.url}/mcp", era, uri) as (ear, _, _):
            for times in range(1, 4):
                await said(client, "meerkat_resume", session_id=begun["session_id"], prompt="[[say more]]")
                await ear.heard(uri, times, within_s=PATIENCE_S)
                await ear.rested()


async def test_the_watch_page_goes_on_at_another_server_where_it_was_cut_off(site: Site):
    async with site.client() as client:
        begun = await run(client, "[[say half]][[hang]]", wait_seconds=0, on_cancel="detach")
        address, seqs = f"{site.url}/sessions/{begun['session_id']}/events", list[int]()
        with anyio.fail_after(PATIENCE_S):
            while len(seqs) < 4:
                last = {"last-event-id": str(seqs[-1])} if seqs else {}
                async with reading(address, **last) as messages:
                    seqs.append((await anext(messages)).seq)
        assert seqs == sorted(set(seqs))
        await said(client, "meerkat_interrupt", session_id=begun["session_id"])


async def test_a_person_approves_on_the_watch_page_of_any_server(site: Site):
    async with site.client() as client, httpx2.AsyncClient(timeout=PATIENCE_S, headers={"origin": site.url}) as web:
        for _ in range(2):
            waits = await run(client, WRITE, mcp_servers=BOX, permission_mode="ask")
            (call,) = waits["pending_approvals"]
            verdicts = {"responses": [{"tool_use_id": call["tool_use_id"], "decision": "approve"}]}
            answer = await web.post(f"{site.url}/sessions/{waits['session_id']}/approvals", json=verdicts)
            assert answer.status_code == 202, answer.text
            await said(client, "meerkat_read", session_id=waits["session_id"], wait_seconds=20)
            await says(client, waits["session_id"], "wrote x")


async def test_every_server_is_ready(site: Site):
    for url in site.servers:
        async with httpx2.AsyncClient(timeout=PATIENCE_S) as web:
            answer = await web.get(f"{url}/readyz")
        assert (answer.status_code, answer.json()["checks"]["store"]) == (200, True)
