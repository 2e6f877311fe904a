"""A realm of files, looked into without its lock and without mending anything.

Who has the realm open may write at the same time: what is behind the last whole append of a file is passed over then.
"""

import errno
import json
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import Any, TypeVar
from urllib.parse import unquote

from anyio.to_thread import run_sync

from meerkat_mcp.domain.errors import StoreUnavailable
from meerkat_mcp.domain.messages import JsonObject
from meerkat_mcp.domain.session import Session
from meerkat_mcp.stores.filelock import is_held
from meerkat_mcp.stores.inspection import Examination, Finding, Glance, fed
from meerkat_mcp.stores.jsonl_file import FRESH, pieces, unavailable
from meerkat_mcp.stores.jsonl_folder import SUFFIX, TORN, name_of
from meerkat_mcp.stores.jsonl_index import Card, load
from meerkat_mcp.stores.jsonl_log import Damage, Foreign, Log, Reader

DOCUMENTS = ("config.json", "streams.json")
EVENTS_PER_PIECE = 1000

_BUFFER_B = 1 << 20

T = TypeVar("T")


class JsonlInspection:
    """See `Inspection`."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._sessions = folder / "sessions"

    @classmethod
    async def open(cls, folder: Path) -> "JsonlInspection":
        """Look into this folder. Raises StoreUnavailable: there are no sessions in it."""
        if not (folder / "sessions").is_dir():
            raise StoreUnavailable(
                "The folder sessions is not there.",
                hint="Put a backup in its place.",
            )
        return cls(folder)

    async def close(self) -> None:
        """See `Inspection`."""

    async def glance(self) -> Glance:
        """See `Inspection`."""
        return await self._in_thread(self._glance)

    async def health(self, *, full: bool) -> Sequence[Finding]:
        """See `Inspection`. Every file is looked at in any case."""
        return await self._in_thread(self._problems)

    async def examinations(self) -> AsyncIterator[Examination]:
        """See `Inspection`."""
        cards = await self._in_thread(partial(load, self._folder / "index.jsonl"))
        for session_id in await self._in_thread(lambda: sorted(self._ids())):
            examination = await self._in_thread(partial(self._examined, session_id, cards.get(session_id)))
            if examination is not None:
                yield examination

    async def alive(self, incarnation: str) -> bool:
        """See `Inspection`. What is known is that somebody has the realm open; no two have."""
        return await self._in_thread(self._held)

    async def _in_thread(self, function: Callable[[], T]) -> T:
        try:
            return await run_sync(function)
        except OSError as error:
            raise unavailable(error, self._folder) from error

    def _held(self) -> bool:
        """Whether somebody has the realm open; nobody has where nothing can be written."""
        try:
            return is_held(self._folder / "realm.lock")
        except OSError as error:
            if error.errno == errno.EROFS:
                return False
            raise

    def _ids(self) -> Iterator[str]:
        for path in self._sessions.iterdir():
            session_id = unquote(path.name.removesuffix(SUFFIX))
            if path.name == name_of(session_id) and path.is_file() and not path.is_symlink():
                yield session_id

    def _glance(self) -> Glance:
        known, used = load(self._folder / "index.jsonl"), list[int]()
        for session_id in self._ids():
            card = known.get(session_id)
            with suppress(FileNotFoundError, Damage, Foreign):
                used.append(self._updated_ms(session_id, card))
        live: list[str] = []
        if self._held():
            owner: dict[str, Any] = {}
            with suppress(OSError, ValueError):
                owner = json.loads((self._folder / "realm.owner").read_text(encoding="utf-8"))
            name = owner.get("instance_id") or "somebody"
            live.append(f"{name} (process {owner.get('pid', '?')} on {owner.get('host', '?')})")
        return Glance(len(used), max(used, default=None), live)

    def _updated_ms(self, session_id: str, card: Card | None) -> int:
        path = self._sessions / name_of(session_id)
        if card is not None and card.fits(path.stat()):
            return card.listed.updated_ms
        return self._read(session_id).shown.updated_ms

    def _read(self, session_id: str) -> Log:
        with (self._sessions / name_of(session_id)).open("rb", _BUFFER_B) as file:
            return Reader(session_id).read(file)

    def _examined(self, session_id: str, card: Card | None) -> Examination | None:
        """None when the file is gone, is none of ours, or has no whole append yet."""
        path = self._sessions / name_of(session_id)
        try:
            found = self._read(session_id)
        except (FileNotFoundError, Foreign):
            return None
        except Damage as damage:
            examination = Examination(session_id, Session(id=session_id))
            mend = "Keep a copy of the file; then mend that line, cut the file before it, or take a backup."
            examination.damaged(f"{path.name} is damaged: {damage}", mend)
            return examination
        if not found.size:
            return None
        examination = Examination(session_id, found.shown)
        if card is not None and card.fits(path.stat()) and card.shown() != found.shown:
            what = f"Session {session_id}: index.jsonl shows it as it is not."
            examination.findings.append(Finding("warning", what, "Remove index.jsonl: it is made anew.", session_id))
        lines = found.table.select(0, None, (), EVENTS_PER_PIECE)
        with suppress(FileNotFoundError):
            while lines:
                raws = pieces(path, [(line.start, line.end) for line in lines])
                fed(examination, (line.recorded(raw) for line, raw in zip(lines, raws, strict=True)))
                lines = found.table.select(lines[-1].seq, None, (), EVENTS_PER_PIECE)
        return examination

    def _problems(self) -> list[Finding]:
        found: list[Finding] = []
        there = set(self._ids())
        for name in DOCUMENTS:
            try:
                document: Any = json.loads((self._folder / name).read_text(encoding="utf-8"))
            except FileNotFoundError:
                continue
            except ValueError:
                do = "Keep a copy, then mend it or remove it, while no process has the realm open."
                found.append(Finding("damaged", f"{name} is damaged.", do))
                continue
            streams: list[JsonObject] = document if name == "streams.json" else []
            lost = [stream for stream in streams if stream.get("session_id") not in there]
            if lost:
                what = f"{len(lost)} streams belong to sessions that are not there."
                found.append(Finding("warning", what, "Nothing: the next opening closes them."))
        return [*found, *self._leftovers()]

    def _leftovers(self) -> Iterator[Finding]:
        """Files in the folder of the sessions that are no session."""
        torn = 0
        for path in self._sessions.iterdir():
            if TORN in path.name:
                torn += 1
            elif path.name.endswith(SUFFIX):
                with suppress(FileNotFoundError, Damage, IsADirectoryError):
                    try:
                        self._read(unquote(path.name.removesuffix(SUFFIX)))
                    except Foreign:
                        yield Finding("warning", f"{path.name} is no session of this realm.", "Move it elsewhere.")
            elif not path.name.endswith(SUFFIX + FRESH):
                yield Finding("warning", f"sessions/{path.name} is no file of ours.", "Move it elsewhere.")
        if torn:
            what = f"{torn} ends of logs were cut off after crashes; they were never acknowledged."
            yield Finding("warning", what, "Look into sessions/*.torn-*, and remove them.")


def is_session(folder: Path, session_id: str) -> bool:
    """Whether the file of that name is that session, whole or damaged; one that has no whole append is nobody's."""
    try:
        with (folder / name_of(session_id)).open("rb", _BUFFER_B) as file:
            return Reader(session_id).read(file).size > 0
    except Damage:
        return True
    except (Foreign, FileNotFoundError):
        return False
