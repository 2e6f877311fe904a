"""The table of what may come when, what each event does to a session, and what no order of events can break."""

from itertools import permutations

import pytest
from domain.samples import CALL, OTHER_OWNER, OURS, OWNER, SAMPLES, USAGE, WAYS, Log, log_in, samples
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule

from meerkat_mcp.domain import events as e
from meerkat_mcp.domain.errors import InvalidRequest, MeerkatError, NotWaiting, SessionArchived, SessionBusy
from meerkat_mcp.domain.messages import ToolCall, Usage
from meerkat_mcp.domain.session import ACCEPTS, SHOWN, Queued, Session, State, advance
from meerkat_mcp.domain.settings import Settings

# ── the table, written down a second time ──

TABLE = """
                            new      idle     running  stopping waiting  suspended archived
    session_created         ok       invalid  invalid  invalid  invalid  invalid   archived
    settings_changed        invalid  ok       ok       ok       ok       ok        archived
    session_archived        invalid  ok       busy     busy     busy     busy      archived
    session_restored        invalid  invalid  invalid  invalid  invalid  invalid   ok
    session_forked          invalid  ok       ok       ok       ok       ok        ok
    turn_started            invalid  ok       busy     busy     busy     busy      archived
    turn_resumed            invalid  unasked  unasked  unasked  ok       ok        archived
    prompt_queued           invalid  invalid  ok       ok       ok       ok        archived
    prompt_dropped          invalid  ok       ok       ok       ok       ok        archived
    step_started            invalid  invalid  ok       ok       invalid  invalid   archived
    text_delta              invalid  invalid  ok       ok       invalid  invalid   archived
    text_complete           invalid  invalid  ok       invalid  invalid  invalid   archived
    reasoning_delta         invalid  invalid  ok       ok       invalid  invalid   archived
    reasoning_complete      invalid  invalid  ok       invalid  invalid  invalid   archived
    tool_call_requested     invalid  invalid  ok       invalid  invalid  invalid   archived
    tool_execution_started  invalid  invalid  ok       invalid  invalid  invalid   archived
    tool_execution_completed invalid unasked  ok       ok       ok       unasked   archived
    tool_server_failed      invalid  invalid  ok       invalid  invalid  invalid   archived
    approval_requested      invalid  invalid  ok       invalid  invalid  invalid   archived
    approval_resolved       invalid  unasked  unasked  unasked  ok       unasked   archived
    retrying                invalid  invalid  ok       invalid  invalid  invalid   archived
    step_completed          invalid  invalid  ok       invalid  invalid  invalid   archived
    output_rejected         invalid  invalid  ok       invalid  invalid  invalid   archived
    budget_warning          invalid  invalid  ok       invalid  invalid  invalid   archived
    interrupt_requested     invalid  invalid  ok       invalid  invalid  invalid   archived
    turn_completed          invalid  invalid  ok       invalid  invalid  invalid   archived
    turn_waiting            invalid  invalid  ok       invalid  invalid  invalid   archived
    turn_suspended          invalid  invalid  ok       invalid  invalid  invalid   archived
    turn_interrupted        invalid  invalid  ok       ok       ok       ok        archived
    turn_limit_reached      invalid  invalid  ok       invalid  invalid  invalid   archived
    turn_failed             invalid  invalid  ok       invalid  invalid  invalid   archived
    history_compacted       invalid  invalid  ok       invalid  invalid  invalid   archived
    compaction_failed       invalid  invalid  ok       invalid  invalid  invalid   archived
"""
REFUSALS: dict[str, type[MeerkatError]] = {
    "invalid": InvalidRequest,
    "busy": SessionBusy,
    "unasked": NotWaiting,
    "archived": SessionArchived,
}
STATES, *ROWS = [line.split() for line in TABLE.strip().splitlines()]
CELLS = [(state, row[0], said) for row in ROWS for state, said in zip(STATES, row[1:], strict=True)]


def test_there_is_a_sample_of_every_event_and_each_is_of_its_type():
    assert set(SAMPLES) == set(e.EVENT_TYPES)
    assert all(sample.type == name for name, sample in SAMPLES.items())


