"""The seam to tools that run here: what there is, and one call in, one result out."""

from collections.abc import Mapping, Sequence
from contextlib import AbstractAsyncContextManager
from typing import Protocol

from anyio import TASK_STATUS_IGNORED
from anyio.abc import TaskStatus

from meerkat_mcp.domain.messages import Image, JsonObject, ToolDefinition, Value
from meerkat_mcp.domain.servers import ToolServer


class Tool(Value):
    """A tool that we can call: as a model sees it, whose it is, and whether it says that it only reads."""

    definition: ToolDefinition
    server: str
    title: str = ""
    read_only: bool = False

    @property
    def name(self) -> str:
        """The name by which a model calls it: safe on every wire, and no other tool's."""
        return self.definition.name


class Output(Value):
    """What a tool answered. `is_error` says that it failed, in words for the model."""

    content: str
    images: tuple[Image, ...] = ()
    is_error: bool = False


class Toolbox(Protocol):
    """The tools of one turn."""

    @property
    def problems(self) -> Mapping[str, str]:
        """The servers that could not be reached when tools were last asked for, and why, in words without secrets."""
        ...

    async def tools(self) -> Sequence[Tool]:
        """The tools there are now, always in the same order: by server, then as the server lists them.

        Cheap when nothing changed: a server is asked again only after it said that its list did, or was restarted.
        A server that cannot be reached has no tools, and is among the `problems`.
        """
        ...

    async def call(self, tool_name: str, args: JsonObject) -> Output:
        """Call a tool, at most as long as its server's `call_timeout_s`. Cancelling it cancels it at the server.

        Never raises: whatever goes wrong is an output that says so. A server that has died is started anew, once, for
        the next call; a call that may have reached it is not repeated.
        """
        ...


class ToolServers(Protocol):
    """The tool servers of this process: started when first needed, shared by its turns, gone when it is."""

    def open(self, servers: Mapping[str, ToolServer]) -> AbstractAsyncContextManager[Toolbox]:
        """The tools of these servers, by name, for one turn. Starting them waits until tools are asked for.

        Two turns that name a server by an equal definition share it. A server that nobody has used for a while is
        stopped.
        """
        ...


class RunningToolServers(ToolServers, Protocol):
    """Tool servers with the task that holds them."""

    async def run(self, *, task_status: TaskStatus[None] = TASK_STATUS_IGNORED) -> None:
        """Hold the servers until cancelled; then they end, with all that they have started."""
        ...
