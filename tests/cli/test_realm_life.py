"""`meerkat-mcp realm …` in real processes: made, listed, copied, checked and removed."""

import json
import sys
from pathlib import Path
from typing import Any

import pytest

from .conftest import Commands


def error(done: Any) -> dict[str, Any]:
    return json.loads(done.stderr.splitlines()[-1])["error"]


def names(meerkat: Commands) -> list[str]:
    return [realm["realm_id"] for realm in meerkat.json("realm", "list")["realms"]]


def test_a_realm_is_made_once(meerkat: Commands) -> None:
    made = meerkat.json("realm", "create", "team", "--realm-backend", "jsonl")
    assert (made["realm_id"], made["backend"]) == ("team", "jsonl")
    again = meerkat("--json", "realm", "create", "team")
    assert (again.returncode, error(again)["code"], again.stdout) == (5, "realm_conflict", "")
    assert meerkat("realm", "create", "team", "--exist-ok").returncode == 0
    assert error(meerkat("--json", "realm", "create", "team", "--exist-ok", "--realm-backend", "sqlite"))["code"] == (
        "backend_mismatch"
    )
    assert meerkat("realm", "create", "no/name").returncode == 2
    assert meerkat("--isolated", "realm", "create", "other").returncode == 2
    assert names(meerkat) == ["team"]


def test_a_realm_whose_database_is_nowhere_is_not_made_quietly(meerkat: Commands) -> None:
    done = meerkat(
        "--json", "realm", "create", "far", "--realm-backend", "postgres", "--realm-dsn-env", "NOWHERE",
        NOWHERE="postgresql://user:SECRET@127.0.0.1:1/nowhere",
    )  # fmt: skip
    assert (done.returncode, error(done)["code"]) == (8, "store_unavailable")
    assert "SECRET" not in done.stderr + done.stdout


def test_the_list_says_how_each_realm_is(meerkat: Commands) -> None:
    meerkat("--realm", "used", "run", "[[say hi]]")
    meerkat("realm", "create", "new", "--realm-backend", "jsonl")
    server = meerkat.start("--realm", "busy", "serve", "--instance", "the-server")
    assert server.stderr is not None
    assert "serving realm busy" in server.stderr.readline()
    while not (found := {one["realm_id"]: one for one in meerkat.json("realm", "list")["realms"]})["busy"]["live"]:
        pass  # it says that it is there just after it is; the test's timeout bounds this
    assert [who.split()[0] for who in found["busy"]["live"]] == ["the-server"]
    assert (found["used"]["sessions"], found["new"]["sessions"]) == (1, 0)
    assert found["used"]["size_bytes"] > 1000
    assert found["used"]["used_ms"] > found["used"]["created_ms"] - 1
    lines = [line.split() for line in meerkat("realm", "list").stdout.splitlines()]
    assert [line[0] for line in lines] == ["REALM", "busy", "new", "used"]
    assert lines[1][-1] == "yes"


def test_a_realm_is_deleted_after_a_yes_and_not_while_it_is_used(meerkat: Commands) -> None:
    meerkat("--realm", "team", "--realm-backend", "jsonl", "run", "[[say hi]]")
    refused = meerkat("realm", "delete", "team")
    assert (refused.returncode, "say --yes" in refused.stderr) == (2, True)
    assert "1 sessions on jsonl" in refused.stderr
    server = meerkat.start("--realm", "team", "serve", "--instance", "the-server")
    assert server.stderr is not None
    assert "serving realm team" in server.stderr.readline()
    busy = meerkat("--json", "realm", "delete", "team", "--yes")
    assert (busy.returncode, error(busy)["code"]) == (5, "realm_conflict")
    server.communicate("", timeout=20)
    (meerkat.state_root / "team" / "notes.txt").write_text("mine", encoding="utf-8")
    done = meerkat("--json", "realm", "delete", "team", "--yes")
    assert done.returncode == 1
    assert json.loads(done.stdout)["deleted"][0]["left"] == ["notes.txt"]
    assert [path.name for path in (meerkat.state_root / "team").iterdir()] == ["notes.txt"]
    assert meerkat("realm", "delete", "absent", "--yes").returncode == 4


@pytest.mark.skipif(sys.platform == "win32", reason="needs a pseudo-terminal")
def test_at_a_terminal_it_asks(meerkat: Commands) -> None:
    meerkat("realm", "create", "team")
    for answer, left in (("n", ["team"]), ("y", [])):
        with meerkat.at_a_terminal("realm", "delete", "team") as terminal:
            terminal.until("for good? [y/N] ")
            terminal.type(f"{answer}\n")
            assert terminal.end()[0] == 0
        assert names(meerkat) == left


def test_pruning_is_planned_first_and_removes_exactly_the_plan(meerkat: Commands) -> None:
    for name in ("one", "two"):
        meerkat("--realm", name, "run", "[[say hi]]")
    plan = meerkat.json("realm", "prune", "--unused-for", "0")
    assert [one["realm_id"] for one in plan["realms"]] == ["one", "two"]
    assert names(meerkat) == ["one", "two"]
    assert meerkat.json("realm", "prune", "--unused-for", "1")["realms"] == []
    said = meerkat("realm", "prune", "--unused-for", "0")
    assert plan["plan_id"] in said.stderr
    meerkat("--realm", "one", "run", "[[say used again]]")
    changed = meerkat("--json", "realm", "prune", "--unused-for", "0", "--plan", plan["plan_id"])
    assert (changed.returncode, error(changed)["code"]) == (5, "plan_changed")
    assert names(meerkat) == ["one", "two"]
    gone = meerkat.json("realm", "prune", "--unused-for", "0", "--plan", error(changed)["plan_id"])
    assert [one["realm_id"] for one in gone["deleted"]] == ["one", "two"]
    assert names(meerkat) == []


