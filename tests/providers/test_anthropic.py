"""The Anthropic adapter, over a real socket: what goes out, what comes back, what becomes of all that goes wrong."""

import inspect
import json
import subprocess
import sys
import time
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import anthropic
import anyio
import anyio.to_thread
import httpx2
import pytest
from vendors.lanes import Seen
from vendors.script import Call, Fault, Part, Text, Thinking, Turn, sse
from vendors.server import Server, lane

from meerkat_mcp.domain import messages as m
from meerkat_mcp.domain.errors import MeerkatError, ProviderRejected, ProviderUnauthenticated, ProviderUnavailable
from meerkat_mcp.domain.messages import AssistantMessage, ToolMessage, ToolResult, UserMessage
from meerkat_mcp.providers import base, wire
from meerkat_mcp.providers.anthropic import AnthropicProvider, failure_of
from meerkat_mcp.providers.anthropic_params import BINDING_BETA, SPEED_BETA, generation
from meerkat_mcp.providers.base import Access, ArgsPiece, Model, ModelRequest, Piece, Provider, Reply, Whole

pytestmark = pytest.mark.anyio

OPUS, HAIKU = "claude-opus-5-5", "claude-haiku-4-5"
BOUND = {
    "type": "adaptive",
    "display": "summarized",
    "block_binding": {"prefix_mismatch_behavior": "drop_block"},
}
POINT = {"type": "object", "properties": {"x": {"type": "integer"}}, "required": ["x"]}
TOOLS = (
    m.ToolDefinition(name="weather", description="Tells it.", input_schema=POINT),
    m.ToolDefinition(name="clock", input_schema={"properties": {}}),
)
PIXEL = "iVBORw0KGgo="


class Talk:
    """A conversation: `say` and `answer` make one model call each. `parts` is what the last one brought."""

    def __init__(self, vendors: Server, http: wire.Http, **request: Any) -> None:
        self.vendors, self.lane = vendors, lane()
        self.request: dict[str, Any] = {"model": OPUS, "max_tokens": 4096, "system_prompt": "Be brief."} | request
        self.provider: Provider = AnthropicProvider(Access(vendors.url, self.lane), http)
        self.messages: list[m.Message] = []
        self.parts: list[base.Part] = []

    async def say(self, prompt: str, *script: Part, **turn: Any) -> Reply:
        self.messages.append(UserMessage(text=prompt))
        return await self.step(Turn(script, **turn))

    async def answer(self, *results: ToolResult, script: tuple[Part, ...] = (Text("Done."),)) -> Reply:
        self.messages.append(ToolMessage(results=results))
        return await self.step(Turn(script))

    async def step(self, turn: Turn) -> Reply:
        self.vendors.fake.queue(self.lane, turn)
        self.parts = []
        with anyio.fail_after(5):
            async for part in self.provider.reply(ModelRequest(messages=tuple(self.messages), **self.request)):
                self.parts.append(part)
        reply = self.parts[-1]
        assert isinstance(reply, Reply)
        self.messages.append(
            AssistantMessage(
                blocks=tuple(self.wholes), provider=self.provider.name, model=self.request["model"], items=reply.items
            )
        )
        return reply

    @property
    def wholes(self) -> list[m.Block]:
        kinds = {"text": m.Text, "reasoning": m.Reasoning}
        return [
            kinds[part.kind](text=part.text) if isinstance(part, Whole) else part
            for part in self.parts
            if isinstance(part, Whole | m.ToolCall)
        ]

    @property
    def calls(self) -> list[m.ToolCall]:
        return [part for part in self.parts if isinstance(part, m.ToolCall)]

    @property
    def seen(self) -> Seen:
        return self.vendors.fake.requests(self.lane)[-1]

    @property
    def body(self) -> Any:
        return self.seen.body


@pytest.fixture
async def http() -> AsyncIterator[wire.Http]:
    client = wire.Http()
    yield client
    await client.close()


@pytest.fixture
def talk(vendors: Server, http: wire.Http) -> Talk:
    return Talk(vendors, http, tools=TOOLS)


def said(text: str) -> dict[str, Any]:
    return {"role": "user", "content": [{"type": "text", "text": text}]}


def event(**data: Any) -> bytes:
    return sse(data, data["type"])


# ── a conversation ──


