"""The folder of a realm of files: who may write in it, what is in it, and what is done to a session's file.

Everything here blocks, and raises OSError beside what it names. Different sessions may be worked on at once.
"""

import json
import logging
import os
import secrets
import socket
from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any
from urllib.parse import quote, unquote

from pydantic import ValidationError

from meerkat_mcp.domain.errors import Corrupt, StoreUnavailable
from meerkat_mcp.domain.messages import JsonObject
from meerkat_mcp.domain.recorded import Recorded
from meerkat_mcp.stores import jsonl_file
from meerkat_mcp.stores.base import SEALING_KEY_BYTES
from meerkat_mcp.stores.filelock import FileLock
from meerkat_mcp.stores.jsonl_file import FRESH, Changed, unavailable
from meerkat_mcp.stores.jsonl_index import Card, load, save
from meerkat_mcp.stores.jsonl_log import Damage, Foreign, Line, Log, Reader, Unreadable, without_waste

SUFFIX = ".jsonl"
TORN = ".torn-"
SEALING_KEY = "sealing.key"
TOLD_MAX = 20
WRITTEN_BACK_MS = 3_600_000
"""A process that was killed may have written what the disk does not have yet, and what is read from here on must not
be lost any more. After so long the system has written it by itself."""
_BUFFER_B = 1 << 20

log = logging.getLogger(__name__)


