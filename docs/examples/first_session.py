"""A first session from Python: run, then resume. The agent remembers."""

import os
import sys

import anyio
from mcp import Client, StdioServerParameters

SERVER = StdioServerParameters(
    command=sys.executable,
    args=["-m", "meerkat_mcp", "serve", "--realm", "tutorial"],
    env=dict(os.environ),
)


async def main() -> None:
    async with Client(SERVER) as client:
        first = await client.call_tool("meerkat_run", {"prompt": "My name is Ada."})
        session_id = first.structured_content["session_id"]
        second = await client.call_tool("meerkat_resume", {"session_id": session_id, "prompt": "What's my name?"})
        print(second.structured_content["text"])


if __name__ == "__main__":
    anyio.run(main)
