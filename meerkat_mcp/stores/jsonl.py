"""The realm in a folder of files that people can read: one a session, one event a line.

`docs/reference/jsonl-format.md` says what the files look like, `jsonl_log` reads and writes them, and `jsonl_logs` says
how that is done. The realm is for one process at a time: it holds a lock as long as the store is open, and the system
gives the lock back when the process dies. So there are no others that record, and no other instances that live.
"""

from collections.abc import AsyncGenerator, Callable, Collection, Sequence
from itertools import islice
from pathlib import Path
from typing import Any, Generic, TypeVar

import anyio
from anyio.to_thread import run_sync
from pydantic import TypeAdapter, ValidationError

from meerkat_mcp.domain.config import Versioned
from meerkat_mcp.domain.errors import Corrupt, StoreUnavailable, unknown_session
from meerkat_mcp.domain.messages import JsonObject
from meerkat_mcp.domain.realm import Instance
from meerkat_mcp.domain.recorded import Recorded
from meerkat_mcp.domain.session import Session
from meerkat_mcp.stores import jsonl_file, jsonl_index
from meerkat_mcp.stores.base import READ_EVENTS_MAX, Append, Claim, Cursor, Selection, Store, Stream
from meerkat_mcp.stores.jsonl_file import unavailable
from meerkat_mcp.stores.jsonl_folder import Folder
from meerkat_mcp.stores.jsonl_index import Card, Index
from meerkat_mcp.stores.jsonl_logs import Logs
from meerkat_mcp.stores.jsonl_search import was_said

OPEN_WAIT_S = 2.0
"""A host that restarts a server starts the new one while the old one is still ending."""
UNSAVED_MAX = 500
"""When so many sessions are not as the index on disk says, it is written anew at the next sign of life: they would
have to be read after a crash."""

CONFIG, STREAMS = "config.json", "streams.json"

T = TypeVar("T")

_streams: TypeAdapter[list[Stream]] = TypeAdapter(list[Stream])


class _Saving(Generic[T]):
    """Writes down the latest state, once for all who ask for it while the writing before goes on."""

    def __init__(self, path: Path, state: Callable[[], T], write: Callable[[T], None]) -> None:
        self._path, self._state, self._write = path, state, write
        self._lock = anyio.Lock()
        self._asked = self._saved = 0

    @property
    def behind(self) -> bool:
        """Whether something is not written that should be."""
        return self._saved < self._asked

    async def save(self) -> None:
        """Return when what is the case now is written. Raises StoreUnavailable."""
        self._asked += 1
        mine = self._asked
        async with self._lock:
            if self._saved < mine:
                asked, state = self._asked, self._state()
                try:
                    await run_sync(self._write, state)
                except OSError as error:
                    raise unavailable(error, self._path) from error
                self._saved = asked


