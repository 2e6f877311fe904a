"""What a proxy knows of the MCP that passes through it: who waits for an answer, and what a new server must be told.

Standard library only, and little of it: see the package.
"""

import json

LINE_LIMIT_BYTES = 16 * 1024 * 1024
"""As the server has it (`server.lines`): a longer line is refused here, and never held."""
ENDED_CODE = -32000  # MCP leaves -32000 to -32019 to implementations
_ANSWER = b'{"jsonrpc":"2.0","id":'
_OWN = "meerkat-mcp-proxy-"
_decoder = json.JSONDecoder()

Id = str | int


class Talk:
    """One host's side of the conversation."""

    def __init__(self) -> None:
        self._of_host, self._of_server = bytearray(), bytearray()  # lines that have no end yet
        self._waits: dict[Id, None] = {}  # the host's requests
        self._asks: set[Id] = set()  # the server's requests
        self._replays: set[Id] = set()
        self._told: dict[tuple[str, str], bytes] = {}  # in this order, what makes the connection what it is

    def from_host(self, chunk: bytes) -> list[bytes]:
        """The lines that end in what the host wrote; nothing ends the last one. One that is too long is cut."""
        *lines, rest = (self._of_host + (chunk or b"\n")).split(b"\n")
        self._of_host = rest[: LINE_LIMIT_BYTES + 1]
        return [bytes(line) + b"\n" for line in lines if line and not line.isspace()]

    def asked(self, line: bytes) -> bool:
        """Take note of the host's line; whether it is for this server."""
        message = _object(line)
        if message is None:
            return True  # the server says what is wrong with it
        method, request_id, params = message.get("method"), message.get("id"), _fields(message.get("params"))
        if not isinstance(method, str):
            if not isinstance(request_id, Id):
                return True
            known = request_id in self._asks
            self._asks.discard(request_id)
            return known
        if isinstance(request_id, Id):
            self._waits[request_id] = None
        elif method == "notifications/cancelled" and isinstance(given_up := params.get("requestId"), Id):
            self._waits.pop(given_up, None)  # it is not answered
        self._remember(method, str(params.get("uri")), line)
        return True

    def _remember(self, method: str, uri: str, line: bytes) -> None:
        if method == "initialize":
            self._told = {(method, ""): line}
        elif method in ("notifications/initialized", "logging/setLevel"):
            self._told[method, ""] = line
        elif method == "resources/subscribe":
            self._told[method, uri] = line
        elif method == "resources/unsubscribe":
            self._told.pop(("resources/subscribe", uri), None)

    def from_server(self, chunk: bytes) -> bytes:
        """The lines that end in what the server wrote, but for the answers to what only we said."""
        *lines, self._of_server = (self._of_server + chunk).split(b"\n")
        return b"".join(bytes(line) + b"\n" for line in lines if self._is_for_host(line))

    def _is_for_host(self, line: bytearray) -> bool:
        if not line.startswith(_ANSWER):  # our own server writes it: an id comes first or not at all
            return True
        text = line[len(_ANSWER) : len(_ANSWER) + 4096].decode(errors="replace")
        try:
            request_id, end = _decoder.raw_decode(text)
        except ValueError:
            request_id = json.loads(line)["id"]
            end = len(text)
        if text.startswith(',"method"', end):
            self._asks.add(request_id)
            return True
        self._waits.pop(request_id, None)
        if request_id not in self._replays:
            return True
        self._replays.discard(request_id)
        return False

    def refusals(self, why: str) -> bytes:
        """An error for every request that waits for an answer."""
        refused, self._waits = self._waits, {}
        return b"".join(_error(request_id, ENDED_CODE, why) for request_id in refused)

    def too_long(self) -> bytes:
        """What is answered to a line that is too long."""
        return _error(None, -32600, f"Invalid request: a line is one JSON-RPC message of <= {LINE_LIMIT_BYTES} bytes")

    def forget_server(self) -> None:
        """It is gone, with what it asked and half said."""
        self._of_server.clear()
        self._asks.clear()
        self._replays.clear()

    def replayed(self) -> bytes:
        """What a new server must be told of a connection of the handshake era. In the stateless one that is nothing."""
        said = b""
        for number, line in enumerate(self._told.values()):
            message = _object(line) or {}
            if "id" in message:
                own = message["id"] = f"{_OWN}{number}"
                self._replays.add(own)
            said += json.dumps(message).encode() + b"\n"
        return said


def _object(line: bytes) -> dict[str, object] | None:
    try:
        return _fields(json.loads(line)) or None
    except (ValueError, RecursionError):
        return None


def _fields(value: object) -> dict[str, object]:
    return value if isinstance(value, dict) else {}  # pyright: ignore[reportUnknownVariableType]  (no typing.cast here)


def _error(request_id: Id | None, code: int, message: str) -> bytes:
    said = {"jsonrpc": "2.0", "id": request_id, "error": {"code": code, "message": message}}
    return json.dumps(said).encode() + b"\n"
