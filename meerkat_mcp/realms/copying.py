"""A realm copied into another one, of whatever backend: the pin of each stays what it is.

The new realm cannot be opened before it is verified: until then its manifest says that it is a copy that is not whole.
What is copied, and from where, is in `copy.json`; so the same copy, done again, goes on where it was.
"""

import json
import os
import shutil
from collections.abc import AsyncGenerator, Callable, Iterator
from contextlib import asynccontextmanager, closing, suppress
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import anyio
from anyio.to_thread import run_sync

from meerkat_mcp.domain.errors import InvalidRequest, RealmConflict, StoreUnavailable
from meerkat_mcp.domain.realm import Manifest
from meerkat_mcp.realms.census import glance
from meerkat_mcp.realms.choice import RealmChoice
from meerkat_mcp.realms.manifest import found, made, require_whole, unknown_realm, write_manifest
from meerkat_mcp.realms.removal import require_unused
from meerkat_mcp.realms.transfer import carry
from meerkat_mcp.realms.wiring import opened_store
from meerkat_mcp.sessions.clock import Clock
from meerkat_mcp.stores.base import Store
from meerkat_mcp.stores.filelock import FileLock
from meerkat_mcp.stores.inspection import EVERYTHING

AT_ONCE = 16
"""Sessions that are carried at the same time: their appends share the waits for the disk."""
NOTE_NAME = "copy.json"

_NOT_SESSIONS = ("config.json", "streams.json")


@dataclass(slots=True)
class Progress:
    """How far a copy is. Of the sessions that are done, `events` were compared, and `new_events` were written.

    `only_here` are sessions of the copy that the source does not have any more, `removed` how many of them went.
    """

    sessions: int = 0
    total: int = 0
    events: int = 0
    new_events: int = 0
    tidied: int = 0
    claims: int = 0
    streams: int = 0
    only_here: int = 0
    removed: int = 0
    generation: int = 0


async def copied(
    source: RealmChoice,
    target: RealmChoice,
    clock: Clock,
    *,
    as_it_is: bool = False,
    mirror: bool = False,
    tell: Callable[[Progress], None] = lambda _: None,
) -> Progress:
    """Copy a realm, or bring a copy up to date, and verify all of it; says what was done.

    `as_it_is` takes a source that is a copy which was cut off. `mirror` deletes sessions from the copy that the source
    does not have any more. `tell` is called now and then.

    Raises:
        RealmNotFound, Corrupt, StoreUnavailable.
        RealmConflict: the target is in use, or no copy of this source; or somebody copies to it just now.
        InvalidRequest: one of them is a realm in memory, or both are the same.
    """
    theirs = _existing(source)
    if not (as_it_is and theirs.unfinished == "copy"):
        require_whole(theirs)
    if _same_place(source.folder, target.folder):
        raise InvalidRequest(
            f"{source.realm_id!r} cannot be copied onto itself.",
            hint="Give the copy another name, or another state root with --to-state-root.",
        )
    try:
        with _alone(target):
            ours = await _prepared(theirs, target, clock)
            async with _reading(theirs, source, target, clock) as reading, _writing(ours, target, clock) as writing:
                await _refuse_foreign(ours, target, writing)
                progress = await _carry_all(reading, writing, mirror=mirror, tell=tell)
            await run_sync(_finish, ours, theirs, target.folder, clock.now_ms(), progress)
    except OSError as error:
        raise StoreUnavailable(
            f"The copy cannot be written: {error.strerror or error}.",
            hint="Check the disk of the copy, and run it again: it goes on where it was.",
        ) from error
    return progress


def _same_place(one: Path, other: Path) -> bool:
    return os.path.realpath(one) == os.path.realpath(other)


