"""Fixtures that give what they have: tools with every kind of content, resources, prompts, completions, schemas."""

import json
from typing import Annotated, Any

import anyio
from mcp import MCPError
from mcp.server import MCPServer
from mcp.server.mcpserver import Context
from mcp.server.mcpserver.exceptions import ToolError
from mcp.server.mcpserver.prompts.base import UserMessage
from mcp.server.mcpserver.tools import Tool
from mcp.types import (
    MISSING_REQUIRED_CLIENT_CAPABILITY,
    AudioContent,
    CallToolResult,
    CompleteRequestParams,
    CompleteResult,
    Completion,
    ContentBlock,
    EmbeddedResource,
    EmptyResult,
    ImageContent,
    SetLevelRequestParams,
    SubscribeRequestParams,
    TextContent,
    TextResourceContents,
    UnsubscribeRequestParams,
)
from pydantic import Field

from meerkat_mcp.server.answering import answer_with

PNG = "iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAYAAAAfFcSJAAAADUlEQVR42mP8z8DwHwAFBQIAX8jx0gAAAABJRU5ErkJggg=="
"""One pixel."""
WAV = "UklGRiQAAABXQVZFZm10IBAAAAABAAEAQB8AAIA+AAACABAAZGF0YQAAAAA="
"""No sample."""
PAUSE_S = 0.02
DIALECT = "https://json-schema.org/draft/2020-12/schema"


def add(server: MCPServer[Any]) -> None:
    """Add all of them to a server."""
    _add_contents(server)
    _add_behaviours(server)
    _add_resources(server)
    _add_prompts(server)


def _embedded(uri: str, text: str, mime_type: str) -> EmbeddedResource:
    return EmbeddedResource(type="resource", resource=TextResourceContents(uri=uri, text=text, mime_type=mime_type))


def _image() -> ImageContent:
    return ImageContent(type="image", data=PNG, mime_type="image/png")


def _add_contents(server: MCPServer[Any]) -> None:
    def give(name: str, *blocks: ContentBlock) -> None:
        async def gives() -> CallToolResult:
            return CallToolResult(content=list(blocks))

        server.add_tool(gives, name=name, description=f"Gives {', '.join(block.type for block in blocks)}.")

    give("test_simple_text", TextContent(type="text", text="Some text."))
    give("test_image_content", _image())
    give("test_audio_content", AudioContent(type="audio", data=WAV, mime_type="audio/wav"))
    give("test_embedded_resource", _embedded("test://embedded-resource", "Within a result.", "text/plain"))
    give(
        "test_multiple_content_types",
        TextContent(type="text", text="Three kinds:"),
        _image(),
        _embedded("test://mixed-content-resource", '{"kind": 3}', "application/json"),
    )


def _add_behaviours(server: MCPServer[Any]) -> None:
    @server.tool()
    async def test_error_handling() -> str:
        """Fails."""
        raise ToolError("It fails, as it should.")

    @server.tool()
    async def test_tool_with_progress(ctx: Context[Any]) -> str:
        """Says how far it is, three times."""
        for done in (0, 50, 100):
            await ctx.report_progress(done, 100)
            await anyio.sleep(PAUSE_S)
        return "done"

    async def logs(ctx: Context[Any]) -> str:
        for said in ("begins", "goes on", "ends"):
            await ctx.info(said)
            await anyio.sleep(PAUSE_S)
        return "done"

    for name in ("test_tool_with_logging", "test_logging_tool"):
        server.add_tool(logs, name=name, description="Logs three messages.")

    @server.tool()
    async def test_missing_capability(ctx: Context[Any]) -> str:
        """Works only for a client that samples."""
        if ctx.client_capabilities is None or ctx.client_capabilities.sampling is None:
            needed = {"requiredCapabilities": {"sampling": {}}}
            raise MCPError(MISSING_REQUIRED_CLIENT_CAPABILITY, "It needs sampling.", needed)
        return "done"

    @server.tool()
    async def test_trigger_tool_change(ctx: Context[Any]) -> str:
        """Says that the list of tools changed."""
        await ctx.notify_tools_changed()
        return "done"

    @server.tool()
    async def test_trigger_prompt_change(ctx: Context[Any]) -> str:
        """Says that the list of prompts changed."""
        await ctx.notify_prompts_changed()
        return "done"

    @server.tool()
    async def test_custom_header(region: Annotated[str, Field(json_schema_extra={"x-mcp-header": "Region"})]) -> str:
        """Has an argument that is in a header as well."""
        return f"to {region}"

    answer_with(server, "logging/setLevel", SetLevelRequestParams, _nothing)


