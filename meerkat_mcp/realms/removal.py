"""Removing realms: what is theirs goes, what is not stays and is named, and nobody is at work in one that goes."""

import hashlib
import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import unquote

from anyio.to_thread import run_sync

from meerkat_mcp.domain.errors import InvalidRequest, PlanChanged, RealmConflict, StoreUnavailable
from meerkat_mcp.domain.realm import Manifest
from meerkat_mcp.realms.census import Counted, census, glance
from meerkat_mcp.realms.choice import RealmChoice
from meerkat_mcp.realms.manifest import (
    FRESH_NAME,
    LOCK_NAME,
    MANIFEST_NAME,
    RESIDENT,
    found,
    unknown_realm,
    write_manifest,
)
from meerkat_mcp.realms.wiring import opened_store
from meerkat_mcp.sessions.clock import DAY_MS, Clock

_COMMON = {MANIFEST_NAME, FRESH_NAME, LOCK_NAME, "realm.lock", "copy.json", "copy.json.new", "copy.lock"}
_DOCUMENTS = ("config.json", "streams.json", "index.jsonl", "sealing.key")
_OWN = {
    "sqlite": {"realm.bell", *(f"realm.sqlite3{end}" for end in ("", "-wal", "-shm", "-journal"))},
    "jsonl": {
        "realm.owner",
        "realm.owner.new",
        *(
            f"{name}{end}"
            for name in ("config.json", "streams.json", "index.jsonl", "sealing.key")
            for end in ("", ".new")
        ),
    },
    "postgres": set[str](),
    "memory": set[str](),
}


@dataclass(frozen=True, slots=True)
class Removed:
    """What became of a realm's folder: how much went, and which files are not ours and stay."""

    realm_id: str
    files: int
    left: Sequence[str]


async def removed(choice: RealmChoice, clock: Clock, *, only_here: bool = False) -> Removed:
    """Remove a realm for good. `only_here` leaves what is in a database for other machines.

    When it fails some is left, nobody can open the realm, and it helps to do it again.

    Raises:
        RealmNotFound, Corrupt, StoreUnavailable.
        RealmConflict: somebody is at work in it, or something else is in its place.
        InvalidRequest: `only_here` for a realm that is nowhere else.
    """
    try:
        manifest = found(choice)
        if manifest is None:
            raise unknown_realm(choice.realm_id)
        if only_here and manifest.backend != "postgres":
            raise InvalidRequest(f"Realm {choice.realm_id!r} is only here.", hint="Leave out --only-here.")
        if not only_here:
            await require_unused(manifest, choice, clock)
        write_manifest(choice.folder, manifest.model_copy(update={"unfinished": "deletion"}))
        try:
            if not only_here:
                await require_unused(manifest, choice, clock)  # somebody may have come before the mark
        except RealmConflict:
            write_manifest(choice.folder, manifest)
            raise
        if manifest.backend == "postgres" and not only_here:
            await _destroy(manifest, choice, clock)
        return await run_sync(_unlinked, choice, manifest)
    except OSError as error:
        raise StoreUnavailable(
            f"Realm {choice.realm_id!r} cannot be removed: {error.strerror or error}.",
            hint="Check who owns its folder and how the disk is mounted; then delete it again.",
        ) from error


async def require_unused(manifest: Manifest, choice: RealmChoice, clock: Clock) -> None:
    """Refuse when somebody is at work in the realm. Raises RealmConflict, StoreUnavailable, Corrupt."""
    if live := (await glance(manifest, choice, clock)).live:
        raise RealmConflict(
            f"Realm {manifest.realm_id!r} is in use by {', '.join(live[:5])}.",
            hint="End these processes first, and try again.",
            live=list(live),
        )


