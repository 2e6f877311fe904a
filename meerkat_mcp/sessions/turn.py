"""One turn: ask the model, record what it says, again, until it is done.

A turn belongs to the process that runs it. It ends by exactly one event, whatever happens: done, waiting for
the caller's tools, interrupted (by an event that anybody may record), at a limit, or failed. How it ended is
data; nothing is raised to whoever started it.
"""

import logging
from collections.abc import Sequence
from contextlib import AsyncExitStack, aclosing
from dataclasses import replace
from typing import cast

import anyio

from meerkat_mcp.domain import events as e
from meerkat_mcp.domain.errors import Internal, MeerkatError, ProviderUnavailable, SchemaInvalid, StoreUnavailable
from meerkat_mcp.domain.messages import JsonObject, ToolCall, UserMessage
from meerkat_mcp.domain.session import ACCEPTS, Session
from meerkat_mcp.domain.transcript import Transcript
from meerkat_mcp.providers.base import ModelRequest, Piece, Reply, Whole
from meerkat_mcp.sessions import output
from meerkat_mcp.sessions.journal import Journal
from meerkat_mcp.sessions.pen import Pen
from meerkat_mcp.sessions.plan import Plan, exhausted, over_tool_calls, spent, warnings

END_RETRY_S = 1.0

log = logging.getLogger(__name__)

SUMMARY_PROMPT = (
    "Summarise the conversation so far for yourself: you will go on with this summary instead of the messages. "
    "Keep what was asked, decided and found out, names, numbers and open points. Write nothing else."
)


class _Stopped(Exception):
    """The session is stopping: somebody asked this turn to end."""


class _Lost(Exception):
    """The turn is not ours any more: another process ended it, or its session is gone."""


