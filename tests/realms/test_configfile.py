"""An operator's config file: TOML or JSON, read at the start and when it changes, never a reason to stop."""

import json
import logging
from collections.abc import Callable
from pathlib import Path

import anyio
import anyio.lowlevel
import pytest

from meerkat_mcp.domain.errors import InvalidRequest, PermissionDenied
from meerkat_mcp.domain.settings import Settings
from meerkat_mcp.realms import Realm, choose, configfile, open_realm, surroundings
from meerkat_mcp.server.trust import Trust

pytestmark = pytest.mark.anyio

TOML = """
[agent]
max_steps = 7
[providers.openai]
base_url = "http://proxy.example/v1"
[mcp_servers.box]
command = "files"
"""
SAID = {"agent": {"max_steps": 7}, "mcp_servers": {"box": {"command": "files"}}}


@pytest.fixture
def den(tmp_path: Path) -> Callable:
    def opened(text: str, name: str = "meerkat.toml", **more):
        file = tmp_path / name
        file.write_text(text, encoding="utf-8")
        return open_realm(choose("den", state_root=tmp_path / "realms", backend="memory", config_file=file, **more))

    return opened


async def until_steps(realm: Realm, steps: int) -> None:
    with anyio.fail_after(10):
        while (await realm.sessions.config()).agent.max_steps != steps:
            await anyio.lowlevel.checkpoint()


@pytest.mark.parametrize(
    ("name", "text"), [("c.toml", TOML), ("c.json", "\ufeff" + json.dumps(SAID))], ids=["toml", "json"]
)
async def test_a_file_says_what_the_realm_does_not(den, name, text):
    async with den(text, name) as realm:
        assert (await realm.sessions.config()).agent.max_steps == 7
        assert "box" in (await realm.sessions.config()).mcp_servers
        await realm.patch_config({"agent": {"max_steps": 3}})
        config = await realm.sessions.config()
        assert (config.agent.max_steps, config.agent.max_tokens_per_turn) == (3, 16_384)
        assert (await realm.store.config()).document == {"agent": {"max_steps": 3}}, "the file is not in the store"
        assert realm.paths["config_file"].endswith(name)


@pytest.mark.parametrize(
    ("name", "text", "said"),
    [
        ("c.toml", "[agent]\nmax_step = 3", "unknown key 'agent.max_step' (did you mean 'max_steps'?)"),
        ("c.toml", "[agent\n", "holds no TOML"),
        ("c.toml", "[agent.provider_params]\nsince = 2026-01-01", "could be JSON"),
        ("c.toml", "[limits]\nwait_seconds = nan", "could be JSON"),
        ("c.json", "[1]", "no object, but list"),
        ("c.json", "{", "holds no JSON"),
        ("c.json", '{"providers": {"openai": {"api_key": "x"}}}', "config.providers.openai.api_key"),
        ("c.yaml", "agent: {}", "nothing of its format"),
        ("c.toml", "# " + "x" * 1_100_000, "too large"),
    ],
)
async def test_a_wrong_file_at_the_start_is_an_error_that_names_it_and_makes_no_realm(den, tmp_path, name, text, said):
    with pytest.raises(InvalidRequest) as refused:
        async with den(text, name):
            pass
    assert said in refused.value.message
    assert name in refused.value.message
    assert not (tmp_path / "realms").exists()


async def test_a_file_that_is_not_there_is_an_error(tmp_path):
    with pytest.raises(InvalidRequest, match="cannot be read"):
        async with open_realm(choose("den", state_root=tmp_path, config_file=tmp_path / "no.toml")):
            pass


async def test_the_variable_names_it_too_and_a_flag_wins(den, tmp_path, monkeypatch):
    other = tmp_path / "other.json"
    other.write_text('{"agent": {"max_steps": 9}}', encoding="utf-8")
    monkeypatch.setenv("MEERKAT_CONFIG", str(other))
    chosen = choose("den", state_root=tmp_path / "realms", backend="memory")
    async with open_realm(chosen) as realm:
        assert (await realm.sessions.config()).agent.max_steps == 9
        variables = {row["variable"]: row for row in await surroundings(realm, await realm.sessions.config())}
        assert variables["MEERKAT_CONFIG"]["in_force"]
    async with den(TOML) as realm:
        assert (await realm.sessions.config()).agent.max_steps == 7
        variables = {row["variable"]: row for row in await surroundings(realm, await realm.sessions.config())}
        assert (variables["MEERKAT_CONFIG"]["is_set"], variables["MEERKAT_CONFIG"]["in_force"]) == (True, False)


async def test_a_changed_file_is_read_again(den, tmp_path):
    async with den("[agent]\nmax_steps = 7") as realm:
        await until_steps(realm, 7)
        (tmp_path / "meerkat.toml").write_text("[agent]\nmax_steps = 88", encoding="utf-8")
        await until_steps(realm, 88)
        fresh = tmp_path / "fresh"
        fresh.write_text("[agent]\nmax_steps = 99", encoding="utf-8")
        fresh.replace(tmp_path / "meerkat.toml")
        await until_steps(realm, 99)


