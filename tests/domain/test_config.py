"""The realm's config: merging, checking, and never a secret in it."""

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import BaseModel, ValidationError

from meerkat_mcp.domain.config import (
    CONFIG_BYTES_MAX,
    AgentConfig,
    CompactionConfig,
    Config,
    GeminiConfig,
    LimitsConfig,
    PermissionsConfig,
    ProviderConfig,
    ProvidersConfig,
    RetentionConfig,
    RetryConfig,
    SelfHostedConfig,
    Versioned,
    explain,
    merge,
    parse,
)
from meerkat_mcp.domain.errors import GenerationConflict, InvalidRequest, LimitExceeded
from meerkat_mcp.domain.servers import ServerName, ToolServer
from meerkat_mcp.domain.settings import Budget, Settings

SECTIONS: dict[str, type[BaseModel]] = {
    "agent": AgentConfig,
    "budget": Budget,
    "limits": LimitsConfig,
    "permissions": PermissionsConfig,
    "providers": ProvidersConfig,
    "compaction": CompactionConfig,
    "retry": RetryConfig,
    "retention": RetentionConfig,
}
NAMED: dict[str, type[BaseModel]] = {"self_hosted": SelfHostedConfig, "mcp_servers": ToolServer}
"""Sections whose keys are names somebody chose."""

ONE: dict[str, dict[str, Any]] = {"self_hosted": {"base_url": "http://here/v1"}, "mcp_servers": {"command": "files"}}
"""The least that an entry of such a section has to say."""

SET: dict[str, Any] = {
    "agent.model": "m",
    "agent.provider": "demo",
    "agent.system_prompt": "Hi",
    "agent.max_tokens_per_turn": 100,
    "agent.max_steps": 7,
    "agent.provider_params": {"a": 1},
    "agent.structured_output_retries": 7,
    "agent.mcp_servers": ["files", "web"],
    "agent.permission_mode": "readonly",
    "budget.max_tokens": 100,
    "budget.max_duration_s": 1.5,
    "budget.max_tool_calls": 0,
    "budget.max_cost_usd": 0.5,
    "limits.wait_seconds": 3,
    "limits.max_concurrent_turns": 7,
    "limits.max_queued_prompts": 0,
    "limits.max_prompt_chars": 100,
    "limits.max_tool_result_chars": 100,
    "limits.delta_interval_ms": 7,
    "limits.stream_idle_s": 60,
    "permissions.ceiling": "ask",
    "permissions.caller_may_approve": True,
    **{
        f"providers.{vendor}.{name}": value
        for vendor in ("anthropic", "openai", "gemini")
        for name, value in {
            "connect_timeout_s": 0.5,
            "idle_timeout_s": 7,
            "call_timeout_s": 7,
            "base_url": "https://proxy.example/v1?a=b",
            "api_key_env": "OUR_KEY",
        }.items()
    },
    "providers.gemini.api_version": "v1beta",
    "compaction.auto": False,
    "compaction.threshold": 0.5,
    "compaction.keep_steps": 7,
    "compaction.model": "m",
    "compaction.provider": "demo",
    "retry.attempts": 7,
    "retry.base_delay_s": 0,
    "retry.max_delay_s": 0,
    "retention.archived_days": 90,
    "retention.delta_days": 0,
    "retention.max_event_bytes": 10_000,
    "retention.idempotency_key_days": 1,
    "self_hosted.one.connect_timeout_s": 0.5,
    "self_hosted.one.idle_timeout_s": 7,
    "self_hosted.one.call_timeout_s": 7,
    "self_hosted.one.base_url": "http://localhost:11434/v1",
    "self_hosted.one.api_key_env": "_KEY2",
    "self_hosted.one.models": ["llama", "qwen"],
    "self_hosted.one.context_tokens": 1,
    "self_hosted.one.structured_output": "instruction",
}
"""Every key, with a value that is not its default. What a tool server has is tried in test_servers.py."""


def in_sections() -> dict[str, Any]:
    """Every key with its field."""
    parts: dict[str, type[BaseModel]] = {name: model for name, model in SECTIONS.items() if name != "providers"}
    parts |= {"providers.anthropic": ProviderConfig, "providers.openai": ProviderConfig}
    parts |= {"providers.gemini": GeminiConfig, "self_hosted.one": SelfHostedConfig}
    return {f"{part}.{name}": field for part, model in parts.items() for name, field in model.model_fields.items()}


