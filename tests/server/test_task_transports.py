"""Tasks over real pipes and real sockets: a process that is killed, one more on the same realm, callers with names."""

import secrets
import sys

import anyio
import httpx2
import pytest
from server.tasking import HttpHost, answered, in_memory, process
from server.test_tasks import UNKNOWN, of
from web.issuer import served
from words import check_log

from meerkat_mcp.realms import choose, open_realm
from meerkat_mcp.server.app import build_server
from meerkat_mcp.server.scopes import READ
from meerkat_mcp.web.app import build_app
from meerkat_mcp.web.options import HttpOptions
from meerkat_mcp.web.tokens import StaticTokens

pytestmark = pytest.mark.anyio

PATIENCE_S = 20.0
WEATHER = {"name": "weather"}
HEADER_MISMATCH = -32020
ADA, EVE, READER = (secrets.token_urlsafe(24) for _ in range(3))
TOKENS = f"ada {ADA}\neve {EVE}\nreader {READER} {READ}\n"


# ── processes ──


async def test_a_task_is_there_when_the_process_that_began_it_was_killed(tmp_path):
    async with process(tmp_path) as first:
        done = await first.run("hi")
        result = await first.ended(done)
        waits = await first.run("[[call weather]]", tools=[WEATHER])
        asked = await first.asked(waits)
        running = await first.run("[[say half]][[hang]]")
        await first.when(running, lambda task: task["statusMessage"] == "writes: half")
        first.process.kill()
        await first.process.wait()
    async with process(tmp_path) as second:
        assert await second.ended(done) == result
        lost = await second.ended(running)
        assert (lost["status"], lost["stop_reason"], lost["text"]) == ("interrupted", "owner_lost", "half")
        assert await second.asked(waits) == asked
        await second.answer(waits, dict.fromkeys(asked.values(), answered("rain")))
        assert "weather (call_1_1) answered: rain" in (await second.ended(waits))["text"]
        on = await second.begin("meerkat_resume", session_id=of(running).session_id, prompt="[[say on]]")
        assert (await second.ended(on))["text"] == "on"


@pytest.mark.skipif(sys.platform == "win32", reason="a process is told to end by a POSIX signal")
async def test_a_task_of_a_process_that_was_told_to_end_goes_on_in_the_next_one(tmp_path):
    async with process(tmp_path) as first:
        task_id = await first.run("[[wait 3]][[say done]]")
        first.process.terminate()
        with anyio.fail_after(PATIENCE_S):
            await first.process.wait()
    async with process(tmp_path) as second:
        ended = await second.ended(task_id)
        assert (ended["status"], ended["text"]) == ("completed", "done")


async def test_another_process_looks_answers_and_gives_up(tmp_path):
    async with process(tmp_path) as here, process(tmp_path) as there:
        waits = await here.run("[[call weather]][[call weather]]", tools=[WEATHER])
        await here.until(waits, "input_required")
        first, second = (await there.get(waits))["inputRequests"]
        await there.answer(waits, {first: answered("rain")})
        assert list((await here.get(waits))["inputRequests"]) == [second]
        await here.answer(waits, {second: answered("sun")})
        assert "answered: sun" in (await there.ended(waits))["text"]

        runs = await here.run("[[say a]][[hang]]")
        await there.when(runs, lambda task: task["statusMessage"] == "writes: a")
        await there.cancel(runs)
        assert (await there.get(runs))["status"] == "cancelled"
        assert await here.get(runs) == await there.get(runs)
    async with open_realm(choose("den", state_root=tmp_path)) as realm:
        for task_id in (waits, runs):
            await check_log(realm, of(task_id).session_id)


# ── HTTP ──


@pytest.fixture
async def den(tmp_path):
    """The realm over HTTP, for callers with names who see their own sessions only."""
    auth = StaticTokens(lambda: TOKENS)
    async with open_realm(choose("den", state_root=tmp_path)) as realm:
        app = build_app(realm, HttpOptions(auth=auth, own_sessions_only=True))
        async with served(app) as url, httpx2.AsyncClient(timeout=PATIENCE_S) as http:
            yield realm, lambda token: HttpHost(http, f"{url}/mcp", token)


async def test_a_task_goes_on_when_its_connection_is_closed(tmp_path):
    async with open_realm(choose("den", state_root=tmp_path)) as realm, served(build_app(realm)) as url:
        async with httpx2.AsyncClient(timeout=PATIENCE_S) as http:
            task_id = await HttpHost(http, f"{url}/mcp").run("[[delta_ms 20]][[words 10]]", provider_params={})
        async with httpx2.AsyncClient(timeout=PATIENCE_S) as http:
            assert (await HttpHost(http, f"{url}/mcp").ended(task_id))["text"].endswith("word10")


async def test_a_task_is_nobody_elses(den):
    realm, host = den
    ada, eve = host(ADA), host(EVE)
    task_id = await ada.run("[[call weather]]", tools=[WEATHER])
    (key,) = (await ada.asked(task_id)).values()
    for method, more in [
        ("tasks/get", {}),
        ("tasks/cancel", {}),
        ("tasks/update", {"inputResponses": {key: answered("x")}}),
    ]:
        assert await eve.refused(method, taskId=task_id, **more) == UNKNOWN
    assert list((await ada.get(task_id))["inputRequests"]) == [key]
    await ada.answer(task_id, {key: answered("rain")})
    await ada.ended(task_id)
    log = [one.event async for one in realm.journal.log(of(task_id).session_id) if one.type == "turn_resumed"]
    assert [event.principal for event in log] == ["ada"]
    async with in_memory(build_server(realm)) as local:
        assert (await local.ended(task_id))["status"] == "completed", "who is on this machine sees all"


async def test_who_may_only_read_can_look_and_do_nothing(tmp_path):
    options = HttpOptions(auth=StaticTokens(lambda: TOKENS))
    async with (
        open_realm(choose("den", state_root=tmp_path)) as realm,
        served(build_app(realm, options)) as url,
        httpx2.AsyncClient(timeout=PATIENCE_S) as http,
    ):
        ada, reader = HttpHost(http, f"{url}/mcp", ADA), HttpHost(http, f"{url}/mcp", READER)
        task_id = await ada.run("[[call weather]]", tools=[WEATHER])
        (key,) = (await ada.asked(task_id)).values()
        assert (await reader.get(task_id))["status"] == "input_required"
        for method, more in [("tasks/cancel", {}), ("tasks/update", {"inputResponses": {key: answered("x")}})]:
            with pytest.raises(PermissionError):
                await reader.send(method, taskId=task_id, **more)
        assert (await ada.get(task_id))["status"] == "input_required"


async def test_the_header_that_a_request_is_routed_by_has_to_name_its_task(den):
    _, host = den
    ada = host(ADA)
    task_id = await ada.run("[[hang]]")
    for name in ("another", f"{task_id}x", "=?base64?broken?="):
        ada.name = name
        assert await ada.refused("tasks/get", taskId=task_id) == HEADER_MISMATCH
        assert await ada.refused("tasks/cancel", taskId=task_id) == HEADER_MISMATCH
    ada.name = None
    assert (await ada.get(task_id))["status"] == "working"
    await ada.cancel(task_id)
