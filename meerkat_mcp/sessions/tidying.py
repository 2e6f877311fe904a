"""What can go from one log: pieces of texts that never were completed, and the bulk of what a compaction replaced."""

import logging
from collections.abc import AsyncGenerator, Awaitable, Callable
from dataclasses import dataclass

from meerkat_mcp.domain.events import DELTAS, TURN_ENDS
from meerkat_mcp.domain.lightening import Folding, lightened
from meerkat_mcp.domain.recorded import Recorded, encode
from meerkat_mcp.domain.session import Session
from meerkat_mcp.sessions.journal import PAGE_EVENTS
from meerkat_mcp.stores.base import Store, is_full

TAKEN_AT_ONCE = 1000

log = logging.getLogger(__name__)

Pace = Callable[[], Awaitable[None]]
"""Rests between two steps, so that turns go first."""


@dataclass(frozen=True, slots=True)
class Pieces:
    """What a look for deltas found: their number and bytes, the place up to which none are left, and when the oldest of
    those that are left had its turn's end (None: none are left).
    """

    removed: int
    freed_bytes: int
    clean_seq: int
    left_ms: int | None


async def remove_pieces(
    store: Store, session: Session, *, after: int, ended_before_ms: int, pace: Pace, dry_run: bool
) -> Pieces:
    """Take the deltas out of a log that belong to turns that ended before then. The session is at rest."""
    removed = freed = 0
    clean_seq, left_ms = session.seq, None
    open_: list[Recorded] = []
    doomed: list[Recorded] = []
    async for page in _pages(store, session.id, after, session.seq, types=DELTAS | TURN_ENDS):
        for recorded in page:
            if recorded.is_delta:
                open_.append(recorded)
                continue
            ended_ms = recorded.event.timestamp_ms
            if ended_ms < ended_before_ms:
                doomed += open_
            elif open_ and left_ms is None:
                clean_seq, left_ms = open_[0].seq - 1, ended_ms
            open_ = []
        for start in range(0, len(doomed), TAKEN_AT_ONCE):
            taken = doomed[start : start + TAKEN_AT_ONCE]
            if not dry_run:
                await store.tidy(session.id, without={recorded.seq for recorded in taken}, instead=())
            removed += len(taken)
            freed += sum(len(recorded.body) for recorded in taken)
        doomed = []
        await pace()
    return Pieces(removed, freed, clean_seq, left_ms)


async def weigh(store: Store, session: Session, *, after: int, pace: Pace) -> int:
    """The bytes of a log's events after a place."""
    size = 0
    async for page in _pages(store, session.id, after, session.seq):
        size += sum(len(recorded.body) for recorded in page)
        await pace()
    return size


async def lighten(store: Store, session: Session, *, surplus: int, pace: Pace, dry_run: bool) -> tuple[int, int]:
    """Take the long texts from the oldest events that the model reads no more, until so many bytes are saved.

    How many events lost some, and how many bytes that were. What would change the session is left as it is.
    """
    changed = saved = 0
    folding = Folding(session.id)
    async for page in _pages(store, session.id, 0, session.compacted_seq):
        instead: list[Recorded] = []
        saved_here = 0
        for recorded in page:
            event = recorded.event
            lighter = lightened(event) if saved + saved_here < surplus else None
            folding.add(event, lighter or event)
            if lighter is not None and (less := len(recorded.body) - len((put := encode(lighter)).body)) > 0:
                instead.append(put)
                saved_here += less
        if not folding.agrees:
            log.warning("The log of session %s would not fold to the same without its long texts.", session.id)
            break
        if instead and not dry_run:
            await store.tidy(session.id, without=(), instead=instead)
        changed, saved = changed + len(instead), saved + saved_here
        if saved >= surplus:
            break
        await pace()
    return changed, saved


async def _pages(
    store: Store, session_id: str, after: int, through: int, *, types: frozenset[str] = frozenset()
) -> AsyncGenerator[list[Recorded]]:
    while True:
        page = list(await store.read(session_id, after=after, through=through, limit=PAGE_EVENTS, types=types))
        if page:
            yield page
        if not is_full(page, PAGE_EVENTS):
            return
        after = page[-1].seq
