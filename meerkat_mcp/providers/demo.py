"""The demo model: no key, no network, no AI. It plays the script in the prompt; without one it makes small talk.

The same conversation always gets the same reply: nothing is kept between two calls, no dice are thrown. What a
reply will be is a plain iterator of parts and silences (`_Play`); only `DemoProvider.reply` waits. A token is a word.
"""

import json
import math
import re
from collections.abc import AsyncGenerator, Iterator, Sequence
from typing import Literal

import anyio

from meerkat_mcp.domain.errors import ProviderRejected
from meerkat_mcp.domain.messages import (
    AssistantMessage,
    Message,
    StopReason,
    ToolCall,
    ToolMessage,
    Usage,
    UserMessage,
)
from meerkat_mcp.providers import demo_script
from meerkat_mcp.providers.base import Model, ModelRequest, Part, Piece, Reply, Whole
from meerkat_mcp.providers.demo_script import NUMBER_MAX, SUMMARY_REQUEST, Directive

DELTA_MS = 20.0
SUMMARY_CHARS_MAX = 2_000
QUOTED_CHARS_MAX = 2_000  # of one tool result
LINE_CHARS_MAX = 200
SUMMARY_LINE_CHARS_MAX = 90
SUMMARY_LINES_MAX = 20

_SUMMARY_START = "Summary by the demo model:"
_BROKEN_JSON = '{"demo": "broken on purpose",'
_PIECE = re.compile(r"\s*\S+(?:\s+\Z)?|\s+")


class DemoProvider:
    """Answers at once and for free, by script. `delta_interval_ms` is the pause before each word."""

    name = "demo"

    def __init__(self, *, delta_interval_ms: float | None = None) -> None:
        self._delta_ms = DELTA_MS if delta_interval_ms is None else delta_interval_ms

    async def reply(self, request: ModelRequest) -> AsyncGenerator[Part]:
        """Play one step; see `Provider.reply`."""
        for part in _Play(request, self._delta_ms).parts():
            if isinstance(part, float | int):
                await anyio.sleep(part)
            else:
                yield part

    async def models(self) -> tuple[Model, ...]:
        """The one model there is. Its window is small, so that one can see it fill."""
        abilities = ("tools", "reasoning", "structured_output")
        return (
            Model(
                model="demo",
                provider=self.name,
                context_tokens=32_000,
                output_tokens_max=NUMBER_MAX,
                input_usd=0.0,
                output_usd=0.0,
                abilities=abilities,
            ),
        )


class _Play:
    """One reply in the making. A float among its parts is a silence of so many seconds."""

    def __init__(self, request: ModelRequest, delta_ms: float) -> None:
        self._request = request
        self._delta_ms = _chosen_delta_ms(request, delta_ms)
        self._kind: Literal["text", "reasoning"] = "text"
        self._block: list[str] = []
        self._words = 0
        self._reasoning_words = 0
        self._calls: list[ToolCall] = []
        self._stop: StopReason | None = None

    def parts(self) -> Iterator[Part | float]:
        text, done = demo_script.find(self._request.messages, asks_again=self._request.output_schema is not None)
        try:
            script = demo_script.parse("" if text.startswith(SUMMARY_REQUEST) else text)
        except demo_script.Malformed as exc:
            yield from self._write("text", f"{exc} The demo model knows these directives:\n{demo_script.listing()}")
        else:
            if script.delta_ms is not None:
                self._delta_ms = script.delta_ms
            yield from self._step(script.step(done))
        if self._stop != "truncated":
            yield from self._finished()
        called = sum(_words(json.dumps(call.args)) + 1 for call in self._calls)
        usage = Usage(
            input_tokens=_words(self._request.system_prompt) + sum(map(_message_words, self._request.messages)),
            output_tokens=self._words + called,
            reasoning_tokens=self._reasoning_words,
            cost_usd=0.0,
        )
        yield Reply(stop_reason=self._stop or ("tool_calls" if self._calls else "end"), usage=usage)

    def _step(self, directives: Sequence[Directive]) -> Iterator[Part | float]:
        for directive in directives:
            match directive.name:
                case "wait":
                    yield directive.number
                case "hang":
                    yield math.inf
                case "fail":
                    raise demo_script.FAILURES[directive.text](f"The demo model fails as told: {directive.text}.")
                case "truncate":
                    self._stop = "truncated"
                case "refuse":
                    self._stop = "refusal"
                case "reason":
                    yield from self._write("reasoning", directive.text)
                case "call":
                    yield from self._call(directive)
                case _:
                    yield from self._write("text", _said(directive, self._request))
            if self._stop is not None:
                return
        if all(directive.name in ("wait", "reason") for directive in directives):
            yield from self._write("text", _unscripted(self._request))

    def _write(self, kind: Literal["text", "reasoning"], text: str) -> Iterator[Part | float]:
        """Say it word by word; what is of the same kind goes on in the same block, on a new line."""
        if kind != self._kind:
            yield from self._finished()
            self._kind = kind
        for piece in _PIECE.findall(f"\n{text}" if self._block else text):
            if self._words >= self._request.max_tokens:
                self._stop = "length"
                return
            yield self._delta_ms / 1000
            self._words += 1
            self._reasoning_words += kind == "reasoning"
            self._block.append(piece)
            yield Piece(kind=kind, text=piece)

    def _finished(self) -> Iterator[Part]:
        if self._block:
            yield Whole(kind=self._kind, text="".join(self._block))
        self._block = []

    def _call(self, directive: Directive) -> Iterator[Part | float]:
        """Call the tool. The id is of this place in the conversation, so no earlier call of it has the same."""
        names = [tool.name for tool in self._request.tools]
        if directive.text not in names:
            yield from self._write("text", f"There is no tool {directive.text!r} here; I have {_listed(names)}.")
            return
        yield from self._finished()
        tool_use_id = f"call_{len(self._request.messages)}_{len(self._calls) + 1}"
        call = ToolCall(tool_use_id=tool_use_id, tool_name=directive.text, args=directive.args or {})
        self._calls.append(call)
        yield call


