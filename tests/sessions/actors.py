"""A model and tools that do what a test wants, also what no well-behaved ones do."""

from collections.abc import AsyncGenerator, Awaitable, Callable, Mapping, Sequence
from contextlib import asynccontextmanager
from typing import Any

import anyio

from meerkat_mcp.domain.messages import JsonObject, ToolCall, ToolDefinition, Usage
from meerkat_mcp.domain.servers import ToolServer
from meerkat_mcp.providers.base import Model, ModelRequest, Part, Reply, Whole
from meerkat_mcp.realms import Realm
from meerkat_mcp.sessions.providers import Providers, Wire
from meerkat_mcp.tools.base import Output, Tool, Toolbox

DONE = Reply(stop_reason="end", usage=Usage(input_tokens=1, output_tokens=1))
CALLED = Reply(stop_reason="tool_calls", usage=Usage())
BOX = ToolServer(command="never-started")
"""The definition of a server whose tools a `Bench` has."""


def says(text: str, *, read: int = 1, wrote: int = 1, cost: float | None = None) -> list[Part]:
    """A whole reply that says this."""
    return [
        Whole(kind="text", text=text),
        Reply(stop_reason="end", usage=Usage(input_tokens=read, output_tokens=wrote, cost_usd=cost)),
    ]


def call(name: str, number: int = 1, **args: Any) -> ToolCall:
    return ToolCall(tool_use_id=f"c{number}", tool_name=name, args=args)


def calls(*made: ToolCall, read: int = 0, text: str = "") -> list[Part]:
    """A whole reply that makes these calls."""
    said = [Whole(kind="text", text=text)] if text else []
    return [*said, *made, Reply(stop_reason="tool_calls", usage=Usage(input_tokens=read))]


class Scripted:
    """A model that plays one list of parts a call. An exception among them is raised; an event is waited for, once
    `reached` says that the model stands there.
    """

    def __init__(self, *replies: Sequence[Part | Exception | anyio.Event], name: str = "demo", window: int = 0):
        self.name = name
        self.requests: list[ModelRequest] = []
        self.asked_for_models = 0
        self.reached = anyio.Event()
        self._replies = list(replies)
        self._window = window

    def then(self, *replies: Sequence[Part | Exception | anyio.Event]) -> None:
        self._replies += replies

    async def models(self) -> tuple[Model, ...]:
        self.asked_for_models += 1
        return (Model(model="demo", provider=self.name, context_tokens=self._window or None),)

    async def reply(self, request: ModelRequest) -> AsyncGenerator[Part]:
        self.requests.append(request)
        for part in self._replies.pop(0):
            await anyio.lowlevel.checkpoint()
            if isinstance(part, Exception):
                raise part
            if isinstance(part, anyio.Event):
                self.reached.set()
                await part.wait()
            else:
                yield part


def use(realm: Realm, *providers: Scripted) -> None:
    """Let these be the realm's providers, by their names."""
    wires = {provider.name: Wire(lambda _, provider=provider: provider) for provider in providers}
    realm.sessions.providers = Providers(wires, lookup=lambda _: None)


def tool(name: str, *, server: str = "box", reads: bool = False) -> Tool:
    return Tool(definition=ToolDefinition(name=name, description=f"Does {name}."), server=server, read_only=reads)


Does = Callable[[JsonObject], Awaitable[Output]]


class Bench:
    """The tools of all servers, without any server. What a tool does is in `does`; else it says its name."""

    def __init__(self, *tools: Tool, does: Mapping[str, Does] | None = None) -> None:
        self.shelf = list(tools)
        self.does = dict(does or {})
        self.problems: dict[str, str] = {}
        self.made: list[str] = []
        self.opened: list[Mapping[str, ToolServer]] = []
        self.is_open = 0

    @asynccontextmanager
    async def open(self, servers: Mapping[str, ToolServer]) -> AsyncGenerator[Toolbox]:
        self.opened.append(servers)
        self.is_open += 1
        try:
            yield self
        finally:
            self.is_open -= 1

    async def tools(self) -> Sequence[Tool]:
        return [one for one in self.shelf if one.server not in self.problems]

    async def call(self, tool_name: str, args: JsonObject) -> Output:
        self.made.append(tool_name)
        does = self.does.get(tool_name)
        return await does(args) if does is not None else Output(content=f"{tool_name} done")


def equip(realm: Realm, bench: Bench) -> Bench:
    """Let these be the tools of the realm's turns."""
    realm.turns._tool_servers = bench
    return bench
