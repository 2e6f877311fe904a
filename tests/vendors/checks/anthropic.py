"""What Anthropic refuses. The messages are the API's own, as far as its pages and issues about it quote them."""

import re
from collections.abc import Iterator

from vendors.checks.asking import Asked, Check, is_name, words
from vendors.checks.schemas import subschemas
from vendors.checks.thinking_binding import thinking_comes_back_as_it_was
from vendors.models import anthropic_thinking_types
from vendors.script import JsonObject

VERSIONS = ("2023-06-01", "2026-10-21")
TOOL_NAME_CHARS_MAX = 128
CACHE_MARKS_MAX = 4
PARAMETERS = words(  # SDK: types/message_create_params.py, types/beta/message_create_params.py
    "model messages max_tokens system tools tool_choice thinking output_config cache_control container diagnostics "
    "inference_geo metadata service_tier speed stop_sequences stream billing_policy compaction context_management "
    "fallback_credit_token fallbacks mcp_servers thread temperature top_p top_k"
)
EFFORTS = ("low", "medium", "high", "xhigh", "max")
UNSUPPORTED = ("minimum", "maximum", "exclusiveMinimum", "exclusiveMaximum", "multipleOf", "minLength", "maxLength")


def a_version_is_named(asked: Asked) -> Iterator[str]:
    """Facts §1.1: the SDK sends 2026-10-21, 2023-06-01 can still be asked for."""
    version = asked.headers.get("anthropic-version")
    if version is None:
        yield "anthropic-version: header is required"
    elif version not in VERSIONS:
        yield f'anthropic-version: "{version}" is not a valid version'


def what_is_needed_is_there(asked: Asked) -> Iterator[str]:
    """SDK: the required parameters."""
    for name in ("model", "messages", "max_tokens"):
        if asked.body.get(name) is None:
            yield f"{name}: Field required"
    if not asked.body["messages"]:
        yield "messages: at least one message is required"
    if not isinstance(asked.body["max_tokens"], int) or asked.body["max_tokens"] < 1:
        yield "max_tokens: Input should be greater than or equal to 1"


def there_is_no_sampling(asked: Asked) -> Iterator[str]:
    """Facts §1.1: version 2026-10-21 has no temperature, top_p or top_k, whatever their value."""
    for name in ("temperature", "top_p", "top_k"):
        if name in asked.body and asked.headers.get("anthropic-version") != "2023-06-01":
            yield f"{name}: Extra inputs are not permitted"


def parameters_are_known(asked: Asked) -> Iterator[str]:
    for name in asked.body:
        if name not in PARAMETERS:
            yield f"{name}: Extra inputs are not permitted"


def roles_are_known(asked: Asked) -> Iterator[str]:
    """Facts §1.0: system messages may stand mid-conversation."""
    for index, message in enumerate(asked.objects("messages")):
        if message.get("role") not in ("user", "assistant", "system"):
            yield f"messages.{index}.role: Input should be 'user' or 'assistant'"
        if index == 0 and message["role"] != "user":
            yield 'messages: first message must use the "user" role'


def nothing_is_empty(asked: Asked) -> Iterator[str]:
    """A message without content, or a text block without text; only a last assistant message may be empty."""
    messages = asked.objects("messages")
    for index, message in enumerate(messages):
        is_last_prefill = index == len(messages) - 1 and message["role"] == "assistant"
        if not message.get("content") and not is_last_prefill:
            but = "except for the optional final assistant message"
            yield f"messages.{index}: all messages must have non-empty content {but}"
    for where, block in (*_blocks(asked), *_system(asked)):
        if block.get("type") == "text" and not block.get("text"):
            yield f"{where.split('.')[0]}: text content blocks must be non-empty"
        if block.get("type") == "text" and not block["text"].strip():
            yield f"{where.split('.')[0]}: text content blocks must contain non-whitespace text"


