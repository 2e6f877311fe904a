"""What a calling model may not do by itself, and what an operator can allow it."""

import json

import pytest
from sessions.actors import Bench, equip, tool

from meerkat_mcp.domain.config import Config, PermissionsConfig, parse
from meerkat_mcp.domain.errors import PermissionDenied
from meerkat_mcp.domain.servers import ToolServer
from meerkat_mcp.server.trust import PROTECTED, Trust
from meerkat_mcp.sessions.decisions import Approval

pytestmark = pytest.mark.anyio

PROGRAM = {"command": "rm", "args": ["-rf", "everything"]}
PATCHES = {
    "permissions": {"permissions": {"caller_may_approve": True}},
    "providers": {"providers": {"openai": {"base_url": "http://evil.example"}}},
    "self_hosted": {"self_hosted": {"box": {"base_url": "http://evil.example", "api_key_env": "OPENAI_API_KEY"}}},
    "mcp_servers": {"mcp_servers": {"box": PROGRAM}},
    "retention": {"retention": {"archived_days": 0}},
}


# ── the rules, by themselves ──


def test_there_is_a_patch_to_try_for_every_protected_section():
    assert set(PATCHES) == set(PROTECTED)


def test_a_section_that_stays_as_it_is_is_not_touched():
    before = parse(PATCHES["mcp_servers"])
    Trust().check_config(before, parse(PATCHES["mcp_servers"] | {"agent": {"max_steps": 3}}))
    with pytest.raises(PermissionDenied) as refused:
        Trust().check_config(before, Config())
    assert refused.value.facts["keys"] == ["mcp_servers"]
    Trust(caller=True).check_config(before, Config())


def test_all_that_is_touched_is_named():
    with pytest.raises(PermissionDenied) as refused:
        Trust().check_config(Config(), parse(PATCHES["permissions"] | PATCHES["providers"]))
    assert refused.value.facts["keys"] == ["permissions", "providers"]


def test_a_call_may_name_servers_and_keep_those_its_session_has():
    mine = ToolServer(**PROGRAM)
    Trust().check_servers(None)
    Trust().check_servers({})
    Trust().check_servers({"box": None})
    Trust().check_servers({"box": mine}, {"box": mine})
    Trust(caller=True).check_servers({"box": mine})
    other = mine.model_copy(update={"args": ("x",)})
    for known in (None, {}, {"box": None}, {"box": other}, {"shed": mine}):
        with pytest.raises(PermissionDenied) as refused:
            Trust().check_servers({"box": mine, "shed": None}, known)
        assert refused.value.facts["servers"] == ["box"]


def test_a_no_is_always_allowed_and_a_yes_where_somebody_said_so():
    yes, no = Approval("a", "approve"), Approval("b", "deny")
    Trust().check_approvals([no], PermissionsConfig())
    Trust().check_approvals([], PermissionsConfig())
    Trust().check_approvals([yes], PermissionsConfig(caller_may_approve=True))
    Trust(caller=True).check_approvals([yes], PermissionsConfig())
    with pytest.raises(PermissionDenied):
        Trust().check_approvals([no, yes], PermissionsConfig())


# ── the config ──


@pytest.mark.parametrize("section", PROTECTED)
async def test_a_caller_changes_no_protected_section_by_any_way(open_host, section):
    async with open_host() as host:
        for action in ({"action": "patch", "patch": PATCHES[section]}, {"action": "set", "config": PATCHES[section]}):
            refused = await host.error("meerkat_config", **action)
            assert (refused["code"], refused["keys"]) == ("permission_denied", [section])
            assert "--trust-caller" in refused["hint"]
        assert (await host.ok("meerkat_config", action="get"))["generation"] == 0


@pytest.mark.parametrize("section", PROTECTED)
async def test_a_caller_takes_away_no_protected_section_either(open_host, section):
    async with open_host() as host:
        await host.realm.set_config(PATCHES[section])
        for action in ({"action": "patch", "patch": {section: None}}, {"action": "set", "config": {}}):
            assert (await host.error("meerkat_config", **action))["keys"] == [section]
        kept = await host.ok("meerkat_config", action="set", config=PATCHES[section] | {"agent": {"max_steps": 3}})
        assert kept["generation"] == 2, "the rest is the caller's"


@pytest.mark.parametrize("section", PROTECTED)
async def test_a_trusted_caller_may(open_host, section):
    async with open_host(trust_caller=True) as host:
        patched = await host.ok("meerkat_config", action="patch", patch=PATCHES[section])
        assert patched["config"] == PATCHES[section]


async def test_an_invalid_change_is_told_what_to_mend_before_whether_it_is_allowed(open_host):
    async with open_host() as host:
        refused = await host.error("meerkat_config", action="patch", patch={"permissions": {"cieling": "ask"}})
        assert "did you mean 'ceiling'" in refused["message"]


