"""A realm's server on a real socket, and a reader of its events."""

import json
import socket
from collections.abc import AsyncGenerator, Generator
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import anyio
import httpx2
import uvicorn

from meerkat_mcp.realms import Realm, choose, open_realm
from meerkat_mcp.web.app import RealmApp, build_app
from meerkat_mcp.web.options import HttpOptions

PATIENCE_S = 20.0


@dataclass
class Site:
    """A running server: the realm behind it, its app, and where it is."""

    realm: Realm
    app: RealmApp
    url: str


@asynccontextmanager
async def site(state_root: Path, *, root_path: str = "", **options: Any) -> AsyncGenerator[Site]:
    """Serve the realm `den`."""
    async with open_realm(choose("den", state_root=state_root)) as realm:
        app = build_app(realm, HttpOptions(root_path=root_path, drain_s=0, **options))
        server = Announcing(uvicorn.Config(app, port=0, root_path=root_path, log_level="warning", ws="none"))
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(server.serve)
            try:
                with anyio.fail_after(PATIENCE_S):
                    await server.ready.wait()
                yield Site(realm, app, f"http://127.0.0.1:{server.servers[0].sockets[0].getsockname()[1]}")
            finally:
                with anyio.CancelScope(shield=True):
                    await app.end()
                server.should_exit = True


class Announcing(uvicorn.Server):
    """A server that says when it listens, and leaves the test's signals alone: of two servers whose ends cross, one
    would leave a handler behind, from which the SDK's streams take it that they have to end.
    """

    def __init__(self, config: uvicorn.Config) -> None:
        super().__init__(config)
        self.ready = anyio.Event()

    @contextmanager
    def capture_signals(self) -> Generator[None]:
        yield

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        await super().startup(sockets)
        self.ready.set()


@dataclass(frozen=True)
class Message:
    """A server-sent event."""

    event: str
    id: str
    data: str

    @property
    def seq(self) -> int:
        return int(self.id)

    def json(self) -> dict:
        return json.loads(self.data)


@asynccontextmanager
async def reading(url: str, **headers: str) -> AsyncGenerator[AsyncGenerator[Message]]:
    """The messages of a stream; leaving closes its connection."""
    async with httpx2.AsyncClient(timeout=PATIENCE_S) as client, client.stream("GET", url, headers=headers) as response:
        assert response.status_code == 200, await response.aread()
        yield _messages(response)


async def _messages(response: httpx2.Response) -> AsyncGenerator[Message]:
    fields: dict[str, str] = {}
    async for line in response.aiter_lines():
        if line:
            name, _, value = line.partition(": ")
            fields[name] = value
        else:
            if "data" in fields:
                yield Message(fields.get("event", ""), fields.get("id", ""), fields["data"])
            fields = {}
