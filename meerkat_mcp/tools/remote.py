"""The tools of other MCP servers: which server is meant, who shares it, and what a turn sees of it all."""

from collections.abc import AsyncGenerator, Callable, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import TypeAlias

import anyio
from anyio.abc import TaskGroup, TaskStatus
from mcp import types

from meerkat_mcp.domain.errors import InvalidRequest
from meerkat_mcp.domain.messages import JsonObject, ToolDefinition
from meerkat_mcp.domain.servers import ToolServer
from meerkat_mcp.tools import content
from meerkat_mcp.tools.base import Output, Tool, Toolbox
from meerkat_mcp.tools.connection import Connection
from meerkat_mcp.tools.naming import tool_name
from meerkat_mcp.tools.reasons import Secrets

IDLE_S = 600.0
DESCRIPTION_CHARS_MAX = 20_000
TITLE_CHARS_MAX = 200
NAMES_TOLD_MAX = 50

_Key: TypeAlias = tuple[object, ...]


class McpToolServers:
    """See `ToolServers`. `lookup` tells the value of an environment variable that a definition names.

    `run` must be running: the servers live in its task group, and end with it.
    """

    def __init__(
        self,
        lookup: Callable[[str], str | None],
        *,
        idle_s: float = IDLE_S,
        image_bytes_max: int = content.IMAGE_BYTES_MAX,
        chars_max: int = content.CHARS_MAX,
    ) -> None:
        self.lookup = lookup
        self.image_bytes_max = image_bytes_max
        self.chars_max = chars_max
        self._idle_s = idle_s
        self._connections: dict[_Key, Connection] = {}
        self._tasks: TaskGroup | None = None

    async def run(self, *, task_status: TaskStatus[None] = anyio.TASK_STATUS_IGNORED) -> None:
        """Hold the servers until cancelled; then end all of them, within a few seconds."""
        try:
            async with anyio.create_task_group() as tasks:
                self._tasks = tasks
                task_status.started()
                await anyio.sleep_forever()
        finally:
            self._tasks = None

    @asynccontextmanager
    async def open(self, servers: Mapping[str, ToolServer]) -> AsyncGenerator[Toolbox]:
        """The tools of these servers for one turn; see `ToolServers.open`."""
        box = _Box(self, servers)
        try:
            yield box
        finally:
            box.close()

    @property
    def tasks(self) -> TaskGroup | None:
        """Where servers run; None when they cannot."""
        return self._tasks

    def connection(self, definition: ToolServer) -> Connection:
        """The connection to a server, for one more user: the same one for all whose definitions come out equal.

        Raises:
            InvalidRequest: a variable that it refers to is not set.
        """
        meant = definition.resolved(self.lookup)
        env, headers = sorted(meant.env.items()), sorted(meant.headers.items())
        key: _Key = (meant.command, meant.args, tuple(env), meant.cwd, meant.url, tuple(headers))
        if (known := self._connections.get(key)) is None:
            known = self._connections[key] = Connection(
                meant,
                Secrets(definition, self.lookup),
                idle_s=self._idle_s,
                on_rest=lambda: self._forget(key, known),
            )
        known.users += 1
        return known

    def _forget(self, key: _Key, connection: Connection | None) -> None:
        if self._connections.get(key) is connection:
            del self._connections[key]


@dataclass(frozen=True, slots=True)
class _Known:
    """A tool that was listed: as a model sees it, and what its own server calls it."""

    tool: Tool
    own_name: str


class _Box:
    """See `Toolbox`. Tools once listed can be called as long as it is open, also while their server is away."""

    def __init__(self, servers: McpToolServers, definitions: Mapping[str, ToolServer]) -> None:
        self._servers = servers
        self._definitions = dict(sorted(definitions.items()))
        self._connections: dict[str, Connection] = {}
        self._known: dict[str, _Known] = {}
        self._problems: dict[str, str] = {}
        self._closed = False

    @property
    def problems(self) -> Mapping[str, str]:
        return dict(self._problems)

    async def tools(self) -> Sequence[Tool]:
        listed: dict[str, Sequence[types.Tool]] = {}
        problems: dict[str, str] = {}

        async def ask(server: str) -> None:
            answer = await self._ask(server)
            if isinstance(answer, str):
                problems[server] = answer
            else:
                listed[server] = answer

        async with anyio.create_task_group() as asking:
            for server in self._definitions:
                asking.start_soon(ask, server)
        self._problems = problems
        there: dict[str, Tool] = {}
        for server in self._definitions:
            for theirs in listed.get(server, ()):
                known = _known(server, theirs)
                other = self._known.get(known.tool.name)
                if other is None or (other.tool.server, other.own_name) == (server, theirs.name):
                    self._known[known.tool.name] = known
                    there.setdefault(known.tool.name, known.tool)
        return tuple(there.values())

    async def call(self, tool_name: str, args: JsonObject) -> Output:
        known = self._known.get(tool_name)
        if known is None:
            await self.tools()
            known = self._known.get(tool_name)
        if known is None:
            return self._unknown(tool_name)
        server = known.tool.server
        within_s = self._definitions[server].call_timeout_s
        answer: types.CallToolResult | str = f"it did not answer within {within_s:g} s; the call was cancelled"
        with anyio.move_on_after(within_s):
            answer = await self._call(server, known.own_name, args)
        if isinstance(answer, str):
            return Output(content=f"The tool server {server!r} failed: {answer.rstrip('.')}.", is_error=True)
        limits = self._servers
        return content.to_output(answer, image_bytes_max=limits.image_bytes_max, chars_max=limits.chars_max)

    def close(self) -> None:
        """Let go of the servers."""
        for connection in self._connections.values():
            connection.release()
        self._connections.clear()
        self._closed = True

    async def _ask(self, server: str) -> Sequence[types.Tool] | str:
        connection, tasks = self._connection(server), self._servers.tasks
        if isinstance(connection, str):
            return connection
        if tasks is None:
            return "no tool server can be started any more"
        return await connection.tools(tasks, self._definitions[server].connect_timeout_s)

    async def _call(self, server: str, own_name: str, args: JsonObject) -> types.CallToolResult | str:
        connection, tasks = self._connection(server), self._servers.tasks
        if isinstance(connection, str):
            return connection
        if tasks is None:
            return "no tool server can be started any more"
        return await connection.call(tasks, own_name, args, self._definitions[server].connect_timeout_s)

    def _connection(self, server: str) -> Connection | str:
        if self._closed:
            return "its turn is over"
        if server not in self._connections:
            try:
                self._connections[server] = self._servers.connection(self._definitions[server])
            except InvalidRequest as exc:
                return exc.message
        return self._connections[server]

    def _unknown(self, name: str) -> Output:
        known = ", ".join(sorted(self._known)[:NAMES_TOLD_MAX]) or "none"
        away = "".join(f" The tool server {server!r} is away: {why}." for server, why in self._problems.items())
        return Output(content=f"There is no tool {name[:100]!r}. There are: {known}.{away}", is_error=True)


def _known(server: str, theirs: types.Tool) -> _Known:
    hints = theirs.annotations
    definition = ToolDefinition(
        name=tool_name(server, theirs.name),
        description=content.cut(theirs.description or "", DESCRIPTION_CHARS_MAX),
        input_schema=content.schema(theirs.input_schema),
    )
    title = theirs.title or (hints.title if hints else None) or ""
    read_only = hints is not None and hints.read_only_hint is True
    tool = Tool(definition=definition, server=server, title=title[:TITLE_CHARS_MAX], read_only=read_only)
    return _Known(tool, theirs.name)
