"""Where a realm's resident server is: a socket in a folder of the user's own, named after the realm's folder.

Standard library only, and little of it: see the package. What the realms' room knows better (`realms.choose`) is said
again here in a few lines, and a test compares the two.
"""

import os
import socket
import stat
import sys

try:  # what `hashlib` would give us, but it brings OpenSSL along: 3 MB for every proxy
    from _sha2 import sha256  # pyright: ignore  (Python 3.12)
except ImportError:
    try:
        from _sha256 import sha256  # pyright: ignore
    except ImportError:
        from hashlib import sha256  # pyright: ignore

RUNTIME_VARIABLE = "MEERKAT_RUNTIME_DIR"
PATH_BYTES_MAX = 103
"""The longest address of a socket that every system takes."""


class NoPlace(Exception):
    """There is no folder for the socket that is the user's alone; the text says what to do."""


def available() -> bool:
    """Whether this platform has what sharing a server needs."""
    return sys.platform != "win32" and hasattr(socket, "AF_UNIX")


def default_state_root() -> str:
    """The folder of realms when nobody names one."""
    named = os.environ.get("MEERKAT_STATE_ROOT")
    if named:
        return named
    data = os.environ.get("XDG_DATA_HOME", "")
    if not data.startswith("/"):
        data = "~/Library/Application Support" if sys.platform == "darwin" else "~/.local/share"
    return os.path.join(data, "meerkat", "realms")


def workspace_realm(workspace: str) -> str:
    """The id of a folder's realm."""
    return f"ws-{_digest(os.path.realpath(workspace))[:16]}"


def resolved(path: str) -> str:
    """The path as it is the same for everybody."""
    return os.path.realpath(os.path.expanduser(path))


def socket_path(folder: str, *flags: str) -> str:
    """The address of the resident server of the realm in this folder; `flags` are those it has for all its hosts.

    The folder of the socket exists then. Raises NoPlace.
    """
    path = os.path.join(runtime_folder(), f"{_realm_part(folder)}-{_digest(chr(0).join(flags))[:8]}.sock")
    if len(os.fsencode(path)) > PATH_BYTES_MAX:
        raise NoPlace(f"{path} is too long for the address of a socket. Name a shorter folder in {RUNTIME_VARIABLE}.")
    return path


def socket_paths(folder: str) -> list[str]:
    """The addresses of all resident servers of the realm in this folder that there may be. Raises NoPlace."""
    place, realm = runtime_folder(), _realm_part(folder)
    names = sorted(os.listdir(place))
    return [os.path.join(place, name) for name in names if name.startswith(realm) and name.endswith(".sock")]


def runtime_folder() -> str:
    """The folder of sockets: the user's own, closed to everybody else; made when it is not there. Raises NoPlace.

    Hosts start us with few variables of their environment, and not all with the same: so neither `XDG_RUNTIME_DIR` nor
    `TMPDIR` has a say, or two hosts of one user would look for one server in two places.
    """
    folder, user = os.environ.get(RUNTIME_VARIABLE, ""), os.getuid()
    if folder:
        folder = os.path.abspath(os.path.expanduser(folder))
    elif _is_private(f"/run/user/{user}"):
        folder = f"/run/user/{user}/meerkat"
    else:
        folder = f"/tmp/meerkat-{user}"
    try:
        os.makedirs(folder, mode=0o700, exist_ok=True)
    except OSError as exc:
        raise NoPlace(f"{folder} cannot be made: {exc.strerror}. Name another folder in {RUNTIME_VARIABLE}.") from None
    if not _is_private(folder):
        raise NoPlace(
            f"{folder} is not a folder of yours that nobody else can enter. "
            f"Make it so (chmod 700), remove it, or name another one in {RUNTIME_VARIABLE}."
        )
    return folder


def _is_private(folder: str) -> bool:
    try:
        found = os.lstat(folder)
    except OSError:
        return False
    return stat.S_ISDIR(found.st_mode) and found.st_uid == os.getuid() and not found.st_mode & 0o077


def _realm_part(folder: str) -> str:
    return _digest(f"{os.path.realpath(folder)}\0{os.getuid()}")[:16]


def _digest(text: str) -> str:
    return str(sha256(text.encode("utf-8", "surrogateescape")).hexdigest())  # pyright: ignore
