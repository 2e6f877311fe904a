"""The realm's config: merging, checking, and never a secret in it."""

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import BaseModel, ValidationError

from meerkat_mcp.domain.config import (
    CONFIG_BYTES_MAX,
    AgentConfig,
    Config,
    LimitsConfig,
    Versioned,
    explain,
    merge,
    parse,
)
from meerkat_mcp.domain.errors import GenerationConflict, InvalidRequest, LimitExceeded
from meerkat_mcp.domain.settings import Budget

SECTIONS: dict[str, type[BaseModel]] = {"agent": AgentConfig, "budget": Budget, "limits": LimitsConfig}
KEYS = [(section, name) for section, model in SECTIONS.items() for name in model.model_fields]

# ── merging ──

APPENDIX_A: list[tuple[Any, Any, Any]] = [
    ({"a": "b"}, {"a": "c"}, {"a": "c"}),
    ({"a": "b"}, {"b": "c"}, {"a": "b", "b": "c"}),
    ({"a": "b"}, {"a": None}, {}),
    ({"a": "b", "b": "c"}, {"a": None}, {"b": "c"}),
    ({"a": ["b"]}, {"a": "c"}, {"a": "c"}),
    ({"a": "c"}, {"a": ["b"]}, {"a": ["b"]}),
    ({"a": {"b": "c"}}, {"a": {"b": "d", "c": None}}, {"a": {"b": "d"}}),
    ({"a": [{"b": "c"}]}, {"a": [1]}, {"a": [1]}),
    (["a", "b"], ["c", "d"], ["c", "d"]),
    ({"a": "b"}, ["c"], ["c"]),
    ({"a": "foo"}, None, None),
    ({"a": "foo"}, "bar", "bar"),
    ({"e": None}, {"a": 1}, {"e": None, "a": 1}),
    ([1, 2], {"a": "b", "c": None}, {"a": "b"}),
    ({}, {"a": {"bb": {"ccc": None}}}, {"a": {"bb": {}}}),
]

JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=3),
    lambda inner: st.lists(inner, max_size=2) | st.dictionaries(st.sampled_from("abc"), inner, max_size=3),
    max_leaves=8,
)


@pytest.mark.parametrize(("document", "patch", "merged"), APPENDIX_A)
def test_a_patch_does_what_appendix_a_of_rfc_7396_says(document: Any, patch: Any, merged: Any):
    assert merge(document, patch) == merged


@given(JSON, JSON)
def test_a_patch_changes_neither_what_it_patches_nor_itself(document: Any, patch: Any):
    before = repr((document, patch))
    merge(document, patch)
    assert repr((document, patch)) == before


@given(JSON, JSON)
def test_a_patch_applied_twice_is_the_same_as_once(document: Any, patch: Any):
    once = merge(document, patch)
    assert merge(once, patch) == once


@given(JSON)
def test_an_empty_patch_changes_nothing_of_an_object(document: Any):
    document = document if isinstance(document, dict) else {"a": document}
    assert merge(document, {}) == document


# ── what is a config ──


def test_an_empty_document_is_all_defaults():
    assert parse({}) == Config()


def test_absent_keys_have_their_defaults_and_given_ones_count():
    config = parse({"agent": {"model": "demo-1"}, "limits": {"wait_seconds": 3}})
    assert config.agent == AgentConfig(model="demo-1")
    assert config.limits == LimitsConfig(wait_seconds=3)
    assert config.budget == Budget()


@pytest.mark.parametrize("section", SECTIONS)
def test_a_section_that_is_null_is_its_defaults(section: str):
    assert parse({section: None}) == Config()


