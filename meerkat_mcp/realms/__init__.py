"""Realms: which one is meant, where it is kept, and everything wired together.

The only room that names concrete backends and providers and that reads the environment.
"""

from meerkat_mcp.realms.choice import RealmChoice, choose, default_state_root
from meerkat_mcp.realms.configfile import read_config
from meerkat_mcp.realms.manifest import MANIFEST_NAME, realms
from meerkat_mcp.realms.opening import open_providers, open_realm
from meerkat_mcp.realms.realm import Realm
from meerkat_mcp.realms.surroundings import surroundings
from meerkat_mcp.realms.wiring import adopt_environment, environment

__all__ = [
    "MANIFEST_NAME",
    "Realm",
    "RealmChoice",
    "adopt_environment",
    "choose",
    "default_state_root",
    "environment",
    "open_providers",
    "open_realm",
    "read_config",
    "realms",
    "surroundings",
]
