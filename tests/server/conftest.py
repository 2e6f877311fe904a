"""The real MCP server over a real realm, and a real client in each protocol era."""

import json
from collections.abc import AsyncGenerator, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from typing import Any

import anyio
import pytest
from mcp import Client
from mcp.types import CallToolResult

from meerkat_mcp.realms import Realm, choose, open_realm
from meerkat_mcp.server.app import build_server

PATIENCE_S = 20.0
QUICK = {"delta_ms": 0}


class Host:
    """What a host does: it calls tools, and looks at what comes back."""

    def __init__(self, client: Client, realm: Realm) -> None:
        self.client = client
        self.realm = realm

    async def raw(self, tool: str, **arguments) -> CallToolResult:
        with anyio.fail_after(PATIENCE_S):
            return await self.client.call_tool(tool, arguments)

    async def ok(self, tool: str, **arguments) -> dict:
        """The structured result, which is also the text."""
        result = await self.raw(tool, **arguments)
        assert not result.is_error, result.content[0].text
        assert json.loads(result.content[0].text) == result.structured_content
        return result.structured_content

    async def error(self, tool: str, **arguments) -> dict:
        """The error of a call that must fail: text only, and nothing structured."""
        result = await self.raw(tool, **arguments)
        assert result.is_error, result.structured_content
        assert result.structured_content is None
        return json.loads(result.content[0].text)["error"]

    async def run(self, prompt: str, **arguments) -> dict:
        return await self.ok("meerkat_run", prompt=prompt, **({"provider_params": QUICK} | arguments))


@pytest.fixture(params=["modern", "legacy"])
async def host(request: pytest.FixtureRequest, tmp_path) -> AsyncGenerator[Host]:
    async with open_realm(choose("den", state_root=tmp_path)) as realm:
        server = build_server(realm)
        client = Client(server) if request.param == "modern" else Client(server, mode="legacy")
        async with client:
            yield Host(client, realm)


OpenHost = Callable[..., AbstractAsyncContextManager[Host]]


@pytest.fixture(params=["modern", "legacy"])
def open_host(request: pytest.FixtureRequest, tmp_path) -> OpenHost:
    """Each call opens the realm and a host of it: with a `person` who can be asked or without, trusted or not."""

    @asynccontextmanager
    async def opened(*, person: Any = None, ceiling: Any = None, **options: Any) -> AsyncGenerator[Host]:
        async with open_realm(choose("den", state_root=tmp_path, permission_ceiling=ceiling)) as realm:
            mode = {"mode": "legacy"} if request.param == "legacy" else {}
            async with Client(build_server(realm, **options), elicitation_callback=person, **mode) as client:
                yield Host(client, realm)

    return opened
