"""One HTTP connection: uvicorn's, with an end to requests that never become whole."""

from typing import Any

import h11
from uvicorn.protocols.http.h11_impl import H11Protocol


class Connection(H11Protocol):
    """Closes a connection whose client says half a request and then nothing: such ones would add up.

    `receive_s` is how long a request may take, from its first byte or the connection's beginning to its last byte.
    """

    receive_s = 60.0
    _receiving: Any = None

    def connection_made(self, transport: Any) -> None:
        """A client is there; its first request has to come."""
        super().connection_made(transport)
        self._receiving = self.loop.call_later(self.receive_s, transport.close)

    def connection_lost(self, exc: Exception | None) -> None:
        """The client is gone, or was sent away."""
        self._received()
        super().connection_lost(exc)

    def handle_events(self) -> None:
        """Take up what came, and see whether the request that is being received is whole now."""
        super().handle_events()
        waiting = self.conn.their_state is h11.SEND_BODY or bool(self.conn.trailing_data[0])
        if not waiting:
            self._received()
        elif self._receiving is None:
            self._receiving = self.loop.call_later(self.receive_s, self.transport.close)

    def send_400_response(self, msg: str) -> None:
        """Refuse what is no HTTP; once an answer has begun there is no place for a refusal, so only close."""
        if self.conn.our_state in (h11.IDLE, h11.SEND_RESPONSE):
            super().send_400_response(msg)
        else:
            self.transport.close()

    def _received(self) -> None:
        if self._receiving is not None:
            self._receiving.cancel()
            self._receiving = None
