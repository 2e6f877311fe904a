"""Chat completions, as Ollama, vLLM, llama.cpp, OpenRouter and their like speak it, against their fake."""

import json
from collections.abc import AsyncIterator, Callable
from typing import Any

import anyio
import pytest
from anyio.abc import SocketStream
from providers.openai_talk import CLOCK, WEATHER, Talk, raw
from vendors.script import Call, Fault, JsonObject, Text, Thinking, Turn, Usage
from vendors.server import Server

from meerkat_mcp.domain.errors import MeerkatError, ProviderRejected, ProviderUnavailable
from meerkat_mcp.domain.messages import AssistantMessage, Image, ToolCall, ToolResult
from meerkat_mcp.domain.messages import Text as SaidText
from meerkat_mcp.providers.base import Access, ArgsPiece, Model, Piece, Whole
from meerkat_mcp.providers.openai_chat import ChatProvider
from meerkat_mcp.providers.wire import Http

pytestmark = pytest.mark.anyio
Make = Callable[..., Talk]
CALLING = Turn([Thinking("Hm."), Text("Let me see."), Call("weather", {"city": "Oslo"}, "call_a"), Call("clock")])
SCHEMA: JsonObject = {"type": "object", "properties": {"x": {"type": "integer"}}}


@pytest.fixture
async def http() -> AsyncIterator[Http]:
    http = Http()
    yield http
    await http.close()


@pytest.fixture
def talk(vendors: Server, http: Http) -> Make:
    return lambda *turns, **access: Talk("chat", vendors, http, *turns, **access)


def chunk(delta: JsonObject | None = None, finish: str | None = None, **more: Any) -> JsonObject:
    choice = {"index": 0, "delta": delta or {}, "finish_reason": finish}
    named = {"id": "c1", "object": "chat.completion.chunk", "created": 1, "model": "qwen3"}
    return {**named, "choices": [choice], **more}


def calling(**call: Any) -> JsonObject:
    """A chunk with a piece of a call; `name` and `arguments` are its function's."""
    function = {key: call.pop(key) for key in ("name", "arguments") if key in call}
    return chunk({"tool_calls": [{**call, "function": function}]})


# ── a conversation ──


async def test_a_whole_conversation(talk: Make):
    chat = talk(CALLING, Turn([Text("Cold.")]), Turn([Text("Bye.")]))
    reply = await chat.say("Weather?", system_prompt="Be brief.", tools=(WEATHER, CLOCK))
    assert reply.stop_reason == "tool_calls"
    assert (chat.wholes("reasoning"), chat.wholes()) == (["Hm."], ["Let me see."])
    assert "".join(chat.pieces()) == "Let me see."
    assert [(call.tool_name, call.args) for call in chat.calls] == [("weather", {"city": "Oslo"}), ("clock", {})]
    assert chat.written("call_a") == '{"city":"Oslo"}'
    assert (reply.model, reply.response_id[:9]) == ("qwen3", "chatcmpl-")

    failed = ToolResult(tool_use_id=chat.calls[1].tool_use_id, content="late", is_error=True)
    assert (await chat.answer("-3", failed)).stop_reason == "end"
    assert (await chat.say("Thanks")).stop_reason == "end"
    first, second, third = chat.bodies
    assert first["messages"] == [{"role": "system", "content": "Be brief."}, {"role": "user", "content": "Weather?"}]
    assert (first["stream_options"], first["max_tokens"]) == ({"include_usage": True}, 1_000)
    said = second["messages"][2]
    assert (said,) == reply.items
    assert said["reasoning_content"] == "Hm."
    assert [message["content"] for message in second["messages"][3:]] == ["-3", "Error: late"]
    assert third["messages"][: len(second["messages"])] == second["messages"]


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


@pytest.mark.parametrize("key", ["reasoning_content", "reasoning"])
async def test_reasoning_goes_back_under_the_name_that_it_came_under(talk: Make, key: str):
    chat = talk(raw(chunk({key: "Let me "}), chunk({key: "think."}), chunk({"content": "Hi"}), chunk({}, "stop")))
    reply = await chat.say("Hello")
    assert chat.wholes("reasoning") == ["Let me think."]
    assert reply.items == ({"role": "assistant", "content": "Hi", key: "Let me think."},)


