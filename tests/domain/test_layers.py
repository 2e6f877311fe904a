"""An operator's file under a realm's document: what holds, and who said it."""

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from meerkat_mcp.domain.config import parse
from meerkat_mcp.domain.layers import layered, origins

FILES = {"command": "files"}
WEB = {"url": "http://web.example/mcp", "headers": {"Authorization": "${WEB_KEY}"}}


@pytest.mark.parametrize(
    ("file", "realm", "both"),
    [
        ({}, {}, {}),
        ({"agent": {"model": "a"}}, {}, {"agent": {"model": "a"}}),
        ({"agent": {"model": "a"}}, {"agent": {"model": "b"}}, {"agent": {"model": "b"}}),
        ({"agent": {"model": "a"}}, {"agent": {"max_steps": 3}}, {"agent": {"model": "a", "max_steps": 3}}),
        ({"agent": {"model": "a", "max_steps": 3}}, {"agent": {"model": None}}, {"agent": {"max_steps": 3}}),
        ({"agent": {"model": "a"}}, {"agent": None}, {}),
        ({"mcp_servers": {"a": FILES}}, {"mcp_servers": {"b": WEB}}, {"mcp_servers": {"a": FILES, "b": WEB}}),
    ],
)
def test_the_realm_says_over_the_file_key_by_key(file: dict[str, Any], realm: dict[str, Any], both: dict[str, Any]):
    assert layered(file, realm) == both


def test_a_server_that_both_name_is_the_realms_alone():
    both = layered({"mcp_servers": {"box": FILES}}, {"mcp_servers": {"box": WEB}})
    assert both == {"mcp_servers": {"box": WEB}}
    assert "box" in parse(both).mcp_servers


def test_neither_document_is_changed_by_that():
    file, realm = {"mcp_servers": {"box": FILES}}, {"mcp_servers": {"web": WEB}}
    layered(file, realm)
    assert (file, realm) == ({"mcp_servers": {"box": FILES}}, {"mcp_servers": {"web": WEB}})


def test_each_key_that_is_set_says_where_it_comes_from():
    file = {"agent": {"model": "a", "max_steps": 3}, "mcp_servers": {"box": FILES, "web": WEB}, "limits": {}}
    realm = {"agent": {"model": "b"}, "mcp_servers": {"web": WEB}, "retention": {"archived_days": 1}}
    assert origins(file, realm) == {
        "agent.max_steps": "file",
        "agent.model": "realm",
        "mcp_servers.box": "file",
        "mcp_servers.web": "realm",
        "retention.archived_days": "realm",
    }


def test_a_section_that_the_realm_gives_its_defaults_back_is_the_realms():
    assert origins({"agent": {"model": "a"}, "retry": {"attempts": 1}}, {"agent": None}) == {
        "agent": "realm",
        "retry.attempts": "file",
    }


SECTIONS = st.fixed_dictionaries(
    {},
    optional={
        "agent": st.fixed_dictionaries({}, optional={"model": st.text("ab", min_size=1), "max_steps": st.just(3)}),
        "limits": st.fixed_dictionaries({}, optional={"wait_seconds": st.integers(0, 9)}),
        "self_hosted": st.dictionaries(st.sampled_from(["x", "y"]), st.just({"base_url": "http://h/v1"})),
        "mcp_servers": st.dictionaries(st.sampled_from(["x", "y"]), st.sampled_from([FILES, WEB])),
    },
)


@given(SECTIONS, SECTIONS)
def test_two_documents_that_stand_by_themselves_go_together(file: dict[str, Any], realm: dict[str, Any]):
    config = parse(layered(file, realm))
    for key in origins(file, realm):
        section, name = key.split(".")
        assert name in (config.model_dump(exclude_unset=True)[section])
