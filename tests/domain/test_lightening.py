"""Events without their long texts: smaller, in the same place, and the session they add up to is the same."""

import json

import pytest
from domain.samples import CALL, OWNER, SAMPLES, USAGE, WAYS

from meerkat_mcp.domain import events as e
from meerkat_mcp.domain.lightening import LONG_CHARS, PROMPT_CHARS, Folding, lightened
from meerkat_mcp.domain.messages import Image, ToolCall
from meerkat_mcp.domain.recorded import encode, place
from meerkat_mcp.domain.session import Session, advance
from meerkat_mcp.domain.settings import Settings

LONG = "word " * 1000
LONG_CALL = ToolCall(tool_use_id="call_1", tool_name="weather", args={"city": LONG})

HEAVY: list[e.Event] = [
    e.TurnStarted(prompt=LONG, owner=OWNER),
    e.TurnStarted(prompt=" \n" * 3000 + LONG, owner=OWNER),
    e.TurnResumed(prompt=LONG, owner=OWNER),
    e.PromptQueued(turn_id="queued", prompt=LONG),
    e.TextComplete(text=LONG),
    e.ReasoningComplete(text=LONG),
    e.ToolCallRequested(tool_use_id="call_1", tool_name="weather", args={"city": LONG}),
    e.ToolCallRequested(tool_use_id="call_1", tool_name="weather", args={}, malformed=LONG),
    e.ToolExecutionCompleted(tool_use_id="call_1", tool_name="weather", content=LONG),
    e.ToolExecutionCompleted(
        tool_use_id="call_1", tool_name="look", content="", images=(Image(mime_type="image/png", data="A" * 9000),)
    ),
    e.StepCompleted(step=1, stop_reason="end", usage=USAGE, items=({"text": LONG},)),
    e.OutputRejected(attempt=1, message=LONG),
    e.TurnCompleted(structured_output={"x": [LONG]}),
    e.TurnWaiting(pending_tool_calls=(LONG_CALL,), pending_approvals=(LONG_CALL, CALL)),
    e.HistoryCompacted(summary=LONG, through_seq=2, messages_replaced=2),
]


def placed(draft: e.Event) -> e.Event:
    return place(draft, event_id="id", seq=7, session_id="s", turn_id="t", timestamp_ms=9, principal="ann")


@pytest.mark.parametrize("kind", SAMPLES)
def test_an_event_without_long_texts_stays_as_it_is(kind: str):
    assert lightened(placed(SAMPLES[kind])) is None


@pytest.mark.parametrize("draft", HEAVY, ids=lambda draft: draft.type)
def test_a_long_text_becomes_a_note_and_the_place_stays(draft: e.Event):
    event = placed(draft)
    lighter = lightened(event)
    assert lighter is not None
    before, after = encode(event), encode(lighter)
    assert (after.seq, after.type) == (before.seq, before.type)
    assert len(after.body) < PROMPT_CHARS + LONG_CHARS + 700 < len(before.body)
    kept = {"event_id", "seq", "session_id", "turn_id", "timestamp_ms", "type", "principal"}
    old, new = json.loads(before.body), json.loads(after.body)
    assert {name: old[name] for name in kept} == {name: new[name] for name in kept}
    assert after.event == lighter, "it can be read again"


@pytest.mark.parametrize("draft", HEAVY, ids=lambda draft: draft.type)
def test_what_was_lightened_cannot_be_once_more(draft: e.Event):
    lighter = lightened(placed(draft))
    assert lighter is not None
    assert lightened(lighter) is None


def test_a_note_says_how_long_the_text_was():
    lighter = lightened(e.TextComplete(text=LONG))
    assert lighter == e.TextComplete(text="[5,000 characters were here]")


@pytest.mark.parametrize("draft", HEAVY, ids=lambda draft: draft.type)
def test_the_log_adds_up_to_the_same_session(draft: e.Event):
    before = [e.SessionCreated(settings=Settings(), title="Tea")]
    way = {"turn_started": "idle"}.get(draft.type, "waiting" if draft.type == "turn_resumed" else "running")
    drafts = [*(SAMPLES[name] for name in WAYS[way]), draft] if way != "idle" else [*before, draft]
    folding, session = Folding("s"), Session(id="s")
    for seq, one in enumerate(drafts, start=1):
        event = place(one, event_id=str(seq), seq=seq, session_id="s", turn_id="t", timestamp_ms=seq)
        session = advance(session, event)
        folding.add(event, lightened(event) or event)
        assert folding.agrees


def test_an_opening_that_would_change_is_noticed():
    folding = Folding("s")
    started = e.TurnStarted(prompt="Hello", owner=OWNER, turn_id="t", seq=1)
    folding.add(started, started.model_copy(update={"prompt": "Bye"}))
    assert not folding.agrees