async def test_reasoning_that_comes_under_both_names_is_read_once(talk: Make):
    both = {"reasoning_content": "Hm.", "reasoning": "Hm."}
    chat = talk(raw(chunk(both), chunk({"content": "Hi"}), chunk({}, "stop")))
    await chat.say("Hello")
    assert chat.wholes("reasoning") == ["Hm."]


async def test_usage_is_everything_read_and_written(talk: Make):
    usage = Usage(input=1_000, output=200, cached=600, cache_write=100, reasoning=50)
    said = (await talk(Turn([Text("Hi")], usage=usage)).say("Hello")).usage
    assert (said.input_tokens, said.output_tokens, said.reasoning_tokens) == (1_000, 200, 50)
    assert (said.cache_read_tokens, said.cache_write_tokens) == (600, 100)
    assert said.cost_usd is None


@pytest.mark.parametrize(
    ("usage", "read", "cached", "cost"),
    [
        (None, 0, 0, None),
        ({}, 0, 0, None),
        ({"prompt_tokens": None, "prompt_tokens_details": None}, 0, 0, None),
        ({"prompt_tokens": 9, "completion_tokens": 1, "prompt_cache_hit_tokens": 4}, 9, 4, None),
        ({"prompt_tokens": 9, "completion_tokens": 1, "cost": 0.25}, 9, 0, 0.25),
    ],
    ids=str,
)
async def test_servers_say_of_usage_what_they_like(talk: Make, usage: Any, read: int, cached: int, cost: Any):
    said = (await talk(raw(chunk({"content": "Hi"}), chunk({}, "stop"), chunk(usage=usage))).say("Hello")).usage
    assert (said.input_tokens, said.cache_read_tokens, said.cost_usd) == (read, cached, cost)


# ── tool calls ──


async def test_calls_without_ids_get_ids_that_no_other_has(talk: Make):
    nameless = raw(
        calling(index=0, name="clock", arguments="{}"),
        calling(index=1, name="clock", arguments="{}"),
        chunk({}, "stop"),
    )
    chat = talk(nameless, nameless, Turn([Text("Noon.")]))
    await chat.say("Time?", tools=(CLOCK,))
    first = [call.tool_use_id for call in chat.calls]
    await chat.answer("noon", "noon")
    second = [call.tool_use_id for call in chat.calls]
    assert len({*first, *second}) == 4
    assert (await chat.answer("noon", "noon")).stop_reason == "end"
    assert [message.get("tool_call_id") for message in chat.bodies[2]["messages"][2:4]] == first


async def test_an_id_that_was_there_before_is_replaced(talk: Make):
    same = raw(calling(index=0, id="call_0", name="clock", arguments="{}"), chunk({}, "tool_calls"))
    chat = talk(same, same, Turn([Text("Noon.")]))
    await chat.say("Time?", tools=(CLOCK,))
    await chat.answer("noon")
    assert chat.calls[0].tool_use_id != "call_0"
    assert (await chat.answer("noon")).stop_reason == "end"


ONE, TWO = '{"n":1}', '{"n":2}'
NUMBERINGS: dict[str, list[tuple[int | None, str, str, Any]]] = {
    "one id for both": [(0, "a", "weather", ONE), (1, "a", "weather", TWO)],
    "one index for both": [(0, "a", "weather", ONE), (0, "b", "weather", TWO)],
    "one index and no ids": [(0, "", "weather", ONE), (0, "", "weather", TWO)],
    "neither index nor id": [(None, "", "weather", ONE), (None, "", "weather", TWO)],
    "no index": [
        (None, "a", "weather", ""),
        (None, "", "", '{"n"'),
        (None, "", "", ":1}"),
        (None, "b", "weather", TWO),
    ],
    "no index and one id": [(None, "a", "weather", ONE), (None, "a", "weather", TWO)],
    "all repeated": [
        (0, "a", "weather", '{"n"'),
        (0, "a", "weather", ":1}"),
        (0, "a", "weather", ""),
        (1, "b", "weather", TWO),
    ],
    "interleaved": [(0, "a", "weather", ""), (1, "b", "weather", ""), (1, "", "", TWO), (0, "", "", ONE)],
    "an object": [(0, "a", "weather", {"n": 1}), (1, "b", "weather", {"n": 2})],
}


