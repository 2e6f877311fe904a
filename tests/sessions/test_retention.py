"""What is taken away by itself: only what the config says, by one process at a time, and nothing that is in use."""

import logging
from collections.abc import AsyncGenerator

import anyio
import anyio.lowlevel
import pytest
from words import PATIENCE_S, check_log, ended, log, outcome, resume, run, settings, until

from meerkat_mcp.domain.errors import PlanChanged, SessionNotFound, StoreUnavailable
from meerkat_mcp.domain.events import DELTAS, Owner
from meerkat_mcp.realms import Realm, choose, open_realm
from meerkat_mcp.sessions import retention
from meerkat_mcp.sessions.clock import SystemClock
from meerkat_mcp.sessions.retention import Retention, Tidied

pytestmark = pytest.mark.anyio

DAYS = 86_400_000
HALF = "[[say This is only half of it]][[hang]]"
LONG = "word " * 2_000


class Calendar(SystemClock):
    """The machine's clock, so many milliseconds ahead."""

    ahead_ms = 0

    def now_ms(self) -> int:
        return super().now_ms() + self.ahead_ms


@pytest.fixture
def calendar() -> Calendar:
    return Calendar()


@pytest.fixture(params=["memory", "sqlite", "jsonl"])
async def realm(request: pytest.FixtureRequest, tmp_path, calendar) -> AsyncGenerator[Realm]:
    async with open_realm(choose("den", backend=request.param, state_root=tmp_path), clock=calendar) as opened:
        yield opened


def keeper(realm: Realm, incarnation: str = "keeper") -> Retention:
    owner = Owner(instance_id=incarnation, incarnation=incarnation, host="host", pid=1)
    return Retention(realm.sessions, realm.shelf, owner)


async def broken_off(realm: Realm) -> str:
    """A session whose only turn was interrupted in the middle of a text."""
    started = await realm.sessions.run(HALF, settings())
    await until(realm, started.session_id, "text_delta")
    await realm.sessions.interrupt(started.session_id)
    return started.session_id


async def deltas(realm: Realm, session_id: str) -> int:
    return sum(event.type in DELTAS for event in await log(realm, session_id))


async def weight(realm: Realm, session_id: str) -> int:
    return sum([len(recorded.body) async for recorded in realm.journal.log(session_id)])


# ── archived sessions ──


async def test_archived_sessions_go_after_so_long_without_activity_and_no_others(realm, calendar):
    old, restored = (await run(realm, "old"))[0].session_id, (await run(realm, "restored"))[0].session_id
    kept = (await run(realm, "not archived"))[0].session_id
    for session_id in (old, restored):
        await realm.shelf.archive(session_id)
    calendar.ahead_ms = 8 * DAYS
    young = (await run(realm, "young"))[0].session_id
    await realm.shelf.archive(young)
    await realm.shelf.restore(restored)
    await realm.set_config({"retention": {"archived_days": 7}})
    assert (await keeper(realm).tidy()).sessions == 1
    with pytest.raises(SessionNotFound):
        await realm.journal.load(old)
    for session_id in (restored, kept, young):
        await check_log(realm, session_id)


async def test_archived_sessions_stay_unless_the_config_says_otherwise(realm, calendar):
    session_id = (await run(realm, "old"))[0].session_id
    await realm.shelf.archive(session_id)
    before = await log(realm, session_id)
    calendar.ahead_ms = 3_000 * DAYS
    assert (await keeper(realm).tidy()).sessions == 0
    assert await log(realm, session_id) == before


async def test_more_archived_sessions_than_one_step_takes_are_all_deleted(realm, calendar):
    for number in range(2 * retention.STEP_SESSIONS + 1):
        started = await realm.sessions.run("", settings(), title=str(number))
        await realm.shelf.archive(started.session_id)
    await realm.set_config({"retention": {"archived_days": 1}})
    calendar.ahead_ms = 2 * DAYS
    assert (await keeper(realm).tidy()).sessions == 2 * retention.STEP_SESSIONS + 1
    assert not (await realm.reading.list(retention.Selection(archived=None), limit=10)).sessions


# ── pieces ──


async def test_pieces_of_a_text_that_never_was_completed_go_after_a_week(realm, calendar):
    session_id = await broken_off(realm)
    whole = (await run(realm, "Hello"))[0].session_id
    before = await log(realm, session_id)
    assert await deltas(realm, session_id)
    keeping = keeper(realm)
    calendar.ahead_ms = 6 * DAYS
    assert (await keeping.tidy()).pieces == 0
    calendar.ahead_ms = 8 * DAYS
    done = await keeping.tidy()
    assert done.pieces == len([event for event in before if event.type in DELTAS]) > 0
    assert done.freed_bytes > 0
    assert await log(realm, session_id) == [event for event in before if event.type not in DELTAS]
    assert (await keeping.tidy()) == Tidied()
    for one in (session_id, whole):
        await check_log(realm, one)
    assert "half" not in (await resume(realm, session_id, "And now?")).text


