"""A process that is told to end while it serves: no turn begins, those that run end, and nobody waits for nothing."""

import anyio
import pytest
from words import PATIENCE_S, ended, outcome, run, settings

from meerkat_mcp.domain.errors import StoreUnavailable

pytestmark = pytest.mark.anyio


async def test_a_turn_that_ends_in_time_ends_by_itself(realm):
    started = await realm.sessions.run("[[delta_ms 20]][[say done]]", settings())
    with anyio.fail_after(PATIENCE_S):
        await realm.turns.end(PATIENCE_S)
    assert (await outcome(realm, started)).status == "completed"


async def test_one_that_does_not_is_ended_by_its_own_event(realm):
    started = await realm.sessions.run("[[hang]]", settings())
    with anyio.fail_after(PATIENCE_S):
        await realm.turns.end(0.01)
    ended_so = await outcome(realm, started)
    assert (ended_so.status, ended_so.stop_reason) == ("interrupted", "shutdown")


async def test_no_turn_begins_any_more_and_what_was_there_can_still_be_read(realm):
    started, _ = await run(realm, "hi")
    with anyio.fail_after(PATIENCE_S):
        await realm.turns.end(PATIENCE_S)
    for begin in (realm.sessions.run("hi", settings()), realm.sessions.resume(started.session_id, "more")):
        with pytest.raises(StoreUnavailable) as refused:
            await begin
        assert refused.value.retryable
    assert (await realm.sessions.settled(started.session_id)).state == "idle"


async def test_queued_prompts_stay_for_another_process(open_den):
    async with open_den() as first:
        started = await first.sessions.run("[[hang]]", settings())
        queued = await first.sessions.resume(started.session_id, "[[say later]]", if_busy="queue")
        with anyio.fail_after(PATIENCE_S):
            await first.turns.end(0.01)
        session = await first.journal.load(started.session_id)
        assert (session.state, [one.turn_id for one in session.queue]) == ("idle", [queued.turn_id])
        async with open_den() as second:
            assert (await ended(second, queued)).text == "later"


async def test_who_waits_for_an_event_or_an_end_is_let_go(realm):
    idle = await realm.sessions.run("", settings())
    stalled = await realm.sessions.run("[[hang]]", settings())
    stream = await realm.streams.open(idle.session_id, after_seq=None)
    found: list[object] = []

    async def read() -> None:
        found.append((await realm.streams.read(stream.stream_id, timeout_s=PATIENCE_S * 2)).status)

    async def wait() -> None:
        found.append(await realm.sessions.wait(stalled.session_id, stalled.turn_id or "", PATIENCE_S * 2))

    with anyio.fail_after(PATIENCE_S):
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(read)
            tasks.start_soon(wait)
            while realm.journal.followers < 2:
                await anyio.lowlevel.checkpoint()
            realm.journal.stop_following()
    assert sorted(found, key=str) == [False, "timeout"]


async def test_a_process_without_turns_needs_no_lease(realm):
    assert realm.turns.leased
    await realm.sessions.run("[[hang]]", settings())
    assert realm.turns.leased
    assert realm.turns.running == 1
