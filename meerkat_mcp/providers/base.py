"""The seam to language models: one request in, pieces as they come, one finished reply out."""

from collections.abc import AsyncGenerator
from dataclasses import dataclass, field
from typing import Literal, Protocol, TypeAlias

from pydantic import Field

from meerkat_mcp.domain.messages import JsonObject, Message, StopReason, ToolCall, ToolDefinition, Usage, Value


class ModelRequest(Value):
    """One model call. `messages` is the whole conversation; `output_schema` is what the answer must fit.

    `session_id` names the conversation to a provider's cache; two calls of one session begin alike.
    """

    model: str
    session_id: str = ""
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


class ArgsPiece(Value):
    """A piece of a tool call's arguments, as they are written: a sign of life, the whole call comes later."""

    tool_use_id: str
    tool_name: str
    text: str


class Reply(Value):
    """How the reply ended. `items` are the provider's own output items, verbatim; `detail` is its word on a refusal.

    `model` is the one that answered, where the provider says so, and `response_id` the provider's name for the reply.
    """

    stop_reason: StopReason
    usage: Usage
    items: tuple[JsonObject, ...] = ()
    model: str = ""
    response_id: str = ""
    detail: str = ""


Part: TypeAlias = Piece | Whole | ArgsPiece | ToolCall | Reply


class Model(Value):
    """A model of the catalogue; None is not known. Prices are US dollars for a million tokens. `server` is the name of
    the self-hosted one that has it.
    """

    model: str
    provider: str
    server: str | None = None
    context_tokens: int | None = None
    output_tokens_max: int | None = None
    input_usd: float | None = None
    output_usd: float | None = None
    cache_read_usd: float | None = None
    cache_write_usd: float | None = None
    abilities: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Access:
    """How a provider is reached: where, with which key, how patiently.

    `connect_timeout_s` bounds the way there, `idle_timeout_s` the silence between two pieces. The time of a whole
    call is its caller's business. `options` are the further settings of one wire.
    """

    base_url: str
    api_key: str = field(repr=False)
    connect_timeout_s: float = 5.0
    idle_timeout_s: float = 300.0
    options: tuple[tuple[str, str], ...] = ()

    def option(self, name: str, default: str = "") -> str:
        """A setting of the wire."""
        return dict(self.options).get(name, default)


class Provider(Protocol):
    """Whoever answers."""

    name: str

    def reply(self, request: ModelRequest) -> AsyncGenerator[Part, None]:
        """Stream one reply: pieces and wholes of blocks and tool calls in order, then exactly one `Reply`.

        A stream that ends without its terminal event ends with a `Reply` of stop reason `truncated`. An assistant
        message with `provider` and `model` as in this request is sent as its `items`, verbatim; any other one as
        its text and tool calls. Cancelling the reader hangs up.

        Raises:
            ProviderUnavailable: overload, rate limit, network. Worth trying again.
            ProviderRejected: the provider refused this request for good.
            ProviderUnauthenticated: no key, or a wrong one.
        """
        ...

    async def models(self) -> tuple[Model, ...]:
        """The models that this provider says it has now, with what it says of them; not their prices.

        Raises:
            As `reply`.
        """
        ...
