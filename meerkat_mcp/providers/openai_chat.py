"""OpenAI's older wire, chat completions, as compatible servers speak it: Ollama, vLLM, llama.cpp, OpenRouter, …

They differ in what they leave out. Nothing here relies on an id, an index, usage or the name that reasoning has.
"""

import json
import uuid
from collections.abc import AsyncGenerator, Iterator, Mapping
from contextlib import suppress
from typing import Any, Literal, cast

import anyio

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
from meerkat_mcp.providers import openai_schemas, wire
from meerkat_mcp.providers.base import Access, ArgsPiece, Model, ModelRequest, Part, Piece, Reply, Whole
from meerkat_mcp.providers.catalog import priced
from meerkat_mcp.providers.openai_client import number, one_of

REST_S = 5.0

PARAMS: Mapping[str, client.Rule] = {
    "temperature": number(0, 2),
    "top_p": number(0, 1),
    "top_k": client.integer(-1),
    "seed": client.integer(-(2**63)),
    "stop": client.Rule("text, or a list of at most 16 texts", lambda value: _are_stops(value)),
    "frequency_penalty": number(-2, 2),
    "presence_penalty": number(-2, 2),
    "reasoning_effort": one_of(*client.EFFORTS),
    "parallel_tool_calls": client.FLAG,
    "tool_choice": one_of("auto", "none"),
    "extra_body": client.Rule(
        "an object without model, messages, tools and stream",
        lambda value: isinstance(value, dict) and not _OURS & cast(JsonObject, value).keys(),
    ),
}
"""What `provider_params` may hold. `extra_body` is for what only one server knows."""

_OURS = frozenset({"model", "messages", "tools", "stream", "stream_options"})
_OF_A_CALL = frozenset({"index", "id", "type", "function"})
_REASONING_KEYS = ("reasoning_content", "reasoning")
_STOPS: Mapping[str, StopReason] = {"length": "length", "content_filter": "refusal"}
_ABILITIES = {"tools": "tools", "reasoning": "reasoning", "structured_outputs": "structured_output"}


class ChatProvider:
    """Answers by `POST /chat/completions` of a server of your own, or of a router to others'."""

    def __init__(self, access: Access, http: wire.Http, *, name: str = "self_hosted") -> None:
        self.name = name
        self._instructs = access.option("structured_output") == "instruction"
        self._server = client.Server(
            access, http, name, part=lambda sdk_client: sdk_client.chat.completions, keyless=True
        )

    async def reply(self, request: ModelRequest) -> AsyncGenerator[Part]:
        """See `Provider.reply`."""
        client.check_params(self.name, request.provider_params, PARAMS)
        answer = _Answer(self.name, request)
        async with self._server.stream(_body(request, self.name, instructs=self._instructs)) as chunks:
            async for chunk in chunks:
                for part in answer.parts(chunk):
                    yield part
                if answer.ended:
                    break
            for chunk in await _rest(chunks) if answer.ended else ():
                for part in answer.parts(chunk):
                    yield part
            for part in answer.last_parts():
                yield part
            reply = answer.reply()
        usage = await priced(self.name, reply.model or request.model, reply.usage)
        yield reply.model_copy(update={"usage": usage})

    async def models(self) -> tuple[Model, ...]:
        """See `Provider.models`; the size of the window is known where the server tells it."""
        return tuple(_model(entry, self.name) for entry in await self._server.models())


# ── the request ──


def _body(request: ModelRequest, provider: str, *, instructs: bool) -> JsonObject:
    params, schema = request.provider_params, request.output_schema
    system_prompt = request.system_prompt
    body: JsonObject = {
        "model": request.model,
        "max_tokens": request.max_tokens,
        "stream_options": {"include_usage": True},
    }
    if schema is not None and instructs:
        system_prompt = wire.told_schema(system_prompt, schema)
    elif schema is not None:
        answer = {"name": "answer", "schema": schema, "strict": openai_schemas.strict(schema)}
        body["response_format"] = {"type": "json_schema", "json_schema": answer}
    system = [{"role": "system", "content": system_prompt}] if system_prompt else []
    body["messages"] = [*system, *_messages(request, provider)]
    if request.tools:
        body["tools"] = [{"type": "function", "function": client.function_of(tool)} for tool in request.tools]
    extra: JsonObject = dict(params.get("extra_body", {}))
    if "top_k" in params:
        extra.setdefault("top_k", params["top_k"])  # the SDK has no such parameter
    pointless = () if request.tools else ("parallel_tool_calls", "tool_choice")  # refused where there are no tools
    body |= {name: value for name, value in params.items() if name not in ("extra_body", "top_k", *pointless)}
    return {**body, "extra_body": extra} if extra else body


