"""A turn longer than its host's patience."""

import sys

import pytest
from mcp import Client, MCPError, StdioServerParameters

pytestmark = [pytest.mark.anyio, pytest.mark.timeout(150)]


async def test_a_turn_of_70_seconds_under_a_client_that_gives_up_at_60(tmp_path):

    args = ["-m", "meerkat_mcp", "serve", "--realm", "den", "--state-root", str(tmp_path)]
    server = StdioServerParameters(command=sys.executable, args=args)
    async with Client(server, read_timeout_seconds=60) as client:
        run = (await client.call_tool("meerkat_run", {"prompt": "[[wait 70]][[say at last]]"})).structured_content
        assert run["status"] == "running", "it returned before the client gave up"
        read = await client.call_tool("meerkat_read", {"session_id": run["session_id"], "wait_seconds": 45})
        turn = read.structured_content["turn"]
        assert (turn["status"], turn["text"]) == ("completed", "at last")


async def test_a_client_that_gives_up_earlier_finds_its_turn_by_the_key(tmp_path):

    args = ["-m", "meerkat_mcp", "serve", "--realm", "den", "--state-root", str(tmp_path)]
    asked = {"prompt": "[[wait 1]][[say there]]", "idempotency_key": "k", "on_cancel": "detach"}
    async with Client(StdioServerParameters(command=sys.executable, args=args)) as client:
        with pytest.raises(MCPError):
            await client.call_tool("meerkat_run", asked, read_timeout_seconds=0.3)
        again = (await client.call_tool("meerkat_run", asked)).structured_content
        assert (again["status"], again["text"]) == ("completed", "there")
