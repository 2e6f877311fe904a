"""What the demo model is asked for: a script of directives such as `[[say Hello]]`, or an instance of a schema.

A prompt holds one or more steps with `[[next]]` between them; a step is what one model call does. Which step
comes next is counted in the conversation (answers since the prompt with the script), so that any process can
go on with it. Directives of tools, of the system prompt and of the model itself are never obeyed.
"""

import json
import math
import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal, NamedTuple, cast

from meerkat_mcp.domain.errors import ProviderRejected, ProviderUnauthenticated, ProviderUnavailable
from meerkat_mcp.domain.messages import AssistantMessage, JsonObject, Message, UserMessage

NUMBER_MAX = 1_000_000
EXAMPLE_DEPTH_RICH = 4  # down to here, objects have their optional properties and arrays an item
EXAMPLE_DEPTH_MAX = 64
EXAMPLE_SIZE_MAX = 50_000  # values and the characters of strings

SUMMARY_REQUEST = "Summarise the conversation so far"
"""How the prompt of a compaction begins."""

FAILURES: dict[str, type[Exception]] = {
    "unavailable": ProviderUnavailable,
    "rejected": ProviderRejected,
    "unauthenticated": ProviderUnauthenticated,
    "crash": RuntimeError,
}


class Known(NamedTuple):
    """A directive there is: how it is written, what its argument is, what it does."""

    form: str
    argument: Literal["nothing", "text", "count", "number", "failure", "json", "call"]
    does: str


DIRECTIVES: dict[str, Known] = {
    "say": Known("[[say TEXT]]", "text", "Says TEXT."),
    "words": Known("[[words N]]", "count", "Says N words: `word1 word2 …`"),
    "chars": Known("[[chars N]]", "count", "Says N characters; every ten begin with their own offset."),
    "json": Known("[[json JSON]]", "json", "Says this JSON, exactly as written."),
    "reason": Known("[[reason TEXT]]", "text", "Shows TEXT as reasoning."),
    "call": Known("[[call TOOL JSON]]", "call", "Calls a tool with these arguments; no JSON means `{}`."),
    "next": Known("[[next]]", "nothing", "Ends this step; what follows is for the next model call of this turn."),
    "system": Known("[[system]]", "nothing", "Says the system prompt back."),
    "history": Known("[[history]]", "nothing", "Lists the messages it was given, one on a line."),
    "tools": Known("[[tools]]", "nothing", "Lists the names of the tools it was given."),
    "params": Known("[[params]]", "nothing", "Says `provider_params` back, as JSON."),
    "help": Known("[[help]]", "nothing", "Lists these directives."),
    "delta_ms": Known("[[delta_ms N]]", "number", "Pauses N milliseconds before each word of this turn."),
    "wait": Known("[[wait N]]", "number", "Is silent for N seconds."),
    "hang": Known("[[hang]]", "nothing", "Is silent for ever: only an interrupt ends it."),
    "truncate": Known(
        "[[truncate]]", "nothing", "Breaks off here, as a lost connection does (stop reason `truncated`)."
    ),
    "refuse": Known("[[refuse]]", "nothing", "Stops here with stop reason `refusal`."),
    "fail": Known("[[fail KIND]]", "failure", f"Fails here. KIND is one of {', '.join(FAILURES)}."),
    "bad_json": Known("[[bad_json N]]", "count", "Answers with broken JSON N times, then goes on."),
}


@dataclass(frozen=True, slots=True)
class Directive:
    """One thing to do. `text` is the argument as written; for a call it is the tool's name."""

    name: str
    text: str = ""
    number: float = 0
    args: JsonObject | None = None


@dataclass(frozen=True, slots=True)
class Script:
    """What a prompt asks for: `steps` to play, and `prompt`, the words around the directives."""

    steps: tuple[tuple[Directive, ...], ...]
    prompt: str
    delta_ms: float | None = None

    def step(self, index: int) -> tuple[Directive, ...]:
        """What to do in this model call; nothing when the script is over. `bad_json` repeats its step."""
        for step in self.steps:
            times = next((int(directive.number) for directive in step if directive.name == "bad_json"), 1)
            if index < times:
                return step
            index -= times
        return ()


class Malformed(ValueError):
    """A directive that there is not, or that is not written as it should be."""


def find(messages: Sequence[Message], *, asks_again: bool) -> tuple[str, int]:
    """The prompt to play, and how many of its steps were played.

    That is the last thing the user said. With `asks_again`, a plain message after an answer stands for "answer
    again", and the prompt before it counts.
    """
    for index in range(len(messages) - 1, -1, -1):
        message = messages[index]
        if not isinstance(message, UserMessage):
            continue
        again = asks_again and index > 0 and isinstance(messages[index - 1], AssistantMessage)
        if not again or message.text.startswith(SUMMARY_REQUEST) or _OPENING.search(message.text):
            return message.text, sum(isinstance(later, AssistantMessage) for later in messages[index:])
    return "", 0


