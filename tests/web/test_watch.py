"""The watch page's files, and the events it reads, over a real socket."""

import random
import re

import anyio
import httpx2
import pytest
from web.site import PATIENCE_S, Message, reading, site
from words import ended, log, run, settings

from meerkat_mcp.domain import events as e
from meerkat_mcp.domain.errors import codes
from meerkat_mcp.domain.messages import Image
from meerkat_mcp.server import page
from meerkat_mcp.web.statuses import HTTP_STATUS
from meerkat_mcp.web.tokens import StaticTokens

pytestmark = pytest.mark.anyio

SLOWLY = {"delta_ms": 8}
TOKEN = "x" * 32


async def get(url: str, **headers: str) -> httpx2.Response:
    async with httpx2.AsyncClient(timeout=PATIENCE_S) as client:
        return await client.get(url, headers=headers)


async def through(messages, kind: str) -> list[Message]:
    """The messages up to the next one of that kind."""
    seen: list[Message] = []
    with anyio.fail_after(PATIENCE_S):
        async for message in messages:
            seen.append(message)
            if message.event == kind:
                return seen
    raise AssertionError(f"the stream ended before {kind}: {[message.event for message in seen][-5:]}")


def token(scopes: str) -> StaticTokens:
    """One token, Ada's."""
    return StaticTokens(lambda: f"ada {TOKEN} {scopes}")


# ── events ──


async def test_every_event_comes_with_its_seq_its_type_and_its_json(tmp_path):
    async with site(tmp_path) as here:
        started, _ = await run(here.realm, "[[say hello]]")
        async with reading(f"{here.url}/sessions/{started.session_id}/events") as messages:
            seen = await through(messages, "turn_completed")
        recorded = await log(here.realm, started.session_id)
    assert [message.seq for message in seen] == [event.seq for event in recorded]
    assert [message.event for message in seen] == [event.type for event in recorded]
    assert [message.json() for message in seen] == [
        event.model_dump(mode="json", exclude_none=True) for event in recorded
    ]


async def test_text_comes_while_it_is_written(tmp_path):
    async with site(tmp_path) as here:
        started = await here.realm.sessions.run("[[words 20]][[hang]]", settings(provider_params=SLOWLY))
        async with reading(f"{here.url}/sessions/{started.session_id}/events") as messages:
            await through(messages, "text_delta")
        assert (await here.realm.journal.load(started.session_id)).state == "running"


