"""The fake vendors: they refuse and take what the vendors refuse and take, and break in the ways they are told to."""

import copy
import json
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx2
import pytest
from vendors.script import Call, Fault, Text, Thinking, Turn
from vendors.server import Server, lane

PATHS = {
    "anthropic": "/v1/messages",
    "responses": "/v1/responses",
    "chat": "/v1/chat/completions",
    "interactions": "/v1/interactions",
}
SCHEMA = {"type": "object", "properties": {"x": {"type": "string"}}, "required": ["x"], "additionalProperties": False}
LOOSE = {"type": "object", "properties": {"x": {"type": "string"}}}
DEEP = {**SCHEMA, "properties": {"x": {"type": "array", "items": LOOSE}}}
FUNCTION = {"name": "look", "parameters": LOOSE}
HI = {
    "anthropic": {"messages": [{"role": "user", "content": "Hi"}]},
    "responses": {"input": [{"role": "user", "content": "Hi"}]},
    "chat": {"messages": [{"role": "user", "content": "Hi"}]},
    "interactions": {"input": [{"type": "user_input", "content": [{"type": "text", "text": "Hi"}]}]},
}
RIGHT: dict[str, dict[str, Any]] = {
    "anthropic": {
        "model": "claude-opus-5-5",
        "max_tokens": 100,
        "tools": [{"name": "look", "input_schema": LOOSE}],
        **HI["anthropic"],
    },
    "responses": {
        "model": "gpt-6-sol",
        "store": False,
        "include": ["reasoning.encrypted_content"],
        "tools": [{"type": "function", "strict": False, **FUNCTION}],
        **HI["responses"],
    },
    "chat": {"model": "qwen3", "tools": [{"type": "function", "function": FUNCTION}], **HI["chat"]},
    "interactions": {
        "model": "gemini-3.8-flash",
        "store": False,
        "tools": [{"type": "function", **FUNCTION}],
        **HI["interactions"],
    },
}
TURN = Turn([Thinking("Let me think.", "SIG"), Text("Größe 🦦"), Call("look", {"x": "é"}, "call_1")], piece=3)
LAST = {  # what only the end of a stream says
    "anthropic": "message_stop",
    "responses": "response.completed",
    "chat": "[DONE]",
    "interactions": "interaction.completed",
}


class Client:
    """Asks one vendor, by a lane of its own."""

    def __init__(self, server: Server, wire: str, key: str | None = None) -> None:
        self.server = server
        self.wire = wire
        self.key = lane() if key is None else key
        self.headers = {"authorization": f"Bearer {self.key}"} if self.key else {}
        if wire == "interactions":
            self.headers = {"x-goog-api-key": self.key} if self.key else {}
        if wire == "anthropic":
            self.headers["anthropic-version"] = "2026-10-21"
        self.http = httpx2.Client(base_url=server.url, headers=self.headers, timeout=5)

    def queue(self, *turns: Turn) -> "Client":
        self.server.fake.queue(self.key, *turns)
        return self

    def ask(self, headers: dict[str, str] | None = None, **changes: Any) -> httpx2.Response:
        """The right request, but for the changes; a change to None leaves the key out."""
        body = {name: value for name, value in (RIGHT[self.wire] | changes).items() if value is not None}
        return self.http.post(PATHS[self.wire], json=body, headers=headers)

    def refusal(self, response: httpx2.Response) -> str:
        """The message of an error in the vendor's shape."""
        assert response.status_code >= 400, response.text
        error = response.json()["error"]
        shape = {"anthropic": {"type", "message"}, "interactions": {"code", "message", "status"}}
        assert set(error) - {"details"} == shape.get(self.wire, {"message", "type", "param", "code"})
        return error["message"]


@pytest.fixture(params=PATHS)
def client(vendors: Server, request: pytest.FixtureRequest) -> Iterator[Client]:
    made = Client(vendors, request.param)
    with made.http:
        yield made


@pytest.fixture
def clients(vendors: Server) -> Iterator[Any]:
    """Makes clients that are closed in the end."""
    made: list[Client] = []

    def make(wire: str, key: str | None = None) -> Client:
        made.append(Client(vendors, wire, key))
        return made[-1]

    yield make
    for each in made:
        each.http.close()


# ── what they say ──