def test_the_table_has_a_row_for_every_event_and_a_column_for_every_state():
    assert sorted(row[0] for row in ROWS) == sorted(e.EVENT_TYPES)
    assert set(STATES) == set(WAYS) == set(ACCEPTS)


@pytest.mark.parametrize("state", WAYS)
def test_each_state_is_reached_by_its_way(state: State):
    assert log_in(state).session.state == state


@pytest.mark.parametrize(("state", "name", "said"), CELLS, ids=lambda cell: cell)
def test_each_state_takes_or_refuses_each_event_as_the_table_says(state: State, name: str, said: str):
    log = log_in(state)
    if said == "ok":
        assert log.add(SAMPLES[name]).seq == len(log.events)
        return
    before = log.session
    with pytest.raises(MeerkatError) as refusal:
        log.add(SAMPLES[name])
    assert type(refusal.value) is REFUSALS[said]
    assert refusal.value.facts["session_id"] == "session"
    assert log.session is before


ENDINGS = {
    ("idle", "turn_started"): "running",
    ("idle", "session_archived"): "archived",
    ("new", "session_created"): "idle",
    ("running", "interrupt_requested"): "stopping",
    ("running", "turn_completed"): "idle",
    ("running", "turn_failed"): "idle",
    ("running", "turn_interrupted"): "idle",
    ("running", "turn_limit_reached"): "idle",
    ("running", "turn_suspended"): "suspended",
    ("running", "turn_waiting"): "waiting",
    ("stopping", "turn_interrupted"): "idle",
    ("waiting", "turn_interrupted"): "idle",
    ("waiting", "turn_resumed"): "running",
    ("suspended", "turn_interrupted"): "idle",
    ("suspended", "turn_resumed"): "running",
    ("archived", "session_restored"): "idle",
}


@pytest.mark.parametrize(("state", "name"), [(state, name) for state, name, said in CELLS if said == "ok"])
def test_an_event_moves_the_state_along_the_arrows_of_the_picture_and_nowhere_else(state: State, name: str):
    assert log_in(state).add(SAMPLES[name]).state == ENDINGS.get((state, name), state)


# ── what a refusal says ──


def test_busy_names_the_turn_its_owner_and_since_when():
    log = log_in("running")
    with pytest.raises(SessionBusy, match="is running turn turn_1") as refusal:
        log.add(SAMPLES["turn_started"])
    assert refusal.value.as_dict() == {
        "code": "session_busy",
        "message": "Session session is running turn turn_1.",
        "hint": "Wait with meerkat_read and wait_seconds, or resume with if_busy: interrupt or queue.",
        "retryable": True,
        "retry_after_s": 1.0,
        "session_id": "session",
        "turn_id": "turn_1",
        "owner": {"instance_id": "laptop", "host": "host", "pid": 7},
        "since_ms": 1_000_000,
    }


def test_a_waiting_session_asks_for_what_is_pending_not_for_patience():
    with pytest.raises(SessionBusy, match=r"^Session session is waiting in turn turn_1\.$") as refusal:
        log_in("waiting").add(SAMPLES["turn_started"])
    assert refusal.value.hint == "Bring what is pending with meerkat_resume, or end the turn with meerkat_interrupt."
    assert refusal.value.retry_after_s is None


def test_a_suspended_turn_needs_nobody_but_a_server_of_the_realm():
    with pytest.raises(SessionBusy, match=r"^Session session has suspended turn turn_1\.$") as refusal:
        log_in("suspended").add(SAMPLES["turn_started"])
    assert "A server of this realm takes it up" in refusal.value.hint
    assert refusal.value.retry_after_s == 1.0


@pytest.mark.parametrize("state", ["idle", "running", "stopping"])
@pytest.mark.parametrize("name", ["approval_resolved", "turn_resumed"])
def test_nobody_decides_on_what_does_not_wait(state: State, name: str):
    said = r"^Session session waits for no tool results or approvals\.$"
    with pytest.raises(NotWaiting, match=said) as refusal:
        log_in(state).add(SAMPLES[name])
    assert refusal.value.code == "not_waiting"


