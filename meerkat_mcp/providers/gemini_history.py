"""What goes out to Gemini's Interactions API: the conversation as its steps, the tools, the settings.

It keeps nothing for us (`store` is false), so every request tells the whole conversation. What changes least stands
first, the conversation last: the second request of a turn begins like the first, and the provider's cache sees it.
"""

import difflib
import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, cast

from meerkat_mcp.domain.errors import MeerkatError
from meerkat_mcp.domain.messages import (
    AssistantMessage,
    Image,
    JsonObject,
    Message,
    Text,
    ToolCall,
    ToolDefinition,
    ToolResult,
    UserMessage,
)
from meerkat_mcp.providers import wire
from meerkat_mcp.providers.base import ModelRequest

CONTINUATION = "requires_continuation"
"""The type of an item of ours, the last of a reply that paused: it holds the token to go on with."""

STOP_SEQUENCES_MAX = 5
SEEDS = range(-(2**31), 2**31)

_IMAGES = frozenset(f"image/{kind}" for kind in ("png", "jpeg", "webp", "heic", "heif", "gif", "bmp", "tiff"))
_CHOICES: Mapping[str, tuple[str, ...]] = {
    "reasoning_effort": ("minimal", "low", "medium", "high", "xhigh"),
    "thinking_summaries": ("auto", "none"),
    "tool_choice": ("auto", "none"),
    "service_tier": ("standard", "flex", "priority"),
}
_PARAMS = (*_CHOICES, "stop_sequences", "seed")
_DEPRECATED = ("temperature", "top_p", "top_k")


class Names:
    """Tool names as this wire takes them: a letter or an underscore first. Back they are what they were."""

    def __init__(self, tools: Sequence[ToolDefinition]) -> None:
        self._sent = {tool.name: tool.name for tool in tools if _fits(tool.name)}
        for tool in tools:
            sent = tool.name
            while not _fits(sent) or (sent != tool.name and sent in self._sent.values()):
                sent = f"_{sent}"
            self._sent[tool.name] = sent
        self._meant = {sent: name for name, sent in self._sent.items()}

    def sent(self, name: str) -> str:
        """The name on the wire; also of a tool that is not there any more."""
        return self._sent.get(name) or (name if _fits(name) else f"_{name}")

    def meant(self, sent: str) -> str:
        """The tool that the model calls; a name that was never sent stays as it is."""
        return self._meant.get(sent, sent)


def body(request: ModelRequest, names: Names, provider: str) -> JsonObject:
    """The request, but for its model and that it streams.

    Raises:
        ProviderRejected: `provider_params` holds what this provider does not know.
    """
    params = _checked(request.provider_params, provider)
    messages, token = _unpaused(request, provider)
    generation: JsonObject = {"max_output_tokens": request.max_tokens}
    if effort := params.get("reasoning_effort"):
        generation |= {"thinking_level": effort, "thinking_summaries": "auto"}
    generation |= {
        name: params[name] for name in ("thinking_summaries", "tool_choice", "stop_sequences", "seed") if name in params
    }
    sent: JsonObject = {"store": False, "generation_config": generation}
    if tier := params.get("service_tier"):
        sent["service_tier"] = tier
    if request.system_prompt:
        sent["system_instruction"] = request.system_prompt
    if request.tools:
        sent["tools"] = [_tool(tool, names) for tool in request.tools]
    if request.output_schema is not None:
        sent["response_format"] = {
            "type": "text",
            "mime_type": "application/json",
            "schema": request.output_schema,
        }
    if token:
        sent["continuation_token"] = token
    return sent | {"input": list(_steps(messages, request.model, names, provider))}


def _fits(name: str) -> bool:
    return re.match(r"[A-Za-z_]", name) is not None


def _tool(tool: ToolDefinition, names: Names) -> JsonObject:
    description = {"description": tool.description} if tool.description else {}
    return {"type": "function", "name": names.sent(tool.name)} | description | {"parameters": tool.input_schema}


# ── the conversation ──


def _unpaused(request: ModelRequest, provider: str) -> tuple[tuple[Message, ...], str]:
    """The messages to send, and the token of a reply that paused: it goes on from what it was first asked."""
    messages, token = request.messages, ""
    while messages and isinstance(last := messages[-1], AssistantMessage):
        if not wire.verbatim(last, provider, request.model) or last.items[-1].get("type") != CONTINUATION:
            break
        token = token or str(last.items[-1]["continuation_token"])
        messages = messages[:-1]
    return messages, token


