"""Realms: which one is meant, where it is kept, and everything wired together.

The only room that names concrete backends and providers and that reads the environment.
"""

from meerkat_mcp.realms.choice import RealmChoice, choose, default_state_root
from meerkat_mcp.realms.manifest import MANIFEST_NAME, realms
from meerkat_mcp.realms.opening import open_providers, open_realm
from meerkat_mcp.realms.realm import Realm
from meerkat_mcp.realms.wiring import environment

__all__ = [
    "MANIFEST_NAME",
    "Realm",
    "RealmChoice",
    "choose",
    "default_state_root",
    "environment",
    "open_providers",
    "open_realm",
    "realms",
]
