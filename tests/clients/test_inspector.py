"""The MCP Inspector's command line lists, reads and calls what we serve, through the files of `inspector-configs/`."""

import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from meerkat_mcp.server.scopes import TOOL_SCOPES

CONFIGS = Path(__file__).parent.parent.parent / "inspector-configs"
PATIENCE_S = 60

Ask = Callable[..., tuple[int, dict[str, Any]]]


def servers() -> list[Any]:
    return [
        pytest.param(path.name, name, id=name)
        for path in sorted(CONFIGS.glob("*.json"))
        for name in json.loads(path.read_text(encoding="utf-8"))["mcpServers"]
    ]


@pytest.fixture
def ask(node: str, packages: Path, tmp_path: Path, request: pytest.FixtureRequest) -> Ask:
    """Ask a server of a config file something; the file as it is, but for this Python, our own folder and port."""
    program = packages / "node_modules" / ".bin" / "mcp-inspector"

    def asked(file: str, server: str, *question: str) -> tuple[int, dict[str, Any]]:
        config = json.loads((CONFIGS / file).read_text(encoding="utf-8"))
        for entry in config["mcpServers"].values():
            if entry["type"] == "stdio":
                assert entry["command"] == "python"
                entry["command"] = sys.executable
                entry["args"] += ["--state-root", str(tmp_path / "state")]
            else:
                assert entry["url"] == "http://127.0.0.1:9111/mcp", "where `serve --http` is when nothing else is said"
                entry["url"] = request.getfixturevalue("url")
        copy = tmp_path / file
        copy.write_text(json.dumps(config), encoding="utf-8")
        command = [node, str(program), "--cli", "--config", str(copy), "--server", server, "--format", "json"]
        environment = os.environ | {"MCP_INSPECTOR_SECRET_STORE": "memory"}
        done = subprocess.run(
            [*command, *question], capture_output=True, text=True, timeout=PATIENCE_S, env=environment, encoding="utf-8"
        )
        assert done.stdout, done.stderr
        return done.returncode, json.loads(done.stdout)

    return asked


@pytest.mark.parametrize(("file", "server"), servers())
def test_the_inspector_lists_and_calls_what_is_served(ask: Ask, file: str, server: str):
    code, listed = ask(file, server, "--method", "tools/list", "--strict")
    assert code == 0
    assert sorted(tool["name"] for tool in listed["result"]["tools"]) == sorted(TOOL_SCOPES)
    call = ("--method", "tools/call", "--tool-name", "meerkat_run", "--tool-arg", "prompt=[[say hello]]")
    code, called = ask(file, server, *call)
    assert (code, called["result"]["structuredContent"]["text"]) == (0, "hello")


@pytest.mark.parametrize("server", ["meerkat-http-modern", "meerkat-http-legacy"])
def test_the_inspector_lists_what_can_be_mentioned_and_picked(ask: Ask, server: str):
    code, listed = ask("http.json", server, "--method", "resources/list")
    assert code == 0
    assert {"meerkat://realm", "meerkat://sessions"} <= {resource["uri"] for resource in listed["result"]["resources"]}
    code, listed = ask("http.json", server, "--method", "prompts/list")
    assert code == 0
    assert [prompt["name"] for prompt in listed["result"]["prompts"]] == ["delegate", "continue", "handoff"]


def test_the_inspector_shows_an_error_that_names_the_fix(ask: Ask):
    call = ("--method", "tools/call", "--tool-name", "meerkat_run", "--tool-arg", "promt=x")
    code, called = ask("stdio.json", "meerkat", *call)
    assert code != 0
    assert "did you mean 'prompt'" in called["result"]["content"][0]["text"]
