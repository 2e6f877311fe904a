"""Structured output: is the schema one, does the answer fit it, and what to say when it does not.

`jsonschema` is loaded with the first schema: it takes 40 ms, and most servers never see one.
"""

import importlib
import json
from typing import TYPE_CHECKING, Any, cast

from meerkat_mcp.domain.errors import InvalidRequest, SchemaInvalid
from meerkat_mcp.domain.messages import JsonObject

if TYPE_CHECKING:
    from jsonschema import ValidationError

SCHEMA_BYTES_MAX = 65_536
NESTING_MAX = 64


def check_schema(schema: JsonObject) -> None:
    """Refuse what is no JSON Schema (2020-12), is too large, or points outside itself.

    Raises:
        SchemaInvalid: the message says where and why.
    """
    try:
        size = len(json.dumps(schema))
        too_deep = _depth(schema) > NESTING_MAX
    except (RecursionError, ValueError):
        size, too_deep = 0, True
    if too_deep or size > SCHEMA_BYTES_MAX:
        raise SchemaInvalid(f"The schema is larger than {SCHEMA_BYTES_MAX} bytes or {NESTING_MAX} levels.")
    jsonschema = importlib.import_module("jsonschema")
    try:
        jsonschema.Draft202012Validator.check_schema(schema)
    except jsonschema.SchemaError as exc:
        where = "/".join(str(part) for part in exc.absolute_path) or "its root"
        raise SchemaInvalid(f"output_schema is no JSON Schema: at {where}: {exc.message[:300]}") from None
    for reference in _references(schema):
        if not reference.startswith("#"):
            raise SchemaInvalid(
                f"output_schema refers to {reference[:200]!r}.", hint="Only references within the schema are followed."
            )


def fit(text: str, schema: JsonObject) -> Any:
    """The answer as a value that fits the schema. A code fence around it is taken off.

    Raises:
        SchemaInvalid: it is no JSON or does not fit; the message tells a model what to mend.
    """
    try:
        value = json.loads(_bare(text))
    except (ValueError, RecursionError) as exc:
        raise SchemaInvalid(f"The answer is not JSON: {exc}") from None
    jsonschema, referencing = importlib.import_module("jsonschema"), importlib.import_module("referencing")
    validator = jsonschema.Draft202012Validator(schema, registry=referencing.Registry())
    try:
        errors: list[ValidationError] = list(validator.iter_errors(value))
    except (referencing.exceptions.Unresolvable, RecursionError) as exc:
        raise InvalidRequest(f"The schema cannot be applied: {str(exc)[:300]}") from None
    if errors:
        worst = max(errors, key=jsonschema.exceptions.relevance)
        where = "/".join(str(part) for part in worst.absolute_path) or "the root"
        raise SchemaInvalid(f"The answer does not fit the schema at {where}: {worst.message[:500]}")
    return value


def ask_again(problem: str) -> str:
    """What to tell the model."""
    return f"{problem}\nAnswer again, with nothing but JSON that fits the schema."


def _bare(text: str) -> str:
    text = text.strip()
    if text.startswith("```") and text.endswith("```"):
        _, _, text = text[:-3].partition("\n")
    return text


def _depth(value: Any) -> int:
    inner: list[Any] = []
    if isinstance(value, dict):
        inner = list(cast(JsonObject, value).values())
    elif isinstance(value, list):
        inner = cast(list[Any], value)
    return 1 + max((_depth(item) for item in inner), default=0)


def _references(value: Any) -> list[str]:
    if isinstance(value, list):
        return [found for item in cast(list[Any], value) for found in _references(item)]
    if not isinstance(value, dict):
        return []
    schema = cast(JsonObject, value)
    own = [schema[key] for key in ("$ref", "$dynamicRef") if isinstance(schema.get(key), str)]
    return own + [found for item in schema.values() for found in _references(item)]
