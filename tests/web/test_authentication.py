"""Who gets in over HTTP, who does not and what they are told: a real server, real sockets, both protocol eras."""

import json
import secrets
from collections.abc import AsyncGenerator, Callable, Mapping
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import anyio
import httpx2
import pytest
from mcp import Client
from mcp.client.streamable_http import streamable_http_client
from mcp.server import MCPServer
from mcp.server.auth.middleware.auth_context import get_access_token
from mcp.server.mcpserver import Context
from mcp.server.transport_security import TransportSecuritySettings
from starlette.responses import JSONResponse
from starlette.routing import BaseRoute, Route
from web.issuer import served

from meerkat_mcp.realms import choose, open_realm
from meerkat_mcp.server.app import build_server
from meerkat_mcp.server.callers import Caller, caller_of
from meerkat_mcp.server.scopes import CONFIGURE, DELETE, READ, RUN, SCOPES, TOOL_SCOPES, granted
from meerkat_mcp.web.auth import AnyOf, Authentication, IssuerAway
from meerkat_mcp.web.tokens import StaticTokens, token_file

pytestmark = pytest.mark.anyio

PATIENCE_S = 20.0
BODY_BYTES_MAX = 100_000
ALL, READS, RUNS, CONFIGURES, OTHER = (secrets.token_urlsafe(24) for _ in range(5))
TOKENS = f"ada {ALL}\nreader {READS} {READ}\nrunner {RUNS} {RUN}\neve {OTHER}\nconfig {CONFIGURES} {CONFIGURE}\n"
CHALLENGE = 'Bearer realm="meerkat", scope="sessions:read sessions:run"'
MODERN, LEGACY = "2026-07-28", "2025-11-25"


class Away:
    """Cannot tell."""

    async def authenticate(self, token: str):
        raise IssuerAway

    def challenge(self) -> str:
        return 'resource_metadata="https://den.example.com/x"'

    def routes(self) -> list[BaseRoute]:
        return [Route("/x", lambda request: JSONResponse({}))]


class Everybody:
    """Lets everybody in."""

    async def authenticate(self, token: str) -> Caller | None:
        return Caller(principal=f"{len(token)}")

    def challenge(self) -> str:
        return ""

    def routes(self) -> list[BaseRoute]:
        return []


def probe(calls: list[dict]) -> MCPServer[Any]:
    """A server whose tools have the names of ours and only note that they were called."""
    server = MCPServer[Any]("probe", log_level="ERROR")

    async def noted(context: Context[Any, Any], action: str = "get", session_id: str | None = None, more: Any = None):
        request: Any = context.request_context.request
        caller, user = caller_of(request), get_access_token()
        said = {
            "principal": caller.principal,
            "scopes": sorted(caller.scopes),
            "sees": caller.sees,
            "user": user and user.subject,
            "secret": user and user.token,
        }
        calls.append(said)
        return json.dumps(said)

    for name in TOOL_SCOPES:
        server.add_tool(noted, name=name, description="Notes.")
    return server


class Den:
    """A served app, and what its tools noted."""

    def __init__(self, url: str, http: httpx2.AsyncClient, calls: list[dict]) -> None:
        self.url = url
        self.http = http
        self.calls = calls

    async def post(self, body: bytes | dict, token: str | None = ALL, *, path: str = "/mcp", **headers: str):
        content = json.dumps(body).encode() if isinstance(body, dict) else body
        sent = {"accept": "application/json, text/event-stream", "content-type": "application/json"}
        sent |= {"authorization": f"Bearer {token}"} if token is not None else {}
        sent |= {name.replace("_", "-"): value for name, value in headers.items()}
        return await self.http.post(self.url + path, content=content, headers=sent)

    async def call(self, tool: str, token: str = ALL, **arguments: Any):
        """A tool call of the modern era."""
        return await self.post(message(tool, arguments), token, **routed(tool))

    @asynccontextmanager
    async def client(self, token: str, mode: Any) -> AsyncGenerator[Client]:
        async with (
            httpx2.AsyncClient(headers={"Authorization": f"Bearer {token}"}, verify=False) as http,
            Client(streamable_http_client(self.url + "/mcp", http_client=http), mode=mode) as client,
        ):
            yield client


