"""Real tool servers, a fake model on all wires that calls their tools, and hosts of real `meerkat_mcp` processes."""

import subprocess
import sys
from collections.abc import AsyncGenerator, Awaitable, Callable, Iterator
from contextlib import AbstractAsyncContextManager, asynccontextmanager, suppress
from pathlib import Path
from typing import Any

import psutil
import pytest
from mcp.client.stdio import get_default_environment
from real_tools import installing, wires
from real_tools.hosts import PATIENCE_S, Host, JsonObject, ProcessHost
from real_tools.overhearing import Overheard, overhear
from tools.processes import ended
from vendors.lanes import Seen
from vendors.script import Part, Text, Turn
from vendors.server import Server, lane

from meerkat_mcp.realms import Realm, choose, open_realm
from meerkat_mcp.server.app import build_server

Configure = Callable[..., Awaitable[None]]
Serve = Callable[..., AbstractAsyncContextManager[ProcessHost]]
Inside = Callable[..., AbstractAsyncContextManager[Host]]


# ── the servers ──


@pytest.fixture(scope="session")
def kept(pytestconfig: pytest.Config) -> Path:
    """A folder that outlives the tests, so that the next ones find the servers there."""
    return Path(pytestconfig.cache.mkdir("real_tools"))


@pytest.fixture(scope="session")
def npm_servers(kept: Path) -> Path:
    return installing.from_npm(kept) / "node_modules" / "@modelcontextprotocol"


@pytest.fixture(scope="session")
def pypi_servers(kept: Path) -> Path:
    return installing.from_pypi(kept)


@pytest.fixture
def work(tmp_path: Path) -> Path:
    """The folder that the agent works in."""
    folder = (tmp_path / "work").resolve()
    folder.mkdir()
    (folder / "notes.txt").write_text("buy milk")
    return folder


@pytest.fixture
def files(npm_servers: Path, work: Path) -> JsonObject:
    """The filesystem server, for that folder."""
    return {"command": installing.node(), "args": [str(npm_servers / "server-filesystem/dist/index.js"), str(work)]}


@pytest.fixture
def everything(npm_servers: Path) -> JsonObject:
    """The server that shows everything there is in MCP, over stdio."""
    return {"command": installing.node(), "args": [str(npm_servers / "server-everything/dist/index.js"), "stdio"]}


@pytest.fixture
def everything_http(npm_servers: Path) -> Iterator[JsonObject]:
    """The same over streamable HTTP."""
    with installing.served_on_a_port(npm_servers / "server-everything/dist/index.js") as port:
        yield {"url": f"http://127.0.0.1:{port}/mcp"}


@pytest.fixture
def git(pypi_servers: Path, work: Path) -> JsonObject:
    """The git server, for the agent's folder, which is a repository with one commit."""
    program = installing.program("git")
    for command in (
        ("init", "--quiet", "--initial-branch", "main"),
        ("config", "user.name", "Test"),
        ("config", "user.email", "test@example.org"),
        ("add", "notes.txt"),
        ("commit", "--quiet", "--message", "First notes"),
    ):
        subprocess.run([program, *command], cwd=work, check=True, timeout=PATIENCE_S)
    args = ["-m", "mcp_server_git", "--repository", str(work)]
    return {"command": sys.executable, "args": args, "env": {"PYTHONPATH": str(pypi_servers)}}


@pytest.fixture
async def overheard() -> AsyncGenerator[Overheard]:
    """Hears what is said to tool servers that `overheard.through` has wrapped."""
    async with overhear() as listening:
        yield listening


# ── the model ──


class Model:
    """The fake model, as one test sees it."""

    def __init__(self, server: Server) -> None:
        self.url = server.url
        self.key = lane()
        self._fake = server.fake

    def will(self, *steps: Part | list[Part], ends: bool = True) -> None:
        """Its next steps: what it says or calls in each. Then it says done, if it gets there."""
        turns = [Turn(step if isinstance(step, list) else [step]) for step in steps]
        self._fake.queue(self.key, *turns, *([Turn([Text("done")])] if ends else []))

    @property
    def requests(self) -> list[Seen]:
        """What it was asked."""
        return self._fake.requests(self.key)


@pytest.fixture(scope="session")
def vendors() -> Iterator[Server]:
    with Server() as server:
        yield server


@pytest.fixture
def model(vendors: Server) -> Model:
    return Model(vendors)


# ── the realm, and who uses it ──


@pytest.fixture
def environment(model: Model) -> dict[str, str]:
    """What a server process has: the basic variables, and a key for each wire."""
    return get_default_environment() | dict.fromkeys(wires.KEYS, model.key)


@pytest.fixture
def configure(tmp_path: Path, model: Model) -> Configure:
    """Do what a person does with `meerkat-mcp config patch`: tool servers, and whatever else is given."""

    async def patch(servers: dict[str, JsonObject], **more: Any) -> None:
        async with open_realm(choose("den", state_root=tmp_path), turns=False) as realm:
            await realm.patch_config(wires.config(model.url))
            await realm.patch_config({"mcp_servers": servers, "agent": {"mcp_servers": list(servers)}})
            await realm.patch_config(more)

    return patch


@pytest.fixture
def serve(tmp_path: Path, environment: dict[str, str]) -> Serve:
    """A server process on the realm, with a host. It leaves, and must leave no process behind."""

    @asynccontextmanager
    async def start(*flags: str, **how: Any) -> AsyncGenerator[ProcessHost]:
        host = ProcessHost(tmp_path, environment, *flags, **how)
        left: list[psutil.Process] = []
        try:
            async with host.client:
                try:
                    yield host
                finally:
                    left = host.tree()
            assert await ended(*(process.pid for process in left)), "it left a tool server behind"
        finally:
            for process in left:
                with suppress(psutil.NoSuchProcess):
                    process.kill()

    return start


@pytest.fixture
def inside(tmp_path: Path, environment: dict[str, str], monkeypatch: pytest.MonkeyPatch) -> Inside:
    """The realm's MCP server in this process, with a host: quicker to start."""

    @asynccontextmanager
    async def start(*, trust_caller: bool = False, **how: Any) -> AsyncGenerator[Host]:
        for name, value in environment.items():
            monkeypatch.setenv(name, value)
        async with open_realm(choose("den", state_root=tmp_path)) as realm:
            host = Host(build_server(realm, trust_caller=trust_caller), **how)
            async with host.client:
                yield host

    return start


@pytest.fixture
def start(request: pytest.FixtureRequest) -> Serve | Inside:
    """One of these two: what a test is parametrised with."""
    return request.getfixturevalue(request.param)


@pytest.fixture
def look(tmp_path: Path) -> Callable[[], AbstractAsyncContextManager[Realm]]:
    """The realm, as one more process sees it."""
    return lambda: open_realm(choose("den", state_root=tmp_path), turns=False)
