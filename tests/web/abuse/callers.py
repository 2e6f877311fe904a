"""Bad callers: without a token, with one that is no good, without the scope, in somebody else's MCP session."""

import base64
import json
from random import Random

from web.abuse.kinds import LEGACY, World, changed, code, enveloped, initialize, kind, message_of, modern_headers
from web.abuse.wire import Answer, request

from meerkat_mcp.server.scopes import CONFIGURE, DELETE, METHOD_SCOPES, READ, RUN, TOOL_SCOPES

GOOD = enveloped("server/discover")
GOOD_HEADERS = modern_headers("server/discover")
CLOSED_PATHS = ("/mcp", "/metrics", "/sessions/last/events", "/nothing", "/assets", "/.well-known")
WHO_LACKS = {READ: ("configure", "delete"), RUN: ("read", "configure", "delete"), CONFIGURE: ("read", "run", "delete")}
WHO_LACKS[DELETE] = ("read", "run", "configure")
UNKNOWN_SESSION = -32600


def challenged(answer: Answer) -> None:
    """Told where the metadata is; no error is named to who sent no token (RFC 6750, 3.1)."""
    said = answer.header("www-authenticate")
    assert said.startswith("Bearer realm="), said
    assert "resource_metadata=" in said, said


def unknown_token(answer: Answer) -> None:
    challenged(answer)
    assert 'error="invalid_token"' in answer.header("www-authenticate")
    assert json.loads(answer.body)["error"] == "invalid_token"


def lacks_scope(answer: Answer) -> None:
    challenged(answer)
    assert 'error="insufficient_scope"' in answer.header("www-authenticate")
    assert json.loads(answer.body)["scope"] in (READ, RUN, CONFIGURE, DELETE)


def authorized(world: World, *values: str, path: str = "/mcp") -> bytes:
    """A request with these Authorization headers, whatever they are."""
    headers = [*world.headers(None), *GOOD_HEADERS, *(("Authorization", value) for value in values)]
    return request("POST", path, headers, json.dumps(GOOD).encode())


# ── tokens ──


@kind(401, check=challenged)
def no_token(random: Random, world: World) -> bytes:
    if random.random() < 0.3:
        return world.get(random.choice(CLOSED_PATHS), method=random.choice(("GET", "DELETE", "PUT")), who=None)
    return world.post(GOOD, *GOOD_HEADERS, path=random.choice(CLOSED_PATHS), who=None)


@kind(401, check=challenged)
def another_scheme(random: Random, world: World) -> bytes:
    token = world.tokens["all"]
    basic = base64.b64encode(f"all:{token}".encode()).decode()
    return authorized(
        world, random.choice((f"Basic {basic}", f"Token {token}", token, "Digest a=b", "", f"{token} Bearer"))
    )


@kind(401, check=unknown_token)
def malformed_bearer(random: Random, world: World) -> bytes:
    token = world.tokens["all"]
    return authorized(
        world,
        random.choice(
            (
                "Bearer",
                f"Bearer\t{token}",
                f"Bearer {token} x",
                f"Bearer,{token}",
                f'Bearer "{token}"',
                f"Bearer {token}\xe9",
            )
        ),
    )


@kind(401, check=unknown_token)
def two_tokens(random: Random, world: World) -> bytes:
    good = f"Bearer {world.tokens['all']}"
    return authorized(world, *random.choice(((good, good), (good, "Basic x"), ("Basic x", good), (good, "Bearer x"))))


@kind(401, check=challenged)
def a_token_in_the_address(random: Random, world: World) -> bytes:
    token = world.tokens["all"]
    path = random.choice(
        (f"/mcp?access_token={token}", f"/metrics?token={token}", f"/mcp?authorization=Bearer%20{token}")
    )
    return world.post(GOOD, *GOOD_HEADERS, path=path, who=None)


@kind(401, 400, 0, ours=False)
def a_token_without_end(random: Random, world: World) -> bytes:
    return authorized(world, "Bearer " + "a" * random.choice((8193, 30_000, 60_000, 100_000, 400_000)))


@kind(401, check=unknown_token)
def unknown_token_of_any_form(random: Random, world: World) -> bytes:
    alphabet = "abcdefghijklmnopqrstuvwxyzABCDEF0123456789-._~+/"
    return authorized(world, "Bearer " + "".join(random.choices(alphabet, k=random.randrange(1, 200))))


@kind(401, check=unknown_token)
def nearly_a_token(random: Random, world: World) -> bytes:
    token = world.tokens["all"]
    return authorized(
        world, "Bearer " + random.choice((token[:-1], token.upper(), token + "a", token + "=", token[1:]))
    )


@kind(401, check=unknown_token)
def refused_jwt(random: Random, world: World) -> bytes:
    """Expired, of another issuer, for another audience, unsigned, signed with another key, and so on."""
    return authorized(world, "Bearer " + world.refused[random.choice(sorted(world.refused))])


