"""A turn that waits for a yes: who may say what, in which order, and what then becomes of the call."""

import anyio
import pytest
from sessions.actors import BOX, Bench, Scripted, call, calls, equip, says, tool, use
from words import PATIENCE_S, WEATHER, check_log, ended, log, outcome, resume, run, settings, types

from meerkat_mcp.domain.errors import (
    IdempotencyConflict,
    InvalidRequest,
    LimitExceeded,
    NotWaiting,
    SessionArchived,
    SessionBusy,
    ToolResultsMismatch,
)
from meerkat_mcp.domain.messages import ToolMessage, ToolResult, UserMessage
from meerkat_mcp.domain.transcript import NOT_MADE, UNANSWERED
from meerkat_mcp.realms import choose, open_realm
from meerkat_mcp.sessions.decisions import Approval
from meerkat_mcp.tools.base import Output

pytestmark = pytest.mark.anyio

WITH = {"mcp_servers": {"box": BOX}, "permission_mode": "ask"}
RAIN = ToolResult(tool_use_id="c1", content="rain")
YES = Approval("c2", "approve")
NO = Approval("c2", "deny", "not today")


class Scene:
    """A turn that waits for the caller's weather (c1), a yes to write (c2), and has looked already (c3)."""

    def __init__(self, realm, *more) -> None:
        self.realm = realm
        self.bench = equip(realm, Bench(tool("write"), tool("erase"), tool("look", reads=True)))
        self.model = Scripted(*more)
        use(realm, self.model)

    async def waiting(self, *made):
        made = made or (call("weather", 1), call("write", 2), call("look", 3))
        self.model._replies.insert(0, calls(*made))
        self.started, outcome = await run(self.realm, "go", tools=(WEATHER,), **WITH)
        assert outcome.status == "waiting"
        self.bench.made.clear()
        return outcome

    async def answer(self, *answers, prompt="", **given):
        return await resume(self.realm, self.started.session_id, prompt, **_sorted(answers), **given)

    async def refused(self, error, *answers, prompt="", **given):
        with pytest.raises(error) as refusal:
            await self.realm.sessions.resume(self.started.session_id, prompt, **_sorted(answers), **given)
        return refusal.value

    def results(self):
        messages = [message for message in self.model.requests[-1].messages if isinstance(message, ToolMessage)]
        return {result.tool_use_id: (result.content, result.is_error) for result in messages[-1].results}

    async def check(self):
        return await check_log(self.realm, self.started.session_id)


def _sorted(answers):
    return {
        "tool_results": [one for one in answers if isinstance(one, ToolResult)],
        "approvals": [one for one in answers if isinstance(one, Approval)],
    }


# ── yes and no ──


async def test_what_is_pending_is_in_the_result_and_in_the_session(realm):
    scene = Scene(realm)
    waiting = await scene.waiting()
    assert [one.tool_use_id for one in waiting.pending] == ["c1"]
    assert [(one.tool_use_id, one.tool_name) for one in waiting.approvals] == [("c2", "write")]
    session = await realm.journal.load(scene.started.session_id)
    assert (session.state, session.turn.approvals, session.turn.pending) == (
        "waiting",
        waiting.approvals,
        waiting.pending,
    )
    assert scene.bench.is_open == 0, "nothing is kept open while it waits"


async def test_a_yes_makes_the_call_once_and_the_turn_goes_on(realm):
    scene = Scene(realm, says("ok"))
    await scene.waiting(call("write", 2))
    done = await scene.answer(YES)
    assert (done.status, done.text, done.turn_id) == ("completed", "ok", scene.started.turn_id)
    assert scene.bench.made == ["write"]
    assert scene.results() == {"c2": ("write done", False)}
    assert (await types(realm, scene.started.session_id))[5:] == [
        "approval_requested",
        "turn_waiting",
        "approval_resolved",
        "turn_resumed",
        "tool_execution_started",
        "tool_execution_completed",
        "step_started",
        "text_complete",
        "step_completed",
        "turn_completed",
    ]
    await scene.check()


