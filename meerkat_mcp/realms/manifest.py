"""A realm's manifest: written once, when the realm is made; it pins the backend."""

import json
import os
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any, cast

from pydantic import ValidationError

from meerkat_mcp.domain.errors import Corrupt, InvalidRequest, RealmConflict, RealmNotFound, StoreUnavailable
from meerkat_mcp.domain.messages import JsonObject
from meerkat_mcp.domain.realm import MANIFEST_VERSION, Manifest, check_pin
from meerkat_mcp.realms.choice import DSN_VARIABLE, RealmChoice
from meerkat_mcp.sessions.clock import Clock
from meerkat_mcp.stores.filelock import FileLock

MANIFEST_NAME = "realm_manifest.json"
FRESH_NAME = "realm_manifest.new"
LOCK_NAME = "manifest.lock"
RESIDENT = "resident"
"""How the names of files begin that a resident server needs before there is a realm."""

_UNFINISHED = {
    "copy": (
        "Realm {0!r} is a copy that was cut off, or is being made just now.",
        "Run the same realm copy again: it goes on where it was. If its source is gone, copy from this one with "
        "--as-it-is: each session in it is whole up to some event.",
    ),
    "deletion": ("Realm {0!r} is being deleted.", "Run realm delete again to finish it."),
}


def realms(state_root: Path) -> Iterator[Manifest | tuple[str, str]]:
    """Every realm under a state root, by name; for one that cannot be read its folder and why."""
    if not state_root.is_dir():
        return
    for folder in sorted(path for path in state_root.iterdir() if (path / MANIFEST_NAME).exists()):
        try:
            manifest = read_manifest(folder / MANIFEST_NAME)
            if manifest.realm_id != folder.name:
                raise Corrupt(f"The folder belongs to {manifest.realm_id!r}.")
            yield manifest
        except (Corrupt, StoreUnavailable) as exc:
            yield folder.name, exc.message


def materialized(choice: RealmChoice, clock: Clock, *, must_exist: bool) -> Manifest:
    """The realm's manifest; written first, under a lock, when the realm is new."""
    try:
        manifest = found(choice)
        if manifest is None:
            if must_exist:
                raise unknown_realm(choice.realm_id)
            manifest = made(choice, clock)
    except OSError as exc:
        raise StoreUnavailable(
            f"Realm {choice.realm_id!r} cannot be opened: {exc.strerror or exc}.",
            hint="Check that the state root exists and can be written, or name another with --state-root.",
        ) from exc
    require_whole(manifest)
    check_pin(manifest, choice.backend)
    if choice.dsn_env is not None and manifest.backend != "postgres":
        raise InvalidRequest(
            f"--realm-dsn-env is for realms on postgres; {choice.realm_id!r} is on {manifest.backend}.",
            hint="Leave it out, or make another realm with --realm-backend postgres.",
        )
    return manifest


def found(choice: RealmChoice) -> Manifest | None:
    """The realm's manifest, whole or not; None when nothing is in its place yet. Raises OSError.

    Raises:
        RealmConflict: something else is in its place.
        Corrupt, StoreUnavailable.
    """
    folder = choice.folder
    path = folder / MANIFEST_NAME
    if path.exists():
        manifest = read_manifest(path)
        if manifest.realm_id == choice.realm_id:
            return manifest
        only_case = manifest.realm_id.casefold() == choice.realm_id.casefold()
        raise RealmConflict(
            f"The folder of realm {choice.realm_id!r} belongs to {manifest.realm_id!r}.",
            hint="On this disk names that differ only in case are the same: use that name."
            if only_case
            else "Use that name, or another state root.",
        )
    if path.is_symlink() or (folder.is_symlink() and not folder.exists()):
        raise RealmConflict(
            f"In the place of realm {choice.realm_id!r} is a symbolic link that leads nowhere.",
            hint="Remove the link, or give the realm another name.",
        )
    if not folder.exists():
        return None
    if not folder.is_dir():
        raise RealmConflict(
            f"In the place of realm {choice.realm_id!r} is a file.",
            hint="Move it away, or give the realm another name.",
        )
    others = sorted(entry.name for entry in folder.iterdir() if not _comes_first(entry.name))
    if others and not path.exists():  # else it was made just now
        raise RealmConflict(
            f"The folder of realm {choice.realm_id!r} has no manifest, but {', '.join(others[:5])}"
            f"{' and more' if others[5:] else ''}.",
            hint="If it is a realm's, put its manifest back; else move these away, or give the realm another name.",
        )
    return read_manifest(path) if others else None


def made(choice: RealmChoice, clock: Clock, unfinished: str | None = None) -> Manifest:
    """The manifest of a realm that is new; another process may have been first. Raises OSError, Corrupt."""
    path = choice.folder / MANIFEST_NAME
    choice.folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    with closing(FileLock(choice.folder / LOCK_NAME)) as lock:
        lock.acquire()
        if not path.exists():
            born = _born(choice, clock)
            write_manifest(choice.folder, born.model_copy(update={"unfinished": unfinished}))
    return read_manifest(path)


def require_whole(manifest: Manifest) -> None:
    """Refuse a realm that is not whole. Raises RealmConflict."""
    if manifest.unfinished is not None:
        message, hint = _UNFINISHED[manifest.unfinished]
        raise RealmConflict(message.format(manifest.realm_id), hint=hint)


def unknown_realm(realm_id: str) -> RealmNotFound:
    """There is no such realm."""
    return RealmNotFound(f"There is no realm {realm_id!r} here.", hint="meerkat-mcp realm list shows those there are.")


def read_manifest(path: Path) -> Manifest:
    """What a manifest says. Raises Corrupt, StoreUnavailable."""
    try:
        document: Any = json.loads(path.read_text(encoding="utf-8"))
        version: Any = cast(JsonObject, document).get("version") if isinstance(document, dict) else None
        if isinstance(version, int) and version > MANIFEST_VERSION:
            raise Corrupt(f"The realm was made by a newer meerkat_mcp (manifest {version}).", hint="Update this one.")
        return Manifest.model_validate(document)
    except (ValidationError, ValueError) as exc:
        raise Corrupt(f"The manifest of realm {path.parent.name!r} is damaged.", hint="See its file.") from exc
    except OSError as exc:
        raise StoreUnavailable(f"The manifest of realm {path.parent.name!r} cannot be read.") from exc


def write_manifest(folder: Path, manifest: Manifest) -> None:
    """Put a manifest in its place, whole or not at all, also after a power cut. Raises OSError."""
    fresh = folder / FRESH_NAME
    with fresh.open("w", encoding="utf-8", newline="\n") as file:
        file.write(json.dumps(manifest.model_dump(exclude_none=True), indent=2) + "\n")
        file.flush()
        os.fsync(file.fileno())
    fresh.replace(folder / MANIFEST_NAME)


def _born(choice: RealmChoice, clock: Clock) -> Manifest:
    backend = choice.backend or "sqlite"
    dsn_env = (choice.dsn_env or DSN_VARIABLE) if backend == "postgres" else None
    return Manifest(realm_id=choice.realm_id, backend=backend, created_ms=clock.now_ms(), dsn_env=dsn_env)


def _comes_first(name: str) -> bool:
    """Whether a file may be in a realm's folder before the manifest is."""
    return name in (LOCK_NAME, FRESH_NAME, "copy.lock", ".DS_Store") or name.startswith(RESIDENT)
