"""One line in the log, and one count, for every HTTP request when it is over.

The line has what an operator looks for and nothing that is secret: no query, no header but the names of MCP's method
and tool, where they are names that we know.
"""

import json
import logging
from typing import Any, Protocol

import anyio
from starlette.datastructures import Headers
from starlette.requests import ClientDisconnect
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from meerkat_mcp.server.callers import CALLER_KEY, Caller
from meerkat_mcp.server.scopes import METHOD_SCOPES, TOOL_SCOPES
from meerkat_mcp.web.replicas import ARRIVAL_KEY, SENT_ON_KEY, Arrival

access = logging.getLogger("meerkat_mcp.access")

_METHODS = frozenset({"GET", "POST", "DELETE", "OPTIONS", "HEAD", "PUT", "PATCH"})
_RPC = frozenset({*METHOD_SCOPES, "tools/call", "tools/list", "prompts/list", "server/discover", "initialize"})
_STATUS_CLOSED = 499
"""The client went before the answer began; the number is nginx's."""


class Observer(Protocol):
    """Is told of every HTTP request that is over."""

    def answered(self, method: str, route: str, status: int, seconds: float) -> None:
        """One is over; `status` is 499 when the client went before the answer began."""
        ...


class Observed:
    """Watches an app for an observer, and for the access log."""

    def __init__(self, app: ASGIApp, observer: Observer | None) -> None:
        self._app = app
        self._observer = observer

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass a request on and tell of its end, however it ends."""
        if scope["type"] != "http":
            return await self._app(scope, receive, send)
        begun_s, status, sent = anyio.current_time(), _STATUS_CLOSED, 0

        async def watched(message: Message) -> None:
            nonlocal status, sent
            if message["type"] == "http.response.start":
                status = message["status"]
            sent += len(message.get("body", b""))
            await send(message)

        try:
            await self._app(scope, receive, watched)
        except ClientDisconnect:
            pass  # they hung up in the middle of what they said
        except Exception:
            status = 500
            raise
        finally:
            seconds = anyio.current_time() - begun_s
            method = scope["method"] if scope["method"] in _METHODS else "other"
            if self._observer is not None:
                self._observer.answered(method, _route(scope), status, seconds)
            access.info("%s", json.dumps(_line(scope, method, status, seconds, sent), separators=(",", ":")))


def _route(scope: Scope) -> str:
    """The pattern of the path; a path that nothing serves is one of many. What was sent on is counted there, too."""
    if SENT_ON_KEY in scope:
        return "sent on"
    route: object = scope.get("route")
    return str(getattr(route, "path", "none"))


def _line(scope: Scope, method: str, status: int, seconds: float, sent: int) -> dict[str, Any]:
    headers = Headers(scope=scope)
    caller, client = scope.get(CALLER_KEY), scope.get("client")
    rpc, tool = headers.get("mcp-method"), headers.get("mcp-name")
    arrival = scope.get(ARRIVAL_KEY)
    line = {
        "client": client[0] if client else None,
        "through": arrival.by if isinstance(arrival, Arrival) and arrival.genuine else None,
        "principal": caller.principal if isinstance(caller, Caller) else None,
        "method": method,
        "path": scope["path"][:200],
        "rpc": rpc if rpc in _RPC else None,
        "tool": tool if tool in TOOL_SCOPES else None,
        "status": status,
        "ms": round(seconds * 1000, 1),
        "bytes": sent,
        "sent_on": scope.get(SENT_ON_KEY),
    }
    return {key: value for key, value in line.items() if value is not None}
