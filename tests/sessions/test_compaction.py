"""A shorter history: where it is cut, when that happens by itself, and that nothing else is lost by it."""

import anyio
import pytest
from hypothesis import given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st
from sessions.actors import BOX, Bench, Scripted, call, calls, equip, says, tool, use
from words import PATIENCE_S, check_log, ended, log, outcome, resume, run, settings, types, until

from meerkat_mcp.domain.errors import BudgetExhausted, InvalidRequest, ProviderRejected, ProviderUnavailable
from meerkat_mcp.domain.messages import (
    AssistantMessage,
    Text,
    ToolCall,
    ToolMessage,
    ToolResult,
    Usage,
    UserMessage,
)
from meerkat_mcp.domain.settings import Budget
from meerkat_mcp.domain.transcript import Placed
from meerkat_mcp.providers.base import Reply, Whole
from meerkat_mcp.sessions import compaction
from meerkat_mcp.sessions.decisions import Approval
from meerkat_mcp.tools.base import Output

pytestmark = pytest.mark.anyio

WITH = {"mcp_servers": {"box": BOX}}
WINDOW = 10_000
LONG = "word " * 2_000  # about 2,500 tokens, more than COMPACT_TOKENS_MIN

# ── where it is cut ──


@st.composite
def histories(draw) -> list[Placed]:
    """A conversation as a transcript has it, of any shape that there can be."""
    placed: list[Placed] = []

    def say(message) -> None:
        placed.append(Placed(seq=len(placed) + 1, turn_id="t", timestamp_ms=0, message=message))

    for shape in draw(st.lists(st.sampled_from(["user", "answer", "called", "failed"]), max_size=24)):
        size = draw(st.sampled_from([0, 1, 40, 3000]))
        match shape:
            case "user":
                say(UserMessage(text="u" * size))
            case "answer":
                say(AssistantMessage(blocks=(Text(text="a" * size),)))
            case "called" | "failed":
                made = ToolCall(tool_use_id=f"c{len(placed)}", tool_name="t", args={})
                say(AssistantMessage(blocks=(Text(text="a" * size), made)))
                say(ToolMessage(results=(ToolResult(tool_use_id=made.tool_use_id, content="r" * size),)))
    return placed


def steps_of(placed: list[Placed]) -> int:
    return sum(isinstance(one.message, AssistantMessage) for one in placed)


@given(placed=histories(), keep=st.integers(1, 6), least=st.integers(0, 1))
@hypothesis_settings(max_examples=400, deadline=None)
def test_a_cut_keeps_calls_with_their_results_and_enough_of_the_latest(placed, keep, least):
    at = compaction.cut(placed, keep, least=least)
    assert at == 0 or 1 < at <= len(placed)
    assert at == len(placed) or not isinstance(placed[at].message, ToolMessage), "a result without its call"
    if at:
        assert steps_of(placed[at:]) >= least
        assert steps_of(placed[at:]) <= keep
        if steps_of(placed[at:]):
            assert not isinstance(placed[at - 1].message, UserMessage), "a prompt stays with its answer"


@given(placed=histories(), keep=st.integers(1, 6))
@hypothesis_settings(max_examples=200, deadline=None)
def test_who_keeps_more_never_cuts_off_more(placed, keep):
    cuts = [compaction.cut(placed, keep + more) for more in range(3)]
    assert cuts == sorted(cuts, reverse=True)


@given(placed=histories(), keep=st.integers(1, 6))
@hypothesis_settings(max_examples=200, deadline=None)
def test_when_asked_for_all_can_be_cut_off_that_is_more_than_one_message(placed, keep):
    assert (compaction.cut(placed, keep, least=0) == 0) == (len(placed) < 2)


def test_fewer_steps_stay_where_those_to_be_kept_are_most_of_the_history():
    placed = [
        Placed(seq=seq, turn_id="t", timestamp_ms=0, message=message)
        for seq, size in enumerate((10, 5000, 5000), start=1)
        for message in (UserMessage(text="u"), AssistantMessage(blocks=(Text(text="a" * size),)))
    ]
    assert compaction.cut(placed, 2) == 4, "the first step alone is not worth it"
    assert compaction.cut(placed[2:], 1) == 2


