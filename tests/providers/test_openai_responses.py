"""OpenAI's Responses API, against its fake."""

from collections.abc import AsyncIterator, Callable
from typing import Any

import pytest
from providers.openai_talk import CLOCK, WEATHER, Talk, raw
from vendors.script import Call, JsonObject, Text, Thinking, Turn, Usage
from vendors.server import Server

from meerkat_mcp.domain.errors import ProviderRejected, ProviderUnauthenticated, ProviderUnavailable
from meerkat_mcp.domain.messages import AssistantMessage, Image, ToolCall, ToolDefinition, ToolResult
from meerkat_mcp.domain.messages import Text as SaidText
from meerkat_mcp.providers import openai_schemas
from meerkat_mcp.providers.base import ArgsPiece, Piece, Reply, Whole
from meerkat_mcp.providers.wire import Http

pytestmark = pytest.mark.anyio
Make = Callable[..., Talk]
POINT: JsonObject = {
    "type": "object",
    "properties": {"x": {"type": "integer"}, "y": {"type": ["integer", "null"]}},
    "required": ["x", "y"],
    "additionalProperties": False,
}
CALLING = Turn([Thinking("Hm."), Text("Let me see."), Call("weather", {"city": "Oslo"}, "call_a"), Call("clock")])


@pytest.fixture
async def http() -> AsyncIterator[Http]:
    http = Http()
    yield http
    await http.close()


@pytest.fixture
def talk(vendors: Server, http: Http) -> Make:
    return lambda *turns, **access: Talk("responses", vendors, http, *turns, **access)


# ── a conversation ──


async def test_a_whole_conversation(talk: Make):
    chat = talk(CALLING, Turn([Text("Cold.")]), Turn([Text("Bye.")]))
    reply = await chat.say("Weather?", system_prompt="Be brief.", tools=(WEATHER, CLOCK), session_id="session-1")
    assert reply.stop_reason == "tool_calls"
    assert (chat.wholes("reasoning"), chat.wholes()) == (["Hm."], ["Let me see."])
    assert "".join(chat.pieces()) == "Let me see."
    assert [(call.tool_name, call.args) for call in chat.calls] == [("weather", {"city": "Oslo"}), ("clock", {})]
    assert chat.written("call_a") == '{"city":"Oslo"}'
    assert (reply.model, reply.response_id[:5]) == ("gpt-6-sol", "resp_")

    assert (
        await chat.answer("-3", ToolResult(tool_use_id=chat.calls[1].tool_use_id, content="late", is_error=True))
    ).stop_reason == "end"
    assert (await chat.say("Thanks")).stop_reason == "end"
    first, second, third = chat.bodies
    assert first["instructions"] == "Be brief."
    assert first["prompt_cache_key"] == "session-1"
    assert (first["store"], first["include"]) == (False, ["reasoning.encrypted_content"])
    assert first["stream_options"] == {"include_obfuscation": False}
    assert [tool["strict"] for tool in first["tools"]] == [False, False]
    assert second["input"][1:5] == list(reply.items)
    outputs = [item["output"] for item in second["input"] if item.get("type") == "function_call_output"]
    assert outputs == ["-3", "Error: late"]
    assert third["input"][: len(second["input"])] == second["input"]
    assert third["input"][-1] == {"role": "user", "content": "Thanks"}


async def test_parts_come_in_the_order_in_which_they_are_written(talk: Make):
    chat = talk(Turn([Thinking("Hm."), Text("So."), Call("clock", {}, "call_a")], piece=100))
    await chat.say("Time?", tools=(CLOCK,))
    assert chat.parts[:-1] == [
        Piece(kind="reasoning", text="Hm."),
        Whole(kind="reasoning", text="Hm."),
        Piece(kind="text", text="So."),
        Whole(kind="text", text="So."),
        ArgsPiece(tool_use_id="call_a", tool_name="clock", text="{}"),
        ToolCall(tool_use_id="call_a", tool_name="clock", args={}),
    ]


async def test_usage_is_everything_read_and_written_and_has_a_price(talk: Make):
    usage = Usage(input=1_000, output=200, cached=600, cache_write=100, reasoning=50)
    said = (await talk(Turn([Text("Hi")], usage=usage)).say("Hello")).usage
    assert (said.input_tokens, said.output_tokens, said.reasoning_tokens) == (1_000, 200, 50)
    assert (said.cache_read_tokens, said.cache_write_tokens) == (600, 100)
    assert said.cost_usd is not None
    assert said.cost_usd > 0


