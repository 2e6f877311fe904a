"""kill -9: nothing acknowledged is lost, the next process says so, and the session goes on."""

import random

import anyio
import pytest
from words import check_log, log, outcome

from meerkat_mcp.sessions.claims import Started

pytestmark = pytest.mark.anyio

WEATHER = {"name": "weather", "description": "What the weather is."}
PROMPTS = [
    "[[reason thinking it over]][[words 400]]",
    "[[words 30]][[hang]]",
    '[[words 20]][[call weather {"city": "Oslo"}]]',
    "[[bad_json 2]]",
]


@pytest.mark.parametrize("moment", range(30))
async def test_a_killed_server_loses_nothing_that_it_told(serve, look, moment):
    chance = random.Random(moment)
    async with serve() as host:
        schema = {"type": "object", "required": ["a"], "properties": {"a": {"type": "integer"}}}
        prompt = PROMPTS[moment % len(PROMPTS)]
        more = {"output_schema": schema} if "bad_json" in prompt else {"tools": [WEATHER]}
        await host.begin("meerkat_run", prompt=prompt, stream=True, provider_params={"delta_ms": 2}, **more)
        wanted = chance.randint(1, 14)
        with anyio.move_on_after(1.0):  # a turn may have fewer events than wanted: then after its last one
            await host.until(lambda: len(host.events()) >= wanted)
        host.process.kill()
        await host.process.wait()
        told = host.events()
    assert told
    started = Started(told[0]["session_id"], next(e["turn_id"] for e in told if e.get("turn_id")))
    async with look() as realm:
        with anyio.fail_after(5):  # at once, not after a lease: the dead process's lock is free
            session = await realm.sessions.settled(started.session_id)
        assert not session.active
        kept = {event.seq: event.type for event in await log(realm, started.session_id)}
        recorded = {e["seq"]: e["type"] for e in told if not e["type"].endswith("_delta")}
        assert recorded.items() <= kept.items()
        result = await outcome(realm, started)
        assert result.status in ("completed", "interrupted", "waiting")
        if result.status == "interrupted":
            assert result.stop_reason == "owner_lost"
        changes = {"output_schema": None}
        with anyio.fail_after(10):
            again = await realm.sessions.resume(started.session_id, "[[say on]]", if_busy="interrupt", changes=changes)
            assert await realm.sessions.wait(again.session_id, again.turn_id, 10)
        assert (await outcome(realm, again)).text == "on"
        await check_log(realm, started.session_id)


async def test_half_written_text_is_still_in_the_log(serve, look):
    async with serve() as host:
        await host.begin("meerkat_run", prompt="[[say one two three]][[hang]]", stream=True)
        event = await host.event("text_delta")
        host.process.kill()
        await host.process.wait()
    async with look() as realm:
        await realm.sessions.settled(event["session_id"])
        assert "text_delta" in [one.type for one in await log(realm, event["session_id"])]


async def test_a_prompt_that_was_queued_runs_though_its_process_died(serve, look):
    async with serve() as host:
        run = await host.call("meerkat_run", prompt="[[hang]]", wait_seconds=0)
        queued = await host.call(
            "meerkat_resume", session_id=run["session_id"], prompt="[[say next]]", if_busy="queue", wait_seconds=0
        )
        host.process.kill()
        await host.process.wait()
    async with serve() as host:
        read = await host.call("meerkat_read", session_id=run["session_id"], turn_id=queued["turn_id"], wait_seconds=10)
        assert (read["turn"]["status"], read["turn"]["text"]) == ("completed", "next")
        first = await host.call("meerkat_read", session_id=run["session_id"], turn_id=run["turn_id"])
        assert first["turn"]["stop_reason"] == "owner_lost"


async def test_a_lost_reply_is_found_again_by_its_key(serve, look):
    async with serve() as host:
        await host.begin("meerkat_run", prompt="[[say once]]", idempotency_key="k", stream=True)
        done = await host.event("turn_completed")
        host.process.kill()
        await host.process.wait()
    async with serve() as host:
        again = await host.call("meerkat_run", prompt="[[say once]]", idempotency_key="k", stream=True)
        assert (again["turn_id"], again["text"]) == (done["turn_id"], "once")
        assert len((await host.call("meerkat_sessions"))["sessions"]) == 1
