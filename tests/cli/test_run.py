"""`meerkat-mcp run` in real processes: new sessions, resumed ones, streams, tools, interrupts."""

import json
import signal
import sys

import pytest

from .conftest import Commands, until

posix = pytest.mark.skipif(sys.platform == "win32", reason="sends POSIX signals")


def test_a_run_prints_the_text_and_says_how_to_go_on(meerkat: Commands) -> None:
    done = meerkat("run", "My name is Ada.")
    assert done.returncode == 0
    assert done.stdout.endswith("Write [[help]] to see what I can play.\n")
    (note,) = done.stderr.splitlines()
    assert "completed" in note
    assert "4 tokens in, 27 out" in note
    assert f"--state-root {meerkat.state_root}" in note


@pytest.mark.parametrize(
    "words",
    [
        ("run", "--resume", "What is my name?"),
        ("run", "--resume", "last", "What is my name?"),
        ("run", "--resume", "~1", "What is my name?"),
        ("run", "What is my name?", "--resume"),
        ("--resume", "What is my name?"),
        ("run", "-s", "--resume=~1", "What is my name?"),
    ],
    ids=" ".join,
)
def test_every_form_of_resume_goes_on_with_the_last_session(meerkat: Commands, words: tuple[str, ...]) -> None:
    meerkat("run", "My name is Ada.")
    done = meerkat(*words)
    assert (done.returncode, "Your name is Ada." in done.stdout) == (0, True)


def test_a_session_is_resumed_by_id_prefix_and_place_in_the_list(meerkat: Commands) -> None:
    first = meerkat.json("run", "My name is Ada.")["session_id"]
    meerkat.json("run", "My name is Bob.")
    assert "Ada" in meerkat.json("run", "--resume", first, "What is my name?")["text"]
    assert "Bob" in meerkat.json("run", "--resume", "~2", "What is my name?")["text"]
    assert "Ada" in meerkat.json("run", f"--resume={first[:13]}", "What is my name?")["text"]


def test_a_reference_with_a_realm_finds_the_realm(meerkat: Commands) -> None:
    made = meerkat.json("--realm", "team-alpha", "run", "My name is Ada.")
    assert made["session_ref"].startswith("team-alpha:")
    assert "Ada" in meerkat.json("run", "--resume", made["session_ref"], "What is my name?")["text"]
    done = meerkat("run", "--resume", "team-alpha:last", "And now?")
    assert "--realm team-alpha" in done.stderr


def test_resuming_where_nothing_was_started_creates_nothing(meerkat: Commands) -> None:
    done = meerkat("run", "--resume", "Keep going")
    assert (done.returncode, done.stdout) == (4, "")
    assert done.stderr.startswith("error: There is no session to go on with in this folder yet.\nhint: ")
    assert not meerkat.state_root.exists()


def test_the_prompt_comes_from_stdin_when_it_is_left_out_or_a_dash(meerkat: Commands) -> None:
    assert "“from stdin: ü”" in meerkat("run", stdin="from stdin: ü\n").stdout
    assert "“and more”" in meerkat("run", "--resume", "last", "-", stdin="and more").stdout
    empty = meerkat("run", stdin="")
    assert (empty.returncode, empty.stderr.splitlines()[0]) == (2, "error: There is no prompt.")


def test_a_stream_prints_text_to_stdout_and_all_else_to_stderr(meerkat: Commands) -> None:
    done = meerkat("run", "--stream", "[[reason Hm, hm.]][[say One]][[say two.]]")
    assert done.stdout == "One\ntwo.\n"
    assert done.stderr.startswith("Hm, hm.\n")


def test_a_stream_as_json_is_one_event_a_line_and_then_the_result(meerkat: Commands) -> None:
    done = meerkat("--json", "run", "-s", "[[words 20]]")
    *events, last = [json.loads(line) for line in done.stdout.splitlines()]
    assert [event["seq"] for event in events] == sorted(event["seq"] for event in events)
    assert events[-1]["type"] == "turn_completed"
    deltas = "".join(event["text"] for event in events if event["type"] == "text_delta")
    assert deltas == last["result"]["text"]


def test_tools_wait_for_their_results_and_say_how_to_answer(meerkat: Commands) -> None:
    tools = '[{"name": "weather", "description": "Says the weather."}]'
    asked = meerkat("run", "--tools", tools, '[[call weather {"city": "Oslo"}]][[call weather {"city": "Rome"}]]')
    assert asked.returncode == 0
    assert 'waits for weather (call_1_1): {"city": "Oslo"}' in asked.stderr
    assert "--tool-result call_1_1=… --tool-result call_1_2=…" in asked.stderr
    refused = meerkat("run", "--resume", "last", "hello?")
    assert (refused.returncode, refused.stderr.splitlines()[0]) == (
        2,
        "error: The session waits for tool results or approvals, not for a prompt.",
    )
    (meerkat.folder / "rome.txt").write_text("warm", encoding="utf-8")
    done = meerkat("run", "--resume", "--tool-result", "call_1_1=cold", "--tool-result", "call_1_2=@rome.txt")
    assert (done.returncode, "answered: cold" in done.stdout, "answered: warm" in done.stdout) == (0, True, True)