class Folder:
    """The folder, held by this process; `cards` and `broken` are the sessions found in it at first."""

    def __init__(self, path: Path, lock: FileLock, since_ms: int) -> None:
        self.path = path
        self.sessions = path / "sessions"
        self.index = path / "index.jsonl"
        self.cards: dict[str, Card] = {}
        self.broken: dict[str, Corrupt] = {}
        self.told: list[str] = []
        self._lock = lock
        self._since_ms = since_ms
        self._torn: set[str] = set()

    @classmethod
    def open(cls, path: Path, *, now_ms: int, wait_s: float) -> "Folder":
        """Take hold of the folder, made if it is not there, and look at what is in it.

        Raises:
            StoreUnavailable: another process holds it, also after `wait_s`, or it cannot be used.
        """
        try:
            jsonl_file.make_folder(path)
            jsonl_file.make_folder(path / "sessions")
            lock = FileLock(path / "realm.lock")
        except OSError as error:
            raise unavailable(error, path) from error
        try:
            lock.acquire(timeout_s=wait_s)
            folder = cls(path, lock, now_ms)
            folder.sign()
            folder._look()
        except TimeoutError as error:
            lock.close()
            raise _held(path) from error
        except OSError as error:
            lock.close()
            raise unavailable(error, path) from error
        except BaseException:
            lock.close()
            raise
        return folder

    def close(self) -> None:
        """Let go of the folder."""
        self._lock.close()

    def sign(self, instance_id: str | None = None) -> None:
        """Write down who holds the folder, for those who are refused."""
        owner: JsonObject = {"pid": os.getpid(), "host": socket.gethostname(), "since_ms": self._since_ms}
        if instance_id:
            owner["instance_id"] = instance_id
        jsonl_file.replace(self.path / "realm.owner", [json.dumps(owner).encode() + b"\n"], wait_for="nothing")

    def warn(self, message: str) -> None:
        """Tell a person, now and in the warnings."""
        log.warning("%s", message)
        if len(self.told) < TOLD_MAX:
            self.told.append(message)
        elif len(self.told) == TOLD_MAX:
            self.told.append("More files are not as they should be; the log names all of them.")

    # ── a session's file ──

    def file(self, session_id: str) -> Path:
        """Where the session is."""
        return self.sessions / name_of(session_id)

    def log(self, session_id: str, card: Card | None = None) -> tuple[Log, Card | None]:
        """What the file has, and the card for it; what a crash left at its end is cut off and told.

        Where `card` fits the file, the events it tells of are not looked into again. Of a file that has no whole append
        nothing is left, and it has no card. Raises Corrupt, Foreign.
        """
        path = self.file(session_id)
        known = card.shown() if card is not None and card.fits(path.stat()) else None
        with path.open("rb", _BUFFER_B) as file:
            try:
                found = Reader(session_id, known).read(file)
            except Damage as damage:
                raise self._corrupt(session_id, damage) from damage
        if found.torn or not found.size:
            self._cut(session_id, found.size)
            return self.log(session_id) if found.size else (found, None)
        changed_ns = path.stat().st_mtime_ns
        if known is None and changed_ns // 1_000_000 > self._since_ms - WRITTEN_BACK_MS:
            jsonl_file.settle(path)
        return found, Card.of(found.shown, size=found.size, changed_ns=changed_ns, claims=found.claims)

    def events(self, session_id: str, lines: Sequence[Line]) -> list[Recorded]:
        """The events in these places. Raises Changed."""
        raws = jsonl_file.pieces(self.file(session_id), [(line.start, line.end) for line in lines])
        if not all(raw.endswith(b"\n") for raw in raws):
            raise Changed
        return [line.recorded(raw) for line, raw in zip(lines, raws, strict=True)]

    def rewrite(
        self, session_id: str, found: Log, without: Collection[int], instead: Mapping[int, bytes]
    ) -> tuple[Log, int]:
        """Leave out what was superseded, and these events, and have other lines for some: what the file has then, and
        its time of change, in ns. Raises Changed.
        """
        path, claims = self.file(session_id), {claim.key for claim in found.claims}

        def kept() -> Iterator[bytes]:  # closes the file before another one takes its place: Windows demands it
            with path.open("rb", _BUFFER_B) as file:
                if os.fstat(file.fileno()).st_size != found.size:
                    raise Changed
                yield from without_waste(file, found.table.seqs.difference(without), claims, instead)

        before = path.stat()
        try:
            jsonl_file.replace(path, kept())
        except (Unreadable, ValidationError) as error:
            raise Changed from error
        except OSError as error:
            if not os.path.samestat(before, path.stat()):  # only its name may not be on the disk
                raise Changed from error
            raise
        with path.open("rb", _BUFFER_B) as file:
            return Reader(session_id, found.session).read(file), path.stat().st_mtime_ns

    def erase(self, session_id: str) -> None:
        """Remove the session's file, and what was once cut off it."""
        path = self.file(session_id)
        gone = [path, path.with_name(path.name + FRESH)]
        if session_id in self._torn:
            begins = path.stem + TORN
            gone += [other for other in self.sessions.iterdir() if other.name.startswith(begins)]
        for each in gone:
            each.unlink(missing_ok=True)
        jsonl_file.sync_folder(self.sessions)
        self._torn.discard(session_id)

    # ── other files ──

    def document(self, name: str) -> Any:
        """The JSON in a file of that name; None when there is none. Raises Corrupt."""
        try:
            return json.loads((self.path / name).read_text(encoding="utf-8"))
        except FileNotFoundError:
            return None
        except ValueError as error:
            raise Corrupt(f"{name} is damaged.", hint="Keep a copy, then mend it or remove it.") from error

    def put_document(self, name: str, document: Any, *, durable: bool = True) -> None:
        """Put the JSON into that file; unless it is `durable`, a power cut may bring the one before back."""
        data = json.dumps(document, indent=2).encode() + b"\n"
        jsonl_file.replace(self.path / name, [data], wait_for="name" if durable else "content")

    def sealing_key(self) -> bytes:
        """The realm's key, see `Store.sealing_key`; made if there is none. Raises Corrupt."""
        path = self.path / SEALING_KEY
        if not path.exists():
            jsonl_file.replace(path, [secrets.token_hex(SEALING_KEY_BYTES).encode() + b"\n"])
        with suppress(ValueError):
            key = bytes.fromhex(path.read_text(encoding="ascii"))
            if len(key) == SEALING_KEY_BYTES:
                return key
        raise Corrupt(
            f"{SEALING_KEY} is damaged.",
            hint="Remove it: a new one is made, and what clients keep from before is refused once.",
        )

    # ── looking ──

    def _look(self) -> None:
        """Find the sessions; read those that are not as their cards say."""
        known = load(self.index)
        with os.scandir(self.sessions) as found:
            files = sorted(found, key=lambda file: file.name)
        for file in files:
            name = file.name
            session_id = unquote(name.partition(TORN)[0].removesuffix(SUFFIX))
            if name.endswith(SUFFIX + FRESH):
                self.sessions.joinpath(name).unlink()
            elif TORN in name:
                self._torn.add(session_id)
            elif name == name_of(session_id) and file.is_file(follow_symlinks=False):
                card = known.get(session_id)
                # Not what the folder says of the file, which Windows brings up to date only later.
                if card is not None and card.fits(os.stat(file.path)):  # noqa: PTH116
                    self.cards[session_id] = card
                else:
                    self._look_at(session_id)
        if self.cards.keys() - known.keys():
            jsonl_file.sync_folder(self.sessions)
        if self.cards.keys() != known.keys() or any(self.cards[one] is not known[one] for one in self.cards):
            with suppress(OSError):  # then it will be written when the store is closed, or it was no matter
                save(self.index, self.cards.values())

    def _look_at(self, session_id: str) -> None:
        try:
            _, card = self.log(session_id)
        except Foreign:
            self.warn(f"{name_of(session_id)} is no session of this realm: it is left alone.")
        except Corrupt as corrupt:
            self.broken[session_id] = corrupt
        else:
            if card is not None:
                self.cards[session_id] = card

    def _cut(self, session_id: str, size: int) -> None:
        path, number = self.file(session_id), 1
        while (aside := path.with_name(f"{path.stem}{TORN}{number}")).exists():
            number += 1
        jsonl_file.cut(path, size, aside)
        if aside.exists():
            self._torn.add(session_id)
            self.warn(
                f"{path.name} ended within an append, which was never acknowledged. It was cut back to the append "
                f"before; what was cut is in {aside.name}."
            )

    def _corrupt(self, session_id: str, damage: Damage) -> Corrupt:
        name = name_of(session_id)
        corrupt = Corrupt(
            f"{name} is damaged: {damage}. Session {session_id} cannot be used; the others can.",
            hint="Keep a copy of the file, mend that line or cut the file before it, and open the realm again.",
            session_id=session_id,
            file=name,
            line=damage.line,
        )
        self.warn(corrupt.message)
        return corrupt


def name_of(session_id: str) -> str:
    """The name of a session's file: characters that a name may not have are written as in URLs."""
    return quote(session_id, safe="") + SUFFIX


def _held(path: Path) -> StoreUnavailable:
    """What another process is told while one has the folder."""
    owner: dict[str, Any] = {}
    with suppress(OSError, ValueError):
        owner = json.loads((path / "realm.owner").read_text(encoding="utf-8"))
    instance = f"instance {owner['instance_id']}, " if owner.get("instance_id") else ""
    who = f"{instance}process {owner['pid']} on {owner['host']}" if owner.get("pid") else "another process"
    return StoreUnavailable(
        f"The realm in {path.name} is in use by {who}.",
        hint="A jsonl realm is for one process at a time: end that one, or use a realm with the backend sqlite, "
        "which any number of processes share.",
        owner=owner or None,
    )