def _chosen_delta_ms(request: ModelRequest, default: float) -> float:
    delta_ms = request.provider_params.get("delta_ms", default)
    if type(delta_ms) not in (int, float) or not 0 <= delta_ms <= NUMBER_MAX:
        raise ProviderRejected(f"provider_params.delta_ms must be a number from 0 to {NUMBER_MAX}.")
    return delta_ms


# ── what it says ──


def _said(directive: Directive, request: ModelRequest) -> str:
    """The text of a directive."""
    match directive.name:
        case "words":
            return " ".join(f"word{number}" for number in range(1, int(directive.number) + 1))
        case "chars":
            return _chars(int(directive.number))
        case "bad_json":
            return _BROKEN_JSON
        case "system":
            return request.system_prompt or "(no system prompt)"
        case "history":
            return "\n".join(map(_as_line, request.messages))
        case "tools":
            return _listed([tool.name for tool in request.tools])
        case "params":
            return json.dumps(request.provider_params, ensure_ascii=False, sort_keys=True)
        case "help":
            return f"The demo model knows these directives:\n{demo_script.listing()}"
        case _:
            return directive.text


def _chars(count: int) -> str:
    """Blocks of ten: nine digits that say their offset and a bar; each thousand ends in a line break."""
    blocks = (f"{offset:09}" + ("|" if (offset + 10) % 1000 else "\n") for offset in range(0, count, 10))
    return "".join(blocks)[:count]


def _unscripted(request: ModelRequest) -> str:
    """What to say when no script says it."""
    last = request.messages[-1] if request.messages else None
    if isinstance(last, UserMessage) and last.text.startswith(SUMMARY_REQUEST):
        return _summary(_prompts(_told_messages(last.text)))
    if request.output_schema is not None:
        return json.dumps(demo_script.example(request.output_schema), ensure_ascii=False)
    if isinstance(last, ToolMessage):
        return _quoted(last, request.messages)
    return _small_talk(_prompts(request.messages))


def _told_messages(text: str) -> list[Message]:
    """What the user said in a conversation that is told as text, as a summariser gets it."""
    said = re.findall(r"^## user\n(.*?)(?=\n\n## |\n</conversation>\Z)", text, re.DOTALL | re.MULTILINE)
    return [UserMessage(text=prompt) for prompt in said]


def _prompts(messages: Sequence[Message]) -> list[str]:
    """What the user said, one line each; a summary of ours stands for the prompts it lists."""
    prompts: list[str] = []
    for message in messages:
        if isinstance(message, UserMessage):
            _, ours, listed = message.text.partition(_SUMMARY_START)
            lines = [line[2:] for line in listed.splitlines() if line.startswith("- ")]
            prompts += lines if ours else [demo_script.plain(message.text)]
    return prompts


def _summary(prompts: Sequence[str]) -> str:
    """All prompts, or the first and the newest of them."""
    kept = prompts if len(prompts) <= SUMMARY_LINES_MAX else [prompts[0], *prompts[1 - SUMMARY_LINES_MAX :]]
    left_out = f" ({len(prompts) - len(kept)} more left out)" if len(prompts) > len(kept) else ""
    lines = [f"- {_cut(prompt, SUMMARY_LINE_CHARS_MAX)}" for prompt in kept]
    summary = "\n".join([f"{_SUMMARY_START} the user's prompts were{left_out}:", *lines])
    assert len(summary) <= SUMMARY_CHARS_MAX, "lines times their length keep below it"
    return summary