async def test_a_conversation_with_reasoning_parallel_calls_and_results(talk: Talk):
    calls = Call("weather", {"x": 1}, id="toolu_a"), Call("clock", {}, id="toolu_b")
    reply = await talk.say("Hi", Thinking("Let me see", "SIG"), Text("Looking at it."), *calls)
    assert talk.wholes == [
        m.Reasoning(text="Let me see"),
        m.Text(text="Looking at it."),
        m.ToolCall(tool_use_id="toolu_a", tool_name="weather", args={"x": 1}),
        m.ToolCall(tool_use_id="toolu_b", tool_name="clock", args={}),
    ]
    assert [p.text for p in talk.parts if isinstance(p, Piece)] == ["Let me s", "ee", "Looking ", "at it."]
    assert [(p.tool_use_id, p.text) for p in talk.parts if isinstance(p, ArgsPiece)] == [
        ("toolu_a", '{"x":1}'),
        ("toolu_b", "{}"),
    ]
    assert reply.stop_reason == "tool_calls"
    assert reply.items == (
        {"type": "thinking", "thinking": "Let me see", "signature": "SIG"},
        {"type": "text", "text": "Looking at it."},
        {"type": "tool_use", "id": "toolu_a", "name": "weather", "input": {"x": 1}},
        {"type": "tool_use", "id": "toolu_b", "name": "clock", "input": {}},
    )
    assert [type(part) for part in talk.parts].count(Reply) == 1

    cold = ToolResult(tool_use_id="toolu_a", content="cold")
    late = ToolResult(tool_use_id="toolu_b", content="no clock", is_error=True)
    assert (await talk.answer(cold, late)).stop_reason == "end"
    assert talk.wholes == [m.Text(text="Done.")]
    assert talk.body["messages"] == [
        said("Hi"),
        {"role": "assistant", "content": list(reply.items)},
        {
            "role": "user",
            "content": [
                {"type": "tool_result", "tool_use_id": "toolu_a", "content": [{"type": "text", "text": "cold"}]},
                {
                    "type": "tool_result",
                    "tool_use_id": "toolu_b",
                    "content": [{"type": "text", "text": "no clock"}],
                    "is_error": True,
                },
            ],
        },
    ]
    await talk.say("Thanks", Text("Welcome."))
    assert talk.body["messages"][3:] == [
        {"role": "assistant", "content": [{"type": "text", "text": "Done."}]},
        said("Thanks"),
    ]


async def test_the_request_says_what_is_asked_and_nothing_more(talk: Talk):
    await talk.say("Hi", Text("Yes."))
    assert talk.body == {
        "model": OPUS,
        "max_tokens": 4096,
        "stream": True,
        "system": "Be brief.",
        "messages": [said("Hi")],
        "tools": [
            {"name": "weather", "description": "Tells it.", "input_schema": POINT, "eager_input_streaming": True},
            {"name": "clock", "input_schema": {"type": "object", "properties": {}}, "eager_input_streaming": True},
        ],
        "thinking": BOUND,
        "cache_control": {"type": "ephemeral"},
    }
    assert talk.seen.headers["anthropic-beta"] == BINDING_BETA


async def test_each_request_begins_as_the_one_before_it(talk: Talk):
    def pieces() -> tuple[str, str]:
        head = {key: value for key, value in talk.body.items() if key != "messages"}
        return json.dumps(head), json.dumps(talk.body["messages"])

    before: tuple[str, str] | None = None
    await talk.say("Hi", Thinking("Hm", "SIG"), Call("clock", {"b": 1, "a": [2]}, id="toolu_a"))
    for step in range(4):
        head, messages = pieces()
        if before is not None:
            assert head == before[0]
            assert messages.startswith(before[1].removesuffix("]"))
        before = head, messages
        if step % 2:
            await talk.say("More", Text("Yes."), Call("clock", id=f"toolu_{step}"))
        else:
            await talk.answer(*(ToolResult(tool_use_id=call.tool_use_id, content="noon") for call in talk.calls))


@pytest.mark.parametrize("writer", [("openai", OPUS), ("anthropic", "claude-opus-5"), ("", "")])
async def test_what_another_model_wrote_goes_as_its_text_and_calls(talk: Talk, writer: tuple[str, str]):
    talk.messages += [
        UserMessage(text="Hi"),
        AssistantMessage(
            blocks=(
                m.Reasoning(text="secret"),
                m.Text(text="Look"),
                m.ToolCall(tool_use_id="fc:1/x", tool_name="clock", args={"a": 1}),
                m.Text(text="ing."),
            ),
            provider=writer[0],
            model=writer[1],
            items=({"type": "reasoning", "id": "rs_1"},),
        ),
        ToolMessage(results=(ToolResult(tool_use_id="fc:1/x", content="noon"),)),
    ]
    await talk.step(Turn((Text("Noon."),)))
    call, result = talk.body["messages"][1]["content"][1], talk.body["messages"][2]["content"][0]
    assert talk.body["messages"][1]["content"][0] == {"type": "text", "text": "Looking."}
    assert call == {"type": "tool_use", "id": wire.call_id("fc:1/x"), "name": "clock", "input": {"a": 1}}
    assert result["tool_use_id"] == call["id"] != "fc:1/x"


async def test_redacted_reasoning_shows_nothing_and_goes_back_as_it_came(talk: Talk):
    reply = await talk.say("Hi", Thinking(signature="XYZ", redacted=True), Thinking(signature="SIG"), Text("Yes."))
    assert talk.wholes == [m.Text(text="Yes.")]
    await talk.say("And?", Text("No."))
    assert talk.body["messages"][1]["content"] == list(reply.items)
    assert reply.items[:2] == (
        {"type": "redacted_thinking", "data": "XYZ"},
        {"type": "thinking", "thinking": "", "signature": "SIG"},
    )