@kind(401, check=unknown_token)
def spoilt_jwt(random: Random, world: World) -> bytes:
    """A good one, but for a letter of its header, its claims or its signature."""
    token = list(world.tokens["oauth"])
    at = random.choice([index for index, letter in enumerate(token[:-8]) if letter != "."])
    token[at] = random.choice([letter for letter in "AbCdEf0123_-xyz" if letter != token[at]])
    return authorized(world, "Bearer " + "".join(token))


@kind(401, check=unknown_token)
def parts_that_are_no_jwt(random: Random, world: World) -> bytes:
    head, claims, signature = world.tokens["oauth"].split(".")
    deep = base64.urlsafe_b64encode(b'{"a":' * 900 + b"1" + b"}" * 900).decode().rstrip("=")
    nul = base64.urlsafe_b64encode(b'{"alg":"ES256\x00"}').decode().rstrip("=")
    parts = (
        (head, claims, ""),
        (head, "", signature),
        ("", "", ""),
        (claims, head, signature),
        (deep, claims, signature),
    )
    return authorized(world, "Bearer " + ".".join(random.choice((*parts, (nul, claims, signature), (head, claims)))))


# ── scopes ──


@kind(403, check=lacks_scope)
def a_tool_beyond_the_scope(random: Random, world: World) -> bytes:
    name = random.choice(sorted(TOOL_SCOPES))
    who = random.choice(WHO_LACKS[TOOL_SCOPES[name]])
    arguments = random.choice(({}, {"session_id": "last"}, {"prompt": "hi"}, {"session_id": world.session_id}, None))
    if random.random() < 0.5:
        return world.modern("tools/call", {"name": name, "arguments": arguments}, who=who)
    body = {"jsonrpc": "2.0", "id": 1, "method": "tools/call", "params": {"name": name, "arguments": arguments}}
    return world.legacy(body, who=who)


@kind(403, check=lacks_scope)
def a_change_of_the_config_beyond_the_scope(random: Random, world: World) -> bytes:
    arguments = random.choice(
        (
            {"action": "set", "config": {}},
            {"action": "patch", "patch": {"agent": {"model": "x"}}},
            {"action": "nothing"},
            {"action": None},
            {"action": ["get"]},
        )
    )
    return world.tool("meerkat_config", arguments, who=random.choice(("read", "run")))


@kind(403, check=lacks_scope)
def a_method_beyond_the_scope(random: Random, world: World) -> bytes:
    method = random.choice(sorted(METHOD_SCOPES))
    return world.modern(method, {}, who=random.choice(WHO_LACKS[METHOD_SCOPES[method]]))


@kind(403, check=lacks_scope)
def a_forbidden_message_in_a_batch(random: Random, world: World) -> bytes:
    call = {"jsonrpc": "2.0", "id": 2, "method": "tools/call", "params": {"name": "meerkat_run", "arguments": {}}}
    batch = [GOOD, call] if random.random() < 0.5 else [call]
    if random.random() < 0.5:
        return world.post(batch, *GOOD_HEADERS, who="read")
    return world.legacy(batch, who="read")


@kind(403, check=lacks_scope)
def another_method_told_to_the_door(random: Random, world: World) -> bytes:
    """The headers say something harmless; what the body says counts."""
    body = enveloped("tools/call", {"name": "meerkat_run", "arguments": {"prompt": "hi"}})
    name = random.choice((("Mcp-Name", "meerkat_read"), ("Mcp-Name", "meerkat_run"), ("X-Http-Method-Override", "GET")))
    return world.post(body, *GOOD_HEADERS, name, who="read")


@kind(403, check=lacks_scope)
def a_name_that_is_said_twice(random: Random, world: World) -> bytes:
    """Of two equal keys both parsers take the last; nothing is read one way here and another way there."""
    first, last = '"name": "meerkat_read"', '"name": "meerkat_run"'
    body = json.dumps(enveloped("tools/call", {"name": "meerkat_run", "arguments": {}}))
    return world.post(body.replace(last, f"{first}, {last}").encode(), *GOOD_HEADERS, who="read")


@kind(403, check=lacks_scope, ours=True)
def events_and_metrics_beyond_the_scope(random: Random, world: World) -> bytes:
    return world.get("/metrics", who=random.choice(("configure", "delete")))


@kind(403)
def events_beyond_the_scope(random: Random, world: World) -> bytes:
    return world.get(f"/sessions/{world.session_id}/events", who=random.choice(("configure", "delete")))


@kind(404, 400)
def events_of_no_session(random: Random, world: World) -> bytes:
    name = random.choice(("nowhere", "%00", "~999", "x" * 201, "%ff%fe", "0" * 32, "%F0%9F%A6%A6", "'%3B--", "realm:x"))
    return world.get(f"/sessions/{name}/events")


