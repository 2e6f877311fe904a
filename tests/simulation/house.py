"""A tool server of a world: a lamp that one may look at, a door that one may open, and bad luck."""

from collections.abc import AsyncGenerator, Mapping, Sequence
from contextlib import asynccontextmanager
from random import Random

import anyio

from meerkat_mcp.domain.messages import JsonObject, ToolDefinition
from meerkat_mcp.domain.servers import ToolServer
from meerkat_mcp.tools.base import Output, Tool, Toolbox

SERVERS: dict[str, ToolServer | None] = {"house": ToolServer(command="house")}
TOOLS = (
    Tool(definition=ToolDefinition(name="house__lamp"), server="house", read_only=True),
    Tool(definition=ToolDefinition(name="house__door"), server="house"),
)


class House:
    """The tool servers of every process; `ran` are the calls that reached it, of which none may come twice."""

    def __init__(self, seed: int) -> None:
        self._seed = seed
        self.ran: list[str] = []

    @asynccontextmanager
    async def open(self, servers: Mapping[str, ToolServer]) -> AsyncGenerator[Toolbox]:
        yield _Box(self, Random(f"{self._seed} house {len(self.ran)}"), bool(servers))


class _Box:
    def __init__(self, house: House, random: Random, wanted: bool) -> None:
        self._house, self._random, self._wanted = house, random, wanted
        self._away = False

    @property
    def problems(self) -> Mapping[str, str]:
        return {"house": "nobody opens"} if self._away else {}

    async def tools(self) -> Sequence[Tool]:
        await anyio.sleep(self._random.choice((0, 0, 0.01, 1.0)))
        self._away = self._wanted and self._random.random() < 0.1
        return TOOLS if self._wanted and not self._away else ()

    async def call(self, tool_name: str, args: JsonObject) -> Output:
        assert args["call"] not in self._house.ran, f"{args} was called twice"
        self._house.ran.append(args["call"])
        await anyio.sleep(self._random.choice((0, 0, 0.01, 0.5, 3.0)))
        if self._random.random() < 0.05:
            await anyio.sleep_forever()
        return Output(content=f"{tool_name} of {args['call']}", is_error=self._random.random() < 0.1)