def parse(text: str) -> Script:
    """Read the directives of a prompt.

    Raises:
        Malformed: the message says which one, and why.
    """
    steps: list[list[Directive]] = [[]]
    around: list[str] = []
    delta_ms, place = None, 0
    while opening := _OPENING.search(text, place):
        around.append(text[place : opening.start()])
        directive, place = _read(text, opening)
        if directive.name == "next":
            steps.append([])
        elif directive.name == "delta_ms":
            delta_ms = directive.number
        else:
            steps[-1].append(directive)
    around.append(text[place:])
    return Script(tuple(tuple(step) for step in steps), " ".join("".join(around).split()), delta_ms)


def plain(text: str) -> str:
    """A prompt on one line without its directives; one that has nothing else is shown with single brackets."""
    try:
        prompt = parse(text).prompt
    except Malformed:
        prompt = ""
    return _BRACKETS.sub(lambda found: found[0][0], prompt or " ".join(text.split()))


def listing() -> str:
    """The directives there are, one on a line."""
    return "\n".join(f"{known.form}: {known.does}" for known in DIRECTIVES.values())


_OPENING = re.compile(r"\[\[([A-Za-z][^\s\[\]]*)\s*")
_BRACKETS = re.compile(r"\[{2,}|\]{2,}")
_TOOL = re.compile(r"([^\s\[\]{}]+)\s*")
_JSON = json.JSONDecoder()


def _read(text: str, opening: re.Match[str]) -> tuple[Directive, int]:
    """The directive that opens there, and the place after it."""
    name, start = opening[1], opening.end()
    known = DIRECTIVES.get(name)
    if known is None:
        raise Malformed(f"There is no directive [[{name[:50]}]].")
    if known.argument == "json":
        _, end = _decoded(text, start, known)
        directive = Directive(name, text=text[start:end])
    elif known.argument == "call":
        directive, end = _call(text, start, known)
    else:
        end = text.find("]]", start)
        directive = _simple(name, text[start:end].strip(), known)
    while text[end : end + 1].isspace():
        end += 1
    if end < 0 or not text.startswith("]]", end):
        raise Malformed(f"Write {known.form}: the brackets are not closed.")
    return directive, end + 2


def _simple(name: str, argument: str, known: Known) -> Directive:
    match known.argument:
        case "nothing" if argument:
            raise Malformed(f"Write {known.form}, without an argument.")
        case "text" if not argument:
            raise Malformed(f"Write {known.form}: the text is missing.")
        case "failure" if argument not in FAILURES:
            raise Malformed(f"Write {known.form} with one of {', '.join(FAILURES)}.")
        case "count" | "number":
            return Directive(name, number=_amount(argument, known))
        case _:
            return Directive(name, text=argument)


def _amount(argument: str, known: Known) -> float:
    try:
        number = int(argument) if known.argument == "count" else float(argument)
    except ValueError:
        number = -1
    if not 0 <= number <= NUMBER_MAX:
        kind = "whole number" if known.argument == "count" else "number"
        raise Malformed(f"Write {known.form} with a {kind} from 0 to {NUMBER_MAX}.")
    return number


def _call(text: str, start: int, known: Known) -> tuple[Directive, int]:
    tool = _TOOL.match(text, start)
    if tool is None:
        raise Malformed(f"Write {known.form}: the name of the tool is missing.")
    if text.startswith("]]", tool.end()):
        return Directive("call", text=tool[1], args={}), tool.end()
    args, end = _decoded(text, tool.end(), known)
    if not isinstance(args, dict):
        raise Malformed(f"Write {known.form}: the arguments are a JSON object.")
    return Directive("call", text=tool[1], args=cast(JsonObject, args)), end


def _decoded(text: str, start: int, known: Known) -> tuple[Any, int]:
    """The JSON value that begins there, and the place after it. What has no UTF-8 form is not JSON to us."""
    try:
        value, end = _JSON.raw_decode(text, start)
        json.dumps(value, ensure_ascii=False, allow_nan=False).encode()
    except (ValueError, RecursionError) as exc:
        raise Malformed(f"Write {known.form}: that is no JSON ({str(exc)[:100]}).") from None
    return value, end


# ── an instance of a JSON Schema ──

_TIGHTEST: dict[str, Any] = {
    **dict.fromkeys(("minimum", "exclusiveMinimum", "minItems", "minLength"), max),
    **dict.fromkeys(("maximum", "exclusiveMaximum", "maxItems", "maxLength"), min),
}
_HINTS: dict[str, frozenset[str]] = {
    "object": frozenset({"properties", "required", "additionalProperties"}),
    "array": frozenset({"items", "prefixItems", "minItems"}),
    "number": frozenset({"minimum", "maximum", "exclusiveMinimum", "exclusiveMaximum", "multipleOf"}),
}


def example(schema: JsonObject) -> Any:
    """A plain value that fits the schema, always the same one; see `_Example` for what is not minded."""
    return _Example(schema).of(schema)