def test_a_copy_is_told_with_its_counts_and_goes_on_from_there(meerkat: Commands, tmp_path: Path) -> None:
    meerkat("--realm", "team", "run", "[[say hi]]")
    done = meerkat("realm", "copy", "team", "notes", "--to-backend", "jsonl")
    assert done.returncode == 0
    assert "notes  is a whole copy of team: 1 sessions" in done.stdout
    again = meerkat.json("realm", "copy", "team", "notes")
    assert (again["sessions"], again["new_events"]) == (1, 0)
    folder = str(tmp_path / "backups")
    assert meerkat("realm", "backup", "team", folder).returncode == 0
    backed_up = meerkat.json("realm", "backup", "team", folder)
    assert (backed_up["realm_id"], backed_up["events"]) == ("team", again["events"])
    meerkat("realm", "delete", "team", "--yes")
    here = str(meerkat.state_root)
    back = meerkat.json("--state-root", folder, "realm", "copy", "team", "team", "--to-state-root", here)
    assert back["events"] == again["events"]
    assert len(meerkat.json("--realm", "team", "session", "list")["sessions"]) == 1
    assert meerkat("realm", "copy", "team", "team").returncode == 2
    assert meerkat("realm", "copy", "absent", "other").returncode == 4


def test_the_doctor_says_what_is_wrong_and_what_to_do(meerkat: Commands) -> None:
    meerkat("--realm", "team", "--realm-backend", "jsonl", "run", "[[say hi]]")
    well = meerkat("realm", "doctor", "team")
    assert (well.returncode, "all is well" in well.stdout) == (0, True)
    assert meerkat.json("--realm", "team", "realm", "doctor")["sessions"] == 1
    (meerkat.state_root / "team" / "sessions" / "readme").write_text("mine", encoding="utf-8")
    warned = meerkat("realm", "doctor", "team")
    assert (warned.returncode, "warning: sessions/readme" in warned.stdout) == (1, True)
    (session,) = (meerkat.state_root / "team" / "sessions").glob("*.jsonl")
    session.write_bytes(session.read_bytes().replace(b'"type":"step_started"', b'"type";"step_started"'))
    hurt = meerkat.json("realm", "doctor", "team", code=9)
    assert hurt["damaged"] is True
    assert [finding["level"] for finding in hurt["findings"]].count("damaged") == 1
    assert meerkat("realm", "doctor", "absent").returncode == 4


# ── as whom, and where ──


def test_isolated_is_a_new_realm_each_time_on_every_backend(meerkat: Commands) -> None:
    seen: set[str] = set()
    for backend in ("sqlite", "jsonl"):
        for _ in range(2):
            done = meerkat("--isolated", "--realm-backend", backend, "run", "[[say hi]]")
            seen.add(done.stderr.split("--realm ")[1].split()[0])
    found = {realm["realm_id"]: realm for realm in meerkat.json("realm", "list")["realms"]}
    assert found.keys() == seen
    assert sorted(realm["backend"] for realm in found.values()) == ["jsonl", "jsonl", "sqlite", "sqlite"]
    assert all(realm["sessions"] == 1 for realm in found.values())
    both = meerkat("--isolated", "--realm", "team", "run", "[[say hi]]")
    assert (both.returncode, "both named and isolated" in both.stderr) == (2, True)


def test_two_processes_may_have_one_instance_name_and_are_still_told_apart(meerkat: Commands) -> None:
    """The name is for people; a process is known by its incarnation."""
    servers = [meerkat.start("--realm", "team", "serve", "--instance", "twin") for _ in range(2)]
    for server in servers:
        assert server.stderr is not None
        assert "serving realm team" in server.stderr.readline()
    live: list[str] = []
    while len(live) < 2:  # each says that it is there just after it is; the test's timeout bounds this
        (realm,) = meerkat.json("realm", "list")["realms"]
        live = realm["live"]
    assert [who.split()[0] for who in live] == ["twin", "twin"]
    assert len(set(live)) == 2
    servers[0].kill()
    servers[0].wait()
    (realm,) = meerkat.json("realm", "list")["realms"]
    assert len(realm["live"]) == 1
    assert str(servers[1].pid) in realm["live"][0]
    bad = meerkat("--instance", "no name", "--realm", "team", "session", "list")
    assert (bad.returncode, "is no instance id" in bad.stderr) == (2, True)


def test_a_second_process_on_a_realm_of_files_is_refused_whatever_its_name(meerkat: Commands) -> None:
    server = meerkat.start("--realm", "notes", "--realm-backend", "jsonl", "serve", "--instance", "first")
    assert server.stderr is not None
    assert "serving realm notes" in server.stderr.readline()
    done = meerkat("--realm", "notes", "--instance", "first", "session", "list")
    assert (done.returncode, "is in use by" in done.stderr) == (8, True)
    assert meerkat("realm", "doctor", "notes").returncode == 0
