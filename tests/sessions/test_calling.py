"""The tools of a turn: which the model sees, which run by themselves, what comes of each call."""

import sys
from pathlib import Path

import anyio
import pytest
from sessions.actors import BOX, Bench, Scripted, call, calls, equip, says, tool, use
from words import PATIENCE_S, WEATHER, check_log, ended, log, outcome, resume, run, settings, types, until

from meerkat_mcp.domain.errors import InvalidRequest, PermissionDenied
from meerkat_mcp.domain.messages import Image, ToolCall, ToolMessage, ToolResult
from meerkat_mcp.domain.servers import ToolServer
from meerkat_mcp.domain.settings import Budget
from meerkat_mcp.domain.transcript import UNANSWERED
from meerkat_mcp.realms import choose, open_realm
from meerkat_mcp.sessions.decisions import Approval
from meerkat_mcp.stores.base import Selection
from meerkat_mcp.tools.base import Output

pytestmark = pytest.mark.anyio

WITH = {"mcp_servers": {"box": BOX}}
AUTO = WITH | {"permission_mode": "auto"}
SERVERS = Path(__file__).parents[1] / "tools" / "servers"


def results(model: Scripted, request: int = -1) -> list[ToolResult]:
    """The tool results that the model got last."""
    message = model.requests[request].messages[-1]
    assert isinstance(message, ToolMessage)
    return list(message.results)


def shown(model: Scripted, request: int = 0) -> list[str]:
    return [definition.name for definition in model.requests[request].tools]


async def of_type(realm, started, kind):
    return [event for event in await log(realm, started.session_id) if event.type == kind]


# ── what runs ──


async def test_a_tool_that_may_run_runs_and_the_model_goes_on_with_its_answer(den):
    bench = equip(den, Bench(tool("look", reads=True)))
    use(den, model := Scripted(calls(call("look", 1, at="it"), text="Let me see."), says("seen")))
    started, done = await run(den, "go", **WITH)
    assert (done.status, done.text, done.steps, done.tool_calls) == ("completed", "seen", 2, 1)
    assert bench.made == ["look"]
    assert [(result.tool_use_id, result.content, result.is_error) for result in results(model)] == [
        ("c1", "look done", False)
    ]
    assert await types(den, started.session_id) == [
        "session_created",
        "turn_started",
        "step_started",
        "text_complete",
        "tool_call_requested",
        "step_completed",
        "tool_execution_started",
        "tool_execution_completed",
        "step_started",
        "text_complete",
        "step_completed",
        "turn_completed",
    ]
    (event,) = await of_type(den, started, "tool_execution_completed")
    assert event.duration_ms is not None
    assert bench.is_open == 0
    assert dict(bench.opened[0]) == {"box": BOX}
    await check_log(den, started.session_id)


async def test_a_session_without_servers_opens_none_and_sees_no_tools(den):
    bench = equip(den, Bench(tool("look")))
    use(den, model := Scripted(says("ok")))
    await run(den, "go")
    assert shown(model) == []
    assert bench.opened == [{}]


@pytest.mark.parametrize(
    ("mode", "sees", "ran", "waits"),
    [
        ("readonly", ["look"], ["look"], []),
        ("ask", ["look", "write"], ["look"], ["write"]),
        ("auto", ["look", "write"], ["look", "write"], []),
    ],
)
async def test_the_permission_mode_decides_what_is_seen_what_runs_and_what_waits(den, mode, sees, ran, waits):
    bench = equip(den, Bench(tool("look", reads=True), tool("write")))
    use(den, model := Scripted(calls(call("look", 1), call("write", 2)), says("ok")))
    started, first = await run(den, "go", permission_mode=mode, **WITH)
    assert shown(model) == sees
    assert sorted(bench.made) == ran
    assert [pending.tool_name for pending in first.approvals] == waits
    assert first.status == ("waiting" if waits else "completed")
    asked = await of_type(den, started, "approval_requested")
    assert [event.tool_name for event in asked] == waits
    if mode == "readonly":
        refused = results(model)[1]
        assert refused.is_error
        assert "only reads" in refused.content
    await check_log(den, started.session_id)


