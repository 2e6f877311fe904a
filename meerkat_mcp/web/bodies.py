"""The body of a request: read before the app sees it and given to it again, or read to the end to be thrown away."""

import anyio
from starlette.datastructures import Headers
from starlette.types import Message, Receive

DISCARD_BYTES_MAX = 16 * 1024 * 1024
DISCARD_S = 10.0
DISCARD_QUIET_S = 1.0
"""How much of a body that is too large is still taken in, for how long, and with which pauses: many listen only when
they have sent all, and a connection that is closed before can take the answer with it.
"""


class Incoming:
    """A body as it comes: `receive` in place of the server's, and whether it is `whole` by now."""

    def __init__(self, headers: Headers, receive: Receive) -> None:
        self._receive = receive
        self._length = int(length[:20]) if (length := headers.get("content-length", "")).isdigit() else 0
        self._waits = headers.get("expect", "").lower() == "100-continue"
        self._came = 0
        self.whole = "content-length" not in headers and "transfer-encoding" not in headers

    async def receive(self) -> Message:
        """What comes next of it."""
        self._waits = False  # whoever asks whether it may send is told so by the first call
        message = await self._receive()
        self._came += len(message.get("body", b""))
        self.whole = self.whole or not message.get("more_body", False)
        return message

    async def discard(self, bytes_max: int) -> None:
        """Read the rest of one that is longer than `bytes_max`, if it comes soon and is not far longer.

        Whoever waits to be told whether to send it has not begun, and need not.
        """
        most = bytes_max + DISCARD_BYTES_MAX
        if self._waits or self._length > most:
            return
        with anyio.move_on_after(DISCARD_S):
            quiet = False
            while not (quiet or self.whole or self._came > most):
                with anyio.move_on_after(DISCARD_QUIET_S) as pause:
                    await self.receive()
                quiet = pause.cancelled_caught


async def whole_body(receive: Receive, bytes_max: int) -> bytes | None:
    """The body, cut soon after `bytes_max` bytes; None: the client went away."""
    body = bytearray()
    while True:
        message = await receive()
        if message["type"] != "http.request":
            return None
        body += message.get("body", b"")
        if len(body) > bytes_max or not message.get("more_body", False):
            return bytes(body)


def replayed(body: bytes, receive: Receive) -> Receive:
    """A `receive` that gives the body once more, and then whatever comes."""
    held: list[Message] = [{"type": "http.request", "body": body, "more_body": False}]

    async def replay() -> Message:
        return held.pop() if held else await receive()

    return replay
