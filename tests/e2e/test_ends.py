"""How a server ends: soon, by itself, with its turns ended and nothing but protocol on its stdout."""

import json
import signal

import anyio
import pytest
from words import check_log, outcome

from meerkat_mcp.sessions.claims import Started

pytestmark = pytest.mark.anyio

END_S = 2.0


@pytest.mark.parametrize("how", ["EOF", "SIGTERM", "SIGINT"])
async def test_a_server_that_must_go_in_the_middle_of_a_turn_ends_it(serve, look, how):
    async with serve() as host:
        run = await host.call("meerkat_run", prompt="[[say a b c]][[hang]]", wait_seconds=0.3)
        with anyio.fail_after(END_S):
            if how == "EOF":
                await host.process.stdin.aclose()
            else:
                host.process.send_signal(signal.Signals[how])
            assert await host.process.wait() == 0
        assert all(json.loads(line)["jsonrpc"] == "2.0" for line in host.lines)
    async with look() as realm:
        ended = await outcome(realm, Started(run["session_id"], run["turn_id"]))
        assert (ended.status, ended.stop_reason, ended.text.strip()) == ("interrupted", "shutdown", "a b c")
        await check_log(realm, run["session_id"])


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
