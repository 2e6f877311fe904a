"""The Starlette app of a realm: MCP at /mcp, the watch page at /, health and metrics; or of any MCP server.

From the outside in: every request is observed, so that refusals are counted too; then the guard, then who calls, then
what was asked for.
"""

from collections.abc import AsyncGenerator, Callable, Sequence
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from typing import Any

import anyio
from mcp.server import MCPServer
from mcp.server.transport_security import TransportSecuritySettings
from starlette.applications import Starlette
from starlette.middleware import Middleware
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import BaseRoute, Route

from meerkat_mcp.realms import Realm
from meerkat_mcp.server.app import build_server
from meerkat_mcp.server.scopes import READ
from meerkat_mcp.web.approving import approving_routes
from meerkat_mcp.web.auth import Authentication
from meerkat_mcp.web.guard import Guard
from meerkat_mcp.web.health import LIVE_PATH, READY_PATH, health_routes
from meerkat_mcp.web.metrics import CONTENT_TYPE, Metrics
from meerkat_mcp.web.observing import Observed, Observer
from meerkat_mcp.web.options import HttpOptions
from meerkat_mcp.web.watch import watch_routes

MCP_PATH = "/mcp"
METRICS_PATH = "/metrics"

Lifespan = Callable[[Starlette], AbstractAsyncContextManager[None]]


class RealmApp(Starlette):
    """The app of a realm; `end` brings its work to an end while it still answers."""

    def __init__(
        self, realm: Realm, options: HttpOptions, *, trust_caller: bool = False, expose_paths: bool = False
    ) -> None:
        self._realm = realm
        self._options = options
        self._mcp = build_server(realm, trust_caller=trust_caller, expose_paths=expose_paths)
        self._ending = anyio.Event()
        metrics = Metrics(realm)

        async def measured(_: Request) -> Response:
            return Response(metrics.render(), media_type=CONTENT_TYPE)

        @asynccontextmanager
        async def counting() -> AsyncGenerator[None]:
            realm.journal.listeners.add(metrics)
            try:
                yield
            finally:
                realm.journal.listeners.discard(metrics)

        routes = [
            Route(METRICS_PATH, measured),
            *health_routes(realm),
            *watch_routes(realm, self._ending),
            *approving_routes(realm),
        ]
        super().__init__(**_parts(self._mcp, options, routes, metrics, counting))

    async def end(self) -> None:
        """Let running turns finish for `drain_s`, end the rest, and let go of everybody who waits or follows."""
        await self._realm.turns.end(self._options.drain_s)
        self._realm.journal.stop_following()
        self._mcp.subscriptions.close()
        self._ending.set()


def build_app(
    realm: Realm, options: HttpOptions | None = None, *, trust_caller: bool = False, expose_paths: bool = False
) -> RealmApp:
    """The app of an open realm. It does not close the realm.

    Whoever mounts it in an app of their own enters its lifespan: `app.router.lifespan_context(app)`. The other
    arguments are those of `build_server`.

    Raises:
        InvalidRequest: the options would let strangers in.
    """
    options = options or HttpOptions()
    options.check()
    return RealmApp(realm, options, trust_caller=trust_caller, expose_paths=expose_paths)


def http_app(server: MCPServer[Any], options: HttpOptions, routes: Sequence[BaseRoute] = ()) -> Starlette:
    """Any MCP server as an app under `options`, with further routes: a realm's app without the realm."""
    return Starlette(**_parts(server, options, routes, None, None))


def _parts(
    server: MCPServer[Any],
    options: HttpOptions,
    routes: Sequence[BaseRoute],
    observer: Observer | None,
    alongside: Callable[[], AbstractAsyncContextManager[None]] | None,
) -> dict[str, Any]:
    mcp = server.streamable_http_app(
        streamable_http_path=MCP_PATH,
        max_request_body_size=options.body_bytes_max,
        session_idle_timeout=options.session_idle_s,
        max_sessions=options.sessions_max,
        transport_security=TransportSecuritySettings(enable_dns_rebinding_protection=False),  # the guard does it
    )

    @asynccontextmanager
    async def lifespan(_: Starlette) -> AsyncGenerator[None]:
        async with server.session_manager.run():
            if alongside is None:
                yield
            else:
                async with alongside():
                    yield

    authentication = Middleware(
        Authentication,
        options.auth,
        open_paths=_is_open,
        own_only=options.own_sessions_only,
        body_bytes_max=options.body_bytes_max,
        path_scope=lambda path: READ if path == METRICS_PATH else None,
    )
    return {
        "routes": [*mcp.routes, *(options.auth.routes() if options.auth is not None else ()), *routes],
        "middleware": [Middleware(Observed, observer), Middleware(Guard, options), authentication],
        "lifespan": lifespan,
    }


def _is_open(path: str) -> bool:
    """Whether a path is served to everybody: it says nothing about sessions."""
    if path in (LIVE_PATH, READY_PATH, "/") or path.startswith(("/assets/", "/.well-known/")):
        return True
    return path.startswith("/sessions/") and path.count("/") == 2