async def test_nothing_empty_is_ever_sent(talk: Talk):
    written: dict[str, Any] = {"provider": "anthropic", "model": OPUS}
    unsigned = {"type": "thinking", "thinking": "cut off", "signature": ""}
    talk.messages += [
        UserMessage(text="Hi"),
        AssistantMessage(blocks=(), **written),
        AssistantMessage(blocks=(m.Reasoning(text="hm"),)),
        AssistantMessage(blocks=(m.Text(text=" \n"),)),
        AssistantMessage(blocks=(), items=(unsigned, {"type": "text", "text": ""}), **written),
        AssistantMessage(blocks=(), items=({"type": "redacted_thinking", "data": "x"},), **written),
        UserMessage(text="  "),
        UserMessage(text="there"),
    ]
    talk.request["system_prompt"] = ""
    await talk.step(Turn((Text("Yes."),)))
    assert talk.body["messages"] == [
        {"role": "user", "content": [{"type": "text", "text": "Hi"}, {"type": "text", "text": "there"}]}
    ]
    assert "system" not in talk.body


async def test_images_go_inside_the_result_and_what_cannot_be_read_is_said(talk: Talk):
    await talk.say("Draw", Call("weather", {"x": 1}, id="toolu_a"), Call("clock", id="toolu_b"), Call("clock", id="c"))
    png = m.Image(mime_type="image/png", data=PIXEL)
    await talk.answer(
        ToolResult(tool_use_id="toolu_a", content="", images=(png, m.Image(mime_type="image/tiff", data="AA=="))),
        ToolResult(tool_use_id="toolu_b", content="", is_error=True),
        ToolResult(tool_use_id="c", content="", images=(png,), is_error=True),
    )
    first, second, third = talk.body["messages"][2]["content"]
    assert first["content"] == [
        {"type": "text", "text": "[An image (image/tiff) is left out: the model cannot read that kind.]"},
        {"type": "image", "source": {"type": "base64", "media_type": "image/png", "data": PIXEL}},
    ]
    assert second["content"] == [{"type": "text", "text": "The tool failed and said nothing."}]
    assert [block["type"] for block in third["content"]] == ["text"]


async def test_a_result_without_words_has_no_content(talk: Talk):
    await talk.say("Wait", Call("clock", id="toolu_a"))
    await talk.answer(ToolResult(tool_use_id="toolu_a", content=""))
    assert talk.body["messages"][2]["content"] == [{"type": "tool_result", "tool_use_id": "toolu_a"}]


async def test_a_change_of_settings_never_makes_its_own_reasoning_a_refusal(talk: Talk):
    await talk.say("Hi", Thinking("Hm", "SIG"), Text("Yes."))
    talk.request |= {"system_prompt": "Be long.", "tools": TOOLS[:1]}
    talk.messages[0] = UserMessage(text="A summary of what was before.")
    assert (await talk.say("And?", Text("No."))).stop_reason == "end"
    assert talk.body["messages"][1]["content"][0]["signature"] == "SIG"


async def test_calls_of_tools_that_are_gone_can_still_be_sent(talk: Talk):
    await talk.say("Hi", Call("clock", id="toolu_a"), Call("clock", id="toolu_b"), Call("weather", id="toolu_c"))
    talk.request["tools"] = ()
    await talk.answer(*(ToolResult(tool_use_id=call.tool_use_id, content="ok") for call in talk.calls))
    assert [tool["name"] for tool in talk.body["tools"]] == ["clock", "weather"]
    assert talk.body["tool_choice"] == {"type": "none"}


async def test_calls_of_another_wire_that_share_an_id_are_told_apart(talk: Talk):
    for answer in ("one", "two", "three"):
        call = m.ToolCall(tool_use_id="call_0", tool_name="clock", args={})
        talk.messages += [
            UserMessage(text="Hi"),
            AssistantMessage(blocks=(call,), provider="self_hosted"),
            ToolMessage(results=(ToolResult(tool_use_id="call_0", content=answer),)),
        ]
    await talk.step(Turn((Text("Noon."),)))
    calls = [message["content"][0]["id"] for message in talk.body["messages"][1::2]]
    results = [message["content"][0]["tool_use_id"] for message in talk.body["messages"][2::2]]
    assert calls == results
    assert len(set(calls)) == 3
    assert calls[0] == "call_0"


async def test_what_the_vendor_refuses_in_a_tools_schema_is_told_in_words(talk: Talk):
    either = {"anyOf": [{"required": ["a"]}, {"required": ["b"]}]}
    talk.request["tools"] = (
        m.ToolDefinition(name="pick", description="Picks.", input_schema={"properties": {"a": {}, "b": {}}} | either),
    )
    await talk.say("Hi", Text("Yes."))
    (tool,) = talk.body["tools"]
    assert tool["input_schema"] == {"properties": {"a": {}, "b": {}}, "type": "object"}
    assert tool["description"] == f"Picks.\nThe input must also fit this JSON Schema: {json.dumps(either)}"


@pytest.mark.parametrize("raw", ['{"x": ', "[1]", "sunny", '{"x": NaN}', '{"x": "\\ud800"}'])
async def test_arguments_that_are_none_are_kept_and_can_be_replayed(talk: Talk, raw: str):
    reply = await talk.say("Hi", Call("weather", id="toolu_a", bad_json=raw))
    assert talk.calls == [m.ToolCall(tool_use_id="toolu_a", tool_name="weather", args={}, malformed=raw)]
    assert reply.items[0]["input"] == {}
    await talk.answer(ToolResult(tool_use_id="toolu_a", content="No JSON.", is_error=True))
    assert talk.body["messages"][1]["content"][0]["input"] == {}


