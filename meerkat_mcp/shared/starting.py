"""Finding the resident server, and starting it when there is none: of all proxies that look for it at once, one does.

Standard library only, and little of it: see the package.
"""

import fcntl
import os
import select
import socket
import sys
import time

from meerkat_mcp.shared import address, hello
from meerkat_mcp.shared.flags import Wanted
from meerkat_mcp.shared.hello import Refused

START_LIMIT_S = 60.0
READY = b"ready\n"
"""What a resident server writes to its stdout when it listens; all that comes before it is told to who started it."""
ATTEMPTS_MAX = 8
DESCRIPTORS_MAX = 4096


def served(wanted: Wanted, *, again: bool = False) -> tuple[socket.socket, str]:
    """A connection to the resident server, which has said that it serves us, and what it says of itself.

    Raises:
        Refused: it does not, or there is none and it cannot be started.
    """
    try:
        path = wanted.socket_path
    except address.NoPlace as exc:
        raise Refused(str(exc)) from None
    for _ in range(ATTEMPTS_MAX):
        link = hello.reach(path) or _started(wanted, path)
        answer = None if link is None else hello.ask(link, hello.greeting(wanted, again=again))
        if link is not None and answer is not None:
            if answer.get("ok"):
                return link, str(answer.get("message"))
            if not answer.get("makes_way"):
                link.close()
                raise Refused(str(answer.get("message")))
        if link is not None:
            link.close()  # it ended while we came, or makes way for us
    raise Refused("The realm's resident server ends whenever it is reached. Its log is in the realm's folder.")


def _started(wanted: Wanted, path: str) -> socket.socket | None:
    """A connection to a server that was started, by us or by who was faster."""
    lock = os.open(f"{path[:-5]}.start", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        fcntl.flock(lock, fcntl.LOCK_EX)
        link = hello.reach(path)
        if link is None:
            _start(wanted)
            link = hello.reach(path)
        return link
    finally:
        os.close(lock)


def _start(wanted: Wanted) -> None:
    """Start a server and wait until it listens. Raises Refused with what it said instead."""
    ours, its = os.pipe()
    try:
        child = os.fork()
        if child == 0:
            try:
                os.setsid()
                if os.fork() == 0:
                    _become_resident(wanted, its)
            finally:
                os._exit(0)
        os.waitpid(child, 0)
        os.close(its)
        said, until = b"", time.monotonic() + START_LIMIT_S
        while not said.endswith(READY):
            left_s = until - time.monotonic()
            if left_s <= 0 or not select.select([ours], [], [], left_s)[0]:
                raise Refused(f"The realm's resident server did not start within {START_LIMIT_S:.0f} s.")
            chunk = os.read(ours, 65536)
            if not chunk:
                words = " ".join(said.decode(errors="replace").split())
                raise Refused(words.removeprefix("error: ") or "The realm's resident server ended as it started.")
            said += chunk
    finally:
        os.close(ours)


def _become_resident(wanted: Wanted, its: int) -> None:
    """Turn this process into the server: nothing of its starter is left but the environment."""
    nowhere = os.open(os.devnull, os.O_RDWR)
    os.dup2(nowhere, 0)
    os.dup2(its, 1)
    os.dup2(its, 2)
    os.closerange(3, DESCRIPTORS_MAX)
    os.chdir(wanted.workspace)
    # -P: a module of the folder that it works in must not take the place of one of ours.
    words = [sys.executable, "-P", "-m", "meerkat_mcp", "serve", "--resident", *wanted.as_words()]
    os.execv(sys.executable, words)
