"""An MCP server made with the SDK, of both eras: `full.py stdio`, or `full.py http PORT [legacy]`.

Over HTTP it prints its port, and wants a token.
"""

import base64
import os
import socket
import subprocess
import sys

import anyio
import uvicorn
from mcp.server import MCPServer
from mcp.server.mcpserver import Context
from mcp.server.mcpserver.exceptions import ToolError
from mcp.types import (
    AudioContent,
    BlobResourceContents,
    CallToolResult,
    ElicitRequest,
    ElicitRequestFormParams,
    EmbeddedResource,
    ImageContent,
    InputRequiredResult,
    ResourceLink,
    TextContent,
    TextResourceContents,
    ToolAnnotations,
)
from pydantic import BaseModel

PIXEL = base64.b64encode(b"\x89PNG\r\n\x1a\n" + bytes(60)).decode()
server = MCPServer("full", version="1", log_level="ERROR")
hanging = anyio.Event()
cancelled = anyio.Event()


class Answer(BaseModel):
    name: str


@server.tool(title="Add up", annotations=ToolAnnotations(read_only_hint=True))
async def add(a: int, b: int) -> int:
    """Add two numbers."""
    return a + b


@server.tool(annotations=ToolAnnotations(title="Wipe", destructive_hint=True))
async def wipe() -> str:
    """Wipe nothing."""
    return "wiped"


@server.tool(name="odd name/with.dots", annotations=ToolAnnotations(read_only_hint=False))
async def odd() -> str:
    """It has a name that no wire takes."""
    return "odd indeed"


@server.tool()
async def everything() -> CallToolResult:
    """One of each block."""
    return CallToolResult(
        content=[
            TextContent(type="text", text="first"),
            ImageContent(type="image", mime_type="image/png", data=PIXEL),
            AudioContent(type="audio", mime_type="audio/wav", data=PIXEL),
            ResourceLink(type="resource_link", uri="file:///a.txt", name="a", mime_type="text/plain", description="A"),
            EmbeddedResource(type="resource", resource=TextResourceContents(uri="file:///b.txt", text="inside b")),
            EmbeddedResource(
                type="resource", resource=BlobResourceContents(uri="file:///c", mime_type="image/png", blob=PIXEL)
            ),
            TextContent(type="text", text="last"),
        ]
    )


@server.tool()
async def environment() -> dict[str, str]:
    """All variables."""
    return dict(os.environ)


@server.tool()
async def headers(ctx: Context) -> dict[str, str]:
    """What came with the request."""
    return {name.lower(): value for name, value in (ctx.headers or {}).items()}


@server.tool()
def process() -> dict[str, int]:
    """Who this is, and a child of its own that outlives it if nobody ends it."""
    child = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(600)"])
    return {"pid": os.getpid(), "child": child.pid}


@server.tool()
async def big() -> str:
    """More than the SDK lets through in one event, if nobody tells it to."""
    return "x" * 2_000_000


@server.tool()
async def era(ctx: Context) -> str:
    """The protocol spoken."""
    return ctx.protocol_version or ""


@server.tool()
async def fail() -> str:
    """Fail as tools do."""
    raise ToolError("it is full")


@server.tool()
async def die() -> str:
    """End at once."""
    print("out of luck, token hush-hush", file=sys.stderr, flush=True)
    os._exit(3)


@server.tool()
async def hang() -> str:
    """Wait forever; being cancelled is noticed."""
    hanging.set()
    try:
        await anyio.sleep_forever()
    finally:
        cancelled.set()


@server.tool()
async def await_hanging() -> str:
    """Answers once somebody hangs."""
    await hanging.wait()
    return "hanging"


@server.tool()
async def await_cancelled() -> str:
    """Answers once that has been cancelled."""
    await cancelled.wait()
    return "cancelled"


@server.tool()
async def ask(ctx: Context) -> str:
    """Ask whoever calls."""
    answer = await ctx.elicit("Who are you?", Answer)
    return str(answer)


@server.tool()
async def insist() -> InputRequiredResult:
    """Ask whoever calls, also one who never said that this is possible."""
    question = ElicitRequestFormParams(message="Who are you?", requested_schema={"type": "object", "properties": {}})
    return InputRequiredResult(input_requests={"who": ElicitRequest(params=question)}, request_state="x")


@server.tool()
async def grow(ctx: Context) -> str:
    """Add a tool."""

    async def grown() -> str:
        return "new here"

    server.add_tool(grown, description="A new one.")
    if ctx.protocol_version == "2026-07-28":
        await ctx.notify_tools_changed()
    else:
        await ctx.session.send_tool_list_changed()
    return "grown"


def legacy_only(app):
    """The same application, for those who do not know the protocol of 2026."""

    async def refusing(scope, receive, send):
        if scope["type"] == "http" and (b"mcp-protocol-version", b"2026-07-28") in scope["headers"]:
            await send({"type": "http.response.start", "status": 400, "headers": [(b"content-type", b"text/plain")]})
            await send({"type": "http.response.body", "body": b"what is that?"})
        else:
            await app(scope, receive, send)

    return refusing


def guarded(app):
    """The same application, for those who have the token, and at another address a redirect elsewhere."""

    async def checking(scope, receive, send):
        if scope["type"] == "http" and scope["path"] == "/elsewhere":
            there = [(b"location", b"http://localhost:9/mcp")]
            await send({"type": "http.response.start", "status": 307, "headers": there})
            await send({"type": "http.response.body", "body": b""})
        elif scope["type"] == "http" and (b"authorization", b"Bearer hush-hush") not in scope["headers"]:
            await send({"type": "http.response.start", "status": 401, "headers": []})
            await send({"type": "http.response.body", "body": b"who are you?"})
        else:
            await app(scope, receive, send)

    return checking


def serve_http(port: int, *, legacy: bool) -> None:
    app = server.streamable_http_app()
    listening = socket.create_server(("127.0.0.1", port))
    print(listening.getsockname()[1], flush=True)
    config = uvicorn.Config(
        guarded(legacy_only(app) if legacy else app),
        log_level="error",
        lifespan="on",
        timeout_graceful_shutdown=0,
    )
    uvicorn.Server(config).run(sockets=[listening])


if __name__ == "__main__":
    if sys.argv[1] == "stdio":
        server.run("stdio")
    else:
        serve_http(int(sys.argv[2]), legacy="legacy" in sys.argv)
