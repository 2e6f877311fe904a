"""What OpenTelemetry sees of a turn: a span each for the turn, its model calls and its tools; tokens and times.

The names are those of the GenAI conventions (semantic-conventions-genai 0.1), still in development: they stand here
and nowhere else. What was said, by whomever, is not recorded, unless an operator asks for it (`record_content`).
Without a provider of OpenTelemetry all of this does nothing, in a few microseconds.

    with chat(session_id=..., provider="openai", model="gpt-6.1-sol", max_tokens=1000) as span:
        ...
        span.replied("gpt-6.1-sol-2026-09-29", "resp_1", "end", usage)

A span is the parent of those that begin inside it, also in tasks that are started inside it. So it must not be held
open over the `yield` of a generator: the one who reads there would be inside too.
"""

import json
import time
from collections.abc import Mapping, Sequence
from functools import lru_cache
from types import TracebackType
from typing import Any, Self
from urllib.parse import urlsplit

from opentelemetry import context, metrics, trace
from opentelemetry.metrics import Histogram, Meter
from opentelemetry.trace import SpanKind, StatusCode
from opentelemetry.util.types import AttributeValue

from meerkat_mcp.domain.errors import MeerkatError
from meerkat_mcp.domain.messages import (
    AssistantMessage,
    JsonObject,
    Message,
    StopReason,
    ToolCall,
    ToolMessage,
    Usage,
    UserMessage,
)
from meerkat_mcp.domain.version import VERSION

CONTENT_VARIABLE = "OTEL_INSTRUMENTATION_GENAI_CAPTURE_MESSAGE_CONTENT"
"""What OpenTelemetry's own instrumentations of models call the wish to record what was said."""
CONTENT_CHARS_MAX = 200_000

AGENT = "meerkat"
CANCELLED = "cancelled"

_PROVIDERS: Mapping[str, str] = {"gemini": "gcp.gemini"}
"""What the conventions call our providers, where that differs."""

_FINISH_REASONS: Mapping[StopReason, str] = {
    "end": "stop",
    "tool_calls": "tool_call",
    "refusal": "content_filter",
    "context": "length",
    "truncated": "error",
}
_DIMENSIONS = (
    "gen_ai.operation.name",
    "gen_ai.provider.name",
    "gen_ai.request.model",
    "gen_ai.response.model",
    "gen_ai.agent.name",
    "gen_ai.tool.name",
    "gen_ai.tool.type",
    "server.address",
    "server.port",
    "error.type",
)
"""Which attributes of a span its measurements have too: those with few values."""

_SECONDS = [0.01 * 2**power for power in range(14)]
"""The bounds that the conventions advise: 10 ms to 82 s."""


class Instruments:
    """What is measured beside the spans."""

    def __init__(self, meter: Meter) -> None:
        def seconds(name: str, description: str) -> Histogram:
            return meter.create_histogram(name, "s", description, explicit_bucket_boundaries_advisory=_SECONDS)

        def tokens(name: str, description: str) -> metrics.Counter:
            return meter.create_counter(f"gen_ai.client.inference.usage.{name}", "{token}", description)

        self.chat_s = seconds("gen_ai.client.inference.duration", "Duration of model calls, their retries included.")
        self.first_piece_s = seconds("gen_ai.client.inference.time_to_first_chunk", "Time to a reply's first piece.")
        self.agent_s = seconds("gen_ai.invoke_agent.duration", "Duration of turns.")
        self.tool_s = seconds("gen_ai.execute_tool.duration", "Duration of tool executions.")
        self.input_tokens = tokens("input_tokens", "Tokens read, cached ones included.")
        self.output_tokens = tokens("output_tokens", "Tokens written, reasoning included.")
        self.cache_read_tokens = tokens("cache_read.input_tokens", "Tokens that came from a provider's cache.")
        self.cache_write_tokens = tokens("cache_write.input_tokens", "Tokens that went into a provider's cache.")
        self.reasoning_tokens = tokens("reasoning.output_tokens", "Tokens written as reasoning.")


_tracer = trace.get_tracer("meerkat_mcp", VERSION)
_instruments = Instruments(metrics.get_meter("meerkat_mcp", VERSION))


_records_content = False


def record_content(wanted: str | None) -> None:
    """Record what was said from now on, in every span of this process, if the variable's value asks for it."""
    global _records_content
    _records_content = (wanted or "").strip().lower() in ("true", "1", "span_only", "span_and_event")