@pytest.mark.parametrize("pieces", NUMBERINGS.values(), ids=NUMBERINGS)
async def test_two_calls_are_told_apart_however_they_are_numbered(talk: Make, pieces: list[tuple[Any, ...]]):
    chunks = [
        calling(
            **{
                key: value
                for key, value in zip(("index", "id", "name", "arguments"), piece, strict=True)
                if value not in (None, "")
            }
        )
        for piece in pieces
    ]
    chat = talk(raw(*chunks, chunk({}, "tool_calls")), Turn([Text("Fine.")]))
    reply = await chat.say("Weather?", tools=(WEATHER,))
    assert [(call.tool_name, call.args) for call in chat.calls] == [("weather", {"n": 1}), ("weather", {"n": 2})]
    assert len({call.tool_use_id for call in chat.calls}) == 2
    assert reply.stop_reason == "tool_calls"
    assert (await chat.answer("1", "2")).stop_reason == "end"


async def test_arguments_that_are_no_json_are_kept_and_do_not_go_back(talk: Make):
    chat = talk(Turn([Call("weather", bad_json='{"city": Os')]), Turn([Text("Sorry.")]))
    reply = await chat.say("Weather?", tools=(WEATHER,))
    assert (chat.calls[0].args, chat.calls[0].malformed) == ({}, '{"city": Os')
    assert reply.stop_reason == "tool_calls"
    await chat.answer("that was no JSON")
    assert chat.bodies[1]["messages"][1]["tool_calls"][0]["function"]["arguments"] == "{}"


async def test_a_call_without_arguments_has_none(talk: Make):
    chat = talk(raw(calling(index=0, id="a", name="clock"), chunk({}, "stop")))
    reply = await chat.say("Time?", tools=(CLOCK,))
    assert (chat.calls[0].args, chat.calls[0].malformed) == ({}, None)
    assert reply.items[0]["tool_calls"][0]["function"]["arguments"] == "{}"


async def test_what_a_server_keeps_beside_a_call_goes_back(talk: Make):
    kept = {"google": {"thought_signature": "abc"}}
    chat = talk(raw(calling(index=0, id="a", name="clock", arguments="{}", extra_content=kept), chunk({}, "stop")))
    reply = await chat.say("Time?", tools=(CLOCK,))
    assert reply.items[0]["tool_calls"][0]["extra_content"] == kept


# ── history ──


async def test_another_models_steps_go_out_as_text_and_calls_without_reasoning(talk: Make):
    chat = talk(CALLING, Turn([Text("Cold.")]))
    await chat.say("Weather?", tools=(WEATHER, CLOCK))
    await chat.answer("-3", "noon", model="llama4")
    said = chat.bodies[1]["messages"][1]
    assert said["content"] == "Let me see."
    assert said["tool_calls"][0]["function"] == {"name": "weather", "arguments": '{"city": "Oslo"}'}
    assert "Hm." not in str(chat.bodies[1])


async def test_another_providers_ids_are_made_to_fit_and_results_still_match(talk: Make):
    chat = talk(Turn([Text("Cold.")]))
    call = ToolCall(tool_use_id="functions.weather:0", tool_name="weather", args={}, malformed="{oops")
    silent = AssistantMessage(blocks=(SaidText(text=""),), provider="other", model="m")
    chat.messages += [silent, AssistantMessage(blocks=(call,), provider="other", model="m", items=({"x": 1},))]
    chat.parts = [call]
    await chat.answer("-3", tools=(WEATHER,))
    said, result = chat.bodies[0]["messages"]
    assert said["content"] is None
    assert said["tool_calls"][0]["id"] == result["tool_call_id"] != "functions.weather:0"
    assert said["tool_calls"][0]["function"]["arguments"] == "{}"


async def test_pictures_in_a_result_are_noted(talk: Make):
    chat = talk(Turn([Call("clock", {}, "call_a")]), Turn([Text("Nice.")]))
    await chat.say("Look", tools=(CLOCK,))
    pictures = (Image(mime_type="image/png", data="A" * 16_000), Image(mime_type="image/gif", data="aGk="))
    await chat.answer(ToolResult(tool_use_id="call_a", content="a clock", images=pictures))
    assert chat.bodies[1]["messages"][-1]["content"].splitlines() == [
        "a clock",
        "[image/png, 12 kB: this server takes no images in tool results]",
        "[image/gif, 1 kB: this server takes no images in tool results]",
    ]


# ── how it ends ──


