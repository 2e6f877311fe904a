"""What a log says as a conversation, and what came of one turn."""

from typing import Any

import pytest
from domain.samples import CALL, OWNER, SAMPLES, USAGE, Log
from hypothesis import given, settings
from hypothesis import strategies as st

from meerkat_mcp.domain import events as e
from meerkat_mcp.domain.messages import (
    AssistantMessage,
    Message,
    Reasoning,
    Text,
    ToolCall,
    ToolMessage,
    ToolResult,
    Usage,
    UserMessage,
)
from meerkat_mcp.domain.session import ACCEPTS
from meerkat_mcp.domain.transcript import UNANSWERED, TurnOutcome, outcome, transcript

CREATED = SAMPLES["session_created"]
DONE = e.TurnCompleted()


def turn(prompt: str, turn_id: str = "turn_1", **fields: Any) -> e.TurnStarted:
    return e.TurnStarted(turn_id=turn_id, prompt=prompt, owner=OWNER, **fields)


def step(*texts: str, calls: tuple[str, ...] = (), number: int = 1) -> list[e.Event]:
    """A whole step: its texts, then calls of tools by id."""
    return [
        e.StepStarted(step=number, provider="demo", model="demo-1"),
        *(e.TextComplete(text=text) for text in texts),
        *(e.ToolCallRequested(tool_use_id=call, tool_name="t", args={"of": call}) for call in calls),
        e.StepCompleted(step=number, stop_reason="tool_calls" if calls else "end", usage=USAGE),
    ]


def result(tool_use_id: str, content: str = "") -> e.ToolExecutionCompleted:
    return e.ToolExecutionCompleted(tool_use_id=tool_use_id, tool_name="t", content=content or f"of {tool_use_id}")


def waiting(*calls: str) -> e.TurnWaiting:
    return e.TurnWaiting(
        pending_tool_calls=tuple(ToolCall(tool_use_id=call, tool_name="t", args={"of": call}) for call in calls)
    )


def told(*drafts: e.Event, whole: bool = False) -> list[str]:
    """The conversation in short: a line for each message."""
    return [line(message) for message in transcript(Log(CREATED, *drafts).events, whole=whole).messages()]


def line(message: Message) -> str:
    match message:
        case UserMessage(text=text):
            return f"user: {text}"
        case AssistantMessage():
            return " ".join(["model:", *(b.tool_use_id if isinstance(b, ToolCall) else b.text for b in message.blocks)])
        case ToolMessage(results=results):
            said = ("not known" if r.content == UNANSWERED and r.is_error else r.content for r in results)
            return "tools: " + ", ".join(said)


# ── the conversation ──


def test_a_prompt_and_its_answer_are_two_messages():
    assert told(turn("Hi"), *step("Hello!"), DONE) == ["user: Hi", "model: Hello!"]


def test_several_turns_are_one_conversation():
    first = (turn("Hi"), *step("Hello!"), DONE)
    second = (turn("And?", "turn_2"), *step("Well."), DONE)
    assert told(*first, *second) == ["user: Hi", "model: Hello!", "user: And?", "model: Well."]


def test_a_message_of_the_model_has_its_blocks_in_order_and_the_providers_own_items():
    items = ({"type": "thinking", "signature": None},)
    log = Log(
        CREATED,
        turn("Hi"),
        e.StepStarted(step=1, provider="demo", model="demo-1"),
        e.ReasoningDelta(text="Hm"),
        e.ReasoningComplete(text="Hm."),
        e.TextDelta(text="Let"),
        e.TextComplete(text="Let me see."),
        e.ToolCallRequested(**CALL.model_dump(exclude={"kind"})),
        e.StepCompleted(step=1, stop_reason="tool_calls", usage=USAGE, items=items),
    )
    assert transcript(log.events).messages()[1] == AssistantMessage(
        blocks=(Reasoning(text="Hm."), Text(text="Let me see."), CALL), provider="demo", model="demo-1", items=items
    )


def test_a_message_has_the_place_of_the_event_that_completed_it():
    log = Log(CREATED, turn("Hi"), *step("Hello!"), DONE)
    user, model = transcript(log.events).placed
    assert (user.seq, user.turn_id) == (2, "turn_1")
    assert (model.seq, model.timestamp_ms) == (5, log.now_ms)


