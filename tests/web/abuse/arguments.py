"""Bad arguments: for every tool, values that do not fit its schema, and those that fit it and name nothing."""

from random import Random
from types import SimpleNamespace
from typing import Any

from web.abuse.kinds import World, kind, tool_error

from meerkat_mcp.server.app import surface

SCHEMAS = {tool.name: tool.parameters for tool in surface(SimpleNamespace())}  # nothing is called, only described
TAKING_SOMETHING = sorted(name for name, schema in SCHEMAS.items() if schema["properties"])
TAKING_A_SESSION = sorted(
    name
    for name, schema in SCHEMAS.items()
    if "session_id" in schema["properties"] and name not in ("meerkat_run", "meerkat_delete", "meerkat_config")
)
ODD_KEYS = ("sesion_id", "Prompt", "", "__class__", "_meta", "x" * 3000, "🦦", "prompt\x00", "\ud800")
NOWHERE = (
    "nowhere",
    "019a0000-0000-7000-8000-000000000000",
    "~999999",
    "other:last",
    "%",
    "' OR 1=1 --",
    "\x00\x00\x00\x00",
)
invalid = tool_error("invalid_request")


def misfit(random: Random, schema: dict[str, Any], root: dict[str, Any]) -> Any:
    """A value that does not fit a schema of ours. (Numbers may come as strings, and null is left out: those would.)"""
    if "$ref" in schema:
        return misfit(random, root["$defs"][schema["$ref"].rpartition("/")[2]], root)
    if "anyOf" in schema:
        return [[[]]]
    match schema.get("type"):
        case "string" if "enum" in schema or "pattern" in schema:
            return random.choice(("no such thing", "", 1, {}, [], "\ud800"))
        case "string":
            return random.choice((1, 1.5, True, {}, [], ["a"], {"a": "b"}, "\ud800", "\udfff!"))
        case "integer" | "number":
            return random.choice(("many", {}, [], [1], -1e308, float("nan"), float("inf"), "", "1e", "0x10"))
        case "boolean":
            return random.choice(("perhaps", {}, [], 2, -1, 0.5))
        case "array":
            return random.choice(("a", 1, {}, True, [misfit(random, schema.get("items", {}), root)]))
        case "object" if "properties" in schema:
            key = random.choice(sorted(schema["properties"]))
            return random.choice(("a", 1, [], True, {"x": 1}, {key: misfit(random, schema["properties"][key], root)}))
        case _:
            return random.choice(("a", 1, [], True, [{}]))


@kind(200, check=invalid)
def an_argument_that_does_not_fit(random: Random, world: World) -> bytes:
    name = random.choice(TAKING_SOMETHING)
    schema = SCHEMAS[name]
    key = random.choice(sorted(schema["properties"]))
    known = {"session_id": world.session_id} if "session_id" in schema["properties"] else {}
    return world.tool(name, known | {key: misfit(random, schema["properties"][key], schema)})


@kind(200, check=invalid)
def an_unknown_argument(random: Random, world: World) -> bytes:
    return world.tool(
        random.choice(sorted(SCHEMAS)), {random.choice(ODD_KEYS): random.choice((1, "a", None, {}, []))} | {"y": 1}
    )


@kind(200, check=invalid)
def a_required_argument_left_out(random: Random, world: World) -> bytes:
    name = random.choice([name for name, schema in SCHEMAS.items() if schema.get("required")])
    return world.tool(name, random.choice(({}, dict.fromkeys(SCHEMAS[name]["required"]))))


@kind(200, check=tool_error("session_not_found", "invalid_request", "session_ambiguous"))
def a_session_that_is_not_there(random: Random, world: World) -> bytes:
    name = random.choice(TAKING_A_SESSION)
    more = {"prompt": "hi"} if name == "meerkat_resume" else {}
    return world.tool(name, {"session_id": random.choice(NOWHERE)} | more)


@kind(200, check=tool_error("stream_not_found", "invalid_request"))
def a_stream_that_is_not_there(random: Random, world: World) -> bytes:
    stream = random.choice(("evt-nothing", "evt-", "x" * 200, "evt-" + "0" * 32, "\x00"))
    return world.tool(random.choice(("meerkat_event_stream_read",)), {"stream_id": stream, "timeout_ms": 0})


@kind(200, check=tool_error("session_not_found", "invalid_request"))
def a_deletion_of_what_is_not_named_in_full(random: Random, world: World) -> bytes:
    session = random.choice(("last", "~1", world.session_id[:8], *NOWHERE))
    return world.tool("meerkat_delete", {"session_id": session, "confirm": random.choice((session, "yes"))})


@kind(200, check=tool_error("invalid_request", "model_unknown", "permission_denied", "schema_invalid"))
def a_run_that_cannot_be(random: Random, world: World) -> bytes:
    wrong = random.choice(
        (
            {"model": "no-such-model"},
            {"provider": "nobody"},
            {"output_schema": {"type": "nothing"}},
            {"output_schema": {"$ref": "http://127.0.0.1:1/schema"}},
            {"tools": [{"name": "a b"}]},
            {"mcp_servers": {"x": {"command": "sh", "args": ["-c", "touch /tmp/x"]}}},
            {"mcp_servers": {"x": {"url": "http://169.254.169.254/"}}},
            {"mcp_servers": {"nowhere": {}}},
            {"labels": {str(number): "x" for number in range(999)}},
            {"budget": {"max_tokens": 0}},
            {"title": "x" * 30_000},
            {"idempotency_key": ""},
        )
    )
    return world.tool("meerkat_run", {"prompt": "hi"} | wrong)


@kind(200, check=tool_error("invalid_request", "generation_conflict", "permission_denied"))
def a_config_that_cannot_be(random: Random, world: World) -> bytes:
    arguments = random.choice(
        (
            {"action": "set"},
            {"action": "patch"},
            {"action": "set", "config": {"nothing": 1}},
            {"action": "patch", "patch": {"agent": {"model": 1}}},
            {"action": "patch", "patch": {"agent": {}}, "expected_generation": 10**9},
            {"action": "patch", "patch": {"providers": {"openai": {"api_key": "sk-a"}}}},
            {"action": "patch", "patch": {"limits": {"wait_seconds": -1}}},
            {"action": "patch", "patch": {"mcp_servers": {"x": {"command": "sh"}}}},
        )
    )
    return world.tool("meerkat_config", arguments)
