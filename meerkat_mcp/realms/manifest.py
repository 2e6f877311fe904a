"""A realm's manifest: written once, when the realm is made; it pins the backend."""

import json
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any, cast

from pydantic import ValidationError

from meerkat_mcp.domain.errors import Corrupt, InvalidRequest, RealmNotFound, StoreUnavailable
from meerkat_mcp.domain.messages import JsonObject
from meerkat_mcp.domain.realm import MANIFEST_VERSION, Manifest, check_pin
from meerkat_mcp.realms.choice import DSN_VARIABLE, RealmChoice
from meerkat_mcp.sessions.clock import Clock
from meerkat_mcp.stores.filelock import FileLock

MANIFEST_NAME = "realm_manifest.json"


def realms(state_root: Path) -> Iterator[Manifest | tuple[str, str]]:
    """Every realm under a state root, by name; for one that cannot be read its folder and why."""
    if not state_root.is_dir():
        return
    for folder in sorted(path for path in state_root.iterdir() if (path / MANIFEST_NAME).exists()):
        try:
            yield _read_manifest(folder / MANIFEST_NAME)
        except (Corrupt, StoreUnavailable) as exc:
            yield folder.name, exc.message


def materialized(choice: RealmChoice, clock: Clock, *, must_exist: bool) -> Manifest:
    """The realm's manifest; written first, under a lock, when the realm is new."""
    path = choice.folder / MANIFEST_NAME
    try:
        if not path.exists():
            if must_exist:
                raise RealmNotFound(
                    f"There is no realm {choice.realm_id!r} here.", hint="meerkat-mcp realm list shows those there are."
                )
            choice.folder.mkdir(mode=0o700, parents=True, exist_ok=True)
            with FileLock(choice.folder / "manifest.lock"):
                if not path.exists():
                    born = _born(choice, clock)
                    _write_durably(path, json.dumps(born.model_dump(exclude_none=True), indent=2) + "\n")
        manifest = _read_manifest(path)
    except OSError as exc:
        raise StoreUnavailable(
            f"Realm {choice.realm_id!r} cannot be opened: {exc.strerror or exc}.",
            hint="Check that the state root exists and can be written, or name another with --state-root.",
        ) from exc
    if manifest.realm_id != choice.realm_id:
        raise Corrupt(
            f"The folder of realm {choice.realm_id!r} belongs to {manifest.realm_id!r}.",
            hint="Use that name, or another state root.",
        )
    check_pin(manifest, choice.backend)
    if choice.dsn_env is not None and manifest.backend != "postgres":
        raise InvalidRequest(
            f"--realm-dsn-env is for realms on postgres; {choice.realm_id!r} is on {manifest.backend}.",
            hint="Leave it out, or make another realm with --realm-backend postgres.",
        )
    return manifest


def _born(choice: RealmChoice, clock: Clock) -> Manifest:
    backend = choice.backend or "sqlite"
    dsn_env = (choice.dsn_env or DSN_VARIABLE) if backend == "postgres" else None
    return Manifest(realm_id=choice.realm_id, backend=backend, created_ms=clock.now_ms(), dsn_env=dsn_env)


def _read_manifest(path: Path) -> Manifest:
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


def _write_durably(path: Path, text: str) -> None:
    """Write a file so that it is there whole or not at all, also after a power cut."""
    fresh = path.with_suffix(".new")
    with fresh.open("w", encoding="utf-8", newline="\n") as file:
        file.write(text)
        file.flush()
        os.fsync(file.fileno())
    fresh.replace(path)
