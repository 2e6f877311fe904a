"""Real server processes over real pipes, spoken to line by line so that a test can see and kill everything."""

import json
import subprocess
import sys
from collections.abc import AsyncGenerator, Callable, Mapping, Sequence
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from functools import partial
from pathlib import Path
from typing import Any

import anyio
import pytest
from anyio.abc import Process

from meerkat_mcp.realms import Realm, choose, open_realm

PATIENCE_S = 20.0
QUICK = {"delta_ms": 0}


class Host:
    """A host of one server process; `notes` are the notifications it got, `lines` everything the server said."""

    def __init__(self, process: Process) -> None:
        self.process = process
        self.notes: list[dict] = []
        self.lines: list[str] = []
        self._answers: dict[int, dict] = {}
        self._changed = anyio.Event()
        self._last_id = 0

    async def listen(self) -> None:
        held = b""
        async for chunk in self.process.stdout:
            *lines, held = (held + chunk).split(b"\n")
            for line in lines:
                self.lines.append(line.decode())
                message = json.loads(line)
                if "id" in message and "method" not in message:
                    self._answers[message["id"]] = message
                else:
                    self.notes.append(message)
            self._changed.set()
            self._changed = anyio.Event()
        self._changed.set()

    async def send(self, method: str, params: dict, *, notify: bool = False) -> int:
        self._last_id += 1
        message: dict[str, Any] = {"jsonrpc": "2.0", "method": method, "params": params}
        if not notify:
            message["id"] = self._last_id
        await self.process.stdin.send(json.dumps(message).encode() + b"\n")
        return self._last_id

    async def until(self, found: Callable[[], Any], within_s: float = PATIENCE_S) -> Any:
        """Wait for what a message brings."""
        with anyio.fail_after(within_s):
            while not (value := found()):
                await self._changed.wait()
            return value

    async def ask(self, method: str, params: dict) -> dict:
        number = await self.send(method, params)
        return await self.until(lambda: self._answers.get(number))

    async def begin(self, tool: str, **arguments) -> int:
        """Call a tool with progress, and do not wait for the answer."""
        params = {"name": tool, "arguments": arguments, "_meta": {"progressToken": f"p{self._last_id + 1}"}}
        return await self.send("tools/call", params)

    def said(self, number: int) -> dict | None:
        """The answer to a request, an error too, if it is there."""
        return self._answers.get(number)

    async def answer(self, number: int, within_s: float = PATIENCE_S) -> dict:
        answer = await self.until(lambda: self._answers.get(number), within_s)
        return answer["result"]

    async def call(self, tool: str, *, within_s: float = PATIENCE_S, **arguments) -> dict:
        """The structured result, or `{"error": …}`."""
        result = await self.answer(await self.send("tools/call", {"name": tool, "arguments": arguments}), within_s)
        return json.loads(result["content"][0]["text"])

    def events(self) -> list[dict]:
        """The events that came as progress, in the order in which they came."""
        metas = [note["params"].get("_meta", {}) for note in self.notes if note["method"] == "notifications/progress"]
        return [meta["meerkat/event"] for meta in metas if "meerkat/event" in meta]

    async def event(self, kind: str) -> dict:
        return await self.until(lambda: next((event for event in self.events() if event["type"] == kind), None))


Serve = Callable[..., AbstractAsyncContextManager[Host]]


@asynccontextmanager
async def hosted(
    state_root: Path,
    *flags: str,
    program: Sequence[str] = ("-m", "meerkat_mcp"),
    stderr: Any = subprocess.DEVNULL,
    env: Mapping[str, str] | None = None,
) -> AsyncGenerator[Host]:
    """A server process on the realm `den`, with the host that started it; `program` is what Python runs."""
    words = [sys.executable, *program, "serve", "--realm", "den", "--state-root", str(state_root), *flags]
    process = await anyio.open_process(words, stderr=stderr, env=env)
    try:
        async with anyio.create_task_group() as tasks:
            host = Host(process)
            tasks.start_soon(host.listen)
            client = {"name": "test", "version": "1"}
            await host.ask("initialize", {"protocolVersion": "2025-11-25", "capabilities": {}, "clientInfo": client})
            await host.send("notifications/initialized", {}, notify=True)
            yield host
            tasks.cancel_scope.cancel()
    finally:
        with anyio.CancelScope(shield=True):
            if process.returncode is None:
                process.kill()
            await process.aclose()


@pytest.fixture
def serve(tmp_path) -> Serve:
    """Each call starts one more server process on the same realm."""
    return partial(hosted, tmp_path)


@pytest.fixture
def look(tmp_path) -> Callable[[], AbstractAsyncContextManager[Realm]]:
    """The realm, as one more process sees it."""
    return lambda: open_realm(choose("den", state_root=tmp_path))
