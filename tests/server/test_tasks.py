"""Tasks of meerkat_run and meerkat_resume: real turns on a real realm file, hosts that look, answer and give up."""

import json
import sys
from contextlib import asynccontextmanager
from datetime import UTC, datetime
from pathlib import Path

import anyio
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from mcp import MCPError
from server.tasking import APPROVED, CLOSED, DECLINED, TASKS, answered, denied, in_memory
from sessions.actors import Bench, equip, tool
from words import check_log, ended, log, until

from meerkat_mcp.realms import Realm, choose, open_realm
from meerkat_mcp.server.app import build_server
from meerkat_mcp.server.approving import ARGS_CHARS_MAX
from meerkat_mcp.server.task_wire import UnknownTask
from meerkat_mcp.server.tasks import TaskId
from meerkat_mcp.sessions.claims import Started
from meerkat_mcp.sessions.decisions import Approval

pytestmark = pytest.mark.anyio

WRITE = '[[call write {"to": "a.txt"}]]'
ERASE = "[[call erase {}]]"
WEATHER = {"name": "weather"}
ASKS = {"write": 'The agent wants to call write with {"to": "a.txt"}', "erase": "The agent wants to call erase with {}"}
FULL = Path(__file__).parents[1] / "tools" / "servers" / "full.py"
UNKNOWN, MISSING_CAPABILITY, NO_SUCH_METHOD = -32602, -32021, -32601


@pytest.fixture
async def realm(tmp_path):
    async with open_realm(choose("den", state_root=tmp_path)) as opened:
        yield opened


@pytest.fixture
async def host(realm):
    """A host that knows tasks and can ask a person."""
    async with in_memory(build_server(realm)) as opened:
        yield opened


@pytest.fixture
async def mute(realm):
    """One that knows tasks, and can ask nobody."""
    async with in_memory(build_server(realm), person=False) as opened:
        yield opened


@pytest.fixture
def elsewhere(tmp_path):
    """The same realm opened once more, as by another process, with a host of its own."""

    @asynccontextmanager
    async def opened():
        async with open_realm(choose("den", state_root=tmp_path)) as there, in_memory(build_server(there)) as other:
            yield there, other

    return opened


async def staged(realm: Realm) -> Bench:
    """The realm has a server `box` with tools, which every session uses that does not choose."""
    await realm.patch_config({"mcp_servers": {"box": {"command": "never-started"}}, "agent": {"mcp_servers": ["box"]}})
    return equip(realm, Bench(tool("write"), tool("erase"), tool("look", reads=True)))


def of(task_id: str) -> Started:
    task = TaskId.parse(task_id)
    return Started(task.session_id, task.turn_id)


async def decided(realm: Realm, task_id: str) -> list[tuple[str, str, str]]:
    events = await log(realm, of(task_id).session_id)
    return [(one.decision, one.by, one.reason) for one in events if one.type == "approval_resolved"]


# ── a call becomes a task ──


async def test_a_call_is_answered_at_once_by_the_handle_of_a_task(host):
    before = datetime.now(UTC)
    handle = await host.call("meerkat_run", prompt="[[hang]]")
    assert (handle["resultType"], handle["status"]) == ("task", "working")
    assert (handle["ttlMs"], handle["pollIntervalMs"]) == (None, 500)
    assert "requestState" not in handle
    created = datetime.fromisoformat(handle["createdAt"])
    assert abs((created - before).total_seconds()) < 10
    assert handle["createdAt"] == handle["lastUpdatedAt"]
    started = of(handle["taskId"])
    assert handle["statusMessage"] == f"Session {started.session_id} works on it."
    assert handle["_meta"]["meerkat/session_id"] == started.session_id
    assert handle["_meta"]["meerkat/turn_id"] == started.turn_id
    task = await host.get(handle["taskId"])
    assert (task["status"], task["createdAt"], task["ttlMs"]) == ("working", handle["createdAt"], None)


async def test_a_completed_task_has_the_result_that_the_call_would_have_had(realm, host):
    task_id = await host.run("hi")
    done = await host.ended(task_id)
    async with in_memory(build_server(realm), knows_tasks=False) as other:
        read = await other.call("meerkat_read", session_id=done["session_id"])
    assert done == read["structuredContent"]["turn"]
    assert (done["status"], done["session_ref"]) == ("completed", f"den:{done['session_id']}")


