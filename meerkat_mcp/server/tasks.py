"""A task is a turn: meerkat_run and meerkat_resume for hosts that know tasks (`io.modelcontextprotocol/tasks`).

Nothing is kept for a task. Its id says which turn it is, and how it stands is read from the log: so it is there after a
restart, any process of the realm answers, and it is kept as long as its session. A task ends where the call would have
ended. A host that can put a form before a person is asked what the turn waits for, and the task goes on; for one that
cannot, the task is completed by a result that says `waiting`, and what continues the turn is a task of its own.
"""

import logging
import re
import uuid
from collections.abc import Mapping
from functools import cached_property, partial
from typing import Any

from mcp.server.context import CallNext, HandlerResult
from mcp.server.extension import Extension
from mcp.server.mcpserver import Context
from mcp.types import CallToolRequestParams, CallToolResult, ElicitRequest
from pydantic import BaseModel, ConfigDict, ValidationError

from meerkat_mcp.domain import events as e
from meerkat_mcp.domain.errors import NotWaiting, ToolResultsMismatch
from meerkat_mcp.domain.session import Session
from meerkat_mcp.domain.transcript import TurnOutcome, outcome
from meerkat_mcp.domain.turn import Turn
from meerkat_mcp.realms import Realm
from meerkat_mcp.server import results as r
from meerkat_mcp.server.approving import can_ask
from meerkat_mcp.server.callers import caller_of
from meerkat_mcp.server.following import MESSAGE_CHARS_MAX, message
from meerkat_mcp.server.inputs import TEXT_CHARS, MaxChars, ResumeInput, RunInput, TurnInput
from meerkat_mcp.server.session_tools import OPEN, SessionTools
from meerkat_mcp.server.surface import Rejected, SurfaceTool, failed, succeeded, tool
from meerkat_mcp.server.task_answers import Answers, brought_at, in_part, paused, questions
from meerkat_mcp.server.task_wire import Request, Task, Tasks, TaskStatus, UnknownTask
from meerkat_mcp.sessions.checks import check_results
from meerkat_mcp.sessions.claims import Started

CANCEL_WAIT_S = 1.0
"""How long a cancel waits for the turn's end, so that a host that looks right after it sees it."""
TAIL_EVENTS = 30
SAID_CHARS = 150
"""How much of the log is read to say what a turn does just now, and how much of its text is said."""

_UUID = r"[0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12}"
_ID = re.compile(rf"({_UUID})\.({_UUID})(?:\.a([1-9][0-9]{{0,14}}))?(?:\.c([1-9][0-9]{{2,6}}))?")

_ANSWERS = (e.ToolExecutionCompleted, e.ApprovalResolved)
_TOLD_TO_END = frozenset({"requested", "cancelled", "superseded", "abandoned", "withdrawn"})
"""Somebody wanted the turn to end. The other reasons are a process that ended: the call has a result all the same."""

log = logging.getLogger(__name__)


class TaskId(BaseModel):
    """What a task's id says: the turn; after which event of it the call begins that the task stands for (0: with the
    turn); and how much text its result has.
    """

    model_config = ConfigDict(frozen=True)

    session_id: str
    turn_id: str
    after: int = 0
    max_chars: MaxChars = TEXT_CHARS

    def __str__(self) -> str:
        after = f".a{self.after}" if self.after else ""
        return f"{self.session_id}.{self.turn_id}{after}" + f".c{self.max_chars}" * (self.max_chars != TEXT_CHARS)

    @classmethod
    def parse(cls, text: str) -> "TaskId":
        """Read an id. Raises UnknownTask: we never gave such a one."""
        found = _ID.fullmatch(text)
        if found is None:
            raise UnknownTask
        after, max_chars = int(found[3] or 0), int(found[4] or TEXT_CHARS)
        try:
            task = cls(session_id=found[1], turn_id=found[2], after=after, max_chars=max_chars)
        except ValidationError:
            raise UnknownTask from None
        if str(task) != text:  # a task has one name
            raise UnknownTask
        return task


def tasks_extension(realm: Realm, tools: SessionTools) -> Extension:
    """The tasks of a realm, for `MCPServer(extensions=[...])`."""
    return Tasks(TurnTasks(realm, tools), ("meerkat_run", "meerkat_resume"))