def test_a_turn_is_told_in_frames_and_as_a_whole(client: Client):
    client.queue(TURN, TURN)
    streamed, whole = client.ask(stream=True), client.ask()
    assert streamed.headers["content-type"].startswith("text/event-stream")
    assert LAST[client.wire] in streamed.text
    assert whole.json()["model"] == RIGHT[client.wire]["model"]
    for said in (
        "Let me think.",
        "Größe 🦦",
        "look",
        "call_1",
        "SIG" if client.wire in ("anthropic", "responses") else "",
    ):
        assert said in json.dumps(whole.json(), ensure_ascii=False)
    first, second = client.server.fake.requests(client.key)
    assert first.finished
    assert first.frames == streamed.text.count("data: ")
    assert second.body == RIGHT[client.wire]


def test_lanes_are_apart(client: Client, clients: Any):
    other = clients(client.wire).queue(Turn([Text("for the other")]))
    client.queue(Turn([Text("for me")]))
    assert "for me" in client.ask().text
    assert "no turn is queued" in client.refusal(client.ask())
    assert "for the other" in other.ask().text
    assert len(client.server.fake.requests(client.key)) == 2
    assert len(client.server.fake.requests(other.key)) == 1


def test_a_turn_can_be_played_always(client: Client):
    client.server.fake.always(client.key, Turn([Text("again")]))
    client.queue(Turn([Text("once")]))
    assert "once" in client.ask().text
    assert "again" in client.ask().text
    assert "again" in client.ask().text


# ── keys ──


@pytest.mark.parametrize("key", ["", "bad-key"])
@pytest.mark.parametrize("wire", PATHS)
def test_no_key_and_a_bad_key_are_refused(clients: Any, wire: str, key: str):
    client = clients(wire, key)
    response = client.ask()
    assert response.status_code == 401
    assert client.refusal(response)
    assert client.http.get("/v1/models").status_code == 401


def test_a_key_counts_only_where_its_vendor_looks_for_it(clients: Any):
    assert clients("interactions", "").ask(headers={"authorization": "Bearer x"}).status_code == 401
    assert clients("responses", "").ask(headers={"x-goog-api-key": "x"}).status_code == 401
    assert (
        clients("anthropic", "").ask(headers={"x-api-key": lane()}).status_code == 400
    )  # known, but no turn is queued


# ── what each vendor refuses ──


def _claude(*messages: dict[str, Any]) -> dict[str, Any]:
    return {"messages": [{"role": "user", "content": "Hi"}, *messages]}


def _says(*blocks: dict[str, Any]) -> dict[str, Any]:
    return {"role": "assistant", "content": list(blocks)}


def _user(*blocks: dict[str, Any]) -> dict[str, Any]:
    return {"role": "user", "content": list(blocks)}


def _use(tool_id: str = "a", name: str = "look") -> dict[str, Any]:
    return {"type": "tool_use", "id": tool_id, "name": name, "input": {}}


def _result(tool_id: str = "a") -> dict[str, Any]:
    return {"type": "tool_result", "tool_use_id": tool_id, "content": "20 °C"}


def _named(name: str) -> dict[str, Any]:
    return {"tools": [{"name": name, "input_schema": LOOSE}]}


MARK = {"cache_control": {"type": "ephemeral"}}
MARKED = {"type": "text", "text": "x", **MARK}
FORMAT = {"type": "json_schema", "schema": LOOSE}
BOUND = {"type": "adaptive", "block_binding": {"prefix_mismatch_behavior": "drop_block"}}


