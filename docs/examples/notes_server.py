"""An MCP server with two tools: one reads notes, one writes them. Its argument is the file that keeps them."""

import sys
from pathlib import Path

from mcp.server import MCPServer
from mcp.types import ToolAnnotations

NOTES = Path(sys.argv[1] if len(sys.argv) > 1 else "notes.txt")
server = MCPServer("notes", log_level="WARNING")


@server.tool(annotations=ToolAnnotations(read_only_hint=True))
def read() -> str:
    """All notes, one a line."""
    return NOTES.read_text(encoding="utf-8") if NOTES.exists() else "There are no notes."


@server.tool(annotations=ToolAnnotations(read_only_hint=False, destructive_hint=False))
def add(text: str) -> str:
    """Add a note."""
    with NOTES.open("a", encoding="utf-8") as file:
        file.write(f"{text}\n")
    return f"Noted: {text}"


if __name__ == "__main__":
    server.run()
