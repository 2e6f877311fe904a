"""An MCP server whose tools are durable agent sessions.

The names below are the promise to Python programs; they are loaded when they are first used, so that
`import meerkat_mcp` costs nothing.
"""

from meerkat_mcp.domain.version import VERSION as __version__

TYPE_CHECKING = False  # as `typing` has it, whose import costs more than all the rest of this
if TYPE_CHECKING:
    from meerkat_mcp.domain.settings import Budget, Settings
    from meerkat_mcp.realms import Realm, RealmChoice, choose, open_realm
    from meerkat_mcp.server.app import build_server
    from meerkat_mcp.web.app import build_app
    from meerkat_mcp.web.options import HttpOptions

__all__ = [
    "Budget",
    "HttpOptions",
    "Realm",
    "RealmChoice",
    "Settings",
    "__version__",
    "build_app",
    "build_server",
    "choose",
    "open_realm",
]

_HOMES = {
    "Budget": "meerkat_mcp.domain.settings",
    "Settings": "meerkat_mcp.domain.settings",
    "Realm": "meerkat_mcp.realms",
    "RealmChoice": "meerkat_mcp.realms",
    "choose": "meerkat_mcp.realms",
    "open_realm": "meerkat_mcp.realms",
    "build_server": "meerkat_mcp.server.app",
    "build_app": "meerkat_mcp.web.app",
    "HttpOptions": "meerkat_mcp.web.options",
}


def __getattr__(name: str) -> object:
    if name in _HOMES:
        from importlib import import_module

        return getattr(import_module(_HOMES[name]), name)
    raise AttributeError(f"module 'meerkat_mcp' has no attribute {name!r}")