class Span:
    """Something under way. An exception that leaves the `with` is how it failed; its text stays out of the span."""

    __slots__ = ("_attributes", "_duration", "_error_type", "_kind", "_name", "_span", "_started_s", "_token")

    def __init__(self, name: str, kind: SpanKind, duration: Histogram, attributes: dict[str, AttributeValue]) -> None:
        self._name = name
        self._kind = kind
        self._duration = duration
        self._attributes = attributes
        self._error_type = ""

    def __enter__(self) -> Self:
        self._started_s = time.perf_counter()
        self._span = _tracer.start_span(self._name, kind=self._kind, attributes=self._attributes)
        # A span that is not recorded can still be a parent: of those that are not to be recorded either.
        is_parent = self._span.get_span_context().is_valid
        self._token = context.attach(trace.set_span_in_context(self._span)) if is_parent else None
        return self

    def __exit__(self, _: type[BaseException] | None, exc: BaseException | None, __: TracebackType | None) -> None:
        if exc is not None and not self._error_type:
            self.failed(error_type_of(exc))
        if self._token is not None:
            context.detach(self._token)
        self._span.end()
        self._duration.record(time.perf_counter() - self._started_s, self._dimensions())

    def failed(self, error_type: str) -> None:
        """It failed; `error_type` is one of few words: a code, the class of an exception. The last word counts."""
        self._error_type = error_type
        self._set({"error.type": error_type})
        self._span.set_status(StatusCode.ERROR)

    def called(self, args: JsonObject, result: str) -> None:
        """What a tool was called with, and what it answered: recorded only when that is asked for."""
        if _records_content and self._span.is_recording():
            self._tell("gen_ai.tool.call.arguments", args)
            self._tell("gen_ai.tool.call.result", result)

    def _tell(self, name: str, content: Any) -> None:
        text = content if isinstance(content, str) else json.dumps(content, ensure_ascii=False)
        self._span.set_attribute(name, text[:CONTENT_CHARS_MAX])

    def _set(self, attributes: dict[str, AttributeValue]) -> None:
        self._attributes |= attributes
        if self._span.is_recording():
            self._span.set_attributes(attributes)

    def _dimensions(self) -> dict[str, AttributeValue]:
        return {name: self._attributes[name] for name in _DIMENSIONS if name in self._attributes}


class ModelCall(Span):
    """A model call, from the first attempt to the end of the last."""

    __slots__ = ()

    def retried(self, attempt: int) -> None:
        """Attempt number `attempt`, counted from 1, failed, and there will be another."""
        self._set({"meerkat.retries": attempt})

    def first_piece(self, seconds: float) -> None:
        """The first piece of the reply came, so long after the request went out."""
        self._set({"gen_ai.response.time_to_first_chunk": seconds})
        _instruments.first_piece_s.record(seconds, self._dimensions())

    def replied(self, model: str, response_id: str, stop_reason: StopReason, usage: Usage) -> None:
        """The reply is complete. `model` is the one that answered, `response_id` the provider's name for the reply."""
        said: dict[str, AttributeValue] = {
            "gen_ai.response.finish_reasons": (_FINISH_REASONS.get(stop_reason, stop_reason),),
            "gen_ai.usage.input_tokens": usage.input_tokens,
            "gen_ai.usage.output_tokens": usage.output_tokens,
        }
        optional: dict[str, AttributeValue | None] = {
            "gen_ai.response.model": model,
            "gen_ai.response.id": response_id,
            "gen_ai.usage.cache_read.input_tokens": usage.cache_read_tokens,
            "gen_ai.usage.cache_write.input_tokens": usage.cache_write_tokens,
            "gen_ai.usage.reasoning.output_tokens": usage.reasoning_tokens,
            "meerkat.usage.cost_usd": usage.cost_usd,
        }
        self._set(said | {name: value for name, value in optional.items() if value})
        self._count(usage)

    def said(self, system: str, messages: Sequence[Message], text: str, calls: Sequence[ToolCall]) -> None:
        """What the model was asked, and what it said: recorded only when that is asked for. Pictures never are."""
        if not _records_content or not self._span.is_recording():
            return
        if system:
            self._tell("gen_ai.system_instructions", [{"type": "text", "content": system}])
        self._tell("gen_ai.input.messages", [_told(message) for message in messages])
        self._tell("gen_ai.output.messages", [{"role": "assistant", "parts": _parts(text, calls)}])

    def failed(self, error_type: str) -> None:
        """As of every span; a reply that was expected and did not come ends by `error`."""
        super().failed(error_type)
        if "gen_ai.response.finish_reasons" not in self._attributes:
            self._set({"gen_ai.response.finish_reasons": ("error",)})

    def _count(self, usage: Usage) -> None:
        # Providers do not say which tokens were a picture's.
        dimensions = self._dimensions() | {"gen_ai.token.modality": "unknown"}
        _instruments.input_tokens.add(usage.input_tokens, dimensions)
        _instruments.output_tokens.add(usage.output_tokens, dimensions)
        _instruments.cache_read_tokens.add(usage.cache_read_tokens, dimensions)
        _instruments.cache_write_tokens.add(usage.cache_write_tokens, dimensions)
        _instruments.reasoning_tokens.add(usage.reasoning_tokens, dimensions)


