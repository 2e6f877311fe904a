"""Tool calls that need a yes, as a host sees them: a person who answers, one who does not, nobody there to ask."""

import json

import anyio
import pytest
from mcp import Client, MCPError
from mcp.types import ElicitResult, ErrorData, InputRequiredResult
from server.conftest import Host
from sessions.actors import Bench, equip, tool
from words import check_log, log, until

from meerkat_mcp.realms import choose, open_realm
from meerkat_mcp.server.app import build_server
from meerkat_mcp.server.approving import ARGS_CHARS_MAX
from meerkat_mcp.sessions.decisions import Approval
from meerkat_mcp.stores.base import Selection
from meerkat_mcp.tools.base import Output

pytestmark = pytest.mark.anyio

WRITE = '[[call write {"to": "a.txt"}]]'
WEATHER = {"name": "weather"}
CLOSED = ElicitResult(action="cancel")
DECLINED = ElicitResult(action="decline")


def form(decision: str, **more) -> ElicitResult:
    return ElicitResult(action="accept", content={"decision": decision, **more})


class Person:
    """Somebody in front of a host, who gives these answers one after the other."""

    def __init__(self, *answers: ElicitResult | ErrorData) -> None:
        self._answers = list(answers)
        self.asked: list[str] = []
        self.forms: list[dict] = []

    async def __call__(self, context, params) -> ElicitResult | ErrorData:
        self.asked.append(params.message)
        self.forms.append(params.requested_schema)
        return self._answers.pop(0)


async def staged(host) -> Bench:
    """The realm has a server `box` with tools, which every session uses that does not choose."""
    await host.realm.patch_config(
        {"mcp_servers": {"box": {"command": "never-started"}}, "agent": {"mcp_servers": ["box"]}}
    )
    return equip(host.realm, Bench(tool("write"), tool("erase"), tool("look", reads=True)))


async def decided(host, session_id: str) -> list[tuple[str, str, str]]:
    events = await log(host.realm, session_id)
    return [(one.decision, one.by, one.reason) for one in events if one.type == "approval_resolved"]


# ── a person who answers ──


async def test_a_yes_of_the_person_lets_the_call_run_within_the_same_call(open_host):
    person = Person(form("approve"))
    async with open_host(person=person) as host:
        bench = await staged(host)
        done = await host.run(WRITE)
        assert done["status"] == "completed"
        assert "write (call_1_1) answered: write done" in done["text"]
        assert bench.made == ["write"]
        assert person.asked == ['The agent wants to call write with {"to": "a.txt"}']
        (asked,) = person.forms
        assert asked["properties"]["decision"]["enum"] == ["approve", "deny"]
        assert asked["required"] == ["decision"]
        assert await decided(host, done["session_id"]) == [("approve", "elicitation", "")]
        await check_log(host.realm, done["session_id"])


@pytest.mark.parametrize(
    ("answer", "content", "reason"),
    [
        (form("deny", reason="not today"), "This call was not allowed: not today", "not today"),
        (form("deny"), "This call was not allowed.", ""),
        (DECLINED, "This call was not allowed.", ""),
    ],
    ids=["with a reason", "without", "declined"],
)
async def test_a_no_is_told_to_the_agent_which_goes_on(open_host, answer, content, reason):
    async with open_host(person=Person(answer)) as host:
        bench = await staged(host)
        done = await host.run(WRITE)
        assert (done["status"], bench.made) == ("completed", [])
        assert f"write (call_1_1) failed: {content}" in done["text"]
        assert await decided(host, done["session_id"]) == [("deny", "elicitation", reason)]


async def test_each_call_is_asked_about_and_each_answer_is_its_own(open_host):
    person = Person(form("approve"), form("deny", reason="no"))
    async with open_host(person=person) as host:
        bench = await staged(host)
        done = await host.run("[[call write {}]][[call erase {}]]")
        assert (done["status"], len(person.asked), bench.made) == ("completed", 2, ["write"])
        assert "erase (call_1_2) failed: This call was not allowed: no" in done["text"]