async def test_arguments_that_are_no_json_are_kept_and_go_back_as_they_were(talk: Make):
    chat = talk(Turn([Call("weather", bad_json='{"city": Os')]), Turn([Text("Sorry.")]))
    reply = await chat.say("Weather?", tools=(WEATHER,))
    assert (chat.calls[0].args, chat.calls[0].malformed) == ({}, '{"city": Os')
    assert reply.stop_reason == "tool_calls"
    await chat.answer("that was no JSON")
    assert chat.bodies[1]["input"][1]["arguments"] == '{"city": Os'


# ── history ──


async def test_another_models_steps_go_out_as_text_and_calls_without_reasoning(talk: Make):
    chat = talk(CALLING, Turn([Text("Cold.")]))
    await chat.say("Weather?", tools=(WEATHER, CLOCK))
    await chat.answer("-3", "noon", model="gpt-5.5")
    _, said, weather, clock, *results = chat.bodies[1]["input"]
    assert said == {"role": "assistant", "content": "Let me see."}
    assert weather == {"type": "function_call", "call_id": "call_a", "name": "weather", "arguments": '{"city": "Oslo"}'}
    assert [result["call_id"] for result in results] == ["call_a", clock["call_id"]]
    assert "Hm." not in str(chat.bodies[1])


async def test_another_providers_ids_are_made_to_fit_and_results_still_match(talk: Make):
    chat = talk(Turn([Text("Cold.")]))
    calls = (
        ToolCall(tool_use_id="functions.weather:0", tool_name="weather", args={"city": "Oslo"}),
        ToolCall(tool_use_id="x" * 80, tool_name="made.up name", args={}, malformed="{oops"),
    )
    chat.messages.append(AssistantMessage(blocks=(SaidText(text=""), *calls), provider="other", model="m", items=({},)))
    chat.parts = list(calls)
    await chat.answer("-3", "no such tool", tools=(WEATHER,))
    first, second, *results = chat.bodies[0]["input"]
    assert second["arguments"] == "{oops"
    assert second["name"] == "made_up_name"
    assert [result["call_id"] for result in results] == [first["call_id"], second["call_id"]]


async def test_an_item_keeps_what_the_sdk_does_not_know_and_its_phase(talk: Make):
    item = {"type": "message", "id": "m", "role": "assistant", "status": "completed", "phase": "commentary"}
    item |= {"content": [{"type": "output_text", "text": "Hi", "annotations": []}], "novelty": {"a": [1]}, "gone": None}
    chat = talk(raw(done(item), completed()), Turn([Text("Bye")]))
    reply = await chat.say("Hello")
    assert reply.items == ({name: value for name, value in item.items() if value is not None},)
    await chat.say("Bye")
    assert chat.bodies[1]["input"][1] == reply.items[0]


async def test_what_an_item_says_is_not_there_does_not_go_back(talk: Make):
    source = {"type": "url_citation", "url": "u", "title": None}
    content = {"type": "output_text", "text": "Hi", "annotations": [source], "logprobs": None}
    said = {"type": "message", "id": "m", "role": "assistant", "phase": None, "content": [content]}
    sealed = {"type": "reasoning", "id": "r", "summary": [], "content": None, "encrypted_content": "e", "status": None}
    chat = talk(raw(done(sealed), done(said), completed()), Turn([Text("Bye")]))
    await chat.say("Hello")
    chat.server.fake.lenient(chat.lane)
    await chat.say("Bye")
    assert chat.bodies[1]["input"][1:-1] == [
        {"type": "reasoning", "id": "r", "summary": [], "encrypted_content": "e"},
        {"type": "message", "id": "m", "role": "assistant"}
        | {"content": [{"type": "output_text", "text": "Hi", "annotations": [{"type": "url_citation", "url": "u"}]}]},
    ]


async def test_items_that_cannot_be_sent_again_are_not_kept(talk: Make):
    reasoning = {"type": "reasoning", "id": "rs_1", "summary": []}
    sealed = {**reasoning, "encrypted_content": "abc"}
    call = {"type": "function_call", "id": "fc", "call_id": "c", "name": "clock", "arguments": "{}"}
    cut = raw(done(sealed), completed("incomplete", incomplete_details={"reason": "max_output_tokens"}))
    assert (await talk(cut).say("Hello")).items == ()
    reply = await talk(raw(done(reasoning), done(call), completed())).say("Hello")
    assert (reply.stop_reason, reply.items) == ("tool_calls", ())
    assert len((await talk(raw(done(sealed), done(call), completed())).say("Hello")).items) == 2


# ── how it ends ──