async def test_without_a_choice_the_configs_mode_and_servers_hold(den):
    equip(den, bench := Bench(tool("write", server="shed")))
    definition = {"command": "never-started", "args": ["--shed"]}
    await den.set_config(
        {"mcp_servers": {"shed": definition}, "agent": {"mcp_servers": ["shed"], "permission_mode": "auto"}}
    )
    use(den, Scripted(calls(call("write")), says("ok"), says("none")))
    started, done = await run(den, "go")
    assert (done.status, bench.made) == ("completed", ["write"])
    assert bench.opened[0]["shed"].args == ("--shed",)
    await resume(den, started.session_id, "go", changes={"mcp_servers": {}})
    assert bench.opened[1] == {}, "none is a choice too"


async def test_a_server_that_is_only_named_is_the_configs_one(den):
    equip(den, bench := Bench())
    await den.set_config({"mcp_servers": {"shed": {"command": "theirs"}}})
    use(den, Scripted(says("ok")))
    await run(den, "go", mcp_servers={"shed": None, "box": BOX})
    assert {name: server.command for name, server in bench.opened[0].items()} == {
        "shed": "theirs",
        "box": "never-started",
    }
    with pytest.raises(InvalidRequest, match="no tool server 'barn'") as refused:
        await den.sessions.run("go", settings(mcp_servers={"barn": None}))
    assert "shed" in refused.value.hint


@pytest.mark.parametrize("tells", ["asked for", "inherited"])
async def test_the_configs_ceiling_holds_against_sessions_that_want_more(den, tells):
    bench = equip(den, Bench(tool("write")))
    use(den, model := Scripted(calls(call("write")), says("ok")))
    if tells == "asked for":
        await den.set_config({"permissions": {"ceiling": "ask"}})
        with pytest.raises(PermissionDenied) as refused:
            await den.sessions.run("go", settings(**AUTO))
        assert refused.value.facts["ceiling"] == "ask"
        return
    made = await den.sessions.run("", settings(**AUTO))
    await den.set_config({"permissions": {"ceiling": "readonly"}})
    done = await resume(den, made.session_id, "go")
    assert (done.status, shown(model), bench.made) == ("completed", [], [])


async def test_a_processs_own_ceiling_holds_whatever_the_config_says(tmp_path):
    async with open_realm(choose("den", state_root=tmp_path, permission_ceiling="ask")) as realm:
        bench = equip(realm, Bench(tool("write")))
        use(realm, Scripted(calls(call("write"))))
        await realm.set_config({"agent": {"permission_mode": "auto"}})
        with pytest.raises(PermissionDenied):
            await realm.sessions.run("go", settings(**AUTO))
        _, waiting = await run(realm, "go", **WITH)
        assert (waiting.status, bench.made) == ("waiting", [])
        assert (await realm.sessions.config()).permissions.ceiling == "ask"
        await realm.set_config({"permissions": {"ceiling": "readonly"}})
        assert (await realm.sessions.config()).permissions.ceiling == "readonly", "the strictest of both"


# ── side by side ──


async def test_the_calls_of_a_step_run_side_by_side_and_answer_in_the_models_order(den):
    together, here = anyio.Event(), 0

    async def meet(args):
        nonlocal here
        here += 1
        if here == 3:
            together.set()
        await together.wait()  # each of them waits for all the others
        return Output(content=f"met {args['who']}")

    equip(den, Bench(tool("meet", reads=True), does={"meet": meet}))
    made = [call("meet", number, who=number) for number in (1, 2, 3)]
    use(den, model := Scripted(calls(*made), says("ok")))
    _, done = await run(den, "go", **WITH)
    assert done.status == "completed"
    assert [result.content for result in results(model)] == ["met 1", "met 2", "met 3"]


async def test_forty_calls_run_sixteen_at_a_time_and_all_are_answered(den):
    here, most = 0, 0

    async def count(args):
        nonlocal here, most
        here += 1
        most = max(most, here)
        for _ in range(5):
            await anyio.lowlevel.checkpoint()
        here -= 1
        return Output(content=str(args["n"]))

    equip(den, Bench(tool("count", reads=True), does={"count": count}))
    use(den, model := Scripted(calls(*(call("count", n, n=n) for n in range(40))), says("ok")))
    started, done = await run(den, "go", **WITH)
    assert (done.tool_calls, most) == (40, 16)
    assert [result.content for result in results(model)] == [str(n) for n in range(40)]
    await check_log(den, started.session_id)