async def test_a_no_is_an_error_with_its_reason_and_the_turn_goes_on(den):
    scene = Scene(den, says("as you like"))
    await scene.waiting(call("write", 2))
    done = await scene.answer(NO)
    assert (done.status, done.text, done.tool_calls) == ("completed", "as you like", 1)
    assert scene.bench.made == []
    assert scene.results() == {"c2": ("This call was not allowed: not today", True)}
    await scene.check()


async def test_a_no_without_a_reason_says_no_more_than_that(den):
    scene = Scene(den, says("ok"))
    await scene.waiting(call("write", 2))
    await scene.answer(Approval("c2", "deny"))
    assert scene.results() == {"c2": ("This call was not allowed.", True)}


async def test_some_are_allowed_and_others_not(den):
    scene = Scene(den, says("ok"))
    await scene.waiting(call("write", 2), call("erase", 4))
    await scene.answer(Approval("c4", "deny", "never"), YES)
    assert scene.bench.made == ["write"]
    assert scene.results() == {"c2": ("write done", False), "c4": ("This call was not allowed: never", True)}
    await scene.check()


@pytest.mark.parametrize("who", ["caller", "operator", "elicitation"])
async def test_the_log_says_who_decided_and_why(den, who):
    scene = Scene(den, says("ok"))
    await scene.waiting(call("write", 2))
    await scene.answer(Approval("c2", "approve", "it is fine"), approved_by=who)
    (decided,) = [event for event in await log(den, scene.started.session_id) if event.type == "approval_resolved"]
    assert (decided.tool_use_id, decided.decision, decided.by, decided.reason) == ("c2", "approve", who, "it is fine")


async def test_a_turn_can_wait_for_one_yes_after_another(den):
    scene = Scene(den, calls(call("erase", 5)), says("ok"))
    await scene.waiting(call("write", 2))
    again = await scene.answer(YES)
    assert (again.status, [one.tool_use_id for one in again.approvals]) == ("waiting", ["c5"])
    assert (await scene.answer(Approval("c5", "approve"))).status == "completed"
    assert scene.bench.made == ["write", "erase"]
    await scene.check()


# ── together with the caller's tools ──


@pytest.mark.parametrize(
    "order",
    [[(RAIN,), (YES,)], [(YES,), (RAIN,)], [(RAIN, YES)], [(YES, RAIN)]],
    ids=["results first", "yes first", "together", "together the other way"],
)
async def test_results_and_approvals_come_in_any_order(realm, order):
    scene = Scene(realm, says("ok"))
    await scene.waiting()
    for early in order[:-1]:
        half = await scene.answer(*early)
        assert half.status == "waiting"
        assert len(half.pending) + len(half.approvals) == 1
        assert scene.bench.made == [], "nothing runs before all is answered"
    done = await scene.answer(*order[-1])
    assert (done.status, done.text, done.tool_calls) == ("completed", "ok", 3)
    assert scene.bench.made == ["write"]
    assert list(scene.results().items()) == [
        ("c1", ("rain", False)),
        ("c2", ("write done", False)),
        ("c3", ("look done", False)),
    ]
    await scene.check()


@pytest.mark.parametrize("order", [[(RAIN,), (NO,)], [(NO,), (RAIN,)]], ids=["results first", "no first"])
async def test_a_no_waits_for_the_results_too(den, order):
    scene = Scene(den, says("ok"))
    await scene.waiting()
    assert (await scene.answer(*order[0])).status == "waiting"
    assert (await scene.answer(*order[1])).status == "completed"
    assert scene.results()["c2"] == ("This call was not allowed: not today", True)
    await scene.check()


@pytest.mark.parametrize("answers", [(RAIN, YES), (YES, RAIN), (RAIN, NO)], ids=["both", "reversed", "no"])
async def test_a_prompt_with_the_last_answers_comes_after_all_results(realm, answers):
    scene = Scene(realm, says("ok"), says("ok"))
    await scene.waiting()
    await scene.answer(*answers, prompt="and hurry")
    first, second = scene.model.requests[-1].messages[-2:]
    assert isinstance(first, ToolMessage)
    assert len(first.results) == 3
    assert second == UserMessage(text="and hurry")
    seen = scene.model.requests[-1].messages
    history = await realm.reading.history(scene.started.session_id)
    assert [placed.message for placed in history.messages][:-1] == list(seen)
    await resume(realm, scene.started.session_id, "later")
    assert scene.model.requests[-1].messages[: len(seen)] == seen, "and so it is when it is read again"
    await scene.check()


