"""Gemini through its SDK, against a server on a real socket."""

import gc
import inspect
import itertools
import json
import re
import socket
import time
from collections.abc import AsyncIterator
from contextlib import aclosing, suppress
from pathlib import Path
from types import ModuleType
from typing import Any

import anyio
import anyio.to_thread
import httpx2
import pydantic
import pytest
from google import genai
from google.genai import _gaos, _interactions_errors, errors
from vendors.lanes import Seen
from vendors.script import Call, Fault, Text, Thinking, Turn, sse
from vendors.script import Usage as Counts
from vendors.server import Server, lane

from meerkat_mcp.domain import messages as said
from meerkat_mcp.domain.errors import MeerkatError, ProviderRejected, ProviderUnauthenticated, ProviderUnavailable
from meerkat_mcp.domain.messages import (
    AssistantMessage,
    Image,
    JsonObject,
    Message,
    Reasoning,
    ToolCall,
    ToolDefinition,
    ToolMessage,
    ToolResult,
    UserMessage,
)
from meerkat_mcp.providers import wire
from meerkat_mcp.providers.base import Access, ArgsPiece, Model, ModelRequest, Part, Piece, Provider, Reply, Whole
from meerkat_mcp.providers.gemini import GeminiProvider

pytestmark = pytest.mark.anyio

MODEL = "gemini-3.8-flash"
WEATHER = ToolDefinition(
    name="weather",
    description="How it is there.",
    input_schema={
        "type": "object",
        "properties": {"place": {"$ref": "#/$defs/place"}, "at": {"anyOf": [{"type": "string"}, {"type": "null"}]}},
        "$defs": {"place": {"type": "string", "minLength": 1}},
        "additionalProperties": False,
    },
)


class Chat:
    """A conversation with the fake: `say` is a prompt and one reply, `step` only the reply."""

    def __init__(self, server: Server, http: wire.Http, **request: Any) -> None:
        access = {name: request.pop(name) for name in ("connect_timeout_s", "idle_timeout_s") if name in request}
        self.server = server
        self.lane = lane()
        self.provider: Provider = GeminiProvider(Access(base_url=server.url, api_key=self.lane, **access), http)
        self.request: dict[str, Any] = {"model": MODEL, "max_tokens": 1000} | request
        self.messages: list[Message] = []
        self.parts: list[Part] = []
        self.heard = anyio.Event()

    def queue(self, *turns: Turn) -> None:
        self.server.fake.queue(self.lane, *turns)

    def play(self, *events: JsonObject) -> None:
        """Let the fake answer with just these events, of which it remembers nothing."""
        self.server.fake.lenient(self.lane)
        stream = b"".join(sse(event, event.get("event_type")) for event in events)
        self.queue(Turn([Text("never")], fault=Fault(garbage_after=0, garbage=stream, end_after=1)))

    async def say(self, prompt: str = "Hello.") -> str:
        self.messages.append(UserMessage(text=prompt))
        return await self.step()

    async def answer(self, *results: ToolResult) -> str:
        self.messages.append(ToolMessage(results=results))
        return await self.step()

    async def step(self) -> str:
        self.parts = []
        with anyio.fail_after(10):
            async for part in self.provider.reply(ModelRequest(messages=tuple(self.messages), **self.request)):
                self.parts.append(part)
                self.heard.set()
        blocks = tuple(_block(part) for part in self.parts if isinstance(part, Whole | ToolCall))
        provider, model = self.provider.name, self.request["model"]
        message = AssistantMessage(blocks=blocks, provider=provider, model=model, items=self.end.items)
        self.messages.append(message)
        return message.text

    @property
    def end(self) -> Reply:
        assert isinstance(self.parts[-1], Reply)
        assert sum(isinstance(part, Reply) for part in self.parts) == 1
        return self.parts[-1]

    @property
    def calls(self) -> list[ToolCall]:
        return [part for part in self.parts if isinstance(part, ToolCall)]

    @property
    def seen(self) -> Seen:
        return self.server.fake.requests(self.lane)[-1]

    @property
    def sent(self) -> JsonObject:
        return self.seen.body


def _block(part: Whole | ToolCall) -> said.Text | Reasoning | ToolCall:
    if isinstance(part, ToolCall):
        return part
    return said.Text(text=part.text) if part.kind == "text" else Reasoning(text=part.text)


@pytest.fixture
async def http() -> AsyncIterator[wire.Http]:
    http = wire.Http()
    yield http
    await http.close()


@pytest.fixture
def chat(vendors: Server, http: wire.Http) -> Chat:
    return Chat(vendors, http)


def text(text: str) -> JsonObject:
    return {"type": "text", "text": text}


def ended(status: str, **fields: Any) -> JsonObject:
    return {"event_type": "interaction.completed", "interaction": {"id": "v1_x", "status": status, **fields}}


def step(index: int, **fields: Any) -> JsonObject:
    return {"event_type": "step.start", "index": index, "step": fields}


# ── the conversation ──


