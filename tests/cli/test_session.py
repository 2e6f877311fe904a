"""`meerkat-mcp session` in real processes: lists, logs, and what becomes of sessions."""

import json
import signal
import subprocess
import sys

import pytest

from .conftest import Commands, until

posix = pytest.mark.skipif(sys.platform == "win32", reason="sends POSIX signals")


def test_listing_where_nothing_was_started_is_empty_and_creates_nothing(meerkat: Commands) -> None:
    done = meerkat("session", "list")
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "No sessions.\n")
    assert meerkat.json("session", "list") == {"sessions": []}
    assert not meerkat.state_root.exists()


def test_a_named_realm_that_is_not_there_is_an_error(meerkat: Commands) -> None:
    done = meerkat("session", "list", "--realm", "nowhere")
    assert (done.returncode, done.stderr.splitlines()[0]) == (4, "error: There is no realm 'nowhere' here.")


def test_a_list_shows_what_began_each_session_in_columns_without_tabs(meerkat: Commands) -> None:
    meerkat("run", "My name is Ada.")
    meerkat("run", "--title", "The second", "--label", "team=red", "[[say hi]]")
    heading, second, first = meerkat("session", "list").stdout.splitlines()
    assert heading.split() == ["SESSION", "STATE", "ACTIVE", "TURNS", "TITLE"]
    assert second.endswith("The second [team=red]")
    assert first.endswith("My name is Ada.")
    assert "ago" in first or "just now" in first
    assert "\t" not in heading + first + second
    assert second.index("The second") == first.index("My name") == heading.index("TITLE")
    short = first.split()[0]
    assert meerkat.json("session", "show", short)["session"]["session_id"].startswith(short)


def test_a_list_is_paged_and_narrowed(meerkat: Commands) -> None:
    for label in ("red", "blue", "red"):
        meerkat("run", "--label", f"team={label}", "[[say hi]]")
    first = meerkat.json("session", "list", "--limit", "2")
    rest = meerkat.json("session", "list", "--limit", "2", "--cursor", first["next_cursor"])
    assert (len(first["sessions"]), len(rest["sessions"]), "next_cursor" in rest) == (2, 1, False)
    assert rest == meerkat.json("session", "list", "--offset", "2")
    assert len(meerkat.json("session", "list", "--label", "team=red")["sessions"]) == 2
    assert meerkat.json("session", "list", "--state", "running")["sessions"] == []
    assert len(meerkat.json("session", "list", "--query", "blue")["sessions"]) == 1


def test_a_session_is_shown_with_its_turn_and_its_history(meerkat: Commands) -> None:
    meerkat("run", "My name is Ada.")
    meerkat("run", "--resume", "last", "What is my name?")
    shown = meerkat("session", "show", "last", "--history").stdout
    for line in ("turns    2, 4 messages, 0 tool calls", "status  completed (end)", "── user, event 2, just now"):
        assert line in shown
    view = meerkat.json("session", "show", "last", "--history")
    assert [message["role"] for message in view["messages"]] == ["user", "assistant"] * 2
    page = meerkat.json("session", "history", "last", "--offset", "2", "--limit", "1")
    assert [message["text"] for message in page["messages"]] == ["What is my name?"]
    assert (page["offset"], page["total"], page["has_more"]) == (2, 4, True)
    assert meerkat("session", "history", "last", "--limit", "1").stderr.startswith("messages 4 to 4 of 4")


def test_events_are_read_from_a_place_on(meerkat: Commands) -> None:
    meerkat("run", "[[say Hello]]")
    done = meerkat("--json", "session", "show", "last", "--events")
    events = [json.loads(line) for line in done.stdout.splitlines()]
    assert [event["type"] for event in events][:2] == ["session_created", "turn_started"]
    later = meerkat("--json", "session", "show", "last", "--events", "--after-seq", str(events[-2]["seq"]))
    assert [json.loads(line) for line in later.stdout.splitlines()] == events[-1:]
    assert "text_complete             Hello\n" in meerkat("session", "show", "last", "--events").stdout