async def test_a_prompt_does_not_come_before_the_last_answers(den):
    scene = Scene(den, says("ok"))
    await scene.waiting()
    for early in (RAIN, YES):
        refusal = await scene.refused(InvalidRequest, early, prompt="hurry")
        assert "last of what the turn waits for" in refusal.message
    assert (await scene.answer(RAIN, YES)).status == "completed"


# ── answers that do not fit ──


async def test_approvals_answer_every_pending_one_exactly_once(den):
    scene = Scene(den, says("ok"))
    await scene.waiting(call("write", 2), call("erase", 4))
    before = (await scene.check()).seq
    few = await scene.refused(ToolResultsMismatch, YES)
    assert few.facts["missing"] == ["c4"]
    assert few.facts["expected_approvals"] == ["c2", "c4"]
    assert (few.facts["unknown"], few.facts["twice"]) == (None, None)
    assert "missing" in few.as_dict()
    assert "unknown" not in few.as_dict()
    stray = await scene.refused(ToolResultsMismatch, YES, Approval("c4", "deny"), Approval("c9", "deny"))
    assert (stray.facts["missing"], stray.facts["unknown"]) == (None, ["c9"])
    twice = await scene.refused(ToolResultsMismatch, YES, Approval("c2", "deny"), Approval("c4", "approve"))
    assert (twice.facts["missing"], twice.facts["twice"]) == (None, ["c2"])
    assert (await scene.check()).seq == before, "nothing of it was recorded"
    assert (await scene.answer(YES, Approval("c4", "deny"))).status == "completed"


async def test_results_for_what_needs_a_yes_and_a_yes_for_what_needs_results_are_refused(den):
    scene = Scene(den)
    await scene.waiting()
    wrong = await scene.refused(ToolResultsMismatch, ToolResult(tool_use_id="c2", content="I did it myself"))
    assert (wrong.facts["missing"], wrong.facts["unknown"]) == (["c1"], ["c2"])
    wrong = await scene.refused(ToolResultsMismatch, Approval("c1", "approve"))
    assert (wrong.facts["missing"], wrong.facts["unknown"]) == (["c2"], ["c1"])


async def test_of_answers_of_both_kinds_one_that_does_not_fit_spoils_both(den):
    scene = Scene(den)
    await scene.waiting()
    await scene.refused(ToolResultsMismatch, RAIN, Approval("c9", "approve"))
    session = await scene.check()
    assert [one.tool_use_id for one in (*session.turn.pending, *session.turn.approvals)] == ["c1", "c2"]


async def test_a_plain_prompt_names_what_is_waited_for_and_if_busy_decides(den):
    scene = Scene(den, says("on"))
    await scene.waiting()
    refusal = await scene.refused(ToolResultsMismatch, prompt="hello?")
    assert (refusal.facts["expected"], refusal.facts["expected_approvals"]) == (["c1"], ["c2"])
    on = await resume(den, scene.started.session_id, "go on", if_busy="interrupt")
    assert on.text == "on"
    assert scene.bench.made == []
    await scene.check()


# ── said twice, or too late ──


@pytest.mark.parametrize("answer", [YES, NO], ids=["yes", "no"])
async def test_the_same_answer_twice_finds_the_same_turn_and_runs_nothing_again(realm, answer):
    scene = Scene(realm, says("ok"))
    await scene.waiting(call("write", 2))
    first = await scene.answer(answer)
    assert await scene.answer(answer) == first
    assert scene.bench.made == (["write"] if answer is YES else [])