@pytest.mark.parametrize("name", ["approval_resolved", "turn_resumed", "tool_execution_completed"])
def test_an_archived_session_has_to_be_restored_before_anybody_asks_what_it_waits_for(name: str):
    with pytest.raises(SessionArchived):
        log_in("archived").add(SAMPLES[name])


def test_an_archived_session_says_how_to_bring_it_back():
    with pytest.raises(SessionArchived) as refusal:
        log_in("archived").add(SAMPLES["turn_started"])
    assert "restore=true" in refusal.value.hint


def test_an_event_out_of_place_is_named_with_the_state():
    with pytest.raises(InvalidRequest, match=r"^Session session is idle; turn_completed cannot come now\.$"):
        log_in("idle").add(SAMPLES["turn_completed"])


# ── what waits for a process ──


def test_a_suspended_turn_is_ready_since_it_was_suspended_until_somebody_takes_it_up():
    log = log_in("running")
    assert log.add(SAMPLES["turn_suspended"], after_ms=500).ready_ms == 1_000_500
    assert log.add(SAMPLES["settings_changed"], SAMPLES["prompt_queued"], after_ms=500).ready_ms == 1_000_500
    assert log.add(SAMPLES["turn_resumed"]).ready_ms is None
    assert log.session.turn is not None
    assert log.session.turn.owner == OTHER_OWNER


def test_a_queued_prompt_is_ready_when_no_turn_is_there_any_more():
    log = log_in("running")
    assert log.add(SAMPLES["prompt_queued"]).ready_ms is None
    assert log.add(SAMPLES["turn_completed"], after_ms=700).ready_ms == 1_000_700
    assert log.add(e.PromptDropped(turn_id="queued")).ready_ms is None


def test_a_suspended_turn_keeps_the_time_it_worked_and_adds_none_while_nobody_works_on_it():
    log = log_in("running")
    assert log.add(SAMPLES["turn_suspended"], after_ms=400).busy_ms == 400
    assert log.add(SAMPLES["turn_interrupted"], after_ms=9_000).busy_ms == 400
    again = log_in("running")
    again.add(SAMPLES["turn_suspended"], after_ms=400)
    again.add(SAMPLES["turn_resumed"], after_ms=9_000)
    assert again.add(SAMPLES["turn_completed"], after_ms=100).busy_ms == 500


# ── what each event does ──


def test_a_created_session_is_what_its_first_event_says():
    fork = e.Fork(session_id="parent", at_seq=9)
    session = Log(
        e.SessionCreated(settings=Settings(model="m"), title="T", labels={"a": "b"}, forked_from=fork)
    ).session
    assert (session.settings, session.title, session.labels) == (Settings(model="m"), "T", {"a": "b"})
    assert session.forked_from == fork
    assert session.created_ms == session.updated_ms == 1_000_000
    assert session.turn is None
    assert not session.active


def test_changed_settings_replace_what_is_given_and_leave_the_rest():
    log = log_in("idle")
    assert log.add(e.SettingsChanged(title="New")).settings == Settings(model="demo")
    assert log.session.title == "New"
    assert log.add(e.SettingsChanged(settings=Settings(model="other"))).settings.model == "other"
    assert log.add(e.SettingsChanged(labels={})).labels == {}
    assert log.add(e.SettingsChanged(title="")).title == ""


def test_a_turn_starts_with_its_owner_and_its_place():
    session = log_in("running").session
    assert session.turn is not None
    assert (session.turn.turn_id, session.turn.owner, session.turn.status) == ("turn_1", OWNER, "running")
    assert (session.turn.first_seq, session.turn.last_seq) == (2, 2)
    assert session.turn.started_ms == session.turn.resumed_ms == 1_000_000
    assert (session.turns, session.messages, session.active) == (1, 1, True)


