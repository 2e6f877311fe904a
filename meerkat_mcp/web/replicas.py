"""Several processes of a realm behind one address: which of them has an MCP session, and which request it was given.

Clients of 2026-07-28 are answered by whichever replica they reach. One of 2025-11-25 has an MCP session in the process
that it began with, and its next request may reach another one. So the session's id says where it is: the address of
the replica and the SDK's own id, sealed, so that nobody can name an address of their own. Whoever gets a request for
another replica forwards it there (`forwarding`), with a mark that is sealed too: for whom it is, so that rates and the
log are about the client. What is marked is never forwarded again, whatever the mark is worth.
"""

import hashlib
import secrets
from dataclasses import dataclass

from mcp.server.request_state import InvalidRequestState
from starlette.datastructures import Headers, MutableHeaders
from starlette.types import ASGIApp, Receive, Scope, Send

from meerkat_mcp.server.sealing import Seal, SealingKey

SESSION_ID = "mcp-session-id"
MARK = "meerkat-forwarded"
WIRE_ID_CHARS_MAX = 512
"""Of an id as clients know it; a longer one is none of ours."""
ARRIVAL_KEY = "meerkat.arrival"
SENT_ON_KEY = "meerkat.sent_on"
"""In the scope of a request: how it came from another replica, and the address of the one that it was sent on to."""

_DIGEST_BYTES = 16


@dataclass(frozen=True, slots=True)
class Place:
    """Where an MCP session is: the address of a replica (empty: no other one reaches it), and the SDK's id there."""

    url: str
    session_id: str


@dataclass(frozen=True, slots=True)
class Arrival:
    """How a marked request came: through which address, and whether a replica of this realm really sent it."""

    by: str
    genuine: bool


class Replica:
    """This process among those of its realm. `url` is how the others reach it; without it they do not.

    It has to be open before anything is sealed.
    """

    def __init__(self, key: SealingKey, url: str = "") -> None:
        self.url = url.rstrip("/")
        self._ids = Seal(key, "MCP session")
        self._marks = Seal(key, "forwarded request")

    async def open(self) -> None:
        """Get the realm's key. Raises StoreUnavailable."""
        await self._ids.open()
        await self._marks.open()

    def wire_id(self, session_id: str) -> str:
        """The id that a client gets for a session of the SDK's in this process."""
        return self._ids.seal(f"{session_id} {self.url}".encode())

    def place(self, wire_id: str) -> Place | None:
        """Where the session with this id is; None: no replica of this realm gave that id."""
        if len(wire_id) > WIRE_ID_CHARS_MAX:
            return None
        try:
            payload = self._ids.unseal(wire_id)
        except InvalidRequestState:
            return None
        session_id, _, url = payload.decode().partition(" ")
        return Place(url, session_id)

    def mark(self, client: str, wire_id: str) -> str:
        """What goes with a forwarded request: whose it is."""
        return self._marks.seal(_digest(wire_id) + client.encode())

    def marked(self, mark: str, wire_id: str) -> str | None:
        """The client's address; None: the mark is none of this realm's, or that of another session."""
        try:
            payload = self._marks.unseal(mark)
        except InvalidRequestState:
            return None
        return payload[_DIGEST_BYTES:].decode() if payload[:_DIGEST_BYTES] == _digest(wire_id) else None


class Arrivals:
    """Stands before everything that looks at the client: one that came through another replica is still itself."""

    def __init__(self, app: ASGIApp, replica: Replica) -> None:
        self._app = app
        self._replica = replica

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve a request, as that of the client which its mark names if it is a true one."""
        if scope["type"] == "http" and MARK in (headers := Headers(scope=scope)):
            client = self._replica.marked(headers[MARK], headers.get(SESSION_ID, ""))
            by = scope["client"][0] if scope.get("client") else ""
            scope[ARRIVAL_KEY] = Arrival(by, client is not None)
            if client is not None:
                scope["client"] = (client, 0)
            del MutableHeaders(scope=scope)[MARK]
        await self._app(scope, receive, send)


def genuine(scope: Scope) -> bool:
    """Whether another replica let this request in, and counted it, before it came here."""
    arrival = scope.get(ARRIVAL_KEY)
    return isinstance(arrival, Arrival) and arrival.genuine


async def own_key() -> bytes:
    """A key for a process that is alone."""
    return secrets.token_bytes(32)


def _digest(wire_id: str) -> bytes:
    return hashlib.sha256(wire_id.encode()).digest()[:_DIGEST_BYTES]
