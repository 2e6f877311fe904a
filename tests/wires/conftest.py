"""The fake vendors, a lane for each test, and realms and server processes that are led to them."""

import os
from collections.abc import AsyncGenerator, Callable, Iterator
from contextlib import AbstractAsyncContextManager, asynccontextmanager

import anyio
import pytest
from e2e.conftest import Host, hosted
from vendors.script import Turn
from vendors.server import Server, lane
from wires.talk import GOOD, WIRES, Spoken, config
from words import run

from meerkat_mcp.realms import Realm, choose, open_realm

OpenDen = Callable[[], AbstractAsyncContextManager[Realm]]
Serve = Callable[..., AbstractAsyncContextManager[Host]]


@pytest.fixture(scope="session")
def vendors() -> Iterator[Server]:
    with Server() as server:
        yield server


@pytest.fixture(scope="session")
def warm(vendors: Server, tmp_path_factory: pytest.TempPathFactory) -> None:
    """Every SDK has been used once: the first time takes a second, which a short timeout would count."""

    async def use() -> None:
        async with open_realm(choose("warm", state_root=tmp_path_factory.mktemp("warm"))) as realm:
            await realm.set_config(config(vendors.url))
            for wire in WIRES:
                vendors.fake.always("warm", GOOD)
                await run(realm, "Hello.", **wire.settings, provider_params={})

    with pytest.MonkeyPatch.context() as patch:
        for wire in WIRES:
            patch.setenv(wire.key_name, "warm")
        anyio.run(use)


@pytest.fixture(params=WIRES, ids=str)
def wire(request: pytest.FixtureRequest) -> Spoken:
    return request.param


class Lane:
    """What one test sees of the fake; all wires share it, so its turns are played in the order of the requests."""

    def __init__(self, vendors: Server, key: str) -> None:
        self.key = key
        self.url = vendors.url
        self.fake = vendors.fake

    def queue(self, *turns: Turn) -> None:
        self.fake.queue(self.key, *turns)

    @property
    def seen(self):
        return self.fake.requests(self.key)

    def check(self, requests: int) -> None:
        """So many requests came, and the vendor would have taken each of them."""
        assert [seen.rejected for seen in self.seen] == [None] * requests


@pytest.fixture
def at_fake(vendors: Server, monkeypatch: pytest.MonkeyPatch) -> Iterator[Lane]:
    """A lane whose key is in the environment for every wire."""
    found = Lane(vendors, lane())
    for wire in WIRES:
        monkeypatch.setenv(wire.key_name, found.key)
    yield found
    vendors.fake.forget(found.key)


@pytest.fixture
def open_den(tmp_path, at_fake: Lane) -> OpenDen:
    """Each call opens the realm anew, as another life of the program would."""

    @asynccontextmanager
    async def opened() -> AsyncGenerator[Realm]:
        async with open_realm(choose("den", state_root=tmp_path)) as realm:
            if not (await realm.store.config()).document:
                await realm.set_config(config(at_fake.url))
            yield realm

    return opened


@pytest.fixture
async def realm(open_den: OpenDen) -> AsyncGenerator[Realm]:
    async with open_den() as opened:
        yield opened


@pytest.fixture
def serve(tmp_path) -> Serve:
    """Each call starts one more server process on the realm `den`, with these variables; what it says on standard
    error is appended to the file `stderr` of its state root's folder.
    """

    @asynccontextmanager
    async def start(*flags: str, **variables: str) -> AsyncGenerator[Host]:
        with (tmp_path / "stderr").open("ab") as stderr:
            async with hosted(tmp_path / "state", *flags, stderr=stderr, env=os.environ | variables) as host:
                yield host

    return start
