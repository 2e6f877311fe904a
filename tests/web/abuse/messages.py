"""Bad messages in good HTTP: what is not JSON, not JSON-RPC, not MCP, in both eras."""

import json
from random import Random

from web.abuse.kinds import LEGACY, META, MODERN, World, code, enveloped, initialize, kind, modern_headers
from web.abuse.wire import Answer

PARSE, INVALID, UNKNOWN_METHOD, PARAMS = -32700, -32600, -32601, -32602
MISMATCH, VERSION = -32020, -32022
METHODS = ("tools/list", "tools/call", "resources/list", "resources/read", "prompts/get", "completion/complete")
NO_OBJECTS = (b"1", b"null", b"true", b'"a"', b"1e400", b"-0", b"[[]]")
STRAY = ("", " ", "{", "nul", "'a'", "<xml/>", "{a:1}", "[1,", '{"a":}', "tru", "\x00", "0x10", "+1", ".5", "{}{}")


def discover(**more: object) -> dict:
    return enveloped("server/discover") | more


def modern_post(random: Random, world: World, body: bytes) -> bytes:
    return world.post(body, *modern_headers("server/discover"))


def either(random: Random, world: World, body: bytes) -> bytes:
    """The same body in one era or the other."""
    return world.legacy(body) if random.random() < 0.3 else modern_post(random, world, body)


# ── no JSON ──


@kind(400, check=code(PARSE))
def not_json(random: Random, world: World) -> bytes:
    return modern_post(random, world, random.choice(STRAY).encode())


@kind(400, check=code(PARSE))
def not_json_in_2025(random: Random, world: World) -> bytes:
    return world.legacy(random.choice(STRAY).encode())


@kind(400, check=code(PARSE))
def truncated_json(random: Random, world: World) -> bytes:
    body = json.dumps(discover()).encode()
    return either(random, world, body[: random.randrange(1, len(body))])


@kind(400, check=code(PARSE, INVALID, PARAMS))
def deep_nesting(random: Random, world: World) -> bytes:
    depth = random.randrange(3000, 5000)
    opening, closing = random.choice(((b"[", b"]"), (b'{"a":', b"}")))
    return either(random, world, opening * depth + b"1" + closing * random.choice((depth, 0)))


@kind(400, check=code(PARSE, INVALID, PARAMS))
def deep_arguments(random: Random, world: World) -> bytes:
    depth = random.randrange(3000, 5000)
    deep = '{"a":' * depth + "1" + "}" * depth
    body = json.dumps(enveloped("tools/call", {"name": "meerkat_run", "arguments": "@"})).replace('"@"', deep)
    headers = modern_headers("tools/call", {"name": "meerkat_run"})
    return world.legacy(body.encode()) if random.random() < 0.3 else world.post(body.encode(), *headers)


@kind(400, check=code(PARSE))
def half_a_surrogate_in_2025(random: Random, world: World) -> bytes:
    half = random.choice(("\ud800", "\udfff", "\udc00\ud800"))
    return world.legacy({"jsonrpc": "2.0", "id": 1, "method": half})


@kind(400, check=code(PARSE))
def invalid_utf_8(random: Random, world: World) -> bytes:
    bad = random.choice((b"\xff", b"\xc3(", b"\xf8\x88\x80\x80\x80", b"\x80", b"\xc0\x80"))
    return either(random, world, json.dumps(discover(method="@")).encode().replace(b"@", bad))


@kind(400, 404, check=code(PARSE, UNKNOWN_METHOD, INVALID, PARAMS))
def utf_16_and_other_encodings(random: Random, world: World) -> bytes:
    encoding = random.choice(("utf-16", "utf-32", "utf-16-be", "utf-8-sig"))
    return world.legacy(json.dumps({"jsonrpc": "2.0", "id": 1, "method": "nothing"}).encode(encoding))


@kind(400, check=code(PARSE))
def nul_bytes(random: Random, world: World) -> bytes:
    body = bytearray(json.dumps(discover()).encode())
    body[random.randrange(len(body))] = 0
    return either(random, world, bytes(body))


@kind(400, 404, 200, 202)
def flipped_bytes(random: Random, world: World) -> bytes:
    """Some of them are still good, or hit what does not matter: what must hold is what holds for all answers."""
    body = bytearray(json.dumps(discover(method="prompts/list")).encode())
    for _ in range(random.randrange(1, 6)):
        body[random.randrange(len(body))] = random.randrange(256)
    return world.post(bytes(body), *modern_headers("prompts/list"))


