import anyio
import pytest
from words import CALL, PATIENCE_S, WEATHER, check_log, ended, outcome, resume, run, settings, types, until

from meerkat_mcp.domain.errors import (
    IdempotencyConflict,
    InvalidRequest,
    LimitExceeded,
    ModelUnknown,
    NotWaiting,
    SchemaInvalid,
    SessionArchived,
    SessionBusy,
    SessionNotFound,
    ToolResultsMismatch,
)
from meerkat_mcp.domain.messages import ToolResult

pytestmark = pytest.mark.anyio

RAIN = ToolResult(tool_use_id="call_1_1", content="rain")


async def test_a_session_without_a_prompt_has_no_turn(realm):
    started = await realm.sessions.run("", settings())
    session = await realm.journal.load(started.session_id)
    assert (started.turn_id, session.state, session.turns) == (None, "idle", 0)


async def test_a_resumed_session_remembers(realm):
    started, _ = await run(realm, "My name is Ada.")
    assert "Ada" in (await resume(realm, started.session_id, "What is my name?")).text


async def test_what_is_left_out_is_inherited_and_what_is_given_replaces(realm):
    started, _ = await run(realm, "hi", system_prompt="one", max_steps=3)
    await resume(realm, started.session_id, "hi", changes={"max_steps": 4})
    kept = (await realm.journal.load(started.session_id)).settings
    assert (kept.system_prompt, kept.max_steps) == ("one", 4)
    assert (await resume(realm, started.session_id, "[[system]]")).text == "one"


async def test_settings_can_change_without_a_turn(realm):
    started, _ = await run(realm, "hi")
    changed = await realm.sessions.resume(started.session_id, title="A title", labels={"team": "a"})
    session = await realm.journal.load(started.session_id)
    assert (changed.turn_id, session.title, session.labels, session.turns) == (None, "A title", {"team": "a"}, 1)


async def test_a_call_that_asks_for_nothing_says_so(realm):
    started, _ = await run(realm, "hi")
    with pytest.raises(InvalidRequest, match="nothing to do"):
        await realm.sessions.resume(started.session_id)


async def test_a_second_prompt_is_told_who_is_at_work(realm):
    started = await realm.sessions.run("[[hang]]", settings())
    with pytest.raises(SessionBusy) as busy:
        await realm.sessions.resume(started.session_id, "me too")
    assert busy.value.facts["turn_id"] == started.turn_id
    assert busy.value.facts["owner"]["instance_id"] == realm.owner.instance_id
    assert busy.value.facts["since_ms"] > 0


async def test_a_prompt_that_interrupts_takes_the_place_of_the_running_turn(realm):
    started = await realm.sessions.run("[[hang]]", settings())
    assert (await resume(realm, started.session_id, "[[say mine]]", if_busy="interrupt")).text == "mine"
    assert (await outcome(realm, started)).stop_reason == "superseded"
    await check_log(realm, started.session_id)


async def test_the_queue_has_a_limit_and_a_queued_prompt_can_be_withdrawn(realm):
    await realm.set_config({"limits": {"max_queued_prompts": 1}})
    started = await realm.sessions.run("[[hang]]", settings())
    queued = await realm.sessions.resume(started.session_id, "one", if_busy="queue")
    with pytest.raises(LimitExceeded):
        await realm.sessions.resume(started.session_id, "two", if_busy="queue")
    said = await realm.sessions.interrupt(started.session_id, expected_turn_id=queued.turn_id)
    assert (said.interrupted, said.ended) == (True, True)
    assert (await outcome(realm, queued)).stop_reason == "withdrawn"
    assert (await realm.journal.load(started.session_id)).state == "running"


async def test_turns_at_once_have_a_limit(realm):
    await realm.set_config({"limits": {"max_concurrent_turns": 1}})
    started = await realm.sessions.run("[[hang]]", settings())
    with pytest.raises(LimitExceeded):
        await realm.sessions.run("hi", settings())
    await realm.sessions.interrupt(started.session_id)
    await run(realm, "hi")


async def test_an_interrupt_tells_the_truth(realm):
    idle, _ = await run(realm, "hi")
    assert not (await realm.sessions.interrupt(idle.session_id)).interrupted
    started = await realm.sessions.run("[[hang]]", settings())
    assert not (await realm.sessions.interrupt(started.session_id, expected_turn_id="another")).interrupted
    said = await realm.sessions.interrupt(started.session_id, expected_turn_id=started.turn_id)
    assert (said.interrupted, said.ended, said.turn_id) == (True, True, started.turn_id)
    assert not (await realm.sessions.interrupt(started.session_id)).interrupted
    await check_log(realm, started.session_id)


