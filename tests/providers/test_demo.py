"""The demo model, through its one door: a request in, parts out."""

import json
import re
from pathlib import Path
from typing import Any

import anyio
import pytest
from jsonschema import Draft202012Validator

from meerkat_mcp.domain.errors import ProviderRejected, ProviderUnauthenticated, ProviderUnavailable
from meerkat_mcp.domain.messages import (
    AssistantMessage,
    JsonObject,
    Message,
    Reasoning,
    Text,
    ToolCall,
    ToolDefinition,
    ToolMessage,
    ToolResult,
    UserMessage,
)
from meerkat_mcp.providers import demo, demo_script
from meerkat_mcp.providers.base import ModelRequest, Part, Piece, Provider, Reply, Whole
from meerkat_mcp.providers.demo import DemoProvider
from meerkat_mcp.providers.demo_script import DIRECTIVES, SUMMARY_REQUEST

pytestmark = pytest.mark.anyio

PAGE = Path(__file__).parents[2] / "docs" / "reference" / "demo-model.md"
TOOLS = (ToolDefinition(name="weather"), ToolDefinition(name="srv__clock.now"))
POINT = {"type": "object", "properties": {"x": {"type": "integer"}}, "required": ["x"]}

provider: Provider = DemoProvider(delta_interval_ms=0)


@pytest.fixture
def anyio_backend() -> str:
    return "asyncio"


class Chat:
    """A conversation with the demo model: `say` is a prompt and one reply, `step` only the reply."""

    def __init__(self, **request: Any) -> None:
        self.request: dict[str, Any] = {"model": "demo", "max_tokens": 100_000, "tools": TOOLS} | request
        self.messages: list[Message] = []
        self.parts: list[Part] = []

    async def say(self, prompt: str) -> str:
        self.messages.append(UserMessage(text=prompt))
        return await self.step()

    async def answer(self, *contents: str) -> str:
        """Bring the results of the last step's calls."""
        results = [
            ToolResult(tool_use_id=call.tool_use_id, content=content)
            for call, content in zip(self.calls, contents, strict=True)
        ]
        self.messages.append(ToolMessage(results=tuple(results)))
        return await self.step()

    async def step(self) -> str:
        self.parts = []
        with anyio.fail_after(5):
            async for part in provider.reply(ModelRequest(messages=tuple(self.messages), **self.request)):
                self.parts.append(part)
        blocks = tuple(self._block(part) for part in self.parts if isinstance(part, Whole | ToolCall))
        self.messages.append(AssistantMessage(blocks=blocks, provider="demo", model="demo"))
        return self.messages[-1].text

    @staticmethod
    def _block(part: Whole | ToolCall) -> Text | Reasoning | ToolCall:
        if isinstance(part, ToolCall):
            return part
        return Text(text=part.text) if part.kind == "text" else Reasoning(text=part.text)

    @property
    def end(self) -> Reply:
        assert isinstance(self.parts[-1], Reply)
        assert sum(isinstance(part, Reply) for part in self.parts) == 1
        return self.parts[-1]

    @property
    def calls(self) -> list[ToolCall]:
        return [part for part in self.parts if isinstance(part, ToolCall)]

    @property
    def pieces(self) -> list[str]:
        return [part.text for part in self.parts if isinstance(part, Piece)]


# ── small talk ──


async def test_a_plain_prompt_is_answered_by_one_that_says_it_is_the_demo():
    chat = Chat()
    said = await chat.say("Please write a poem about the sea")
    assert "the demo model" in said
    assert "no AI" in said
    assert "Turn 1" in said
    assert "Please write a poem" in said
    assert chat.end.stop_reason == "end"


async def test_it_remembers_what_the_conversation_says():
    chat = Chat()
    assert "Nice to meet you, Ada." in await chat.say("Hello! My name is Ada.")
    assert "I will remember: pelican." in await chat.say("The secret word is 'pelican'.")
    assert "Your name is Ada." in await chat.say("What's my name?")
    assert "Turn 4" in await chat.say("hm")
    assert "remember: pelican." in await chat.say("What is the word?")
    assert "“Hello! My name is Ada.”" in await chat.say("What did I say first?")
    assert "“What did I say first?”" in await chat.say("And what did I say before this?")
    await chat.say("Remember the number 42. My name is Grace")
    assert "remember: the number 42." in await chat.say("What did I ask you to remember?")
    assert "Your name is Grace." in await chat.say("Do you know my name?")