async def test_a_conversation_with_reasoning_parallel_calls_and_a_second_turn(vendors: Server, http: wire.Http):
    chat = Chat(vendors, http, system_prompt="Be brief.", tools=(WEATHER, ToolDefinition(name="2nd-tool")))
    chat.queue(
        Turn([Thinking("Two places, hm.", "why"), Text("Let me look."), _call("Oslo", "fc1"), _call("Rome", "fc2")]),
        Turn([Thinking("Easy."), Text("Cold and warm.")]),
        Turn([Text("You are welcome.")]),
    )
    assert await chat.say("Oslo and Rome?") == "Let me look."
    pieces = [(part.kind, part.text) for part in chat.parts if isinstance(part, Piece)]
    assert pieces == [("reasoning", "Two plac"), ("reasoning", "es, hm."), ("text", "Let me l"), ("text", "ook.")]
    assert [part.text for part in chat.parts if isinstance(part, Whole)] == ["Two places, hm.", "Let me look."]
    args = [part for part in chat.parts if isinstance(part, ArgsPiece)]
    assert {(part.tool_use_id, part.tool_name) for part in args} == {("fc1", "weather"), ("fc2", "weather")}
    assert "".join(part.text for part in args) == '{"place":"Oslo"}{"place":"Rome"}'
    assert [(call.tool_use_id, call.args) for call in chat.calls] == [
        ("fc1", {"place": "Oslo"}),
        ("fc2", {"place": "Rome"}),
    ]
    assert chat.end.stop_reason == "tool_calls"
    assert chat.end.model == MODEL
    assert chat.end.response_id.startswith("v1_")
    items = chat.end.items
    results = ToolResult(tool_use_id="fc1", content="-3"), ToolResult(tool_use_id="fc2", content="down", is_error=True)
    assert await chat.answer(*results) == "Cold and warm."
    assert chat.end.stop_reason == "end"
    assert await chat.say("Thanks!") == "You are welcome."

    bodies = [seen.body for seen in vendors.fake.requests(chat.lane)]
    assert chat.seen.path == "/v1/interactions"
    assert bodies[1]["input"] == [
        {"type": "user_input", "content": [text("Oslo and Rome?")]},
        *items,
        {"type": "function_result", "call_id": "fc1", "name": "weather", "result": "-3"},
        {"type": "function_result", "call_id": "fc2", "name": "weather", "result": "down", "is_error": True},
    ]
    assert bodies[2]["input"][-1] == {"type": "user_input", "content": [text("Thanks!")]}
    for body in bodies:
        assert body["store"] is False
        assert body["stream"] is True
        assert body["system_instruction"] == "Be brief."
        assert body["tools"] == [
            {"type": "function", "name": "weather", "description": "How it is there."}
            | {"parameters": WEATHER.input_schema},
            {"type": "function", "name": "_2nd-tool", "parameters": {"type": "object"}},
        ]
        assert body["generation_config"] == {"max_output_tokens": 1000}
    for before, after in itertools.pairwise(bodies):
        assert json.dumps(after).startswith(json.dumps(before).removesuffix("]}"))


def _call(place: str, call_id: str) -> Call:
    return Call("weather", {"place": place}, call_id)


async def test_items_keep_signatures_and_fields_that_no_one_knows(chat: Chat):
    chat.play(
        step(0, type="thought", summary=None, signature=""),
        {"event_type": "step.delta", "index": 0, "delta": {"type": "thought_summary", "content": text("Hm")}},
        {"event_type": "step.delta", "index": 0, "delta": {"type": "thought_signature", "signature": "c2ln"}},
        {"event_type": "step.stop", "index": 0},
        step(1, type="brand_new_step", a={"b": [1]}),
        {"event_type": "step.delta", "index": 1, "delta": {"type": "brand_new_delta"}},
        {"event_type": "brand.new.event"},
        step(2, type="model_output"),
        {"event_type": "step.delta", "index": 2, "delta": text("a")},
        {"event_type": "step.delta", "index": 2, "delta": {"type": "image", "data": "aW1n", "mime_type": "image/png"}},
        {"event_type": "step.delta", "index": 2, "delta": text("b")},
        {"event_type": "step.delta", "index": 2, "delta": {"type": "text_annotation_delta", "annotations": [{"x": 1}]}},
        step(3, type="function_call", id="", name="weather", arguments={"place": "Oslo"}, signature="Zm4="),
        ended("requires_action"),
    )
    chat.queue(Turn([Text("Done.")]))
    assert await chat.say() == "ab"
    kept = [
        {"type": "thought", "signature": "c2ln", "summary": [text("Hm")]},
        {"type": "brand_new_step", "a": {"b": [1]}},
        {
            "type": "model_output",
            "content": [
                text("a"),
                {"type": "image", "data": "aW1n", "mime_type": "image/png"},
                text("b") | {"annotations": [{"x": 1}]},
            ],
        },
        {"type": "function_call", "id": "call_3", "name": "weather"}
        | {"arguments": {"place": "Oslo"}, "signature": "Zm4="},
    ]
    assert list(chat.end.items) == kept
    assert chat.calls == [ToolCall(tool_use_id="call_3", tool_name="weather", args={"place": "Oslo"})]
    await chat.answer(ToolResult(tool_use_id="call_3", content="ok"))
    assert chat.sent["input"][1:-1] == kept


