"""One MCPServer with a tool that reports progress, `ours` or `sdk`: on our stdio transport or on the SDK's own."""

import sys
import time
from typing import Any

import anyio
from mcp.server import MCPServer
from mcp.server.mcpserver import Context

from meerkat_mcp.server.stdio import serve_stdio

server: MCPServer[Any] = MCPServer("progress")


@server.tool()
async def progress(n: int, ctx: Context) -> float:  # type: ignore[type-arg]
    """Report n times."""
    for number in range(n):
        await ctx.report_progress(number, None, "a few words of text")
    return 0.0


@server.tool()
async def cpu() -> float:
    """Say how long this process has worked."""
    return time.process_time()


if sys.argv[1] == "ours":
    anyio.run(serve_stdio, server)
else:
    server.run("stdio")