@given(placed=histories(), keep=st.integers(1, 6))
@hypothesis_settings(max_examples=100, deadline=None)
def test_what_the_summariser_reads_has_every_word_but_for_the_end_of_long_results(placed, keep):
    text = compaction.request_text(placed)
    for one in placed:
        match one.message:
            case ToolMessage(results=results):
                assert all(result.content[: compaction.RESULT_CHARS_MAX] in text for result in results)
            case said:
                assert said.text in text


def test_a_long_result_is_cut_for_the_summariser_and_failures_are_named():
    results = (
        ToolResult(tool_use_id="c1", content="x" * 5000),
        ToolResult(tool_use_id="c2", content="no", is_error=True),
    )
    text = compaction.rendered([Placed(seq=1, turn_id=None, timestamp_ms=0, message=ToolMessage(results=results))])
    assert text == f"## result of c1\n{'x' * 4000} …\n\n## result of c2 (failed)\nno"


# ── by itself ──


def texts(model: Scripted, request: int = -1) -> list[str]:
    """The conversation that the model was given, in short."""
    return [short(message) for message in model.requests[request].messages]


def short(message) -> str:
    match message:
        case UserMessage(text=text) if text.startswith(compaction.SUMMARY_HEADING):
            return f"summary: {text.removeprefix(compaction.SUMMARY_HEADING).strip()}"
        case UserMessage():
            return f"user: {message.text[:20].strip()}"
        case AssistantMessage():
            return " ".join(["model:", message.text[:20].strip(), *(one.tool_use_id for one in message.tool_calls)])
        case ToolMessage(results=results):
            return f"tools: {', '.join(result.content[:20].strip() for result in results)}"


async def compacting(realm, *replies, keep=1, **config):
    await realm.set_config({"compaction": {"threshold": 0.5, "keep_steps": keep} | config, "retry": {"attempts": 1}})
    model = Scripted(*replies, window=WINDOW)
    use(realm, model)
    return model


async def talk(realm, count: int = 2, **given):
    """A session with so many turns, the last of them long."""
    started, _ = await run(realm, "p1", **given)
    for number in range(2, count + 1):
        await resume(realm, started.session_id, f"p{number}")
    return started


def turns_of(count: int, *, read: int = 6_000):
    return [*(says(f"a{number} {LONG}", read=100) for number in range(1, count)), says(f"a{count}", read=read)]


async def test_a_history_that_outgrew_its_share_is_summarised_before_the_next_step(realm):
    model = await compacting(realm, *turns_of(2), says("s1", read=70, wrote=7), says("a3"), says("a4"))
    started = await talk(realm, 2)
    done = await resume(realm, started.session_id, "p3")
    assert (done.status, done.text, done.steps) == ("completed", "a3", 2)
    assert texts(model) == ["summary: s1", "user: p2", "model: a2", "user: p3"]
    (request,) = model.requests[2].messages
    assert request.text.startswith(compaction.SUMMARY_PROMPT)
    assert "## user\np1" in request.text
    assert "a2" not in request.text
    assert model.requests[2].tools == ()
    assert done.usage.input_tokens == 71, "what the summary read counts"
    await resume(realm, started.session_id, "p4")
    assert texts(model) == ["summary: s1", "user: p2", "model: a2", "user: p3", "model: a3", "user: p4"]
    history = await realm.reading.history(started.session_id)
    said = [short(placed.message) for placed in history.messages]
    assert said[:4] == ["user: p1", f"model: {'a1 ' + LONG[:17]}".strip(), "user: p2", "model: a2"]
    assert "summary: s1" in said
    session = await check_log(realm, started.session_id)
    assert session.messages == 8


@pytest.mark.parametrize(
    ("read", "config", "compacts"),
    [
        (4_990, {}, False),
        (5_001, {}, True),
        (9_999, {"auto": False}, False),
        (3_001, {"threshold": 0.3}, True),
        (1_900, {"threshold": 0.06}, False),
    ],
    ids=["below the share", "above it", "switched off", "a smaller share", "too short to bother"],
)
async def test_it_happens_above_the_share_of_the_window_that_the_config_names(den, read, config, compacts):
    model = await compacting(den, *turns_of(2, read=read), says("s1"), says("a3"), **config)
    started = await talk(den, 2)
    await resume(den, started.session_id, "p3")
    assert ("history_compacted" in await types(den, started.session_id)) == compacts
    assert len(model.requests) == 3 + compacts


