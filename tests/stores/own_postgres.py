"""A PostgreSQL server of a test's own: made, started, stopped and killed as the test likes."""

import asyncio
import os
import pwd
import shutil
import signal
import socket
import subprocess
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import asyncpg
import pytest

READY_S = 30
"""How long it may take to start, or to end."""
NOBODY = ("postgres", "nobody")
"""PostgreSQL does not run as root; one of these does instead."""


class OwnPostgres:
    """A server in a temporary folder, on a port of its own. Made by `own_postgres`."""

    def __init__(self, binaries: Path, folder: Path, as_user: Sequence[str], port: int) -> None:
        self.dsn = f"postgresql://postgres@127.0.0.1:{port}/postgres"
        self._binaries = binaries
        self._folder = folder
        self._as_user = as_user
        self._port = port
        self._process: subprocess.Popen[bytes] | None = None

    def make(self) -> None:
        """Make the files of the server; `start` starts it."""
        flags = ("-A", "trust", "-U", "postgres", "--encoding=UTF8", "--locale=C", "--no-sync")
        subprocess.run(
            [*self._as_user, self._binaries / "initdb", "-D", self._folder / "data", *flags],
            check=True,
            capture_output=True,
            timeout=READY_S,
        )

    async def start(self, **settings: object) -> None:
        """Start it, and wait until it lets somebody in."""
        settings = {"listen_addresses": "127.0.0.1", "port": self._port, "unix_socket_directories": ""} | settings
        flags = (f"--{name}={value}" for name, value in settings.items())
        self._begin([*self._as_user, self._binaries / "postgres", "-D", self._folder / "data", *flags])
        assert self._process is not None, "it was just begun"
        deadline = time.monotonic() + READY_S
        while True:
            try:
                connection: Any = await asyncpg.connect(self.dsn, timeout=5)
                await connection.close()
                return
            except (OSError, asyncpg.PostgresError, TimeoutError):
                if time.monotonic() > deadline or self._process.poll() is not None:
                    raise
            await asyncio.sleep(0.02)

    def _begin(self, command: Sequence[str | Path]) -> None:
        with (self._folder / "log").open("ab") as log:
            self._process = subprocess.Popen(command, stdout=log, stderr=log)

    async def stop(self, *, crash: bool = False) -> None:
        """End it: at once and in order, or as if it had crashed, so that it recovers when it is started again."""
        if self._process is not None:
            self._process.send_signal(signal.SIGQUIT if crash else signal.SIGINT)
            await asyncio.to_thread(self._process.wait, READY_S)
            self._process = None

    def kill(self) -> None:
        """End it however it is."""
        if self._process is not None:
            self._process.send_signal(signal.SIGQUIT)
            try:
                self._process.wait(READY_S)
            except subprocess.TimeoutExpired:
                self._process.kill()
                self._process.wait()
            self._process = None


@contextmanager
def own_postgres() -> Iterator[OwnPostgres]:
    """A server, made and not started; it is ended and removed at the end. Skips the test where there is no program."""
    binaries = _binaries()
    if binaries is None:
        if os.environ.get("CI") == "true":
            pytest.fail("no initdb and postgres here")
        pytest.skip("no initdb and postgres here")
    folder = Path(tempfile.mkdtemp(prefix="meerkat-postgres-"))  # pytest's own folders are closed to other users
    try:
        server = OwnPostgres(binaries, folder, _as_user(folder), _free_port())
        server.make()
        try:
            yield server
        finally:
            server.kill()
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def _binaries() -> Path | None:
    """Where initdb and postgres lie: on the path, or where Debian and Red Hat put them."""
    on_path = [Path(found).resolve().parent] if (found := shutil.which("initdb")) else []
    installed = sorted(Path("/usr/lib/postgresql").glob("*/bin"), reverse=True)
    elsewhere = [*installed, *sorted(Path("/usr").glob("pgsql-*/bin"), reverse=True)]
    return next((each for each in (*on_path, *elsewhere) if (each / "postgres").exists()), None)


def _as_user(folder: Path) -> Sequence[str]:
    """What comes before a command so that it does not run as root; the folder is given to that user."""
    if os.geteuid() != 0:
        return ()
    user = next(found for found in map(_user, NOBODY) if found is not None)
    os.chown(folder, user.pw_uid, user.pw_gid)
    if runs := shutil.which("setpriv"):
        return (runs, f"--reuid={user.pw_uid}", f"--regid={user.pw_gid}", "--clear-groups", "--")
    if runs := shutil.which("runuser"):
        return (runs, "-u", user.pw_name, "--")
    pytest.skip("PostgreSQL does not run as root, and there is neither setpriv nor runuser")


def _user(name: str) -> pwd.struct_passwd | None:
    try:
        return pwd.getpwnam(name)
    except KeyError:
        return None


def _free_port() -> int:
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        return found.getsockname()[1]