def message(tool: str, arguments: Mapping[str, Any] = {}, method: str = "tools/call") -> dict:
    meta = {
        "io.modelcontextprotocol/protocolVersion": MODERN,
        "io.modelcontextprotocol/clientCapabilities": {},
        "io.modelcontextprotocol/clientInfo": {"name": "test", "version": "1"},
    }
    params = {"name": tool, "arguments": dict(arguments), "_meta": meta}
    return {"jsonrpc": "2.0", "id": 1, "method": method, "params": params}


def routed(tool: str, method: str = "tools/call") -> dict[str, str]:
    """The headers that a modern request repeats its body in."""
    return {"mcp_protocol_version": MODERN, "mcp_method": method, "mcp_name": tool}


@asynccontextmanager
async def den(
    server: MCPServer[Any] | None = None,
    auth: Any = None,
    *,
    config: Mapping[str, Any] | None = None,
    routes: list[BaseRoute] | None = None,
    **options: Any,
) -> AsyncGenerator[Den]:
    calls: list[dict] = []
    app = (server or probe(calls)).streamable_http_app(
        streamable_http_path="/mcp",
        transport_security=TransportSecuritySettings(enable_dns_rebinding_protection=False),
    )
    app.router.routes.extend(routes or [])
    settings: dict[str, Any] = {
        "open_paths": lambda path: path == "/health",
        "own_only": False,
        "body_bytes_max": BODY_BYTES_MAX,
    }
    guarded = Authentication(app, auth, **settings | options)
    async with served(guarded, **(config or {})) as url, httpx2.AsyncClient(timeout=PATIENCE_S, verify=False) as http:
        with anyio.fail_after(PATIENCE_S * 3):
            yield Den(url, http, calls)


def known() -> StaticTokens:
    return StaticTokens(lambda: TOKENS)


# ── who gets in ──


@pytest.mark.parametrize("mode", ["auto", "legacy"])
async def test_who_has_a_token_is_known_to_the_tools_in_both_eras(mode: str):
    async with den(auth=known()) as there, there.client(RUNS, mode) as client:
        said = json.loads((await client.call_tool("meerkat_read", {})).content[0].text)  # type: ignore[union-attr]
        assert said == {
            "principal": "runner",
            "scopes": [READ, RUN],
            "sees": None,
            "user": "runner",
            "secret": "",
        }


@pytest.mark.parametrize("mode", ["auto", "legacy"])
async def test_with_own_sessions_only_each_caller_sees_their_own(mode: str):
    async with den(auth=known(), own_only=True) as there, there.client(RUNS, mode) as client:
        await client.call_tool("meerkat_read", {})
        assert there.calls[0]["sees"] == "runner"


@pytest.mark.parametrize("mode", ["auto", "legacy"])
async def test_without_an_authenticator_everybody_is_local(mode: str):
    async with den(own_only=True) as there, Client(there.url + "/mcp", mode=mode) as client:  # type: ignore[arg-type]
        await client.call_tool("meerkat_delete", {})
        assert there.calls[0]["principal"] is None
        assert there.calls[0]["scopes"] == sorted(SCOPES)
        assert there.calls[0]["sees"] is None


async def test_the_scheme_is_read_in_any_case():
    async with den(auth=known()) as there:
        for scheme in ("Bearer", "bearer", "BEARER", "bEaReR", "Bearer  "):
            headers = {"authorization": f"{scheme} {ALL}"} | routed("meerkat_read")
            assert (await there.post(message("meerkat_read"), None, **headers)).status_code == 200


@pytest.mark.parametrize("method", ["GET", "POST", "DELETE", "PUT"])
async def test_who_sends_no_token_is_told_what_to_bring_and_of_no_error(method: str):
    async with den(auth=known()) as there:
        for path in ("/mcp", "/mcp/", "/", "/anything", "/health/../mcp", "//health", "/health/", "/Health"):
            got = await there.http.request(method, there.url + path)
            assert got.status_code == 401
            assert got.headers["www-authenticate"] == CHALLENGE
            assert got.headers["cache-control"] == "no-store"
            assert "Authorization: Bearer" in got.json()["error_description"]


