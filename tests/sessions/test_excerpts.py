"""Why a search found a session: the piece of a message that a list shows."""

from collections.abc import Sequence

import pytest
from words import CALL, WEATHER, resume, run

from meerkat_mcp.domain import events as e
from meerkat_mcp.domain.session import Session
from meerkat_mcp.realms import Realm
from meerkat_mcp.sessions import excerpts
from meerkat_mcp.sessions.excerpts import EXCERPT_CHARS_MAX, MESSAGES_MAX
from meerkat_mcp.stores.base import Selection

pytestmark = pytest.mark.anyio


async def found(realm: Realm, query: str) -> dict[str, excerpts.Excerpt]:
    sessions = (await realm.reading.list(Selection(archived=None))).sessions
    return await realm.reading.matched(sessions, query)


async def written(realm: Realm, *texts: str) -> Session:
    """A session of one turn with these texts, in no time."""
    started, _ = await run(realm, "one")
    turn_id = realm.journal.clock.new_id()
    said: Sequence[e.Event] = [e.TextComplete(turn_id=turn_id, text=text) for text in texts]
    begun = e.TurnStarted(turn_id=turn_id, prompt="more", owner=realm.turns.owner)
    end = e.TurnCompleted(turn_id=turn_id)
    return await realm.journal.record(started.session_id, lambda _: [begun, *said, end])


async def test_a_session_that_was_found_by_what_was_said_in_it_says_where(realm):
    session = await written(realm, "The pump of hall three\n\twas replaced in May.")
    excerpt = (await found(realm, "replaced pump"))[session.id]
    assert excerpt.role == "assistant"
    assert excerpt.text == "The pump of hall three was replaced in May."
    (recorded,) = await realm.store.read(session.id, after=excerpt.seq - 1, limit=1)
    assert recorded.type == "text_complete"


async def test_the_first_message_with_all_the_words_is_the_one(den):
    started, _ = await run(den, "one")
    await resume(den, started.session_id, "[[say red apples]]")
    await resume(den, started.session_id, "red and green [[say pears]]")
    excerpt = (await found(den, "RED green"))[started.session_id]
    assert (excerpt.role, excerpt.text) == ("user", "red and green [[say pears]]")


@pytest.mark.parametrize("query", ["Ada", "team=red", "title", "", "??", "nowhere"])
async def test_what_a_list_shows_anyway_needs_no_reason(den, query: str):
    started, _ = await run(den, "My name is Ada.")
    await den.shelf.rename(started.session_id, title="The title", labels={"team": "red"})
    assert await found(den, query) == {}
    assert await found(den, started.session_id[:6]) == {}


async def test_a_prompt_that_goes_on_with_a_waiting_turn_is_found_too(den):
    from meerkat_mcp.domain.messages import ToolResult

    started, _ = await run(den, CALL, tools=(WEATHER,))
    result = ToolResult(tool_use_id="call_1_1", content="Rain.")
    await resume(den, started.session_id, "umbrellas?", tool_results=[result])
    assert (await found(den, "umbrella"))[started.session_id].role == "user"


@pytest.mark.parametrize("at", [0, 30, 59, 61, 400, 3_000, 100_000])
async def test_an_excerpt_is_short_and_has_the_word_in_it_wherever_it_stands(den, at: int):
    before = ("lorem ipsum " * 10_000)[:at]
    session = await written(den, f"{before} needle {'dolor sit ' * 10_000}")
    text = (await found(den, "need"))[session.id].text
    assert len(text) <= EXCERPT_CHARS_MAX
    assert "needle dolor" in text
    assert text.startswith("…") == (at > 60)
    assert text.endswith("…")
    assert "\n" not in text


async def test_one_long_word_is_cut_and_letters_that_grow_are_found(den):
    session = await written(den, "x" * 5_000, "Die STRASSE dort")
    assert len((await found(den, "xxx"))[session.id].text) == EXCERPT_CHARS_MAX
    assert (await found(den, "straße"))[session.id].text == "Die STRASSE dort"


async def test_the_search_for_a_reason_ends_after_so_many_messages(den):
    session = await written(den, *["nothing"] * MESSAGES_MAX, "needle")
    assert await found(den, "needle") == {}
    early = await written(den, *["nothing"] * (MESSAGES_MAX - 5), "needle")
    assert set(await found(den, "needle")) == {early.id}
    assert session.id != early.id


async def test_a_page_of_long_sessions_shares_its_patience(den, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(excerpts, "PAGE_MESSAGES_MAX", 12)
    for _ in range(3):
        await written(den, "a", "b", "c", "needle")
    assert len(await found(den, "needle")) == 1
