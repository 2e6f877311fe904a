"""A host that asks its user before the agent's tools do more than read."""

import os
import sys
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import anyio
from mcp import Client, StdioServerParameters
from mcp.types import ElicitRequestParams, ElicitResult

SERVER = StdioServerParameters(
    command=sys.executable,
    args=["-m", "meerkat_mcp", "serve", "--realm", "tutorial", "--trust-caller"],
    env=dict(os.environ),
)
NOTES_SERVER = Path(__file__).parent / "notes_server.py"


async def ask_the_user(_: Any, question: ElicitRequestParams) -> ElicitResult:
    print(question.message)  # a host shows it with two buttons; here the user says yes
    return ElicitResult(action="accept", content={"decision": "approve"})


async def main() -> None:
    with TemporaryDirectory() as folder:
        notes = {"command": sys.executable, "args": [str(NOTES_SERVER), f"{folder}/notes.txt"]}
        async with Client(SERVER, elicitation_callback=ask_the_user) as client:
            run = {"prompt": '[[call notes__add {"text": "Buy milk."}]]', "mcp_servers": {"notes": notes}}
            turn = (await client.call_tool("meerkat_run", run)).structured_content
            print(turn["status"], turn["text"])


if __name__ == "__main__":
    anyio.run(main)
