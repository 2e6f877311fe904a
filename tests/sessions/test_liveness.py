"""Who counts as dead: not who was kept from saying that he lives."""

import anyio
import pytest
from words import PATIENCE_S, outcome, settings

from meerkat_mcp.realms import choose, open_realm
from meerkat_mcp.sessions import turns
from meerkat_mcp.sessions.clock import SystemClock
from meerkat_mcp.stores.filelock import FileLock

pytestmark = pytest.mark.anyio

LEASE_S = 1.0


class Wall(SystemClock):
    """The clock of a machine that sleeps: it goes on while nothing else does."""

    slept_ms = 0

    def now_ms(self) -> int:
        return super().now_ms() + self.slept_ms


@pytest.fixture(autouse=True)
def short_lease(monkeypatch):
    monkeypatch.setattr(turns, "LEASE_S", LEASE_S)
    monkeypatch.setattr(turns, "RENEW_INTERVAL_S", LEASE_S / 5)


@pytest.fixture
def wall():
    return Wall()


@pytest.fixture
def serve(tmp_path, wall):
    return lambda: open_realm(choose("den", backend="sqlite", state_root=tmp_path), clock=wall, serves=True)


async def renewed(realm):
    before = realm.turns._lease_ms
    while realm.turns._lease_ms == before:
        await anyio.lowlevel.checkpoint()


async def test_a_machine_that_slept_gives_everybody_the_time_to_wake_up(serve, wall):
    with anyio.fail_after(PATIENCE_S):
        async with serve() as owner, serve() as other:
            started = await owner.sessions.run("[[hang]]", settings())
            assert (await other.sessions.settled(started.session_id)).state == "running"
            wall.slept_ms = 3_600_000
            assert (await other.sessions.settled(started.session_id)).state == "running"
            await renewed(owner)
            assert (await other.sessions.settled(started.session_id)).state == "running"


async def test_nobody_dies_of_a_store_that_let_nobody_write(serve, tmp_path):
    """A process was stopped in the middle of a write, for longer than a lease."""
    with anyio.fail_after(PATIENCE_S):
        async with serve() as owner, serve() as other:
            started = await owner.sessions.run("[[hang]]", settings())
            found: list[str] = []

            async def look() -> None:
                found.append((await other.sessions.settled(started.session_id)).state)

            async with anyio.create_task_group() as tasks:
                with FileLock(tmp_path / "den" / "realm.lock"):
                    while owner.journal.clock.now_ms() < owner.turns._lease_ms + 100:
                        await anyio.lowlevel.checkpoint()
                    tasks.start_soon(look)
                    await anyio.sleep(0.3)  # no wait: so long nobody can write, and the lease has lapsed
            assert found == ["running"]
            assert (await outcome(owner, started)).status == "running"
