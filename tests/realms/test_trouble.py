"""What is in the way of a realm, full disks, disks that cannot be written, clocks that jump: said, and nothing lost."""

import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from stores.conftest import Log
from words import outcome, resume, run, settings, until

from meerkat_mcp.domain.errors import RealmConflict, StoreUnavailable
from meerkat_mcp.domain.events import StepStarted
from meerkat_mcp.realms import Realm, RealmChoice, choose, open_realm
from meerkat_mcp.realms.census import census
from meerkat_mcp.realms.checkup import checked
from meerkat_mcp.sessions.clock import SystemClock
from meerkat_mcp.stores.base import Store

from .conftest import CLOCK, LONG_S, MakeChoice, fill, kept, looked_at, whole
from .test_checkup import turn

pytestmark = pytest.mark.anyio
LOCAL = ("sqlite", "jsonl")
HOUR_MS = 3_600_000


# ── what is in the way ──


def laid(path: Path, content: bytes) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content)


async def refused(choice: RealmChoice, why: str) -> None:
    for must_exist in (False, True):
        with pytest.raises(RealmConflict, match=why) as refusal:
            async with open_realm(choice, must_exist=must_exist):
                pass
        assert refusal.value.hint


async def test_a_file_in_the_place_of_a_realm(state_root: Path) -> None:
    laid(state_root / "team", b"mine")
    await refused(choose("team", state_root=state_root), "is a file")
    assert (state_root / "team").read_text(encoding="utf-8") == "mine"


async def test_a_folder_that_is_no_realms_is_not_touched(state_root: Path) -> None:
    folder = state_root / "team"
    folder.mkdir(parents=True)
    for number in range(7):
        (folder / f"photo-{number}.jpg").write_bytes(b"photo")
    await refused(choose("team", state_root=state_root), "has no manifest, but photo-0.jpg, .* and more")
    assert len(list(folder.iterdir())) == 7


async def test_an_empty_folder_can_become_a_realm(state_root: Path) -> None:
    (state_root / "team").mkdir(parents=True)
    async with open_realm(choose("team", state_root=state_root)) as realm:
        await run(realm, "[[say hi]]")


async def test_a_realm_that_lost_its_manifest_is_not_made_anew(chosen: MakeChoice) -> None:
    choice = chosen("team", "sqlite")
    await fill(choice)
    (choice.folder / "realm_manifest.json").unlink()
    await refused(choice, "has no manifest, but .*realm.sqlite3")


@pytest.mark.parametrize(
    ("name", "hint"), [("other", "or another state root"), ("TEAM", "differ only in case are the same")]
)
async def test_the_manifest_of_another_realm(chosen: MakeChoice, state_root: Path, name: str, hint: str) -> None:
    await fill(chosen(name, "sqlite"))
    (state_root / name).rename(state_root / "moved")
    (state_root / "moved").rename(state_root / "team")  # a disk that knows no case would have it there already
    choice = chosen("team")
    await refused(choice, f"belongs to {name!r}")
    with pytest.raises(RealmConflict) as refusal:
        async with looked_at(choice):
            pass
    assert hint in refusal.value.hint
    (one,) = await census(state_root, CLOCK)
    assert (one.realm_id, one.manifest, one.trouble) == ("team", None, f"The folder belongs to {name!r}.")


async def test_names_that_differ_only_in_case_are_two_realms_or_one_that_says_so(chosen: MakeChoice) -> None:
    await fill(chosen("team", "sqlite"))
    upper = chosen("Team", "sqlite")
    if upper.folder.exists():  # this disk knows no case
        await refused(upper, "belongs to 'team'")
        return
    async with open_realm(upper) as realm:
        assert await realm.store.matching("", limit=9) == []


@pytest.mark.skipif(sys.platform == "win32", reason="Windows lets few people make links")
async def test_links_that_lead_nowhere_or_in_circles(state_root: Path) -> None:
    laid(state_root / "notes", b"mine")
    (state_root / "loop").symlink_to(state_root / "pool")
    (state_root / "pool").symlink_to(state_root / "loop")
    (state_root / "gone").symlink_to(state_root / "nowhere")
    for name in ("loop", "gone"):
        await refused(choose(name, state_root=state_root), "a symbolic link that leads nowhere")
    (state_root / "half").mkdir()
    (state_root / "half" / "realm_manifest.json").symlink_to("realm_manifest.json")
    await refused(choose("half", state_root=state_root), "a symbolic link that leads nowhere")
    assert list(await census(state_root, CLOCK)) == []


# ── disks ──


@contextmanager
def small_disk(place: Path, size: str) -> Iterator[None]:
    """A disk of its own, where this machine lets us mount one."""
    place.mkdir(parents=True)
    command = ["mount", "-t", "tmpfs", "-o", f"size={size}", "tmpfs", str(place)]
    try:
        done = subprocess.run(command, capture_output=True, timeout=LONG_S)
    except OSError as error:
        pytest.skip(f"no mount here ({error})")
    if done.returncode:
        pytest.skip(f"may not mount here ({done.stderr.decode().strip()})")
    try:
        yield
    finally:
        subprocess.run(["umount", "-l", str(place)], check=True, timeout=LONG_S)


def remounted(place: Path, how: str) -> None:
    subprocess.run(["mount", "-o", f"remount,{how}", str(place)], check=True, timeout=LONG_S)


async def filled_up(store: Store, log: Log) -> StoreUnavailable:
    """Write texts until the disk is full; the log is what was acknowledged."""
    for _ in range(2000):
        before = log.session
        try:
            await store.append(log.text("x" * 10_000))
        except StoreUnavailable as full:
            log.session = before
            return full
    raise AssertionError("the disk never was full")


