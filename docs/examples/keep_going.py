"""A long turn: start it, come back, and never start it twice."""

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
        run = {"prompt": "[[words 40]]", "wait_seconds": 0.2, "idempotency_key": "report-2026-11"}
        turn = (await client.call_tool("meerkat_run", run)).structured_content
        print(turn["status"])  # running: 0.2 seconds were not enough

        again = (await client.call_tool("meerkat_run", run)).structured_content
        assert again["turn_id"] == turn["turn_id"]  # the same call again is the same turn

        while turn["status"] in ("running", "queued"):
            read = {"session_id": turn["session_id"], "turn_id": turn["turn_id"], "wait_seconds": 30}
            turn = (await client.call_tool("meerkat_read", read)).structured_content["turn"]
        print(turn["status"])


if __name__ == "__main__":
    anyio.run(main)
