"""One model call: when it is made again, how patiently, and what is left of an attempt that failed."""

import anyio
import pytest
from hypothesis import given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st
from sessions.actors import DONE, Scripted, call, calls, says, use
from words import PATIENCE_S, WEATHER, check_log, ended, log, outcome, resume, run, settings, types, until

from meerkat_mcp.domain.config import RetryConfig
from meerkat_mcp.domain.errors import MeerkatError, ProviderRejected, ProviderUnauthenticated, ProviderUnavailable
from meerkat_mcp.domain.messages import AssistantMessage, Usage
from meerkat_mcp.domain.settings import Budget
from meerkat_mcp.providers.base import Piece, Reply, Whole
from meerkat_mcp.sessions import asking

pytestmark = pytest.mark.anyio

TRUNCATED = Reply(stop_reason="truncated", usage=Usage())


@pytest.fixture
async def quick(den):
    """A realm that waits next to nothing between two attempts."""
    await den.set_config({"retry": {"base_delay_s": 0.001, "max_delay_s": 0.05}})
    return den


def busy(kind: str = "overloaded", **given) -> ProviderUnavailable:
    return ProviderUnavailable("Too much to do.", kind=kind, **given)


async def retries(realm, started):
    return [event for event in await log(realm, started.session_id) if event.type == "retrying"]


# ── what is asked again, and how often ──


async def test_what_fails_for_a_while_is_asked_again_with_the_very_same_request(quick):
    model = Scripted([busy()], [busy("rate_limit")], says("at last"))
    use(quick, model)
    started, done = await run(quick, "go")
    assert (done.status, done.text, done.steps) == ("completed", "at last", 1)
    assert model.requests[0] == model.requests[1] == model.requests[2]
    told = await retries(quick, started)
    assert [(event.kind, event.attempt, event.attempts_max, event.step) for event in told] == [
        ("overloaded", 2, 4, 1),
        ("rate_limit", 3, 4, 1),
    ]
    assert {event.message for event in told} == {"Too much to do."}
    await check_log(quick, started.session_id)


async def test_a_step_begins_and_ends_once_however_often_it_is_asked(quick):
    use(quick, Scripted([busy()], [busy()], says("ok")))
    started, _ = await run(quick, "go")
    assert await types(quick, started.session_id) == [
        "session_created",
        "turn_started",
        "step_started",
        "retrying",
        "retrying",
        "text_complete",
        "step_completed",
        "turn_completed",
    ]


@pytest.mark.parametrize(
    "error",
    [ProviderRejected("No.", kind="invalid"), ProviderUnauthenticated("Who are you?"), RuntimeError("a bug")],
    ids=lambda error: type(error).__name__,
)
async def test_what_fails_for_good_is_not_asked_again(quick, error):
    model = Scripted([error])
    use(quick, model)
    started, failed = await run(quick, "go")
    code = error.code if isinstance(error, MeerkatError) else "internal"
    assert (failed.status, failed.error["code"], len(model.requests)) == ("failed", code, 1)
    assert "retrying" not in await types(quick, started.session_id)


@pytest.mark.parametrize("attempts", [1, 3])
async def test_it_is_asked_as_often_as_the_config_says_and_the_last_error_is_the_turns(quick, attempts):
    await quick.patch_config({"retry": {"attempts": attempts}})
    model = Scripted(*([busy(f"kind{number}")] for number in range(attempts)))
    use(quick, model)
    started, failed = await run(quick, "go")
    assert (failed.status, failed.error["code"], failed.error["kind"], failed.error["retryable"]) == (
        "failed",
        "provider_unavailable",
        f"kind{attempts - 1}",
        True,
    )
    assert len(model.requests) == attempts
    assert len(await retries(quick, started)) == attempts - 1
    await check_log(quick, started.session_id)


async def test_each_step_has_all_its_attempts(quick):
    await quick.patch_config({"retry": {"attempts": 2}})
    model = Scripted([busy()], calls(call("ghost")), [busy()], says("ok"))
    use(quick, model)
    started, done = await run(quick, "go")
    assert (done.text, done.steps) == ("ok", 2)
    assert [(event.step, event.attempt) for event in await retries(quick, started)] == [(1, 2), (2, 2)]


# ── how patiently ──


