"""Idempotency: a call that was repeated, because its reply was lost, finds the turn of the first one."""

import hashlib
import json
from dataclasses import dataclass
from typing import Any

from pydantic_core import to_jsonable_python

from meerkat_mcp.domain.errors import IdempotencyConflict
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


async def earlier(store: Store, key: str | None, asked: str) -> Started | None:
    """What came of an earlier call with this key, if there was one. Raises IdempotencyConflict."""
    if key is None or (taken := await store.claim(key)) is None:
        return None
    return same(taken, asked)
