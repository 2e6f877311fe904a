"""Events as JSON: what is written is what is read, whatever a model or a caller put into it."""

import json
import re
import types
from typing import Annotated, Any, Literal, Union, get_args, get_origin

import pytest
from domain.samples import SAMPLES
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import BaseModel, ValidationError
from pydantic_core import from_json

from meerkat_mcp.domain import events as e
from meerkat_mcp.domain.errors import InvalidRequest
from meerkat_mcp.domain.messages import Image, Usage
from meerkat_mcp.domain.recorded import Recorded, encode, place, schema
from meerkat_mcp.domain.servers import SERVER_NAME, ToolServer
from meerkat_mcp.domain.settings import Budget, Settings

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
    ToolServer: st.builds(ToolServer, command=st.text(min_size=1, max_size=9), required=st.booleans())
    | st.builds(ToolServer, url=st.just("https://tools.example/mcp"), headers=st.dictionaries(TEXT, TEXT, max_size=2)),
    Budget: st.builds(Budget, max_tokens=st.none() | st.integers(1), max_cost_usd=st.none() | st.floats(0.01, 9)),
}


def any_value(annotation: Any) -> st.SearchStrategy[Any]:
    """Values of a field's type, as far as events need it."""
    origin, arguments = get_origin(annotation), get_args(annotation)
    if origin is Annotated:
        patterns = [rule.pattern for field in arguments[1:] for rule in field.metadata if hasattr(rule, "pattern")]
        return st.from_regex(patterns[0], fullmatch=True) if patterns else any_value(arguments[0])
    if annotation in LEAVES:
        return LEAVES[annotation]
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return st.builds(annotation, **{name: any_value(f.annotation) for name, f in annotation.model_fields.items()})
    if origin is Literal:
        return st.sampled_from(arguments)
    if origin is dict:
        return st.dictionaries(any_value(arguments[0]), any_value(arguments[1]), max_size=3)
    if origin is tuple:
        assert arguments[1:] == (...,), f"no strategy for {annotation}"
        return st.lists(any_value(arguments[0]), max_size=2).map(tuple)
    assert origin in (types.UnionType, Union), f"no strategy for {annotation}"
    return st.one_of(*map(any_value, arguments))


@settings(max_examples=30)
@given(any_value(type(SAMPLES["session_created"])))
def test_a_name_is_made_as_its_pattern_wants_it(event: e.SessionCreated):
    assert all(re.fullmatch(SERVER_NAME, name) for name in event.settings.mcp_servers or {})


ANY_EVENT = st.one_of(*(any_value(type(sample)) for sample in SAMPLES.values()))


@given(ANY_EVENT)
def test_what_is_written_is_what_is_read(event: e.Event):
    recorded = encode(event)
    assert (recorded.seq, recorded.type) == (event.seq, event.type)
    assert recorded.event == event


@given(ANY_EVENT)
def test_what_is_written_is_json_that_anybody_reads_in_one_line_of_utf8(event: e.Event):
    body = encode(event).body
    assert b"\n" not in body
    assert json.loads(body.decode())["type"] == event.type


@given(ANY_EVENT)
def test_the_same_event_is_always_the_same_bytes(event: e.Event):
    recorded = encode(event)
    assert encode(recorded.event) == recorded


# ── None, large numbers, depth, half characters ──


def test_fields_that_are_none_are_left_out():
    body = json.loads(encode(e.SettingsChanged(title="T")).body)
    assert set(body) == {"event_id", "seq", "session_id", "timestamp_ms", "type", "title"}
    assert "cost_usd" not in json.loads(encode(e.StepCompleted(step=1, stop_reason="end", usage=Usage())).body)["usage"]


def test_none_inside_what_others_said_is_kept():
    args = {"when": None, "where": [None, {"not": None}]}
    items = ({"id": None, "content": [None]},)
    call = e.ToolCallRequested(tool_use_id="1", tool_name="t", args=args)
    step = e.StepCompleted(step=1, stop_reason="end", usage=Usage(), items=items)
    end = e.TurnCompleted(structured_output={"x": None})
    assert encode(call).event == call
    assert encode(step).event == step
    assert encode(end).event == end
    assert json.loads(encode(call).body)["args"] == args