async def test_a_thought_that_never_got_its_signature_stays_here(chat: Chat):
    chat.play(
        step(0, type="thought", signature="", summary=[text("Hm")]), step(1, type="model_output"), ended("completed")
    )
    chat.queue(Turn([Text("Done.")]))
    await chat.say()
    assert [part.text for part in chat.parts if isinstance(part, Whole)] == ["Hm"]
    await chat.say()
    assert chat.sent["input"][1:-1] == [{"type": "model_output", "content": []}]


@pytest.mark.parametrize("change", [{"model": "gemini-4-argon"}, {"provider": "anthropic"}, {"items": ()}], ids=str)
async def test_what_another_model_wrote_is_retold_without_its_reasoning(chat: Chat, change: JsonObject):
    foreign = "toolu|made:elsewhere"
    blocks = (
        Reasoning(text="secret"),
        said.Text(text="Let me look."),
        ToolCall(tool_use_id=foreign, tool_name="9lives", args={"a": 1}),
        ToolCall(tool_use_id="fine-id", tool_name="weather", args={}, malformed="{no"),
    )
    item = {"type": "thought", "signature": "bound"}
    fields = {"provider": "gemini", "model": MODEL, "items": (item,)} | change
    chat.messages = [UserMessage(text="Hello."), AssistantMessage(blocks=blocks, **fields)]
    chat.queue(Turn([Text("I see.")]))
    chat.server.fake.lenient(chat.lane)
    await chat.answer(
        ToolResult(tool_use_id=foreign, content="one"),
        ToolResult(tool_use_id="fine-id", content="two"),
        ToolResult(tool_use_id="unheard-of", content="three"),
    )
    call_id = wire.call_id(foreign)
    assert re.fullmatch(r"[A-Za-z0-9_-]{1,64}", call_id)
    assert chat.sent["input"][1:] == [
        {"type": "model_output", "content": [text("Let me look.")]},
        {"type": "function_call", "id": call_id, "name": "_9lives", "arguments": {"a": 1}},
        {"type": "function_call", "id": "fine-id", "name": "weather", "arguments": {}},
        {"type": "function_result", "call_id": call_id, "name": "_9lives", "result": "one"},
        {"type": "function_result", "call_id": "fine-id", "name": "weather", "result": "two"},
        {"type": "function_result", "call_id": "unheard-of", "result": "three"},
    ]


async def test_names_that_the_wire_does_not_take_come_back_as_they_were(vendors: Server, http: wire.Http):
    names = ("9a", "_9a", "__9a", "-b", "ok")
    chat = Chat(vendors, http, tools=tuple(ToolDefinition(name=name) for name in names))
    sent = ("___9a", "_9a", "__9a", "_-b", "ok")
    chat.queue(Turn([Call(name) for name in (*sent, "invented")]))
    await chat.say()
    assert tuple(tool["name"] for tool in chat.sent["tools"]) == sent
    assert tuple(call.tool_name for call in chat.calls) == (*names, "invented")
    assert {part.tool_name for part in chat.parts if isinstance(part, ArgsPiece)} == {*names, "invented"}


async def test_arguments_that_are_no_object_are_kept_as_written(chat: Chat):
    chat.queue(Turn([Call("weather", id="fc1", bad_json='{"place": "Os'), Call("weather", id="fc2", bad_json="[1]")]))
    await chat.say()
    assert [(call.args, call.malformed) for call in chat.calls] == [({}, '{"place": "Os'), ({}, "[1]")]
    assert [item["arguments"] for item in chat.end.items] == [{}, {}]
    assert chat.end.stop_reason == "tool_calls"


async def test_pictures_go_with_the_result_and_those_that_cannot_be_seen_are_named(chat: Chat):
    png, svg = Image(mime_type="image/png", data="aW1n"), Image(mime_type="image/svg+xml", data="PHN2Zz4=")
    call = ToolCall(tool_use_id="fc1", tool_name="look", args={})
    chat.messages = [AssistantMessage(blocks=(call,))]
    chat.queue(Turn([Text("Nice.")]), Turn([Text("Nice.")]))
    await chat.answer(ToolResult(tool_use_id="fc1", content="Two.", images=(png, svg)))
    picture = {"type": "image", "mime_type": "image/png", "data": "aW1n"}
    note = text("[A picture of type image/svg+xml, which this model cannot see.]")
    assert chat.sent["input"][-1]["result"] == [text("Two."), picture, note]
    chat.messages = chat.messages[:1]
    await chat.answer(ToolResult(tool_use_id="fc1", content="", images=(png,)))
    assert chat.sent["input"][-1]["result"] == [picture]


async def test_an_output_schema_is_the_response_format(vendors: Server, http: wire.Http):
    schema = {"type": "object", "properties": {"x": {"$ref": "#/$defs/x"}}, "$defs": {"x": {"type": "integer"}}}
    chat = Chat(vendors, http, output_schema=schema)
    chat.queue(Turn([Text('{"x": 1}')]))
    assert await chat.say() == '{"x": 1}'
    assert chat.sent["response_format"] == {"type": "text", "mime_type": "application/json", "schema": schema}


