"""MCP's official conformance suite, against two servers, and against two processes of the one with the fixtures.

Most of its scenarios call tools and read resources that a server has only for the suite. A server with those, on the
app, the guard and the extensions that we ship, must pass all of them. The shipped server has none of those, and must
pass all the others; `needs_fixture.yml` names the ones that it cannot pass, and why.
"""

from collections.abc import Iterable

import pytest
from conformance import suite
from conformance.conftest import Running

SCENARIOS = {"2026-07-28": 50, "2025-11-25": 33}
"""How many there are, scored or not, in the version of the suite that is installed."""

NOT_OFFERED = {
    "server-sse-polling": "resuming a response by Last-Event-ID is optional: our events are read again by their seq",
    "tasks-status-notifications": "the suite skips it",
}
"""Scenarios that are not scored and of which nothing is promised."""


def complete(run: suite.Run, revision: str) -> suite.Run:
    assert len(run.scenarios) == SCENARIOS[revision], run.output
    return run


def unexpected(run: suite.Run, expected: Iterable[str]) -> str:
    """What failed and is not among scenarios and checks that may fail, a line each."""
    may_fail = set(expected)
    failing = run.failing().items()
    return "\n".join(f"{name} {said}" for name, said in failing if not {name, name.partition(":")[0]} & may_fail)


@pytest.mark.parametrize("revision", SCENARIOS)
def test_a_server_with_the_fixtures_passes_every_scenario(run_on_fixtures: Running, revision: str):
    run = complete(run_on_fixtures(revision), revision)
    assert unexpected(run, NOT_OFFERED) == ""
    assert run.code == 0, run.output
    passed = {name for name, checks in run.scenarios.items() if any(check.status == "SUCCESS" for check in checks)}
    assert run.scenarios.keys() - passed <= NOT_OFFERED.keys()


@pytest.mark.parametrize("revision", SCENARIOS)
def test_two_of_them_behind_a_plain_round_robin_proxy_pass_every_scenario(run_on_replicas: Running, revision: str):
    run = complete(run_on_replicas(revision), revision)
    assert unexpected(run, NOT_OFFERED) == ""
    assert run.code == 0, run.output


def test_the_shipped_server_passes_every_scenario_that_needs_no_fixture_and_no_other(run_on_shipped: Running):
    listed, seen = suite.needing_fixtures(), set[str]()
    for revision in SCENARIOS:
        run = complete(run_on_shipped(revision), revision)
        assert unexpected(run, [*listed, *NOT_OFFERED]) == ""
        seen.update(run.failing(), (name.partition(":")[0] for name in run.failing()))
    assert listed.keys() - seen == set(), "listed, but passes"