@kind(400)
def events_after_what_is_no_number(random: Random, world: World) -> bytes:
    wrong = random.choice(("-1", "x", "1e3", "9" * 15, "9" * 4000, "0x1", "1.0", " 1 2", "٣"))
    if random.random() < 0.5 and wrong.isascii():
        return world.get(f"/sessions/{world.session_id}/events", ("Last-Event-ID", wrong))
    quoted = wrong.replace(" ", "%20").replace("٣", "%D9%A3")
    return world.get(f"/sessions/{world.session_id}/events?after_seq={quoted}")


# ── approvals ──


def _approval(world: World, body: object, *more: tuple[str, str], session: str = "", who: str | None = "all") -> bytes:
    path = f"/sessions/{session or world.session_id}/approvals"
    return world.post(body, ("Origin", f"http://{world.host}"), *more, path=path, who=who)


def _yes(random: Random) -> dict:
    return {"responses": [{"tool_use_id": random.choice(("x", "*", "\x00")), "decision": "approve"}]}


@kind(403)
def an_approval_beyond_the_scope(random: Random, world: World) -> bytes:
    return _approval(world, _yes(random), who=random.choice(("read", "run", "configure", "delete")))


@kind(403)
def an_approval_from_elsewhere(random: Random, world: World) -> bytes:
    """Also from other pages of this machine, which may read; and from programs that claim to be none."""
    return _approval(world, _yes(random), ("Origin", random.choice(("", "http://localhost:1", "http://127.0.0.1:1"))))


@kind(400, 404, 409)
def an_approval_of_nothing(random: Random, world: World) -> bytes:
    session = random.choice(("", "nowhere", "0" * 32, "~999"))
    return _approval(world, _yes(random), session=session)


@kind(400)
def an_approval_that_is_none(random: Random, world: World) -> bytes:
    wrong = (b"", b"{", b"[]", b"\xff", b"null", b'{"responses":[]}', b'{"responses":[{}]}', b"[" * 9000)
    odd = ({"responses": 1}, _yes(random) | {"more": 1}, {"responses": [{"tool_use_id": "x", "decision": "perhaps"}]})
    return _approval(world, random.choice((*wrong, *odd)))


# ── MCP sessions of 2025 ──


def no_such_session(answer: Answer) -> None:
    code(UNKNOWN_SESSION)(answer)
    assert message_of(answer)["id"] is None


@kind(404, check=no_such_session)
def unknown_mcp_session(random: Random, world: World) -> bytes:
    session = random.choice(("nothing", "0" * 32, "a" * 5000, "../x", "\xe9", world.mcp_session[:-1] + "g"))
    return _in_session(random, world, session)


@kind(404, check=no_such_session)
def somebody_elses_mcp_session(random: Random, world: World) -> bytes:
    return _in_session(random, world, world.foreign_mcp_session)


def _in_session(random: Random, world: World, session: str) -> bytes:
    own = (("Mcp-Protocol-Version", LEGACY), ("Mcp-Session-Id", session))
    match random.randrange(4):
        case 0:
            return world.get("/mcp", *own, method=random.choice(("GET", "DELETE")))
        case 1:
            return world.get("/mcp", *own, ("Last-Event-ID", random.choice(("1", "x", "9" * 999))))
        case 2:
            note = random.choice(("notifications/initialized", "notifications/cancelled", "notifications/nothing"))
            return world.post({"jsonrpc": "2.0", "method": note, "params": {"requestId": 1}}, *own)
        case _:
            return world.post(initialize() if random.random() < 0.3 else GOOD | {"method": "tools/list"}, *own)


@kind(400, check=code(UNKNOWN_SESSION))
def no_mcp_session(random: Random, world: World) -> bytes:
    body = random.choice((GOOD | {"method": "tools/list"}, {"jsonrpc": "2.0", "method": "notifications/initialized"}))
    if random.random() < 0.3:
        return world.get("/mcp", method=random.choice(("GET", "DELETE")))
    return world.post(body, *([("Mcp-Protocol-Version", LEGACY)] if random.random() < 0.5 else []))


@kind(404, check=no_such_session)
def two_mcp_sessions(random: Random, world: World) -> bytes:
    """The first counts, and it is not there."""
    headers = changed(world.headers(), [("Mcp-Protocol-Version", LEGACY)])
    both = [*headers, ("Mcp-Session-Id", "nothing"), ("Mcp-Session-Id", world.mcp_session)]
    return request("POST", "/mcp", both, json.dumps(GOOD | {"method": "tools/list"}).encode())


@kind(202)
def a_note_about_nothing(random: Random, world: World) -> bytes:
    note = random.choice(
        ("notifications/cancelled", "notifications/progress", "notifications/nothing", "", "tools/call")
    )
    params = random.choice(({}, {"requestId": 10**6}, {"requestId": None}, {"progressToken": [], "progress": "x"}))
    return world.legacy({"jsonrpc": "2.0", "method": note, "params": params})


@kind(200)
def initialize_again(random: Random, world: World) -> bytes:
    return world.legacy(initialize() | {"id": random.randrange(10**9)})
