"""Processes that die: tool servers under an agent, and `meerkat_mcp` over its tool servers. Nothing is left behind."""

import signal
import sys

import psutil
import pytest
from real_tools.wires import ANTHROPIC
from tools.processes import ended
from vendors.script import Call

from meerkat_mcp.sessions.conversation import CUT_OFF

pytestmark = [
    pytest.mark.anyio,
    pytest.mark.skipif(sys.platform == "win32", reason="it has neither SIGKILL nor SIGTERM"),
]

ECHO = Call("everything__echo", {"message": "alive"})
LONG = Call("everything__trigger-long-running-operation", {"duration": 600, "steps": 1})


def kill(*processes: psutil.Process) -> list[int]:
    """As `kill -9` does. The pids."""
    for process in processes:
        process.kill()
    return [process.pid for process in processes]


async def test_a_server_killed_between_two_turns_is_started_anew(configure, serve, everything, model):
    await configure({"everything": everything})
    model.will(ECHO)
    model.will(ECHO)
    async with serve() as host:
        first = await host.run(**ANTHROPIC.settings)
        _, before = host.tree()
        assert await ended(*kill(before))
        second = await host.resume(first["session_id"], prompt="again")
        _, after = host.tree()
    assert (second["status"], second.get("warnings")) == ("completed", None)
    assert after != before
    assert [shown.text for shown in ANTHROPIC.results(model.requests[-1].body)] == ["Echo: alive"] * 2


async def test_a_server_killed_during_a_call_is_an_error_for_the_model_and_there_again_for_its_next(
    configure, serve, everything, model, overheard
):
    await configure({"everything": overheard.through(everything)})
    model.will(LONG, ECHO)
    async with serve() as host:
        started = await host.call("meerkat_run", prompt="go", wait_seconds=0, **ANTHROPIC.settings)
        await overheard.until("tools/call", name="trigger-long-running-operation")
        kill(*host.tree()[1:])
        read = await host.call("meerkat_read", session_id=started["session_id"], wait_seconds=20)
    assert (read["turn"]["status"], read["turn"]["text"]) == ("completed", "done")
    lost, echo = ANTHROPIC.results(model.requests[-1].body)
    assert lost.is_error
    assert "'everything' failed: the connection was lost during the call, which may have had an effect" in lost.text
    assert "signal 9" in lost.text
    assert (echo.text, echo.is_error) == ("Echo: alive", False)
    assert len(overheard.heard("tools/call")) == 2, "a call that may have had an effect is not repeated"


async def test_tool_servers_end_when_the_server_that_started_them_is_killed(
    configure, serve, everything, files, git, model
):
    await configure({"everything": everything, "files": files, "git": git})
    model.will(ECHO)
    async with serve() as host:
        await host.run(**ANTHROPIC.settings)
        server, *started = host.tree()
        assert len(started) == 3
        kill(server)
        assert await ended(*(process.pid for process in started))


@pytest.mark.parametrize("how", [signal.SIGTERM, signal.SIGINT], ids=lambda how: how.name)
async def test_a_signal_during_a_call_suspends_the_turn_and_leaves_no_process(
    configure, serve, everything, model, overheard, look, how
):
    await configure({"everything": overheard.through(everything)})
    model.will(LONG, ends=False)
    async with serve() as host:
        started = await host.call("meerkat_run", prompt="go", wait_seconds=0, **ANTHROPIC.settings)
        await overheard.until("tools/call", name="trigger-long-running-operation")
        tree = host.tree()
        assert len(tree) == 3, "the server, the listener between, the tool server"
        tree[0].send_signal(how)
        assert await ended(*(process.pid for process in tree))
    async with look() as realm:
        session = await realm.journal.load(started["session_id"])
        assert session.state == "suspended"
        (answered,) = [
            event
            async for recorded in realm.journal.log(session.id)
            if (event := recorded.event).type == "tool_execution_completed"
        ]
        assert (answered.is_error, answered.content) == (True, CUT_OFF), "the next process does not make the call again"