async def test_one_tool_that_fails_spoils_nothing_for_the_others(den):
    async def fail(_):
        return Output(content="it is full", is_error=True)

    equip(den, Bench(tool("bad", reads=True), tool("good", reads=True), does={"bad": fail}))
    use(den, model := Scripted(calls(call("bad", 1), call("good", 2)), says("ok")))
    started, done = await run(den, "go", **WITH)
    assert done.status == "completed"
    assert [(result.content, result.is_error) for result in results(model)] == [
        ("it is full", True),
        ("good done", False),
    ]
    assert {event.tool_use_id: event.is_error for event in await of_type(den, started, "tool_execution_completed")} == {
        "c1": True,
        "c2": False,
    }


# ── calls that need no tool ──


async def test_arguments_that_are_no_object_are_answered_and_never_sent(den):
    bench = equip(den, Bench(tool("look", reads=True)))
    bad = ToolCall(tool_use_id="c1", tool_name="look", args={}, malformed='{"at": ' + "x" * 1000)
    theirs = ToolCall(tool_use_id="c2", tool_name="weather", args={}, malformed="[1]")
    use(den, model := Scripted(calls(bad, theirs, call("look", 3)), says("ok")))
    _, done = await run(den, "go", tools=(WEATHER,), **WITH)
    assert done.status == "completed", "a malformed call of the caller's tool is not waited for"
    assert bench.made == ["look"]
    first, second, third = results(model)
    assert (first.is_error, second.is_error, third.is_error) == (True, True, False)
    assert '{"at": xxx' in first.content
    assert len(first.content) < 600


async def test_a_tool_that_is_not_there_is_answered_with_those_that_are(den):
    equip(den, Bench(tool("look", reads=True)))
    use(den, model := Scripted(calls(call("loko")), says("ok")))
    await run(den, "go", tools=(WEATHER,), **WITH)
    (result,) = results(model)
    assert result.is_error
    assert result.content == "There is no tool 'loko'. There are: look, weather."


async def test_a_mode_that_only_reads_names_no_tool_that_it_hides(den):
    equip(den, Bench(tool("look", reads=True), tool("secret_write")))
    use(den, model := Scripted(calls(call("loko")), says("ok")))
    await run(den, "go", permission_mode="readonly", **WITH)
    assert "secret_write" not in results(model)[0].content


# ── beside the caller's tools ──


async def test_ours_run_before_the_turn_waits_for_the_callers(den):
    bench = equip(den, Bench(tool("look", reads=True)))
    use(den, model := Scripted(calls(call("weather", 1), call("look", 2)), says("ok")))
    started, waiting = await run(den, "go", tools=(WEATHER,), **WITH)
    assert shown(model) == ["weather", "look"]
    assert (waiting.status, bench.made) == ("waiting", ["look"])
    assert [pending.tool_use_id for pending in waiting.pending] == ["c1"]
    done = await resume(den, started.session_id, tool_results=[ToolResult(tool_use_id="c1", content="rain")])
    assert done.text == "ok"
    assert [result.content for result in results(model)] == ["rain", "look done"]
    assert bench.made == ["look"], "what was answered is not made again"
    await check_log(den, started.session_id)


async def test_a_callers_tool_hides_one_of_ours_that_has_its_name(den):
    bench = equip(den, Bench(tool("weather", reads=True), tool("look", reads=True)))
    use(den, model := Scripted(calls(call("weather"))))
    _, waiting = await run(den, "go", tools=(WEATHER,), **WITH)
    assert shown(model) == ["weather", "look"]
    assert model.requests[0].tools[0] == WEATHER
    assert (waiting.status, bench.made) == ("waiting", [])


# ── what comes of a call ──


async def test_a_long_result_is_cut_and_says_so(den):
    await den.set_config({"limits": {"max_tool_result_chars": 100}})

    async def much(_):
        return Output(content="x" * 1000)

    equip(den, Bench(tool("much", reads=True), tool("just", reads=True), does={"much": much}))
    use(den, model := Scripted(calls(call("much", 1), call("just", 2)), says("ok")))
    started, _ = await run(den, "go", **WITH)
    cut, whole = results(model)
    assert cut.content == f"{'x' * 100}\n[cut here: 1000 characters in all, 100 shown]"
    assert whole.content == "just done"
    assert (await of_type(den, started, "tool_execution_completed"))[0].content == cut.content


