"""Events in their places, with their JSON: written once, then the same bytes in store, stream and wire."""

from dataclasses import dataclass
from typing import Annotated, TypeVar

from pydantic import Field, TypeAdapter
from pydantic_core import PydanticSerializationError

from meerkat_mcp.domain.errors import InvalidRequest
from meerkat_mcp.domain.events import DELTAS, Event, Fact
from meerkat_mcp.domain.messages import JsonObject, legible

E = TypeVar("E", bound=Fact)

_adapter: TypeAdapter[Event] = TypeAdapter(Annotated[Event, Field(discriminator="type")])


@dataclass(slots=True, frozen=True)
class Recorded:
    """An event in its place, with its JSON: written once, then the same bytes in store, stream and wire."""

    seq: int
    type: str
    body: bytes

    @property
    def event(self) -> Event:
        """The event itself, read from its JSON."""
        return _adapter.validate_json(self.body)

    @property
    def is_delta(self) -> bool:
        """Whether a later event supersedes this one."""
        return self.type in DELTAS


def place(
    draft: E,
    *,
    event_id: str,
    seq: int,
    session_id: str,
    turn_id: str | None,
    timestamp_ms: int,
    principal: str | None = None,
) -> E:
    """The drafted event with its place in the log; a draft that names its own turn or principal keeps it."""
    return draft.model_copy(
        update={
            "event_id": event_id,
            "seq": seq,
            "session_id": session_id,
            "turn_id": draft.turn_id or turn_id,
            "timestamp_ms": timestamp_ms,
            "principal": draft.principal or principal,
        }
    )


def encode(event: Event) -> Recorded:
    """The event with its JSON, UTF-8. Fields that are None are left out.

    Raises:
        InvalidRequest: nobody could read it back: nested too deep, or half a character (a lone surrogate).
    """
    try:
        body = event.__pydantic_serializer__.to_json(event, exclude_none=True)
    except PydanticSerializationError:
        body = b""
    if not body or not legible(body):
        raise InvalidRequest(f"The {event.type} cannot be kept: nested too deep, or not Unicode.")
    return Recorded(event.seq, event.type, body)


def schema() -> JsonObject:
    """The JSON Schema of all events, for the reference page."""
    return _adapter.json_schema(mode="serialization")
