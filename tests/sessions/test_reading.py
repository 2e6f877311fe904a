import pytest
from words import CALL, WEATHER, run, settings

from meerkat_mcp.domain.errors import InvalidRequest, SessionAmbiguous, SessionNotFound
from meerkat_mcp.stores.base import Selection

pytestmark = pytest.mark.anyio


async def sessions(realm, count: int) -> list[str]:
    """Newest first."""
    return [(await realm.sessions.run("", settings(), title=f"t{n}")).session_id for n in range(count)][::-1]


async def test_a_session_is_meant_by_id_by_realm_and_id_by_last_and_by_how_many_back(realm):
    newest, older, oldest = await sessions(realm, 3)
    for reference, meant in {
        older: older,
        older.upper(): older,
        f"den:{oldest}": oldest,
        "last": newest,
        "~1": newest,
        "~2": older,
        "~3": oldest,
        newest[:-1]: newest,
    }.items():
        assert await realm.reading.resolve(reference) == meant


async def test_a_prefix_that_fits_several_lists_them(realm):
    several = await sessions(realm, 3)
    with pytest.raises(SessionAmbiguous) as ambiguous:
        await realm.reading.resolve(several[0][:4])
    assert set(ambiguous.value.facts["candidates"]) == set(several)


@pytest.mark.parametrize("reference", ["~9", "ffff", "other:01a1fbc0-0000-7000-8000-000000000000"])
async def test_what_is_not_there_is_not_found(realm, reference):
    await sessions(realm, 1)
    with pytest.raises(SessionNotFound):
        await realm.reading.resolve(reference)


@pytest.mark.parametrize("reference", ["abc", "~0", "~x", "no id", "*", "%", "last one"])
async def test_what_is_no_reference_is_refused_with_the_forms_there_are(realm, reference):
    with pytest.raises(InvalidRequest, match="reference"):
        await realm.reading.resolve(reference)


async def test_where_nothing_can_be_undone_only_a_full_id_will_do(realm):
    (session_id,) = await sessions(realm, 1)
    assert await realm.reading.resolve(session_id, exact=True) == session_id
    with pytest.raises(InvalidRequest, match="full session id"):
        await realm.reading.resolve("last", exact=True)


async def test_pages_by_cursor_and_by_offset_are_the_same(realm):
    everything = await sessions(realm, 7)
    pages, cursor = [], None
    while True:
        page = await realm.reading.list(Selection(), cursor=cursor, limit=3)
        pages += [session.id for session in page.sessions]
        if (cursor := page.next_cursor) is None:
            break
    assert pages == everything
    by_offset = await realm.reading.list(Selection(), offset=3, limit=3)
    assert [session.id for session in by_offset.sessions] == everything[3:6]


async def test_a_cursor_that_is_none_is_refused(realm):
    for cursor in ("", "x", "e30=", "ÿ"):
        with pytest.raises(InvalidRequest):
            await realm.reading.list(Selection(), cursor=cursor)


async def test_the_history_shows_the_newest_page_first_and_any_page_on_request(realm):
    started, _ = await run(realm, CALL, tools=(WEATHER,))
    newest = await realm.reading.history(started.session_id, limit=1)
    assert (newest.offset, newest.total, newest.messages[0].message.role) == (1, 2, "assistant")
    first = await realm.reading.history(started.session_id, offset=0, limit=1)
    assert first.messages[0].message.role == "user"
    assert not (await realm.reading.history(started.session_id, offset=99)).messages
