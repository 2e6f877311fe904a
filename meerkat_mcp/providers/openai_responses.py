"""OpenAI's Responses API. The conversation is ours: nothing is stored there, every request brings all of it."""

import json
import re
from collections.abc import AsyncGenerator, Iterator, Mapping
from typing import Any, Literal, cast

from meerkat_mcp.domain.messages import (
    AssistantMessage,
    JsonObject,
    StopReason,
    ToolCall,
    ToolMessage,
    ToolResult,
    Usage,
    UserMessage,
)
from meerkat_mcp.providers import openai_client as client
from meerkat_mcp.providers import openai_schemas, sse, wire
from meerkat_mcp.providers.base import Access, ArgsPiece, Model, ModelRequest, Part, Piece, Reply, Whole
from meerkat_mcp.providers.catalog import priced
from meerkat_mcp.providers.openai_client import one_of

OUTPUT_TOKENS_MIN = 16  # less is refused

PARAMS: Mapping[str, client.Rule] = {
    "reasoning_effort": one_of(*client.EFFORTS),
    "reasoning_summary": one_of("auto", "concise", "detailed", "none"),
    "verbosity": one_of("low", "medium", "high"),
    "service_tier": one_of("auto", "default", "flex", "scale", "priority", "fast", "ultrafast"),
    "parallel_tool_calls": client.FLAG,
    "truncation": one_of("auto", "disabled"),
    "safety_identifier": client.text(128),
    "prompt_cache_ttl": one_of("30m", "12h"),
    "tool_choice": one_of("auto", "none"),
    "metadata": client.Rule("an object of at most 16 texts", lambda value: _are_texts(value)),
}
"""What `provider_params` may hold."""

_PIECES: Mapping[str, Literal["text", "reasoning"]] = {
    "response.output_text.delta": "text",
    "response.refusal.delta": "text",
    "response.reasoning_summary_text.delta": "reasoning",
    "response.reasoning_text.delta": "reasoning",
}
_WHOLES: Mapping[str, Literal["text", "reasoning"]] = {
    "response.output_text.done": "text",
    "response.refusal.done": "text",
    "response.reasoning_summary_text.done": "reasoning",
    "response.reasoning_text.done": "reasoning",
}
_INCOMPLETE: Mapping[str, StopReason] = {
    "max_output_tokens": "length",
    "content_filter": "refusal",
    "max_messages": "pause",
    "steered": "pause",
}
_PLAIN = re.compile(r"gpt-(3|4|audio)|chatgpt-|.*-chat\b")
_REASONING = re.compile(r"gpt-|o\d|codex-|computer-use")


class ResponsesProvider:
    """Answers by `POST /responses` of OpenAI, or of a server that has it too."""

    def __init__(self, access: Access, http: wire.Http, *, name: str = "openai") -> None:
        self.name = name
        self._server = client.Server(access, http, name, part=lambda sdk_client: sdk_client.responses)

    async def reply(self, request: ModelRequest) -> AsyncGenerator[Part]:
        """See `Provider.reply`."""
        client.check_params(self.name, request.provider_params, PARAMS)
        answer = _Answer(self.name)
        async with self._server.stream(_body(request, self.name)) as events:
            async for event in events:
                for part in answer.parts(event):
                    yield part
                if answer.ended:
                    await sse.drain(events)
                    break
            reply = answer.reply()
        usage = await priced(self.name, reply.model or request.model, reply.usage)
        yield reply.model_copy(update={"usage": usage})

    async def models(self) -> tuple[Model, ...]:
        """See `Provider.models`; OpenAI's list has nothing but names."""
        return tuple(Model(model=entry.id, provider=self.name) for entry in await self._server.models())


# ── the request ──


