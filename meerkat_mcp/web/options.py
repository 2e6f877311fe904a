"""What can be chosen about serving HTTP, with bounds; every field is a flag of `meerkat-mcp serve --http`."""

import ipaddress
from dataclasses import dataclass
from urllib.parse import urlsplit

from meerkat_mcp.domain.errors import InvalidRequest
from meerkat_mcp.web.auth import Authenticator

PORT = 9111
LOOPBACK_NAMES = ("127.0.0.1", "localhost", "[::1]")


@dataclass(frozen=True, slots=True, kw_only=True)
class HttpOptions:
    """How a server stands on the network.

    `public_url` is how clients reach it, when that is not its own address (behind a proxy). `allowed_hosts` and
    `allowed_origins` are beyond the loopback names and `public_url`. `trusted_proxies` are the addresses whose
    X-Forwarded headers are believed. Rates are requests a second for one address.
    """

    host: str = "127.0.0.1"
    port: int = PORT
    root_path: str = ""
    public_url: str = ""
    allowed_hosts: tuple[str, ...] = ()
    allowed_origins: tuple[str, ...] = ()
    trusted_proxies: tuple[str, ...] = ()
    body_bytes_max: int = 4 * 1024 * 1024
    sessions_max: int = 1000
    session_idle_s: float = 1800
    requests_max: int = 4096
    rate_max: int = 200
    drain_s: float = 2.0
    insecure: bool = False
    own_sessions_only: bool = False
    auth: Authenticator | None = None

    @property
    def loopback(self) -> bool:
        """Whether only programs of this machine can reach it."""
        return is_loopback(self.host)

    def _opened_by(self) -> str:
        """The flag by which requests of other machines are meant to come, directly or through a proxy."""
        if not self.loopback:
            return f"--host {self.host}"
        if self.trusted_proxies:
            return "--trust-proxy"
        name = urlsplit(self.public_url).hostname
        if name is not None and not is_loopback(name):
            return "--public-url"
        return "--allow-host" if any(not is_loopback(host) for host in self.allowed_hosts) else ""

    def check(self) -> None:
        """Refuse what would be open to strangers by mistake. Raises InvalidRequest."""
        if (opens := self._opened_by()) and self.auth is None and not self.insecure:
            raise InvalidRequest(
                f"{opens} lets other machines in, and nothing asks who they are.",
                hint="Give --token-file, --token-env or --oauth-issuer; or say --insecure if the network itself is "
                "trusted.",
            )
        if self.own_sessions_only and self.auth is None:
            raise InvalidRequest(
                "--own-sessions-only needs to know who calls.", hint="Give --token-file, --token-env or --oauth-issuer."
            )


def is_loopback(host: str) -> bool:
    """Whether an address or name means this machine alone."""
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host.strip("[]")).is_loopback
    except ValueError:
        return False