@pytest.mark.parametrize("half", [RAIN, YES], ids=["results", "yes"])
async def test_half_an_answer_twice_is_recognised_while_the_other_half_is_waited_for(den, half):
    scene = Scene(den)
    await scene.waiting()
    first = await scene.answer(half)
    assert (await scene.answer(half)) == first
    assert first.status == "waiting"


async def test_another_answer_after_somebody_was_first_is_too_late(den):
    scene = Scene(den, says("ok"))
    await scene.waiting(call("write", 2))
    await scene.answer(YES)
    for late in (NO, Approval("c2", "approve", "for another reason"), Approval("c9", "deny")):
        await scene.refused(NotWaiting, late)
    assert scene.bench.made == ["write"]
    await scene.check()


async def test_of_two_who_decide_at_once_one_does_and_the_call_is_made_at_most_once(open_den):
    async with open_den() as here, open_den() as there:
        scene = Scene(here, says("ok"))
        await scene.waiting(call("write", 2))
        equip(there, scene.bench)
        use(there, scene.model)
        said: list[object] = []

        async def decide(realm, answer: Approval) -> None:
            try:
                said.append(await realm.sessions.resume(scene.started.session_id, approvals=[answer]))
            except (NotWaiting, SessionBusy) as exc:
                said.append(exc)

        with anyio.fail_after(PATIENCE_S):
            async with anyio.create_task_group() as tasks:
                tasks.start_soon(decide, here, YES)
                tasks.start_soon(decide, there, NO)
            done = await ended(here, scene.started)
        assert done.status == "completed"
        assert [type(one).__name__ for one in said].count("NotWaiting") == 1
        decided = [event for event in await log(here, scene.started.session_id) if event.type == "approval_resolved"]
        assert len(decided) == 1
        assert scene.bench.made == (["write"] if decided[0].decision == "approve" else [])
        await scene.check()


async def test_a_key_makes_an_answer_the_same_and_other_input_a_conflict(den):
    scene = Scene(den, says("ok"))
    await scene.waiting(call("write", 2))
    first = await scene.answer(YES, idempotency_key="k")
    assert await scene.answer(YES, idempotency_key="k") == first
    await scene.refused(IdempotencyConflict, NO, idempotency_key="k")
    assert scene.bench.made == ["write"]


# ── elsewhere and later ──


async def test_a_yes_is_taken_after_a_restart_by_the_process_that_gets_it(open_den):
    async with open_den() as realm:
        scene = Scene(realm)
        await scene.waiting()
        await scene.answer(RAIN)
    async with open_den() as realm:
        again = Scene(realm, says("ok"))
        again.started = scene.started
        half = await outcome(realm, scene.started)
        assert (half.status, half.pending, [one.tool_use_id for one in half.approvals]) == ("waiting", (), ["c2"])
        done = await again.answer(YES)
        assert (done.status, again.bench.made) == ("completed", ["write"])
        assert list(again.results()) == ["c1", "c2", "c3"]
        assert again.results()["c1"] == ("rain", False)
        turn = (await again.check()).turn
        assert turn.owner.incarnation == realm.owner.incarnation


async def test_a_yes_in_a_process_that_allows_only_reading_makes_no_call(tmp_path, open_den):
    async with open_den() as realm:
        scene = Scene(realm)
        await scene.waiting(call("write", 2))
    async with open_realm(choose("den", state_root=tmp_path, permission_ceiling="readonly")) as realm:
        again = Scene(realm, says("ok"))
        again.started = scene.started
        assert (await again.answer(YES)).status == "completed"
        assert again.bench.made == []
        content, is_error = again.results()["c2"]
        assert is_error
        assert "only reads" in content
        assert "tool_execution_started" not in await types(realm, scene.started.session_id)
        await again.check()


async def test_a_tool_that_is_gone_by_the_time_of_the_yes_is_an_error_for_the_model(den):
    scene = Scene(den, says("pity"))
    await scene.waiting(call("write", 2))
    scene.bench.problems = {"box": "it has died"}

    async def gone(_):
        return Output(content="The tool server 'box' failed: it has died.", is_error=True)

    scene.bench.does["write"] = gone
    done = await scene.answer(YES)
    assert (done.status, done.warnings) == ("completed", ("tool server box: it has died",))
    assert scene.results()["c2"][1]
    await scene.check()