async def test_pictures_reach_the_model_now_and_after_a_restart(open_den):
    picture = Image(mime_type="image/png", data="AAAA")

    async def draw(_):
        return Output(content="a picture", images=(picture,))

    model = Scripted(calls(call("draw")), says("nice"), says("still nice"))
    async with open_den() as realm:
        equip(realm, Bench(tool("draw", reads=True), does={"draw": draw}))
        use(realm, model)
        started, _ = await run(realm, "go", **WITH)
        assert results(model)[0].images == (picture,)
    async with open_den() as realm:
        equip(realm, Bench())
        use(realm, model)
        await resume(realm, started.session_id, "again")
        assert model.requests[-1].messages[:3] == model.requests[-2].messages


async def test_tools_that_come_and_go_are_shown_from_the_next_step_on(den):
    bench = Bench(tool("grow", reads=True))

    async def grow(_):
        bench.shelf.append(tool("grown", reads=True))
        return Output(content="grown")

    bench.does["grow"] = grow
    equip(den, bench)
    use(den, model := Scripted(calls(call("grow", 1)), calls(call("grown", 2)), says("ok")))
    await run(den, "go", **WITH)
    assert (shown(model, 0), shown(model, 1)) == (["grow"], ["grow", "grown"])
    assert bench.made == ["grow", "grown"]


# ── servers that cannot be reached ──


async def test_a_server_that_is_away_is_said_once_and_the_turn_goes_on_without_it(den):
    bench = equip(den, Bench(tool("look", server="far", reads=True), tool("dig", reads=True)))
    bench.problems = {"far": "nobody answers"}
    use(den, model := Scripted(calls(call("dig", 1)), calls(call("dig", 2)), says("ok"), says("ok")))
    started, done = await run(den, "go", mcp_servers={"box": BOX, "far": BOX})
    assert (done.status, done.warnings) == ("completed", ("tool server far: nobody answers",))
    assert shown(model) == ["dig"]
    assert len(await of_type(den, started, "tool_server_failed")) == 1
    again = await resume(den, started.session_id, "again")
    assert again.warnings == done.warnings, "each turn says it anew"
    await check_log(den, started.session_id)


async def test_another_reason_is_said_too_and_what_is_back_is_used(den):
    bench = Bench(tool("look", server="far", reads=True), tool("dig", reads=True))
    bench.problems = {"far": "it is slow"}

    async def dig(args):
        bench.problems = {"far": "it has died"} if args["n"] == 1 else {}
        return Output(content="dug")

    bench.does["dig"] = dig
    equip(den, bench)
    use(den, model := Scripted(calls(call("dig", 1, n=1)), calls(call("dig", 2, n=2)), says("ok")))
    _, done = await run(den, "go", mcp_servers={"box": BOX, "far": BOX})
    assert done.warnings == ("tool server far: it is slow", "tool server far: it has died")
    assert [shown(model, number) for number in range(3)] == [["dig"], ["dig"], ["look", "dig"]]


async def test_a_turn_fails_without_a_server_that_it_requires(den):
    bench = equip(den, Bench())
    bench.problems = {"far": "nobody answers"}
    use(den, model := Scripted())
    needed = BOX.model_copy(update={"required": True})
    started, failed = await run(den, "go", mcp_servers={"far": needed, "box": BOX})
    assert (failed.status, failed.error["code"], failed.error["server"], failed.error["retryable"]) == (
        "failed",
        "tool_server_unavailable",
        "far",
        True,
    )
    assert "nobody answers" in failed.error["message"]
    assert not model.requests
    assert bench.is_open == 0
    await check_log(den, started.session_id)


# ── limits ──


async def test_the_budget_of_tool_calls_is_kept_before_any_of_them_runs(den):
    bench = equip(den, Bench(tool("look", reads=True)))
    use(den, model := Scripted(calls(call("look", 1)), calls(call("look", 2), call("look", 3)), says("sorry")))
    started, stopped = await run(den, "go", budget=Budget(max_tool_calls=2), **WITH)
    assert (stopped.status, stopped.stop_reason) == ("limit", "budget.max_tool_calls")
    assert bench.made == ["look"]
    await resume(den, started.session_id, "what now?")
    unanswered = [result for message in model.requests[-1].messages if isinstance(message, ToolMessage)
                  for result in message.results if result.is_error]  # fmt: skip
    assert [result.tool_use_id for result in unanswered] == ["c2", "c3"]
    await check_log(den, started.session_id)


