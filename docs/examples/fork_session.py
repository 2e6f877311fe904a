"""Try two ways from one point: fork the session and go on with both."""

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
        run = await client.call_tool("meerkat_run", {"prompt": "Remember: pelican."})
        origin = run.structured_content["session_id"]
        fork = (await client.call_tool("meerkat_fork", {"session_id": origin})).structured_content["session_id"]
        await client.call_tool("meerkat_resume", {"session_id": fork, "prompt": "Remember: walrus."})
        for session_id in (origin, fork):
            asked = {"session_id": session_id, "prompt": "What did I ask you to remember?"}
            print((await client.call_tool("meerkat_resume", asked)).structured_content["text"])


if __name__ == "__main__":
    anyio.run(main)
