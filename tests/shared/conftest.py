"""Hosts that share one resident server, in a runtime folder of the test's own; and a look at that server."""

import os
import shutil
import signal
import socket
import tempfile
from collections.abc import AsyncGenerator, Callable, Iterator
from contextlib import AbstractAsyncContextManager, suppress
from functools import partial
from pathlib import Path
from typing import Any

import anyio
import psutil
import pytest
from e2e.conftest import Host, hosted

from meerkat_mcp.realms import Realm, choose, open_realm
from meerkat_mcp.shared import address, hello

PATIENCE_S = 20.0
Serve = Callable[..., AbstractAsyncContextManager[Host]]


async def until(found: Callable[[], Any], within_s: float = PATIENCE_S) -> Any:
    """Wait for what another process does, which sets no event here."""
    with anyio.fail_after(within_s):
        while not (value := found()):  # noqa: ASYNC110
            await anyio.sleep(0.01)
        return value


def is_gone(pid: int) -> bool:
    """Whether a process has ended, waited for or not."""
    try:
        return psutil.Process(pid).status() == psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return True


class Residents:
    """The resident servers of the test's realm."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def paths(self) -> list[str]:
        return address.socket_paths(str(self.folder))

    def all(self) -> list[dict[str, Any]]:
        return hello.residents_of(str(self.folder))

    def one(self) -> dict[str, Any]:
        (only,) = self.all()
        return only

    def greet(self, **said: object) -> tuple[socket.socket, dict[str, Any]]:
        """Speak to the one there is as a proxy does, word by word."""
        (path,) = self.paths()
        link = hello.reach(path)
        assert link is not None
        answer = hello.ask(link, {"protocol": hello.PROTOCOL, "does": "serve", "environment": {}} | said)
        assert answer is not None
        return link, answer

    def log(self) -> str:
        return (self.folder / "resident.log").read_text()


@pytest.fixture
def runtime(monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """The folder of sockets; its name is short, as the address of a socket has to be."""
    folder = Path(tempfile.mkdtemp(prefix="mk-", dir="/tmp"))
    monkeypatch.setenv("MEERKAT_RUNTIME_DIR", str(folder))
    yield folder
    shutil.rmtree(folder)


@pytest.fixture
def residents(runtime: Path, tmp_path: Path) -> Iterator[Residents]:
    """They are ended after the test, whatever it did."""
    found = Residents(tmp_path / "den")
    yield found
    for facts in found.all():
        with suppress(ProcessLookupError):
            os.kill(int(facts["pid"]), signal.SIGKILL)


@pytest.fixture
def share(residents: Residents, tmp_path: Path) -> Serve:
    """Each call is one more host, with a proxy of its own."""
    return partial(hosted, tmp_path, "--shared")


@pytest.fixture
async def host(share: Serve) -> AsyncGenerator[Host]:
    async with share() as host:
        yield host


@pytest.fixture
def look(tmp_path: Path) -> Callable[[], AbstractAsyncContextManager[Realm]]:
    """The realm, as one more process sees it."""
    return lambda: open_realm(choose("den", state_root=tmp_path))
