"""Tool servers as real processes, and the one object through which turns use them."""

import subprocess
import sys
from collections.abc import AsyncGenerator, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager, suppress
from pathlib import Path
from typing import Any

import anyio
import pytest

from meerkat_mcp.domain.servers import ToolServer
from meerkat_mcp.tools.remote import McpToolServers

SERVERS = Path(__file__).parent / "servers"
PATIENCE_S = 20.0

Running = Callable[..., AbstractAsyncContextManager[McpToolServers]]
Define = Callable[..., ToolServer]


@pytest.fixture
def running() -> Running:
    """Tool servers that run for the length of a block, in an environment of the test's choosing."""

    @asynccontextmanager
    async def run(environment: dict[str, str] | None = None, **options: Any) -> AsyncGenerator[McpToolServers]:
        servers = McpToolServers((environment or {}).get, **options)
        with anyio.fail_after(PATIENCE_S):
            async with anyio.create_task_group() as tasks:
                await tasks.start(servers.run)
                yield servers
                tasks.cancel_scope.cancel()

    return run


@pytest.fixture
def full() -> Define:
    """The server made with the SDK, over stdio."""

    def define(*flags: str, **fields: Any) -> ToolServer:
        return ToolServer(command=sys.executable, args=(str(SERVERS / "full.py"), "stdio", *flags), **fields)

    return define


@pytest.fixture
def bare() -> Define:
    """The server that speaks raw lines."""

    def define(*flags: str, **fields: Any) -> ToolServer:
        return ToolServer(command=sys.executable, args=(str(SERVERS / "bare.py"), *flags), **fields)

    return define


@pytest.fixture
def serve_http() -> Callable[..., AbstractAsyncContextManager[str]]:
    """The server made with the SDK, over HTTP on a loopback socket; the block gets its origin."""

    @asynccontextmanager
    async def serve(*flags: str, port: int = 0) -> AsyncGenerator[str]:
        command = [sys.executable, str(SERVERS / "full.py"), "http", str(port), *flags]
        process = await anyio.open_process(command, stderr=subprocess.DEVNULL)
        try:
            with anyio.fail_after(PATIENCE_S):
                port = (await process.stdout.receive()).decode().strip()
            yield f"http://127.0.0.1:{port}"
        finally:
            with anyio.CancelScope(shield=True):
                with suppress(ProcessLookupError):
                    process.kill()
                await process.aclose()

    return serve
