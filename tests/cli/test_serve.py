"""`meerkat-mcp serve` in real processes: what it says on stderr, and every way it ends."""

import json
import signal
import subprocess
import sys
import time

import pytest

from .conftest import ROOT, TOOL_SERVER, Commands, until

EXIT_LIMIT_SECONDS = 2
posix = pytest.mark.skipif(sys.platform == "win32", reason="sends POSIX signals")


def served(meerkat: Commands, *args: str) -> subprocess.Popen[str]:
    """A server in the middle of a turn that never ends by itself."""
    process = meerkat.start("serve", "--realm", "team", *args)
    assert process.stdin is not None
    hello = {"protocolVersion": "2025-11-25", "capabilities": {}, "clientInfo": {"name": "test", "version": "1"}}
    call = {
        "name": "meerkat_run",
        "arguments": {"prompt": "[[say a secret]][[hang]]", "stream": True},
        "_meta": {"progressToken": "t"},
    }
    for message in (
        {"jsonrpc": "2.0", "id": 1, "method": "initialize", "params": hello},
        {"jsonrpc": "2.0", "method": "notifications/initialized"},
        {"jsonrpc": "2.0", "id": 2, "method": "tools/call", "params": call},
    ):
        process.stdin.write(json.dumps(message) + "\n")
    process.stdin.flush()
    until(process, "text_delta")
    return process


@posix
@pytest.mark.parametrize("how", ["eof", "sigterm", "sigint"])
def test_a_server_ends_in_time_and_leaves_no_turn_running(meerkat: Commands, how: str) -> None:
    process = served(meerkat)
    assert process.stdin is not None
    assert process.stderr is not None
    began = time.monotonic()
    if how == "eof":
        process.stdin.close()
    else:
        process.send_signal(signal.SIGTERM if how == "sigterm" else signal.SIGINT)
    assert process.wait(timeout=5) == 0
    assert time.monotonic() - began < EXIT_LIMIT_SECONDS
    assert process.stderr.read() == f"meerkat-mcp {version()}: serving realm team (sqlite)\n"
    turn = meerkat.json("--realm", "team", "session", "show", "last")["turn"]
    assert turn["status"] == "interrupted"


def test_the_log_holds_no_prompt_and_no_text(meerkat: Commands) -> None:
    process = served(meerkat, "--log-level", "debug")
    _, said = process.communicate(timeout=5)
    assert process.returncode == 0
    assert len(said.splitlines()) > 1  # the log was on
    assert "secret" not in said
    assert str(meerkat.state_root) not in said


def test_without_a_realm_a_server_makes_one_and_says_how_to_keep_it(meerkat: Commands) -> None:
    done = meerkat("serve")
    assert (done.returncode, done.stdout) == (0, "")
    (line,) = done.stderr.splitlines()
    realm = line.split("serving realm ")[1].split()[0]
    assert realm.startswith("realm-")
    assert line.endswith(f"keep it with: --realm {realm}")


def test_a_context_root_is_served_in_its_own_realm_and_paths_are_shown_when_allowed(meerkat: Commands) -> None:
    here = meerkat.json("realm", "current")["realm_id"]
    done = meerkat("serve", "--context-root", str(meerkat.folder), "--expose-paths")
    assert done.stderr.strip().endswith(f"serving realm {here} (sqlite) in {meerkat.state_root / here}")


def test_a_server_that_cannot_start_says_why_and_nothing_on_stdout(meerkat: Commands) -> None:
    done = meerkat("serve", "--realm", "team", "--realm-backend", "redb")
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr.startswith("error: There is no backend 'redb'.\nhint: ")


def called(meerkat: Commands, *flags: str, tool: str, arguments: dict) -> tuple[dict, str]:
    """What one tool call answers, and what the server says on stderr."""
    process = meerkat.start("serve", "--realm", "team", *flags)
    assert process.stdin is not None
    hello = {"protocolVersion": "2025-11-25", "capabilities": {}, "clientInfo": {"name": "test", "version": "1"}}
    for message in (
        {"jsonrpc": "2.0", "id": 1, "method": "initialize", "params": hello},
        {"jsonrpc": "2.0", "method": "notifications/initialized"},
        {"jsonrpc": "2.0", "id": 2, "method": "tools/call", "params": {"name": tool, "arguments": arguments}},
    ):
        process.stdin.write(json.dumps(message) + "\n")
    process.stdin.flush()
    answer = json.loads(until(process, '"id":2'))
    _, said = process.communicate(timeout=5)
    return answer["result"], said


def test_a_caller_that_is_trusted_brings_tool_servers_and_changes_the_config(meerkat: Commands) -> None:
    patch = {"action": "patch", "patch": {"mcp_servers": {"paper": TOOL_SERVER}}}
    refused, _ = called(meerkat, tool="meerkat_config", arguments=patch)
    assert "permission_denied" in json.dumps(refused)
    allowed, said = called(meerkat, "--trust-caller", tool="meerkat_config", arguments=patch)
    assert allowed["structuredContent"]["config"] == {"mcp_servers": {"paper": TOOL_SERVER}}
    assert said.strip().endswith("serving realm team (sqlite); it trusts its caller")
    run = {"prompt": "[[tools]]", "mcp_servers": {"own": TOOL_SERVER}}
    assert "permission_denied" in json.dumps(called(meerkat, tool="meerkat_run", arguments=run)[0])
    ran, _ = called(meerkat, "--trust-caller", tool="meerkat_run", arguments=run)
    assert "own__write" in ran["structuredContent"]["text"]


def test_no_turn_of_a_server_goes_beyond_its_ceiling(meerkat: Commands) -> None:
    meerkat("--realm", "team", "config", "set", "--json", json.dumps({"mcp_servers": {"paper": TOOL_SERVER}}))
    run = {"prompt": "[[tools]]", "mcp_servers": {"paper": {}}}
    ran, _ = called(meerkat, "--permission-ceiling", "readonly", tool="meerkat_run", arguments=run)
    assert ran["structuredContent"]["text"] == "paper__look, paper__draw"
    over, _ = called(
        meerkat,
        *("--permission-ceiling", "ask", "--trust-caller"),
        tool="meerkat_run",
        arguments=run | {"permission_mode": "auto"},
    )
    assert "'ask' at most" in json.dumps(over)


def test_rkat_mcp_is_serve_with_its_flags(meerkat: Commands) -> None:
    words = [
        "--realm",
        "team",
        "--instance",
        "mcp-1",
        "--realm-backend",
        "sqlite",
        "--trust-caller",
        "--permission-ceiling",
        "ask",
        "--state-root",
        str(meerkat.state_root),
    ]
    code = f"from meerkat_mcp.cli import serve_main; raise SystemExit(serve_main({words!r}))"
    done = subprocess.run(
        [sys.executable, "-c", code],
        cwd=ROOT,
        env=meerkat.environment,
        input="",
        capture_output=True,
        text=True,
        timeout=20,
    )
    assert (done.returncode, done.stdout) == (0, "")
    assert "serving realm team (sqlite)" in done.stderr


def version() -> str:
    import meerkat_mcp

    return meerkat_mcp.__version__
