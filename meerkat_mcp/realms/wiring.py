"""Concrete backends, providers and tool servers, by their names: imported when they are needed.

So listing sessions never loads a provider.
"""

import os
from collections.abc import Mapping

from meerkat_mcp.domain.errors import StoreUnavailable
from meerkat_mcp.domain.realm import Manifest
from meerkat_mcp.domain.settings import TOOL_RESULT_CHARS_MAX
from meerkat_mcp.providers.base import Access, Provider
from meerkat_mcp.providers.wire import Http
from meerkat_mcp.realms.choice import DSN_VARIABLE, RealmChoice
from meerkat_mcp.sessions.clock import Clock
from meerkat_mcp.sessions.providers import Wire
from meerkat_mcp.stores.base import Store
from meerkat_mcp.tools.base import RunningToolServers


def environment(name: str) -> str | None:
    """A variable of the environment. A host that fills nothing in for `${NAME}` in its config hands on just that."""
    value = os.environ.get(name)
    return None if value is not None and value.startswith("${") else value


def adopt_environment(variables: Mapping[str, str]) -> None:
    """Take over the variables of whoever wants to be served: those that are new here, or have another value.

    A variable that is missing there stays as it is. What was opened with an old value (a store) goes on with it.
    """
    for name, value in variables.items():
        if name and "=" not in name and "\0" not in name + value and os.environ.get(name) != value:
            os.environ[name] = value


def tool_servers() -> RunningToolServers:
    """The tool servers of a process, none of them started."""
    from meerkat_mcp.tools.remote import McpToolServers

    return McpToolServers(environment, chars_max=TOOL_RESULT_CHARS_MAX)


def wires(http: Http) -> dict[str, Wire]:
    """How each provider is opened, where it is, and which variables its vendor documents for the key."""

    def demo(_: Access) -> Provider:
        from meerkat_mcp.providers.demo import DemoProvider

        return DemoProvider()

    def anthropic(access: Access) -> Provider:
        from meerkat_mcp.providers.anthropic import AnthropicProvider

        return AnthropicProvider(access, http)

    def openai(access: Access) -> Provider:
        from meerkat_mcp.providers.openai_responses import ResponsesProvider

        return ResponsesProvider(access, http)

    def gemini(access: Access) -> Provider:
        from meerkat_mcp.providers.gemini import GeminiProvider

        return GeminiProvider(access, http)

    def self_hosted(access: Access) -> Provider:
        from meerkat_mcp.providers.openai_chat import ChatProvider

        return ChatProvider(access, http)

    return {
        "anthropic": Wire(anthropic, "https://api.anthropic.com", ("ANTHROPIC_API_KEY",)),
        "openai": Wire(openai, "https://api.openai.com/v1", ("OPENAI_API_KEY",)),
        "gemini": Wire(gemini, "https://generativelanguage.googleapis.com", ("GEMINI_API_KEY", "GOOGLE_API_KEY")),
        "self_hosted": Wire(self_hosted),
        "demo": Wire(demo),
    }


async def opened_store(manifest: Manifest, choice: RealmChoice, clock: Clock) -> Store:
    """The store that a realm is pinned to. Raises StoreUnavailable, Corrupt."""
    match manifest.backend:
        case "memory":
            from meerkat_mcp.stores.memory import MemoryStore

            return MemoryStore()
        case "sqlite":
            from meerkat_mcp.stores.sqlite import SQLiteStore

            return await SQLiteStore.open(choice.folder, clock_ms=clock.now_ms)
        case "jsonl":
            from meerkat_mcp.stores.jsonl import JsonlStore

            return await JsonlStore.open(choice.folder, clock_ms=clock.now_ms)
        case "postgres":
            name = choice.dsn_env or manifest.dsn_env or DSN_VARIABLE
            return await _postgres(name, manifest.realm_id, clock)


async def _postgres(dsn_env: str, realm_id: str, clock: Clock) -> Store:
    try:
        from meerkat_mcp.stores.postgres import PostgresStore
    except ImportError:
        raise StoreUnavailable(
            "The PostgreSQL driver is not installed.", hint="Install asyncpg: pip install 'meerkat-mcp[postgres]'."
        ) from None
    dsn = environment(dsn_env)
    if not dsn:
        raise StoreUnavailable(
            f"Realm {realm_id!r} is on PostgreSQL, and {dsn_env} is not set.",
            hint=f"Export {dsn_env}=postgresql://USER:PASSWORD@HOST/DATABASE, or name another variable with "
            "--realm-dsn-env.",
        )
    return await PostgresStore.open(dsn, realm_id, clock_ms=clock.now_ms)
