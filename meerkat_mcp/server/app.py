"""Builds the MCP server of a realm: tools, resources, prompts, tasks; one object for both protocol eras."""

import logging
from collections.abc import AsyncGenerator, Callable
from contextlib import asynccontextmanager
from typing import Any

from anyio.abc import TaskGroup
from mcp import MCPError
from mcp.server import MCPServer
from mcp.server.caching import CacheHint
from mcp.server.context import CallNext, HandlerResult, ServerRequestContext
from mcp.server.mcpserver import Context
from mcp.server.request_state import RequestStateSecurity
from mcp.types import (
    INVALID_PARAMS,
    INVALID_REQUEST,
    CallToolResult,
    InputRequiredResult,
    ListToolsResult,
    PaginatedRequestParams,
)

from meerkat_mcp.domain.version import VERSION
from meerkat_mcp.realms import Realm
from meerkat_mcp.server.apps import watch_app
from meerkat_mcp.server.callers import caller_of
from meerkat_mcp.server.completions import add_completions
from meerkat_mcp.server.prompts import add_prompts
from meerkat_mcp.server.realm_tools import RealmTools
from meerkat_mcp.server.resources import add_resources
from meerkat_mcp.server.scopes import RUN, TOOL_SCOPES, needed
from meerkat_mcp.server.sealing import Seal
from meerkat_mcp.server.session_tools import SessionTools
from meerkat_mcp.server.stream_tools import StreamTools
from meerkat_mcp.server.subscriptions import Subscriptions
from meerkat_mcp.server.surface import SurfaceTool
from meerkat_mcp.server.tasks import tasks_extension
from meerkat_mcp.server.trust import Trust

INSTRUCTIONS = (
    "Durable agent sessions. meerkat_run starts an agent with its own model and history; it works on its own and "
    "answers. Keep the session_id: meerkat_resume continues the session at any time, from anywhere, and it remembers. "
    "A turn that takes long returns status `running`; wait for it with meerkat_read and wait_seconds. One that returns "
    "`waiting` needs tool_results from you, or approvals from the user. Errors are JSON with a code and a hint "
    "that says what to do."
)
"""One line: a host may show its model only the first one."""


class SurfaceServer(MCPServer[Any]):
    """The SDK's server, with the specification's answer to an unknown tool, and for callers who may not do all."""

    async def _handle_list_tools(
        self, ctx: ServerRequestContext[Any], params: PaginatedRequestParams | None
    ) -> ListToolsResult:
        """Every tool, to every caller; one that this caller may not use says so."""
        listed = await super()._handle_list_tools(ctx, params)
        scopes = caller_of(ctx.request).scopes
        for tool in listed.tools:
            if (scope := TOOL_SCOPES.get(tool.name, RUN)) not in scopes:
                tool.description = f"Not for this caller: needs the scope {scope}. {tool.description}"
        return listed

    async def call_tool(
        self, name: str, arguments: dict[str, Any], context: Context[Any, Any] | None = None
    ) -> CallToolResult | InputRequiredResult:
        """Call a tool. Raises MCPError -32602 for an unknown one, as MCP 2026-07-28 asks for."""
        if self._tool_manager.get_tool(name) is None:
            raise MCPError(code=INVALID_PARAMS, message=f"Unknown tool: {name[:100]}")
        return await super().call_tool(name, arguments, context)


async def only_what_is_allowed(ctx: ServerRequestContext[Any, Any], call_next: CallNext) -> HandlerResult:
    """Refuse a message whose sender lacks the scope for it. HTTP says so before, as 403; this is the last door.

    Raises:
        MCPError: -32600 with the scope that is needed.
    """
    scope = needed(ctx.method, ctx.params)
    if scope is not None and scope not in caller_of(ctx.request).scopes:
        raise MCPError(code=INVALID_REQUEST, message=f"This needs the scope {scope}.", data={"scope": scope})
    return await call_next(ctx)


def surface(
    realm: Realm,
    *,
    trust: Trust | None = None,
    expose_paths: bool = False,
    config_changed: Callable[[], None] = lambda: None,
) -> list[SurfaceTool]:
    """Every tool of the surface, over one realm. `config_changed` is told when one of them changed the config."""
    trust = trust or Trust()
    return [
        *SessionTools(realm, trust=trust).tools(),
        *StreamTools(realm).tools(),
        *RealmTools(realm, trust=trust, expose_paths=expose_paths, config_changed=config_changed).tools(),
    ]


class RealmServer(SurfaceServer):
    """The MCP server of a realm."""

    def __init__(self, realm: Realm, *, trust_caller: bool, expose_paths: bool) -> None:
        self.subscriptions = Subscriptions(realm)
        """Who hears of changes; whoever serves closes it at the end."""
        trust, changed = Trust(caller=trust_caller), self.subscriptions.config_changed
        seal = Seal(realm.store.sealing_key, "request state")

        @asynccontextmanager
        async def lifespan(server: MCPServer[Any]) -> AsyncGenerator[TaskGroup]:
            await seal.open()
            async with self.subscriptions.lifespan(server) as tasks:
                yield tasks

        super().__init__(
            "meerkat",
            title="Meerkat sessions",
            version=VERSION,
            instructions=INSTRUCTIONS,
            tools=list(surface(realm, trust=trust, expose_paths=expose_paths, config_changed=changed)),
            extensions=[tasks_extension(realm, SessionTools(realm, trust=trust)), watch_app()],
            cache_hints={"tools/list": CacheHint(ttl_ms=3_600_000, scope="private")},
            subscriptions=self.subscriptions.bus,
            lifespan=lifespan,
            request_state_security=RequestStateSecurity(codec=seal, audience=realm.id),
            middleware=[only_what_is_allowed],
            log_level="WARNING",
        )
        logging.getLogger("mcp").setLevel(logging.WARNING)
        add_resources(self, realm)
        add_prompts(self, realm)
        add_completions(self, realm)
        self.subscriptions.add_to(self)


def build_server(realm: Realm, *, trust_caller: bool = False, expose_paths: bool = False) -> RealmServer:
    """The MCP server of an open realm. It does not close the realm.

    `trust_caller` lets the calling model bring tool servers of its own, change all of the config, and approve tool
    calls. `expose_paths` lets meerkat_config say where things lie on this machine.
    """
    return RealmServer(realm, trust_caller=trust_caller, expose_paths=expose_paths)