def test_a_compaction_turn_counts_as_a_turn_but_says_nothing():
    session = log_in("idle").add(e.TurnStarted(kind="compaction", prompt="Summarise.", owner=OWNER))
    assert (session.turns, session.messages) == (1, 0)
    assert session.turn is not None
    assert session.turn.kind == "compaction"


def test_a_compaction_is_remembered_by_the_place_its_summary_goes_up_to():
    log = log_in("running")
    log.add(SAMPLES["step_completed"])
    assert log.add(SAMPLES["history_compacted"]).compacted_seq == 2
    log.add(e.HistoryCompacted(summary="Shorter.", through_seq=3, messages_replaced=2))
    assert (log.session.compacted_seq, log.session.seq) == (3, 5)


def test_a_compaction_that_failed_leaves_the_log_to_be_read_from_where_it_was():
    log = log_in("running")
    log.add(SAMPLES["history_compacted"], SAMPLES["compaction_failed"])
    assert log.session.compacted_seq == 2


def test_a_completed_step_counts_in_the_turn_and_in_the_session():
    log = log_in("running")
    log.add(SAMPLES["step_completed"])
    session = log.add(e.StepCompleted(step=2, stop_reason="tool_calls", usage=USAGE))
    assert session.turn is not None
    assert (session.turn.steps, session.turn.usage, session.turn.stop_reason) == (2, USAGE + USAGE, "tool_calls")
    assert (session.steps, session.usage, session.messages) == (2, USAGE + USAGE, 3)


def test_a_summary_between_two_steps_costs_but_is_no_message():
    log = log_in("running")
    log.add(SAMPLES["step_completed"])
    session = log.add(e.StepCompleted(step=2, purpose="summary", stop_reason="end", usage=USAGE))
    assert session.turn is not None
    assert (session.turn.steps, session.steps, session.messages) == (2, 2, 2)
    assert session.turn.usage == session.usage == USAGE + USAGE


def test_nothing_that_a_compaction_turn_says_is_a_message():
    log = log_in("idle")
    log.add(e.TurnStarted(kind="compaction", prompt="Summarise.", owner=OWNER))
    log.add(e.StepCompleted(step=1, purpose="summary", stop_reason="end", usage=USAGE), SAMPLES["turn_completed"])
    assert (log.session.messages, log.session.steps, log.session.usage) == (0, 1, USAGE)


def test_a_rejected_answer_is_a_message_and_no_step():
    log = log_in("running")
    log.add(SAMPLES["step_completed"])
    session = log.add(SAMPLES["output_rejected"])
    assert (session.messages, session.steps) == (3, 1)


def test_another_attempt_is_no_other_step():
    log = log_in("running")
    log.add(*samples(["step_started", "retrying", "retrying", "step_completed"]))
    assert (log.session.steps, log.session.messages, log.session.usage) == (1, 2, USAGE)


def test_the_counters_of_a_turn_begin_anew_and_those_of_the_session_go_on():
    log = log_in("running")
    log.add(*samples(["step_completed", "tool_execution_completed", "turn_completed"]))
    session = log.add(e.TurnStarted(turn_id="turn_2", prompt="More", owner=OWNER))
    assert session.turn is not None
    assert (session.turn.turn_id, session.turn.steps, session.turn.tool_calls) == ("turn_2", 0, 0)
    assert session.turn.usage == Usage()
    assert (session.turns, session.steps, session.tool_calls, session.usage) == (2, 1, 1, USAGE)


def test_a_tool_that_answered_counts_as_a_tool_call_one_that_began_does_not_and_neither_is_a_message():
    log = log_in("running")
    assert log.add(SAMPLES["tool_execution_started"]).tool_calls == 0
    session = log.add(SAMPLES["tool_execution_completed"])
    assert session.messages == 1
    assert session.turn is not None
    assert session.tool_calls == session.turn.tool_calls == 1


def test_a_budget_is_warned_of_once_by_name():
    log = log_in("running")
    log.add(SAMPLES["budget_warning"], e.BudgetWarning(budget="max_cost_usd", used=4, limit=5))
    assert log.session.warned == ("max_tokens", "max_cost_usd")
    log.add(SAMPLES["turn_completed"], SAMPLES["turn_started"])
    assert log.session.warned == ("max_tokens", "max_cost_usd")


