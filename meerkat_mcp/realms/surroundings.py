"""What the environment says to a process of a realm: names of variables and whether they are set, never a value."""

from meerkat_mcp.domain.config import Config
from meerkat_mcp.domain.messages import JsonObject
from meerkat_mcp.realms.choice import CONFIG_VARIABLE, DSN_VARIABLE, REALM_VARIABLE, STATE_ROOT_VARIABLE
from meerkat_mcp.realms.realm import Realm
from meerkat_mcp.realms.wiring import environment

_CHOOSING = {CONFIG_VARIABLE: "config file", REALM_VARIABLE: "realm", STATE_ROOT_VARIABLE: "state root"}


async def surroundings(realm: Realm, config: Config) -> list[JsonObject]:
    """Each variable that matters to this realm here: what for, whether it is set, and whether it is in force.

    One that is set is not in force where a flag said something else.
    """
    choice, manifest = realm.choice, realm.manifest
    found = [_row(name, what, in_force=name in choice.variables) for name, what in _CHOOSING.items()]
    if manifest.backend == "postgres":
        found.append(_row(choice.dsn_env or manifest.dsn_env or DSN_VARIABLE, "database"))
    for about in await realm.providers.about(config):
        name = str(about["provider"])
        if "kind" not in about and "key_variable" in about:
            found.append(_row(str(about["key_variable"]), f"providers.{name}"))
    for name, server in config.self_hosted.items():
        if server.api_key_env is not None:
            found.append(_row(server.api_key_env, f"self_hosted.{name}"))
    for name, server in config.mcp_servers.items():
        found += [_row(variable, f"mcp_servers.{name}") for variable in sorted(server.references)]
    return found


def _row(variable: str, used_for: str, *, in_force: bool | None = None) -> JsonObject:
    is_set = bool(environment(variable))
    in_force = is_set if in_force is None else in_force
    return {"variable": variable, "used_for": used_for, "is_set": is_set, "in_force": in_force}
