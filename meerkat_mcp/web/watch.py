"""The page to watch sessions, and the events it shows, as they happen.

The page itself holds no data, so everybody may load it; what it shows it asks for, as whoever looks at it. Events are
server-sent: `id` is the seq, so a reader that was cut off goes on with `Last-Event-ID`, without loss or doubling.
"""

import hashlib
import html
import json
import logging
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from typing import Protocol

import anyio
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import BaseRoute, Route
from starlette.types import Receive, Scope, Send

from meerkat_mcp.domain.errors import Internal, InvalidRequest, MeerkatError, PermissionDenied, SessionNotFound
from meerkat_mcp.domain.recorded import Recorded
from meerkat_mcp.domain.session import Session
from meerkat_mcp.realms import Realm
from meerkat_mcp.server import page
from meerkat_mcp.server.callers import CALLER_KEY, LOCAL
from meerkat_mcp.server.results import event_view
from meerkat_mcp.server.scopes import READ
from meerkat_mcp.web.statuses import refused

RETRY_MS = 2_000
PING_INTERVAL_S = 15.0
ACTIVE_CHECK_INTERVAL_S = 1.5
IDLE_CHECK_INTERVAL_S = 4.0
"""How often a watched session is looked after: is the owner of its turn alive, is it still there."""
STREAM_S_MAX = 600.0
"""Then a reader has to come back and show again who it is: a token may have been withdrawn."""
FAREWELL_WAIT_S = 0.5
CHUNK_BYTES_MAX = 64 * 1024
SEQ_DIGITS_MAX = 15

HEADERS = {
    "Content-Security-Policy": "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; "
    "img-src 'self' data:; base-uri 'none'; form-action 'none'; frame-ancestors 'none'",
    "Referrer-Policy": "no-referrer",
    "X-Content-Type-Options": "nosniff",
    "Cache-Control": "no-cache",
}

log = logging.getLogger(__name__)


class Ending(Protocol):
    """Something that is set when the server goes, such as an `anyio.Event`."""

    def is_set(self) -> bool:
        """Whether it goes."""
        ...

    async def wait(self) -> None:
        """Wait until it goes."""
        ...


def watch_routes(realm: Realm, ending: Ending) -> list[BaseRoute]:
    """The page, its files, and the events of a session. Streams end when `ending` is set."""
    watch = Watch(realm, ending)
    return [
        Route("/", shell, methods=["GET"]),
        Route("/assets/{name}", asset, methods=["GET"]),
        Route("/sessions/{session_id}", shell, methods=["GET"]),
        Route("/sessions/{session_id}/events", watch.events, methods=["GET"]),
    ]


# ── the page ──


async def shell(request: Request) -> Response:
    """The page without anything in it; it finds out from its address what to show."""
    root = html.escape(request.scope.get("root_path", "").rstrip("/"), quote=True)
    return Response(page.text("watch.html").replace("{root}", root), media_type="text/html", headers=HEADERS)


async def asset(request: Request) -> Response:
    """A file of the page, from a fixed table."""
    found = _assets().get(request.path_params["name"])
    if found is None:
        return Response("There is no such file.", 404, media_type="text/plain", headers=HEADERS)
    headers = HEADERS | {"ETag": found.etag}
    known = request.headers.get("if-none-match", "").split(",")
    if found.etag in (etag.strip().removeprefix("W/") for etag in known):  # a proxy that packs marks it as weak
        return Response(status_code=304, headers=headers)
    return Response(found.body, media_type=found.media_type, headers=headers)


@dataclass(frozen=True, slots=True)
class Asset:
    """A file of the page, ready to be served."""

    body: bytes
    media_type: str
    etag: str


@cache
def _assets() -> dict[str, Asset]:
    media_types = {page.STYLE: "text/css", page.ICON: "image/svg+xml"} | dict.fromkeys(page.MODULES, "text/javascript")
    return {name: _asset(name, media_type) for name, media_type in media_types.items()}


def _asset(name: str, media_type: str) -> Asset:
    body = page.text(name).encode()
    return Asset(body, media_type, f'"{hashlib.sha256(body).hexdigest()[:32]}"')


# ── events ──


class Watch:
    """Answers who wants to see a session's events."""

    def __init__(self, realm: Realm, ending: Ending) -> None:
        self._realm = realm
        self._ending = ending
        self._looked_at: dict[str, float] = {}

    async def events(self, request: Request) -> Response:
        """The log from `?after_seq=` or `Last-Event-ID` on (which wins), then what comes, until the reader goes."""
        try:
            caller = request.scope.get(CALLER_KEY, LOCAL)
            if READ not in caller.scopes:
                raise PermissionDenied(
                    f"Reading events needs the scope {READ}.", hint=f"Use a token that has {READ}.", scope=READ
                )
            reference = request.path_params["session_id"]
            session_id = await self._realm.reading.resolve(reference, sees=caller.sees)
            session = await self._realm.sessions.settled(session_id)
            after = _after(request)
            if after > session.seq:
                raise InvalidRequest(
                    f"after_seq {after} is beyond the last event, {session.seq}.",
                    hint="Read again from the start.",
                    last_seq=session.seq,
                )
        except MeerkatError as exc:
            return refused(exc)
        except Exception:
            log.exception("Events could not be shown, by a bug.")
            return refused(Internal())
        if request.method == "HEAD":
            return Response(media_type=EventStream.media_type)
        return EventStream(self._realm, session_id, after, self._ending, self._looked_at)