# ── no JSON-RPC ──


@kind(400, check=code(INVALID))
def batch(random: Random, world: World) -> bytes:
    return modern_post(random, world, json.dumps([discover()] * random.randrange(0, 5)).encode())


@kind(400, check=code(INVALID, PARAMS), ours=False)
def batch_in_2025(random: Random, world: World) -> bytes:
    return world.legacy([discover()] * random.randrange(0, 5))


@kind(400, check=code(INVALID))
def json_that_is_no_object(random: Random, world: World) -> bytes:
    return modern_post(random, world, random.choice(NO_OBJECTS))


@kind(400, check=code(INVALID, PARAMS), ours=False)
def json_that_is_no_object_in_2025(random: Random, world: World) -> bytes:
    return world.legacy(random.choice(NO_OBJECTS))


@kind(400, check=code(INVALID))
def wrong_jsonrpc_version(random: Random, world: World) -> bytes:
    wrong = random.choice(("1.0", "2", 2, 2.0, None, [], "2.0 ", ""))
    return world.post(discover(jsonrpc=wrong), *modern_headers("server/discover"))


@kind(400, check=code(INVALID, PARAMS), ours=False)
def wrong_jsonrpc_version_in_2025(random: Random, world: World) -> bytes:
    return world.legacy({"jsonrpc": random.choice(("1.0", 2, None)), "id": 1, "method": "tools/list"})


@kind(400, check=code(INVALID))
def wrong_id(random: Random, world: World) -> bytes:
    wrong = random.choice((None, True, False, 1.5, [], {}, [1], {"a": 1}, 1e300))
    return world.post(discover(id=wrong), *modern_headers("server/discover"))


@kind(400, 202, check=bool)
def wrong_id_in_2025(random: Random, world: World) -> bytes:
    wrong = random.choice((None, True, False, 1.5, [], {}, [1], {"a": 1}, 1e300))
    return world.legacy({"jsonrpc": "2.0", "id": wrong, "method": "tools/list", "params": {}})


@kind(400, check=code(PARSE, INVALID, PARAMS))
def endless_id(random: Random, world: World) -> bytes:
    digits = b"9" * random.randrange(4400, 6000)
    body = json.dumps(discover(id=1)).encode().replace(b'"id": 1', b'"id": ' + digits)
    return modern_post(random, world, body)


@kind(400, check=code(PARSE, INVALID, PARAMS))
def endless_id_in_2025(random: Random, world: World) -> bytes:
    digits = b"9" * random.randrange(4400, 6000)
    return world.legacy(b'{"jsonrpc":"2.0","id":' + digits + b',"method":"tools/list","params":{}}')


@kind(400, 202)
def no_id(random: Random, world: World) -> bytes:
    body = {key: value for key, value in discover().items() if key != "id"}
    return world.legacy(body) if random.random() < 0.3 else world.post(body, *modern_headers("server/discover"))


@kind(400, check=code(INVALID, PARAMS))
def wrong_method(random: Random, world: World) -> bytes:
    wrong = random.choice((None, 1, [], {}, True, ["tools/list"]))
    return world.post(discover(method=wrong), *modern_headers("server/discover"))


@kind(400, check=code(INVALID, PARAMS))
def wrong_params(random: Random, world: World) -> bytes:
    body = enveloped(random.choice(METHODS)) | {"params": random.choice((None, 1, "a", [], [1], True))}
    return world.post(body, *modern_headers(body["method"]))


@kind(400, check=code(INVALID))
def a_response_to_nothing(random: Random, world: World) -> bytes:
    body = random.choice(({"result": {}}, {"error": {"code": 1, "message": "a"}}, {"result": None}))
    whole = {"jsonrpc": "2.0", "id": random.choice((1, "a", 2**40))} | body
    return world.post(whole, *modern_headers("server/discover"))


@kind(202)
def a_response_to_nothing_in_2025(random: Random, world: World) -> bytes:
    body = random.choice(({"result": {}}, {"error": {"code": 1, "message": "a"}}))
    return world.legacy({"jsonrpc": "2.0", "id": random.choice((1, "a", 2**40))} | body)


# ── no MCP ──


@kind(404, check=code(UNKNOWN_METHOD))
def unknown_method(random: Random, world: World) -> bytes:
    names = ("nothing", "tools/calls", "TOOLS/LIST", "initialize", "ping", "logging/setLevel", "a" * 5000, "__init__")
    return world.modern(random.choice(names))


