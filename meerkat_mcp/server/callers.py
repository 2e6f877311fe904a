"""Who makes a request: on a network what its token says, on stdio whoever started the process.

A surface that knows its callers puts a `Caller` under `CALLER_KEY` into the request's ASGI scope; here it is found
again, for every message of both protocol eras. Nothing is kept for a connection: each request brings its own.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, cast

from mcp.server.mcpserver import Context

from meerkat_mcp.server.scopes import SCOPES

CALLER_KEY = "meerkat.caller"


@dataclass(frozen=True, slots=True)
class Caller:
    """Somebody who may do what `scopes` say. `own_only`: of the sessions, those alone that they began."""

    principal: str | None = None
    scopes: frozenset[str] = frozenset(SCOPES)
    own_only: bool = False

    @property
    def sees(self) -> str | None:
        """Whose sessions they see; None: everybody's."""
        return (self.principal or "") if self.own_only else None


LOCAL = Caller()
"""Whoever can start this process may do everything."""


def caller(context: Context[Any, Any]) -> Caller:
    """Who makes the call that a tool, resource or prompt answers."""
    return caller_of(context.request_context.request)


def caller_of(request: Any) -> Caller:
    """Who sent a message; `request` is the one that a transport attached to it, if it attaches any."""
    scope = getattr(request, "scope", None)
    found = cast(Mapping[str, object], scope).get(CALLER_KEY) if isinstance(scope, Mapping) else None
    return found if isinstance(found, Caller) else LOCAL