@dataclass(frozen=True, slots=True)
class Pruning:
    """Realms that nobody has used for long, under a name that stands for exactly these as they are; and those of which
    it is not known, with why.
    """

    going: Sequence[Counted]
    unknown: Sequence[Counted]

    @property
    def plan_id(self) -> str:
        """The same only for the same realms with the same in them."""
        lines: list[str] = []
        for one in self.going:
            made_ms, sessions = one.manifest and one.manifest.created_ms, one.glance and one.glance.sessions
            lines.append(f"{one.realm_id} {made_ms} {sessions} {one.used_ms}\n")
        return f"plan-{hashlib.sha256(''.join(lines).encode()).hexdigest()[:32]}"

    def check(self, plan_id: str) -> None:
        """Refuse to do what another plan says. Raises PlanChanged."""
        if plan_id != self.plan_id:
            names = [one.realm_id for one in self.going]
            raise PlanChanged(
                f"That plan is not what would be removed now: {', '.join(names[:5]) or 'nothing'}.",
                hint="Look at the plan of now, and confirm that one.",
                plan_id=self.plan_id,
                realm_ids=names,
            )


async def pruning(state_root: Path, clock: Clock, *, unused_days: float) -> Pruning:
    """The realms that nobody is at work in and in which nothing has happened for so long."""
    before_ms = clock.now_ms() - int(unused_days * DAY_MS)
    all_of_them = await census(state_root, clock)
    return Pruning(
        going=[
            one
            for one in all_of_them
            if one.used_ms is not None and one.used_ms < before_ms and one.glance is not None and not one.glance.live
        ],
        unknown=[one for one in all_of_them if one.used_ms is None],
    )


async def _destroy(manifest: Manifest, choice: RealmChoice, clock: Clock) -> None:
    from meerkat_mcp.stores.postgres import PostgresStore

    store = await opened_store(manifest, choice, clock)
    try:
        if isinstance(store, PostgresStore):
            await store.destroy()
    finally:
        await store.close()


def _unlinked(choice: RealmChoice, manifest: Manifest) -> Removed:
    """Remove the files, the manifest last."""
    folder, files = choice.folder, 0
    for path in _ours(folder, manifest):
        path.unlink(missing_ok=True)
        files += 1
    for inner in ("instances", "sessions", "source/sessions", "source"):
        _leave(folder / inner)
    (folder / MANIFEST_NAME).unlink(missing_ok=True)
    left = sorted(str(path.relative_to(folder)) for path in folder.rglob("*") if not path.is_dir() or path.is_symlink())
    if not left:
        for inner in sorted((path for path in folder.rglob("*") if path.is_dir()), reverse=True):
            left.append(str(inner.relative_to(folder)))
        if not left:
            folder.rmdir()
    return Removed(choice.realm_id, files + 1, left)


def _ours(folder: Path, manifest: Manifest) -> Iterator[Path]:
    """Every file that is the realm's, the manifest aside."""
    names = (_COMMON | _OWN[manifest.backend]) - {MANIFEST_NAME}
    for path in folder.iterdir():
        if (path.name in names or path.name.startswith(RESIDENT)) and not (path.is_dir() and not path.is_symlink()):
            yield path
    if manifest.backend == "sqlite":
        yield from _matching(folder / "instances", lambda name: name.endswith(".lock"))
    if manifest.backend == "jsonl":
        yield from _sessions(folder / "sessions")
    if (folder / "source").is_dir():  # what a copy of a realm of files was made from, when it was cut off
        yield from _matching(folder / "source", lambda name: name in _COMMON | _OWN["jsonl"])
        yield from _sessions(folder / "source" / "sessions")


def _sessions(folder: Path) -> Iterator[Path]:
    from meerkat_mcp.stores.jsonl_inspection import is_session

    def ours(name: str) -> bool:
        plain = re.sub(r"\.torn-\d+$", "", name)
        if plain != name:
            return (folder / f"{plain}.jsonl").exists() is False or is_session(folder, unquote(plain))
        return is_session(folder, unquote(name.removesuffix(".new").removesuffix(".jsonl")))

    torn_first = sorted(_matching(folder, ours), key=lambda path: path.suffix == ".jsonl")
    yield from torn_first


def _matching(folder: Path, ours: Callable[[str], bool]) -> list[Path]:
    if not folder.is_dir() or folder.is_symlink():
        return []
    return [path for path in folder.iterdir() if path.is_file() and not path.is_symlink() and ours(path.name)]


def _leave(folder: Path) -> None:
    """Remove a folder that is empty now."""
    if folder.is_dir() and not folder.is_symlink() and not any(folder.iterdir()):
        folder.rmdir()
