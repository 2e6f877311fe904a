"""Tool servers: one way to reach each, and secrets that are named, never written down."""

from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import TypeAdapter, ValidationError

from meerkat_mcp.domain.errors import InvalidRequest
from meerkat_mcp.domain.servers import REFERENCE, ServerName, ToolServer

LOCAL = ToolServer(
    type="stdio",
    command="${BIN}/files",
    args=("--root", "${HOME}/notes", "${MODE:-fast} and ${MODE:-slow}"),
    env={"GITHUB_TOKEN": "${GITHUB_TOKEN}", "PLAIN": "as it is"},
    cwd="${WORK:-/srv}",
    required=True,
    connect_timeout_s=3,
)
REMOTE = ToolServer(
    type="http",
    url="https://${HOST:-tools.example}/mcp",
    headers={"Authorization": "Bearer ${TOKEN}", "X-Team": "a"},
    call_timeout_s=9,
)


def known(**variables: str) -> Callable[[str], str | None]:
    return variables.get


# ── how it is reached ──


@pytest.mark.parametrize(
    ("given_", "said"),
    [
        ({}, "give either command or url"),
        ({"command": "files", "url": "https://tools.example"}, "give either command or url"),
        ({"type": "stdio"}, "give either command or url"),
        ({"args": ["--root"]}, "give either command or url"),
        ({"type": "http", "command": "files"}, "type stdio goes with command, http with url"),
        ({"type": "stdio", "url": "https://tools.example"}, "type stdio goes with command, http with url"),
        ({"url": "https://tools.example", "args": ["x"]}, "args, env and cwd go with command"),
        ({"url": "https://tools.example", "env": {"A": "b"}}, "args, env and cwd go with command"),
        ({"url": "https://tools.example", "cwd": "/srv"}, "args, env and cwd go with command"),
        ({"command": "files", "headers": {"X-Team": "a"}}, "headers go with url"),
    ],
)
def test_there_is_one_way_to_reach_a_server(given_: dict[str, Any], said: str):
    with pytest.raises(ValidationError, match=f"Value error, {said}"):
        ToolServer.model_validate(given_)


@pytest.mark.parametrize("type_", [None, "stdio"])
def test_a_command_is_enough_and_its_type_may_be_said(type_: Any):
    assert ToolServer(type=type_, command="files").command == "files"


@pytest.mark.parametrize("type_", [None, "http"])
@pytest.mark.parametrize("url", ["http://localhost:1", "https://tools.example/mcp", "${TOOLS_URL}"])
def test_a_url_is_enough_and_its_type_may_be_said(type_: Any, url: str):
    assert ToolServer(type=type_, url=url).url == url


@pytest.mark.parametrize(
    "wrong",
    [
        {"type": "sse", "url": "https://tools.example"},
        {"url": "ftp://tools.example"},
        {"url": "tools.example"},
        {"url": "file:///etc/passwd"},
        {"url": "$TOOLS_URL"},
        {"url": ""},
        {"url": "https://" + "x" * 4096},
        {"command": ""},
        {"command": "x" * 4097},
        {"command": "files", "cwd": ""},
        {"command": "files", "args": ["x" * 8193]},
        {"command": "files", "args": ["x"] * 257},
        {"command": "files", "args": "--root"},
        {"command": "files", "env": {"A": 1}},
        {"command": "files", "env": {"A": "x" * 8193}},
        {"command": "files", "env": {f"A{number}": "" for number in range(257)}},
        {"url": "https://tools.example", "headers": {"A": "x" * 8193}},
        {"url": "https://tools.example", "headers": {f"A{number}": "" for number in range(65)}},
        {"command": "files", "connect_timeout_s": 0},
        {"command": "files", "connect_timeout_s": 601},
        {"command": "files", "connect_timeout_s": float("nan")},
        {"command": "files", "call_timeout_s": 0},
        {"command": "files", "call_timeout_s": 86_401},
        {"command": "files", "shell": True},
    ],
)
def test_a_definition_that_cannot_be_is_refused(wrong: dict[str, Any]):
    with pytest.raises(ValidationError):
        ToolServer.model_validate(wrong)


@pytest.mark.parametrize("name", ["a", "7", "files", "My-Server_2", "x" * 32])
def test_a_servers_name_is_a_short_word(name: str):
    assert TypeAdapter[str](ServerName).validate_python(name) == name


@pytest.mark.parametrize("name", ["", "-a", "_a", "a b", "a.b", "a/b", "é", "a\n", "x" * 33])
def test_anything_else_is_no_name_of_a_server(name: str):
    with pytest.raises(ValidationError):
        TypeAdapter[str](ServerName).validate_python(name)


@pytest.mark.parametrize("server", [LOCAL, REMOTE, ToolServer(command="files"), ToolServer(url="https://a")])
def test_a_definition_survives_being_stored(server: ToolServer):
    assert ToolServer.model_validate_json(server.model_dump_json()) == server
    assert ToolServer.model_validate_json(server.model_dump_json(exclude_none=True)) == server
    assert ToolServer.model_validate(server.model_dump(exclude_defaults=True)) == server


