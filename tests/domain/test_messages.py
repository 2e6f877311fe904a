"""What a model reads and writes."""

import json
import math

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import TypeAdapter, ValidationError

from meerkat_mcp.domain.messages import (
    AssistantMessage,
    Image,
    Message,
    Reasoning,
    Text,
    ToolCall,
    ToolDefinition,
    ToolMessage,
    ToolResult,
    Usage,
    UserMessage,
    legible,
)

TOKENS = st.integers(0, 10**12)
USAGES = st.builds(
    Usage,
    input_tokens=TOKENS,
    output_tokens=TOKENS,
    cache_read_tokens=TOKENS,
    cache_write_tokens=TOKENS,
    reasoning_tokens=TOKENS,
    cost_usd=st.none() | st.floats(0, 1e6),
)
PICTURE = Image(mime_type="image/png", data="iVBORw0KGgo=")
CALLS = (ToolCall(tool_use_id="1", tool_name="a", args={}), ToolCall(tool_use_id="2", tool_name="b", args={"x": None}))


def same(one: Usage, other: Usage) -> bool:
    """Equal, but for the rounding of money."""
    if one.cost_usd is None or other.cost_usd is None:
        return one == other
    tokens_equal = one.model_copy(update={"cost_usd": 0}) == other.model_copy(update={"cost_usd": 0})
    return tokens_equal and math.isclose(one.cost_usd, other.cost_usd, rel_tol=1e-9)


# ── usage ──


@given(USAGES, USAGES, USAGES)
def test_usage_may_be_added_up_in_any_grouping(a: Usage, b: Usage, c: Usage):
    assert same((a + b) + c, a + (b + c))


@given(USAGES, USAGES)
def test_usage_may_be_added_up_in_any_order(a: Usage, b: Usage):
    assert same(a + b, b + a)


@given(USAGES)
def test_adding_no_usage_changes_nothing(a: Usage):
    assert a + Usage() == Usage() + a == a


@given(USAGES, USAGES)
def test_the_total_of_a_sum_is_the_sum_of_the_totals(a: Usage, b: Usage):
    assert (a + b).total_tokens == a.total_tokens + b.total_tokens


def test_a_price_that_is_not_known_does_not_hide_one_that_is():
    assert (Usage(cost_usd=0.5) + Usage()).cost_usd == 0.5
    assert (Usage() + Usage(cost_usd=0.5)).cost_usd == 0.5
    assert (Usage(cost_usd=0.5) + Usage(cost_usd=0.25)).cost_usd == 0.75


def test_free_is_known_and_not_known_is_not_free():
    assert (Usage(cost_usd=0.0) + Usage()).cost_usd == 0.0
    assert (Usage() + Usage()).cost_usd is None


def test_what_is_cached_is_part_of_the_input_and_reasoning_part_of_the_output():
    used = Usage(
        input_tokens=4301, output_tokens=20, cache_read_tokens=300, cache_write_tokens=4000, reasoning_tokens=9
    )
    assert used.total_tokens == 4321


@given(USAGES)
def test_the_total_is_what_was_read_and_what_was_written_and_nothing_twice(a: Usage):
    assert a.total_tokens == a.input_tokens + a.output_tokens


# ── messages ──


def test_a_models_text_leaves_out_its_reasoning_and_its_calls():
    message = AssistantMessage(blocks=(Reasoning(text="Hm"), Text(text="It "), CALLS[0], Text(text="rains."), CALLS[1]))
    assert message.text == "It rains."
    assert message.tool_calls == CALLS


def test_a_message_without_blocks_says_nothing():
    assert AssistantMessage(blocks=()).text == ""
    assert AssistantMessage(blocks=()).tool_calls == ()


@pytest.mark.parametrize(
    "message",
    [
        UserMessage(text="Hi"),
        AssistantMessage(blocks=(Text(text="Hello"), *CALLS), provider="demo", model="m", items=({"a": None},)),
        ToolMessage(results=(ToolResult(tool_use_id="1", content="Rain", is_error=True),)),
        ToolMessage(results=(ToolResult(tool_use_id="1", content="", images=(PICTURE,)),)),
        AssistantMessage(blocks=(ToolCall(tool_use_id="1", tool_name="a", args={}, malformed='{"x":'),)),
    ],
    ids=["user", "assistant", "tool", "tool with a picture", "malformed call"],
)
def test_a_message_is_known_by_its_role_when_it_is_read_again(message: Message):
    assert TypeAdapter[Message](Message).validate_json(message.model_dump_json()) == message


def test_values_are_frozen_closed_and_equal_by_content():
    assert Text(text="a") == Text(text="a") != Text(text="b")
    with pytest.raises(ValidationError, match="frozen"):
        Text(text="a").text = "b"
    with pytest.raises(ValidationError, match="Extra inputs"):
        Text.model_validate({"text": "a", "size": 3})


def test_the_arguments_of_a_call_are_always_an_object():
    with pytest.raises(ValidationError):
        ToolCall.model_validate({"tool_use_id": "1", "tool_name": "a", "args": [1]})


def test_a_tool_without_a_schema_takes_any_object():
    assert ToolDefinition(name="t").input_schema == {"type": "object"}


# ── what can be read again ──


@pytest.mark.parametrize(
    ("text", "can"),
    [
        ("[" * 100 + "]" * 100, True),
        ("[" * 180 + "]" * 180, True),
        ("[" * 200 + "]" * 200, False),
        ("[" * 5000 + "]" * 5000, False),
        ('{"a":' * 210 + "1" + "}" * 210, False),
        ("[" + "[]," * 5000 + "[]]", True),
        (json.dumps("[{" * 5000), True),
    ],
)
def test_json_can_be_read_again_unless_it_is_too_deep_however_wide_it_is(text: str, can: bool):
    assert legible(text.encode()) is can