FIELDS = in_sections()


def document(key: str, value: Any) -> dict[str, Any]:
    """The smallest document with this at that key."""
    section, *path, name = key.split(".")
    inner: dict[str, Any] = ONE.get(section, {}) | {name: value}
    for part in reversed(path):
        inner = {part: inner}
    return {section: inner}


def at(config: Config, key: str) -> Any:
    value: Any = config
    for part in key.split("."):
        value = value[part] if isinstance(value, dict) else getattr(value, part)
    return value


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


@pytest.mark.parametrize("section", [*SECTIONS, *NAMED])
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
        ({"permissions": {"celing": "ask"}}, "unknown key 'permissions.celing' (did you mean 'ceiling'?)"),
        ({"compaction": {"treshold": 1}}, "unknown key 'compaction.treshold' (did you mean 'threshold'?)"),
        ({"retry": {"atempts": 1}}, "unknown key 'retry.atempts' (did you mean 'attempts'?)"),
        ({"providers": {"antropic": {}}}, "unknown key 'providers.antropic' (did you mean 'anthropic'?)"),
        (
            {"providers": {"openai": {"zzz": "v1"}}},
            "unknown key 'providers.openai.zzz' (known are: api_key_env, base_url, call_timeout_s, "
            "connect_timeout_s, idle_timeout_s)",
        ),
        (
            {"providers": {"gemini": {"api_versio": "v1"}}},
            "unknown key 'providers.gemini.api_versio' (did you mean 'api_version'?)",
        ),
        (
            {"self_hosted": {"ollama": {"base_urll": "http://here/v1"}}},
            "unknown key 'self_hosted.ollama.base_urll' (did you mean 'base_url'?)",
        ),
        (
            {"self_hosted": {"7": {"model": "m", "base_url": "http://here/v1"}}},
            "unknown key 'self_hosted.7.model' (did you mean 'models'?)",
        ),
        (
            {"mcp_servers": {"files": {"comand": "x"}}},
            "unknown key 'mcp_servers.files.comand' (did you mean 'command'?)",
        ),
        (
            {"mcp_servers": {"args": {"header": {}}}},
            "unknown key 'mcp_servers.args.header' (did you mean 'headers'?)",
        ),
        (
            {"zzz": 1},
            "unknown key 'zzz' (known are: agent, budget, compaction, limits, mcp_servers, permissions, providers, "
            "retention, retry, self_hosted)",
        ),
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
        {"limits": {"stream_idle_s": 59}},
        {"permissions": {"caller_may_approve": None}},
        {"permissions": {"ceiling": None}},
        {"providers": {"openai": None}},
        {"providers": []},
        {"self_hosted": []},
        {"self_hosted": {"ollama": None}},
        {"mcp_servers": {"files": None}},
        {"retry": {"attempts": 1.5}},
        [],
        "agent",
    ],
)
def test_a_bad_value_is_refused(document: Any):
    with pytest.raises(InvalidRequest, match="Invalid config"):
        parse(document)


