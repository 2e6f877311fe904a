"""The MCP Inspector's command line lists and calls our tools through the files of `inspector-configs/`.

It needs Node 22 and the npm registry. Where they are missing the tests are skipped and say why; in CI they fail.
"""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

CONFIGS = Path(__file__).parent.parent / "inspector-configs"
INSPECTOR = "@modelcontextprotocol/inspector@2.12.0"
PATIENCE_S = 110

pytestmark = pytest.mark.xdist_group("inspector")


def missing(reason: str) -> None:
    if os.environ.get("CI"):
        pytest.fail(f"CI must be able to run the Inspector: {reason}")
    pytest.skip(reason)


@pytest.fixture(scope="module")
def inspector(tmp_path_factory) -> list[str]:
    node, npm = shutil.which("node"), shutil.which("npm")
    if node is None or npm is None:
        missing("node and npm are not installed")
    version = subprocess.run([node, "--version"], capture_output=True, text=True, check=True).stdout
    if int(version.lstrip("v").split(".")[0]) < 22:
        missing(f"the Inspector needs Node 22 or newer, this is {version.strip()}")
    home = tmp_path_factory.mktemp("inspector")
    install = [npm, "install", "--silent", "--no-fund", "--no-audit", "--prefix", str(home), INSPECTOR]
    done = subprocess.run(install, capture_output=True, text=True, timeout=PATIENCE_S)
    if done.returncode:
        missing(f"npm could not install it: {done.stderr[-300:]}")
    return [node, str(home / "node_modules" / ".bin" / "mcp-inspector"), "--cli"]


def servers() -> list[tuple[str, str]]:
    return [
        (path.name, name)
        for path in sorted(CONFIGS.glob("*.json"))
        for name, entry in json.loads(path.read_text(encoding="utf-8"))["mcpServers"].items()
        if entry["type"] == "stdio"
    ]


@pytest.fixture
def inspect(inspector, tmp_path):
    """Ask a server of a config file something; the file as it is, but for this Python and a folder of our own."""

    def ask(file: str, server: str, *question: str) -> tuple[int, dict]:
        config = json.loads((CONFIGS / file).read_text(encoding="utf-8"))
        for entry in config["mcpServers"].values():
            if entry["type"] == "stdio":
                assert entry["command"] == "python"
                entry["command"] = sys.executable
                entry["args"] += ["--state-root", str(tmp_path / "state")]
        copy = tmp_path / file
        copy.write_text(json.dumps(config), encoding="utf-8")
        command = [*inspector, "--config", str(copy), "--server", server, "--format", "json", *question]
        environment = os.environ | {"MCP_INSPECTOR_SECRET_STORE": "memory"}
        done = subprocess.run(command, capture_output=True, text=True, timeout=PATIENCE_S, env=environment)
        assert done.stdout, done.stderr
        return done.returncode, json.loads(done.stdout)

    return ask


@pytest.mark.parametrize(("file", "server"), servers(), ids=str)
def test_the_inspector_lists_and_calls_the_tools(inspect, file, server):
    code, listed = inspect(file, server, "--method", "tools/list", "--strict")
    assert code == 0
    assert len(listed["result"]["tools"]) == 16
    call = ("--method", "tools/call", "--tool-name", "meerkat_run", "--tool-arg", "prompt=[[say hello]]")
    code, called = inspect(file, server, *call)
    assert (code, called["result"]["structuredContent"]["text"]) == (0, "hello")


def test_the_inspector_shows_an_error_that_names_the_fix(inspect):
    file, server = servers()[0]
    call = ("--method", "tools/call", "--tool-name", "meerkat_run", "--tool-arg", "promt=x")
    code, called = inspect(file, server, *call)
    assert code != 0
    assert "did you mean 'prompt'" in called["result"]["content"][0]["text"]
