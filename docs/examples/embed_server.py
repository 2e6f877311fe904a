"""The MCP server of a realm inside your own program, here with a client in the same process."""

import anyio
from mcp import Client

from meerkat_mcp import build_server, choose, open_realm


async def main() -> None:
    async with open_realm(choose("embedded")) as realm:
        server = build_server(realm)
        async with Client(server) as client:
            said = await client.call_tool("meerkat_run", {"prompt": "My name is Ada."})
            print(said.structured_content["text"])


if __name__ == "__main__":
    anyio.run(main)