async def test_citations_and_text_that_a_block_begins_with_are_kept(talk: Talk):
    citation = {"type": "char_location", "cited_text": "a", "document_index": 0, "document_title": None}
    citation |= {"start_char_index": 0, "end_char_index": 1, "file_id": None}
    frames = (
        event(type="content_block_start", index=0, content_block={"type": "text", "text": "So "}),
        event(type="content_block_delta", index=0, delta={"type": "citations_delta", "citation": citation}),
        event(type="content_block_delta", index=0, delta={"type": "text_delta", "text": "it is."}),
        event(type="content_block_delta", index=0, delta={"type": "news_delta", "news": 1}),
        event(type="news", news=2),
        event(type="content_block_stop", index=0),
    )
    reply = await talk.say("Hi", fault=Fault(garbage_after=2, garbage=b"".join(frames)))
    assert talk.wholes == [m.Text(text="So it is.")]
    assert reply.items == ({"type": "text", "text": "So it is.", "citations": [citation]},)
    assert reply.stop_reason == "end"


# ── how it ends ──


async def test_usage_counts_the_cache_as_input_and_names_the_price(talk: Talk):
    reply = await talk.say("Hi", Text("Yes."))
    usage = reply.usage
    assert (usage.input_tokens, usage.cache_read_tokens, usage.cache_write_tokens) == (100, 40, 10)
    assert (usage.output_tokens, usage.reasoning_tokens) == (20, 7)
    assert usage.cost_usd
    assert (reply.model, reply.response_id[:4]) == (OPUS, "msg_")


async def test_the_price_of_an_unknown_model_is_not_known(talk: Talk):
    talk.request["model"] = "claude-nobody-knows"
    assert (await talk.say("Hi", Text("Yes."))).usage.cost_usd is None


@pytest.mark.parametrize(
    ("stop", "reason"), [("length", "length"), ("context", "context"), ("pause", "pause"), ("end", "end")]
)
async def test_the_vendors_stops_have_our_names(talk: Talk, stop: str, reason: str):
    assert (await talk.say("Hi", Text("Ye"), stop=stop)).stop_reason == reason


async def test_a_refusal_comes_with_the_vendors_word(talk: Talk):
    reply = await talk.say("Hi", Text("No."), stop="refusal")
    assert (reply.stop_reason, reply.detail) == ("refusal", "cyber: fake refusal")
    assert (await talk.say("Hi", Text("No."))).detail == ""


@pytest.mark.parametrize(("after", "items"), [(0, 0), (1, 0), (4, 0), (8, 1), (13, 2)])
async def test_a_stream_without_its_end_is_truncated_and_keeps_only_finished_blocks(talk: Talk, after: int, items: int):
    script = Thinking("A thought", "SIG"), Text("Some text"), Text("more")
    reply = await talk.say("Hi", *script, fault=Fault(end_after=after))
    assert reply.stop_reason == "truncated"
    assert len(reply.items) == items
    assert all(item.get("signature", "SIG") == "SIG" for item in reply.items)


@pytest.mark.parametrize("chunk", [1, 3, 1000])
async def test_it_does_not_matter_how_the_bytes_are_cut(talk: Talk, chunk: int):
    reply = await talk.say("Hi", Thinking("Hmäm", "SIG"), Text("Größe 🦦 ok"), fault=Fault(chunk=chunk))
    assert talk.wholes == [m.Reasoning(text="Hmäm"), m.Text(text="Größe 🦦 ok")]
    assert reply.stop_reason == "end"


# ── settings ──


@pytest.mark.parametrize(
    ("model", "params", "thinking", "effort"),
    [
        (HAIKU, {}, None, None),
        (HAIKU, {"reasoning_effort": "none"}, None, None),
        (HAIKU, {"reasoning_effort": "low"}, {"type": "enabled", "budget_tokens": 2048}, None),
        (HAIKU, {"reasoning_effort": "max"}, {"type": "enabled", "budget_tokens": 2048}, None),
        (HAIKU, {"thinking_budget_tokens": 3000}, {"type": "enabled", "budget_tokens": 3000}, None),
        ("claude-opus-4-8", {}, None, None),
        ("claude-opus-4-8", {"reasoning_effort": "none"}, None, None),
        ("claude-opus-4-8", {"reasoning_effort": "xhigh"}, {"type": "adaptive", "display": "summarized"}, "xhigh"),
        ("claude-opus-5", {}, {"type": "adaptive", "display": "summarized"}, None),
        (OPUS, {"reasoning_effort": "max"}, BOUND, "max"),
        (OPUS, {"reasoning_effort": "none"}, BOUND, "low"),
        ("claude-fable-5-2", {}, BOUND, None),
        ("claude-lemur-6", {"reasoning_effort": "high"}, BOUND, "high"),
        ("the-next-one", {}, BOUND, None),
    ],
)
async def test_how_a_model_thinks_goes_by_its_generation(
    talk: Talk, model: str, params: m.JsonObject, thinking: Any, effort: str | None
):
    talk.request |= {"model": model, "provider_params": params}
    await talk.say("Hi", Text("Yes."))
    assert talk.body.get("thinking") == thinking
    assert talk.body.get("output_config") == ({"effort": effort} if effort else None)
    assert ("anthropic-beta" in talk.seen.headers) == (thinking is BOUND)


