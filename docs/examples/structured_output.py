"""An answer as data: give a JSON Schema, get a value that fits it."""

import os
import sys

import anyio
from mcp import Client, StdioServerParameters
from pydantic import BaseModel

SERVER = StdioServerParameters(
    command=sys.executable,
    args=["-m", "meerkat_mcp", "serve", "--realm", "tutorial"],
    env=dict(os.environ),
)


class City(BaseModel):
    name: str
    people: int


async def main() -> None:
    async with Client(SERVER) as client:
        asked = {
            "prompt": '[[json {"name": "Oslo", "people": 724290}]] Tell me about Oslo.',
            "output_schema": City.model_json_schema(),
        }
        turn = (await client.call_tool("meerkat_run", asked)).structured_content
        print(repr(City.model_validate(turn["structured_output"])))


if __name__ == "__main__":
    anyio.run(main)
