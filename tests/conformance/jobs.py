"""Fixtures that take long: tools whose calls become tasks of our extension, kept in a book of their own.

A job runs in the process that began it. Others of the same folder see how it stands, and write to it.
"""

import re
import secrets
import time
from collections.abc import AsyncGenerator, Mapping
from contextlib import asynccontextmanager
from contextvars import ContextVar
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import anyio
from anyio.abc import TaskGroup
from conformance.asking import answered, form, named
from conformance.shared import LOOK_INTERVAL_S, Shelf
from mcp import MCPError
from mcp.server import MCPServer
from mcp.server.context import CallNext, HandlerResult
from mcp.server.mcpserver import Context
from mcp.server.mcpserver.exceptions import ToolError
from mcp.types import (
    INTERNAL_ERROR,
    CallToolRequestParams,
    CallToolResult,
    ElicitRequest,
    ErrorData,
    InputRequiredResult,
)

from meerkat_mcp.server.task_wire import Request, Task, TaskStatus, UnknownTask

TOOLS = ("slow_compute", "protocol_error_job", "confirm_delete", "multi_input", "test_tool_with_task")
REQUIRED = ("failing_job",)
POLL_INTERVAL_MS = 200


def now_ms() -> int:
    return time.time_ns() // 1_000_000


@dataclass
class Question:
    request: ElicitRequest
    answered: anyio.Event = field(default_factory=anyio.Event)
    answer: Any = None


@dataclass
class Job:
    """One call that goes on by itself."""

    shelf: Shelf
    id: str = field(default_factory=lambda: secrets.token_hex(16))
    status: TaskStatus = "working"
    created_ms: int = field(default_factory=now_ms)
    updated_ms: int = field(default_factory=now_ms)
    questions: dict[str, Question] = field(default_factory=dict)
    result: CallToolResult | None = None
    error: ErrorData | None = None
    scope: anyio.CancelScope = field(default_factory=anyio.CancelScope)

    @property
    def over(self) -> bool:
        return self.status not in ("working", "input_required")

    def become(self, status: TaskStatus) -> None:
        self.status, self.updated_ms = status, now_ms()
        self.shelf.put(self.id, self.shown())

    async def run(self, ctx: Request, call_next: CallNext) -> None:
        current.set(self)
        with self.scope:
            try:
                result = await call_next(ctx)
                assert isinstance(result, CallToolResult), "what it needs to know was asked before"
                self.result = result
                self.become("completed")
            except MCPError as error:
                self.error = error.error
                self.become("failed")

    async def ask(self, key: str, request: ElicitRequest) -> Any:
        """Ask the client, and wait for its answer."""
        question = self.questions[key] = Question(request)
        self.become("input_required")
        await question.answered.wait()
        return question.answer

    def hear(self, answers: Mapping[str, Any]) -> None:
        for key in self.questions.keys() & answers.keys():
            question = self.questions.pop(key)
            question.answer = answers[key]
            question.answered.set()
        if not self.over:
            self.become("input_required" if self.questions else "working")

    def cancel(self) -> None:
        if not self.over:
            self.scope.cancel()
            self.become("cancelled")

    def shown(self) -> Task:
        return Task(
            task_id=self.id,
            status=self.status,
            created_ms=self.created_ms,
            updated_ms=self.updated_ms,
            poll_interval_ms=POLL_INTERVAL_MS,
            questions={key: question.request for key, question in self.questions.items()},
            result=self.result,
            error=self.error,
        )


current: ContextVar[Job] = ContextVar("current")


class Jobs:
    """A `TaskBook` in a folder."""

    def __init__(self, folder: Path) -> None:
        self._shelf = Shelf(folder)
        self._jobs: dict[str, Job] = {}
        self._tasks: TaskGroup | None = None

    @asynccontextmanager
    async def running(self) -> AsyncGenerator[None]:
        async with anyio.create_task_group() as self._tasks:
            self._tasks.start_soon(self._read_letters)
            yield
            self._tasks.cancel_scope.cancel()

    async def begin(self, params: CallToolRequestParams, ctx: Request, call_next: CallNext) -> Task | HandlerResult:
        if params.name == "test_tool_with_task" and not params.input_responses:
            return await call_next(ctx)  # it asks before there is a task
        assert self._tasks is not None, "it is running"
        job = Job(self._shelf)
        self._jobs[job.id] = job
        job.become("working")
        self._tasks.start_soon(job.run, ctx, call_next)
        return job.shown()

    async def get(self, task_id: str, ctx: Request) -> Task:
        if not re.fullmatch("[0-9a-f]{32}", task_id) or (shown := self._shelf.get(task_id)) is None:
            raise UnknownTask
        return shown

    async def update(self, task_id: str, answers: Mapping[str, Any], ctx: Request) -> None:
        await self.get(task_id, ctx)
        await self._shelf.write(task_id, answers)

    async def cancel(self, task_id: str, ctx: Request) -> None:
        await self.get(task_id, ctx)
        await self._shelf.write(task_id, None)

    async def _read_letters(self) -> None:
        """Answers, or nothing: then the job is to end. Its own process writes to it as well."""
        while True:
            for job in list(self._jobs.values()):
                for place, answers in self._shelf.letters(job.id):
                    job.cancel() if answers is None else job.hear(answers)
                    place.unlink()
            await anyio.sleep(LOOK_INTERVAL_S)


def add(server: MCPServer[Any]) -> None:
    """Add the tools whose calls are tasks, and one whose calls never are."""

    @server.tool(structured_output=False)
    async def greet(name: str) -> str:
        """Greets at once."""
        return f"Hello, {name}!"

    @server.tool(structured_output=False)
    async def slow_compute(seconds: float, label: str = "") -> str:
        """Takes as long as it is told to."""
        await anyio.sleep(seconds)
        return f"computed {label}"

    @server.tool(structured_output=False)
    async def failing_job() -> str:
        """Fails as a tool does."""
        raise ToolError("It fails, as it should.")

    @server.tool(structured_output=False)
    async def protocol_error_job() -> str:
        """Fails as a server does."""
        raise MCPError(INTERNAL_ERROR, "It fails, as it should.")

    @server.tool(structured_output=False)
    async def confirm_delete(filename: str) -> str:
        """Asks before it does anything."""
        answer = await current.get().ask("confirm", form("Delete it?", confirm={"type": "boolean"}))
        return f"{filename}: {answer}"

    @server.tool(structured_output=False)
    async def multi_input() -> str:
        """Asks two things at the same time."""
        async with anyio.create_task_group() as tasks:
            for key in ("first", "second"):
                tasks.start_soon(current.get().ask, key, named())
        return "done"

    @server.tool(structured_output=False)
    async def test_tool_with_task(ctx: Context[Any]) -> str | InputRequiredResult:
        """Asks first, and then takes long."""
        if not answered(ctx, "user_name"):
            return InputRequiredResult(input_requests={"user_name": named()})
        return f"Hello, {ctx.input_responses}!"
