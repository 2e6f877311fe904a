"""The body of a request, read before the app sees it, and given to it again."""

from starlette.types import Message, Receive


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
