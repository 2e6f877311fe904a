"""Tasks on the wire: the extension `io.modelcontextprotocol/tasks` (SEP-2663) of MCP 2026-07-28.

A call of a tool that may take long is answered at once by a handle, when the host says on that very request that it
knows tasks. Then it asks how the task stands, brings what the task asks for, or gives it up. Here is what the extension
prescribes for every server; what a task really is, a `TaskBook` knows.
"""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any, Literal, Protocol

from mcp import MCPError
from mcp.server import ServerRequestContext
from mcp.server.context import CallNext, HandlerResult
from mcp.server.extension import Extension, MethodBinding
from mcp.server.mcpserver import require_client_extension
from mcp.shared.inbound import MCP_NAME_HEADER, decode_header_value
from mcp.types import (
    HEADER_MISMATCH,
    INVALID_PARAMS,
    CallToolRequestParams,
    CallToolResult,
    ElicitRequest,
    ErrorData,
    RequestParams,
)

from meerkat_mcp.domain.errors import MeerkatError, NotFound
from meerkat_mcp.domain.messages import JsonObject
from meerkat_mcp.server.answering import refusal

TASKS = "io.modelcontextprotocol/tasks"
MODERN = frozenset({"2026-07-28"})
POLL_INTERVAL_MS = 500
"""How often a host should ask: a short turn is not made longer by more than this, and an answer costs little."""

TaskStatus = Literal["working", "input_required", "completed", "failed", "cancelled"]
Request = ServerRequestContext[Any, Any]


class UnknownTask(Exception):
    """There is no such task, or none that this caller may see."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Task:
    """How a task stands. `questions` are there when its status is `input_required`, `result` when it is `completed`,
    `error` when it is `failed`, which only a JSON-RPC error makes it. `ttl_ms` None: it is kept without limit. Times
    are milliseconds since the Unix epoch.
    """

    task_id: str
    status: TaskStatus
    created_ms: int
    updated_ms: int
    message: str = ""
    ttl_ms: int | None = None
    poll_interval_ms: int = POLL_INTERVAL_MS
    questions: Mapping[str, ElicitRequest] = field(default_factory=dict[str, ElicitRequest])
    result: CallToolResult | None = None
    error: ErrorData | None = None
    meta: JsonObject = field(default_factory=dict[str, Any])

    def handle(self) -> JsonObject:
        """The answer to the call that began it."""
        return {"resultType": "task", **self._stands()}

    def whole(self) -> JsonObject:
        """The answer to tasks/get."""
        said = self._stands()
        match self.status:
            case "input_required":
                said["inputRequests"] = {key: _json(request) for key, request in self.questions.items()}
            case "completed" if self.result is not None:
                said["result"] = _json(self.result)
            case "failed" if self.error is not None:
                said["error"] = _json(self.error)
            case _:
                pass
        return said

    def _stands(self) -> JsonObject:
        said: JsonObject = {
            "taskId": self.task_id,
            "status": self.status,
            "createdAt": _iso(self.created_ms),
            "lastUpdatedAt": _iso(self.updated_ms),
            "ttlMs": self.ttl_ms,
            "pollIntervalMs": self.poll_interval_ms,
        }
        if self.message:
            said["statusMessage"] = self.message
        return said | ({"_meta": self.meta} if self.meta else {})


class TaskBook(Protocol):
    """Where tasks are kept. Each method raises UnknownTask for an id that is none, or not this caller's to see."""

    async def begin(self, params: CallToolRequestParams, ctx: Request, call_next: CallNext) -> Task | HandlerResult:
        """Begin what a call asks for: a task that `get` finds from now on; or the call's own result, without a task."""
        ...

    async def get(self, task_id: str, ctx: Request) -> Task:
        """How it stands now."""
        ...

    async def update(self, task_id: str, answers: Mapping[str, Any], ctx: Request) -> None:
        """Take answers to questions of the task, all or some. Those to what it does not ask are passed over."""
        ...

    async def cancel(self, task_id: str, ctx: Request) -> None:
        """Tell it to end. Nothing happens to one that has ended."""
        ...


class _Named(RequestParams):
    task_id: str


class _Answers(_Named):
    input_responses: dict[str, Any]


class Tasks(Extension):
    """The extension, over a book of tasks."""

    identifier = TASKS

    def __init__(self, book: TaskBook, tools: Collection[str], *, required: Collection[str] = ()) -> None:
        """`tools` are those whose calls may become tasks; those in `required` cannot be called without."""
        self._book = book
        self._tools = frozenset((*tools, *required))
        self._required = frozenset(required)

    def methods(self) -> Sequence[MethodBinding]:
        """What a host can say about a task."""
        return [
            MethodBinding("tasks/get", _Named, self._get, MODERN),
            MethodBinding("tasks/update", _Answers, self._update, MODERN),
            MethodBinding("tasks/cancel", _Named, self._cancel, MODERN),
        ]

    async def intercept_tool_call(
        self, params: CallToolRequestParams, ctx: Request, call_next: CallNext
    ) -> HandlerResult:
        """Answer with a task where there can be one."""
        if params.name not in self._tools or ctx.protocol_version not in MODERN:
            return await call_next(ctx)
        if not _knows_tasks(ctx):
            if params.name in self._required:
                require_client_extension(ctx, TASKS)
            return await call_next(ctx)
        begun = await self._book.begin(params, ctx, call_next)
        return begun.handle() if isinstance(begun, Task) else begun

    async def _get(self, ctx: Request, params: _Named) -> HandlerResult:
        _check(ctx, params)
        try:
            return (await self._book.get(params.task_id, ctx)).whole()
        except (UnknownTask, MeerkatError) as exc:
            raise _refusal(exc) from exc

    async def _update(self, ctx: Request, params: _Answers) -> HandlerResult:
        _check(ctx, params)
        try:
            await self._book.update(params.task_id, params.input_responses, ctx)
        except (UnknownTask, MeerkatError) as exc:
            raise _refusal(exc) from exc
        return {}

    async def _cancel(self, ctx: Request, params: _Named) -> HandlerResult:
        _check(ctx, params)
        try:
            await self._book.cancel(params.task_id, ctx)
        except (UnknownTask, MeerkatError) as exc:
            raise _refusal(exc) from exc
        return {}


def _knows_tasks(ctx: Request) -> bool:
    """Whether the host says so on this request; what it said on others does not count."""
    can = ctx.session.client_capabilities
    return can is not None and TASKS in (can.extensions or {})


def _check(ctx: Request, params: _Named) -> None:
    """Refuse a request that may not be made, whatever the task. Raises MCPError -32021, -32020.

    A header that is there has to name the task. One that is missing does no harm: nothing was routed by it.
    """
    require_client_extension(ctx, TASKS)
    headers: Mapping[str, str] = getattr(ctx.request, "headers", None) or {}
    named = headers.get(MCP_NAME_HEADER)
    if named is not None and decode_header_value(named) != params.task_id:
        raise MCPError(code=HEADER_MISMATCH, message=f"The header {MCP_NAME_HEADER} does not name the task.")


def _refusal(exc: UnknownTask | MeerkatError) -> MCPError:
    if isinstance(exc, UnknownTask | NotFound):
        return MCPError(code=INVALID_PARAMS, message="There is no such task.")
    return refusal(exc)


def _json(value: CallToolResult | ElicitRequest | ErrorData) -> JsonObject:
    return value.model_dump(by_alias=True, mode="json", exclude_none=True)


def _iso(ms: int) -> str:
    return datetime.fromtimestamp(ms / 1000, UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")
