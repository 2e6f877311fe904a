"""A realm copied to any backend, again and again, from one that is at work, and cut off in the middle."""

import signal
import sys
from contextlib import closing
from dataclasses import replace
from pathlib import Path
from typing import Any

import anyio
import pytest
from e2e.conftest import hosted
from stores.conftest import Log
from words import resume, run

from meerkat_mcp.domain import events as e
from meerkat_mcp.domain.errors import InvalidRequest, RealmConflict, RealmNotFound
from meerkat_mcp.domain.recorded import Recorded
from meerkat_mcp.domain.session import Session, advance
from meerkat_mcp.realms import RealmChoice, choose, open_realm
from meerkat_mcp.realms.copying import copied
from meerkat_mcp.realms.manifest import read_manifest
from meerkat_mcp.stores.filelock import FileLock

from .conftest import BACKENDS, CLOCK, LONG_S, MakeChoice, everything, fill, kept, known, looked_at, whole

pytestmark = pytest.mark.anyio


async def copy(source: RealmChoice, target: RealmChoice, **how: Any) -> Any:
    with anyio.fail_after(LONG_S):
        return await copied(source, target, CLOCK, **how)


async def held(choice: RealmChoice) -> dict[str, Any]:
    async with kept(choice) as store:
        return await everything(store)


@pytest.mark.parametrize("target", BACKENDS)
@pytest.mark.parametrize("source", BACKENDS)
async def test_a_copy_has_everything_byte_for_byte(chosen: MakeChoice, source: str, target: str) -> None:
    here, there = chosen("here", source), chosen("there", target)
    await fill(here)
    before = await held(here)
    done = await copy(here, there)
    assert await held(there) == before == await held(here)
    assert (done.sessions, done.total) == (5, 5)
    assert done.events == done.new_events == sum(len(each["log"]) for each in sessions(before))
    assert (done.claims, done.streams, done.generation) == (3, 2, 2)


def sessions(found: dict[str, Any]) -> list[dict[str, Any]]:
    return [each for name, each in found.items() if name not in ("config", "listed")]


@pytest.mark.parametrize("backend", BACKENDS)
async def test_a_copy_done_again_writes_only_what_is_new(chosen: MakeChoice, backend: str) -> None:
    here, there = chosen("here", "sqlite"), chosen("there", backend)
    ids = await fill(here)
    first = await copy(here, there)
    assert (await copy(here, there)).new_events == 0
    async with open_realm(here) as realm:
        await resume(realm, ids[0], "[[say and on]]")
        await run(realm, "[[say new]]")
        await realm.set_config({"agent": {"max_steps": 3}})
        await realm.store.close_stream("evt-0")
        await realm.store.delete(ids[1])
    again = await copy(here, there)
    assert 0 < again.new_events < first.events
    assert (again.only_here, again.removed) == (1, 0)
    now, then = await held(here), await held(there)
    assert then.pop(ids[1])["log"]
    then["listed"].remove(ids[1])
    assert then == now
    assert (await copy(here, there, mirror=True)).removed == 1
    assert await held(there) == now


@pytest.mark.parametrize("backend", BACKENDS)
async def test_what_the_source_has_taken_away_since_goes_from_the_copy(chosen: MakeChoice, backend: str) -> None:
    here, there = chosen("here", "sqlite"), chosen("there", backend)
    log = Log("s-1")
    async with open_realm(here) as realm:
        store = realm.store
        await store.append(log.begin())
        await store.append(log.next(turn(), e.StepStarted(step=1, provider="demo", model="demo")))
        await store.append(log.delta("one"))
        await store.append(log.next(e.PromptQueued(prompt="next")))  # makes that piece no longer the last event
        await store.append(log.delta("two"))
        first = await copy(here, there)
        async with kept(there) as copy_of:
            assert [each.seq for each in await whole(copy_of, "s-1")] == [1, 2, 3, 4, 5], (
                "no piece that hangs in the air"
            )
        await store.append(log.text("onetwo", supersedes=4))
        long = log.text("long " * 100)
        await store.append(long)
        await store.append(log.text("last"))
        shorter = replace(long.events[0], body=long.events[0].body.replace(b"long " * 100, b"short"))
        await copy(here, there)
        await store.tidy("s-1", without=[], instead=[shorter])
        again = await copy(here, there)
        assert (first.tidied, again.tidied) == (0, 1)
        async with kept(there) as copy_of:
            assert await whole(copy_of, "s-1") == await whole(store, "s-1")
            assert await copy_of.load("s-1") == await store.load("s-1")


