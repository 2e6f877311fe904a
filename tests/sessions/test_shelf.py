import anyio
import pytest
from words import CALL, PATIENCE_S, WEATHER, check_log, log, resume, run, settings, until

from meerkat_mcp.domain.errors import InvalidRequest, SessionArchived, SessionNotFound
from meerkat_mcp.stores.base import Selection

pytestmark = pytest.mark.anyio


async def test_a_fork_has_the_same_history_and_its_own_future(realm):
    origin, _ = await run(realm, "My name is Ada.")
    fork = await realm.shelf.fork(origin.session_id, title="A fork", labels={"of": "ada"})
    assert (fork.title, fork.labels, fork.forked_from.session_id) == ("A fork", {"of": "ada"}, origin.session_id)
    assert "Ada" in (await resume(realm, fork.id, "What is my name?")).text
    assert (await realm.reading.history(origin.session_id)).total == 2
    assert (await realm.reading.history(fork.id)).total == 4
    await check_log(realm, origin.session_id)
    await check_log(realm, fork.id)


async def test_a_fork_at_an_event_ends_there(realm):
    origin, _ = await run(realm, "one")
    middle = (await realm.journal.load(origin.session_id)).seq
    await resume(realm, origin.session_id, "two")
    fork = await realm.shelf.fork(origin.session_id, at_seq=middle)
    assert (await realm.reading.history(fork.id)).messages[0].message.text == "one"
    assert (await realm.reading.history(fork.id)).total == 2


@pytest.mark.parametrize("at_seq", [2, 3, 4])
async def test_a_turn_that_a_fork_cuts_through_ends_in_it_as_interrupted(realm, at_seq):
    origin, _ = await run(realm, "one")
    fork = await realm.shelf.fork(origin.session_id, at_seq=at_seq)
    assert (fork.state, fork.turn.status) == ("idle", "interrupted")
    await check_log(realm, fork.id)
    assert (await resume(realm, fork.id, "[[say on]]")).text == "on"


async def test_a_fork_of_a_running_or_waiting_session_leaves_out_the_open_turn(realm):
    origin, _ = await run(realm, "one")
    with anyio.fail_after(PATIENCE_S):
        await realm.sessions.resume(origin.session_id, "[[hang]]")
        await until(realm, origin.session_id, "step_started", after=5)
    assert (await realm.reading.history((await realm.shelf.fork(origin.session_id)).id)).total == 2
    waiting, _ = await run(realm, CALL, tools=(WEATHER,))
    fork = await realm.shelf.fork(waiting.session_id)
    assert fork.state == "idle"


async def test_a_fork_of_an_archived_session_is_not_archived(realm):
    origin, _ = await run(realm, "one")
    await realm.shelf.archive(origin.session_id)
    assert (await realm.shelf.fork(origin.session_id)).state == "idle"


async def test_a_fork_and_its_origin_go_their_own_ways(realm):
    origin, _ = await run(realm, "My name is Ada.")
    fork = await realm.shelf.fork(origin.session_id)
    await realm.shelf.rename(origin.session_id, title="Origin", labels={"of": "nobody"})
    await realm.shelf.archive(origin.session_id)
    assert (await realm.journal.load(fork.id)).state == "idle"
    await realm.shelf.delete(origin.session_id)
    session = await check_log(realm, fork.id)
    assert (session.title, session.labels, session.forked_from.session_id) == ("", {}, origin.session_id)
    assert "Ada" in (await resume(realm, fork.id, "What is my name?")).text
    second = await realm.shelf.fork(fork.id)
    await realm.shelf.delete(fork.id)
    assert (await realm.reading.history(second.id)).total == 4


# ── title and labels ──