def test_a_server_that_is_only_named_stays_named_without_a_definition():
    servers = {"files": None, "web": ToolServer(url="https://tools.example/mcp")}
    event = e.SettingsChanged(settings=Settings(mcp_servers=servers))
    body = json.loads(encode(event).body)
    assert body["settings"]["mcp_servers"]["files"] is None
    assert set(body["settings"]["mcp_servers"]["web"]) & {"command", "cwd", "type"} == set()
    assert encode(event).event == event


def test_whether_a_session_chose_no_servers_or_none_at_all_can_be_read_back():
    for servers in (None, {}):
        event = e.SettingsChanged(settings=Settings(mcp_servers=servers))
        read = encode(event).event
        assert isinstance(read, e.SettingsChanged)
        assert read.settings is not None
        assert read.settings.mcp_servers == servers


def test_a_result_keeps_its_pictures():
    pictures = (Image(mime_type="image/png", data="iVBORw0KGgo="), Image(mime_type="image/gif", data="R0lGODlhAQAB"))
    event = e.ToolExecutionCompleted(tool_use_id="1", tool_name="t", content="", images=pictures)
    read = encode(event).event
    assert isinstance(read, e.ToolExecutionCompleted)
    assert read.images == pictures


def test_what_an_older_log_does_not_say_has_its_default():
    place_of = b'"event_id":"e","seq":1,"session_id":"s","timestamp_ms":1'
    step = Recorded(
        1, "step_started", b'{%b,"type":"step_started","step":1,"provider":"p","model":"m"}' % place_of
    ).event
    waiting = Recorded(1, "turn_waiting", b'{%b,"type":"turn_waiting","pending_tool_calls":[]}' % place_of).event
    assert isinstance(step, e.StepStarted)
    assert isinstance(waiting, e.TurnWaiting)
    assert (step.purpose, waiting.pending_approvals) == ("answer", ())


@pytest.mark.parametrize("number", [2**63, -(2**64) - 1, 10**40, 0.1, 1e300, 5e-324, -0.0, 2**53 + 1])
def test_numbers_stay_what_they_were(number: float):
    event = e.ToolCallRequested(tool_use_id="1", tool_name="t", args={"n": number})
    read = encode(event).event
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
    recorded = encode(deep_call(levels))
    assert recorded.event == deep_call(levels)
    outer = b'{"result":{"turn":{"pending":[' + recorded.body + b"]}}}"
    assert from_json(outer)["result"]["turn"]["pending"][0]["args"] == nested(levels)


@pytest.mark.parametrize("levels", [199, 205, 254, 300, 5000])
def test_what_could_not_be_read_back_is_refused_before_it_is_in_the_log(levels: int):
    with pytest.raises(InvalidRequest, match="The tool_call_requested cannot be kept"):
        encode(deep_call(levels))


def test_many_brackets_are_not_depth():
    event = e.TextComplete(text="[{" * 500)
    assert encode(event).event == event


def test_half_a_character_is_refused_not_a_bug():
    half = "\ud83d"
    with pytest.raises(InvalidRequest, match="tool_call_requested"):
        encode(e.ToolCallRequested(tool_use_id="1", tool_name="t", args={"emoji": half}))


# ── the place of an event ──


def test_a_draft_gets_its_place():
    event = place(e.TextComplete(text="Hi"), **PLACE)
    assert event.model_dump(exclude={"type", "text"}) == PLACE | {"principal": None}
    assert event.text == "Hi"


def test_a_draft_that_names_its_own_turn_keeps_it():
    assert place(e.PromptQueued(turn_id="mine", prompt="Hi"), **PLACE).turn_id == "mine"
    assert place(e.PromptQueued(prompt="Hi"), **PLACE).turn_id == "turn"


def test_placing_leaves_the_draft_as_it_was():
    draft = e.TextComplete(text="Hi")
    place(draft, **PLACE)
    assert draft == e.TextComplete(text="Hi")
    assert draft.seq == 0


# ── all of them ──


def test_an_unknown_event_is_not_read():
    with pytest.raises(ValidationError, match="union_tag_invalid"):
        _ = Recorded(1, "rumour", b'{"type":"rumour"}').event


def test_the_schema_names_every_event():
    assert set(schema()["discriminator"]["mapping"]) == e.EVENT_TYPES