def turn() -> e.TurnStarted:
    return e.TurnStarted(prompt="p", owner=e.Owner(instance_id="i", incarnation="life", host="h", pid=1))


async def test_a_copy_that_was_worked_in_is_not_written_over(chosen: MakeChoice) -> None:
    here, there = chosen("here", "sqlite"), chosen("there", "sqlite")
    ids = await fill(here)
    await copy(here, there)
    async with open_realm(there) as realm:
        await resume(realm, ids[0], "[[say on its own]]")
    before = await held(there)
    with pytest.raises(RealmConflict, match="worked in"):
        await copy(here, there)
    with pytest.raises(RealmConflict, match="a copy that was cut off"):
        async with looked_at(there):
            pass
    third = await copy(there, chosen("third"), as_it_is=True)
    assert third.sessions == 5
    assert await held(chosen("third")) == before


async def test_what_cannot_be_copied_is_refused_with_why(chosen: MakeChoice, state_root: Path) -> None:
    here = chosen("here", "sqlite")
    with pytest.raises(RealmNotFound):
        await copy(here, chosen("there"))
    assert not (state_root / "there").exists()
    await fill(here)
    await fill(chosen("other"))
    with pytest.raises(InvalidRequest, match="onto itself"):
        await copy(here, chosen("here"))
    with pytest.raises(RealmConflict, match="no copy of 'here'"):
        await copy(here, chosen("other"))
    with pytest.raises(InvalidRequest, match="memory"):
        await copy(here, chosen("brief", "memory"))
    await copy(here, chosen("there", "jsonl"))
    with pytest.raises(RealmConflict, match="is on jsonl"):
        await copy(here, chosen("there", "sqlite"))
    async with open_realm(chosen("brief", "memory")):
        with pytest.raises(InvalidRequest, match="memory"):
            await copy(chosen("brief"), chosen("fifth"))


@pytest.mark.parametrize("backend", ["sqlite", "jsonl", "postgres"])
async def test_a_target_in_use_is_refused(chosen: MakeChoice, backend: str) -> None:
    here, there = chosen("here", "sqlite"), chosen("there", backend)
    await fill(here)
    await copy(here, there)
    async with open_realm(replace(there, instance_id="the-server"), serves=True):
        await known(there)
        with pytest.raises(RealmConflict, match="in use by the-server"):
            await copy(here, there)
    await copy(here, there)


async def test_two_copies_to_one_target_at_once_are_refused(chosen: MakeChoice, state_root: Path) -> None:
    here, there = chosen("here", "sqlite"), chosen("there", "sqlite")
    await fill(here)
    (state_root / "there").mkdir(parents=True)
    with closing(FileLock(state_root / "there" / "copy.lock")) as lock:
        lock.acquire()
        with pytest.raises(RealmConflict, match="just now"):
            await copy(here, there)
    await copy(here, there)


async def test_a_name_that_a_postgres_database_has_already_is_refused(chosen: MakeChoice, tmp_path: Path) -> None:
    here = chosen("here", "postgres")
    await fill(here)
    before = await held(here)
    elsewhere = replace(here, state_root=tmp_path / "elsewhere")
    with pytest.raises(RealmConflict, match="has a realm"):
        await copy(here, elsewhere)
    assert await held(here) == before