async def test_it_does_not_invent_what_it_was_not_told():
    assert "You have not told me your name." in await Chat().say("What is my name?")
    assert "You have not asked me" in await Chat().say("What was the word?")
    assert "You said nothing before this." in await Chat().say("What did I say last?")


async def test_a_name_and_a_question_fit_into_one_prompt():
    assert "Your name is Ada." in await Chat().say("Hi. My name is Ada! What is my name?")


async def test_a_conversation_without_a_prompt_is_answered_too():
    assert "You have said nothing yet." in await Chat().step()


async def test_the_same_conversation_gets_the_same_reply():
    one, other = Chat(), Chat()
    for chat in (one, other):
        await chat.say("[[reason hm]][[call weather]]")
    assert one.parts == other.parts


# ── directives ──


async def test_say_streams_word_by_word_then_whole():
    chat = Chat()
    assert await chat.say("please [[say Hello  wide world]] now") == "Hello  wide world"
    assert chat.pieces == ["Hello", "  wide", " world"]
    assert chat.parts[-2] == Whole(kind="text", text="Hello  wide world")


async def test_texts_of_a_step_are_one_block_and_reasoning_is_another():
    chat = Chat()
    await chat.say("[[reason first\nthis]][[say a]][[wait 0]][[say b]]")
    wholes = [(part.kind, part.text) for part in chat.parts if isinstance(part, Whole)]
    assert wholes == [("reasoning", "first\nthis"), ("text", "a\nb")]
    assert "".join(chat.pieces) == "first\nthisa\nb"


async def test_words_and_chars_show_that_nothing_is_missing():
    assert (await Chat().say("[[words 200]]")).split() == [f"word{number}" for number in range(1, 201)]
    assert await Chat().say("[[words 0]]") == ""
    chars = await Chat().say("[[chars 200005]]")
    assert len(chars) == 200_005
    assert all(chars[offset : offset + 9] == f"{offset:09}" for offset in range(0, 200_000, 10))


async def test_a_step_that_only_reasons_or_waits_still_answers():
    assert "You said: “ahem”" in await Chat().say("[[reason hm]] ahem [[wait 0]]")
    assert "“ahem”" in await Chat().say("[[delta_ms 0]] ahem")


async def test_the_request_can_be_looked_at():
    chat = Chat(system_prompt="Be brief.", provider_params={"b": [1], "a": "ü"})
    assert await chat.say("[[system]]") == "Be brief."
    assert await chat.say("[[params]]") == '{"a": "ü", "b": [1]}'
    assert await chat.say("[[tools]]") == "weather, srv__clock.now"
    assert await Chat(tools=()).say("[[system]][[tools]]") == "(no system prompt)\nno tools"


async def test_history_lists_the_messages_one_on_a_line():
    chat = Chat()
    await chat.say('look [[call weather {"city": "Oslo"}]]')
    await chat.answer("cold\nand dark")
    assert (await chat.say("[[history]]")).splitlines() == [
        'user: look [[call weather {"city": "Oslo"}]]',
        'assistant: [weather {"city": "Oslo"}]',
        "tool: call_1_1 = cold and dark",
        "assistant: The demo model got these results: - weather (call_1_1) answered: cold and dark",
        "user: [[history]]",
    ]


async def test_json_is_said_exactly_as_written():
    assert await Chat().say('[[json {"a":  [[1, 2]], "b": "]]"} ]]') == '{"a":  [[1, 2]], "b": "]]"}'