def _body(request: ModelRequest, provider: str) -> JsonObject:
    params, schema = request.provider_params, request.output_schema
    instructions = request.system_prompt
    text: JsonObject = {"verbosity": params["verbosity"]} if "verbosity" in params else {}
    if schema is not None and schema.get("type") == "object" and not openai_schemas.REFUSED_AT_ROOT & schema.keys():
        strict = openai_schemas.strict(schema)
        text["format"] = {"type": "json_schema", "name": "answer", "schema": schema, "strict": strict}
    elif schema is not None:  # the wire takes no other
        instructions = wire.told_schema(instructions, schema)
    body: JsonObject = {
        "model": request.model,
        "instructions": instructions,
        "input": list(_input(request, provider)),
        "max_output_tokens": max(request.max_tokens, OUTPUT_TOKENS_MIN),
        "store": False,
        "stream_options": {"include_obfuscation": False},
        "prompt_cache_key": request.session_id,
        "text": text,
        "reasoning": _reasoning(request),
        "tools": [_tool(**client.function_of(tool)) for tool in request.tools],
    }
    if not _PLAIN.match(_family(request.model)):
        body["include"] = ["reasoning.encrypted_content"]
    if "prompt_cache_ttl" in params:
        body["prompt_cache_options"] = {"ttl": params["prompt_cache_ttl"]}
    for name in ("service_tier", "truncation", "safety_identifier", "metadata"):
        body[name] = params.get(name)
    for name in ("parallel_tool_calls", "tool_choice"):  # refused where there are no tools
        body[name] = params.get(name) if request.tools else None
    return {name: value for name, value in body.items() if value not in (None, "", {}, []) or name == "input"}


def _reasoning(request: ModelRequest) -> JsonObject:
    """How to reason, and whether to show it: asking that of a model that does not reason is an error."""
    effort = request.provider_params.get("reasoning_effort")
    family = _family(request.model)
    reasons = bool(effort or (_REASONING.match(family) and not _PLAIN.match(family)))
    summary = request.provider_params.get("reasoning_summary", "auto" if reasons else "none")
    asked = {"effort": effort, "summary": None if summary == "none" else summary}
    return {name: value for name, value in asked.items() if value is not None}


def _family(model: str) -> str:
    """A model's name without what a fine-tuning or a gateway puts before it."""
    return model.removeprefix("ft:").rpartition("/")[2].lower()


def _tool(*, name: str, description: str, parameters: JsonObject) -> JsonObject:
    parameters = {key: value for key, value in parameters.items() if key not in openai_schemas.REFUSED_AT_ROOT}
    strict = openai_schemas.strict(parameters)
    return {"type": "function", "name": name, "description": description, "parameters": parameters, "strict": strict}


def _input(request: ModelRequest, provider: str) -> Iterator[JsonObject]:
    """The conversation as items."""
    ids = client.call_ids(request, provider)
    for message in request.messages:
        match message:
            case UserMessage():
                yield {"role": "user", "content": message.text}
            case AssistantMessage() if wire.verbatim(message, provider, request.model):
                yield from message.items
            case AssistantMessage():
                if message.text:
                    yield {"role": "assistant", "content": message.text}
                for call in message.tool_calls:
                    written = json.dumps(call.args, ensure_ascii=False) if call.malformed is None else call.malformed
                    name, call_id = client.function_name(call.tool_name), ids[call.tool_use_id]
                    yield {"type": "function_call", "call_id": call_id, "name": name, "arguments": written}
            case ToolMessage():
                for result in message.results:
                    call_id = ids.get(result.tool_use_id) or wire.call_id(result.tool_use_id)
                    yield {"type": "function_call_output", "call_id": call_id, "output": _output(result)}


def _output(result: ToolResult) -> str | list[JsonObject]:
    content = client.content_of(result)
    if not result.images:
        return content
    images = [
        {"type": "input_image", "detail": "auto", "image_url": f"data:{image.mime_type};base64,{image.data}"}
        for image in result.images
    ]
    return [{"type": "input_text", "text": content}, *images] if content else images


# ── the answer ──


