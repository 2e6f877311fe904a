import anyio
import pytest
from sessions.actors import CALLED, DONE, Scripted, call, use
from words import CALL, PATIENCE_S, WEATHER, check_log, ended, log, outcome, resume, run, settings, types, until

from meerkat_mcp.domain.messages import ToolResult, Usage
from meerkat_mcp.domain.settings import Budget
from meerkat_mcp.providers.base import Piece, Reply, Whole
from meerkat_mcp.realms import choose, open_realm

pytestmark = pytest.mark.anyio


async def test_a_turn_records_what_happens_in_order(realm):
    started, outcome = await run(realm, "[[reason hmm]][[say Hello there]]")
    assert (outcome.status, outcome.text, outcome.stop_reason) == ("completed", "Hello there", "end")
    assert await types(realm, started.session_id) == [
        "session_created",
        "turn_started",
        "step_started",
        "reasoning_complete",
        "text_complete",
        "step_completed",
        "turn_completed",
    ]
    await check_log(realm, started.session_id)


async def test_a_completed_text_takes_the_place_of_its_deltas(realm):
    started, _ = await run(realm, "[[words 50]]")
    kinds = [event.type for event in await log(realm, started.session_id)]
    assert "text_delta" not in kinds
    assert (await check_log(realm, started.session_id)).seq > len(kinds)


async def test_a_live_follower_sees_the_whole_text_as_deltas(realm):
    with anyio.fail_after(PATIENCE_S):
        started = await realm.sessions.run("[[words 60]]", settings(provider_params={"delta_ms": 3}))
        pieces, whole = [], None
        async with realm.journal.follow(started.session_id, after=0) as events:
            while whole is None:
                for recorded in await events.next():
                    if recorded.type == "text_delta":
                        pieces.append(recorded.event.text)
                    elif recorded.type == "text_complete":
                        whole = recorded.event.text
    assert "".join(pieces) == whole
    assert len(pieces) > 1


async def test_half_written_text_stays_in_the_log_and_leaves_the_context(realm):
    with anyio.fail_after(PATIENCE_S):
        started = await realm.sessions.run("[[say one two three]][[hang]]", settings())
        await until(realm, started.session_id, "text_delta")
        assert (await realm.sessions.interrupt(started.session_id)).ended
    assert (await outcome(realm, started)).status == "interrupted"
    assert any(event.type == "text_delta" for event in await log(realm, started.session_id))
    again = await resume(realm, started.session_id, "[[history]]")
    assert again.text == "user: [[say one two three]][[hang]]\nuser: [[history]]"
    await check_log(realm, started.session_id)


@pytest.mark.parametrize(
    ("directive", "code", "text"),
    [
        ("unavailable", "provider_unavailable", "so far"),
        ("rejected", "provider_rejected", "so far"),
        ("unauthenticated", "provider_unauthenticated", "so far"),
        ("crash", "internal", "so far"),
    ],
)
async def test_a_failing_model_ends_the_turn_and_the_session_goes_on(realm, directive, code, text):
    await realm.set_config({"retry": {"base_delay_s": 0}})
    started, failed = await run(realm, f"[[say so far]][[wait 0.05]][[fail {directive}]]")
    assert (failed.status, failed.error["code"], failed.text) == ("failed", code, text)
    if code == "internal":
        assert "crash" not in failed.error["message"], "a bug's own text stays inside"
    assert (await resume(realm, started.session_id, "[[say fine]]")).text == "fine"
    await check_log(realm, started.session_id)


async def test_a_stream_that_breaks_off_is_no_answer(realm):
    await realm.set_config({"retry": {"base_delay_s": 0}})
    _, broken = await run(realm, "[[say half]][[truncate]]")
    assert (broken.status, broken.error["code"]) == ("failed", "provider_unavailable")


async def test_a_refusal_is_a_normal_end_that_says_so(realm):
    _, refused = await run(realm, "[[say I will not]][[refuse]]")
    assert (refused.status, refused.stop_reason) == ("completed", "refusal")


async def test_a_reply_cut_by_max_tokens_is_a_limit(realm):
    _, cut = await run(realm, "[[words 100]]", max_tokens=7)
    assert (cut.status, cut.stop_reason, cut.usage.output_tokens) == ("limit", "max_tokens", 7)


async def test_max_steps_ends_a_turn_that_goes_round(realm):
    schema = {"type": "object", "required": ["a"], "properties": {"a": {"type": "integer"}}}
    _, stopped = await run(realm, "[[bad_json 9]]", output_schema=schema, max_steps=2)
    assert (stopped.status, stopped.stop_reason, stopped.steps) == ("limit", "max_steps", 2)


async def test_the_time_budget_cuts_a_turn_short(realm):
    _, stopped = await run(realm, "[[hang]]", budget=Budget(max_duration_s=0.1))
    assert (stopped.status, stopped.stop_reason) == ("limit", "budget.max_duration_s")


async def test_the_token_budget_warns_then_ends_then_refuses(realm):
    from meerkat_mcp.domain.errors import BudgetExhausted

    started, first = await run(realm, "[[words 90]]", budget=Budget(max_tokens=100))
    assert first.status == "completed"
    assert "budget_warning" in await types(realm, started.session_id)
    last = await resume(realm, started.session_id, "[[words 90]]")
    assert (last.status, last.stop_reason) == ("limit", "max_tokens"), "the reply was shortened to what was left"
    with pytest.raises(BudgetExhausted) as refused:
        await realm.sessions.resume(started.session_id, "more")
    assert refused.value.facts["limit"] == "budget.max_tokens"


