"""Everything that callers and followers were told: all of it must be in the logs at the end."""

from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

from simulation.promises import Log

from meerkat_mcp.domain import events as e

Holds = Callable[[Log], bool]


@dataclass
class Known:
    """A session as callers know it. `seq` is how far its log goes at least; `gone`: somebody asked to delete it."""

    session_id: str
    seq: int = 0
    gone: bool = False
    turn_ids: list[str] = field(default_factory=list[str])


@dataclass
class Seen:
    """What one follower saw. `whole` when it read to the end of the log after everything had come to rest."""

    name: str
    session_id: str
    after: int
    events: list[e.Event] = field(default_factory=list[e.Event])
    delays_ms: list[int] = field(default_factory=list[int])
    calm_delays_ms: list[int] = field(default_factory=list[int])
    whole: bool = False


@dataclass
class Configured:
    """The config: the generations that somebody was told, and what each caller may have left in its own place."""

    generations: list[int] = field(default_factory=list[int])
    left: dict[str, list[str]] = field(default_factory=dict[str, list[str]])


@dataclass
class Ledger:
    """The facts, and what was wrong already when it was told."""

    sessions: dict[str, Known] = field(default_factory=dict[str, Known])
    followers: list[Seen] = field(default_factory=list[Seen])
    config: Configured = field(default_factory=Configured)
    told: list[tuple[str, str, Holds]] = field(default_factory=list[tuple[str, str, Holds]])
    prompts: dict[str, set[str]] = field(default_factory=dict[str, set[str]])
    detached: set[str] = field(default_factory=set[str])
    keys: dict[str, set[tuple[str, str | None]]] = field(default_factory=dict[str, set[tuple[str, str | None]]])
    codes: Counter[str] = field(default_factory=Counter[str])
    deeds: Counter[str] = field(default_factory=Counter[str])
    small_s: list[float] = field(default_factory=list[float])
    refused_s: list[float] = field(default_factory=list[float])
    wrong: list[str] = field(default_factory=list[str])

    def met(self, session_id: str) -> Known:
        return self.sessions.setdefault(session_id, Known(session_id))

    def tell(self, session_id: str, what: str, holds: Holds) -> None:
        """Somebody was told this of a session: it must be in its log for ever."""
        self.told.append((session_id, what, holds))

    def living(self) -> Sequence[Known]:
        return [known for known in self.sessions.values() if not known.gone]


def ended(turn_id: str, kind: str, **facts: Any) -> Holds:
    """The turn ended so."""
    return lambda log: any(
        event.type == kind
        and event.turn_id == turn_id
        and all(getattr(event, name) == value for name, value in facts.items())
        for event in log
    )


def waited(turn_id: str, calls: Sequence[str]) -> Holds:
    """The turn stood still for these calls."""

    def holds(log: Log) -> bool:
        return any(
            isinstance(event, e.TurnWaiting)
            and event.turn_id == turn_id
            and set(calls) <= {call.tool_use_id for call in event.pending_tool_calls}
            for event in log
        )

    return holds


def contains(told: e.Event) -> Holds:
    """This very event is there."""
    return lambda log: told in log