def done(item: JsonObject) -> JsonObject:
    return {"type": "response.output_item.done", "output_index": 0, "sequence_number": 1, "item": item}


def completed(status: str = "completed", **response: Any) -> JsonObject:
    named = {"id": "resp_9", "object": "response", "status": status, "model": "gpt-6-sol", "output": []}
    return {"type": f"response.{status}", "sequence_number": 2, "response": named | response}


@pytest.mark.parametrize(
    ("reason", "stop_reason"),
    [
        ("max_output_tokens", "length"),
        ("content_filter", "refusal"),
        ("max_context_window", "context"),
        ("steered", "pause"),
        ("something_new", "length"),
    ],
)
async def test_an_incomplete_response_says_why(talk: Make, reason: str, stop_reason: str):
    reply = await talk(raw(completed("incomplete", incomplete_details={"reason": reason}))).say("Hello")
    assert reply.stop_reason == stop_reason
    assert reply.detail == ("content_filter" if stop_reason == "refusal" else "")


async def test_a_refusal_is_said_and_is_the_detail(talk: Make):
    chat = talk(Turn([Text("I cannot help with that.")], stop="refusal"))
    reply = await chat.say("Do evil")
    assert (reply.stop_reason, reply.detail) == ("refusal", "I cannot help with that.")
    assert chat.wholes() == ["I cannot help with that."]
    assert "".join(chat.pieces()) == "I cannot help with that."


async def test_running_into_the_limit_is_length(talk: Make):
    assert (await talk(Turn([Text("Once upon")], stop="length")).say("Tell")).stop_reason == "length"


@pytest.mark.parametrize(
    ("error", "raised", "kind"),
    [
        ({"code": "server_error", "message": "oops"}, ProviderUnavailable, "server"),
        ({"code": "rate_limit_exceeded", "message": "slow"}, ProviderUnavailable, "rate_limit"),
        ({"code": "context_length_exceeded", "message": "long"}, ProviderRejected, "context"),
        ({"code": "invalid_prompt", "message": "no"}, ProviderRejected, "bad_request"),
        (None, ProviderUnavailable, "server"),
    ],
    ids=str,
)
async def test_a_failed_response_is_an_error(talk: Make, error: Any, raised: type, kind: str):
    with pytest.raises(raised) as caught:
        await talk(raw(completed("failed", error=error))).say("Hello")
    assert caught.value.facts["kind"] == kind


@pytest.mark.parametrize(
    ("event", "kind"),
    [
        ({"type": "error", "code": "server_error", "message": "oops"}, "server"),
        ({"type": "error", "code": "rate_limit_exceeded", "message": "slow"}, "rate_limit"),
        ({"type": "error", "code": "invalid_prompt", "message": "no"}, "bad_request"),
        ({"type": "error", "code": None, "message": "oops", "param": None}, "server"),
        ({"type": "error", "code": 503, "message": "busy"}, "overloaded"),
        ({"type": "error"}, "server"),
        ({"type": "error", "error": {"type": "overloaded_error", "message": "busy"}}, "overloaded"),
        ({"error": {"code": "insufficient_quota", "message": "no credit"}}, "quota"),
    ],
    ids=str,
)
async def test_an_error_in_the_stream_is_ours(talk: Make, event: JsonObject, kind: str):
    with pytest.raises((ProviderRejected, ProviderUnavailable)) as caught:
        await talk(raw(event, completed())).say("Hello")
    assert caught.value.facts["kind"] == kind


async def test_what_follows_the_last_event_is_not_looked_at(talk: Make):
    reply = await talk(raw(completed(), b"data: {not json}\n\n")).say("Hello")
    assert (reply.stop_reason, reply.response_id) == ("end", "resp_9")


async def test_events_that_lack_what_they_need_are_a_garbled_stream(talk: Make):
    for event in (
        {"type": "response.function_call_arguments.delta", "output_index": 7, "delta": "x"},
        {"type": "response.output_item.done"},
        {"type": "response.output_text.delta", "delta": {"a": 1}},
        {"type": "response.completed", "response": "fine"},
        completed(model=5),
    ):
        with pytest.raises(ProviderUnavailable) as caught:
            await talk(raw(event, completed())).say("Hello")
        assert caught.value.facts["kind"] == "malformed"


async def test_unknown_events_and_empty_texts_say_nothing(talk: Make):
    unknown = {"type": "response.brand_new", "sequence_number": 1, "x": 1}
    empty = {"type": "response.output_text.done", "text": "", "item_id": "m", "output_index": 0, "content_index": 0}
    chat = talk(raw(unknown, empty, {**empty, "type": "response.output_text.delta", "delta": ""}, completed()))
    reply = await chat.say("Hello")
    assert chat.parts == [reply]


