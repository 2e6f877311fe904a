"""What a call makes of a session: which events it would add, or why it cannot. Pure, and asked again when it lost."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from meerkat_mcp.domain import events as e
from meerkat_mcp.domain.config import Config
from meerkat_mcp.domain.errors import InvalidRequest, LimitExceeded, NotWaiting, ToolResultsMismatch
from meerkat_mcp.domain.messages import ToolCall, ToolResult
from meerkat_mcp.domain.session import Session
from meerkat_mcp.sessions.plan import check_budget

IfBusy = Literal["reject", "interrupt", "queue"]


def changed(
    session: Session, *, changes: Mapping[str, Any], title: str | None, labels: Mapping[str, str] | None
) -> list[e.Event]:
    """What other settings, title or labels make of a session, as it is by then: others may change it too."""
    settings = session.settings.changed(**changes)
    change = e.SettingsChanged(
        settings=settings if settings != session.settings else None,
        title=title,
        labels=dict(labels) if labels is not None else None,
    )
    return [] if change == e.SettingsChanged() else [change]


def next_turn(
    session: Session, turn_id: str, prompt: str, owner: e.Owner, if_busy: IfBusy, config: Config, now_ms: int
) -> Sequence[e.Event]:
    """What a prompt makes of a session: a turn, a place in its queue, or the end of the turn that is there.

    Raises:
        SessionBusy, ToolResultsMismatch (it waits), LimitExceeded (the queue is full), BudgetExhausted.
    """
    started = e.TurnStarted(turn_id=turn_id, prompt=prompt, owner=owner)
    turn, queued = session.turn, e.PromptQueued(turn_id=turn_id, prompt=prompt, first=if_busy == "interrupt")
    match session.state, if_busy:
        case (("running" | "stopping" | "waiting" | "suspended"), "queue"):
            _check_queue(session, config.limits.max_queued_prompts)
            return [queued]
        case "running", "interrupt":
            assert turn is not None, "a turn makes a session run"
            return [e.InterruptRequested(turn_id=turn.turn_id, reason="superseded"), queued]
        case "stopping", "interrupt":
            return [queued]
        case (("waiting" | "suspended"), "interrupt"):
            assert turn is not None, "a session waits within a turn"
            return [e.TurnInterrupted(turn_id=turn.turn_id, reason="superseded"), started]
        case "waiting", _:
            raise _mismatch(session, "The session waits for tool results or approvals, not for a prompt.")
        case (("running" | "stopping" | "suspended"), _):
            raise session.busy()
        case _:
            check_budget(session, session.settings.budget.tightened(config.budget), now_ms)
            return [started]


@dataclass(frozen=True, slots=True)
class Approval:
    """A yes or a no to one pending call."""

    tool_use_id: str
    verdict: e.Verdict
    reason: str = ""


def answers(
    session: Session,
    results: Sequence[ToolResult],
    approvals: Sequence[Approval],
    by: e.ApprovedBy,
    prompt: str,
    owner: e.Owner,
) -> Sequence[e.Event]:
    """What tool results and approvals make of a session that waits for them: it goes on when nothing is left to wait
    for. Results may come before approvals or after, but all of a kind come together.

    Raises:
        NotWaiting, ToolResultsMismatch (it names what is missing and what nobody asked for), InvalidRequest,
        SessionArchived.
    """
    turn = session.turn
    if session.state == "archived":
        session.check(e.TurnResumed(owner=owner))
    if session.state != "waiting" or turn is None:
        raise NotWaiting(
            f"Session {session.id} waits for no tool results or approvals.",
            hint="Prompt it without them.",
            session_id=session.id,
        )
    if results:
        _check_whole(session, "tool_results", turn.pending, [result.tool_use_id for result in results])
    if approvals:
        _check_whole(session, "responses", turn.approvals, [approval.tool_use_id for approval in approvals])
    said: list[e.Event] = []
    names = {call.tool_use_id: call.tool_name for call in (*turn.pending, *turn.approvals)}
    for result in results:
        given = dict(result)
        said.append(e.ToolExecutionCompleted(turn_id=turn.turn_id, tool_name=names[result.tool_use_id], **given))
    for approval in approvals:
        said += _decided(approval, by, turn.turn_id, names[approval.tool_use_id])
    if (turn.pending and not results) or (turn.approvals and not approvals):
        if prompt:
            raise InvalidRequest(
                "A prompt goes with the last of what the turn waits for.",
                hint="Bring tool_results and responses together, or the prompt with those that come last.",
                session_id=session.id,
                turn_id=turn.turn_id,
            )
        return said
    return [*said, e.TurnResumed(turn_id=turn.turn_id, prompt=prompt, owner=owner)]


def _decided(approval: Approval, by: e.ApprovedBy, turn_id: str, tool_name: str) -> list[e.Event]:
    resolved = e.ApprovalResolved(
        turn_id=turn_id, tool_use_id=approval.tool_use_id, decision=approval.verdict, by=by, reason=approval.reason
    )
    if approval.verdict == "approve":
        return [resolved]
    why = f": {approval.reason}" if approval.reason else "."
    denied = e.ToolExecutionCompleted(
        turn_id=turn_id,
        tool_use_id=approval.tool_use_id,
        tool_name=tool_name,
        content=f"This call was not allowed{why}",
        is_error=True,
    )
    return [resolved, denied]


def _check_whole(session: Session, what: str, pending: Sequence[ToolCall], given: Sequence[str]) -> None:
    wanted = [call.tool_use_id for call in pending]
    if sorted(given) == sorted(wanted):
        return
    raise _mismatch(
        session,
        f"{what} must answer every pending call exactly once.",
        missing=[call_id for call_id in wanted if call_id not in given] or None,
        unknown=sorted({call_id for call_id in given if call_id not in wanted}) or None,
        twice=sorted({call_id for call_id in given if given.count(call_id) > 1}) or None,
    )


def _check_queue(session: Session, most: int) -> None:
    if len(session.queue) >= most:
        raise LimitExceeded(
            f"{len(session.queue)} prompts are queued in session {session.id}.",
            limit="limits.max_queued_prompts",
            maximum=most,
        )


def _mismatch(session: Session, message: str, **facts: Any) -> ToolResultsMismatch:
    turn = session.turn
    assert turn is not None, "a session waits within a turn"
    return ToolResultsMismatch(
        message,
        hint="Send tool_results for the pending calls and responses for the pending approvals, or end the turn with "
        "meerkat_interrupt.",
        session_id=session.id,
        turn_id=turn.turn_id,
        expected=[call.tool_use_id for call in turn.pending],
        expected_approvals=[call.tool_use_id for call in turn.approvals] or None,
        **facts,
    )
