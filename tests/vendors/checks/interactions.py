"""What Gemini's Interactions API refuses."""

import re
from collections.abc import Iterator
from typing import Any

from vendors.checks.asking import Asked, Check, words
from vendors.script import JsonObject

PARAMETERS = words(  # SDK: _gaos/types/interactions/createmodelinteraction.py
    "model background continuation_token environment generation_config input labels previous_interaction_id "
    "response_format response_modalities safety_settings service_tier store stream system_instruction tools "
    "webhook_config cached_content response_mime_type"
)
GENERATION = words(  # SDK: _gaos/types/interactions/generationconfig.py
    "image_config max_output_tokens seed speech_config stop_sequences temperature thinking_level thinking_summaries "
    "tool_choice top_p transcription_config video_config"
)
SERVER_TOOLS = words(
    "code_execution file_search google_maps google_search mcp_server_tool processing retrieval tool_search url_context"
)
STEPS = {  # SDK: _gaos/types/interactions/step.py
    "user_input",
    "thought",
    "model_output",
    "function_call",
    "function_result",
    *(f"{tool}_{end}" for tool in SERVER_TOOLS for end in ("call", "result")),
}
CONTENT = ("text", "image", "audio", "video", "document")
LEVELS = ("minimal", "low", "medium", "high", "xhigh")
NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_.:-]{0,127}")


def remember(memory: dict[Any, Any], request: JsonObject, reply: JsonObject) -> None:
    """Keep the signatures of a reply's calls and thoughts."""
    for step in reply["steps"]:
        if step["type"] == "function_call":
            memory["call", step["id"]] = step.get("signature")
        if step["type"] == "thought":
            memory["thought", step["signature"]] = True


def parameters_are_known(asked: Asked) -> Iterator[str]:
    for name in asked.body:
        if name not in PARAMETERS:
            yield _unknown(name)
    for name in asked.body.get("generation_config") or {}:
        if name not in GENERATION:
            yield _unknown(name, " at 'generation_config'")
    for name in ("model", "input"):
        if not asked.body.get(name):
            yield f"The `{name}` field is required."


def _unknown(name: str, where: str = "") -> str:
    return f'Invalid JSON payload received. Unknown name "{name}"{where}: Cannot find field.'


def there_is_no_sampling(asked: Asked) -> Iterator[str]:
    """Facts §1.4: temperature and top_p are deprecated. Refused here, so that nobody begins to send them."""
    config = asked.body.get("generation_config") or {}
    for name in ("temperature", "top_p"):
        if name in config:
            yield f"`generation_config.{name}` is deprecated."
    if config.get("thinking_level", "low") not in LEVELS:
        yield f"Invalid value at 'generation_config.thinking_level': \"{config['thinking_level']}\""


def steps_are_known(asked: Asked) -> Iterator[str]:
    for index, step in enumerate(asked.objects("input")):
        if step.get("type") not in STEPS:
            yield f"Invalid value at 'input[{index}].type': \"{step.get('type')}\""
        content = step.get("content")
        for part in content if isinstance(content, list) else []:
            if part.get("type") not in CONTENT:
                yield f"Invalid value at 'input[{index}].content.type': \"{part.get('type')}\""


def names_are_fit(asked: Asked) -> Iterator[str]:
    """Facts §1.4, tool names."""
    named = [(f"tools[{index}]", tool) for index, tool in enumerate(asked.objects("tools"))]
    named += [(f"input[{index}]", step) for index, step in enumerate(asked.objects("input"))]
    for where, item in named:
        if item.get("type") in ("function", "function_call") and not NAME.fullmatch(item.get("name") or ""):
            yield (
                f"{where}.name: [FIELD_INVALID] Invalid function name. Must start with a letter or an underscore. "
                "Must be alphanumeric (a-z, A-Z, 0-9), underscores (_), dots (.), colons (:), or dashes (-), with a "
                "maximum length of 128."
            )
    names = [tool.get("name") for tool in asked.objects("tools") if tool.get("type") == "function"]
    if len(set(names)) != len(names):
        yield "Duplicate function declaration found."


def calls_and_results_pair_up(asked: Asked) -> Iterator[str]:
    """Facts §1.4: a `function_result` step for each call, by `call_id`."""
    calls: dict[str, bool] = {}
    for index, step in enumerate(asked.objects("input")):
        match step["type"]:
            case "function_call":
                if not isinstance(step.get("arguments"), dict):
                    yield f"Invalid value at 'input[{index}].arguments' (type.googleapis.com/google.protobuf.Struct)"
                calls[step.get("id", "")] = False
            case "function_result":
                if "result" not in step:
                    yield f"input[{index}].result: [REQUIRED_FIELD_MISSING]"
                if step.get("call_id") not in calls and not asked.body.get("previous_interaction_id"):
                    yield f"No function call found for function result with call_id '{step.get('call_id')}'."
                calls[step["call_id"]] = True
            case "user_input" if not all(calls.values()):
                break
    if not all(calls.values()):
        yield (
            "Please ensure that the number of function response parts is equal to the number of function call parts "
            "of the function call turn."
        )


def signatures_come_back(asked: Asked) -> Iterator[str]:
    """Facts §1.4: thoughts and calls go back with the signature they came with; Gemini 3 answers 400 without."""
    for index, step in enumerate(asked.objects("input")):
        signature = step.get("signature")
        if step["type"] == "thought" and not signature:
            yield f"input[{index}]: Thought is missing a signature."
        if step["type"] == "thought" and ("thought", signature) not in asked.memory:
            yield "Invalid thought signature."
        sent = asked.memory.get(("call", step.get("id"))) if step["type"] == "function_call" else None
        if sent and not signature:
            yield (
                "Function call is missing a thought_signature in functionCall parts. This is required for tools to "
                "work correctly, and missing thought_signature may lead to degraded model performance. Additional "
                f"data, function call `default_api:{step['name']}`, position {index}."
            )
        elif sent and signature != sent:
            yield "Invalid thought signature."


CHECKS: tuple[Check, ...] = (
    parameters_are_known,
    there_is_no_sampling,
    steps_are_known,
    names_are_fit,
    calls_and_results_pair_up,
    signatures_come_back,
)