# ── ended while it waits ──


async def test_an_interrupt_ends_the_waiting_and_a_yes_is_too_late(realm):
    scene = Scene(realm, says("on"))
    await scene.waiting()
    said = await realm.sessions.interrupt(scene.started.session_id)
    assert (said.interrupted, said.ended) == (True, True)
    ended_so = await outcome(realm, scene.started)
    assert (ended_so.status, ended_so.pending, ended_so.approvals) == ("interrupted", (), ())
    await scene.refused(NotWaiting, YES)
    assert (await resume(realm, scene.started.session_id, "go on")).text == "on"
    assert scene.bench.made == []
    known = scene.model.requests[-1].messages[2].results
    assert [(result.content, result.is_error) for result in known] == [
        (UNANSWERED, True),
        (NOT_MADE, True),
        ("look done", False),
    ]
    await scene.check()


async def test_an_answer_that_was_brought_before_the_interrupt_stays_in_the_history(den):
    scene = Scene(den, says("on"))
    await scene.waiting()
    await scene.answer(RAIN)
    await den.sessions.interrupt(scene.started.session_id)
    await resume(den, scene.started.session_id, "go on")
    assert scene.results() == {"c1": ("rain", False), "c2": (NOT_MADE, True), "c3": ("look done", False)}


async def test_an_archived_session_takes_no_yes_and_a_restored_one_does_not_wait(den):
    scene = Scene(den)
    await scene.waiting()
    await den.shelf.archive(scene.started.session_id)
    await scene.refused(SessionArchived, YES)
    await den.shelf.restore(scene.started.session_id)
    await scene.refused(NotWaiting, YES)
    assert (await outcome(den, scene.started)).stop_reason == "abandoned"
    await scene.check()


async def test_a_fork_does_not_wait_and_the_origin_still_does(den):
    scene = Scene(den, says("in the fork"), says("ok"))
    await scene.waiting()
    here = (await den.journal.load(scene.started.session_id)).seq
    assert (await den.shelf.fork(scene.started.session_id)).messages == 0
    fork = await den.shelf.fork(scene.started.session_id, at_seq=here)
    assert (fork.state, fork.turn.status, fork.turn.approvals) == ("idle", "interrupted", ())
    assert (await resume(den, fork.id, "go on")).text == "in the fork"
    assert (await scene.answer(RAIN, YES)).text == "ok"
    assert scene.bench.made == ["write"]
    await check_log(den, fork.id)
    await scene.check()


async def test_settings_can_change_while_it_waits_and_hold_when_it_goes_on(den):
    scene = Scene(den, says("ok"))
    await scene.waiting(call("write", 2))
    changed = await den.sessions.resume(scene.started.session_id, changes={"system_prompt": "Be brief."})
    assert changed.turn_id is None
    await scene.answer(YES)
    assert scene.model.requests[-1].system_prompt == "Be brief."
    await scene.check()


async def test_waiting_takes_no_time_of_the_budget_and_no_place(den):
    scene = Scene(den)
    await scene.waiting()
    with anyio.fail_after(PATIENCE_S):
        while den.turns.running:
            await anyio.lowlevel.checkpoint()
    await den.set_config({"limits": {"max_concurrent_turns": 1}})
    use(den, Scripted(says("another")))
    assert (await run(den, "x"))[1].text == "another"


async def test_a_yes_waits_its_turn_when_this_process_is_full(den):
    scene = Scene(den, [gate := anyio.Event()], says("ok"))
    await scene.waiting(call("write", 2))
    await den.set_config({"limits": {"max_concurrent_turns": 1}})
    other = await den.sessions.run("x", settings())
    with anyio.fail_after(PATIENCE_S):
        await scene.model.reached.wait()
    await scene.refused(LimitExceeded, YES)
    session = await scene.check()
    assert (session.state, len(session.turn.approvals)) == ("waiting", 1)
    await den.sessions.interrupt(other.session_id)
    assert not gate.is_set()
    assert (await scene.answer(YES)).status == "completed"
