"""A tool server that remembers for good what it was asked to do: `python -m chaos.notes FILE`; it prints its port.

Each call adds its `name` to the file, so that a call that was made twice can be seen.
"""

import os
import socket
import sys

import anyio
import uvicorn
from mcp.server import MCPServer
from mcp.types import ToolAnnotations

server = MCPServer("notes", version="1", log_level="ERROR")


@server.tool(annotations=ToolAnnotations(destructive_hint=False))
async def write(name: str, seconds: float = 0.0) -> str:
    """Write a name down; take so long for it."""
    os.write(file, f"{name}\n".encode())
    await anyio.sleep(seconds)
    return f"wrote {name}"


if __name__ == "__main__":
    file = os.open(sys.argv[1], os.O_WRONLY | os.O_APPEND | os.O_CREAT)
    listening = socket.create_server(("127.0.0.1", 0))
    print(listening.getsockname()[1], flush=True)
    config = uvicorn.Config(
        server.streamable_http_app(stateless_http=True), log_level="error", timeout_graceful_shutdown=1
    )
    uvicorn.Server(config).run(sockets=[listening])
