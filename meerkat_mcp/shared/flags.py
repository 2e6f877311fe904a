"""What a host asks of a shared server: the flags of `serve --shared`, read without the grammar where they are plain.

Standard library only, and little of it: see the package. What is not understood here is left to the grammar, which
knows it, or says what is wrong.
"""

import os

from meerkat_mcp.shared import address

VALUED = {
    "--realm": "realm",
    "--instance": "instance",
    "--realm-backend": "realm_backend",
    "--realm-dsn-env": "realm_dsn_env",
    "--state-root": "state_root",
    "--context-root": "context_root",
    "--config": "config",
    "--log-level": "log_level",
    "--permission-ceiling": "permission_ceiling",
    "--idle-exit": "idle_exit",
}
"""The flags that take a value, and the attribute of `Wanted` that has it."""
PLAIN = {"--trust-caller": "trust_caller", "--expose-paths": "expose_paths", "--json": "json", "--shared": "shared"}


class Wanted:
    """What a host wants of a resident server; None and False are what was not said."""

    def __init__(self) -> None:
        self.realm: str | None = None
        self.instance: str | None = None
        self.realm_backend: str | None = None
        self.realm_dsn_env: str | None = None
        self.state_root: str | None = None
        self.context_root: str | None = None
        self.config: str | None = None
        self.log_level: str | None = None
        self.permission_ceiling: str | None = None
        self.idle_exit: str | None = None
        self.trust_caller = False
        self.expose_paths = False
        self.json = False
        self.shared = True

    @property
    def is_of_a_folder(self) -> bool:
        """Whether the realm is that of a folder, since nobody named one."""
        return not (self.realm or os.environ.get("MEERKAT_REALM"))

    @property
    def realm_id(self) -> str:
        """The realm that is meant."""
        named = self.realm or os.environ.get("MEERKAT_REALM")
        return named or address.workspace_realm(self.context_root or os.getcwd())

    @property
    def root(self) -> str:
        """Where realms are kept."""
        return address.resolved(self.state_root or address.default_state_root())

    @property
    def folder(self) -> str:
        """Where that realm is kept."""
        return os.path.join(self.root, self.realm_id)

    @property
    def config_file(self) -> str | None:
        """The operator's config file, if there is one."""
        named = self.config or os.environ.get("MEERKAT_CONFIG")
        return address.resolved(named) if named else None

    @property
    def socket_path(self) -> str:
        """The address of the server that has these flags. Raises NoPlace."""
        own = (self.permission_ceiling, self.realm_dsn_env, self.config_file)
        return address.socket_path(self.folder, *(flag or "" for flag in own))

    @property
    def workspace(self) -> str:
        """The folder in which that server works: the realm's, or home for one that has none."""
        home = os.path.expanduser("~")
        place = os.path.realpath(self.context_root or os.getcwd()) if self.is_of_a_folder else home
        return place if os.path.isdir(place) else "/"

    def as_words(self) -> list[str]:
        """The flags that a resident server is started with, in whatever folder."""
        said = {
            "--realm": self.realm_id,
            "--state-root": self.root,
            "--config": self.config_file,
            "--instance": self.instance,
            "--realm-backend": self.realm_backend,
            "--realm-dsn-env": self.realm_dsn_env,
            "--log-level": self.log_level,
            "--permission-ceiling": self.permission_ceiling,
            "--idle-exit": self.idle_exit,
        }
        return [word for flag, value in said.items() if value is not None for word in (flag, value)]


def wanted(words: list[str]) -> Wanted | None:
    """What was asked for, in these words alone; None when it is not a shared server, or not this plain."""
    if "--shared" not in words or not address.available():
        return None
    asked, left = Wanted(), iter(words)
    for word in left:
        flag, equals, value = word.partition("=")
        if flag in VALUED:
            value = value if equals else next(left, "")
            if not value or value.startswith("-"):
                return None
            setattr(asked, VALUED[flag], value)
        elif word in PLAIN:
            setattr(asked, PLAIN[word], True)
        else:
            return None
    return asked if (asked.idle_exit or "0").isdigit() else None