# ── cut short ──


async def test_an_interrupt_cancels_calls_keeps_answers_and_says_what_is_not_known(realm):
    working, cancelled = anyio.Event(), []

    async def hang(args):
        working.set()
        try:
            await anyio.sleep_forever()
        finally:
            cancelled.append(args["n"])

    bench = equip(realm, Bench(tool("hang", reads=True), tool("look", reads=True), does={"hang": hang}))
    use(realm, model := Scripted(calls(call("hang", 1, n=1), call("look", 2), call("hang", 3, n=3)), says("on")))
    with anyio.fail_after(PATIENCE_S):
        started = await realm.sessions.run("go", settings(**WITH))
        await working.wait()
        await until(realm, started.session_id, "tool_execution_completed")
        assert (await realm.sessions.interrupt(started.session_id)).ended
    assert (await outcome(realm, started)).status == "interrupted"
    assert sorted(cancelled) == [1, 3]
    assert bench.is_open == 0
    await resume(realm, started.session_id, "and now?")
    known = {result.tool_use_id: result.content for result in model.requests[-1].messages[2].results}
    assert known == {"c1": UNANSWERED, "c2": "look done", "c3": UNANSWERED}
    await check_log(realm, started.session_id)


async def test_that_a_call_begins_is_on_the_disk_before_it_does(open_den):
    """So that a crash in the middle of it leaves a log that says that it may have run."""
    seen: list[list[str]] = []
    async with open_den() as realm, open_den() as other:

        async def write(_):
            (session_id,) = [session.id for session in (await other.reading.list(Selection())).sessions]
            seen.append([event.type for event in await log(other, session_id)])
            return Output(content="written")

        equip(realm, Bench(tool("write"), does={"write": write}))
        use(realm, Scripted(calls(call("write", 1), call("write", 2)), says("ok")))
        _, done = await run(realm, "go", **AUTO)
        assert done.status == "completed"
    for kinds in seen:
        assert kinds.count("tool_execution_started") == 2
        assert kinds.index("step_completed") < kinds.index("tool_execution_started")


async def test_a_realm_that_closes_in_the_middle_of_a_call_makes_it_never_again(open_den):
    working = anyio.Event()

    async def hang(_):
        working.set()
        await anyio.sleep_forever()

    model = Scripted(calls(call("hang")), says("ok"))
    with anyio.fail_after(PATIENCE_S):
        async with open_den() as realm:
            equip(realm, Bench(tool("hang"), does={"hang": hang}))
            use(realm, model)
            started = await realm.sessions.run("go", settings(**AUTO))
            await working.wait()
        async with open_den() as realm:
            bench = equip(realm, Bench(tool("hang")))
            use(realm, model)
            assert (await outcome(realm, started)).stop_reason == "shutdown"
            await resume(realm, started.session_id, "well?")
            assert bench.made == []
            assert [result.content for result in model.requests[-1].messages[2].results] == [UNANSWERED]
            await check_log(realm, started.session_id)


# ── real servers ──


async def test_a_real_server_is_started_used_and_gone_with_the_realm(tmp_path):
    server = ToolServer(command=sys.executable, args=(str(SERVERS / "full.py"), "stdio"))
    gone = ToolServer(command="there-is-no-such-program")
    with anyio.fail_after(60):
        async with open_realm(choose("den", backend="memory", state_root=tmp_path)) as realm:
            prompt = '[[tools]][[call full__add {"a": 2, "b": 3}]][[call full__wipe]]'
            started = await realm.sessions.run(prompt, settings(mcp_servers={"full": server, "gone": gone}))
            await realm.sessions.wait(started.session_id, started.turn_id, 30)
            waiting = await outcome(realm, started)
            assert (waiting.status, [pending.tool_name for pending in waiting.approvals]) == ("waiting", ["full__wipe"])
            assert [warning.partition(":")[0] for warning in waiting.warnings] == ["tool server gone"]
            (added,) = await of_type(realm, started, "tool_execution_completed")
            assert (added.tool_name, added.content, added.is_error) == ("full__add", "5", False)
            approved = await realm.sessions.resume(started.session_id, approvals=[Approval("call_1_2", "approve")])
            done = await ended(realm, approved)
            assert done.status == "completed"
            assert "full__wipe (call_1_2) answered: wiped" in done.text
            await check_log(realm, started.session_id)
