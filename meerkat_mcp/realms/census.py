"""Which realms there are and how each is: looked at from outside, without opening any of them to work in."""

import os
from collections.abc import AsyncGenerator, Sequence
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

from anyio.to_thread import run_sync

from meerkat_mcp.domain.errors import Corrupt, MeerkatError
from meerkat_mcp.domain.realm import Manifest
from meerkat_mcp.realms.choice import RealmChoice
from meerkat_mcp.realms.manifest import realms
from meerkat_mcp.realms.wiring import opened_store
from meerkat_mcp.sessions.clock import Clock
from meerkat_mcp.stores.inspection import Glance, Inspection


@dataclass(frozen=True, slots=True)
class Counted:
    """A realm under a state root: its manifest and what a glance says, or why that cannot be said."""

    realm_id: str
    manifest: Manifest | None
    glance: Glance | None
    size_bytes: int
    trouble: str = ""

    @property
    def used_ms(self) -> int | None:
        """When something last happened in it; it being made counts. None when that is not known."""
        if self.manifest is None or self.glance is None:
            return None
        return max(self.manifest.created_ms, self.glance.used_ms or 0)


async def census(state_root: Path, clock: Clock) -> Sequence[Counted]:
    """Every realm under a state root, by name. One that cannot be looked into hides no other."""
    return [
        await counted(one, state_root, clock)
        if isinstance(one, Manifest)
        else Counted(one[0], None, None, await size_bytes(state_root / one[0]), one[1])
        for one in realms(state_root)
    ]


async def counted(manifest: Manifest, state_root: Path, clock: Clock) -> Counted:
    """One realm, at a glance."""
    choice = RealmChoice(manifest.realm_id, state_root)
    size = await size_bytes(choice.folder)
    try:
        return Counted(manifest.realm_id, manifest, await glance(manifest, choice, clock), size)
    except MeerkatError as error:
        return Counted(manifest.realm_id, manifest, None, size, error.message)


async def glance(manifest: Manifest, choice: RealmChoice, clock: Clock) -> Glance:
    """What can be said of a realm at once; one that nobody has worked in yet is empty. Raises StoreUnavailable,
    Corrupt.
    """
    async with inspected(manifest, choice, clock) as inspection:
        return Glance(0, None) if inspection is None else await inspection.glance()


@asynccontextmanager
async def inspected(manifest: Manifest, choice: RealmChoice, clock: Clock) -> AsyncGenerator[Inspection | None]:
    """The realm's store, looked into; None where there is nothing yet, or it is in nobody's reach. Raises
    StoreUnavailable.
    """
    inspection = await _opened(manifest, choice, clock)
    try:
        yield inspection
    finally:
        if inspection is not None:
            await inspection.close()


async def _opened(manifest: Manifest, choice: RealmChoice, clock: Clock) -> Inspection | None:
    folder = choice.folder
    match manifest.backend:
        case "memory":
            return None
        case "sqlite":
            from meerkat_mcp.stores.sqlite_inspection import FILE_NAME, SQLiteInspection

            if not (folder / FILE_NAME).exists() and not (folder / "realm.bell").exists():
                return None
            return await SQLiteInspection.open(folder, clock_ms=clock.now_ms)
        case "jsonl":
            from meerkat_mcp.stores.jsonl_inspection import JsonlInspection

            if not (folder / "sessions").exists() and not (folder / "realm.owner").exists():
                return None
            return await JsonlInspection.open(folder)
        case "postgres":
            store = await opened_store(manifest, choice, clock)
            from meerkat_mcp.stores.postgres import PostgresStore
            from meerkat_mcp.stores.store_inspection import StoreInspection

            if not isinstance(store, PostgresStore):
                raise Corrupt("The realm's store is another one than its manifest says.")

            async def living() -> Sequence[str]:
                return [f"{name} (process {pid} on {host})" for name, host, pid in await store.living()]

            return StoreInspection(store, living, clock.now_ms)


async def size_bytes(folder: Path) -> int:
    """How much the files in a folder take."""

    def measured() -> int:
        size = 0
        for place, _, names in os.walk(folder):
            for name in names:
                with suppress(OSError):
                    size += os.lstat(os.path.join(place, name)).st_size  # noqa: PTH118
        return size

    return await run_sync(measured)
