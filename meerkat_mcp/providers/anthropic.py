"""Anthropic's Messages API, through the vendor's SDK: its raw stream, without its retries.

The SDK reads settings from the environment, from profiles on disk and from the caller. Only the last is wanted: all
that goes out comes from `Access` and the request.
"""

from collections.abc import AsyncGenerator, Iterator
from dataclasses import dataclass, field
from typing import Any

from meerkat_mcp.domain.errors import MeerkatError
from meerkat_mcp.domain.messages import JsonObject, StopReason, ToolCall, Usage
from meerkat_mcp.providers import anthropic_history as history
from meerkat_mcp.providers import anthropic_params as params
from meerkat_mcp.providers import wire
from meerkat_mcp.providers.base import Access, ArgsPiece, Model, ModelRequest, Part, Piece, Reply, Whole
from meerkat_mcp.providers.catalog import priced

MODELS_PAGE = 1_000

_STOPS: dict[str, StopReason] = {
    "end_turn": "end",
    "stop_sequence": "end",
    "tool_use": "tool_calls",
    "max_tokens": "length",
    "refusal": "refusal",
    "model_context_window_exceeded": "context",
    "pause_turn": "pause",
}


class AnthropicProvider:
    """Asks Claude. See `Provider` for the contract."""

    def __init__(self, access: Access, http: wire.Http, *, name: str = "anthropic") -> None:
        self.name = name
        self._access = access
        self._http = http
        self._client: Any = None

    async def reply(self, request: ModelRequest) -> AsyncGenerator[Part]:
        """Stream one reply; see `Provider.reply`."""
        chosen = params.parse(self.name, request.provider_params)
        body, betas = params.settings(self.name, request, chosen)
        reading = _Reading()
        sdk, client = await self._connect()
        self._fill(body, request, sdk)
        headers = {"anthropic-beta": ",".join(betas)} if betas else {}
        try:
            async with await client.messages.create(stream=True, **body, extra_headers=headers) as stream:
                async for event in stream:
                    for part in reading.take(event):
                        yield part
        except Exception as exc:
            raise failure_of(exc, self.name, sdk) from exc
        usage = await priced(self.name, reading.model or request.model, reading.usage)
        yield reading.reply(usage)

    async def models(self) -> tuple[Model, ...]:
        """The models this key may use; see `Provider.models`."""
        sdk, client = await self._connect()
        try:
            return tuple([self._model(info) async for info in client.models.list(limit=MODELS_PAGE)])
        except Exception as exc:
            raise failure_of(exc, self.name, sdk) from exc

    def _fill(self, body: JsonObject, request: ModelRequest, sdk: Any) -> None:
        """Put the conversation into the body, and how the answer is to look."""
        system = request.system_prompt
        if request.output_schema is not None:
            form = params.output_format(request.model, request.output_schema, sdk.transform_schema)
            if form is None:
                system = wire.told_schema(system, request.output_schema)
            else:
                body["output_config"] = body.get("output_config", {}) | {"format": form}
        said = history.messages(request.messages, self.name, request.model)
        if body.get("thinking", {}).get("type") == "enabled" and history.began_without_reasoning(said):
            del body["thinking"]
        body |= {"model": request.model, "max_tokens": request.max_tokens, "messages": said}
        if system.strip():
            body["system"] = system
        if request.tools:
            body["tools"] = history.tools(request.tools)
        elif old := history.tools_of_old(said):
            body |= {"tools": old, "tool_choice": {"type": "none"}}

    async def _connect(self) -> tuple[Any, Any]:
        """The SDK and its one client here.

        Raises:
            ProviderUnauthenticated: there is no key, or none that a header can carry.
        """
        key = self._access.api_key
        if not (key.strip() and key.isascii() and key.isprintable()):
            raise wire.failure("auth", self.name, "there is no key" if not key.strip() else "the key is malformed")
        sdk, httpx, http = await wire.load("anthropic"), await wire.load("httpx2"), await self._http.client()
        if self._client is None:
            idle_s, connect_s = self._access.idle_timeout_s, self._access.connect_timeout_s
            self._client = sdk.AsyncAnthropic(
                api_key=key,
                base_url=self._access.base_url,
                timeout=httpx.Timeout(connect=connect_s, pool=connect_s, read=idle_s, write=idle_s),
                max_retries=0,
                http_client=http,
                open_telemetry=False,  # spans are ours to make, the same for all wires
            )
            # The constructor puts those of ANTHROPIC_CUSTOM_HEADERS here, whatever it is called with.
            self._client._custom_headers = {}
        return sdk, self._client

    def _model(self, info: Any) -> Model:
        can = info.capabilities
        abilities = {
            "tools": True,
            "reasoning": can is not None and can.thinking.supported,
            "structured_output": can is not None and can.structured_outputs.supported,
            "images": can is not None and can.image_input.supported,
        }
        return Model(
            model=info.id,
            provider=self.name,
            context_tokens=info.max_input_tokens,
            output_tokens_max=info.max_tokens,
            abilities=tuple(name for name, has in abilities.items() if has),
        )


@dataclass(slots=True)
class _Block:
    """A content block in the making: as it began, and what was written since."""

    item: JsonObject
    pieces: list[str] = field(default_factory=list[str])


