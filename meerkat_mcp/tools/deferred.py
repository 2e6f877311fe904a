"""Tool servers that are not even imported before a turn has any: most servers of ours never need them."""

from collections.abc import AsyncGenerator, Callable, Mapping, Sequence
from contextlib import asynccontextmanager

import anyio
import anyio.to_thread

from meerkat_mcp.domain.messages import JsonObject
from meerkat_mcp.domain.servers import ToolServer
from meerkat_mcp.tools.base import Output, RunningToolServers, Tool, Toolbox


class DeferredToolServers:
    """Makes the real ones when they are first needed. `run` must be running for it to have any."""

    def __init__(self, make: Callable[[], RunningToolServers]) -> None:
        self._make = make
        self._needed = anyio.Event()
        self._ready = anyio.Event()
        self._servers: RunningToolServers | None = None

    async def run(self) -> None:
        """Hold the servers, once there are any, until cancelled."""
        await self._needed.wait()
        servers = await anyio.to_thread.run_sync(self._make)
        async with anyio.create_task_group() as tasks:
            await tasks.start(servers.run)
            self._servers = servers
            self._ready.set()

    @asynccontextmanager
    async def open(self, servers: Mapping[str, ToolServer]) -> AsyncGenerator[Toolbox]:
        """The tools of these servers; see `ToolServers.open`."""
        if not servers:
            yield _Nothing()
            return
        self._needed.set()
        await self._ready.wait()
        assert self._servers is not None, "they are ready"
        async with self._servers.open(servers) as toolbox:
            yield toolbox


class _Nothing:
    """The tools of a turn that has none."""

    @property
    def problems(self) -> Mapping[str, str]:
        return {}

    async def tools(self) -> Sequence[Tool]:
        return ()

    async def call(self, tool_name: str, args: JsonObject) -> Output:
        return Output(content=f"There is no tool {tool_name!r}.", is_error=True)