def _anthropic() -> Iterator[tuple[dict[str, Any], str]]:
    yield {"temperature": 1.0}, "temperature"
    yield {"top_p": 1.0}, "top_p"
    yield {"top_k": 5}, "top_k"
    yield {"max_tokens": None}, "max_tokens: Field required"
    yield {"foo": 1}, "foo: Extra inputs"
    yield {"messages": []}, "at least one message"
    yield {"messages": [_says({"type": "text", "text": "x"})]}, "first message"
    yield {"messages": [{"role": "tool", "content": "x"}]}, "role"
    yield _claude(_says(_use())), "without `tool_result` blocks immediately after: a"
    yield _claude(_says(_use()), {"role": "user", "content": "no"}), "without `tool_result` blocks"
    yield _claude(_says(_use(), _use("b")), _user(_result())), "immediately after: b"
    yield _claude(_says(_use()), _user({"type": "text", "text": "first"}, _result())), "without `tool_result`"
    yield _claude(_user(_result())), "unexpected `tool_use_id`"
    yield _claude(_says(_use()), _user(_result(), _result())), "single result"
    yield _claude(_says(_use(), _use()), _user(_result())), "must be unique"
    yield {**_claude(_says(_use()), _user(_result())), "tools": None}, "must define tools"
    yield _claude(_says(_use("a.b")), _user(_result("a.b"))), "tool_use.id"
    yield _claude(_says(_use("a", "a.b")), _user(_result())), "tool_use.name"
    yield _named("srv.look"), "{1,128}"
    yield _named("x" * 129), "{1,128}"
    yield {"tools": [*RIGHT["anthropic"]["tools"]] * 2}, "unique"
    yield {"tools": [{"name": "look", "input_schema": {}}]}, "input_schema.type"
    yield {"tools": [{"name": "look", "input_schema": {"type": "object", "anyOf": []}}]}, "top level"
    yield {"messages": [_user({"type": "text", "text": ""})]}, "non-empty"
    yield {"messages": [_user({"type": "text", "text": " "})]}, "non-whitespace"
    yield {"messages": [_user()]}, "non-empty content"
    yield {"system": [{"type": "text", "text": ""}]}, "system: text content"
    yield {"messages": [_user(*[MARKED] * 4)], **MARK}, "maximum of 4"
    yield {"thinking": {"type": "disabled"}}, "thinking.type.disabled"
    yield {"thinking": {"type": "enabled", "budget_tokens": 2048}}, "thinking.type.enabled"
    yield {"model": "claude-fable-5-1", "thinking": {"type": "disabled"}}, "thinking.type.disabled"
    yield {"model": "claude-haiku-4-5", "thinking": {"type": "adaptive"}}, "thinking.type.adaptive"
    yield {"model": "claude-sonnet-4-5-20250929", "thinking": {"type": "adaptive"}}, "thinking.type.adaptive"
    yield {"model": "claude-haiku-4-5", "thinking": {"type": "enabled", "budget_tokens": 9}}, "1024"
    yield {"model": "claude-haiku-4-5", "thinking": {"type": "enabled", "budget_tokens": 2048}}, "max_tokens"
    yield {"thinking": BOUND}, "block_binding"  # without its beta header
    yield {"tool_choice": {"type": "any"}}, "forces tool use"
    yield {"output_config": {"format": FORMAT}}, "additionalProperties"
    yield {"output_config": {"format": {**FORMAT, "schema": {"type": "integer", "minimum": 1}}}}, "'minimum'"
    yield {"output_config": {"effort": "huge"}}, "effort"
    yield (
        _claude(_says({"type": "thinking", "thinking": "x", "signature": "made up"}), HI["anthropic"]["messages"][0]),
        "Invalid `signature`",
    )


def _function(**changes: Any) -> dict[str, Any]:
    tool = RIGHT["responses"]["tools"][0] | changes
    return {"tools": [{name: value for name, value in tool.items() if value is not ...}]}


def _input(*items: dict[str, Any]) -> dict[str, Any]:
    return {"input": [*HI["responses"]["input"], *items]}


FUNCTION_CALL = {"type": "function_call", "call_id": "a", "name": "look", "arguments": "{}"}
OUTPUT = {"type": "function_call_output", "call_id": "a", "output": "20 °C"}
REASONING = {"type": "reasoning", "id": "rs_x", "summary": []}


def _format(**changes: Any) -> dict[str, Any]:
    form = {"type": "json_schema", "name": "answer", "schema": SCHEMA, "strict": True} | changes
    return {"text": {"format": form}}