async def test_a_reply_that_paused_goes_on_from_what_was_asked(chat: Chat):
    chat.play(
        step(0, type="model_output", content=[text("Once ")]), ended("requires_continuation", continuation_token="t1")
    )
    chat.play(
        step(0, type="model_output", content=[text("upon ")]), ended("requires_continuation", continuation_token="t2")
    )
    chat.queue(Turn([Text("a time.")]), Turn([Text("The end.")]))
    asked = [{"type": "user_input", "content": [text("Tell me.")]}]
    assert await chat.say("Tell me.") == "Once "
    assert chat.end.stop_reason == "pause"
    assert "continuation_token" not in chat.sent
    for token, words in (("t1", "upon "), ("t2", "a time.")):
        assert await chat.step() == words
        assert (chat.sent["continuation_token"], chat.sent["input"]) == (token, asked)
    await chat.say("And then?")
    outputs = [{"type": "model_output", "content": [text(words)]} for words in ("Once ", "upon ", "a time.")]
    assert chat.sent["input"][1:-1] == outputs
    assert "continuation_token" not in chat.sent


# ── how it ends ──


@pytest.mark.parametrize(
    ("status", "stop"),
    [
        ("completed", "end"),
        ("requires_action", "end"),
        ("incomplete", "length"),
        ("requires_continuation", "pause"),
        ("failed", "refusal"),
    ],
)
async def test_a_status_is_a_stop_reason(chat: Chat, status: str, stop: str):
    chat.play(step(0, type="model_output", content=[text("Well")]), ended(status))
    assert await chat.say() == "Well"
    assert chat.end.stop_reason == stop
    assert bool(chat.end.detail) == (stop == "refusal")


async def test_a_call_makes_completed_a_tool_call(chat: Chat):
    chat.play(step(0, type="function_call", id="fc1", name="x", arguments={}), ended("completed"))
    await chat.say()
    assert chat.end.stop_reason == "tool_calls"


@pytest.mark.parametrize("where", ["step", "interaction"])
async def test_a_refusal_says_why(chat: Chat, where: str):
    error = {"code": 3, "message": "Blocked for SAFETY."}
    chat.play(
        step(0, type="model_output", **{"error": error} if where == "step" else {}),
        ended("failed", **{"error": error} if where == "interaction" else {}),
    )
    await chat.say()
    assert (chat.end.stop_reason, chat.end.detail) == ("refusal", "3 Blocked for SAFETY.")


@pytest.mark.parametrize(
    ("status", "failed", "kind", "raised"),
    [
        ("failed", {"code": 14, "message": "Try later."}, "overloaded", ProviderUnavailable),
        ("failed", {"code": 13, "message": "Oops."}, "server", ProviderUnavailable),
        ("failed", {"code": 3, "message": "Bad schema."}, "bad_request", ProviderRejected),
        ("failed", {"code": "RESOURCE_EXHAUSTED"}, "rate_limit", ProviderUnavailable),
        ("cancelled", None, "server", ProviderUnavailable),
        ("in_progress", None, "server", ProviderUnavailable),
        ("budget_exceeded", None, "quota", ProviderRejected),
    ],
)
async def test_an_interaction_that_broke_is_an_error(
    chat: Chat, status: str, failed: JsonObject | None, kind: str, raised: type[MeerkatError]
):
    chat.play(ended(status, error=failed))
    with pytest.raises(raised) as caught:
        await chat.say()
    assert caught.value.facts["kind"] == kind


async def test_usage_counts_what_was_read_and_written_and_costs(chat: Chat):
    chat.queue(Turn([Text("a")], usage=Counts(input=1000, output=200, cached=400, reasoning=70)))
    await chat.say()
    usage = chat.end.usage
    assert usage.cost_usd
    assert usage.model_copy(update={"cost_usd": None}) == said.Usage(
        input_tokens=1000, output_tokens=200, cache_read_tokens=400, reasoning_tokens=70
    )
    chat.play(ended("completed", model="nothing-i-know", usage={"total_input_tokens": 5, "total_tool_use_tokens": 3}))
    await chat.say()
    assert chat.end.usage == said.Usage(input_tokens=8)
    assert chat.end.model == "nothing-i-know"


@pytest.mark.parametrize("frames", [2, 3, 4, 6])
async def test_a_stream_without_its_last_event_is_truncated(chat: Chat, frames: int):
    chat.queue(Turn([Text("Hello there, you.")], fault=Fault(end_after=frames)))
    await chat.say()
    assert chat.end.stop_reason == "truncated"
    assert chat.end.items == ()
    assert [part.text for part in chat.parts if isinstance(part, Piece)] == ["Hello th", "ere, you", "."][: frames - 2]


@pytest.mark.parametrize("size", [1, 2, 3, 7, 64])
async def test_the_bytes_may_come_in_any_pieces(chat: Chat, size: int):
    words = "Grüße 😀\u2028é\u0085\x1c end"
    chat.queue(Turn([Text(words), Call("x", {"a": words})], piece=3, fault=Fault(chunk=size)))
    assert await chat.say() == words
    assert chat.calls[0].args == {"a": words}


async def test_comments_line_ends_and_names_of_events_do_not_matter(chat: Chat):
    first, last = (
        json.dumps(step(0, type="model_output", content=[text("Hi")])),
        json.dumps(ended("completed"), indent=1),
    )
    lines = "".join(f"data:{line}\r\n" for line in last.splitlines())
    stream = (
        f": keep-alive\r\n\r\nid: 7\r\ndata: {{}}\r\n\r\nevent: x\r\ndata:{first}\r\n\r\n{lines}\r\ndata: [DONE]\n\n"
    )
    chat.queue(Turn(fault=Fault(garbage_after=0, garbage=stream.encode(), end_after=1)))
    assert await chat.say() == "Hi"
    assert chat.end.stop_reason == "end"