@pytest.mark.parametrize(
    ("finish", "stop_reason"),
    [("stop", "end"), ("length", "length"), ("content_filter", "refusal"), ("tool_calls", "end"), ("eos", "end")],
)
async def test_a_finish_reason_says_why(talk: Make, finish: str, stop_reason: str):
    reply = await talk(raw(chunk({"content": "Hi"}), chunk({}, finish))).say("Hello")
    assert reply.stop_reason == stop_reason
    assert bool(reply.detail) == (stop_reason == "refusal")


async def test_a_refusal_is_said_and_is_the_detail(talk: Make):
    chat = talk(Turn([Text("I cannot help with that.")], stop="refusal"))
    reply = await chat.say("Do evil")
    assert (reply.stop_reason, reply.detail) == ("refusal", "I cannot help with that.")
    assert chat.wholes() == ["I cannot help with that."]


@pytest.mark.parametrize("last", [b"data: [DONE]\n\n", chunk({}, ""), b": bye\n\n"], ids=str)
async def test_a_stream_without_a_finish_reason_is_truncated(talk: Make, last: Any):
    chat = talk(raw(chunk({"content": "Hi"}), calling(index=0, id="a", name="clock", arguments="{}"), last))
    reply = await chat.say("Hello")
    assert (reply.stop_reason, reply.items, chat.calls) == ("truncated", (), [])


@pytest.mark.parametrize(
    ("event", "kind"),
    [
        ({"error": {"message": "upstream", "code": 502}}, "server"),
        ({"error": {"message": "slow down", "code": 429}}, "rate_limit"),
        ({"error": {"message": "no credit", "code": "402"}}, "quota"),
        ({"error": {"message": "gone", "type": "server_error"}}, "server"),
        ({"error": {"message": "x exceeds the context window"}}, "context"),
        ({"error": "model runner has unexpectedly stopped"}, "server"),
        (chunk({"content": ""}, "error"), "server"),
        (chunk({"content": ""}, "error", error={"code": 503, "message": "busy"}), "overloaded"),
    ],
    ids=str,
)
async def test_an_error_in_the_stream_is_ours(talk: Make, event: JsonObject, kind: str):
    with pytest.raises(MeerkatError) as caught:
        await talk(raw(chunk({"content": "Hi"}), event)).say("Hello")
    assert isinstance(caught.value, ProviderUnavailable | ProviderRejected)
    assert caught.value.facts["kind"] == kind


async def test_odd_chunks_are_taken_as_they_come(talk: Make):
    chat = talk(
        raw(
            {**chunk(), "choices": None},
            {"choices": []},
            {"id": "", "choices": [{"index": 0, "delta": None}]},
            chunk({"role": "assistant", "content": None, "tool_calls": None}),
            {"choices": [{"delta": {"content": "Hi"}}]},
            chunk({"content": ""}, "stop"),
            b"data: [DONE]\n\n",
        )
    )
    reply = await chat.say("Hello")
    assert (reply.stop_reason, chat.wholes()) == ("end", ["Hi"])


async def test_an_answer_of_nothing_is_no_message(talk: Make):
    chat = talk(raw(chunk({"reasoning": "Hm."}), chunk({}, "length")), Turn([Text("Hi")]))
    reply = await chat.say("Hello")
    assert (reply.stop_reason, reply.items) == ("length", ())
    await chat.say("Go on")
    assert [message["role"] for message in chat.bodies[1]["messages"]] == ["user", "user"]


@pytest.mark.parametrize(
    "turn",
    [
        Turn([Text("Hi")], fault=Fault(cut_after=3)),
        raw(chunk({"content": "Hi"}, "stop"), b"data: {nonsense\n\n"),
        raw(chunk({"content": "Hi"}, "stop"), {"error": {"message": "too late"}}),
        raw(chunk({"content": "Hi"}, "stop"), b"data: [DONE]\n\n", chunk({"content": " there"})),
    ],
    ids=["cut", "garbage", "an error", "more"],
)
async def test_what_fails_after_the_end_takes_nothing_away(talk: Make, turn: Turn):
    chat = talk(turn)
    reply = await chat.say("Hello")
    assert (reply.stop_reason, chat.wholes()) == ("end", ["Hi"])


# ── what is asked ──


async def test_a_server_of_ones_own_needs_no_key(talk: Make):
    chat = talk(Turn([Text("Hi")]), api_key="")
    chat.server.fake.queue("none", Turn([Text("Hi")]))
    assert (await chat.say("Hello")).stop_reason == "end"


