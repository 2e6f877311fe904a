"""Who calls over HTTP, and what they may do: the seam that ways of authentication meet, and the middleware before all.

Refusals follow RFC 6750 (bearer tokens) and MCP 2026-07-28, "Authorization": 401 and 403 with a WWW-Authenticate
header that says what is missing, and the same as a small JSON body.
"""

import dataclasses
import json
import logging
import re
from collections.abc import Callable, Mapping, MutableMapping, Sequence
from typing import Any, Protocol, cast

import pydantic_core
from mcp.server.auth.middleware.auth_context import AuthContextMiddleware
from mcp.server.auth.middleware.bearer_auth import AuthenticatedUser
from mcp.server.auth.provider import AccessToken
from starlette.responses import JSONResponse, Response
from starlette.routing import BaseRoute
from starlette.types import ASGIApp, Receive, Scope, Send

from meerkat_mcp.server.callers import CALLER_KEY, LOCAL, Caller
from meerkat_mcp.server.scopes import READ, RUN, SCOPES, TOOL_SCOPES, needed
from meerkat_mcp.web.bodies import replayed, whole_body

log = logging.getLogger(__name__)

TOKEN68 = r"[A-Za-z0-9\-._~+/]+=*"
"""What can stand behind `Bearer` (RFC 9110, 11.2)."""

TOKEN_CHARS_MAX = 8192
AWAY_RETRY_S = 5
REALM = "meerkat"
FIRST_SCOPES = f"{READ} {RUN}"
"""What a client without a token is told to ask for; more only when something needs it."""

_BEARER = re.compile(rf"(?i:bearer) +({TOKEN68}) *")
_ANYBODY = Caller(scopes=frozenset(), own_only=True)
_PARSERS = (json.loads, pydantic_core.from_json)
"""Those that the SDK uses, for one protocol era each. They differ in what they take (encodings, depth), and which era
a request belongs to is the SDK's to say: so a body is judged as both of them read it."""


class IssuerAway(Exception):
    """Whether a token is good cannot be told now, as whoever issues the keys cannot be reached."""


class Authenticator(Protocol):
    """Says who a bearer token belongs to."""

    async def authenticate(self, token: str) -> Caller | None:
        """Whose token it is; None: nobody's, or no longer, or meant for somebody else. Raises IssuerAway."""
        ...

    def challenge(self) -> str:
        """What WWW-Authenticate says beyond the error, as `name="value"` pairs; empty: nothing."""
        ...

    def routes(self) -> Sequence[BaseRoute]:
        """The routes by which clients find out how to authenticate; open to everybody."""
        ...


class AnyOf:
    """Several ways in, tried one after the other: static tokens for programs beside OAuth for people, say."""

    def __init__(self, *ways: Authenticator) -> None:
        self._ways = ways

    async def authenticate(self, token: str) -> Caller | None:
        """Whose token it is, by the first way that knows it. Raises IssuerAway if none does and one cannot tell."""
        away: IssuerAway | None = None
        for way in self._ways:
            try:
                if (caller := await way.authenticate(token)) is not None:
                    return caller
            except IssuerAway as exc:
                away = exc
        if away is not None:
            raise away
        return None

    def challenge(self) -> str:
        """What each of them says."""
        return ", ".join(said for way in self._ways if (said := way.challenge()))

    def routes(self) -> Sequence[BaseRoute]:
        """The routes of all."""
        return [route for way in self._ways for route in way.routes()]


def _nothing(_: str) -> str | None:
    return None