@pytest.mark.parametrize("end", [e.TurnInterrupted(reason="requested"), SAMPLES["turn_failed"]])
def test_an_unfinished_step_leaves_the_context_but_finished_ones_stay(end: e.Event):
    unfinished = (
        e.StepStarted(step=2, provider="demo", model="demo-1"),
        e.TextComplete(text="Whole, but in an unfinished step"),
        e.TextDelta(text="Half wri"),
        e.ToolCallRequested(tool_use_id="never", tool_name="t", args={}),
    )
    before = (turn("Hi"), *step("One moment.", calls=("a",)), result("a"), *unfinished, end)
    after = (turn("Go on", "turn_2"), *step("Yes."), DONE)
    assert told(*before, *after) == ["user: Hi", "model: One moment. a", "tools: of a", "user: Go on", "model: Yes."]


def test_results_come_in_the_order_of_the_calls_whatever_the_order_of_their_arrival():
    drafts = (turn("Hi"), *step(calls=("a", "b", "c")), result("c"), result("a"), result("b"), *step("Done.", number=2))
    assert told(*drafts) == ["user: Hi", "model: a b c", "tools: of a, of b, of c", "model: Done."]


def test_calls_that_nobody_answered_get_a_result_that_says_so():
    interrupted = (turn("Hi"), *step(calls=("a", "b")), result("b"), e.TurnInterrupted(reason="owner_lost"))
    assert told(*interrupted) == ["user: Hi", "model: a b", "tools: not known, of b"]
    message = transcript(Log(CREATED, *interrupted).events).messages()[-1]
    assert isinstance(message, ToolMessage)
    assert message.results[0] == ToolResult(tool_use_id="a", content=UNANSWERED, is_error=True)


def test_a_tool_that_finished_while_the_turn_was_stopping_is_in_the_history():
    stopping = (turn("Hi"), *step(calls=("a",)), e.InterruptRequested(), result("a", "Sent."))
    assert told(*stopping, e.TurnInterrupted(reason="requested"))[-1] == "tools: Sent."


def test_a_failed_tool_stays_marked_as_failed():
    failed = e.ToolExecutionCompleted(tool_use_id="a", tool_name="t", content="No", is_error=True)
    log = Log(CREATED, turn("Hi"), *step(calls=("a",)), failed, *step("Oh.", number=2))
    assert transcript(log.events).messages()[2] == ToolMessage(
        results=(ToolResult(tool_use_id="a", content="No", is_error=True),)
    )


def test_a_resumed_turn_goes_on_after_its_results():
    asked = (turn("Hi"), *step(calls=("a",)), waiting("a"), result("a"))
    silent = e.TurnResumed(owner=OWNER)
    assert told(*asked, silent, *step("Done.", number=2))[2:] == ["tools: of a", "model: Done."]


def test_a_prompt_brought_with_the_results_follows_them():
    asked = (turn("Hi"), *step(calls=("a",)), waiting("a"), result("a"))
    assert told(*asked, e.TurnResumed(owner=OWNER, prompt="Be brief"))[2:] == ["tools: of a", "user: Be brief"]


def test_a_waiting_turn_that_is_given_up_leaves_no_open_calls():
    given_up = (turn("Hi"), *step(calls=("a",)), waiting("a"), e.TurnInterrupted(reason="abandoned"))
    assert told(*given_up, turn("Other", "turn_2"))[2:] == ["tools: not known", "user: Other"]


def test_a_queued_prompt_is_said_when_it_is_taken_up_and_never_when_it_was_withdrawn():
    queue = (e.PromptQueued(turn_id="a", prompt="First"), e.PromptQueued(turn_id="b", prompt="Never"))
    drafts = (turn("Hi"), *queue, *step("Hello!"), e.PromptDropped(turn_id="b"), DONE, turn("First", "a"))
    assert told(*drafts) == ["user: Hi", "model: Hello!", "user: First"]


def test_a_rejected_answer_is_followed_by_why_it_was_rejected():
    rejected = e.OutputRejected(attempt=1, message="That is no JSON.")
    drafts = (turn("Hi"), *step("Sure!"), rejected, *step("{}", number=2), DONE)
    assert told(*drafts) == ["user: Hi", "model: Sure!", "user: That is no JSON.", "model: {}"]


# ── compaction ──

LONG_AGO = (turn("Hi"), *step("Hello!"), DONE)
COMPACTION = (
    turn("Summarise.", "turn_2", kind="compaction"),
    *step("They greeted."),
    e.HistoryCompacted(summary="Summary: they greeted.", through_seq=6, messages_replaced=2),
    DONE,
)
SINCE = (turn("And?", "turn_3"), *step("Well."), DONE)


def test_after_a_compaction_the_model_sees_the_summary_and_what_came_since():
    assert told(*LONG_AGO, *COMPACTION, *SINCE) == ["user: Summary: they greeted.", "user: And?", "model: Well."]