async def test_a_model_whose_window_nobody_knows_is_left_alone(den):
    model = await compacting(den, *turns_of(2, read=900_000), says("a3"))
    model._window = 0
    started = await talk(den, 2)
    done = await resume(den, started.session_id, "p3")
    assert (done.text, done.steps) == ("a3", 1)


async def test_a_long_prompt_counts_before_any_model_has_read_it(den):
    model = await compacting(den, *turns_of(2, read=2_500), says("s1"), says("a3"))
    started = await talk(den, 2)
    await resume(den, started.session_id, "p3 " * 4_000)
    assert texts(model)[0] == "summary: s1"


async def test_it_happens_in_the_middle_of_a_turn_between_two_steps(realm):
    """The results that just came stay, with the call that they answer."""
    model = await compacting(
        realm,
        calls(call("look", 1), read=100),
        calls(call("look", 2), read=6_000),
        says("s1"),
        calls(call("look", 3), read=300),
        says("done", read=400),
        says("later"),
    )

    async def look(_):

        return Output(content=f"seen {LONG}")

    equip(realm, Bench(tool("look", reads=True), does={"look": look}))
    started, done = await run(realm, "p1", **WITH)
    assert (done.status, done.text, done.steps, done.tool_calls) == ("completed", "done", 5, 3)
    assert texts(model, 3) == ["summary: s1", "model:  c2", "tools: seen word word word"]
    assert texts(model, 4) == [*texts(model, 3), "model:  c3", "tools: seen word word word"]
    assert [definition.name for definition in model.requests[3].tools] == ["look"]
    seen = model.requests[4].messages
    await resume(realm, started.session_id, "p2")
    assert model.requests[5].messages[: len(seen)] == seen, "as it is read again"
    await check_log(realm, started.session_id)


async def test_the_latest_steps_stay_as_many_as_the_config_says(den):
    replies = [says(f"a{n} {LONG if n < 3 else ''}", read=100 if n < 5 else 6_000) for n in range(1, 6)]
    model = await compacting(den, *replies, says("s1"), says("a6"), keep=3)
    started = await talk(den, 5)
    await resume(den, started.session_id, "p6")
    assert texts(model) == [
        "summary: s1",
        *(line for n in (3, 4, 5) for line in (f"user: p{n}", f"model: a{n}")),
        "user: p6",
    ]


async def test_it_happens_twice_and_the_second_summary_takes_in_the_first(realm):
    model = await compacting(
        realm,
        *turns_of(2),
        says("s1"),
        says(f"a3 {LONG}", read=100),
        says("a4", read=6_000),
        says("s2"),
        says("a5"),
        says("a6"),
    )
    started = await talk(realm, 5)
    assert "summary" in model.requests[5].messages[0].text.lower()
    assert "s1" in model.requests[5].messages[0].text
    assert texts(model) == ["summary: s2", "user: p4", "model: a4", "user: p5"]
    seen = model.requests[-1].messages
    await resume(realm, started.session_id, "p6")
    assert model.requests[-1].messages[: len(seen)] == seen
    whole = [short(placed.message) for placed in (await realm.reading.history(started.session_id)).messages]
    assert [line for line in whole if line.startswith("user")] == [f"user: p{n}" for n in range(1, 7)]
    assert [line for line in whole if line.startswith("summary")] == ["summary: s1", "summary: s2"]
    await check_log(realm, started.session_id)


