"""One turn: ask the model, run its tools, again, until it is done.

A turn belongs to the process that runs it. It ends by exactly one event, whatever happens: done, waiting for
the caller's tools or for a yes, interrupted (by an event that anybody may record), at a limit, or failed. How it
ended is data; nothing is raised to whoever started it. A process that must go and hands its turns over suspends them
between two steps if it can: whoever takes one up finds in the log what is done, and does the rest.
"""

import logging
from collections.abc import Sequence
from contextlib import AsyncExitStack
from typing import cast

import anyio

from meerkat_mcp import telemetry
from meerkat_mcp.domain import events as e
from meerkat_mcp.domain.errors import InvalidRequest, MeerkatError, ProviderRejected, SchemaInvalid
from meerkat_mcp.domain.messages import UNFINISHED, JsonObject, ToolCall, ToolDefinition, UserMessage
from meerkat_mcp.domain.session import Session
from meerkat_mcp.providers.base import ModelRequest, Piece
from meerkat_mcp.sessions import compaction, output
from meerkat_mcp.sessions.asking import Answer, Step, ask
from meerkat_mcp.sessions.calling import Calling
from meerkat_mcp.sessions.conversation import Conversation
from meerkat_mcp.sessions.journal import Journal
from meerkat_mcp.sessions.plan import Answering, Plan, exhausted, over_tool_calls, spent
from meerkat_mcp.sessions.writing import Lost, Stopped, Writing, failed
from meerkat_mcp.tools.base import ToolServers

COMPACT_TOKENS_MIN = 2_000
"""Below this a history is short for any model: its window is not even asked for."""

log = logging.getLogger(__name__)