async def test_one_connection_serves_reply_after_reply(chat: Chat, http: wire.Http):
    connected: list[str] = []

    async def trace(event: str, info: Any) -> None:
        if event == "connection.connect_tcp.complete":
            connected.append(event)

    async def watch(request: httpx2.Request) -> None:
        request.extensions["trace"] = trace

    (await http.client()).event_hooks = {"request": [watch]}
    chat.queue(*[Turn([Text("a")])] * 3)
    for _ in range(3):
        await chat.say()
    assert len(connected) == 1


# ── what goes wrong ──


@pytest.mark.parametrize(
    ("fault", "kind", "raised"),
    [
        (Fault(status=429), "rate_limit", ProviderUnavailable),
        (Fault(status=503), "overloaded", ProviderUnavailable),
        (Fault(status=503, body="<html>Bad gateway</html>"), "overloaded", ProviderUnavailable),
        (Fault(status=500), "server", ProviderUnavailable),
        (Fault(status=502, body=""), "server", ProviderUnavailable),
        (Fault(status=504), "timeout", ProviderUnavailable),
        (Fault(status=401), "auth", ProviderUnauthenticated),
        (Fault(status=403), "auth", ProviderUnauthenticated),
        (Fault(status=400, message="API key not valid. Please pass one."), "auth", ProviderUnauthenticated),
        (Fault(status=400, message="The input token count (9) exceeds the maximum (8)."), "context", ProviderRejected),
        (Fault(status=404), "not_found", ProviderRejected),
        (Fault(status=400), "bad_request", ProviderRejected),
        (
            Fault(status=400, body='{"error": {"message": "No.", "code": "invalid_request"}}'),
            "bad_request",
            ProviderRejected,
        ),
        (Fault(status=400, body='[{"error": "odd"}]'), "bad_request", ProviderRejected),
        (Fault(status=302, headers={"location": "/elsewhere"}), "bad_request", ProviderRejected),
        (Fault(status=200, body="<html>Log in first</html>"), "malformed", ProviderUnavailable),
        (Fault(stall_before=30), "timeout", ProviderUnavailable),
        (Fault(stall_after=3), "timeout", ProviderUnavailable),
        (Fault(cut_after=0), "connection", ProviderUnavailable),
        (Fault(cut_after=3), "connection", ProviderUnavailable),
        (Fault(error_after=0), "overloaded", ProviderUnavailable),
        (Fault(error_after=3), "overloaded", ProviderUnavailable),
        (Fault(error_after=3, code="INVALID_ARGUMENT"), "bad_request", ProviderRejected),
        (Fault(error_after=3, code="https://errors/INTERNAL"), "server", ProviderUnavailable),
        (Fault(error_after=3, code="NEVER_HEARD_OF"), "server", ProviderUnavailable),
        (Fault(garbage_after=3), "malformed", ProviderUnavailable),
        (Fault(garbage_after=3, garbage=b"data: 7\n\n"), "malformed", ProviderUnavailable),
        (Fault(garbage_after=3, garbage=b"data: \xff\xfe{}\n\n"), "malformed", ProviderUnavailable),
        (Fault(garbage_after=3, garbage=b'data: {"x": "\\ud83d"}\n\n'), "malformed", ProviderUnavailable),
        (Fault(garbage_after=3, garbage=b'data: {"x": NaN}\n\n'), "malformed", ProviderUnavailable),
        (
            Fault(garbage_after=3, garbage=b'data: {"x": ' + b"[" * 190 + b"]" * 190 + b"}\n\n"),
            "malformed",
            ProviderUnavailable,
        ),
        (Fault(garbage_after=3, garbage=sse({"event_type": "error"})), "server", ProviderUnavailable),
        (
            Fault(garbage_after=3, garbage=sse({"error": {"code": 503, "message": "x"}})),
            "overloaded",
            ProviderUnavailable,
        ),
        (Fault(garbage_after=3, garbage=sse({"event_type": "step.start"})), "malformed", ProviderUnavailable),
        (
            Fault(garbage_after=3, garbage=sse({"event_type": "step.delta", "index": 9, "delta": {}})),
            "malformed",
            ProviderUnavailable,
        ),
        (
            Fault(
                garbage_after=3,
                garbage=sse({"event_type": "step.delta", "index": 0, "delta": {"type": "text", "text": 7}}),
            ),
            "malformed",
            ProviderUnavailable,
        ),
        (
            Fault(garbage_after=3, garbage=sse({"event_type": "interaction.completed", "interaction": []})),
            "malformed",
            ProviderUnavailable,
        ),
    ],
    ids=str,
)
async def test_a_fault_is_an_error_of_ours(
    vendors: Server, http: wire.Http, fault: Fault, kind: str, raised: type[MeerkatError]
):
    chat = Chat(vendors, http, idle_timeout_s=0.2)
    chat.queue(Turn([Text("Hello there, you.")], fault=fault))
    with pytest.raises(raised) as caught:
        await chat.say()
    assert caught.value.facts["kind"] == kind
    assert caught.value.facts["provider"] == "gemini"
    assert caught.value.message.startswith("gemini: ")
    assert "<html" not in caught.value.message
    assert len(vendors.fake.requests(chat.lane)) == 1, "the SDK tries nothing again"