async def test_a_session_is_renamed_and_found_by_its_new_name_at_once(realm):
    started, _ = await run(realm, "one")
    await realm.shelf.rename(started.session_id, title="First", labels={"team": "red", "prio": "1"})
    session = await realm.shelf.rename(started.session_id, labels={"team": "blue", "prio": None, "gone": None})
    assert (session.title, session.labels) == ("First", {"team": "blue"})
    for selection, there in [
        (Selection(labels={"team": "blue"}), True),
        (Selection(labels={"team": "red"}), False),
        (Selection(query="first"), True),
    ]:
        found = (await realm.reading.list(selection)).sessions
        assert [one.id for one in found] == [started.session_id] * there
    assert (await realm.shelf.rename(started.session_id, title="")).name == "one"
    await check_log(realm, started.session_id)


async def test_a_name_that_is_as_it_was_changes_nothing(realm):
    started, _ = await run(realm, "one")
    before = await realm.shelf.rename(started.session_id, title="A", labels={"k": "v"})
    assert await realm.shelf.rename(started.session_id, title="A", labels={"k": "v"}) == before


async def test_a_session_is_renamed_while_it_runs_or_waits_but_not_in_the_archive(realm):
    started, _ = await run(realm, "one")
    await realm.sessions.resume(started.session_id, "[[hang]]")
    await until(realm, started.session_id, "step_started", after=6)
    assert (await realm.shelf.rename(started.session_id, title="Running")).state == "running"
    await realm.sessions.interrupt(started.session_id)
    assert (await realm.journal.load(started.session_id)).title == "Running"
    waiting, _ = await run(realm, CALL, tools=(WEATHER,))
    assert (await realm.shelf.rename(waiting.session_id, labels={"a": "b"})).state == "waiting"
    await realm.shelf.archive(waiting.session_id)
    with pytest.raises(SessionArchived):
        await realm.shelf.rename(waiting.session_id, title="Put away")
    await check_log(realm, waiting.session_id)


async def test_labels_that_are_set_at_the_same_time_are_all_there(realm):
    started, _ = await run(realm, "one")
    with anyio.fail_after(PATIENCE_S):
        async with anyio.create_task_group() as tasks:
            for number in range(10):
                tasks.start_soon(lambda n=number: realm.shelf.rename(started.session_id, labels={f"l{n}": "x"}))
    assert len((await realm.journal.load(started.session_id)).labels) == 10


@pytest.mark.parametrize(
    "change",
    [
        {"title": "x" * 201},
        {"labels": {"": "x"}},
        {"labels": {"x" * 65: ""}},
        {"labels": {"x": "y" * 201}},
        {"labels": {str(number): "" for number in range(33)}},
    ],
    ids=lambda change: next(iter(change)),
)
async def test_a_name_that_is_too_long_is_refused(den, change):
    started, _ = await run(den, "one")
    with pytest.raises(InvalidRequest):
        await den.shelf.rename(started.session_id, **change)


async def test_a_place_that_is_not_in_the_log_is_refused(realm):
    origin, _ = await run(realm, "one")
    with pytest.raises(InvalidRequest):
        await realm.shelf.fork(origin.session_id, at_seq=1000)


async def test_a_deleted_session_is_gone_with_its_streams_and_keys(realm):
    started, _ = await run(realm, "hi", key="k")
    stream = await realm.streams.open(started.session_id, after_seq=0)
    await realm.shelf.delete(started.session_id)
    with pytest.raises(SessionNotFound):
        await realm.journal.load(started.session_id)
    assert await realm.store.claim("k") is None
    assert await realm.store.stream(stream.stream_id) is None
    assert not await log(realm, started.session_id)


async def test_old_archived_sessions_are_found_and_younger_or_active_ones_not(realm):
    old, _ = await run(realm, "old")
    await realm.shelf.archive(old.session_id)
    await run(realm, "active")
    young = await realm.sessions.run("", settings())
    await realm.shelf.archive(young.session_id)
    born = (await realm.journal.load(young.session_id)).updated_ms
    found = await realm.shelf.archived_before(born)
    assert [session.id for session in found] == [old.session_id] or born == (
        await realm.journal.load(old.session_id)
    ).updated_ms