@pytest.mark.parametrize(
    ("name", "status", "stop_reason"),
    [
        ("turn_completed", "completed", "refusal"),
        ("turn_interrupted", "interrupted", "tool_calls"),
        ("turn_limit_reached", "limit", "tool_calls"),
        ("turn_failed", "failed", "tool_calls"),
    ],
)
def test_an_end_gives_the_turn_its_status_and_leaves_it_to_be_looked_at(name: str, status: str, stop_reason: str):
    log = log_in("running")
    log.add(e.StepCompleted(step=1, stop_reason="tool_calls", usage=USAGE))
    end = e.TurnCompleted(stop_reason="refusal") if name == "turn_completed" else SAMPLES[name]
    session = log.add(end, after_ms=5)
    assert session.turn is not None
    assert (session.turn.status, session.turn.stop_reason) == (status, stop_reason)
    assert (session.turn.ended_ms, session.turn.last_seq) == (1_000_005, session.seq)
    assert not session.active


def test_a_wish_to_interrupt_is_kept_with_its_reason():
    session = log_in("running").add(e.InterruptRequested(reason="superseded"))
    assert session.turn is not None
    assert session.turn.interrupt == "superseded"
    assert session.active


def test_a_waiting_turn_holds_what_it_waits_for_until_it_goes_on_elsewhere():
    log = log_in("waiting")
    assert log.session.turn is not None
    assert (log.session.turn.status, log.session.turn.pending) == ("waiting", (CALL,))
    assert log.session.turn.approvals == (OURS,)
    session = log.add(SAMPLES["turn_resumed"], after_ms=60)
    assert session.turn is not None
    assert (session.turn.status, session.turn.owner) == ("running", OTHER_OWNER)
    assert (session.turn.pending, session.turn.approvals) == ((), ())
    assert (session.turn.started_ms, session.turn.resumed_ms) == (1_000_000, 1_000_060)
    assert (session.turn.first_seq, session.turn.resumed_seq) == (2, session.seq)
    assert session.turns == 1


SECOND = CALL.model_copy(update={"tool_use_id": "call_3"})
THEIRS = OURS.model_copy(update={"tool_use_id": "call_4"})
ANSWERS: dict[str, e.Event] = {
    **{
        call.tool_use_id: e.ToolExecutionCompleted(tool_use_id=call.tool_use_id, tool_name="weather", content="Rain")
        for call in (CALL, SECOND)
    },
    **{
        call.tool_use_id: e.ApprovalResolved(tool_use_id=call.tool_use_id, decision="approve", by="caller")
        for call in (OURS, THEIRS)
    },
}


@pytest.mark.parametrize("order", [*permutations(ANSWERS)], ids=" ".join)
def test_what_is_answered_or_decided_is_waited_for_no_more_in_whatever_order_it_comes(order: tuple[str, ...]):
    log = log_in("running")
    log.add(e.TurnWaiting(pending_tool_calls=(CALL, SECOND), pending_approvals=(OURS, THEIRS)))
    for done, tool_use_id in enumerate(order, start=1):
        turn = log.add(ANSWERS[tool_use_id]).turn
        assert turn is not None
        assert turn.pending == tuple(call for call in (CALL, SECOND) if call.tool_use_id not in order[:done])
        assert turn.approvals == tuple(call for call in (OURS, THEIRS) if call.tool_use_id not in order[:done])
        assert (turn.status, log.session.state, turn.last_seq) == ("waiting", "waiting", log.session.seq)
        assert turn.tool_calls == sum(answered in ("call_1", "call_3") for answered in order[:done])
    assert log.add(SAMPLES["turn_resumed"]).state == "running"


def test_a_denied_call_is_decided_and_answered_and_counts():
    log = log_in("waiting")
    denied = e.ToolExecutionCompleted(tool_use_id="call_2", tool_name="files_write", content="No.", is_error=True)
    turn = log.add(SAMPLES["approval_resolved"], denied).turn
    assert turn is not None
    assert (turn.approvals, turn.pending, turn.tool_calls) == ((), (CALL,), 1)


