"""What a chat.completions server refuses. Unknown parameters pass: servers of that kind have their own."""

from collections.abc import Iterator
from typing import Any

from vendors.checks.asking import Asked, Check, Objection, is_name
from vendors.script import JsonObject

ROLES = ("system", "developer", "user", "assistant", "tool", "function")
NAME_CHARS_MAX = 64


def remember(memory: dict[Any, Any], request: JsonObject, reply: JsonObject) -> None:
    """Nothing on this wire is bound to what was said before."""


def what_is_needed_is_there(asked: Asked) -> Iterator[Objection]:
    for name in ("model", "messages"):
        if not asked.body.get(name):
            yield Objection(f"Missing required parameter: '{name}'.", name, "missing_required_parameter")
    if "stream_options" in asked.body and not asked.body.get("stream"):
        message = "The 'stream_options' parameter is only allowed when 'stream' is enabled."
        yield Objection(message, "stream_options")


def roles_are_known(asked: Asked) -> Iterator[Objection]:
    for index, message in enumerate(asked.objects("messages")):
        if message.get("role") not in ROLES:
            words = f"Invalid value: '{message.get('role')}'. Supported values are: {', '.join(map(repr, ROLES))}."
            yield Objection(words, f"messages[{index}].role", "invalid_value")


def content_is_there(asked: Asked) -> Iterator[Objection]:
    """Only an assistant's message with calls may go without."""
    for index, message in enumerate(asked.objects("messages")):
        where = f"messages[{index}].content"
        is_calling = message["role"] == "assistant" and message.get("tool_calls")
        if message.get("content") is None and not is_calling:
            yield Objection(f"Invalid value for 'content': expected a string, got null. ({where})", where)


def names_are_plain(asked: Asked) -> Iterator[Objection]:
    """Facts §1.4, end: no dots, unlike MCP."""
    named = [(f"tools[{index}]", tool) for index, tool in enumerate(asked.objects("tools"))]
    for index, message in enumerate(asked.objects("messages")):
        calls = message.get("tool_calls") or []
        named += [(f"messages[{index}].tool_calls[{at}]", call) for at, call in enumerate(calls)]
    for where, item in named:
        function = item.get("function") or {}
        if not is_name(function.get("name"), NAME_CHARS_MAX):
            words = (
                f"Invalid '{where}.function.name': string does not match pattern. "
                "Expected a string that matches the pattern '^[a-zA-Z0-9_-]+$'."
            )
            yield Objection(words, f"{where}.function.name", "invalid_value")


def calls_are_whole(asked: Asked) -> Iterator[Objection]:
    """A call that goes back has an id, a type, and its arguments as text."""
    for index, message in enumerate(asked.objects("messages")):
        for at, call in enumerate(message.get("tool_calls") or []):
            where = f"messages[{index}].tool_calls[{at}]"
            if not call.get("id") or call.get("type") != "function":
                key = "id" if not call.get("id") else "type"
                words = f"Missing required parameter: '{where}.{key}'."
                yield Objection(words, f"{where}.{key}", "missing_required_parameter")
            if not isinstance(call["function"].get("arguments"), str):
                words = f"Invalid type for '{where}.function.arguments': expected a string."
                yield Objection(words, f"{where}.function.arguments", "invalid_type")


def tools_are_worth_sending(asked: Asked) -> Iterator[Objection]:
    if asked.body.get("tools") == []:
        words = "Invalid 'tools': empty array. Expected an array with minimum length 1, but got an empty array instead."
        yield Objection(words, "tools", "empty_array")
    if asked.body.get("tool_choice") and not asked.body.get("tools"):
        yield Objection("'tool_choice' is only allowed when 'tools' are specified.", "tool_choice")


def calls_and_results_pair_up(asked: Asked) -> Iterator[Objection]:
    """Facts §1.0: one `tool` message for each call, right after it."""
    open_calls: list[str] = []
    answered: set[str] = set()
    for index, message in enumerate((*asked.objects("messages"), {"role": "end"})):
        if message["role"] == "tool":
            if message.get("tool_call_id") not in open_calls:
                words = (
                    "Invalid parameter: messages with role 'tool' must be a response to a preceeding message "
                    "with 'tool_calls'."
                )
                yield Objection(words, f"messages.[{index}].role")
            answered.add(message["tool_call_id"])
            continue
        if missing := [call for call in open_calls if call not in answered]:
            words = (
                "An assistant message with 'tool_calls' must be followed by tool messages responding to each "
                f"'tool_call_id'. The following tool_call_ids did not have response messages: {', '.join(missing)}"
            )
            yield Objection(words, f"messages.[{index}].role")
        open_calls = [call["id"] for call in message.get("tool_calls") or []]
        answered = set()


CHECKS: tuple[Check, ...] = (
    what_is_needed_is_there,
    roles_are_known,
    content_is_there,
    tools_are_worth_sending,
    names_are_plain,
    calls_are_whole,
    calls_and_results_pair_up,
)