BAD = [
    "Bearer nobodys-token-at-all",
    f"Bearer {ALL}x",
    f"Bearer {ALL[:-1]}",
    f"Bearer {ALL} {ALL}",
    f"Bearer {ALL},",
    f'Bearer "{ALL}"',
    f"Bearer token={ALL}",
    f"Bearer\t{ALL}",
    f"Bearer{ALL}",
    "Bearer",
    "Bearer é",
    f"Bearer {'a' * 8193}",
]


async def test_a_bad_token_is_refused_and_named_as_such():
    async with den(auth=known()) as there:
        for given in BAD:
            got = await there.http.post(there.url + "/mcp", headers={"authorization": given.encode("latin-1")})
            assert got.status_code == 401, given
            assert 'realm="meerkat", error="invalid_token", error_description="' in got.headers["www-authenticate"]
            assert got.json()["error"] == "invalid_token"
            assert ALL not in got.text + str(got.headers)


async def test_what_is_no_bearer_token_is_no_token():
    async with den(auth=known()) as there:
        for given in (f"Basic {ALL}", ALL, f"Token {ALL}", ""):
            got = await there.http.post(there.url + "/mcp", headers={"authorization": given})
            assert (got.status_code, got.headers["www-authenticate"]) == (401, CHALLENGE)


async def test_a_token_in_the_address_or_the_body_or_a_cookie_does_not_count():
    async with den(auth=known()) as there:
        for path in (f"/mcp?access_token={ALL}", f"/mcp?token={ALL}&authorization=Bearer%20{ALL}"):
            assert (await there.post(message("meerkat_read"), None, path=path)).status_code == 401
        form = f"access_token={ALL}".encode()
        assert (await there.post(form, None, content_type="application/x-www-form-urlencoded")).status_code == 401
        assert (await there.post(message("meerkat_read"), None, cookie=f"token={ALL}")).status_code == 401
        assert there.calls == []


async def test_a_token_has_a_length_that_is_still_looked_at():
    async with den(auth=Everybody()) as there:
        assert (await there.call("meerkat_read", "a" * 8192)).status_code == 200
        assert (await there.call("meerkat_read", "a" * 8193)).status_code == 401


async def test_two_tokens_in_one_request_are_none():
    async with den(auth=known()) as there:
        headers = [("authorization", f"Bearer {ALL}"), ("authorization", f"Bearer {READS}")]
        assert (await there.http.post(there.url + "/mcp", headers=headers)).status_code == 401


async def test_a_refused_token_is_logged_without_the_token(caplog: pytest.LogCaptureFixture):
    async with den(auth=known()) as there:
        with caplog.at_level("INFO", "meerkat_mcp.web"):
            await there.post(b"{}", ALL + "x", path="/mcp?x=" + OTHER)
    assert "A token was refused: POST '/mcp' from 127.0.0.1." in caplog.text
    assert ALL not in caplog.text
    assert OTHER not in caplog.text


async def test_tokens_change_while_requests_go_on(tmp_path: Path):
    path = tmp_path / "tokens"
    path.write_text(f"ada {ALL}\n", encoding="utf-8")

    def write(text: str) -> None:
        (tmp_path / "new").write_text(text, encoding="utf-8")
        (tmp_path / "new").replace(path)

    async with den(auth=token_file(path)) as there:

        async def statuses(token: str) -> set[int]:
            return {(await there.call("meerkat_read", token)).status_code for _ in range(5)}

        assert (await statuses(ALL), await statuses(OTHER)) == ({200}, {401})
        write(f"ada {ALL}\nada {OTHER}\n")
        assert (await statuses(ALL), await statuses(OTHER)) == ({200}, {200})
        write(f"ada {OTHER}\n")
        assert (await statuses(ALL), await statuses(OTHER)) == ({401}, {200})


