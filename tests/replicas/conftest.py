"""Two servers of one realm behind a plain round-robin proxy: on PostgreSQL, as on two machines, and on SQLite."""

import os
import re
import secrets
import sys
from collections.abc import AsyncGenerator, Awaitable, Callable, Iterator
from contextlib import AbstractAsyncContextManager, AsyncExitStack, ExitStack, asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import anyio
import httpx2
import pytest
from anyio.abc import Process
from clients import serving
from mcp import Client
from stores.conftest import postgres_dsn as postgres_dsn
from web.conftest import Server

PATIENCE_S = 30.0
QUICK = {"delta_ms": 0}
TESTS = Path(__file__).parent.parent
DSN_VARIABLE = "MEERKAT_TEST_REPLICAS_DSN"
ERAS: dict[str, dict[str, Any]] = {"2026": {}, "2025": {"mode": "legacy"}}


@dataclass(frozen=True)
class Site:
    """A realm with two servers, and the proxy before them."""

    url: str
    servers: tuple[str, str]

    def client(self, **options: Any) -> Client:
        return Client(f"{self.url}/mcp", **options)

    async def get(self, path: str, **headers: str) -> httpx2.Response:
        async with httpx2.AsyncClient(timeout=PATIENCE_S) as web:
            return await web.get(self.url + path, headers=headers)


@pytest.fixture(params=ERAS)
def era(request: pytest.FixtureRequest) -> dict[str, Any]:
    """What makes a client one of that era."""
    return ERAS[request.param]


BACKENDS = [
    pytest.param(backend, marks=pytest.mark.xdist_group(f"replicas-{backend}"))  # one site for all of its tests
    for backend in ("postgres", "sqlite")
]


@pytest.fixture(scope="session", params=BACKENDS)
def site(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    """For all tests of a process. On PostgreSQL each server has a state root of its own, as on a machine of its own."""
    roots, backend = tmp_path_factory.mktemp("roots"), request.param
    dsn = request.getfixturevalue("postgres_dsn") if backend == "postgres" else ""
    with ExitStack() as running:
        servers = [
            running.enter_context(
                serving.started(
                    [sys.executable, *flags(roots, name, backend, "--trust-caller")],
                    folder=roots,
                    env={**os.environ, DSN_VARIABLE: dsn},
                )
            )
            for name in ("one", "other")
        ]
        command = [sys.executable, "-m", "replicas.proxy", *servers]
        yield Site(running.enter_context(serving.started(command, folder=TESTS)), (servers[0], servers[1]))


def flags(roots: Path, name: str, backend: str, *more: str, port: int = 0) -> list[str]:
    """How Python runs one of the servers of the realm `den`, or of that folder's own on PostgreSQL."""
    realm = "den" if backend == "sqlite" else f"den-{roots.parent.name[-20:]}-{roots.name}"[:64]
    root = roots / (name if backend == "postgres" else "shared")
    where = ["--realm", realm, "--state-root", str(root), "--realm-backend", backend]
    where += ["--realm-dsn-env", DSN_VARIABLE] if backend == "postgres" else []
    return ["-m", "meerkat_mcp", "serve", "--http", "--port", str(port), *where, *more]


class Pair:
    """Two servers on PostgreSQL that a test may end, kill and start again, each at its own address."""

    def __init__(self, start: Callable[..., Any]) -> None:
        self._start = start
        self.servers: list[Server] = []
        self.url = ""

    async def again(self, number: int) -> None:
        """Start one anew that has ended, where it was."""
        port = int(self.servers[number].url.rpartition(":")[2])
        self.servers[number] = await self._start(number, port)

    def client(self, **options: Any) -> Client:
        return Client(f"{self.url}/mcp", **options)


OpenPair = Callable[..., AbstractAsyncContextManager[Pair]]


@pytest.fixture
def open_pair(postgres_dsn: str, tmp_path: Path) -> OpenPair:
    """Each call starts two servers with these flags, and the proxy before them."""
    roots = tmp_path / f"r{secrets.token_hex(4)}"
    roots.mkdir()

    @asynccontextmanager
    async def opened(*more: str) -> AsyncGenerator[Pair]:
        async with AsyncExitStack() as running, anyio.create_task_group() as tasks:

            async def start(number: int, port: int = 0) -> Server:
                command = [sys.executable, *flags(roots, f"root{number}", "postgres", *more, port=port)]
                env = {**os.environ, DSN_VARIABLE: postgres_dsn}
                process = await anyio.open_process(command, stdin=None, env=env, cwd=roots)
                running.push_async_callback(closed, process)
                server = Server(process)
                tasks.start_soon(server.listen)
                server.url = (await server.until_said(r"MCP: (http\S+)/mcp\)"))[1]
                return server

            pair = Pair(start)
            try:
                pair.servers = [await start(number) for number in range(2)]
                urls = [server.url for server in pair.servers]
                command = [sys.executable, "-m", "replicas.proxy", *urls]
                proxy = await anyio.open_process(command, stdin=None, cwd=TESTS)
                running.push_async_callback(closed, proxy)
                said = Server(proxy)
                tasks.start_soon(said.listen)
                pair.url = (await said.until_said(r"(http://127\S+)\n"))[1]
                yield pair
            finally:
                tasks.cancel_scope.cancel()

    return opened


async def closed(process: Process) -> None:
    if process.returncode is None:
        process.kill()
    with anyio.CancelScope(shield=True):
        await process.aclose()


async def said(client: Client, tool: str, **arguments: Any) -> dict[str, Any]:
    """The structured result of a call that is no error."""
    with anyio.fail_after(PATIENCE_S):
        result = await client.call_tool(tool, arguments)
    assert not result.is_error, result.content
    assert result.structured_content is not None
    return result.structured_content


async def run(client: Client, prompt: str, **arguments: Any) -> dict[str, Any]:
    return await said(client, "meerkat_run", prompt=prompt, **({"provider_params": QUICK} | arguments))


async def until(look: Callable[[], Awaitable[bool]]) -> None:
    """Look again and again, until it is so."""
    with anyio.fail_after(PATIENCE_S):
        while True:
            if await look():
                return
            await anyio.sleep(0.02)


async def says(client: Client, session_id: str, text: str) -> None:
    """Until the turn of a session said that."""

    async def said_it() -> bool:
        return text in (await said(client, "meerkat_read", session_id=session_id))["turn"]["text"]

    await until(said_it)


def refused_as(code: str, result: Any) -> bool:
    """Whether a result is an error with that code."""
    return result.is_error and re.search(rf'"code":\s*"{code}"', result.content[0].text) is not None
