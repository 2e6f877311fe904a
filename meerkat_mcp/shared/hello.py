"""What is said on a resident server's socket before any MCP: one line each way, JSON.

The proxy says what it is and wants, with all variables of its host's environment: keys come from there. The server says
`ok`, or why not. Of the first line `protocol`, `version` and `does`, of the answer `ok`, `makes_way` and `message` mean
the same in every version.

Standard library only, and little of it: see the package.
"""

import json
import os
import socket
from collections.abc import Mapping

from meerkat_mcp.domain.version import VERSION
from meerkat_mcp.shared import address
from meerkat_mcp.shared.flags import Wanted

PROTOCOL = 1
HELLO_BYTES_MAX = 8 * 1024 * 1024
ANSWER_LIMIT_S = 10.0

Said = dict[str, object]


class Refused(Exception):
    """The host cannot be served; the text says why, and what to do."""


def greeting(wanted: Wanted, *, again: bool) -> Said:
    """The first line of a proxy. `again`: its host was served before, by a server that has ended."""
    return {
        "protocol": PROTOCOL,
        "version": VERSION,
        "does": "serve",
        "again": again,
        "backend": wanted.realm_backend,
        "instance": wanted.instance,
        "trust_caller": wanted.trust_caller,
        "expose_paths": wanted.expose_paths,
        "environment": dict(os.environ),
    }


def line(said: Mapping[str, object]) -> bytes:
    """What is said, as a line."""
    return json.dumps(said).encode() + b"\n"


def ask(link: socket.socket, said: Said) -> Said | None:
    """What the server answers; None when it is gone. Raises Refused when it says nothing, or nothing that we know."""
    link.settimeout(ANSWER_LIMIT_S)
    heard = b""
    try:
        link.sendall(line(said))
        while not heard.endswith(b"\n"):
            chunk = link.recv(65536)
            if not chunk:
                return None
            heard += chunk
    except TimeoutError:
        raise Refused(
            "The realm's resident server does not answer. See its processes, or end it: meerkat-mcp resident stop."
        ) from None
    except OSError:
        return None
    link.settimeout(None)
    return json.loads(heard)


def reach(path: str) -> socket.socket | None:
    """A connection to who listens there, if anybody does."""
    link = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    try:
        link.connect(path)
    except OSError:
        link.close()
        return None
    return link


def ask_once(path: str, does: str) -> Said | None:
    """What the server there answers to `status` or `stop`; None when there is none. Raises Refused."""
    link = reach(path)
    if link is None:
        return None
    with link:
        return ask(link, {"protocol": PROTOCOL, "version": VERSION, "does": does})


def residents_of(folder: str) -> list[Said]:
    """What each resident server of the realm in this folder says of itself; none where there can be none.

    Each has `realm_id`, `pid`, `version`, `started_ms`, `hosts`, `running_turns`, `idle_exit_s`, `permission_ceiling`.

    Raises:
        Refused: one does not answer.
        NoPlace: the folder of sockets is not to be trusted.
    """
    if not address.available():
        return []
    found = (ask_once(path, "status") for path in address.socket_paths(folder))
    return [facts for facts in found if facts is not None]
