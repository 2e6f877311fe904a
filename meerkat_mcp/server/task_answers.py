"""What a task asks a person, and what the answers make of the turn that waits for them.

An approval is asked for as always (`server/approving.py`); the result of a call of the caller's own tools by a form for
its text. Answers need not come together: each is recorded as it comes, and what is left is asked for on.
"""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from mcp.types import ElicitRequest, ElicitRequestFormParams, ElicitResult
from pydantic import BaseModel, Field, ValidationError

from meerkat_mcp.domain import events as e
from meerkat_mcp.domain.errors import InvalidRequest
from meerkat_mcp.domain.messages import ToolCall, ToolResult
from meerkat_mcp.domain.session import Session
from meerkat_mcp.domain.settings import TOOL_RESULT_CHARS_MAX
from meerkat_mcp.domain.turn import Turn
from meerkat_mcp.server.approving import approval, in_words, question
from meerkat_mcp.sessions.decisions import Approval, answers

DECLINED = "Whoever was asked for the result of this call declined to give one."


class _Form(BaseModel):
    content: str = Field(max_length=TOOL_RESULT_CHARS_MAX)
    is_error: bool = False


_FORM: dict[str, Any] = {
    "type": "object",
    "properties": {
        "content": {"type": "string", "title": "Result", "description": "What the tool answers."},
        "is_error": {"type": "boolean", "title": "It failed", "default": False},
    },
    "required": ["content"],
}


def questions(turn: Turn) -> dict[str, ElicitRequest]:
    """What a waiting turn waits for, as forms. A key names one call of one step: no other one ever has it."""
    asked = {_key(turn, call): question(call) for call in turn.approvals}
    return asked | {_key(turn, call): _result_question(call) for call in turn.pending}


@dataclass(frozen=True, slots=True)
class Answers:
    """Answers to questions of one turn."""

    results: Sequence[ToolResult]
    approvals: Sequence[Approval]

    @classmethod
    def of(cls, turn: Turn, given: Mapping[str, Any]) -> "Answers":
        """Those to what the turn still asks; a closed form is none. To decline is a no, or a call that failed.

        Raises:
            InvalidRequest: one is no answer to its form.
        """
        results = [_result(call, said) for call in turn.pending if (said := _said(turn, call, given)) is not None]
        approvals = [_approval(call, said) for call in turn.approvals if (said := _said(turn, call, given)) is not None]
        return cls(results, approvals)

    def __bool__(self) -> bool:
        return bool(self.results or self.approvals)

    def complete(self, turn: Turn) -> bool:
        """Whether nothing is left to wait for after these."""
        return len(self.results) == len(turn.pending) and len(self.approvals) == len(turn.approvals)


def in_part(session: Session, *, turn_id: str, brought: Answers, owner: e.Owner) -> Sequence[e.Event]:
    """What answers make of a turn that waits on after them. Nothing, when it does not wait any more, or when these
    turn out to be the last: then it goes on, which is `Sessions.resume`'s to begin.
    """
    turn = session.turn
    if session.state != "waiting" or turn is None or turn.turn_id != turn_id:
        return ()
    results = [result for result in brought.results if _has(turn.pending, result.tool_use_id)]
    approvals = [said for said in brought.approvals if _has(turn.approvals, said.tool_use_id)]
    if not (results or approvals) or Answers(results, approvals).complete(turn):
        return ()
    answered = {answer.tool_use_id for answer in (*results, *approvals)}
    asked = turn.model_copy(
        update={
            "pending": tuple(call for call in turn.pending if call.tool_use_id in answered),
            "approvals": tuple(call for call in turn.approvals if call.tool_use_id in answered),
        }
    )
    said = answers(session.model_copy(update={"turn": asked}), results, approvals, "elicitation", "", owner)
    return [event for event in said if not isinstance(event, e.TurnResumed)]


def brought_at(turn: Sequence[e.Event], results: Collection[str], responses: Collection[str]) -> int:
    """The last event that records these answers to a turn, given its events; 0: none of them is there.

    A call that was allowed has another result later, and is not answered by that.
    """
    open_results, open_responses, last = set(results), set(responses), 0
    for event in turn:
        match event:
            case e.ToolExecutionCompleted() if event.tool_use_id in open_results:
                open_results.remove(event.tool_use_id)
                last = event.seq
            case e.ApprovalResolved() if event.tool_use_id in open_responses:
                open_responses.remove(event.tool_use_id)
                last = event.seq + (event.decision == "deny")  # a denied call has its result at once, next to it
            case _:
                pass
    return last


def paused(turn: Sequence[e.Event], after: int) -> int | None:
    """How many of a turn's events there were when a call that began after the event `after` was answered, because the
    turn waited for its caller. None: it did not.
    """
    for at, event in enumerate(turn):
        if event.seq == after:
            goes_on = at + 1 < len(turn) and isinstance(turn[at + 1], e.TurnResumed)
            if not goes_on:
                return at + 1
        elif event.seq > after and isinstance(event, e.TurnWaiting):
            return at + 1
    return None


def _key(turn: Turn, call: ToolCall) -> str:
    return f"{turn.steps}.{call.tool_use_id}"


def _has(calls: Sequence[ToolCall], tool_use_id: str) -> bool:
    return any(call.tool_use_id == tool_use_id for call in calls)


def _result_question(call: ToolCall) -> ElicitRequest:
    asks = f"The agent calls your tool {in_words(call)}. What does it answer?"
    return ElicitRequest(params=ElicitRequestFormParams(message=asks, requested_schema=_FORM))


def _said(turn: Turn, call: ToolCall, given: Mapping[str, Any]) -> ElicitResult | None:
    """What a host says to a question; None: nothing, or that the form was closed. Raises InvalidRequest."""
    key = _key(turn, call)
    if key not in given:
        return None
    try:
        said = ElicitResult.model_validate(given[key])
    except ValidationError:
        raise InvalidRequest(f"inputResponses[{key!r}] is no answer to an elicitation.") from None
    if said.action == "cancel":
        return None
    filled_in = {name: value for name, value in (said.content or {}).items() if value is not None}
    return said.model_copy(update={"content": filled_in})


def _result(call: ToolCall, said: ElicitResult) -> ToolResult:
    if said.action == "decline":
        return ToolResult(tool_use_id=call.tool_use_id, content=DECLINED, is_error=True)
    try:
        form = _Form.model_validate(said.content)
    except ValidationError:
        raise InvalidRequest(f"The form for {call.tool_use_id} needs content, a text.") from None
    return ToolResult(tool_use_id=call.tool_use_id, content=form.content, is_error=form.is_error)


def _approval(call: ToolCall, said: ElicitResult) -> Approval:
    decided = approval(call.tool_use_id, said)
    if decided is None:
        raise InvalidRequest(f"The form for {call.tool_use_id} needs a decision: approve or deny.")
    return decided
