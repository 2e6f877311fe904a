"""Whatever a model makes up as arguments: an answer, or an error that names the fix; no traceback, no hang."""

import json
from types import SimpleNamespace

import anyio
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from mcp import Client

from meerkat_mcp.domain.errors import codes
from meerkat_mcp.realms import choose, open_realm
from meerkat_mcp.server.app import build_server, surface

PATIENCE_S = 20.0
JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(max_size=20),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=10), inner, max_size=3),
    max_leaves=8,
)
WAITS = {"wait_seconds", "timeout_ms"}


SCHEMAS = {tool.name: tool.parameters for tool in surface(SimpleNamespace())}  # nothing is called, only described


def fitting(schema: dict, root: dict) -> st.SearchStrategy:
    """Values that fit a schema of ours, with the edges of every range."""
    match schema:
        case {"$ref": reference}:
            return fitting(root["$defs"][reference.rpartition("/")[2]], root)
        case {"enum": options}:
            return st.sampled_from(options)
        case {"type": "object", "properties": properties}:
            required = set(schema.get("required", ()))
            parts = {name: fitting(inner, root) for name, inner in properties.items()}
            return st.fixed_dictionaries(
                {name: part for name, part in parts.items() if name in required},
                optional={name: part for name, part in parts.items() if name not in required},
            )
        case {"type": "object", "additionalProperties": {"type": "string"}}:
            return st.dictionaries(st.text(max_size=8), st.text(max_size=8), max_size=3)
        case {"type": "object"}:
            return st.dictionaries(st.text(max_size=8), JSON, max_size=3)
        case {"type": "array", "items": items}:
            return st.lists(fitting(items, root), max_size=3)
        case {"type": "integer"}:
            low, high = schema.get("minimum", -(2**63)), schema.get("maximum", 2**63)
            return st.integers(low, high) | st.sampled_from([low, high])
        case {"type": "number"}:
            return st.floats(schema.get("minimum", 0), schema.get("maximum", 1e12), exclude_min=True)
        case {"type": "boolean"}:
            return st.booleans()
        case {"type": "string", "pattern": pattern}:
            return st.from_regex(pattern, fullmatch=True)
        case {"type": "string"}:
            return st.sampled_from(["last", "~2", "hi", "", "[[words 3]]"]) | st.text(max_size=40)
    raise AssertionError(f"no strategy for {schema}")


def bounded(arguments: dict) -> dict:
    """The same arguments, but what may wait waits no longer than a moment, and no prompt hangs."""
    return {
        key: min(value, 0.01 if key == "wait_seconds" else 10)
        if key in WAITS and isinstance(value, int | float) and not isinstance(value, bool)
        else value
        for key, value in arguments.items()
    }


async def check(arguments_list: list[dict], name: str, root) -> None:
    choice = choose("den", backend="memory", state_root=root)
    async with open_realm(choice) as realm, Client(build_server(realm)) as client:
        await client.call_tool("meerkat_run", {"prompt": "hi"})
        for arguments in arguments_list:
            with anyio.fail_after(PATIENCE_S):
                result = await client.call_tool(name, bounded(arguments))
            if not result.is_error:
                assert result.structured_content is not None
                continue
            error = json.loads(result.content[0].text)["error"]
            assert error["code"] in set(codes()) - {"internal"}, error
            assert error["message"]
            assert "Traceback" not in error["message"]
            assert "pydantic" not in json.dumps(error)


@pytest.mark.parametrize("name", SCHEMAS)
@settings(max_examples=8, deadline=None, suppress_health_check=list(HealthCheck), derandomize=True, database=None)
@given(data=st.data())
def test_arguments_that_fit_the_schema(name, data, tmp_path_factory):
    valid = data.draw(st.lists(fitting(SCHEMAS[name], SCHEMAS[name]), min_size=1, max_size=12))
    anyio.run(check, valid, name, tmp_path_factory.mktemp("fit"))


@pytest.mark.parametrize("name", SCHEMAS)
@settings(max_examples=8, deadline=None, suppress_health_check=list(HealthCheck), derandomize=True, database=None)
@given(data=st.data())
def test_arguments_that_do_not(name, data, tmp_path_factory):
    known = st.sampled_from([*SCHEMAS[name]["properties"], "prompt", "session_id", "x"])
    anything = data.draw(st.lists(st.dictionaries(known, JSON, max_size=6), min_size=1, max_size=20))
    anyio.run(check, anything, name, tmp_path_factory.mktemp("any"))