class JsonlStore:
    """Made by `open`, for the event loop it was opened in."""

    def __init__(self, folder: Folder, config: Versioned, streams: dict[str, Stream]) -> None:
        self._folder = folder
        self._index = Index(folder.cards.values())
        self._logs = Logs(folder, self._index)
        self._config, self._config_lock = config, anyio.Lock()
        self._streams = streams
        self._saved_streams = _Saving(folder.path / STREAMS, lambda: list(streams.values()), self._write_streams)
        self._saved_index = _Saving(folder.index, self._cards, self._write_index)
        self._instances: dict[str, Instance] = {}
        self._reserved: dict[str, int] = {}
        self._duties: dict[str, tuple[str, int]] = {}
        self._key: bytes | None = None
        self._key_lock = anyio.Lock()
        self._closed = anyio.Event()

    @classmethod
    async def open(cls, folder: Path, *, clock_ms: Callable[[], int], wait_s: float = OPEN_WAIT_S) -> "JsonlStore":
        """The store in this folder, made if it is not there; another process is waited for so long.

        Raises:
            StoreUnavailable: another process has it open, or it cannot be used.
            Corrupt: a file that is no session's is damaged.
        """
        return cls(*await run_sync(_opened, folder, clock_ms(), wait_s))

    @property
    def mechanisms(self) -> dict[str, str]:
        """See `Store`."""
        return {"sync": jsonl_file.MECHANISM}

    @property
    def warnings(self) -> Sequence[str]:
        """See `Store`."""
        return tuple(self._folder.told)

    async def close(self) -> None:
        """See `Store`. Where it is cancelled the lock is kept: a thread may still be writing."""
        if self._closed.is_set():
            return
        self._closed.set()
        await self._logs.finish()
        try:
            if self._logs.unsaved or self._saved_index.behind:
                await self._saved_index.save()
        finally:
            self._folder.close()

    # ── logs ──

    async def append(self, append: Append) -> None:
        """See `Store`."""
        self._require_open()
        await self._logs.append(append)

    async def load(self, session_id: str) -> Session:
        """See `Store`."""
        self._require_open()
        return await self._logs.session(session_id)

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
        self._require_open()
        return await self._logs.read(session_id, after=after, limit=limit, types=types, through=through)

    async def changes(self) -> AsyncGenerator[Collection[str]]:
        """See `Store`."""
        await self._closed.wait()
        for nothing in ():
            yield nothing

    # ── sessions ──

    async def sessions(
        self, selection: Selection, *, after: Cursor | None = None, offset: int = 0, limit: int = 50
    ) -> Sequence[Session]:
        """See `Store`. A session whose file is damaged is not among them."""
        self._require_open()
        cards = self._index.newest(after)
        begin = min(offset, len(self._index.cards))
        if not selection.query:
            selected = (card for card in cards if card.listed.selected(selection))
            return [card.shown() for card in islice(selected, begin, begin + limit)]

        def said_in(session_id: str) -> bool:
            return was_said(self._folder.file(session_id), selection.query)

        newest = list(cards)
        found = (card for card in newest if card.listed.selected(selection, said_in))
        page = await run_sync(lambda: list(islice(found, begin, begin + limit)), abandon_on_cancel=True)
        return [card.shown() for card in page if card.id in self._index.cards]

    async def matching(self, prefix: str, *, limit: int, principal: str | None = None) -> Sequence[str]:
        """See `Store`. Those whose file is damaged are among them, unless a principal is named: that is not known."""
        self._require_open()
        broken = () if principal else (one for one in self._folder.broken if one.startswith(prefix))
        found = self._index.matching(prefix, limit=limit, principal=principal)
        return sorted({*found, *broken}, reverse=True)[:limit]

    async def delete(self, session_id: str) -> None:
        """See `Store`."""
        self._require_open()
        gone = await self._logs.delete(session_id)
        self._reserved.pop(session_id, None)
        theirs = [each.stream_id for each in self._streams.values() if each.session_id == session_id]
        for stream_id in theirs:
            del self._streams[stream_id]
        if theirs or self._saved_streams.behind:
            await self._saved_streams.save()
        if gone or self._saved_index.behind:
            await self._saved_index.save()

    async def claim(self, key: str) -> Claim | None:
        """See `Store`."""
        self._require_open()
        return self._logs.claims.get(key)

    async def put_claim(self, claim: Claim) -> None:
        """See `Store`."""
        self._require_open()
        await self._logs.put_claim(claim)

    async def prune_claims(self, *, created_before_ms: int) -> int:
        """See `Store`."""
        self._require_open()
        return await self._logs.prune_claims(created_before_ms)

    async def kept_with(self, session_id: str) -> tuple[Sequence[Claim], Sequence[Stream]]:
        """See `Store`."""
        self._require_open()
        card = self._index.cards.get(session_id)
        streams = [each for each in self._streams.values() if each.session_id == session_id]
        return (card.claims if card else ()), streams

    # ── work that waits, or goes on ──

    async def take(self, *, ready_before_ms: int, until_ms: int, now_ms: int, limit: int) -> Sequence[str]:
        """See `Store`."""
        self._require_open()
        self._reserved = {one: ends_ms for one, ends_ms in self._reserved.items() if now_ms < ends_ms}
        waiting = sorted(
            (ready_ms, session_id)
            for session_id, ready_ms in self._index.ready.items()
            if ready_ms < ready_before_ms and session_id not in self._reserved
        )
        taken = [session_id for _, session_id in waiting[:limit]]
        self._reserved |= dict.fromkeys(taken, until_ms)
        return taken

    async def working(self) -> Sequence[tuple[str, str]]:
        """See `Store`."""
        self._require_open()
        return list(self._index.owners.items())

    # ── keeping house ──

    async def tidy(self, session_id: str, *, without: Collection[int], instead: Sequence[Recorded]) -> None:
        """See `Store`. The session's file is written anew."""
        self._require_open()
        await self._logs.tidy(session_id, without, instead)

    async def on_duty(self, duty: str, incarnation: str, *, now_ms: int, until_ms: int) -> bool:
        """See `Store`."""
        self._require_open()
        who, ends_ms = self._duties.get(duty, (incarnation, 0))
        if who != incarnation and now_ms < ends_ms:
            return False
        self._duties[duty] = incarnation, until_ms
        return True

    async def sealing_key(self) -> bytes:
        """See `Store`. Raises Corrupt too."""
        self._require_open()
        async with self._key_lock:
            if self._key is None:
                try:
                    self._key = await run_sync(self._folder.sealing_key)
                except OSError as error:
                    raise unavailable(error, self._folder.path) from error
        return self._key

    # ── config ──

    async def config(self) -> Versioned:
        """See `Store`."""
        self._require_open()
        return self._config.model_copy(deep=True)

    async def put_config(self, document: JsonObject, *, expected: int | None) -> Versioned:
        """See `Store`."""
        self._require_open()
        async with self._config_lock:
            changed = self._config.changed(document, expected).model_copy(deep=True)
            try:
                await run_sync(self._folder.put_document, CONFIG, changed.model_dump())
            except OSError as error:
                raise unavailable(error, self._folder.path / CONFIG) from error
            self._config = changed
        return await self.config()

    # ── streams ──

    async def put_stream(self, stream: Stream) -> None:
        """See `Store`."""
        self._require_open()
        if stream.session_id not in self._index.cards:
            raise unknown_session(stream.session_id)
        self._streams[stream.stream_id] = stream
        await self._saved_streams.save()

    async def stream(self, stream_id: str) -> Stream | None:
        """See `Store`."""
        self._require_open()
        return self._streams.get(stream_id)

    async def close_stream(self, stream_id: str) -> bool:
        """See `Store`."""
        self._require_open()
        if self._streams.pop(stream_id, None) is None:
            return False
        await self._saved_streams.save()
        return True

    async def prune_streams(self, *, used_before_ms: int) -> int:
        """See `Store`."""
        self._require_open()
        idle = [stream_id for stream_id, stream in self._streams.items() if stream.used_ms < used_before_ms]
        for stream_id in idle:
            del self._streams[stream_id]
        if idle:
            await self._saved_streams.save()
        return len(idle)

    # ── instances ──

    async def renew(self, instance: Instance) -> None:
        """See `Store`. Now and then it writes the index, while nobody waits for it."""
        self._require_open()
        if not self._instances:
            try:
                await run_sync(self._folder.sign, instance.instance_id)
            except OSError as error:
                raise unavailable(error, self._folder.path) from error
        self._instances[instance.incarnation] = instance
        if len(self._logs.unsaved) >= UNSAVED_MAX:
            await self._saved_index.save()

    async def alive(self, incarnation: str, *, now_ms: int) -> bool:
        """See `Store`. Only what this process said of itself counts: whoever else was here is gone."""
        instance = self._instances.get(incarnation)
        return instance is not None and now_ms < instance.expires_ms

    async def retire(self, incarnation: str) -> None:
        """See `Store`."""
        self._instances.pop(incarnation, None)

    # ── how it is done ──

    def _require_open(self) -> None:
        if self._closed.is_set():
            raise StoreUnavailable("The store is closed here.")

    def _cards(self) -> list[Card]:
        self._logs.unsaved.clear()
        return list(self._index.cards.values())

    def _write_index(self, cards: list[Card]) -> None:
        jsonl_index.save(self._folder.index, cards)

    def _write_streams(self, streams: list[Stream]) -> None:
        self._folder.put_document(STREAMS, _streams.dump_python(streams, mode="json"), durable=False)


def _opened(path: Path, now_ms: int, wait_s: float) -> tuple[Folder, Versioned, dict[str, Stream]]:
    folder = Folder.open(path, now_ms=now_ms, wait_s=wait_s)
    try:
        config = _read(folder, CONFIG, Versioned.model_validate) or Versioned(generation=0, document={})
        streams = _read(folder, STREAMS, _streams.validate_python) or []
        kept = {each.stream_id: each for each in streams if each.session_id in folder.cards}
        if len(kept) < len(streams):  # a deletion was cut off
            folder.put_document(STREAMS, _streams.dump_python(list(kept.values()), mode="json"))
    except OSError as error:
        folder.close()
        raise unavailable(error, path) from error
    except BaseException:
        folder.close()
        raise
    return folder, config, kept


def _read(folder: Folder, name: str, validate: Callable[[Any], T]) -> T | None:
    if (document := folder.document(name)) is None:
        return None
    try:
        return validate(document)
    except ValidationError as error:
        raise Corrupt(f"{name} is damaged.", hint="Keep a copy, then mend it or remove it.") from error


_: type[Store] = JsonlStore