@pytest.mark.parametrize("backend", LOCAL)
async def test_a_full_disk_is_said_loses_nothing_and_works_again_when_there_is_room(
    state_root: Path, backend: str
) -> None:
    with small_disk(state_root, "3m"):
        log = Log("s-1")
        async with open_realm(choose("team", backend=backend, state_root=state_root), turns=False) as realm:
            await realm.store.append(log.begin())
            await realm.store.append(log.next(turn(), StepStarted(step=1, provider="demo", model="demo")))
            full = await filled_up(realm.store, log)
            acknowledged = log.session.seq
            assert "full" in full.message or "space" in full.message
            assert "Free space" in full.hint
            assert acknowledged > 20
            assert (await realm.store.load("s-1")).seq == acknowledged
            remounted(state_root, "size=8m")
            await realm.store.append(log.text("there is room again"))
        async with kept(choose("team", state_root=state_root)) as store:
            assert [each.seq for each in await whole(store, "s-1")] == list(range(1, acknowledged + 2))
        assert not (await checked(choose("team", state_root=state_root), CLOCK)).damaged


@pytest.mark.parametrize("backend", LOCAL)
async def test_a_turn_on_a_full_disk_ends_and_the_session_goes_on_when_there_is_room(
    state_root: Path, backend: str
) -> None:
    with small_disk(state_root, "3m"):
        async with open_realm(choose("team", backend=backend, state_root=state_root)) as realm:
            first, _ = await run(realm, "[[say before]]")
            (state_root / "ballast").write_bytes(b"x" * free(state_root))
            with pytest.raises(StoreUnavailable):  # each takes room, until there is none
                await run_on(realm)
            (state_root / "ballast").unlink()
            assert (await resume(realm, first.session_id, "[[say after]]")).text == "after"


async def run_on(realm: Realm) -> None:
    for _ in range(2000):
        await realm.sessions.run("[[say no room]] " + "x" * 5000, settings())


def free(place: Path) -> int:
    """The bytes that can still be written, but for a few pages."""
    status = os.statvfs(place)
    return max(0, status.f_bavail * status.f_frsize - 16_384)


@pytest.mark.parametrize("backend", LOCAL)
async def test_a_disk_that_cannot_be_written_is_said_and_a_check_up_still_reads(state_root: Path, backend: str) -> None:
    with small_disk(state_root, "8m"):
        choice = choose("team", backend=backend, state_root=state_root)
        await fill(choice)
        remounted(state_root, "ro")
        with pytest.raises(StoreUnavailable) as refusal:
            async with open_realm(choice):
                pass
        assert "ead-only" in refusal.value.message
        assert refusal.value.hint
        with pytest.raises(StoreUnavailable, match="ead-only"):
            async with open_realm(choose("new", state_root=state_root)):
                pass
        (one,) = await census(state_root, CLOCK)
        assert one.glance is not None
        assert one.glance.sessions == 5
        found = await checked(choice, CLOCK)
        assert (found.sessions, found.damaged) == (5, False)
        assert "The folder cannot be written." in [finding.what for finding in found.findings]
        remounted(state_root, "rw")
        async with kept(choice) as store:
            assert len(await store.matching("", limit=9)) == 5


# ── clocks ──


class Jumping:
    """A clock that somebody sets while it runs."""

    def __init__(self) -> None:
        self.ahead_ms = 0
        self._clock = SystemClock()

    def now_ms(self) -> int:
        return self._clock.now_ms() + self.ahead_ms

    def new_id(self) -> str:
        return self._clock.new_id()


@pytest.mark.parametrize("backend", ["sqlite", "postgres"])
@pytest.mark.parametrize("jump_ms", [-5 * HOUR_MS, 5 * HOUR_MS], ids=["back", "ahead"])
async def test_a_clock_that_jumps_kills_no_live_owner_and_mixes_up_no_log(
    chosen: MakeChoice, backend: str, jump_ms: int
) -> None:
    choice, owners, others = chosen("team", backend), Jumping(), Jumping()
    async with open_realm(choice, clock=owners) as owner, open_realm(choice, clock=others) as other:
        started = await owner.sessions.run("[[say half]][[wait 1]][[say whole]]", settings())
        await until(owner, started.session_id, "text_delta")
        owners.ahead_ms = jump_ms
        session = await other.sessions.settled(started.session_id)
        assert session.active, "its owner lives, whatever the owner's clock says"
        assert await owner.sessions.wait(started.session_id, started.turn_id or "", LONG_S)
        assert (await outcome(owner, started)).status == "completed"
        log = await whole(other.store, started.session_id)
        assert [each.seq for each in log] == sorted({each.seq for each in log})
        again = await other.sessions.resume(started.session_id, "[[say and on]]")
        assert await other.sessions.wait(started.session_id, again.turn_id or "", LONG_S)
        assert (await outcome(other, again)).status == "completed"


@pytest.mark.parametrize("jump_ms", [-5 * HOUR_MS, 5 * HOUR_MS], ids=["back", "ahead"])
async def test_a_dead_owner_is_known_to_be_dead_on_this_host_whatever_the_clock_says(
    chosen: MakeChoice, jump_ms: int
) -> None:
    choice, clock = chosen("team", "sqlite"), Jumping()
    async with open_realm(choice, turns=False) as realm:
        log = Log("s-1")
        await realm.store.append(log.begin())
        await realm.store.append(log.next(turn(), at_ms=CLOCK.now_ms()))
    clock.ahead_ms = jump_ms
    async with open_realm(choice, clock=clock) as realm:
        session = await realm.sessions.settled("s-1")
        assert (session.state, session.turn and session.turn.status) == ("idle", "interrupted")
