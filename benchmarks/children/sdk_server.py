"""The smallest MCPServer, on the SDK's stdio: the yardstick of starts and calls."""

from mcp.server import MCPServer

server = MCPServer("noop")


@server.tool()
async def noop(x: str = "") -> str:
    """Do nothing."""
    return x


server.run("stdio")