def _existing(choice: RealmChoice) -> Manifest:
    try:
        manifest = found(choice)
    except OSError as error:
        raise StoreUnavailable(f"Realm {choice.realm_id!r} cannot be read: {error.strerror or error}.") from error
    if manifest is None:
        raise unknown_realm(choice.realm_id)
    if manifest.backend == "memory":
        raise InvalidRequest(f"Realm {choice.realm_id!r} is in memory: there is nothing of it that could be copied.")
    return manifest


# ── the target ──


def _alone(target: RealmChoice) -> "closing[FileLock]":
    """Nobody else copies to this realm. Raises RealmConflict, OSError."""
    if target.backend == "memory":
        raise InvalidRequest("A copy in memory would be gone at once.", hint="Choose sqlite, jsonl or postgres.")
    found(target)  # what is no realm's is not touched
    target.folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    lock = FileLock(target.folder / "copy.lock")
    if not lock.try_acquire():
        lock.close()
        raise RealmConflict(
            f"Somebody copies to realm {target.realm_id!r} just now.", hint="Wait until that is done, and try again."
        )
    return closing(lock)


async def _prepared(theirs: Manifest, target: RealmChoice, clock: Clock) -> Manifest:
    """The target's manifest, marked; made when it is new."""
    ours, folder = found(target), target.folder
    note = _note(folder)
    if ours is None:
        ours = made(replace(target, backend=target.backend or theirs.backend), clock, unfinished="copy")
        _write_note(folder, {"source": _named(theirs), "began_ms": clock.now_ms(), "counts": None})
        return ours
    if ours.unfinished == "deletion":
        require_whole(ours)
    if note is None and ours.unfinished == "copy":  # it was cut off before it had begun
        note = {"source": _named(theirs), "began_ms": clock.now_ms(), "counts": None}
        _write_note(folder, note)
    if note is None or note.get("source") != _named(theirs):
        raise RealmConflict(
            f"Realm {target.realm_id!r} is there already, and is no copy of {theirs.realm_id!r}.",
            hint="Give the copy another name.",
        )
    if target.backend not in (None, ours.backend):
        raise RealmConflict(
            f"The copy {target.realm_id!r} is on {ours.backend}.",
            hint="Leave out --to-backend, or name another one.",
        )
    await require_unused(ours, target, clock)
    marked = ours.model_copy(update={"unfinished": "copy"})
    write_manifest(folder, marked)
    return marked


def _finish(ours: Manifest, theirs: Manifest, folder: Path, now_ms: int, progress: Progress) -> None:
    note = _note(folder) or {"source": _named(theirs)}
    _write_note(folder, note | {"whole_ms": now_ms, "counts": asdict(progress)})
    write_manifest(folder, ours.model_copy(update={"unfinished": None}))


async def _refuse_foreign(ours: Manifest, target: RealmChoice, store: Store) -> None:
    """A database can have a realm of the copy's name already, of another machine or the very source."""
    note = _note(target.folder) or {}
    if ours.backend != "postgres" or note.get("reached"):
        return
    if (await store.config()).generation or await store.matching("", limit=1):
        await run_sync(_forget, target.folder)
        raise RealmConflict(
            f"The database has a realm {target.realm_id!r} already.",
            hint="Give the copy another name, or take another database.",
        )
    _write_note(target.folder, note | {"reached": True})


def _forget(folder: Path) -> None:
    for name in ("realm_manifest.json", "manifest.lock", NOTE_NAME):
        (folder / name).unlink(missing_ok=True)


def _note(folder: Path) -> dict[str, Any] | None:
    try:
        return json.loads((folder / NOTE_NAME).read_text(encoding="utf-8"))
    except FileNotFoundError:
        return None
    except ValueError:
        return {}


def _write_note(folder: Path, note: dict[str, Any]) -> None:
    fresh = folder / f"{NOTE_NAME}.new"
    fresh.write_text(json.dumps(note, indent=2) + "\n", encoding="utf-8")
    fresh.replace(folder / NOTE_NAME)


