"""Asking the person in front of a host about a tool call, where the host can ask.

That a turn waits for a yes is in the log, and stays there when nobody can be asked. A host of the 2025 era is asked
by a request of ours while its call waits; one of 2026 gets the questions as the call's result, and calls again with
the answers and the state that we gave it, which the SDK seals.
"""

import json
import logging
import re
from collections.abc import Sequence
from typing import Any, Literal

from mcp import MCPError
from mcp.server.mcpserver import Context
from mcp.types import ElicitRequest, ElicitRequestFormParams, ElicitResult, InputRequiredResult
from pydantic import BaseModel, Field, ValidationError

from meerkat_mcp.domain.errors import InvalidRequest, NotWaiting, ToolResultsMismatch
from meerkat_mcp.domain.messages import JsonObject, ToolCall
from meerkat_mcp.realms import Realm
from meerkat_mcp.server.callers import caller
from meerkat_mcp.server.surface import InputNeeded
from meerkat_mcp.sessions.claims import Started
from meerkat_mcp.sessions.decisions import Approval

MODERN = "2026-07-28"
ARGS_CHARS_MAX = 2_000
"""Of a call's arguments, in a question: a person reads it. The whole call is in the log."""

_TURNS_TEXT = re.compile("[\u200e\u200f\u202a-\u202e\u2066-\u2069]")
"""Characters that have text shown in another order than it is: a person says yes to what they read."""

log = logging.getLogger(__name__)


class _Form(BaseModel):
    decision: Literal["approve", "deny"]
    reason: str = Field(default="", max_length=2000)


_FORM: dict[str, Any] = {
    "type": "object",
    "properties": {
        "decision": {"type": "string", "title": "Allow this call?", "enum": ["approve", "deny"]},
        "reason": {
            "type": "string",
            "title": "Reason",
            "description": "For the model, if you deny.",
            "maxLength": 2000,
        },
    },
    "required": ["decision"],
}


def can_ask(context: Context[Any, Any]) -> bool:
    """Whether the host says that it can put a form before a person."""
    capabilities = context.client_capabilities
    elicitation = capabilities.elicitation if capabilities is not None else None
    return elicitation is not None and (elicitation.form is not None or elicitation.url is None)


async def ask(context: Context[Any, Any], session_id: str, turn_id: str, calls: Sequence[ToolCall]) -> list[Approval]:
    """What a person says to each call; fewer when a question was closed without an answer, or could not be put.

    Raises:
        InputNeeded: a host of 2026 has to call again with the answers.
    """
    if (context.protocol_version or "") >= MODERN:
        questions = {call.tool_use_id: question(call) for call in calls}
        if context.request_state is not None and questions.keys() & set(_state(context.request_state)["asked"]):
            return []  # this call brought what was said to them, and it was no answer: nobody is asked twice
        state = json.dumps({"session_id": session_id, "turn_id": turn_id, "asked": list(questions)})
        raise InputNeeded(InputRequiredResult(input_requests={**questions}, request_state=state))
    decided: list[Approval] = []
    for call in calls:
        try:
            answer = await context.session.elicit_form(
                message=_wording(call), requested_schema=_FORM, related_request_id=context.request_id
            )
        except MCPError as exc:
            log.warning("The host could not ask about a tool call: %s", exc)
            break
        said = approval(call.tool_use_id, answer)
        if said is None:
            break
        decided.append(said)
    return decided


async def answered(realm: Realm, context: Context[Any, Any]) -> Started | None:
    """The turn that this call brings answers to, once they are recorded; None: it is a new call.

    Raises:
        InvalidRequest: the state is none of ours.
    """
    if context.request_state is None:
        return None
    state = _state(context.request_state)
    session_id, turn_id = str(state["session_id"]), str(state["turn_id"])
    answers = context.input_responses or {}
    given = [approval(key, answer) for key, answer in answers.items() if isinstance(answer, ElicitResult)]
    decided = [said for said in given if said is not None]
    await decide(realm, session_id, decided, by=caller(context).principal)
    return Started(session_id, turn_id)


async def decide(realm: Realm, session_id: str, decided: Sequence[Approval], *, by: str | None) -> None:
    """Record what a person said, if that answers all. Somebody else may have been first: then that counts."""
    if not decided:
        return
    try:
        await realm.sessions.resume(session_id, approvals=decided, approved_by="elicitation", by=by)
    except (NotWaiting, ToolResultsMismatch) as exc:
        log.debug("What a person said was not taken: %s", exc.message)


def _state(carried: str) -> JsonObject:
    """What we gave a host to carry. Raises InvalidRequest: it is none of ours."""
    try:
        state = json.loads(carried)
        if state.keys() >= {"session_id", "turn_id", "asked"}:
            return state
    except (ValueError, AttributeError):
        pass
    raise InvalidRequest("The request state is none of ours.", hint="Call again without it.")


def question(call: ToolCall) -> ElicitRequest:
    """The form that asks a person about a call."""
    return ElicitRequest(params=ElicitRequestFormParams(message=_wording(call), requested_schema=_FORM))


def _wording(call: ToolCall) -> str:
    return f"The agent wants to call {in_words(call)}"


def in_words(call: ToolCall) -> str:
    """A call as a person reads it: the tool, and the arguments in the order in which they are, long ones in part."""
    args = _TURNS_TEXT.sub(lambda found: f"\\u{ord(found[0]):04x}", json.dumps(call.args, ensure_ascii=False))
    shown = args if len(args) <= ARGS_CHARS_MAX else f"{args[:ARGS_CHARS_MAX]} … ({len(args)} characters)"
    return f"{call.tool_name} with {shown}"


def approval(tool_use_id: str, answer: ElicitResult) -> Approval | None:
    """A person's answer. To decline is to deny; a closed form is no answer, and the turn waits on."""
    if answer.action == "cancel":
        return None
    if answer.action == "decline":
        return Approval(tool_use_id, "deny")
    try:
        form = _Form.model_validate(answer.content or {})
    except ValidationError:
        return None
    return Approval(tool_use_id, form.decision, form.reason)