@pytest.mark.parametrize(
    ("document", "said"),
    [
        ({"agnet": {}}, "unknown key 'agnet' (did you mean 'agent'?)"),
        ({"agent": {"modle": "x"}}, "unknown key 'agent.modle' (did you mean 'model'?)"),
        ({"agent": {"max_step": 3}}, "unknown key 'agent.max_step' (did you mean 'max_steps'?)"),
        ({"limits": {"wait_secs": 3}}, "unknown key 'limits.wait_secs' (did you mean 'wait_seconds'?)"),
        ({"budget": {"max_cost": 3}}, "unknown key 'budget.max_cost' (did you mean 'max_cost_usd'?)"),
        ({"zzz": 1}, "unknown key 'zzz' (known are: agent, budget, limits)"),
    ],
)
def test_an_unknown_key_is_refused_and_the_nearest_one_named(document: dict[str, Any], said: str):
    with pytest.raises(InvalidRequest) as refusal:
        parse(document)
    assert said in refusal.value.message


def test_every_mistake_is_named_up_to_five():
    with pytest.raises(InvalidRequest) as refusal:
        parse({"agent": {f"wrong_{number}": 1 for number in range(7)}})
    assert refusal.value.message.count("unknown key") == 5


@pytest.mark.parametrize(
    "document",
    [
        {"agent": "demo"},
        {"agent": {"max_steps": 0}},
        {"agent": {"max_steps": "many"}},
        {"agent": {"model": ""}},
        {"agent": {"provider_params": []}},
        {"budget": {"max_cost_usd": 0}},
        {"budget": {"max_cost_usd": float("nan")}},
        {"limits": {"wait_seconds": -1}},
        {"limits": {"wait_seconds": float("inf")}},
        {"limits": {"wait_seconds": None}},
        [],
        "agent",
    ],
)
def test_a_bad_value_is_refused(document: Any):
    with pytest.raises(InvalidRequest, match="Invalid config"):
        parse(document)


def nested(levels: int) -> dict[str, Any]:
    value: dict[str, Any] = {}
    for _ in range(levels):
        value = {"in": value}
    return value


@pytest.mark.parametrize("params", [nested(199), nested(260), {"emoji": "\ud83d"}])
def test_what_could_not_be_read_back_from_a_store_is_refused(params: dict[str, Any]):
    with pytest.raises(InvalidRequest, match="nested too deep, or not Unicode"):
        parse({"agent": {"provider_params": params}})


# ── size ──


