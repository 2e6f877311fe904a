"""The server that the conformance suite's scenarios are written for, on our own HTTP app.

What a scenario calls and reads has a name that the suite fixes (`test_simple_text`, `test://static-text`, …). None of
it is shipped: the shipped package gives the app, its guard and its way to serve, and those are what is tested here.
"""

import sys
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from typing import Any

import anyio
from conformance import asking, contents, jobs
from mcp.server import MCPServer

from meerkat_mcp.server.app import SurfaceServer
from meerkat_mcp.server.task_wire import Tasks
from meerkat_mcp.web.app import http_app
from meerkat_mcp.web.options import HttpOptions
from meerkat_mcp.web.serving import serve_http


def build() -> MCPServer[Any]:
    """Everything that the scenarios ask for."""
    work = jobs.Jobs()

    @asynccontextmanager
    async def lifespan(_: MCPServer[Any]) -> AsyncGenerator[None]:
        async with work.running():
            yield

    tasks = Tasks(work, jobs.TOOLS, required=jobs.REQUIRED)
    server = SurfaceServer(
        "conformance-fixtures",
        version="1",
        tools=[contents.tool_with_a_rich_schema()],
        lifespan=lifespan,
        extensions=[tasks],
        log_level="WARNING",
    )
    contents.add(server)
    asking.add(server)
    jobs.add(server)
    return server


async def serve() -> None:
    """Serve on a free port until a signal; the address is the first line on standard error."""
    options = HttpOptions(port=0)
    await serve_http(http_app(build(), options), options, on_ready=lambda url: print(url, file=sys.stderr, flush=True))


if __name__ == "__main__":
    anyio.run(serve)
