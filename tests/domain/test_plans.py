"""A plan of what would be deleted has a name that stands for exactly that."""

import pytest

from meerkat_mcp.domain.errors import PlanChanged
from meerkat_mcp.domain.plans import SHOWN_MAX, Plan

PLAN = Plan(realm_id="den", session_ids=("b", "a"))


def test_the_same_sessions_in_any_order_are_the_same_plan():
    assert PLAN.plan_id == Plan(realm_id="den", session_ids=("a", "b")).plan_id
    assert PLAN.plan_id.startswith("plan-")


@pytest.mark.parametrize(
    "other",
    [
        Plan(realm_id="den", session_ids=("a",)),
        Plan(realm_id="den", session_ids=("a", "b", "c")),
        Plan(realm_id="den", session_ids=("ab",)),
        Plan(realm_id="lair", session_ids=("a", "b")),
        Plan(realm_id="den", session_ids=()),
    ],
)
def test_other_sessions_or_another_realm_are_another_plan(other: Plan):
    assert other.plan_id != PLAN.plan_id
    with pytest.raises(PlanChanged) as refused:
        other.check(PLAN.plan_id)
    assert refused.value.facts["plan_id"] == other.plan_id
    assert refused.value.facts["total"] == len(other.session_ids)


def test_the_plan_itself_is_in_order():
    PLAN.check(PLAN.plan_id)


def test_of_many_sessions_the_refusal_names_some():
    many = Plan(realm_id="den", session_ids=tuple(map(str, range(500))))
    with pytest.raises(PlanChanged) as refused:
        many.check("plan-of-yesterday")
    assert (len(refused.value.facts["session_ids"]), refused.value.facts["total"]) == (SHOWN_MAX, 500)