LIMITS: list[tuple[str, Any, Any, str]] = [
    ("limits.wait_seconds", 3600, 3601, "less than or equal to 3600"),
    ("compaction.threshold", 0.051, 0.05, "greater than 0.05"),
    ("compaction.threshold", 1, 1.01, "less than or equal to 1"),
    ("compaction.keep_steps", 1, 0, "greater than or equal to 1"),
    ("compaction.keep_steps", 100, 101, "less than or equal to 100"),
    ("compaction.model", "m" * 200, "m" * 201, "at most 200 characters"),
    ("compaction.provider", "p" * 64, "p" * 65, "at most 64 characters"),
    ("compaction.model", "m", "", "at least 1 character"),
    ("retry.attempts", 1, 0, "greater than or equal to 1"),
    ("retry.attempts", 20, 21, "less than or equal to 20"),
    ("retry.base_delay_s", 0, -0.1, "greater than or equal to 0"),
    ("retry.base_delay_s", 60, 61, "less than or equal to 60"),
    ("retry.max_delay_s", 3600, 3601, "less than or equal to 3600"),
    ("providers.openai.connect_timeout_s", 600, 0, "greater than 0"),
    ("providers.openai.connect_timeout_s", 600, 601, "less than or equal to 600"),
    ("providers.anthropic.idle_timeout_s", 86_400, 86_401, "less than or equal to 86400"),
    ("providers.gemini.call_timeout_s", 86_400, float("nan"), "less than or equal to 86400"),
    ("providers.gemini.api_version", "v1alpha", "1", "should match pattern"),
    ("providers.gemini.api_version", "v1", "v1/../v2", "should match pattern"),
    ("providers.openai.base_url", "https://proxy.example", "proxy.example", "should match pattern"),
    ("providers.openai.base_url", "http://proxy.example", "ftp://proxy.example", "should match pattern"),
    ("providers.openai.base_url", "https://proxy.example", "https://proxy.example/a b", "should match pattern"),
    ("providers.openai.base_url", "https://" + "x" * 1992, "https://" + "x" * 1993, "at most 2000 characters"),
    ("providers.openai.api_key_env", "KEY", "KEY-1", "should match pattern"),
    ("providers.openai.api_key_env", "KEY_1", "1_KEY", "should match pattern"),
    ("providers.openai.api_key_env", "KEY", "${KEY}", "should match pattern"),
    ("self_hosted.one.base_url", "http://localhost:1/v1", "localhost:1/v1", "should match pattern"),
    ("self_hosted.one.base_url", "http://localhost:1/v1", None, "valid string"),
    ("self_hosted.one.context_tokens", 1, 0, "greater than or equal to 1"),
    ("self_hosted.one.models", ["m"] * 1000, ["m"] * 1001, "at most 1000 items"),
    ("self_hosted.one.structured_output", "native", "maybe", "'native' or 'instruction'"),
    ("permissions.ceiling", "readonly", "nothing", "'readonly', 'ask' or 'auto'"),
    ("agent.permission_mode", "ask", "always", "'readonly', 'ask' or 'auto'"),
    ("agent.mcp_servers", [], ["a"] * 33, "at most 32 items"),
]


@pytest.mark.parametrize(("key", "fits", "wrong", "said"), LIMITS)
def test_a_key_has_its_limits_and_says_which(key: str, fits: Any, wrong: Any, said: str):
    kept = at(parse(document(key, fits)), key)
    assert kept == (tuple(fits) if isinstance(fits, list) else fits)
    with pytest.raises(InvalidRequest, match=rf"^Invalid config: {key}: .*{said}.*\.$"):
        parse(document(key, wrong))


def test_an_entry_of_a_list_is_named_by_its_place():
    with pytest.raises(InvalidRequest, match=r"^Invalid config: self_hosted\.one\.models\.1: .*at least 1 character"):
        parse(document("self_hosted.one.models", ["m", ""]))


@pytest.mark.parametrize("section", NAMED)
@pytest.mark.parametrize("name", ["", "a b", "_a", "x" * 33, "a.b"])
def test_a_servers_name_is_a_short_word(section: str, name: str):
    with pytest.raises(InvalidRequest, match=rf"^Invalid config: {section}\.{name}\.\[key\]: .*should match pattern"):
        parse({section: {name: ONE[section]}})


@pytest.mark.parametrize("section", NAMED)
def test_there_are_at_most_32_servers_of_a_kind(section: str):
    servers = {f"server-{number}": ONE[section] for number in range(32)}
    assert len(at(parse({section: servers}), section)) == 32
    with pytest.raises(InvalidRequest, match=f"^Invalid config: {section}: .*at most 32 items"):
        parse({section: servers | {"one-more": ONE[section]}})


@pytest.mark.parametrize(
    ("server", "said"),
    [
        ({}, "give either command or url"),
        ({"command": "a", "url": "https://b"}, "give either command or url"),
        ({"type": "http", "command": "a"}, "type stdio goes with command, http with url"),
        ({"command": "a", "headers": {"X-Team": "a"}}, "headers go with url"),
    ],
)
def test_a_tool_server_that_cannot_be_is_named(server: dict[str, Any], said: str):
    with pytest.raises(InvalidRequest) as refusal:
        parse({"mcp_servers": {"files": server}})
    assert refusal.value.message == f"Invalid config: mcp_servers.files: {said}."


def test_a_self_hosted_server_needs_its_address():
    with pytest.raises(InvalidRequest, match=r"^Invalid config: self_hosted\.one\.base_url: Field required\.$"):
        parse({"self_hosted": {"one": {}}})


