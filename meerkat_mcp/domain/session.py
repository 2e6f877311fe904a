"""A session: what its log adds up to, and which event may come next.

    new ──created──▶ idle ──turn_started──▶ running ──turn_waiting, turn_suspended──▶ waiting, suspended
                     ▲ │ ▲                   │    │                                    │   │
             restored│ │archived             │    │interrupt_requested                 │   │turn_resumed
                     │ ▼ │                   │    ▼                                    │   ▼
                  archived └──── an end ─────┴─ stopping             an end ◀──────────┘ running

All that moves a session lives in this file: `ACCEPTS` says which events each state takes, `advance` what the
session is afterwards. Both are pure; ids and times come with the events. A turn has exactly one end. While it
runs, only its owner records, but for five events that anybody may record at any time: a wish to interrupt, a
queued prompt and its withdrawal, changed settings (they hold from the next turn on), and a fork. In `stopping`
the owner can still say that a model was asked, what was written and that a tool had finished, then nothing but
the end: that makes the races harmless.
"""

from collections.abc import Mapping
from typing import Literal, assert_never

from pydantic import Field

from meerkat_mcp.domain import events as e
from meerkat_mcp.domain.errors import InvalidRequest, NotWaiting, SessionArchived, SessionBusy
from meerkat_mcp.domain.messages import Usage, Value, without
from meerkat_mcp.domain.settings import Settings
from meerkat_mcp.domain.turn import Queued, Turn, TurnStatus

State = Literal["new", "idle", "running", "stopping", "waiting", "suspended", "archived"]
WORKING: tuple[State, ...] = ("running", "stopping")
"""In these a process works on the session's turn."""
LISTED_AS: dict[str | None, tuple[State, ...]] = {
    None: (),
    "idle": ("idle",),
    "running": (*WORKING, "suspended"),
    "waiting": ("waiting",),
}
"""The states that a caller who lists sessions means by one word; by none, all."""

OPENING_CHARS = 80

_ANYTIME: tuple[type[e.Fact], ...] = (e.SettingsChanged, e.SessionForked)
_BY_OTHERS: tuple[type[e.Fact], ...] = (e.PromptQueued, e.PromptDropped, *_ANYTIME)

ACCEPTS: dict[State, tuple[type[e.Fact], ...]] = {
    "new": (e.SessionCreated,),
    "idle": (e.TurnStarted, e.PromptDropped, e.SessionArchived, *_ANYTIME),
    "running": (
        e.StepStarted,
        e.TextDelta,
        e.TextComplete,
        e.ReasoningDelta,
        e.ReasoningComplete,
        e.Retrying,
        e.StepCompleted,
        e.ToolServerFailed,
        e.ToolCallRequested,
        e.ToolExecutionStarted,
        e.ToolExecutionCompleted,
        e.ApprovalRequested,
        e.OutputRejected,
        e.BudgetWarning,
        e.HistoryCompacted,
        e.CompactionFailed,
        e.InterruptRequested,
        e.TurnCompleted,
        e.TurnWaiting,
        e.TurnSuspended,
        e.TurnInterrupted,
        e.TurnLimitReached,
        e.TurnFailed,
        *_BY_OTHERS,
    ),
    "stopping": (
        e.StepStarted,
        e.TextDelta,
        e.ReasoningDelta,
        e.ToolExecutionCompleted,
        e.TurnInterrupted,
        *_BY_OTHERS,
    ),
    "waiting": (e.ApprovalResolved, e.ToolExecutionCompleted, e.TurnResumed, e.TurnInterrupted, *_BY_OTHERS),
    "suspended": (e.TurnResumed, e.TurnInterrupted, *_BY_OTHERS),
    "archived": (e.SessionRestored, e.SessionForked),
}