async def test_what_does_not_end_as_it_should_is_completed_all_the_same(host):
    limited = await host.ended(await host.run("[[words 9]]", budget={"max_duration_s": 0.01}, provider_params={}))
    assert (limited["status"], limited["stop_reason"]) == ("limit", "budget.max_duration_s")
    task_id = await host.run("[[fail rejected]]")
    result = (await host.until(task_id, "completed"))["result"]
    assert result["isError"]
    assert "structuredContent" not in result
    error = json.loads(result["content"][0]["text"])["error"]
    started = of(task_id)
    assert (error["code"], error["session_id"], error["turn_id"]) == (
        "provider_rejected",
        started.session_id,
        started.turn_id,
    )


async def test_the_text_of_a_result_is_as_long_as_was_asked_for(host):
    done = await host.ended(await host.run("[[chars 1000]]", max_chars=100))
    assert (len(done["text"]), done["text_cut"]) == (100, {"text_offset": 100, "total_chars": 1000})


async def test_bad_arguments_are_an_error_of_the_tool_and_no_task(realm, host):
    for arguments, code in [
        ({"promt": "hi", "prompt": "hi"}, "invalid_request"),
        ({"prompt": 7}, "invalid_request"),
        ({"prompt": "hi", "model": "no-such-model"}, "model_unknown"),
        ({"prompt": "hi", "mcp_servers": {"mine": {"command": "x"}}}, "permission_denied"),
    ]:
        result = await host.call("meerkat_run", **arguments)
        assert (result["resultType"], result["isError"]) == ("complete", True)
        assert json.loads(result["content"][0]["text"])["error"]["code"] == code
    result = await host.call("meerkat_resume", session_id="last", prompt="hi")
    assert json.loads(result["content"][0]["text"])["error"]["code"] == "session_not_found"
    async with in_memory(build_server(realm), knows_tasks=False) as other:
        assert (await other.call("meerkat_sessions"))["structuredContent"]["sessions"] == []


async def test_a_call_that_begins_no_turn_or_does_not_wait_for_it_has_its_result_at_once(host):
    made = await host.call("meerkat_run", title="a session")
    assert made["structuredContent"]["status"] == "idle"
    sid = made["structuredContent"]["session_id"]
    changed = await host.call("meerkat_resume", session_id=sid, title="another")
    assert (changed["resultType"], changed["structuredContent"]["status"]) == ("complete", "idle")
    running = await host.call("meerkat_resume", session_id=sid, prompt="[[hang]]", wait_seconds=0)
    assert (running["resultType"], running["structuredContent"]["status"]) == ("complete", "running")
    assert (await host.call("meerkat_read", session_id=sid))["resultType"] == "complete"


async def test_a_repeated_call_is_the_same_task(realm, host):
    first = await host.run("[[call weather]]", tools=[WEATHER], idempotency_key="a")
    assert await host.run("[[call weather]]", tools=[WEATHER], idempotency_key="a") == first
    await host.until(first, "input_required")
    brought = {"session_id": of(first).session_id, "tool_results": [{"tool_use_id": "call_1_1", "content": "rain"}]}
    second = await host.begin("meerkat_resume", **brought, idempotency_key="b")
    await host.ended(second)
    assert await host.begin("meerkat_resume", **brought, idempotency_key="b") == second
    assert await host.begin("meerkat_resume", **brought) == second, "nor are the same results brought twice"
    other = await host.call("meerkat_run", prompt="other", idempotency_key="a")
    assert json.loads(other["content"][0]["text"])["error"]["code"] == "idempotency_conflict"


# ── who may ask ──


async def test_a_host_that_does_not_say_that_it_knows_tasks_gets_none(realm):
    async with in_memory(build_server(realm)) as other:
        task_id = await other.run("hi")
    async with in_memory(build_server(realm), knows_tasks=False) as plain:
        done = await plain.call("meerkat_run", prompt="hi")
        assert (done["resultType"], done["structuredContent"]["status"]) == ("complete", "completed")
        for method, more in [("tasks/get", {}), ("tasks/cancel", {}), ("tasks/update", {"inputResponses": {}})]:
            with pytest.raises(MCPError) as refused:
                await plain.send(method, taskId=task_id, **more)
            assert refused.value.error.code == MISSING_CAPABILITY
            assert refused.value.error.data == {"requiredCapabilities": {"extensions": {TASKS: {}}}}


