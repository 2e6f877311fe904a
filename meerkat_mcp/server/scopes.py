"""Which scope a message needs: the one table, for the tools, for HTTP's 403, and for what a caller is told.

`sessions:run` includes `sessions:read`: who runs a turn reads its answer; so does `sessions:approve`, which no message
of MCP needs: it is for people. The others stand for themselves.
"""

from collections.abc import Iterable, Mapping
from typing import Any, cast

READ, RUN, CONFIGURE, DELETE = "sessions:read", "sessions:run", "config:write", "sessions:delete"
APPROVE = "sessions:approve"

SCOPES: dict[str, str] = {
    READ: "look at sessions, their events, the config and the models",
    RUN: "start, resume, interrupt, fork, archive and compact sessions",
    CONFIGURE: "change the realm's config",
    DELETE: "delete sessions for good",
    APPROVE: "allow on the watch page what a waiting turn wants to do: for people, not for a model's host",
}
"""Every scope, and what it lets a caller do."""

_INCLUDES = {RUN: (READ,), APPROVE: (READ,)}

TOOL_SCOPES: dict[str, str] = {
    "meerkat_run": RUN,
    "meerkat_resume": RUN,
    "meerkat_sessions": READ,
    "meerkat_read": READ,
    "meerkat_history": READ,
    "meerkat_interrupt": RUN,
    "meerkat_archive": RUN,
    "meerkat_fork": RUN,
    "meerkat_compact": RUN,
    "meerkat_delete": DELETE,
    "meerkat_config": READ,
    "meerkat_capabilities": READ,
    "meerkat_models_catalog": READ,
    "meerkat_event_stream_open": READ,
    "meerkat_event_stream_read": READ,
    "meerkat_event_stream_close": READ,
}
"""What a tool needs at least; meerkat_config needs more when it changes something."""

METHOD_SCOPES = {
    "resources/list": READ,
    "resources/read": READ,
    "resources/subscribe": READ,
    "resources/unsubscribe": READ,
    "subscriptions/listen": READ,
    "completion/complete": READ,
    "prompts/get": READ,
    "tasks/get": READ,
    "tasks/update": RUN,
    "tasks/cancel": RUN,
}


def granted(scopes: Iterable[str]) -> frozenset[str]:
    """Those of our scopes that a caller has, with what they include; strange ones are passed over."""
    own = [scope for scope in scopes if scope in SCOPES]
    return frozenset(included for scope in own for included in (scope, *_INCLUDES.get(scope, ())))


def needed(method: str, params: Mapping[str, Any] | None) -> str | None:
    """The scope that a JSON-RPC message needs; None: it tells nothing about sessions and changes nothing."""
    if method != "tools/call":
        return METHOD_SCOPES.get(method)
    given = params or {}
    name: Any = given.get("name")
    arguments: Any = given.get("arguments")
    if name == "meerkat_config" and isinstance(arguments, Mapping):
        asked = cast(Mapping[str, Any], arguments)
        if asked.get("action", "get") != "get":
            return RUN if asked.get("session_id") is not None else CONFIGURE
    return TOOL_SCOPES.get(name, RUN) if isinstance(name, str) else None