def test_what_nobody_waits_for_takes_nothing_away():
    log = log_in("waiting")
    strays = (
        e.ToolExecutionCompleted(tool_use_id="stray", tool_name="t", content=""),
        e.ApprovalResolved(tool_use_id="stray", decision="deny", by="operator"),
        e.ApprovalResolved(tool_use_id="call_1", decision="deny", by="operator"),
    )
    turn = log.add(*strays).turn
    assert turn is not None
    assert (turn.pending, turn.approvals) == ((CALL,), (OURS,))


@pytest.mark.parametrize("waits", [e.TurnWaiting(pending_tool_calls=(CALL,)), e.TurnWaiting(pending_approvals=(OURS,))])
def test_a_turn_may_wait_for_the_caller_alone_or_for_a_yes_alone(waits: e.TurnWaiting):
    log = log_in("running")
    turn = log.add(waits).turn
    assert turn is not None
    assert (turn.pending, turn.approvals) == (waits.pending_tool_calls, waits.pending_approvals)


def test_a_call_that_needs_a_yes_is_asked_for_before_the_turn_waits():
    log = log_in("running")
    turn = log.add(SAMPLES["approval_requested"]).turn
    assert turn is not None
    assert (turn.approvals, turn.status) == ((), "running")
    with pytest.raises(NotWaiting):
        log.add(SAMPLES["approval_resolved"])


def test_a_turn_that_waits_again_waits_for_what_it_says_now():
    log = log_in("waiting")
    log.add(SAMPLES["turn_resumed"])
    turn = log.add(e.TurnWaiting(pending_approvals=(THEIRS,))).turn
    assert turn is not None
    assert (turn.pending, turn.approvals) == ((), (THEIRS,))


def test_a_waiting_turn_that_is_interrupted_waits_for_nothing_any_more():
    session = log_in("waiting").add(e.TurnInterrupted(reason="abandoned"))
    assert session.turn is not None
    assert (session.turn.pending, session.turn.approvals, session.turn.status) == ((), (), "interrupted")


def test_only_work_counts_as_busy_not_waiting():
    log = log_in("running")
    assert log.add(SAMPLES["turn_waiting"], after_ms=100).busy_ms == 100
    assert log.add(SAMPLES["turn_resumed"], after_ms=5000).busy_ms == 100
    assert log.add(SAMPLES["turn_completed"], after_ms=30).busy_ms == 130
    log.add(SAMPLES["turn_started"], after_ms=7000)
    log.add(SAMPLES["turn_waiting"], after_ms=1)
    assert log.add(SAMPLES["turn_interrupted"], after_ms=9000).busy_ms == 131


def test_a_process_that_died_was_busy_only_as_long_as_it_gave_signs_of_life():
    log = log_in("running")
    log.add(SAMPLES["step_completed"], after_ms=40)
    a_night_ms = 8 * 3_600_000
    assert log.add(e.TurnInterrupted(reason="owner_lost"), after_ms=a_night_ms).busy_ms == 40


def test_a_process_that_died_while_it_was_told_to_stop_was_busy_until_then():
    log = log_in("running")
    log.add(SAMPLES["interrupt_requested"], after_ms=25)
    assert log.add(e.TurnInterrupted(reason="cancelled"), after_ms=1_000_000).busy_ms == 25


@pytest.mark.parametrize("name", ["turn_completed", "turn_waiting", "turn_interrupted"])
def test_a_clock_that_is_behind_makes_nobody_less_busy(name: str):
    log = log_in("running")
    log.add(SAMPLES["turn_completed"], after_ms=50)
    log.add(SAMPLES["turn_started"])
    assert log.add(SAMPLES[name], after_ms=-500).busy_ms == 50