def invoke_agent(*, session_id: str, turn_id: str, model: str, provider: str, kind: str) -> Span:
    """A turn of a session; `kind` is what for: a prompt, a compaction."""
    attributes: dict[str, AttributeValue] = {
        "gen_ai.operation.name": "invoke_agent",
        "gen_ai.agent.name": AGENT,
        "gen_ai.conversation.id": session_id,
        "gen_ai.provider.name": _PROVIDERS.get(provider, provider),
        "gen_ai.request.model": model,
        "meerkat.turn.id": turn_id,
        "meerkat.turn.kind": kind,
    }
    return Span(f"invoke_agent {AGENT}", SpanKind.INTERNAL, _instruments.agent_s, attributes)


def chat(*, session_id: str, provider: str, model: str, max_tokens: int, base_url: str = "") -> ModelCall:
    """A model call, all its attempts together; `base_url` is where the provider is."""
    attributes: dict[str, AttributeValue] = {
        "gen_ai.operation.name": "chat",
        "gen_ai.conversation.id": session_id,
        "gen_ai.provider.name": _PROVIDERS.get(provider, provider),
        "gen_ai.request.model": model,
        "gen_ai.request.max_tokens": max_tokens,
        "gen_ai.request.stream": True,
        **_server(base_url),
    }
    return ModelCall(f"chat {model}", SpanKind.CLIENT, _instruments.chat_s, attributes)


def execute_tool(*, tool_name: str, tool_use_id: str, server: str = "") -> Span:
    """A tool at work; `server` is the name of the tool server that has it, empty for none."""
    attributes: dict[str, AttributeValue] = {
        "gen_ai.operation.name": "execute_tool",
        "gen_ai.tool.name": tool_name,
        "gen_ai.tool.call.id": tool_use_id,
        "gen_ai.tool.type": "function",
    }
    if server:
        attributes["meerkat.tool.server"] = server
    return Span(f"execute_tool {tool_name}", SpanKind.INTERNAL, _instruments.tool_s, attributes)


def error_type_of(exc: BaseException) -> str:
    """One of few words for what went wrong: our code, what kind of refusal of a provider, else the class's name."""
    if isinstance(exc, MeerkatError):
        return str(exc.facts.get("kind") or exc.code)
    return type(exc).__qualname__ if isinstance(exc, Exception) else CANCELLED


def _told(message: Message) -> JsonObject:
    match message:
        case UserMessage():
            return {"role": "user", "parts": _parts(message.text, ())}
        case AssistantMessage():
            return {"role": "assistant", "parts": _parts(message.text, message.tool_calls)}
        case ToolMessage():
            answers = [
                {"type": "tool_call_response", "id": result.tool_use_id, "response": result.content}
                for result in message.results
            ]
            return {"role": "tool", "parts": answers}


def _parts(text: str, calls: Sequence[ToolCall]) -> list[JsonObject]:
    said: list[JsonObject] = [{"type": "text", "content": text}] if text else []
    return said + [
        {"type": "tool_call", "id": call.tool_use_id, "name": call.tool_name, "arguments": call.args} for call in calls
    ]


@lru_cache(maxsize=64)
def _server(base_url: str) -> Mapping[str, AttributeValue]:
    parts = urlsplit(base_url)
    if not parts.hostname:
        return {}
    return {"server.address": parts.hostname, "server.port": parts.port or (80 if parts.scheme == "http" else 443)}
