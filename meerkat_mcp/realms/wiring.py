"""Concrete backends, providers and tool servers, by their names: imported when they are needed.

So listing sessions never loads a provider.
"""

import os
from pathlib import Path

from meerkat_mcp.domain.realm import Manifest
from meerkat_mcp.domain.settings import TOOL_RESULT_CHARS_MAX
from meerkat_mcp.providers.base import Access, Provider
from meerkat_mcp.providers.wire import Http
from meerkat_mcp.sessions.clock import Clock
from meerkat_mcp.sessions.providers import Wire
from meerkat_mcp.stores.base import Store
from meerkat_mcp.tools.base import RunningToolServers


def environment(name: str) -> str | None:
    """A variable of the environment. A host that fills nothing in for `${NAME}` in its config hands on just that."""
    value = os.environ.get(name)
    return None if value is not None and value.startswith("${") else value


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


async def opened_store(manifest: Manifest, folder: Path, clock: Clock) -> Store:
    """The store that a realm is pinned to. Raises StoreUnavailable, Corrupt."""
    match manifest.backend:
        case "memory":
            from meerkat_mcp.stores.memory import MemoryStore

            return MemoryStore()
        case "sqlite":
            from meerkat_mcp.stores.sqlite import SQLiteStore

            return await SQLiteStore.open(folder, clock_ms=clock.now_ms)