def test_prompts_queue_in_order_and_leave_the_queue_when_they_run_or_are_withdrawn():
    log = log_in("running")
    for turn_id in ("a", "b", "c"):
        log.add(e.PromptQueued(turn_id=turn_id, prompt=turn_id))
    assert log.session.queue == (Queued(turn_id="a", seq=3), Queued(turn_id="b", seq=4), Queued(turn_id="c", seq=5))
    log.add(e.PromptDropped(turn_id="b"), SAMPLES["turn_completed"])
    session = log.add(e.TurnStarted(turn_id="a", prompt="a", owner=OWNER))
    assert [queued.turn_id for queued in session.queue] == ["c"]
    assert session.messages == 2


def test_a_prompt_that_is_to_be_first_goes_before_those_that_wait():
    log = log_in("running")
    log.add(e.PromptQueued(turn_id="a", prompt="a"), e.PromptQueued(turn_id="b", prompt="b", first=True))
    assert [queued.turn_id for queued in log.session.queue] == ["b", "a"]


def test_deltas_move_the_place_and_nothing_else():
    log = log_in("running")
    before = log.session
    for name in ("text_delta", "reasoning_delta"):
        log.add(SAMPLES[name], after_ms=10)
    assert log.session == before.model_copy(update={"seq": before.seq + 2})


@pytest.mark.parametrize("name", sorted(set(SAMPLES) - e.DELTAS))
def test_every_recorded_event_says_when_the_session_was_last_active(name: str):
    state = next(state for state, of, said in CELLS if of == name and said == "ok")
    log = log_in(state)
    assert log.add(SAMPLES[name], after_ms=77).updated_ms == log.now_ms


def test_an_event_that_was_not_shown_changes_nothing_that_a_list_shows():
    hidden = [kind for name, kind in KINDS.items() if not issubclass(kind, SHOWN) and name not in e.DELTAS]
    shown = ("state", "title", "labels", "settings", "queue", "turns", "compacted_seq", "busy_ms", "forked_from")
    for kind in hidden:
        for state in ("idle", "running", "stopping", "waiting", "suspended", "archived"):
            log = log_in(state)
            if isinstance(SAMPLES[kind.model_fields["type"].default], ACCEPTS[state]):
                before = log.session
                log.add(SAMPLES[kind.model_fields["type"].default])
                assert [getattr(log.session, key) for key in shown] == [getattr(before, key) for key in shown], kind


KINDS = {name: type(sample) for name, sample in SAMPLES.items()}


# ── whatever comes, in whatever order ──