async def test_without_a_key_nothing_is_sent(talk: Make):
    chat = talk(api_key="")
    with pytest.raises(ProviderUnauthenticated, match="no key"):
        await chat.say("Hello")


# ── what is asked ──


@pytest.mark.parametrize(
    ("model", "params", "reasoning", "includes"),
    [
        ("gpt-6-sol", {}, {"summary": "auto"}, True),
        ("gpt-6-sol", {"reasoning_effort": "high"}, {"effort": "high", "summary": "auto"}, True),
        ("gpt-6-sol", {"reasoning_summary": "none"}, None, True),
        ("o3", {"reasoning_summary": "detailed"}, {"summary": "detailed"}, True),
        ("ft:gpt-5-mini:acme::1", {}, {"summary": "auto"}, True),
        ("openai/gpt-5.5", {}, {"summary": "auto"}, True),
        ("gpt-4.1", {}, None, False),
        ("ft:gpt-4o:acme::1", {}, None, False),
        ("gpt-5-chat-latest", {}, None, False),
        ("gpt-5.3-chat-latest", {}, None, False),
        ("chatgpt-4o-latest", {}, None, False),
        ("my-deployment", {}, None, True),
        ("my-deployment", {"reasoning_effort": "low"}, {"effort": "low", "summary": "auto"}, True),
    ],
)
async def test_reasoning_is_asked_for_by_the_models_family(
    talk: Make, model: str, params: JsonObject, reasoning: JsonObject | None, includes: bool
):
    chat = talk(Turn([Text("Hi")]))
    await chat.say("Hello", model=model, provider_params=params)
    assert chat.bodies[0].get("reasoning") == reasoning
    assert ("include" in chat.bodies[0]) == includes


async def test_parameters_go_where_they_belong(talk: Make):
    chat = talk(Turn([Text("Hi")]))
    plain = {"service_tier": "flex", "truncation": "auto", "safety_identifier": "u", "metadata": {"a": "b"}}
    choice = {"parallel_tool_calls": False, "tool_choice": "none"}
    params = {**plain, **choice, "verbosity": "low", "prompt_cache_ttl": "12h"}
    await chat.say("Hello", provider_params=params, tools=(CLOCK,))
    body = chat.bodies[0]
    assert {name: body[name] for name in (*plain, *choice)} == plain | choice
    assert body["text"] == {"verbosity": "low"}
    assert body["prompt_cache_options"] == {"ttl": "12h"}


async def test_what_only_goes_with_tools_is_left_out_without_them(talk: Make):
    chat = talk(Turn([Text("Hi")]))
    await chat.say("Hello", provider_params={"parallel_tool_calls": True, "tool_choice": "auto"})
    assert not {"parallel_tool_calls", "tool_choice", "tools", "instructions", "text"} & chat.bodies[0].keys()


async def test_less_than_the_least_that_may_be_written_is_asked_for_as_the_least(talk: Make):
    chat = talk(Turn([Text("Hi")]))
    await chat.say("Hello", max_tokens=3)
    assert chat.bodies[0]["max_output_tokens"] == 16


async def test_a_schema_for_the_answer_is_strict_where_it_can_be(talk: Make):
    chat = talk(*[Turn([Text("{}")])] * 2)
    loose = {"type": "object", "properties": {"x": {"type": "integer"}}}
    await chat.say("Point?", output_schema=POINT)
    await chat.say("Point?", output_schema=loose)
    formats = [body["text"]["format"] for body in chat.bodies]
    assert formats[0] == {"type": "json_schema", "name": "answer", "schema": POINT, "strict": True}
    assert formats[1] == {"type": "json_schema", "name": "answer", "schema": loose, "strict": False}


async def test_a_schema_that_the_wire_does_not_take_is_told_in_the_instructions(talk: Make):
    chat = talk(*[Turn([Text("[]")])] * 2)
    await chat.say("List?", system_prompt="Be brief.", output_schema={"type": "array", "items": {}})
    await chat.say("Either?", output_schema={"type": "object", "anyOf": [POINT]})
    for body, part in zip(chat.bodies, ('"type": "array"', '"anyOf"'), strict=True):
        assert "text" not in body
        assert body["instructions"].startswith("Be brief.\n\n")
        assert part in body["instructions"]


