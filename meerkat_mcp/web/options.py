"""What can be chosen about serving HTTP, with bounds; every field is a flag of `meerkat-mcp serve --http`."""

import ipaddress
import re
from dataclasses import dataclass
from urllib.parse import urlsplit

from meerkat_mcp.domain.errors import InvalidRequest
from meerkat_mcp.web.auth import Authenticator

PORT = 9111
REPLICA_URL_CHARS_MAX = 200
LOOPBACK_NAMES = ("127.0.0.1", "localhost", "[::1]")

_REPLICA_URL = re.compile(r"https?://([A-Za-z0-9._-]+|\[[0-9A-Fa-f:.]+\])(:[0-9]{1,5})?(/[A-Za-z0-9._~-]+)*/?")


@dataclass(frozen=True, slots=True, kw_only=True)
class HttpOptions:
    """How a server stands on the network.

    `public_url` is how clients reach it, when that is not its own address (behind a proxy). `allowed_hosts` and
    `allowed_origins` are beyond the loopback names and `public_url`. `trusted_proxies` are the addresses whose
    X-Forwarded headers are believed. `replica_url` is how other processes of the realm reach this one, to send on what
    is for an MCP session here. Rates are requests a second for one address.
    """

    host: str = "127.0.0.1"
    port: int = PORT
    root_path: str = ""
    public_url: str = ""
    replica_url: str = ""
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

    @property
    def replica_hosts(self) -> tuple[str, ...]:
        """By which Host other replicas call this one."""
        host = urlsplit(self.replica_url).hostname
        return (f"[{host}]" if ":" in host else host,) if host else ()

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
        """Refuse what would be open to strangers by mistake, and what is no address. Raises InvalidRequest."""
        if self.replica_url:
            checked_replica_url(self.replica_url)
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


def checked_replica_url(url: str) -> str:
    """An address of a replica, without a `/` at its end. Raises InvalidRequest: it is none."""
    try:
        written_well = _REPLICA_URL.fullmatch(url) is not None and urlsplit(url).port != 0
    except ValueError:  # a port that is none
        written_well = False
    if not written_well or len(url) > REPLICA_URL_CHARS_MAX or is_unspecified(url):
        raise InvalidRequest(
            f"{url[:100]!r} is no address of a replica.",
            hint="It is how the others reach this very process: http://10.0.0.7:9111, say.",
        )
    return url.rstrip("/")


def is_unspecified(url: str) -> bool:
    """Whether the host of an address is no certain one, such as 0.0.0.0."""
    try:
        return ipaddress.ip_address(urlsplit(url).hostname or "").is_unspecified
    except ValueError:
        return False


def is_loopback(host: str) -> bool:
    """Whether an address or name means this machine alone."""
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host.strip("[]")).is_loopback
    except ValueError:
        return False
