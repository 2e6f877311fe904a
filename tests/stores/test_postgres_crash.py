"""A database that crashes under processes that live on: what they saw is what there is."""

import time
from collections.abc import Iterator

import pytest
from stores.conftest import Log
from stores.own_postgres import OwnPostgres, own_postgres

from meerkat_mcp.stores.postgres import PostgresStore

pytestmark = pytest.mark.anyio


@pytest.fixture(scope="module")
def server() -> Iterator[OwnPostgres]:
    with own_postgres() as made:
        yield made


async def test_pieces_of_text_that_somebody_saw_survive_a_crash_of_the_database(server: OwnPostgres) -> None:
    """Else others would get their numbers: a reader would miss events, and a writer follow what is not there."""
    await server.start()
    here, there = [
        await PostgresStore.open(server.dsn, "crash", clock_ms=lambda: time.time_ns() // 1_000_000) for _ in range(2)
    ]
    try:
        log = Log()
        await here.append(log.begin())
        for number in range(5):
            await here.append(log.delta(f"{number} "))
        seen = await there.read(log.id)
        await server.stop(crash=True)
        await server.start()
        assert await there.read(log.id) == seen
        await here.append(log.text())
    finally:
        await here.close()
        await there.close()