class _Reading:
    """One message as it is read. `take` raises anything at all where an event has not the shape that it should."""

    def __init__(self) -> None:
        self.model = ""
        self._id = ""
        self._blocks: dict[int, _Block] = {}
        self._items: list[JsonObject] = []
        self._counts: JsonObject = {}
        self._stop: str | None = None
        self._detail = ""
        self._ended = False

    def take(self, event: Any) -> Iterator[Part]:
        """What an event of the stream brings."""
        match event.type:
            case "message_start":
                self._id, self.model = event.message.id, event.message.model
                self._count(event.message.usage)
            case "content_block_start":
                block = self._blocks[event.index] = _Block(event.content_block.to_dict(mode="json"))
                yield from self._write(block, _written(block.item))
            case "content_block_delta":
                yield from self._grow(self._blocks[event.index], event.delta)
            case "content_block_stop":
                yield from self._finish(self._blocks.pop(event.index))
            case "message_delta":
                self._stop = event.delta.stop_reason
                self._count(event.usage)
                if (details := event.delta.stop_details) is not None:
                    self._detail = ": ".join(filter(None, [details.category, details.explanation]))
            case "message_stop":
                self._ended = True
            case _:
                pass  # what is new must not stop what is known

    @property
    def usage(self) -> Usage:
        """What was read and written so far. The vendor counts what the cache saved or took beside the input."""
        read, written = (
            self._counts.get("cache_read_input_tokens", 0),
            self._counts.get("cache_creation_input_tokens", 0),
        )
        return Usage(
            input_tokens=self._counts.get("input_tokens", 0) + read + written,
            output_tokens=self._counts.get("output_tokens", 0),
            cache_read_tokens=read,
            cache_write_tokens=written,
            reasoning_tokens=self._counts.get("thinking_tokens", 0),
        )

    def reply(self, usage: Usage) -> Reply:
        """How it ended."""
        called = any(item["type"] == "tool_use" for item in self._items)
        stop = _STOPS.get(self._stop or "", "tool_calls" if called else "end")
        return Reply(
            stop_reason=stop if self._ended else "truncated",
            usage=usage,
            items=tuple(self._items),
            model=self.model,
            response_id=self._id,
            detail=self._detail,
        )

    def _count(self, usage: Any) -> None:
        """Counts are of the whole message each time; what is not said stays."""
        counts: JsonObject = usage.to_dict(mode="json")
        self._counts |= {name: count for name, count in counts.items() if isinstance(count, int)}
        self._counts |= counts.get("output_tokens_details") or {}

    def _grow(self, block: _Block, delta: Any) -> Iterator[Part]:
        match delta.type:
            case "text_delta":
                yield from self._write(block, delta.text)
            case "thinking_delta":
                yield from self._write(block, delta.thinking)
            case "input_json_delta":
                yield from self._write(block, delta.partial_json)
            case "signature_delta":
                block.item["signature"] = delta.signature
            case "citations_delta":
                known: list[JsonObject] = block.item.get("citations") or []
                block.item["citations"] = [*known, delta.citation.to_dict(mode="json")]
            case _:
                pass

    def _write(self, block: _Block, text: str) -> Iterator[Part]:
        if not text:
            return
        block.pieces.append(text)
        match block.item["type"]:
            case "text":
                yield Piece(kind="text", text=text)
            case "thinking":
                yield Piece(kind="reasoning", text=text)
            case "tool_use":
                yield ArgsPiece(tool_use_id=block.item["id"], tool_name=block.item["name"], text=text)
            case _:
                pass

    def _finish(self, block: _Block) -> Iterator[Part]:
        item, text = block.item, "".join(block.pieces)
        self._items.append(item)
        match item["type"]:
            case "text":
                item["text"] = text
                if text:
                    yield Whole(kind="text", text=text)
            case "thinking":
                item["thinking"] = text
                if text:
                    yield Whole(kind="reasoning", text=text)
            case "tool_use":
                args, malformed = wire.arguments(text) if text else (item["input"], None)
                item["input"] = args  # the vendor takes nothing but an object back
                yield ToolCall(tool_use_id=item["id"], tool_name=item["name"], args=args, malformed=malformed)
            case _ if text and "input" in item:
                item["input"] = wire.arguments(text)[0]
            case _:
                pass


def _written(item: JsonObject) -> str:
    """What a block begins with; nothing, as a rule."""
    return item.get({"text": "text", "thinking": "thinking"}.get(item["type"], ""), "")


def failure_of(exc: Exception, provider: str, sdk: Any) -> MeerkatError:
    """Our error for whatever the SDK raises, or the network, or a garbled stream through it."""
    if isinstance(exc, MeerkatError):
        return exc
    if isinstance(exc, sdk.APIStatusError):
        return _refusal(exc, provider)
    if isinstance(exc, sdk.APITimeoutError):
        return wire.failure("timeout", provider, "no answer in time")
    if isinstance(exc, sdk.APIConnectionError):
        cause = exc.__cause__
        known = wire.transport_failure(cause, provider) if isinstance(cause, Exception) else None
        return known or wire.failure("connection", provider, f"the connection failed ({type(cause).__name__})")
    if (known := wire.transport_failure(exc, provider)) is not None:
        return known
    return wire.failure("malformed", provider, f"the stream makes no sense ({type(exc).__name__}: {exc})")


def _refusal(exc: Any, provider: str) -> MeerkatError:
    """The vendor's word. An error within a stream comes with the status of the stream, 200: its type says more."""
    status: int | None = exc.status_code if exc.status_code >= 400 else None
    message = str(getattr(exc, "api_message", None) or exc.message)
    if message.lstrip().startswith("<"):
        message = "a web page came in place of an answer"
    kind = wire.kind_of(status, exc.error_code, message)
    if kind not in ("quota", "context"):
        kind = wire.kind_of(status, exc.type, message)
    if status is None and exc.type is None:
        kind = "server"
    return wire.failure(
        kind, provider, message, status=status, code=exc.error_code or exc.type, headers=exc.response.headers
    )
