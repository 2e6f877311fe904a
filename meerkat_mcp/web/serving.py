"""Serving an HTTP app until a signal, and an end in order.

The order: no new connections; running turns may finish, then they end by their own event; calls that followed them
get their results, streams and subscriptions their last message; what is still open then is closed.
"""

import contextlib
import logging
import socket
from collections.abc import Awaitable, Callable, Generator

import anyio
import uvicorn
from starlette.types import ASGIApp

from meerkat_mcp.domain.errors import InvalidRequest
from meerkat_mcp.server.signals import on_signals
from meerkat_mcp.web.connection import Connection
from meerkat_mcp.web.options import HttpOptions

CLOSE_S = 1.0
"""From the last answer on, for connections to close by themselves."""
BACKLOG = 2048
KEEP_ALIVE_S = 75
"""Longer than a proxy keeps an idle connection, so that it never writes into one that is being closed."""

log = logging.getLogger(__name__)


async def serve_http(
    app: ASGIApp,
    options: HttpOptions,
    *,
    on_ready: Callable[[str], None] | None = None,
    before_end: Callable[[], Awaitable[None]] | None = None,
) -> None:
    """Serve until SIGTERM or SIGINT. `on_ready` is told the address; `before_end` lets the work end.

    Raises:
        InvalidRequest: the address cannot be had.
    """
    listener = bound(options)
    server = _Server(_config(app, options))
    ending = anyio.Event()
    on_signals(lambda _: ending.set())
    try:
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(_end_in_order, server, ending, before_end)
            if on_ready is not None:
                on_ready(address(listener))
            await server.serve(sockets=[listener])
            ending.set()
    finally:
        listener.close()


def bound(options: HttpOptions) -> socket.socket:
    """A listening socket. Raises InvalidRequest."""
    host = options.host.strip("[]")
    try:
        family, kind, protocol, _, where = socket.getaddrinfo(host, options.port, type=socket.SOCK_STREAM)[0]
        # With the protocol named, asyncio sets TCP_NODELAY; without, every answer would wait 40 ms.
        listener = socket.socket(family, kind, protocol or socket.IPPROTO_TCP)
        with contextlib.ExitStack() as undo:
            undo.callback(listener.close)
            if hasattr(socket, "SO_REUSEPORT"):  # POSIX: a restart need not wait; on Windows it would share the port
                listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            listener.bind(where)
            listener.listen(BACKLOG)
            listener.setblocking(False)
            undo.pop_all()
    except (OSError, UnicodeError) as exc:
        why = exc.strerror if isinstance(exc, OSError) and exc.strerror else str(exc)
        raise InvalidRequest(
            f"{options.host} port {options.port} cannot be listened on: {why}.",
            hint="--port 0 takes any free port; another --host may be meant.",
        ) from None
    return listener


def address(listener: socket.socket) -> str:
    """What to put into a browser."""
    host, port = listener.getsockname()[:2]
    return f"http://{f'[{host}]' if ':' in host else host}:{port}"


def _config(app: ASGIApp, options: HttpOptions) -> uvicorn.Config:
    return uvicorn.Config(
        app,
        http=Connection,  # on h11: httptools keeps blanks at the end of a header that MCP compares with the body
        ws="none",
        lifespan="on",
        log_config=None,
        access_log=False,
        server_header=False,
        proxy_headers=bool(options.trusted_proxies),
        forwarded_allow_ips=list(options.trusted_proxies),
        root_path=options.root_path,
        timeout_keep_alive=KEEP_ALIVE_S,
        timeout_graceful_shutdown=CLOSE_S,  # pyright: ignore[reportArgumentType]  (whole seconds by type only)
        h11_max_incomplete_event_size=64 * 1024,
    )


class _Server(uvicorn.Server):
    """Uvicorn, with signals that are ours."""

    @contextlib.contextmanager
    def capture_signals(self) -> Generator[None]:
        """Leave signals as they are: `serve_http` listens to them."""
        yield


async def _end_in_order(server: _Server, ending: anyio.Event, before_end: Callable[[], Awaitable[None]] | None) -> None:
    await ending.wait()
    for listening in getattr(server, "servers", ()):
        listening.close()
    try:
        if before_end is not None:
            await before_end()
    finally:
        server.should_exit = True
