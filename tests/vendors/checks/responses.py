"""What OpenAI's Responses API refuses."""

import itertools
import re
from collections.abc import Iterator
from typing import Any

from vendors.checks.asking import Asked, Check, Objection, is_name, words
from vendors.checks.schemas import not_an_object, not_strict
from vendors.script import JsonObject

NAME_CHARS_MAX = 64
CALL_ID_CHARS_MAX = 64
OUTPUT_TOKENS_MIN = 16
PARAMETERS = words(  # SDK: types/responses/response_create_params.py
    "access_programs background background_options context_management conversation image include input instructions "
    "max_output_tokens max_tool_calls metadata model moderation parallel_tool_calls previous_response_id prompt "
    "prompt_cache_key prompt_cache_options prompt_cache_retention reasoning safety_identifier service_tier store "
    "stream stream_options temperature text tool_choice tools top_logprobs top_p truncation user"
)
ITEMS = words(  # SDK: types/responses/response_input_item_param.py
    "message function_call function_call_output reasoning item_reference compaction custom_tool_call "
    "custom_tool_call_output web_search_call file_search_call computer_call computer_call_output "
    "image_generation_call code_interpreter_call local_shell_call local_shell_call_output shell_call "
    "shell_call_output apply_patch_call apply_patch_call_output mcp_list_tools mcp_approval_request "
    "mcp_approval_response mcp_call"
)
CONTENT = {
    "assistant": ("output_text", "refusal"),
    "user": ("input_text", "input_image", "input_file"),
    "system": ("input_text",),
    "developer": ("input_text",),
}
REASONING_MODELS = re.compile(r"gpt-[5-9]|o\d")


def remember(memory: dict[Any, Any], request: JsonObject, reply: JsonObject) -> None:
    """Keep which item of a reply followed which."""
    for item, following in itertools.pairwise([*reply["output"], None]):
        if item["type"] == "reasoning":
            memory["reasoning", item["id"]] = following
            memory["encrypted", item.get("encrypted_content")] = item["id"]
        if following and item["type"] == "reasoning" and following["type"] != "reasoning":
            memory["needs", following["id"]] = item["id"]


def parameters_are_known(asked: Asked) -> Iterator[Objection]:
    for name in asked.body:
        if name not in PARAMETERS:
            yield Objection(f"Unknown parameter: '{name}'.", name, "unknown_parameter")
    for name in ("model", "input"):
        if not asked.body.get(name):
            yield Objection(f"Missing required parameter: '{name}'.", name, "missing_required_parameter")


def numbers_fit(asked: Asked) -> Iterator[Objection]:
    most = asked.body.get("max_output_tokens")
    if most is not None and most < OUTPUT_TOKENS_MIN:
        yield Objection(
            f"Invalid 'max_output_tokens': integer below minimum value. Expected a value >= {OUTPUT_TOKENS_MIN}, "
            f"but got {most} instead.",
            "max_output_tokens",
            "integer_below_min_value",
        )
    for name in ("temperature", "top_p"):
        if name in asked.body and REASONING_MODELS.match(asked.body["model"]):
            yield Objection(f"Unsupported parameter: '{name}' is not supported with this model.", name)


def items_are_known(asked: Asked) -> Iterator[Objection]:
    """SDK: an item without a type is a message; what a message may hold goes by its role."""
    for index, item in enumerate(asked.objects("input")):
        kind = item.get("type", "message")
        at = f"input[{index}]"
        if kind not in ITEMS:
            yield Objection(f"Invalid value: '{kind}'.", f"{at}.type", "invalid_value")
        if kind != "message":
            continue
        if item.get("role") not in CONTENT:
            yield Objection(f"Invalid value: '{item.get('role')}'.", f"{at}.role", "invalid_value")
        parts = item["content"] if isinstance(item.get("content"), list) else []
        for part_index, part in enumerate(parts):
            if part.get("type") not in CONTENT[item["role"]]:
                where = f"{at}.content[{part_index}]"
                supported = ", ".join(f"'{kind}'" for kind in CONTENT[item["role"]])
                message = f"Invalid value: '{part.get('type')}'. Supported values are: {supported}."
                yield Objection(message, where, "invalid_value")


def names_are_plain(asked: Asked) -> Iterator[Objection]:
    """Facts §1.4, end: no dots, unlike MCP."""
    named = [(f"tools[{index}].name", tool) for index, tool in enumerate(asked.objects("tools"))]
    for index, item in enumerate(asked.objects("input")):
        if item.get("type") == "function_call":
            named.append((f"input[{index}].name", item))
    for where, item in named:
        if item.get("type") in ("function", "function_call") and not is_name(item.get("name"), NAME_CHARS_MAX):
            yield Objection(
                f"Invalid '{where}': string does not match pattern. "
                "Expected a string that matches the pattern '^[a-zA-Z0-9_-]+$'.",
                where,
                "invalid_value",
            )
    for index, item in enumerate(asked.objects("input")):
        call_id = item.get("call_id")
        if isinstance(call_id, str) and not 0 < len(call_id) <= CALL_ID_CHARS_MAX:
            where = f"input[{index}].call_id"
            message = f"Invalid '{where}': string too long. Expected a string with maximum length {CALL_ID_CHARS_MAX}."
            yield Objection(message, where, "string_above_max_length")
        if item.get("type") == "function_call" and not isinstance(item.get("arguments"), str):
            where = f"input[{index}].arguments"
            yield Objection(f"Invalid type for '{where}': expected a string.", where, "invalid_type")


