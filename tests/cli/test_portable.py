"""`meerkat-mcp session export` and `import` in real processes: files that are whole or not there."""

import json
import stat
import subprocess
import sys
from pathlib import Path

import pytest

from meerkat_mcp.sessions.intake import PAGE_EVENTS

from .conftest import Commands, until

LONG = "[[say Hello]] " + "at length " * 30_000 + "indeed"

posix = pytest.mark.skipif(sys.platform == "win32", reason="modes and devices of POSIX")


def test_a_session_goes_to_stdout_and_comes_back_on_stdin(meerkat: Commands) -> None:
    made = meerkat.json("run", "My name is Ada.")["session_id"]
    done = meerkat("session", "export", "last")
    assert (done.returncode, done.stderr) == (0, "")
    first, *events, last = map(json.loads, done.stdout.splitlines())
    assert (first["session_id"], last["events"]) == (made, len(events))
    shown = meerkat("--json", "session", "show", "last", "--events").stdout
    assert done.stdout.splitlines()[1:-1] == shown.splitlines()
    told = meerkat("--realm", "other", "--json", "session", "import", "-", stdin=done.stdout)
    view = json.loads(told.stdout)
    assert view["origin"]["session_id"] == made
    assert (view["session_id"] != made, view["dropped"]) == (True, [])
    again = meerkat("run", "--realm", "other", "--resume", "last", "What is my name?")
    assert "Your name is Ada." in again.stdout
    shown = meerkat("session", "show", "--realm", "other", "last").stdout
    assert f"forked from  {made} at event {first['last_seq']}" in shown


@posix
def test_a_file_is_for_its_owner_and_replaced_only_by_force(meerkat: Commands) -> None:
    meerkat("run", "[[say Hello]]")
    file = meerkat.folder / "a session.jsonl"
    told = meerkat.json("session", "export", "last", "--output", str(file))
    assert (told["file"], told["bytes"], told["format"]) == (str(file), file.stat().st_size, "jsonl")
    assert stat.S_IMODE(file.stat().st_mode) == 0o600
    before = file.read_bytes()
    refused = meerkat("session", "export", "last", "--output", str(file))
    assert (refused.returncode, "--force" in refused.stderr, file.read_bytes()) == (2, True, before)
    meerkat("session", "edit", "last", "--title", "More")
    assert meerkat("session", "export", "last", "--output", str(file), "--force").returncode == 0
    assert len(file.read_bytes().splitlines()) == len(before.splitlines()) + 1
    assert [path.name for path in meerkat.folder.iterdir()] == [file.name]


def test_the_ending_of_a_file_says_what_is_in_it(meerkat: Commands) -> None:
    meerkat("run", "--title", "Pumps", "-", stdin=LONG)
    for name, begins in {"a.md": "# Pumps", "b.jsonl": '{"meerkat_session":1', "c.txt": '{"meerkat_session":1'}.items():
        assert meerkat("session", "export", "last", "-o", name).returncode == 0
        assert (meerkat.folder / name).read_text(encoding="utf-8").startswith(begins)
    page = (meerkat.folder / "a.md").read_text(encoding="utf-8")
    assert LONG in page
    assert page == meerkat("session", "export", "last", "--format", "markdown").stdout
    refused = meerkat("session", "import", "a.md")
    assert (refused.returncode, "markdown cannot be imported" in refused.stderr) == (2, True)


@pytest.mark.parametrize("output", ["nowhere/x.jsonl", "."])
def test_a_file_that_cannot_be_written_is_an_error_and_leaves_nothing(meerkat: Commands, output: str) -> None:
    meerkat("run", "[[say Hello]]")
    done = meerkat("session", "export", "last", "-o", output, "--force")
    assert (done.returncode, done.stderr.startswith("error: ")) == (2, True)
    assert list(meerkat.folder.iterdir()) == []


@posix
def test_a_full_disk_leaves_no_half_a_file(meerkat: Commands) -> None:
    meerkat("run", "-", stdin=LONG)
    words = meerkat.words("session", "export", "last", "-o", "x.jsonl")
    command = ["/bin/sh", "-c", 'ulimit -f 100; trap "" XFSZ; exec "$@"', "sh", *words]
    done = subprocess.run(
        command, cwd=meerkat.folder, env=meerkat.environment, capture_output=True, encoding="utf-8", timeout=20
    )
    assert (done.returncode, "cannot be written" in done.stderr) == (2, True), done.stderr
    assert list(meerkat.folder.iterdir()) == []


def test_a_session_at_work_says_how_far_it_was_exported(meerkat: Commands) -> None:
    worker = meerkat.start("run", "--json", "-s", "[[hang]]")
    until(worker, "step_started")
    done = meerkat("session", "export", "last", "-o", "x.jsonl")
    assert "is running: this is the session up to event 3." in done.stderr
    made = meerkat.json("session", "import", "x.jsonl")["session_id"]
    assert meerkat.json("session", "show", made)["turn"]["status"] == "interrupted"