def test_the_whole_history_keeps_what_was_compacted():
    assert told(*LONG_AGO, *COMPACTION, *SINCE, whole=True) == [
        "user: Hi",
        "model: Hello!",
        "user: Summary: they greeted.",
        "user: And?",
        "model: Well.",
    ]


def test_the_log_read_from_the_compaction_on_says_the_same():
    log = Log(CREATED, *LONG_AGO, *COMPACTION, *SINCE)
    tail = [event for event in log.events if event.seq >= log.session.compacted_seq]
    assert transcript(tail).messages() == transcript(log.events).messages()


def test_a_compaction_of_a_compaction_leaves_one_summary():
    again = (turn("Summarise.", "turn_4", kind="compaction"), *step("x"))
    drafts = (*LONG_AGO, *COMPACTION, *SINCE, *again)
    later = e.HistoryCompacted(summary="Shorter.", through_seq=20, messages_replaced=3)
    assert told(*drafts, later, DONE) == ["user: Shorter."]


@pytest.mark.parametrize("whole", [False, True])
def test_a_compaction_that_failed_changes_nothing(whole: bool):
    failed = (turn("Summarise.", "turn_2", kind="compaction"), *step("They gr"), SAMPLES["turn_failed"])
    assert told(*LONG_AGO, *failed, *SINCE, whole=whole) == told(*LONG_AGO, *SINCE, whole=whole)


def test_a_tool_called_during_a_compaction_leaves_no_result_without_its_call():
    begun = turn("Summarise.", "turn_2", kind="compaction")
    strayed = (begun, *step(calls=("a",)), result("a", "There is no tool."), *step("They greeted.", number=2), DONE)
    assert told(*LONG_AGO, *strayed, *SINCE) == told(*LONG_AGO, *SINCE)


# ── what no conversation may look like ──

BEGUN = e.StepStarted(step=1, provider="demo", model="demo-1")
MOMENTS = st.lists(
    st.sampled_from(
        [
            [turn("Hi")],
            [turn("Summarise.", kind="compaction")],
            step("Hello!"),
            step("Let me see.", calls=("a", "b")),
            step(calls=("c",)),
            [BEGUN, e.TextDelta(text="Hel")],
            [BEGUN, e.ToolCallRequested(tool_use_id="a", tool_name="t", args={})],
            [result("a")],
            [result("b")],
            [result("stray")],
            [waiting("a", "b")],
            [e.TurnResumed(owner=OWNER, prompt="So?")],
            [SAMPLES["output_rejected"]],
            [SAMPLES["history_compacted"]],
            [e.InterruptRequested()],
            [e.TurnInterrupted(reason="requested")],
            [DONE],
        ]
    ),
    max_size=25,
)


@settings(max_examples=300, deadline=None)
@given(MOMENTS, st.booleans())
def test_once_a_turn_has_ended_each_call_has_its_result_next_to_it_and_no_result_is_without_call(
    moments: list[list[e.Event]], whole: bool
):
    log = Log(CREATED, turn("Hi"))
    for draft in [*(draft for moment in moments for draft in moment), e.TurnInterrupted(reason="shutdown")]:
        if isinstance(draft, ACCEPTS[log.session.state]):
            log.add(draft)
    messages = transcript(log.events, whole=whole).messages()
    for before, after in zip((None, *messages), (*messages, None), strict=True):
        asked = [call.tool_use_id for call in before.tool_calls] if isinstance(before, AssistantMessage) else []
        answered = [given.tool_use_id for given in after.results] if isinstance(after, ToolMessage) else []
        assert asked == answered


def test_whatever_is_said_next_closes_the_open_calls_first():
    asked = (turn("Hi"), *step(calls=("a", "b")), result("a"))
    assert told(*asked, SAMPLES["output_rejected"])[2:] == ["tools: of a, not known", "user: Not JSON. Again, please."]
    assert told(*asked, SAMPLES["history_compacted"], result("b"), DONE) == ["user: They greeted."]


# ── what came of a turn ──


def came_of(*drafts: e.Event, turn_id: str = "turn_1") -> TurnOutcome:
    return outcome(turn_id, Log(CREATED, *drafts).events)


def test_a_completed_turn_says_its_text_its_model_and_what_it_used():
    done = e.TurnCompleted(structured_output={"x": [None]})
    assert came_of(turn("Hi"), *step("Hello!"), done) == TurnOutcome(
        turn_id="turn_1",
        status="completed",
        stop_reason="end",
        text="Hello!",
        structured_output={"x": [None]},
        steps=1,
        usage=USAGE,
        model="demo-1",
        provider="demo",
        last_seq=6,
    )