# ── several ways in, and one that cannot tell ──


async def test_when_it_cannot_be_told_the_answer_is_not_that_the_token_is_bad():
    async with den(auth=Away()) as there:
        got = await there.call("meerkat_read")
        assert got.status_code == 503
        assert got.headers["retry-after"] == "5"
        assert got.json()["error"] == "temporarily_unavailable"
        assert "www-authenticate" not in got.headers
        assert (await there.post(b"", "not a token")).status_code == 401  # that can be told


@pytest.mark.parametrize("ways", [lambda: AnyOf(known(), Away()), lambda: AnyOf(Away(), known())])
async def test_of_several_ways_in_one_is_enough(ways: Callable[[], AnyOf]):
    async with den(auth=ways()) as there:
        assert (await there.call("meerkat_read", READS)).status_code == 200
        assert (await there.call("meerkat_read", "nobodys-token-at-all")).status_code == 503
        got = await there.http.get(there.url + "/mcp")
        assert got.headers["www-authenticate"] == CHALLENGE + ', resource_metadata="https://den.example.com/x"'


async def test_several_ways_in_refuse_together():
    both = AnyOf(known(), StaticTokens(lambda: "bob bobs-very-own-token"))
    assert await both.authenticate("nobodys-token-at-all") is None
    bob = await both.authenticate("bobs-very-own-token")
    assert bob is not None
    assert bob.principal == "bob"
    assert (both.challenge(), list(both.routes())) == ("", [])


# ── open paths ──


async def test_an_open_path_needs_no_token_and_gives_no_rights():
    async def shown(request):
        return JSONResponse([*sorted(caller_of(request).scopes), caller_of(request).sees])

    async with den(auth=known(), routes=[Route("/health", shown)]) as there:
        got = await there.http.get(there.url + "/health")
        assert (got.status_code, got.json()) == (200, [""])
        got = await there.http.get(there.url + "/health", headers={"authorization": f"Bearer {ALL}"})
        assert (got.status_code, got.json()) == (200, [""])


async def test_below_a_root_path_the_same_paths_are_open():
    async def shown(request):
        return JSONResponse({})

    async with den(auth=known(), routes=[Route("/health", shown)], config={"root_path": "/team"}) as there:
        assert (await there.http.get(there.url + "/health")).status_code == 200
        assert (await there.http.get(there.url + "/mcp")).status_code == 401
        assert (await there.call("meerkat_delete", READS)).status_code == 403
        assert (await there.call("meerkat_read", READS)).status_code == 200


async def test_a_path_may_need_a_scope_whatever_is_sent_there():
    async def shown(request):
        return JSONResponse({})

    path_scope = {"/watch": READ}.get
    async with den(auth=known(), routes=[Route("/watch", shown)], path_scope=path_scope) as there:
        got = await there.http.get(there.url + "/watch", headers={"authorization": f"Bearer {CONFIGURES}"})
        assert got.status_code == 403
        assert got.json() == {
            "error": "insufficient_scope",
            "error_description": "This address needs the scope sessions:read.",
            "scope": READ,
        }
        got = await there.http.get(there.url + "/watch", headers={"authorization": f"Bearer {READS}"})
        assert got.status_code == 200


# ── scopes ──


def all_but(scope: str) -> StaticTokens:
    """Somebody who has every scope but one, and what needs none of those."""
    others = [other for other in SCOPES if scope not in granted([other])]
    return StaticTokens(lambda: f"limited {READS} {' '.join(others)}\nada {ALL}")


@pytest.mark.parametrize("era", [MODERN, LEGACY])
@pytest.mark.parametrize("wanted", [READ, RUN, DELETE])
async def test_a_tool_is_refused_to_who_lacks_its_scope(wanted: str, era: str):
    async with den(auth=all_but(wanted)) as there:
        for tool in [tool for tool, scope in TOOL_SCOPES.items() if scope == wanted]:
            headers = routed(tool) if era == MODERN else {"mcp_protocol_version": era, "mcp_session_id": "x"}
            got = await there.post(message(tool), READS, **headers)
            said = f"{tool} needs the scope {wanted}."
            assert got.status_code == 403
            assert got.headers["www-authenticate"] == (
                f'Bearer realm="meerkat", error="insufficient_scope", error_description="{said}", scope="{wanted}"'
            )
            assert got.json() == {"error": "insufficient_scope", "error_description": said, "scope": wanted}
        assert there.calls == []


