"""A real `meerkat-mcp serve --http` in a process of its own, and the app of a realm on a real socket in this one."""

import os
import re
import signal
import sys
from collections.abc import AsyncGenerator, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from pathlib import Path
from typing import Any

import anyio
import httpx2
import pytest
from anyio.abc import Process
from anyio.streams.text import TextReceiveStream
from mcp import Client

from meerkat_mcp.domain.version import VERSION

PATIENCE_S = 30.0
QUICK = {"delta_ms": 0}
MODERN = "2026-07-28"


class Server:
    """A running server: its address, and what it said on stderr so far."""

    def __init__(self, process: Process) -> None:
        self.process = process
        self.url = ""
        self.said = ""
        self._heard = anyio.Event()

    async def listen(self) -> None:
        assert self.process.stderr is not None
        async for chunk in TextReceiveStream(self.process.stderr):
            self.said += chunk
            self._heard.set()
            self._heard = anyio.Event()

    async def until_said(self, pattern: str) -> re.Match[str]:
        with anyio.fail_after(PATIENCE_S):
            while (found := re.search(pattern, self.said)) is None:
                await self._heard.wait()
            return found

    def client(self, **options: Any) -> Client:
        return Client(f"{self.url}/mcp", **options)

    async def get(self, path: str, **headers: str) -> httpx2.Response:
        async with httpx2.AsyncClient(timeout=PATIENCE_S) as client:
            return await client.get(self.url + path, headers=headers)

    async def post(self, body: Any, **headers: str) -> httpx2.Response:
        async with httpx2.AsyncClient(timeout=PATIENCE_S) as client:
            return await client.post(f"{self.url}/mcp", json=body, headers=headers)

    async def tool(self, name: str, **arguments: Any) -> httpx2.Response:
        return await self.post(*modern("tools/call", {"name": name, "arguments": arguments}))

    def end(self, how: int = signal.SIGTERM) -> None:
        self.process.send_signal(how)

    async def ended(self, within_s: float = PATIENCE_S) -> int:
        with anyio.fail_after(within_s):
            return await self.process.wait()


def modern(method: str, params: dict[str, Any]) -> Any:
    """A body of 2026-07-28; its headers are `headers_for` it."""
    meta = {
        "io.modelcontextprotocol/protocolVersion": MODERN,
        "io.modelcontextprotocol/clientCapabilities": {},
        "io.modelcontextprotocol/clientInfo": {"name": "test", "version": VERSION},
    }
    return ({"jsonrpc": "2.0", "id": 1, "method": method, "params": params | {"_meta": meta}},)


def headers_for(method: str, name: str | None = None, **more: str) -> dict[str, str]:
    """The headers that go with a body of 2026-07-28."""
    headers = {
        "accept": "application/json, text/event-stream",
        "mcp-protocol-version": MODERN,
        "mcp-method": method,
    }
    return headers | ({"mcp-name": name} if name else {}) | more


OpenServer = Callable[..., AbstractAsyncContextManager[Server]]


@pytest.fixture
def open_server(tmp_path: Path) -> OpenServer:
    """Each call starts the program with these flags, on the realm `den`, and ends it."""

    @asynccontextmanager
    async def opened(*flags: str, **environment: str) -> AsyncGenerator[Server]:
        command = [sys.executable, "-m", "meerkat_mcp", "serve", "--http", "--port", "0"]
        command += ["--realm", "den", "--state-root", str(tmp_path / "realms"), *flags]
        process = await anyio.open_process(command, stdin=None, env={**os.environ, **environment}, cwd=tmp_path)
        async with process, anyio.create_task_group() as tasks:
            server = Server(process)
            tasks.start_soon(server.listen)
            try:
                said = await server.until_said(r"MCP: (http\S+)/mcp\)(?:; listening on (\S+))?\n")
                server.url = said[2] or said[1]
                yield server
            finally:
                if process.returncode is None:
                    process.kill()
                tasks.cancel_scope.cancel()

    return opened