async def test_there_are_no_tasks_in_the_older_protocol(realm):
    async with in_memory(build_server(realm), mode="legacy") as old:
        done = await old.call("meerkat_run", prompt="hi")
        assert done["structuredContent"]["status"] == "completed"
        assert await old.refused("tasks/get", taskId="x") == NO_SUCH_METHOD


async def test_the_server_says_that_it_knows_tasks(host):
    capabilities = host.client.server_capabilities
    assert capabilities.extensions[TASKS] == {}
    for gone in ("tasks/result", "tasks/list"):
        assert await host.refused(gone, taskId="x") == NO_SUCH_METHOD


@pytest.mark.parametrize(
    "task_id",
    [
        "",
        "x",
        "last",
        "01990000-0000-7000-8000-000000000000",
        "01990000-0000-7000-8000-000000000000.01990000-0000-7000-8000-000000000000",
        "é" * 5000,
    ],
    ids=lambda task_id: task_id[:8] or "empty",
)
async def test_an_id_that_is_none_is_refused(host, task_id):
    for method, more in [("tasks/get", {}), ("tasks/cancel", {}), ("tasks/update", {"inputResponses": {}})]:
        assert await host.refused(method, taskId=task_id, **more) == UNKNOWN


async def test_ids_beside_a_real_one_are_refused(realm, host):
    task_id = await host.run("hi")
    await host.ended(task_id)
    started = of(task_id)
    other = (await realm.sessions.run("", (await realm.journal.load(started.session_id)).settings)).session_id
    for wrong in [
        f"{started.session_id}.{other}",
        f"{other}.{started.turn_id}",
        f"{task_id}.a1",
        f"{task_id}.a999999",
        f"{task_id}.a0",
        f"{task_id}.c40000000",
        f"{task_id}.c99",
        f"{task_id}.c40000",
        f"{task_id}.",
        task_id.upper(),
        f" {task_id}",
        f"den:{task_id}",
    ]:
        for method, more in [("tasks/get", {}), ("tasks/cancel", {}), ("tasks/update", {"inputResponses": {}})]:
            assert await host.refused(method, taskId=wrong, **more) == UNKNOWN, wrong


@settings(max_examples=300, deadline=None)
@given(st.text(max_size=100) | st.from_regex(r"[0-9a-f-]{36}\.[0-9a-f-]{36}(\.a[0-9]+)?(\.c[0-9]+)?", fullmatch=True))
def test_whatever_is_read_as_an_id_is_one_or_is_not(text: str):
    try:
        task = TaskId.parse(text)
    except UnknownTask:
        return
    assert str(task) == text


async def test_the_task_of_a_deleted_session_is_gone(realm, host):
    task_id = await host.run("hi")
    await host.ended(task_id)
    await realm.shelf.archive(of(task_id).session_id)
    assert (await host.ended(task_id))["status"] == "completed", "an archived session's task stays"
    await realm.shelf.delete(of(task_id).session_id)
    assert await host.refused("tasks/get", taskId=task_id) == UNKNOWN


# ── how it goes ──


async def test_a_task_says_what_it_does_and_can_be_read_as_a_session_meanwhile(realm, host):
    task_id = await host.run("[[say once upon a time]][[hang]]")
    task = await host.when(task_id, lambda task: task["statusMessage"] == "writes: once upon a time")
    assert task["status"] == "working"
    async with in_memory(build_server(realm), knows_tasks=False) as other:
        read = await other.call("meerkat_read", session_id=of(task_id).session_id)
        assert read["structuredContent"]["turn"]["status"] == "running"
        await other.call("meerkat_interrupt", session_id=of(task_id).session_id)
    task = await host.until(task_id, "cancelled")
    assert task["statusMessage"].startswith("Interrupted (requested).")
    assert of(task_id).session_id in task["statusMessage"]


async def test_a_long_text_is_said_by_its_end(host):
    task_id = await host.run("[[words 200]][[hang]]")
    said = (await host.when(task_id, lambda task: task["statusMessage"].endswith("word200")))["statusMessage"]
    assert said.startswith("writes: …")
    assert len(said) <= 200


async def test_a_host_that_leaves_changes_nothing(realm):
    async with in_memory(build_server(realm)) as leaving:
        task_id = await leaving.run("[[delta_ms 20]][[words 10]]", provider_params={})
    async with in_memory(build_server(realm)) as coming:
        done = await coming.ended(task_id)
    assert (done["status"], done["text"].split()[-1]) == ("completed", "word10")