def _responses() -> Iterator[tuple[dict[str, Any], str]]:
    yield {"max_tokens": 100}, "Unknown parameter: 'max_tokens'"
    yield {"max_output_tokens": 5}, "minimum value"
    yield {"temperature": 1}, "temperature"
    yield {"input": None}, "'input'"
    yield _input(FUNCTION_CALL), "No tool output found for function call a"
    yield _input(OUTPUT), "No tool call found for function call output with call_id a"
    yield _input(OUTPUT, FUNCTION_CALL), "No tool call found"
    yield _input({**FUNCTION_CALL, "name": "a.b"}, OUTPUT), "input[1].name"
    yield _input({**FUNCTION_CALL, "call_id": "a" * 65}, {**OUTPUT, "call_id": "a" * 65}), "maximum length 64"
    yield _input({**FUNCTION_CALL, "arguments": {}}, OUTPUT), "input[1].arguments"
    yield _input({"type": "thought"}), "Invalid value: 'thought'"
    yield _input({"role": "tool", "content": "x"}), "Invalid value: 'tool'"
    yield _input({"role": "user", "content": [{"type": "text", "text": "x"}]}), "'input_text'"
    yield _function(strict=...), "tools[0].strict"
    yield _function(strict=True), "additionalProperties"
    yield _function(strict=True, parameters={**SCHEMA, "required": []}), "Missing 'x'"
    yield _function(strict=True, parameters=DEEP), "('properties', 'x', 'items')"
    yield _function(parameters={"type": "string"}), 'type: "object"'
    yield _function(parameters={"type": "object", "anyOf": []}), "top level"
    yield _function(name="a.b"), "tools[0].name"
    yield _function(name="x" * 65), "tools[0].name"
    yield _format(schema=LOOSE), "Invalid schema for response_format 'answer'"
    yield _format(schema=DEEP), "Invalid schema for response_format 'answer'"
    yield _format(name="a b"), "text.format.name"
    yield _input(REASONING, {**FUNCTION_CALL}, OUTPUT), "Items are not persisted"
    yield {**_input(REASONING), "store": True}, "required following item"
    yield _input({**REASONING, "encrypted_content": "made up"}, FUNCTION_CALL, OUTPUT), "could not be verified"


def _chat_messages(*messages: dict[str, Any]) -> dict[str, Any]:
    return {"messages": [*HI["chat"]["messages"], *messages]}


CHAT_CALL = {"id": "a", "type": "function", "function": {"name": "look", "arguments": "{}"}}
CALLING = {"role": "assistant", "content": None, "tool_calls": [CHAT_CALL]}
TOOL = {"role": "tool", "tool_call_id": "a", "content": "20 °C"}


def _chat() -> Iterator[tuple[dict[str, Any], str]]:
    yield _chat_messages(CALLING), "did not have response messages: a"
    yield _chat_messages(CALLING, *HI["chat"]["messages"]), "did not have response messages: a"
    yield _chat_messages(TOOL), "must be a response"
    yield _chat_messages(CALLING, TOOL, {"role": "user", "content": "x"}, TOOL), "must be a response"
    yield _chat_messages({"role": "model", "content": "x"}), "Invalid value: 'model'"
    yield _chat_messages({"role": "assistant", "content": None}), "got null"
    yield _chat_messages({"role": "user", "content": None}), "got null"
    arguments = {**CHAT_CALL, "function": {"name": "look", "arguments": {}}}
    yield _chat_messages({**CALLING, "tool_calls": [arguments]}, TOOL), "arguments"
    yield _chat_messages({**CALLING, "tool_calls": [{**CHAT_CALL, "id": ""}]}, TOOL), "tool_calls[0].id"
    yield {"tools": []}, "empty array"
    yield {"tools": None, "tool_choice": "auto"}, "tool_choice"
    yield {"tools": [{"type": "function", "function": {**FUNCTION, "name": "a.b"}}]}, "tools[0].function.name"
    yield {"stream_options": {"include_usage": True}}, "stream_options"
    yield {"model": None}, "'model'"


def _steps(*steps: dict[str, Any]) -> dict[str, Any]:
    return {"input": [*HI["interactions"]["input"], *steps]}


STEP = {"type": "function_call", "id": "a", "name": "look", "arguments": {}}
STEP_RESULT = {"type": "function_result", "call_id": "a", "name": "look", "result": "20 °C"}


def _interactions() -> Iterator[tuple[dict[str, Any], str]]:
    yield {"generation_config": {"temperature": 1}}, "temperature"
    yield {"generation_config": {"top_k": 1}}, 'Unknown name "top_k"'
    yield {"generation_config": {"thinking_level": "max"}}, "thinking_level"
    yield {"messages": []}, 'Unknown name "messages"'
    yield {"model": None}, "`model`"
    yield _steps({"type": "message"}), "input[1].type"
    yield _steps({"type": "user_input", "content": [{"type": "input_text", "text": "x"}]}), "content.type"
    yield _steps(STEP_RESULT), "No function call found"
    yield _steps(STEP), "number of function response parts"
    yield _steps(STEP, *HI["interactions"]["input"], STEP_RESULT), "number of function response parts"
    yield _steps({**STEP, "arguments": "{}"}, STEP_RESULT), "arguments"
    yield _steps({**STEP, "name": "1look"}, STEP_RESULT), "function name"
    yield _steps({"type": "thought", "summary": []}), "missing a signature"
    yield _steps({"type": "thought", "signature": "bWFkZSB1cA=="}), "Invalid thought signature"
    yield {"tools": [{"type": "function", "name": "two words"}]}, "function name"
    yield {"tools": RIGHT["interactions"]["tools"] * 2}, "Duplicate"


