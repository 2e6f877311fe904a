"""What a host of 2026 carries between two calls is still good when the process is another one."""

import sys
from pathlib import Path

import pytest
from mcp import Client, MCPError, StdioServerParameters
from mcp.types import InputRequiredResult
from replicas.conftest import said
from replicas.test_round_robin import BOX, WRITE, YES, Person

pytestmark = pytest.mark.anyio

CALL = {"prompt": WRITE, "mcp_servers": BOX, "permission_mode": "ask"}


def process(root: Path, realm: str = "den") -> Client:
    """A host with a server process of its own, over stdio."""
    words = ["-m", "meerkat_mcp", "serve", "--realm", realm, "--state-root", str(root), "--trust-caller"]
    server = StdioServerParameters(command=sys.executable, args=words, cwd=str(root))
    return Client(server, elicitation_callback=Person())


async def test_an_answer_is_taken_by_the_next_process_over_stdio_and_by_no_other_realm(tmp_path: Path):
    async with process(tmp_path) as host:
        asked = await host.session.call_tool("meerkat_run", CALL, allow_input_required=True)
    assert isinstance(asked, InputRequiredResult)
    answers, state = dict.fromkeys(asked.input_requests or (), YES), asked.request_state
    async with process(tmp_path, "another") as host:
        with pytest.raises(MCPError, match="Invalid or expired requestState"):
            await host.session.call_tool("meerkat_run", CALL, input_responses=answers, request_state=state)
        assert (await said(host, "meerkat_sessions"))["sessions"] == []
    async with process(tmp_path) as host:
        done = await host.session.call_tool("meerkat_run", CALL, input_responses=answers, request_state=state)
        assert "wrote x" in (done.structured_content or {})["text"]
        assert len((await said(host, "meerkat_sessions"))["sessions"]) == 1
