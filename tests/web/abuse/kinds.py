"""What a kind of bad request is, where all of them are listed, and what they have to work with."""

import json
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from random import Random
from typing import Any, Literal

from web.abuse.wire import Answer, Headers, request
from web.conftest import MODERN

LEGACY = "2025-11-25"
ACCEPT = "application/json, text/event-stream"
META = {
    "io.modelcontextprotocol/protocolVersion": MODERN,
    "io.modelcontextprotocol/clientCapabilities": {},
    "io.modelcontextprotocol/clientInfo": {"name": "stranger", "version": "1"},
}
NAMED_BY = {"tools/call": "name", "prompts/get": "name", "resources/read": "uri"}


@dataclass
class World:
    """A server and what is known of it: its tokens by who has them, two of its MCP sessions, a session of the realm."""

    host: str
    tokens: dict[str, str]
    mcp_session: str = ""
    foreign_mcp_session: str = ""
    session_id: str = ""
    body_bytes_max: int = 0
    refused: dict[str, str] = field(default_factory=dict)
    """Tokens that are no good, by why."""

    def headers(self, who: str | None = "all") -> list[tuple[str, str]]:
        """What every request of a client has."""
        known = [("Host", self.host), ("Accept", ACCEPT), ("Content-Type", "application/json")]
        return known + ([("Authorization", f"Bearer {self.tokens[who]}")] if who else [])

    def get(self, path: str, *more: tuple[str, str], method: str = "GET", who: str | None = "all") -> bytes:
        """A request without a body."""
        return request(method, path, [*self.headers(who), *more])

    def post(self, body: Any, *more: tuple[str, str], who: str | None = "all", path: str = "/mcp") -> bytes:
        """A POST of bytes, or of JSON; a header in `more` stands in the place of the usual one of that name."""
        content = body if isinstance(body, bytes) else json.dumps(body).encode()
        return request("POST", path, changed(self.headers(who), more), content)

    def modern(self, method: str, params: Any = None, *more: tuple[str, str], who: str | None = "all", **body: Any):
        """A POST of 2026-07-28. What is in `more` and `body` replaces what would be right."""
        message = enveloped(method, params) | body
        return self.post(message, *(*modern_headers(method, params), *more), who=who)

    def tool(self, name: str, arguments: Any, *, who: str = "all") -> bytes:
        """A call of a tool."""
        return self.modern("tools/call", {"name": name, "arguments": arguments}, who=who)

    def legacy(self, body: Any, *more: tuple[str, str], session: str | None = None, who: str = "all") -> bytes:
        """A POST of 2025-11-25 in an MCP session; in the one that there is, unless another is named."""
        own = [("Mcp-Protocol-Version", LEGACY), ("Mcp-Session-Id", session or self.mcp_session)]
        return self.post(body, *changed(own, more), who=who)


def enveloped(method: str, params: Any = None) -> dict[str, Any]:
    """A request of 2026-07-28."""
    given = {} if params is None else params
    return {"jsonrpc": "2.0", "id": 1, "method": method, "params": given | {"_meta": META}}


def modern_headers(method: str, params: Any = None) -> list[tuple[str, str]]:
    """The headers that repeat what is in it."""
    named = (params or {}).get(NAMED_BY.get(method, ""))
    headers = [("MCP-Protocol-Version", MODERN), ("Mcp-Method", method)]
    return headers + ([("Mcp-Name", named)] if isinstance(named, str) else [])


def changed(headers: Iterable[tuple[str, str]], more: Iterable[tuple[str, str]]) -> Headers:
    """The headers, with others in the place of those of the same name; an empty one takes it away."""
    named = {name.lower(): (name, value) for name, value in (*headers, *more)}
    return [(name, value) for name, value in named.values() if value]


def initialize(**params: Any) -> dict[str, Any]:
    """How a client of 2025 begins."""
    known = {
        "protocolVersion": LEGACY,
        "capabilities": {},
        "clientInfo": {"name": "stranger", "version": "1"},
    }
    return {"jsonrpc": "2.0", "id": 1, "method": "initialize", "params": known | params}


Make = Callable[[Random, World], bytes]
Check = Callable[[Answer], object]
How = Literal["answer", "cut"]


@dataclass(frozen=True)
class Kind:
    """A kind of bad request: how one is made, the statuses it may get, and what else must be true of the answer.

    `how`: an answer comes, or the client hangs up in the middle. `ours`: what the answer says is of our making, so an
    error is JSON; what Starlette, h11 or the MCP library say is as they say it.
    """

    name: str
    make: Make
    statuses: frozenset[int]
    check: Check
    how: How
    ours: bool


KINDS: dict[str, Kind] = {}


def kind(*statuses: int, check: Check = bool, how: How = "answer", ours: bool = True) -> Callable[[Make], Make]:
    """List a kind under its function's name; 0 among the statuses: the connection may be closed without an answer."""

    def listed(make: Make) -> Make:
        name = make.__name__.replace("_", " ")
        assert name not in KINDS
        KINDS[name] = Kind(name, make, frozenset(statuses), check, how, ours)
        return make

    return listed


def code(*wanted: int) -> Check:
    """A JSON-RPC error with one of these codes."""

    def check(answer: Answer) -> None:
        found = message_of(answer)["error"]["code"]
        assert found in wanted, f"error code {found}"

    return check


def tool_error(*wanted: str) -> Check:
    """A tool error with one of these codes."""

    def check(answer: Answer) -> None:
        result = message_of(answer)["result"]
        assert result["isError"], result
        error = json.loads(result["content"][0]["text"])["error"]
        assert error["code"] in wanted, error
        assert error["message"]

    return check


def message_of(answer: Answer) -> dict[str, Any]:
    """The JSON-RPC message of an answer, or the last one of a stream."""
    if answer.header("content-type").startswith("text/event-stream"):
        data = [line for line in answer.text.splitlines() if line.startswith("data:")]
        return json.loads(data[-1].removeprefix("data:"))
    return json.loads(answer.body)
