"""A conversation with a provider over one of OpenAI's wires, and how the tests of both look at it."""

from typing import Any

import anyio
from vendors.lanes import Seen
from vendors.script import Fault, JsonObject, Turn, sse
from vendors.server import Server, lane

from meerkat_mcp.domain.messages import (
    AssistantMessage,
    Message,
    Reasoning,
    Text,
    ToolCall,
    ToolDefinition,
    ToolMessage,
    ToolResult,
    UserMessage,
)
from meerkat_mcp.providers.base import Access, ArgsPiece, ModelRequest, Part, Piece, Provider, Reply, Whole
from meerkat_mcp.providers.openai_chat import ChatProvider
from meerkat_mcp.providers.openai_responses import ResponsesProvider
from meerkat_mcp.providers.wire import Http

WEATHER = ToolDefinition(
    name="weather",
    description="Tells the weather.",
    input_schema={"type": "object", "properties": {"city": {"type": "string"}}, "required": ["city"]},
)
CLOCK = ToolDefinition(name="clock", description="Tells the time.")
WIRES = {"responses": (ResponsesProvider, "gpt-6-sol"), "chat": (ChatProvider, "qwen3")}


class Talk:
    """A conversation in a lane of its own. `step` is one reply, which is then part of the conversation."""

    def __init__(self, wire: str, server: Server, http: Http, *turns: Turn, **access: Any) -> None:
        make, model = WIRES[wire]
        self.lane = lane()
        self.server = server
        where = {"base_url": f"{server.url}/v1", "api_key": self.lane} | access
        self.provider: Provider = make(Access(**where), http)
        self.request: JsonObject = {"model": model, "max_tokens": 1_000}
        self.messages: list[Message] = []
        self.parts: list[Part] = []
        server.fake.queue(self.lane, *turns)

    async def say(self, prompt: str, **request: Any) -> Reply:
        self.messages.append(UserMessage(text=prompt))
        return await self.step(**request)

    async def answer(self, *results: str | ToolResult, **request: Any) -> Reply:
        """Bring the results of the last step's calls."""
        answers = [
            result if isinstance(result, ToolResult) else ToolResult(tool_use_id=call.tool_use_id, content=result)
            for call, result in zip(self.calls, results, strict=True)
        ]
        self.messages.append(ToolMessage(results=tuple(answers)))
        return await self.step(**request)

    def asked(self, prompt: str) -> ModelRequest:
        """A request that stands for itself."""
        return ModelRequest(messages=(UserMessage(text=prompt),), **self.request)

    async def step(self, **request: Any) -> Reply:
        self.parts = []
        self.request |= request
        with anyio.fail_after(10):
            async for part in self.provider.reply(ModelRequest(messages=tuple(self.messages), **self.request)):
                self.parts.append(part)
        *before, end = self.parts
        assert isinstance(end, Reply)
        assert not any(isinstance(part, Reply) for part in before)
        blocks = tuple(_block(part) for part in before if isinstance(part, Whole | ToolCall))
        self.messages.append(
            AssistantMessage(blocks=blocks, provider=self.provider.name, model=self.request["model"], items=end.items)
        )
        return end

    @property
    def calls(self) -> list[ToolCall]:
        return [part for part in self.parts if isinstance(part, ToolCall)]

    def wholes(self, kind: str = "text") -> list[str]:
        return [part.text for part in self.parts if isinstance(part, Whole) and part.kind == kind]

    def pieces(self, kind: str = "text") -> list[str]:
        return [part.text for part in self.parts if isinstance(part, Piece) and part.kind == kind]

    def written(self, tool_use_id: str) -> str:
        """A call's arguments, as they were streamed."""
        pieces = [part for part in self.parts if isinstance(part, ArgsPiece) and part.tool_use_id == tool_use_id]
        return "".join(piece.text for piece in pieces)

    @property
    def seen(self) -> list[Seen]:
        return self.server.fake.requests(self.lane)

    @property
    def bodies(self) -> list[JsonObject]:
        return [seen.body for seen in self.seen]


def _block(part: Whole | ToolCall) -> Text | Reasoning | ToolCall:
    if isinstance(part, ToolCall):
        return part
    return Text(text=part.text) if part.kind == "text" else Reasoning(text=part.text)


def raw(*events: JsonObject | str | bytes) -> Turn:
    """A reply of just these events; what the fake adds is its first one, which says nothing."""
    frames = [event if isinstance(event, bytes) else sse(event) for event in events]
    return Turn(fault=Fault(garbage_after=0, garbage=b"".join(frames), end_after=1))