@kind(404, 400, check=code(UNKNOWN_METHOD, MISMATCH))
def unknown_method_of_odd_letters(random: Random, world: World) -> bytes:
    name = random.choice(("é", "\ud800", "\u202e", "tools/\x00list", "\n", "🦦", ""))
    return world.post(enveloped(name), *modern_headers("server/discover"), ("Mcp-Method", random.choice(("x", "é"))))


@kind(200, check=code(UNKNOWN_METHOD, PARAMS))
def unknown_method_in_2025(random: Random, world: World) -> bytes:
    name = random.choice(("nothing", "tools/calls", "server/discover", "", "é", "tasks/get", "a" * 5000))
    return world.legacy({"jsonrpc": "2.0", "id": random.randrange(10**9), "method": name, "params": {}})


@kind(400, check=code(PARAMS))
def unknown_tool(random: Random, world: World) -> bytes:
    return world.tool(random.choice(("meerkat_runs", "rm -rf", "a" * 5000, "meerkat_run.", "Meerkat_Run")), {})


@kind(400, check=code(PARAMS, MISMATCH))
def unknown_tool_of_odd_letters(random: Random, world: World) -> bytes:
    name = random.choice(("é", "\ud800", "\u202e", "\x00", "🦦", ""))
    body = enveloped("tools/call", {"name": name, "arguments": {}})
    return world.post(body, *modern_headers("tools/call"), ("Mcp-Name", random.choice(("x", "=?base64?w6k=?="))))


@kind(200, check=code(PARAMS))
def unknown_tool_in_2025(random: Random, world: World) -> bytes:
    name = random.choice(("meerkat_runs", "a" * 5000, "", "é"))
    params = {"name": name, "arguments": {}}
    return world.legacy({"jsonrpc": "2.0", "id": random.randrange(10**9), "method": "tools/call", "params": params})


@kind(400, check=code(PARAMS, MISMATCH))
def params_of_wrong_types(random: Random, world: World) -> bytes:
    method, key = random.choice(
        (("tools/call", "name"), ("tools/call", "arguments"), ("resources/read", "uri"), ("prompts/get", "name"))
    )
    good = {"name": "meerkat_capabilities"} if method == "tools/call" else {}
    wrong = random.choice((1, True, [], [{}], 1.5, {} if key != "arguments" else "a"))
    return world.modern(method, good | {key: wrong})


@kind(200, check=code(PARAMS))
def params_of_wrong_types_in_2025(random: Random, world: World) -> bytes:
    method, key = random.choice((("tools/call", "arguments"), ("resources/read", "uri"), ("prompts/get", "name")))
    params = {"name": "meerkat_run"} | {key: random.choice((1, True, [], [{}], 1.5))}
    return world.legacy({"jsonrpc": "2.0", "id": random.randrange(10**9), "method": method, "params": params})


@kind(400, 200, 404)
def a_cursor_of_ones_own(random: Random, world: World) -> bytes:
    cursor = random.choice(("a", "é", "=" * 999, 1, None, {}, "\ud800"))
    return world.modern(random.choice(("tools/list", "resources/list", "prompts/list")), {"cursor": cursor})


@kind(400, check=code(PARAMS))
def unknown_resource(random: Random, world: World) -> bytes:
    uri = random.choice(("meerkat://", "file:///etc/passwd", "meerkat://sessions/../config", "a b", "meerkat://x" * 99))
    return world.modern("resources/read", {"uri": uri})


@kind(400, check=code(PARAMS))
def a_resource_of_no_session(random: Random, world: World) -> bytes:
    name = random.choice(("nowhere", "%2e%2e", "0" * 300, "019a0000-0000-7000-8000-000000000000", "~999", "%00"))
    end = random.choice(("", "/transcript", "/events", "/events?after_seq=x", "/events?after_seq=-1"))
    return world.modern("resources/read", {"uri": f"meerkat://sessions/{name}{end}"})


@kind(400, check=code(PARAMS))
def unknown_prompt(random: Random, world: World) -> bytes:
    return world.modern("prompts/get", {"name": random.choice(("nothing", "delegated", "a" * 5000))})


@kind(200, check=code(PARAMS))
def unknown_prompt_in_2025(random: Random, world: World) -> bytes:
    params = {"name": random.choice(("nothing", "delegated"))}
    return world.legacy({"jsonrpc": "2.0", "id": random.randrange(10**9), "method": "prompts/get", "params": params})