async def test_a_turn_that_needs_one_yes_after_another_asks_each_time(open_host):
    person = Person(form("approve"), form("approve"))
    async with open_host(person=person) as host:
        bench = await staged(host)
        done = await host.run("[[call write {}]][[next]][[call erase {}]]")
        assert (done["status"], bench.made) == ("completed", ["write", "erase"])
        assert len(person.asked) == 2
        await check_log(host.realm, done["session_id"])


async def test_a_resumed_turn_asks_too_and_a_call_that_only_reads_does_not(open_host):
    person = Person(form("approve"))
    async with open_host(person=person) as host:
        bench = await staged(host)
        first = await host.run("[[call look {}]]")
        assert (first["status"], person.asked) == ("completed", [])
        done = await host.ok("meerkat_resume", session_id=first["session_id"], prompt=WRITE)
        assert (done["status"], bench.made, len(person.asked)) == ("completed", ["look", "write"], 1)


async def test_the_callers_tools_are_still_waited_for_after_the_yes(open_host):
    async with open_host(person=Person(form("approve"))) as host:
        bench = await staged(host)
        waiting = await host.run("[[call weather {}]]" + WRITE, tools=[WEATHER])
        assert waiting["status"] == "waiting"
        assert [call["tool_name"] for call in waiting["pending_tool_calls"]] == ["weather"]
        assert "pending_approvals" not in waiting
        assert bench.made == []
        results = [{"tool_use_id": "call_1_1", "content": "rain"}]
        done = await host.ok("meerkat_resume", session_id=waiting["session_id"], tool_results=results)
        assert (done["status"], bench.made) == ("completed", ["write"])


async def test_long_arguments_are_shown_in_part(open_host):
    person = Person(DECLINED)
    async with open_host(person=person) as host:
        await staged(host)
        await host.run(f'[[call write {{"text": "{"x" * 5000}"}}]]')
        (asked,) = person.asked
        assert len(asked) < ARGS_CHARS_MAX + 100
        assert "… (5012 characters)" in asked


# ── a person who does not answer ──


@pytest.mark.parametrize(
    "answer",
    [CLOSED, ElicitResult(action="cancel", content={"decision": "approve"}), form("maybe"), form("")],
    ids=["closed", "filled in and closed", "no decision", "an empty form"],
)
async def test_a_form_that_was_closed_leaves_the_turn_waiting(open_host, answer):
    person = Person(answer, form("approve"))
    async with open_host(person=person) as host:
        bench = await staged(host)
        waiting = await host.run(WRITE)
        assert (waiting["status"], len(person.asked)) == ("waiting", 1)
        assert waiting["pending_approvals"] == [
            {"tool_use_id": "call_1_1", "tool_name": "write", "args": {"to": "a.txt"}}
        ]
        assert bench.made == []
        assert (await host.ok("meerkat_read", session_id=waiting["session_id"]))["session"]["state"] == "waiting"
        responses = [{"tool_use_id": "call_1_1", "decision": "deny"}]
        done = await host.ok("meerkat_resume", session_id=waiting["session_id"], responses=responses)
        assert done["status"] == "completed"
        await check_log(host.realm, waiting["session_id"])


async def test_one_form_closed_among_several_decides_nothing(open_host):
    async with open_host(person=Person(form("approve"), CLOSED)) as host:
        bench = await staged(host)
        waiting = await host.run("[[call write {}]][[call erase {}]]")
        assert (waiting["status"], len(waiting["pending_approvals"]), bench.made) == ("waiting", 2, [])
        assert await decided(host, waiting["session_id"]) == []


