"""Realms that go: all that is theirs, nothing else, and never under somebody's hands."""

import os
import shutil
from dataclasses import replace
from pathlib import Path

import pytest

from meerkat_mcp.domain.errors import InvalidRequest, PlanChanged, RealmConflict, RealmNotFound
from meerkat_mcp.realms import open_realm
from meerkat_mcp.realms.census import census
from meerkat_mcp.realms.copying import copied
from meerkat_mcp.realms.manifest import read_manifest, write_manifest
from meerkat_mcp.realms.removal import pruning, removed
from meerkat_mcp.sessions.clock import DAY_MS
from meerkat_mcp.stores.base import Selection

from .conftest import BACKENDS, CLOCK, MakeChoice, everything, fill, kept, known, looked_at

pytestmark = pytest.mark.anyio


class Later:
    """A clock that is some days ahead."""

    def __init__(self, days: float) -> None:
        self._days = days

    def now_ms(self) -> int:
        return CLOCK.now_ms() + int(self._days * DAY_MS)

    def new_id(self) -> str:
        return CLOCK.new_id()


@pytest.mark.parametrize("backend", [*BACKENDS, "memory"])
async def test_a_deleted_realm_leaves_nothing_and_touches_no_other(
    chosen: MakeChoice, state_root: Path, backend: str
) -> None:
    going, staying = chosen("going", backend), chosen("staying", backend)
    for choice in (going, staying):
        if backend == "memory":
            async with open_realm(choice):
                pass
        else:
            await fill(choice)
            async with kept(choice) as store:
                before = await everything(store)
    done = await removed(going, CLOCK)
    assert (done.left, going.folder.exists()) == ([], False)
    with pytest.raises(RealmNotFound):
        async with looked_at(going):
            pass
    if backend == "memory":
        return
    async with kept(staying) as store:
        assert await everything(store) == before
    async with open_realm(going) as realm:
        assert await realm.store.matching("", limit=9) == []
        assert (await realm.store.config()).generation == 0


@pytest.mark.parametrize("backend", BACKENDS)
async def test_what_is_not_the_realms_stays_and_is_named(chosen: MakeChoice, backend: str) -> None:
    choice = chosen("going", backend)
    await fill(choice)
    folder = choice.folder
    foreign = ["notes.txt", "instances/readme", "sessions/my.jsonl", "sessions/notes", "deep/down/file"]
    for name in foreign:
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text('{"mine": 1}\n', encoding="utf-8")
    if os.name != "nt":
        (folder / "link").symlink_to(folder.parent)
        foreign.append("link")
    done = await removed(choice, CLOCK)
    assert sorted(done.left) == sorted(foreign)
    there = {str(path.relative_to(folder)) for path in folder.rglob("*") if not path.is_dir() or path.is_symlink()}
    assert there == set(foreign)
    with pytest.raises(RealmConflict, match="has no manifest, but"):
        async with open_realm(choice):
            pass


@pytest.mark.parametrize("backend", BACKENDS)
async def test_a_realm_in_use_is_not_deleted(chosen: MakeChoice, backend: str) -> None:
    choice = chosen("busy", backend)
    await fill(choice)
    async with open_realm(replace(choice, instance_id="the-server"), serves=True) as realm:
        await known(choice)
        with pytest.raises(RealmConflict, match="in use by the-server") as refused:
            await removed(choice, CLOCK)
        assert "End these processes" in refused.value.hint
        assert len(await realm.store.matching("", limit=9)) == 5
    assert read_manifest(choice.folder / "realm_manifest.json").unfinished is None
    await removed(choice, CLOCK)


async def test_a_deletion_that_was_cut_off_is_finished_by_another(chosen: MakeChoice) -> None:
    choice = chosen("half", "jsonl")
    await fill(choice)
    manifest = read_manifest(choice.folder / "realm_manifest.json")
    write_manifest(choice.folder, manifest.model_copy(update={"unfinished": "deletion"}))
    (choice.folder / "config.json").unlink()
    shutil.rmtree(choice.folder / "sessions")
    with pytest.raises(RealmConflict, match="is being deleted") as refused:
        async with open_realm(choice):
            pass
    assert "realm delete again" in refused.value.hint
    (choice.folder / "realm.owner").unlink()
    await removed(choice, CLOCK)
    assert not choice.folder.exists()


