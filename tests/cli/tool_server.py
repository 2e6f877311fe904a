"""A tool server over stdio that needs nothing but Python: it reads, writes, draws, and fails as it is told."""

import json
import sys
from pathlib import Path

PIXEL = "iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAYAAAAfFcSJAAAADUlEQVR42mNk+M9QDwADhgGAWjR9awAAAABJRU5ErkJggg=="
READS = {"readOnlyHint": True}
TOOLS = [
    {"name": "look", "description": "Says what was written.", "annotations": READS},
    {"name": "write", "description": "Writes a line."},
    {"name": "draw", "description": "Shows a picture.", "annotations": READS},
]
PAPER = Path("paper.txt")


def say(message: dict) -> None:
    sys.stdout.write(json.dumps({"jsonrpc": "2.0"} | message) + "\n")
    sys.stdout.flush()


def call(name: str, arguments: dict) -> list[dict]:
    match name:
        case "write":
            with PAPER.open("a", encoding="utf-8") as paper:
                paper.write(arguments["line"] + "\n")
            return [{"type": "text", "text": f"wrote {arguments['line']}"}]
        case "draw":
            return [{"type": "text", "text": "here:"}, {"type": "image", "mimeType": "image/png", "data": PIXEL}]
        case _:
            text = PAPER.read_text(encoding="utf-8") if PAPER.exists() else "nothing"
            return [{"type": "text", "text": text}]


def answer(message: dict) -> dict | None:
    """The answer's fields; None where none is wanted."""
    match message["method"]:
        case "initialize":
            about = {"protocolVersion": "2025-06-18", "capabilities": {"tools": {}}}
            return {"result": about | {"serverInfo": {"name": "paper", "version": "1"}}}
        case "tools/list":
            return {"result": {"tools": [tool | {"inputSchema": {"type": "object"}} for tool in TOOLS]}}
        case "tools/call":
            params = message["params"]
            return {"result": {"content": call(params["name"], params.get("arguments") or {})}}
        case _ if "id" in message:
            return {"error": {"code": -32601, "message": "Method not found"}}
        case _:
            return None


if __name__ == "__main__":
    for line in sys.stdin:
        message = json.loads(line)
        if (fields := answer(message)) is not None:
            say({"id": message["id"]} | fields)
