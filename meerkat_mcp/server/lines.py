"""JSON-RPC on a stream of bytes: one message a line; which lines there are, and what is answered to one without any."""

from collections.abc import Iterator
from io import BytesIO

import mcp.types as rpc
from pydantic_core import from_json

LINE_LIMIT_BYTES = 16 * 1024 * 1024  # the longest line with its end, and what may lie here before it is taken up


class LineSplitter:
    """Cuts chunks into lines and never holds more than one line of the allowed length."""

    def __init__(self) -> None:
        self._held = bytearray()

    def split(self, chunk: bytes) -> Iterator[bytes | None]:
        """Yield each line that ends in the chunk, with its end, unless it is blank; None for one that was too long."""
        for piece in BytesIO(chunk):  # which ends where a line ends, or the chunk
            self._held += piece[: LINE_LIMIT_BYTES + 1 - len(self._held)]
            if piece.endswith(b"\n"):
                if len(self._held) > LINE_LIMIT_BYTES:
                    yield None
                elif not self._held.isspace():
                    yield bytes(self._held)
                self._held.clear()


def decode(line: bytes) -> rpc.JSONRPCMessage | None:
    """Return the message on a line, None if it holds none."""
    try:
        message = rpc.jsonrpc_message_adapter.validate_json(line, by_name=False)
    except ValueError:
        return None
    # The SDK takes a request whose id is null or a fraction for a notification, and nobody would ever answer it.
    unanswerable = isinstance(message, rpc.JSONRPCNotification) and b'"id"' in line and "id" in from_json(line)
    return None if unanswerable else message


def refusal(line: bytes | None) -> rpc.JSONRPCError:
    """Return the answer to a line that holds no message; None is a line that was too long."""
    code, text = rpc.INVALID_REQUEST, f"Invalid request: a line is one JSON-RPC message of <= {LINE_LIMIT_BYTES} bytes"
    request_id: rpc.RequestId | None = None
    try:
        match from_json(line or b"null"):
            case {"result": _} | {"error": _} | {"id": bool()}:
                pass  # a broken response has an id of ours: it would hit a bystander among the client's own
            case {"id": int() | str() as request_id}:
                pass
            case _:
                pass
    except ValueError:
        code, text = rpc.PARSE_ERROR, "Parse error: the line is not JSON"
    return rpc.JSONRPCError(jsonrpc="2.0", id=request_id, error=rpc.ErrorData(code=code, message=text))