def _quoted(message: ToolMessage, messages: Sequence[Message]) -> str:
    """The results of the last step's calls."""
    asked = next((earlier for earlier in reversed(messages) if isinstance(earlier, AssistantMessage)), None)
    names = {call.tool_use_id: call.tool_name for call in asked.tool_calls} if asked else {}
    lines = [
        f"- {names.get(result.tool_use_id, 'a tool')} ({result.tool_use_id}) "
        f"{'failed' if result.is_error else 'answered'}: {_cut(result.content, QUOTED_CHARS_MAX)}"
        for result in message.results
    ]
    return "\n".join(["The demo model got these results:", *lines])


def _as_line(message: Message) -> str:
    match message:
        case UserMessage():
            said = message.text
        case AssistantMessage():
            calls = [f"[{call.tool_name} {json.dumps(call.args, ensure_ascii=False)}]" for call in message.tool_calls]
            said = " ".join([message.text, *calls])
        case ToolMessage():
            said = "; ".join(f"{result.tool_use_id} = {result.content}" for result in message.results)
    return f"{message.role}: {_cut(' '.join(said.split()), LINE_CHARS_MAX)}"


def _listed(names: Sequence[str]) -> str:
    return ", ".join(names) or "no tools"


def _cut(text: str, most: int) -> str:
    return text if len(text) <= most else f"{text[: most - 1]}…"


def _words(text: str) -> int:
    return len(text.split())


def _message_words(message: Message) -> int:
    match message:
        case UserMessage():
            return _words(message.text)
        case AssistantMessage():
            return _words(message.text) + sum(_words(json.dumps(call.args)) + 1 for call in message.tool_calls)
        case ToolMessage():
            return sum(_words(result.content) for result in message.results)


# ── small talk ──

_SENTENCE_END = re.compile(r"(?<=[.!?])\s+")
_QUESTION = re.compile(r"\?$|^(?:what|who|which|do|did|tell)\b", re.IGNORECASE)
_NAME = re.compile(r"\bmy name(?: is|.s)\s+([^\s.,;!?]+)", re.IGNORECASE)
_WORD = re.compile(r"\bthe (?:\w+ )?word is:?\s+[\"'“]?([^\s.,;!?\"'”]+)", re.IGNORECASE)
_KEEP = re.compile(r"\bremember:?\s+(?:that\s+)?(.*[^.!\s])", re.IGNORECASE)
_ASKS_NAME = re.compile(r"\bmy name\b", re.IGNORECASE)
_ASKS_FIRST = re.compile(r"(?=.*\b(?:I|my)\b).*\bfirst\b", re.IGNORECASE)
_ASKS_LAST = re.compile(r"(?=.*\b(?:I|my)\b).*\b(?:last|before|previous|just)\b", re.IGNORECASE)
_ASKS_WORD = re.compile(r"\b(?:remember|word|I tell you|I told you)\b", re.IGNORECASE)


def _small_talk(prompts: Sequence[str]) -> str:
    """Who is speaking, which turn this is, and something that shows that the conversation was read."""
    who = f"This is the demo model: a script, no AI. Turn {len(prompts)} of this conversation."
    if not prompts:
        return f"{who} You have said nothing yet."
    more = " Write [[help]] to see what I can play." if len(prompts) == 1 else ""
    return f"{who} {_recalled(prompts) or _heard(prompts[-1])}{more}"


def _recalled(prompts: Sequence[str]) -> str:
    """The answer to a question about the conversation; empty when the last prompt asks none."""
    question = next((part for part in reversed(_SENTENCE_END.split(prompts[-1])) if _QUESTION.search(part)), "")
    earlier = prompts[:-1]
    if _ASKS_NAME.search(question):
        name = _told(prompts, _NAME)
        return f"Your name is {name}." if name else "You have not told me your name."
    if _ASKS_FIRST.match(question):
        return f"The first thing you said was: “{_cut(prompts[0], LINE_CHARS_MAX)}”"
    if _ASKS_LAST.match(question):
        return (
            f"Before this you said: “{_cut(earlier[-1], LINE_CHARS_MAX)}”"
            if earlier
            else "You said nothing before this."
        )
    if _ASKS_WORD.search(question):
        word = _told(prompts, _WORD, _KEEP)
        return f"You asked me to remember: {word}." if word else "You have not asked me to remember anything."
    return ""


def _heard(prompt: str) -> str:
    if name := _told([prompt], _NAME):
        return f"Nice to meet you, {name}."
    if word := _told([prompt], _WORD, _KEEP):
        return f"I will remember: {word}."
    words = prompt.split()
    return f"You said: “{_cut(' '.join(words[:12]), LINE_CHARS_MAX)}{' …' if len(words) > 12 else ''}”"


def _told(prompts: Sequence[str], *patterns: re.Pattern[str]) -> str:
    """What the user stated last by one of the patterns; questions state nothing."""
    for prompt in reversed(prompts):
        for sentence in reversed(_SENTENCE_END.split(prompt)):
            found = next((match for pattern in patterns if (match := pattern.search(sentence))), None)
            if found and not _QUESTION.search(sentence):
                return _cut(found[1], LINE_CHARS_MAX)
    return ""