@pytest.mark.parametrize(
    ("model", "expected"),
    [
        ("claude-haiku-4-5-20251001", (4, 5)),
        ("claude-opus-4-20250514", (4, 0)),
        ("claude-4-opus-20250514", (4, 0)),
        ("claude-3-7-sonnet-latest", (3, 7)),
        ("claude-sonnet-5", (5, 0)),
        ("anthropic.claude-opus-5-v1:0", (5, 0)),
        ("anthropic/claude-opus-5.5", (5, 5)),
        ("claude-mythos-preview", (4, 6)),
        ("claude-next", (99, 0)),
    ],
)
def test_a_models_generation_is_read_from_its_name(model: str, expected: tuple[int, int]):
    assert generation(model) == expected


async def test_an_old_model_does_not_think_in_the_midst_of_calls_begun_without(talk: Talk):
    talk.request |= {"model": HAIKU}
    await talk.say("Hi", Call("clock", id="toolu_a"))
    talk.request["provider_params"] = {"reasoning_effort": "low"}
    await talk.answer(ToolResult(tool_use_id="toolu_a", content="noon"))
    assert "thinking" not in talk.body
    await talk.say("Again", Thinking("Hm", "SIG"), Call("clock", id="toolu_b"))
    assert "thinking" in talk.body
    await talk.answer(ToolResult(tool_use_id="toolu_b", content="noon"))
    assert "thinking" in talk.body


async def test_every_setting_goes_where_the_vendor_wants_it(talk: Talk):
    plain: dict[str, Any] = {"service_tier": "standard_only", "inference_geo": "eu", "stop_sequences": ["END"]}
    more: dict[str, Any] = {"speed": "fast", "cache_ttl": "1h", "metadata_user_id": "u1", "parallel_tool_calls": False}
    talk.request["provider_params"] = plain | more
    await talk.say("Hi", Text("Yes."))
    assert {name: talk.body[name] for name in plain} == plain
    assert talk.body["speed"] == "fast"
    assert talk.body["cache_control"] == {"type": "ephemeral", "ttl": "1h"}
    assert talk.body["metadata"] == {"user_id": "u1"}
    assert talk.body["tool_choice"] == {"type": "auto", "disable_parallel_tool_use": True}
    assert talk.seen.headers["anthropic-beta"] == f"{BINDING_BETA},{SPEED_BETA}"


async def test_tools_can_be_forbidden_and_need_no_choice_where_there_are_none(talk: Talk):
    talk.request["provider_params"] = {"tool_choice": "none"}
    await talk.say("Hi", Text("Yes."))
    assert talk.body["tool_choice"] == {"type": "none"}
    talk.request["tools"] = ()
    await talk.say("Hi", Text("Yes."))
    assert "tool_choice" not in talk.body
    assert "tools" not in talk.body


@pytest.mark.parametrize(
    ("model", "params", "words"),
    [
        (OPUS, {"reasoning_efort": "low"}, "nearest is 'reasoning_effort'"),
        (OPUS, {"x": 1}, "nearest is "),
        (OPUS, {"reasoning_effort": "huge"}, "provider_params.reasoning_effort"),
        (OPUS, {"temperature": 1}, "the vendor removed it"),
        (OPUS, {"top_p": 1}, "the vendor removed it"),
        (OPUS, {"top_k": 1}, "the vendor removed it"),
        (OPUS, {"thinking_budget_tokens": 2000}, "takes reasoning_effort"),
        (HAIKU, {"thinking_budget_tokens": 1000}, "provider_params.thinking_budget_tokens"),
        (HAIKU, {"thinking_budget_tokens": 5000}, "max_tokens 4096"),
        (HAIKU, {"thinking_budget_tokens": "2000"}, "provider_params.thinking_budget_tokens"),
        (HAIKU, {"thinking_budget_tokens": 2000, "reasoning_effort": "low"}, "one of them"),
        (OPUS, {"tool_choice": "any"}, "provider_params.tool_choice"),
        (OPUS, {"stop_sequences": ["", "a"]}, "provider_params.stop_sequences"),
        (OPUS, {"parallel_tool_calls": 1}, "provider_params.parallel_tool_calls"),
        (OPUS, {"cache_ttl": "2h"}, "provider_params.cache_ttl"),
    ],
)
async def test_a_setting_that_cannot_be_is_refused_before_anything_is_sent(
    talk: Talk, model: str, params: m.JsonObject, words: str
):
    talk.request |= {"model": model, "provider_params": params}
    with pytest.raises(ProviderRejected, match=words):
        await talk.say("Hi")
    assert talk.vendors.fake.requests(talk.lane) == []


# ── structured output ──


