"""Tools of MCP servers on the command line: which run, which need a yes, and every way to say it."""

import json
import signal
import sys
from pathlib import Path

import pytest

from meerkat_mcp.cli import approving, grammar
from meerkat_mcp.domain.errors import InvalidRequest

from .conftest import TOOL_SERVER, Commands, until

posix = pytest.mark.skipif(sys.platform == "win32", reason="needs a terminal to be driven")

PAPER = f"paper={json.dumps(TOOL_SERVER)}"
WRITE_TWICE = '[[call paper__write {"line": "one"}]][[call paper__write {"line": "two"}]]'


def written(meerkat: Commands) -> str:
    paper = Path(meerkat.folder, "paper.txt")
    return paper.read_text(encoding="utf-8") if paper.exists() else ""


def events(meerkat: Commands, kind: str) -> list[dict]:
    done = meerkat("--json", "session", "show", "last", "--events")
    return [event for event in map(json.loads, done.stdout.splitlines()) if event["type"] == kind]


def test_a_tool_that_only_reads_runs_by_itself(meerkat: Commands) -> None:
    done = meerkat("run", "-s", "--mcp-server", PAPER, "[[call paper__look]]")
    assert (done.returncode, "answered: nothing" in done.stdout) == (0, True)
    assert "→ paper__look {}\n· paper__look works\n← paper__look (" in done.stderr
    assert "ms) nothing\n" in done.stderr


def test_another_waits_for_a_yes_and_the_command_that_is_said_goes_on(meerkat: Commands) -> None:
    asked = meerkat("run", "--mcp-server", PAPER, WRITE_TWICE)
    assert (asked.returncode, asked.stdout) == (0, "")
    assert 'needs a yes: paper__write (call_1_1): {"line": "one"}\n' in asked.stderr
    session = meerkat.json("session", "show", "last")["session"]["session_id"]
    command = f"meerkat-mcp session approve --state-root {meerkat.state_root} {session}"
    assert f" out. Approve: {command} (--deny" in asked.stderr
    shown = meerkat("session", "show", "last")
    assert 'needs a yes: paper__write (call_1_2): {"line": "two"}\n' in shown.stdout
    assert f"Approve: {command}" in shown.stderr
    done = meerkat(*command.split()[1:])
    assert (done.returncode, "answered: wrote one" in done.stdout, written(meerkat)) == (0, True, "one\ntwo\n")
    assert [event["by"] for event in events(meerkat, "approval_resolved")] == ["operator"] * 2


def test_pending_approvals_are_in_the_json_of_a_run_and_of_a_session(meerkat: Commands) -> None:
    asked = meerkat.json("run", "--mcp-server", PAPER, WRITE_TWICE)
    pending = [
        {"tool_use_id": "call_1_1", "tool_name": "paper__write", "args": {"line": "one"}},
        {"tool_use_id": "call_1_2", "tool_name": "paper__write", "args": {"line": "two"}},
    ]
    assert (asked["status"], asked["pending_approvals"]) == ("waiting", pending)
    assert meerkat.json("session", "show", "last")["turn"]["pending_approvals"] == pending
    done = meerkat.json("session", "approve", "last")
    assert (done["status"], done["tool_calls"], "pending_approvals" in done) == ("completed", 2, False)


def test_a_no_and_its_reason_reach_the_model(meerkat: Commands) -> None:
    meerkat("run", "--mcp-server", PAPER, WRITE_TWICE)
    done = meerkat("session", "approve", "last", "--deny", "--reason", "not today", "-s")
    assert (done.returncode, written(meerkat)) == (0, "")
    assert "call_1_1: denied by the operator: not today\n" in done.stderr
    assert "← paper__write failed: This call was not allowed: not today\n" in done.stderr
    log = meerkat("session", "show", "last", "--events").stdout
    assert "approval_requested        call_1_2 paper__write\n" in log
    assert "approval_resolved         call_1_2 denied by the operator: not today\n" in log
    assert "turn_waiting              a yes to call_1_1 paper__write, call_1_2 paper__write\n" in log


