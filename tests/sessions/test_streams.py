import anyio
import pytest
from words import PATIENCE_S, resume, run, settings

from meerkat_mcp.domain import events as e
from meerkat_mcp.domain.errors import InvalidRequest, StreamNotFound

pytestmark = pytest.mark.anyio


async def drain(realm, stream_id: str, **given):
    """Everything that is there."""
    seqs: list[int] = []
    while (found := await realm.streams.read(stream_id, timeout_s=0, **given)).events:
        seqs += [recorded.seq for recorded in found.events]
    return seqs


async def test_a_stream_replays_from_the_start_or_begins_now(realm):
    started, _ = await run(realm, "hi")
    there = [recorded.seq for recorded in await realm.store.read(started.session_id)]
    replay = await realm.streams.open(started.session_id, after_seq=0)
    now = await realm.streams.open(started.session_id, after_seq=None)
    assert await drain(realm, replay.stream_id, events_max=2) == there
    assert await drain(realm, now.stream_id) == []
    await resume(realm, started.session_id, "again")
    assert (await drain(realm, now.stream_id))[0] > there[-1]


async def test_a_read_waits_for_the_next_event(realm):
    started = await realm.sessions.run("", settings())
    stream = await realm.streams.open(started.session_id, after_seq=None)
    with anyio.fail_after(PATIENCE_S):
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(resume, realm, started.session_id, "[[say x]]")
            found = await realm.streams.read(stream.stream_id, timeout_s=PATIENCE_S)
    assert (found.status, found.events[0].type) == ("event", "turn_started")


async def test_reading_again_from_a_place_gives_the_same_events(realm):
    started, _ = await run(realm, "hi")
    stream = await realm.streams.open(started.session_id, after_seq=0)
    first = await realm.streams.read(stream.stream_id, timeout_s=0)
    again = await realm.streams.read(stream.stream_id, after_seq=0, timeout_s=0)
    assert again.events == first.events


async def test_only_the_types_that_were_asked_for_come(realm):
    started, _ = await run(realm, "hi")
    stream = await realm.streams.open(started.session_id, after_seq=0, types=["turn_completed"])
    found = await realm.streams.read(stream.stream_id, timeout_s=0)
    assert [recorded.type for recorded in found.events] == ["turn_completed"]


async def test_a_closed_stream_is_not_found_and_closing_twice_is_fine(realm):
    started, _ = await run(realm, "hi")
    stream = await realm.streams.open(started.session_id, after_seq=0)
    assert await realm.streams.close(stream.stream_id)
    assert not await realm.streams.close(stream.stream_id)
    with pytest.raises(StreamNotFound):
        await realm.streams.read(stream.stream_id, timeout_s=0)


async def test_a_place_from_the_future_is_refused_with_the_last_one(realm):
    started, _ = await run(realm, "hi")
    with pytest.raises(InvalidRequest) as refused:
        await realm.streams.open(started.session_id, after_seq=999)
    assert refused.value.facts["last_seq"] == (await realm.journal.load(started.session_id)).seq


async def test_a_stream_works_in_another_process_and_after_a_restart(open_den):
    async with open_den() as first:
        started, _ = await run(first, "hi")
        stream = await first.streams.open(started.session_id, after_seq=0)
        one = await first.streams.read(stream.stream_id, events_max=2, timeout_s=0)
    async with open_den() as second:
        two = await second.streams.read(stream.stream_id, events_max=2, timeout_s=0)
    assert [recorded.seq for recorded in (*one.events, *two.events)] == [
        recorded.seq for recorded in (await _read(open_den, started.session_id))[:4]
    ]


async def _read(open_den, session_id):
    async with open_den() as realm:
        return await realm.store.read(session_id)


async def test_the_stream_of_a_deleted_session_says_closed_or_not_found(realm):
    started, _ = await run(realm, "hi")
    stream = await realm.streams.open(started.session_id, after_seq=0)
    await realm.shelf.delete(started.session_id)
    with pytest.raises(StreamNotFound):
        await realm.streams.read(stream.stream_id, timeout_s=0)


async def test_large_events_are_read_one_after_the_other_and_none_is_the_last_before_it_is(realm):
    started = await realm.sessions.run("", settings())
    for _ in range(3):
        large = e.SettingsChanged(title="x" * 1_100_000)
        await realm.journal.record(started.session_id, lambda _, large=large: [large])
    last_seq = (await realm.journal.load(started.session_id)).seq
    stream = await realm.streams.open(started.session_id, after_seq=0)
    more, seqs = True, list[int]()
    while more:
        found = await realm.streams.read(stream.stream_id, timeout_s=0)
        seqs += [recorded.seq for recorded in found.events]
        more = found.more
    assert seqs[-1] == last_seq
    assert seqs == [recorded.seq async for recorded in realm.journal.log(started.session_id)]