@posix
def test_a_follower_sees_another_process_work_and_ends_by_ctrl_c(meerkat: Commands) -> None:
    meerkat("run", "[[say Hello]]")
    follower = meerkat.start("session", "show", "last", "--events", "--follow", "--json")
    until(follower, "turn_completed")
    meerkat("run", "--resume", "last", "[[say Again]]")
    until(follower, "turn_started")
    assert json.loads(until(follower, "text_complete"))["text"] == "Again"
    follower.send_signal(signal.SIGINT)
    _, said = follower.communicate(timeout=5)
    assert (follower.returncode, said) == (130, "")


def test_an_interrupt_reaches_the_process_that_works(meerkat: Commands) -> None:
    worker = meerkat.start("run", "--json", "-s", "[[hang]]")
    until(worker, "step_started")
    assert meerkat.json("session", "list", "--state", "running")["sessions"] != []
    ended = meerkat.json("session", "interrupt", "last")
    assert (ended["interrupted"], ended["ended"]) == (True, True)
    assert json.loads(until(worker, '"result"'))["result"]["status"] == "interrupted"
    worker.communicate(timeout=5)
    assert worker.returncode == 1
    assert meerkat("session", "interrupt", "last").stdout.endswith("nothing was running.\n")


def test_archive_restore_and_fork(meerkat: Commands) -> None:
    made = meerkat.json("run", "My name is Ada.")["session_id"]
    assert meerkat.json("session", "archive", made)["archived"] is True
    assert meerkat.json("session", "archive", made)["archived"] is True
    refused = meerkat("run", "--resume", made, "hello?")
    assert (refused.returncode, "meerkat-mcp session restore" in refused.stderr) == (5, True)
    assert meerkat.json("session", "list")["sessions"] == []
    assert len(meerkat.json("session", "list", "--archived")["sessions"]) == 1
    assert meerkat.json("session", "restore", made)["archived"] is False
    fork = meerkat.json("session", "fork", made, "--title", "another way")
    assert fork["forked_from"]["session_id"] == made
    assert "Ada" in meerkat.json("run", "--resume", fork["session_id"], "What is my name?")["text"]


def test_title_and_labels_are_changed(meerkat: Commands) -> None:
    meerkat("run", "--title", "First", "--label", "team=red", "--label", "prio=1", "My name is Ada.")
    view = meerkat.json("session", "edit", "last", "--title", "Second", "--label", "team=blue", "--unlabel", "prio")
    assert (view["title"], view["labels"]) == ("Second", {"team": "blue"})
    assert "Second [team=blue]" in meerkat("session", "list", "--label", "team=blue").stdout
    assert meerkat.json("session", "list", "--label", "team=red")["sessions"] == []
    assert "is called My name is Ada. [team=blue]" in meerkat("session", "edit", "last", "--title", "").stdout
    for words in ([], ["--label", "x=1", "--unlabel", "x"], ["--label", "x"], ["--title", "x" * 201]):
        assert meerkat("session", "edit", "last", *words).returncode == 2, words
    made = meerkat.json("session", "archive", "last")["session_id"]
    refused = meerkat("session", "edit", made, "--title", "Put away")
    assert (refused.returncode, "meerkat-mcp session restore" in refused.stderr) == (5, True)


def test_a_session_is_renamed_while_another_process_works_on_it(meerkat: Commands) -> None:
    worker = meerkat.start("run", "--json", "-s", "[[hang]]")
    until(worker, "step_started")
    assert meerkat.json("session", "edit", "last", "--title", "At work")["state"] == "running"
    assert json.loads(until(worker, "settings_changed"))["title"] == "At work"
    meerkat("session", "interrupt", "last")
    worker.communicate(timeout=5)
    assert meerkat.json("session", "show", "last")["session"]["title"] == "At work"


def test_a_search_finds_what_was_said_and_says_where(meerkat: Commands) -> None:
    meerkat("run", "[[say The pumps are fine.]]" + " Look at it all again and again, please." * 3)
    meerkat("run", "[[say Nothing]]")
    listed = meerkat("session", "list", "--query", "please look").stdout.splitlines()
    assert len(listed) == 2
    meerkat("run", "--resume", "~2", "[[say Hall four has a leak.]]")
    heading, row = meerkat("session", "list", "--query", "LEAK hall").stdout.splitlines()
    assert heading.split()[-1] == "FOUND"
    assert row.endswith("user: [[say Hall four has a leak.]]")
    (view,) = meerkat.json("session", "list", "--query", "leak")["sessions"]
    assert (view["matched"]["role"], view["matched"]["text"]) == ("user", "[[say Hall four has a leak.]]")
    assert meerkat("session", "list", "--query", "leek").stderr == "No such sessions.\n"