async def test_a_second_summary_can_end_before_the_place_where_the_first_was_made(realm):
    """What was kept the first time is older than the summary that it follows."""
    model = await compacting(
        realm,
        says(f"a1 {LONG * 2}", read=100),
        says(f"a2 {LONG}", read=100),
        says("a3", read=6_000),
        says("s1"),
        says("a4", read=6_000),
        says("s2"),
        says("a5"),
        says("a6"),
        keep=2,
    )
    started = await talk(realm, 5)
    first, second = [event for event in await log(realm, started.session_id) if event.type == "history_compacted"]
    assert second.through_seq < first.seq
    assert texts(model) == ["summary: s2", "user: p3", "model: a3", "user: p4", "model: a4", "user: p5"]
    seen = model.requests[-1].messages
    await resume(realm, started.session_id, "p6")
    assert model.requests[-1].messages[: len(seen)] == seen
    await check_log(realm, started.session_id)


async def test_a_prompt_that_came_with_a_yes_stays_when_all_before_it_is_summarised(den):
    """The result of the call came after the prompt did, and stands before it."""
    equip(den, Bench(tool("write")))
    model = await compacting(den, calls(call("write", 1)), says("a1"), says("s1"), says("a2"))
    started, _ = await run(den, f"p1 {LONG}", **WITH)
    await resume(den, started.session_id, "and hurry", approvals=[Approval("c1", "approve")])
    assert (await compact(den, started)).status == "completed"
    await resume(den, started.session_id, "p2")
    assert texts(model) == ["summary: s1", "user: and hurry", "model: a1", "user: p2"]
    await check_log(den, started.session_id)


async def test_after_a_restart_the_same_conversation_is_sent(open_den):
    replies = [*turns_of(2), says("s1"), says("a3"), says("a4")]
    async with open_den() as realm:
        model = await compacting(realm, *replies)
        started = await talk(realm, 3)
        seen = model.requests[-1].messages
    async with open_den() as realm:
        use(realm, model)
        await resume(realm, started.session_id, "p4")
    assert model.requests[-1].messages[: len(seen)] == seen
    assert texts(model)[0] == "summary: s1"


async def test_a_fork_of_a_compacted_session_remembers_the_same(den):
    model = await compacting(den, *turns_of(2), says("s1"), says("a3"), says("b4"), says("c4"), says("old"))
    started = await talk(den, 3)
    fork = await den.shelf.fork(started.session_id)
    await resume(den, fork.id, "p4")
    forked = model.requests[-1].messages
    await resume(den, started.session_id, "p4")
    assert model.requests[-1].messages == forked
    assert texts(model)[0] == "summary: s1"
    await check_log(den, fork.id)
    (before,) = [event for event in await log(den, started.session_id) if event.type == "history_compacted"]
    earlier = await den.shelf.fork(started.session_id, at_seq=before.through_seq)
    await resume(den, earlier.id, "hm")
    assert texts(model)[0] == "user: p1", "a fork from before the summary has the words themselves"
    await check_log(den, earlier.id)


async def test_what_the_summary_costs_counts_for_the_budget(den):
    model = await compacting(den, *turns_of(2), says("s1", read=10, cost=0.75), says("never"), says("a3"))
    started = await talk(den, 2, budget=Budget(max_cost_usd=0.5))
    stopped = await resume(den, started.session_id, "p3")
    assert (stopped.status, stopped.stop_reason) == ("limit", "budget.max_cost_usd")
    assert stopped.usage.cost_usd == 0.75
    assert len(model.requests) == 3
    with pytest.raises(BudgetExhausted):
        await den.sessions.resume(started.session_id, "more")
    await check_log(den, started.session_id)


async def test_a_summary_is_no_longer_than_the_tokens_that_are_left(den):
    model = await compacting(den, *turns_of(2), says("s1"), says("a3"))
    started = await talk(den, 2, budget=Budget(max_tokens=6_500))
    await resume(den, started.session_id, "p3")
    used = 100 + 1 + 6_000 + 1
    assert model.requests[2].max_tokens == 6_500 - used
    assert model.requests[3].max_tokens == 6_500 - used - 2


BROKEN = {
    "unavailable": [ProviderUnavailable("Not now.", kind="overloaded")],
    "rejected": [ProviderRejected("Too long.", kind="context")],
    "empty": says("  "),
    "cut": [Whole(kind="text", text="half"), Reply(stop_reason="length", usage=Usage(input_tokens=5))],
    "refused": [Whole(kind="text", text="no"), Reply(stop_reason="refusal", usage=Usage(input_tokens=5))],
}