async def test_an_output_schema_binds_the_answer(talk: Talk):
    talk.request |= {"output_schema": POINT, "provider_params": {"reasoning_effort": "low"}}
    await talk.say("Where?", Text('{"x": 1}'))
    form = {"type": "json_schema", "schema": POINT | {"additionalProperties": False}}
    assert talk.body["output_config"] == {"effort": "low", "format": form}
    assert talk.body["system"] == "Be brief."


DEFS = {"$defs": {"P": POINT}, "type": "object", "properties": {"p": {"$ref": "#/$defs/P"}}}


@pytest.mark.parametrize(
    ("schema", "bound"),
    [
        (POINT, True),
        (DEFS, True),
        ({"type": "array", "items": POINT}, True),
        ({"anyOf": [POINT, {"type": "null"}]}, True),
        ({"enum": ["a", 1]}, True),
        ({}, False),
        ({"type": "object"}, False),
        ({"type": ["string", "null"]}, False),
        ({"type": "object", "additionalProperties": {"type": "integer"}}, False),
        ({"type": "array", "items": {"type": "object"}}, False),
        (POINT | {"required": ["x", "y"]}, False),
        ({"allOf": [POINT, {"type": "object", "properties": {"y": {"type": "integer"}}}]}, False),
        ({"type": "object", "properties": {"a": True}}, False),
        ({"$ref": "#/definitions/P", "definitions": {"P": POINT}}, False),
        ({"$ref": "#/$defs/T", "$defs": {"T": {"type": "array", "items": {"$ref": "#/$defs/T"}}}}, False),
    ],
    ids=lambda value: json.dumps(value)[:50],
)
async def test_a_schema_that_the_vendor_cannot_express_is_asked_for_in_words(
    talk: Talk, schema: m.JsonObject, bound: bool
):
    talk.request["output_schema"] = schema
    await talk.say("Where?", Text("{}"))
    assert ("format" in talk.body.get("output_config", {})) == bound
    assert talk.body["system"].startswith("Be brief.")
    assert (json.dumps(schema) in talk.body["system"]) == (not bound)


async def test_a_model_from_before_structured_output_is_asked_in_words(talk: Talk):
    talk.request |= {"output_schema": POINT, "model": "claude-3-7-sonnet-latest", "system_prompt": ""}
    await talk.say("Where?", Text("{}"))
    assert talk.body["system"].startswith("Answer with nothing but JSON")


# ── nothing comes in from the side ──


async def test_stray_settings_change_nothing_in_a_request(
    vendors: Server, http: wire.Http, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
):
    async def sent() -> tuple[dict[str, str], Any]:
        talk = Talk(vendors, http, tools=TOOLS)
        talk.lane = key
        talk.provider = AnthropicProvider(Access(vendors.url, key), http)
        await talk.say("Hi", Text("Yes."))
        return dict(talk.seen.headers), talk.body

    key = lane()
    before = await sent()
    configs = tmp_path / "configs"
    configs.mkdir()
    profile = {"base_url": "http://127.0.0.1:1", "workspace_id": "wrkspc_1", "authentication": {"type": "oauth"}}
    (configs / "default.json").write_text(json.dumps(profile))
    for name, value in {
        "API_KEY": "stray",
        "AUTH_TOKEN": "stray",
        "BASE_URL": "http://127.0.0.1:1",
        "CUSTOM_HEADERS": "X-Api-Key: stray\nAuthorization: Bearer stray\nanthropic-beta: stray\nX-Stray: 1",
        "PROFILE": "default",
        "CONFIG_DIR": str(tmp_path),
        "IDENTITY_TOKEN": "stray",
        "FEDERATION_RULE_ID": "stray",
        "ORGANIZATION_ID": "stray",
        "WORKSPACE_ID": "stray",
        "SERVICE_ACCOUNT_ID": "stray",
        "OPEN_TELEMETRY": "true",
        "WEBHOOK_SIGNING_KEY": "stray",
    }.items():
        monkeypatch.setenv(f"ANTHROPIC_{name}", value)
    assert await sent() == before
    assert before[0]["authorization"] == f"Bearer {key}"


async def test_the_client_is_made_once_and_is_as_patient_as_told(vendors: Server, http: wire.Http):
    provider = AnthropicProvider(Access(vendors.url, "k", connect_timeout_s=1, idle_timeout_s=7), http)
    clients: list[Any] = []

    async def connect() -> None:
        clients.append((await provider._connect())[1])

    async with anyio.create_task_group() as tasks:
        for _ in range(3):
            tasks.start_soon(connect)
    assert clients[0] is clients[1] is clients[2]
    assert clients[0].timeout == httpx2.Timeout(connect=1, pool=1, read=7, write=7)
    assert clients[0].max_retries == 0


def test_importing_the_adapter_does_not_import_the_sdk():
    code = "import sys, meerkat_mcp.providers.anthropic; print('anthropic' in sys.modules, 'httpx2' in sys.modules)"
    ran = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=True)
    assert ran.stdout.split() == ["False", "False"]


# ── faults ──


