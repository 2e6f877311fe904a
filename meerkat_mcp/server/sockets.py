"""Serves one MCP connection of many on a socket. Its end is not the server's: what its host had begun goes on."""

import os
import socket
from weakref import WeakValueDictionary

import anyio
import mcp.types as rpc
from mcp.server.mcpserver import Context
from mcp.shared.message import ServerMessageMetadata, SessionMessage

from meerkat_mcp.server.connection import Connection, Pipes


class Asked:
    """A request that came over a socket; a tool finds it as the request that it answers."""

    transport = "socket"

    def __init__(self, connection: Connection) -> None:
        self._connection = connection
        self.cancelled = False

    @property
    def left_behind(self) -> bool:
        """Whether its connection has ended while its host still wanted it."""
        return self._connection.ended and not self.cancelled


def left_behind(context: Context[object, object]) -> bool:
    """Whether a call is cut off although nobody gave it up: its connection has ended, and the server goes on.

    A host that goes away takes no turn with it; one that cancels its call, and then goes, does.
    """
    request = context.request_context.request
    return isinstance(request, Asked) and request.left_behind


class SocketConnection(Connection):
    """A connection on a socket, which it closes at its end."""

    def __init__(self, peer: socket.socket) -> None:
        self._asked: WeakValueDictionary[rpc.RequestId, Asked] = WeakValueDictionary()
        self._silent = False
        source = peer.detach()
        super().__init__(lambda connection: Pipes(connection, source, os.dup(source)))

    def leave(self, reason: str) -> None:
        """End the connection from our side, and say no more: calls in flight are not answered here."""
        self._silent = True
        self.end(reason)

    async def send(self, item: SessionMessage) -> None:
        """Take a message over, unless we are leaving."""
        if self._silent:
            raise anyio.BrokenResourceError
        await super().send(item)

    def _about(self, message: rpc.JSONRPCMessage) -> ServerMessageMetadata | None:
        if isinstance(message, rpc.JSONRPCNotification) and message.method == "notifications/cancelled":
            request_id = (message.params or {}).get("requestId")
            if isinstance(request_id, int | str) and (asked := self._asked.get(request_id)) is not None:
                asked.cancelled = True
        if not isinstance(message, rpc.JSONRPCRequest):
            return None
        asked = self._asked[message.id] = Asked(self)
        return ServerMessageMetadata(request_context=asked)
