"""What a realm may be called, and that it keeps its backend."""

import re
from typing import get_args

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from meerkat_mcp.domain.errors import BackendMismatch, InvalidRequest
from meerkat_mcp.domain.realm import BACKENDS, Backend, Manifest, check_pin, checked_backend, checked_id

LETTERS = "ABCabc019_-"
UUID = "0190a5c8-7b1e-7c3d-9f00-0123456789ab"


@pytest.mark.parametrize("text", ["a", "0", "team-alpha", "Team_1", "realm-" + UUID, "ws-0123", "x" * 64, "a--", "1_"])
def test_a_realm_id_is_1_to_64_letters_digits_dashes_and_underscores(text: str):
    assert checked_id(text) == text


@pytest.mark.parametrize(
    "text",
    [
        *("", "-a", "_a", "x" * 65, "a b", "a/b", "a\\b", "..", "a.b", "a:b", "~1", " a", "a "),
        *("a\n", "\na", "a\x00", "é", "\N{FULLWIDTH LATIN SMALL LETTER A}", "\N{ARABIC-INDIC DIGIT THREE}"),
    ],
)
def test_anything_else_is_refused_with_what_would_do(text: str):
    with pytest.raises(InvalidRequest, match="is no realm id") as refusal:
        checked_id(text)
    assert "1 to 64" in refusal.value.hint


@pytest.mark.parametrize("text", [UUID, UUID.upper(), UUID.replace("-", "")])
def test_a_uuid_is_a_sessions_name_not_a_realms(text: str):
    with pytest.raises(InvalidRequest, match="is a UUID") as refusal:
        checked_id(text)
    assert "team-alpha" in refusal.value.hint
    assert checked_id(text, "instance") == text


def test_a_refusal_says_what_kind_of_id_it_is_and_repeats_only_the_beginning():
    with pytest.raises(InvalidRequest, match="is no instance id") as refusal:
        checked_id("!" * 10_000, "instance")
    assert len(refusal.value.message) < 120


@given(st.text(LETTERS, max_size=70) | st.text(max_size=5))
def test_an_id_is_taken_as_it_is_or_not_at_all(text: str):
    fits = re.match(r"\A[A-Za-z0-9][A-Za-z0-9_-]{0,63}\Z", text) is not None
    if fits:
        assert checked_id(text) == text
    else:
        with pytest.raises(InvalidRequest):
            checked_id(text)


@pytest.mark.parametrize("name", BACKENDS)
def test_a_backend_is_known_by_its_name(name: str):
    assert checked_backend(name) == name


@pytest.mark.parametrize("name", ["redb"])
def test_a_backend_of_elsewhere_is_refused_with_what_to_use_instead(name: str):
    with pytest.raises(InvalidRequest, match=f"no backend '{name}'") as refusal:
        checked_backend(name)
    assert name in refusal.value.hint
    assert "use sqlite" in refusal.value.hint


@pytest.mark.parametrize("name", ["", "SQLite", "sqlite3", "mysql"])
def test_an_unknown_backend_is_refused_with_the_ones_there_are(name: str):
    with pytest.raises(InvalidRequest) as refusal:
        checked_backend(name)
    assert refusal.value.hint == "Choose one of: sqlite, postgres, jsonl, memory."


@pytest.mark.parametrize("pinned", get_args(Backend))
@pytest.mark.parametrize("asked", [*get_args(Backend), None])
def test_a_realm_keeps_its_backend(pinned: Backend, asked: Backend | None):
    manifest = Manifest(realm_id="team", backend=pinned, created_ms=1)
    if asked in (pinned, None):
        check_pin(manifest, asked)
        return
    with pytest.raises(BackendMismatch, match=f"'team' is pinned to {pinned}, not {asked}") as refusal:
        check_pin(manifest, asked)
    assert refusal.value.facts == {"pinned": pinned, "asked": asked}


def test_a_manifest_survives_being_stored_and_knows_no_other_fields():
    manifest = Manifest(realm_id="team", backend="sqlite", created_ms=1)
    assert Manifest.model_validate_json(manifest.model_dump_json()) == manifest
    with pytest.raises(ValidationError):
        Manifest.model_validate(manifest.model_dump() | {"colour": "red"})