def _after(request: Request) -> int:
    given = request.headers.get("last-event-id") or request.query_params.get("after_seq") or "0"
    if not (given.isascii() and given.isdigit() and len(given) <= SEQ_DIGITS_MAX):
        raise InvalidRequest(f"{given[:50]!r} is no sequence number.", hint="Give a whole number from 0.")
    return int(given)


class EventStream(Response):
    """One reader's stream, as a response. It ends with `bye`: come back; or with `closed`: the session is gone."""

    media_type = "text/event-stream"

    def __init__(self, realm: Realm, session_id: str, after: int, ending: Ending, looked_at: dict[str, float]) -> None:
        super().__init__()
        del self.headers["content-length"]
        # a proxy that gathers output would hold back what is being written
        self.headers.update({"Cache-Control": "no-store", "X-Accel-Buffering": "no"})
        self._realm = realm
        self._session_id = session_id
        self._after = after
        self._ending = ending
        self._looked_at = looked_at
        self._sent_at = 0.0

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Send what happens, until the reader has gone, the session is gone, or the server goes."""
        await send({"type": "http.response.start", "status": 200, "headers": self.raw_headers})
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(_until_gone, receive, tasks.cancel_scope)
            farewell = b"event: bye\ndata: {}\n\n"
            with anyio.move_on_after(STREAM_S_MAX) as reading:
                tasks.start_soon(_until_ending, self._ending, reading)
                try:
                    await self._follow(send)
                except SessionNotFound:
                    farewell = b"event: closed\ndata: {}\n\n"
                except MeerkatError as exc:
                    log.warning("A stream of events was cut off: %s", exc.message)
            with anyio.move_on_after(FAREWELL_WAIT_S):
                await send({"type": "http.response.body", "body": farewell, "more_body": False})
            tasks.cancel_scope.cancel()
        self._looked_at.pop(self._session_id, None)

    async def _follow(self, send: Send) -> None:
        """Send events until the process ends. Raises SessionNotFound, StoreUnavailable."""
        await self._send(send, f"retry: {RETRY_MS}\n\n".encode())
        async with self._realm.journal.follow(self._session_id, after=self._after) as follower:
            look_at = 0.0
            while True:
                if anyio.current_time() >= look_at:
                    look_at = anyio.current_time() + await self._look(follower.session)
                events: Sequence[Recorded] = ()
                with anyio.CancelScope(deadline=look_at):
                    events = await follower.next()
                for chunk in _chunks(events):
                    await self._send(send, chunk)
                if self._realm.journal.ending:
                    return
                if anyio.current_time() - self._sent_at >= PING_INTERVAL_S:
                    await self._send(send, b": ping\n\n")

    async def _look(self, session: Session) -> float:
        """Look after the session, unless another reader of it just did; in how many seconds to do it again."""
        interval_s = ACTIVE_CHECK_INTERVAL_S if session.active else IDLE_CHECK_INTERVAL_S
        now_s = anyio.current_time()
        if now_s - self._looked_at.get(session.id, -interval_s) >= interval_s:
            await self._realm.sessions.settled(session.id)
            self._looked_at[session.id] = now_s
        return interval_s

    async def _send(self, send: Send, chunk: bytes) -> None:
        await send({"type": "http.response.body", "body": chunk, "more_body": True})
        self._sent_at = anyio.current_time()


def _chunks(events: Sequence[Recorded]) -> list[bytes]:
    """The events as they are sent, many small ones together."""
    chunks, gathered, size = list[bytes](), list[bytes](), 0
    for recorded in events:
        gathered.append(_framed(recorded))
        size += len(gathered[-1])
        if size >= CHUNK_BYTES_MAX:
            chunks.append(b"".join(gathered))
            gathered, size = [], 0
    return [*chunks, b"".join(gathered)] if gathered else chunks


def _framed(recorded: Recorded) -> bytes:
    body = recorded.body
    if recorded.type == "tool_execution_completed" and b'"images":[{' in body:
        body = json.dumps(event_view(json.loads(body)), ensure_ascii=False, separators=(",", ":")).encode()
    return b"id: %d\nevent: %s\ndata: %s\n\n" % (recorded.seq, recorded.type.encode(), body)


async def _until_gone(receive: Receive, scope: anyio.CancelScope) -> None:
    """End a stream that nobody reads any more."""
    while (await receive())["type"] != "http.disconnect":
        pass
    scope.cancel()


async def _until_ending(ending: Ending, scope: anyio.CancelScope) -> None:
    """End a stream because the server goes."""
    await ending.wait()
    scope.cancel()