@pytest.mark.parametrize(
    ("end", "status", "stop_reason"),
    [
        (e.TurnCompleted(stop_reason="refusal"), "completed", "refusal"),
        (e.TurnInterrupted(reason="cancelled"), "interrupted", "cancelled"),
        (SAMPLES["turn_limit_reached"], "limit", "max_steps"),
        (SAMPLES["turn_failed"], "failed", "error"),
        (waiting("a"), "waiting", "end"),
    ],
)
def test_how_a_turn_ended_is_its_status_and_why_its_stop_reason(end: e.Event, status: str, stop_reason: str):
    said = came_of(turn("Hi"), *step("Hello!"), end)
    assert (said.status, said.stop_reason, said.text) == (status, stop_reason, "Hello!")


def test_a_failed_turn_carries_its_error():
    assert came_of(turn("Hi"), SAMPLES["turn_failed"]).error == {"code": "provider_rejected", "message": "No."}


def test_a_waiting_turn_says_what_it_waits_for_until_it_goes_on():
    asked = (turn("Hi"), *step(calls=("a",)), waiting("a"))
    assert [call.tool_use_id for call in came_of(*asked).pending] == ["a"]
    resumed = came_of(*asked, result("a"), e.TurnResumed(owner=OWNER))
    assert (resumed.status, resumed.pending, resumed.tool_calls) == ("running", (), 1)
    assert came_of(*asked, e.TurnInterrupted(reason="abandoned")).pending == ()


def test_the_text_is_that_of_the_last_step_whole():
    drafts = (turn("Hi"), *step("Let me see.", calls=("a",)), result("a"), *step("It ", "rains.", number=2), DONE)
    assert came_of(*drafts).text == "It rains."


def test_steps_tool_calls_and_usage_add_up():
    drafts = (turn("Hi"), *step(calls=("a", "b")), result("a"), result("b"), *step("Done.", number=2), DONE)
    said = came_of(*drafts)
    assert (said.steps, said.tool_calls, said.usage) == (2, 2, USAGE + USAGE)


def test_while_a_text_is_being_written_its_pieces_count():
    begun = (turn("Hi"), e.StepStarted(step=1, provider="demo", model="demo-1"))
    pieces = (e.TextDelta(text="Hel"), e.ReasoningDelta(text="not this"), e.TextDelta(text="lo"))
    assert came_of(*begun, *pieces).text == "Hello"
    assert came_of(*begun, *pieces, e.TextComplete(text="Hello!")).text == "Hello!"
    assert came_of(*begun, *pieces, e.TextComplete(text="Hello!"), e.TextDelta(text=" Ho")).text == "Hello! Ho"


def test_what_an_interrupted_turn_had_half_written_can_be_looked_at():
    begun = (turn("Hi"), *step("First."), e.StepStarted(step=2, provider="demo", model="demo-1"))
    assert came_of(*begun, e.TextDelta(text="Sec"), e.TurnInterrupted(reason="requested")).text == "Sec"


def test_a_turn_that_just_began_is_running():
    assert came_of(turn("Hi")) == TurnOutcome(turn_id="turn_1", last_seq=2)


def test_a_queued_prompt_is_a_turn_to_come_and_a_withdrawn_one_was_interrupted():
    queued = (turn("Hi"), e.PromptQueued(turn_id="later", prompt="Then"))
    assert came_of(*queued, turn_id="later").status == "queued"
    withdrawn = came_of(*queued, e.PromptDropped(turn_id="later"), turn_id="later")
    assert (withdrawn.status, withdrawn.stop_reason, withdrawn.text) == ("interrupted", "withdrawn", "")
    taken_up = came_of(*queued, DONE, turn("Then", "later"), turn_id="later")
    assert taken_up.status == "running"


def test_a_turn_knows_nothing_of_the_others():
    first = (turn("Hi"), *step("Hello!"), DONE)
    second = (turn("And?", "turn_2"), *step("Well."), SAMPLES["turn_failed"])
    assert came_of(*first, *second, turn_id="turn_1") == came_of(*first, turn_id="turn_1")
    assert came_of(*first, *second, turn_id="turn_2").text == "Well."
    assert came_of(*first, *second, turn_id="none").usage == Usage()


def test_a_compaction_says_that_it_is_one_and_its_summary():
    said = came_of(*LONG_AGO, *COMPACTION, turn_id="turn_2")
    assert (said.kind, said.status, said.text) == ("compaction", "completed", "They greeted.")