def calls_and_outputs_pair_up(asked: Asked) -> Iterator[Objection]:
    """Facts §1.0: by call_id; what came before a `previous_response_id` is not looked at."""
    items = asked.objects("input")
    calls: set[str] = set()
    outputs = {item["call_id"] for item in items if item.get("type") == "function_call_output"}
    is_whole = not asked.body.get("previous_response_id") and not asked.body.get("conversation")
    for item in items:
        if item.get("type") == "function_call":
            calls.add(item["call_id"])
            if item["call_id"] not in outputs:
                yield Objection(f"No tool output found for function call {item['call_id']}.", "input")
        if item.get("type") == "function_call_output" and is_whole and item["call_id"] not in calls:
            message = f"No tool call found for function call output with call_id {item['call_id']}."
            yield Objection(message, "input")


def tools_say_whether_they_are_strict(asked: Asked) -> Iterator[Objection]:
    """Facts §1.2: `strict` is a required key; where it is true, the schema must be closed and all of it required."""
    for index, tool in enumerate(asked.objects("tools")):
        if tool.get("type") != "function":
            continue
        at = f"tools[{index}]"
        for key in ("strict", "parameters"):
            if key not in tool:
                where = f"{at}.{key}"
                yield Objection(f"Missing required parameter: '{where}'.", where, "missing_required_parameter")
        wrong = [*not_an_object(tool["parameters"]), *(not_strict(tool["parameters"]) if tool["strict"] else ())]
        for message in wrong:
            said = f"Invalid schema for function '{tool.get('name')}': {message}"
            yield Objection(said, f"{at}.parameters", "invalid_function_parameters")


def an_answer_schema_is_strict(asked: Asked) -> Iterator[Objection]:
    """Facts §1.2: text.format."""
    form = (asked.body.get("text") or {}).get("format") or {}
    if form.get("type") != "json_schema":
        return
    for key in ("name", "schema"):
        if key not in form:
            where = f"text.format.{key}"
            yield Objection(f"Missing required parameter: '{where}'.", where, "missing_required_parameter")
    if not is_name(form["name"], NAME_CHARS_MAX):
        message = "Invalid 'text.format.name': string does not match pattern. Expected '^[a-zA-Z0-9_-]+$'."
        yield Objection(message, "text.format.name", "invalid_value")
    wrong = [*not_an_object(form["schema"]), *(not_strict(form["schema"]) if form.get("strict") else ())]
    for message in wrong:
        said = f"Invalid schema for response_format '{form['name']}': {message}"
        yield Objection(said, "text.format.schema", "invalid_json_schema")


def reasoning_comes_back_with_what_followed(asked: Asked) -> Iterator[Objection]:
    """Facts §1.2: items verbatim, with their encrypted content where nothing is stored."""
    items = asked.objects("input")
    for item, following in itertools.pairwise([*items, {}]):
        if item.get("type") != "reasoning":
            continue
        name = item.get("id", "")
        encrypted = item.get("encrypted_content")
        if encrypted is None and asked.body.get("store") is False:
            message = f"Item with id '{name}' not found. Items are not persisted when `store` is set to false."
            yield Objection(message, "input", status=404)
        if encrypted is not None and ("encrypted", encrypted) not in asked.memory:
            message = f"The encrypted content for item {name} could not be verified."
            yield Objection(message, "input", "invalid_encrypted_content")
        if not _same(following, asked.memory.get(("reasoning", name))):
            said = f"Item '{name}' of type 'reasoning' was provided without its required following item."
            yield Objection(said, "input")


def _same(item: JsonObject, sent: JsonObject | None) -> bool:
    """Whether an item may be the one that followed; without knowing, anything a model writes may."""
    if sent is None:
        return item.get("type") in ("function_call", "reasoning") or item.get("role") == "assistant"
    return all(item.get(key) in (sent.get(key), None) for key in ("id", "call_id", "role")) and (
        item.get("type", "message") == sent["type"]
    )


def what_followed_comes_back_with_its_reasoning(asked: Asked) -> Iterator[Objection]:
    """The other way round: an item with the id it had needs the reasoning that it came from."""
    items = asked.objects("input")
    for before, item in itertools.pairwise([{}, *items]):
        needed = asked.memory.get(("needs", item.get("id")))
        is_there = before.get("type") == "reasoning" and before.get("id") in (needed, None)
        if needed and not is_there:
            item_is = f"Item '{item['id']}' of type '{item.get('type')}'"
            yield Objection(f"{item_is} was provided without its required 'reasoning' item: '{needed}'.", "input")


CHECKS: tuple[Check, ...] = (
    parameters_are_known,
    numbers_fit,
    items_are_known,
    names_are_plain,
    tools_say_whether_they_are_strict,
    an_answer_schema_is_strict,
    calls_and_outputs_pair_up,
    reasoning_comes_back_with_what_followed,
    what_followed_comes_back_with_its_reasoning,
)
