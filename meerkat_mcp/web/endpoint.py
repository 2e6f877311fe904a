"""MCP's address: the SDK's transport, with two of its rough edges taken off."""

import logging
from typing import Any

import anyio
from mcp.server import MCPServer
from starlette.requests import ClientDisconnect
from starlette.responses import JSONResponse, Response
from starlette.types import Message, Receive, Scope, Send

from meerkat_mcp.web.bodies import replayed, whole_body

log = logging.getLogger(__name__)


class Endpoint:
    """Passes requests on to the sessions of a server whose app was made, once they are whole.

    `Last-Event-ID` is taken off: it asks for messages again that were lost, which we do not keep (every event of ours
    can be read again by other ways), and the SDK has no answer to it. A message to a session that ends in this very
    moment is answered like one to a session that has ended: 404.
    """

    def __init__(self, server: MCPServer[Any], body_bytes_max: int) -> None:
        self._sessions = server.session_manager
        self._body_bytes_max = body_bytes_max

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one request."""
        begun = over = False

        async def sent(message: Message) -> None:
            nonlocal begun, over
            if over or (begun and message["type"] == "http.response.start"):
                return  # a second answer, to a request that had one
            begun, over = True, message["type"] == "http.response.body" and not message.get("more_body", False)
            await send(message)

        body = await whole_body(receive, self._body_bytes_max)
        if body is None:
            raise ClientDisconnect
        if len(body) > self._body_bytes_max:
            return await Response("Request body too large", 413)(scope, receive, send)
        headers = [(name, value) for name, value in scope["headers"] if name != b"last-event-id"]
        try:
            await self._sessions.handle_request({**scope, "headers": headers}, replayed(body, receive), sent)
        except (anyio.ClosedResourceError, anyio.BrokenResourceError):
            log.info("A message came while its MCP session ended.")
            if not begun:
                error = {"jsonrpc": "2.0", "id": None, "error": {"code": -32600, "message": "Session not found"}}
                await JSONResponse(error, 404)(scope, receive, send)
