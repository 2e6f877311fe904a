"""The server that the conformance suite's scenarios are written for, on our own HTTP app.

What a scenario calls and reads has a name that the suite fixes (`test_simple_text`, `test://static-text`, …). None of
it is shipped: the shipped package gives the app, its guard and its way to serve, and those are what is tested here.
"""

import argparse
import sys
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import anyio
from conformance import asking, contents, jobs, shared
from mcp.server import MCPServer
from mcp.server.request_state import RequestStateSecurity

from meerkat_mcp.server.app import SurfaceServer
from meerkat_mcp.server.task_wire import Tasks
from meerkat_mcp.web.app import http_app
from meerkat_mcp.web.options import HttpOptions
from meerkat_mcp.web.replicas import Replica
from meerkat_mcp.web.serving import serve_http


def build(folder: Path, key: bytes) -> MCPServer[Any]:
    """Everything that the scenarios ask for. Servers with one folder and one key are replicas."""
    work, bus = jobs.Jobs(folder), shared.Bus(folder)

    @asynccontextmanager
    async def lifespan(_: MCPServer[Any]) -> AsyncGenerator[None]:
        async with work.running(), bus.running():
            yield

    tasks = Tasks(work, jobs.TOOLS, required=jobs.REQUIRED)
    server = SurfaceServer(
        "conformance-fixtures",
        version="1",
        tools=[contents.tool_with_a_rich_schema()],
        lifespan=lifespan,
        extensions=[tasks],
        subscriptions=bus,
        request_state_security=RequestStateSecurity(keys=[key]),
        log_level="WARNING",
    )
    contents.add(server)
    asking.add(server)
    jobs.add(server)
    return server


async def serve(folder: Path) -> None:
    """Serve on a free port until a signal; the address is the first line on standard error."""
    options, key = HttpOptions(port=0), shared.key(folder)

    async def sealing_key() -> bytes:
        return key

    replica = Replica(sealing_key)

    def ready(url: str) -> None:
        replica.url = url
        print(url, file=sys.stderr, flush=True)

    await serve_http(http_app(build(folder, key), options, replica=replica), options, on_ready=ready)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description="Serves the fixtures.")
    parser.add_argument("folder", type=Path, help="what replicas have in common")
    anyio.run(serve, parser.parse_args().folder)
