"""A tool of yours: the agent asks for it, you answer, the agent goes on."""

import os
import sys
from typing import Any

import anyio
from mcp import Client, StdioServerParameters

SERVER = StdioServerParameters(
    command=sys.executable,
    args=["-m", "meerkat_mcp", "serve", "--realm", "tutorial"],
    env=dict(os.environ),
)
WEATHER = {
    "name": "weather",
    "description": "The weather in a city, now.",
    "input_schema": {"type": "object", "properties": {"city": {"type": "string"}}, "required": ["city"]},
}


def weather(city: str) -> str:
    return f"Rain and 4 degrees in {city}."


def answer(call: dict[str, Any]) -> dict[str, Any]:
    """The result of one pending call. A failure is a result too: the model reads it and goes on."""
    try:
        content, is_error = weather(**call["args"]), False
    except Exception as exc:
        content, is_error = str(exc), True
    return {"tool_use_id": call["tool_use_id"], "content": content, "is_error": is_error}


async def main() -> None:
    async with Client(SERVER) as client:
        prompt = '[[call weather {"city": "Oslo"}]]'
        turn = (await client.call_tool("meerkat_run", {"prompt": prompt, "tools": [WEATHER]})).structured_content
        while turn["status"] == "waiting":
            results = [answer(call) for call in turn["pending_tool_calls"]]
            brought = {"session_id": turn["session_id"], "tool_results": results}
            turn = (await client.call_tool("meerkat_resume", brought)).structured_content
        print(turn["text"])


if __name__ == "__main__":
    anyio.run(main)