@kind(400, check=code(PARAMS))
def unknown_completion(random: Random, world: World) -> bytes:
    ref = random.choice(({"type": "ref/prompt", "name": "nothing"}, {"type": "ref/nothing"}, {}, 1))
    argument = random.choice(({"name": "x", "value": "y"}, {}, "a", {"name": 1, "value": 2}))
    if isinstance(ref, dict) and ref.get("name") and isinstance(argument, dict) and argument.get("name") == "x":
        argument = {}
    return world.modern("completion/complete", {"ref": ref, "argument": argument})


# ── the envelope, and the headers that repeat it ──


@kind(400, check=code(PARAMS))
def no_envelope(random: Random, world: World) -> bytes:
    lost = random.choice(("io.modelcontextprotocol/protocolVersion", "io.modelcontextprotocol/clientCapabilities"))
    meta = random.choice((None, {}, {key: value for key, value in META.items() if key != lost}, 1, []))
    params = {} if meta is None else {"_meta": meta}
    method = random.choice(METHODS[::2])
    return world.post({"jsonrpc": "2.0", "id": 1, "method": method, "params": params}, *modern_headers(method))


@kind(400, check=code(PARAMS, MISMATCH, VERSION))
def an_envelope_of_wrong_types(random: Random, world: World) -> bytes:
    key = random.choice(list(META))
    meta = META | {key: random.choice((1, [], True, [[]], "a" if "Version" not in key else 2))}
    return world.post(discover(params={"_meta": meta}), *modern_headers("server/discover"))


@kind(400, check=code(VERSION))
def unsupported_version(random: Random, world: World) -> bytes:
    version = random.choice(("2027-01-01", "1", "9" * 999, "2026-07-29", "draft", "2026-07-28 x"))
    meta = META | {"io.modelcontextprotocol/protocolVersion": version}
    return world.post(
        discover(params={"_meta": meta}), ("MCP-Protocol-Version", version), ("Mcp-Method", "server/discover")
    )


@kind(400, check=code(MISMATCH))
def another_version_in_the_header(random: Random, world: World) -> bytes:
    other = random.choice(("2027-01-01", "x", "2026-07-28a"))
    return world.modern("server/discover", None, ("MCP-Protocol-Version", other))


@kind(400, check=code(INVALID))
def an_old_version_in_the_header(random: Random, world: World) -> bytes:
    old = random.choice((LEGACY, "2025-06-18", "2024-11-05", ""))
    return world.modern("server/discover", None, ("MCP-Protocol-Version", old))


@kind(400, check=code(MISMATCH))
def another_method_in_the_header(random: Random, world: World) -> bytes:
    other = random.choice(("tools/list", "", "Server/Discover", "server/discover,server/discover", "=?base64?eA==?="))
    return world.modern("server/discover", None, ("Mcp-Method", other))


@kind(400, check=code(MISMATCH))
def another_name_in_the_header(random: Random, world: World) -> bytes:
    other = random.choice(("meerkat_delete", "", "Meerkat_Run", "=?base64?x?=", "=?base64?eA==?=", "meerkat_run, a"))
    params = {"name": "meerkat_run", "arguments": {"prompt": "hi"}}
    return world.modern("tools/call", params, ("Mcp-Name", other))


@kind(400, check=code(MISMATCH))
def a_header_twice(random: Random, world: World) -> bytes:
    name, value = random.choice(
        (("mcp-method", "server/discover"), ("mcp-name", "x"), ("MCP-Protocol-Version", MODERN))
    )
    good = world.modern("server/discover", None, *([(name, value)] if name == "mcp-name" else []))
    return good.replace(b"\r\n\r\n", f"\r\n{name}: {value}\r\n\r\n".encode(), 1)


@kind(200, check=bool)
def initialize_of_a_strange_version(random: Random, world: World) -> bytes:
    """It is offered another one, in a session that this client then leaves; here in the one there is already."""
    strange = initialize(protocolVersion=random.choice(("1999-01-01", "", "x" * 999)))
    return world.legacy(strange | {"id": random.randrange(10**9)})


def no_session_was_made(answer: Answer) -> None:
    assert not answer.header("mcp-session-id") or answer.status >= 400


@kind(400, 200, check=bool)
def a_malformed_initialize(random: Random, world: World) -> bytes:
    params = random.choice(({"protocolVersion": 1}, {"capabilities": []}, {"clientInfo": None}, {"clientInfo": {}}))
    return world.legacy(initialize(**params) | {"id": random.randrange(10**9)})
