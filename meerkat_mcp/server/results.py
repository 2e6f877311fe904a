"""What the MCP tools give back: models for `structuredContent`, complete by themselves and small."""

import json
from typing import Any, Literal

from pydantic import BaseModel

from meerkat_mcp.domain.events import Fork
from meerkat_mcp.domain.messages import JsonObject, Usage
from meerkat_mcp.domain.session import Session, State
from meerkat_mcp.domain.transcript import TurnOutcome
from meerkat_mcp.domain.turn import TurnStatus
from meerkat_mcp.server.message_views import MessageView, PendingCall
from meerkat_mcp.sessions.excerpts import Excerpt


class TextCut(BaseModel):
    """The text is longer than shown: read on with meerkat_read and `text_offset`."""

    text_offset: int
    total_chars: int


class TurnResult(BaseModel):
    """How a turn stands. `idle`: the session was made or changed, and no turn asked for."""

    session_id: str
    session_ref: str
    turn_id: str | None = None
    status: TurnStatus | Literal["idle"]
    stop_reason: str | None = None
    text: str = ""
    text_cut: TextCut | None = None
    structured_output: Any = None
    pending_tool_calls: list[PendingCall] | None = None
    pending_approvals: list[PendingCall] | None = None
    hint: str | None = None
    steps: int = 0
    tool_calls: int = 0
    usage: Usage = Usage()
    model: str = ""
    provider: str = ""
    last_seq: int
    warnings: list[str] | None = None
    error: JsonObject | None = None


class SessionView(BaseModel):
    """A session in a list. `opening` is how a session without a title begins. `messages` counts prompts and replies;
    times are milliseconds since the Unix epoch. `matched` is where a query found it, if only in a message.
    """

    session_id: str
    principal: str | None = None
    title: str | None = None
    opening: str | None = None
    labels: dict[str, str] | None = None
    state: State
    model: str | None = None
    turns: int
    messages: int
    usage: Usage
    created_ms: int
    updated_ms: int
    forked_from: Fork | None = None
    last_seq: int
    matched: Excerpt | None = None


class SessionList(BaseModel):
    """A page; `next_cursor` begins the next one."""

    sessions: list[SessionView]
    next_cursor: str | None = None


class ReadResult(BaseModel):
    """A session and its latest turn (or the one asked for)."""

    session_ref: str
    session: SessionView
    turn: TurnResult | None = None
    queued_turns: list[str] | None = None


class HistoryResult(BaseModel):
    """A page of messages, oldest first."""

    session_id: str
    messages: list[MessageView]
    offset: int
    total: int
    has_more: bool


class InterruptResult(BaseModel):
    """`interrupted` is true only when something was running, waiting or queued; `ended` when it is over."""

    session_id: str
    interrupted: bool
    ended: bool
    turn_id: str | None = None


class ArchiveResult(BaseModel):
    """The session as it is now."""

    session_id: str
    archived: bool


class ForkResult(BaseModel):
    """The new session."""

    session_id: str
    session_ref: str
    forked_from: Fork
    last_seq: int


class CompactResult(BaseModel):
    """What a compaction replaced, or with dry_run would replace."""

    session_id: str
    turn_id: str | None = None
    status: TurnStatus | Literal["preview"]
    messages_replaced: int
    chars_before: int
    summary: str | None = None


class DeleteResult(BaseModel):
    """What was deleted, or with `deleted` false would be: do it with `confirm`. For `older_than` that is the `plan_id`,
    which stands for exactly these sessions.
    """

    deleted: bool
    session_ids: list[str]
    total: int
    plan_id: str | None = None
    confirm: str | None = None


class StreamOpened(BaseModel):
    """A stream: it works from any process of the realm, until closed or idle for a day."""

    stream_id: str
    session_id: str
    after_seq: int


class StreamEvents(BaseModel):
    """What came. `done`: the last of these events ended a turn, or left it waiting."""

    status: Literal["event", "timeout", "closed"]
    stream_id: str
    events: list[JsonObject]
    next_seq: int
    more: bool
    done: bool


class StreamClosed(BaseModel):
    """`closed` is false when it was not open any more."""

    stream_id: str
    closed: bool


def turn_result(
    session: Session, realm_id: str, outcome: TurnOutcome | None, *, max_chars: int, text_offset: int = 0
) -> TurnResult:
    """A turn's outcome for a caller; text and structured output no longer than asked for."""
    reference = f"{realm_id}:{session.id}"
    if outcome is None:
        return TurnResult(session_id=session.id, session_ref=reference, status="idle", last_seq=session.seq)
    shown = outcome.text[text_offset : text_offset + max_chars]
    end = text_offset + len(shown)
    result = TurnResult(
        session_id=session.id,
        session_ref=reference,
        **outcome.model_dump(include=_PLAIN),
        usage=outcome.usage,
        text=shown,
        pending_tool_calls=[PendingCall.of(call) for call in outcome.pending] or None,
        pending_approvals=[PendingCall.of(call) for call in outcome.approvals] or None,
        hint=_what_to_do(session, realm_id, outcome),
        warnings=list(outcome.warnings) or None,
    )
    if end < len(outcome.text):
        result.text_cut = TextCut(text_offset=end, total_chars=len(outcome.text))
    if outcome.structured_output is not None and len(json.dumps(outcome.structured_output)) > max_chars:
        result.structured_output = None
        cut = "structured_output is longer than max_chars; read it as text with meerkat_read"
        result.warnings = [*(result.warnings or ()), cut]
    return result


def _what_to_do(session: Session, realm_id: str, outcome: TurnOutcome) -> str | None:
    """How a turn that waits goes on, for a model that has not read our pages."""
    if outcome.approvals:
        command = f"meerkat-mcp session approve --realm {realm_id} {session.id}"
        return f"The user has to allow pending_approvals: {command}. You may deny them with meerkat_resume (responses)."
    if outcome.pending:
        return "Bring the results of all pending_tool_calls with meerkat_resume (tool_results)."
    return None


_PLAIN = {
    "turn_id",
    "status",
    "stop_reason",
    "structured_output",
    "steps",
    "tool_calls",
    "model",
    "provider",
    "last_seq",
    "error",
}


def event_view(event: JsonObject) -> JsonObject:
    """An event as a host sees it: without the bytes of pictures, which are for the model and fill a host's context."""
    if not event.get("images"):
        return event
    pictures = [{"mime_type": image["mime_type"], "bytes": len(image["data"]) * 3 // 4} for image in event["images"]]
    return event | {"images": pictures}


def session_view(session: Session, matched: Excerpt | None = None) -> SessionView:
    """A session as a list shows it."""
    return SessionView(
        session_id=session.id,
        principal=session.principal,
        title=session.title or None,
        opening=None if session.title else session.opening or None,
        labels=session.labels or None,
        state=session.state,
        model=session.settings.model,
        turns=session.turns,
        messages=session.messages,
        usage=session.usage,
        created_ms=session.created_ms,
        updated_ms=session.updated_ms,
        forked_from=session.forked_from,
        last_seq=session.seq,
        matched=matched,
    )
