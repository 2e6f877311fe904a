"""The lines of a session's file that are no events: notes, which say of the lines after them what these do not say."""

from dataclasses import dataclass

from pydantic import Field
from pydantic_core import to_json

from meerkat_mcp.domain.messages import JsonObject, Value
from meerkat_mcp.stores.base import Append, Claim

NOTE = "$append"


@dataclass(frozen=True, slots=True)
class Note:
    """What a note says: of the `events` after it, the deltas `superseded` by them (first and last), the claim.

    `missing` are the numbers before these events that are nowhere in the file. Claims that stand before the note and
    were made before `forgotten_ms` do not count any more.
    """

    events: int
    superseded: range = range(0)
    claim: Claim | None = None
    missing: range = range(0)
    forgotten_ms: int = 0

    @classmethod
    def of(cls, append: Append) -> "Note":
        """What there is to say of an append."""
        missing = range(append.after + 1, append.events[0].seq)
        return cls(len(append.events), append.superseded, append.claim, missing)

    @property
    def needed(self) -> bool:
        """Whether anything would be lost without it."""
        return self.events > 1 or bool(self.superseded or self.missing or self.forgotten_ms) or self.claim is not None

    @property
    def line(self) -> bytes:
        """The note as a line of the file."""
        said: JsonObject = {"events": self.events}
        for name, span in (("superseded", self.superseded), ("missing", self.missing)):
            if span:
                said[name] = [span[0], span[-1]]
        if claim := self.claim:
            said["claim"] = {
                "key": claim.key,
                "digest": claim.digest,
                "turn_id": claim.turn_id,
                "created_ms": claim.created_ms,
            }
        if self.forgotten_ms:
            said["forgotten_ms"] = self.forgotten_ms
        return to_json({NOTE: said}) + b"\n"


class _Claim(Value):
    key: str
    digest: str
    turn_id: str
    created_ms: int


class _Said(Value):
    events: int = Field(ge=0)
    superseded: tuple[int, int] = (0, -1)
    missing: tuple[int, int] = (0, -1)
    claim: _Claim | None = None
    forgotten_ms: int = 0


class _Line(Value):
    append: _Said = Field(alias=NOTE)


def is_note(parsed: JsonObject) -> bool:
    """Whether a line is a note, of whatever kind."""
    return next(iter(parsed), "").startswith("$")


def note(parsed: JsonObject, session_id: str) -> Note:
    """The note; raises ValidationError when it says more than this program knows, which would be lost."""
    said = _Line.model_validate(parsed).append
    superseded, missing = (range(first, last + 1) for first, last in (said.superseded, said.missing))
    claim = said.claim and Claim(session_id=session_id, **said.claim.model_dump())
    return Note(said.events, superseded, claim, missing, said.forgotten_ms)