@pytest.mark.parametrize(("headers", "wait_s"), [({}, 2.0), ({"retry-after": "7"}, 2.0)])
async def test_the_vendor_says_how_long_to_wait(chat: Chat, headers: dict[str, str], wait_s: float):
    chat.queue(Turn(fault=Fault(status=429, headers=headers)))
    with pytest.raises(ProviderUnavailable) as caught:
        await chat.say()
    assert caught.value.retry_after_s == wait_s
    assert caught.value.facts["provider_code"] == "RESOURCE_EXHAUSTED"
    chat.queue(Turn(fault=Fault(status=503, headers={"retry-after": "7"})))
    with pytest.raises(ProviderUnavailable) as caught:
        await chat.say()
    assert caught.value.retry_after_s == 7


async def test_nobody_there_and_a_host_that_does_not_answer(http: wire.Http):
    async def fails(url: str, kind: str) -> None:
        provider = GeminiProvider(Access(base_url=url, api_key="k", connect_timeout_s=0.2), http)
        request = ModelRequest(model=MODEL, max_tokens=9, messages=(UserMessage(text="hi"),))
        with anyio.fail_after(5), pytest.raises(ProviderUnavailable) as caught:
            [part async for part in provider.reply(request)]
        assert caught.value.facts["kind"] == kind
        with anyio.fail_after(5), pytest.raises(ProviderUnavailable):
            await provider.models()

    with socket.create_server(("127.0.0.1", 0), backlog=0) as full:
        address = full.getsockname()
        waiting = [socket.socket() for _ in range(3)]
        for one in waiting:
            one.setblocking(False)
            with suppress(BlockingIOError):
                one.connect(address)
        await fails(f"http://127.0.0.1:{address[1]}", "timeout")
        for one in waiting:
            one.close()
    await fails(f"http://127.0.0.1:{address[1]}", "connection")


