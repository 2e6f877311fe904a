"""Events as JSON: what is written is what is read, whatever a model or a caller put into it."""

import json
import types
from typing import Any, Literal, get_args, get_origin

import pytest
from domain.samples import SAMPLES
from hypothesis import given
from hypothesis import strategies as st
from pydantic import BaseModel, ValidationError
from pydantic_core import from_json

from meerkat_mcp.domain import events as e
from meerkat_mcp.domain.errors import InvalidRequest
from meerkat_mcp.domain.messages import Usage
from meerkat_mcp.domain.settings import Budget

PLACE = {"event_id": "event", "seq": 7, "session_id": "session", "turn_id": "turn", "timestamp_ms": 1_795_000_000_000}

# ── any event at all ──

TEXT = st.text(max_size=20)
NUMBERS = st.integers() | st.floats(allow_nan=False, allow_infinity=False)
JSON = st.recursive(
    st.none() | st.booleans() | NUMBERS | TEXT,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(TEXT, inner, max_size=3),
    max_leaves=8,
)
LEAVES: dict[Any, st.SearchStrategy[Any]] = {
    str: TEXT,
    int: st.integers(),
    float: NUMBERS.map(float),
    bool: st.booleans(),
    Any: JSON,
    type(None): st.none(),
    Budget: st.builds(Budget, max_tokens=st.none() | st.integers(1), max_cost_usd=st.none() | st.floats(0.01, 9)),
}


def any_value(annotation: Any) -> st.SearchStrategy[Any]:
    """Values of a field's type, as far as events need it."""
    if annotation in LEAVES:
        return LEAVES[annotation]
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return st.builds(annotation, **{name: any_value(f.annotation) for name, f in annotation.model_fields.items()})
    origin, arguments = get_origin(annotation), get_args(annotation)
    if origin is Literal:
        return st.sampled_from(arguments)
    if origin is dict:
        return st.dictionaries(TEXT, any_value(arguments[1]), max_size=3)
    if origin is tuple:
        return st.lists(any_value(arguments[0]), max_size=2).map(tuple)
    assert origin is types.UnionType, f"no strategy for {annotation}"
    return st.one_of(*map(any_value, arguments))


ANY_EVENT = st.one_of(*(any_value(type(sample)) for sample in SAMPLES.values()))


@given(ANY_EVENT)
def test_what_is_written_is_what_is_read(event: e.Event):
    recorded = e.encode(event)
    assert (recorded.seq, recorded.type) == (event.seq, event.type)
    assert recorded.event == event


@given(ANY_EVENT)
def test_what_is_written_is_json_that_anybody_reads_in_one_line_of_utf8(event: e.Event):
    body = e.encode(event).body
    assert b"\n" not in body
    assert json.loads(body.decode())["type"] == event.type


@given(ANY_EVENT)
def test_the_same_event_is_always_the_same_bytes(event: e.Event):
    recorded = e.encode(event)
    assert e.encode(recorded.event) == recorded


# ── None, large numbers, depth, half characters ──


def test_fields_that_are_none_are_left_out():
    body = json.loads(e.encode(e.SettingsChanged(title="T")).body)
    assert set(body) == {"event_id", "seq", "session_id", "timestamp_ms", "type", "title"}
    assert (
        "cost_usd" not in json.loads(e.encode(e.StepCompleted(step=1, stop_reason="end", usage=Usage())).body)["usage"]
    )


def test_none_inside_what_others_said_is_kept():
    args = {"when": None, "where": [None, {"not": None}]}
    items = ({"id": None, "content": [None]},)
    call = e.ToolCallRequested(tool_use_id="1", tool_name="t", args=args)
    step = e.StepCompleted(step=1, stop_reason="end", usage=Usage(), items=items)
    end = e.TurnCompleted(structured_output={"x": None})
    assert e.encode(call).event == call
    assert e.encode(step).event == step
    assert e.encode(end).event == end
    assert json.loads(e.encode(call).body)["args"] == args


@pytest.mark.parametrize("number", [2**63, -(2**64) - 1, 10**40, 0.1, 1e300, 5e-324, -0.0, 2**53 + 1])
def test_numbers_stay_what_they_were(number: float):
    event = e.ToolCallRequested(tool_use_id="1", tool_name="t", args={"n": number})
    read = e.encode(event).event
    assert isinstance(read, e.ToolCallRequested)
    assert repr(read.args) == repr(event.args)


def nested(levels: int) -> dict[str, Any]:
    value: dict[str, Any] = {}
    for _ in range(levels):
        value = {"in": value}
    return value


