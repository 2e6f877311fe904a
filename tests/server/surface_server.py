"""The server of a realm, as a caller of one's choice sees it."""

from dataclasses import replace
from types import SimpleNamespace
from typing import Any

from meerkat_mcp.realms import Realm
from meerkat_mcp.server.app import RealmServer, build_server
from meerkat_mcp.server.callers import CALLER_KEY, Caller


def served(realm: Realm, *, caller: Caller | None = None) -> RealmServer:
    """The server; with a `caller`, every message comes from that one, as over HTTP."""
    server = build_server(realm)

    async def from_the_caller(ctx: Any, call_next: Any) -> Any:
        return await call_next(replace(ctx, request=SimpleNamespace(scope={CALLER_KEY: caller})))

    if caller is not None:
        server.middleware.insert(0, from_the_caller)
    return server