WRONG = {"anthropic": _anthropic, "responses": _responses, "chat": _chat, "interactions": _interactions}


@pytest.mark.parametrize(
    ("wire", "changes", "message"),
    [pytest.param(wire, *case, id=f"{wire}-{number}") for wire in WRONG for number, case in enumerate(WRONG[wire]())],
)
def test_what_a_vendor_refuses_is_refused(clients: Any, wire: str, changes: dict[str, Any], message: str):
    client = clients(wire).queue(Turn([Text("not played")]))
    response = client.ask(**changes)
    assert message in client.refusal(response)
    assert response.status_code in (400, 404)
    seen = client.server.fake.requests(client.key)[-1]
    assert seen.rejected == response.json()["error"]["message"]
    assert not seen.finished
    assert "not played" in client.ask().text, "the turn is still there"


OK: dict[str, list[dict[str, Any]]] = {
    "anthropic": [
        _claude(_says({"type": "text", "text": "Look:"}, _use(), _use("b")), _user(_result("b"), _result(), MARKED)),
        _claude(_says({"type": "text", "text": "x"}), {"role": "system", "content": "Be brief"}, _user(MARKED)),
        {"system": "Be brief", "messages": [_user(*[MARKED] * 3)], **MARK},
        {"thinking": {"type": "adaptive", "display": "summarized"}, "output_config": {"effort": "xhigh"}},
        {"model": "claude-haiku-4-5", "max_tokens": 4096, "thinking": {"type": "enabled", "budget_tokens": 2048}},
        {"model": "claude-haiku-5-5", "thinking": {"type": "disabled"}},
        {"model": "claude-next", "thinking": {"type": "adaptive"}, "tool_choice": {"type": "auto"}},
        {"output_config": {"format": {**FORMAT, "schema": SCHEMA}}, "metadata": {"user_id": "x"}},
        _named("x" * 128),
    ],
    "responses": [
        _input(
            {"role": "assistant", "content": "x"},
            FUNCTION_CALL,
            {**FUNCTION_CALL, "call_id": "b"},
            {**OUTPUT, "call_id": "b"},
            OUTPUT,
        ),
        {"input": [OUTPUT], "previous_response_id": "resp_1"},
        {"input": "Hi", "tools": [], "instructions": "Be brief", "prompt_cache_key": "s", "max_output_tokens": 16},
        _function(strict=True, parameters=SCHEMA),
        _function(name="x" * 64),
        _format(),
        _format(strict=False, schema=LOOSE),
        {"reasoning": {"effort": "high", "summary": "auto"}, "stream_options": {"include_obfuscation": False}},
    ],
    "chat": [
        _chat_messages(CALLING, TOOL, {"role": "assistant", "content": "x", "reasoning_content": "y"}),
        {"max_completion_tokens": 5, "temperature": 0, "think": True},
        {"max_tokens": 5, "stream": True, "stream_options": {"include_usage": True}},
        {"messages": [{"role": "system", "content": "x"}, *HI["chat"]["messages"]], "tools": None},
    ],
    "interactions": [
        _steps(STEP, {**STEP, "id": "b"}, {**STEP_RESULT, "call_id": "b"}, STEP_RESULT),
        _steps({"type": "model_output", "content": [{"type": "text", "text": "x"}]}),
        {"input": "Hi", "generation_config": {"thinking_level": "high", "max_output_tokens": 5}},
        {"input": [STEP_RESULT], "previous_interaction_id": "v1_1", "store": True},
        {"tools": [{"type": "function", "name": "_srv.look:now"}, {"type": "google_search"}]},
    ],
}


@pytest.mark.parametrize(
    ("wire", "changes"),
    [pytest.param(wire, case, id=f"{wire}-{number}") for wire in OK for number, case in enumerate(OK[wire])],
)
def test_what_a_vendor_takes_is_taken(clients: Any, wire: str, changes: dict[str, Any]):
    response = clients(wire).queue(TURN).ask(**changes)
    assert response.status_code == 200, response.text


@pytest.mark.parametrize("wire", WRONG)
def test_a_lenient_lane_takes_anything(clients: Any, wire: str):
    client = clients(wire)
    client.server.fake.lenient(client.key)
    for changes, _ in WRONG[wire]():
        assert client.queue(Turn([Text("x")])).ask(**changes).status_code == 200


