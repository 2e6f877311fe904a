"""A tool server that notes each call of its one tool in a file, a word a line: to see what was made, and how often."""

import sys
from pathlib import Path

import anyio
from mcp.server import MCPServer

server = MCPServer("box")
notes = Path(sys.argv[1])


@server.tool()
async def note(word: str) -> str:
    """Note a word; takes a while, as real work does."""
    await anyio.sleep(0.1)
    with notes.open("a", encoding="utf-8") as file:  # noqa: ASYNC230 - a word
        file.write(f"{word}\n")
    return f"noted {word}"


if __name__ == "__main__":
    server.run("stdio")
