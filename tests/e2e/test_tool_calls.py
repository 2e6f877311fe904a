"""A process that dies in the middle of a tool call: what it did is done once, and everybody is told what is known."""

import json
import os
import signal
import sys
from pathlib import Path

import anyio
import pytest
from words import check_log, types

from meerkat_mcp.domain.transcript import UNANSWERED
from meerkat_mcp.sessions.decisions import Approval

pytestmark = [pytest.mark.anyio, pytest.mark.skipif(sys.platform == "win32", reason="sends POSIX signals")]

SERVER = """
import sys, anyio
from pathlib import Path
from mcp.server import MCPServer

paper, news = map(Path, sys.argv[1:])

server = MCPServer("paper")

@server.tool()
async def write(line: str) -> str:
    with paper.open("a") as file:
        file.write(line + "\\n")
    news.write_text("written")
    await anyio.sleep_forever()

server.run("stdio")
"""


@pytest.fixture
def paper(tmp_path) -> Path:
    return tmp_path / "paper.txt"


@pytest.fixture
def news(tmp_path) -> Path:
    """A pipe: who reads it waits until the tool has written its line."""
    os.mkfifo(tmp_path / "news")
    return tmp_path / "news"


@pytest.fixture
async def config(look, paper: Path, news: Path) -> None:
    """The realm has a tool server whose one tool writes a line and never answers."""
    server = {"command": sys.executable, "args": ["-c", SERVER, str(paper), str(news)]}
    async with look() as realm:
        await realm.set_config({"mcp_servers": {"paper": server}, "agent": {"mcp_servers": ["paper"]}})


def call(line: str) -> str:
    return f"[[call paper__write {json.dumps({'line': line})}]]"


def written(paper: Path) -> str:
    return paper.read_text() if paper.exists() else ""


async def heard(news: Path) -> None:
    with anyio.fail_after(20):
        await anyio.to_thread.run_sync(news.read_text, abandon_on_cancel=True)


async def test_a_kill_in_an_approved_call_is_told_as_what_it_is_and_repeats_nothing(serve, look, config, paper, news):
    async with serve() as host:
        waiting = await host.call("meerkat_run", prompt=call("once"))
        sid = waiting["session_id"]
        assert [pending["tool_name"] for pending in waiting["pending_approvals"]] == ["paper__write"]
        assert written(paper) == "", "nobody has said yes"
    async with serve() as owner:
        async with look() as operator:
            await operator.patch_config({"permissions": {"caller_may_approve": True}})
        responses = [{"tool_use_id": "call_1_1", "decision": "approve"}]
        await owner.begin("meerkat_resume", session_id=sid, responses=responses, stream=True)
        await heard(news)
        owner.process.send_signal(signal.SIGKILL)
        await owner.process.wait()
    async with serve() as other:
        read = await other.call("meerkat_read", session_id=sid, wait_seconds=10)
        assert (read["turn"]["status"], read["turn"]["stop_reason"]) == ("interrupted", "owner_lost")
        after = await other.call("meerkat_resume", session_id=sid, prompt="[[history]]")
        assert UNANSWERED[:40] in after["text"]
        assert after["status"] == "completed"
    assert written(paper) == "once\n", "the call was made once"
    async with look() as realm:
        kinds = await types(realm, sid)
        assert kinds.count("tool_execution_started") == 1
        assert kinds.index("approval_resolved") < kinds.index("tool_execution_started")
        await check_log(realm, sid)


async def test_an_approval_from_another_process_runs_the_call_there(serve, look, config, paper, news):
    async with serve() as host:
        sid = (await host.call("meerkat_run", prompt=call("here")))["session_id"]
        async with look() as realm:
            approvals = [Approval("call_1_1", "approve")]
            started = await realm.sessions.resume(sid, approvals=approvals, approved_by="operator")
            await heard(news)
            said = await host.call("meerkat_interrupt", session_id=sid)
            assert (said["interrupted"], said["ended"], said["turn_id"]) == (True, True, started.turn_id)
            await check_log(realm, sid)
    assert written(paper) == "here\n"
