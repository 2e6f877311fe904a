"""`meerkat-mcp models` in real processes: the catalogue, the default and why, whose key is set."""

import json

import pytest

from .conftest import Commands

NOWHERE = {"base_url": "http://127.0.0.1:9"}  # nobody answers there, and nothing leaves this machine
SECRET = "not-to-be-shown"


def test_without_any_key_the_demo_is_the_default_and_says_why(meerkat: Commands) -> None:
    done = meerkat("models")
    assert done.returncode == 0
    lines = done.stdout.splitlines()
    assert lines[0].split() == ["MODEL", "PROVIDER", "WINDOW", "MAX", "OUTPUT", "$", "IN", "$", "OUT"]
    assert [line.split()[:2] for line in lines if line.endswith(" default")] == [["demo", "demo"]]
    assert "anthropic  ANTHROPIC_API_KEY is not set" in lines
    assert "demo       needs none" in lines
    assert lines[-1].startswith("A session that names no model gets demo: ")
    assert not meerkat.state_root.exists()


def test_the_catalogue_as_json_has_prices_and_the_default_with_its_reason(meerkat: Commands) -> None:
    said = meerkat.json("models")
    known = {(model["provider"], model["model"]): model for model in said["models"]}
    assert {provider for provider, _ in known} == {"anthropic", "openai", "gemini", "demo"}
    assert known["anthropic", "claude-sonnet-5-5"]["output_usd"] > known["anthropic", "claude-sonnet-5-5"]["input_usd"]
    assert (said["default_model"], said["default_provider"], "no key" in said["default_reason"]) == (
        "demo",
        "demo",
        True,
    )
    assert [model["model"] for model in said["models"] if model.get("default")] == ["demo"]
    assert {row["provider"]: row.get("has_key") for row in said["providers"]} == {
        "anthropic": False,
        "openai": False,
        "gemini": False,
        "demo": None,
    }


def test_a_key_is_named_never_shown_and_makes_a_default(meerkat: Commands) -> None:
    config = {"providers": {"anthropic": NOWHERE | {"api_key_env": "OUR_KEY"}}}
    meerkat("config", "set", "--json", json.dumps(config))
    for words in (("models",), ("models", "--json"), ("models", "--log-level", "debug")):
        done = meerkat(*words, OUR_KEY=SECRET)
        assert (done.returncode, "OUR_KEY is set" in done.stdout or '"key_variable": "OUR_KEY"' in done.stdout) == (
            0,
            True,
        )
        assert SECRET not in done.stdout + done.stderr
    assert "the first provider with a key (OUR_KEY is set)" in done.stdout
    assert "anthropic  OUR_KEY is not set" in meerkat("models").stdout


def test_one_provider_alone_is_shown(meerkat: Commands) -> None:
    said = meerkat.json("models", "--provider", "gemini")
    assert {model["provider"] for model in said["models"]} == {"gemini"}
    assert [row["provider"] for row in said["providers"]] == ["gemini"]
    wrong = meerkat("models", "-p", "nobody")
    assert (wrong.returncode, "anthropic, openai, gemini, demo" in wrong.stderr) == (2, True)


def test_a_self_hosted_server_is_listed_by_its_name(meerkat: Commands) -> None:
    local = {"base_url": "http://127.0.0.1:9/v1", "models": ["qwen-9"], "context_tokens": 32_768}
    locked = {"base_url": "http://127.0.0.1:9/v1", "models": ["glm-9"], "api_key_env": "LOCKED_KEY"}
    meerkat("config", "set", "--json", json.dumps({"self_hosted": {"local": local, "locked": locked}}))
    done = meerkat("models", "--provider", "local")
    assert "qwen-9  local     32.8k" in done.stdout
    assert "local     needs none" in done.stdout
    assert "default" in done.stdout.splitlines()[1]
    everything = meerkat("models", "--provider", "self_hosted").stdout
    assert "glm-9" in everything
    assert "locked    LOCKED_KEY is not set" in everything


@pytest.mark.parametrize("words", [("run", "-m", "nobody", "hello"), ("run", "-p", "openai", "hello")], ids=" ".join)
def test_what_is_wrong_with_a_model_leads_on(meerkat: Commands, words: tuple[str, ...]) -> None:
    done = meerkat(*words)
    assert (done.returncode, done.stderr.splitlines()[1]) in (
        (2, "hint: meerkat-mcp models lists the known ones; any other is taken when you name its provider too."),
        (8, "hint: Set OPENAI_API_KEY in the environment; or use the demo model."),
    )
