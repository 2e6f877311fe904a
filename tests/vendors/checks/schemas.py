"""Which JSON schemas the vendors take where they promise that an answer fits."""

from collections.abc import Iterator
from typing import Any

from vendors.script import JsonObject

Found = tuple[tuple[str, ...], JsonObject]
NESTED = ("anyOf", "oneOf", "allOf")
NAMED = ("$defs", "definitions", "properties")


def subschemas(schema: Any, path: tuple[str, ...] = ()) -> Iterator[Found]:
    """A schema and all schemas in it, with the way to each."""
    if not isinstance(schema, dict):
        return
    yield path, schema
    for key in NAMED:
        for name, nested in (schema.get(key) or {}).items():
            yield from subschemas(nested, (*path, key, name))
    for key in NESTED:
        for index, nested in enumerate(schema.get(key) or []):
            yield from subschemas(nested, (*path, key, str(index)))
    if "items" in schema:
        yield from subschemas(schema["items"], (*path, "items"))


def not_strict(schema: Any) -> Iterator[str]:
    """Why a schema cannot be strict at OpenAI: each object closed, each of its properties required (facts §1.2)."""
    for path, found in subschemas(schema):
        if "properties" not in found and found.get("type") != "object":
            continue
        context = f"In context=({', '.join(map(repr, path))}{',' if len(path) == 1 else ''}), "
        if found.get("additionalProperties") is not False:
            yield f"{context}'additionalProperties' is required to be supplied and to be false."
        missing = [name for name in found.get("properties") or {} if name not in (found.get("required") or [])]
        if missing:
            yield (
                f"{context}'required' is required to be supplied and to be an array including every key in "
                f"properties. Missing '{missing[0]}'."
            )


def not_an_object(schema: Any) -> Iterator[str]:
    """Why a schema cannot describe a function's arguments at OpenAI."""
    kind = schema.get("type") if isinstance(schema, dict) else None
    if kind != "object":
        yield f"schema must be a JSON Schema of 'type: \"object\"', got 'type: \"{kind}\"'."
    elif {"oneOf", "anyOf", "allOf", "enum", "not"} & schema.keys():
        yield ("schema must have type 'object' and not have 'oneOf'/'anyOf'/'allOf'/'enum'/'not' at the top level.")