async def test_a_postgres_realm_can_be_forgotten_here_and_stays_in_its_database(chosen: MakeChoice) -> None:
    choice = chosen("shared", "postgres")
    await fill(choice)
    await removed(choice, CLOCK, only_here=True)
    assert not choice.folder.exists()
    async with open_realm(choice) as realm:
        assert len(await realm.store.matching("", limit=9)) == 5
    other = chosen("alone", "sqlite")
    await fill(other)
    with pytest.raises(InvalidRequest, match="only here"):
        await removed(other, CLOCK, only_here=True)


async def test_a_copy_that_was_cut_off_can_be_deleted(chosen: MakeChoice) -> None:
    here, there = chosen("here", "jsonl"), chosen("there", "sqlite")
    await fill(here)
    await copied(here, there, CLOCK)
    manifest = read_manifest(there.folder / "realm_manifest.json")
    write_manifest(there.folder, manifest.model_copy(update={"unfinished": "copy"}))
    shutil.copytree(here.folder, there.folder / "source", ignore=shutil.ignore_patterns("realm*", "manifest*"))
    assert (await removed(there, CLOCK)).left == []
    assert not there.folder.exists()


# ── counting and pruning ──


@pytest.mark.parametrize("backend", BACKENDS)
async def test_a_census_says_how_much_is_there_when_it_was_used_and_by_whom(
    chosen: MakeChoice, state_root: Path, backend: str
) -> None:
    choice = chosen("one", backend)
    await fill(choice)
    async with kept(choice) as store:
        used_ms = (await store.sessions(Selection(archived=None), limit=1))[0].updated_ms
    os.utime(choice.folder, (1, 1))
    (one,) = await census(state_root, CLOCK)
    assert one.glance is not None
    assert (one.glance.sessions, one.used_ms, one.glance.live, one.trouble) == (5, used_ms, [], "")
    assert one.size_bytes > 100
    async with open_realm(replace(choice, instance_id="me"), serves=True):
        await known(choice)
        (one,) = await census(state_root, CLOCK)
        assert one.glance is not None
        assert [who.split()[0] for who in one.glance.live] == ["me"]


async def test_pruning_goes_by_last_use_and_leaves_what_is_used_or_not_known(
    chosen: MakeChoice, state_root: Path
) -> None:
    for name, backend in (("old", "sqlite"), ("older", "jsonl"), ("empty", "sqlite"), ("busy", "jsonl")):
        await fill(chosen(name, backend)) if name != "empty" else None
        async with open_realm(chosen(name, backend), turns=False):
            pass
    await fill(chosen("damaged", "sqlite"))
    (state_root / "damaged" / "realm.sqlite3").write_bytes(b"garbage" * 1000)
    for leftover in ("realm.sqlite3-wal", "realm.sqlite3-shm"):
        (state_root / "damaged" / leftover).unlink(missing_ok=True)
    (state_root / "broken").mkdir()
    (state_root / "broken" / "realm_manifest.json").write_text("{", encoding="utf-8")
    assert (await pruning(state_root, CLOCK, unused_days=1)).going == []
    async with open_realm(chosen("busy"), serves=True):
        await known(chosen("busy"))
        plan = await pruning(state_root, Later(2), unused_days=1)
    assert [one.realm_id for one in plan.going] == ["empty", "old", "older"]
    assert [one.realm_id for one in plan.unknown] == ["broken", "damaged"]
    assert all(one.trouble for one in plan.unknown)


async def test_a_plan_stands_for_exactly_what_it_names(chosen: MakeChoice, state_root: Path) -> None:
    await fill(chosen("one", "sqlite"))
    plan = await pruning(state_root, Later(2), unused_days=1)
    (await pruning(state_root, Later(2), unused_days=1)).check(plan.plan_id)
    await fill(chosen("two", "sqlite"))
    with pytest.raises(PlanChanged) as changed:
        (await pruning(state_root, Later(2), unused_days=1)).check(plan.plan_id)
    assert changed.value.facts["realm_ids"] == ["one", "two"]
    await removed(chosen("two"), CLOCK)
    (await pruning(state_root, Later(2), unused_days=1)).check(plan.plan_id)
    async with open_realm(chosen("one")) as realm:
        await realm.shelf.delete((await realm.store.matching("", limit=1))[0])
    with pytest.raises(PlanChanged):
        (await pruning(state_root, Later(2), unused_days=1)).check(plan.plan_id)
