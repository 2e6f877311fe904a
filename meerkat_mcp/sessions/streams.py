"""Event streams: a client's place in a log, kept in the store, so that it outlives client and process."""

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from typing import Literal

import anyio

from meerkat_mcp.domain.errors import InvalidRequest, SessionNotFound, StreamNotFound
from meerkat_mcp.domain.recorded import Recorded
from meerkat_mcp.sessions.service import Sessions
from meerkat_mcp.stores.base import Stream

EVENTS_BYTES_MAX = 200_000
"""A read's events together; a single larger one still comes whole."""


@dataclass(frozen=True, slots=True)
class Reading:
    """What a read found. `next_seq` is what to read after next time."""

    status: Literal["event", "timeout", "closed"]
    events: Sequence[Recorded]
    next_seq: int
    more: bool
    session_id: str


class Streams:
    """Opens, reads and closes. Every method raises StoreUnavailable."""

    def __init__(self, sessions: Sessions) -> None:
        self._sessions = sessions
        self._store = sessions.journal.store
        self._clock = sessions.journal.clock

    async def open(self, session_id: str, *, after_seq: int | None, types: Collection[str] = ()) -> Stream:
        """A new place: after `after_seq`, or at the end of what is there. Raises SessionNotFound, InvalidRequest."""
        session = await self._sessions.settled(session_id)
        _check_place(after_seq, session.seq)
        stream = Stream(
            stream_id=f"evt-{self._clock.new_id()}",
            session_id=session_id,
            after_seq=session.seq if after_seq is None else after_seq,
            types=tuple(types),
            used_ms=self._clock.now_ms(),
        )
        await self._store.put_stream(stream)
        return stream

    async def read(
        self,
        stream_id: str,
        *,
        after_seq: int | None = None,
        events_max: int = 100,
        timeout_s: float = 30.0,
        sees: str | None = None,
    ) -> Reading:
        """The next events, or those after `after_seq` once more; waits for the first of them.

        With `sees`, only streams of sessions that this principal began are there at all.

        Raises:
            StreamNotFound: never opened, closed, or idle for too long.
        """
        stream = await self._store.stream(stream_id)
        if stream is None:
            raise _unknown(stream_id)
        session_id = stream.session_id
        try:
            session = await self._sessions.settled(session_id)
        except SessionNotFound:
            await self._store.close_stream(stream_id)
            return Reading("closed", (), stream.after_seq, False, session_id)
        if sees is not None and session.principal != sees:
            raise _unknown(stream_id)
        _check_place(after_seq, session.seq)
        seq = stream.after_seq if after_seq is None else after_seq
        events, seq, more = await self._next(session_id, seq, stream.types, events_max, timeout_s)
        moved = Stream(
            stream_id=stream_id,
            session_id=session_id,
            after_seq=seq,
            types=stream.types,
            used_ms=self._clock.now_ms(),
        )
        if await self._store.stream(stream_id) is None:
            return Reading("closed", events, seq, more, session_id)
        await self._store.put_stream(moved)
        return Reading("event" if events else "timeout", events, seq, more, session_id)

    async def close(self, stream_id: str, *, sees: str | None = None) -> bool:
        """Whether it was open; closing twice is fine."""
        if sees is not None and (stream := await self._store.stream(stream_id)) is not None:
            try:
                theirs = (await self._sessions.journal.load(stream.session_id)).principal == sees
            except SessionNotFound:
                theirs = False
            if not theirs:
                return False
        return await self._store.close_stream(stream_id)

    async def _next(
        self, session_id: str, seq: int, types: Sequence[str], events_max: int, timeout_s: float
    ) -> tuple[Sequence[Recorded], int, bool]:
        async with self._sessions.journal.follow(session_id, after=seq) as log:
            found = await log.ready()  # what is there comes even when there is no time to wait
            with anyio.move_on_after(timeout_s):
                while not any(_wanted(recorded, types) for recorded in found):
                    if not (found := await log.next()):
                        break  # the process ends: the caller reads on from another one
            events, more = one_read([recorded for recorded in found if _wanted(recorded, types)], events_max)
            place = events[-1].seq if more else log.seq
            return events, place, more or place < log.session.seq  # large events are not found all at once


def _unknown(stream_id: str) -> StreamNotFound:
    return StreamNotFound(
        f"There is no open event stream {stream_id[:100]!r}.",
        hint="Open one with meerkat_event_stream_open; after_seq continues where you were.",
    )


def _wanted(recorded: Recorded, types: Sequence[str]) -> bool:
    return not types or recorded.type in types


def one_read(events: Sequence[Recorded], events_max: int) -> tuple[Sequence[Recorded], bool]:
    """As many of these as one read takes, and whether some are left; a single one that is larger still comes whole."""
    size, count = 0, 0
    for recorded in events[:events_max]:
        size += len(recorded.body)
        if count and size > EVENTS_BYTES_MAX:
            break
        count += 1
    return events[:count], count < len(events)


def _check_place(after_seq: int | None, last_seq: int) -> None:
    if after_seq is not None and after_seq > last_seq:
        raise InvalidRequest(
            f"after_seq {after_seq} is beyond the last event, {last_seq}.",
            hint="Leave after_seq out to read from now on.",
            last_seq=last_seq,
        )