@pytest.mark.parametrize("letter", ["x", "é", "🐾"])
def test_a_document_may_have_256_kib_in_bytes_not_in_letters(letter: str):
    room = CONFIG_BYTES_MAX - len(Config().model_dump_json())
    fits = letter * (room // len(letter.encode()))
    assert parse({"agent": {"system_prompt": fits}}).agent.system_prompt == fits
    with pytest.raises(LimitExceeded) as refusal:
        parse({"agent": {"system_prompt": fits + letter * 8}})
    assert refusal.value.facts == {"limit": "config_bytes", "maximum": 262_144}


# ── secrets ──

SECRET = "correct-horse-battery-staple"


@pytest.mark.parametrize(
    "params",
    [
        {"api_key": SECRET},
        {"apiKey": SECRET},
        {"openai_api_key": SECRET},
        {"x-api-key": SECRET},
        {"access_token": SECRET},
        {"password": SECRET},
        {"client_secret": SECRET},
        {"headers": {"Authorization": f"Bearer {SECRET}"}},
        {"headers": [{"authorization": SECRET}]},
        {"anything": "sk-" + "abcd1234" * 4},
        {"anything": ["x", {"deep": "call me with sk-ant-" + "abcd1234" * 4}]},
        {"anything": "AIza" + "abcd1234" * 4},
        {"anything": "ghp_" + "abcd1234" * 4},
    ],
)
def test_a_literal_secret_is_refused_wherever_it_is_and_never_repeated(params: dict[str, Any]):
    with pytest.raises(InvalidRequest, match=r"^config\.agent\.provider_params") as refusal:
        parse({"agent": {"provider_params": params}})
    assert "environment variable" in refusal.value.hint
    said = str(refusal.value.as_dict())
    assert SECRET not in said
    assert "abcd1234" not in said


@pytest.mark.parametrize(
    "params",
    [
        {"api_key_env": "OPENAI_API_KEY"},
        {"max_tokens": 5},
        {"token": ""},
        {"password": None},
        {"style": "task-oriented and risk-averse-but-not-too-much"},
        {"tokenizer": "o200k"},
    ],
)
def test_what_only_looks_a_little_like_a_secret_is_fine(params: dict[str, Any]):
    assert parse({"agent": {"provider_params": params}}).agent.provider_params == params


def test_a_secret_in_a_prompt_is_refused_too():
    with pytest.raises(InvalidRequest, match=r"^config\.agent\.system_prompt holds"):
        parse({"agent": {"system_prompt": "Use sk-proj-" + "a1b2" * 8}})


# ── generations ──


def test_a_change_on_the_generation_it_was_made_on_is_the_next_generation():
    first = Versioned(generation=0, document={})
    second = first.changed({"agent": {"max_steps": 3}}, 0)
    assert (second.generation, second.config.agent.max_steps) == (1, 3)
    assert second.changed({}, None).generation == 2
    assert first.generation == 0


@pytest.mark.parametrize("expected", [0, 2, 4, 99])
def test_a_change_on_another_generation_is_a_conflict_that_names_both(expected: int):
    with pytest.raises(GenerationConflict, match=f"at generation 3, not {expected}") as refusal:
        Versioned(generation=3, document={}).changed({}, expected)
    assert refusal.value.facts == {"expected": expected, "current": 3}


def test_no_generation_is_negative():
    with pytest.raises(ValidationError):
        Versioned(generation=-1, document={})


# ── what an explanation says ──


@pytest.mark.parametrize(("section", "name"), KEYS)
@pytest.mark.parametrize("wrong", [["told-in-confidence"], {"told-in-confidence": 1}, "told-in-confidence" * 20_000])
def test_an_explanation_says_where_and_why_never_the_value(section: str, name: str, wrong: Any):
    try:
        Config.model_validate({section: {name: wrong}})
    except ValidationError as exc:
        said = explain(exc, Config)
        assert said.startswith(f"{section}.{name}: ")
        assert "told-in-confidence" not in said
    else:
        assert name in ("model", "provider", "system_prompt", "provider_params")


def test_an_explanation_of_a_wrong_section_does_not_repeat_it():
    with pytest.raises(ValidationError) as wrong:
        Config.model_validate({"agent": "told-in-confidence"})
    assert explain(wrong.value, Config).startswith("agent: Input should be")
    assert "confidence" not in explain(wrong.value, Config)


# ── the keys themselves ──


def test_the_sections_are_those_of_the_document():
    assert {name: field.annotation for name, field in Config.model_fields.items()} == SECTIONS


@pytest.mark.parametrize(("section", "name"), KEYS)
def test_every_key_has_a_default_that_is_within_its_own_range(section: str, name: str):
    default = SECTIONS[section].model_fields[name].get_default(call_default_factory=True)
    assert getattr(parse({section: {name: default}}), section) == SECTIONS[section]()


@pytest.mark.parametrize(("section", "name"), KEYS)
def test_every_key_is_described_in_a_sentence(section: str, name: str):
    description = SECTIONS[section].model_fields[name].description
    assert description, f"{section}.{name} has no description"
    assert description.endswith(".")


@pytest.mark.parametrize(("section", "name"), KEYS)
def test_every_key_can_be_set_and_changes_the_config(section: str, name: str):
    words: dict[str, Any] = {"model": "m", "provider": "demo", "system_prompt": "Hi", "provider_params": {"a": 1}}
    value = words.get(name, 7 if "retries" in name or "steps" in name else 100)
    assert getattr(getattr(parse({section: {name: value}}), section), name) == value
    assert parse({section: {name: value}}) != Config()