def test_some_only_are_refused_with_the_names_of_the_others(meerkat: Commands) -> None:
    meerkat("run", "--mcp-server", PAPER, WRITE_TWICE)
    said = meerkat("session", "approve", "last", "call_1_1", "call_7")
    assert said.returncode == 2
    assert "\n  missing: call_1_2\n  unknown: call_7\nhint: answer all of them at once" in said.stderr
    error = json.loads(meerkat("--json", "run", "--resume", "last", "--approve", "call_1_2").stderr)["error"]
    assert (error["code"], error["missing"]) == ("tool_results_mismatch", ["call_1_1"])
    twice = meerkat("run", "--resume", "last", "--approve", "call_1_1", "--deny", "call_1_1=no")
    assert (twice.returncode, "call_1_1 is answered more than once" in twice.stderr) == (2, True)
    assert written(meerkat) == ""


def test_a_resume_takes_a_yes_to_some_and_a_no_to_the_others(meerkat: Commands) -> None:
    meerkat("run", "--mcp-server", PAPER, WRITE_TWICE)
    done = meerkat("run", "--resume", "last", "--deny", "call_1_1=too early", "--approve", "all")
    assert (done.returncode, written(meerkat)) == (0, "two\n")
    assert "failed: This call was not allowed: too early" in done.stdout
    again = meerkat("run", "--resume", "last", "--approve", "all")
    assert (again.returncode, "waits for no approvals" in again.stderr) == (2, True)
    nowhere = meerkat("run", "--approve", "all", "hello")
    assert (nowhere.returncode, "say which session with --resume" in nowhere.stderr) == (2, True)


def test_tools_of_ones_own_and_approvals_are_answered_apart_or_together(meerkat: Commands) -> None:
    both = '[[call paper__write {"line": "one"}]][[call weather]]'
    words = ("--mcp-server", PAPER, "--tools", '[{"name": "weather"}]', both)
    asked = meerkat("run", *words)
    assert "--tool-result call_1_2=… --approve all" in asked.stderr
    half = meerkat("run", "-s", "--resume", "last", "--approve", "all")
    assert (half.returncode, "call_1_1: approved by the operator" in half.stderr) == (0, True)
    assert half.stderr.endswith("--tool-result call_1_2=…\n")
    assert written(meerkat) == ""
    done = meerkat("run", "--resume", "last", "--tool-result", "call_1_2=cold")
    assert (done.returncode, "answered: cold" in done.stdout, written(meerkat)) == (0, True, "one\n")
    meerkat("run", *words)
    whole = meerkat("run", "--resume", "last", "--tool-result", "call_1_2=warm", "--approve", "call_1_1")
    assert (whole.returncode, "answered: warm" in whole.stdout, written(meerkat)) == (0, True, "one\none\n")


# ── who has which tools, and may do what ──


def test_a_server_of_the_config_is_named_and_can_be_left_out(meerkat: Commands) -> None:
    config = {"mcp_servers": {"paper": TOOL_SERVER, "other": TOOL_SERVER}, "agent": {"mcp_servers": ["paper"]}}
    assert meerkat("config", "set", "--json", json.dumps(config)).returncode == 0
    assert meerkat("run", "[[tools]]").stdout == "paper__look, paper__write, paper__draw\n"
    assert meerkat("run", "--mcp-server", "other", "[[tools]]").stdout.startswith("other__look, ")
    assert "tool servers  other\n" in meerkat("session", "show", "last").stdout
    assert "paper__" not in meerkat("run", "--no-mcp-servers", "[[tools]]").stdout
    effective = meerkat.json("config", "get", "--effective")
    assert effective["mcp_servers"]["paper"]["call_timeout_s"] == 300
    assert (effective["permissions"]["ceiling"], effective["retry"]["attempts"]) == ("auto", 4)


