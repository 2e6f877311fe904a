"""A host with the SDK's client, before a `meerkat_mcp serve` process of its own or a realm in this one."""

import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import anyio
import psutil
from mcp import Client, StdioServerParameters
from mcp.types import ElicitRequestParams, ElicitResult

JsonObject = dict[str, Any]
PATIENCE_S = 30.0
Answering = Callable[[str], ElicitResult]


class Host:
    """What a host can do. `asked` are the questions that were put before its person."""

    def __init__(self, server: Any, *, mode: str = "auto", answer: Answering | None = None) -> None:
        self.asked: list[str] = []
        self._answer = answer
        self.client = Client(server, mode=mode, elicitation_callback=self._elicited if answer else None)

    async def _elicited(self, _: Any, params: ElicitRequestParams) -> ElicitResult:
        assert self._answer is not None, "it said that it can be asked"
        self.asked.append(params.message)
        return self._answer(params.message)

    async def call(self, tool: str, **arguments: Any) -> JsonObject:
        """The structured result, or `{"error": …}`."""
        with anyio.fail_after(PATIENCE_S):
            result = await self.client.call_tool(tool, arguments)
        (block,) = result.content
        return json.loads(block.text)

    async def run(self, prompt: str = "go", **settings: Any) -> JsonObject:
        return await self.call("meerkat_run", prompt=prompt, wait_seconds=PATIENCE_S, **settings)

    async def resume(self, session_id: str, **more: Any) -> JsonObject:
        return await self.call("meerkat_resume", session_id=session_id, wait_seconds=PATIENCE_S, **more)

    async def event(self, session_id: str, kind: str) -> JsonObject:
        """The session's first event of a type, as soon as it is there."""
        opened = await self.call("meerkat_event_stream_open", session_id=session_id, after_seq=0, types=[kind])
        read = await self.call("meerkat_event_stream_read", stream_id=opened["stream_id"], timeout_ms=20_000)
        return read["events"][0]


class ProcessHost(Host):
    """A host of a real server process, which keeps its realm in a folder that only this test has."""

    def __init__(self, state_root: Path, environment: dict[str, str], *flags: str, **how: Any) -> None:
        self._state_root = str(state_root)
        args = ["-m", "meerkat_mcp", "serve", "--realm", "den", "--state-root", self._state_root, *flags]
        super().__init__(StdioServerParameters(command=sys.executable, args=args, env=environment), **how)

    def tree(self) -> list[psutil.Process]:
        """The server, if it is there, and all that it has started, and that has."""
        found = [child for child in psutil.Process().children() if self._state_root in _command(child)]
        return [process for server in found for process in (server, *server.children(recursive=True))]


def _command(process: psutil.Process) -> list[str]:
    """What it was started with; nothing of one that has ended, whether its parent knows or not."""
    try:
        return process.cmdline()
    except (psutil.NoSuchProcess, psutil.ZombieProcess):
        return []


def approve(_: str) -> ElicitResult:
    """A person who says yes to everything."""
    return ElicitResult(action="accept", content={"decision": "approve"})


def deny(_: str) -> ElicitResult:
    """A person who says no to everything, and why."""
    return ElicitResult(action="accept", content={"decision": "deny", "reason": "not on a Sunday"})


def close(_: str) -> ElicitResult:
    """A person who closes the question."""
    return ElicitResult(action="cancel")
