"""Follow a session's events: what was there before, then what comes, until its turn is done."""

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
        run = {"prompt": "[[words 20]]", "wait_seconds": 0}
        session_id = (await client.call_tool("meerkat_run", run)).structured_content["session_id"]
        stream = {"session_id": session_id, "after_seq": 0}
        stream_id = (await client.call_tool("meerkat_event_stream_open", stream)).structured_content["stream_id"]
        done = False
        while not done:
            read = {"stream_id": stream_id, "timeout_ms": 10_000}
            page = (await client.call_tool("meerkat_event_stream_read", read)).structured_content
            for event in page["events"]:
                print(event["seq"], event["type"], event.get("text", ""))
            done = page["done"] or page["status"] == "closed"
        await client.call_tool("meerkat_event_stream_close", {"stream_id": stream_id})


if __name__ == "__main__":
    anyio.run(main)
