"""What a model reads and writes, the same for every provider."""

from typing import Annotated, Any, Literal, TypeAlias

from pydantic import BaseModel, ConfigDict, Field
from pydantic_core import from_json

JsonObject: TypeAlias = dict[str, Any]

StopReason = Literal["end", "tool_calls", "length", "refusal", "context", "pause", "truncated"]
"""Why a step stopped: it was done, wants tools, ran into `max_tokens`, refused, ran out of the model's window, paused
to be asked again, or the stream broke off."""


UNFINISHED: frozenset[StopReason] = frozenset({"length", "context", "refusal"})
"""A call in a reply that stopped so is not made: it may not be whole, however it looks, or is not to be trusted."""

_LEVELS_TO_SPARE = 16


def legible(body: bytes) -> bool:
    """Whether JSON can be read again, also inside something else: readers stop at 200 levels, writers at 255."""
    if body.count(b"{") + body.count(b"[") < 100:
        return True
    try:
        from_json(b"[" * _LEVELS_TO_SPARE + body + b"]" * _LEVELS_TO_SPARE)
    except ValueError:
        return False
    return True


class Value(BaseModel):
    """A frozen value: equal by content, never changed in place, closed to unknown fields."""

    model_config = ConfigDict(frozen=True, extra="forbid")


class Text(Value):
    """Text the model wrote."""

    kind: Literal["text"] = "text"
    text: str


class Reasoning(Value):
    """Reasoning the model showed; goes back only to the provider that wrote it, inside its own items."""

    kind: Literal["reasoning"] = "reasoning"
    text: str


class ToolCall(Value):
    """The model asks for a tool: `args` is always an object.

    Where the model wrote none, `args` is empty and `malformed` is what it wrote instead: that call is never made.
    """

    kind: Literal["tool_call"] = "tool_call"
    tool_use_id: str
    tool_name: str
    args: JsonObject
    malformed: str | None = None


def without(calls: tuple[ToolCall, ...], tool_use_id: str) -> tuple[ToolCall, ...]:
    """The calls but for this one."""
    return tuple(call for call in calls if call.tool_use_id != tool_use_id)


Block = Annotated[Text | Reasoning | ToolCall, Field(discriminator="kind")]


class UserMessage(Value):
    """A prompt, or what stands for one: a compaction summary, a note that the answer did not fit a schema."""

    role: Literal["user"] = "user"
    text: str


class AssistantMessage(Value):
    """One finished step. `items` are the provider's own output items, verbatim, for replay to the same wire."""

    role: Literal["assistant"] = "assistant"
    blocks: tuple[Block, ...]
    provider: str = ""
    model: str = ""
    items: tuple[JsonObject, ...] = ()

    @property
    def text(self) -> str:
        """What the model said, without its reasoning."""
        return "".join(block.text for block in self.blocks if isinstance(block, Text))

    @property
    def tool_calls(self) -> tuple[ToolCall, ...]:
        """The calls of this step, in the model's order."""
        return tuple(block for block in self.blocks if isinstance(block, ToolCall))


class Image(Value):
    """A picture: `data` is base64."""

    mime_type: str
    data: str


class ToolResult(Value):
    """What a tool answered; `is_error` tells the model that it failed."""

    tool_use_id: str
    content: str
    images: tuple[Image, ...] = ()
    is_error: bool = False


class ToolMessage(Value):
    """The results of one step's calls, in the order of the calls."""

    role: Literal["tool"] = "tool"
    results: tuple[ToolResult, ...]


Message = Annotated[UserMessage | AssistantMessage | ToolMessage, Field(discriminator="role")]


class ToolDefinition(Value):
    """A tool as a model sees it."""

    name: str
    description: str = ""
    input_schema: JsonObject = Field(default_factory=lambda: {"type": "object"})


class Usage(Value):
    """Tokens and money, by the GenAI conventions of OpenTelemetry.

    `input_tokens` is everything read, also what came from the provider's cache or went into it; `output_tokens` is
    everything written, reasoning included. `cost_usd` is None when a price is not known.
    """

    input_tokens: int = 0
    output_tokens: int = 0
    cache_read_tokens: int = 0
    cache_write_tokens: int = 0
    reasoning_tokens: int = 0
    cost_usd: float | None = None

    @property
    def total_tokens(self) -> int:
        """What budgets count: everything read and written, cached or not."""
        return self.input_tokens + self.output_tokens

    def __add__(self, other: "Usage") -> "Usage":
        costs = [cost for cost in (self.cost_usd, other.cost_usd) if cost is not None]
        return Usage(
            input_tokens=self.input_tokens + other.input_tokens,
            output_tokens=self.output_tokens + other.output_tokens,
            cache_read_tokens=self.cache_read_tokens + other.cache_read_tokens,
            cache_write_tokens=self.cache_write_tokens + other.cache_write_tokens,
            reasoning_tokens=self.reasoning_tokens + other.reasoning_tokens,
            cost_usd=sum(costs) if costs else None,
        )
