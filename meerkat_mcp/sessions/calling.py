"""A step's tool calls: which run here and now, which wait for a yes, which are the caller's to answer.

A tool of an MCP server runs by itself when the session's `permission_mode` lets it: `readonly` those that say that they
only read, and the others are not even shown to the model; `ask` these at once and the others when somebody said yes;
`auto` all. What a tool says of itself is its server's word: whoever names a server trusts it that far.
"""

from collections.abc import Awaitable, Callable, Collection, Mapping, Sequence
from dataclasses import dataclass

import anyio

from meerkat_mcp import telemetry
from meerkat_mcp.domain import events as e
from meerkat_mcp.domain.errors import ToolServerUnavailable
from meerkat_mcp.domain.messages import ToolCall, ToolDefinition
from meerkat_mcp.sessions.clock import Clock
from meerkat_mcp.sessions.plan import Plan
from meerkat_mcp.tools.base import Output, Tool, Toolbox

PARALLEL_CALLS_MAX = 16

Say = Callable[[e.Event], None]

_ONLY_READS = "{} is not allowed here: this session only reads."


@dataclass(frozen=True, slots=True)
class Sorted:
    """The calls of one step by what becomes of them. `answered` are those that need no tool: errors of the model's."""

    answered: tuple[e.ToolExecutionCompleted, ...]
    run: tuple[ToolCall, ...]
    ask: tuple[ToolCall, ...]
    caller: tuple[ToolCall, ...]


class Calling:
    """The tools of one turn, and the calls of them."""

    def __init__(self, plan: Plan, toolbox: Toolbox, clock: Clock, say: Say, flush: Callable[[], Awaitable[object]]):
        self._plan = plan
        self._toolbox = toolbox
        self._clock = clock
        self._say = say
        self._flush = flush
        self._told: dict[str, str] = {}
        self._ours: Mapping[str, Tool] = {}

    async def definitions(self) -> tuple[ToolDefinition, ...]:
        """What the model may call in its next step: the caller's tools, then ours. Cheap when nothing changed.

        Raises:
            ToolServerUnavailable: a server that is required cannot be reached.
        """
        if self._plan.servers:
            listed = await self._toolbox.tools()
            self._tell_problems()
            callers = {tool.name for tool in self._plan.tools}
            self._ours = {tool.name: tool for tool in listed if tool.name not in callers}
        return (*self._plan.tools, *(tool.definition for tool in self._shown()))

    def sort(self, calls: Sequence[ToolCall], allowed: Collection[str] = ()) -> Sorted:
        """What becomes of each call; those in `allowed`, by id, have their yes already.

        Also what was allowed is not made where only reading is: that may have changed since it was asked for.
        """
        callers = {tool.name for tool in self._plan.tools}
        answered, run, ask, caller = list[e.ToolExecutionCompleted](), *(list[ToolCall]() for _ in range(3))
        for call in calls:
            tool = self._ours.get(call.tool_name)
            if call.malformed is not None:
                answered.append(_failed(call, f"The arguments were no JSON object: {call.malformed[:500]}"))
            elif call.tool_name in callers:
                caller.append(call)
            elif tool is None:
                names = ", ".join(sorted(callers | {tool.name for tool in self._shown()})) or "none"
                answered.append(_failed(call, f"There is no tool {call.tool_name!r}. There are: {names}."))
            elif tool.read_only or self._plan.permission_mode == "auto":
                run.append(call)
            elif self._plan.permission_mode == "ask":
                (run if call.tool_use_id in allowed else ask).append(call)
            else:
                answered.append(_failed(call, _ONLY_READS.format(call.tool_name)))
        return Sorted(tuple(answered), tuple(run), tuple(ask), tuple(caller))

    async def run(self, calls: Sequence[ToolCall]) -> None:
        """Make these calls, side by side, and say what comes of each. That they begin is on the disk before they do."""
        if not calls:
            return
        for call in calls:
            self._say(e.ToolExecutionStarted(tool_use_id=call.tool_use_id, tool_name=call.tool_name))
        await self._flush()
        places = anyio.CapacityLimiter(PARALLEL_CALLS_MAX)
        async with anyio.create_task_group() as tasks:
            for call in calls:
                tasks.start_soon(self._make, call, places)

    def _shown(self) -> list[Tool]:
        """Our tools that the model sees."""
        return [tool for tool in self._ours.values() if self._plan.permission_mode != "readonly" or tool.read_only]

    async def _make(self, call: ToolCall, places: anyio.CapacityLimiter) -> None:
        async with places:
            started_ms = self._clock.now_ms()
            tool = self._ours.get(call.tool_name)
            server = tool.server if tool is not None else ""
            with telemetry.execute_tool(tool_name=call.tool_name, tool_use_id=call.tool_use_id, server=server) as span:
                output = await self._toolbox.call(call.tool_name, call.args)
                span.called(call.args, output.content)
                if output.is_error:
                    span.failed("tool_error")
            self._say(
                e.ToolExecutionCompleted(
                    tool_use_id=call.tool_use_id,
                    tool_name=call.tool_name,
                    content=self._cut(output),
                    images=output.images,
                    is_error=output.is_error,
                    duration_ms=self._clock.now_ms() - started_ms,
                )
            )

    def _cut(self, output: Output) -> str:
        most = self._plan.tool_result_chars_max
        if len(output.content) <= most:
            return output.content
        return f"{output.content[:most]}\n[cut here: {len(output.content)} characters in all, {most} shown]"

    def _tell_problems(self) -> None:
        for server, message in self._toolbox.problems.items():
            if self._plan.servers[server].required:
                raise ToolServerUnavailable(
                    f"The tool server {server!r} cannot be reached: {message}",
                    hint="Check its definition (mcp_servers); without required the turn goes on without it.",
                    server=server,
                )
            if self._told.get(server) != message:
                self._told[server] = message
                self._say(e.ToolServerFailed(server=server, message=message))


def _failed(call: ToolCall, message: str) -> e.ToolExecutionCompleted:
    return e.ToolExecutionCompleted(
        tool_use_id=call.tool_use_id, tool_name=call.tool_name, content=message, is_error=True
    )