class Session(Value):
    """The small facts about a session. Its messages stay in the log.

    `principal` is who began it, where callers are known by name; `opening` is how its first prompt begins. `messages`
    counts what was said, prompts and replies; `busy_ms` is the time turns have worked; `compacted_seq` is where the
    last compaction's summary ends and what the model sees in full begins. `ready_ms` is since when something waits for
    a process to go on with it, whichever: a suspended turn, or a queued prompt when no turn is there any more.
    """

    id: str
    principal: str | None = None
    seq: int = 0
    state: State = "new"
    settings: Settings = Settings()
    title: str = ""
    opening: str = ""
    labels: dict[str, str] = Field(default_factory=dict)
    created_ms: int = 0
    updated_ms: int = 0
    forked_from: e.Fork | None = None
    turn: Turn | None = None
    queue: tuple[Queued, ...] = ()
    turns: int = 0
    steps: int = 0
    messages: int = 0
    tool_calls: int = 0
    usage: Usage = Usage()
    busy_ms: int = 0
    compacted_seq: int = 0
    ready_ms: int | None = None
    warned: tuple[str, ...] = ()

    @property
    def name(self) -> str:
        """What a person calls it: its title, or how it began; empty when nothing was said yet."""
        return self.title or self.opening

    @property
    def active(self) -> bool:
        """Whether a turn is being worked on."""
        return self.state in WORKING

    @property
    def open_turn(self) -> Turn | None:
        """The turn that is not over, whether somebody works on it or not."""
        return self.turn if self.state not in ("new", "idle", "archived") else None

    def check(self, event: e.Event) -> None:
        """Refuse an event that cannot come now.

        Raises:
            SessionBusy: a turn runs, or waits for tool results.
            SessionArchived: the session must be restored first.
            NotWaiting: tool results, and nothing waits for them.
            InvalidRequest: any other event out of place.
        """
        if isinstance(event, ACCEPTS[self.state]):
            return
        answers = e.TurnResumed | e.ToolExecutionCompleted | e.ApprovalResolved
        if isinstance(event, answers) and self.state not in ("new", "archived"):
            raise NotWaiting(f"Session {self.id} waits for no tool results or approvals.", session_id=self.id)
        if self.state == "archived":
            raise SessionArchived(
                f"Session {self.id} is archived.",
                hint="Bring it back with meerkat_archive and restore=true.",
                session_id=self.id,
            )
        if isinstance(event, e.TurnStarted | e.SessionArchived) and self.state not in ("new", "idle"):
            raise self.busy()
        raise InvalidRequest(f"Session {self.id} is {self.state}; {event.type} cannot come now.", session_id=self.id)

    def busy(self) -> SessionBusy:
        """The refusal of a second prompt: it names the turn, its owner, and since when."""
        turn = self.turn
        assert turn is not None, "only a turn makes a session busy"
        doing, hint = {
            "waiting": (
                "is waiting in",
                "Bring what is pending with meerkat_resume, or end the turn with meerkat_interrupt.",
            ),
            "suspended": (
                "has suspended",
                "A server of this realm takes it up; start one, or resume with if_busy: interrupt or queue.",
            ),
        }.get(
            self.state,
            ("is running", "Wait with meerkat_read and wait_seconds, or resume with if_busy: interrupt or queue."),
        )
        return SessionBusy(
            f"Session {self.id} {doing} turn {turn.turn_id}.",
            hint=hint,
            retry_after_s=None if self.state == "waiting" else 1.0,
            session_id=self.id,
            turn_id=turn.turn_id,
            owner={"instance_id": turn.owner.instance_id, "host": turn.owner.host, "pid": turn.owner.pid},
            since_ms=turn.resumed_ms,
        )


def advance(session: Session, event: e.Event) -> Session:
    """The session after `event`, which is in its place in the log."""
    changes = _changes(session, event)
    if not isinstance(event, e.TextDelta | e.ReasoningDelta):
        changes["updated_ms"] = event.timestamp_ms
        if "state" in changes or "queue" in changes:
            state, queue = changes.get("state", session.state), changes.get("queue", session.queue)
            ready = state == "suspended" or (state == "idle" and bool(queue))
            changes["ready_ms"] = (session.ready_ms or event.timestamp_ms) if ready else None
    return session.model_copy(update=changes | {"seq": event.seq})