async def test_a_provider_that_says_how_long_to_wait_is_obeyed(quick):
    use(quick, Scripted([busy(retry_after_s=0.03)], says("ok")))
    started, _ = await run(quick, "go")
    (told,) = await retries(quick, started)
    assert told.delay_s == 0.03


async def test_a_provider_that_asks_for_more_patience_than_there_is_ends_the_turn_at_once(quick):
    model = Scripted([busy(retry_after_s=3600)])
    use(quick, model)
    started, failed = await run(quick, "go")
    assert (failed.status, failed.error["code"], failed.error["retry_after_s"]) == (
        "failed",
        "provider_unavailable",
        3600,
    )
    assert "3600 s" in failed.error["hint"]
    assert "retry.max_delay_s" in failed.error["hint"]
    assert not await retries(quick, started)
    assert len(model.requests) == 1


@given(
    attempt=st.integers(1, 19),
    base=st.floats(0, 60),
    most=st.floats(0, 3600),
)
@hypothesis_settings(max_examples=200, deadline=None)
def test_a_pause_is_twice_as_long_each_time_within_its_bounds(attempt, base, most):
    retry = RetryConfig(attempts=20, base_delay_s=base, max_delay_s=most)
    delay_s = asking._delay_s(busy(), attempt, retry)
    full = min(most, base * 2 ** (attempt - 1))
    assert full * (1 - asking.JITTER) <= delay_s <= full


def test_two_who_failed_together_do_not_come_back_together():
    retry = RetryConfig(base_delay_s=1)
    assert len({asking._delay_s(busy(), 1, retry) for _ in range(20)}) > 1


async def test_an_interrupt_ends_the_pause_at_once(den):
    await den.set_config({"retry": {"base_delay_s": 60, "max_delay_s": 3600}})
    use(den, Scripted([busy()]))
    with anyio.fail_after(PATIENCE_S):
        started = await den.sessions.run("go", settings())
        told = await until(den, started.session_id, "retrying")
        assert told.delay_s >= 45
        assert (await den.sessions.interrupt(started.session_id)).ended
    assert (await outcome(den, started)).status == "interrupted"
    await check_log(den, started.session_id)


async def test_the_time_budget_ends_the_pause_too(den):
    await den.set_config({"retry": {"base_delay_s": 60}})
    use(den, Scripted([busy()]))
    _, stopped = await run(den, "go", budget=Budget(max_duration_s=0.05))
    assert (stopped.status, stopped.stop_reason) == ("limit", "budget.max_duration_s")


async def test_a_model_call_that_takes_too_long_is_given_up_and_made_again(quick):
    await quick.patch_config({"providers": {"openai": {"call_timeout_s": 0.02}}, "retry": {"attempts": 2}})
    model = Scripted([anyio.Event()], [Piece(kind="text", text="slow"), anyio.Event()], name="openai")
    use(quick, model)
    started, failed = await run(quick, "go", model="gpt-9", provider="openai")
    assert (failed.status, failed.error["kind"]) == ("failed", "timeout")
    assert "0.02 s" in failed.error["message"]
    assert "call_timeout_s" in failed.error["hint"]
    assert [event.kind for event in await retries(quick, started)] == ["timeout"]


# ── what is left of an attempt that failed ──


async def test_what_a_failed_attempt_said_is_void_in_the_result_and_the_history(quick):
    half = [Piece(kind="text", text="half an"), Whole(kind="reasoning", text="hm"), Whole(kind="text", text="wrong")]
    use(quick, model := Scripted([*half, busy()], says("right"), says("next")))
    started, done = await run(quick, "go")
    assert done.text == "right"
    history = (await quick.reading.history(started.session_id)).messages
    assert [placed.message.text for placed in history] == ["go", "right"]
    await resume(quick, started.session_id, "on")
    said = [message for message in model.requests[-1].messages if isinstance(message, AssistantMessage)]
    assert [[block.text for block in message.blocks] for message in said] == [["right"]]
    await check_log(quick, started.session_id)


async def test_while_it_is_asked_again_a_reader_sees_nothing_of_the_failed_attempt(quick):
    gate = anyio.Event()
    model = Scripted([Piece(kind="text", text="wrong"), busy()], [gate, *says("right")])
    use(quick, model)
    with anyio.fail_after(PATIENCE_S):
        started = await quick.sessions.run("go", settings())
        await until(quick, started.session_id, "retrying")
        assert (await outcome(quick, started)).text == ""
        gate.set()
        assert (await ended(quick, started)).text == "right"