async def test_parameters_go_where_they_belong(talk: Make):
    chat = talk(Turn([Text("Hi")]))
    plain = {"temperature": 0.5, "top_p": 1, "top_k": 40, "seed": 7, "stop": ["a"], "reasoning_effort": "low"}
    plain |= {"frequency_penalty": -2, "presence_penalty": 2, "parallel_tool_calls": True, "tool_choice": "auto"}
    await chat.say("Hello", provider_params={**plain, "extra_body": {"min_p": 0.1}}, tools=(CLOCK,))
    assert {name: chat.bodies[0][name] for name in plain} == plain
    assert chat.bodies[0]["min_p"] == 0.1
    assert "extra_body" not in chat.bodies[0]


async def test_what_only_goes_with_tools_is_left_out_without_them(talk: Make):
    chat = talk(Turn([Text("Hi")]))
    await chat.say("Hello", provider_params={"parallel_tool_calls": True, "tool_choice": "auto"})
    assert not {"parallel_tool_calls", "tool_choice", "tools"} & chat.bodies[0].keys()


async def test_a_schema_for_the_answer_is_a_format(talk: Make):
    chat = talk(Turn([Text("{}")]))
    await chat.say("Point?", output_schema=SCHEMA)
    wanted = {"name": "answer", "schema": SCHEMA, "strict": False}
    assert chat.bodies[0]["response_format"] == {"type": "json_schema", "json_schema": wanted}


async def test_a_schema_is_told_to_a_server_that_knows_no_formats(talk: Make):
    chat = talk(Turn([Text("{}")]), options=(("structured_output", "instruction"),))
    await chat.say("Point?", system_prompt="Be brief.", output_schema=SCHEMA)
    assert "response_format" not in chat.bodies[0]
    system = chat.bodies[0]["messages"][0]
    assert system["role"] == "system"
    assert system["content"].startswith("Be brief.\n\n")
    assert json.dumps(SCHEMA) in system["content"]


# ── models ──


LISTED = [
    {"id": "qwen3", "object": "model", "max_model_len": 32_768},
    {
        "id": "openai/gpt-6-sol",
        "context_length": 1_000_000,
        "top_provider": {"max_completion_tokens": 128_000},
        "supported_parameters": ["tools", "reasoning", "structured_outputs", "seed"],
    },
    {"id": "llama.gguf", "meta": {"n_ctx_train": 8_192}, "created": 1},
    {"id": "plain", "context_length": "large", "meta": None},
    {"id": None},
]


async def listing(http: Http, body: str) -> tuple[Model, ...]:
    """What a server's list of models is read as."""

    async def serve(stream: SocketStream) -> None:
        async with stream:
            await stream.receive()
            head = f"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: {len(body)}\r\n\r\n"
            await stream.send((head + body).encode())

    listener = await anyio.create_tcp_listener(local_host="127.0.0.1")
    port = listener.extra(anyio.abc.SocketAttribute.local_port)
    with anyio.fail_after(10):
        async with listener, anyio.create_task_group() as group:
            group.start_soon(listener.serve, serve)
            try:
                return await ChatProvider(Access(f"http://127.0.0.1:{port}/v1", ""), http).models()
            finally:
                group.cancel_scope.cancel()


async def test_the_size_of_the_window_is_read_where_a_server_tells_it(http: Http):
    models = {model.model: model for model in await listing(http, json.dumps({"object": "list", "data": LISTED}))}
    windows = {name: model.context_tokens for name, model in models.items()}
    assert windows == {"qwen3": 32_768, "openai/gpt-6-sol": 1_000_000, "llama.gguf": 8_192, "plain": None}
    assert models["openai/gpt-6-sol"].output_tokens_max == 128_000
    assert models["openai/gpt-6-sol"].abilities == ("tools", "reasoning", "structured_output")


async def test_a_list_of_no_models_is_empty(http: Http):
    assert await listing(http, '{"object": "list", "data": null}') == ()


@pytest.mark.parametrize("body", ["[]", "{nonsense", '"x"', '{"data": 5}', '{"data": [5]}'])
async def test_a_list_that_is_none_is_garbled(http: Http, body: str):
    with pytest.raises((ProviderUnavailable, BaseExceptionGroup)) as caught:
        await listing(http, body)
    group = caught.value
    error = group.exceptions[0] if isinstance(group, BaseExceptionGroup) else group
    assert isinstance(error, ProviderUnavailable)
    assert error.facts["kind"] == "malformed"
