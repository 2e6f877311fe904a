"""The TypeScript SDK's clients, as hosts are built with them: 1.x, which most have, and 2.x in both protocol eras.

`walk.mjs` is such a host. It asserts what it can by itself; what it saw is looked at here. Both clients compare every
structured result with the tool's output schema.
"""

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from clients import serving

from meerkat_mcp.domain.version import VERSION
from meerkat_mcp.server.scopes import TOOL_SCOPES

PATIENCE_S = 60
CLIENTS = (("v1", "legacy"), ("v2", "legacy"), ("v2", "auto"))


def walked(node: str, packages: Path, client: tuple[str, str], *target: str) -> dict[str, Any]:
    script = Path(__file__).parent / "walk.mjs"
    command = [node, str(script), str(packages), *client, "--", *target]
    done = subprocess.run(command, capture_output=True, text=True, encoding="utf-8", timeout=PATIENCE_S)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


@pytest.mark.parametrize("transport", ["stdio", "http"])
@pytest.mark.parametrize("client", CLIENTS, ids="-".join)
def test_a_host_with_the_typescript_client_can_do_everything(
    node: str,
    packages: Path,
    client: tuple[str, str],
    transport: str,
    tmp_path: Path,
    request: pytest.FixtureRequest,
):
    over_stdio = (sys.executable, *serving.flags(tmp_path))
    target = over_stdio if transport == "stdio" else (request.getfixturevalue("url"),)
    saw = walked(node, packages, client, *target)
    assert (saw["server"]["name"], saw["server"]["version"]) == ("meerkat", VERSION)
    if client[0] == "v2":
        assert saw["protocol"] == ("2025-11-25" if client[1] == "legacy" else "2026-07-28")
    assert saw["tools"] == sorted(TOOL_SCOPES)

    kept = ["turn_started", "step_started", "text_complete", "step_completed", "turn_completed"]
    streamed = saw["run"]["types"]
    told = [kind for kind in streamed if kind != "text_delta"]
    assert told == kept[: len(told)], "this client drops progress that arrives in one piece with the result"
    assert streamed[0] == "turn_started"
    assert "text_delta" in streamed
    assert f"assistant: {saw['run']['text']}" in saw["resumed"]["text"]

    assert [kind for kind in saw["events"] if kind != "text_delta"] == ["session_created", *kept, *kept]

    assert saw["interrupted"] == {"told": True, "state": "idle", "turn": "interrupted"}
    assert "did you mean 'prompt'" in saw["mistake"]["message"]

    session = saw["run"]["session"]
    assert {"meerkat://realm", f"meerkat://sessions/{session}/transcript"} <= set(saw["mentioned"]["resources"])
    assert "Remember the otter." in saw["mentioned"]["transcript"]
    assert saw["mentioned"]["prompts"] == ["delegate", "continue", "handoff"]
    assert session in saw["mentioned"]["prompted"]
