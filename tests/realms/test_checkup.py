"""What a check-up says of realms that are well, at work, old, and damaged in every way that can be told."""

import os
import sqlite3
import sys
from collections.abc import Callable
from contextlib import closing
from pathlib import Path

import pytest
from stores.conftest import Log, told_postgres
from words import run, settings, until

from meerkat_mcp.domain import events as e
from meerkat_mcp.domain.errors import RealmNotFound
from meerkat_mcp.domain.messages import Usage
from meerkat_mcp.realms import choose, open_realm
from meerkat_mcp.realms.checkup import Checkup, checked
from meerkat_mcp.realms.manifest import made

from .conftest import BACKENDS, CLOCK, DSN_VARIABLE, MakeChoice, fill

pytestmark = pytest.mark.anyio
OWNER = e.Owner(instance_id="gone", incarnation="life", host="h", pid=1)


def said(found: Checkup, level: str = "damaged") -> list[str]:
    findings = [finding.what for finding in found.findings if finding.level == level]
    return [what for what in findings if "can lose committed" not in what]  # the SQLite of the machine


def bytes_of(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


@pytest.mark.parametrize("full", [False, True], ids=["quick", "full"])
@pytest.mark.parametrize("backend", BACKENDS)
async def test_a_realm_that_is_well_has_no_findings_and_is_left_as_it_was(
    chosen: MakeChoice, backend: str, full: bool
) -> None:
    choice = chosen("well", backend)
    await fill(choice)
    before = bytes_of(choice.folder)
    found = await checked(choice, CLOCK, full=full)
    assert (said(found), said(found, "warning"), found.damaged) == ([], [], False)
    assert (found.sessions, found.backend, list(found.live)) == (5, backend, [])
    assert found.events > 40
    after = bytes_of(choice.folder)
    for name in ("realm.sqlite3-shm", "realm.sqlite3-wal"):  # SQLite's own scratch pad for who reads
        after.pop(name, None)
    assert after == {name: data for name, data in before.items() if name in after} == before


@pytest.mark.parametrize("backend", BACKENDS)
async def test_a_realm_at_work_is_checked_too(chosen: MakeChoice, backend: str) -> None:
    choice = chosen("busy", backend)
    await fill(choice)
    async with open_realm(choice) as realm:
        started = await realm.sessions.run("[[say half]][[hang]]", settings())
        await until(realm, started.session_id, "text_delta")
        found = await checked(choice, CLOCK)
        assert (said(found), said(found, "warning")) == ([], [])
        assert (found.sessions, len(found.live)) == (6, 1)


async def test_an_empty_realm_is_well(chosen: MakeChoice) -> None:
    for backend in ("sqlite", "jsonl", "memory"):
        choice = chosen(f"new-{backend}", backend)
        async with open_realm(choice):
            pass
        assert said(await checked(choice, CLOCK)) == []
    with pytest.raises(RealmNotFound):
        await checked(chosen("absent"), CLOCK)


@pytest.mark.parametrize("backend", BACKENDS)
async def test_what_waits_for_nobody_and_whose_owner_is_gone_is_said(chosen: MakeChoice, backend: str) -> None:
    choice = chosen("left", backend)
    async with open_realm(choice) as realm:
        for name, drafts in (("s-1", [turn()]), ("s-2", [turn(), e.TurnSuspended()])):
            log = Log(name)
            await realm.store.append(log.begin())
            await realm.store.append(log.next(*drafts))
    found = await checked(choice, CLOCK)
    assert said(found) == []
    lost, waits = said(found, "warning")
    assert "s-1: its turn runs in no process any more (gone, process 1 on h)" in lost
    assert "s-2: a suspended turn waits for" in waits
    assert "Start a server" in found.findings[-1].do


def turn() -> e.TurnStarted:
    return e.TurnStarted(prompt="p", owner=OWNER)


# ── damage ──


async def a_session(choice) -> None:
    async with open_realm(choice) as realm:
        await run(realm, "[[say one]]", key="key")
        log = Log("s-1")
        store = realm.store
        await store.append(log.begin())
        await store.append(log.next(turn(), e.StepStarted(step=1, provider="demo", model="demo")))
        for text in ("one", "two", "three"):
            await store.append(log.text(text))
        await store.append(log.next(e.StepCompleted(step=1, stop_reason="end", usage=Usage()), e.TurnCompleted()))


SQL_DAMAGES = {
    "an event that is gone": (
        "DELETE FROM events WHERE seq = 3 AND session = (SELECT number FROM sessions WHERE id = 's-1')",
        "events 3 to 3 are missing",
    ),
    "the last events that are gone": (
        "DELETE FROM events WHERE seq > 6 AND session = (SELECT number FROM sessions WHERE id = 's-1')",
        "ends with event 6, but 8 was recorded",
    ),
    "a log that is gone": (
        "DELETE FROM events WHERE session = (SELECT number FROM sessions WHERE id = 's-1')",
        "it has no log",
    ),
    "a session that is gone": (
        "DELETE FROM sessions WHERE id = 's-1'",
        "of events belong to sessions that are not there",
    ),
    "a changed byte": (
        'UPDATE events SET body = replace(CAST(body AS TEXT), \'"text":"two"\', \'"text";"two"\') WHERE seq = 5',
        "event 5 (text_complete) cannot be read",
    ),
    "another type": (
        "UPDATE events SET type = 'turn_failed' WHERE seq = 5",
        "event 5 says that it is another one",
    ),
    "a session kept wrongly": (
        "UPDATE sessions SET body = replace(CAST(body AS TEXT), '\"turns\":1', '\"turns\":7') WHERE id = 's-1'",
        "adds up to another turns",
    ),
    "a session that cannot be read": (
        "UPDATE sessions SET body = '{}' WHERE id = 's-1'",
        "beside its log cannot be read",
    ),
    "a version of tomorrow": ("PRAGMA user_version = 99", "has version 99"),
    "another program's file": ("PRAGMA application_id = 7", "database of another program"),
}


@pytest.mark.parametrize("damage", SQL_DAMAGES)
async def test_damage_in_a_database_file_is_found_and_said_with_what_to_do(chosen: MakeChoice, damage: str) -> None:
    choice = chosen("hurt", "sqlite")
    await a_session(choice)
    sql, expected = SQL_DAMAGES[damage]
    with closing(sqlite3.connect(choice.folder / "realm.sqlite3")) as connection:
        connection.execute("PRAGMA foreign_keys = OFF")
        connection.execute(sql)
        connection.commit()
    found = await checked(choice, CLOCK)
    assert found.damaged
    assert any(expected in what for what in said(found)), said(found)
    assert all(finding.do for finding in found.findings)


def garbage(data: bytes) -> bytes:
    return os.urandom(len(data))


def truncated(data: bytes) -> bytes:
    return data[: len(data) // 2]


def a_page_of_nothing(data: bytes) -> bytes:
    return data[: 4096 * 3] + bytes(4096 * 3) + data[4096 * 6 :]


@pytest.mark.parametrize("spoil", [garbage, truncated, a_page_of_nothing])
async def test_a_database_file_that_is_none_any_more_is_said(
    chosen: MakeChoice, spoil: Callable[[bytes], bytes]
) -> None:
    choice = chosen("hurt", "sqlite")
    await fill(choice)
    path = choice.folder / "realm.sqlite3"
    assert not path.with_name("realm.sqlite3-wal").exists()
    path.write_bytes(spoil(path.read_bytes()))
    found = await checked(choice, CLOCK)
    assert found.damaged
    assert any("copy" in finding.do for finding in found.findings)


LINE_DAMAGES = {
    "garbage": (lambda lines: [*lines[:3], b"garbage\n", *lines[4:]], "line 4 is no JSON"),
    "a line that is gone": (lambda lines: [*lines[:4], *lines[5:]], "line 5 does not follow"),
    "a changed byte": (
        lambda lines: [line.replace(b'"text":"two"', b'"text";"two"') for line in lines],
        "is no JSON",
    ),
}


@pytest.mark.parametrize("damage", LINE_DAMAGES)
async def test_damage_in_a_sessions_file_is_found_and_the_file_stays_as_it_is(chosen: MakeChoice, damage: str) -> None:
    choice = chosen("hurt", "jsonl")
    await a_session(choice)
    path = choice.folder / "sessions" / "s-1.jsonl"
    do, expected = LINE_DAMAGES[damage]
    path.write_bytes(b"".join(do(path.read_bytes().splitlines(keepends=True))))
    before = bytes_of(choice.folder)
    found = await checked(choice, CLOCK)
    assert len(said(found)) == 1
    assert expected in said(found)[0]
    assert "s-1.jsonl" in said(found)[0]
    assert bytes_of(choice.folder) == before


async def test_other_damage_in_a_folder_of_files_is_found(chosen: MakeChoice) -> None:
    choice = chosen("hurt", "jsonl")
    await a_session(choice)
    folder = choice.folder
    (folder / "config.json").write_text("{", encoding="utf-8")
    (folder / "sessions" / "README.jsonl").write_text("not ours\n", encoding="utf-8")
    (folder / "sessions" / "s-1.torn-1").write_text("{", encoding="utf-8")
    found = await checked(choice, CLOCK)
    assert said(found) == ["config.json is damaged."]
    warnings = " ".join(said(found, "warning"))
    assert "README.jsonl is no session of this realm" in warnings
    assert "1 ends of logs were cut off" in warnings


POSTGRES_DAMAGES = {
    "an event that is gone": ("DELETE FROM events WHERE session = {0} AND seq = 3", "events 3 to 3 are missing"),
    "a changed byte": (
        "UPDATE events SET body = '{{' WHERE session = {0} AND seq = 5",
        "event 5 (text_complete) cannot",
    ),
}


@pytest.mark.parametrize("damage", POSTGRES_DAMAGES)
async def test_damage_in_a_postgres_database_is_found(chosen: MakeChoice, damage: str) -> None:
    choice = chosen("hurt", "postgres")
    await a_session(choice)
    sql, expected = POSTGRES_DAMAGES[damage]
    realm = f"(SELECT number FROM realms WHERE id = '{choice.realm_id}')"
    number = f"(SELECT number FROM sessions WHERE id = 's-1' AND realm = {realm})"
    await told_postgres(os.environ[DSN_VARIABLE], "SET search_path = meerkat", sql.format(number))
    found = await checked(choice, CLOCK)
    assert found.damaged
    assert any(expected in what for what in said(found)), said(found)


# ── around it ──


async def test_a_manifest_that_cannot_be_read_is_a_finding(chosen: MakeChoice) -> None:
    choice = chosen("hurt", "sqlite")
    await a_session(choice)
    (choice.folder / "realm_manifest.json").write_text("{", encoding="utf-8")
    found = await checked(choice, CLOCK)
    assert said(found) == ["The manifest of realm 'hurt' is damaged."]


async def test_a_store_that_is_gone_is_a_finding(chosen: MakeChoice) -> None:
    choice = chosen("hurt", "sqlite")
    await a_session(choice)
    (choice.folder / "realm.sqlite3").unlink()
    found = await checked(choice, CLOCK)
    assert "realm.sqlite3 is not there." in [finding.what for finding in found.findings]


@pytest.mark.skipif(sys.platform == "win32", reason="Windows has other permissions")
async def test_a_folder_that_is_open_to_others_is_a_warning(chosen: MakeChoice) -> None:
    choice = chosen("open", "jsonl")
    await a_session(choice)
    choice.folder.chmod(0o755)
    assert said(await checked(choice, CLOCK), "warning") == ["Others may enter the realm's folder (mode 755)."]


async def test_a_database_that_cannot_be_reached_is_a_finding(
    state_root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    choice = choose("far", backend="postgres", dsn_env="MEERKAT_NOWHERE", state_root=state_root)
    monkeypatch.setenv("MEERKAT_NOWHERE", "postgresql://user:SECRET@127.0.0.1:1/nowhere")
    made(choice, CLOCK)
    found = await checked(choice, CLOCK)
    assert len(found.findings) == 1
    assert "SECRET" not in repr(found)