def test_settings_labels_title_and_budget_reach_the_session(meerkat: Commands) -> None:
    words = ["--system-prompt", "Be brief.", "--instruction", "Be kind.", "--param", "delta_ms=1", "--param", "deep=x"]
    words += ["--label", "team=red", "--title", "A title", "--budget", "max_tokens=9000", "--max-steps", "3"]
    made = meerkat.json("run", *words, "[[system]][[params]]")
    assert made["text"] == 'Be brief.\n\nBe kind.\n{"deep": "x", "delta_ms": 1}'
    shown = meerkat.json("session", "show", "last")["session"]
    assert (shown["title"], shown["labels"]) == ("A title", {"team": "red"})
    assert "[[system]]" not in meerkat.json("run", "--resume", "last", "[[system]]")["text"]


def test_an_output_schema_from_a_file_gives_json(meerkat: Commands) -> None:
    schema = {"type": "object", "properties": {"city": {"type": "string"}}, "required": ["city"]}
    (meerkat.folder / "schema.json").write_text(json.dumps(schema), encoding="utf-8")
    done = meerkat("run", "--output-schema", "schema.json", '[[json {"city": "Oslo"}]]')
    assert json.loads(done.stdout) == {"city": "Oslo"}


@pytest.mark.parametrize(
    ("words", "code", "said"),
    [
        (("[[fail rejected]]",), 8, "provider_rejected"),
        (("[[fail crash]]",), 1, "internal"),
        (("--max-tokens", "2", "[[words 9]]"), 1, None),
        (("--model", "nobody", "hello"), 2, "model_unknown"),
        (("--output-schema", '{"type": 7}', "hello"), 2, "schema_invalid"),
    ],
    ids=lambda value: str(value)[:30],
)
def test_what_went_wrong_is_the_exit_code(
    meerkat: Commands, words: tuple[str, ...], code: int, said: str | None
) -> None:
    done = meerkat("--json", "run", *words)
    assert done.returncode == code
    error = json.loads(done.stdout).get("error") if done.stdout else json.loads(done.stderr)["error"]
    assert (error or {}).get("code") == said


@posix
@pytest.mark.parametrize("stream", [True, False])
def test_ctrl_c_ends_the_turn_and_the_session_remembers_it(meerkat: Commands, stream: bool) -> None:
    process = meerkat.start("run", "--json", "--stream", "[[words 2000]]") if stream else None
    if process is None:
        process = meerkat.start("run", "[[words 2000]]")
        watcher = meerkat.start("session", "show", "last", "--json")
        while json.loads(watcher.communicate()[0] or "{}").get("session", {}).get("state") != "running":
            watcher = meerkat.start("session", "show", "last", "--json")
    else:
        until(process, "text_delta")
    process.send_signal(signal.SIGINT)
    process.communicate(timeout=5)
    assert process.returncode == 130
    turn = meerkat.json("session", "show", "last")["turn"]
    assert (turn["status"], turn["stop_reason"], "word1" in turn["text"] or not stream) == (
        "interrupted",
        "requested",
        True,
    )


@posix
def test_sigterm_ends_the_turn_too(meerkat: Commands) -> None:
    process = meerkat.start("run", "--json", "-s", "[[hang]]")
    until(process, "step_started")
    process.terminate()
    process.communicate(timeout=5)
    assert process.returncode == 143
    assert meerkat.json("session", "show", "last")["session"]["state"] == "idle"


def test_a_busy_session_says_who_works_and_can_be_interrupted_for_a_new_prompt(meerkat: Commands) -> None:
    process = meerkat.start("run", "--json", "-s", "[[hang]]")
    until(process, "step_started")
    busy = meerkat("run", "--resume", "last", "me too")
    assert busy.returncode == 5
    assert f"process {process.pid}" in busy.stderr
    assert "meerkat-mcp session interrupt" in busy.stderr
    done = meerkat("run", "--resume", "last", "--if-busy", "interrupt", "[[say now me]]")
    assert (done.returncode, done.stdout) == (0, "now me\n")
    last = until(process, '"result"')
    assert json.loads(last)["result"]["stop_reason"] == "superseded"


@posix
def test_a_reader_that_goes_away_ends_the_run_quietly(meerkat: Commands) -> None:
    process = meerkat.start("run", "-s", "[[words 2000]]")
    assert process.stdout is not None
    assert process.stderr is not None
    process.stdout.read(5)
    process.stdout.close()
    assert process.wait(timeout=5) == 141
    assert process.stderr.read() == ""
    assert meerkat.json("session", "show", "last")["turn"]["status"] == "interrupted"


def test_changed_settings_alone_need_no_prompt(meerkat: Commands) -> None:
    meerkat("run", "My name is Ada.")
    done = meerkat.json("run", "--resume", "last", "--title", "Ada's")
    assert done["status"] == "idle"
    assert meerkat.json("session", "show", "last")["session"]["title"] == "Ada's"


def test_a_queued_prompt_is_worked_on_before_anybody_leaves(meerkat: Commands) -> None:
    worker = meerkat.start("run", "--json", "-s", "[[hang]]")
    until(worker, "step_started")
    follower = meerkat.start("session", "show", "last", "--events", "--follow", "--json")
    waiter = meerkat.start("run", "--json", "--resume", "last", "--if-busy", "queue", "[[delta_ms 50]][[words 10]]")
    until(follower, "prompt_queued")
    meerkat.json("session", "interrupt", "last")
    said, _ = waiter.communicate(timeout=10)
    assert (waiter.returncode, json.loads(said)["text"].split()[-1]) == (0, "word10")
    worker.communicate(timeout=5)
    assert worker.returncode == 1