def _messages(request: ModelRequest, provider: str) -> Iterator[JsonObject]:
    """The conversation after the system prompt."""
    ids = client.call_ids(request, provider)
    for message in request.messages:
        match message:
            case UserMessage():
                yield {"role": "user", "content": message.text}
            case AssistantMessage() if wire.verbatim(message, provider, request.model):
                yield from message.items
            case AssistantMessage() if message.text or message.tool_calls:
                calls = [
                    _call_item(ids[call.tool_use_id], call.tool_name, json.dumps(call.args, ensure_ascii=False))
                    for call in message.tool_calls
                ]
                yield _assistant(message.text, calls)
            case AssistantMessage():
                pass  # some servers refuse an empty one
            case ToolMessage():
                for result in message.results:
                    tool_call_id = ids.get(result.tool_use_id) or wire.call_id(result.tool_use_id)
                    yield {"role": "tool", "tool_call_id": tool_call_id, "content": _output(result)}


def _assistant(text: str, calls: list[JsonObject]) -> JsonObject:
    message: JsonObject = {"role": "assistant", "content": text or (None if calls else "")}
    return {**message, "tool_calls": calls} if calls else message


def _call_item(tool_use_id: str, name: str, written: str) -> JsonObject:
    return {
        "id": tool_use_id,
        "type": "function",
        "function": {"name": client.function_name(name), "arguments": written},
    }


def _output(result: ToolResult) -> str:
    """A tool's answer as text, with a note for each picture, so that the model knows what it does not see."""
    notes = [
        f"[{image.mime_type}, {max(1, round(len(image.data) * 3 / 4000))} kB: "
        "this server takes no images in tool results]"
        for image in result.images
    ]
    content = client.content_of(result)
    return "\n".join([content, *notes] if content else notes)


# ── the answer ──


class _Call:
    """A tool call as it is written."""

    def __init__(self, server_id: str, tool_use_id: str, extra: JsonObject) -> None:
        self.server_id = server_id
        self.tool_use_id = tool_use_id
        self.extra = extra  # what this server keeps there, such as a signature; it wants it back
        self.name = ""
        self.written = ""

    @property
    def complete(self) -> bool:
        return bool(self.written) and wire.arguments(self.written)[1] is None


class _Answer:
    """One reply as its chunks come."""

    def __init__(self, provider: str, request: ModelRequest) -> None:
        self._provider = provider
        self._known_ids = set(client.call_ids(request, provider))
        self._kind: Literal["text", "reasoning"] = "text"
        self._block = ""
        self._said = {"text": "", "reasoning": ""}
        self._reasoning_key = ""
        self._calls: list[_Call] = []
        self._by_index: dict[int, _Call] = {}
        self._refused = False
        self._finish = ""
        self._usage: Any = None
        self._model = ""
        self._id = ""

    @property
    def ended(self) -> bool:
        """Whether the server said why it stopped. What may follow is usage."""
        return bool(self._finish)

    def parts(self, chunk: JsonObject) -> Iterator[Part]:
        """What a chunk says.

        Raises:
            MeerkatError: it says that the reply failed.
            LookupError, TypeError, AttributeError, ValueError: it is not as it should be.
        """
        if error := chunk.get("error"):
            if self.ended:
                return  # it takes nothing from an answer that is there
            raise client.told_by(self._provider, error)
        self._id = str(chunk.get("id") or self._id)
        self._model = str(chunk.get("model") or self._model)
        self._usage = chunk.get("usage") or self._usage
        choices: list[JsonObject] = chunk.get("choices") or []
        for choice in choices[:1]:
            yield from self._delta(choice.get("delta") or {})
            self._finish = str(choice.get("finish_reason") or self._finish)

    def _delta(self, delta: JsonObject) -> Iterator[Part]:
        key = next((key for key in _REASONING_KEYS if isinstance(delta.get(key), str) and delta[key]), None)
        if key is not None:
            self._reasoning_key = key
            yield from self._write("reasoning", delta[key])
        if refusal := delta.get("refusal"):
            self._refused = True
            yield from self._write("text", refusal)
        if content := delta.get("content"):
            yield from self._write("text", content)
        pieces: list[JsonObject] = delta.get("tool_calls") or []
        for piece in pieces:
            yield from self._finished()
            yield from self._called(piece)

    def _write(self, kind: Literal["text", "reasoning"], text: str) -> Iterator[Part]:
        if kind != self._kind:
            yield from self._finished()
            self._kind = kind
        self._block += text
        self._said[kind] += text
        yield Piece(kind=kind, text=text)

    def _finished(self) -> Iterator[Whole]:
        if self._block:
            yield Whole(kind=self._kind, text=self._block)
        self._block = ""

    def _called(self, piece: JsonObject) -> Iterator[ArgsPiece]:
        """Put a piece of a call to the call that it belongs to."""
        function: JsonObject = piece.get("function") or {}
        name, written = str(function.get("name") or ""), function.get("arguments") or ""
        if not isinstance(written, str):
            written = json.dumps(written, ensure_ascii=False)
        index, server_id = piece.get("index"), str(piece.get("id") or "")
        call = self._by_index.get(index) if index is not None else self._calls[-1] if self._calls else None
        if call is None or _begins_another(call, index, server_id, name, written):
            call = self._new_call(server_id, {key: piece[key] for key in piece if key not in _OF_A_CALL})
            if index is not None:
                self._by_index[index] = call
        call.name = call.name or name
        call.written += written
        if written:
            yield ArgsPiece(tool_use_id=call.tool_use_id, tool_name=call.name, text=written)

    def _new_call(self, server_id: str, extra: JsonObject) -> _Call:
        """A call with an id that no other of the conversation has: some servers give none, or always the same."""
        tool_use_id = server_id if server_id and server_id not in self._known_ids else f"call_{uuid.uuid4().hex}"
        self._known_ids.add(tool_use_id)
        self._calls.append(_Call(server_id, tool_use_id, extra))
        return self._calls[-1]

    def last_parts(self) -> Iterator[Part]:
        """What is whole now that it ended.

        Raises:
            MeerkatError: the server says that it failed.
        """
        if self._finish == "error":
            raise wire.failure("server", self._provider, "the server stopped with an error that it does not tell")
        if self.ended:
            yield from self._finished()
            for call in self._calls:
                args, malformed = wire.arguments(call.written)
                yield ToolCall(tool_use_id=call.tool_use_id, tool_name=call.name, args=args, malformed=malformed)

    def reply(self) -> Reply:
        """How it ended."""
        stop_reason = self._stopped()
        detail = (self._said["text"] or self._finish) if stop_reason == "refusal" else ""
        return Reply(
            stop_reason=stop_reason,
            usage=_usage(self._usage),
            items=self._items() if self.ended else (),
            model=self._model,
            response_id=self._id,
            detail=detail,
        )

    def _stopped(self) -> StopReason:
        if not self.ended:
            return "truncated"
        if self._refused:
            return "refusal"
        return _STOPS.get(self._finish) or ("tool_calls" if self._calls else "end")

    def _items(self) -> tuple[JsonObject, ...]:
        """The message to send back. Servers read the arguments, so a call that has none that are JSON gets empty ones:
        what it was answered says what was wrong.
        """
        if not self._said["text"] and not self._calls:
            return ()
        calls = [
            call.extra | _call_item(call.tool_use_id, call.name, call.written if call.complete else "{}")
            for call in self._calls
        ]
        message = _assistant(self._said["text"], calls)
        if self._reasoning_key:
            message[self._reasoning_key] = self._said["reasoning"]
        return (message,)