def _changes(session: Session, event: e.Event) -> dict[str, object]:
    match event:
        case e.SessionCreated():
            return {
                "state": "idle",
                "settings": event.settings,
                "title": event.title,
                "labels": event.labels,
                "created_ms": event.timestamp_ms,
                "forked_from": event.forked_from,
                "principal": event.principal,
            }
        case e.SettingsChanged():
            given = {"settings": event.settings, "title": event.title, "labels": event.labels}
            return {key: value for key, value in given.items() if value is not None}
        case e.SessionArchived():
            return {"state": "archived"}
        case e.SessionRestored():
            return {"state": "idle"}
        case e.PromptQueued():
            assert event.turn_id is not None
            queued = Queued(turn_id=event.turn_id, seq=event.seq)
            return {"queue": (queued, *session.queue) if event.first else (*session.queue, queued)}
        case e.PromptDropped():
            return {"queue": tuple(queued for queued in session.queue if queued.turn_id != event.turn_id)}
        case e.HistoryCompacted():
            return {"compacted_seq": event.through_seq}
        case e.BudgetWarning():
            return {"warned": (*session.warned, event.budget)}
        case e.TurnStarted() | e.TurnResumed() | e.TurnWaiting() | e.TurnSuspended() | e.InterruptRequested():
            return _turn_moves(session, event)
        case e.TurnCompleted() | e.TurnInterrupted() | e.TurnLimitReached() | e.TurnFailed():
            return _turn_ends(session, event)
        case e.StepCompleted() | e.ToolExecutionCompleted() | e.OutputRejected():
            return _step_adds(session, event)
        case e.ApprovalResolved():
            assert session.turn is not None, "the table lets it come only within a turn"
            return {"turn": _at(session.turn, event, {"approvals": without(session.turn.approvals, event.tool_use_id)})}
        case (
            e.StepStarted()
            | e.TextDelta()
            | e.TextComplete()
            | e.ReasoningDelta()
            | e.ReasoningComplete()
            | e.ToolCallRequested()
            | e.ToolExecutionStarted()
            | e.ApprovalRequested()
            | e.ToolServerFailed()
            | e.Retrying()
            | e.CompactionFailed()
            | e.SessionForked()
        ):
            return {}
        case _:
            assert_never(event)


def _turn_moves(
    session: Session,
    event: e.TurnStarted | e.TurnResumed | e.TurnWaiting | e.TurnSuspended | e.InterruptRequested,
) -> dict[str, object]:
    now = event.timestamp_ms
    if isinstance(event, e.TurnStarted):
        assert event.turn_id is not None
        turn = Turn(
            turn_id=event.turn_id,
            kind=event.kind,
            owner=event.owner,
            principal=event.principal,
            started_ms=now,
            resumed_ms=now,
            first_seq=event.seq,
            resumed_seq=event.seq,
            last_seq=event.seq,
        )
        return {
            "state": "running",
            "turn": turn,
            "opening": session.opening or (_opening(event.prompt) if event.kind == "prompt" else ""),
            "turns": session.turns + 1,
            "messages": session.messages + (event.kind == "prompt"),
            "queue": tuple(queued for queued in session.queue if queued.turn_id != event.turn_id),
        }
    turn = session.turn
    assert turn is not None, "the table lets these come only within a turn"
    match event:
        case e.TurnResumed():
            change = {
                "status": "running",
                "owner": event.owner,
                "resumed_ms": now,
                "resumed_seq": event.seq,
                "pending": (),
                "approvals": (),
            }
            messages = session.messages + bool(event.prompt)
            return {"state": "running", "turn": _at(turn, event, change), "messages": messages}
        case e.TurnWaiting():
            change = {
                "status": "waiting",
                "pending": event.pending_tool_calls,
                "approvals": event.pending_approvals,
            }
            return {"state": "waiting", "turn": _at(turn, event, change), "busy_ms": _busy_ms(session, turn, now)}
        case e.TurnSuspended():
            return {"state": "suspended", "turn": _at(turn, event, {}), "busy_ms": _busy_ms(session, turn, now)}
        case e.InterruptRequested():
            return {"state": "stopping", "turn": _at(turn, event, {"interrupt": event.reason})}