@pytest.mark.parametrize("broken", BROKEN)
async def test_one_that_fails_leaves_the_history_as_it_was_and_is_told_of(den, broken):
    model = await compacting(den, *turns_of(2), BROKEN[broken], says("a3"), says("a4"))
    started = await talk(den, 2)
    done = await resume(den, started.session_id, "p3")
    assert (done.status, done.text) == ("completed", "a3")
    assert [warning[:36] for warning in done.warnings] == ["the history could not be compacted: "[:36]]
    assert [line.partition(" ")[0] for line in texts(model)] == ["user:", "model:", "user:", "model:", "user:"]
    kinds = await types(den, started.session_id)
    assert kinds.count("compaction_failed") == 1
    assert "history_compacted" not in kinds
    again = await resume(den, started.session_id, "p4")
    assert (again.text, again.warnings) == ("a4", ()), "the last step says that it is short again"
    await check_log(den, started.session_id)


async def test_one_that_fails_is_tried_again_when_the_next_step_is_long_too(den):
    model = await compacting(den, *turns_of(2), BROKEN["unavailable"], says("a3", read=6_000), says("s1"), says("a4"))
    started = await talk(den, 4)
    assert texts(model)[0] == "summary: s1"
    await check_log(den, started.session_id)


async def test_an_interrupt_while_it_summarises_leaves_the_history_as_it_was(den):
    model = await compacting(den, *turns_of(2), [anyio.Event()], says("a4", read=100))
    started = await talk(den, 2)
    with anyio.fail_after(PATIENCE_S):
        running = await den.sessions.resume(started.session_id, "p3")
        await model.reached.wait()
        assert (await den.sessions.interrupt(started.session_id)).ended
    assert (await outcome(den, running)).status == "interrupted"
    await den.patch_config({"compaction": {"auto": False}})
    await resume(den, started.session_id, "p4")
    assert [line[:8] for line in texts(model)] == [
        "user: p1",
        "model: a",
        "user: p2",
        "model: a",
        "user: p3",
        "user: p4",
    ]
    await check_log(den, started.session_id)


async def test_another_model_can_write_the_summary_without_what_was_meant_for_the_first(den):
    await den.set_config(
        {"compaction": {"threshold": 0.5, "keep_steps": 1, "model": "claude-9", "provider": "anthropic"}}
    )
    model = Scripted(*turns_of(2), says("a3"), window=WINDOW)
    cheap = Scripted(says("s1"), name="anthropic")
    use(den, model, cheap)
    started = await talk(den, 2, provider_params={"delta_ms": 0})
    done = await resume(den, started.session_id, "p3")
    (request,) = cheap.requests
    assert (request.model, request.provider_params, request.system_prompt) == ("claude-9", {}, "")
    assert (done.model, done.provider, done.text) == ("demo", "demo", "a3")
    asked = [event for event in await log(den, started.session_id) if event.type == "step_started"]
    assert [(event.purpose, event.model) for event in asked][2:] == [("summary", "claude-9"), ("answer", "demo")]
    assert texts(model)[0] == "summary: s1"


async def test_the_demo_models_own_window_fills_by_talking(den):
    """Nothing but the public config: 32,000 words, a tenth of it."""
    await den.set_config({"compaction": {"threshold": 0.1, "keep_steps": 1}})
    started, _ = await run(den, "My name is Ada. [[words 2000]]")
    await resume(den, started.session_id, "[[words 1500]]")
    done = await resume(den, started.session_id, "What is my name?")
    assert "Ada" in done.text
    assert "history_compacted" in await types(den, started.session_id)
    await check_log(den, started.session_id)


# ── when asked for ──


async def compact(realm, started):
    with anyio.fail_after(PATIENCE_S):
        return await ended(realm, await realm.sessions.compact(started.session_id))


async def test_what_is_asked_for_keeps_the_latest_steps_where_that_is_worth_it(den):
    replies = [says(f"a1 {LONG}"), says("a2"), says("a3"), says("the summary"), says("a4")]
    model = await compacting(den, *replies, auto=False, keep=2)
    started = await talk(den, 3)
    messages, chars = await den.shelf.compactable(started.session_id)
    assert messages == 2
    assert chars > len(LONG)
    done = await compact(den, started)
    assert (done.kind, done.status, done.text) == ("compaction", "completed", "the summary")
    await resume(den, started.session_id, "p4")
    assert texts(model) == [
        "summary: the summary", "user: p2", "model: a2", "user: p3", "model: a3", "user: p4",
    ]  # fmt: skip
    await check_log(den, started.session_id)