class TurnRun:
    """The work of one turn, from its start, or from where its tool results came, to its end."""

    def __init__(self, journal: Journal, session: Session, plan: Plan) -> None:
        assert session.turn is not None, "a turn was started"
        self._journal = journal
        self._session_id = session.id
        self._turn_id = session.turn.turn_id
        self._incarnation = session.turn.owner.incarnation
        self._kind = session.turn.kind
        self._first_seq = session.turn.first_seq
        self._plan = plan
        self._transcript = Transcript()
        self._attempts = 0
        self._pen = Pen(self._jot, plan.delta_interval_s)
        self._writing = anyio.Lock()

    async def run(self) -> None:
        """Work until the turn has ended and its end is recorded. When cancelled, the turn ends as interrupted."""
        end: e.Event = e.TurnInterrupted(reason="shutdown")
        async with AsyncExitStack() as kept:  # the tail knows which deltas the last text supersedes: until the end
            try:
                tail = await kept.enter_async_context(self._journal.tail(self._session_id))
                end = await self._work(tail.session)
            except Exception as exc:
                end = self._failure(exc)
            finally:
                await self._end(end)

    async def _work(self, session: Session) -> e.Event:
        """The turn's end. An interrupt or the time budget cuts it short."""
        used_s = spent(session, self._journal.clock.now_ms())["max_duration_s"]
        limit_s = self._plan.budget.max_duration_s
        end: e.Event = e.TurnInterrupted(reason="requested")
        with anyio.move_on_after(None if limit_s is None else max(0.0, limit_s - used_s)) as timer:
            async with anyio.create_task_group() as tasks:
                tasks.start_soon(self._heed, session.seq, tasks.cancel_scope)
                tasks.start_soon(self._pen.run)
                end = await self._steps()
                tasks.cancel_scope.cancel()
        if timer.cancelled_caught and limit_s is not None:
            end = e.TurnLimitReached(limit="budget.max_duration_s", used=limit_s, maximum=limit_s)
        return end

    def _failure(self, exc: Exception) -> e.Event:
        if isinstance(exc, ExceptionGroup):  # task groups wrap what a provider raises
            return self._failure(cast(ExceptionGroup[Exception], exc).exceptions[0])
        match exc:
            case _Stopped() | _Lost():
                return e.TurnInterrupted(reason="requested")
            case MeerkatError():
                return e.TurnFailed(error=exc.as_dict())
            case _:
                log.error("Turn %s failed by a bug.", self._turn_id, exc_info=exc)
                return e.TurnFailed(error=Internal().as_dict())

    async def _steps(self) -> e.Event:
        await self._remember()
        while True:
            session = await self._flush()
            assert session.turn is not None, "the turn is ours"
            step = session.turn.steps + 1
            if step > self._plan.max_steps:
                return e.TurnLimitReached(limit="max_steps", used=step - 1, maximum=self._plan.max_steps)
            if over := exhausted(session, self._plan.budget, self._journal.clock.now_ms()):
                return over
            reply, calls, text = await self._step(session, step)
            end = self._called(await self._flush(), calls) if calls else self._answered(reply, text)
            if end is not None:
                return end

    async def _step(self, session: Session, step: int) -> tuple[Reply, list[ToolCall], str]:
        """One model call, said as it goes; what came of it. The disk is not waited for: what is said gets there."""
        plan, clock = self._plan, self._journal.clock
        started_ms = clock.now_ms()
        self._say(e.StepStarted(step=step, provider=plan.provider.name, model=plan.model))
        budget = plan.budget.max_tokens
        left = None if budget is None else budget - session.usage.total_tokens
        calls, text, reply = list[ToolCall](), "", None
        async with aclosing(plan.provider.reply(self._request(tokens_left=left))) as parts:
            async for part in parts:
                match part:
                    case Piece():
                        self._pen.add(part)
                    case Whole(kind="text"):
                        text += part.text
                        self._say(e.TextComplete(text=part.text))
                    case Whole():
                        self._say(e.ReasoningComplete(text=part.text))
                    case ToolCall():
                        calls.append(part)
                        self._say(e.ToolCallRequested(**part.model_dump(exclude={"kind"})))
                    case Reply():
                        reply = part
        if reply is None or reply.stop_reason == "truncated":
            raise ProviderUnavailable("The model's stream broke off before its end.", hint="Prompt again to go on.")
        self._say(
            e.StepCompleted(
                step=step,
                stop_reason=reply.stop_reason,
                usage=reply.usage,
                items=reply.items,
                duration_ms=clock.now_ms() - started_ms,
            )
        )
        return reply, calls, text

    def _called(self, session: Session, calls: Sequence[ToolCall]) -> e.Event | None:
        """What tool calls make of the turn; None: all were answered here, and the model is asked again."""
        if over := over_tool_calls(session, self._plan.budget, len(calls)):
            return over
        known = {tool.name for tool in self._plan.tools}
        unknown = [call for call in calls if call.tool_name not in known]
        for call in unknown:
            self._say(
                e.ToolExecutionCompleted(
                    tool_use_id=call.tool_use_id,
                    tool_name=call.tool_name,
                    content=f"There is no tool {call.tool_name!r}. There are: {', '.join(sorted(known)) or 'none'}.",
                    is_error=True,
                )
            )
        pending = tuple(call for call in calls if call not in unknown)
        return e.TurnWaiting(pending_tool_calls=pending) if pending else None

    def _answered(self, reply: Reply, text: str) -> e.Event | None:
        """What a step without tool calls makes of the turn; None: the model is asked again."""
        plan = self._plan
        if reply.stop_reason == "length":
            return e.TurnLimitReached(limit="max_tokens", used=reply.usage.output_tokens, maximum=plan.max_tokens)
        if self._kind == "compaction":
            summary = f"Summary of the conversation so far:\n\n{text}"
            replaced = len(self._transcript.placed)
            self._say(e.HistoryCompacted(summary=summary, through_seq=self._first_seq - 1, messages_replaced=replaced))
        elif plan.output_schema is not None and reply.stop_reason != "refusal":
            return self._fitted(reply, text, plan.output_schema)
        return e.TurnCompleted(stop_reason=reply.stop_reason)

    def _fitted(self, reply: Reply, text: str, schema: JsonObject) -> e.Event | None:
        try:
            value = output.fit(text, schema)
        except SchemaInvalid as exc:
            self._attempts += 1
            if self._attempts > self._plan.output_retries:
                raise SchemaInvalid(exc.message, attempts=self._attempts, text=text[:2000]) from None
            self._say(e.OutputRejected(attempt=self._attempts, message=output.ask_again(exc.message)))
            return None
        return e.TurnCompleted(stop_reason=reply.stop_reason, structured_output=value)

    def _request(self, *, tokens_left: int | None) -> ModelRequest:
        messages = self._transcript.messages()
        if self._kind == "prompt":
            return self._plan.request(messages, tokens_left=tokens_left)
        plain = replace(self._plan, tools=(), output_schema=None)  # a summary is text, and calls nobody's tools
        return plain.request((*messages, UserMessage(text=SUMMARY_PROMPT)), tokens_left=tokens_left)

    async def _remember(self) -> None:
        """Read the conversation from the log: all of it, or from its last compaction on."""
        session = await self._journal.load(self._session_id)
        async for recorded in self._journal.log(self._session_id, after=max(0, session.compacted_seq - 1)):
            event = recorded.event
            self._transcript.add(event)
            if isinstance(event, e.OutputRejected) and event.turn_id == self._turn_id:
                self._attempts = event.attempt

    # ── the log ──

    async def _heed(self, after: int, scope: anyio.CancelScope) -> None:
        """Cut the work short when the log says that somebody wants it, or that the turn is not ours any more."""
        async with self._journal.follow(self._session_id, after=after) as log_from_here:
            while True:
                for recorded in await log_from_here.next():
                    if recorded.type in _CUTS and recorded.event.turn_id in (None, self._turn_id):
                        scope.cancel()
                        return

    def _say(self, event: e.Event) -> None:
        """Something happened: the model's next request knows it, and the log soon does."""
        self._transcript.add(event)
        self._pen.add(event)

    async def _flush(self) -> Session:
        """The session when everything said so far is recorded.

        What is taken is written, also when the turn is cut short. What cannot be stays first in line: no log has gaps.
        """
        session = None
        with anyio.CancelScope(shield=True):
            async with self._writing:
                drafts = self._pen.rest()
                try:
                    session = await self._write(drafts)
                except (_Stopped, MeerkatError):
                    self._pen.put_back(drafts)
                    raise
        assert session is not None, "a shield lets nothing through"
        return session

    async def _write(self, drafts: Sequence[e.Event]) -> Session:
        def decide(session: Session) -> Sequence[e.Event]:
            self._own(session)
            if session.state == "stopping":
                raise _Stopped
            return self._ours(session, drafts)

        return await self._journal.record(self._session_id, decide)

    async def _jot(self) -> None:
        """Write in passing. A store that cannot just now is no error yet: what was said waits for the next time."""
        try:
            await self._flush()
        except (_Stopped, _Lost):
            return  # `_heed` ends the turn, or nobody waits for it any more
        except StoreUnavailable as exc:
            log.debug("What turn %s said is not written yet: %s", self._turn_id, exc.message)

    def _ours(self, session: Session, drafts: Sequence[e.Event]) -> list[e.Event]:
        """The drafts as this turn's, with the warnings that a completed step brings about."""
        told: list[e.Event] = []
        for step in drafts:
            if isinstance(step, e.StepCompleted):
                session = session.model_copy(update={"usage": session.usage + step.usage})
                told = [*warnings(session, self._plan.budget, self._journal.clock.now_ms())]
        return [draft.model_copy(update={"turn_id": self._turn_id}) for draft in (*drafts, *told)]

    def _own(self, session: Session) -> None:
        turn = session.turn
        if turn is None or turn.turn_id != self._turn_id or turn.owner.incarnation != self._incarnation:
            raise _Lost
        if not session.active:
            raise _Lost

    async def _end(self, end: e.Event) -> None:
        """Record the end, after what was said before; again until the store takes it, or until cancelled."""
        rest = self._pen.rest()

        def decide(session: Session) -> Sequence[e.Event]:
            self._own(session)
            asked = session.turn.interrupt if session.turn is not None else None
            if asked is None:
                return [*self._ours(session, rest), *self._ours(session, [end])]
            still = [draft for draft in rest if isinstance(draft, ACCEPTS["stopping"])]
            return self._ours(session, [*still, e.TurnInterrupted(reason=asked)])

        while True:
            try:
                with anyio.CancelScope(shield=True):
                    await self._journal.record(self._session_id, decide)
                return
            except _Lost:
                return log.debug("Turn %s had ended already.", self._turn_id)
            except StoreUnavailable as exc:
                log.error("The end of turn %s cannot be recorded yet: %s", self._turn_id, exc.message)
            except MeerkatError as exc:
                log.error("The end of turn %s could not be recorded: %s", self._turn_id, exc.message)
                if not rest:
                    return
                rest, end = [], e.TurnFailed(error=exc.as_dict())  # what was said last cannot be kept
                continue
            await anyio.sleep(END_RETRY_S)


_CUTS = frozenset({"interrupt_requested", "turn_interrupted"})