def _steps(messages: Sequence[Message], model: str, names: Names, provider: str) -> Iterator[JsonObject]:
    """The conversation as steps. A result names its call by the id that the call has on the wire."""
    calls: dict[str, tuple[str, str]] = {}
    for message in messages:
        if isinstance(message, UserMessage):
            yield {"type": "user_input", "content": [_text(message.text)]}
        elif isinstance(message, AssistantMessage):
            own = wire.verbatim(message, provider, model)
            for call in message.tool_calls:
                sent = call.tool_use_id if own else wire.call_id(call.tool_use_id)
                calls[call.tool_use_id] = sent, names.sent(call.tool_name)
            if own:
                yield from filter(_goes_back, message.items)
            else:
                yield from _retold(message, calls)
        else:
            yield from (_result(result, calls) for result in message.results)


def _goes_back(item: JsonObject) -> bool:
    """Our own items stay here, and a thought without its signature is refused there."""
    return item.get("type") != CONTINUATION and (item.get("type") != "thought" or bool(item.get("signature")))


def _retold(message: AssistantMessage, calls: Mapping[str, tuple[str, str]]) -> Iterator[JsonObject]:
    """What another model said and called, without its reasoning."""
    for block in message.blocks:
        if isinstance(block, Text) and block.text:
            yield {"type": "model_output", "content": [_text(block.text)]}
        elif isinstance(block, ToolCall):
            call_id, name = calls[block.tool_use_id]
            yield {"type": "function_call", "id": call_id, "name": name, "arguments": block.args}


def _result(result: ToolResult, calls: Mapping[str, tuple[str, str]]) -> JsonObject:
    call_id, name = calls.get(result.tool_use_id, (wire.call_id(result.tool_use_id), ""))
    said: str | list[JsonObject] = result.content
    if result.images:
        texts = [_text(result.content)] if result.content else []
        said = [*texts, *map(_image, result.images)]
    named = {"name": name} if name else {}
    error = {"is_error": True} if result.is_error else {}
    return {"type": "function_result", "call_id": call_id} | named | {"result": said} | error


def _text(text: str) -> JsonObject:
    return {"type": "text", "text": text}


def _image(image: Image) -> JsonObject:
    """The picture; of a kind that is not read here only the word, for a refused one would end the session."""
    if image.mime_type not in _IMAGES:
        return _text(f"[A picture of type {image.mime_type}, which this model cannot see.]")
    return {"type": "image", "mime_type": image.mime_type, "data": image.data}


# ── the settings ──


def _checked(params: Mapping[str, Any], provider: str) -> Mapping[str, Any]:
    """The parameters, when all are known and make sense."""
    for name, value in params.items():
        if name in _DEPRECATED:
            raise _rejected(
                provider, f"{name} is no longer a setting of Gemini: the vendor deprecated it. Leave it out."
            )
        if name not in _PARAMS:
            near = difflib.get_close_matches(name, _PARAMS, 1, 0.5)
            meant = f"did you mean {near[0]}?" if near else f"there are {', '.join(_PARAMS)}."
            raise _rejected(provider, f"{name[:100]} is not known; {meant}")
        if name == "reasoning_effort" and value == "none":
            raise _rejected(provider, "reasoning_effort cannot be none: Gemini always thinks, minimal is the least.")
        if name in _CHOICES and value not in _CHOICES[name]:
            raise _rejected(provider, f"{name} must be one of {', '.join(_CHOICES[name])}.")
        if name == "stop_sequences" and not _are_sequences(value):
            raise _rejected(provider, f"{name} must be a list of 1 to {STOP_SEQUENCES_MAX} texts that are not empty.")
        if name == "seed" and (type(value) is not int or value not in SEEDS):
            raise _rejected(provider, f"{name} must be a whole number of 32 bits.")
    return params


def _are_sequences(value: Any) -> bool:
    if not isinstance(value, list | tuple):
        return False
    texts = cast("Sequence[Any]", value)
    return 1 <= len(texts) <= STOP_SEQUENCES_MAX and all(isinstance(text, str) and text for text in texts)


def _rejected(provider: str, message: str) -> MeerkatError:
    return wire.failure("bad_request", provider, f"provider_params.{message}")