async def test_a_file_that_went_bad_is_told_of_once_and_what_it_said_holds_on(den, tmp_path, monkeypatch, caplog):
    monkeypatch.setattr(configfile, "LOOK_INTERVAL_S", 0.0)
    file = tmp_path / "meerkat.toml"
    async with den("[agent]\nmax_steps = 7") as realm:
        with caplog.at_level(logging.WARNING, configfile.__name__):
            file.write_text("[agent]\nmax_stepz = 88", encoding="utf-8")
            for _ in range(5):
                assert (await realm.sessions.config()).agent.max_steps == 7
            assert len(caplog.records) == 1
            assert "agent.max_stepz" in caplog.records[0].message
            file.unlink()
            for _ in range(5):
                assert (await realm.sessions.config()).agent.max_steps == 7
            assert len(caplog.records) == 2
        file.write_text("[agent]\nmax_steps = 99", encoding="utf-8")
        assert (await realm.sessions.config()).agent.max_steps == 99


async def test_a_file_that_does_not_go_with_the_realm_is_refused_like_a_bad_one(den, tmp_path, monkeypatch, caplog):
    monkeypatch.setattr(configfile, "LOOK_INTERVAL_S", 0.0)
    servers = {f"s{number}": {"command": "files"} for number in range(20)}
    async with den("[agent]\nmax_steps = 7") as realm:
        await realm.set_config({"mcp_servers": servers})
        more = {f"t{number}": {"command": "files"} for number in range(20)}
        (tmp_path / "meerkat.toml").write_text(
            "\n".join(f'[mcp_servers.{name}]\ncommand = "files"' for name in more), encoding="utf-8"
        )
        assert (await realm.sessions.config()).agent.max_steps == 7
        assert len(caplog.records) == 1


async def test_a_change_that_does_not_go_with_the_file_is_refused(den):
    text = "\n".join(f'[mcp_servers.t{number}]\ncommand = "files"' for number in range(20))
    async with den(text) as realm:
        with pytest.raises(InvalidRequest, match="does not go together with this server's config file"):
            await realm.set_config({"mcp_servers": {f"s{number}": {"command": "files"} for number in range(20)}})
        assert (await realm.store.config()).generation == 0


async def test_a_change_has_to_stand_without_the_file(den):
    async with den(TOML) as realm:
        with pytest.raises(InvalidRequest, match=r"agent\.mcp_servers names"):
            await realm.set_config({"agent": {"mcp_servers": ["box"]}})


async def test_a_caller_cannot_undo_what_the_file_makes_strict(den):
    async with den('[agent]\npermission_mode = "readonly"') as realm:
        for document in ({"agent": {"permission_mode": "ask"}}, {"agent": None}):
            with pytest.raises(PermissionDenied) as refused:
                await realm.change_config(lambda _, document=document: document, allow=Trust().check_config)
            assert refused.value.facts["keys"] == ["agent.permission_mode"]
        await realm.set_config({"agent": {"permission_mode": "ask"}})
        assert (await realm.sessions.config()).agent.permission_mode == "ask"


async def test_the_process_says_over_both_and_each_key_says_where_it_is_from(den):
    async with den(TOML, permission_ceiling="readonly") as realm:
        await realm.patch_config({"limits": {"wait_seconds": 3}})
        effective = await realm.sessions.configuration.current()
        assert effective.config.permissions.ceiling == "readonly"
        assert (effective.generation, effective.origins) == (
            1,
            {
                "agent.max_steps": "file",
                "limits.wait_seconds": "realm",
                "mcp_servers.box": "file",
                "permissions.ceiling": "process",
                "providers.openai.base_url": "file",
            },
        )


async def test_the_parsed_config_is_kept_until_something_changes(den):
    async with den(TOML) as realm:
        first = await realm.sessions.configuration.current()
        assert await realm.sessions.configuration.current() is first
        await realm.patch_config({"limits": {"wait_seconds": 3}})
        assert (await realm.sessions.configuration.current()) is not first


async def test_variables_are_named_and_their_values_are_not(den, monkeypatch):
    monkeypatch.setenv("OUR_KEY", "sk-very-secret")
    text = TOML + 'env = {TOKEN = "${BOX_TOKEN}"}\n[providers.anthropic]\napi_key_env = "OUR_KEY"\n'
    async with den(text) as realm:
        rows = await surroundings(realm, await realm.sessions.config())
        found = {(row["variable"], row["used_for"]): row["is_set"] for row in rows}
        assert found["OUR_KEY", "providers.anthropic"]
        assert not found["BOX_TOKEN", "mcp_servers.box"]
        assert "sk-very-secret" not in json.dumps(rows)


async def test_a_turn_keeps_what_it_began_with(den):
    async with den(TOML) as realm:
        prompt = "[[system]][[next]]"
        asked = {"model": "demo", "provider_params": {"delta_ms": 0}}
        started = await realm.sessions.run(prompt + "[[wait 0.3]][[system]]", Settings(**asked))
        await realm.patch_config({"agent": {"system_prompt": "Be brief."}})
        assert await realm.sessions.wait(started.session_id, started.turn_id, 10)
        session = await realm.sessions.settled(started.session_id)
        assert "Be brief" not in (await realm.sessions.outcome(session, started.turn_id)).text
        later = await realm.sessions.resume(started.session_id, "[[system]]")
        assert await realm.sessions.wait(later.session_id, later.turn_id, 10)
        session = await realm.sessions.settled(started.session_id)
        assert "Be brief" in (await realm.sessions.outcome(session, later.turn_id)).text