def calls_and_results_pair_up(asked: Asked) -> Iterator[str]:
    """Facts §1.0: all results of a message's calls together, in the next user message."""
    calls: list[str] = []
    for index, message in enumerate(asked.objects("messages")):
        content = _content(message)
        results = [block.get("tool_use_id") for block in content if block.get("type") == "tool_result"]
        if message["role"] == "user":
            if unknown := [result for result in results if result not in calls]:
                yield (
                    f"messages.{index}.content.0: unexpected `tool_use_id` found in `tool_result` blocks: "
                    f"{unknown[0]}. Each `tool_result` block must have a corresponding `tool_use` block "
                    "in the previous message."
                )
            if missing := [call for call in calls if call not in results]:
                yield _unanswered(index - 1, missing)
            if len(set(results)) != len(results):
                yield (
                    f"messages.{index}.content: each tool_use must have a single result. "
                    f"Found multiple `tool_result` blocks with id: {results[-1]}"
                )
            if results and [block.get("type") for block in content[: len(results)]] != ["tool_result"] * len(results):
                yield _unanswered(index - 1, calls)  # results come first, text after them
        elif calls:
            yield _unanswered(index - 1, calls)
        calls = [block.get("id", "") for block in content if block.get("type") == "tool_use"]
    if calls:
        yield _unanswered(len(asked.objects("messages")) - 1, calls)


def _unanswered(index: int, ids: list[str]) -> str:
    return (
        f"messages.{index}: `tool_use` ids were found without `tool_result` blocks immediately after: "
        f"{', '.join(ids)}. Each `tool_use` block must have a corresponding `tool_result` block in the next message."
    )


def tools_are_there_for_tool_blocks(asked: Asked) -> Iterator[str]:
    used = [block for _, block in _blocks(asked) if block.get("type") in ("tool_use", "tool_result")]
    if used and not asked.body.get("tools"):
        yield "Requests which have `tool_use` or `tool_result` blocks in messages must define tools."


def names_and_ids_are_plain(asked: Asked) -> Iterator[str]:
    """Facts §1.4, end: no dots, unlike MCP."""
    for index, tool in enumerate(asked.objects("tools")):
        if not is_name(tool.get("name"), TOOL_NAME_CHARS_MAX):
            yield f"tools.{index}.custom.name: String should match pattern '^[a-zA-Z0-9_-]{{1,128}}$'"
    names = [tool["name"] for tool in asked.objects("tools")]
    if len(set(names)) != len(names):
        yield "tools: Tool names must be unique."
    ids = []
    for where, block in _blocks(asked):
        if block.get("type") == "tool_use":
            ids.append(block.get("id"))
            if not is_name(block.get("id"), 1_000):
                yield f"{where}.tool_use.id: String should match pattern '^[a-zA-Z0-9_-]+$'"
            if not is_name(block.get("name"), 200):
                yield f"{where}.tool_use.name: String should match pattern '^[a-zA-Z0-9_-]{{1,200}}$'"
            if not isinstance(block.get("input"), dict):
                yield f"{where}.tool_use.input: Input should be a valid dictionary"
    if len(set(ids)) != len(ids):
        yield "messages: `tool_use` ids must be unique"


def tools_take_objects(asked: Asked) -> Iterator[str]:
    for index, tool in enumerate(asked.objects("tools")):
        schema = tool.get("input_schema")
        if not isinstance(schema, dict):
            yield f"tools.{index}.custom.input_schema: Field required"
        elif schema.get("type") != "object":
            yield f"tools.{index}.custom.input_schema.type: Input should be 'object'"
        elif {"oneOf", "allOf", "anyOf"} & schema.keys():
            said = "input_schema does not support oneOf, allOf, or anyOf at the top level"
            yield f"tools.{index}.custom.input_schema: {said}"


def cache_marks_are_few(asked: Asked) -> Iterator[str]:
    """Facts §1.1: the one at the top level is a mark too; thinking cannot be marked."""
    blocks = [block for _, block in (*_blocks(asked), *_system(asked))]
    marks = sum("cache_control" in marked for marked in (*blocks, *asked.objects("tools"), asked.body))
    if marks > CACHE_MARKS_MAX:
        yield f"A maximum of {CACHE_MARKS_MAX} blocks with cache_control may be provided. Found {marks}."
    for where, block in _blocks(asked):
        if "cache_control" in block and block.get("type") in ("thinking", "redacted_thinking"):
            yield f"{where}.{block['type']}.cache_control: Extra inputs are not permitted"


