"""The seam to language models: one request in, pieces as they come, one finished reply out."""

from collections.abc import AsyncGenerator
from typing import Literal, Protocol, TypeAlias

from pydantic import Field

from meerkat_mcp.domain.messages import JsonObject, Message, StopReason, ToolCall, ToolDefinition, Usage, Value


class ModelRequest(Value):
    """One model call. `messages` is the whole conversation; `output_schema` is what the answer must fit."""

    model: str
    provider_params: JsonObject = Field(default_factory=dict)
    system_prompt: str = ""
    messages: tuple[Message, ...]
    tools: tuple[ToolDefinition, ...] = ()
    output_schema: JsonObject | None = None
    max_tokens: int


class Piece(Value):
    """A piece of text or reasoning, as it is written."""

    kind: Literal["text", "reasoning"]
    text: str


class Whole(Value):
    """A block of text or reasoning is finished: this is all of it."""

    kind: Literal["text", "reasoning"]
    text: str


class Reply(Value):
    """How the reply ended. `items` are the provider's own output items, verbatim."""

    stop_reason: StopReason
    usage: Usage
    items: tuple[JsonObject, ...] = ()


Part: TypeAlias = Piece | Whole | ToolCall | Reply


class Model(Value):
    """A model of the catalogue; None is not known. Prices are US dollars for a million tokens."""

    model: str
    provider: str
    context_tokens: int | None = None
    output_tokens_max: int | None = None
    input_usd: float | None = None
    output_usd: float | None = None
    abilities: tuple[str, ...] = ()


class Provider(Protocol):
    """Whoever answers."""

    name: str

    def reply(self, request: ModelRequest) -> AsyncGenerator[Part, None]:
        """Stream one reply: pieces and wholes of blocks and tool calls in order, then exactly one `Reply`.

        A stream that ends without its terminal event ends with a `Reply` of stop reason `truncated`.
        Closing the iterator, or cancelling its reader, hangs up.

        Raises:
            ProviderUnavailable: overload, rate limit, network. Worth trying again.
            ProviderRejected: the provider refused this request for good.
            ProviderUnauthenticated: no key, or a wrong one.
        """
        ...

    def models(self) -> tuple[Model, ...]:
        """The models this provider is known to have."""
        ...
