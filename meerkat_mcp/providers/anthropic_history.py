"""A conversation as Anthropic's Messages API takes it.

The same conversation always becomes the same messages, and a longer one begins with those of the shorter: that is
what the vendor's prompt cache goes by, and what newer models bind their reasoning to.
"""

import json

from meerkat_mcp.domain.messages import (
    AssistantMessage,
    Image,
    JsonObject,
    Message,
    ToolDefinition,
    ToolMessage,
    ToolResult,
    UserMessage,
)
from meerkat_mcp.providers import wire

IMAGE_TYPES = ("image/png", "image/jpeg", "image/gif", "image/webp")
ROOT_REFUSES = ("oneOf", "anyOf", "allOf")
REASONING = ("thinking", "redacted_thinking")


def messages(conversation: tuple[Message, ...], provider: str, model: str) -> list[JsonObject]:
    """The conversation. What `provider` and `model` wrote goes back as it came; other replies as text and calls."""
    said: list[JsonObject] = []
    ids: dict[str, str] = {}
    taken: set[str] = set()
    for message in conversation:
        match message:
            case UserMessage():
                _say(said, "user", [_text(message.text)] if message.text.strip() else [])
            case AssistantMessage():
                native = wire.verbatim(message, provider, model)
                for call in message.tool_calls:
                    ids[call.tool_use_id] = call.tool_use_id if native else _free(call.tool_use_id, taken)
                    taken.add(ids[call.tool_use_id])
                content = _verbatim(message) if native else _neutral(message, ids)
                if any(block["type"] not in REASONING for block in content):
                    _say(said, "assistant", content)
            case ToolMessage():
                _say(said, "user", [_result(result, ids) for result in message.results])
    return said


def tools(definitions: tuple[ToolDefinition, ...]) -> list[JsonObject]:
    """The tools; the arguments of their calls are to be streamed as they are written."""
    return [_tool(definition) for definition in definitions]


def tools_of_old(said: list[JsonObject]) -> list[JsonObject]:
    """A stand-in for each tool that was called before: the vendor takes no calls without tools."""
    blocks = [block for message in said for block in message["content"] if block["type"] == "tool_use"]
    names = dict.fromkeys(block["name"] for block in blocks)
    return [{"name": name, "description": "No longer there.", "input_schema": {"type": "object"}} for name in names]


def began_without_reasoning(said: list[JsonObject]) -> bool:
    """Whether the tool calls that are answered now came without reasoning: older models then refuse to reason."""
    first: JsonObject | None = None
    for message in reversed(said):
        if message["role"] == "assistant":
            first = message
        elif any(block["type"] != "tool_result" for block in message["content"]):
            break
    return first is not None and first["content"][0]["type"] not in REASONING


def _say(said: list[JsonObject], role: str, content: list[JsonObject]) -> None:
    """Add a message; a user's second one in a row joins the first."""
    if content and role == "user" and said and said[-1]["role"] == "user":
        said[-1]["content"] += content
    elif content:
        said.append({"role": role, "content": content})


def _text(text: str) -> JsonObject:
    return {"type": "text", "text": text}


def _verbatim(message: AssistantMessage) -> list[JsonObject]:
    """The vendor's own blocks, but for those that it writes and then refuses: empty text, unsigned reasoning."""
    return [
        item
        for item in message.items
        if not (item.get("type") == "text" and not str(item.get("text")).strip())
        and not (item.get("type") == "thinking" and not item.get("signature"))
    ]


def _neutral(message: AssistantMessage, ids: dict[str, str]) -> list[JsonObject]:
    calls = [
        {"type": "tool_use", "id": ids[call.tool_use_id], "name": call.tool_name, "input": call.args}
        for call in message.tool_calls
    ]
    return [*([_text(message.text)] if message.text.strip() else []), *calls]


def _free(foreign: str, taken: set[str]) -> str:
    """An id for a call of another wire. Here no two calls of a conversation may have the same."""
    name = wire.call_id(foreign)
    for number in range(len(taken)):
        if name not in taken:
            break
        name = wire.call_id(f"{foreign} {number}")
    return name


def _tool(definition: ToolDefinition) -> JsonObject:
    """A tool. What the vendor refuses at the root of its schema is told in words; whoever runs the tool checks it."""
    schema = {name: value for name, value in definition.input_schema.items() if name not in ROOT_REFUSES}
    rest = {name: value for name, value in definition.input_schema.items() if name in ROOT_REFUSES}
    words = [definition.description, f"The input must also fit this JSON Schema: {json.dumps(rest)}" if rest else ""]
    description = "\n".join(filter(None, words))
    return {
        "name": definition.name,
        **({"description": description} if description else {}),
        "input_schema": schema | {"type": "object"},
        "eager_input_streaming": True,
    }


def _result(result: ToolResult, ids: dict[str, str]) -> JsonObject:
    """A result under the id that its call has here. The vendor takes no images with an error, and no silent error."""
    shown = [image for image in result.images if image.mime_type in IMAGE_TYPES and not result.is_error]
    notes = [_left_out(image, result) for image in result.images if image not in shown]
    texts = [text for text in (result.content, *notes) if text.strip()]
    if result.is_error and not texts:
        texts = ["The tool failed and said nothing."]
    content = [_text(text) for text in texts] + [_image(image) for image in shown]
    return {
        "type": "tool_result",
        "tool_use_id": ids.get(result.tool_use_id) or wire.call_id(result.tool_use_id),
        **({"content": content} if content else {}),
        **({"is_error": True} if result.is_error else {}),
    }


def _image(image: Image) -> JsonObject:
    return {"type": "image", "source": {"type": "base64", "media_type": image.mime_type, "data": image.data}}


def _left_out(image: Image, result: ToolResult) -> str:
    why = "it came with an error" if result.is_error else "the model cannot read that kind"
    return f"[An image ({image.mime_type}) is left out: {why}.]"