async def test_a_short_history_is_summarised_whole(den):
    model = await compacting(den, says("a1"), says("s1"), says("a2"), keep=3)
    started = await talk(den, 1)
    await compact(den, started)
    await resume(den, started.session_id, "p2")
    assert texts(model) == ["summary: s1", "user: p2"]


@pytest.mark.parametrize("broken", BROKEN)
async def test_one_that_is_asked_for_and_fails_leaves_everything_as_it_was(realm, broken):
    model = await compacting(realm, *turns_of(2, read=10), BROKEN[broken], says("a3"))
    started = await talk(realm, 2)
    before = (await realm.reading.history(started.session_id)).messages
    done = await compact(realm, started)
    assert done.status == ("limit" if broken == "cut" else "failed")
    assert (await realm.reading.history(started.session_id)).messages == before
    session = await realm.journal.load(started.session_id)
    assert (session.state, session.compacted_seq) == ("idle", 0)
    await resume(realm, started.session_id, "p3")
    assert [line[:8] for line in texts(model)] == ["user: p1", "model: a", "user: p2", "model: a", "user: p3"]
    await check_log(realm, started.session_id)


async def test_two_in_a_row_are_refused_the_second_time_without_asking_anybody(den):
    model = await compacting(den, says("a1"), says("s1"), says("a2"), says("s2"), says("a3"))
    started = await talk(den, 1)
    await compact(den, started)
    seq = (await den.journal.load(started.session_id)).seq
    with pytest.raises(InvalidRequest, match="no history"):
        await den.sessions.compact(started.session_id)
    assert (len(model.requests), (await den.journal.load(started.session_id)).seq) == (2, seq)
    await resume(den, started.session_id, "p2")
    assert (await compact(den, started)).text == "s2"
    await resume(den, started.session_id, "p3")
    assert texts(model) == ["summary: s2", "user: p3"]
    await check_log(den, started.session_id)


async def test_a_session_that_said_nothing_has_nothing_to_compact(den):
    started = await den.sessions.run("", settings())
    with pytest.raises(InvalidRequest, match="no history"):
        await den.sessions.compact(started.session_id)


async def test_an_interrupted_compaction_leaves_everything_as_it_was(den):
    model = await compacting(den, says("a1"), [anyio.Event()], says("a2"))
    started = await talk(den, 1)
    with anyio.fail_after(PATIENCE_S):
        running = await den.sessions.compact(started.session_id)
        await model.reached.wait()
        await den.sessions.interrupt(started.session_id)
        assert (await ended(den, running)).status == "interrupted"
    await resume(den, started.session_id, "p2")
    assert texts(model) == ["user: p1", "model: a1", "user: p2"]


async def test_calls_that_never_got_an_answer_are_part_of_the_summary_not_left_open(den):
    equip(den, Bench(tool("write")))
    model = await compacting(den, calls(call("write", 1)), says("s1"), says("a2"))
    started, waiting = await run(den, "p1", **WITH)
    assert waiting.status == "waiting"
    await den.sessions.interrupt(started.session_id)
    await compact(den, started)
    assert "## result of c1 (failed)" in model.requests[1].messages[0].text
    await resume(den, started.session_id, "p2")
    assert texts(model) == ["summary: s1", "user: p2"]
    await check_log(den, started.session_id)


async def test_whoever_follows_hears_of_a_compaction_once(den):
    await compacting(den, *turns_of(2), says("s1"), says("a3"))
    started = await talk(den, 2)
    running = await den.sessions.resume(started.session_id, "p3")
    event = await until(den, started.session_id, "history_compacted")
    assert (event.messages_replaced, event.turn_id) == (2, running.turn_id)
    assert event.summary == f"{compaction.SUMMARY_HEADING}\n\ns1"
    assert (await ended(den, running)).text == "a3"
