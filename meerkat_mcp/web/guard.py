"""The door of the HTTP server: who may knock, how often, and with how much.

Host and Origin are checked on every request, so that a web page that a user happens to visit cannot reach a server on
their machine (DNS rebinding; MCP 2026-07-28, "Security warning" of streamable HTTP). A refusal is JSON like every
error of ours, and names the flag that would let the request in.
"""

from collections import OrderedDict
from urllib.parse import urlsplit

import anyio
from starlette.datastructures import Headers, MutableHeaders
from starlette.responses import JSONResponse, Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from meerkat_mcp.web.bodies import Incoming
from meerkat_mcp.web.options import LOOPBACK_NAMES, HttpOptions, is_loopback
from meerkat_mcp.web.replicas import genuine

CLIENTS_MAX = 10_000
"""Of how many clients the rate is known; of more, those that have been quiet longest are forgotten."""
BURST_S = 2.0
"""How much of its rate a client may save up."""
RETRY_AFTER_S = 1
UNCOUNTED = ("/healthz", "/readyz", "/metrics")

_ALLOWED_METHODS = "GET, POST, DELETE, OPTIONS"
_ALLOWED_HEADERS = (
    "authorization, content-type, accept, last-event-id, mcp-session-id, mcp-protocol-version, mcp-method, mcp-name"
)
_EXPOSED_HEADERS = "mcp-session-id, mcp-protocol-version, www-authenticate, retry-after"


class Load:
    """What is under way: all `requests` that were let in, and of these the `calls`, which have an answer to come: POST.

    Once it is `closed` nothing is let in any more.
    """

    def __init__(self) -> None:
        self.requests = self.calls = 0
        self.closed = False
        self._answered = anyio.Event()

    async def all_answered(self) -> None:
        """Wait until no call is under way."""
        while self.calls:
            self._answered = anyio.Event()
            await self._answered.wait()

    def begin(self, method: str) -> None:
        """One came in."""
        self.requests += 1
        self.calls += method == "POST"

    def end(self, method: str) -> None:
        """One is over."""
        self.requests -= 1
        self.calls -= method == "POST"
        self._answered.set()