async def test_ten_interrupts_at_once_end_one_turn_once(realm):
    started = await realm.sessions.run("[[hang]]", settings())
    await until(realm, started.session_id, "step_started")
    with anyio.fail_after(PATIENCE_S):
        async with anyio.create_task_group() as tasks:
            for _ in range(10):
                tasks.start_soon(realm.sessions.interrupt, started.session_id)
    assert (await types(realm, started.session_id)).count("turn_interrupted") == 1
    await check_log(realm, started.session_id)


async def test_a_first_turn_waits_for_its_tools_like_any_other(realm):
    started, waiting = await run(realm, CALL, tools=(WEATHER,))
    assert (waiting.status, waiting.pending[0].args) == ("waiting", {"city": "Oslo"})
    done = await resume(realm, started.session_id, tool_results=[RAIN])
    assert (done.status, done.turn_id, done.tool_calls) == ("completed", started.turn_id, 1)
    assert "rain" in done.text
    await check_log(realm, started.session_id)


async def test_a_prompt_with_tool_results_follows_them(realm):
    started, _ = await run(realm, CALL, tools=(WEATHER,))
    done = await resume(realm, started.session_id, "[[history]]", tool_results=[RAIN])
    assert done.text.splitlines()[-2:] == ["tool: call_1_1 = rain", "user: [[history]]"]


@pytest.mark.parametrize(
    "brought",
    [
        [ToolResult(tool_use_id="call_1_1", content="x")],
        [ToolResult(tool_use_id="other", content="x"), ToolResult(tool_use_id="call_1_1", content="x")],
        [ToolResult(tool_use_id="call_1_1", content="x"), ToolResult(tool_use_id="call_1_1", content="y")],
    ],
    ids=["too few", "unknown", "twice"],
)
async def test_tool_results_answer_every_pending_call_exactly_once(realm, brought):
    started, _ = await run(realm, CALL + CALL, tools=(WEATHER,))
    with pytest.raises(ToolResultsMismatch) as refused:
        await realm.sessions.resume(started.session_id, tool_results=brought)
    assert refused.value.facts["expected"] == ["call_1_1", "call_1_2"]
    assert (await realm.journal.load(started.session_id)).state == "waiting"


async def test_a_tool_result_over_the_limit_is_refused_and_the_turn_still_waits(realm):
    await realm.set_config({"limits": {"max_tool_result_chars": 100}})
    started, _ = await run(realm, CALL, tools=(WEATHER,))
    with pytest.raises(LimitExceeded):
        await realm.sessions.resume(
            started.session_id, tool_results=[ToolResult(tool_use_id="call_1_1", content="x" * 101)]
        )
    assert (await resume(realm, started.session_id, tool_results=[RAIN])).status == "completed"


async def test_a_plain_prompt_to_a_waiting_session_names_what_it_waits_for(realm):
    started, _ = await run(realm, CALL, tools=(WEATHER,))
    with pytest.raises(ToolResultsMismatch):
        await realm.sessions.resume(started.session_id, "hello?")
    assert (await resume(realm, started.session_id, "[[say on]]", if_busy="interrupt")).text == "on"
    await check_log(realm, started.session_id)


async def test_the_same_results_twice_find_the_same_turn(realm):
    started, _ = await run(realm, CALL, tools=(WEATHER,))
    first = await resume(realm, started.session_id, tool_results=[RAIN])
    again = await resume(realm, started.session_id, tool_results=[RAIN])
    assert again == first
    other = ToolResult(tool_use_id="call_1_1", content="sun")
    with pytest.raises(NotWaiting):
        await realm.sessions.resume(started.session_id, tool_results=[other])


async def test_an_idempotency_key_finds_the_first_calls_turn(realm):
    first, _ = await run(realm, "hi", key="k")
    again, _ = await run(realm, "hi", key="k")
    assert again == first
    with pytest.raises(IdempotencyConflict):
        await run(realm, "ho", key="k")
    assert (await realm.journal.load(first.session_id)).turns == 1


async def test_two_calls_at_once_with_one_key_run_one_turn(realm):
    found = []

    async def one() -> None:
        started, _ = await run(realm, "[[say once]]", key="k")
        found.append(started)

    async with anyio.create_task_group() as tasks:
        tasks.start_soon(one)
        tasks.start_soon(one)
    assert found[0] == found[1]
    assert len(await realm.store.sessions(_all())) == 1


