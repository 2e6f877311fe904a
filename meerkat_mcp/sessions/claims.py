"""Idempotency: a call that was repeated, because its reply was lost, finds the turn of the first one."""

import hashlib
import json
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from pydantic_core import to_jsonable_python

from meerkat_mcp.domain import events as e
from meerkat_mcp.domain.errors import IdempotencyConflict
from meerkat_mcp.domain.messages import ToolResult
from meerkat_mcp.domain.session import Session
from meerkat_mcp.sessions.decisions import Approval
from meerkat_mcp.sessions.journal import Journal
from meerkat_mcp.stores.base import Claim, Store


@dataclass(frozen=True, slots=True)
class Started:
    """The session of a call, and its turn: None when the call asked for none."""

    session_id: str
    turn_id: str | None


def digest(asked: Any) -> str:
    """A fingerprint of JSON input: what makes a repeated call the same one."""
    return hashlib.sha256(json.dumps(to_jsonable_python(asked), sort_keys=True).encode()).hexdigest()


def same(taken: Claim, asked: str) -> Started:
    """What came of the first call with this key.

    Raises:
        IdempotencyConflict: it had other input.
    """
    if taken.digest != asked:
        raise IdempotencyConflict(
            "This idempotency_key was used with other input.",
            hint="Use a new key for a new request; repeat a request with exactly the same input.",
            session_id=taken.session_id,
            turn_id=taken.turn_id or None,
        )
    return Started(taken.session_id, taken.turn_id or None)


def key_of(key: str | None, principal: str | None) -> str | None:
    """The key as the store keeps it: each principal has keys of their own, and finds no turn of somebody else's."""
    return key if key is None or principal is None else json.dumps([principal, key])


async def earlier(store: Store, key: str | None, asked: str) -> Started | None:
    """What came of an earlier call with this key, if there was one. Raises IdempotencyConflict."""
    if key is None or (taken := await store.claim(key)) is None:
        return None
    return same(taken, asked)


async def brought_before(
    journal: Journal, session: Session, results: Sequence[ToolResult], approvals: Sequence[Approval], prompt: str
) -> Started | None:
    """The turn that these very answers were brought to already, with this prompt if there is one: a caller whose reply
    was lost sends them again.
    """
    turn = session.turn
    given = {answer.tool_use_id for answer in (*results, *approvals)}
    if turn is None or given & {call.tool_use_id for call in (*turn.pending, *turn.approvals)}:
        return None
    known: set[tuple[str, str, object]] = set()
    prompts = {""}
    async for recorded in journal.log(session.id, after=turn.first_seq - 1):
        if recorded.is_delta:
            continue
        match event := recorded.event:
            case e.ToolExecutionCompleted():
                known.add((event.tool_use_id, event.content, event.is_error))
            case e.ApprovalResolved():
                known.add((event.tool_use_id, event.decision, event.reason))
            case e.TurnResumed():
                prompts.add(event.prompt)
            case _:
                pass
    brought = {(result.tool_use_id, result.content, result.is_error) for result in results}
    brought |= {(approval.tool_use_id, approval.verdict, approval.reason) for approval in approvals}
    return Started(session.id, turn.turn_id) if brought <= known and prompt in prompts else None
