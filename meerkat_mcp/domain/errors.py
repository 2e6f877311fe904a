"""Every error this program raises on purpose: one tree, one code each.

MeerkatError                      code                      HTTP  exit
├── InvalidRequest                invalid_request            400   2
│   ├── NotWaiting                not_waiting                400   2
│   ├── ToolResultsMismatch       tool_results_mismatch      400   2
│   ├── ModelUnknown              model_unknown              400   2
│   └── SchemaInvalid             schema_invalid             400   2
├── NotFound                      (its children's)           404   4
│   ├── SessionNotFound           session_not_found          404   4
│   ├── RealmNotFound             realm_not_found            404   4
│   └── StreamNotFound            stream_not_found           404   4
├── Conflict                      (its children's)           409   5
│   ├── SessionAmbiguous          session_ambiguous          409   5
│   ├── SessionArchived           session_archived           409   5
│   ├── SessionBusy               session_busy               409   5
│   ├── IdempotencyConflict       idempotency_conflict       409   5
│   ├── GenerationConflict        generation_conflict        409   5
│   ├── PlanChanged               plan_changed               409   5
│   ├── RealmConflict             realm_conflict             409   5
│   └── BackendMismatch           backend_mismatch           409   5
├── PermissionDenied              permission_denied          403   6
├── LimitExceeded                 limit_exceeded             429   7
│   └── BudgetExhausted           budget_exhausted           429   7
├── ProviderRejected              provider_rejected          502   8
├── ProviderUnauthenticated       provider_unauthenticated   502   8
├── Unavailable                   (its children's)           503   8   worth trying again
│   ├── ProviderUnavailable       provider_unavailable       503   8
│   ├── ToolServerUnavailable     tool_server_unavailable    503   8
│   └── StoreUnavailable          store_unavailable          503   8
├── Corrupt                       corrupt                    500   9   stop and tell the operator
└── Internal                      internal                   500   1   a bug; its text stays inside

How a turn ended is never an exception: a failing model is an event and a result.
"""

from collections.abc import Iterator
from typing import Any, ClassVar


class MeerkatError(Exception):
    """Something the caller can understand: a message for people, a hint when there is something to do.

    `facts` are further JSON values the caller may act on (ids, limits, candidates).
    """

    code: ClassVar[str] = "internal"
    retryable: ClassVar[bool] = False

    def __init__(self, message: str, *, hint: str = "", retry_after_s: float | None = None, **facts: Any) -> None:
        super().__init__(message)
        self.message = message
        self.hint = hint
        self.retry_after_s = retry_after_s
        self.facts = facts

    def as_dict(self) -> dict[str, Any]:
        """The error as every outside shows it: `code`, `message`, then what is known beyond that."""
        shown: dict[str, Any] = {"code": self.code, "message": self.message}
        if self.hint:
            shown["hint"] = self.hint
        shown["retryable"] = self.retryable
        if self.retry_after_s is not None:
            shown["retry_after_s"] = self.retry_after_s
        return shown | {key: value for key, value in self.facts.items() if value is not None}


class InvalidRequest(MeerkatError):
    """The request cannot be right as it stands; changing it can help, repeating it cannot."""

    code = "invalid_request"


class NotWaiting(InvalidRequest):
    """Tool results or approvals were brought to a session that waits for none."""

    code = "not_waiting"


class ToolResultsMismatch(InvalidRequest):
    """The tool results do not answer exactly the calls the turn waits for."""

    code = "tool_results_mismatch"


class ModelUnknown(InvalidRequest):
    """No provider is known for this model."""

    code = "model_unknown"


class SchemaInvalid(InvalidRequest):
    """An `output_schema` is no JSON Schema, or the model never met it."""

    code = "schema_invalid"


class NotFound(MeerkatError):
    """What was named does not exist here."""


class SessionNotFound(NotFound):
    """No session of this realm has that id, prefix or alias."""

    code = "session_not_found"


class RealmNotFound(NotFound):
    """No realm of that name under this state root."""

    code = "realm_not_found"


class StreamNotFound(NotFound):
    """The event stream was never opened, was closed, or idled too long."""

    code = "stream_not_found"


class Conflict(MeerkatError):
    """The request was fine, but something else is the case."""


class SessionAmbiguous(Conflict):
    """A prefix fits several sessions; `candidates` lists them."""

    code = "session_ambiguous"


class SessionArchived(Conflict):
    """An archived session can be read, not continued, until it is restored."""

    code = "session_archived"


class SessionBusy(Conflict):
    """A turn is running; the facts name it, its owner, and since when."""

    code = "session_busy"
    retryable = True


class IdempotencyConflict(Conflict):
    """The idempotency key was used before, with other input."""

    code = "idempotency_conflict"


class GenerationConflict(Conflict):
    """The config moved on since it was read; the facts say `expected` and `current`."""

    code = "generation_conflict"


class PlanChanged(Conflict):
    """What a plan would delete is not what it was when it was made; the facts have the plan of now."""

    code = "plan_changed"


class RealmConflict(Conflict):
    """The realm is there already, is in use, is not whole, or something else is in its place: the message says it."""

    code = "realm_conflict"


class BackendMismatch(Conflict):
    """A realm is pinned to another backend than the one asked for."""

    code = "backend_mismatch"


class PermissionDenied(MeerkatError):
    """The caller, or this server's configuration, may not do that."""

    code = "permission_denied"


class LimitExceeded(MeerkatError):
    """A size, count or rate is over its limit; the facts say which and its value."""

    code = "limit_exceeded"


class BudgetExhausted(LimitExceeded):
    """The session has used up a budget; the facts say which."""

    code = "budget_exhausted"


class ProviderRejected(MeerkatError):
    """The provider refused the request for good."""

    code = "provider_rejected"


class ProviderUnauthenticated(MeerkatError):
    """The provider has no valid key; the hint names the variable to set."""

    code = "provider_unauthenticated"


class Unavailable(MeerkatError):
    """Not now; worth trying again."""

    retryable = True


class ProviderUnavailable(Unavailable):
    """Overload, rate limit or network between us and the provider."""

    code = "provider_unavailable"


class ToolServerUnavailable(Unavailable):
    """An MCP server that a session cannot do without cannot be started or reached."""

    code = "tool_server_unavailable"


class StoreUnavailable(Unavailable):
    """The store cannot be reached or written: disk full, read-only, locked out."""

    code = "store_unavailable"


class Corrupt(MeerkatError):
    """What is stored contradicts itself. Stop, keep a copy, tell the operator."""

    code = "corrupt"


class Internal(MeerkatError):
    """A bug. Outsides show this instead of the exception, whose text stays in the log."""

    code = "internal"

    def __init__(self, message: str = "Internal error.", **facts: Any) -> None:
        super().__init__(message, hint="This is a bug in meerkat_mcp; the server's log has the details.", **facts)


def unknown_session(session_id: str) -> SessionNotFound:
    """The error of every store for a session that it does not have."""
    return SessionNotFound(
        f"There is no session {session_id[:100]!r}.",
        hint="meerkat_sessions lists those there are.",
        session_id=session_id[:100],
    )


def codes() -> Iterator[str]:
    """Every error code, for the tables and the tests that walk them."""
    seen: set[str] = set()
    pending: list[type[MeerkatError]] = [MeerkatError]
    while pending:
        error = pending.pop(0)
        pending += error.__subclasses__()
        if error.code not in seen:
            seen.add(error.code)
            yield error.code
