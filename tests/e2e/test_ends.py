"""How a server ends: soon, by itself, with its turns left to the next one and nothing but protocol on its stdout."""

import json
import signal
import sys
from pathlib import Path

import anyio
import pytest
from words import check_log, log, outcome

from meerkat_mcp.sessions.claims import Started

pytestmark = pytest.mark.anyio

END_S = 2.0
NOTING = Path(__file__).parent / "noting.py"


@pytest.mark.parametrize("how", ["EOF", "SIGTERM", "SIGINT"])
async def test_a_server_that_must_go_in_the_middle_of_a_turn_leaves_it_to_the_next_one(serve, look, how):
    async with serve() as host:
        run = await host.call("meerkat_run", prompt="[[say a b c]][[wait 5]][[say d]]", wait_seconds=0.3)
        with anyio.fail_after(END_S):
            if how == "EOF":
                await host.process.stdin.aclose()
            else:
                host.process.send_signal(signal.Signals[how])
            assert await host.process.wait() == 0
        assert all(json.loads(line)["jsonrpc"] == "2.0" for line in host.lines)
    async with look() as realm:
        assert (await realm.journal.load(run["session_id"])).state == "suspended"
        left = await outcome(realm, Started(run["session_id"], run["turn_id"]))
        assert (left.status, left.text) == ("running", ""), "what the unfinished step said is void"
    async with serve() as host:
        read = await host.call("meerkat_read", session_id=run["session_id"], wait_seconds=15)
        assert (read["turn"]["status"], read["turn"]["text"]) == ("completed", "a b c\nd")
        assert read["turn"]["turn_id"] == run["turn_id"]
    async with look() as realm:
        await check_log(realm, run["session_id"])


async def test_a_turn_whose_caller_still_waits_when_the_host_goes_is_given_up_with_its_call(serve, look):
    async with serve() as host:
        await host.begin("meerkat_run", prompt="[[say a b c]][[hang]]", stream=True)
        sid = (await host.event("text_delta"))["session_id"]
        with anyio.fail_after(END_S):
            await host.process.stdin.aclose()
            assert await host.process.wait() == 0
    async with look() as realm:
        session = await realm.journal.load(sid)
        ended = await outcome(realm, Started(sid, session.turn.turn_id))
        assert (ended.status, ended.stop_reason) == ("interrupted", "cancelled")
        await check_log(realm, sid)


async def test_a_detached_turn_of_three_tool_steps_outlives_its_host_and_repeats_nothing(serve, look, tmp_path):
    """The host goes after the first step; the next host process reads the answer."""
    tools = {"box": {"command": sys.executable, "args": [str(NOTING), str(tmp_path / "made.txt")]}}
    prompt = "[[next]]".join(f'[[call box__note {{"word": "w{n}"}}]]' for n in (1, 2, 3)) + "[[next]][[say all noted]]"
    async with serve("--trust-caller") as host:
        call = await host.begin(
            "meerkat_run",
            prompt=f"[[delta_ms 0]]{prompt}",
            mcp_servers=tools,
            permission_mode="auto",
            on_cancel="detach",
            stream=True,
        )
        run = await host.event("step_completed")
        assert call
        with anyio.fail_after(END_S):
            await host.process.stdin.aclose()
            assert await host.process.wait() == 0
    async with serve("--trust-caller") as host:
        read = await host.call("meerkat_read", session_id=run["session_id"], wait_seconds=15)
        turn = read["turn"]
        assert (turn["status"], turn["text"], turn["steps"], turn["tool_calls"]) == ("completed", "all noted", 4, 3)
    async with look() as realm:
        events = await log(realm, run["session_id"])
        steps = [event.step for event in events if event.type == "step_completed"]
        assert steps == [1, 2, 3, 4]
        made = [event.tool_use_id for event in events if event.type == "tool_execution_started"]
        assert len(made) == len(set(made)) == 3
        await check_log(realm, run["session_id"])
    noted = (tmp_path / "made.txt").read_text().split()
    assert len(noted) == len(set(noted)), "no call was made twice"


@pytest.mark.parametrize(("on_cancel", "reason"), [("interrupt", "cancelled"), ("detach", None)])
async def test_a_cancelled_call_ends_its_turn_unless_it_said_otherwise(serve, on_cancel, reason):
    async with serve() as host:
        call = await host.begin(
            "meerkat_run", prompt="[[say a]][[wait 0.3]][[say b]]", stream=True, on_cancel=on_cancel
        )
        sid = (await host.event("step_started"))["session_id"]
        await host.send("notifications/cancelled", {"requestId": call}, notify=True)
        read = await host.call("meerkat_read", session_id=sid, wait_seconds=10)
        if on_cancel == "interrupt":
            assert (read["turn"]["status"], read["turn"]["stop_reason"]) == ("interrupted", reason)
        else:
            assert (read["turn"]["status"], read["turn"]["text"]) == ("completed", "a\nb")


async def test_streamed_events_come_in_order_and_whole(serve):
    async with serve() as host:
        call = await host.begin("meerkat_run", prompt="[[words 80]]", stream=True, provider_params={"delta_ms": 3})
        result = (await host.answer(call))["structuredContent"]
        events = host.events()
        seqs = [event["seq"] for event in events]
        assert seqs == list(range(2, result["last_seq"] + 1)), "everything from the turn's first event on, once"
        written = "".join(event["text"] for event in events if event["type"] == "text_delta")
        assert written == result["text"]
        progress = [note["params"]["progress"] for note in host.notes if note["method"] == "notifications/progress"]
        assert progress == sorted(set(progress))


async def test_what_a_host_says_wrong_is_answered_and_the_connection_goes_on(serve):
    async with serve() as host:
        await host.process.stdin.send(b"this is no JSON\n\n[]\n")
        answer = await host.ask("tools/nope", {})
        assert answer["error"]["code"] == -32601
        assert (await host.call("meerkat_capabilities"))["realm_id"] == "den"
