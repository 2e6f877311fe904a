"""What a call makes of a session: which events it would add, or why it cannot. Pure, and asked again when it lost."""

from collections.abc import Sequence
from typing import Literal

from meerkat_mcp.domain import events as e
from meerkat_mcp.domain.config import Config
from meerkat_mcp.domain.errors import LimitExceeded, NotWaiting, ToolResultsMismatch
from meerkat_mcp.domain.messages import ToolResult
from meerkat_mcp.domain.session import Session
from meerkat_mcp.sessions.plan import check_budget

IfBusy = Literal["reject", "interrupt", "queue"]


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
        case (("running" | "stopping" | "waiting"), "queue"):
            _check_queue(session, config.limits.max_queued_prompts)
            return [queued]
        case "running", "interrupt":
            assert turn is not None, "a turn makes a session run"
            return [e.InterruptRequested(turn_id=turn.turn_id, reason="superseded"), queued]
        case "stopping", "interrupt":
            return [queued]
        case "waiting", "interrupt":
            assert turn is not None, "a session waits within a turn"
            return [e.TurnInterrupted(turn_id=turn.turn_id, reason="superseded"), started]
        case "waiting", _:
            raise _mismatch(session, "The session waits for tool results, not for a prompt.")
        case (("running" | "stopping"), _):
            raise session.busy()
        case _:
            check_budget(session, session.settings.budget.tightened(config.budget), now_ms)
            return [started]


def answers(session: Session, results: Sequence[ToolResult], prompt: str, owner: e.Owner) -> Sequence[e.Event]:
    """What tool results make of a session that waits for exactly these.

    Raises:
        NotWaiting, ToolResultsMismatch.
    """
    turn = session.turn
    if session.state != "waiting" or turn is None:
        raise NotWaiting(
            f"Session {session.id} waits for no tool results.",
            hint="Prompt it without tool_results.",
            session_id=session.id,
        )
    names = {call.tool_use_id: call.tool_name for call in turn.pending}
    if sorted(result.tool_use_id for result in results) != sorted(names):
        raise _mismatch(session, "tool_results must answer every pending call exactly once.")
    brought = [
        e.ToolExecutionCompleted(turn_id=turn.turn_id, tool_name=names[result.tool_use_id], **result.model_dump())
        for result in results
    ]
    return [*brought, e.TurnResumed(turn_id=turn.turn_id, prompt=prompt, owner=owner)]


def _check_queue(session: Session, most: int) -> None:
    if len(session.queue) >= most:
        raise LimitExceeded(
            f"{len(session.queue)} prompts are queued in session {session.id}.",
            limit="limits.max_queued_prompts",
            maximum=most,
        )


def _mismatch(session: Session, message: str) -> ToolResultsMismatch:
    assert session.turn is not None, "a session waits within a turn"
    return ToolResultsMismatch(
        message,
        hint="Send tool_results for exactly these ids, or end the turn with meerkat_interrupt.",
        session_id=session.id,
        turn_id=session.turn.turn_id,
        expected=[call.tool_use_id for call in session.turn.pending],
    )
