"""What a model's name, provider_params and an output schema make of a request to Anthropic."""

import difflib
import re
from collections.abc import Callable, Iterator
from typing import Annotated, Any, Literal, cast

from pydantic import ConfigDict, Field, ValidationError

from meerkat_mcp.domain.errors import MeerkatError
from meerkat_mcp.domain.messages import JsonObject, Value
from meerkat_mcp.providers import wire
from meerkat_mcp.providers.base import ModelRequest

BINDING_BETA = "thinking-binding-controls-2026-08-01"
SPEED_BETA = "fast-mode-2026-02-01"
BUDGET_TOKENS_MIN = 1_024  # the vendor's
BUDGETS = {"low": 2_048, "medium": 8_192, "high": 16_384, "xhigh": 32_768, "max": 63_999}
"""How many tokens of reasoning an effort stands for, where a model knows only budgets."""

Generation = tuple[int, int]
STRUCTURED: Generation = (4, 5)
"""From here on a model's answer can be bound to a schema."""
ADAPTIVE: Generation = (4, 6)
"""From here on a model takes an effort and thinks as it sees fit; before, it takes a budget. Only when asked to."""
ALWAYS: Generation = (5, 0)
"""From here on it thinks unasked, and shows it, and what it says between tool calls, only when asked to."""
BOUND: Generation = (5, 1)
"""From here on its reasoning is bound to all that came before it, and refused after a change unless we allow that."""
NEWEST: Generation = (99, 0)

GONE = ("temperature", "top_p", "top_k")