@pytest.mark.parametrize("mode", ["auto", "legacy"])
async def test_with_its_scope_alone_each_tool_is_called(mode: str):
    for scope in SCOPES:
        tokens = StaticTokens(lambda scope=scope: f"limited {READS} {scope}")
        async with den(auth=tokens) as there, there.client(READS, mode) as client:
            tools = [tool for tool, wanted in TOOL_SCOPES.items() if wanted == scope]
            for tool in tools:
                await client.call_tool(tool, {})
            assert len(there.calls) == len(tools)


@pytest.mark.parametrize(
    ("arguments", "wanted"),
    [
        ({"action": "get"}, READ),
        ({"action": "set"}, CONFIGURE),
        ({"action": "patch"}, CONFIGURE),
        ({"action": "patch", "session_id": "last"}, RUN),
        ({"action": "set", "session_id": None}, CONFIGURE),
    ],
)
async def test_to_change_the_config_needs_more_than_to_look_at_it(arguments: dict, wanted: str):
    async with den(auth=all_but(wanted)) as there:
        got = await there.call("meerkat_config", READS, **arguments)
        assert (got.status_code, got.json()["scope"]) == (403, wanted)
        assert (await there.call("meerkat_config", ALL, **arguments)).status_code == 200
        assert len(there.calls) == 1


async def test_what_needs_no_scope_is_open_to_every_caller():
    tokens = StaticTokens(lambda: f"limited {READS} {DELETE}")
    async with den(auth=tokens) as there:
        for mode in ("auto", "legacy"):
            async with there.client(READS, mode) as client:
                assert len((await client.list_tools()).tools) == len(TOOL_SCOPES)
        got = await there.post(message("x", method="resources/list"), READS, **routed("x", "resources/list"))
        assert got.json()["error_description"] == f"resources/list needs the scope {READ}."


def turned(tool: str) -> dict[str, bytes]:
    """One and the same tool call, written in ways that some parser reads and another does not, or reads differently."""
    plain = json.dumps(message(tool))
    method, name = '"method": "tools/call"', f'"name": "{tool}"'
    escaped = "".join(f"\\u{ord(letter):04x}" for letter in tool)
    return {
        "plain": plain.encode(),
        "unicode escapes": plain.replace(name, f'"\\u006eame": "{escaped}"').encode(),
        "escaped method": plain.replace(method, '"me\\u0074hod": "tools\\/call"').encode(),
        "method twice": plain.replace(method, f'"method": "tools/list", {method}').encode(),
        "name twice": plain.replace(name, f'"name": "meerkat_read", {name}').encode(),
        "params twice": plain.replace('"params"', '"params": {"name": "meerkat_read"}, "params"').encode(),
        "other case beside it": plain.replace(name, f'"Name": "meerkat_read", {name}').encode(),
        "UTF-16": plain.encode("utf-16"),
        "UTF-16 without a mark": plain.encode("utf-16-le"),
        "UTF-32": plain.encode("utf-32"),
        "UTF-8 with a mark": b"\xef\xbb\xbf" + plain.encode(),
        "space around it": b"\r\n\t " + plain.encode() + b" \n",
        "nested deeply": plain.replace('"arguments": {}', f'"arguments": {{"more": {"[" * 400}{"]" * 400}}}').encode(),
        "a lone surrogate": plain.replace('"arguments": {}', '"arguments": {"more": "\\ud800"}').encode(),
        "not a number": plain.replace('"arguments": {}', '"arguments": {"more": NaN}').encode(),
        "a huge number": plain.replace(method, f'"more": 1{"0" * 5000}, {method}').encode(),
        "with a result": plain.replace(method, f'"result": {{}}, {method}').encode(),
        "as a batch": b"[" + plain.encode() + b"]",
        "invalid UTF-8": plain.replace('"arguments": {}', '"arguments": {"more": "\udcff"}').encode(
            "utf-8", "surrogateescape"
        ),
    }


