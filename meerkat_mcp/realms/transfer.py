"""A session carried from one store into another, event by event, as often as one likes: only what is new is written.

The source may be at work meanwhile. What arrives is the log as it was at some moment, but for pieces of a text that is
still being written: they are nothing without it. Afterwards the two are compared, every byte, and folded: what the
source has taken away from the middle of its log since the last time, or put there, is taken over.
"""

from collections.abc import AsyncGenerator
from dataclasses import dataclass, field

from meerkat_mcp.domain import events as e
from meerkat_mcp.domain.errors import Corrupt, RealmConflict, SessionNotFound
from meerkat_mcp.domain.recorded import Recorded
from meerkat_mcp.domain.session import SHOWN_TYPES, Session, advance
from meerkat_mcp.stores.base import Append, Store
from meerkat_mcp.stores.inspection import differing

TRIES = 5
"""A source at work takes deltas away while they are compared; each time there are fewer."""


@dataclass(slots=True)
class Moved:
    """What was compared of a session, and what of it was new."""

    events: int = 0
    new_events: int = 0
    tidied: int = 0
    claims: int = 0
    streams: int = 0


@dataclass(slots=True)
class _Comparison:
    """What a walk through both logs told."""

    session: Session
    events: int = 0
    turns: set[str] = field(default_factory=set[str])
    without: set[int] = field(default_factory=set[int])
    instead: list[Recorded] = field(default_factory=list[Recorded])


async def carry(source: Store, target: Store, session_id: str) -> Moved | None:
    """Bring a session of the target up to date, and compare it; None when the source does not have it any more.

    Raises:
        RealmConflict: the session in the target has events of its own.
        Corrupt: what was written does not come out as it went in, or the source does not add up.
        StoreUnavailable.
    """
    moved = Moved()
    try:
        through = (await source.load(session_id)).seq
        there = await _standing(target, session_id)
        if there.seq > through:
            raise _astray(session_id)
        last = await _write(source, target, there, through, moved)
        for _ in range(TRIES):
            found = await _compared(source, target, session_id, last)
            if not (found.without or found.instead):
                break
            await target.tidy(session_id, without=found.without, instead=found.instead)
            moved.tidied += len(found.without) + len(found.instead)
        else:
            raise Corrupt(f"Session {session_id} did not come out of the copy as it went in.", session_id=session_id)
    except SessionNotFound:
        return None
    stored = await target.load(session_id)
    if other := differing(found.session, stored):
        raise Corrupt(f"Session {session_id} adds up to another {', '.join(other)} in the copy.", session_id=session_id)
    moved.events = found.events
    await _carry_kept(source, target, found, moved)
    return moved


async def _standing(target: Store, session_id: str) -> Session:
    try:
        return await target.load(session_id)
    except SessionNotFound:
        return Session(id=session_id)


async def _write(source: Store, target: Store, there: Session, through: int, moved: Moved) -> int:
    """Append what the target does not have yet, up to the last event that is no delta; the last seq then."""
    session, waiting, at = there, list[Recorded](), there.seq
    while at < through and (page := await source.read(there.id, after=at, through=through)):
        at = page[-1].seq
        waiting += page
        end = next((place for place in range(len(waiting), 0, -1) if not waiting[place - 1].is_delta), 0)
        events, waiting = waiting[:end], waiting[end:]
        if not events:
            continue
        # A list shows a session as of the last event that it shows, so nothing comes after that one in its append.
        cut = next((place for place in range(len(events), 0, -1) if events[place - 1].type in SHOWN_TYPES), 0)
        for piece, shown in ((events[:cut], True), (events[cut:], False)):
            if piece:
                before = session.seq
                for recorded in piece:
                    session = advance(session, recorded.event)
                await target.append(Append(session, piece, shown=shown, follows=before))
        moved.new_events += len(events)
    return session.seq


async def _compared(source: Store, target: Store, session_id: str, through: int) -> _Comparison:
    """Go through both logs. Raises RealmConflict: the target has what the source never had."""
    found = _Comparison(Session(id=session_id))
    theirs, ours = _log(source, session_id, through), _log(target, session_id, through)
    right = await anext(ours, None)
    async for left in theirs:
        while right is not None and right.seq < left.seq:
            _take_away(found, right)
            right = await anext(ours, None)
        event = left.event
        found.session = advance(found.session, event)
        found.events += 1
        if event.turn_id is not None:
            found.turns.add(event.turn_id)
        if right is None or right.seq != left.seq:
            raise _astray(session_id)
        if right != left:
            _put_there(found, left, event, right)
        right = await anext(ours, None)
    while right is not None:
        _take_away(found, right)
        right = await anext(ours, None)
    return found


def _take_away(found: _Comparison, recorded: Recorded) -> None:
    if not recorded.is_delta:
        raise _astray(found.session.id)
    found.without.add(recorded.seq)


def _put_there(found: _Comparison, left: Recorded, event: e.Event, right: Recorded) -> None:
    """The source says less now; it must be the same event."""
    if right.type != left.type or right.event.event_id != event.event_id:
        raise _astray(found.session.id)
    found.instead.append(left)


async def _log(store: Store, session_id: str, through: int) -> AsyncGenerator[Recorded]:
    at = 0
    while at < through and (page := await store.read(session_id, after=at, through=through)):
        for recorded in page:
            yield recorded
        at = page[-1].seq


async def _carry_kept(source: Store, target: Store, found: _Comparison, moved: Moved) -> None:
    """The claims of the turns that came along, and the streams as far as the log goes here."""
    session_id, last = found.session.id, found.session.seq
    claims, streams = await source.kept_with(session_id)
    _, open_before = await target.kept_with(session_id)
    for claim in claims:
        if claim.turn_id in found.turns:
            await target.put_claim(claim)
            moved.claims += 1
    for stream in streams:
        await target.put_stream(stream.model_copy(update={"after_seq": min(stream.after_seq, last)}))
        moved.streams += 1
    for gone in {one.stream_id for one in open_before} - {one.stream_id for one in streams}:
        await target.close_stream(gone)


def _astray(session_id: str) -> RealmConflict:
    return RealmConflict(
        f"Session {session_id} of the copy has events of its own: the copy was worked in.",
        hint="Copy to a new realm, and keep this one as it is.",
        session_id=session_id,
    )
