"""Who asked for what: recorded where callers are known by name, and what one sees who sees only their own."""

import anyio
import pytest
from words import CALL, PATIENCE_S, WEATHER, ended, log, settings

from meerkat_mcp.domain.errors import IdempotencyConflict, SessionNotFound, StreamNotFound
from meerkat_mcp.domain.messages import ToolResult
from meerkat_mcp.stores.base import Selection

pytestmark = pytest.mark.anyio


async def begun(realm, prompt: str = "hi", *, by: str | None = "ann", **given) -> str:
    started = await realm.sessions.run(prompt, settings(**given), by=by)
    if started.turn_id is not None:
        await ended(realm, started)
    return started.session_id


async def said_by(realm, session_id: str) -> dict[str, str | None]:
    return {event.type: event.principal for event in await log(realm, session_id)}


async def test_a_session_and_its_turns_say_who_began_them(realm):
    session_id = await begun(realm)
    await ended(realm, await realm.sessions.resume(session_id, "again", by="bob"))
    session = await realm.journal.load(session_id)
    assert (session.principal, session.turn.principal) == ("ann", "bob")
    (listed,) = (await realm.reading.list(Selection(principal="ann"))).sessions
    assert listed.id == session_id


async def test_without_names_no_event_speaks_of_any(realm):
    session_id = await begun(realm, by=None)
    assert set((await said_by(realm, session_id)).values()) == {None}
    assert b"principal" not in (await realm.store.read(session_id))[0].body


async def test_what_a_caller_asks_for_is_theirs_and_what_the_turn_does_is_nobodys(realm):
    session_id = await begun(realm)
    await realm.sessions.resume(session_id, changes={"max_steps": 3}, by="bob")
    await realm.shelf.archive(session_id, by="cid")
    await realm.shelf.restore(session_id, by="dot")
    said = await said_by(realm, session_id)
    assert said["settings_changed"] == "bob"
    assert (said["session_archived"], said["session_restored"]) == ("cid", "dot")
    assert said["step_completed"] is said["turn_completed"] is None


async def test_a_queued_prompt_runs_in_the_name_of_who_queued_it(realm):
    started = await realm.sessions.run("[[hang]]", settings(), by="ann")
    queued = await realm.sessions.resume(started.session_id, "next", if_busy="queue", by="bob")
    await realm.sessions.interrupt(started.session_id, by="cid")
    await ended(realm, queued)
    session = await realm.journal.load(started.session_id)
    assert session.turn.principal == "bob"
    assert (await said_by(realm, started.session_id))["interrupt_requested"] == "cid"


async def test_who_brings_results_is_on_the_turn_that_goes_on(realm):
    session_id = await begun(realm, CALL, tools=(WEATHER,))
    (pending,) = (await realm.journal.load(session_id)).turn.pending
    result = ToolResult(tool_use_id=pending.tool_use_id, content="rain")
    await ended(realm, await realm.sessions.resume(session_id, tool_results=[result], by="bob"))
    said = await said_by(realm, session_id)
    assert said["tool_execution_completed"] == said["turn_resumed"] == "bob"


async def test_a_fork_is_the_session_of_who_made_it(realm):
    origin = await begun(realm)
    fork = await realm.shelf.fork(origin, by="bob")
    assert (await realm.journal.load(fork.id)).principal == fork.principal == "bob"
    assert (await realm.journal.load(origin)).principal == "ann"
    assert (await said_by(realm, origin))["session_forked"] == "bob"


async def test_who_sees_only_their_own_finds_no_other_session_by_any_name(realm):
    theirs, own = await begun(realm, by="bob"), await begun(realm)
    await begun(realm, by=None)
    for reference in (theirs, theirs[:35], f"den:{theirs}"):
        with pytest.raises(SessionNotFound):
            await realm.reading.resolve(reference, sees="ann")
        assert await realm.reading.resolve(reference) == theirs
    assert await realm.reading.resolve("last", sees="ann") == own
    with pytest.raises(SessionNotFound):
        await realm.reading.resolve("~2", sees="ann")
    with pytest.raises(SessionNotFound):
        await realm.reading.resolve(own, exact=True, sees="")


async def test_a_stream_of_a_session_of_somebody_else_is_not_there(realm):
    stream = await realm.streams.open(await begun(realm, by="bob"), after_seq=0)
    with pytest.raises(StreamNotFound):
        await realm.streams.read(stream.stream_id, timeout_s=0, sees="ann")
    assert not await realm.streams.close(stream.stream_id, sees="ann")
    assert (await realm.streams.read(stream.stream_id, timeout_s=0, sees="bob")).events
    assert await realm.streams.close(stream.stream_id, sees="bob")


async def test_an_idempotency_key_is_its_principals_own(realm):
    async def run(by: str | None, prompt: str = "hi") -> str:
        with anyio.fail_after(PATIENCE_S):
            return (await realm.sessions.run(prompt, settings(), idempotency_key="k", by=by)).session_id

    ann, bob, nobody = await run("ann"), await run("bob"), await run(None)
    assert len({ann, bob, nobody}) == 3
    assert (await run("ann"), await run("bob"), await run(None)) == (ann, bob, nobody)
    with pytest.raises(IdempotencyConflict):
        await run("ann", "other")


async def test_deleting_what_is_old_takes_only_what_one_sees(realm):
    for by in ("ann", "bob"):
        await realm.shelf.archive(await begun(realm, by=by))
    later_ms = realm.journal.clock.now_ms() + 1000
    assert [one.principal for one in await realm.shelf.archived_before(later_ms, principal="ann")] == ["ann"]
    assert len(await realm.shelf.archived_before(later_ms)) == 2
