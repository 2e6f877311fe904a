"""Looking into a store without changing it: what can be said at a glance, and whether what is kept adds up.

The other door to storage, for who looks after realms and not for who works in one. It must work while others use the
store, and on one that is damaged: what is wrong is a finding, not an error, as far as anything can be read at all.
"""

from collections.abc import AsyncIterator, Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal, Protocol

from pydantic import ValidationError

from meerkat_mcp.domain import events as e
from meerkat_mcp.domain.recorded import Recorded
from meerkat_mcp.domain.session import ACCEPTS, Session, advance

Level = Literal["damaged", "warning"]

EVERYTHING = (1 << 31) - 1
"""A limit that is none: all ids of a realm are in memory at once, 100,000 of them in 8 MB."""
PER_SESSION_MAX = 5
"""Of one session: a log that lost its middle would have a finding an event."""

_STEP_ENDS = (e.StepCompleted, e.TurnCompleted, e.TurnWaiting, e.TurnInterrupted, e.TurnLimitReached, e.TurnFailed)


@dataclass(frozen=True, slots=True)
class Finding:
    """Something that is not as it should be, and what to do about it."""

    level: Level
    what: str
    do: str
    session_id: str | None = None


@dataclass(frozen=True, slots=True)
class Glance:
    """How much is there, when something last happened in it (None: never), and who is alive in it, for people."""

    sessions: int
    used_ms: int | None
    live: Sequence[str] = ()


@dataclass(slots=True)
class Examination:
    """One session, event by event: whether its log is one, and adds up to the session that is kept beside it.

    `stored` is that session, as of the event with its number; None when it cannot be read.
    """

    session_id: str
    stored: Session | None
    findings: list[Finding] = field(default_factory=list[Finding])
    events: int = 0
    last_seq: int = 0
    session: Session = field(init=False)
    _in_step: bool = False
    _lost: bool = False
    _compared: bool = False

    def __post_init__(self) -> None:
        self.session = Session(id=self.session_id)
        if self.stored is None:
            self.damaged("what is kept of it beside its log cannot be read", "Copy the realm: a copy is made of logs.")

    def damaged(self, what: str, do: str = "") -> None:
        """Something is wrong with this session."""
        if len(self.findings) < PER_SESSION_MAX:
            do = (
                do or "Keep a copy of the realm; put this session back from a backup, or export what can be read of it."
            )
            self.findings.append(Finding("damaged", f"Session {self.session_id}: {what}.", do, self.session_id))

    def take(self, recorded: Recorded) -> None:
        """The next event of the log."""
        self.events += 1
        self.last_seq = recorded.seq
        if self._lost:
            return
        try:
            event = recorded.event
        except ValidationError:
            self._lose(f"event {recorded.seq} ({recorded.type}) cannot be read")
            return
        if (event.seq, event.type, event.session_id) != (recorded.seq, recorded.type, self.session_id):
            self._lose(f"event {recorded.seq} says that it is another one")
            return
        last = self.session.seq
        if recorded.seq <= last:
            self._lose(f"event {recorded.seq} comes after {last}")
            return
        if recorded.seq > last + 1 and not self._in_step:
            self.damaged(f"events {last + 1} to {recorded.seq - 1} are missing")
        if not isinstance(event, ACCEPTS[self.session.state]):
            self._lose(f"event {recorded.seq} ({recorded.type}) cannot come while it is {self.session.state}")
            return
        self._advance(event)

    def finish(self) -> Sequence[Finding]:
        """The log has ended: everything that was found."""
        stored = self.stored
        if not self.events:
            if not self.findings:
                self.damaged("it has no log")
        elif stored is not None and not self._lost and not self._compared:
            self.damaged(f"its log ends with event {self.session.seq}, but {stored.seq} was recorded")
        return self.findings

    def _advance(self, event: e.Event) -> None:
        try:
            self.session = advance(self.session, event)
        except AssertionError:
            self._lose(f"event {event.seq} ({event.type}) cannot come here")
            return
        if isinstance(event, e.StepStarted):
            self._in_step = True
        elif isinstance(event, _STEP_ENDS):
            self._in_step = False
        if self.stored is not None and event.seq == self.stored.seq:
            self._compared = True
            if other := differing(self.session, self.stored):
                self.damaged(
                    f"its log adds up to another {', '.join(other)} than what is kept beside it",
                    "Copy the realm: a copy is made of logs.",
                )

    def _lose(self, what: str) -> None:
        """From here on nothing can be said."""
        self._lost = True
        self.damaged(what)


class Inspection(Protocol):
    """A store that is looked into. Every method raises StoreUnavailable when it cannot be reached."""

    async def glance(self) -> Glance:
        """What can be said at once. Raises Corrupt too."""
        ...

    async def health(self, *, full: bool) -> Sequence[Finding]:
        """What is wrong with the store itself; `full` takes the time to look at every page of it."""
        ...

    def examinations(self) -> AsyncIterator[Examination]:
        """Each session, its log taken in; not yet finished. Raises Corrupt too."""
        ...

    async def alive(self, incarnation: str) -> bool:
        """Whether that process can still be working."""
        ...

    async def close(self) -> None:
        """Let go of everything."""
        ...


def differing(one: Session, other: Session) -> list[str]:
    """The names of what differs between two views of a session."""
    left: dict[str, Any] = one.model_dump()
    right: dict[str, Any] = other.model_dump()
    return [name for name in left if left[name] != right[name]]


def fed(examination: Examination, events: Iterable[Recorded]) -> Examination:
    """The examination, with these events taken in."""
    for recorded in events:
        examination.take(recorded)
    return examination


def parsed(body: bytes) -> Session | None:
    """The session that was kept so, if it can be read."""
    try:
        return Session.model_validate_json(body)
    except ValidationError:
        return None
