"""What a model is to say, in words that fit every wire, and what shall go wrong meanwhile.

A test states a turn once and may be parametrised over the wires; each `*_wire` module makes a vendor's frames of it.
"""

import itertools
import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

JsonObject = dict[str, Any]


@dataclass
class Text:
    text: str


@dataclass
class Thinking:
    """Reasoning; `signature` is also what another wire calls encrypted content."""

    text: str = ""
    signature: str = "sig-0"
    redacted: bool = False


@dataclass
class Call:
    """A tool call; `bad_json` is written in place of `args`. An empty `id` is made up when it is sent."""

    name: str
    args: JsonObject = field(default_factory=dict)
    id: str = ""
    bad_json: str | None = None

    @property
    def written(self) -> str:
        return self.bad_json if self.bad_json is not None else dumps(self.args)


@dataclass
class Usage:
    """`input` is everything read, cached or not; `output` everything written, reasoning too."""

    input: int = 100
    output: int = 20
    cached: int = 40
    cache_write: int = 10
    reasoning: int = 7


@dataclass
class Fault:
    """What goes wrong in a turn. Counts are of frames, times are seconds."""

    status: int | None = None
    """Answer with this status and the vendor's error body."""
    headers: dict[str, str] = field(default_factory=dict)
    code: str | None = None
    """The vendor's code of the error, in place of the usual one."""
    message: str | None = None
    body: str | None = None
    """The raw body, in place of the vendor's error: say, a proxy's HTML page."""
    stall_before: float = 0
    """No response headers for so long."""
    delay: float = 0
    """Between two frames."""
    stall_after: int | None = None
    """Go silent after so many frames, for `stall_for`."""
    stall_for: float = 3600
    cut_after: int | None = None
    """Drop the connection after so many frames."""
    end_after: int | None = None
    """Finish the body cleanly after so many frames, without the terminal event."""
    error_after: int | None = None
    """An error inside the stream after so many frames."""
    garbage_after: int | None = None
    garbage: bytes = b"data: {not json}\n\n"
    chunk: int | None = None
    """Send the bytes in pieces of so many: it splits characters, lines and frames."""


Part = Text | Thinking | Call


@dataclass
class Turn:
    """One reply of a model. `stop`: auto, end, tool, length, refusal, context or pause. `piece`: characters a delta."""

    parts: Sequence[Part] = ()
    stop: str = "auto"
    usage: Usage = field(default_factory=Usage)
    piece: int = 8
    fault: Fault | None = None
    model: str | None = None

    @property
    def stopped(self) -> str:
        if self.stop != "auto":
            return self.stop
        return "tool" if any(isinstance(part, Call) for part in self.parts) else "end"

    def cut(self, text: str) -> list[str]:
        """The deltas of a text; at least one."""
        return [text[at : at + self.piece] for at in range(0, len(text), self.piece)] or [""]


def turn_from_json(turn: Mapping[str, Any]) -> Turn:
    """A turn that came over HTTP: parts with their `kind`, usage and fault as objects."""
    kinds: Mapping[str, Callable[..., Part]] = {"text": Text, "thinking": Thinking, "call": Call}
    parts = [kinds[part.pop("kind")](**part) for part in map(dict, turn.get("parts", []))]
    fault = dict(turn.get("fault") or {})
    if "garbage" in fault:
        fault["garbage"] = fault["garbage"].encode()
    rest = {name: value for name, value in turn.items() if name not in ("parts", "usage", "fault")}
    return Turn(parts=parts, usage=Usage(**turn.get("usage") or {}), fault=Fault(**fault) if fault else None, **rest)


class Wire(Protocol):
    """One vendor's protocol. Frames are whole SSE events."""

    name: str

    def frames(self, turn: Turn, request: JsonObject) -> Iterator[bytes]:
        """The stream of a turn."""
        ...

    def whole(self, frames: Sequence[bytes]) -> JsonObject:
        """What a client that does not stream gets: the same, put together."""
        ...

    def error(self, status: int, code: str | None = None, message: str | None = None) -> JsonObject:
        """The body of an error."""
        ...

    def broken(self, code: str | None, frame: int) -> bytes:
        """An error inside a stream that has begun."""
        ...


# ── what all wires write with ──


def dumps(value: Any) -> str:
    return json.dumps(value, ensure_ascii=False, separators=(",", ":"))


def sse(data: Any, event: str | None = None) -> bytes:
    """One server-sent event."""
    named = f"event: {event}\n" if event else ""
    return f"{named}data: {data if isinstance(data, str) else dumps(data)}\n\n".encode()


def read(frame: bytes) -> Any:
    """What is in an event; None in the one that only says it was the last."""
    data = frame.partition(b"data: ")[2]
    return None if data.startswith(b"[DONE]") else json.loads(data)


_numbers = itertools.count(1)


def new(prefix: str) -> str:
    """An id that no other has."""
    return f"{prefix}{next(_numbers):06d}"


def parsed(text: str) -> JsonObject:
    """Arguments as an object; empty where they are none."""
    try:
        value = json.loads(text or "{}")
    except ValueError:
        return {}
    return value if isinstance(value, dict) else {}
