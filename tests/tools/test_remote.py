"""Tools of other servers, as a turn uses them: real processes, real pipes."""

import json
import subprocess
import sys
from contextlib import suppress
from pathlib import Path

import anyio
import psutil
import pytest
from tools.processes import Started, ended, names, value

from meerkat_mcp.domain.messages import Image
from meerkat_mcp.tools.base import Toolbox, ToolServers
from meerkat_mcp.tools.remote import McpToolServers

pytestmark = pytest.mark.anyio

SERVERS = Path(__file__).parent / "servers"


# ── what there is ──


async def test_tools_are_listed_by_server_as_each_lists_them(running, full, bare):
    async with running() as servers, servers.open({"z": full(), "a": bare("--pages")}) as box:
        tools = await box.tools()
        assert [tool.name for tool in tools][:3] == ["a__echo", "a__hang", "a__cancelled"]
        assert [tool.server for tool in tools] == sorted(tool.server for tool in tools)
        assert box.problems == {}
        by_name = {tool.name: tool for tool in tools}
        add, wipe = by_name["z__add"], by_name["z__wipe"]
        assert (add.title, add.read_only, add.definition.description) == ("Add up", True, "Add two numbers.")
        assert add.definition.input_schema["required"] == ["a", "b"]
        assert (wipe.title, wipe.read_only) == ("Wipe", False)
        (odd,) = [name for name in by_name if name.startswith("z__odd")]
        assert (await box.call(odd, {})).content == "odd indeed"


async def test_a_server_is_started_only_when_tools_are_asked_for(running, bare):
    started = Started()
    async with running() as servers:
        async with servers.open({"bare": bare()}) as box:
            assert box.problems == {}
            assert not started.now()
            await box.tools()
            assert started.now()
        async with servers.open({}) as box:
            assert await box.tools() == ()


async def test_a_tool_can_be_called_before_anything_was_listed(running, bare):
    async with running() as servers, servers.open({"bare": bare()}) as box:
        assert await value(box, "bare__echo", a=1) == {"a": 1}


async def test_a_long_description_is_cut(running, bare):
    async with running() as servers, servers.open({"bare": bare()}) as box:
        tools = await box.tools()
        assert len(tools[0].definition.description) < 20_100


async def test_a_list_without_end_has_one(running, bare):
    async with running() as servers, servers.open({"bare": bare("--pages-without-end")}) as box:
        assert len(await box.tools()) == 512


async def test_a_server_without_tools_has_none(running, bare):
    async with running() as servers, servers.open({"bare": bare("--no-tools")}) as box:
        assert await box.tools() == ()
        assert box.problems == {}


@pytest.mark.parametrize("kind", ["bare", "full"])
async def test_a_list_is_asked_for_again_when_the_server_says_so(running, request, kind: str):
    define = request.getfixturevalue(kind)
    async with running() as servers, servers.open({"s": define()}) as box:
        assert "s__grown" not in await names(box)
        await box.call("s__grow", {})
        while "s__grown" not in await names(box):
            await box.call("s__echo", {})


# ── calls ──


async def test_every_kind_of_content_arrives(running, full):
    async with running() as servers, servers.open({"full": full()}) as box:
        output = await box.call("full__everything", {})
        assert output.content.splitlines() == [
            "first",
            "[audio, audio/wav: it cannot be heard here]",
            "resource a: file:///a.txt (text/plain, A)",
            "file:///b.txt:",
            "inside b",
            "last",
        ]
        assert [type(image) for image in output.images] == [Image, Image]
        assert (await box.call("full__add", {"a": 1, "b": 2})).content == "3"
        failed = await box.call("full__fail", {})
        assert failed.is_error
        assert "it is full" in failed.content
        wrong = await box.call("full__add", {"a": "x"})
        assert wrong.is_error


async def test_a_tool_that_asks_back_gets_no_answer_and_the_call_fails(running, full):
    async with running() as servers, servers.open({"full": full()}) as box:
        asked = await box.call("full__ask", {})
        assert asked.is_error
        insisted = await box.call("full__insist", {})
        assert insisted.is_error
        assert "input of a person" in insisted.content


async def test_a_tool_that_there_is_not_is_answered_by_those_that_there_are(running, bare):
    async with running() as servers, servers.open({"bare": bare(), "gone": bare("--dies")}) as box:
        output = await box.call("bare__fly", {})
        assert output.is_error
        assert "bare__echo" in output.content
        assert "'gone' is away" in output.content


async def test_a_refusal_of_the_protocol_is_an_error_in_words(running, bare):
    async with running() as servers, servers.open({"bare": bare()}) as box:
        await box.tools()
        output = await box.call("bare__not_a_result", {})
        assert output.is_error
        assert output.content == "The tool server 'bare' failed: it sent what the protocol does not allow."
        assert (await box.call("bare__broken_pair", {})).content == "half a smile ?"


async def test_cancelling_a_call_cancels_it_at_the_server_and_nothing_else(running, full):
    async with running() as servers, servers.open({"full": full()}) as box:
        await box.tools()
        async with anyio.create_task_group() as calls:
            calls.start_soon(box.call, "full__hang", {})
            assert (await box.call("full__await_hanging", {})).content == "hanging"
            calls.cancel_scope.cancel()
        assert (await box.call("full__await_cancelled", {})).content == "cancelled"


