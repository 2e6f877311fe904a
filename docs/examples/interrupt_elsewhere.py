"""One process works, another one stops it: the two share nothing but the realm's name."""

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
    async with Client(SERVER) as worker, Client(SERVER) as other:
        run = {"prompt": "[[delta_ms 250]][[words 400]]", "wait_seconds": 0}
        turn = (await worker.call_tool("meerkat_run", run)).structured_content
        session_id = turn["session_id"]

        busy = await other.call_tool("meerkat_resume", {"session_id": session_id, "prompt": "Hello?"})
        print("a second prompt:", busy.content[0].text)

        ended = await other.call_tool("meerkat_interrupt", {"session_id": session_id})
        print("the interrupt:", ended.structured_content)

        again = await other.call_tool("meerkat_resume", {"session_id": session_id, "prompt": "Hello again."})
        print("the next turn:", again.structured_content["status"])


if __name__ == "__main__":
    anyio.run(main)
