"""A realm that lasts as long as its process: to try things out, for tests, and as the shortest reading of the contract.

It is for one process and one journal: there are no others that record, so `changes` waits until the store is closed.
Since nothing here waits for anything, every method is one step that no other task comes between.
"""

import secrets
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
    SEALING_KEY_BYTES,
    Append,
    Claim,
    Cursor,
    KeyTaken,
    Selection,
    SequenceConflict,
    Store,
    Stream,
    fitting,
    tidied,
)
from meerkat_mcp.stores.searching import beginnings, begun_in, said, spelled
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
        self._reserved: dict[str, int] = {}
        self._duties: dict[str, tuple[str, int]] = {}
        self._sealing_key: bytes | None = None
        self._closed = anyio.Event()

    # ── logs ──

    async def append(self, append: Append) -> None:
        """See `Store`."""
        session_id, claim = append.session.id, append.claim
        if claim and claim.key in self._claims:
            raise KeyTaken(self._claims[claim.key])
        log = self._logs.get(session_id, [])
        if append.after != (log[-1].seq if log else 0):
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
        wanted = beginnings(selection.query)

        def said_in(session_id: str) -> bool:
            return bool(wanted) and any(begun_in(wanted, spelled(said(each))) for each in self._logs[session_id])

        selected = (
            self._shown[each.session_id]
            for each in newest_first
            if (place is None or each.place < place) and each.selected(selection, said_in)
        )
        return list(islice(selected, offset, offset + limit))

    async def matching(self, prefix: str, *, limit: int, principal: str | None = None) -> Sequence[str]:
        """See `Store`."""
        found = (session_id for session_id in self._logs if session_id.startswith(prefix))
        theirs = (one for one in found if principal in (None, self._sessions[one].principal))
        return sorted(theirs, reverse=True)[:limit]

    async def delete(self, session_id: str) -> None:
        """See `Store`."""
        for kept in (self._logs, self._sessions, self._shown, self._reserved):
            kept.pop(session_id, None)
        self._claims = {key: claim for key, claim in self._claims.items() if claim.session_id != session_id}
        self._streams = {key: stream for key, stream in self._streams.items() if stream.session_id != session_id}

    async def claim(self, key: str) -> Claim | None:
        """See `Store`."""
        return self._claims.get(key)

    async def put_claim(self, claim: Claim) -> None:
        """See `Store`."""
        await self.load(claim.session_id)
        self._claims.setdefault(claim.key, claim)

    async def prune_claims(self, *, created_before_ms: int) -> int:
        """See `Store`."""
        old = [key for key, claim in self._claims.items() if claim.created_ms < created_before_ms]
        for key in old:
            del self._claims[key]
        return len(old)

    async def kept_with(self, session_id: str) -> tuple[Sequence[Claim], Sequence[Stream]]:
        """See `Store`."""
        claims = [claim for claim in self._claims.values() if claim.session_id == session_id]
        return claims, [stream for stream in self._streams.values() if stream.session_id == session_id]

    # ── work that waits, or goes on ──

    async def take(self, *, ready_before_ms: int, until_ms: int, now_ms: int, limit: int) -> Sequence[str]:
        """See `Store`."""
        self._reserved = {one: ends_ms for one, ends_ms in self._reserved.items() if now_ms < ends_ms}
        waiting = sorted(
            (session.ready_ms, session.id)
            for session in self._sessions.values()
            if session.ready_ms is not None and session.ready_ms < ready_before_ms and session.id not in self._reserved
        )
        taken = [session_id for _, session_id in waiting[:limit]]
        self._reserved |= dict.fromkeys(taken, until_ms)
        return taken

    async def working(self) -> Sequence[tuple[str, str]]:
        """See `Store`."""
        return [
            (session.id, session.turn.owner.incarnation)
            for session in self._sessions.values()
            if session.active and session.turn is not None
        ]

    # ── keeping house ──

    async def tidy(self, session_id: str, *, without: Collection[int], instead: Sequence[Recorded]) -> None:
        """See `Store`."""
        if log := self._logs.get(session_id):
            self._logs[session_id] = tidied(log, without=without, instead=instead)

    async def on_duty(self, duty: str, incarnation: str, *, now_ms: int, until_ms: int) -> bool:
        """See `Store`."""
        who, ends_ms = self._duties.get(duty, (incarnation, 0))
        if who != incarnation and now_ms < ends_ms:
            return False
        self._duties[duty] = incarnation, until_ms
        return True

    async def sealing_key(self) -> bytes:
        """See `Store`."""
        self._sealing_key = self._sealing_key or secrets.token_bytes(SEALING_KEY_BYTES)
        return self._sealing_key

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