@pytest.mark.parametrize(
    ("kind", "error"),
    [
        ("unavailable", ProviderUnavailable),
        ("rejected", ProviderRejected),
        ("unauthenticated", ProviderUnauthenticated),
        ("crash", RuntimeError),
    ],
)
async def test_it_fails_as_told_after_what_it_said(kind: str, error: type[Exception]):
    chat = Chat()
    with pytest.raises(error):
        await chat.say(f"[[say half a]][[fail {kind}]][[say never]]")
    assert chat.parts == [Piece(kind="text", text="half"), Piece(kind="text", text=" a")]


async def test_truncate_leaves_the_text_unfinished():
    chat = Chat()
    await chat.say("[[say half]][[truncate]][[say never]]")
    assert chat.parts == [Piece(kind="text", text="half"), chat.end]
    assert chat.end.stop_reason == "truncated"


async def test_refuse_finishes_the_text():
    chat = Chat()
    assert await chat.say("[[say No.]][[refuse]][[say never]]") == "No."
    assert chat.end.stop_reason == "refusal"


@pytest.mark.parametrize("silence", ["[[hang]]", "[[wait 1000]]"])
async def test_a_silence_can_be_cancelled_and_what_was_said_is_there(silence: str):
    chat, heard = Chat(), anyio.Event()
    request = ModelRequest(
        model="demo", max_tokens=100, messages=(UserMessage(text=f"[[say tick]]{silence}[[say never]]"),)
    )

    async def listen() -> None:
        async for part in provider.reply(request):
            chat.parts.append(part)
            heard.set()

    with anyio.fail_after(5):
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(listen)
            await heard.wait()
            tasks.cancel_scope.cancel()
    assert chat.parts == [Piece(kind="text", text="tick")]


async def test_a_closed_stream_says_no_more():
    stream = provider.reply(ModelRequest(model="demo", max_tokens=9, messages=(UserMessage(text="[[words 9]]"),)))
    assert await anext(stream) == Piece(kind="text", text="word1")
    await stream.aclose()
    assert [part async for part in stream] == []


@pytest.mark.parametrize(
    ("params", "prompt", "pause_s"),
    [
        ({}, "[[say a b]]", 0.02),
        ({"delta_ms": 7}, "[[say a b]]", 0.007),
        ({"delta_ms": 7}, "[[say a b]][[next]][[delta_ms 2.5]]", 0.0025),
    ],
)
async def test_the_pause_before_each_word_is_the_nearest_one(
    params: JsonObject, prompt: str, pause_s: float, monkeypatch: pytest.MonkeyPatch
):
    pauses: list[float] = []

    async def sleep(delay: float) -> None:
        pauses.append(delay)

    monkeypatch.setattr(demo.anyio, "sleep", sleep)
    messages = (UserMessage(text=prompt),)
    request = ModelRequest(model="demo", max_tokens=9, messages=messages, provider_params=params)
    assert len([part async for part in DemoProvider().reply(request)]) == 4
    assert pauses == [pause_s, pause_s]


@pytest.mark.parametrize("delta_ms", ["fast", -1, True, None, float("nan")])
async def test_a_pace_that_is_none_is_rejected(delta_ms: Any):
    with pytest.raises(ProviderRejected, match="delta_ms"):
        await Chat(provider_params={"delta_ms": delta_ms}).say("hi")


@pytest.mark.parametrize(
    "prompt",
    [
        "[[dance]]",
        "[[say: hi]]",
        "[[say]]",
        "[[say hi",
        "[[next",
        "[[words 2",
        "[[words many]]",
        "[[words -1]]",
        "[[words 1.5]]",
        "[[chars 1000001]]",
        "[[delta_ms nan]]",
        "[[wait]]",
        "[[wait inf]]",
        "[[fail]]",
        "[[fail badly]]",
        "[[hang on]]",
        "[[call]]",
        "[[call weather",
        "[[call weather Oslo]]",
        "[[call weather [1]]]",
        '[[call weather {"a": 1} {}]]',
        '[[call weather {"a": NaN}]]',
        r'[[call weather {"a": "\ud800"}]]',
        "[[json {]]",
        "[[json " + "[" * 100_000,
        "[[json " + "9" * 5_000 + "]]",
    ],
)
async def test_a_malformed_directive_is_answered_with_the_list_of_those_there_are(prompt: str):
    chat = Chat()
    said = await chat.say(f"[[say never]]{prompt}")
    assert all(known.form in said for known in DIRECTIVES.values())
    assert said.startswith(("There is no directive", "Write [["))
    assert chat.end.stop_reason == "end"