class Params(Value):
    """All that provider_params may hold for Anthropic."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)

    reasoning_effort: Literal["none", "low", "medium", "high", "xhigh", "max"] | None = None
    thinking_budget_tokens: Annotated[int, Field(ge=BUDGET_TOKENS_MIN)] | None = None
    service_tier: Literal["auto", "standard_only"] | None = None
    speed: Literal["standard", "fast"] | None = None
    inference_geo: Annotated[str, Field(min_length=1)] | None = None
    cache_ttl: Literal["5m", "1h"] | None = None
    metadata_user_id: Annotated[str, Field(min_length=1)] | None = None
    tool_choice: Literal["auto", "none"] | None = None
    stop_sequences: list[Annotated[str, Field(min_length=1)]] | None = None
    parallel_tool_calls: bool | None = None


def parse(provider: str, params: JsonObject) -> Params:
    """Read provider_params.

    Raises:
        ProviderRejected: an unknown name, with the nearest known one, or a value that cannot be.
    """
    try:
        return Params.model_validate(params)
    except ValidationError as exc:
        first = exc.errors(include_url=False)[0]
    name = ".".join(str(part) for part in first["loc"])
    if name in GONE:
        raise _refusal(provider, f"{name} is no longer: the vendor removed it. reasoning_effort is what there is.")
    if first["type"] == "extra_forbidden":
        near = difflib.get_close_matches(name, Params.model_fields, n=1, cutoff=0.0)[0]
        raise _refusal(provider, f"there is no {name[:100]!r} in provider_params; the nearest is {near!r}.")
    raise _refusal(provider, f"provider_params.{name}: {first['msg']}.")


def generation(model: str) -> Generation:
    """Which generation a model is of: (4, 5) for claude-haiku-4-5-20251001. A name that does not say is the newest."""
    if "mythos-preview" in model:
        return ADAPTIVE
    found = re.search(r"claude-(?:[a-z]+-)?(\d{1,2})(?:[-.](\d{1,2}))?(?!\d)", model)
    return (int(found[1]), int(found[2] or 0)) if found else NEWEST


def settings(provider: str, request: ModelRequest, params: Params) -> tuple[JsonObject, list[str]]:
    """The body's settings, and the betas that they need.

    Raises:
        ProviderRejected: the model cannot do what the params ask.
    """
    body = _thinking(provider, request, params)
    body["cache_control"] = {"type": "ephemeral", **({"ttl": params.cache_ttl} if params.cache_ttl else {})}
    plain = params.model_dump(include={"service_tier", "speed", "inference_geo", "stop_sequences"}, exclude_none=True)
    body |= plain
    if params.metadata_user_id:
        body["metadata"] = {"user_id": params.metadata_user_id}
    if request.tools and params.tool_choice == "none":
        body["tool_choice"] = {"type": "none"}
    elif request.tools and (params.tool_choice or params.parallel_tool_calls is not None):
        one_by_one = (
            {} if params.parallel_tool_calls is None else {"disable_parallel_tool_use": not params.parallel_tool_calls}
        )
        body["tool_choice"] = {"type": "auto", **one_by_one}
    betas = [BINDING_BETA] if "block_binding" in body.get("thinking", {}) else []
    return body, betas + ([SPEED_BETA] if params.speed else [])


def _thinking(provider: str, request: ModelRequest, params: Params) -> JsonObject:
    """How the model is to think, by its generation. Where it cannot be kept from it, `none` is the least there is."""
    age, effort, budget = generation(request.model), params.reasoning_effort, params.thinking_budget_tokens
    if age < ADAPTIVE:
        return _budget(provider, request, effort, budget)
    if budget is not None:
        raise _refusal(provider, f"{request.model} takes reasoning_effort, not thinking_budget_tokens.")
    if age < ALWAYS and effort in (None, "none"):
        return {}
    thinking: JsonObject = {"type": "adaptive", "display": "summarized"}
    if age >= BOUND:
        thinking["block_binding"] = {"prefix_mismatch_behavior": "drop_block"}
    asked = {"output_config": {"effort": "low" if effort == "none" else effort}} if effort else {}
    return {"thinking": thinking, **asked}


def _budget(provider: str, request: ModelRequest, effort: str | None, budget: int | None) -> JsonObject:
    if effort and budget is not None:
        raise _refusal(provider, "reasoning_effort and thinking_budget_tokens say the same thing; give one of them.")
    if budget is None:
        if effort in (None, "none"):
            return {}
        budget = max(BUDGET_TOKENS_MIN, min(BUDGETS[effort], request.max_tokens // 2))
    if budget >= request.max_tokens:
        raise _refusal(provider, f"{budget} tokens of reasoning do not fit in max_tokens {request.max_tokens}.")
    return {"thinking": {"type": "enabled", "budget_tokens": budget}}


def _refusal(provider: str, message: str) -> MeerkatError:
    return wire.failure("bad_request", provider, message)


# ── structured output ──


def output_format(model: str, schema: JsonObject, transform: Callable[[JsonObject], JsonObject]) -> JsonObject | None:
    """The vendor's form of a schema, or None when it has none that lets every fitting kind of answer through.

    `transform` is the SDK's. It closes objects and moves what it does not know into descriptions, so a map, for
    example, would come out as an object that must stay empty.
    """
    if generation(model) < STRUCTURED or not all(_expressible(part, schema) for part in _parts(schema)):
        return None
    try:
        return {"type": "json_schema", "schema": transform(schema)}
    except Exception:  # it stops at what it does not expect in many ways, all of which mean no
        return None


_OPEN = ("allOf", "definitions", "patternProperties", "prefixItems", "$dynamicRef", "$id", "$anchor")


def _parts(schema: Any) -> Iterator[JsonObject]:
    """A schema and those within it."""
    if not isinstance(schema, dict):
        return
    part = cast(JsonObject, schema)
    yield part
    for name in ("properties", "$defs"):
        for inner in cast(JsonObject, part.get(name) or {}).values():
            yield from _parts(inner)
    inside: list[Any] = [part.get("items"), *(part.get("anyOf") or []), *(part.get("oneOf") or [])]
    for inner in inside:
        yield from _parts(inner)


def _expressible(part: JsonObject, root: JsonObject) -> bool:
    if any(name in part for name in _OPEN):
        return False
    if "$ref" in part:
        return _leads_somewhere(part["$ref"], root, ())
    if part.get("type") != "object":
        return True
    properties: JsonObject = part.get("properties") or {}
    closed = not isinstance(part.get("additionalProperties"), dict)
    return bool(properties) and closed and set(part.get("required") or ()) <= set(properties)


def _leads_somewhere(reference: str, root: JsonObject, way: tuple[str, ...]) -> bool:
    """Whether a reference names one of `$defs` that does not come back to itself: the vendor takes no recursion."""
    name = reference.removeprefix("#/$defs/")
    if reference in way or name == reference or name not in (root.get("$defs") or {}):
        return False
    inner = [part["$ref"] for part in _parts(root["$defs"][name]) if "$ref" in part]
    return all(_leads_somewhere(found, root, (*way, reference)) for found in inner)