def test_the_sessions_tool_servers_are_known_ones():
    servers = {"files": {"command": "files"}, "web": {"url": "https://tools.example/mcp"}}
    config = parse({"agent": {"mcp_servers": ["web", "files"]}, "mcp_servers": servers})
    assert config.agent.mcp_servers == ("web", "files")
    assert set(config.mcp_servers) == {"files", "web"}
    with pytest.raises(InvalidRequest) as refusal:
        parse({"agent": {"mcp_servers": ["a", "web", "b"]}, "mcp_servers": servers})
    assert refusal.value.message == "Invalid config: agent.mcp_servers names what mcp_servers has not: a, b."


def test_a_server_that_sessions_use_is_not_taken_away():
    known = {"agent": {"mcp_servers": ["files"]}, "mcp_servers": {"files": {"command": "files"}}}
    parse(known)
    with pytest.raises(InvalidRequest, match="names what mcp_servers has not: files"):
        parse(merge(known, {"mcp_servers": {"files": None}}))


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


def tool_server(**fields: Any) -> dict[str, Any]:
    return {
        "mcp_servers": {
            "it": ({"url": "https://tools.example"} if "headers" in fields else ONE["mcp_servers"]) | fields
        }
    }


@pytest.mark.parametrize(
    ("fields", "path"),
    [
        ({"headers": {"Authorization": f"Bearer {SECRET}"}}, "headers.Authorization"),
        ({"headers": {"authorization": SECRET}}, "headers.authorization"),
        ({"headers": {"X-Api-Key": SECRET}}, "headers.X-Api-Key"),
        ({"headers": {"Authorization": f"Bearer ${{TOKEN:-{SECRET}}}"}}, "headers.Authorization"),
        ({"headers": {"Authorization": f"Bearer ${{TOKEN}}${{OTHER:-{SECRET}}}"}}, "headers.Authorization"),
        ({"headers": {"Authorization": f"${{TOKEN}}{SECRET}"}}, "headers.Authorization"),
        ({"headers": {"Authorization": f"{SECRET} ${{TOKEN}}"}}, "headers.Authorization"),
        ({"headers": {"Authorization": f"Bearer {SECRET} ${{TOKEN}}"}}, "headers.Authorization"),
        ({"headers": {"Authorization": "Bearer $TOKEN"}}, "headers.Authorization"),
        ({"env": {"GITHUB_TOKEN": SECRET}}, "env.GITHUB_TOKEN"),
        ({"env": {"OPENAI_API_KEY": SECRET}}, "env.OPENAI_API_KEY"),
        ({"env": {"DB_PASSWORD": SECRET}}, "env.DB_PASSWORD"),
        ({"env": {"token": SECRET}}, "env.token"),
    ],
)
def test_a_tool_servers_secret_is_not_written_down(fields: dict[str, Any], path: str):
    with pytest.raises(InvalidRequest) as refusal:
        parse(tool_server(**fields))
    assert refusal.value.message == f"config.mcp_servers.it.{path} would put a secret into the store."
    assert "${NAME}" in refusal.value.hint
    assert SECRET not in str(refusal.value.as_dict())


@pytest.mark.parametrize(
    "fields",
    [
        {"args": ["--key", "sk-" + "abcd1234" * 4]},
        {"env": {"WHATEVER": "ghp_" + "abcd1234" * 4}},
        {"headers": {"X-Whatever": "Bearer sk-" + "abcd1234" * 4}},
        {"headers": {"X-Whatever": "${KEY:-sk-" + "abcd1234" * 4 + "}"}},
    ],
)
def test_what_looks_like_a_key_is_refused_wherever_it_stands(fields: dict[str, Any]):
    with pytest.raises(InvalidRequest, match=r"^config\.mcp_servers\.it\..* holds what looks like a key\.$") as refusal:
        parse(tool_server(**fields))
    assert "abcd1234" not in str(refusal.value.as_dict())


@pytest.mark.parametrize(
    "fields",
    [
        {"headers": {"Authorization": "Bearer ${TOKEN}"}},
        {"headers": {"Authorization": "${AUTHORIZATION}"}},
        {"headers": {"Authorization": "Basic  ${USER}${PASSWORD}"}},
        {"headers": {"X-Api-Key": "${KEY:-}"}},
        {"headers": {"X-Team": "blue"}},
        {"env": {"GITHUB_TOKEN": "${GITHUB_TOKEN}"}},
        {"env": {"GITHUB_TOKEN": ""}},
        {"env": {"LANG": "C", "TOKENIZER": "o200k"}},
        {"args": ["--token", "${TOKEN}"]},
    ],
)
def test_a_secret_that_is_only_named_is_fine(fields: dict[str, Any]):
    server = parse(tool_server(**fields)).mcp_servers["it"]
    assert server.model_dump(mode="json", include=set(fields)) == fields