async def test_help_lists_the_directives():
    said = await Chat().say("[[help]]")
    assert all(f"{known.form}: {known.does}" in said for known in DIRECTIVES.values())


@pytest.mark.parametrize("prompt", ["x = [[1, 2], [3]]", "if [[ -f x ]]; then", "[[]]", "]] [["])
async def test_brackets_that_open_no_directive_are_plain_text(prompt: str):
    assert "You said:" in await Chat().say(prompt)


async def test_only_the_user_gives_directives():
    chat = Chat(system_prompt="[[say pwned]]")
    await chat.say("[[call weather]]")
    assert "[[fail crash]]" in await chat.answer("[[fail crash]]")
    assert "[[fail crash]]" in await chat.say('[[json "[[fail crash]]"]]')
    assert "You said:" in await chat.say("and now?")


# ── steps and tools ──


async def test_calls_of_one_step_are_parallel_and_their_results_are_quoted():
    chat = Chat()
    assert await chat.say('[[say Looking.]][[call weather {"city": "Oslo"}]][[call srv__clock.now]]') == "Looking."
    assert [(call.tool_use_id, call.tool_name, call.args) for call in chat.calls] == [
        ("call_1_1", "weather", {"city": "Oslo"}),
        ("call_1_2", "srv__clock.now", {}),
    ]
    assert chat.end.stop_reason == "tool_calls"
    said = await chat.answer("-3 degrees", "noon")
    assert "weather (call_1_1) answered: -3 degrees" in said
    assert "srv__clock.now (call_1_2) answered: noon" in said
    assert chat.end.stop_reason == "end"


async def test_a_failed_tool_is_quoted_as_failed_and_a_long_result_is_cut():
    chat = Chat()
    await chat.say("[[call weather]]")
    content = "x" * 10_000
    chat.messages.append(ToolMessage(results=(ToolResult(tool_use_id="call_1_1", content=content, is_error=True),)))
    said = await chat.step()
    assert "weather (call_1_1) failed: xxx" in said
    assert len(said) < 2_200


async def test_a_script_goes_on_step_by_step_from_the_conversation_alone():
    chat = Chat()
    await chat.say("[[call weather]][[next]][[reason hm]][[call srv__clock.now]][[next]][[say Done.]]")
    assert await chat.answer("cold") == ""
    assert [call.tool_use_id for call in chat.calls] == ["call_3_1"]
    assert await chat.answer("noon") == "Done."
    assert "Turn 2" in await chat.say("thanks")


async def test_an_empty_last_step_quotes_the_results():
    chat = Chat()
    await chat.say("[[call weather]][[next]]")
    assert "answered: cold" in await chat.answer("cold")


async def test_tool_use_ids_never_come_twice_in_a_conversation():
    chat, seen = Chat(), list[str]()
    for _ in range(3):
        await chat.say("[[call weather]][[call weather]][[next]][[call weather]]")
        seen += [call.tool_use_id for call in chat.calls]
        await chat.answer("a", "b")
        seen += [call.tool_use_id for call in chat.calls]
        await chat.answer("c")
    assert len(set(seen)) == len(seen) == 9


async def test_a_call_of_a_tool_that_is_not_there_becomes_text():
    chat = Chat()
    assert await chat.say("[[call rm {}]]") == "There is no tool 'rm' here; I have weather, srv__clock.now."
    assert chat.end.stop_reason == "end"


async def test_a_failed_turn_leaves_no_trace_in_the_next():
    chat = Chat(output_schema=POINT)
    with pytest.raises(ProviderUnavailable):
        await chat.say("[[fail unavailable]]")
    assert json.loads(await chat.say("again")) == {"x": 0}


# ── tokens ──