class Authentication:
    """Lets nobody through without a good token, and no message that needs a scope which its caller has not.

    Without an authenticator everybody is LOCAL. `open_paths` says which paths (below the root path) need no token;
    `path_scope` which scope a path needs, whatever is sent there. Messages are judged on every other path that takes a
    POST, so that no spelling of a path goes around it; a body over `body_bytes_max` is 413 for who must be judged.
    """

    def __init__(
        self,
        app: ASGIApp,
        authenticator: Authenticator | None,
        *,
        open_paths: Callable[[str], bool],
        own_only: bool,
        body_bytes_max: int,
        path_scope: Callable[[str], str | None] = _nothing,
    ) -> None:
        self._app = app
        self._known = AuthContextMiddleware(app)
        self._authenticator = authenticator
        self._open_paths = open_paths
        self._path_scope = path_scope
        self._own_only = own_only
        self._body_bytes_max = body_bytes_max

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one request."""
        if scope["type"] == "websocket":
            await send({"type": "websocket.close", "code": 1008})  # nothing here speaks it
        elif scope["type"] != "http":
            await self._app(scope, receive, send)
        elif self._authenticator is None:
            scope[CALLER_KEY] = LOCAL
            await self._app(scope, receive, send)
        elif self._open_paths(_route_path(scope)):
            scope[CALLER_KEY] = _ANYBODY  # or a route that asks would take them for LOCAL
            await self._app(scope, receive, send)
        elif isinstance(found := await self._identified(scope, self._authenticator), Response):
            await found(scope, receive, send)
        else:
            scope[CALLER_KEY] = found
            scope["user"] = _user(found)
            await self._admit(found, scope, receive, send)

    async def _identified(self, scope: Scope, authenticator: Authenticator) -> Caller | Response:
        """Who calls, or why they are not let in."""
        token = _bearer(scope)
        if token is None:
            return self._unauthenticated("This server needs an access token: send Authorization: Bearer TOKEN.")
        try:
            caller = await authenticator.authenticate(token) if token else None
        except IssuerAway:
            said = {"error": "temporarily_unavailable", "error_description": "Tokens cannot be checked at the moment."}
            return JSONResponse(said, 503, headers={"Retry-After": str(AWAY_RETRY_S), "Cache-Control": "no-store"})
        if caller is None:
            client = scope.get("client")
            log.info("A token was refused: %s %r from %s.", scope["method"], scope["path"], client and client[0])
            return self._unauthenticated(
                "The access token is unknown, has expired, or is meant for another server.", error="invalid_token"
            )
        return dataclasses.replace(caller, own_only=self._own_only)

    async def _admit(self, caller: Caller, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass a request on if its caller has the scopes for it."""
        path = _route_path(scope)
        wanted = self._path_scope(path)
        if wanted is not None and wanted not in caller.scopes:
            await self._forbidden(wanted, "This address")(scope, receive, send)
            return
        if scope["method"] != "POST" or caller.scopes.issuperset(SCOPES):
            await self._known(scope, receive, send)
            return
        body = await whole_body(receive, self._body_bytes_max)
        if body is None:
            return  # they are gone
        if len(body) > self._body_bytes_max:
            await Response("Request body too large", 413)(scope, receive, send)
        elif (lacking := _lacking(body, caller.scopes)) is not None:
            await self._forbidden(*lacking)(scope, receive, send)
        else:
            await self._known(scope, replayed(body, receive), send)

    def _unauthenticated(self, description: str, *, error: str = "") -> Response:
        """401. To who sent no token no error is named (RFC 6750, 3.1), only what a token must be good for."""
        said = {"error": error, "error_description": description} if error else {}
        body = {"error": "invalid_token", "error_description": description}
        return self._refusal(401, {"realm": REALM, **said, "scope": FIRST_SCOPES}, body)

    def _forbidden(self, wanted: str, what: str) -> Response:
        """403, with the scope that this request needs: not those that its caller has (RFC 6750, 3.1; SEP-2350)."""
        description = f"{what} needs the scope {wanted}."
        said = {"error": "insufficient_scope", "error_description": description, "scope": wanted}
        return self._refusal(403, {"realm": REALM, **said}, said)

    def _refusal(self, status: int, said: Mapping[str, str], body: Mapping[str, str]) -> Response:
        pairs = [f'{name}="{value}"' for name, value in said.items()]
        if self._authenticator is not None and (more := self._authenticator.challenge()):
            pairs.append(more)
        headers = {"WWW-Authenticate": f"Bearer {', '.join(pairs)}", "Cache-Control": "no-store"}
        return JSONResponse(body, status, headers=headers)


def _user(caller: Caller) -> AuthenticatedUser:
    """The caller as the SDK knows one: it binds sessions of 2025 and the state that clients carry to it."""
    principal = caller.principal or ""
    return AuthenticatedUser(
        AccessToken(token="", client_id=principal, scopes=sorted(caller.scopes), subject=principal)
    )


def _route_path(scope: MutableMapping[str, Any]) -> str:
    """The path below the root path, just as Starlette's routes see it."""
    path, root = cast(str, scope["path"]), cast(str, scope.get("root_path", ""))
    if root and path.startswith(root) and path[len(root) :][:1] in ("", "/"):
        return path[len(root) :]
    return path


def _bearer(scope: Scope) -> str | None:
    """The bearer token of a request; empty: a malformed one; None: none. One in the query does not count."""
    values = [value.decode("latin-1") for name, value in scope["headers"] if name == b"authorization"]
    if not any(value[:6].lower() == "bearer" for value in values):
        return None
    found = _BEARER.fullmatch(values[0]) if len(values) == 1 else None
    return found[1] if found and len(found[1]) <= TOKEN_CHARS_MAX else ""


def _lacking(body: bytes, held: frozenset[str]) -> tuple[str, str] | None:
    """A scope that some message in a body needs and `held` has not, and what needs it."""
    for parse in _PARSERS:
        try:
            parsed: Any = parse(body)
        except (ValueError, RecursionError):
            continue  # then it is no message for whoever reads it this way
        messages = cast(list[Any], parsed) if isinstance(parsed, list) else [parsed]
        for message in messages:
            if isinstance(message, dict) and isinstance(method := cast(dict[str, Any], message).get("method"), str):
                given: Any = cast(dict[str, Any], message).get("params")
                params = cast(dict[str, Any], given) if isinstance(given, dict) else None
                wanted = needed(method, params)
                if wanted is not None and wanted not in held:
                    return wanted, _named(method, params)
    return None


def _named(method: str, params: Mapping[str, Any] | None) -> str:
    """What needs a scope, in words of ours: a caller's own words are not repeated in a header."""
    if method != "tools/call":
        return method  # it needs a scope, so it is in our table
    name = (params or {}).get("name")
    return name if name in TOOL_SCOPES else "This tool"