async def test_a_host_that_fails_to_ask_leaves_the_turn_waiting(open_host):
    """In 2026 it is the SDK's client that stops there, with its host's error; the session is as it was all the same."""
    person = Person(ErrorData(code=-32603, message="the window is gone"))
    async with open_host(person=person) as host:
        bench = await staged(host)
        if host.client.protocol_version == "2026-07-28":
            with pytest.raises(MCPError, match="the window is gone"):
                await host.run(WRITE)
        else:
            assert (await host.run(WRITE))["status"] == "waiting"
        (row,) = (await host.ok("meerkat_sessions"))["sessions"]
        assert (row["state"], bench.made) == ("waiting", [])
        await check_log(host.realm, row["session_id"])


async def test_a_host_that_cannot_ask_gets_what_is_pending(open_host):
    async with open_host() as host:
        bench = await staged(host)
        waiting = await host.run(WRITE)
        assert waiting["status"] == "waiting"
        assert [call["tool_use_id"] for call in waiting["pending_approvals"]] == ["call_1_1"]
        assert "pending_tool_calls" not in waiting
        assert bench.made == []


async def test_somebody_who_was_faster_than_the_person_is_not_contradicted(open_host):
    class Slow(Person):
        async def __call__(self, context, params):
            (row,) = (await host.realm.reading.list(Selection())).sessions
            await host.realm.sessions.resume(
                row.id, approvals=[Approval("call_1_1", "deny", "I was first")], approved_by="operator"
            )
            return await super().__call__(context, params)

    async with open_host(person=Slow(form("approve"))) as host:
        bench = await staged(host)
        done = await host.run(WRITE)
        assert (done["status"], bench.made) == ("completed", [])
        assert "I was first" in done["text"]
        assert await decided(host, done["session_id"]) == [("deny", "operator", "I was first")]


async def test_an_interrupt_while_the_person_thinks_ends_the_turn(open_host):
    class Gone(Person):
        async def __call__(self, context, params):
            (row,) = (await host.realm.reading.list(Selection())).sessions
            await host.realm.sessions.interrupt(row.id)
            return await super().__call__(context, params)

    async with open_host(person=Gone(form("approve"))) as host:
        bench = await staged(host)
        done = await host.run(WRITE)
        assert (done["status"], done["stop_reason"], bench.made) == ("interrupted", "requested", [])


async def test_the_time_a_person_takes_is_not_the_callers_patience(open_host):
    """`wait_seconds` bounds the work, not the thinking; and it begins anew when the turn goes on."""

    class Thinking(Person):
        async def __call__(self, context, params):
            await anyio.sleep(0.3)
            return await super().__call__(context, params)

    async with open_host(person=Thinking(form("approve"))) as host:
        await staged(host)
        done = await host.run(WRITE, wait_seconds=0.25)
        assert done["status"] == "completed"


async def test_a_call_that_does_not_wait_asks_nobody(open_host):
    person = Person()
    async with open_host(person=person) as host:
        await staged(host)
        gate = anyio.Event()

        async def look(_):
            await gate.wait()
            return Output(content="seen")

        equip(host.realm, Bench(tool("look", reads=True), tool("write"), does={"look": look}))
        run = await host.run("[[call look {}]][[next]]" + WRITE, wait_seconds=0)
        assert (run["status"], person.asked) == ("running", [])
        gate.set()
        await until(host.realm, run["session_id"], "turn_waiting")
        read = await host.ok("meerkat_read", session_id=run["session_id"])
        assert (read["turn"]["status"], len(read["turn"]["pending_approvals"])) == ("waiting", 1)
        assert person.asked == []


# ── the answers of the calling model ──


async def test_the_calling_model_may_deny_and_not_approve(open_host):
    async with open_host() as host:
        bench = await staged(host)
        waiting = await host.run(WRITE)
        sid = waiting["session_id"]
        yes = [{"tool_use_id": "call_1_1", "decision": "approve"}]
        refused = await host.error("meerkat_resume", session_id=sid, responses=yes)
        assert refused["code"] == "permission_denied"
        assert "session approve" in refused["hint"]
        mixed = [{"tool_use_id": "x", "decision": "deny"}, *yes]
        assert (await host.error("meerkat_resume", session_id=sid, responses=mixed))["code"] == "permission_denied"
        assert bench.made == []
        no = [{"tool_use_id": "call_1_1", "decision": "deny", "reason": "better not"}]
        done = await host.ok("meerkat_resume", session_id=sid, responses=no)
        assert done["status"] == "completed"
        assert await decided(host, sid) == [("deny", "caller", "better not")]


