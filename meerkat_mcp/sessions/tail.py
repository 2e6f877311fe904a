"""What a process knows of a log that it is busy with: the session as of its last event, the latest events, and the
bells that wake who follows it.
"""

import bisect
from collections.abc import Sequence
from dataclasses import dataclass, field

import anyio
import anyio.lowlevel

from meerkat_mcp.domain.events import Event
from meerkat_mcp.domain.recorded import Recorded
from meerkat_mcp.domain.session import Session
from meerkat_mcp.stores.base import READ_EVENTS_MAX

TAIL_EVENTS_MAX = 1024
TAIL_BYTES_MAX = 4 * 1024 * 1024
SLICE_FOLLOWERS = 64
"""Of a crowd that follows one log, how many are woken in one round of the event loop."""

COMPLETES = frozenset({"text_complete", "reasoning_complete"})
_BEGINS = frozenset({"turn_started", "turn_resumed", "step_started"})


@dataclass(eq=False, slots=True)
class Tail:
    """What this process knows of one log: every event after `base`, and the session that they lead to.

    `doubt` is where the log stood for us when the store could not say whether it had taken what we appended.
    """

    session: Session
    base: int
    events: list[Recorded] = field(default_factory=list[Recorded])
    size_bytes: int = 0
    first_delta: int | None = None
    doubt: int | None = None
    users: int = 0
    lock: anyio.Lock = field(default_factory=anyio.Lock)
    bells: dict[int, anyio.Event] = field(default_factory=dict[int, anyio.Event])

    def extend(self, events: Sequence[Recorded]) -> None:
        """Take events in, and forget the oldest when there are too many."""
        self.first_delta = pieces_begin(events, self.first_delta)
        self.events += events
        self.size_bytes += sum(len(recorded.body) for recorded in events)
        if len(self.events) > 2 * TAIL_EVENTS_MAX or self.size_bytes > 2 * TAIL_BYTES_MAX:
            while len(self.events) > 1 and (len(self.events) > TAIL_EVENTS_MAX or self.size_bytes > TAIL_BYTES_MAX):
                dropped = max(1, len(self.events) - TAIL_EVENTS_MAX)
                self.size_bytes -= sum(len(recorded.body) for recorded in self.events[:dropped])
                self.base = self.events[dropped - 1].seq
                del self.events[:dropped]

    def begin_anew(self, session: Session) -> None:
        """Know nothing of the log but this."""
        self.session, self.base, self.events, self.size_bytes, self.first_delta = session, session.seq, [], 0, None

    def after(self, seq: int) -> Sequence[Recorded] | None:
        """The events after `seq`; None when that is further back than the tail reaches."""
        if seq < self.base:
            return None
        at = bisect.bisect_right(self.events, seq, key=lambda recorded: recorded.seq)
        return self.events[at : at + READ_EVENTS_MAX]

    def fresh(self, drafts: Sequence[Event]) -> Sequence[Event]:
        """The drafts without those that turn out to be in the log already, which they say by their ids."""
        if self.doubt is None:
            return drafts
        there = {recorded.event.event_id for recorded in self.events if recorded.seq > self.doubt}
        return [draft for draft in drafts if not draft.event_id or draft.event_id not in there]

    def bell(self, place: int) -> anyio.Event:
        """What the follower in this place waits for when it has everything; it shares it with its neighbours."""
        bell = self.bells.get(place // SLICE_FOLLOWERS)
        if bell is None:
            bell = self.bells[place // SLICE_FOLLOWERS] = anyio.Event()
        return bell

    def wake(self) -> None:
        """Tell the followers to look again, all at once."""
        bells, self.bells = self.bells, {}
        for bell in bells.values():
            bell.set()

    async def wake_in_slices(self) -> None:
        """Tell them some at a time: between two slices the event loop turns to others, who wait for one slice only."""
        bells, self.bells = self.bells, {}
        for bell in bells.values():
            bell.set()
            if len(bells) > 1:
                await anyio.lowlevel.checkpoint()


def pieces_begin(events: Sequence[Recorded], before: int | None) -> int | None:
    """Where the deltas of a text that is not complete begin, after `events`; `before` is where they began before."""
    for recorded in events:
        if recorded.is_delta:
            before = before or recorded.seq
        elif recorded.type in COMPLETES or recorded.type in _BEGINS:
            before = None
    return before