def deep_call(levels: int) -> e.ToolCallRequested:
    return e.ToolCallRequested(tool_use_id="1", tool_name="t", args=nested(levels))


@pytest.mark.parametrize("levels", [1, 60, 120, 170])
def test_deep_arguments_are_kept_and_can_be_read_inside_a_session_or_a_message(levels: int):
    recorded = e.encode(deep_call(levels))
    assert recorded.event == deep_call(levels)
    outer = b'{"result":{"turn":{"pending":[' + recorded.body + b"]}}}"
    assert from_json(outer)["result"]["turn"]["pending"][0]["args"] == nested(levels)


@pytest.mark.parametrize("levels", [199, 205, 254, 300, 5000])
def test_what_could_not_be_read_back_is_refused_before_it_is_in_the_log(levels: int):
    with pytest.raises(InvalidRequest, match="The tool_call_requested cannot be kept"):
        e.encode(deep_call(levels))


def test_many_brackets_are_not_depth():
    event = e.TextComplete(text="[{" * 500)
    assert e.encode(event).event == event


def test_half_a_character_is_refused_not_a_bug():
    half = "\ud83d"
    with pytest.raises(InvalidRequest, match="tool_call_requested"):
        e.encode(e.ToolCallRequested(tool_use_id="1", tool_name="t", args={"emoji": half}))


# ── the place of an event ──


def test_a_draft_gets_its_place():
    event = e.place(e.TextComplete(text="Hi"), **PLACE)
    assert event.model_dump(exclude={"type", "text"}) == PLACE
    assert event.text == "Hi"


def test_a_draft_that_names_its_own_turn_keeps_it():
    assert e.place(e.PromptQueued(turn_id="mine", prompt="Hi"), **PLACE).turn_id == "mine"
    assert e.place(e.PromptQueued(prompt="Hi"), **PLACE).turn_id == "turn"


def test_placing_leaves_the_draft_as_it_was():
    draft = e.TextComplete(text="Hi")
    e.place(draft, **PLACE)
    assert draft == e.TextComplete(text="Hi")
    assert draft.seq == 0


# ── which events there are ──

DESIGNED = {
    *("session_created", "turn_started", "step_started", "text_delta", "text_complete", "reasoning_delta"),
    *("reasoning_complete", "tool_call_requested", "tool_execution_started", "tool_execution_completed"),
    *("approval_requested", "approval_resolved", "step_completed", "retrying", "budget_warning"),
    *("interrupt_requested", "turn_completed", "turn_waiting", "turn_interrupted", "turn_limit_reached"),
    *("turn_failed", "history_compacted", "settings_changed", "session_archived", "session_restored"),
    "session_forked",
}
TO_COME_WITH_MODEL_ADAPTERS = {"approval_requested", "approval_resolved", "retrying"}
ADDED = {"prompt_queued", "prompt_dropped", "turn_resumed", "output_rejected"}


def test_the_events_are_those_of_the_design():
    assert (DESIGNED - TO_COME_WITH_MODEL_ADAPTERS) | ADDED == e.EVENT_TYPES


def test_an_events_type_is_its_class_name_in_snake_case():
    for name, sample in SAMPLES.items():
        assert type(sample).__name__ == "".join(word.capitalize() for word in name.split("_"))


def test_every_event_is_closed_and_frozen():
    for name, sample in SAMPLES.items():
        with pytest.raises(ValidationError, match="Extra inputs are not permitted"):
            type(sample).model_validate(sample.model_dump() | {"colour": "red"})
        with pytest.raises(ValidationError, match="frozen"):
            sample.seq = 3
        assert sample.type == name


def test_an_unknown_event_is_not_read():
    with pytest.raises(ValidationError, match="union_tag_invalid"):
        _ = e.Recorded(1, "rumour", b'{"type":"rumour"}').event


def test_deltas_are_the_only_events_that_others_supersede():
    deltas = {name for name, sample in SAMPLES.items() if e.encode(sample).is_delta}
    assert deltas == e.DELTAS == {kind.model_fields["type"].default for kind in get_args(e.Delta)}


def test_a_turn_ends_in_four_ways_and_pauses_in_a_fifth():
    assert {kind.model_fields["type"].default for kind in get_args(e.TurnEnd)} == e.TURN_ENDS
    assert {"turn_waiting"} == e.TURN_PAUSES - e.TURN_ENDS


def test_the_schema_names_every_event():
    assert set(e.schema()["discriminator"]["mapping"]) == e.EVENT_TYPES


def test_every_event_is_explained():
    assert all(type(sample).__doc__ for sample in SAMPLES.values())