async def test_tools_are_sent_in_a_form_that_is_taken(talk: Make):
    chat = talk(Turn([Text("Hi")]))
    tools = (
        ToolDefinition(name="point", input_schema=POINT),
        ToolDefinition(name="bare", input_schema={}),
        ToolDefinition(name="either", input_schema={"type": "object", "oneOf": [POINT], "properties": {}}),
    )
    await chat.say("Hello", tools=tools)
    sent = {tool["name"]: (tool["strict"], tool["parameters"]) for tool in chat.bodies[0]["tools"]}
    empty = {"type": "object", "properties": {}}
    assert sent == {"point": (True, POINT), "bare": (False, empty), "either": (False, empty)}


async def test_pictures_in_a_result_are_sent_as_pictures(talk: Make):
    chat = talk(Turn([Call("clock", {}, "call_a")]), Turn([Text("Nice.")]))
    await chat.say("Look", tools=(CLOCK,))
    picture = Image(mime_type="image/png", data="aGk=")
    await chat.answer(ToolResult(tool_use_id="call_a", content="a clock", images=(picture,)))
    assert chat.bodies[1]["input"][-1]["output"] == [
        {"type": "input_text", "text": "a clock"},
        {"type": "input_image", "detail": "auto", "image_url": "data:image/png;base64,aGk="},
    ]


# ── strict schemas ──

NESTED = {"type": "array", "items": POINT}


@pytest.mark.parametrize(
    "schema",
    [
        POINT,
        {"type": "object", "properties": {}, "additionalProperties": False},
        {**POINT, "$schema": "https://json-schema.org/draft/2020-12/schema", "title": "Point", "description": "One."},
        {**POINT, "properties": {"x": NESTED, "y": {"anyOf": [POINT, {"type": "null"}]}}},
        {**POINT, "properties": {"x": {"$ref": "#/$defs/P"}, "y": {"$ref": "#"}}, "$defs": {"P": POINT}},
        {**POINT, "properties": {"x": {"type": "string", "enum": ["a"]}, "y": {"type": "string", "format": "date"}}},
        {**POINT, "properties": {"x": {"type": "number", "minimum": 0}, "y": {"type": "string", "const": "a"}}},
    ],
    ids=str,
)
def test_a_closed_schema_that_requires_everything_is_strict(schema: JsonObject):
    assert openai_schemas.strict(schema)


def with_x(x: Any) -> JsonObject:
    return {"type": "object", "properties": {"x": x}, "required": ["x"], "additionalProperties": False}


@pytest.mark.parametrize(
    "schema",
    [
        {},
        {"type": "object"},
        {"type": "array", "items": {"type": "string"}},
        {**POINT, "required": ["x"]},
        {**POINT, "required": ["x", "y", "z"]},
        {**POINT, "additionalProperties": True},
        {**POINT, "anyOf": [POINT]},
        {**POINT, "allOf": [POINT]},
        {**POINT, "$defs": {"P": {"type": "object"}}},
        with_x({}),
        with_x(True),
        with_x({"type": "object"}),
        with_x({"type": "array"}),
        with_x({"type": "array", "items": {"type": "object", "properties": {}}}),
        with_x({"anyOf": [POINT, {"type": "object"}]}),
        with_x({"oneOf": [POINT]}),
        with_x({"type": "string", "pattern": "^(?=a)"}),
        with_x({"type": "string", "format": "uri"}),
        with_x({"type": "string", "default": "a"}),
        with_x({"type": "string", "enum": [str(number) for number in range(251)]}),
        with_x({"type": "tuple"}),
        with_x({"$ref": "https://example.org/point"}),
        with_x({"$ref": "#/$defs/P", "description": "a point"}),
        {**POINT, "required": 5},
        {**POINT, "properties": ["x"]},
        {**POINT, "$defs": []},
        with_x({"type": [{}]}),
        with_x({"type": "string", "description": "x" * 60_000}),
    ],
    ids=lambda schema: str(schema)[:100],
)
def test_any_other_schema_is_not_strict(schema: JsonObject):
    assert not openai_schemas.strict(schema)


def test_a_deep_schema_is_not_strict():
    schema: JsonObject = {"type": "string"}
    for _ in range(12):
        schema = with_x(schema)
    assert not openai_schemas.strict(schema)
    for _ in range(5_000):
        schema = with_x(schema)
    assert not openai_schemas.strict(schema)


async def test_a_reply_is_exactly_one_and_the_last(talk: Make):
    chat = talk(Turn([Text("Hi")]))
    await chat.say("Hello")
    assert [isinstance(part, Reply) for part in chat.parts] == [False, False, True]