class _Example:
    """A plain instance of a schema, bounded in depth and size; `pattern`, `format`, `not`, `if` are not minded."""

    def __init__(self, root: JsonObject) -> None:
        self._root = root
        self._left = EXAMPLE_SIZE_MAX

    def of(self, schema: Any, depth: int = 0) -> Any:
        rules = self._flat(schema, depth)
        if "const" in rules:
            return rules["const"]
        if "enum" in rules:
            return rules["enum"][0]
        match _type(rules):
            case "object":
                return self._object(rules, depth)
            case "array":
                return self._array(rules, depth)
            case "integer":
                return int(_number(rules, whole=True))
            case "number":
                return _number(rules, whole=False)
            case "boolean":
                return True
            case "null":
                return None
            case _:
                return self._string(rules)

    def _string(self, rules: JsonObject) -> str:
        length = min(max(len("demo"), rules.get("minLength", 0)), rules.get("maxLength", math.inf), max(self._left, 0))
        self._left -= length
        return "demo".ljust(int(length), ".")[: int(length)]

    def _flat(self, schema: Any, depth: int) -> JsonObject:
        """The schema with what it refers to: all of `allOf`, the first of `anyOf` and `oneOf`."""
        self._left -= 1
        if self._left < 0 or depth > EXAMPLE_DEPTH_MAX or not isinstance(schema, dict):
            return {}
        rules = dict(cast(JsonObject, schema))
        branches: list[Any] = rules.pop("allOf", [])[:]
        if "$ref" in rules:
            branches.append(self._target(rules.pop("$ref")))
        branches += [_first(rules.pop(key), depth) for key in ("anyOf", "oneOf") if key in rules]
        for branch in branches:
            other = self._flat(branch, depth + 1)
            shared = rules.keys() & other.keys()
            merged = {**rules, **other}
            merged |= {key: _TIGHTEST[key](rules[key], other[key]) for key in shared & _TIGHTEST.keys()}
            if "properties" in shared:
                merged["properties"] = {**rules["properties"], **other["properties"]}
            if "required" in shared:
                merged["required"] = [*rules["required"], *other["required"]]
            rules = merged
        return rules

    def _target(self, reference: str) -> Any:
        """What a local reference points at; anything goes where it points nowhere."""
        target: Any = self._root
        try:
            for key in reference.lstrip("#").split("/")[1:]:
                key = key.replace("~1", "/").replace("~0", "~")
                target = target[int(key) if isinstance(target, list) else key]
        except (LookupError, TypeError, ValueError):
            return {}
        return target

    def _object(self, rules: JsonObject, depth: int) -> JsonObject:
        properties: JsonObject = rules.get("properties", {})
        required: list[str] = rules.get("required", [])
        rich = depth < EXAMPLE_DEPTH_RICH
        names = [name for name in properties if name in required or (rich and properties[name] is not False)]
        names += [name for name in required if name not in properties]
        others = rules.get("additionalProperties", True)
        return {name: self.of(properties.get(name, others), depth + 1) for name in names}

    def _array(self, rules: JsonObject, depth: int) -> list[Any]:
        first: list[Any] = rules.get("prefixItems", [])
        items = rules.get("items", True)
        wanted = len(first) or (1 if depth < EXAMPLE_DEPTH_RICH and items is not False else 0)
        count = min(max(wanted, rules.get("minItems", 0)), rules.get("maxItems", math.inf), max(self._left, 0))
        schemas = [*first, *[items] * (int(count) - len(first))][: int(count)]
        return [self.of(schema, depth + 1) for schema in schemas if self._left > 0]


def _type(rules: JsonObject) -> str:
    declared = rules.get("type")
    if isinstance(declared, list):
        return cast(list[str], declared)[0]
    return declared or next((kind for kind, words in _HINTS.items() if rules.keys() & words), "string")


def _first(options: list[JsonObject | bool], depth: int) -> JsonObject | bool:
    """The first option; deep down the first that does not lead on, where there is one."""
    ends = (option for option in options if isinstance(option, bool) or "$ref" not in option)
    return options[0] if depth < EXAMPLE_DEPTH_RICH else next(ends, options[0])


def _number(rules: JsonObject, *, whole: bool) -> float:
    """Zero, or the number nearest to a bound that all bounds allow."""
    above, below = rules.get("exclusiveMinimum", -math.inf), rules.get("exclusiveMaximum", math.inf)
    low, high = max(rules.get("minimum", above), above), min(rules.get("maximum", below), below)
    bounds = [bound for bound in (low, high) if abs(bound) != math.inf]
    step = rules.get("multipleOf", 1 if whole else 0)
    if step:
        tries = [(bound // step + offset) * step for bound in bounds for offset in (0, 1, -1)]
    else:
        tries = [*bounds, sum(bounds) / 2, *(bound + offset for bound in bounds for offset in (1, -1))]
    fitting = (number for number in [0, *tries] if low <= number <= high and above < number < below)
    return next(fitting, 0)
