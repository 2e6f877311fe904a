"""A program of ours that holds a tool server: it says the process ids of that, and waits to be killed."""

import sys
from pathlib import Path

import anyio

from meerkat_mcp.domain.servers import ToolServer
from meerkat_mcp.tools.remote import McpToolServers


async def main() -> None:
    full = ToolServer(command=sys.executable, args=(str(Path(__file__).with_name("full.py")), "stdio"))
    servers = McpToolServers({}.get)
    async with anyio.create_task_group() as tasks:
        await tasks.start(servers.run)
        async with servers.open({"full": full}) as box:
            answer = await box.call("full__process", {})
            print(answer.content, flush=True)
            await anyio.sleep_forever()


anyio.run(main)