def _named(manifest: Manifest) -> dict[str, Any]:
    return {"realm_id": manifest.realm_id, "created_ms": manifest.created_ms}


@asynccontextmanager
async def _writing(manifest: Manifest, choice: RealmChoice, clock: Clock) -> AsyncGenerator[Store]:
    store = await opened_store(manifest, choice, clock)
    try:
        yield store
    finally:
        with anyio.CancelScope(shield=True):
            await store.close()


# ── the source ──


@asynccontextmanager
async def _reading(manifest: Manifest, choice: RealmChoice, target: RealmChoice, clock: Clock) -> AsyncGenerator[Store]:
    """The source's store. A realm of files that somebody works in is read from a copy of its files, made first."""
    beside = target.folder / "source"
    await run_sync(lambda: shutil.rmtree(beside, ignore_errors=True))
    if manifest.backend == "jsonl" and (await glance(manifest, choice, clock)).live:
        await run_sync(_copy_files, choice.folder, beside)
        choice = replace(choice, state_root=target.folder, realm_id="source")
    store = await opened_store(manifest, choice, clock)
    try:
        yield store
    finally:
        with anyio.CancelScope(shield=True):
            await store.close()
            await run_sync(lambda: shutil.rmtree(beside, ignore_errors=True))


def _copy_files(folder: Path, beside: Path) -> None:
    """Files grow at their end or are replaced whole: whatever moment each is copied at, it is one of its own."""
    (beside / "sessions").mkdir(mode=0o700, parents=True)
    names = [*_NOT_SESSIONS, *(f"sessions/{name}" for name in _logs(folder / "sessions"))]
    for name in names:
        with suppress(FileNotFoundError):
            shutil.copyfile(folder / name, beside / name)


def _logs(folder: Path) -> Iterator[str]:
    return (path.name for path in folder.iterdir() if path.suffix == ".jsonl" and path.is_file())


# ── everything ──


async def _carry_all(source: Store, target: Store, *, mirror: bool, tell: Callable[[Progress], None]) -> Progress:
    ids = await source.matching("", limit=EVERYTHING)
    progress = Progress(total=len(ids))
    left = iter(reversed(ids))

    async def work() -> None:
        for session_id in left:
            moved = await carry(source, target, session_id)
            if moved is None:
                progress.total -= 1
                continue
            progress.sessions += 1
            for name in ("events", "new_events", "tidied", "claims", "streams"):
                setattr(progress, name, getattr(progress, name) + getattr(moved, name))
            tell(progress)

    await _together(work)
    await _carry_config(source, target, progress)
    gone = iter([one for one in await target.matching("", limit=EVERYTHING) if one not in set(ids)])

    async def look() -> None:
        for session_id in gone:
            if await source.matching(session_id, limit=1):  # it came meanwhile, or it would not be here
                continue
            progress.only_here += 1
            if mirror:
                await target.delete(session_id)
                progress.removed += 1

    await _together(look)
    return progress


async def _together(work: Callable[[], Any]) -> None:
    """Several at once. The first error ends all, and comes out as it is."""
    raised: list[Exception] = []
    async with anyio.create_task_group() as tasks:

        async def one() -> None:
            try:
                await work()
            except Exception as error:
                raised.append(error)
                tasks.cancel_scope.cancel()

        for _ in range(AT_ONCE):
            tasks.start_soon(one)
    if raised:
        raise raised[0]


async def _carry_config(source: Store, target: Store, progress: Progress) -> None:
    """The document under its generation: it is put as often as it takes, since generations are given one by one."""
    theirs, ours = await source.config(), await target.config()
    if ours.generation > theirs.generation or (ours.generation == theirs.generation and ours != theirs):
        raise RealmConflict(
            "The config of the copy was changed by itself.", hint="Copy to a new realm, and keep this one as it is."
        )
    for generation in range(ours.generation, theirs.generation):
        await target.put_config(theirs.document, expected=generation)
    progress.generation = theirs.generation