class TurnTasks:
    """A `TaskBook` over the logs of a realm."""

    def __init__(self, realm: Realm, tools: SessionTools) -> None:
        self._realm = realm
        self._tools = tools

    async def begin(self, params: CallToolRequestParams, ctx: Request, call_next: CallNext) -> Task | HandlerResult:
        """Begin the turn. A call that wants none, or that does not want to wait for it, has its result at once."""
        arguments = params.arguments or {}
        wants_a_turn = any(arguments.get(name) for name in ("prompt", "tool_results", "responses"))
        if not wants_a_turn or arguments.get("wait_seconds") == 0 or params.request_state is not None:
            return await call_next(ctx)
        result: CallToolResult = await self._starters[params.name].run(arguments, Context(request_context=ctx))
        if result.is_error:
            return result
        task = TaskId.model_validate(result.structured_content)
        created_ms = await self._created_ms(task)
        return self._task(task, created_ms, "working", created_ms, f"Session {task.session_id} works on it.")

    async def get(self, task_id: str, ctx: Request) -> Task:
        """How the turn stands; what came of it, once it has ended."""
        task, session = await self._found(task_id, ctx)
        return await self._look(task, session, asks=_asks(ctx))

    async def update(self, task_id: str, answers: Mapping[str, Any], ctx: Request) -> None:
        """Take a person's answers. Each is recorded at once; with the last one the turn goes on."""
        task, session = await self._found(task_id, ctx)
        if (await self._look(task, session, asks=_asks(ctx))).status != "input_required":
            return
        while (turn := session.turn) is not None and session.state == "waiting" and turn.turn_id == task.turn_id:
            brought = Answers.of(turn, answers)
            if not brought:
                return
            session = await self._bring(session, brought, caller_of(ctx.request).principal)

    async def cancel(self, task_id: str, ctx: Request) -> None:
        """Interrupt the turn, or withdraw its prompt from the queue."""
        task, session = await self._found(task_id, ctx)
        if (await self._look(task, session, asks=_asks(ctx))).status not in ("working", "input_required"):
            return
        await self._realm.sessions.interrupt(
            session.id,
            expected_turn_id=task.turn_id,
            reason="cancelled",
            wait_s=CANCEL_WAIT_S,
            by=caller_of(ctx.request).principal,
        )

    # ── beginning ──

    @cached_property
    def _starters(self) -> Mapping[str, SurfaceTool]:
        """The tools, up to where the turn has begun: they give its task's id, or refuse as they always do."""
        return {
            "meerkat_run": tool(self._begin_run, "meerkat_run", OPEN),
            "meerkat_resume": tool(self._begin_resume, "meerkat_resume", OPEN),
        }

    async def _begin_run(self, given: RunInput, context: Context[Any, Any]) -> TaskId:
        return _named(await self._tools.start_run(given, context), given)

    async def _begin_resume(self, given: ResumeInput, context: Context[Any, Any]) -> TaskId:
        started = await self._tools.start_resume(given, context)
        results = {result.tool_use_id for result in given.tool_results or ()}
        responses = {response.tool_use_id for response in given.responses or ()}
        task = _named(started, given)
        if not results and not responses:
            return task
        session = await self._realm.journal.load(task.session_id)
        return task.model_copy(
            update={"after": brought_at(await self._turn(session, task.turn_id), results, responses)}
        )

    # ── looking ──

    async def _found(self, task_id: str, ctx: Request) -> tuple[TaskId, Session]:
        """Which task is meant, and its session as it is. Raises UnknownTask, SessionNotFound."""
        task = TaskId.parse(task_id)
        sees = caller_of(ctx.request).sees
        session_id = await self._realm.reading.resolve(task.session_id, exact=True, sees=sees)
        return task, await self._realm.sessions.settled(session_id)

    async def _look(self, task: TaskId, session: Session, *, asks: bool) -> Task:
        """How a task stands for a host that can be asked, or for one that cannot. What goes on is not read as a whole:
        hosts look often.
        """
        created_ms = await self._created_ms(task)
        stands = partial(self._task, task, created_ms)
        if any(queued.turn_id == task.turn_id for queued in session.queue):
            return stands("working", session.updated_ms, "waits for the turn before it")
        turn = session.turn
        if turn is not None and turn.turn_id == task.turn_id:
            unbroken = turn.resumed_seq == (task.after + 1 if task.after else turn.first_seq)
            if session.active and (asks or unbroken):
                return stands("working", session.updated_ms, await self._said(session, turn))
            if session.state == "waiting" and asks:
                return stands("input_required", session.updated_ms, _waits_for(turn), asked=questions(turn))
        events = await self._turn(session, task.turn_id)
        if not events:
            raise UnknownTask
        if not asks:
            events = events[: paused(events, task.after)]
        came = outcome(task.turn_id, events)
        return self._ended(stands, events[-1].timestamp_ms, session, came, task.max_chars)

    def _ended(
        self, stands: "partial[Task]", updated_ms: int, session: Session, came: TurnOutcome, max_chars: int
    ) -> Task:
        if came.status == "interrupted" and came.stop_reason in _TOLD_TO_END:
            said = f"Interrupted ({came.stop_reason}). What was finished is in session {session.id}."
            return stands("cancelled", updated_ms, said)
        if came.status in ("queued", "running"):
            return stands("working", updated_ms)
        result = r.turn_result(session, self._realm.id, came, max_chars=max_chars)
        if result.status == "failed" and result.error is not None:
            done = failed(Rejected(result.error, session.id, came.turn_id))
        else:
            done = succeeded(result)
        return stands("completed", updated_ms, result=done)

    async def _turn(self, session: Session, turn_id: str) -> list[e.Event]:
        """The events of one turn, of the latest one or of any before it."""
        latest = session.turn is not None and session.turn.turn_id == turn_id
        after = session.turn.first_seq - 1 if session.turn is not None and latest else 0
        recorded = self._realm.journal.log(session.id, after=after, through=session.seq)
        return [one.event async for one in recorded if one.event.turn_id == turn_id]

    async def _created_ms(self, task: TaskId) -> int:
        """When a task began. Raises UnknownTask: no call began there."""
        if not task.after:
            return uuid.UUID(task.turn_id).int >> 80  # a UUIDv7 begins with its time, RFC 9562 §5.7
        found = [
            recorded.event
            async for recorded in self._realm.journal.log(task.session_id, after=task.after - 1, through=task.after)
        ]
        if not found or found[0].turn_id != task.turn_id or not isinstance(found[0], _ANSWERS):
            raise UnknownTask
        return found[0].timestamp_ms

    async def _said(self, session: Session, turn: Turn) -> str:
        """What a turn does just now: the end of the text that it writes, or its last event."""
        written, last = "", None
        after = max(turn.first_seq - 1, session.seq - TAIL_EVENTS)
        async for recorded in self._realm.journal.log(session.id, after=after, through=session.seq):
            event = recorded.event
            if event.turn_id == turn.turn_id:
                written, last = (written + event.text if isinstance(event, e.TextDelta) else ""), event
        if written:
            return f"writes: {written if len(written) <= SAID_CHARS else '…' + written[-SAID_CHARS:]}"
        return message(last.model_dump(mode="json", exclude={"images", "items"})) if last is not None else ""

    def _task(
        self,
        task: TaskId,
        created_ms: int,
        status: TaskStatus,
        updated_ms: int,
        said: str = "",
        *,
        asked: Mapping[str, ElicitRequest] | None = None,
        result: CallToolResult | None = None,
    ) -> Task:
        return Task(
            task_id=str(task),
            status=status,
            created_ms=created_ms,
            updated_ms=max(created_ms, updated_ms),
            message=said,
            questions=asked or {},
            result=result,
            meta={"meerkat/session_id": task.session_id, "meerkat/turn_id": task.turn_id},
        )

    # ── answering ──

    async def _bring(self, session: Session, brought: Answers, by: str | None) -> Session:
        """Record answers; the session after that. Somebody else may have been first: then that counts."""
        sessions, turn = self._realm.sessions, session.turn
        assert turn is not None, "a turn waits"
        check_results(brought.results, (await sessions.config()).limits.max_tool_result_chars)
        try:
            if brought.complete(turn):
                await sessions.resume(
                    session.id,
                    tool_results=brought.results,
                    approvals=brought.approvals,
                    approved_by="elicitation",
                    by=by,
                )
            else:
                decide = partial(in_part, turn_id=turn.turn_id, brought=brought, owner=self._realm.turns.owner)
                await self._realm.journal.record(session.id, decide, by=by)
        except (NotWaiting, ToolResultsMismatch) as exc:
            log.debug("An answer came too late: %s", exc.message)
        return await sessions.settled(session.id)


def _named(started: Started, given: TurnInput) -> TaskId:
    assert started.turn_id is not None, "a call that wants a turn begins one, or finds the one that it began before"
    return TaskId(session_id=started.session_id, turn_id=started.turn_id, max_chars=given.max_chars)


def _asks(ctx: Request) -> bool:
    return can_ask(Context(request_context=ctx))


def _waits_for(turn: Turn) -> str:
    yes = [f"a yes for {call.tool_name}" for call in turn.approvals]
    results = [f"the result of {call.tool_name}" for call in turn.pending]
    return f"waits for {', '.join([*yes, *results])}"[:MESSAGE_CHARS_MAX]