@pytest.mark.parametrize("key", ["", "clé", "two\nlines"])
async def test_without_a_real_key_nothing_is_sent(
    vendors: Server, http: wire.Http, key: str, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setenv("GOOGLE_API_KEY", stray := lane())
    provider = GeminiProvider(Access(base_url=vendors.url, api_key=key), http)
    request = ModelRequest(model=MODEL, max_tokens=9, messages=(UserMessage(text="hi"),))
    with pytest.raises(ProviderUnauthenticated):
        [part async for part in provider.reply(request)]
    with pytest.raises(ProviderUnauthenticated):
        await provider.models()
    assert vendors.fake.requests(stray) == []


def exceptions_of(*modules: ModuleType) -> list[type[Exception]]:
    found = {cls for module in modules for _, cls in inspect.getmembers(module, inspect.isclass)}
    return sorted((cls for cls in found if issubclass(cls, Exception) and not issubclass(cls, Warning)), key=str)


def _raised(cls: type[Exception]) -> Exception:
    """An exception as its makers would fill it, whatever their constructors want."""
    if cls is pydantic.ValidationError:
        return pydantic.ValidationError.from_exception_data("x", [])
    if cls is json.JSONDecodeError:
        return json.JSONDecodeError("x", "x", 0)
    if cls is UnicodeDecodeError:
        return UnicodeDecodeError("utf-8", b"\xff", 0, 1, "x")
    exc = cls.__new__(cls)
    status = cls.__dict__.get("status_code")
    status = status if isinstance(status, int) else 500
    request = httpx2.Request("POST", "http://localhost/")
    response = httpx2.Response(status, request=request)
    fields: JsonObject = {"message": "x", "body": None, "raw_response": response, "status": None, "details": {}}
    fields |= {"response": response, "_request": request, "status_code": status, "code": status}
    for name, value in fields.items():
        with suppress(AttributeError):
            object.__setattr__(exc, name, value)
    return exc


SDK_ERRORS = exceptions_of(errors, _interactions_errors, _gaos.errors)
FOREIGN = [*SDK_ERRORS, *exceptions_of(httpx2), json.JSONDecodeError, UnicodeDecodeError, pydantic.ValidationError]
KINDS = {
    "APITimeoutError": "timeout",
    "APIConnectionError": "connection",
    "APIWebSocketError": "connection",
    "NoResponseError": "connection",
    "APIResponseValidationError": "malformed",
    "ResponseValidationError": "malformed",
    "UnknownApiResponseError": "malformed",
    "BadRequestError": "bad_request",
    "AuthenticationError": "auth",
    "PermissionDeniedError": "auth",
    "NotFoundError": "not_found",
    "ConflictError": "server",
    "UnprocessableEntityError": "bad_request",
    "RateLimitError": "rate_limit",
    "InvalidURL": "bad_request",
    "CookieConflict": "bad_request",
    "JSONDecodeError": "malformed",
    "UnicodeDecodeError": "malformed",
    "ValidationError": "malformed",
}
"""What is not told by being of the transport, or a failure of the server."""


def expected(cls: type[Exception]) -> str:
    if issubclass(cls, httpx2.TimeoutException):
        return "timeout"
    if issubclass(cls, httpx2.HTTPError | httpx2.StreamError):
        return "connection"
    return KINDS.get(cls.__name__, "server")


class Breaking(httpx2.AsyncByteStream):
    """A body that breaks off with an exception."""

    def __init__(self, exc: Exception) -> None:
        self.exc = exc

    async def __aiter__(self) -> AsyncIterator[bytes]:
        yield sse(step(0, type="model_output", content=[text("Hi")]))
        raise self.exc


@pytest.mark.parametrize("cls", FOREIGN, ids=lambda cls: f"{cls.__module__}.{cls.__name__}")
async def test_every_error_of_the_sdk_and_the_transport_becomes_one_of_ours(
    cls: type[Exception], chat: Chat, http: wire.Http, monkeypatch: pytest.MonkeyPatch
):
    async def refuse(request: httpx2.Request, **options: Any) -> httpx2.Response:
        raise _raised(cls)

    async def begin(request: httpx2.Request, **options: Any) -> httpx2.Response:
        return httpx2.Response(200, headers={"content-type": "text/event-stream"}, stream=Breaking(_raised(cls)))

    for send in (refuse, begin):
        monkeypatch.setattr(await http.client(), "send", send)
        with pytest.raises(MeerkatError) as caught:
            await chat.say()
        assert caught.value.facts["kind"] == expected(cls)
    assert [part for part in chat.parts if isinstance(part, Piece)] == [Piece(kind="text", text="Hi")]


def test_the_walk_over_the_errors_misses_no_module():
    homes = {cls.__module__ for cls in SDK_ERRORS}
    assert len(SDK_ERRORS) > 20
    assert {"google.genai.errors", "google.genai._interactions_errors"} <= homes
    known = {cls.__name__ for cls in FOREIGN}
    assert set(KINDS) <= known


async def test_a_bug_is_no_error_of_the_provider(chat: Chat, http: wire.Http, monkeypatch: pytest.MonkeyPatch):
    async def broken(request: httpx2.Request, **options: Any) -> httpx2.Response:
        raise RuntimeError("a bug")

    monkeypatch.setattr(await http.client(), "send", broken)
    with pytest.raises(RuntimeError, match="a bug"):
        await chat.say()


# ── stopping, closing ──


@pytest.mark.parametrize("fault", [Fault(stall_before=60), Fault(stall_after=4)], ids=["before headers", "mid-stream"])
async def test_cancelling_the_reader_hangs_up_at_once(vendors: Server, http: wire.Http, fault: Fault):
    took: list[float] = []
    for _ in range(3):  # one of them undisturbed by whatever else this machine does
        chat = Chat(vendors, http)
        chat.queue(Turn([Text("Hello there.")], fault=fault))
        with anyio.fail_after(5):
            async with anyio.create_task_group() as tasks:
                tasks.start_soon(chat.say)
                await anyio.to_thread.run_sync(vendors.fake.wait_requests, chat.lane, 1)
                if fault.stall_after:
                    await chat.heard.wait()
                cancelled = time.time()
                tasks.cancel_scope.cancel()
            assert await anyio.to_thread.run_sync(chat.seen.gone.wait, 5)
        assert chat.seen.disconnected
        took.append(chat.seen.disconnected - cancelled)
        chat.queue(Turn([Text("Still here.")]))
        assert await chat.say() == "Still here."
    assert min(took) < 0.05


async def test_a_reader_that_closes_the_reply_hangs_up(chat: Chat):
    chat.queue(Turn([Text("Hello there.")], fault=Fault(stall_after=4)))
    request = ModelRequest(model=MODEL, max_tokens=9, messages=(UserMessage(text="hi"),))
    async with aclosing(chat.provider.reply(request)) as reply:
        assert await anext(reply) == Piece(kind="text", text="Hello th")
    assert await anyio.to_thread.run_sync(chat.seen.gone.wait, 5)


async def test_a_provider_leaves_nothing_behind_and_the_shared_client_open(vendors: Server, http: wire.Http):
    chat = Chat(vendors, http)
    chat.queue(Turn([Text("Hello.")]))
    await chat.say()
    before = len(anyio.get_running_tasks())
    del chat
    gc.collect()
    await anyio.lowlevel.checkpoint()
    assert len(anyio.get_running_tasks()) == before
    assert not (await http.client()).is_closed


# ── the environment, the settings, the models ──


def variables() -> set[str]:
    """Every variable that the SDK may ask for."""
    asks = re.compile(r"""(?:environ\.get|getenv|environ\[|get_global_from_env)[^"'\]]*["']([A-Z][A-Z0-9_]+)["']""")
    sources = Path(genai.__file__).parent.rglob("*.py")
    return {
        name for source in sources if "/tests/" not in str(source) for name in asks.findall(source.read_text("utf-8"))
    }


async def test_no_variable_of_the_environment_changes_a_request(
    vendors: Server, http: wire.Http, monkeypatch: pytest.MonkeyPatch
):
    async def asked() -> tuple[Any, ...]:
        chat = Chat(vendors, http)
        chat.queue(Turn([Text("Hello.")]))
        await chat.say()
        listed = await chat.provider.models()
        seen = [chat.seen, *vendors.fake.lookups(chat.lane)]
        assert {one.headers["x-goog-api-key"] for one in seen} == {chat.lane}
        return listed, [(one.path, dict(one.headers) | {"x-goog-api-key": ""}, one.body) for one in seen]

    plain = await asked()
    stray = variables()
    assert {
        "GOOGLE_API_KEY",
        "GOOGLE_GEMINI_BASE_URL",
        "GOOGLE_GENAI_USE_VERTEXAI",
        "GOOGLE_GENAI_USER_PROJECT",
    } <= stray
    elsewhere = {"SSL_CERT_FILE", "SSL_CERT_DIR", "GOOGLE_GENAI_HTTP_CLIENT", "GOOGLE_GENAI_DEBUG"}
    for name in stray - elsewhere:  # those are of TLS, of which package is used, and of logging
        monkeypatch.setenv(name, "true" if "USE" in name else "replay" if "MODE" in name else "http://stray")
    assert await asked() == plain


async def test_what_the_sdk_cannot_use_is_said(vendors: Server, http: wire.Http, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("GOOGLE_GENAI_HTTP_CLIENT", "httpx")
    with pytest.raises(ProviderRejected, match="GOOGLE_GENAI_HTTP_CLIENT"):
        await Chat(vendors, http).say()


async def test_the_version_of_the_api_is_an_option(vendors: Server, http: wire.Http):
    access = Access(base_url=f"{vendors.url}/", api_key=lane(), options=(("api_version", "v1beta"),))
    vendors.fake.queue(access.api_key, Turn([Text("Hi")]))
    request = ModelRequest(model=MODEL, max_tokens=9, messages=(UserMessage(text="hi"),))
    [part async for part in GeminiProvider(access, http, name="mirror").reply(request)]
    assert vendors.fake.requests(access.api_key)[0].path == "/v1beta/interactions"


@pytest.mark.parametrize(
    ("params", "sent"),
    [
        ({}, {}),
        ({"reasoning_effort": "xhigh"}, {"thinking_level": "xhigh", "thinking_summaries": "auto"}),
        (
            {"reasoning_effort": "low", "thinking_summaries": "none"},
            {"thinking_level": "low", "thinking_summaries": "none"},
        ),
        (
            {"stop_sequences": ["END"], "tool_choice": "none", "seed": 7},
            {"stop_sequences": ["END"], "tool_choice": "none", "seed": 7},
        ),
    ],
)
async def test_a_setting_reaches_the_model(vendors: Server, http: wire.Http, params: JsonObject, sent: JsonObject):
    chat = Chat(vendors, http, provider_params=params)
    chat.queue(Turn([Text("Hi")]))
    await chat.say()
    assert chat.sent["generation_config"] == {"max_output_tokens": 1000} | sent


async def test_the_tier_is_a_setting_of_the_request(vendors: Server, http: wire.Http):
    chat = Chat(vendors, http, provider_params={"service_tier": "flex"})
    chat.queue(Turn([Text("Hi")]))
    await chat.say()
    assert chat.sent["service_tier"] == "flex"


@pytest.mark.parametrize(
    ("params", "complaint"),
    [
        ({"reasoning_efort": "low"}, "reasoning_effort"),
        ({"zzz": 1}, "stop_sequences"),
        ({"temperature": 0.5}, "deprecated"),
        ({"top_p": 1}, "deprecated"),
        ({"reasoning_effort": "none"}, "minimal"),
        ({"reasoning_effort": "huge"}, "xhigh"),
        ({"reasoning_effort": ["low"]}, "xhigh"),
        ({"thinking_summaries": True}, "auto"),
        ({"tool_choice": "any"}, "auto, none"),
        ({"service_tier": "deferred"}, "flex"),
        ({"stop_sequences": "END"}, "list"),
        ({"stop_sequences": []}, "list"),
        ({"stop_sequences": [""]}, "list"),
        ({"stop_sequences": ["a"] * 6}, "list"),
        ({"seed": True}, "whole number"),
        ({"seed": 2**31}, "whole number"),
        ({"seed": 1.5}, "whole number"),
    ],
    ids=str,
)
async def test_a_setting_that_is_none_is_rejected_before_anything_is_sent(
    vendors: Server, http: wire.Http, params: JsonObject, complaint: str
):
    chat = Chat(vendors, http, provider_params=params)
    with pytest.raises(ProviderRejected, match=complaint) as caught:
        await chat.say()
    assert f"provider_params.{next(iter(params))}" in caught.value.message
    assert vendors.fake.requests(chat.lane) == []


async def test_the_models_are_those_that_write_text(vendors: Server, http: wire.Http):
    access = Access(base_url=vendors.url, api_key=lane())
    models = await GeminiProvider(access, http, name="mirror").models()
    assert [model.model for model in models] == ["gemini-4-argon", "gemini-3.8-flash"]
    assert {model.provider for model in models} == {"mirror"}
    assert models[1] == Model(
        model="gemini-3.8-flash",
        provider="mirror",
        context_tokens=1_048_576,
        output_tokens_max=65_536,
        abilities=("reasoning",),
    )
    assert vendors.fake.lookups(access.api_key)[0].path == "/v1/models?pageSize=1000"