async def test_an_older_server_is_told_of_a_cancelled_call_too(running, bare):
    async with running() as servers, servers.open({"bare": bare()}) as box:
        await box.tools()
        async with anyio.create_task_group() as calls:
            calls.start_soon(box.call, "bare__hang", {})
            while (await value(box, "bare__cancelled"))["hung"] == 0:
                pass
            calls.cancel_scope.cancel()
        assert await value(box, "bare__cancelled") == {"hung": 1, "cancelled": [True]}


async def test_a_call_that_takes_too_long_is_cancelled(running, bare):
    async with running() as servers, servers.open({"bare": bare(call_timeout_s=0.1)}) as box:
        await box.tools()
        output = await box.call("bare__hang", {})
        assert output.is_error
        assert "did not answer within 0.1 s" in output.content
        async with servers.open({"bare": bare()}) as patient:
            assert await value(patient, "bare__cancelled") == {"hung": 1, "cancelled": [True]}


# ── who shares a server, and for how long ──


async def test_two_turns_share_a_server_if_their_definitions_come_out_equal(running, bare):
    one, other = bare(env={"WHERE": "${PLACE}"}), bare(env={"WHERE": "here"}, call_timeout_s=5)
    async with running({"PLACE": "here"}) as servers:
        async with servers.open({"one": one}) as box, servers.open({"other": other}) as beside:
            pid = await value(box, "one__pid")
            assert await value(beside, "other__pid") == pid
        async with servers.open({"again": one}) as box:
            assert await value(box, "again__pid") == pid
        async with servers.open({"elsewhere": bare(env={"WHERE": "there"})}) as box:
            assert await value(box, "elsewhere__pid") != pid


async def test_the_end_takes_the_servers_and_their_children_with_it(running, full):
    async with running() as servers, servers.open({"full": full()}) as box:
        there = await value(box, "full__process")
    assert await ended(there["pid"], there["child"])


async def test_a_server_that_will_not_go_is_made_to(running, bare):
    async with running() as servers, servers.open({"bare": bare("--stubborn")}) as box:
        pid = await value(box, "bare__pid")
    assert await ended(pid)


async def test_a_server_is_stopped_when_nobody_has_used_it_for_a_while(running, bare):
    async with running(idle_s=0.1) as servers:
        async with servers.open({"bare": bare()}) as box:
            first = await value(box, "bare__pid")
            with anyio.move_on_after(0.3):
                await box.call("bare__hang", {})
            assert await value(box, "bare__pid") == first  # a turn that is open uses it
        assert await ended(first)
        async with servers.open({"bare": bare()}) as box:
            assert await value(box, "bare__pid") != first


async def test_a_server_ends_when_we_are_killed(full):
    holder = await anyio.open_process([sys.executable, str(SERVERS / "holder.py")], stderr=subprocess.DEVNULL)
    try:
        with anyio.fail_after(20):
            there = json.loads(await holder.stdout.receive())
    finally:
        holder.kill()
        with anyio.CancelScope(shield=True):
            await holder.aclose()
    try:
        assert await ended(there["pid"])
    finally:
        with suppress(psutil.NoSuchProcess):  # it outlived both, as nobody was left to end it
            psutil.Process(there["child"]).kill()


async def test_after_the_end_every_answer_says_so(running, bare):
    async with running() as servers, servers.open({"bare": bare()}) as box:
        await box.tools()
        async with servers.open({"bare": bare()}) as closed:
            pass
        assert (await closed.call("bare__echo", {})).is_error
    assert (await box.call("bare__echo", {})).is_error
    async with McpToolServers({}.get).open({"bare": bare()}) as never:
        assert await never.tools() == ()
        assert "bare" in never.problems


# ── secrets ──


async def test_a_server_gets_the_basic_variables_and_its_own_and_no_others(running, full, monkeypatch):
    monkeypatch.setenv("ANTHROPIC_API_KEY", "sk-secret")
    definition = full(env={"TOKEN": "${MINE}", "PLAIN": "x", "ABSENT": "${NONE:-fallback}"})
    async with running({"MINE": "hush"}) as servers, servers.open({"full": definition}) as box:
        seen = await value(box, "full__environment")
        assert "ANTHROPIC_API_KEY" not in seen
        assert (seen["TOKEN"], seen["PLAIN"], seen["ABSENT"]) == ("hush", "x", "fallback")
        assert "PATH" in seen


async def test_a_variable_that_is_not_set_is_a_problem(running, bare):
    async with running() as servers, servers.open({"bare": bare(env={"TOKEN": "${MINE}"})}) as box:
        assert await box.tools() == ()
        assert "MINE is not set" in box.problems["bare"]


# ── the contract ──


def test_it_meets_the_seam():
    servers: ToolServers = McpToolServers({}.get)
    assert servers


async def test_an_open_box_is_a_toolbox(running, bare):
    async with running() as servers, servers.open({"bare": bare()}) as box:
        toolbox: Toolbox = box
        assert toolbox.problems == {}