@pytest.mark.parametrize(
    ("server", "said"),
    [
        ("nobody", "no tool server 'nobody' in the realm's config"),
        ("no name=", "'no name' is no name for a tool server"),
        ('paper={"comand": "x"}', "did you mean 'command'?"),
        ("paper={}", "give either command or url"),
        ("paper=[1]", "takes a JSON object"),
        ('paper={"url": "http://x", "headers": {"Authorization": "secret"}}', "would put a secret into the store"),
    ],
    ids=lambda value: value[:25],
)
def test_a_wrong_server_says_what_is_wrong(meerkat: Commands, server: str, said: str) -> None:
    done = meerkat("run", "--mcp-server", server, "hello")
    assert (done.returncode, said in done.stderr) == (2, True), done.stderr


def test_the_permission_mode_and_its_ceiling_say_what_runs(meerkat: Commands) -> None:
    words = ("--mcp-server", PAPER, '[[call paper__write {"line": "one"}]]')
    assert meerkat("run", "--permission-mode", "auto", *words).returncode == 0
    assert written(meerkat) == "one\n"
    meerkat("run", "--permission-mode", "readonly", *words)
    assert meerkat("run", "--resume", "last", "[[tools]]").stdout == "paper__look, paper__draw\n"
    assert "permissions   readonly\n" in meerkat("session", "show", "last").stdout
    over = meerkat("run", "--permission-ceiling", "ask", "--permission-mode", "auto", *words)
    assert (over.returncode, "'ask' at most" in over.stderr) == (6, True)
    meerkat("config", "set", "--json", '{"agent": {"permission_mode": "auto"}}')
    assert meerkat.json("run", "--permission-ceiling", "ask", *words)["status"] == "waiting"
    assert written(meerkat) == "one\n"


def test_a_server_that_cannot_be_reached_is_a_warning_or_when_required_an_error(meerkat: Commands) -> None:
    broken = {"command": sys.executable, "args": ["-c", "raise SystemExit(3)"]}
    server = f"broken={json.dumps(broken)}"
    done = meerkat("run", "--mcp-server", server, "[[say hi]]")
    assert (done.returncode, done.stdout) == (0, "hi\n")
    assert "warning: tool server broken: " in done.stderr
    assert "warning: tool server broken: " in meerkat("session", "show", "last").stdout
    assert meerkat.json("session", "show", "last")["turn"]["warnings"][0].startswith("tool server broken: ")
    streamed = meerkat("run", "-s", "--mcp-server", server, "[[say hi]]")
    assert streamed.stderr.count("tool server broken: ") == 1
    required = f"broken={json.dumps(broken | {'required': True})}"
    assert meerkat("run", "--mcp-server", required, "[[say hi]]").returncode == 8


def test_a_picture_is_shown_as_its_type(meerkat: Commands) -> None:
    done = meerkat("run", "-s", "--mcp-server", PAPER, "[[call paper__draw]]")
    assert "ms) here: [image/png]\n" in done.stderr
    assert "← (call_1_1) here: [image/png]\n" in meerkat("session", "history", "last").stdout
    (message,) = [one for one in meerkat.json("session", "history", "last")["messages"] if one["role"] == "tool"]
    assert message["tool_results"][0]["images"] == ["image/png"]
    assert "paper__draw (" in meerkat("session", "show", "last", "--events").stdout


# ── at a terminal ──


@posix
@pytest.mark.parametrize("stream", [(), ("-s",)], ids=["whole", "streamed"])
def test_at_a_terminal_each_call_is_asked_about(meerkat: Commands, stream: tuple[str, ...]) -> None:
    with meerkat.at_a_terminal("run", *stream, "--mcp-server", PAPER, WRITE_TWICE) as terminal:
        terminal.until('(call_1_1) with\r\n  {"line": "one"}\r\nAllow it? [y]es, [n]o: ')
        terminal.type("what?\n")
        terminal.until("Allow it? [y]es, [n]o: ")
        terminal.type("n\n")
        terminal.until("Why not? ")
        terminal.type("one is enough\n")
        terminal.until('{"line": "two"}')
        terminal.until("Allow it? ")
        terminal.type("y\n")
        code, said = terminal.end()
    assert (code, "failed: This call was not allowed: one is enough" in said, written(meerkat)) == (0, True, "two\n")
    resolved = [(event["decision"], event["by"]) for event in events(meerkat, "approval_resolved")]
    assert resolved == [("deny", "operator"), ("approve", "operator")]