async def test_a_reader_cut_off_at_random_places_misses_and_doubles_nothing(tmp_path):
    chance = random.Random(4812)
    async with site(tmp_path) as here:
        prompt = "[[reason I think about it for a while.]][[words 150]][[call nothing]][[next]][[words 150]]"
        started = await here.realm.sessions.run(prompt, settings(provider_params=SLOWLY))
        url = f"{here.url}/sessions/{started.session_id}/events"
        seen: list[Message] = []
        cuts = 0
        while not seen or seen[-1].event != "turn_completed":
            place = {"Last-Event-ID": seen[-1].id} if seen else {}
            async with reading(url, **place) as messages:
                for _ in range(chance.randint(1, 12)):
                    with anyio.fail_after(PATIENCE_S):
                        seen.append(await anext(messages))
                    if seen[-1].event == "turn_completed":
                        break
            cuts += 1
        await ended(here.realm, started)
        recorded = await log(here.realm, started.session_id)
    assert cuts > 5
    seqs = [message.seq for message in seen]
    assert seqs == sorted(set(seqs))
    kept = [message.json() for message in seen if message.event not in e.DELTAS]
    assert kept == [event.model_dump(mode="json", exclude_none=True) for event in recorded]
    written, whole = "", ""
    for message in seen:
        if message.event == "text_delta":
            written += message.json()["text"]
        elif message.event == "text_complete":
            whole = message.json()["text"]
            assert whole.startswith(written[: len(whole) // 3])
            written = ""
    assert whole


async def test_last_event_id_wins_over_after_seq(tmp_path):
    async with site(tmp_path) as here:
        started, _ = await run(here.realm, "[[say hello]]")
        url = f"{here.url}/sessions/{started.session_id}/events"
        async with reading(f"{url}?after_seq=2") as messages:
            assert (await anext(messages)).seq == 3
        async with reading(f"{url}?after_seq=2", **{"Last-Event-ID": "1"}) as messages:
            assert (await anext(messages)).seq == 2


async def test_pictures_come_without_their_bytes(tmp_path):
    async with site(tmp_path) as here:
        started, _ = await run(here.realm, "[[call draw]]", tools=[{"name": "draw"}])
        picture = Image(mime_type="image/png", data="iVBORw0KGgoA" * 100)
        named = {"tool_use_id": "call_1_1", "tool_name": "draw", "turn_id": started.turn_id}
        drawn = e.ToolExecutionCompleted(**named, content="A picture.", images=(picture,))
        await here.realm.journal.record(started.session_id, lambda _: [drawn])
        async with reading(f"{here.url}/sessions/{started.session_id}/events") as messages:
            shown = (await through(messages, "tool_execution_completed"))[-1].json()
    assert shown["images"] == [{"mime_type": "image/png", "bytes": 900}]
    assert shown["content"] == "A picture."


async def test_the_stream_of_a_session_that_is_deleted_is_closed(tmp_path):
    async with site(tmp_path) as here:
        started, _ = await run(here.realm, "[[say hello]]")
        async with reading(f"{here.url}/sessions/{started.session_id}/events") as messages:
            await through(messages, "turn_completed")
            await here.realm.shelf.delete(started.session_id)
            await through(messages, "closed")


async def test_a_stream_says_goodbye_when_the_server_goes(tmp_path):
    async with site(tmp_path) as here:
        started, _ = await run(here.realm, "[[say hello]]")
        async with reading(f"{here.url}/sessions/{started.session_id}/events") as messages:
            await through(messages, "turn_completed")
            await here.app.end()
            with anyio.fail_after(1):
                assert [message.event async for message in messages] == ["bye"]


async def test_a_reader_that_has_gone_is_let_go_of(tmp_path):
    async with site(tmp_path) as here:
        started, _ = await run(here.realm, "[[say hello]]")
        async with reading(f"{here.url}/sessions/{started.session_id}/events") as messages:
            await through(messages, "turn_completed")
            assert here.realm.journal.followers == 1
        with anyio.fail_after(PATIENCE_S):
            while here.realm.journal.followers:
                await anyio.wait_all_tasks_blocked()


async def test_a_turn_whose_owner_has_died_is_shown_as_ended(tmp_path):
    async with site(tmp_path) as here:
        dead = e.Owner(instance_id="gone", incarnation="gone", host="here", pid=1)
        session_id, turn_id = here.realm.journal.clock.new_id(), here.realm.journal.clock.new_id()
        await here.realm.journal.create(session_id, [e.SessionCreated(settings=settings())])
        async with reading(f"{here.url}/sessions/{session_id}/events") as messages:
            await anext(messages)
            begun = e.TurnStarted(turn_id=turn_id, prompt="x", owner=dead)
            await here.realm.journal.record(session_id, lambda _: [begun])
            assert (await through(messages, "turn_interrupted"))[-1].json()["reason"] == "owner_lost"


# ── who may see what ──


async def test_an_error_is_json_with_a_hint_and_the_status_of_its_code(tmp_path):
    async with site(tmp_path) as here:
        started, _ = await run(here.realm, "[[say hello]]")
        there = f"{here.url}/sessions/{started.session_id}/events"
        wrong = {
            f"{here.url}/sessions/00000000-0000-7000-8000-000000000000/events": (404, "session_not_found"),
            f"{here.url}/sessions/x/events": (400, "invalid_request"),
            f"{there}?after_seq=one": (400, "invalid_request"),
            f"{there}?after_seq=999": (400, "invalid_request"),
            f"{there}?after_seq={'9' * 5000}": (400, "invalid_request"),
        }
        for url, (status, code) in wrong.items():
            answer = await get(url)
            assert answer.status_code == status, url
            error = answer.json()["error"]
            assert error["code"] == code
            assert error["hint"]


async def test_a_caller_without_the_scope_is_told_which_one_it_lacks(tmp_path):
    async with site(tmp_path, auth=token("config:write")) as here:
        started, _ = await run(here.realm, "[[say hello]]")
        there = f"{here.url}/sessions/{started.session_id}/events"
        assert (await get(there)).status_code == 401
        answer = await get(there, Authorization=f"Bearer {TOKEN}")
    assert answer.status_code == 403
    assert answer.json()["error"]["scope"] == "sessions:read"


async def test_a_caller_who_sees_only_its_own_does_not_find_others(tmp_path):
    async with site(tmp_path, auth=token("sessions:read"), own_sessions_only=True) as here:
        started, _ = await run(here.realm, "[[say hello]]")
        for reference in (started.session_id, started.session_id[:18], "last"):
            answer = await get(f"{here.url}/sessions/{reference}/events", Authorization=f"Bearer {TOKEN}")
            assert answer.status_code == 404, reference


def test_every_error_has_a_status():
    assert set(codes()) == set(HTTP_STATUS)


# ── the files ──


async def test_the_page_is_the_same_for_every_address_and_allows_nothing_from_elsewhere(tmp_path):
    async with site(tmp_path) as here:
        shown = [await get(f"{here.url}{path}") for path in ("/", "/sessions/anything", "/sessions/<script>")]
    assert len({answer.text for answer in shown}) == 1
    for answer in shown:
        assert answer.headers["content-type"] == "text/html; charset=utf-8"
        policy = answer.headers["content-security-policy"]
        assert policy.startswith("default-src 'none'; script-src 'self'; style-src 'self'")
        assert "unsafe" not in policy
        assert answer.headers["referrer-policy"] == "no-referrer"
        assert answer.headers["x-content-type-options"] == "nosniff"
        assert answer.headers["cache-control"] == "no-cache"


async def test_the_page_finds_its_files_behind_a_proxy_with_a_prefix(tmp_path):
    async with site(tmp_path, root_path="/agents") as here:
        shell = (await get(f"{here.url}/")).text
        assert '<meta name="meerkat-root" content="/agents">' in shell
        named = re.findall(r'(?:src|href)="([^"]+)"', shell)
        assert len(named) == 3
        for path in named:
            assert path.startswith("/agents/")
            assert (await get(here.url + path.removeprefix("/agents"))).status_code == 200


async def test_every_file_is_served_once_and_then_known(tmp_path):
    async with site(tmp_path) as here:
        for name in (page.STYLE, page.ICON, *page.MODULES):
            first = await get(f"{here.url}/assets/{name}")
            assert first.text == page.text(name)
            again = await get(f"{here.url}/assets/{name}", **{"If-None-Match": first.headers["etag"]})
            assert (again.status_code, again.content) == (304, b"")


@pytest.mark.parametrize("name", ["..%2f__init__.py", "../__init__.py", "__init__.py", "watch.html", "", "%00"])
async def test_nothing_else_is_served(tmp_path, name):
    async with site(tmp_path) as here:
        assert (await get(f"{here.url}/assets/{name}")).status_code == 404


def test_a_module_imports_only_from_those_before_it_so_that_they_can_be_joined():
    known: set[str] = set()
    for name in page.MODULES:
        imported = set(re.findall(r'from "\./([a-z]+\.js)"', page.text(name)))
        assert imported <= known, name
        assert page.text(name).count("import ") == len(re.findall(r"^import \{", page.text(name), re.MULTILINE)), name
        known.add(name)


def test_no_module_makes_markup_or_code_out_of_data():
    for name in page.MODULES:
        assert not re.search(
            r"innerHTML|outerHTML|insertAdjacentHTML|document\.write|\beval\(|new Function", page.text(name)
        )
        assert len(page.text(name).splitlines()) < 400, name


def test_the_app_is_one_document_that_loads_nothing():
    whole = page.document()
    assert not re.search(r"""\b(?:src|href)=["'](?!#)|@import|url\(|^import |^export """, whole, re.MULTILINE)
    assert whole.count("<script") == whole.count("</script>") == 1