def test_anthropic_wants_its_version_named(clients: Any):
    client = clients("anthropic").queue(TURN)
    response = httpx2.post(
        client.server.url + "/v1/messages",
        json=RIGHT["anthropic"],
        headers={"x-api-key": client.key},
    )
    assert "header is required" in client.refusal(response)
    assert "valid version" in client.refusal(client.ask(headers={"anthropic-version": "2024-01-01"}))
    old = client.ask(headers={"anthropic-version": "2023-06-01"}, temperature=1)
    assert old.status_code == 200


# ── what was said must come back as it was ──

THOUGHTS = Turn([Thinking("One", "S1"), Thinking("Two", "S2"), Text("Well"), Call("look", {"x": "1"}, "a")])


def _swap(blocks: list[dict[str, Any]]) -> None:
    blocks[0], blocks[1] = blocks[1], blocks[0]


CHANGED = {
    "its text": (lambda body: body["messages"][1]["content"][0].update(thinking="Other"), "cannot be modified"),
    "its signature": (lambda body: body["messages"][1]["content"][0].update(signature="x"), "Invalid `signature`"),
    "its order": (lambda body: _swap(body["messages"][1]["content"]), "different conversation"),
    "one left out": (lambda body: body["messages"][1]["content"].pop(0), "different conversation"),
    "the system prompt": (lambda body: body.update(system="Be long"), "different conversation"),
    "the tools": (lambda body: body["tools"][0].update(description="x"), "different conversation"),
    "an earlier message": (lambda body: body["messages"][0].update(content="Ho"), "different conversation"),
}


def _replay(client: Client, model: str = "claude-opus-5-5") -> dict[str, Any]:
    """A first turn that thinks, and the request that goes on from it."""
    asked = copy.deepcopy(RIGHT["anthropic"]) | {"system": "Be brief", "model": model}
    message = client.queue(THOUGHTS, Turn([Text("Done")])).ask(**asked).json()
    assert [block["type"] for block in message["content"]] == ["thinking", "thinking", "text", "tool_use"]
    return asked | {"messages": [*asked["messages"], _says(*message["content"]), _user(_result())]}


def test_thinking_comes_back_where_only_cache_marks_moved(clients: Any):
    client = clients("anthropic")
    body = _replay(client)
    body["system"] = [{"type": "text", "text": "Be brief", **MARK}]
    body["messages"][0] = _user({"type": "text", "text": "Hi", **MARK})
    body["messages"][1]["content"][2]["citations"] = None
    assert client.ask(**body, thinking={"type": "adaptive"}).status_code == 200


@pytest.mark.parametrize("change", CHANGED)
def test_thinking_is_refused_when_something_changed(clients: Any, change: str):
    client = clients("anthropic")
    body = _replay(client)
    edit, message = CHANGED[change]
    edit(body)
    assert message in client.refusal(client.ask(**body))
    drop = {"headers": {"anthropic-beta": "thinking-binding-controls-2026-08-01"}, "thinking": BOUND}
    if message == "different conversation":
        assert client.ask(**body, **drop).status_code == 200


def test_older_models_do_not_bind_thinking_to_what_stood_before(clients: Any):
    client = clients("anthropic")
    body = _replay(client, "claude-opus-4-8")
    assert client.ask(**body | {"system": "Be long"}).status_code == 200


def test_a_long_conversation_with_thinking_passes(clients: Any):
    client = clients("anthropic")
    messages = [*HI["anthropic"]["messages"]]
    for number in range(4):
        call = Call("look", id=f"call_{number}")
        reply = client.queue(Turn([Thinking(f"Step {number}"), call])).ask(messages=messages)
        messages += [_says(*reply.json()["content"]), _user(_result(f"call_{number}"))]
    assert client.queue(Turn([Text("Done")])).ask(messages=messages).status_code == 200


def test_reasoning_comes_back_with_what_followed_it(clients: Any):
    client = clients("responses").queue(TURN)
    reasoning, message, call = client.ask().json()["output"]
    output = {**OUTPUT, "call_id": "call_1"}
    refused = {
        "required following item": (reasoning, call, output),
        "required 'reasoning' item": (message, call, output),
        "Items are not persisted": ({**reasoning, "encrypted_content": None}, message, call, output),
        "could not be verified": ({**reasoning, "encrypted_content": "x"}, message, call, output),
    }
    for words, items in refused.items():
        assert words in client.refusal(client.ask(**_input(*items)))
    assert client.queue(TURN).ask(**_input(reasoning, message, call, output)).status_code == 200
    assert client.queue(TURN).ask(**_input({**message, "id": None}, call, output)).status_code == 200