def thinking_fits_the_model(asked: Asked) -> Iterator[str]:
    """Facts §1.1, per-model traps; which model takes which type is what its `capabilities` say."""
    thinking = asked.body.get("thinking")
    if not isinstance(thinking, dict):
        return
    kind = thinking.get("type")
    if kind not in anthropic_thinking_types(asked.body["model"]):
        advice = 'Use "thinking.type.adaptive" and "output_config.effort" to control thinking behavior.'
        yield f'"thinking.type.{kind}" is not supported for this model.{"" if kind == "adaptive" else f" {advice}"}'
    if kind == "enabled":
        budget = thinking.get("budget_tokens")
        if not isinstance(budget, int) or budget < 1024:
            yield "thinking.enabled.budget_tokens: Input should be greater than or equal to 1024"
        if budget >= asked.body["max_tokens"]:
            yield "`max_tokens` must be greater than `thinking.budget_tokens`."
    elif "budget_tokens" in thinking:
        yield f"thinking.{kind}.budget_tokens: Extra inputs are not permitted"


def no_tool_is_forced_while_thinking(asked: Asked) -> Iterator[str]:
    """Facts §1.1: tool_choice any or tool is refused by the models that always think, and by Sonnet 5.5."""
    choice = asked.body.get("tool_choice")
    thinking = (asked.body.get("thinking") or {}).get("type")
    always = re.match(r"claude-(opus|sonnet)-5-5|claude-fable-5-\d", asked.body["model"])
    if isinstance(choice, dict) and choice.get("type") in ("any", "tool") and (always or thinking == "enabled"):
        yield "Thinking may not be enabled when tool_choice forces tool use."
    if choice and not asked.body.get("tools"):
        yield "tool_choice: may only be specified while providing tools"


def an_answer_schema_is_closed(asked: Asked) -> Iterator[str]:
    """Facts §1.1, structured output: what `anthropic.transform_schema` puts right."""
    config = asked.body.get("output_config") or {}
    if "effort" in config and config["effort"] not in EFFORTS:
        yield f"output_config.effort: Input should be {', '.join(map(repr, EFFORTS[:-1]))} or '{EFFORTS[-1]}'"
    schema = (config.get("format") or {}).get("schema")
    for _, found in subschemas(schema):
        if found.get("type") == "object" and found.get("additionalProperties") is not False:
            said = "For 'object' type, 'additionalProperties' must be explicitly set to false"
            yield f"output_config.format.schema: {said}"
        if unsupported := [key for key in UNSUPPORTED if key in found]:
            said = f"For '{found.get('type')}' type, property '{unsupported[0]}' is not supported"
            yield f"output_config.format.schema: {said}"


# ── where blocks stand ──


def _content(message: JsonObject) -> list[JsonObject]:
    content = message.get("content")
    return [block for block in content if isinstance(block, dict)] if isinstance(content, list) else []


def _blocks(asked: Asked) -> Iterator[tuple[str, JsonObject]]:
    for index, message in enumerate(asked.objects("messages")):
        for at, block in enumerate(_content(message)):
            yield f"messages.{index}.content.{at}", block
            if block.get("type") == "tool_result" and isinstance(block.get("content"), list):
                yield from ((f"messages.{index}.content.{at}", inner) for inner in block["content"])


def _system(asked: Asked) -> Iterator[tuple[str, JsonObject]]:
    yield from ((f"system.{index}", block) for index, block in enumerate(asked.objects("system")))


CHECKS: tuple[Check, ...] = (
    a_version_is_named,
    what_is_needed_is_there,
    there_is_no_sampling,
    parameters_are_known,
    roles_are_known,
    nothing_is_empty,
    names_and_ids_are_plain,
    tools_take_objects,
    tools_are_there_for_tool_blocks,
    calls_and_results_pair_up,
    cache_marks_are_few,
    thinking_fits_the_model,
    no_tool_is_forced_while_thinking,
    an_answer_schema_is_closed,
    thinking_comes_back_as_it_was,
)