@pytest.mark.parametrize("era", [MODERN, LEGACY])
async def test_no_way_to_write_a_call_goes_around_its_scope(era: str):
    """Whatever the SDK takes as a call of the tool from who may, is 403 for who may not."""
    taken = set()
    async with den(auth=known()) as there:
        for way, body in turned("meerkat_delete").items():
            for token in (ALL, READS):
                headers = routed("meerkat_delete") if era == MODERN else await session(there, token)
                got = await there.post(body, token, **headers)
                if token == ALL and there.calls:
                    taken.add(way)
                elif token == READS and way in taken:
                    assert got.status_code == 403, way
                assert all(call["principal"] == "ada" for call in there.calls), way
                there.calls.clear()
    assert {"plain", "unicode escapes", "method twice", "name twice"} <= taken
    # What makes this test worth its while: on the modern leg more is read as a call than on the other.
    assert ({"UTF-16", "nested deeply", "UTF-8 with a mark"} <= taken) is (era == MODERN)


async def test_a_batch_is_judged_message_by_message():
    """The server takes none, today."""
    async with den(auth=known()) as there:
        for tool, status in (("meerkat_read", 400), ("meerkat_delete", 403)):
            batch = json.dumps([message("meerkat_read"), 7, message(tool)]).encode()
            assert (await there.post(batch, READS, **routed(tool))).status_code == status
            assert (await there.post(batch, ALL, **routed(tool))).status_code == 400
        assert there.calls == []


async def session(there: Den, token: str) -> dict[str, str]:
    """The headers of a session of 2025, just begun."""
    params = {"protocolVersion": LEGACY, "capabilities": {}, "clientInfo": {"name": "test", "version": "1"}}
    got = await there.post({"jsonrpc": "2.0", "id": 0, "method": "initialize", "params": params}, token)
    assert got.status_code == 200
    headers = {"mcp_session_id": got.headers["mcp-session-id"], "mcp_protocol_version": LEGACY}
    done = await there.post({"jsonrpc": "2.0", "method": "notifications/initialized"}, token, **headers)
    assert done.status_code == 202
    return headers


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"null",
        b"[]",
        b"[1, [2], null]",
        b'"tools/call"',
        b"{",
        b'{"method": ["tools/call"], "params": {"name": "meerkat_delete"}}',
        b'{"jsonrpc": "2.0", "id": 1, "method": "tools/call", "params": [1]}',
        b'{"jsonrpc": "2.0", "id": 1, "method": "tools/call", "params": {"name": ["meerkat_delete"]}}',
        b'{"jsonrpc": "2.0", "id": 1, "method": "tools/call", "params": {"name": {"meerkat_delete": 1}}}',
        b"[" * 200_00,
        b"\xff\xfe\xfd",
    ],
    ids=lambda body: body[:60].decode("latin-1"),
)
async def test_what_is_no_message_is_the_servers_to_refuse(body: bytes):
    async with den(auth=known()) as there:
        for headers in ({"mcp_protocol_version": MODERN, "mcp_method": "tools/call"}, {}):
            by_reader, by_all = [await there.post(body, token, **headers) for token in (READS, ALL)]
            assert 400 <= by_reader.status_code < 500
            assert (by_reader.status_code, by_reader.text) == (by_all.status_code, by_all.text)


async def test_an_unknown_tool_needs_the_scope_to_run_and_its_name_is_not_repeated():
    async with den(auth=known()) as there:
        got = await there.call('x", scope="sessions:delete', READS)
        assert got.status_code == 403
        assert got.json() == {
            "error": "insufficient_scope",
            "error_description": f"This tool needs the scope {RUN}.",
            "scope": RUN,
        }
        assert "delete" not in got.headers["www-authenticate"]