def _opening(prompt: str) -> str:
    line = " ".join(prompt[: 10 * OPENING_CHARS].split())
    return line if len(line) <= OPENING_CHARS else f"{line[: OPENING_CHARS - 1].rstrip()}…"


_STATUS: dict[str, TurnStatus] = {
    "turn_completed": "completed",
    "turn_interrupted": "interrupted",
    "turn_limit_reached": "limit",
    "turn_failed": "failed",
}


def _turn_ends(session: Session, event: e.TurnEnd) -> dict[str, object]:
    turn = session.turn
    assert turn is not None, "the table lets an end come only within a turn"
    change: dict[str, object] = {
        "status": _STATUS[event.type],
        "ended_ms": event.timestamp_ms,
        "pending": (),
        "approvals": (),
    }
    if isinstance(event, e.TurnCompleted):
        change["stop_reason"] = event.stop_reason
    if isinstance(event, e.TurnInterrupted) and (event.reason == "owner_lost" or session.state == "stopping"):
        worked_until_ms = session.updated_ms  # a dead process did not work until somebody found out
    else:
        worked_until_ms = event.timestamp_ms
    busy_ms = _busy_ms(session, turn, worked_until_ms) if session.active else session.busy_ms
    return {"state": "idle", "turn": _at(turn, event, change), "busy_ms": busy_ms}


def _busy_ms(session: Session, turn: Turn, until_ms: int) -> int:
    """The time worked so far. Two machines' clocks may differ: it never gets less."""
    return session.busy_ms + max(0, until_ms - turn.resumed_ms)


def _step_adds(
    session: Session, event: e.StepCompleted | e.ToolExecutionCompleted | e.OutputRejected
) -> dict[str, object]:
    turn = session.turn
    assert turn is not None, "the table lets these come only within a turn"
    match event:
        case e.StepCompleted():
            change: dict[str, object] = {"steps": turn.steps + 1, "usage": turn.usage + event.usage}
            if event.purpose == "answer":
                change["stop_reason"] = event.stop_reason
            else:
                change["summaries"] = turn.summaries + 1
            added: dict[str, object] = {"steps": session.steps + 1, "usage": session.usage + event.usage}
        case e.ToolExecutionCompleted():
            change = {"tool_calls": turn.tool_calls + 1, "pending": without(turn.pending, event.tool_use_id)}
            return {"turn": _at(turn, event, change), "tool_calls": session.tool_calls + 1}
        case e.OutputRejected():
            change, added = {}, {}
    said = turn.kind == "prompt" and not (isinstance(event, e.StepCompleted) and event.purpose == "summary")
    return added | {"turn": _at(turn, event, change), "messages": session.messages + said}


def _at(turn: Turn, event: e.Event, change: Mapping[str, object]) -> Turn:
    return turn.model_copy(update={**change, "last_seq": event.seq})


SHOWN: tuple[type[e.Fact], ...] = (
    e.SessionCreated,
    e.SettingsChanged,
    e.SessionArchived,
    e.SessionRestored,
    e.PromptQueued,
    e.PromptDropped,
    e.HistoryCompacted,
    e.TurnStarted,
    e.TurnResumed,
    e.TurnWaiting,
    e.TurnSuspended,
    e.InterruptRequested,
    e.TurnCompleted,
    e.TurnInterrupted,
    e.TurnLimitReached,
    e.TurnFailed,
)
"""Events that change what a list of sessions shows. A store keeps the session as of the latest of these; the
few events after it are folded on when the session is loaded."""

SHOWN_TYPES: frozenset[str] = frozenset(kind.model_fields["type"].default for kind in SHOWN)
