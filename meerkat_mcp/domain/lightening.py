"""Events that say less: the long texts of what no model reads any more, replaced by how long they were.

A lightened event has the type and the place of the one before, and its log folds to the same session: what is counted
stays, a prompt keeps its beginning. Only pictures and the provider's own items go without a note.
"""

import json
from typing import Any

from meerkat_mcp.domain import events as e
from meerkat_mcp.domain.messages import JsonObject, ToolCall
from meerkat_mcp.domain.session import OPENING_CHARS, Session, advance

LONG_CHARS = 400
PROMPT_CHARS = 10 * OPENING_CHARS
"""As much as a session's opening is made of."""


def lightened(event: e.Event) -> e.Event | None:
    """The event without its long texts; None when it has none."""
    changes: dict[str, Any] = {}
    match event:
        case e.TurnStarted() | e.TurnResumed() | e.PromptQueued():
            if len(event.prompt) > PROMPT_CHARS + LONG_CHARS:
                changes["prompt"] = f"{event.prompt[:PROMPT_CHARS]}… {_note(len(event.prompt) - PROMPT_CHARS)}"
        case e.TextComplete() | e.ReasoningComplete():
            changes |= _text("text", event.text)
        case e.OutputRejected():
            changes |= _text("message", event.message)
        case e.HistoryCompacted():
            changes |= _text("summary", event.summary)
        case e.ToolCallRequested():
            changes |= _args("args", event.args)
            changes |= _text("malformed", event.malformed or "")
        case e.ToolExecutionCompleted():
            changes |= _text("content", event.content)
            changes |= {"images": ()} if event.images else {}
        case e.StepCompleted():
            changes |= _text("detail", event.detail)
            changes |= {"items": ()} if event.items else {}
        case e.TurnCompleted():
            long = event.structured_output is not None and _size(event.structured_output) > LONG_CHARS
            changes |= {"structured_output": _note(_size(event.structured_output))} if long else {}
        case e.TurnWaiting():
            for name in ("pending_tool_calls", "pending_approvals"):
                calls: tuple[ToolCall, ...] = getattr(event, name)
                lighter = tuple(call.model_copy(update=_args("args", call.args)) for call in calls)
                changes |= {name: lighter} if lighter != calls else {}
        case _:
            pass
    return event.model_copy(update=changes) if changes else None


class Folding:
    """A log with and without its long texts, folded side by side: they have to come to the same."""

    def __init__(self, session_id: str) -> None:
        self._before = self._after = Session(id=session_id)

    def add(self, event: e.Event, instead: e.Event) -> None:
        """Take the next event, and what is to take its place."""
        self._before, self._after = advance(self._before, event), advance(self._after, instead)

    @property
    def agrees(self) -> bool:
        """Whether both are the same so far, but for what a turn waited for: that is gone when it has ended."""
        return _without_pending(self._before) == _without_pending(self._after)


def _without_pending(session: Session) -> Session:
    if session.turn is None:
        return session
    turn = session.turn.model_copy(update={"pending": (), "approvals": ()})
    return session.model_copy(update={"turn": turn})


def _text(name: str, text: str) -> dict[str, Any]:
    return {name: _note(len(text))} if len(text) > LONG_CHARS else {}


def _args(name: str, args: JsonObject) -> dict[str, Any]:
    size = _size(args)
    return {name: {"note": _note(size)}} if size > LONG_CHARS else {}


def _size(value: Any) -> int:
    return len(json.dumps(value, ensure_ascii=False))


def _note(chars: int) -> str:
    return f"[{chars:,} characters were here]"