class Guard:
    """Stands before an app, and keeps count in `load` of what it lets in."""

    def __init__(self, app: ASGIApp, options: HttpOptions, load: Load) -> None:
        self._app = app
        self._load = load
        self._options = options
        self._origins = _origins(options)
        self._hosts = _hosts(options)
        self._rates = Rates(options.rate_max) if options.rate_max else None

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Let a request in, or say why not."""
        if scope["type"] != "http":
            return await self._app(scope, receive, send)
        headers = Headers(scope=scope)
        origin = headers.get("origin")
        incoming = Incoming(headers, receive)
        refusal = self._refusal(scope, headers, origin)
        if refusal is not None:
            if refusal.status_code == 413:
                await incoming.discard(self._options.body_bytes_max)
            return await refusal(scope, receive, send)
        if scope["method"] == "OPTIONS" and origin is not None and "access-control-request-method" in headers:
            return await _preflight(origin)(scope, receive, send)

        async def stamped(message: Message) -> None:
            if message["type"] == "http.response.start":
                if message["status"] == 413:
                    await incoming.discard(self._options.body_bytes_max)
                out = MutableHeaders(scope=message)
                out.setdefault("X-Content-Type-Options", "nosniff")
                if not incoming.whole:
                    out["Connection"] = "close"  # or the rest of the body would be read to no end
                if origin is not None:
                    out.setdefault("Access-Control-Allow-Origin", origin)
                    out.setdefault("Access-Control-Expose-Headers", _EXPOSED_HEADERS)
                    out.add_vary_header("Origin")
            await send(message)

        self._load.begin(scope["method"])
        try:
            await self._app(scope, incoming.receive, stamped)
        finally:
            self._load.end(scope["method"])

    def _refusal(self, scope: Scope, headers: Headers, origin: str | None) -> Response | None:
        if "content-length" in headers and "transfer-encoding" in headers:
            return _refused(
                400,
                "invalid_request",
                "A request has Content-Length or Transfer-Encoding, not both.",
                "It could be read in two ways (RFC 9112, 6.1).",
            )
        if headers.get("content-length", "0").isdigit() and self._is_too_large(headers):
            return _refused(
                413,
                "limit_exceeded",
                f"The body is larger than {self._options.body_bytes_max} bytes.",
                "--max-body sets how large it may be.",
            )
        hosts = headers.getlist("host")
        if len(hosts) != 1 or not self._knows_host(hosts[0]):
            named = f"The host {hosts[0][:200]!r}" if hosts else "A request without Host"
            return _refused(421, "misdirected", f"{named} is not served here.", "--allow-host NAME serves it.")
        if origin is not None and not self._knows_origin(origin, hosts[0]):
            return _refused(
                403,
                "permission_denied",
                f"Pages of {origin[:200]!r} may not use this server.",
                "--allow-origin ORIGIN lets them.",
            )
        client = scope.get("client")
        address = client[0] if client else ""
        counted = is_loopback(address) or genuine(scope)  # by nobody, or by the replica that sent it on
        if self._rates is not None and not counted and not self._rates.take(address):
            return _refused(
                429,
                "limit_exceeded",
                f"More than {self._options.rate_max} requests a second from one client.",
                "Wait a moment; --rate-limit sets how many may come.",
                retry_after_s=RETRY_AFTER_S,
            )
        if self._load.closed:
            return _refused(
                503,
                "store_unavailable",
                "This server is ending.",
                "Connect again: another one may be there, or soon will.",
                retry_after_s=RETRY_AFTER_S,
            )
        watched_over = scope["path"].endswith(UNCOUNTED)  # or a supervisor would kill what is only busy
        if self._load.requests >= self._options.requests_max and not watched_over:
            return _refused(
                503,
                "limit_exceeded",
                f"{self._load.requests} requests are being served, as many as may be.",
                "Try again; --max-requests sets how many there may be.",
                retry_after_s=RETRY_AFTER_S,
            )
        return None

    def _is_too_large(self, headers: Headers) -> bool:
        return int(headers.get("content-length", "0")[:20]) > self._options.body_bytes_max

    def _knows_host(self, host: str) -> bool:
        name = _without_port(host.lower())
        return name is not None and (name in self._hosts or host.lower() in self._hosts)

    def _knows_origin(self, origin: str, host: str) -> bool:
        """A page of this very server, of this machine where only this machine is served, or one that was allowed."""
        try:
            parts = urlsplit(origin)
            name = parts.hostname or ""
        except ValueError:
            return False
        if parts.scheme not in ("http", "https") or parts.path or parts.query:
            return False
        if origin in self._origins or parts.netloc == host.lower():
            return True
        return self._options.loopback and is_loopback(name)


class Rates:
    """Token buckets: each client may make `most` requests a second, and save up a little."""

    def __init__(self, most: float) -> None:
        self._most = most
        self._buckets: OrderedDict[str, tuple[float, float]] = OrderedDict()

    def take(self, client: str) -> bool:
        """Whether the client may make one more request now."""
        now_s = anyio.current_time()
        left, at_s = self._buckets.pop(client, (self._most * BURST_S, now_s))
        left = min(self._most * BURST_S, left + (now_s - at_s) * self._most)
        self._buckets[client] = (left - 1 if left >= 1 else left, now_s)
        if len(self._buckets) > CLIENTS_MAX:
            self._buckets.popitem(last=False)
        return left >= 1


def _refused(status: int, code: str, message: str, hint: str, *, retry_after_s: int | None = None) -> Response:
    """An error as every outside of ours shows it."""
    error = {"code": code, "message": message, "hint": hint, "retryable": retry_after_s is not None}
    headers = {"Connection": "close"} | ({} if retry_after_s is None else {"Retry-After": str(retry_after_s)})
    return JSONResponse({"error": error}, status, headers)


def _preflight(origin: str) -> Response:
    headers = {
        "Access-Control-Allow-Origin": origin,
        "Access-Control-Allow-Methods": _ALLOWED_METHODS,
        "Access-Control-Allow-Headers": _ALLOWED_HEADERS,
        "Access-Control-Max-Age": "600",
        "Vary": "Origin",
    }
    return Response(status_code=204, headers=headers)


def _hosts(options: HttpOptions) -> frozenset[str]:
    own = urlsplit(options.public_url).hostname if options.public_url else None
    bound = f"[{options.host}]" if ":" in options.host else options.host
    named = (*LOOPBACK_NAMES, bound, *([own] if own else []), *options.replica_hosts, *options.allowed_hosts)
    return frozenset(name.lower() for name in named)


def _origins(options: HttpOptions) -> frozenset[str]:
    own = urlsplit(options.public_url)
    return frozenset({*options.allowed_origins, *([f"{own.scheme}://{own.netloc}"] if own.netloc else [])})


def _without_port(host: str) -> str | None:
    """The name in a Host header, without `:port`; None: it is no such header."""
    name, colon, port = host.rpartition(":")
    if not colon or host.endswith("]"):
        return host
    return name if port.isascii() and port.isdigit() else None