@pytest.mark.parametrize("by", ["config", "flag"])
async def test_the_calling_model_may_approve_where_an_operator_lets_it(open_host, by):
    async with open_host(trust_caller=by == "flag") as host:
        bench = await staged(host)
        if by == "config":
            await host.realm.patch_config({"permissions": {"caller_may_approve": True}})
        waiting = await host.run(WRITE)
        yes = [{"tool_use_id": "call_1_1", "decision": "approve"}]
        done = await host.ok("meerkat_resume", session_id=waiting["session_id"], responses=yes)
        assert (done["status"], bench.made) == ("completed", ["write"])
        assert await decided(host, waiting["session_id"]) == [("approve", "caller", "")]
        again = await host.ok("meerkat_resume", session_id=waiting["session_id"], responses=yes)
        assert again == done
        assert bench.made == ["write"]


async def test_responses_that_do_not_fit_name_what_is_missing(open_host):
    async with open_host(trust_caller=True) as host:
        await staged(host)
        waiting = await host.run("[[call write {}]][[call erase {}]]")
        few = [{"tool_use_id": "call_1_1", "decision": "approve"}, {"tool_use_id": "x", "decision": "deny"}]
        refused = await host.error("meerkat_resume", session_id=waiting["session_id"], responses=few)
        assert (refused["code"], refused["missing"], refused["unknown"]) == (
            "tool_results_mismatch",
            ["call_1_2"],
            ["x"],
        )
        assert refused["expected_approvals"] == ["call_1_1", "call_1_2"]


# ── the state that a host of 2026 carries ──


@pytest.fixture
async def modern(tmp_path):
    """A host of 2026, whose rounds a test makes itself: one of 2025 is asked while it waits, and carries nothing."""
    async with (
        open_realm(choose("den", state_root=tmp_path)) as realm,
        Client(build_server(realm), elicitation_callback=Person()) as client,
    ):
        yield Host(client, realm)


async def asked(host, **arguments) -> InputRequiredResult:
    result = await host.client.session.call_tool(
        "meerkat_run", {"prompt": WRITE, "provider_params": {"delta_ms": 0}} | arguments, allow_input_required=True
    )
    assert isinstance(result, InputRequiredResult)
    return result


async def again(host, state: str, responses: dict, **arguments):
    return await host.client.session.call_tool(
        "meerkat_run",
        {"prompt": WRITE, "provider_params": {"delta_ms": 0}} | arguments,
        input_responses=responses,
        request_state=state,
        allow_input_required=True,
    )


async def test_the_state_is_sealed_and_says_nothing(modern):
    await staged(modern)
    question = await asked(modern)
    (row,) = (await modern.ok("meerkat_sessions"))["sessions"]
    assert row["session_id"] not in question.request_state
    assert list(question.input_requests) == ["call_1_1"]
    done = await again(modern, question.request_state, {"call_1_1": form("approve")})
    assert json.loads(done.content[0].text)["session_id"] == row["session_id"], "it is the same turn, not a new one"


@pytest.mark.parametrize("forged", ["plain", "cut", "empty"])
async def test_a_forged_state_is_refused_and_decides_nothing(modern, forged):
    bench = await staged(modern)
    question = await asked(modern)
    (row,) = (await modern.ok("meerkat_sessions"))["sessions"]
    state = {
        "plain": json.dumps({"session_id": row["session_id"], "turn_id": "x"}),
        "cut": question.request_state[:-4],
        "empty": "",
    }[forged]
    with pytest.raises(MCPError) as refused:
        await again(modern, state, {"call_1_1": form("approve")})
    assert refused.value.error.code == -32602
    assert bench.made == []
    assert len((await modern.ok("meerkat_sessions"))["sessions"]) == 1, "nor was it taken for a new call"


