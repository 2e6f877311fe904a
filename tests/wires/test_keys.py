"""Keys come from their own variables, go to their own vendor, and are nowhere else; nothing else is picked up."""

import json
from pathlib import Path

import pytest
from vendors.lanes import Seen
from vendors.script import Fault, Turn
from vendors.server import lane
from wires.talk import GOOD, WIRES, config

from meerkat_mcp.realms import choose, open_realm

pytestmark = pytest.mark.anyio

SHAPES = {
    "anthropic": "sk-ant-api03-{}",
    "openai": "sk-proj-{}",
    "self_hosted": "hunter2.{}/+=",
    "gemini": "AIzaSy{}",
}


def holding(folder: Path, secret: str) -> list[str]:
    """The files below a folder that have a secret in them."""
    files = [path for path in folder.rglob("*") if path.is_file()]
    assert files
    return [path.name for path in files if secret.encode() in path.read_bytes()]


async def test_no_key_is_in_any_output_log_or_file(serve, vendors, tmp_path):
    """Not even where a vendor quotes it."""
    keys = {wire.provider: SHAPES[wire.provider].format(lane().replace("-", "")) for wire in WIRES}
    async with open_realm(choose("den", state_root=tmp_path / "state")) as realm:
        await realm.set_config(config(vendors.url))
    async with serve("--log-level", "debug", **{wire.key_name: keys[wire.provider] for wire in WIRES}) as host:
        for wire in WIRES:
            key = keys[wire.provider]
            quoted = Fault(status=401, message=f"Incorrect API key provided: {key}. See your account.")
            busy = Fault(status=500, message=f"Key {key} made us stumble.")
            vendors.fake.queue(key, GOOD, Turn(fault=quoted), Turn(fault=busy), GOOD)
            run = await host.call("meerkat_run", prompt="Hello.", **wire.settings)
            assert run["text"] == "All is well."
            refused = await host.call("meerkat_resume", session_id=run["session_id"], prompt="Again.")
            assert refused["error"]["code"] == "provider_unauthenticated"
            again = await host.call("meerkat_resume", session_id=run["session_id"], prompt="Again.", stream=True)
            assert again["text"] == "All is well."
        await host.call("meerkat_capabilities")
        await host.call("meerkat_models_catalog")
        await host.call("meerkat_config", action="get", effective=True)
        said = "\n".join(host.lines)
        found = {provider: ["stdout"] * (key in said) + holding(tmp_path, key) for provider, key in keys.items()}
    assert found == {wire.provider: [] for wire in WIRES}
    assert {provider: holding(tmp_path, key) for provider, key in keys.items()} == {wire.provider: [] for wire in WIRES}


JUNK = {
    "ANTHROPIC_AUTH_TOKEN": "junk-token",
    "ANTHROPIC_BASE_URL": "http://127.0.0.1:9/junk",
    "ANTHROPIC_CUSTOM_HEADERS": "X-Junk: anthropic\nAuthorization: Bearer junk",
    "ANTHROPIC_PROFILE": "junk",
    "ANTHROPIC_LOG": "debug",
    "ANTHROPIC_OPEN_TELEMETRY": "true",
    "OPENAI_BASE_URL": "http://127.0.0.1:9/junk",
    "OPENAI_ORG_ID": "org-junk",
    "OPENAI_PROJECT_ID": "proj-junk",
    "OPENAI_ADMIN_KEY": "junk-admin",
    "OPENAI_CUSTOM_HEADERS": "X-Junk: openai",
    "OPENAI_WEBHOOK_SECRET": "junk-hook",
    "OPENAI_LOG": "debug",
    "GOOGLE_API_KEY": "junk-google",
    "GOOGLE_APPLICATION_CREDENTIALS": "/junk/credentials.json",
    "GOOGLE_CLOUD_LOCATION": "junk-north1",
    "GOOGLE_CLOUD_PROJECT": "junk-project",
    "GOOGLE_CLOUD_QUOTA_PROJECT": "junk-quota",
    "GOOGLE_GEMINI_BASE_URL": "http://127.0.0.1:9/junk",
    "GOOGLE_GENAI_API_VERSION": "v9junk",
    "GOOGLE_GENAI_CLIENT_MODE": "replay",
    "GOOGLE_GENAI_HTTP_CLIENT": "junk",
    "GOOGLE_GENAI_USE_ENTERPRISE": "true",
    "GOOGLE_GENAI_USE_VERTEXAI": "true",
    "GOOGLE_VERTEX_BASE_URL": "http://127.0.0.1:9/junk",
    "AZURE_OPENAI_ENDPOINT": "http://127.0.0.1:9/junk",
    "AZURE_OPENAI_API_KEY": "junk-azure",
    "AWS_PROFILE": "junk",
    "MODEL": "junk",
}
"""What the SDKs, or others beside them, read from the environment. OpenAI, Anthropic, Google, then what is akin."""


def shown(seen: Seen, key: str, session_id: str) -> str:
    """A request without what is another one each time."""
    whole = json.dumps([seen.path, sorted(seen.headers.items()), seen.body], ensure_ascii=False)
    assert key in whole
    return whole.replace(key, "KEY").replace(session_id, "SESSION")


async def test_nothing_but_the_keys_is_taken_from_the_environment(serve, vendors, tmp_path):
    netrc = tmp_path / "netrc"
    netrc.write_text("machine 127.0.0.1 login junk password junk\ndefault login junk password junk\n")
    netrc.chmod(0o600)
    junk = JUNK | {"NETRC": str(netrc)}
    async with open_realm(choose("den", state_root=tmp_path / "state")) as realm:
        await realm.set_config(config(vendors.url))
    requests: list[list[str]] = []
    for variables in ({}, junk):
        key = lane()
        asked: list[str] = []
        async with serve(**{**variables, **{wire.key_name: key for wire in WIRES}}) as host:
            for number, wire in enumerate(WIRES):
                vendors.fake.queue(key, GOOD)
                run = await host.call("meerkat_run", prompt="Hello.", **wire.settings)
                assert run["text"] == "All is well."
                asked.append(shown(vendors.fake.requests(key)[number], key, run["session_id"]))
            await host.call("meerkat_models_catalog")
            asked += [shown(seen, key, "-") for seen in vendors.fake.lookups(key)]
        requests.append(asked)
    plain, other = requests
    assert len(plain) > len(WIRES)
    assert plain == other
    assert "junk" not in json.dumps(other)
