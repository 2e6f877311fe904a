"""The MCP Inspector's page in a real browser: connect, run a turn by the tool's form, see its result and how it went.

The Inspector says that it knows tasks. So what it shows of a turn in MCP 2026-07-28 is a task, and with the handshake,
which has none, progress.
"""

import json
import os
import socket
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from clients import installing, serving

CONFIG = Path(__file__).parent.parent.parent / "inspector-configs" / "http.json"
TOKEN = "a-token-of-the-page"
PATIENCE_S = 90


@pytest.fixture(scope="module")
def chromium() -> str:
    return installing.chromium()


@pytest.fixture(scope="module")
def page(chromium: str, node: str, packages: Path, url: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The address of the Inspector, with the servers of our config."""
    home = tmp_path_factory.mktemp("inspector")
    config = CONFIG.read_text(encoding="utf-8").replace("http://127.0.0.1:9111/mcp", url)
    (home / "http.json").write_text(config, encoding="utf-8")
    command = [node, str(packages / "node_modules/.bin/mcp-inspector"), "--web", "--config", str(home / "http.json")]
    environment = os.environ | {
        "HOME": str(home),
        "HOST": "127.0.0.1",
        "CLIENT_PORT": str(free_port()),  # it takes no 0 here
        "MCP_SANDBOX_PORT": "0",
        "MCP_APP_ORIGIN_PORT": "0",
        "MCP_AUTO_OPEN_ENABLED": "false",
        "MCP_INSPECTOR_API_TOKEN": TOKEN,
        "MCP_INSPECTOR_SECRET_STORE": "memory",
    }
    with serving.started(command, env=environment) as address:
        yield f"{address}/?MCP_INSPECTOR_API_TOKEN={TOKEN}"


def free_port() -> int:
    """One that nobody has now. Somebody may take it before the Inspector does; among so many that is rare."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        return listener.getsockname()[1]


def browsed(node: str, packages: Path, chromium: str, page: str, server: str) -> dict[str, Any]:
    script = Path(__file__).parent / "browse.mjs"
    command = [node, str(script), str(packages), chromium, page, server]
    done = subprocess.run(command, capture_output=True, text=True, encoding="utf-8", timeout=PATIENCE_S)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


def test_a_turn_is_shown_as_a_task(node: str, packages: Path, chromium: str, page: str):
    saw = browsed(node, packages, chromium, page, "meerkat-http-modern")
    assert '"text": "word1 word2 word3 word4 word5 word6"' in saw["result"]
    assert saw["task"]


def test_a_turn_is_shown_with_its_progress(node: str, packages: Path, chromium: str, page: str):
    saw = browsed(node, packages, chromium, page, "meerkat-http-legacy")
    assert '"text": "word1 word2 word3 word4 word5 word6"' in saw["result"]
    assert saw["progress"] >= 4  # the turn and its step begin and end