async def test_the_realms_budget_holds_for_sessions_that_ask_for_more(realm):
    await realm.set_config({"budget": {"max_tool_calls": 1}})
    _, stopped = await run(realm, CALL + CALL, tools=(WEATHER,), budget=Budget(max_tool_calls=5))
    assert (stopped.status, stopped.stop_reason) == ("limit", "budget.max_tool_calls")


async def test_structured_output_is_asked_for_again_until_it_fits(realm):
    schema = {"type": "object", "required": ["a"], "properties": {"a": {"type": "integer"}}}
    started, done = await run(realm, "[[bad_json 2]]", output_schema=schema)
    assert (done.status, done.structured_output, done.steps) == ("completed", {"a": 0}, 3)
    assert (await types(realm, started.session_id)).count("output_rejected") == 2


async def test_structured_output_that_never_fits_fails_with_the_last_text(realm):
    schema = {"type": "object", "required": ["a"]}
    _, failed = await run(realm, "[[bad_json 9]]", output_schema=schema)
    assert (failed.status, failed.error["code"], failed.error["attempts"]) == ("failed", "schema_invalid", 3)
    assert failed.error["text"] == failed.text


async def test_a_realm_that_closes_ends_its_turns(tmp_path):
    choice = choose("den", state_root=tmp_path)
    with anyio.fail_after(PATIENCE_S):
        async with open_realm(choice) as realm:
            started = await realm.sessions.run("[[hang]]", settings())
            await until(realm, started.session_id, "step_started")
        async with open_realm(choice) as realm:
            closed = await outcome(realm, started)
            assert (closed.status, closed.stop_reason) == ("interrupted", "shutdown")
            assert (await resume(realm, started.session_id, "[[say on]]")).text == "on"
            await check_log(realm, started.session_id)


async def test_a_call_of_a_tool_that_is_not_there_is_answered_here(realm):
    provider = Scripted([call("ghost"), CALLED], [Whole(kind="text", text="sorry"), DONE])
    use(realm, provider)
    _, done = await run(realm, "go")
    assert (done.status, done.text) == ("completed", "sorry")
    (result,) = provider.requests[1].messages[-1].results
    assert result.is_error
    assert "no tool 'ghost'" in result.content


async def test_known_and_unknown_calls_of_one_step_keep_their_order(realm):
    provider = Scripted(
        [call("ghost", 1), call("weather", 2), call("ghost", 3), CALLED], [Whole(kind="text", text="ok"), DONE]
    )
    use(realm, provider)
    started, waiting = await run(realm, "go", tools=(WEATHER,))
    assert [pending.tool_use_id for pending in waiting.pending] == ["c2"]
    brought = ToolResult(tool_use_id="c2", content="rain")
    assert (await resume(realm, started.session_id, tool_results=[brought])).text == "ok"
    assert [result.tool_use_id for result in provider.requests[1].messages[-1].results] == ["c1", "c2", "c3"]


async def test_a_stream_without_an_end_is_a_failure(realm):
    await realm.set_config({"retry": {"attempts": 1}})
    use(realm, Scripted([Piece(kind="text", text="half")]))
    _, broken = await run(realm, "go")
    assert (broken.status, broken.text) == ("failed", "half")


async def test_the_second_request_begins_with_the_first_one(realm):
    provider = Scripted([Whole(kind="text", text="a"), DONE], [Whole(kind="text", text="b"), DONE])
    use(realm, provider)
    started, _ = await run(realm, "one", system_prompt="Be brief.")
    await resume(realm, started.session_id, "two")
    first, second = provider.requests
    assert second.messages[: len(first.messages)] == first.messages
    assert second.system_prompt == first.system_prompt == "Be brief."


async def test_a_queued_prompt_runs_in_the_place_of_the_turn_that_ended(realm):
    with anyio.fail_after(PATIENCE_S):
        started = await realm.sessions.run("[[hang]]", settings())
        queued = await realm.sessions.resume(started.session_id, "[[say next]]", if_busy="queue")
        assert (await outcome(realm, queued)).status == "queued"
        await realm.sessions.interrupt(started.session_id)
        assert (await ended(realm, queued)).text == "next"
    await check_log(realm, started.session_id)
    assert realm.turns.running == 0


async def test_a_budget_in_dollars_fails_where_the_price_is_not_known(realm):
    use(realm, Scripted([Whole(kind="text", text="a"), DONE]))
    _, failed = await run(realm, "go", budget=Budget(max_cost_usd=1.0))
    assert (failed.status, failed.error["code"]) == ("failed", "invalid_request")
    assert "max_cost_usd cannot be kept" in failed.error["message"]


async def test_a_model_that_refuses_runs_no_tools(realm):
    refused = Reply(stop_reason="refusal", usage=Usage())
    use(realm, Scripted([call("weather"), refused]))
    _, done = await run(realm, "go", tools=(WEATHER,))
    assert (done.status, done.stop_reason, done.pending) == ("completed", "refusal", ())