async def test_a_prompt_that_waits_for_another_turn_is_a_task_that_works(realm, host):
    first = await host.run("[[hang]]")
    sid = of(first).session_id
    second = await host.begin("meerkat_resume", session_id=sid, prompt="[[say later]]", if_busy="queue")
    assert first != second
    task = await host.get(second)
    assert (task["status"], task["statusMessage"]) == ("working", "waits for the turn before it")
    await host.cancel(first)
    assert (await host.get(first))["status"] == "cancelled"
    assert (await host.ended(second))["text"] == "later"
    assert (await host.get(second))["createdAt"] == task["createdAt"]
    assert (await host.get(first))["status"] == "cancelled", "also now that it is not the latest turn"


async def test_a_prompt_that_takes_the_place_of_a_turn_ends_its_task(host):
    first = await host.run("[[hang]]")
    second = await host.begin(
        "meerkat_resume", session_id=of(first).session_id, prompt="[[say now]]", if_busy="interrupt"
    )
    assert (await host.ended(second))["text"] == "now"
    assert (await host.get(first))["statusMessage"].startswith("Interrupted (superseded).")


async def test_a_turn_whose_process_ended_has_a_result(realm, host):
    task_id = await host.run("[[say half]][[hang]]")
    await until(realm, of(task_id).session_id, "text_delta")
    await realm.turns.end(0.01)
    done = await host.ended(task_id)
    assert (done["status"], done["stop_reason"], done["text"]) == ("interrupted", "shutdown", "half")
    refused = await host.call("meerkat_run", prompt="hi")
    assert refused["isError"], "and nothing begins any more"


# ── giving up ──


async def test_a_running_task_can_be_given_up(realm, host):
    task_id = await host.run("[[say half]][[hang]]")
    await host.cancel(task_id)
    task = await host.get(task_id)
    assert (task["status"], "result" in task) == ("cancelled", False)
    assert task["statusMessage"].startswith("Interrupted (cancelled).")
    assert (await realm.journal.load(of(task_id).session_id)).state == "idle"
    await host.cancel(task_id)
    assert (await host.get(task_id)) == task
    await check_log(realm, of(task_id).session_id)


async def test_giving_up_ends_a_turn_that_waits_and_withdraws_a_prompt_that_is_queued(realm, host):
    waiting = await host.run("[[call weather]]", tools=[WEATHER])
    await host.until(waiting, "input_required")
    queued = await host.begin("meerkat_resume", session_id=of(waiting).session_id, prompt="hi", if_busy="queue")
    await host.cancel(queued)
    assert (await host.get(queued))["statusMessage"].startswith("Interrupted (withdrawn).")
    assert (await host.get(waiting))["status"] == "input_required"
    await host.cancel(waiting)
    assert (await host.get(waiting))["status"] == "cancelled"
    await check_log(realm, of(waiting).session_id)


async def test_giving_up_what_has_ended_changes_nothing(realm, host):
    task_id = await host.run("hi")
    done = await host.until(task_id, "completed")
    later = await host.begin("meerkat_resume", session_id=of(task_id).session_id, prompt="[[hang]]")
    await host.cancel(task_id)
    assert await host.get(task_id) == done
    assert (await host.get(later))["status"] == "working", "the next turn of the session is another task"


# ── a yes or a no ──


async def test_a_yes_of_the_person_lets_the_call_run(realm, host):
    bench = await staged(realm)
    task_id = await host.run(WRITE)
    task = await host.until(task_id, "input_required")
    assert task["statusMessage"] == "waits for a yes for write"
    ((key, question),) = task["inputRequests"].items()
    assert key.endswith("call_1_1")
    assert question["method"] == "elicitation/create"
    assert (question["params"]["mode"], question["params"]["message"]) == ("form", ASKS["write"])
    assert question["params"]["requestedSchema"]["properties"]["decision"]["enum"] == ["approve", "deny"]
    assert (await host.get(task_id))["inputRequests"] == task["inputRequests"], "it is asked the same again"
    await host.answer(task_id, {key: APPROVED})
    done = await host.ended(task_id)
    assert (done["status"], bench.made) == ("completed", ["write"])
    assert await decided(realm, task_id) == [("approve", "elicitation", "")]
    await check_log(realm, of(task_id).session_id)


