"""A realm that lasts as long as its process: to try things out, for tests, and as the shortest reading of the contract.

It is for one process and one journal: there are no others that record, so `changes` waits until the store is closed.
Since nothing here waits for anything, every method is one step that no other task comes between.
"""

from bisect import bisect_right
from collections.abc import AsyncGenerator, Collection, Mapping, Sequence
from itertools import islice
from types import MappingProxyType

import anyio

from meerkat_mcp.domain.config import Versioned
from meerkat_mcp.domain.errors import unknown_session
from meerkat_mcp.domain.messages import JsonObject
from meerkat_mcp.domain.realm import Instance
from meerkat_mcp.domain.recorded import Recorded
from meerkat_mcp.domain.session import Session
from meerkat_mcp.stores.base import (
    READ_EVENTS_MAX,
    Append,
    Claim,
    Cursor,
    KeyTaken,
    Selection,
    SequenceConflict,
    Store,
    Stream,
    fitting,
)
from meerkat_mcp.stores.selecting import Listed


class MemoryStore:
    """See `Store`, for every method."""

    mechanisms: Mapping[str, str] = MappingProxyType({})
    warnings: tuple[str, ...] = ()

    def __init__(self) -> None:
        self._logs: dict[str, list[Recorded]] = {}
        self._sessions: dict[str, Session] = {}
        self._shown: dict[str, Session] = {}
        self._claims: dict[str, Claim] = {}
        self._config = Versioned(generation=0, document={})
        self._streams: dict[str, Stream] = {}
        self._instances: dict[str, Instance] = {}
        self._closed = anyio.Event()

    # ── logs ──

    async def append(self, append: Append) -> None:
        """See `Store`."""
        session_id, claim = append.session.id, append.claim
        if claim and claim.key in self._claims:
            raise KeyTaken(self._claims[claim.key])
        log = self._logs.get(session_id, [])
        if append.events[0].seq != (log[-1].seq if log else 0) + 1:
            raise SequenceConflict(session_id)
        gone = append.superseded
        whole = [*log, *append.events]
        self._logs[session_id] = [each for each in whole if not (each.is_delta and each.seq in gone)] if gone else whole
        self._sessions[session_id] = append.session
        if append.shown or append.begins:
            self._shown[session_id] = append.session
        if claim:
            self._claims[claim.key] = claim

    async def load(self, session_id: str) -> Session:
        """See `Store`."""
        if session_id not in self._sessions:
            raise unknown_session(session_id)
        return self._sessions[session_id]

    async def read(
        self,
        session_id: str,
        *,
        after: int = 0,
        limit: int = READ_EVENTS_MAX,
        types: Collection[str] = (),
        through: int | None = None,
    ) -> Sequence[Recorded]:
        """See `Store`."""
        log = self._logs.get(session_id, [])
        start = bisect_right(log, after, key=lambda recorded: recorded.seq)
        end = len(log) if through is None else bisect_right(log, through, key=lambda recorded: recorded.seq)
        if not types:
            return fitting(log[start : min(end, start + limit)])
        return fitting(islice((recorded for recorded in log[start:end] if recorded.type in types), limit))

    async def changes(self) -> AsyncGenerator[Collection[str]]:
        """See `Store`."""
        await self._closed.wait()
        for nothing in ():
            yield nothing

    # ── sessions ──

    async def sessions(
        self, selection: Selection, *, after: Cursor | None = None, offset: int = 0, limit: int = 50
    ) -> Sequence[Session]:
        """See `Store`."""
        place = None if after is None else (after.updated_ms, after.session_id)
        newest_first = sorted(map(Listed.of, self._shown.values()), key=lambda each: each.place, reverse=True)
        selected = [
            self._shown[each.session_id]
            for each in newest_first
            if each.selected(selection) and (place is None or each.place < place)
        ]
        return selected[offset : offset + limit]

    async def matching(self, prefix: str, *, limit: int, principal: str | None = None) -> Sequence[str]:
        """See `Store`."""
        found = (session_id for session_id in self._logs if session_id.startswith(prefix))
        theirs = (one for one in found if principal in (None, self._sessions[one].principal))
        return sorted(theirs, reverse=True)[:limit]

    async def delete(self, session_id: str) -> None:
        """See `Store`."""
        for kept in (self._logs, self._sessions, self._shown):
            kept.pop(session_id, None)
        self._claims = {key: claim for key, claim in self._claims.items() if claim.session_id != session_id}
        self._streams = {key: stream for key, stream in self._streams.items() if stream.session_id != session_id}

    async def claim(self, key: str) -> Claim | None:
        """See `Store`."""
        return self._claims.get(key)

    # ── config ──

    async def config(self) -> Versioned:
        """See `Store`."""
        return self._config.model_copy(deep=True)

    async def put_config(self, document: JsonObject, *, expected: int | None) -> Versioned:
        """See `Store`."""
        self._config = self._config.changed(document, expected).model_copy(deep=True)
        return await self.config()

    # ── streams ──

    async def put_stream(self, stream: Stream) -> None:
        """See `Store`."""
        await self.load(stream.session_id)
        self._streams[stream.stream_id] = stream

    async def stream(self, stream_id: str) -> Stream | None:
        """See `Store`."""
        return self._streams.get(stream_id)

    async def close_stream(self, stream_id: str) -> bool:
        """See `Store`."""
        return self._streams.pop(stream_id, None) is not None

    async def prune_streams(self, *, used_before_ms: int) -> int:
        """See `Store`."""
        idle = [stream_id for stream_id, stream in self._streams.items() if stream.used_ms < used_before_ms]
        for stream_id in idle:
            del self._streams[stream_id]
        return len(idle)

    # ── instances ──

    async def renew(self, instance: Instance) -> None:
        """See `Store`."""
        self._instances[instance.incarnation] = instance

    async def alive(self, incarnation: str, *, now_ms: int) -> bool:
        """See `Store`."""
        instance = self._instances.get(incarnation)
        return instance is not None and now_ms < instance.expires_ms

    async def retire(self, incarnation: str) -> None:
        """See `Store`."""
        self._instances.pop(incarnation, None)

    async def close(self) -> None:
        """See `Store`."""
        self._closed.set()


_: type[Store] = MemoryStore