async def test_a_large_body_is_passed_on_whole_and_a_larger_one_is_refused():
    async with den(auth=known()) as there:
        fits = await there.call("meerkat_read", READS, more="x" * (BODY_BYTES_MAX - 1000))
        assert fits.status_code == 200
        for body in (json.dumps(message("meerkat_read", {"more": "x" * BODY_BYTES_MAX})).encode(), b" " * 1_000_000):
            assert (await there.post(body, READS, **routed("meerkat_read"))).status_code == 413
        assert len(there.calls) == 1


async def test_a_body_in_many_pieces_is_judged_as_one():
    async def pieces(body: bytes):
        for place in range(0, len(body), 7):
            yield body[place : place + 7]

    async with den(auth=known()) as there:
        for tool, status in (("meerkat_read", 200), ("meerkat_delete", 403)):
            headers = {name.replace("_", "-"): value for name, value in routed(tool).items()}
            headers |= {"accept": "application/json, text/event-stream", "authorization": f"Bearer {READS}"}
            headers |= {"content-type": "application/json"}
            body = pieces(json.dumps(message(tool)).encode())
            got = await there.http.post(there.url + "/mcp", content=body, headers=headers)
            assert got.status_code == status


async def test_a_client_that_goes_away_in_the_middle_of_its_body_harms_nothing():
    async with den(auth=known()) as there:
        port = int(there.url.rsplit(":", 1)[1])
        for _ in range(5):
            async with await anyio.connect_tcp("127.0.0.1", port) as stream:
                head = (
                    f"POST /mcp HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {READS}\r\nContent-Length: 100\r\n\r\n{{"
                )
                await stream.send(head.encode())
        assert (await there.call("meerkat_read", READS)).status_code == 200


# ── sessions of the older era ──


async def test_a_session_of_one_caller_cannot_be_used_by_another():
    async with den(auth=known()) as there:
        headers = await session(there, ALL)
        call = message("meerkat_read")
        assert (await there.post(call, ALL, **headers)).status_code == 200
        for body in (call, {"jsonrpc": "2.0", "method": "notifications/cancelled", "params": {"requestId": 1}}):
            got = await there.post(body, OTHER, **headers)
            assert got.status_code == 404
            assert "Session not found" in got.text
        sent = {name.replace("_", "-"): value for name, value in headers.items()}
        for method in ("GET", "DELETE"):
            asked = {"authorization": f"Bearer {OTHER}", "accept": "application/json, text/event-stream"}
            got = await there.http.request(method, there.url + "/mcp", headers=sent | asked)
            assert got.status_code == 404
        assert (await there.post(call, ALL, **headers)).status_code == 200
        assert [made["principal"] for made in there.calls] == ["ada", "ada"]


async def test_a_session_goes_on_with_the_new_token_of_the_same_caller():
    tokens = StaticTokens(lambda: f"ada {ALL}\nada {OTHER} {READ}")
    async with den(auth=tokens) as there:
        headers = await session(there, ALL)
        assert (await there.post(message("meerkat_read"), OTHER, **headers)).status_code == 200
        assert (await there.post(message("meerkat_delete"), OTHER, **headers)).status_code == 403
        assert there.calls[0]["scopes"] == [READ]


# ── the real surface ──


@pytest.mark.parametrize("mode", ["auto", "legacy"])
async def test_a_host_with_a_token_runs_a_session_over_http(mode: str, tmp_path: Path):
    async with (
        open_realm(choose("den", state_root=tmp_path)) as realm,
        den(build_server(realm), auth=known()) as there,
        there.client(RUNS, mode) as client,
    ):
        said = await client.call_tool("meerkat_run", {"prompt": "[[say hello]]"})
        assert said.structured_content is not None
        assert said.structured_content["text"] == "hello"
        session_id = said.structured_content["session_id"]
        got = await there.call("meerkat_delete", RUNS, session_id=session_id, confirm=session_id)
        assert got.status_code == 403
        read = await client.call_tool("meerkat_read", {"session_id": session_id})
        assert not read.is_error