async def test_pieces_of_an_old_turn_go_and_those_of_a_young_one_stay_until_they_are_old(realm, calendar):
    session_id = await broken_off(realm)
    old = await deltas(realm, session_id)
    calendar.ahead_ms = 8 * DAYS
    started = await realm.sessions.resume(session_id, HALF)
    await until(realm, session_id, "text_delta", after=(await log(realm, session_id))[-1].seq)
    await realm.sessions.interrupt(session_id)
    young = await deltas(realm, session_id) - old
    assert young
    keeping = keeper(realm)
    assert (await keeping.tidy()).pieces == old
    assert (await outcome(realm, started)).text, "what was written of the young one can still be read"
    calendar.ahead_ms = 16 * DAYS
    assert (await keeping.tidy()).pieces == young
    await check_log(realm, session_id)


async def test_a_session_at_work_or_waiting_is_not_touched(realm, calendar):
    await realm.set_config({"retention": {"delta_days": 0, "max_event_bytes": 10_000, "archived_days": 0}})
    session_id = await broken_off(realm)
    started = await realm.sessions.resume(session_id, "[[hang]]")
    await until(realm, session_id, "step_started", after=(await realm.journal.load(session_id)).turn.first_seq)
    before = await log(realm, session_id)
    calendar.ahead_ms = 1 * DAYS
    assert (await keeper(realm).tidy()).pieces == 0
    assert await log(realm, session_id) == before
    await realm.sessions.interrupt(session_id)
    await ended(realm, started)
    calendar.ahead_ms = 2 * DAYS
    assert (await keeper(realm).tidy()).pieces


# ── bulk ──


async def compacted(realm: Realm) -> str:
    started, _ = await run(realm, f"First, remember this: {LONG}")
    for number in range(3):
        await resume(realm, started.session_id, f"Number {number}: [[say {LONG}]]")
    await ended(realm, await realm.sessions.compact(started.session_id))
    await resume(realm, started.session_id, f"After: {LONG}")
    return started.session_id


async def test_what_a_compaction_replaced_loses_its_bulk_and_the_model_reads_what_it_read(realm):
    session_id = await compacted(realm)
    session = await realm.journal.load(session_id)
    before, heavy = await log(realm, session_id), await weight(realm, session_id)
    await realm.set_config({"retention": {"max_event_bytes": 10_000}})
    done = await keeper(realm).tidy()
    after = await log(realm, session_id)
    assert done.lightened > 3
    assert heavy - done.freed_bytes == await weight(realm, session_id)
    assert [(event.seq, event.type) for event in before] == [(event.seq, event.type) for event in after]
    assert await check_log(realm, session_id) == session, "usage, counts, opening: all the same"
    unread = session.compacted_seq
    assert [event for event in before if event.seq > unread] == [event for event in after if event.seq > unread]
    shown = (await realm.reading.history(session_id, offset=0, limit=100)).messages
    assert "characters were here]" in shown[0].message.text
    assert shown[0].message.text.startswith("First, remember this: word")
    assert (await resume(realm, session_id, "[[say On]]")).text == "On"


async def test_only_as_much_goes_as_is_too_much_and_the_oldest_first(realm):
    session_id = await compacted(realm)
    heavy = await weight(realm, session_id)
    await realm.set_config({"retention": {"max_event_bytes": heavy - 5_000}})
    keeping = keeper(realm)
    assert (await keeping.tidy()).lightened == 1
    assert await weight(realm, session_id) <= heavy - 5_000
    assert (await keeping.tidy()).lightened == 0
    assert "characters were here" in (await log(realm, session_id))[1].prompt


async def test_a_log_that_was_never_compacted_keeps_everything(realm):
    started, _ = await run(realm, LONG)
    before = await log(realm, started.session_id)
    await realm.set_config({"retention": {"max_event_bytes": 10_000}})
    assert (await keeper(realm).tidy()).lightened == 0
    assert await log(realm, started.session_id) == before


async def test_a_log_that_grows_is_weighed_on_from_where_it_was(realm):
    session_id = await compacted(realm)
    await realm.set_config({"retention": {"max_event_bytes": 200_000}})
    keeping = keeper(realm)
    assert (await keeping.tidy()).lightened == 0
    while await weight(realm, session_id) <= 200_000:
        await resume(realm, session_id, f"More: {LONG}{LONG}")
    assert (await keeping.tidy()).lightened
    assert await weight(realm, session_id) <= 200_000
    await check_log(realm, session_id)


# ── keys and streams ──


