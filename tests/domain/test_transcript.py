"""What a log says as a conversation, and what came of one turn."""

from copy import deepcopy
from typing import Any, Literal

import pytest
from domain.samples import CALL, OTHER_OWNER, OWNER, SAMPLES, USAGE, Log
from hypothesis import given, settings
from hypothesis import strategies as st

from meerkat_mcp.domain import events as e
from meerkat_mcp.domain.messages import (
    AssistantMessage,
    Image,
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
from meerkat_mcp.domain.transcript import NOT_MADE, UNANSWERED, Transcript, TurnOutcome, outcome, transcript

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


def called(*calls: str) -> tuple[ToolCall, ...]:
    return tuple(ToolCall(tool_use_id=call, tool_name="t", args={"of": call}) for call in calls)


def waiting(*calls: str, approvals: tuple[str, ...] = ()) -> e.TurnWaiting:
    return e.TurnWaiting(pending_tool_calls=called(*calls), pending_approvals=called(*approvals))


def approved(tool_use_id: str) -> e.ApprovalResolved:
    return e.ApprovalResolved(tool_use_id=tool_use_id, decision="approve", by="caller")


def denied(tool_use_id: str) -> list[e.Event]:
    """A no, and what the model hears of it."""
    no = e.ApprovalResolved(tool_use_id=tool_use_id, decision="deny", by="elicitation")
    return [no, result(tool_use_id, "not allowed").model_copy(update={"is_error": True})]


def begun(number: int = 1, purpose: e.Purpose = "answer") -> e.StepStarted:
    return e.StepStarted(step=number, provider="demo", model="demo-1", purpose=purpose)


def summary(text: str = "They greeted.", number: int = 2, *, silent: bool = True) -> list[e.Event]:
    """A step that writes a summary; a silent one says nothing of its text."""
    said: list[e.Event] = [] if silent else [e.TextDelta(text=text[:3]), e.TextComplete(text=text)]
    start = e.StepStarted(step=number, provider="other", model="small-1", purpose="summary")
    return [start, *said, e.StepCompleted(step=number, purpose="summary", stop_reason="end", usage=USAGE)]


AGAIN = e.Retrying(step=1, attempt=2, attempts_max=4, kind="overloaded", message="Busy.", delay_s=0.5)
RESUMED = e.TurnResumed(owner=OWNER)


def told(*drafts: e.Event, whole: bool = False) -> list[str]:
    """The conversation in short: a line for each message."""
    return [line(message) for message in transcript(Log(CREATED, *drafts).events, whole=whole).messages()]


def told_by(folded: Transcript) -> list[str]:
    return [line(message) for message in folded.messages()]


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


def test_a_result_keeps_its_pictures():
    pictures = (Image(mime_type="image/png", data="iVBORw0KGgo="), Image(mime_type="image/gif", data="R0lGODlhAQAB"))
    shown = result("a", "Here.").model_copy(update={"images": pictures})
    log = Log(CREATED, turn("Hi"), *step(calls=("a", "b")), shown, result("b"), DONE)
    assert transcript(log.events).messages()[2] == ToolMessage(
        results=(
            ToolResult(tool_use_id="a", content="Here.", images=pictures),
            ToolResult(tool_use_id="b", content="of b"),
        )
    )


def test_a_malformed_call_says_what_the_model_wrote_and_is_answered_like_any_other():
    call = e.ToolCallRequested(tool_use_id="a", tool_name="t", args={}, malformed='{"city": Os')
    end = e.StepCompleted(step=1, stop_reason="tool_calls", usage=USAGE)
    wrong = result("a", "No JSON.").model_copy(update={"is_error": True})
    log = Log(CREATED, turn("Hi"), begun(), call, end)
    asked = ToolCall(tool_use_id="a", tool_name="t", args={}, malformed='{"city": Os')
    assert transcript(log.events).messages()[1] == AssistantMessage(
        blocks=(asked,), provider="demo", model="demo-1", items=()
    )
    assert transcript(log.events).unanswered() == (asked,)
    log.add(wrong)
    assert transcript(log.events).unanswered() == ()
    assert line(transcript(log.events).messages()[-1]) == "tools: No JSON."


# ── a call that is made again ──


def test_another_attempt_voids_what_the_step_said_before_it():
    before = (begun(), e.ReasoningComplete(text="Hm."), e.TextComplete(text="Well, I"), e.TextDelta(text=" th"))
    stray = e.ToolCallRequested(tool_use_id="stray", tool_name="t", args={})
    after = (e.TextComplete(text="Hello!"), e.StepCompleted(step=1, stop_reason="end", usage=USAGE), DONE)
    assert told(turn("Hi"), *before, stray, AGAIN, *after) == ["user: Hi", "model: Hello!"]
    assert told(turn("Hi"), *before, AGAIN, e.TextComplete(text="Wh"), AGAIN, *after) == ["user: Hi", "model: Hello!"]


def test_another_attempt_voids_nothing_of_the_steps_before():
    first = (turn("Hi"), *step("Let me see.", calls=("a",)), result("a"))
    second = (begun(2), e.TextComplete(text="I"), AGAIN, e.TextComplete(text="Rain."))
    ended = e.StepCompleted(step=2, stop_reason="end", usage=USAGE)
    assert told(*first, *second, ended) == ["user: Hi", "model: Let me see. a", "tools: of a", "model: Rain."]


RESUMED = e.TurnResumed(owner=OTHER_OWNER)


def test_a_suspended_step_leaves_nothing_in_the_conversation_and_a_completed_one_all():
    half = (turn("Hi"), begun(), e.TextComplete(text="I"), e.TurnSuspended())
    assert told(*half, RESUMED) == ["user: Hi"]
    assert told(*half, RESUMED, *step("Hello!")) == ["user: Hi", "model: Hello!"]
    whole = (turn("Hi"), *step("Let me see.", calls=("a", "b")), result("a"), e.TurnSuspended(), RESUMED)
    folded = transcript(Log(CREATED, *whole).events)
    assert [call.tool_use_id for call in folded.unanswered()] == ["b"], "what is left to be made"
    done = transcript(Log(CREATED, *whole, result("b"), *step("Rain.", number=2)).events)
    assert [line(message) for message in done.messages()][2:] == ["tools: of a, of b", "model: Rain."]


def test_a_call_of_an_attempt_that_failed_is_never_made():
    call = e.ToolCallRequested(tool_use_id="a", tool_name="t", args={})
    log = Log(CREATED, turn("Hi"), begun(), call, AGAIN, *step("Hello!")[1:])
    assert transcript(log.events).unanswered() == ()
    assert [line(message) for message in transcript(log.events).messages()] == ["user: Hi", "model: Hello!"]


def test_a_step_that_failed_as_often_as_it_may_says_nothing():
    failed = (begun(), e.TextComplete(text="I"), AGAIN, e.TextDelta(text="I th"), SAMPLES["turn_failed"])
    assert told(turn("Hi"), *failed, turn("Go on", "turn_2")) == ["user: Hi", "user: Go on"]


# ── waiting, and going on ──


def test_a_resumed_turn_goes_on_after_its_results():
    asked = (turn("Hi"), *step(calls=("a",)), waiting("a"), result("a"))
    silent = e.TurnResumed(owner=OWNER)
    assert told(*asked, silent, *step("Done.", number=2))[2:] == ["tools: of a", "model: Done."]


def test_a_prompt_brought_with_the_results_follows_them():
    asked = (turn("Hi"), *step(calls=("a",)), waiting("a"), result("a"))
    assert told(*asked, e.TurnResumed(owner=OWNER, prompt="Be brief"))[2:] == ["tools: of a", "user: Be brief"]


ASKED = (turn("Hi"), *step(calls=("a", "b")), waiting("a", approvals=("b",)))


@pytest.mark.parametrize("prompt", ["", "Be brief"])
def test_an_approved_call_is_made_after_the_turn_goes_on_and_its_result_comes_before_the_prompt(prompt: str):
    said = [f"user: {prompt}"] if prompt else []
    log = Log(CREATED, *ASKED, result("a"), approved("b"), RESUMED.model_copy(update={"prompt": prompt}))
    assert transcript(log.events).unanswered() == called("b")
    log.add(e.ToolExecutionStarted(tool_use_id="b", tool_name="t"), result("b"))
    assert transcript(log.events).unanswered() == ()
    assert [line(one) for one in transcript(log.events).messages()][2:] == ["tools: of a, of b", *said]
    log.add(*step("Done.", number=2), DONE)
    assert [line(one) for one in transcript(log.events).messages()][2:] == ["tools: of a, of b", *said, "model: Done."]


@pytest.mark.parametrize(
    "answers",
    [
        (result("a"), approved("b")),
        (approved("b"), result("a")),
    ],
)
def test_results_and_approvals_may_come_in_either_order(answers: tuple[e.Event, ...]):
    resumed = RESUMED.model_copy(update={"prompt": "Be brief"})
    assert told(*ASKED, *answers, resumed, result("b"))[2:] == ["tools: of a, of b", "user: Be brief"]


def test_a_denied_call_is_answered_before_the_turn_goes_on_and_is_not_made():
    log = Log(CREATED, *ASKED, result("a"), *denied("b"), RESUMED.model_copy(update={"prompt": "So?"}))
    folded = transcript(log.events)
    assert folded.unanswered() == ()
    assert [line(one) for one in folded.messages()][2:] == ["tools: of a, not allowed", "user: So?"]
    results = folded.messages()[2]
    assert isinstance(results, ToolMessage)
    assert [given.is_error for given in results.results] == [False, True]


def test_a_turn_that_dies_before_its_approved_call_answered_says_so_and_keeps_its_prompt():
    resumed = (*ASKED, result("a"), approved("b"), RESUMED.model_copy(update={"prompt": "Be brief"}))
    died = (*resumed, e.ToolExecutionStarted(tool_use_id="b", tool_name="t"), e.TurnInterrupted(reason="owner_lost"))
    after = ["tools: of a, not known", "user: Be brief"]
    assert told(*died)[2:] == after
    assert told(*died, turn("Go on", "turn_2"))[2:] == [*after, "user: Go on"]


def test_a_result_that_comes_while_the_resumed_turn_is_stopping_counts():
    resumed = (*ASKED, result("a"), approved("b"), RESUMED.model_copy(update={"prompt": "Be brief"}))
    stopped = (e.InterruptRequested(), result("b", "Sent."), e.TurnInterrupted(reason="requested"))
    assert told(*resumed, *stopped)[2:] == ["tools: of a, Sent.", "user: Be brief"]


def test_the_prompt_of_one_resumption_is_said_once():
    first = (turn("Hi"), *step(calls=("a",)), waiting(approvals=("a",)), approved("a"))
    again = (*step(calls=("b",), number=2), waiting(approvals=("b",)), approved("b"))
    log = (
        *(*first, RESUMED.model_copy(update={"prompt": "One"}), result("a")),
        *(*again, RESUMED.model_copy(update={"prompt": "Two"}), result("b"), *step("Done.", number=3), DONE),
    )
    assert told(*log) == [
        *("user: Hi", "model: a", "tools: of a", "user: One"),
        *("model: b", "tools: of b", "user: Two", "model: Done."),
    ]


def test_results_have_the_place_of_the_last_of_them_and_the_prompt_that_follows_has_its_own():
    log = Log(CREATED, *ASKED, result("a"), approved("b"), RESUMED.model_copy(update={"prompt": "So?"}), result("b"))
    log.add(*step("Done.", number=2), after_ms=5)
    placed = transcript(log.events).placed
    assert [(one.seq, line(one.message)) for one in placed] == [
        (2, "user: Hi"),
        (6, "model: a b"),
        (8, "tools: of a, of b"),
        (10, "user: So?"),
        (14, "model: Done."),
    ]
    plain = Log(CREATED, turn("Hi"), *step(calls=("a", "b")), result("b"), result("a"), *step("Done.", number=2))
    assert [one.seq for one in transcript(plain.events).placed] == [2, 6, 8, 11]


# ── the calls that are still to be made ──


def test_the_calls_without_a_result_are_those_of_the_last_step_in_the_models_order():
    log = Log(CREATED, turn("Hi"))
    assert transcript(log.events).unanswered() == ()
    log.add(*step(calls=("a", "b", "c")))
    assert transcript(log.events).unanswered() == called("a", "b", "c")
    log.add(result("b"), result("stray"))
    assert transcript(log.events).unanswered() == called("a", "c")
    log.add(result("c"), result("a"))
    assert transcript(log.events).unanswered() == ()


@pytest.mark.parametrize(
    "next_", [begun(2), SAMPLES["output_rejected"], e.TurnInterrupted(reason="requested"), SAMPLES["history_compacted"]]
)
def test_once_something_else_is_said_no_call_is_open(next_: e.Event):
    assert transcript(Log(CREATED, turn("Hi"), *step(calls=("a",)), next_).events).unanswered() == ()


def test_a_step_that_is_not_finished_asks_for_nothing_yet():
    log = Log(CREATED, turn("Hi"), begun(), e.ToolCallRequested(tool_use_id="a", tool_name="t", args={}))
    assert transcript(log.events).unanswered() == ()


def test_what_a_model_is_shown_has_an_answer_to_each_call_and_looking_changes_nothing():
    log = Log(CREATED, turn("Hi"), *step(calls=("a", "b")), result("b"))
    folded = transcript(log.events)
    for _ in range(2):
        assert [line(one) for one in folded.messages()] == ["user: Hi", "model: a b", "tools: not known, of b"]
        assert folded.unanswered() == called("a")
    folded.add(result("a"))
    assert line(folded.messages()[-1]) == "tools: of a, of b"


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
    *summary(number=1, silent=False),
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


def from_the_compaction_on(log: Log) -> Transcript:
    """What is left to read once a summary stands for the rest."""
    return transcript(event for event in log.events if event.seq > log.session.compacted_seq)


def test_the_log_read_from_the_compaction_on_says_the_same():
    log = Log(CREATED, *LONG_AGO, *COMPACTION, *SINCE)
    assert log.session.compacted_seq == 6
    assert from_the_compaction_on(log).placed == transcript(log.events).placed


def compact(log: Log, keep: int, text: str = "Summary.") -> Log:
    """Have a summary stand for all but the last `keep` messages, between two steps of the running turn."""
    placed = transcript(log.events).placed
    at = len(placed) - keep
    log.add(*summary(), e.HistoryCompacted(summary=text, through_seq=placed[at - 1].seq, messages_replaced=at))
    return log


WORK = (
    turn("Hi"),
    *(*step(calls=("a",)), result("a")),
    *(*step("And", calls=("b", "c"), number=2), result("c"), result("b")),
    *step("Now", calls=("d",), number=3),
)


@pytest.mark.parametrize(
    ("keep", "left"), [(1, ["model: Now d"]), (3, ["model: And b c", "tools: of b, of c", "model: Now d"])]
)
def test_a_compaction_keeps_the_latest_messages_as_they_were(keep: int, left: list[str]):
    log = Log(CREATED, *WORK, result("d"))
    before = transcript(log.events).placed
    compact(log, keep)
    folded = transcript(log.events)
    assert [line(one) for one in folded.messages()] == ["user: Summary.", *left, "tools: of d"]
    assert folded.placed[1 : keep + 1] == before[-keep:]
    assert from_the_compaction_on(log).placed == folded.placed
    log.add(*step("Done.", number=9), DONE)
    assert [line(one) for one in transcript(log.events).messages()][-2:] == ["tools: of d", "model: Done."]
    assert from_the_compaction_on(log).messages() == transcript(log.events).messages()


def test_a_second_compaction_replaces_the_first_summary_and_what_it_had_kept():
    log = compact(Log(CREATED, *WORK, result("d")), keep=3, text="First.")
    log.add(*step("More", calls=("e",), number=5), result("e"), *step("Still", calls=("f",), number=6), result("f"))
    assert told_by(transcript(log.events)) == [
        *("user: First.", "model: And b c", "tools: of b, of c", "model: Now d", "tools: of d"),
        *("model: More e", "tools: of e", "model: Still f", "tools: of f"),
    ]
    compact(log, keep=3, text="Second.")
    after = ["user: Second.", "model: More e", "tools: of e", "model: Still f", "tools: of f"]
    assert told_by(transcript(log.events)) == after
    assert told_by(from_the_compaction_on(log)) == after


def test_a_second_compaction_may_keep_what_the_first_had_kept():
    log = compact(Log(CREATED, *WORK, result("d")), keep=3, text="First.")
    compact(log, keep=2, text="Second.")
    after = ["user: Second.", "model: Now d", "tools: of d"]
    assert told_by(transcript(log.events)) == after
    assert told_by(from_the_compaction_on(log)) == after


def test_the_whole_history_has_each_summary_where_it_was_made():
    log = compact(compact(Log(CREATED, *WORK, result("d")), keep=3, text="First."), keep=2, text="Second.")
    log.add(*step("Done.", number=9), DONE)
    assert told_by(transcript(log.events, whole=True)) == [
        *("user: Hi", "model: a", "tools: of a", "model: And b c", "tools: of b, of c", "model: Now d", "tools: of d"),
        *("user: First.", "user: Second.", "model: Done."),
    ]


def test_the_prompt_that_came_with_an_approval_is_kept_when_what_was_before_it_is_not():
    log = Log(
        CREATED, *ASKED, result("a"), approved("b"), RESUMED.model_copy(update={"prompt": "Be brief"}), result("b")
    )
    log.add(*step("One.", number=2))
    compact(log, keep=2)
    assert told_by(transcript(log.events)) == ["user: Summary.", "user: Be brief", "model: One."]
    assert from_the_compaction_on(log).placed == transcript(log.events).placed


def test_what_was_said_just_now_and_has_no_place_yet_is_kept():
    log = Log(CREATED, *WORK)
    folded = transcript(log.events)
    for draft in (result("d"), *summary()):
        folded.add(draft)
    folded.add(e.HistoryCompacted(summary="Summary.", through_seq=folded.placed[2].seq, messages_replaced=3))
    for draft in step("Done.", number=9):
        folded.add(draft)
    assert told_by(folded) == [
        *("user: Summary.", "model: And b c", "tools: of b, of c", "model: Now d", "tools: of d", "model: Done."),
    ]


def test_a_summary_step_is_no_message_whether_it_is_heard_or_not():
    for silent in (True, False):
        drafts = (turn("Hi"), *step("One."), *summary(silent=silent), *step("Two.", number=3), DONE)
        assert told(*drafts) == ["user: Hi", "model: One.", "model: Two."]


def test_a_call_in_a_summary_step_is_not_made():
    start, end = summary()
    call = e.ToolCallRequested(tool_use_id="x", tool_name="t", args={})
    log = Log(CREATED, turn("Hi"), *step("One."), start, call, end)
    assert transcript(log.events).unanswered() == ()
    assert told_by(transcript(log.events)) == ["user: Hi", "model: One."]


def test_a_summary_that_could_not_be_made_changes_nothing():
    start, _ = summary()
    failed = (turn("Hi"), *step(calls=("a",)), result("a"), start, AGAIN, SAMPLES["compaction_failed"])
    assert told(*failed, *step("Done.", number=2)) == ["user: Hi", "model: a", "tools: of a", "model: Done."]


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

MOMENTS = st.lists(
    st.sampled_from(
        [
            [turn("Hi")],
            [turn("Summarise.", kind="compaction")],
            step("Hello!"),
            step("Let me see.", calls=("a", "b")),
            step(calls=("c",)),
            [begun(), e.TextDelta(text="Hel")],
            [begun(), e.ToolCallRequested(tool_use_id="a", tool_name="t", args={})],
            [begun(), e.TextComplete(text="Void"), AGAIN, *step("Hello!")[1:]],
            summary(),
            summary(silent=False),
            summary()[:1],
            [result("a")],
            [result("b")],
            [result("stray")],
            [*step(calls=("a",)), result("a")],
            [*step(calls=("a", "b")), waiting("a", "b"), result("b"), result("a")],
            [*step(calls=("a", "b")), waiting("a", approvals=("b",)), result("a"), approved("b")],
            [*step(calls=("c",)), waiting(approvals=("c",)), approved("c"), SAMPLES["turn_resumed"], result("c")],
            [waiting("a", approvals=("b",))],
            [SAMPLES["turn_resumed"], result("b")],
            [RESUMED, result("c")],
            denied("b"),
            [SAMPLES["output_rejected"]],
            [SAMPLES["compaction_failed"]],
            [e.InterruptRequested()],
            [e.TurnInterrupted(reason="requested")],
            [DONE],
            "work",
            0,
            1,
            2,
            4,
        ]
    ),
    max_size=25,
)
"""What may happen; "work" is whatever it takes to have a turn running, a number a compaction that keeps about so many
messages."""

Moments = list[list[e.Event] | Literal["work"] | int]


def played(moments: Moments) -> Log:
    """A log of what could happen of these."""
    log = Log(CREATED, turn("Hi"))
    for number, moment in enumerate(moments):
        if moment == "work":
            ways = {"waiting": [RESUMED], "stopping": [e.TurnInterrupted(reason="requested"), turn("More")]}
            drafts = ways.get(log.session.state, [turn("More")])
        else:
            drafts = moment if isinstance(moment, list) else compaction(log, moment)
        for draft in drafts:
            if isinstance(draft, ACCEPTS[log.session.state]):
                begins = isinstance(draft, e.TurnStarted)
                log.add(draft.model_copy(update={"turn_id": f"turn_{number}"}) if begins else draft)
    return log


def compaction(log: Log, keep: int) -> list[e.Event]:
    """A summary of all but `keep` messages, or some more: the cut never comes between a call and its result."""
    placed = transcript(log.events).placed
    for at in range(len(placed) - keep, 1, -1):
        last = placed[at - 1].message
        if not isinstance(last, AssistantMessage) or not last.tool_calls:
            through = placed[at - 1].seq
            return [*summary(), e.HistoryCompacted(summary="Summary.", through_seq=through, messages_replaced=at)]
    return []


@settings(max_examples=300, deadline=None)
@given(MOMENTS, st.booleans())
def test_once_a_turn_has_ended_each_call_has_its_result_next_to_it_and_no_result_is_without_call(
    moments: Moments, whole: bool
):
    log = played([*moments, [e.TurnInterrupted(reason="shutdown")]])
    messages = transcript(log.events, whole=whole).messages()
    for before, after in zip((None, *messages), (*messages, None), strict=True):
        asked = [call.tool_use_id for call in before.tool_calls] if isinstance(before, AssistantMessage) else []
        answered = [given.tool_use_id for given in after.results] if isinstance(after, ToolMessage) else []
        assert asked == answered


@settings(max_examples=300, deadline=None)
@given(MOMENTS, st.integers(0, 6), MOMENTS)
def test_the_log_read_from_any_compaction_on_says_what_the_whole_log_says(before: Moments, keep: int, after: Moments):
    log = played([*before, "work", keep, *after])
    all_of_it, tail = transcript(log.events), from_the_compaction_on(log)
    assert tail.placed == all_of_it.placed
    assert tail.messages() == all_of_it.messages()
    assert tail.unanswered() == all_of_it.unanswered()


@settings(max_examples=200, deadline=None)
@given(MOMENTS)
def test_what_a_step_is_shown_is_what_is_settled_when_it_begins(moments: Moments):
    folded = Transcript()
    for event in played(moments).events:
        folded.add(event)
        shown = folded.messages()
        next_ = deepcopy(folded)
        next_.add(begun(9))
        assert tuple(placed.message for placed in next_.placed) == shown == next_.messages()
        assert next_.unanswered() == ()


@settings(max_examples=200, deadline=None)
@given(MOMENTS)
def test_without_a_compaction_places_only_grow_and_the_messages_of_a_log_stay_as_they_were(
    moments: Moments,
):
    log = played([moment for moment in moments if not isinstance(moment, int)])
    folded, before = Transcript(), 0
    for event in log.events:
        folded.add(event)
        assert len(folded.placed) >= before
        before = len(folded.placed)
    seqs = [placed.seq for placed in folded.placed]
    assert seqs == sorted(seqs)
    assert transcript(log.events, whole=True).placed == folded.placed


def test_whatever_is_said_next_closes_the_open_calls_first():
    asked = (turn("Hi"), *step(calls=("a", "b")), result("a"))
    assert told(*asked, SAMPLES["output_rejected"])[2:] == ["tools: of a, not known", "user: Not JSON. Again, please."]
    assert told(*asked, SAMPLES["history_compacted"], result("b"), DONE) == [
        *("user: They greeted.", "model: a b", "tools: of a, not known"),
    ]


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


def test_a_waiting_turn_says_what_is_still_to_be_answered_and_decided():
    def left(*answers: e.Event) -> tuple[str, ...]:
        said = came_of(*ASKED, *answers)
        assert said.status == "waiting"
        return (
            *(f"answer {call.tool_use_id}" for call in said.pending),
            *(f"allow {call.tool_use_id}" for call in said.approvals),
        )

    assert left() == ("answer a", "allow b")
    assert left(result("a")) == ("allow b",)
    assert left(approved("b")) == ("answer a",)
    assert left(approved("b"), result("a")) == left(result("a"), *denied("b")) == ()
    assert left(result("stray"), approved("a"), approved("stray")) == ("answer a", "allow b")


@pytest.mark.parametrize(
    ("next_", "status"), [(RESUMED, "running"), (e.TurnInterrupted(reason="abandoned"), "interrupted")]
)
def test_a_turn_that_goes_on_or_is_given_up_waits_for_nothing(next_: e.Event, status: str):
    said = came_of(*ASKED, next_)
    assert (said.status, said.pending, said.approvals) == (status, (), ())


def test_a_turn_that_waits_again_says_what_it_waits_for_now():
    said = came_of(*ASKED, result("a"), approved("b"), RESUMED, result("b"), waiting(approvals=("c",)))
    assert (said.status, said.pending, said.approvals, said.tool_calls) == ("waiting", (), called("c"), 2)


def test_what_went_wrong_on_the_way_is_a_warning_said_once():
    lost = e.ToolServerFailed(server="files", message="no such program")
    other = e.ToolServerFailed(server="web", message="timed out")
    failed = e.CompactionFailed(error={"code": "provider_rejected", "message": "No."})
    assert came_of(turn("Hi"), *step("Hello!"), DONE).warnings == ()
    assert came_of(turn("Hi"), lost, *step("One."), other, lost, failed, failed, *step("Two."), DONE).warnings == (
        "tool server files: no such program",
        "tool server web: timed out",
        "the history could not be compacted: No.",
    )
    first = (turn("Hi"), lost, DONE)
    assert came_of(*first, turn("And?", "turn_2"), DONE, turn_id="turn_2").warnings == ()


def test_another_attempt_voids_the_text_of_its_step():
    begun_ = (turn("Hi"), *step("First."), begun(2), e.TextComplete(text="Sec"), e.TextDelta(text="ond"))
    assert came_of(*begun_).text == "Second"
    assert came_of(*begun_, AGAIN).text == ""
    assert came_of(*begun_, AGAIN, e.TextDelta(text="An")).text == "An"
    assert came_of(*begun_, AGAIN, *step("Another.", number=2)[1:], DONE).text == "Another."
    assert came_of(*begun_, AGAIN, *step("Another.", number=2)[1:], DONE).steps == 2


def test_suspending_voids_the_text_of_a_step_that_is_not_complete_and_no_other():
    begun_ = (turn("Hi"), *step("First."), begun(2), e.TextComplete(text="Sec"), e.TextDelta(text="ond"))
    assert came_of(*begun_, e.TurnSuspended()).text == ""
    assert came_of(*begun_, e.TurnSuspended()).status == "running"
    assert came_of(turn("Hi"), *step("First."), e.TurnSuspended()).text == "First."
    assert came_of(*begun_, e.TurnSuspended(), RESUMED, *step("Second.", number=2), DONE).text == "Second."


@pytest.mark.parametrize("silent", [True, False])
def test_a_summary_in_passing_costs_and_says_nothing_of_the_turn(silent: bool):
    first = (turn("Hi"), *step("One moment.", calls=("a",)), result("a"))
    start, *rest = summary("They greeted.", silent=silent)
    one = came_of(*first)
    assert (one.text, one.stop_reason, one.model, one.provider) == ("One moment.", "tool_calls", "demo-1", "demo")
    for drafts in ((start,), (start, AGAIN), (start, *rest), (start, *rest, SAMPLES["history_compacted"])):
        said = came_of(*first, *drafts)
        assert said.model_copy(update={"last_seq": 0, "steps": 1, "usage": USAGE}) == one.model_copy(
            update={"last_seq": 0}
        )
    assert (said.steps, said.usage) == (2, USAGE + USAGE)
    done = came_of(*first, start, *rest, *step("Rain.", number=3), DONE)
    assert (done.text, done.model, done.stop_reason) == ("Rain.", "demo-1", "end")


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


def test_a_compaction_says_that_it_is_one_its_summary_and_who_wrote_it():
    asked = turn("Summarise.", "turn_2", kind="compaction")
    said = came_of(*LONG_AGO, asked, *summary("They greeted.", 1, silent=False), DONE, turn_id="turn_2")
    assert (said.kind, said.status, said.text) == ("compaction", "completed", "They greeted.")
    assert (said.provider, said.model, said.steps) == ("other", "small-1", 1)


def test_another_attempt_at_a_summary_that_was_asked_for_voids_its_text():
    start, *rest = summary("They greeted.", 1, silent=False)
    asked = turn("Summarise.", "turn_2", kind="compaction")
    said = came_of(*LONG_AGO, asked, start, e.TextComplete(text="They"), AGAIN, *rest, DONE, turn_id="turn_2")
    assert said.text == "They greeted."


@pytest.mark.parametrize("stop", ["length", "refusal", "context"])
def test_a_call_of_a_reply_that_did_not_end_well_was_not_made(stop: str):
    asked = step(calls=("a",))
    broken = asked[-1].model_copy(update={"stop_reason": stop})
    (result,) = transcript(Log(CREATED, turn("Hi"), *asked[:-1], broken, DONE).events).messages()[-1].results
    assert (result.content, result.is_error) == (NOT_MADE, True)