async def test_tokens_are_words():
    chat = Chat(system_prompt="Be very brief.")
    await chat.say('[[reason I see.]][[say One two three]][[call weather {"a": "b c"}]]')
    usage = chat.end.usage
    prompt_words = len(chat.messages[0].text.split())
    assert (usage.input_tokens, usage.output_tokens, usage.reasoning_tokens) == (3 + prompt_words, 2 + 3 + 4, 2)
    assert usage.cost_usd == 0.0
    await chat.answer("four words of result")
    assert chat.end.usage.input_tokens == 3 + prompt_words + (3 + 4) + 4


async def test_a_reply_stops_at_max_tokens():
    chat = Chat(max_tokens=5)
    assert await chat.say("[[reason one two]][[words 4]][[call weather]]") == "word1 word2 word3"
    assert (chat.end.stop_reason, chat.end.usage.output_tokens, chat.calls) == ("length", 5, [])
    assert await chat.say("[[words 5]]") == "word1 word2 word3 word4 word5"
    assert chat.end.stop_reason == "end"


# ── schemas ──

TREE = {
    "$defs": {
        "Node": {
            "type": "object",
            "properties": {
                "name": {"type": "string"},
                "left": {"anyOf": [{"$ref": "#/$defs/Node"}, {"type": "null"}]},
                "right": {"$ref": "#/$defs/Node"},
                "children": {"type": "array", "items": {"$ref": "#/$defs/Node"}},
            },
            "required": ["name", "left"],
        }
    },
    "$ref": "#/$defs/Node",
}


@pytest.mark.parametrize(
    "schema",
    [
        {},
        POINT,
        TREE,
        {"const": {"a": [1]}},
        {"enum": ["red", "green"]},
        {"type": ["null", "string"]},
        {"type": "boolean"},
        {"type": "string", "minLength": 7.0, "maxLength": 9},
        {"maxLength": 2, "type": "string"},
        {"type": "integer", "exclusiveMinimum": 3, "multipleOf": 5},
        {"type": "integer", "minimum": 2.5},
        {"type": "integer", "maximum": -7, "multipleOf": 2},
        {"type": "integer", "minimum": 10**400},
        {"type": "number", "exclusiveMinimum": 0, "exclusiveMaximum": 0.1},
        {"type": "number", "minimum": -5, "exclusiveMaximum": -1},
        {"type": "number", "minimum": 1.2, "multipleOf": 0.5},
        {"type": "array", "minItems": 3, "items": {"enum": ["x"]}},
        {"type": "array", "maxItems": 0, "items": {"type": "string"}},
        {"type": "array", "prefixItems": [{"type": "integer"}, {"const": "b"}], "items": False},
        {"items": {"minimum": 3}},
        {"type": "object", "required": ["extra"], "additionalProperties": {"type": "integer"}},
        {"type": "object", "properties": {"never": False, "ever": True}},
        {"oneOf": [{"type": "integer"}, {"type": "string"}]},
        {
            "allOf": [{"$ref": "#/$defs/a~1b"}, {"properties": {"y": {"type": "null"}}, "required": ["y"]}],
            "required": ["x"],
            "$defs": {"a/b": POINT},
        },
        {"allOf": [{"minimum": 3, "type": "integer"}, {"minimum": 9, "maximum": 20}], "minimum": 5},
        {"prefixItems": [{"const": 1}, {"$ref": "#/prefixItems/0"}]},
    ],
    ids=lambda schema: json.dumps(schema)[:50],
)
async def test_an_output_schema_is_answered_with_json_that_fits(schema: JsonObject):
    value = json.loads(await Chat(output_schema=schema).say("Where are you?"))
    Draft202012Validator(schema).validate(value)


@pytest.mark.parametrize(
    "schema",
    [
        {"$ref": "#"},
        {"$ref": "#/nowhere/0"},
        {"allOf": [{"$ref": "#"}, {"$ref": "#"}]},
        {"type": "object", "properties": {name: {"$ref": "#"} for name in "abcdefgh"}, "required": list("abcdefgh")},
        {"type": "array", "items": {"$ref": "#"}, "minItems": 1_000_000_000},
        {"type": "array", "items": {"type": "string", "minLength": 1_000_000_000}, "minItems": 1_000_000_000},
    ],
    ids=lambda schema: json.dumps(schema)[:50],
)
async def test_a_schema_without_an_end_is_answered_within_bounds(schema: JsonObject):
    assert len(json.dumps(demo_script.example(schema))) < 1_000_000