class TurnRun:
    """The work of one turn, from its start, or from where it is resumed, to its end; or to where it is suspended, when
    `hands_over` and its process ends.
    """

    def __init__(
        self, journal: Journal, session: Session, plan: Plan, tool_servers: ToolServers, *, hands_over: bool = False
    ) -> None:
        assert session.turn is not None, "a turn was started"
        self.session_id = session.id
        self.turn_id = session.turn.turn_id
        self._journal = journal
        self._turn = session.turn
        self._plan = plan
        self._tool_servers = tool_servers
        self._hands_over = hands_over
        self._leaving = False
        self._conversation = Conversation(session.turn.turn_id)
        self._writing = Writing(journal, session, plan)

    def leave(self) -> None:
        """The process is about to end: stop before the next step, for another process to go on."""
        self._leaving = True

    async def leave_it(self) -> None:
        """Record that this process does not work on the turn, which was begun as it was about to end."""
        await self._writing.end(self._cut_short())

    async def run(self) -> None:
        """Work until the turn has ended and its end is recorded. When cancelled, it is suspended or interrupted."""
        end = self._cut_short()
        who = self._plan.answering
        with telemetry.invoke_agent(
            session_id=self.session_id,
            turn_id=self.turn_id,
            model=who.model,
            provider=who.provider.name,
            kind=self._turn.kind,
        ) as span:
            async with AsyncExitStack() as kept:  # the tail knows which deltas the last text supersedes: until the end
                try:
                    tail = await kept.enter_async_context(self._journal.tail(self.session_id))
                    end = await self._work(tail.session)
                except Exception as exc:
                    end = self._failure(exc)
                finally:
                    if isinstance(end, e.TurnFailed):
                        span.failed(str(end.error["code"]))
                    if isinstance(end, e.TurnSuspended):
                        for cut_off in self._conversation.cut_off():
                            self._say(cut_off)
                    await self._writing.end(end)

    def _cut_short(self) -> e.Event:
        return e.TurnSuspended() if self._hands_over else e.TurnInterrupted(reason="shutdown")

    async def _work(self, session: Session) -> e.Event:
        """The turn's end. An interrupt or the time budget cuts it short."""
        used_s = spent(session, self._journal.clock.now_ms())["max_duration_s"]
        limit_s = self._plan.budget.max_duration_s
        end: e.Event = e.TurnInterrupted(reason="requested")
        with anyio.move_on_after(None if limit_s is None else max(0.0, limit_s - used_s)) as timer:
            async with anyio.create_task_group() as tasks:
                tasks.start_soon(self._writing.heed, session.seq, tasks.cancel_scope)
                tasks.start_soon(self._writing.run)
                async with self._tool_servers.open(self._plan.servers) as toolbox:
                    calling = Calling(self._plan, toolbox, self._journal.clock, self._say, self._writing.flush)
                    end = await self._steps(calling, session)
                tasks.cancel_scope.cancel()
        if timer.cancelled_caught and limit_s is not None:
            end = e.TurnLimitReached(limit="budget.max_duration_s", used=limit_s, maximum=limit_s)
        return end

    def _failure(self, exc: Exception) -> e.Event:
        if isinstance(exc, ExceptionGroup):  # task groups wrap what a provider raises
            return self._failure(cast(ExceptionGroup[Exception], exc).exceptions[0])
        if isinstance(exc, Stopped | Lost):
            return e.TurnInterrupted(reason="requested")
        return e.TurnFailed(error=failed(exc, f"Turn {self.turn_id}"))

    async def _steps(self, calling: Calling, session: Session) -> e.Event:
        """Step after step until one of them ends the turn. One that was resumed goes on from where it stands."""
        self._writing.check(session)  # a wish to interrupt that was there before `heed` looked
        await self._remember(session)
        if self._turn.kind == "compaction":
            return await self._compaction(session)
        tools = await calling.definitions()
        answer = self._conversation.standing()
        while True:
            if answer is None:
                if self._leaving:
                    return e.TurnSuspended()
                if over := self._over(session):
                    return over
                if await self._is_long():
                    await self._compact_in_passing(session)
                    session = await self._writing.flush()
                    if over := self._over(session):
                        return over
                answer = await self._ask(session, tools)
                self._check_cost(answer)
            makes_calls = answer.calls and answer.reply.stop_reason not in UNFINISHED
            end = await self._called(calling, answer.calls) if makes_calls else self._answered(answer)
            if end is not None:
                return end
            tools, answer = await calling.definitions(), None
            session = await self._writing.flush()

    def _over(self, session: Session) -> e.TurnLimitReached | None:
        assert session.turn is not None, "the turn is ours"
        used, most = session.turn.steps - session.turn.summaries, self._plan.max_steps
        if used >= most:
            return e.TurnLimitReached(limit="max_steps", used=used, maximum=most)
        return exhausted(session, self._plan.budget, self._journal.clock.now_ms())

    async def _ask(self, session: Session, tools: tuple[ToolDefinition, ...]) -> Answer:
        """One model call, said as it goes; what came of it. The disk is not waited for: what is said gets there."""
        plan, (step, max_tokens) = self._plan, self._next_step(session)
        request = ModelRequest(
            model=plan.answering.model,
            session_id=self.session_id,
            provider_params=plan.provider_params,
            system_prompt=plan.system_prompt,
            messages=self._conversation.messages(),
            tools=tools,
            output_schema=plan.output_schema,
            max_tokens=max_tokens,
        )
        return await ask(plan.answering, request, Step(step), plan.retry, self._journal.clock, self._say)

    def _check_cost(self, answer: Answer) -> None:
        """A budget in dollars that nobody can keep is said to be one. Raises InvalidRequest."""
        if self._plan.budget.max_cost_usd is not None and answer.reply.usage.cost_usd is None:
            raise InvalidRequest(
                f"The price of {self._plan.answering.model} is not known: budget.max_cost_usd cannot be kept.",
                hint="Use a model with a known price (meerkat_models_catalog), or a budget in tokens.",
            )

    def _next_step(self, session: Session) -> tuple[int, int]:
        """The number of the next step, and how long its reply may be: what the budget leaves of `max_tokens`."""
        assert session.turn is not None, "the turn is ours"
        most, budget = self._plan.max_tokens, self._plan.budget.max_tokens
        if budget is not None:
            most = max(1, min(most, budget - session.usage.total_tokens))
        return session.turn.steps + 1, most

    async def _called(self, calling: Calling, calls: Sequence[ToolCall]) -> e.Event | None:
        """What tool calls make of the turn; None: all were answered here, and the model is asked again."""
        session = await self._writing.flush()
        if over := over_tool_calls(session, self._plan.budget, len(calls)):
            return over
        by_fate = calling.sort(calls, self._conversation.allowed)
        for answered in by_fate.answered:
            self._say(answered)
        for call in by_fate.ask:
            if call.tool_use_id not in self._conversation.asked:
                self._say(e.ApprovalRequested(tool_use_id=call.tool_use_id, tool_name=call.tool_name))
        await calling.run(by_fate.run)
        if by_fate.caller or by_fate.ask:
            return e.TurnWaiting(pending_tool_calls=by_fate.caller, pending_approvals=by_fate.ask)
        return None

    def _answered(self, answer: Answer) -> e.Event | None:
        """What a step without tool calls makes of the turn; None: the model is asked again."""
        plan, reply = self._plan, answer.reply
        match reply.stop_reason:
            case "length":
                return e.TurnLimitReached(limit="max_tokens", used=reply.usage.output_tokens, maximum=plan.max_tokens)
            case "context":
                raise ProviderRejected(
                    "The conversation has filled the model's window.",
                    hint="Shorten it with meerkat_compact, or use a model with a larger window.",
                    kind="context",
                )
            case "pause":
                return None
            case "refusal":
                return e.TurnCompleted(stop_reason="refusal")
            case _:
                if plan.output_schema is not None:
                    return self._fitted(answer, plan.output_schema)
                return e.TurnCompleted(stop_reason=reply.stop_reason)

    def _fitted(self, answer: Answer, schema: JsonObject) -> e.Event | None:
        try:
            value = output.fit(answer.text, schema)
        except SchemaInvalid as exc:
            attempts = self._conversation.rejections + 1
            if attempts > self._plan.output_retries:
                raise SchemaInvalid(exc.message, attempts=attempts, text=answer.text[:2000]) from None
            rejected = e.OutputRejected(attempt=attempts, message=output.ask_again(exc.message))
            self._say(rejected.model_copy(update={"turn_id": self.turn_id}))
            return None
        return e.TurnCompleted(stop_reason=answer.reply.stop_reason, structured_output=value)

    # ── what the model sees ──

    async def _remember(self, session: Session) -> None:
        """Read the conversation from the log: all of it, or what the last compaction left, with its summary."""
        self._conversation = Conversation(self.turn_id)
        async for recorded in self._journal.log(self.session_id, after=session.compacted_seq):
            self._conversation.take(recorded.event)

    def _say(self, said: e.Event | Piece) -> None:
        """Something happened: the model's next request knows it, and the log soon does."""
        if not isinstance(said, Piece):
            self._conversation.take(said)
        self._writing.add(said)

    # ── a shorter history ──

    async def _is_long(self) -> bool:
        """Whether the history has outgrown its share of the model's window."""
        wanted = self._plan.compaction
        length = self._conversation.context_tokens
        if not wanted.auto or length < COMPACT_TOKENS_MIN:
            return False
        window = await self._plan.window()
        return window is not None and length > wanted.threshold * window

    async def _compact_in_passing(self, session: Session) -> None:
        """Summarise between two steps. When that fails the turn goes on with the history as it is."""
        await self._remember(session)
        at = compaction.cut(self._conversation.placed, self._plan.compaction.keep_steps)
        if at == 0:
            return
        try:
            await self._summarise(session, at, silent=True)
        except MeerkatError as exc:
            self._say(e.CompactionFailed(error=exc.as_dict()))

    async def _compaction(self, session: Session) -> e.Event:
        """The turn that was asked for it: its answer is the summary."""
        at = compaction.cut(self._conversation.placed, self._plan.compaction.keep_steps, least=0)
        if at == 0:
            raise InvalidRequest(f"Session {self.session_id} has no history to compact.", session_id=session.id)
        return await self._summarise(session, at, silent=False) or e.TurnCompleted(stop_reason="end")

    async def _summarise(self, session: Session, at: int, *, silent: bool) -> e.TurnLimitReached | None:
        """Have the first `at` messages replaced by a summary. Raises what `ask` does, and when nothing was written."""
        plan, placed = self._plan, self._conversation.placed
        (step, max_tokens), who = self._next_step(session), plan.summarising()
        request = self._summary_request(compaction.request_text(placed[:at]), who, max_tokens)
        answer = await ask(who, request, Step(step, "summary", silent), plan.retry, self._journal.clock, self._say)
        if answer.reply.stop_reason == "length" and not silent:
            used = answer.reply.usage.output_tokens
            return e.TurnLimitReached(limit="max_tokens", used=used, maximum=request.max_tokens)
        if answer.reply.stop_reason != "end" or not answer.text.strip():
            raise ProviderRejected("The model wrote no summary.", hint="Set compaction.model to another one.")
        self._say(
            e.HistoryCompacted(
                summary=f"{compaction.SUMMARY_HEADING}\n\n{answer.text}",
                through_seq=placed[at - 1].seq,
                messages_replaced=at,
            )
        )
        return None

    def _summary_request(self, text: str, who: Answering, max_tokens: int) -> ModelRequest:
        plan = self._plan
        ours = who.provider.name == plan.answering.provider.name
        return ModelRequest(
            model=who.model,
            session_id=self.session_id,
            provider_params=plan.provider_params if ours else {},
            messages=(UserMessage(text=text),),
            max_tokens=max_tokens,
        )