async def _rest(chunks: AsyncGenerator[JsonObject]) -> list[JsonObject]:
    """What follows an answer's end: usage, on some servers, and the end of the body, which frees the connection.

    It is not waited for long, and what fails there takes nothing from the answer.
    """
    found: list[JsonObject] = []
    with anyio.move_on_after(REST_S), suppress(Exception):
        async for chunk in chunks:
            found += [chunk]
    return found


def _begins_another(call: _Call, index: int | None, server_id: str, name: str, written: str) -> bool:
    """Whether a piece begins a call of its own, where the server gives several calls one index, or gives none."""
    if server_id and call.server_id and server_id != call.server_id:
        return True
    if not name:
        return False
    unnumbered = index is None and not server_id
    return unnumbered or (bool(call.name) and name != call.name) or (bool(written) and call.complete)


def _usage(said: Any) -> Usage:
    """The usage. A router may know what it cost."""
    cost: Any = cast(JsonObject, said).get("cost") if isinstance(said, dict) else None
    cached = client.count(said, "prompt_tokens_details", "cached_tokens")
    return Usage(
        input_tokens=client.count(said, "prompt_tokens"),
        output_tokens=client.count(said, "completion_tokens"),
        cache_read_tokens=cached or client.count(said, "prompt_cache_hit_tokens"),  # as DeepSeek calls them
        cache_write_tokens=client.count(said, "prompt_tokens_details", "cache_write_tokens"),
        reasoning_tokens=client.count(said, "completion_tokens_details", "reasoning_tokens"),
        cost_usd=float(cost) if type(cost) in (int, float) and cost >= 0 else None,
    )


def _model(entry: Any, provider: str) -> Model:
    """A model as vLLM, OpenRouter or llama.cpp list it."""
    said: JsonObject = entry.model_extra or {}
    inner = [said, *(said[name] for name in ("meta", "top_provider") if isinstance(said.get(name), dict))]
    flags = said.get("supported_parameters")
    able = cast(list[Any], flags) if isinstance(flags, list) else []
    return Model(
        model=entry.id,
        provider=provider,
        context_tokens=_first(inner, "max_model_len", "context_length", "n_ctx", "n_ctx_train"),
        output_tokens_max=_first(inner, "max_completion_tokens"),
        abilities=tuple(ours for theirs, ours in _ABILITIES.items() if theirs in able),
    )


def _first(said: list[JsonObject], *names: str) -> int | None:
    """The first of these that is a count."""
    found = (part.get(name) for name in names for part in said)
    return next((value for value in found if type(value) is int and value > 0), None)


def _are_stops(value: Any) -> bool:
    stops = cast(list[Any], value) if isinstance(value, list) else [value]
    return 0 < len(stops) <= 16 and all(isinstance(stop, str) and stop for stop in stops)
