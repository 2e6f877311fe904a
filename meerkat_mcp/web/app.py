"""The Starlette app of a realm: MCP at /mcp, the watch page at /, health and metrics; or of any MCP server.

From the outside in: a request that another replica sent on is made its client's again; every one is observed, so that
refusals are counted too; then the guard, then who calls, then what was asked for.
"""

from collections.abc import AsyncGenerator, Sequence
from contextlib import asynccontextmanager
from typing import Any

import anyio
import anyio.abc
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
from meerkat_mcp.web.endpoint import Endpoint
from meerkat_mcp.web.forwarding import Forwarding
from meerkat_mcp.web.guard import Guard, Load
from meerkat_mcp.web.health import LIVE_PATH, READY_PATH, health_routes
from meerkat_mcp.web.metrics import CONTENT_TYPE, Metrics
from meerkat_mcp.web.observing import Observed, Observer
from meerkat_mcp.web.options import HttpOptions, is_unspecified
from meerkat_mcp.web.replicas import Arrivals, Replica, own_key
from meerkat_mcp.web.watch import watch_routes

MCP_PATH = "/mcp"
METRICS_PATH = "/metrics"
ANSWER_S = 1.0
"""From the end of the last turn on, for calls to be answered that followed it."""


class RealmApp(Starlette):
    """The app of a realm; `end` brings its work to an end while it still answers."""

    def __init__(
        self, realm: Realm, options: HttpOptions, *, trust_caller: bool = False, expose_paths: bool = False
    ) -> None:
        self._realm = realm
        self._options = options
        self._mcp = build_server(realm, trust_caller=trust_caller, expose_paths=expose_paths)
        self._sessions = HandshakeSessions(self._mcp)
        self._replica = Replica(realm.store.sealing_key, options.replica_url)
        self._forwarding = Forwarding(self._replica, MCP_PATH)
        self._load = Load()
        self._ending = anyio.Event()
        metrics = Metrics(realm, self._load)

        async def measured(_: Request) -> Response:
            return Response(metrics.render(), media_type=CONTENT_TYPE)

        @asynccontextmanager
        async def lifespan(_: Starlette) -> AsyncGenerator[None]:
            await self._replica.open()
            realm.journal.listeners.add(metrics)
            try:
                async with self._sessions.run():
                    yield
            finally:
                realm.journal.listeners.discard(metrics)
                await self._forwarding.close()

        routes = [
            Route(METRICS_PATH, measured),
            *health_routes(realm),
            *watch_routes(realm, self._ending),
            *approving_routes(realm),
        ]
        parts = _parts(self._mcp, options, routes, self._load, metrics, self._replica, self._forwarding)
        super().__init__(**parts, lifespan=lifespan)

    @property
    def reachable(self) -> bool:
        """Whether other replicas can be given an address of this one."""
        return bool(self._replica.url)

    def listens_at(self, url: str) -> None:
        """Where it is served: there other replicas find it, if that is an address and the options name no other."""
        if not self._replica.url and not is_unspecified(url):
            self._replica.url = url

    async def end(self) -> None:
        """Let running turns finish for `drain_s`, end the rest, and let go of everybody who waits or follows."""
        patient_until_s = anyio.current_time() + self._options.drain_s
        await self._realm.turns.end(self._options.drain_s)
        await self._forwarding.end(patient_until_s - anyio.current_time())
        self._realm.journal.stop_following()
        self._mcp.subscriptions.close()
        self._ending.set()
        with anyio.move_on_after(ANSWER_S):
            await self._load.all_answered()
        self._load.closed = True
        await self._sessions.end()


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


def http_app(
    server: MCPServer[Any], options: HttpOptions, routes: Sequence[BaseRoute] = (), *, replica: Replica | None = None
) -> Starlette:
    """Any MCP server as an app under `options`, with further routes: a realm's app without the realm.

    Several of them behind one address need a `replica` each, with one key and each its own address.
    """
    replica = replica or Replica(own_key, options.replica_url)
    forwarding = Forwarding(replica, MCP_PATH)
    parts = _parts(server, options, routes, Load(), None, replica, forwarding)
    sessions = HandshakeSessions(server)

    @asynccontextmanager
    async def lifespan(_: Starlette) -> AsyncGenerator[None]:
        await replica.open()
        try:
            async with sessions.run():
                yield
        finally:
            await forwarding.close()

    return Starlette(**parts, lifespan=lifespan)


class HandshakeSessions:
    """The MCP sessions of clients of 2025: the SDK's, in a task of their own, so that they can end before the app."""

    def __init__(self, server: MCPServer[Any]) -> None:
        self._server = server
        self._ending, self._ended = anyio.Event(), anyio.Event()

    @asynccontextmanager
    async def run(self) -> AsyncGenerator[None]:
        """Serve them while this is entered, or until `end`."""
        async with anyio.create_task_group() as tasks:
            await tasks.start(self._serve)
            try:
                yield
            finally:
                self._ending.set()

    async def end(self) -> None:
        """Close every one; its streams end as they should."""
        self._ending.set()
        await self._ended.wait()

    async def _serve(self, *, task_status: anyio.abc.TaskStatus[None]) -> None:
        try:
            async with self._server.session_manager.run():
                task_status.started()
                await self._ending.wait()
        finally:
            self._ended.set()


def _parts(
    server: MCPServer[Any],
    options: HttpOptions,
    routes: Sequence[BaseRoute],
    load: Load,
    observer: Observer | None,
    replica: Replica,
    forwarding: Forwarding,
) -> dict[str, Any]:
    server.streamable_http_app(
        streamable_http_path=MCP_PATH,
        max_request_body_size=options.body_bytes_max,
        session_idle_timeout=options.session_idle_s,
        max_sessions=options.sessions_max,
        transport_security=TransportSecuritySettings(enable_dns_rebinding_protection=False),  # the guard does it
    )

    authentication = Middleware(
        Authentication,
        options.auth,
        open_paths=_is_open,
        own_only=options.own_sessions_only,
        body_bytes_max=options.body_bytes_max,
        path_scope=lambda path: READ if path == METRICS_PATH else None,
    )
    return {
        "routes": [
            Route(MCP_PATH, Endpoint(server, replica, forwarding, options.body_bytes_max)),
            *(options.auth.routes() if options.auth is not None else ()),
            *routes,
        ],
        "middleware": [
            Middleware(Arrivals, replica),
            Middleware(Observed, observer),
            Middleware(Guard, options, load),
            authentication,
        ],
    }


def _is_open(path: str) -> bool:
    """Whether a path is served to everybody: it says nothing about sessions."""
    if path in (LIVE_PATH, READY_PATH, "/") or path.startswith(("/assets/", "/.well-known/")):
        return True
    return path.startswith("/sessions/") and path.count("/") == 2