async def test_calls_of_a_reply_that_broke_off_are_never_made_nor_waited_for(quick):
    use(quick, model := Scripted([call("weather"), busy()], [call("weather", 2), TRUNCATED], says("no tools")))
    started, done = await run(quick, "go", tools=(WEATHER,))
    assert (done.status, done.text, done.pending, done.tool_calls) == ("completed", "no tools", (), 0)
    assert len(model.requests[-1].messages) == 1
    assert [event.kind for event in await retries(quick, started)] == ["overloaded", "truncated"]


@pytest.mark.parametrize("end", [[], [TRUNCATED]], ids=["no end", "truncated"])
async def test_a_stream_that_breaks_off_is_asked_again_and_keeps_its_text_when_that_was_the_last_time(quick, end):
    await quick.patch_config({"retry": {"attempts": 2}})
    use(quick, Scripted([Whole(kind="text", text="first"), *end], [Whole(kind="text", text="second"), *end]))
    started, failed = await run(quick, "go")
    assert (failed.status, failed.error["kind"], failed.text) == ("failed", "truncated", "second")
    assert [event.kind for event in await retries(quick, started)] == ["truncated"]


async def test_usage_of_the_attempt_that_ended_counts_once(quick):
    use(quick, Scripted([Piece(kind="text", text="x"), busy()], says("ok", read=10, wrote=5)))
    _, done = await run(quick, "go")
    assert (done.usage.input_tokens, done.usage.output_tokens) == (10, 5)


async def test_what_the_provider_says_of_its_reply_is_recorded(quick):
    said = Reply(
        stop_reason="refusal", usage=Usage(), items=({"a": 1},), model="demo-2", response_id="r1", detail="not that"
    )
    use(quick, Scripted([Whole(kind="text", text="no"), said]))
    started, done = await run(quick, "go")
    assert (done.status, done.stop_reason) == ("completed", "refusal")
    (step,) = [event for event in await log(quick, started.session_id) if event.type == "step_completed"]
    assert (step.answered_by, step.response_id, step.detail, step.items) == ("demo-2", "r1", "not that", ({"a": 1},))


async def test_a_paused_reply_is_asked_to_go_on_with_what_it_said(quick):
    pause = Reply(stop_reason="pause", usage=Usage())
    use(quick, model := Scripted([Whole(kind="text", text="so far"), pause], says("and on")))
    _, done = await run(quick, "go")
    assert (done.status, done.text, done.steps) == ("completed", "and on", 2)
    assert model.requests[1].messages[-1].text == "so far"


async def test_a_conversation_that_fills_the_window_says_what_to_do(quick):
    use(quick, Scripted([Whole(kind="text", text="so"), Reply(stop_reason="context", usage=Usage())], [DONE]))
    started, failed = await run(quick, "go")
    assert (failed.status, failed.error["code"], failed.error["kind"]) == ("failed", "provider_rejected", "context")
    assert "meerkat_compact" in failed.error["hint"]
    await check_log(quick, started.session_id)


async def test_a_summary_in_passing_is_asked_again_too_and_never_heard(quick):
    await quick.patch_config({"compaction": {"threshold": 0.1, "keep_steps": 1}})
    model = Scripted(
        says("long " * 3000),
        says("long " * 3000, read=5000),
        [Piece(kind="text", text="sec"), Whole(kind="text", text="secret"), busy()],
        [Piece(kind="text", text="ret"), *says("secret summary")],
        says("answer"),
        window=20_000,
    )
    use(quick, model)
    started, _ = await run(quick, "one")
    await resume(quick, started.session_id, "two")
    done = await resume(quick, started.session_id, "three")
    assert done.text == "answer"
    events = [event for event in await log(quick, started.session_id) if event.turn_id == done.turn_id]
    assert [event.type for event in events if event.type != "text_delta"] == [
        "turn_started",
        "step_started",
        "retrying",
        "step_completed",
        "history_compacted",
        "step_started",
        "text_complete",
        "step_completed",
        "turn_completed",
    ]
    assert not [event for event in events if "sec" in getattr(event, "text", "")]
