import anyio
import pytest
from words import PATIENCE_S, check_log, ended, run, settings, until

from meerkat_mcp.domain import events as e
from meerkat_mcp.domain.settings import Settings
from meerkat_mcp.sessions.journal import Journal
from meerkat_mcp.sessions.tail import SLICE_FOLLOWERS, TAIL_EVENTS_MAX

pytestmark = pytest.mark.anyio


def named(title: str) -> e.SettingsChanged:
    return e.SettingsChanged(title=title)


async def session(realm) -> str:
    return (await realm.sessions.run("", settings())).session_id


async def collect(journal: Journal, session_id: str, *, after: int, through: int) -> list[int]:
    seqs: list[int] = []
    with anyio.fail_after(PATIENCE_S):
        async with journal.follow(session_id, after=after) as events:
            while not seqs or seqs[-1] < through:
                seqs += [recorded.seq for recorded in await events.next()]
    return seqs


async def test_a_follower_reads_what_was_then_what_comes(realm):
    session_id = await session(realm)
    for number in range(3):
        await realm.journal.record(session_id, lambda _, n=number: [named(f"t{n}")])
    async with anyio.create_task_group() as tasks:

        async def more() -> None:
            for number in range(3):
                await realm.journal.record(session_id, lambda _, n=number: [named(f"u{n}")])

        tasks.start_soon(more)
        assert await collect(realm.journal, session_id, after=2, through=7) == [3, 4, 5, 6, 7]


async def test_a_follower_far_behind_reads_from_the_store_and_misses_nothing(realm):
    session_id = await session(realm)
    last = 3 * TAIL_EVENTS_MAX
    async with realm.journal.follow(session_id, after=0) as slow:
        while (await realm.journal.load(session_id)).seq < last:
            await realm.journal.record(session_id, lambda _: [named("x")] * 256)
        seqs: list[int] = []
        with anyio.fail_after(PATIENCE_S):
            while not seqs or seqs[-1] < last:
                seqs += [recorded.seq for recorded in await slow.next()]
    assert seqs[:last] == list(range(1, last + 1))


async def test_a_cancelled_wait_misses_nothing(realm):
    session_id = await session(realm)
    async with realm.journal.follow(session_id, after=1) as events:
        with anyio.move_on_after(0):
            await events.next()
        await realm.journal.record(session_id, lambda _: [named("x")])
        with anyio.fail_after(PATIENCE_S):
            assert [recorded.seq for recorded in await events.next()] == [2]


async def test_a_log_nobody_uses_is_not_kept_in_memory(realm):
    started, _ = await run(realm, "hi")
    await until(realm, started.session_id, "turn_completed")
    assert not realm.journal._tails


async def test_a_thousand_followers_each_see_every_event_once(realm):
    session_id = await session(realm)
    seen: list[list[int]] = []

    async def one() -> None:
        seen.append(await collect(realm.journal, session_id, after=0, through=51))

    async with anyio.create_task_group() as tasks:
        for _ in range(1000):
            tasks.start_soon(one)
        for _ in range(50):
            await realm.journal.record(session_id, lambda _: [named("x")])
    assert seen == [list(range(1, 52))] * 1000


async def test_a_record_that_was_begun_is_finished_though_its_caller_is_cancelled(realm):
    session_id = await session(realm)
    with anyio.CancelScope() as scope:
        scope.cancel()
        await realm.journal.record(session_id, lambda _: [named("x")])
    assert (await realm.journal.load(session_id)).title in ("", "x")
    await check_log(realm, session_id)


async def test_two_processes_hear_each_other(open_den):
    async with open_den() as here, open_den() as there:
        session_id = await session(here)
        async with anyio.create_task_group() as tasks:

            async def more() -> None:
                for _ in range(20):
                    await there.journal.record(session_id, lambda _: [named("x")])

            tasks.start_soon(more)
            assert await collect(here.journal, session_id, after=0, through=21) == list(range(1, 22))


async def test_a_decision_on_a_stale_session_is_taken_again(open_den):
    async with open_den() as here, open_den() as there:
        session_id = await session(here)
        async with here.journal.tail(session_id):
            await there.journal.record(session_id, lambda _: [named("theirs")])
            seen: list[str] = []

            def decide(current):
                seen.append(current.title)
                return [named(f"{current.title} and ours")]

            changed = await here.journal.record(session_id, decide)
        assert changed.title == "theirs and ours"
        await check_log(here, session_id)


async def test_both_of_two_writers_get_their_events_in_without_a_hole(open_den):
    async with open_den() as here, open_den() as there:
        session_id = await session(here)

        async def write(realm) -> None:
            for _ in range(50):
                await realm.journal.record(session_id, lambda _: [named("x")])

        with anyio.fail_after(PATIENCE_S):
            async with anyio.create_task_group() as tasks:
                tasks.start_soon(write, here)
                tasks.start_soon(write, there)
        assert (await check_log(here, session_id)).seq == 101


async def test_deltas_of_one_process_reach_a_follower_in_another(open_den):
    async with open_den() as here, open_den() as there:
        started = await here.sessions.run("[[words 40]]", settings(provider_params={"delta_ms": 10}))
        assert isinstance(await until(there, started.session_id, "text_delta"), e.TextDelta)
        await ended(there, started)


async def test_recording_in_a_deleted_session_ends_with_not_found(open_den):
    from meerkat_mcp.domain.errors import SessionNotFound

    async with open_den() as here, open_den() as there:
        session_id = await session(here)
        async with here.journal.tail(session_id):
            await there.shelf.delete(session_id)
            with anyio.fail_after(PATIENCE_S), pytest.raises(SessionNotFound):
                await here.journal.record(session_id, lambda _: [named("x")])


async def test_settings_fit_through_the_log_unchanged(realm):
    given = Settings(system_prompt="ü", provider_params={"a": None, "b": [1, {"c": None}]}, max_steps=2)
    session_id = (await realm.sessions.run("", given)).session_id
    assert (await realm.journal.load(session_id)).settings == given
    assert (await realm.store.read(session_id))[0].event.settings == given


async def test_a_crowd_is_woken_in_slices_and_everybody_gets_everything(realm):
    session_id = await session(realm)
    crowd, last = 3 * SLICE_FOLLOWERS, 6
    got: list[list[int]] = []
    with anyio.fail_after(PATIENCE_S):
        async with anyio.create_task_group() as tasks:

            async def follower() -> None:
                got.append(await collect(realm.journal, session_id, after=1, through=last))

            for _ in range(crowd):
                tasks.start_soon(follower)
            while realm.journal.followers < crowd:
                await anyio.lowlevel.checkpoint()
            for number in range(last - 1):
                await realm.journal.record(session_id, lambda _, n=number: [named(f"t{n}")])
    assert got == [list(range(2, last + 1))] * crowd
    assert realm.journal.followers == 0