def test_all_sessions_go_to_a_folder_and_come_back_with_their_ids(meerkat: Commands) -> None:
    ids = [meerkat.json("run", "--label", f"n={n}", f"[[say {n}]]")["session_id"] for n in "ab"]
    meerkat("session", "archive", ids[0])
    done = meerkat("session", "export", "--all", "-o", "kept")
    assert done.returncode == 0, done.stderr
    names = sorted(path.name for path in (meerkat.folder / "kept").iterdir())
    assert names == sorted(f"{one}.jsonl" for one in ids)
    files = [str(Path("kept") / name) for name in names]
    there = meerkat("--realm", "other", "--json", "session", "import", "--keep-id", *files)
    assert sorted(json.loads(line)["session_id"] for line in there.stdout.splitlines()) == sorted(ids)
    meerkat("session", "export", "--all", "-o", "some", "--label", "n=b", "--format", "markdown")
    assert [path.name for path in (meerkat.folder / "some").iterdir()] == [f"{ids[1]}.md"]


def test_a_session_that_is_there_is_not_imported_over(meerkat: Commands) -> None:
    made = meerkat.json("run", "[[say Hello]]")["session_id"]
    meerkat("session", "export", "last", "-o", "x.jsonl")
    refused = meerkat("session", "import", "x.jsonl", "--keep-id")
    assert (refused.returncode, f"There is a session {made} here already." in refused.stderr) == (2, True)
    assert meerkat("session", "import", "x.jsonl", "--title", "Twin").returncode == 0
    assert [one.get("title") for one in meerkat.json("session", "list")["sessions"]] == ["Twin", None]


def test_what_a_file_brings_to_be_run_is_dropped_and_said(meerkat: Commands) -> None:
    server = json.dumps({"command": "true"})
    meerkat("run", "--mcp-server", f"files={server}", "--permission-mode", "auto", "[[say Hello]]")
    meerkat("session", "export", "last", "-o", "x.jsonl")
    done = meerkat("session", "import", "x.jsonl")
    assert "without tool server files, permission mode auto: --trust keeps" in done.stderr
    assert "tool servers  none" in meerkat("session", "show", "last").stdout
    assert meerkat.json("session", "import", "x.jsonl", "--trust")["dropped"] == []
    assert "tool servers  files" in meerkat("session", "show", "last").stdout


def test_an_error_of_an_import_names_its_file(meerkat: Commands) -> None:
    meerkat("run", "[[say Hello]]")
    meerkat("session", "export", "last", "-o", "x.jsonl")
    whole = (meerkat.folder / "x.jsonl").read_bytes()
    (meerkat.folder / "cut.jsonl").write_bytes(whole[:-20])
    done = meerkat("session", "import", "x.jsonl", "cut.jsonl")
    assert (done.returncode, done.stderr.startswith("error: cut.jsonl: ")) == (2, True), done.stderr
    assert len(meerkat.json("session", "list")["sessions"]) == 2
    assert meerkat("session", "import", "nowhere.jsonl").stderr.startswith("error: nowhere.jsonl cannot be read")


def test_an_import_that_was_killed_half_way_is_known_by_what_is_missing(meerkat: Commands) -> None:
    meerkat("run", "[[say Hello]]")
    header, created, *_ = meerkat("session", "export", "last").stdout.splitlines(keepends=True)
    first = json.loads(created)
    titles = range(2, PAGE_EVENTS + 10)
    more = ({**first, "type": "settings_changed", "seq": seq, "title": "t", "labels": None} for seq in titles)
    worker = meerkat.start("--realm", "other", "session", "import", "-")
    assert worker.stdin is not None
    worker.stdin.write(json.dumps(json.loads(header) | {"last_seq": 10**6}) + "\n" + created)
    worker.stdin.writelines(json.dumps({k: v for k, v in one.items() if k != "forked_from"}) + "\n" for one in more)
    worker.stdin.flush()
    listed: list[dict[str, str]] = []
    for _ in range(40):  # each look takes a process of its own
        looked = meerkat("session", "list", "--realm", "other", "--json")
        listed = json.loads(looked.stdout)["sessions"] if looked.returncode == 0 else []
        if listed:
            break
    worker.kill()
    worker.wait()
    made = listed[0]["session_id"]
    assert "not whole" in meerkat("session", "show", "--realm", "other", made).stdout
    assert meerkat("session", "delete", "--realm", "other", made, "--yes").returncode == 0


@pytest.mark.parametrize(
    "words",
    [
        ["export"],
        ["export", "last", "--all", "-o", "x"],
        ["export", "--all"],
        ["export", "last", "--query", "x"],
        ["export", "last", "--force"],
        ["import"],
        ["import", "a", "b", "--title", "x"],
    ],
    ids=" ".join,
)
def test_what_makes_no_sense_is_refused(meerkat: Commands, words: list[str]) -> None:
    assert meerkat("session", *words).returncode == 2
    assert list(meerkat.folder.iterdir()) == []


@posix
def test_a_reader_that_goes_away_ends_an_export_quietly(meerkat: Commands) -> None:
    meerkat("run", "-", stdin=LONG)
    process = meerkat.start("session", "export", "last")
    assert process.stdout is not None
    assert process.stderr is not None
    process.stdout.close()
    assert process.wait(timeout=5) == 141
    assert process.stderr.read() == ""
