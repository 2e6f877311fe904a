"""Every event of a turn as it happens, while the call that started the turn is open."""

import os
import sys

import anyio
from mcp import Client, StdioServerParameters

SERVER = StdioServerParameters(
    command=sys.executable,
    args=["-m", "meerkat_mcp", "serve", "--realm", "tutorial"],
    env=dict(os.environ),
)


async def show(progress: float, total: float | None, message: str | None) -> None:
    print(f"event {progress:g}: {message}")


async def main() -> None:
    async with Client(SERVER) as client:
        run = {"prompt": "[[words 20]]", "stream": True}
        turn = await client.call_tool("meerkat_run", run, progress_callback=show)
        print(turn.structured_content["status"])


if __name__ == "__main__":
    anyio.run(main)