async def test_bad_json_is_said_so_many_times_then_the_answer_fits():
    chat = Chat(output_schema=POINT)
    broken = await chat.say("[[bad_json 2]]")
    with pytest.raises(ValueError, match="Expecting"):
        json.loads(broken)
    assert await chat.say("That is not JSON. Answer again.") == broken
    assert json.loads(await chat.say("That is not JSON. Answer again.")) == {"x": 0}
    assert json.loads(await chat.say("And something else?")) == {"x": 0}


async def test_bad_json_can_come_after_tool_calls_and_before_an_answer_of_your_own():
    chat = Chat(output_schema=POINT)
    await chat.say('[[call weather]][[next]][[bad_json 1]][[next]][[json {"x": 7}]]')
    with pytest.raises(ValueError, match="Expecting"):
        json.loads(await chat.answer("cold"))
    assert await chat.say("Answer again.") == '{"x": 7}'


async def test_without_a_schema_a_plain_prompt_leaves_the_script_behind():
    chat = Chat()
    await chat.say("[[say one]][[next]][[say two]]")
    assert "You said: “go on”" in await chat.say("go on")


# ── compaction ──


def asked_to_summarise(chat: "Chat") -> str:
    """What a compaction asks: the conversation as text."""
    told = "\n\n".join(f"## {message.role}\n{getattr(message, 'text', '')}" for message in chat.messages)
    return f"{SUMMARY_REQUEST} for yourself.\n\n<conversation>\n{told}\n</conversation>"


async def test_a_summary_lists_the_prompts_and_holds_what_was_told():
    chat = Chat(output_schema=POINT)
    await chat.say("My name is Ada.")
    await chat.say("[[bad_json 5]]")
    summary = await Chat().say(asked_to_summarise(chat))
    assert summary.splitlines()[1:] == ["- My name is Ada.", "- [bad_json 5]"]
    after = Chat()
    said = await after.say(f"Summary of the conversation so far:\n\n{summary}")
    assert "This is the demo model" in said
    assert "Your name is Ada." in await after.say("What is my name?")
    assert "“My name is Ada.”" in await after.say("What did I say first?")


async def test_a_summary_is_bounded_and_keeps_the_first_and_the_newest_prompts():
    chat = Chat()
    chat.messages = [UserMessage(text=f"prompt {number} " + "x " * 200) for number in range(1_000)]
    summary = await Chat().say(asked_to_summarise(chat))
    assert len(summary) <= 2_000
    assert "980 more left out" in summary
    assert "- prompt 0 " in summary
    assert "- prompt 999 " in summary


async def test_a_summary_never_carries_a_directive():
    chat = Chat()
    await chat.say("[[[[say [[say x]]]]")
    await chat.say("[[unknown]] [[fail crash")
    summary = await Chat().say(asked_to_summarise(chat))
    assert "[[" not in summary


# ── the catalogue and the page ──


async def test_there_is_one_model_and_it_is_free():
    (model,) = await provider.models()
    assert (model.model, model.provider, model.input_usd, model.output_usd) == ("demo", "demo", 0, 0)
    assert model.context_tokens


def test_every_directive_is_on_its_page():
    page = PAGE.read_text(encoding="utf-8")
    listed = re.findall(r"^\| (`\[\[.*) \|$", page, re.MULTILINE)
    assert listed == [f"`{known.form}` | {known.does}" for known in DIRECTIVES.values()]


def test_every_example_of_the_page_is_well_formed():
    examples = re.findall(r"^```text\n(.*?)\n```$", PAGE.read_text(encoding="utf-8"), re.MULTILINE | re.DOTALL)
    assert len(examples) > 5
    for example in examples:
        assert demo_script.parse(example).prompt == ""