def test_delete_takes_a_full_id_and_asks(meerkat: Commands) -> None:
    made = meerkat.json("run", "My name is Ada.")["session_id"]
    assert meerkat("session", "delete", "last", "--yes").returncode == 2
    asked = meerkat("session", "delete", made)
    assert (asked.returncode, "--yes" in asked.stderr) == (2, True)
    assert meerkat.json("session", "delete", made, "--yes") == {"session_id": made, "deleted": True}
    assert meerkat("session", "show", made).returncode == 4
    assert "session archive" in meerkat("session", "delete", "--help").stdout


def test_an_ambiguous_prefix_lists_its_candidates(meerkat: Commands) -> None:
    ids = {meerkat.json("run", text)["session_id"] for text in ("[[say one]]", "[[say two]]")}
    done = meerkat("session", "show", min(ids)[:6])
    assert done.returncode == 5
    assert {line.strip() for line in done.stderr.splitlines()[1:3]} == ids


def test_the_list_loads_neither_mcp_nor_a_vendor_nor_a_terminal(meerkat: Commands) -> None:
    meerkat("run", "[[say hi]]")
    code = (
        "import sys; from meerkat_mcp.cli import main\n"
        f"code = main(['--state-root', {str(meerkat.state_root)!r}, 'session', 'list'])\n"
        "heavy = {'mcp', 'mcp_types', 'starlette', 'httpx2', 'anthropic', 'openai', 'google', 'rich'}\n"
        "print(sorted(heavy & set(sys.modules)), code)"
    )
    done = subprocess.run(
        [sys.executable, "-c", code],
        cwd=meerkat.folder,
        env=meerkat.environment,
        capture_output=True,
        encoding="utf-8",
        timeout=20,
    )
    assert done.stdout.splitlines()[-1] == "[] 0"


@posix
def test_a_reader_that_goes_away_ends_a_list_quietly(meerkat: Commands) -> None:
    meerkat("run", "[[say hi]]")
    process = meerkat.start("session", "list")
    assert process.stdout is not None
    assert process.stderr is not None
    process.stdout.close()
    assert process.wait(timeout=5) == 141
    assert process.stderr.read() == ""


@posix
def test_a_terminal_gets_a_table_and_nothing_that_steers_it(meerkat: Commands) -> None:
    import os
    import pty

    meerkat("run", "--title", "red \x1b[31m alert", "[[say \x1b]0;owned\x07 hello]]")
    seen = b""
    for words in (["session", "list"], ["session", "show", "last"]):
        leader, follower = pty.openpty()
        process = subprocess.Popen(
            meerkat.words(*words), stdout=follower, stderr=follower, cwd=meerkat.folder, env=meerkat.environment
        )
        os.close(follower)
        try:
            while chunk := os.read(leader, 4096):
                seen += chunk
        except OSError:  # the other end is closed
            pass
        os.close(leader)
        assert process.wait(timeout=5) == 0
    assert "SESSION" in seen.decode()
    assert "─" in seen.decode()
    assert b"\x1b[31m" not in seen
    assert b"\x07" not in seen
    assert "␛" in seen.decode()


def test_a_history_is_summarised(meerkat: Commands) -> None:
    meerkat("run", "My name is Ada.")
    meerkat("run", "--resume", "last", "I like tea.")
    shown = meerkat("session", "compact", "last", "--dry-run")
    assert (shown.returncode, "would stand for 2 messages" in shown.stdout) == (0, True)
    done = meerkat("session", "compact", "last")
    assert (done.returncode, "My name is Ada." in done.stdout) == (0, True), done.stderr
    after = meerkat("run", "--resume", "last", "What is my name?")
    assert "Your name is Ada." in after.stdout
    assert meerkat.json("session", "compact", "last", "--dry-run")["messages_replaced"] > 0
