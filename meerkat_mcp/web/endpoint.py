"""MCP's address: the SDK's transport, with two of its rough edges taken off, and sessions that any replica can be asked
for.
"""

import logging
from typing import Any

import anyio
from mcp.server import MCPServer
from mcp_types.version import HANDSHAKE_PROTOCOL_VERSIONS
from starlette.datastructures import Headers, MutableHeaders
from starlette.requests import ClientDisconnect
from starlette.responses import Response
from starlette.types import Message, Receive, Scope, Send

from meerkat_mcp.web.bodies import replayed, whole_body
from meerkat_mcp.web.forwarding import Forwarding, not_found
from meerkat_mcp.web.replicas import ARRIVAL_KEY, SESSION_ID, Replica

log = logging.getLogger(__name__)


class Endpoint:
    """Passes requests on to the sessions of a server whose app was made, once they are whole; or to another replica.

    `Last-Event-ID` is taken off: it asks for messages again that were lost, which we do not keep (every event of ours
    can be read again by other ways), and the SDK has no answer to it. A message to a session that ends in this very
    moment is answered like one to a session that has ended: 404.
    """

    def __init__(self, server: MCPServer[Any], replica: Replica, forwarding: Forwarding, body_bytes_max: int) -> None:
        self._sessions = server.session_manager
        self._replica = replica
        self._forwarding = forwarding
        self._body_bytes_max = body_bytes_max

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one request."""
        body = await whole_body(receive, self._body_bytes_max)
        if body is None:
            raise ClientDisconnect
        if len(body) > self._body_bytes_max:
            return await Response("Request body too large", 413)(scope, receive, send)
        given = Headers(scope=scope)
        wire_id = given.get(SESSION_ID)
        if wire_id is None or given.get("mcp-protocol-version", "2025-03-26") not in HANDSHAKE_PROTOCOL_VERSIONS:
            return await self._serve(scope, body, receive, send)
        place = self._replica.place(wire_id)
        if place is not None and place.url == self._replica.url:
            await self._serve(scope, body, receive, send, wire_id, place.session_id)
        elif place is not None and place.url and ARRIVAL_KEY not in scope:
            await self._forwarding.send_on(place, scope, body, receive, send)
        else:
            await not_found()(scope, receive, send)

    async def _serve(
        self, scope: Scope, body: bytes, receive: Receive, send: Send, wire_id: str = "", session_id: str = ""
    ) -> None:
        """Answer here. `session_id` is what the SDK calls the session that its client calls `wire_id`."""
        begun = over = False

        async def sent(message: Message) -> None:
            nonlocal begun, over
            if over or (begun and message["type"] == "http.response.start"):
                return  # a second answer, to a request that had one
            if message["type"] == "http.response.start" and SESSION_ID in (headers := MutableHeaders(scope=message)):
                headers[SESSION_ID] = wire_id or self._replica.wire_id(headers[SESSION_ID])
            begun, over = True, message["type"] == "http.response.body" and not message.get("more_body", False)
            await send(message)

        headers = [(name, value) for name, value in scope["headers"] if name != b"last-event-id"]
        if session_id:
            headers = [(name, session_id.encode() if name == SESSION_ID.encode() else value) for name, value in headers]
        try:
            await self._sessions.handle_request({**scope, "headers": headers}, replayed(body, receive), sent)
        except (anyio.ClosedResourceError, anyio.BrokenResourceError):
            log.info("A message came while its MCP session ended.")
            if not begun:
                await not_found()(scope, receive, send)
