"""Realms with something of everything in them, on every backend that lasts."""

import secrets
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import anyio
import pytest
from stores.conftest import postgres_dsn  # noqa: F401  # a fixture
from words import CALL, WEATHER, resume, run

from meerkat_mcp.domain.recorded import Recorded
from meerkat_mcp.realms import MANIFEST_NAME, Realm, RealmChoice, choose, open_realm
from meerkat_mcp.realms.census import glance
from meerkat_mcp.realms.manifest import read_manifest
from meerkat_mcp.sessions.clock import SystemClock
from meerkat_mcp.stores.base import Selection, Store, Stream

BACKENDS = ("sqlite", "jsonl", "postgres")
DSN_VARIABLE = "MEERKAT_TEST_DSN"
CLOCK = SystemClock()
LONG_S = 60

MakeChoice = Callable[..., RealmChoice]


@pytest.fixture
def state_root(tmp_path: Path) -> Path:
    return tmp_path / "state"


@pytest.fixture
def chosen(state_root: Path, request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> MakeChoice:
    """Chooses a realm; one on PostgreSQL has a name of its own there."""
    mark = secrets.token_hex(4)
    if "postgres" in request.node.name:  # a test that needs it says so
        monkeypatch.setenv(DSN_VARIABLE, request.getfixturevalue("postgres_dsn"))

    def choice(name: str, backend: str | None = None, **how: Any) -> RealmChoice:
        if backend == "postgres":
            how = {"dsn_env": DSN_VARIABLE} | how
            name = f"{name}-{mark}"
        return choose(name, backend=backend, **({"state_root": state_root} | how))

    return choice


@asynccontextmanager
async def looked_at(choice: RealmChoice) -> AsyncIterator[Realm]:
    async with open_realm(choice, turns=False, must_exist=True) as realm:
        yield realm


async def fill(choice: RealmChoice) -> list[str]:
    """Sessions with tool calls, pieces of text that were superseded, an archived one, a fork, claims and streams."""
    async with open_realm(choice) as realm:
        for number in (1, 2):
            await realm.set_config({"agent": {"max_steps": number}})
        ids = [(await run(realm, f"[[say one two three {n}]]", key=f"key-{n}"))[0].session_id for n in range(3)]
        await resume(realm, ids[1], "[[reason hm]][[say four five six]]")
        waiting, _ = await run(realm, CALL, tools=(WEATHER,))
        await realm.shelf.archive(ids[2])
        await realm.shelf.fork(ids[1])
        for number, session_id in enumerate(ids[:2]):
            stream = Stream(stream_id=f"evt-{number}", session_id=session_id, after_seq=2, used_ms=CLOCK.now_ms())
            await realm.store.put_stream(stream)
        return [*ids, waiting.session_id]


async def known(choice: RealmChoice) -> None:
    """Wait until the server that has this realm is known to be there, with its name."""
    manifest = read_manifest(choice.folder / MANIFEST_NAME)
    with anyio.fail_after(LONG_S):
        while True:
            live = (await glance(manifest, choice, CLOCK)).live
            if any(not who.startswith("somebody") for who in live):
                return
            await anyio.sleep(0.01)


@asynccontextmanager
async def kept(choice: RealmChoice) -> AsyncIterator[Store]:
    """The store of a realm, alone."""
    async with looked_at(choice) as realm:
        yield realm.store


async def everything(store: Store) -> dict[str, Any]:
    """All that a realm keeps, for comparing."""
    found: dict[str, Any] = {"config": await store.config()}
    for session_id in await store.matching("", limit=1000):
        claims, streams = await store.kept_with(session_id)
        found[session_id] = {
            "log": await whole(store, session_id),
            "session": await store.load(session_id),
            "claims": sorted(claims, key=lambda claim: claim.key),
            "streams": sorted(streams, key=lambda stream: stream.stream_id),
        }
    found["listed"] = [session.id for session in await store.sessions(Selection(archived=None), limit=1000)]
    return found


async def whole(store: Store, session_id: str) -> list[Recorded]:
    events: list[Recorded] = []
    while page := await store.read(session_id, after=events[-1].seq if events else 0):
        events += page
    return events