class _Answer:
    """One reply as its events come."""

    def __init__(self, provider: str) -> None:
        self._provider = provider
        self._items: list[JsonObject] = []
        self._calls: dict[int, tuple[str, str]] = {}
        self._refusal = ""
        self._response: JsonObject | None = None

    @property
    def ended(self) -> bool:
        """Whether the terminal event was among the events."""
        return self._response is not None

    def parts(self, event: JsonObject) -> Iterator[Part]:
        """What an event says.

        Raises:
            MeerkatError: it says that the reply failed.
            LookupError, TypeError, AttributeError, ValueError: it is not as it should be.
        """
        if error := event.get("error"):
            raise client.told_by(self._provider, error)
        kind = str(event.get("type"))
        if kind in _PIECES:
            if delta := event.get("delta"):
                yield Piece(kind=_PIECES[kind], text=delta)
        elif kind in _WHOLES:
            yield from self._whole(kind, event)
        elif kind == "response.output_item.added":
            if event["item"].get("type") == "function_call":
                self._calls[event["output_index"]] = (event["item"]["call_id"], event["item"]["name"])
        elif kind == "response.function_call_arguments.delta":
            tool_use_id, tool_name = self._calls[event["output_index"]]
            if delta := event.get("delta"):
                yield ArgsPiece(tool_use_id=tool_use_id, tool_name=tool_name, text=delta)
        elif kind == "response.output_item.done":
            yield from self._done(_without_nulls(event["item"]))
        elif kind in ("response.completed", "response.incomplete"):
            self._response = dict(event["response"])
        elif kind == "response.failed":
            error = event["response"].get("error") or {"message": "the response failed"}
            raise client.told(self._provider, error.get("code"), error.get("message"))
        elif kind == "error":
            raise client.told(self._provider, event.get("code"), event.get("message"))

    def _whole(self, kind: str, event: JsonObject) -> Iterator[Whole]:
        text = event.get("refusal" if kind == "response.refusal.done" else "text")
        if text and kind == "response.refusal.done":
            self._refusal += text
        if text:
            yield Whole(kind=_WHOLES[kind], text=text)

    def _done(self, item: JsonObject) -> Iterator[ToolCall]:
        self._items.append(item)
        if item.get("type") == "function_call":
            args, malformed = wire.arguments(item.get("arguments", ""))
            yield ToolCall(tool_use_id=item["call_id"], tool_name=item["name"], args=args, malformed=malformed)

    def reply(self) -> Reply:
        """How it ended."""
        response = self._response
        if response is None:
            return Reply(stop_reason="truncated", usage=Usage())
        stop_reason, detail = self._stopped(response)
        return Reply(
            stop_reason=stop_reason,
            usage=_usage(response.get("usage")),
            items=_replayable(self._items),
            model=response.get("model") or "",
            response_id=response.get("id") or "",
            detail=detail,
        )

    def _stopped(self, response: JsonObject) -> tuple[StopReason, str]:
        if response.get("status") == "incomplete":
            details: JsonObject = response.get("incomplete_details") or {}
            reason = str(details.get("reason"))
            stop_reason = "context" if "context" in reason else _INCOMPLETE.get(reason, "length")
            return stop_reason, self._refusal or reason if stop_reason == "refusal" else ""
        if self._refusal:
            return "refusal", self._refusal
        return "tool_calls" if any(item.get("type") == "function_call" for item in self._items) else "end", ""


def _without_nulls(value: Any) -> Any:
    """An item as it may be sent again: the API says null for what is not there, and refuses to hear it."""
    if isinstance(value, dict):
        fields = cast(JsonObject, value).items()
        return {name: _without_nulls(inner) for name, inner in fields if inner is not None}
    return [_without_nulls(inner) for inner in cast(list[Any], value)] if isinstance(value, list) else value


def _replayable(items: list[JsonObject]) -> tuple[JsonObject, ...]:
    """The items that may be sent again: none when reasoning came without its content, since what follows it refers to
    it; and no reasoning at the end, since it is refused without what follows.
    """
    reasoning = [item for item in items if item.get("type") == "reasoning"]
    if not all(item.get("encrypted_content") for item in reasoning):
        return ()
    kept = list(items)
    while kept and kept[-1].get("type") == "reasoning":
        kept.pop()
    return tuple(kept)


def _usage(said: Any) -> Usage:
    return Usage(
        input_tokens=client.count(said, "input_tokens"),
        output_tokens=client.count(said, "output_tokens"),
        cache_read_tokens=client.count(said, "input_tokens_details", "cached_tokens"),
        cache_write_tokens=client.count(said, "input_tokens_details", "cache_write_tokens"),
        reasoning_tokens=client.count(said, "output_tokens_details", "reasoning_tokens"),
    )


def _are_texts(value: Any) -> bool:
    if not isinstance(value, dict) or len(cast(JsonObject, value)) > 16:
        return False
    pairs = cast(JsonObject, value).items()
    return all(len(name) <= 64 and isinstance(said, str) and len(said) <= 512 for name, said in pairs)