def test_the_name_of_a_keys_variable_is_no_key():
    config = parse({"providers": {"openai": {"api_key_env": "OUR_KEY"}}})
    assert config.providers.openai.api_key_env == "OUR_KEY"
    with pytest.raises(InvalidRequest, match=r"^config\.providers\.openai\.api_key would put a secret"):
        parse({"providers": {"openai": {"api_key": SECRET}}})


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


@pytest.mark.parametrize("key", SET)
@pytest.mark.parametrize("wrong", [["told-in-confidence"], {"told-in-confidence": 1}, "told-in-confidence" * 20_000])
def test_an_explanation_says_where_and_why_never_the_value(key: str, wrong: Any):
    try:
        Config.model_validate(document(key, wrong))
    except ValidationError as exc:
        said = explain(exc, Config)
        if (key, wrong) == ("agent.mcp_servers", ["told-in-confidence"]):  # a name, as keys are
            assert said == "agent.mcp_servers names what mcp_servers has not: told-in-confidence"
        else:
            assert said.startswith(f"{key}: ")
            assert "told-in-confidence" not in said
    else:
        takes = {
            list: {"self_hosted.one.models"},
            dict: {"agent.provider_params"},
            str: {"agent.provider", "agent.system_prompt"},
        }
        assert key in takes[type(wrong)]


def test_an_explanation_of_a_wrong_variable_says_its_name_and_not_its_value():
    with pytest.raises(ValidationError) as wrong:
        Config.model_validate({"mcp_servers": {"it": {"command": "x", "env": {"A": ["told-in-confidence"]}}}})
    assert explain(wrong.value, Config) == "mcp_servers.it.env.A: Input should be a valid string"


def test_an_explanation_of_settings_knows_the_keys_of_their_servers_too():
    with pytest.raises(ValidationError) as wrong:
        Settings.model_validate({"mcp_servers": {"it": {"command": "x", "arg": []}}})
    assert explain(wrong.value, Settings) == "unknown key 'mcp_servers.it.arg' (did you mean 'args'?)"


def test_an_explanation_of_a_wrong_section_does_not_repeat_it():
    with pytest.raises(ValidationError) as wrong:
        Config.model_validate({"agent": "told-in-confidence"})
    assert explain(wrong.value, Config).startswith("agent: Input should be")
    assert "confidence" not in explain(wrong.value, Config)


# ── the keys themselves ──


def test_the_sections_are_those_of_the_document():
    named = {"self_hosted": dict[ServerName, SelfHostedConfig], "mcp_servers": dict[ServerName, ToolServer]}
    assert {name: field.annotation for name, field in Config.model_fields.items()} == SECTIONS | named
    vendors = {"anthropic": ProviderConfig, "openai": ProviderConfig, "gemini": GeminiConfig}
    assert {name: field.annotation for name, field in ProvidersConfig.model_fields.items()} == vendors


def test_every_key_is_tried():
    assert sorted(SET) == sorted(FIELDS)


@pytest.mark.parametrize("key", [key for key in SET if not FIELDS[key].is_required()])
def test_every_key_has_a_default_that_is_within_its_own_range(key: str):
    default = FIELDS[key].get_default(call_default_factory=True)
    section = key.partition(".")[0]
    least = Config() if section in SECTIONS else parse({section: {"one": ONE[section]}})
    assert parse(document(key, default)) == least


@pytest.mark.parametrize("key", SET)
def test_every_key_is_described_in_a_sentence(key: str):
    description = FIELDS[key].description
    assert description, f"{key} has no description"
    assert description.endswith(".")


@pytest.mark.parametrize("key", SET)
def test_every_key_can_be_set_and_changes_the_config(key: str):
    section = key.partition(".")[0]
    servers = dict.fromkeys(SET["agent.mcp_servers"], ONE["mcp_servers"])
    least = parse({"mcp_servers": servers} | ({section: {"one": ONE[section]}} if section in NAMED else {}))
    config = parse({"mcp_servers": servers} | document(key, SET[key]))
    assert at(config, key) == (tuple(SET[key]) if isinstance(SET[key], list) else SET[key])
    assert config != least
    assert Config.model_validate_json(config.model_dump_json()) == config