# ── tool servers ──


async def test_a_call_brings_no_servers_by_any_way(open_host):
    async with open_host() as host:
        brought = {"box": PROGRAM}
        refused = await host.error("meerkat_run", prompt="hi", mcp_servers=brought)
        assert (refused["code"], refused["servers"]) == ("permission_denied", ["box"])
        assert (await host.ok("meerkat_sessions"))["sessions"] == [], "nothing was made of it"
        sid = (await host.run("hi"))["session_id"]
        refused = await host.error("meerkat_resume", session_id=sid, prompt="hi", mcp_servers=brought)
        assert refused["code"] == "permission_denied"
        refused = await host.error("meerkat_config", action="patch", session_id=sid, patch={"mcp_servers": brought})
        assert refused["code"] == "permission_denied"
        refused = await host.error("meerkat_config", action="set", session_id=sid, config={"mcp_servers": brought})
        assert refused["code"] == "permission_denied"
        assert "mcp_servers" not in (await host.ok("meerkat_config", action="get", session_id=sid))["config"]


async def test_a_call_names_the_realms_servers(open_host):
    async with open_host() as host:
        await host.realm.set_config({"mcp_servers": {"box": {"command": "never-started"}}})
        equip(host.realm, bench := Bench(tool("look", reads=True)))
        run = await host.run("[[tools]]", mcp_servers={"box": {}})
        assert run["text"] == "look"
        assert bench.opened[0]["box"].command == "never-started"
        unknown = await host.error("meerkat_run", prompt="hi", mcp_servers={"shed": {}})
        assert unknown["code"] == "invalid_request"
        none = await host.ok("meerkat_resume", session_id=run["session_id"], prompt="[[tools]]", mcp_servers={})
        assert none["text"] == "no tools"


async def test_a_trusted_call_brings_its_own_and_others_can_still_go_on_with_them(open_host):
    async with open_host(trust_caller=True) as host:
        equip(host.realm, Bench(tool("look", reads=True)))
        run = await host.run("[[tools]]", mcp_servers={"box": {"command": "never-started"}})
        assert run["text"] == "look"
        wrong = await host.error("meerkat_run", prompt="hi", mcp_servers={"box": {"comand": "x"}})
        assert "did you mean 'command'" in wrong["message"]
        secret = {"command": "x", "env": {"API_TOKEN": "hush"}}
        refused = await host.error("meerkat_run", prompt="hi", mcp_servers={"box": secret})
        assert refused["code"] == "invalid_request"
        assert "hush" not in json.dumps(refused)
    async with open_host() as host:
        equip(host.realm, Bench(tool("look", reads=True)))
        sid = run["session_id"]
        assert (await host.ok("meerkat_resume", session_id=sid, prompt="[[tools]]"))["text"] == "look"
        changed = await host.ok("meerkat_config", action="patch", session_id=sid, patch={"system_prompt": "x"})
        assert changed["config"]["mcp_servers"]["box"]["command"] == "never-started"


# ── permission modes ──


@pytest.mark.parametrize("by", ["config", "flag"])
async def test_no_call_goes_beyond_the_ceiling(open_host, by):
    async with open_host(ceiling="ask" if by == "flag" else None, trust_caller=True) as host:
        if by == "config":
            await host.realm.set_config({"permissions": {"ceiling": "ask"}})
        for mode in ("readonly", "ask"):
            assert (await host.run("hi", permission_mode=mode))["status"] == "completed"
        refused = await host.error("meerkat_run", prompt="hi", permission_mode="auto")
        assert (refused["code"], refused["ceiling"]) == ("permission_denied", "ask")
        sid = (await host.run("hi"))["session_id"]
        refused = await host.error("meerkat_resume", session_id=sid, prompt="hi", permission_mode="auto")
        assert refused["code"] == "permission_denied"
        refused = await host.error("meerkat_config", action="patch", session_id=sid, patch={"permission_mode": "auto"})
        assert refused["code"] == "permission_denied"
        capabilities = await host.ok("meerkat_capabilities")
        assert capabilities["permissions"]["ceiling"] == "ask"


async def test_a_configs_mode_beyond_the_ceiling_is_the_ceiling(open_host):
    async with open_host(ceiling="readonly") as host:
        await host.realm.set_config(
            {
                "mcp_servers": {"box": {"command": "never-started"}},
                "agent": {"mcp_servers": ["box"], "permission_mode": "auto"},
            }
        )
        equip(host.realm, Bench(tool("look", reads=True), tool("write")))
        assert (await host.run("[[tools]]"))["text"] == "look"