async def _nothing(_: object, params: object) -> EmptyResult:
    return EmptyResult()


def tool_with_a_rich_schema() -> Tool:
    """One whose schema uses what pydantic does not write."""

    async def contact(name: str = "", phone: str = "", email: str = "") -> str:
        return f"{name} {phone} {email}"

    tool = Tool.from_function(contact, name="json_schema_2020_12_tool", description="Its schema uses many words.")
    tool.parameters = {
        "$schema": DIALECT,
        "type": "object",
        "$defs": {
            "address": {
                "$anchor": "addressDef",
                "type": "object",
                "properties": {"street": {"type": "string"}, "city": {"type": "string"}},
            }
        },
        "properties": {
            "name": {"type": "string"},
            "address": {"$ref": "#/$defs/address"},
            "contactMethod": {"type": "string", "enum": ["phone", "email"]},
            "phone": {"type": "string"},
            "email": {"type": "string"},
        },
        "allOf": [{"anyOf": [{"required": ["phone"]}, {"required": ["email"]}]}],
        "if": {"properties": {"contactMethod": {"const": "phone"}}, "required": ["contactMethod"]},
        "then": {"required": ["phone"]},
        "else": {"required": ["email"]},
        "additionalProperties": False,
    }
    return tool


def _add_resources(server: MCPServer[Any]) -> None:
    @server.resource("test://static-text", mime_type="text/plain")
    async def static_text() -> str:
        """Text that stays as it is."""
        return "Always the same."

    @server.resource("test://static-binary", mime_type="image/png")
    async def static_binary() -> bytes:
        """Bytes that stay as they are."""
        return PNG.encode()

    @server.resource("test://watched-resource", mime_type="text/plain")
    async def watched() -> str:
        """Text that can be subscribed to."""
        return "Watched."

    @server.resource("test://template/{id}/data", mime_type="application/json")
    async def template(id: str) -> str:
        """Something about one id."""
        return json.dumps({"id": id, "templateTest": True, "data": f"about {id}"})

    answer_with(server, "resources/subscribe", SubscribeRequestParams, _nothing)
    answer_with(server, "resources/unsubscribe", UnsubscribeRequestParams, _nothing)


def _add_prompts(server: MCPServer[Any]) -> None:
    @server.prompt()
    async def test_simple_prompt() -> str:
        """A prompt without arguments."""
        return "Say something."

    @server.prompt()
    async def test_prompt_with_arguments(arg1: str, arg2: str) -> str:
        """A prompt with two arguments."""
        return f"Say '{arg1}' and '{arg2}'."

    @server.prompt()
    async def test_prompt_with_embedded_resource(resourceUri: str) -> list[UserMessage]:
        """A prompt that brings a resource along."""
        return [UserMessage(_embedded(resourceUri, "Brought along.", "text/plain")), UserMessage("Read this.")]

    @server.prompt()
    async def test_prompt_with_image() -> list[UserMessage]:
        """A prompt that brings an image along."""
        return [UserMessage(_image()), UserMessage("Look at this.")]

    async def complete(_: object, params: CompleteRequestParams) -> CompleteResult:
        return CompleteResult(completion=Completion(values=[], total=0, has_more=False))

    answer_with(server, "completion/complete", CompleteRequestParams, complete)