def _all():
    from meerkat_mcp.stores.base import Selection

    return Selection(archived=None)


async def test_a_resume_with_a_key_is_recognised_too(realm):
    started, _ = await run(realm, "hi")
    first = await realm.sessions.resume(started.session_id, "[[say a]]", idempotency_key="r")
    await ended(realm, first)
    assert await realm.sessions.resume(started.session_id, "[[say a]]", idempotency_key="r") == first
    assert (await realm.journal.load(started.session_id)).turns == 2


@pytest.mark.parametrize(
    ("given", "error"),
    [
        ({"model": "nonesuch"}, ModelUnknown),
        ({"provider": "nobody"}, InvalidRequest),
        ({"output_schema": {"type": "no such type"}}, SchemaInvalid),
        ({"output_schema": {"$ref": "https://example.com/schema"}}, SchemaInvalid),
    ],
)
async def test_settings_that_cannot_work_are_refused_before_anything_is_recorded(realm, given, error):
    with pytest.raises(error):
        await realm.sessions.run("hi", settings(**given))
    assert not await realm.store.sessions(_all())


async def test_a_prompt_over_the_limit_is_refused(realm):
    await realm.set_config({"limits": {"max_prompt_chars": 10}})
    with pytest.raises(LimitExceeded):
        await realm.sessions.run("x" * 11, settings())


async def test_an_unknown_session_is_not_found_by_any_verb(realm):
    unknown = "01a1fbc0-0000-7000-8000-000000000000"
    for verb in (
        realm.sessions.resume(unknown, "x"),
        realm.sessions.interrupt(unknown),
        realm.sessions.compact(unknown),
        realm.shelf.archive(unknown),
        realm.shelf.restore(unknown),
        realm.shelf.fork(unknown),
        realm.shelf.delete(unknown),
        realm.reading.history(unknown),
        realm.streams.open(unknown, after_seq=None),
    ):
        with pytest.raises(SessionNotFound):
            await verb


async def test_a_compaction_is_a_turn_whose_summary_stands_for_the_history(realm):
    started, _ = await run(realm, "My name is Ada.")
    compacted = await realm.sessions.compact(started.session_id)
    assert (await ended(realm, compacted)).kind == "compaction"
    history = await resume(realm, started.session_id, "[[history]]")
    assert history.text.startswith("user: Summary of the conversation so far:")
    assert (await realm.reading.history(started.session_id)).messages[0].message.text == "My name is Ada."
    await check_log(realm, started.session_id)


async def test_a_compaction_calls_no_tools_and_answers_no_schema(realm):
    schema = {"type": "object", "required": ["a"], "properties": {"a": {"type": "integer"}}}
    started, _ = await run(realm, "hi", tools=(WEATHER,), output_schema=schema)
    compacted = await ended(realm, await realm.sessions.compact(started.session_id))
    assert compacted.text.startswith("Summary by the demo model")


async def test_a_failed_compaction_leaves_everything_as_it_was(realm):
    started, _ = await run(realm, "hi", max_tokens=30)
    await realm.sessions.resume(started.session_id, changes={"max_tokens": 1})
    cut = await ended(realm, await realm.sessions.compact(started.session_id))
    assert cut.status == "limit"
    assert "history_compacted" not in await types(realm, started.session_id)


async def test_an_archived_session_can_be_read_and_restored_not_continued(realm):
    started, _ = await run(realm, "hi")
    assert (await realm.shelf.archive(started.session_id)).state == "archived"
    assert (await realm.shelf.archive(started.session_id)).state == "archived"
    with pytest.raises(SessionArchived):
        await realm.sessions.resume(started.session_id, "x")
    assert (await realm.reading.history(started.session_id)).total == 2
    await realm.shelf.restore(started.session_id)
    await realm.shelf.restore(started.session_id)
    assert (await types(realm, started.session_id)).count("session_restored") == 1
    assert (await resume(realm, started.session_id, "[[say back]]")).text == "back"


async def test_archiving_ends_a_turn_that_waits_and_refuses_one_that_runs(realm):
    waiting, _ = await run(realm, CALL, tools=(WEATHER,))
    await realm.shelf.archive(waiting.session_id)
    assert (await outcome(realm, waiting)).stop_reason == "abandoned"
    running = await realm.sessions.run("[[hang]]", settings())
    with pytest.raises(SessionBusy):
        await realm.shelf.archive(running.session_id)
    with pytest.raises(SessionBusy):
        await realm.shelf.delete(running.session_id)