class AnyLog(RuleBasedStateMachine):
    """Plays random accepted events, by clocks that disagree, and looks at what no order may break."""

    @initialize()
    def create(self) -> None:
        self.log = Log(SAMPLES["session_created"])
        self.turns = 1
        self.before = self.log.session

    @rule(data=st.data(), passed_ms=st.integers(-50, 1000))
    def go_on(self, data: st.DataObject, passed_ms: int) -> None:
        self.before = self.log.session
        taken = [name for name, kind in sorted(KINDS.items()) if issubclass(kind, ACCEPTS[self.before.state])]
        self.log.add(self._of_a_turn(SAMPLES[data.draw(st.sampled_from(taken))], data), after_ms=passed_ms)

    @rule(data=st.data())
    def refuse(self, data: st.DataObject) -> None:
        self.before = self.log.session
        refused = [name for name, kind in sorted(KINDS.items()) if not issubclass(kind, ACCEPTS[self.before.state])]
        with pytest.raises(MeerkatError):
            self.log.add(SAMPLES[data.draw(st.sampled_from(refused))])
        assert self.log.session is self.before

    def _of_a_turn(self, draft: e.Event, data: st.DataObject) -> e.Event:
        """Turns and queued prompts get ids of their own; a queued prompt may be taken up or withdrawn."""
        if not isinstance(draft, e.TurnStarted | e.PromptQueued | e.PromptDropped):
            return draft
        self.turns += 1
        known = [queued.turn_id for queued in self.before.queue]
        new = f"turn_{self.turns}"
        may_be = {"turn_started": [new, *known], "prompt_queued": [new], "prompt_dropped": known or [new]}
        named = draft.model_copy(update={"turn_id": data.draw(st.sampled_from(may_be[draft.type]))})
        if isinstance(named, e.PromptQueued):
            return named.model_copy(update={"first": data.draw(st.booleans())})
        return named

    @invariant()
    def the_log_has_every_number_once(self) -> None:
        assert [event.seq for event in self.log.events] == list(range(1, self.log.session.seq + 1))

    @invariant()
    def a_turn_has_one_beginning_and_at_most_one_end_and_only_the_last_is_open(self) -> None:
        began = [event.turn_id for event in self.log.events if event.type == "turn_started"]
        ended = [event.turn_id for event in self.log.events if event.type in e.TURN_ENDS]
        assert len(began) == len(set(began)) == self.log.session.turns
        open_ = self.log.session.state in ("running", "stopping", "waiting", "suspended")
        assert ended == (began[:-1] if open_ else began)

    @invariant()
    def what_is_said_of_the_turn_fits_the_state(self) -> None:
        session = self.log.session
        status = session.turn.status if session.turn is not None else None
        if session.active or session.state == "suspended":
            assert status == "running"
        else:
            assert (status == "waiting") == (session.state == "waiting")

    @invariant()
    def what_is_waited_for_is_what_was_asked_less_what_came_since(self) -> None:
        pending: list[ToolCall] = []
        approvals: list[ToolCall] = []
        for event in self.log.events:
            if isinstance(event, e.TurnWaiting):
                pending, approvals = list(event.pending_tool_calls), list(event.pending_approvals)
            elif isinstance(event, e.ToolExecutionCompleted):
                pending = [call for call in pending if call.tool_use_id != event.tool_use_id]
            elif isinstance(event, e.ApprovalResolved):
                approvals = [call for call in approvals if call.tool_use_id != event.tool_use_id]
            elif event.type in {"turn_resumed", "turn_started", *e.TURN_ENDS}:
                pending, approvals = [], []
        turn = self.log.session.turn
        assert (pending, approvals) == (([], []) if turn is None else (list(turn.pending), list(turn.approvals)))
        assert self.log.session.state == "waiting" or not (pending or approvals)

    @invariant()
    def it_is_ready_when_something_waits_for_a_process(self) -> None:
        session = self.log.session
        waits = session.state == "suspended" or (session.state == "idle" and bool(session.queue))
        assert (session.ready_ms is not None) == waits

    @invariant()
    def counters_never_get_less(self) -> None:
        counters = ("turns", "steps", "messages", "tool_calls", "busy_ms", "compacted_seq", "warned")
        assert all(getattr(self.before, name) <= getattr(self.log.session, name) for name in counters)
        before, after = self.before.usage, self.log.session.usage
        assert before.total_tokens <= after.total_tokens
        assert (before.cost_usd or 0) <= (after.cost_usd or 0)

    @invariant()
    def the_queue_is_what_was_queued_less_what_was_taken_up_or_withdrawn(self) -> None:
        left: list[str | None] = []
        for event in self.log.events:
            if isinstance(event, e.PromptQueued):
                left.insert(0 if event.first else len(left), event.turn_id)
            elif event.type in ("turn_started", "prompt_dropped") and event.turn_id in left:
                left.remove(event.turn_id)
        assert [queued.turn_id for queued in self.log.session.queue] == left

    @invariant()
    def the_session_survives_being_stored(self) -> None:
        session = self.log.session
        assert Session.model_validate_json(session.model_dump_json()) == session
        assert Session.model_validate_json(session.model_dump_json(exclude_none=True)) == session

    def teardown(self) -> None:
        """Fold the log again, with and without its deltas: the same session."""
        whole = recorded = Session(id="session")
        for event in self.log.events:
            whole = advance(whole, event)
            if event.type not in e.DELTAS:
                recorded = advance(recorded, event)
        assert whole == self.log.session
        assert recorded.model_copy(update={"seq": whole.seq}) == whole


TestAnyLog = AnyLog.TestCase
TestAnyLog.settings = settings(max_examples=50, stateful_step_count=40, deadline=None)
