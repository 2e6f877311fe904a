"""Messages as the MCP tools give them back, and the calls in them that somebody has to answer."""

from collections.abc import Sequence
from typing import Literal

from pydantic import BaseModel

from meerkat_mcp.domain.messages import (
    AssistantMessage,
    JsonObject,
    Reasoning,
    ToolCall,
    ToolMessage,
    ToolResult,
    UserMessage,
)
from meerkat_mcp.domain.transcript import Placed


class PendingCall(BaseModel):
    """A tool call that the caller has to answer."""

    tool_use_id: str
    tool_name: str
    args: JsonObject

    @classmethod
    def of(cls, call: ToolCall) -> "PendingCall":
        """The call, without what only the log needs."""
        return cls(tool_use_id=call.tool_use_id, tool_name=call.tool_name, args=call.args)


class MessageView(BaseModel):
    """A message. `seq` is the event that completed it: a place to fork at, or to read events after."""

    role: Literal["user", "assistant", "tool"]
    seq: int
    turn_id: str | None = None
    timestamp_ms: int
    text: str | None = None
    reasoning: str | None = None
    tool_calls: list[PendingCall] | None = None
    tool_results: list[JsonObject] | None = None
    cut: bool | None = None


def message_views(placed: Sequence[Placed], max_chars: int) -> list[MessageView]:
    """Messages that share `max_chars` evenly; what is longer is cut and says so."""
    share = max(100, max_chars // max(1, len(placed)))
    return [_message_view(one, share) for one in placed]


def _message_view(placed: Placed, share: int) -> MessageView:
    view = MessageView(
        role=placed.message.role, seq=placed.seq, turn_id=placed.turn_id, timestamp_ms=placed.timestamp_ms
    )
    match placed.message:
        case UserMessage(text=text):
            view.text = text
        case AssistantMessage() as said_by_model:
            view.text = said_by_model.text or None
            reasoning = "".join(block.text for block in said_by_model.blocks if isinstance(block, Reasoning))
            view.reasoning = reasoning or None
            view.tool_calls = [PendingCall.of(call) for call in said_by_model.tool_calls] or None
        case ToolMessage(results=results):
            view.tool_results = [_shown(result, share) for result in results]
            view.cut = any(len(result.content) > share for result in results) or None
    for name in ("text", "reasoning"):
        said: str | None = getattr(view, name)
        if said is not None and len(said) > share:
            setattr(view, name, said[:share])
            view.cut = True
    return view


def _shown(result: ToolResult, share: int) -> JsonObject:
    """A tool's result without the bytes of its images."""
    shown = result.model_dump(exclude={"images"}) | {"content": result.content[:share]}
    return shown | ({"images": [image.mime_type for image in result.images]} if result.images else {})
