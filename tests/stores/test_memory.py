"""What is special about the store in memory; what every store promises is in `test_contract.py`."""

import anyio
import pytest
from stores.conftest import Log

from meerkat_mcp.stores.base import Selection
from meerkat_mcp.stores.memory import MemoryStore

pytestmark = pytest.mark.anyio


async def test_two_stores_share_nothing() -> None:
    one, other = MemoryStore(), MemoryStore()
    await one.append(Log().begin())
    await one.put_config({"a": 1}, expected=None)
    assert await other.sessions(Selection()) == []
    assert (await other.config()).generation == 0


async def test_nobody_else_records_so_changes_tell_nothing() -> None:
    store = MemoryStore()
    told: list[object] = []

    async def hear() -> None:
        told.extend([changed async for changed in store.changes()])

    with anyio.fail_after(30):
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(hear)
            await store.append(Log().begin())
            await anyio.wait_all_tasks_blocked()
            await store.close()
    assert told == []


async def test_pages_that_were_read_do_not_change_afterwards() -> None:
    store, log = MemoryStore(), Log()
    await store.append(log.begin())
    page = await store.read("s-1")
    await store.append(log.text())
    assert len(page) == 1


def test_a_store_may_be_made_before_there_is_an_event_loop() -> None:
    store, log = MemoryStore(), Log()
    anyio.run(store.append, log.begin())
    assert anyio.run(store.read, "s-1") == log.events
    anyio.run(store.close)
