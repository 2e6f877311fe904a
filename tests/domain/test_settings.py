"""A session's choices, and budgets that can only get stricter."""

from typing import Any, get_args

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from meerkat_mcp.domain.messages import ToolDefinition
from meerkat_mcp.domain.servers import ToolServer
from meerkat_mcp.domain.settings import STRICTNESS, Budget, PermissionMode, Settings, strictest

BUDGETS = st.builds(
    Budget,
    max_tokens=st.none() | st.integers(1, 10**9),
    max_duration_s=st.none() | st.floats(0.001, 1e6),
    max_tool_calls=st.none() | st.integers(0, 1000),
    max_cost_usd=st.none() | st.floats(0.001, 1e6),
)


def looser(one: Any, other: Any) -> bool:
    return other is not None and (one is None or one > other)


@given(BUDGETS, BUDGETS)
def test_it_does_not_matter_whose_budget_comes_first(one: Budget, other: Budget):
    assert one.tightened(other) == other.tightened(one)


@given(BUDGETS, BUDGETS)
def test_two_budgets_together_are_never_looser_than_either(one: Budget, other: Budget):
    both = one.tightened(other)
    for name in Budget.model_fields:
        assert not looser(getattr(both, name), getattr(one, name))
        assert not looser(getattr(both, name), getattr(other, name))


@given(BUDGETS, BUDGETS)
def test_two_budgets_together_are_no_stricter_than_one_of_them_asks(one: Budget, other: Budget):
    both = one.tightened(other)
    for name in Budget.model_fields:
        assert getattr(both, name) in (getattr(one, name), getattr(other, name))


@given(BUDGETS, BUDGETS, BUDGETS)
def test_three_budgets_may_be_joined_in_any_order(one: Budget, two: Budget, three: Budget):
    assert one.tightened(two).tightened(three) == one.tightened(two.tightened(three))


@given(BUDGETS)
def test_no_budget_limits_nothing_and_the_same_one_nothing_more(budget: Budget):
    assert budget.tightened(Budget()) == budget == budget.tightened(budget)


def test_no_tool_calls_at_all_is_a_limit_and_not_the_absence_of_one():
    assert Budget(max_tool_calls=0).tightened(Budget(max_tool_calls=5)).max_tool_calls == 0


@pytest.mark.parametrize("wrong", [{"max_tokens": 0}, {"max_duration_s": 0}, {"max_cost_usd": -1}, {"max_steps": 3}])
def test_a_budget_of_nothing_is_a_mistake(wrong: dict[str, Any]):
    with pytest.raises(ValidationError):
        Budget(**wrong)


# ── permission modes ──

MODES = st.sampled_from(get_args(PermissionMode))


def test_the_modes_are_ordered_from_the_strictest_on():
    assert STRICTNESS == ("readonly", "ask", "auto") == get_args(PermissionMode)


@pytest.mark.parametrize(
    ("modes", "strict"),
    [
        (("auto",), "auto"),
        (("auto", "ask"), "ask"),
        (("ask", "auto"), "ask"),
        (("auto", "readonly"), "readonly"),
        (("readonly", "ask"), "readonly"),
        (("auto", "ask", "readonly"), "readonly"),
        (("ask", "ask"), "ask"),
    ],
)
def test_the_strictest_mode_lets_least_run(modes: tuple[PermissionMode, ...], strict: PermissionMode):
    assert strictest(*modes) == strict


@given(st.lists(MODES, min_size=1, max_size=4), MODES)
def test_another_mode_can_only_make_it_stricter(modes: list[PermissionMode], other: PermissionMode):
    assert STRICTNESS.index(strictest(*modes, other)) <= STRICTNESS.index(strictest(*modes))
    assert strictest(*modes, other) in (*modes, other)


# ── settings ──

FULL = Settings(
    model="m",
    provider="demo",
    provider_params={"a": None},
    system_prompt="Hi",
    additional_instructions=("one", "two"),
    max_tokens=5,
    max_steps=6,
    output_schema={"type": "object"},
    tools=(ToolDefinition(name="t", description="d"),),
    mcp_servers={"files": ToolServer(command="files", args=("--root", "${HOME}")), "shared": None},
    permission_mode="readonly",
    budget=Budget(max_tokens=9),
)


def test_the_settings_of_this_test_differ_from_the_defaults_in_every_field():
    assert all(getattr(FULL, name) != getattr(Settings(), name) for name in Settings.model_fields)


@pytest.mark.parametrize("name", Settings.model_fields)
def test_a_change_changes_what_it_names_and_nothing_else(name: str):
    changed = Settings().changed(**{name: getattr(FULL, name)})
    assert changed == Settings(**{name: getattr(FULL, name)})
    assert FULL.changed(**{name: getattr(Settings(), name)}).changed(**{name: getattr(FULL, name)}) == FULL


@pytest.mark.parametrize("name", Settings.model_fields)
def test_a_change_to_what_already_is_gives_an_equal_value(name: str):
    assert FULL.changed(**{name: getattr(FULL, name)}) == FULL
    assert FULL.changed(**{name: FULL.model_dump()[name]}) == FULL


def test_no_change_is_no_change():
    assert FULL.changed() == FULL


@pytest.mark.parametrize(
    "wrong",
    [
        {"permission_mode": "always"},
        {"mcp_servers": {"a b": None}},
        {"mcp_servers": {"": None}},
        {"mcp_servers": {"x" * 33: None}},
        {"mcp_servers": {"files": {}}},
        {"mcp_servers": {"files": {"command": "a", "url": "https://tools.example"}}},
    ],
)
def test_a_choice_that_cannot_be_is_refused(wrong: dict[str, Any]):
    with pytest.raises(ValidationError):
        FULL.changed(**wrong)


def test_no_servers_at_all_is_another_choice_than_those_of_the_realm():
    assert Settings().mcp_servers is None
    assert FULL.changed(mcp_servers={}).mcp_servers == {}
    assert Settings(mcp_servers={}) != Settings()


def test_a_change_to_what_there_is_not_is_refused():
    with pytest.raises(ValidationError):
        FULL.changed(temperature=1)


def test_settings_survive_being_stored():
    assert Settings.model_validate_json(FULL.model_dump_json()) == FULL