@pytest.mark.parametrize(
    ("answer", "reason"), [(denied("not today"), "not today"), (DECLINED, "")], ids=["with a reason", "declined"]
)
async def test_a_no_is_told_to_the_agent_which_goes_on(realm, host, answer, reason):
    bench = await staged(realm)
    task_id = await host.run(WRITE)
    await host.answer(task_id, dict.fromkeys((await host.asked(task_id)).values(), answer))
    done = await host.ended(task_id)
    assert "write (call_1_1) failed: This call was not allowed" in done["text"]
    assert (bench.made, await decided(realm, task_id)) == ([], [("deny", "elicitation", reason)])


async def test_a_closed_form_is_no_answer_and_the_task_asks_on(realm, host):
    bench = await staged(realm)
    task_id = await host.run(WRITE)
    asked = await host.asked(task_id)
    await host.answer(task_id, {asked[ASKS["write"]]: CLOSED})
    assert await host.asked(task_id) == asked
    await host.answer(task_id, {asked[ASKS["write"]]: APPROVED})
    await host.ended(task_id)
    assert bench.made == ["write"]


async def test_answers_may_come_one_by_one(realm, host, elsewhere):
    bench = await staged(realm)
    task_id = await host.run(WRITE + ERASE)
    asked = await host.asked(task_id)
    await host.answer(task_id, {asked[ASKS["erase"]]: denied("no")})
    assert await host.asked(task_id) == {ASKS["write"]: asked[ASKS["write"]]}
    await host.answer(task_id, {asked[ASKS["erase"]]: APPROVED, "5.call_9_9": APPROVED, "": 7})
    assert bench.made == [], "what was answered stays answered, what was not asked is passed over"
    async with elsewhere() as (realm_there, other):
        equip(realm_there, bench)
        assert await other.asked(task_id) == {ASKS["write"]: asked[ASKS["write"]]}, "the halves are in the log"
        await other.answer(task_id, {asked[ASKS["write"]]: APPROVED})
        done = await other.ended(task_id)
    assert bench.made == ["write"]
    assert "erase (call_1_2) failed: This call was not allowed: no" in done["text"]
    await check_log(realm, of(task_id).session_id)


async def test_one_of_several_forms_closed_leaves_that_one_open(realm, host):
    await staged(realm)
    task_id = await host.run(WRITE + ERASE)
    asked = await host.asked(task_id)
    await host.answer(task_id, {asked[ASKS["write"]]: APPROVED, asked[ASKS["erase"]]: CLOSED})
    assert list(await host.asked(task_id)) == [ASKS["erase"]]
    await host.cancel(task_id)
    assert (await host.get(task_id))["status"] == "cancelled"
    await check_log(realm, of(task_id).session_id)


async def test_two_hosts_that_answer_at_one_moment_make_the_turn_go_on_once(realm, host, elsewhere):
    bench = await staged(realm)
    async with elsewhere() as (realm_there, other):
        equip(realm_there, bench)
        for _ in range(20):
            task_id = await host.run(WRITE + ERASE)
            asked = await host.asked(task_id)
            async with anyio.create_task_group() as tasks:
                tasks.start_soon(host.answer, task_id, {asked[ASKS["write"]]: APPROVED})
                tasks.start_soon(other.answer, task_id, {asked[ASKS["erase"]]: APPROVED})
            await host.ended(task_id)
            await check_log(realm, of(task_id).session_id)
    assert sorted(bench.made) == ["erase"] * 20 + ["write"] * 20


@pytest.mark.parametrize(
    "answer",
    [
        {"action": "accept", "content": {"decision": "maybe"}},
        {"action": "accept"},
        {"action": "perhaps"},
        {},
        "yes",
        None,
        [],
    ],
    ids=json.dumps,
)
async def test_an_answer_that_is_none_is_refused_and_nothing_of_it_is_taken(realm, host, answer):
    await staged(realm)
    task_id = await host.run(WRITE + ERASE)
    asked = await host.asked(task_id)
    answers = {asked[ASKS["write"]]: APPROVED, asked[ASKS["erase"]]: answer}
    assert await host.refused("tasks/update", taskId=task_id, inputResponses=answers) == UNKNOWN
    assert await host.asked(task_id) == asked
    assert await decided(realm, task_id) == []


