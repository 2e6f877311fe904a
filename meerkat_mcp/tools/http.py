"""Reaching an MCP server over streamable HTTP: its headers, its failures in words, and limits."""

import re
from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import anyio
import httpx2
from mcp.client.streamable_http import streamable_http_client
from mcp.types import INTERNAL_ERROR

from meerkat_mcp.domain.servers import ToolServer

MESSAGE_BYTES_MAX = 64 * 1024 * 1024
CONNECT_S = 10.0
WRITE_S = 30.0
KEEPALIVE_S = 2.0  # well below what servers use, or a request could meet a connection that is just being closed
CONNECTIONS_MAX = 100
SESSION_LOST = 404
"""The code of an error of ours: the server refused a request unseen, as it has forgotten the session (older era)."""

_FORBIDDEN = re.compile(
    r"(?i)host|connection|keep-alive|upgrade|te|trailer|transfer-encoding|expect|proxy-connection"
    r"|accept|accept-encoding|content-.*|mcp-.*|last-event-id"
)
"""Headers that belong to HTTP and to MCP: a definition adds to them, for access, and changes none."""

_REFUSALS = {
    401: "it wants credentials, or other ones (401)",
    403: "it refuses access (403)",
    407: "a proxy wants credentials (407)",
    429: "it is asked too often (429)",
}


class Web:
    """A server behind a URL: `over` when the connection has been given up. It does not die of that."""

    died = False
    stderr = ""

    def __init__(self, definition: ToolServer) -> None:
        self.over = anyio.Event()
        self._definition = definition

    @asynccontextmanager
    async def streams(self) -> AsyncGenerator[tuple[Any, Any]]:
        """Connect. Redirects are followed within the server's own origin only.

        Raises:
            ValueError: the URL or a header is none.
        """
        url, headers = self._definition.url or "", self._definition.headers
        if not re.match(r"https?://[^/]", url):
            raise ValueError("its URL does not begin with http:// or https://")
        for name, value in headers.items():
            if _FORBIDDEN.fullmatch(name):
                raise ValueError(f"the header {name!r} cannot be set")
            if not re.fullmatch(r"[!#$%&'*+.^_`|~0-9A-Za-z-]+", name) or not re.fullmatch(r"[\t\x20-\x7e]*", value):
                raise ValueError(f"the header {name!r} is not well-formed")
        try:
            try:
                # In a thread: to set up TLS takes tens of milliseconds.
                client = await anyio.to_thread.run_sync(_client, headers)
                httpx2.URL(url)
            except httpx2.InvalidURL:
                raise ValueError("its URL is not well-formed") from None
            async with (
                client,
                streamable_http_client(url, http_client=client, max_sse_event_size=MESSAGE_BYTES_MAX) as streams,
            ):
                yield streams
        finally:
            self.over.set()

    async def last_words(self) -> str:
        """Nothing: what goes wrong over HTTP is told in the answer to a request."""
        return ""


def _client(headers: dict[str, str]) -> "_Client":
    return _Client(
        headers={"accept-encoding": "identity", **headers},  # so that a limit in bytes is one
        timeout=httpx2.Timeout(None, connect=CONNECT_S, write=WRITE_S),  # calls have time limits of their own
        limits=httpx2.Limits(max_connections=CONNECTIONS_MAX, keepalive_expiry=KEEPALIVE_S),
    )


class _Client(httpx2.AsyncClient):
    """Tells of a request that failed by an answer to it.

    The SDK's transport ends the whole connection with every call on it when one request raises, and has no words for
    statuses without a JSON-RPC body.
    """

    async def send(self, request: httpx2.Request, **options: Any) -> httpx2.Response:
        try:
            response = await super().send(request, **options)
        except httpx2.TimeoutException:
            return _refusal(request, 504, "it cannot be reached (no connection in time)")
        except httpx2.HTTPError as exc:
            return _refusal(request, 502, f"it cannot be reached ({exc or type(exc).__name__})")
        kind = response.headers.get("content-type", "")
        status = response.status_code
        if status == 404 and "mcp-session-id" in request.headers:
            await response.aclose()
            return _refusal(request, status, "it no longer knows our session", code=SESSION_LOST)
        if not kind.startswith("text/event-stream"):
            response.stream = _Bounded(response.stream)
        if (status in _REFUSALS or status >= 500) and not await _speaks_rpc(response, kind):
            await response.aclose()
            return _refusal(request, status, _REFUSALS.get(status, f"it fails ({status})"))
        return response


async def _speaks_rpc(response: httpx2.Response, kind: str) -> bool:
    """Whether a failure explains itself, in JSON-RPC."""
    if not kind.startswith("application/json"):
        return False
    try:
        return b'"jsonrpc"' in await response.aread()
    except httpx2.StreamError:
        return False


class _Bounded(httpx2.AsyncByteStream):
    """A body that fails when it is too large, and fails in the one way that ends only its own request."""

    def __init__(self, body: Any) -> None:
        self._body = body

    async def __aiter__(self) -> AsyncIterator[bytes]:
        size = 0
        try:
            async for chunk in self._body:
                size += len(chunk)
                if size > MESSAGE_BYTES_MAX:
                    raise httpx2.StreamError(f"more than {MESSAGE_BYTES_MAX} bytes")
                yield chunk
        except httpx2.HTTPError as exc:
            raise httpx2.StreamError(f"the answer broke off ({exc or type(exc).__name__})") from exc

    async def aclose(self) -> None:
        await self._body.aclose()


def _refusal(request: httpx2.Request, status: int, message: str, code: int = INTERNAL_ERROR) -> httpx2.Response:
    """An answer that carries a JSON-RPC error, which the SDK hands to whoever made the request."""
    error = {"jsonrpc": "2.0", "id": None, "error": {"code": code, "message": message}}
    return httpx2.Response(status, json=error, request=request)
