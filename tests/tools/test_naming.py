"""The names by which models call tools."""

import re

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from meerkat_mcp.tools.naming import NAME_CHARS_MAX, tool_name

servers = st.from_regex(r"[A-Za-z0-9][A-Za-z0-9_-]{0,31}", fullmatch=True)
tools = st.one_of(st.text(max_size=200), st.from_regex(r"[A-Za-z0-9_-]{1,80}", fullmatch=True))


@given(servers, tools)
def test_every_name_is_safe_on_every_wire_and_always_the_same(server: str, tool: str):
    name = tool_name(server, tool)
    assert re.fullmatch(r"[A-Za-z_][A-Za-z0-9_-]{0,63}", name)
    assert name == tool_name(server, tool)


@given(st.lists(st.tuples(servers, tools), unique=True, max_size=30))
@example([("a", "b__c"), ("a__b", "c")])
@example([("a_", "b"), ("a", "_b")])
@example([("a", "b c"), ("a", "b_c"), ("a", "b.c"), ("a", tool_name("a", "b c").removeprefix("a__"))])
@example([("1a", "b"), ("_1a".strip("_"), "b.")])
@example([("a", "x" * 100), ("a", "x" * 101)])
def test_no_two_tools_have_one_name(pairs: list[tuple[str, str]]):
    assert len({tool_name(*pair) for pair in pairs}) == len(pairs)


@given(st.from_regex(r"[a-z][a-z0-9-]{0,20}", fullmatch=True), st.from_regex(r"[a-z][a-z-]{0,30}", fullmatch=True))
def test_an_ordinary_name_is_kept_as_it_is(server: str, tool: str):
    assert tool_name(server, tool) == f"{server}__{tool}"


@pytest.mark.parametrize(
    ("server", "tool", "shown"),
    [
        ("files", "read_file", "files__read_file"),
        ("files", "read file", r"files__read_file_[0-9a-f]{10}"),
        ("files", "übergröße", r"files___bergr__e_[0-9a-f]{10}"),
        ("files", "", r"files___[0-9a-f]{10}"),
        ("7zip", "pack", r"_7zip__pack_[0-9a-f]{10}"),
        ("files", "a" * 100, rf"files__{'a' * 46}_[0-9a-f]{{10}}"),
        ("files", "a" * 57, "files__" + "a" * 57),
    ],
)
def test_a_changed_name_can_still_be_read(server: str, tool: str, shown: str):
    name = tool_name(server, tool)
    assert re.fullmatch(shown, name)
    assert len(name) <= NAME_CHARS_MAX
