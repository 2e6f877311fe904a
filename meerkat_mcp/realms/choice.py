"""Which realm is meant, where it is kept, and as whom it is opened: the flags of every command, checked."""

import hashlib
import os
import re
from dataclasses import dataclass
from pathlib import Path

from meerkat_mcp.domain.errors import InvalidRequest
from meerkat_mcp.domain.realm import Backend, checked_backend, checked_id
from meerkat_mcp.domain.settings import PermissionMode
from meerkat_mcp.sessions.clock import Clock, SystemClock

STATE_ROOT_VARIABLE = "MEERKAT_STATE_ROOT"
REALM_VARIABLE = "MEERKAT_REALM"
CONFIG_VARIABLE = "MEERKAT_CONFIG"
DSN_VARIABLE = "MEERKAT_POSTGRES_DSN"

_VARIABLE = re.compile(r"[A-Za-z_][A-Za-z0-9_]{0,99}")


@dataclass(frozen=True, slots=True)
class RealmChoice:
    """Which realm is meant, and as whom: the flags of every command, checked.

    `dsn_env` is the variable with the address of a PostgreSQL database, if not the one that the realm was made with;
    `config_file` an operator's, see `configfile`. `variables` are those of the environment that had a say in it.
    """

    realm_id: str
    state_root: Path
    backend: Backend | None = None
    dsn_env: str | None = None
    instance_id: str | None = None
    generated: bool = False
    permission_ceiling: PermissionMode | None = None
    config_file: Path | None = None
    variables: frozenset[str] = frozenset()

    @property
    def folder(self) -> Path:
        """Where the realm is kept."""
        return self.state_root / self.realm_id


def choose(
    realm_id: str | None = None,
    *,
    isolated: bool = False,
    instance_id: str | None = None,
    backend: str | None = None,
    dsn_env: str | None = None,
    state_root: str | Path | None = None,
    workspace: str | Path | None = None,
    permission_ceiling: PermissionMode | None = None,
    config_file: str | Path | None = None,
    clock: Clock | None = None,
) -> RealmChoice:
    """Make a choice of what a caller said: a named realm, a new one, or the one of a workspace.

    `permission_ceiling` holds for turns of this process, whatever the realm's config allows beyond it. `config_file` is
    an operator's, TOML or JSON: what holds here where the realm's config says nothing.

    Raises:
        InvalidRequest: an id that is none, both a name and `isolated`, an unknown backend, or a variable that is none.
    """
    if dsn_env is not None and not _VARIABLE.fullmatch(dsn_env):
        raise InvalidRequest(
            "--realm-dsn-env takes the name of a variable.",
            hint="Export the address as MEERKAT_POSTGRES_DSN, say, and name that: passwords are for the environment.",
        )
    asked = {REALM_VARIABLE: not (realm_id or isolated), STATE_ROOT_VARIABLE: state_root is None}
    asked[CONFIG_VARIABLE] = config_file is None
    variables = frozenset(name for name, is_asked in asked.items() if is_asked and os.environ.get(name))
    realm_id = realm_id or (os.environ[REALM_VARIABLE] if REALM_VARIABLE in variables else None)
    config_file = config_file or (os.environ[CONFIG_VARIABLE] if CONFIG_VARIABLE in variables else None)
    if realm_id and isolated:
        raise InvalidRequest("A realm cannot be both named and isolated.", hint="Leave out --realm or --isolated.")
    generated = not realm_id and (isolated or workspace is None)
    if realm_id:
        name = checked_id(realm_id)
    elif workspace is None or generated:
        name = f"realm-{(clock or SystemClock()).new_id()}"
    else:
        name = f"ws-{hashlib.sha256(str(Path(workspace).resolve()).encode()).hexdigest()[:16]}"
    return RealmChoice(
        realm_id=name,
        state_root=default_state_root() if state_root is None else Path(state_root).expanduser().resolve(),
        backend=checked_backend(backend) if backend else None,
        dsn_env=dsn_env,
        instance_id=checked_id(instance_id, "instance") if instance_id else None,
        generated=generated,
        permission_ceiling=permission_ceiling,
        config_file=Path(config_file).expanduser().resolve() if config_file is not None else None,
        variables=variables,
    )


def default_state_root() -> Path:
    """Where realms lie when nobody says where: `MEERKAT_STATE_ROOT`, else the platform's folder for data."""
    from platformdirs import user_data_path

    named = os.environ.get(STATE_ROOT_VARIABLE)
    return Path(named).expanduser().resolve() if named else user_data_path("meerkat", appauthor=False) / "realms"
