"""A database that is away for a while in the middle of a turn: the turn waits for it, and nothing is said twice."""

from urllib.parse import urlsplit

import anyio
import pytest
from databases import DSN, VARIABLE, need_postgres, new_realm_id
from sessions.actors import BOX, Bench, Scripted, call, calls, equip, says, tool, use
from stores.cutting import wired
from words import PATIENCE_S, check_log, ended, log, outcome, settings

from meerkat_mcp.domain.errors import StoreUnavailable
from meerkat_mcp.realms import choose, open_realm
from meerkat_mcp.sessions import writing
from meerkat_mcp.tools.base import Output

pytestmark = pytest.mark.anyio

AUTO = {"mcp_servers": {"box": BOX}, "permission_mode": "auto"}


@pytest.fixture
async def wire():
    need_postgres()
    address = urlsplit(DSN)
    async with wired(address.hostname or "", address.port or 5432) as wire:
        yield wire


@pytest.fixture
async def realm(wire, tmp_path, monkeypatch):
    monkeypatch.setenv(VARIABLE, wire.through(DSN))
    async with open_realm(choose(new_realm_id(), backend="postgres", dsn_env=VARIABLE, state_root=tmp_path)) as opened:
        yield opened


async def is_there(realm):
    try:
        await realm.store.config()
    except StoreUnavailable:
        return False
    return True


async def until_away(realm):
    while await is_there(realm):
        await anyio.lowlevel.checkpoint()


async def until_back(realm):
    while not await is_there(realm):
        await anyio.lowlevel.checkpoint()


async def test_a_turn_waits_for_a_database_that_was_restarted_and_goes_on(realm, wire):
    away = anyio.Event()

    async def work(_):
        await wire.cut()
        await until_away(realm)
        away.set()
        return Output(content="worked")

    bench = equip(realm, Bench(tool("work"), does={"work": work}))
    use(realm, Scripted(calls(call("work")), says("all done")))
    with anyio.fail_after(3 * PATIENCE_S):
        started = await realm.sessions.run("go", settings(**AUTO))
        await away.wait()
        await wire.mend()
        await until_back(realm)
        finished = await ended(realm, started)
        assert (finished.status, finished.text, finished.steps) == ("completed", "all done", 2)
        assert bench.made == ["work"]
        await check_log(realm, started.session_id)


async def test_a_turn_that_waited_long_enough_ends_as_store_unavailable_once_that_can_be_said(realm, wire, monkeypatch):
    monkeypatch.setattr(writing, "STORE_PATIENCE_S", 0.0)

    async def work(_):
        await wire.cut()
        await until_away(realm)
        return Output(content="worked")

    bench = equip(realm, Bench(tool("work"), does={"work": work}))
    use(realm, Scripted(calls(call("work")), says("never")))
    with anyio.fail_after(3 * PATIENCE_S):
        started = await realm.sessions.run("go", settings(**AUTO))
        while not bench.made or bench.is_open:  # the turn has given up, and cannot say so
            await anyio.lowlevel.checkpoint()
        await wire.mend()
        await until_back(realm)
        failed = await ended(realm, started)
        assert (failed.status, failed.error["code"]) == ("failed", "store_unavailable")
        kinds = [event.type for event in await log(realm, started.session_id)]
        assert kinds.count("tool_execution_completed") == 1, "what was done is in the log"
        assert (await outcome(realm, started)).tool_calls == 1