async def test_a_caller_may_be_stricter_than_the_realm_not_laxer(open_host):
    async with open_host() as host:
        assert (await host.run("hi", permission_mode="readonly"))["status"] == "completed"
        sid = (await host.run("hi", permission_mode="ask"))["session_id"]
        for tool_name, arguments in (
            ("meerkat_run", {"prompt": "hi", "permission_mode": "auto"}),
            ("meerkat_resume", {"session_id": sid, "prompt": "hi", "permission_mode": "auto"}),
            ("meerkat_config", {"action": "patch", "session_id": sid, "patch": {"permission_mode": "auto"}}),
            ("meerkat_config", {"action": "patch", "patch": {"agent": {"permission_mode": "auto"}}}),
        ):
            refused = await host.error(tool_name, **arguments)
            assert refused["code"] == "permission_denied", tool_name
            assert "--trust-caller" in refused["hint"]
        stricter = {"agent": {"permission_mode": "readonly"}}
        assert (await host.ok("meerkat_config", action="patch", patch=stricter))["config"] == stricter
        await host.realm.set_config({"agent": {"permission_mode": "auto"}})
        assert (await host.run("hi", permission_mode="auto"))["status"] == "completed"


async def test_a_session_of_more_permissive_times_can_still_be_configured(open_host):
    async with open_host(trust_caller=True) as host:
        sid = (await host.run("hi", permission_mode="auto"))["session_id"]
        await host.realm.set_config({"permissions": {"ceiling": "ask"}})
        changed = await host.ok("meerkat_config", action="patch", session_id=sid, patch={"system_prompt": "x"})
        assert changed["config"]["system_prompt"] == "x"


# ── what is shown ──


KEYS = {"ANTHROPIC_API_KEY": "sk-ant-hush-hush-1", "OPENAI_API_KEY": "sk-hush-hush-2", "BOX_KEY": "hush-hush-3"}


async def test_what_a_server_can_do_is_shown_without_any_key(open_host, monkeypatch):
    for name, value in KEYS.items():
        monkeypatch.setenv(name, value)
    nowhere = {"base_url": "http://127.0.0.1:9"}
    box = {"base_url": "http://127.0.0.1:9/v1", "api_key_env": "BOX_KEY", "models": ["m"]}
    async with open_host() as host:
        await host.realm.set_config(
            {
                "providers": {"anthropic": nowhere, "openai": nowhere},
                "self_hosted": {"box": box},
                "mcp_servers": {"shed": {"command": "x", "env": {"API_TOKEN": "${BOX_KEY}"}}},
            }
        )
        capabilities = await host.ok("meerkat_capabilities")
        assert capabilities["default_provider"] == "anthropic"
        assert "ANTHROPIC_API_KEY" in capabilities["default_reason"]
        providers = {one["provider"]: one for one in capabilities["providers"]}
        assert [name for name, one in providers.items() if one.get("has_key")] == ["anthropic", "openai", "box"]
        assert providers["openai"]["key_variable"] == "OPENAI_API_KEY"
        assert capabilities["tool_servers"] == ["shed"]
        assert capabilities["permissions"] == {
            "default_mode": "ask",
            "ceiling": "auto",
            "caller_may_approve": False,
            "caller_is_trusted": False,
        }
        catalog = await host.ok("meerkat_models_catalog", provider="box")
        assert [(model["model"], model["provider"]) for model in catalog["models"]] == [("m", "self_hosted")]
        config = await host.ok("meerkat_config", action="get", effective=True)
        shown = json.dumps([capabilities, catalog, config])
        assert "hush" not in shown


async def test_the_catalogue_of_a_vendor_that_cannot_be_reached_is_what_is_known_offline(open_host, monkeypatch):
    monkeypatch.setenv("OPENAI_API_KEY", KEYS["OPENAI_API_KEY"])
    async with open_host() as host:
        await host.realm.set_config({"providers": {"openai": {"base_url": "http://127.0.0.1:9/v1"}}})
        catalog = await host.ok("meerkat_models_catalog", provider="openai")
        (default,) = [model for model in catalog["models"] if model.get("default")]
        assert (default["model"], default["provider"]) == (catalog["default_model"], "openai")
        assert default["input_usd"] > 0
        assert "hush" not in json.dumps(catalog)


async def test_a_trusted_caller_is_shown_to_be_one(open_host):
    async with open_host(trust_caller=True) as host:
        assert (await host.ok("meerkat_capabilities"))["permissions"]["caller_is_trusted"] is True


async def test_what_there_is_is_shown_though_the_configs_model_is_nobodys(open_host):
    async with open_host() as host:
        await host.realm.set_config({"agent": {"model": "nonesuch"}})
        for shown in (await host.ok("meerkat_capabilities"), await host.ok("meerkat_models_catalog", provider="demo")):
            assert (shown["default_model"], shown["default_provider"]) == ("nonesuch", "")
            assert "nonesuch" in shown["default_reason"]
        refused = await host.error("meerkat_run", prompt="hi")
        assert refused["code"] == "model_unknown"
        assert (await host.run("hi", model="demo"))["status"] == "completed"