def test_every_field_is_described_in_a_sentence():
    assert all((field.description or "").endswith(".") for field in ToolServer.model_fields.values())


# ── what it takes from the environment ──


def test_it_says_which_variables_it_wants_wherever_they_stand():
    assert LOCAL.references == {"BIN", "HOME", "MODE", "GITHUB_TOKEN", "WORK"}
    assert REMOTE.references == {"HOST", "TOKEN"}
    assert ToolServer(command="files", args=("$HOME", "${}", "${1}", "{HOME}", "$(HOME)")).references == frozenset()


def test_what_is_set_takes_the_place_of_its_reference():
    local = LOCAL.resolved(known(BIN="/usr/bin", HOME="/srv/a", MODE="safe", GITHUB_TOKEN="t", WORK="/work"))
    assert (local.command, local.args) == ("/usr/bin/files", ("--root", "/srv/a/notes", "safe and safe"))
    assert (local.env, local.cwd) == ({"GITHUB_TOKEN": "t", "PLAIN": "as it is"}, "/work")
    remote = REMOTE.resolved(known(HOST="here", TOKEN="s3cret"))
    assert remote.url == "https://here/mcp"
    assert remote.headers == {"Authorization": "Bearer s3cret", "X-Team": "a"}


def test_what_is_not_set_has_its_default_and_what_is_set_to_nothing_is_nothing():
    assert REMOTE.resolved(known(TOKEN="t")).url == "https://tools.example/mcp"
    assert REMOTE.resolved(known(TOKEN="t", HOST="")).url == "https:///mcp"
    local = LOCAL.resolved(known(BIN="b", HOME="h", GITHUB_TOKEN=""))
    assert (local.cwd, local.args[2], local.env["GITHUB_TOKEN"]) == ("/srv", "fast and slow", "")
    assert ToolServer(command="files", args=("${A:-}",)).resolved(known()).args == ("",)
    assert ToolServer(command="files", args=("${A:-${B}",)).resolved(known()).args == ("${B",)


@pytest.mark.parametrize(
    ("server", "variable"),
    [
        (ToolServer(command="${MISSING}"), "MISSING"),
        (ToolServer(command="files", args=("a", "${MISSING}")), "MISSING"),
        (ToolServer(command="files", env={"A": "${MISSING}"}), "MISSING"),
        (ToolServer(command="files", cwd="${MISSING}"), "MISSING"),
        (ToolServer(url="${MISSING}"), "MISSING"),
        (ToolServer(url="https://a", headers={"A": "Bearer ${MISSING}"}), "MISSING"),
    ],
)
def test_what_is_not_set_and_has_no_default_is_named(server: ToolServer, variable: str):
    with pytest.raises(InvalidRequest, match=rf"^The environment variable {variable} is not set\.$") as refusal:
        server.resolved(known(OTHER="x"))
    assert "tool server" in refusal.value.hint


def test_a_value_is_taken_as_it_is_and_not_looked_into():
    resolved = ToolServer(command="files", args=("${A}",)).resolved(known(A=r"${B} \1 \g<0>", B="never"))
    assert resolved.args == (r"${B} \1 \g<0>",)


def test_resolving_leaves_the_definition_as_it_was_and_all_else_alone():
    before = LOCAL.model_dump()
    resolved = LOCAL.resolved(known(BIN="b", HOME="h", GITHUB_TOKEN="t"))
    assert LOCAL.model_dump() == before
    same = ("type", "url", "headers", "required", "connect_timeout_s", "call_timeout_s")
    assert [getattr(resolved, name) for name in same] == [getattr(LOCAL, name) for name in same]


@given(st.dictionaries(st.sampled_from(["BIN", "HOME", "MODE", "GITHUB_TOKEN", "WORK"]), st.text(max_size=5)))
def test_it_is_resolved_just_when_all_that_has_no_default_is_set(variables: dict[str, str]):
    if {"BIN", "HOME", "GITHUB_TOKEN"} <= set(variables):
        resolved = LOCAL.resolved(variables.get)
        assert resolved.command == f"{variables['BIN']}/files"
        assert resolved.cwd == variables.get("WORK", "/srv")
    else:
        with pytest.raises(InvalidRequest, match="is not set"):
            LOCAL.resolved(variables.get)


def test_a_definition_without_references_is_used_as_it_is():
    plain = ToolServer(command="files", args=("--root", "/srv"), env={"A": "b"})
    assert plain.references == frozenset()
    assert plain.resolved(known()) == plain


@pytest.mark.parametrize("text", ["$A", "${A", "${1A}", "${A-B}", "${ A }", "${A:+x}", "%A%"])
def test_only_this_form_is_a_reference(text: str):
    assert REFERENCE.search(text) is None
    assert ToolServer(command="files", args=(text,)).resolved(known(A="x")).args == (text,)