async def test_a_turn_that_asks_again_asks_under_another_name(realm, host):
    bench = await staged(realm)
    task_id = await host.run(WRITE + "[[next]]" + WRITE)
    (first,) = (await host.asked(task_id)).values()
    await host.answer(task_id, {first: APPROVED})
    (second,) = (await host.when(task_id, lambda task: {*task.get("inputRequests", ())} - {first}))["inputRequests"]
    await host.answer(task_id, {first: DECLINED})
    assert (await host.get(task_id))["status"] == "input_required", "an old answer is none to a new question"
    await host.answer(task_id, {second: APPROVED})
    await host.ended(task_id)
    assert bench.made == ["write", "write"]


async def test_somebody_who_was_faster_than_the_person_is_not_contradicted(realm, host):
    bench = await staged(realm)
    task_id = await host.run(WRITE)
    asked = await host.asked(task_id)
    approvals = [Approval("call_1_1", "deny", "I was first")]
    await realm.sessions.resume(of(task_id).session_id, approvals=approvals, approved_by="operator")
    await host.answer(task_id, dict.fromkeys(asked.values(), APPROVED))
    assert "I was first" in (await host.ended(task_id))["text"]
    assert bench.made == []


async def test_the_calling_model_cannot_say_yes_through_a_task(realm, host):
    await staged(realm)
    task_id = await host.run(WRITE)
    await host.asked(task_id)
    yes = [{"tool_use_id": "call_1_1", "decision": "approve"}]
    refused = await host.call("meerkat_resume", session_id=of(task_id).session_id, responses=yes)
    assert json.loads(refused["content"][0]["text"])["error"]["code"] == "permission_denied"


async def test_a_question_is_never_longer_than_a_person_reads(realm, host):
    await staged(realm)
    task_id = await host.run(f'[[call write {{"text": "{"x" * 5000}"}}]]')
    (asked,) = await host.asked(task_id)
    assert len(asked) < ARGS_CHARS_MAX + 100


async def test_a_yes_lets_a_real_tool_server_do_it(realm, host):
    server = {"command": sys.executable, "args": [str(FULL), "stdio"]}
    await realm.patch_config({"mcp_servers": {"full": server}, "agent": {"mcp_servers": ["full"]}})
    task_id = await host.run('[[call full__add {"a": 2, "b": 3}]][[call full__wipe {}]]')
    asked = await host.asked(task_id)
    assert list(asked) == ["The agent wants to call full__wipe with {}"], "what only reads needs no yes"
    await host.answer(task_id, dict.fromkeys(asked.values(), APPROVED))
    done = await host.ended(task_id)
    assert "full__wipe (call_1_2) answered: wiped" in done["text"]


# ── results of the caller's own tools ──


async def test_the_result_of_a_callers_tool_is_asked_for_by_a_form(realm, host):
    task_id = await host.run('[[call weather {"city": "Oslo"}]]', tools=[WEATHER])
    task = await host.until(task_id, "input_required")
    assert task["statusMessage"] == "waits for the result of weather"
    ((key, question),) = task["inputRequests"].items()
    assert question["params"]["message"] == (
        'The agent calls your tool weather with {"city": "Oslo"}. What does it answer?'
    )
    schema = question["params"]["requestedSchema"]
    assert {name: field["type"] for name, field in schema["properties"].items()} == {
        "content": "string",
        "is_error": "boolean",
    }
    assert schema["required"] == ["content"]
    await host.answer(task_id, {key: answered("rain")})
    assert "weather (call_1_1) answered: rain" in (await host.ended(task_id))["text"]
    await check_log(realm, of(task_id).session_id)


@pytest.mark.parametrize(
    ("answer", "told"),
    [
        (answered("no signal", is_error=True), "failed: no signal"),
        (DECLINED, "failed: Whoever was asked"),
        ({"action": "accept", "content": {"content": "rain", "is_error": None}}, "answered: rain"),
    ],
    ids=["an error", "declined", "a field left empty"],
)
async def test_a_tool_may_fail_or_its_form_be_declined(host, answer, told):
    task_id = await host.run("[[call weather]]", tools=[WEATHER])
    await host.answer(task_id, dict.fromkeys((await host.asked(task_id)).values(), answer))
    assert told in (await host.ended(task_id))["text"]


async def test_a_result_that_is_none_or_too_long_is_refused(realm, host):
    await realm.patch_config({"limits": {"max_tool_result_chars": 100}})
    task_id = await host.run("[[call weather]][[call weather]]", tools=[WEATHER])
    keys = list((await host.until(task_id, "input_required"))["inputRequests"])
    for answer in ({"action": "accept", "content": {"is_error": True}}, answered("x" * 101)):
        assert await host.refused("tasks/update", taskId=task_id, inputResponses={keys[0]: answer}) == UNKNOWN
    await host.answer(task_id, {keys[0]: answered("x" * 100)})
    assert list((await host.get(task_id))["inputRequests"]) == keys[1:]