async def test_old_keys_and_idle_streams_are_forgotten(realm, calendar):
    started, _ = await run(realm, "hi", key="k")
    stream = await realm.streams.open(started.session_id, after_seq=0)
    keeping = keeper(realm)
    calendar.ahead_ms = 2 * DAYS
    done = await keeping.tidy()
    assert (done.keys, done.streams) == (0, 1)
    assert await realm.store.stream(stream.stream_id) is None
    calendar.ahead_ms = 31 * DAYS
    done = await keeping.tidy()
    assert (done.keys, done.streams) == (1, 0)
    assert await realm.store.claim("k") is None


# ── dry ──


async def test_a_dry_round_says_what_a_real_one_does_and_does_nothing(realm, calendar):
    await realm.set_config({"retention": {"archived_days": 1, "max_event_bytes": 10_000}})
    gone, _ = await run(realm, "old", key="of the deleted")
    await realm.shelf.archive(gone.session_id)
    kept = [await broken_off(realm), await compacted(realm), (await run(realm, "hi", key="k"))[0].session_id]
    await realm.streams.open(kept[0], after_seq=0)
    before = [await log(realm, session_id) for session_id in (gone.session_id, *kept)]
    calendar.ahead_ms = 40 * DAYS
    dry = await keeper(realm).tidy(dry_run=True)
    assert [await log(realm, session_id) for session_id in (gone.session_id, *kept)] == before
    done = await keeper(realm).tidy()
    assert (dry.sessions, dry.pieces, dry.lightened, dry.freed_bytes, dry.streams) == (
        done.sessions,
        done.pieces,
        done.lightened,
        done.freed_bytes,
        done.streams,
    )
    assert (dry.keys, done.keys) == (1, 2), "the key of a session that goes, goes with it"


# ── in the background ──


async def test_one_process_does_it_until_the_next_round_and_then_another_may(realm, calendar):
    first, second = keeper(realm, "first"), keeper(realm, "second")
    assert await first.look() == Tidied()
    assert await second.look() is None
    assert await first.look() is None, "not again so soon"
    calendar.ahead_ms = int(retention.ROUND_INTERVAL_S * 1000) + 1
    assert await second.look() == Tidied()
    assert await first.look() is None


async def test_a_process_that_died_in_a_round_is_followed_soon(realm, calendar):
    now_ms = calendar.now_ms()
    assert await realm.store.on_duty("retention", "dead", now_ms=now_ms, until_ms=now_ms + 60_000)
    other = keeper(realm)
    assert await other.look() is None
    calendar.ahead_ms = 61_000
    assert await other.look() == Tidied()


async def test_a_change_of_the_config_has_everything_looked_at_again(realm, calendar):
    session_id = await broken_off(realm)
    keeping = keeper(realm)
    calendar.ahead_ms = 2 * DAYS
    assert (await keeping.tidy()).pieces == 0
    await realm.set_config({"retention": {"delta_days": 1}})
    assert (await keeping.tidy()).pieces
    assert not await deltas(realm, session_id)


async def test_a_store_that_was_away_is_gone_on_with_where_it_was(tmp_path, calendar):
    async with open_realm(choose("den", backend="memory", state_root=tmp_path), clock=calendar) as realm:
        for _ in range(3):
            await broken_off(realm)
        keeping, tidy, times = keeper(realm), realm.store.tidy, 0

        async def away(*args, **named):
            nonlocal times
            times += 1
            if times == 2:
                raise StoreUnavailable("Away.")
            await tidy(*args, **named)

        realm.store.tidy = away
        calendar.ahead_ms = 8 * DAYS
        with pytest.raises(StoreUnavailable):
            await keeping.look()
        done = await keeping.look()
        assert done is not None
        assert done.pieces
        assert times == 4, "one that went well, one that did not, and the two that were left"
        for session in (await realm.reading.list(retention.Selection(), limit=10)).sessions:
            assert not await deltas(realm, session.id)


async def test_it_runs_by_itself_and_says_what_it_did(realm, calendar, monkeypatch, caplog):
    monkeypatch.setattr(retention, "FIRST_REST_S", 0.0)
    session_id = await broken_off(realm)
    calendar.ahead_ms = 8 * DAYS
    with caplog.at_level(logging.INFO, retention.__name__), anyio.fail_after(PATIENCE_S):
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(keeper(realm).run)
            while not any("Kept the realm small" in record.message for record in caplog.records):
                await anyio.lowlevel.checkpoint()
            tasks.cancel_scope.cancel()
    assert not await deltas(realm, session_id)


# ── plans ──


async def test_a_session_that_was_brought_back_is_not_deleted_with_the_others(realm):
    away, back = (await run(realm, "away"))[0].session_id, (await run(realm, "back"))[0].session_id
    await realm.shelf.archive(away)
    with pytest.raises(PlanChanged):
        await realm.shelf.delete(away, back, archived_only=True)
    await check_log(realm, back)
    with pytest.raises(SessionNotFound):
        await realm.journal.load(away)