KILLED = """
import sys
import anyio
from pathlib import Path
import os
from meerkat_mcp.realms import choose, copying
from meerkat_mcp.sessions.clock import SystemClock

carry, left = copying.carry, int(sys.argv[2])

async def carry_or_die(*what):
    global left
    if not left:
        os.kill(os.getpid(), 9)
    left -= 1
    return await carry(*what)

copying.carry = carry_or_die
root, _, backend = sys.argv[1:]
here, there = choose("here", state_root=root), choose("there", state_root=root, backend=backend)
anyio.run(lambda: copying.copied(here, there, SystemClock()))
"""


@pytest.mark.skipif(sys.platform == "win32", reason="sends POSIX signals")
@pytest.mark.parametrize("backend", ["sqlite", "jsonl"])
async def test_a_copy_that_was_killed_is_never_taken_for_whole_and_goes_on(
    chosen: MakeChoice, state_root: Path, backend: str
) -> None:
    here, there = chosen("here", "sqlite"), chosen("there", backend)
    await fill(here)
    for carried in (0, 2, 4):
        command = [sys.executable, "-c", KILLED, str(state_root), str(carried), backend]
        done = await anyio.run_process(command, check=False)
        assert done.returncode == -signal.SIGKILL, done.stderr.decode()
        assert read_manifest(state_root / "there" / "realm_manifest.json").unfinished == "copy"
        for must_exist in (True, False):
            with pytest.raises(RealmConflict, match="a copy that was cut off") as refused:
                async with open_realm(there, must_exist=must_exist):
                    pass
            assert "same realm copy again" in refused.value.hint
    await copy(here, there)
    assert await held(there) == await held(here)


@pytest.mark.skipif(sys.platform == "win32", reason="sends POSIX signals")
@pytest.mark.parametrize(("source", "target"), [("sqlite", "jsonl"), ("jsonl", "sqlite")])
async def test_a_backup_of_a_realm_at_work_opens_and_its_turns_end_as_lost(
    state_root: Path, tmp_path: Path, source: str, target: str
) -> None:
    here, there = choose("den", state_root=state_root), choose("den", state_root=tmp_path / "backup", backend=target)
    async with hosted(state_root, "--realm-backend", source) as host:
        finished = [await host.call("meerkat_run", prompt=f"[[say all of it {number}]]") for number in range(3)]
        calls = [await host.begin("meerkat_run", prompt="[[say half]][[hang]]", stream=True) for _ in range(2)]
        await host.until(lambda: sum(event["type"] == "text_delta" for event in host.events()) >= 2)
        done = await copy(here, there)
        assert len(calls) == 2
        assert done.sessions == 5
        await host.call("meerkat_resume", session_id=finished[0]["session_id"], prompt="[[say after the backup]]")
        again = await copy(here, there)
        assert 0 < again.new_events < done.events
    async with open_realm(there) as realm:
        for session_id in await realm.store.matching("", limit=10):
            log = await whole(realm.store, session_id)
            assert folded(session_id, log) == await realm.store.load(session_id)
            session = await realm.sessions.settled(session_id)
            assert session.state == "idle"
        ended = [(await realm.store.load(one)).turn for one in await realm.store.matching("", limit=10)]
        assert sorted(turn.status for turn in ended if turn) == ["completed"] * 3 + ["interrupted"] * 2
        lost = [event for one in await realm.store.matching("", limit=10) for event in await whole(realm.store, one)]
        assert sum(b'"owner_lost"' in event.body for event in lost) == 2


def folded(session_id: str, log: list[Recorded]) -> Session:
    session = Session(id=session_id)
    for recorded in log:
        session = advance(session, recorded.event)
    return session


async def test_a_backup_is_restored_by_copying_it_back(chosen: MakeChoice, tmp_path: Path) -> None:
    here, away = chosen("here", "sqlite"), replace(chosen("here", "jsonl"), state_root=tmp_path / "backup")
    ids = await fill(here)
    await copy(here, away)
    again = chosen("again", "sqlite")
    await copy(away, again)
    assert await held(again) == await held(here)
    async with open_realm(again) as realm:
        assert (await resume(realm, ids[0], "[[say it goes on]]")).text == "it goes on"
