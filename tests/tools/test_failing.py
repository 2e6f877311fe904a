"""Tool servers that die, hang, or were never there: a turn goes on, and learns why."""

import sys

import anyio
import pytest
from tools.processes import Started, ended, names, value

from meerkat_mcp.domain.servers import ToolServer
from meerkat_mcp.tools.base import ToolServers

pytestmark = pytest.mark.anyio
posix = pytest.mark.skipif(sys.platform == "win32", reason="the SDK's ways on Windows: no shell, no words of stderr")


async def problem(running, definition: ToolServer, environment: dict[str, str] | None = None) -> str:
    async with running(environment) as servers, servers.open({"s": definition}) as box:
        assert await box.tools() == ()
        output = await box.call("s__echo", {})
        assert output.is_error
        return box.problems["s"]


async def test_a_command_that_there_is_not(running):
    assert await problem(running, ToolServer(command="no-such-thing")) == "there is no 'no-such-thing' to start"


async def test_a_folder_that_there_is_not(running, bare, tmp_path):
    assert "no-such-place" in await problem(running, bare(cwd=str(tmp_path / "no-such-place")))


@posix
async def test_a_command_that_may_not_be_run(running, tmp_path):
    file = tmp_path / "server"
    file.write_text("#!/bin/sh\n")
    assert "may not be started" in await problem(running, ToolServer(command=str(file)))


@posix
async def test_a_server_that_ends_at_once_says_why_but_tells_no_secret(running, bare):
    said = await problem(running, bare("--dies", env={"TOKEN": "${MINE}"}), {"MINE": "hush-hush"})
    assert said == "it ended with exit code 5: no luck with ${MINE}"


@posix
async def test_a_server_that_never_answers_is_given_up(running, bare):
    said = await problem(running, bare("--silent", connect_timeout_s=0.5))
    assert said == "it did not answer within 0.5 s: loading a large model"


async def test_what_a_server_prints_beside_its_messages_does_no_harm(running, bare):
    async with running() as servers, servers.open({"s": bare("--garbage")}) as box:
        assert await value(box, "s__echo", a=1) == {"a": 1}


async def test_a_server_that_wants_the_older_handshake_first_gets_it(running, bare):
    async with running() as servers, servers.open({"s": bare("--handshake-first")}) as box:
        assert await value(box, "s__echo", a=1) == {"a": 1}
        assert box.problems == {}


async def test_one_failing_server_does_not_hold_up_the_others(running, bare):
    definitions = {"bad": bare("--silent", connect_timeout_s=0.5), "worse": bare("--dies"), "good": bare()}
    async with running() as servers, servers.open(definitions) as box:
        assert {tool.server for tool in await box.tools()} == {"good"}
        assert set(box.problems) == {"bad", "worse"}


@posix
async def test_a_crash_during_a_call_is_its_answer_and_the_next_call_finds_a_new_server(running, full):
    definition = full(env={"TOKEN": "${MINE}"})
    async with running({"MINE": "hush-hush"}) as servers, servers.open({"s": definition}) as box:
        before = await value(box, "s__process")
        output = await box.call("s__die", {})
        assert output.is_error
        assert output.content == (
            "The tool server 's' failed: the connection was lost during the call, which may have had an effect: "
            "it ended with exit code 3: out of luck, token ${MINE}."
        )
        after = await value(box, "s__process")
        assert after["pid"] != before["pid"]
        assert "s__add" in await names(box)
        assert box.problems == {}


async def test_every_call_that_was_under_way_learns_of_the_crash(running, bare):
    async with running() as servers, servers.open({"s": bare()}) as box:
        await box.tools()
        answers: list[str] = []

        async def hang() -> None:
            answers.append((await box.call("s__hang", {})).content)

        async with anyio.create_task_group() as calls:
            for _ in range(3):
                calls.start_soon(hang)
            while (await value(box, "s__cancelled"))["hung"] < 3:
                pass
            answers.append((await box.call("s__die", {})).content)
        assert len(answers) == 4
        assert all("exit code 7" in answer for answer in answers)


@posix
async def test_a_server_that_dies_again_and_again_is_left_alone_for_a_while(running, bare, tmp_path):
    marks = tmp_path / "starts"
    script = f"echo started >> '{marks}'; exit 4"
    definition = ToolServer(command="/bin/sh", args=("-c", script))
    async with running() as servers, servers.open({"s": definition}) as box:
        for _ in range(20):
            assert await box.tools() == ()
            assert box.problems["s"] == "it ended with exit code 4"
        # Started at once two times, each in both ways there are to begin; then there is a pause.
        assert len(marks.read_text().splitlines()) == 4


async def test_turns_that_wait_for_one_server_start_it_once(running, bare):
    pids: set[int] = set()

    async def turn(servers: ToolServers, name: str) -> None:
        async with servers.open({name: bare()}) as box:
            pids.add(await value(box, f"{name}__pid"))

    async with running() as servers, anyio.create_task_group() as turns:
        for name in ("a", "b", "c"):
            turns.start_soon(turn, servers, name)
    assert len(pids) == 1


async def test_a_turn_that_is_cancelled_while_a_server_starts_leaves_it_to_others(running, bare):
    async with running() as servers, servers.open({"s": bare()}) as box:
        async with anyio.create_task_group() as turn:
            turn.start_soon(box.tools)
            await anyio.lowlevel.checkpoint()
            turn.cancel_scope.cancel()
        assert "s__echo" in await names(box)


@posix
async def test_a_child_that_holds_the_pipe_open_does_not_keep_a_dead_server_alive(running, bare):
    server = bare()
    shell = ToolServer(command="/bin/sh", args=("-c", 'sleep 600 & exec "$@"', "sh", server.command, *server.args))
    async with running() as servers, servers.open({"s": shell}) as box:
        started = Started()
        await box.tools()
        (process,) = started.now()
        children = [child.pid for child in process.children()]
        assert "exit code 7" in (await box.call("s__die", {})).content
        assert await ended(*children)


async def test_a_server_that_is_still_starting_ends_with_the_rest(running, bare):
    started = Started()
    async with running() as servers, servers.open({"s": bare("--silent")}) as box, anyio.create_task_group() as turn:
        turn.start_soon(box.tools)
        while not (there := started.now()):
            await anyio.lowlevel.checkpoint()
        turn.cancel_scope.cancel()
    assert await ended(*(process.pid for process in there))