async def failing(talk: Talk, error: type[MeerkatError], fault: Fault) -> MeerkatError:
    """The error of a turn with that fault. It is asked for once only."""
    before = len(talk.vendors.fake.requests(talk.lane))
    with pytest.raises(error) as raised:
        await talk.say("Hi", Text("Some text to say"), fault=fault)
    assert len(talk.vendors.fake.requests(talk.lane)) == before + 1
    return raised.value


@pytest.mark.parametrize(
    ("status", "code", "error", "kind"),
    [
        (400, None, ProviderRejected, "bad_request"),
        (401, None, ProviderUnauthenticated, "auth"),
        (402, None, ProviderRejected, "quota"),
        (403, None, ProviderUnauthenticated, "auth"),
        (404, None, ProviderRejected, "not_found"),
        (413, None, ProviderRejected, "context"),
        (429, None, ProviderUnavailable, "rate_limit"),
        (429, "billing_error", ProviderRejected, "quota"),
        (500, None, ProviderUnavailable, "server"),
        (503, None, ProviderUnavailable, "overloaded"),
        (504, None, ProviderUnavailable, "timeout"),
        (529, None, ProviderUnavailable, "overloaded"),
    ],
)
async def test_a_refusal_before_the_stream_has_its_kind(
    talk: Talk, status: int, code: str | None, error: type[MeerkatError], kind: str
):
    failure = await failing(talk, error, Fault(status=status, code=code, headers={"retry-after": "7"}))
    assert (failure.facts["kind"], failure.facts["status"], failure.retry_after_s) == (kind, status, 7.0)
    assert failure.facts["provider"] == "anthropic"
    assert "fake" in failure.message


async def test_the_finer_code_of_a_refusal_counts(talk: Talk):
    details = {"error_code": "enforced_spend_limit_reached"}
    body = {"type": "error", "error": {"type": "rate_limit_error", "message": "Spent.", "details": details}}
    failure = await failing(talk, ProviderRejected, Fault(status=429, body=json.dumps(body)))
    assert (failure.facts["kind"], failure.facts["provider_code"]) == ("quota", "enforced_spend_limit_reached")
    assert failure.message == "anthropic: Spent."


async def test_a_conversation_that_is_too_long_is_told_apart(talk: Talk):
    message = "prompt is too long: 210000 tokens > 200000 maximum"
    assert (await failing(talk, ProviderRejected, Fault(status=400, message=message))).facts["kind"] == "context"


@pytest.mark.parametrize("status", [502, 503])
async def test_a_proxys_page_is_no_answer(talk: Talk, status: int):
    await failing(talk, ProviderUnavailable, Fault(status=status, body="<html>Bad gateway</html>"))


@pytest.mark.parametrize(
    ("fault", "kind"),
    [
        (Fault(error_after=4), "overloaded"),
        (Fault(error_after=0), "overloaded"),
        (Fault(error_after=4, code="api_error"), "server"),
        (Fault(error_after=4, code="rate_limit_error"), "rate_limit"),
        (Fault(garbage_after=3, garbage=b"event: error\ndata: gone\n\n"), "server"),
        (Fault(cut_after=0), "connection"),
        (Fault(cut_after=4), "connection"),
        (Fault(garbage_after=3, garbage=b"event: content_block_delta\ndata: {not json}\n\n"), "malformed"),
        (Fault(garbage_after=3, garbage=b"event: content_block_delta\ndata: \xff\xfe\n\n"), "malformed"),
        (Fault(garbage_after=3, garbage=b"event: content_block_delta\ndata: []\n\n"), "malformed"),
        (Fault(garbage_after=3, garbage=event(type="content_block_stop", index=9)), "malformed"),
        (Fault(garbage_after=3, garbage=event(type="content_block_delta", index=0)), "malformed"),
        (Fault(garbage_after=3, garbage=event(type="message_delta")), "malformed"),
        (Fault(garbage_after=3, garbage=event(type="message_start")), "malformed"),
        (Fault(garbage_after=3, garbage=event(type="content_block_start", index=1)), "malformed"),
    ],
)
async def test_a_stream_that_goes_wrong_is_worth_another_try(talk: Talk, fault: Fault, kind: str):
    assert (await failing(talk, ProviderUnavailable, fault)).facts["kind"] == kind


@pytest.mark.parametrize("garbage", [b": keep-alive\n\n", b"data: {not json}\n\n", event(type="ping"), b"\n\n\n"])
async def test_noise_between_events_is_passed_over(talk: Talk, garbage: bytes):
    await talk.say("Hi", Text("Yes."), fault=Fault(garbage_after=3, garbage=garbage))
    assert talk.wholes == [m.Text(text="Yes.")]


@pytest.mark.parametrize("fault", [Fault(stall_before=3600), Fault(stall_after=4)], ids=["before", "after"])
async def test_a_silence_is_a_timeout(talk: Talk, http: wire.Http, fault: Fault):
    talk.provider = AnthropicProvider(Access(talk.vendors.url, talk.lane, idle_timeout_s=0.05), http)
    assert (await failing(talk, ProviderUnavailable, fault)).facts["kind"] == "timeout"