@posix
def test_a_turn_may_ask_again_and_is_asked_about_again(meerkat: Commands) -> None:
    prompt = '[[call paper__write {"line": "one"}]][[next]][[call paper__write {"line": "two"}]]'
    with meerkat.at_a_terminal("run", "--mcp-server", PAPER, prompt) as terminal:
        for line in ("one", "two"):
            terminal.until(f'{{"line": "{line}"}}\r\nAllow it? ')
            terminal.type("y\n")
        assert terminal.end()[0] == 0
    assert written(meerkat) == "one\ntwo\n"


@posix
def test_a_question_without_an_answer_leaves_the_turn_waiting(meerkat: Commands) -> None:
    with meerkat.at_a_terminal("run", "--mcp-server", PAPER, WRITE_TWICE) as terminal:
        terminal.until("Allow it? ")
        terminal.type("\x04")
        terminal.until("waiting, ")
        assert terminal.end()[0] == 0
    assert meerkat.json("session", "show", "last")["session"]["state"] == "waiting"
    with meerkat.at_a_terminal("--json", "session", "approve", "last", "--deny") as terminal:
        code, said = terminal.end()
    assert (code, json.loads(said)["status"]) == (0, "completed")


@posix
@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)], ids=["ctrl-c", "sigterm"])
def test_ctrl_c_at_a_question_ends_the_turn(meerkat: Commands, number: signal.Signals, code: int) -> None:
    with meerkat.at_a_terminal("run", "--mcp-server", PAPER, WRITE_TWICE) as terminal:
        terminal.until("Allow it? ")
        terminal.process.send_signal(number)
        assert terminal.end()[0] == code
    turn = meerkat.json("session", "show", "last")["turn"]
    assert (turn["status"], turn["stop_reason"], written(meerkat)) == ("interrupted", "requested", "")


@posix
def test_an_answer_that_comes_second_is_no_answer(meerkat: Commands) -> None:
    with meerkat.at_a_terminal("run", "--mcp-server", PAPER, WRITE_TWICE) as terminal:
        terminal.until("Allow it? ")
        other = meerkat.start("--json", "session", "approve", "last", "--deny", "-s")
        until(other, '"result"')
        terminal.type("y\n")
        terminal.until("Allow it? ")
        terminal.type("y\n")
        terminal.until("Somebody else was first")
        code, said = terminal.end()
    assert (code, "This call was not allowed." in said, written(meerkat)) == (0, True, "")


@posix
def test_long_arguments_are_cut_and_shown_whole_when_asked_for(meerkat: Commands) -> None:
    line = "x" * approving.ARGS_CHARS_MAX + "the end"
    prompt = f"[[call paper__write {json.dumps({'line': line})}]]"
    with meerkat.at_a_terminal("run", "--mcp-server", PAPER, prompt) as terminal:
        terminal.until(f"x … ({len(line) + 12} characters)\r\nAllow it? [y]es, [n]o, [a]ll of it: ")
        terminal.type("a\n")
        terminal.until("the end")
        terminal.until("Allow it? ")
        terminal.type("y\n")
        assert terminal.end()[0] == 0


@pytest.mark.parametrize(
    "words",
    [
        "approve last a b --deny --reason no",
        "approve last --deny a --reason no b",
        "approve --reason no --deny last a b",
    ],
)
def test_the_calls_stand_anywhere_after_the_session(words: str) -> None:
    args = grammar.parsed(["session", *words.split()])
    assert (args.reference, args.ids, args.deny, args.reason) == ("last", ["a", "b"], True, "no")


def test_a_reason_has_an_end() -> None:
    with pytest.raises(InvalidRequest):
        approving.verdicts([], [f"all={'x' * 2001}"])