async def test_a_state_goes_with_its_own_call_only(modern):
    bench = await staged(modern)
    question = await asked(modern)
    with pytest.raises(MCPError) as refused:
        await again(modern, question.request_state, {"call_1_1": form("approve")}, title="another")
    assert refused.value.error.code == -32602
    assert bench.made == []


async def test_a_state_is_good_at_every_server_of_the_realm_and_refused_in_other_realms(modern, tmp_path):
    bench = await staged(modern)
    question = await asked(modern)
    call = "meerkat_run", {"prompt": WRITE, "provider_params": {"delta_ms": 0}}
    brought = {"input_responses": {"call_1_1": form("approve")}, "request_state": question.request_state}
    async with (
        open_realm(choose("elsewhere", state_root=tmp_path)) as realm,
        Client(build_server(realm), elicitation_callback=Person()) as stranger,
    ):
        with pytest.raises(MCPError):
            await stranger.session.call_tool(*call, **brought, allow_input_required=True)
    assert bench.made == []
    async with Client(build_server(modern.realm), elicitation_callback=Person()) as other:
        await other.session.call_tool(*call, **brought, allow_input_required=True)
    assert bench.made == ["write"]


async def test_a_state_used_twice_decides_once(modern):
    bench = await staged(modern)
    question = await asked(modern)
    first = await again(modern, question.request_state, {"call_1_1": form("approve")})
    second = await again(modern, question.request_state, {"call_1_1": form("deny")})
    assert first.structured_content == second.structured_content
    assert bench.made == ["write"]


async def test_answers_to_what_nobody_asked_decide_nothing(modern):
    bench = await staged(modern)
    question = await asked(modern)
    result = await again(modern, question.request_state, {"call_9_9": form("approve")})
    assert result.structured_content["status"] == "waiting"
    assert bench.made == []


async def test_a_call_that_is_given_up_while_a_person_thinks_leaves_the_turn_waiting(open_host):
    asked = anyio.Event()

    async def ponders(context, params) -> ElicitResult:
        asked.set()
        await anyio.sleep_forever()
        return CLOSED

    async with open_host(person=ponders) as host:
        bench = await staged(host)
        with anyio.fail_after(10):
            async with anyio.create_task_group() as tasks:
                tasks.start_soon(host.run, WRITE)
                await asked.wait()
                tasks.cancel_scope.cancel()
        (session,) = (await host.realm.reading.list(Selection())).sessions
        read = await host.ok("meerkat_read", session_id=session.id)
        assert (read["turn"]["status"], bench.made) == ("waiting", [])
        await host.realm.sessions.resume(
            session.id, approvals=[Approval("call_1_1", "approve")], approved_by="operator"
        )
        done = await host.ok("meerkat_read", session_id=session.id, wait_seconds=10)
        assert (done["turn"]["status"], bench.made) == ("completed", ["write"])


async def test_a_person_reads_a_call_in_the_order_in_which_it_is(open_host):
    person = Person(DECLINED)
    async with open_host(person=person) as host:
        await staged(host)
        await host.run('[[call write {"to": "\u202etxt.a\u202c é"}]]')
        assert person.asked == ['The agent wants to call write with {"to": "\\u202etxt.a\\u202c é"}']


async def test_a_result_that_waits_says_how_it_goes_on(open_host):
    async with open_host() as host:
        await staged(host)
        waiting = await host.run(WRITE)
        assert f"meerkat-mcp session approve --realm den {waiting['session_id']}" in waiting["hint"]
        calls = await host.run("[[call weather]]", tools=[WEATHER])
        assert "tool_results" in calls["hint"]
        assert "hint" not in await host.run("hi")
