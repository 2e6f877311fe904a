"""Which scope a message needs: the table covers every tool and every method there is."""

from typing import Any, cast

import pytest
from mcp.types import ClientNotification, ClientRequest
from pydantic import TypeAdapter

from meerkat_mcp.server.app import surface
from meerkat_mcp.server.scopes import APPROVE, CONFIGURE, DELETE, READ, RUN, SCOPES, TOOL_SCOPES, granted, needed

NEED_NOTHING = {
    "initialize",
    "ping",
    "server/discover",
    "tools/list",
    "prompts/list",
    "resources/templates/list",
    "logging/setLevel",
}
"""What tells nothing about sessions, and changes nothing that others see."""

READS = {
    "resources/list",
    "resources/read",
    "resources/subscribe",
    "resources/unsubscribe",
    "subscriptions/listen",
    "completion/complete",
    "prompts/get",
    "tasks/get",
}
CHANGES = {"tasks/update", "tasks/cancel"}


def methods(union: Any) -> set[str]:
    """The methods that the SDK knows."""
    models = TypeAdapter(union).json_schema()["$defs"].values()
    named = [model["properties"]["method"] for model in models if "method" in model.get("properties", {})]
    assert named
    return {method["const"] for method in named if "const" in method}


def test_every_tool_has_its_scope_and_no_other_tool_has_one():
    tools = {tool.name: tool for tool in surface(cast(Any, None))}  # the tools are described without a realm
    assert set(tools) == set(TOOL_SCOPES)
    assert set(TOOL_SCOPES.values()) <= set(SCOPES)
    for name, tool in tools.items():
        reads = tool.annotations is not None and tool.annotations.read_only_hint
        if reads:
            assert TOOL_SCOPES[name] == READ, name
        if tool.annotations is not None and tool.annotations.destructive_hint:
            assert TOOL_SCOPES[name] == DELETE, name


@pytest.mark.parametrize("tool", TOOL_SCOPES)
def test_a_call_needs_what_its_tool_needs(tool: str):
    assert needed("tools/call", {"name": tool}) == TOOL_SCOPES[tool]
    assert needed("tools/call", {"name": tool, "arguments": None}) == TOOL_SCOPES[tool]
    assert needed("tools/call", {"name": tool, "arguments": {"session_id": "last"}}) == TOOL_SCOPES[tool]


@pytest.mark.parametrize(
    ("arguments", "scope"),
    [
        ({}, READ),
        ({"action": "get"}, READ),
        ({"action": "get", "session_id": "last"}, READ),
        ({"action": "set", "config": {}}, CONFIGURE),
        ({"action": "patch", "patch": {}}, CONFIGURE),
        ({"action": "set", "config": {}, "session_id": "last"}, RUN),
        ({"action": "patch", "patch": {}, "session_id": "last"}, RUN),
        ({"action": "patch", "patch": {}, "session_id": None}, CONFIGURE),
        ({"action": "anything"}, CONFIGURE),
        ({"action": ["get"]}, CONFIGURE),
    ],
)
def test_to_change_the_config_or_a_session_needs_more_than_to_look(arguments: dict, scope: str):
    assert needed("tools/call", {"name": "meerkat_config", "arguments": arguments}) == scope


def test_a_tool_that_is_not_known_needs_the_scope_to_run():
    assert needed("tools/call", {"name": "meerkat_something"}) == RUN


@pytest.mark.parametrize("params", [None, {}, {"name": None}, {"name": 7}, {"name": ["meerkat_delete"]}])
def test_a_call_of_no_tool_is_the_servers_to_refuse(params: dict | None):
    assert needed("tools/call", params) is None


def test_every_method_of_the_protocol_is_decided_on():
    known = methods(ClientRequest) - {"tools/call"}
    assert known <= NEED_NOTHING | READS | CHANGES
    for method in known | NEED_NOTHING | READS | CHANGES:
        wanted = READ if method in READS else RUN if method in CHANGES else None
        assert needed(method, {}) == wanted, method
        assert needed(method, None) == wanted, method


def test_no_notification_needs_a_scope():
    for method in methods(ClientNotification):
        assert needed(method, {}) is None


@pytest.mark.parametrize(
    ("given", "held"),
    [
        ([], set()),
        ([READ], {READ}),
        ([RUN], {RUN, READ}),
        ([CONFIGURE], {CONFIGURE}),
        ([APPROVE], {APPROVE, READ}),
        ([DELETE, "openid", ""], {DELETE}),
        (["sessions", "sessions:*", "SESSIONS:RUN"], set()),
        (SCOPES, set(SCOPES)),
    ],
)
def test_a_scope_brings_what_it_includes_and_nothing_else(given: list[str], held: set[str]):
    assert granted(given) == held
