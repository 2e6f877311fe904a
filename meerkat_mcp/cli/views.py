"""Sessions, turns and messages as JSON: the names that the MCP tools use, nothing cut."""

from typing import Any

from meerkat_mcp.domain.messages import (
    AssistantMessage,
    Reasoning,
    ToolCall,
    ToolMessage,
    ToolResult,
    Usage,
    UserMessage,
)
from meerkat_mcp.domain.session import Session
from meerkat_mcp.domain.transcript import Placed, TurnOutcome
from meerkat_mcp.sessions.excerpts import Excerpt

_TURN = {
    "turn_id",
    "status",
    "stop_reason",
    "text",
    "structured_output",
    "steps",
    "tool_calls",
    "usage",
    "model",
    "provider",
    "last_seq",
    "error",
}


def reference(realm_id: str, session_id: str) -> str:
    """The name of a session that says its realm too."""
    return f"{realm_id}:{session_id}"


def session_view(session: Session, matched: Excerpt | None = None) -> dict[str, Any]:
    """A session as a list shows it. Times are milliseconds since the Unix epoch."""
    return {
        "session_id": session.id,
        **({"title": session.title} if session.title else {}),
        **({"labels": session.labels} if session.labels else {}),
        "state": session.state,
        **({"model": session.settings.model} if session.settings.model else {}),
        "turns": session.turns,
        "messages": session.messages,
        "usage": session.usage.model_dump(exclude_none=True),
        "created_ms": session.created_ms,
        "updated_ms": session.updated_ms,
        **({"forked_from": session.forked_from.model_dump()} if session.forked_from else {}),
        "last_seq": session.seq,
        **({"matched": matched.model_dump()} if matched is not None else {}),
    }


def turn_view(session: Session, realm_id: str, outcome: TurnOutcome | None) -> dict[str, Any]:
    """How a turn stands; `idle` when none was asked for."""
    named: dict[str, Any] = {"session_id": session.id, "session_ref": reference(realm_id, session.id)}
    if outcome is None:
        return named | {"status": "idle", "last_seq": session.seq}
    view = named | outcome.model_dump(mode="json", include=_TURN, exclude_none=True)
    if outcome.pending:
        view["pending_tool_calls"] = [_call(call) for call in outcome.pending]
    if outcome.approvals:
        view["pending_approvals"] = [_call(call) for call in outcome.approvals]
    if outcome.warnings:
        view["warnings"] = list(outcome.warnings)
    return view


def message_view(placed: Placed) -> dict[str, Any]:
    """A message with its place in the log."""
    view: dict[str, Any] = {"role": placed.message.role, "seq": placed.seq, "timestamp_ms": placed.timestamp_ms}
    if placed.turn_id is not None:
        view["turn_id"] = placed.turn_id
    match placed.message:
        case UserMessage(text=text):
            view["text"] = text
        case AssistantMessage() as said_by_model:
            reasoning = "".join(block.text for block in said_by_model.blocks if isinstance(block, Reasoning))
            calls = [_call(call) for call in said_by_model.tool_calls]
            given = {"text": said_by_model.text, "reasoning": reasoning, "tool_calls": calls}
            view |= {name: value for name, value in given.items() if value}
        case ToolMessage(results=results):
            view["tool_results"] = [_result(result) for result in results]
    return view


def tokens(usage: Usage) -> str:
    """What was read and written, in a few words."""
    cost = f", {dollars(usage.cost_usd)}" if usage.cost_usd else ""
    return f"{usage.input_tokens} tokens in, {usage.output_tokens} out{cost}"


def dollars(amount: float) -> str:
    """A cost, also a very small one."""
    return f"${amount:.4f}" if amount >= 0.0001 else "less than $0.0001"


def _result(result: ToolResult) -> dict[str, Any]:
    """A tool's result without the bytes of its pictures."""
    pictures = {"images": [image.mime_type for image in result.images]} if result.images else {}
    return result.model_dump(exclude={"images"}) | pictures


def _call(call: ToolCall) -> dict[str, Any]:
    return call.model_dump(include={"tool_use_id", "tool_name", "args"})
