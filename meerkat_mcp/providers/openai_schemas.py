"""Which JSON Schemas OpenAI enforces to the letter: a subset, and a schema outside of it is refused as a whole."""

import json
from collections.abc import Iterator
from typing import Any, cast

from meerkat_mcp.domain.messages import JsonObject

LEVELS_MAX = 10
ENUM_MAX = 250
CHARS_MAX = 60_000
REFUSED_AT_ROOT = frozenset({"anyOf", "oneOf", "allOf", "enum", "not"})
"""What no schema may have at its root, strict or not."""

_TYPES = frozenset({"string", "number", "integer", "boolean", "object", "array", "null"})
_FORMATS = frozenset({"date-time", "time", "date", "duration", "email", "hostname", "ipv4", "ipv6", "uuid"})
_LABELS = frozenset({"title", "description"})
_AT_ROOT = frozenset({"$schema", "$defs", "definitions"})
_STRUCTURE = frozenset({"type", "enum", "const", "anyOf", "properties", "required", "additionalProperties", "items"})
_BOUNDS = frozenset(
    {"minimum", "maximum", "exclusiveMinimum", "exclusiveMaximum", "multipleOf", "minItems", "maxItems"}
)
_KEYWORDS = _LABELS | _STRUCTURE | _BOUNDS | {"format"}


def strict(schema: JsonObject) -> bool:
    """Whether a schema may be sent with `strict: true`: every object is closed, and all that it has is required.

    In doubt it may not: a schema that is not enforced is still shown to the model, a refused one ends the turn.
    """
    try:
        return _fits_at_root(schema)
    except (TypeError, AttributeError, ValueError, RecursionError):
        return False  # it is not even a schema


def _fits_at_root(schema: JsonObject) -> bool:
    root = {name: value for name, value in schema.items() if name not in _AT_ROOT}
    defined = [part for name in ("$defs", "definitions") for part in schema.get(name, {}).values()]
    return (
        root.get("type") == "object"
        and not REFUSED_AT_ROOT & root.keys()
        and len(json.dumps(schema)) <= CHARS_MAX
        and all(_fits(part, LEVELS_MAX) for part in (root, *defined))
    )


def _fits(part: Any, levels: int) -> bool:
    if not isinstance(part, dict) or levels == 0:
        return False
    schema = cast(JsonObject, part)
    if "$ref" in schema:
        return len(schema) == 1 and str(schema["$ref"]).startswith("#")
    types = schema["type"] if isinstance(schema.get("type"), list) else [schema.get("type")]
    if not schema.keys() <= _KEYWORDS or not (_TYPES.issuperset(types) or "anyOf" in schema):
        return False
    properties = schema.get("properties", {})
    closed = schema.get("additionalProperties") is False and set(schema.get("required", ())) == set(properties)
    return (
        ("object" not in types or closed)
        and ("array" not in types or "items" in schema)
        and len(schema.get("enum", ())) <= ENUM_MAX
        and schema.get("format", "date") in _FORMATS
        and all(_fits(inner, levels - 1) for inner in _within(schema))
    )


def _within(schema: JsonObject) -> Iterator[Any]:
    yield from cast(JsonObject, schema.get("properties", {})).values()
    yield from cast(list[Any], schema.get("anyOf", []))
    if "items" in schema:
        yield schema["items"]
