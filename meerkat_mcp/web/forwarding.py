"""Sending a request on to the replica that has its MCP session, and the answer back as it comes."""

import logging

import anyio
import anyio.to_thread
import httpx2
from starlette.datastructures import Headers
from starlette.responses import JSONResponse, Response
from starlette.types import Receive, Scope, Send

from meerkat_mcp.web.guard import Load
from meerkat_mcp.web.replicas import MARK, SENT_ON_KEY, SESSION_ID, Place, Replica

CONNECT_S = 2.0
SILENCE_S = 40.0
"""A server says something every 15 s while an answer is open: one that does not for so long is frozen, or cut off."""
IDLE_S = 30.0
"""How long a connection is kept for the next request: less than the server at its other end keeps it."""
IDLE_MAX = 100

_EVENTS = "text/event-stream"
_OF_ONE_CONNECTION = frozenset(
    {"connection", "keep-alive", "proxy-authenticate", "proxy-authorization", "te", "trailer", "transfer-encoding"}
    | {"upgrade", "content-length"}
)
_KEPT = _OF_ONE_CONNECTION | {"host", "origin", "expect", "accept-encoding", "last-event-id", MARK}
"""What is not sent on. Origin is a matter of the door where the client knocked, and answered there."""

log = logging.getLogger(__name__)


def not_found() -> Response:
    """The answer to a message for an MCP session that is no more: its client has to begin a new one."""
    error = {"jsonrpc": "2.0", "id": None, "error": {"code": -32600, "message": "Session not found"}}
    return JSONResponse(error, 404)


class Forwarding:
    """What this replica has sent on to others that serve MCP at `path`, and the connections for it."""

    def __init__(self, replica: Replica, path: str, *, silence_s: float = SILENCE_S) -> None:
        self._replica = replica
        self._path = path
        self._silence_s = silence_s
        self._load = Load()
        self._ending = anyio.Event()
        self._client: httpx2.AsyncClient | None = None
        self._making = anyio.Lock()

    async def send_on(self, place: Place, scope: Scope, body: bytes, receive: Receive, send: Send) -> None:
        """Have the replica at a place answer; 404 when it cannot be reached, or says nothing."""
        scope[SENT_ON_KEY] = place.url
        answer = _Answer(send)
        self._load.begin(scope["method"])
        try:
            async with anyio.create_task_group() as tasks:
                tasks.start_soon(_until_gone, receive, tasks.cancel_scope)
                with anyio.CancelScope() as passing:
                    tasks.start_soon(_until_set, self._ending, passing)
                    await self._pass(place, scope, body, answer)
                if answer.begun:  # if it broke off, its client sees a stream that ended before its time
                    await answer.end()
                else:
                    await not_found()(scope, receive, send)
                tasks.cancel_scope.cancel()
        finally:
            self._load.end(scope["method"])

    async def end(self, within_s: float) -> None:
        """Wait so long for answers to calls that were sent on; then let go of everybody who still waits or listens."""
        with anyio.move_on_after(max(0.0, within_s)):
            await self._load.all_answered()
        self._ending.set()

    async def close(self) -> None:
        """Let go of all connections."""
        client, self._client = self._client, None
        if client is not None:
            await client.aclose()

    async def _pass(self, place: Place, scope: Scope, body: bytes, answer: "_Answer") -> None:
        """Ask there, and pass back what comes: events as they come, everything else once it is whole."""
        url, headers = place.url + self._path, self._sent_on(scope)
        client = await self._connections()
        try:
            async with client.stream(scope["method"], url, headers=headers, content=body) as response:
                back = [(name, value) for name, value in response.headers.raw if _passed_back(name)]
                if not response.headers.get("content-type", "").startswith(_EVENTS):
                    content = await response.aread()
                    await answer.begin(response.status_code, [*back, (b"content-length", b"%d" % len(content))])
                    return await answer.end(content)
                await answer.begin(response.status_code, back)
                async for chunk in response.aiter_raw():
                    await answer.chunk(chunk)
        except httpx2.TransportError as exc:
            log.warning("The replica at %s did not answer, or broke off: %s.", place.url, type(exc).__name__)

    def _sent_on(self, scope: Scope) -> list[tuple[bytes, bytes]]:
        given = Headers(scope=scope)
        named = {name.strip().lower() for name in given.get("connection", "").split(",")}
        kept = _KEPT | named
        sent = [
            (name, value)
            for name, value in given.raw
            if (text := name.decode("latin-1").lower()) not in kept
            and not text.startswith(("x-forwarded-", "forwarded"))
        ]
        client = scope["client"][0] if scope.get("client") else ""
        mark = self._replica.mark(client, given.get(SESSION_ID, ""))
        return [*sent, (MARK.encode(), mark.encode()), (b"accept-encoding", b"identity")]

    async def _connections(self) -> httpx2.AsyncClient:
        """The client for it, made when it is first needed: in a thread, since to read certificates takes a while."""
        async with self._making:
            if self._client is None:
                self._client = await anyio.to_thread.run_sync(self._made)
            return self._client

    def _made(self) -> httpx2.AsyncClient:
        limits = httpx2.Limits(max_connections=None, max_keepalive_connections=IDLE_MAX, keepalive_expiry=IDLE_S)
        timeout = httpx2.Timeout(self._silence_s, connect=CONNECT_S)
        # a transport of our own: none of the environment's proxies stands between replicas
        return httpx2.AsyncClient(transport=httpx2.AsyncHTTPTransport(limits=limits), timeout=timeout)


class _Answer:
    """The answer that a client gets: begun at most once, and ended at most once."""

    def __init__(self, send: Send) -> None:
        self._send = send
        self.begun = self._ended = False

    async def begin(self, status: int, headers: list[tuple[bytes, bytes]]) -> None:
        self.begun = True
        await self._send({"type": "http.response.start", "status": status, "headers": headers})

    async def chunk(self, body: bytes) -> None:
        await self._send({"type": "http.response.body", "body": body, "more_body": True})

    async def end(self, body: bytes = b"") -> None:
        if not self._ended:
            self._ended = True
            await self._send({"type": "http.response.body", "body": body, "more_body": False})


def _passed_back(name: bytes) -> bool:
    return name.decode("latin-1").lower() not in _OF_ONE_CONNECTION


async def _until_gone(receive: Receive, scope: anyio.CancelScope) -> None:
    """Let go of what nobody waits for any more."""
    while (await receive())["type"] != "http.disconnect":
        pass
    scope.cancel()


async def _until_set(event: anyio.Event, scope: anyio.CancelScope) -> None:
    await event.wait()
    scope.cancel()
