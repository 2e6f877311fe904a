"""Which events there are, and what all of them have in common."""

from typing import Any, get_args

import pytest
from domain.samples import SAMPLES
from pydantic import ValidationError

from meerkat_mcp.domain import events as e
from meerkat_mcp.domain.recorded import encode

DESIGNED = {
    *("session_created", "turn_started", "step_started", "text_delta", "text_complete", "reasoning_delta"),
    *("reasoning_complete", "tool_call_requested", "tool_execution_started", "tool_execution_completed"),
    *("approval_requested", "approval_resolved", "step_completed", "retrying", "budget_warning"),
    *("interrupt_requested", "turn_completed", "turn_waiting", "turn_interrupted", "turn_limit_reached"),
    *("turn_failed", "history_compacted", "settings_changed", "session_archived", "session_restored"),
    "session_forked",
}
ADDED = {
    *("prompt_queued", "prompt_dropped", "turn_resumed", "output_rejected", "tool_server_failed", "compaction_failed"),
    "turn_suspended",
}


def test_the_events_are_those_of_the_design():
    assert DESIGNED | ADDED == e.EVENT_TYPES
    assert not DESIGNED & ADDED


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


def test_deltas_are_the_only_events_that_others_supersede():
    deltas = {name for name, sample in SAMPLES.items() if encode(sample).is_delta}
    assert deltas == e.DELTAS == {kind.model_fields["type"].default for kind in get_args(e.Delta)}


def test_a_turn_ends_in_four_ways_and_pauses_in_a_fifth():
    assert {kind.model_fields["type"].default for kind in get_args(e.TurnEnd)} == e.TURN_ENDS
    assert {"turn_waiting"} == e.TURN_PAUSES - e.TURN_ENDS


def test_every_event_is_explained():
    assert all(type(sample).__doc__ for sample in SAMPLES.values())


@pytest.mark.parametrize(
    ("name", "wrong"),
    [
        ("approval_resolved", {"decision": "perhaps"}),
        ("approval_resolved", {"by": "nobody"}),
        ("step_started", {"purpose": "fun"}),
        ("step_completed", {"purpose": "fun"}),
        ("step_completed", {"stop_reason": "tired"}),
        ("tool_call_requested", {"args": []}),
        ("tool_execution_completed", {"images": [{"mime_type": "image/png"}]}),
        ("turn_interrupted", {"reason": "bored"}),
    ],
)
def test_what_an_event_can_say_is_a_closed_list(name: str, wrong: dict[str, Any]):
    sample = SAMPLES[name]
    with pytest.raises(ValidationError):
        type(sample).model_validate(sample.model_dump() | wrong)
