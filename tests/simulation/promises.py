"""What must hold of every world: looked at with each commit, and once more when everything has come to rest."""

from collections.abc import Callable, Sequence

from simulation.faults import View

from meerkat_mcp.domain import events as e
from meerkat_mcp.domain.session import Session, advance
from meerkat_mcp.stores.base import Append

OWNERS_ONLY = (
    e.StepStarted,
    e.TextDelta,
    e.TextComplete,
    e.ReasoningDelta,
    e.ReasoningComplete,
    e.ToolCallRequested,
    e.ToolExecutionStarted,
    e.ApprovalRequested,
    e.ToolServerFailed,
    e.Retrying,
    e.CompactionFailed,
    e.StepCompleted,
    e.OutputRejected,
    e.BudgetWarning,
    e.HistoryCompacted,
    e.TurnCompleted,
    e.TurnWaiting,
    e.TurnSuspended,
    e.TurnLimitReached,
    e.TurnFailed,
)

Log = Sequence[e.Event]


class Ledger:
    """Every event that was ever committed, and everything that a caller was told."""

    def __init__(self) -> None:
        self.logs: dict[str, list[e.Event]] = {}
        self.sessions: dict[str, Session] = {}
        self._told: list[tuple[str, str, Callable[[Log], bool]]] = []

    def committed(self, view: View, append: Append) -> None:
        """Look at a commit: it follows what was there, it may come now, and it adds up to the stored session."""
        session_id = append.session.id
        session = self.sessions.get(session_id, Session(id=session_id))
        log = self.logs.setdefault(session_id, [])
        copied = append.begins and append.session.forked_from is not None
        for recorded in append.events:
            event = recorded.event
            assert event.seq > session.seq, f"{event.type}: seq {event.seq} after {session.seq}"
            assert copied or event.seq == session.seq + 1, f"{event.type}: a hole before {event.seq}"
            session.check(event)
            if isinstance(event, OWNERS_ONLY) and not copied:
                turn = session.turn
                assert turn is not None, f"{event.type} outside of any turn"
                assert event.turn_id == turn.turn_id, f"{event.type} of {event.turn_id} within {turn.turn_id}"
                assert turn.owner.incarnation == view.incarnation, f"{event.type} was not recorded by its turn's owner"
            if event.type == "turn_failed":
                assert event.error["code"] != "internal", f"a turn failed by a bug: {event.error}"
            session = advance(session, event)
            log.append(event)
        assert session == append.session, "the log adds up to the stored session"
        self.sessions[session_id] = session

    def check_tools(self, ran: Sequence[str]) -> None:
        """What a tool did, the log knew before: that the call began is recorded, and that it was allowed."""
        for log in self.logs.values():
            begun: set[str] = set()
            asked: set[str] = set()
            allowed: set[str] = set()
            for event in log:
                match event:
                    case e.ApprovalRequested():
                        asked.add(event.tool_use_id)
                    case e.ApprovalResolved(decision="approve"):
                        allowed.add(event.tool_use_id)
                    case e.ToolExecutionStarted():
                        begun.add(event.tool_use_id)
                        assert event.tool_use_id not in asked - allowed, f"{event.tool_use_id} was not allowed"
                    case _:
                        pass
            ran = [call for call in ran if call not in begun]
        assert not ran, f"tools ran that no log knows of: {ran}"

    def told(self, session_id: str, what: str, holds: Callable[[Log], bool]) -> None:
        """Somebody was told this of a session: it must be in its log for ever."""
        self._told.append((session_id, what, holds))

    def check_told(self, kept: dict[str, Log]) -> None:
        for session_id, what, holds in self._told:
            assert holds(kept[session_id]), f"somebody was told, and it is not in the log: {what}"


def check_log(session: Session, log: Log) -> None:
    """What must hold of every log at rest."""
    folded, open_turn, ends, pieces, steps = Session(id=session.id), None, list[str | None](), 0, list[object]()
    for event in log:
        folded.check(event)
        folded = advance(folded, event)
        match event.type:
            case "step_started" | "retrying":
                pieces = 0
            case "text_delta" | "reasoning_delta":
                pieces += 1
            case "text_complete" | "reasoning_complete":
                assert pieces == 0, f"a whole text takes the place of its pieces: {event.seq}"
        if isinstance(event, e.StepCompleted):
            steps.append((event.turn_id, event.step))
        if event.type == "turn_started":
            assert open_turn is None, "one turn at a time"
            open_turn = event.turn_id
        elif event.type in e.TURN_ENDS:
            assert event.turn_id == open_turn, "every end is the end of the open turn"
            open_turn = None
            ends.append(event.turn_id)
    seqs = [event.seq for event in log]
    assert seqs == sorted(set(seqs)), "seqs strictly increase"
    assert len(ends) == len(set(ends)), "exactly one end for a turn"
    assert len(steps) == len(set(steps)), f"a step is made once: {steps}"
    assert folded == session, "the log adds up to the stored session"
    begun = [event.turn_id for event in log if event.type == "turn_started"]
    assert len(begun) == len(set(begun)), "a turn begins once"


def check_seen(log: Log, seen: Log, after: int, *, whole: bool) -> None:
    """A follower saw every recorded event once and in order, and every piece of text at most once."""
    seqs = [event.seq for event in seen]
    assert seqs == sorted(set(seqs)), "each event once, in order"
    recorded = [event for event in log if event.seq > after and event.type not in e.DELTAS]
    saw = [event for event in seen if event.type not in e.DELTAS]
    assert saw == recorded[: len(saw)], "a follower sees what is recorded, all of it"
    if whole:
        missed = [f"{event.seq} {event.type}" for event in recorded[len(saw) :]]
        assert not missed, f"a follower never heard of {missed}"


def begins(turn_id: str) -> Callable[[Log], bool]:
    """The turn was started, or queued."""
    return lambda log: any(
        event.type in ("turn_started", "prompt_queued") and event.turn_id == turn_id for event in log
    )


def answered(contents: Sequence[str]) -> Callable[[Log], bool]:
    """The tool results were brought, each once."""
    return lambda log: all(
        [event.type == "tool_execution_completed" and event.content == content for event in log].count(True) == 1
        for content in contents
    )


def decided(tool_use_ids: Sequence[str]) -> Callable[[Log], bool]:
    """The approvals were resolved, each once."""
    return lambda log: all(
        [event.type == "approval_resolved" and event.tool_use_id == call for event in log].count(True) == 1
        for call in tool_use_ids
    )


def interrupted(turn_id: str | None) -> Callable[[Log], bool]:
    """The turn ended by interruption, or was withdrawn."""
    kinds = ("turn_interrupted", "prompt_dropped")
    return lambda log: any(event.type in kinds and event.turn_id == turn_id for event in log)


def has(kind: str) -> Callable[[Log], bool]:
    return lambda log: any(event.type == kind for event in log)


def has_title(title: str) -> Callable[[Log], bool]:
    return lambda log: any(getattr(event, "title", None) == title for event in log)