async def test_approvals_and_results_are_asked_for_and_brought_together(realm, host):
    bench = await staged(realm)
    task_id = await host.run("[[call weather]]" + WRITE, tools=[WEATHER])
    task = await host.until(task_id, "input_required")
    assert task["statusMessage"] == "waits for a yes for write, the result of weather"
    asked = await host.asked(task_id)
    answers = {key: APPROVED if "write" in text else answered("rain") for text, key in asked.items()}
    await host.answer(task_id, answers)
    assert "weather (call_1_1) answered: rain" in (await host.ended(task_id))["text"]
    assert bench.made == ["write"]


async def test_the_calling_model_may_bring_the_results_instead(realm, host):
    first = await host.run("[[call weather]]", tools=[WEATHER])
    await host.until(first, "input_required")
    results = [{"tool_use_id": "call_1_1", "content": "rain"}]
    second = await host.begin("meerkat_resume", session_id=of(first).session_id, tool_results=results)
    assert first != second
    done = await host.ended(second)
    assert done == await host.ended(first), "both calls are answered by the end of their turn"


# ── a host that can ask nobody ──


async def test_a_turn_that_waits_is_a_result_for_a_host_that_can_ask_nobody(realm, mute):
    first = await mute.run("[[call weather]][[next]][[call weather]]", tools=[WEATHER])
    waiting = await mute.ended(first)
    assert waiting["status"] == "waiting"
    (call,) = waiting["pending_tool_calls"]
    assert "tool_results" in waiting["hint"]
    await mute.cancel(first)
    await mute.update(first, **{"1.call_1_1": answered("rain")})
    assert (await realm.journal.load(waiting["session_id"])).state == "waiting", "a task that is over does nothing"

    results = [{"tool_use_id": call["tool_use_id"], "content": "rain"}]
    second = await mute.begin("meerkat_resume", session_id=waiting["session_id"], tool_results=results)
    waits_again = await mute.ended(second)
    assert (waits_again["status"], waits_again["turn_id"]) == ("waiting", waiting["turn_id"])
    assert waits_again["pending_tool_calls"] != waiting["pending_tool_calls"]

    results = [{"tool_use_id": waits_again["pending_tool_calls"][0]["tool_use_id"], "content": "sun"}]
    third = await mute.begin("meerkat_resume", session_id=waiting["session_id"], tool_results=results)
    assert (await mute.ended(third))["status"] == "completed"
    assert len({first, second, third}) == 3
    assert await mute.ended(first) == waiting, "a task that is completed stays as it is"
    assert await mute.ended(second) == waits_again


async def test_one_kind_of_answer_alone_is_a_result_that_waits_on(realm, mute):
    await staged(realm)
    first = await mute.run("[[call weather]]" + WRITE, tools=[WEATHER])
    waiting = await mute.ended(first)
    assert (len(waiting["pending_tool_calls"]), len(waiting["pending_approvals"])) == (1, 1)
    sid = waiting["session_id"]
    no = [{"tool_use_id": "call_1_2", "decision": "deny"}]
    second = await mute.begin("meerkat_resume", session_id=sid, responses=no)
    waits_on = await mute.ended(second)
    assert (waits_on["status"], "pending_approvals" in waits_on) == ("waiting", False)
    results = [{"tool_use_id": "call_1_1", "content": "rain"}]
    third = await mute.begin("meerkat_resume", session_id=sid, tool_results=results)
    done = await mute.ended(third)
    assert (done["status"], "This call was not allowed" in done["text"]) == ("completed", True)
    assert [await mute.ended(first), await mute.ended(second)] == [waiting, waits_on]


async def test_a_yes_from_elsewhere_is_seen_by_the_host_that_can_ask(realm, host, mute):
    await staged(realm)
    task_id = await host.run(WRITE)
    await host.until(task_id, "input_required")
    assert (await mute.ended(task_id))["status"] == "waiting"
    approvals = [Approval("call_1_1", "approve")]
    started = await realm.sessions.resume(of(task_id).session_id, approvals=approvals, approved_by="operator")
    await ended(realm, started)
    assert (await host.ended(task_id))["status"] == "completed"
    assert (await mute.ended(task_id))["status"] == "waiting"