def test_signatures_of_calls_and_thoughts_come_back(clients: Any):
    client = clients("interactions").queue(TURN)
    thought, said, call = client.ask().json()["steps"]
    result = {**STEP_RESULT, "call_id": "call_1"}
    unsigned = {name: value for name, value in call.items() if name != "signature"}
    assert "missing a thought_signature" in client.refusal(client.ask(**_steps(thought, said, unsigned, result)))
    wrong = {**call, "signature": "eA=="}
    assert "Invalid thought signature" in client.refusal(client.ask(**_steps(thought, said, wrong, result)))
    assert client.queue(TURN).ask(**_steps(thought, said, call, result)).status_code == 200


# ── faults ──


@pytest.mark.parametrize(("status", "code"), [(429, None), (500, None), (503, "mine"), (529, None)])
def test_a_status_comes_with_the_vendors_error_and_the_headers_asked_for(client: Client, status: int, code: str | None):
    client.queue(Turn(fault=Fault(status=status, code=code, headers={"retry-after": "7"}, message="Slow down")))
    response = client.ask()
    assert response.status_code == status
    assert response.headers["retry-after"] == "7"
    assert response.headers["request-id"]
    assert client.refusal(response) == "Slow down"
    assert code is None or f'"{code}"' in response.text


def test_a_body_can_be_anyones(client: Client):
    client.queue(Turn(fault=Fault(status=502, body="<html>Bad gateway</html>")))
    assert client.ask().text == "<html>Bad gateway</html>"


def test_a_cut_drops_the_connection(client: Client):
    client.queue(Turn(TURN.parts, fault=Fault(cut_after=4)))
    with pytest.raises(httpx2.RemoteProtocolError):
        client.ask(stream=True)
    (seen,) = client.server.fake.requests(client.key)
    assert (seen.frames, seen.finished, seen.disconnected) == (4, False, None)


def test_an_end_comes_cleanly_and_without_the_last_word(client: Client):
    text = client.queue(Turn(TURN.parts, fault=Fault(end_after=4))).ask(stream=True).text
    assert text.count("data: ") == 4
    assert LAST[client.wire] not in text


def test_an_error_can_stand_in_the_stream(client: Client):
    text = client.queue(Turn(TURN.parts, fault=Fault(error_after=4, code="mine"))).ask(stream=True).text
    assert text.count("data: ") == 5
    assert "error" in text.rpartition("data: ")[2]
    assert "mine" in text


def test_garbage_can_stand_in_the_stream(client: Client):
    body = client.queue(Turn(TURN.parts, fault=Fault(garbage_after=3, garbage=b"data: \xff\n\n"))).ask(stream=True)
    assert b"data: \xff\n\n" in body.content
    assert LAST[client.wire].encode() in body.content


def test_bytes_come_in_pieces_of_any_size(client: Client):
    client.queue(Turn(TURN.parts, fault=Fault(chunk=1)), TURN)
    with client.http.stream("POST", PATHS[client.wire], json=RIGHT[client.wire] | {"stream": True}) as response:
        sizes = {len(piece) for piece in response.iter_raw()}
        assert max(sizes) < 200, "nobody put them together again"
    (seen,) = client.server.fake.requests(client.key)
    assert seen.finished


@pytest.mark.parametrize("fault", [Fault(stall_before=60), Fault(stall_after=2), Fault(delay=60)], ids=repr)
def test_a_client_that_goes_away_is_noticed(client: Client, fault: Fault):
    client.queue(Turn(TURN.parts, fault=fault))
    with pytest.raises(httpx2.ReadTimeout):
        client.http.post(PATHS[client.wire], json=RIGHT[client.wire] | {"stream": True}, timeout=0.05)
    (seen,) = client.server.fake.wait_requests(client.key, 1)
    assert seen.gone.wait(5)
    assert seen.disconnected is not None
    assert seen.disconnected >= seen.at
    assert not seen.finished


# ── lists and counts ──