async def test_nobody_there_is_a_lost_connection(http: wire.Http):
    provider = AnthropicProvider(Access("http://127.0.0.1:1", "k"), http)
    request = ModelRequest(model=OPUS, max_tokens=9, messages=(UserMessage(text="Hi"),))
    with pytest.raises(ProviderUnavailable) as raised:
        await anext(provider.reply(request))
    assert raised.value.facts["kind"] == "connection"
    with pytest.raises(ProviderUnavailable):
        await provider.models()


@pytest.mark.parametrize("key", ["", " ", "sk-ä", "sk-a\nb"])
async def test_a_key_that_is_none_is_said_before_anything_is_sent(vendors: Server, http: wire.Http, key: str):
    provider = AnthropicProvider(Access(vendors.url, key), http)
    with pytest.raises(ProviderUnauthenticated) as raised:
        await anext(provider.reply(ModelRequest(model=OPUS, max_tokens=9, messages=(UserMessage(text="Hi"),))))
    assert "sk-" not in raised.value.message


def _below(error: type[BaseException]) -> set[type[BaseException]]:
    return {error}.union(*(_below(child) for child in error.__subclasses__()))


SDK_ERRORS = {kind for kind in _below(anthropic.AnthropicError) if kind.__module__.startswith("anthropic")} | {
    kind
    for _, kind in inspect.getmembers(anthropic, inspect.isclass)
    if issubclass(kind, Exception) and not issubclass(kind, Warning)
}
HTTP_ERRORS = {kind for _, kind in inspect.getmembers(httpx2, inspect.isclass) if issubclass(kind, Exception)}
RESPONSE = httpx2.Response(500, request=httpx2.Request("POST", "http://127.0.0.1/"))


def _an(error: type[Exception]) -> Exception:
    made = error.__new__(error)
    Exception.__init__(made, "as told")
    vars(made)["request_id"] = None  # one of them reads it when it is shown
    if isinstance(made, anthropic.APIStatusError):
        anthropic.APIStatusError.__init__(made, "as told", response=RESPONSE, body=None)
    return made


@pytest.mark.parametrize("error", sorted(SDK_ERRORS | HTTP_ERRORS, key=str), ids=lambda error: error.__name__)
def test_every_error_of_the_sdk_and_of_http_is_one_of_ours(error: type[Exception]):
    failure = failure_of(_an(error), "anthropic", anthropic)
    assert isinstance(failure, ProviderUnavailable | ProviderRejected | ProviderUnauthenticated)
    assert failure.facts["provider"] == "anthropic"


def test_all_the_finer_errors_were_among_those():
    assert len(SDK_ERRORS) > 80
    assert len(HTTP_ERRORS) > 20


@pytest.mark.parametrize(
    "exc",
    [
        json.JSONDecodeError("x", "y", 0),
        UnicodeDecodeError("utf-8", b"\xff", 0, 1, "x"),
        AttributeError("x"),
        RecursionError(),
    ],
    ids=lambda exc: type(exc).__name__,
)
def test_what_a_garbled_stream_raises_is_one_of_ours(exc: Exception):
    assert failure_of(exc, "anthropic", anthropic).facts["kind"] == "malformed"


# ── hanging up ──


@pytest.mark.parametrize("fault", [Fault(stall_before=3600), Fault(stall_after=4)], ids=["before", "after"])
async def test_cancelling_hangs_up_at_once(talk: Talk, fault: Fault):
    request = ModelRequest(model=OPUS, max_tokens=9, messages=(UserMessage(text="Hi"),))
    talk.vendors.fake.queue(talk.lane, Turn((Text("Some text to say"),), fault=fault))
    heard = anyio.Event()

    async def listen() -> None:
        async for _ in talk.provider.reply(request):
            heard.set()

    with anyio.fail_after(5):
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(listen)
            if fault.stall_before:
                await anyio.to_thread.run_sync(talk.vendors.fake.wait_requests, talk.lane, 1)
            else:
                await heard.wait()
            tasks.cancel_scope.cancel()
            cancelled_at = time.time()
    seen = talk.vendors.fake.requests(talk.lane)[0]
    assert await anyio.to_thread.run_sync(seen.gone.wait, 2)
    assert seen.disconnected
    assert seen.disconnected - cancelled_at < 0.25  # 50 ms, on a machine that has time
    assert (await talk.say("Still there?", Text("Yes."))).stop_reason == "end"


# ── the models ──


async def test_the_models_are_those_the_vendor_lists(talk: Talk):
    models = {model.model: model for model in await talk.provider.models()}
    abilities = ("tools", "reasoning", "structured_output", "images")
    assert models[OPUS] == Model(
        model=OPUS, provider="anthropic", context_tokens=1_000_000, output_tokens_max=128_000, abilities=abilities
    )
    assert len(models) > 3


async def test_a_wrong_key_lists_no_models_and_gets_no_reply(vendors: Server, http: wire.Http):
    provider = AnthropicProvider(Access(vendors.url, "bad-key"), http)
    with pytest.raises(ProviderUnauthenticated):
        await provider.models()
    with pytest.raises(ProviderUnauthenticated):
        await anext(provider.reply(ModelRequest(model=OPUS, max_tokens=9, messages=(UserMessage(text="Hi"),))))
