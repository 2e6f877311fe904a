"""Whether a realm is sound: its folder, its store, every session of it; it only looks, and says what to do."""

import os
import shutil
import stat
from collections.abc import AsyncGenerator, Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from anyio.to_thread import run_sync

from meerkat_mcp.domain.errors import Corrupt, MeerkatError
from meerkat_mcp.domain.realm import Manifest
from meerkat_mcp.domain.session import Session
from meerkat_mcp.realms.census import inspected, size_bytes
from meerkat_mcp.realms.choice import RealmChoice
from meerkat_mcp.realms.manifest import found, unknown_realm
from meerkat_mcp.sessions.clock import Clock
from meerkat_mcp.stores.inspection import Finding, Inspection

DISK_FREE_WARNING_B = 256 * 1024 * 1024
WAITS_WARNING_MS = 60_000
"""What waits for a server longer than this waits for one that is not there, or has its hands full."""

_CLOSE_FOLDER = "Close it to others: chmod 700 on the folder."


@dataclass(slots=True)
class Checkup:
    """What was looked at, and what was found. `backend` is empty where the manifest cannot be read."""

    realm_id: str
    backend: str = ""
    sessions: int = 0
    events: int = 0
    size_bytes: int = 0
    live: Sequence[str] = ()
    findings: list[Finding] = field(default_factory=list[Finding])

    @property
    def damaged(self) -> bool:
        """Whether anything is damaged; a warning is no damage."""
        return any(finding.level == "damaged" for finding in self.findings)


async def checked(
    choice: RealmChoice, clock: Clock, *, full: bool = False, tell: Callable[[Checkup], None] = lambda _: None
) -> Checkup:
    """Look a realm over, also one that is at work or damaged. `full` reads every page of a database file. `tell` is
    called after each session.

    Raises:
        RealmNotFound, RealmConflict: there is none of that name.
    """
    checkup = Checkup(choice.realm_id)
    manifest = _manifest(choice, checkup)
    if manifest is None:
        return checkup
    checkup.backend = manifest.backend
    checkup.size_bytes = await size_bytes(choice.folder)
    checkup.findings += await run_sync(lambda: list(_surroundings(choice.folder, manifest)))
    try:
        async with inspected(manifest, choice, clock) as inspection:
            if inspection is not None:
                await _inspect(inspection, checkup, clock, full=full, tell=tell)
    except MeerkatError as error:
        level = "damaged" if isinstance(error, Corrupt) else "warning"
        if error.message not in [finding.what for finding in checkup.findings]:
            checkup.findings.append(Finding(level, error.message, error.hint))
    return checkup


def _manifest(choice: RealmChoice, checkup: Checkup) -> Manifest | None:
    try:
        manifest = found(choice)
    except OSError as error:
        checkup.findings.append(Finding("damaged", f"The folder cannot be read: {error.strerror}.", "Check the disk."))
        return None
    except Corrupt as error:
        what = "Put its realm_manifest.json back: version, realm_id, backend and created_ms."
        checkup.findings.append(Finding("damaged", error.message, what))
        return None
    if manifest is None:
        raise unknown_realm(choice.realm_id)
    return manifest


def _surroundings(folder: Path, manifest: Manifest) -> Iterator[Finding]:
    """The folder, its disk, and the mark on its manifest."""
    if manifest.unfinished == "copy":
        yield Finding("warning", "It is a copy that was cut off, or is being made.", "Run the same realm copy again.")
    if manifest.unfinished == "deletion":
        yield Finding("warning", "It is being deleted.", "Run realm delete again to finish it.")
    mode = folder.stat().st_mode
    if os.name != "nt" and mode & 0o077:
        yield Finding("warning", f"Others may enter the realm's folder (mode {stat.S_IMODE(mode):o}).", _CLOSE_FOLDER)
    if not os.access(folder, os.W_OK):
        yield Finding("warning", "The folder cannot be written.", "Check who owns it, and how the disk is mounted.")
    free = shutil.disk_usage(folder).free
    if free < DISK_FREE_WARNING_B:
        yield Finding("warning", f"The disk has {free >> 20} MiB left.", "Free space, or move the state root.")


async def _inspect(
    inspection: Inspection, checkup: Checkup, clock: Clock, *, full: bool, tell: Callable[[Checkup], None]
) -> None:
    checkup.findings += await inspection.health(full=full)
    checkup.live = (await inspection.glance()).live
    async for examination in inspection.examinations():
        checkup.findings += examination.finish()
        checkup.findings += [one async for one in _work(examination.session, inspection, checkup.live, clock)]
        checkup.sessions += 1
        checkup.events += examination.events
        tell(checkup)


async def _work(session: Session, inspection: Inspection, live: Sequence[str], clock: Clock) -> AsyncGenerator[Finding]:
    """Turns whose process is gone, and what waits for a process that does not come."""
    if session.active and session.turn is not None and not await inspection.alive(session.turn.owner.incarnation):
        owner = session.turn.owner
        yield Finding(
            "warning",
            f"Session {session.id}: its turn runs in no process any more ({owner.instance_id}, process {owner.pid} on "
            f"{owner.host}).",
            "Nothing: whoever looks at the session next ends the turn as owner_lost.",
            session.id,
        )
    if session.ready_ms is not None and (waits_ms := clock.now_ms() - session.ready_ms) > WAITS_WARNING_MS:
        what = "a suspended turn" if session.state == "suspended" else "a queued prompt"
        do = "See what the servers of the realm are busy with." if live else "Start a server: meerkat-mcp serve."
        yield Finding("warning", f"Session {session.id}: {what} waits for {waits_ms // 1000} s.", do, session.id)