def _pages(client: Client) -> Iterator[dict[str, Any]]:
    """The list of models, page by page, as the SDKs ask for it."""
    page = client.http.get("/v1/models").json()
    yield page
    while page.get("has_more") or page.get("nextPageToken"):
        more = {"after_id": page["last_id"]} if "last_id" in page else {"pageToken": page["nextPageToken"]}
        page = client.http.get("/v1/models", params=more).json()
        yield page


def test_anthropics_models_say_what_they_can(clients: Any):
    client = clients("anthropic")
    models = {model["id"]: model for page in _pages(client) for model in page["data"]}
    opus, haiku = models["claude-opus-5-5"], models["claude-haiku-4-5"]
    assert (opus["max_input_tokens"], opus["max_tokens"]) == (1_000_000, 128_000)
    types = opus["capabilities"]["thinking"]["types"]
    assert {name for name, support in types.items() if support["supported"]} == {"adaptive"}
    assert not haiku["capabilities"]["effort"]["supported"]
    assert client.http.get("/v1/models/claude-opus-5-5").json() == opus
    assert client.http.get("/v1/models/claude-1").status_code == 404
    assert client.server.fake.lookups(client.key)[0].path == "/v1/models"
    assert client.server.fake.requests(client.key) == []


def test_geminis_models_say_their_limits(clients: Any):
    pages = list(_pages(clients("interactions")))
    assert len(pages) > 1
    models = {model["name"]: model for page in pages for model in page["models"]}
    assert models["models/gemini-3.8-flash"]["inputTokenLimit"] == 1_048_576
    assert models["models/gemini-3.8-flash"]["outputTokenLimit"] == 65_536
    assert clients("interactions").http.get("/v1beta/models").json() == pages[0]


def test_openais_models_say_only_their_names(clients: Any):
    (page,) = _pages(clients("responses"))
    assert {model["object"] for model in page["data"]} == {"model"}
    assert "gpt-6-sol" in {model["id"] for model in page["data"]}


@pytest.mark.parametrize("path", ["/v1/messages/count_tokens", "/v1/responses/input_tokens"])
def test_tokens_are_counted(clients: Any, path: str):
    client = clients("anthropic")
    assert client.http.post(path, json={"model": "x"}).json()["input_tokens"] > 0
    assert client.server.fake.requests(client.key)[0].wire == "count"


# ── across processes ──


def test_a_lane_is_scripted_and_read_over_http(client: Client):
    control = f"/_fake/{client.key}"
    part = {"kind": "text", "text": "afar"}
    client.http.post(control, json=[{"parts": [part], "usage": {"input": 5}, "fault": {"delay": 0.001}}])
    client.http.post(control, json={"always": {"parts": [part]}, "lenient": True})
    assert "afar" in client.ask(stream=True).text
    assert client.ask(foo="anything").status_code == 200
    seen = client.http.get(control).json()
    assert [each["wire"] for each in seen] == [client.wire] * 2
    assert seen[0]["finished"]
    client.http.delete(control)
    assert client.http.get(control).json() == []


def test_recordings_can_be_waited_for_over_http(client: Client):
    control = f"/_fake/{client.key}"
    client.queue(Turn(fault=Fault(stall_before=60)))

    def give_up() -> None:
        with pytest.raises(httpx2.ReadTimeout):
            httpx2.post(
                client.server.url + PATHS[client.wire], json=RIGHT[client.wire], headers=client.headers, timeout=0.05
            )

    other = threading.Thread(target=give_up)
    other.start()
    waited = client.http.get(control, params={"until": "requests", "count": 1, "timeout_s": 4})
    assert len(waited.json()) == 1
    gone = client.http.get(control, params={"until": "disconnected", "timeout_s": 4})
    assert gone.status_code == 200
    assert gone.json()[0]["disconnected"]
    other.join()
    late = client.http.get(control, params={"until": "requests", "count": 2, "timeout_s": 0.01})
    assert late.status_code == 408


def test_waiting_in_process_ends_with_what_is_missing(vendors: Server):
    with pytest.raises(TimeoutError, match="0 of 1"):
        vendors.fake.wait_requests(lane(), 1, timeout_s=0.01)


def test_the_fake_runs_as_a_process_and_ends_with_its_parents_pipe():
    process = subprocess.Popen(
        [sys.executable, "-m", "vendors", "serve"],
        cwd=Path(__file__).parents[1],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    with process:
        assert process.stdout is not None
        url = process.stdout.readline().strip()
        assert httpx2.get(f"{url}/_fake/x").json() == []
        process.communicate(timeout=10)
    assert process.returncode == 0
