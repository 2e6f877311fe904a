"""What `stores/base.py` promises, of every backend: each sentence there has its tests here."""

from collections.abc import Sequence
from contextlib import suppress
from dataclasses import replace
from typing import Any

import anyio
import pytest
from stores.conftest import Log, OpenStore

from meerkat_mcp.domain import events as e
from meerkat_mcp.domain.errors import GenerationConflict, SessionNotFound
from meerkat_mcp.domain.realm import Instance
from meerkat_mcp.domain.recorded import Recorded, encode
from meerkat_mcp.domain.session import Session, advance
from meerkat_mcp.domain.settings import Settings
from meerkat_mcp.stores.base import (
    SEALING_KEY_BYTES,
    Append,
    Claim,
    Cursor,
    KeyTaken,
    Selection,
    SequenceConflict,
    Store,
    Stream,
    is_full,
)
from meerkat_mcp.stores.searching import query_words

pytestmark = pytest.mark.anyio

LONG_S = 30
MINUTE_MS = 60_000
"""Leases are told apart by minutes: a store may keep them in the time of another machine."""
OWNER = e.Owner(instance_id="i", incarnation="life", host="h", pid=1)


async def begun(store: Store, session_id: str = "s-1", **how: Any) -> Log:
    log = Log(session_id)
    await store.append(log.begin(**how))
    return log


async def gathered(store: Store, appends: Sequence[Append]) -> Sequence[Exception | None]:
    """Append all of them at once; for each what came of it."""
    outcomes: list[Exception | None] = [None] * len(appends)

    async def one(index: int) -> None:
        try:
            await store.append(appends[index])
        except (SequenceConflict, KeyTaken) as refusal:
            outcomes[index] = refusal

    with anyio.fail_after(LONG_S):
        async with anyio.create_task_group() as tasks:
            for index in range(len(appends)):
                tasks.start_soon(one, index)
    return outcomes


def claim(key: str = "key", *, session_id: str = "s-1", turn_id: str = "t-1") -> Claim:
    return Claim(key=key, digest=f"digest of {key}", session_id=session_id, turn_id=turn_id, created_ms=5)


def seqs(events: Sequence[Recorded]) -> list[int]:
    return [recorded.seq for recorded in events]


# ── one door ──


async def test_what_was_appended_can_be_read(store: Store) -> None:
    log = await begun(store, title="Füße ✂️ \u2028")
    await store.append(log.next(e.TextComplete(text="a" * 100_000), e.ReasoningComplete(text="\0 and 'quotes'")))
    assert await store.read("s-1") == log.events
    assert [recorded.event.seq for recorded in await store.read("s-1")] == [1, 2, 3]


async def test_logs_do_not_touch_each_other(store: Store) -> None:
    one, other = await begun(store, "s-1"), await begun(store, "s-2")
    await store.append(other.text("other"))
    await store.append(one.text("one"))
    assert (await store.read("s-1"), await store.read("s-2")) == (one.events, other.events)


@pytest.mark.parametrize("seq", [1, 2, 4, 1000])
async def test_an_append_that_does_not_follow_the_last_event_is_refused(store: Store, seq: int) -> None:
    log = await begun(store)
    await store.append(log.text())
    stale = Log()
    stale.session = log.session.model_copy(update={"seq": seq - 1})
    with pytest.raises(SequenceConflict):
        await store.append(stale.next(e.TextComplete(text="stale"), claim=claim()))
    assert await store.read("s-1") == log.events
    assert await store.load("s-1") == log.session
    assert await store.claim("key") is None


async def test_a_log_that_nobody_began_is_not_gone_on_with(store: Store) -> None:
    log = Log()
    log.begin()
    with pytest.raises(SequenceConflict):
        await store.append(log.text())
    with pytest.raises(SessionNotFound):
        await store.load("s-1")


async def test_of_many_writers_at_one_place_exactly_one_wins(store: Store) -> None:
    log = await begun(store)
    rivals: list[Append] = []
    for number in range(20):
        rival = Log()
        rival.session = log.session
        rivals.append(rival.next(e.TextComplete(text=str(number)), e.TextComplete(text=str(number))))
    outcomes = await gathered(store, rivals)
    winners = [index for index, refusal in enumerate(outcomes) if refusal is None]
    assert len(winners) == 1
    assert await store.read("s-1", after=1) == rivals[winners[0]].events


async def test_a_refused_append_leaves_those_beside_it_alone(store: Store) -> None:
    logs = [await begun(store, f"s-{number}") for number in range(10)]
    appends = [log.text() for log in logs]
    stale = Log("s-3")
    taken = Log("s-new")
    outcomes = await gathered(store, [*appends[:5], stale.begin(), *appends[5:], taken.begin()])
    assert [type(refusal) for refusal in outcomes] == [*[type(None)] * 5, SequenceConflict, *[type(None)] * 6]
    for log in [*logs, taken]:
        assert await store.read(log.id) == log.events
        assert await store.load(log.id) == log.session


async def test_appends_enter_in_the_order_they_were_made(store: Store) -> None:
    log = await begun(store)
    assert set(await gathered(store, [log.text(str(number)) for number in range(300)])) == {None}
    assert await store.read("s-1") == log.events


async def test_after_a_refused_append_what_was_built_on_it_is_refused_too(store: Store) -> None:
    log = await begun(store)
    await store.append(log.text("first"))
    late = Log()
    late.begin()
    outcomes = await gathered(store, [late.text("second"), log.text(), log.text()])
    assert [type(refusal) for refusal in outcomes] == [SequenceConflict, type(None), type(None)]
    assert await store.read("s-1") == log.events


async def test_a_session_is_listed_from_its_first_event_on(store: Store) -> None:
    log = Log()
    await store.append(replace(log.begin(), shown=False))
    assert await store.sessions(Selection()) == [log.session]
    assert await store.load("s-1") == log.session


async def test_a_fork_brings_the_holes_of_its_origin_along(store: Store) -> None:
    log = Log()
    created = e.SessionCreated(settings=log.session.settings)
    await store.append(log.next(created, e.TextComplete(text="a"), e.TextComplete(text="b"), holes=3))
    assert seqs(await store.read("s-1")) == [1, 5, 9]
    await store.append(log.text("c"))
    assert await store.read("s-1") == log.events
    assert await store.load("s-1") == log.session


async def test_a_cancelled_append_harms_nobody(store: Store) -> None:
    log = await begun(store)
    with anyio.CancelScope() as scope:
        scope.cancel()
        await store.append(log.text("cancelled"))
    other = Log()
    for _ in range(2):  # it may have entered nevertheless, before now or just now
        other.session = await store.load("s-1")
        with suppress(SequenceConflict):
            await store.append(other.text("after it"))
            break
    assert other.session.seq in (2, 3)
    assert seqs(await store.read("s-1")) == list(range(1, other.session.seq + 1))


# ── superseding ──


async def test_a_completed_text_takes_the_place_of_its_deltas(store: Store) -> None:
    log = await begun(store)
    for piece in ("a", "b", "c"):
        await store.append(log.delta(piece))
    assert seqs(await store.read("s-1")) == [1, 2, 3, 4]
    await store.append(log.text("abc", supersedes=2))
    assert seqs(await store.read("s-1")) == [1, 5]
    assert await store.read("s-1") == log.events
    assert await store.load("s-1") == log.session


async def test_only_deltas_are_superseded_and_only_those_that_are_named(store: Store) -> None:
    log = await begun(store)
    await store.append(log.delta("of an abandoned step"))
    await store.append(log.delta("a"))
    await store.append(log.next(e.SessionForked(fork_id="f", at_seq=1)))
    await store.append(log.next(e.ReasoningDelta(text="b")))
    await store.append(log.text("ab", supersedes=3))
    assert seqs(await store.read("s-1")) == [1, 2, 4, 6]


async def test_deltas_may_be_in_the_append_that_completes_them(store: Store) -> None:
    log = await begun(store)
    await store.append(
        log.next(
            e.TextDelta(text="a"),
            e.TextComplete(text="a"),
            e.ReasoningDelta(text="b"),
            e.ReasoningComplete(text="b"),
            e.TextDelta(text="of the next"),
            supersedes=2,
        )
    )
    assert seqs(await store.read("s-1")) == [1, 3, 5, 6]
    assert await store.read("s-1") == log.events


async def test_a_hole_lets_no_stale_writer_in(store: Store) -> None:
    log = await begun(store)
    stale = Log()
    stale.session = log.session
    await store.append(log.delta("a"))
    await store.append(log.delta("b"))
    await store.append(log.text("ab", supersedes=2))
    with pytest.raises(SequenceConflict):
        await store.append(stale.text("into the hole"))
    assert seqs(await store.read("s-1")) == [1, 4]


async def test_a_refused_append_supersedes_nothing(store: Store) -> None:
    log = await begun(store)
    await store.append(log.delta("a"))
    rival = Log()
    rival.session = log.session.model_copy(update={"seq": 7})
    with pytest.raises(SequenceConflict):
        await store.append(rival.text("a", supersedes=2))
    assert await store.read("s-1") == log.events


# ── reading ──


async def test_a_log_is_read_in_pages(store: Store) -> None:
    log = await begun(store)
    await store.append(log.next(*(e.TextComplete(text=str(number)) for number in range(49))))
    pages, after = [], 0
    while page := await store.read("s-1", after=after, limit=7):
        pages.append(page)
        after = page[-1].seq
    assert [len(page) for page in pages] == [7] * 7 + [1]
    assert [recorded for page in pages for recorded in page] == log.events


@pytest.mark.parametrize("limit", [150, 1000, 5000])
async def test_a_long_log_is_read_whole(store: Store, limit: int) -> None:
    log = await begun(store)
    await store.append(log.next(*(e.TextComplete(text=str(number)) for number in range(1200))))
    assert await store.read("s-1", limit=limit) == log.events[:limit]


async def test_reading_ends_at_through(store: Store) -> None:
    log = await begun(store)
    await store.append(log.next(*(e.TextComplete(text=str(number)) for number in range(9))))
    assert seqs(await store.read("s-1", after=3, through=6)) == [4, 5, 6]
    assert seqs(await store.read("s-1", after=3, through=6, limit=2)) == [4, 5]
    assert await store.read("s-1", after=6, through=3) == []
    assert await store.read("s-1", after=10) == []


async def test_reading_some_types_skips_the_others(store: Store) -> None:
    log = await begun(store)
    for number in range(5):
        await store.append(log.next(e.TextComplete(text=str(number)), e.ReasoningComplete(text=str(number))))
    assert seqs(await store.read("s-1", types={"reasoning_complete"}, after=3, limit=3)) == [5, 7, 9]
    assert seqs(await store.read("s-1", types=["session_created", "text_complete"], through=4)) == [1, 2, 4]
    assert await store.read("s-1", types=["no_such_type"]) == []


async def test_nothing_is_read_of_a_session_that_is_not_there(store: Store) -> None:
    assert await store.read("s-1") == []


async def test_a_session_is_what_its_log_adds_up_to(store: Store) -> None:
    log = await begun(store, title="a", labels={"k": "v"})
    await store.append(log.next(e.TurnStarted(prompt="p", owner=OWNER), e.StepStarted(step=1, provider="p", model="m")))
    for number in range(450):
        await store.append(log.delta(str(number)) if number % 3 else log.text(str(number)))
    call = e.ToolExecutionCompleted(tool_use_id="u", tool_name="n", content="c")
    await store.append(log.next(call, at_ms=77))
    assert (await store.load("s-1")).tool_calls == 1
    assert await store.load("s-1") == log.session != log.shown


async def test_loading_a_session_that_is_not_there_says_so(store: Store) -> None:
    with pytest.raises(SessionNotFound) as refused:
        await store.load("s-1")
    assert refused.value.facts == {"session_id": "s-1"}


# ── changes ──


@pytest.fixture
async def another(store: Store, open_store: OpenStore) -> Store:
    """The same store, as another process sees it."""
    other = await open_store()
    if other is store:
        pytest.skip("a store for one process")
    return other


async def test_changes_tell_of_others_and_not_of_oneself(store: Store, another: Store) -> None:
    mine, theirs = await begun(store, "s-mine"), await begun(another, "s-theirs")
    with anyio.fail_after(LONG_S):
        told = store.changes()
        assert set(await anext(told)) == {"s-theirs"}
        for _ in range(3):
            await store.append(mine.text())
            await another.append(theirs.delta())
            await store.append(mine.text())
            assert set(await anext(told)) == {"s-theirs"}


async def test_changes_begin_with_the_opening_of_the_store(store: Store, open_store: OpenStore, another: Store) -> None:
    await begun(store, "s-before")
    late = await open_store()
    await begun(store, "s-after")
    with anyio.fail_after(LONG_S):
        assert set(await anext(late.changes())) == {"s-after"}
        assert set(await anext(another.changes())) == {"s-before", "s-after"}


async def test_changes_wait_for_what_comes(store: Store, another: Store) -> None:
    told: list[set[str]] = []

    async def hear() -> None:
        async for changed in store.changes():
            told.append(set(changed))
            if "s-9" in changed:
                return

    with anyio.fail_after(LONG_S):
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(hear)
            await anyio.wait_all_tasks_blocked()
            for number in range(10):
                await begun(another, f"s-{number}")
    assert set[str]().union(*told) == {f"s-{number}" for number in range(10)}


async def test_what_a_reader_of_changes_did_not_take_up_is_told_to_the_next(store: Store, another: Store) -> None:
    await begun(another)
    with anyio.fail_after(LONG_S):
        first = store.changes()
        assert await anext(first) == {"s-1"}
        await first.aclose()  # type: ignore[attr-defined]
        assert await anext(store.changes()) == {"s-1"}


async def test_changes_end_when_the_store_is_closed(store: Store) -> None:
    async def hear() -> None:
        async for changed in store.changes():
            pytest.fail(f"{changed} was told to the only one there is")

    with anyio.fail_after(LONG_S):
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(hear)
            await anyio.wait_all_tasks_blocked()
            await store.close()


# ── sessions ──


async def listed(store: Store, selection: Selection | None = None, **how: Any) -> list[str]:
    return [session.id for session in await store.sessions(selection or Selection(), **how)]


async def test_sessions_are_listed_by_their_latest_activity(store: Store) -> None:
    for number, at_ms in enumerate([30, 10, 20, 20, 20]):
        await begun(store, f"s-{number}", at_ms=at_ms)
    assert await listed(store) == ["s-0", "s-4", "s-3", "s-2", "s-1"]
    oldest = Log("s-1")
    oldest.session = await store.load("s-1")
    await store.append(oldest.next(e.SettingsChanged(title="new"), at_ms=40))
    assert await listed(store) == ["s-1", "s-0", "s-4", "s-3", "s-2"]


async def test_a_list_is_read_in_pages_by_cursor(store: Store) -> None:
    for number in range(25):
        await begun(store, f"s-{number:02}", at_ms=number // 4)
    whole = await listed(store, limit=200)
    found: list[Session] = []
    after: Cursor | None = None
    while page := await store.sessions(Selection(), after=after, limit=7):
        found += page
        after = Cursor(updated_ms=page[-1].updated_ms, session_id=page[-1].id)
    assert [session.id for session in found] == whole
    assert len(whole) == 25


async def test_a_list_can_be_entered_by_offset(store: Store) -> None:
    for number in range(6):
        await begun(store, f"s-{number}", at_ms=number)
    assert await listed(store, offset=2, limit=2) == ["s-3", "s-2"]
    assert await listed(store, offset=1, after=Cursor(updated_ms=4, session_id="s-4"), limit=2) == ["s-2", "s-1"]
    assert await listed(store, offset=6) == []


async def test_a_list_shows_sessions_as_of_the_latest_event_that_a_list_shows(store: Store) -> None:
    log = await begun(store, title="title", labels={"k": "v"})
    await store.append(log.next(e.TurnStarted(prompt="p", owner=OWNER), at_ms=5))
    await store.append(log.next(e.StepStarted(step=1, provider="p", model="m"), at_ms=9))
    assert await store.sessions(Selection()) == [log.shown]
    assert log.shown.updated_ms == 5


async def test_archived_sessions_are_listed_when_asked_for(store: Store) -> None:
    await begun(store, "s-live")
    log = await begun(store, "s-put-away")
    await store.append(log.next(e.SessionArchived()))
    assert await listed(store) == ["s-live"]
    assert await listed(store, Selection(archived=True)) == ["s-put-away"]
    assert await listed(store, Selection(archived=None)) == ["s-put-away", "s-live"]
    await store.append(log.next(e.SessionRestored(), at_ms=9))
    assert await listed(store) == ["s-put-away", "s-live"]


async def test_sessions_are_selected_by_state(store: Store) -> None:
    await begun(store, "s-idle")
    log = await begun(store, "s-running")
    await store.append(log.next(e.TurnStarted(prompt="p", owner=OWNER)))
    assert await listed(store, Selection(states=("running", "stopping"))) == ["s-running"]
    assert await listed(store, Selection(states=("idle", "running"))) == ["s-running", "s-idle"]
    assert await listed(store, Selection(states=("waiting",))) == []


async def test_sessions_are_selected_by_all_labels_together(store: Store) -> None:
    await begun(store, "s-1", labels={"team": "red", "kind": "review"})
    await begun(store, "s-2", labels={"team": "red"})
    await begun(store, "s-3", labels={"kind": "red"})
    assert await listed(store, Selection(labels={"team": "red"})) == ["s-2", "s-1"]
    assert await listed(store, Selection(labels={"team": "red", "kind": "review"})) == ["s-1"]
    assert await listed(store, Selection(labels={"team": "re"})) == []


async def test_changed_labels_are_selected_by_as_they_are_now(store: Store) -> None:
    log = await begun(store, labels={"team": "red", "old": "yes"})
    await store.append(log.next(e.SettingsChanged(labels={"team": "blue", "new": ""})))
    assert await listed(store, Selection(labels={"team": "blue", "new": ""})) == ["s-1"]
    assert await listed(store, Selection(labels={"old": "yes"})) == []
    await store.append(log.next(e.SettingsChanged(labels={})))
    assert await listed(store, Selection(labels={"team": "blue"})) == []


@pytest.mark.parametrize(
    "query",
    ["FÜSSE", "und", "abc-", "ABC-1", "team", "rot", "team=rot", "Füße und", "100%", "_x", "'n'", "🦦 100", "fü 10 t"],
)
async def test_a_query_finds_the_beginning_of_the_id_and_of_words_of_title_and_labels(store: Store, query: str) -> None:
    await begun(store, "abc-1", title="Füße und 100% _x 'n' 🦦", labels={"Team": "Rot"})
    await begun(store, "xyz-2", title="Another")
    assert await listed(store, Selection(query=query)) == ["abc-1"]


@pytest.mark.parametrize(
    "query", ["bc-1", "%", "_", "red\nkind", "a%c", "\\", "itle", "titles", "title rott", " ", "'"]
)
async def test_a_query_finds_nothing_else(store: Store, query: str) -> None:
    await begun(store, "abc-1", title="a title", labels={"team": "rot"})
    assert await listed(store, Selection(query=query)) == []


def prompt(text: str) -> e.TurnStarted:
    return e.TurnStarted(prompt=text, owner=OWNER)


async def spoken(store: Store, session_id: str, *texts: str, at_ms: int = 1) -> Log:
    """A session in which these were said: a prompt, and what was replied to it."""
    log = await begun(store, session_id, at_ms=at_ms)
    replies = (e.TextComplete(text=text) for text in texts[1:])
    await store.append(log.next(prompt(texts[0]), *replies, at_ms=at_ms))
    return log


HAY = "Long, long, long, " * 20
"""Longer than an opening, which is found by too."""


@pytest.mark.parametrize(
    "query",
    [
        "needle",
        "NEEDLE",
        "need",
        "needle42",
        "long needle",
        "replied",
        "größ",
        "GRÖSSE",
        "gro\u0308ße",
        "привет",
        "ПРИ",
        "snake_ca",
        "snake_case_name",
        "_private",
        "会议",
        "会议室",
        "议",
        "カタ",
        "3.14",
        "l'été",
        "l'ete",
        "GROSSE",
        "x" * 64,
        "x" * 100,
    ],
)
async def test_a_query_finds_the_beginning_of_words_of_what_was_said(store: Store, query: str) -> None:
    await spoken(
        store,
        "s-1",
        f"{HAY} Needle42, привет! L'été 3.14",
        "Replied: Größe of snake_case_name and _private",
        f"在会议室里 カタカナ {'x' * 100}",
    )
    await spoken(store, "s-2", HAY, "another reply: 室 会 議")
    assert await listed(store, Selection(query=query)) == ["s-1"]


@pytest.mark.parametrize(
    "query", ["eedle", "needles", "needle reply", "other words", "reasoned", "called", "text", "ッ"]
)
async def test_a_query_finds_no_other_words(store: Store, query: str) -> None:
    log = await spoken(store, "s-1", f"{HAY} needle other", "reply words")
    await store.append(
        log.next(
            e.ReasoningComplete(text="reasoned"),
            e.ToolExecutionCompleted(tool_use_id="u", tool_name="n", content="called"),
        )
    )
    assert await listed(store, Selection(query=query)) == []


@pytest.mark.parametrize(
    "query",
    [
        *('"', "'", '"needle', "needle*", "needle AND", "NOT needle", "needle OR nothing", "words : x", "NEAR(needle)"),
        *("(", "needle)", "-", "^", "{a b}: c", "+", "'; DROP TABLE sessions; --", "& | ! <-> :*", "%s", "$1", "\\"),
        *(":a", "?"),
    ],
)
async def test_what_means_something_to_a_database_means_nothing_in_a_query(store: Store, query: str) -> None:
    await spoken(store, "s-1", f"{HAY} needle")
    await spoken(store, "s-2", f"{HAY} needle and: not, or nothing; near a b c x words. Drop table sessions s 1")
    found = await listed(store, Selection(query=query))
    words = query_words(query)
    assert found == (["s-2", "s-1"] if words == ["needle"] else ["s-2"] if words else [])


async def test_all_words_of_a_query_are_in_one_message(store: Store) -> None:
    await spoken(store, "s-1", f"{HAY} alpha beta", "gamma alpha")
    await spoken(store, "s-2", f"{HAY} alpha", "beta")
    assert await listed(store, Selection(query="beta alp")) == ["s-1"]
    assert await listed(store, Selection(query="gamma alpha")) == ["s-1"]
    assert await listed(store, Selection(query="gamma beta")) == []
    assert await listed(store, Selection(query="alpha")) == ["s-2", "s-1"]


async def test_a_waiting_turns_next_prompt_is_found_and_a_compactions_is_not(store: Store) -> None:
    log = await spoken(store, "s-1", HAY)
    await store.append(log.next(e.TurnWaiting()))
    await store.append(log.next(e.TurnResumed(prompt=f"{HAY} alpha", owner=OWNER)))
    await store.append(log.next(e.TurnCompleted(stop_reason="end")))
    await store.append(log.next(e.TurnStarted(kind="compaction", prompt=f"{HAY} beta", owner=OWNER)))
    assert await listed(store, Selection(query="alpha")) == ["s-1"]
    assert await listed(store, Selection(query="beta")) == []


async def test_a_session_is_found_by_its_title_and_labels_as_they_are_now(store: Store) -> None:
    log = await begun(store, title="Alpha", labels={"team": "beta"})
    await store.append(log.next(e.SettingsChanged(title="Gamma", labels={"team": "delta"})))
    assert [await listed(store, Selection(query=query)) for query in ("alpha", "beta")] == [[], []]
    assert [await listed(store, Selection(query=query)) for query in ("gamma", "del team")] == [["s-1"], ["s-1"]]


async def test_a_search_is_listed_like_everything_else(store: Store) -> None:
    for number in range(30):
        log = await spoken(store, f"s-{number:02}", HAY, "common " + ("rare" if number % 10 == 3 else ""), at_ms=number)
        if number % 5 == 0:
            await store.append(log.next(e.TurnCompleted(stop_reason="end"), at_ms=number))
    await begun(store, "s-none", at_ms=50)
    names = [f"s-{number:02}" for number in reversed(range(30))]
    assert await listed(store, Selection(query="common")) == names
    assert await listed(store, Selection(query="rare")) == ["s-23", "s-13", "s-03"]
    assert await listed(store, Selection(query="rare"), limit=1, offset=1) == ["s-13"]
    assert await listed(store, Selection(query="common"), limit=3, offset=7) == names[7:10]
    after = Cursor(updated_ms=13, session_id="s-13")
    assert await listed(store, Selection(query="rare"), after=after) == ["s-03"]
    assert await listed(store, Selection(query="common"), after=after, limit=2) == ["s-12", "s-11"]
    assert await listed(store, Selection(query="common", states=("idle",)), limit=2) == ["s-25", "s-20"]


async def test_a_search_of_much_finds_all_of_it_in_order(store: Store) -> None:
    """More than any store looks through one by one."""
    appends: list[Append] = []
    for number in range(1500):
        log = Log(f"s-{number:04}")
        created = e.SessionCreated(settings=Settings(), title="rare" if number % 500 == 7 else "")
        word = "odd" if number % 2 else "even"
        appends.append(log.next(created, prompt(f"{HAY} common {word}"), at_ms=number * 7919 % 1500))
    assert set(await gathered(store, appends)) == {None}
    ordered = sorted(appends, key=lambda append: append.session.updated_ms, reverse=True)
    odd = [append.session.id for append in ordered if int(append.session.id[2:]) % 2]
    assert await listed(store, Selection(query="comm"), limit=3) == [append.session.id for append in ordered[:3]]
    assert await listed(store, Selection(query="common odd"), limit=200) == odd[:200]
    assert await listed(store, Selection(query="common odd"), limit=10, offset=700) == odd[700:710]
    assert await listed(store, Selection(query="odd even")) == []
    assert len(await listed(store, Selection(query="rare"))) == 3


async def test_a_deleted_session_is_not_found(store: Store) -> None:
    await spoken(store, "s-1", f"{HAY} needle")
    await spoken(store, "s-2", f"{HAY} needle")
    await store.delete("s-1")
    assert await listed(store, Selection(query="needle")) == ["s-2"]
    await spoken(store, "s-1", HAY, "anew")
    assert await listed(store, Selection(query="needle")) == ["s-2"]
    assert await listed(store, Selection(query="anew")) == ["s-1"]


async def test_what_another_process_says_is_found(store: Store, another: Store) -> None:
    await spoken(store, "s-1", f"{HAY} needle")
    await spoken(another, "s-2", f"{HAY} needle")
    assert await listed(store, Selection(query="need")) == await listed(another, Selection(query="need"))


async def test_what_was_refused_is_not_found(store: Store) -> None:
    log = await begun(store)
    stale = Log()
    stale.session = log.session
    await store.append(log.text("first"))
    with pytest.raises(SequenceConflict):
        await store.append(stale.text("second"))
    assert await listed(store, Selection(query="second")) == []
    assert await listed(store, Selection(query="first")) == ["s-1"]


async def test_everything_that_is_selected_by_holds_together(store: Store) -> None:
    for number in range(6):
        await begun(
            store, f"s-{number}", at_ms=number, title="odd" if number % 2 else "even", labels={"k": str(number)}
        )
    selection = Selection(query="odd", states=("idle",))
    assert await listed(store, selection, after=Cursor(updated_ms=5, session_id="s-5"), limit=1) == ["s-3"]
    assert await listed(store, selection.model_copy(update={"labels": {"k": "1"}})) == ["s-1"]


async def test_ids_are_found_by_how_they_begin_the_newest_first(store: Store) -> None:
    for session_id in ("018f-a", "018f-b", "018f%", "018e-z", "019"):
        log = await begun(store, session_id)
    await store.append(log.next(e.SessionArchived()))
    assert await store.matching("018f", limit=10) == ["018f-b", "018f-a", "018f%"]
    assert await store.matching("018f-", limit=1) == ["018f-b"]
    assert await store.matching("018f%", limit=10) == ["018f%"]
    assert await store.matching("019", limit=10) == ["019"]
    assert await store.matching("01", limit=2) == ["019", "018f-b"]
    assert await store.matching("x", limit=10) == []


async def test_sessions_are_found_by_who_began_them(store: Store) -> None:
    for number, principal in enumerate((None, "ann", "bob", "ann")):
        log = Log(f"018f-{number}")
        await store.append(log.next(e.SessionCreated(settings=Settings(), principal=principal)))
    assert await listed(store, Selection(principal="ann")) == ["018f-3", "018f-1"]
    assert await listed(store, Selection(principal="ann"), limit=1, offset=1) == ["018f-1"]
    assert await listed(store, Selection(principal="")) == []
    assert await listed(store, Selection()) == ["018f-3", "018f-2", "018f-1", "018f-0"]
    assert await store.matching("018f", limit=9, principal="bob") == ["018f-2"]
    assert (await store.load("018f-1")).principal == "ann"


# ── large events ──


async def test_large_events_are_read_a_few_at_a_time_and_all_of_them_in_the_end(store: Store) -> None:
    log = await begun(store)
    for _ in range(5):
        await store.append(log.text("x" * 500_000))
    found: list[Recorded] = []
    while page := await store.read("s-1", after=found[-1].seq if found else 0):
        assert len(page) < 5
        assert is_full(page, 1000) or page[-1].seq == 6
        found += page
    assert found == log.events


# ── deleting ──


async def test_a_deleted_session_is_gone_with_all_that_is_its(store: Store) -> None:
    log, other = await begun(store, "s-1", labels={"k": "v"}), await begun(store, "s-2", labels={"k": "v"})
    await store.append(log.next(e.TextComplete(text="x"), claim=claim()))
    await store.put_stream(Stream(stream_id="evt-1", session_id="s-1", after_seq=0, used_ms=1))
    await store.delete("s-1")
    with pytest.raises(SessionNotFound):
        await store.load("s-1")
    assert await store.read("s-1") == []
    assert await store.matching("s-", limit=9) == await listed(store) == ["s-2"]
    assert await listed(store, Selection(labels={"k": "v"})) == ["s-2"]
    assert await store.claim("key") is None
    assert await store.stream("evt-1") is None
    assert await store.read("s-2") == other.events


async def test_deleting_what_is_not_there_is_fine(store: Store) -> None:
    await store.delete("s-1")
    await begun(store)
    await store.delete("s-1")
    await store.delete("s-1")


async def test_a_deleted_session_is_not_gone_on_with(store: Store) -> None:
    log = await begun(store)
    await store.delete("s-1")
    with pytest.raises(SequenceConflict):
        await store.append(log.text())
    assert await store.matching("s-1", limit=1) == []


async def test_an_id_may_be_used_again_and_its_keys_too(store: Store) -> None:
    log = await begun(store)
    await store.append(log.next(e.TextComplete(text="x"), claim=claim()))
    await store.delete("s-1")
    again = await begun(store)
    await store.append(again.next(e.TextComplete(text="y"), claim=claim()))
    assert await store.read("s-1") == again.events


async def test_the_events_of_a_session_that_came_after_a_deleted_one_are_told_of(store: Store, another: Store) -> None:
    await begun(store, "s-keeps")
    with anyio.fail_after(LONG_S):
        told = another.changes()
        assert set(await anext(told)) == {"s-keeps"}
        gone = await begun(store, "s-gone")
        await store.append(gone.next(*(e.TextComplete(text="x") for _ in range(50))))
        assert set(await anext(told)) == {"s-gone"}
        await store.delete("s-gone")
        await begun(store, "s-new")
        while "s-new" not in await anext(told):
            pass  # of s-gone they may be told twice: it was recorded in twice


async def test_a_writer_who_has_not_heard_of_a_deletion_harms_nobody(store: Store, another: Store) -> None:
    log = await begun(store)
    await another.delete("s-1")
    other = await begun(another, "s-other")
    with pytest.raises(SequenceConflict):
        await store.append(log.text())
    anew = await begun(store)
    await another.append(anew.text())
    assert await store.read("s-1") == await another.read("s-1") == anew.events
    assert await store.read("s-other") == other.events


# ── claims ──


async def test_a_claim_enters_with_its_append(store: Store) -> None:
    assert await store.claim("key") is None
    log = Log()
    created = e.SessionCreated(settings=log.session.settings)
    await store.append(log.next(created, claim=claim()))
    assert await store.claim("key") == claim()
    assert await store.claim("another key") is None


async def test_a_key_is_taken_once_and_the_refusal_says_by_what(store: Store) -> None:
    log, other = await begun(store, "s-1"), await begun(store, "s-2")
    await store.append(log.next(e.TextComplete(text="x"), claim=claim()))
    with pytest.raises(KeyTaken) as refused:
        await store.append(other.next(e.TextComplete(text="y"), claim=claim(session_id="s-2", turn_id="t-2")))
    assert refused.value.claim == claim()
    assert seqs(await store.read("s-2")) == [1]


async def test_a_repeated_append_hears_of_its_key_before_its_place(store: Store) -> None:
    log = await begun(store)
    append = log.next(e.TextComplete(text="x"), claim=claim())
    await store.append(append)
    with pytest.raises(KeyTaken):
        await store.append(append)
    assert await store.read("s-1") == log.events


async def test_of_many_with_one_key_exactly_one_wins(store: Store) -> None:
    appends: list[Append] = []
    for number in range(20):
        log = Log(f"s-{number}")
        created = e.SessionCreated(settings=log.session.settings)
        appends.append(log.next(created, claim=claim(session_id=log.id, turn_id=str(number))))
    refusals = await gathered(store, appends)
    (winner,) = (index for index, refusal in enumerate(refusals) if refusal is None)
    assert await listed(store) == [f"s-{winner}"]
    for refusal in refusals:
        assert refusal is None or (isinstance(refusal, KeyTaken) and refusal.claim.turn_id == str(winner))


async def test_the_claim_of_a_copied_session_is_kept(store: Store) -> None:
    log = await begun(store)
    await store.append(log.next(e.TextComplete(text="x"), claim=claim("first")))
    await store.put_claim(claim("second"))
    await store.put_claim(claim("first", turn_id="t-2"))
    assert await store.claim("second") == claim("second")
    assert await store.claim("first") == claim("first")
    with pytest.raises(KeyTaken) as refused:
        await store.append(log.next(e.TextComplete(text="y"), claim=claim("second", turn_id="t-3")))
    assert refused.value.claim == claim("second")


async def test_a_claim_needs_a_session(store: Store) -> None:
    with pytest.raises(SessionNotFound):
        await store.put_claim(claim())
    assert await store.claim("key") is None


async def test_old_claims_are_forgotten(store: Store) -> None:
    log = await begun(store)
    await store.append(log.next(e.TextComplete(text="x"), claim=replace(claim("key-0"), created_ms=0)))
    for number in range(1, 5):
        await store.put_claim(replace(claim(f"key-{number}"), created_ms=number))
    assert await store.prune_claims(created_before_ms=3) == 3
    assert await store.prune_claims(created_before_ms=3) == 0
    assert [await store.claim(f"key-{number}") is not None for number in range(5)] == [False] * 3 + [True] * 2
    await store.append(log.next(e.TextComplete(text="y"), claim=claim("key-0")))


async def test_what_is_kept_with_a_session_is_told(store: Store) -> None:
    log, other = await begun(store), await begun(store, "s-2")
    await store.append(log.next(e.TextComplete(text="x"), claim=claim("one")))
    await store.put_claim(claim("two"))
    await store.append(other.next(e.TextComplete(text="x"), claim=claim("three", session_id="s-2")))
    await store.put_stream(stream("evt-1", types=("text_complete",)))
    await store.put_stream(stream("evt-2", after_seq=1))
    claims, streams = await store.kept_with("s-1")
    assert sorted(claims, key=lambda each: each.key) == [claim("one"), claim("two")]
    assert sorted(streams, key=lambda each: each.stream_id) == [
        stream("evt-1", types=("text_complete",)),
        stream("evt-2", after_seq=1),
    ]
    assert [list(kept) for kept in await store.kept_with("s-3")] == [[], []]


# ── copying ──


async def test_a_log_with_holes_between_its_pages_is_copied(store: Store) -> None:
    log = await begun(store)
    for text in ("ab", "cd", "ef"):
        first = log.session.seq + 1
        await store.append(log.next(*(e.TextDelta(text=letter) for letter in text)))
        await store.append(log.text(text, supersedes=first))
    assert seqs(log.events) == [1, 4, 7, 10]
    copy, follows = Session(id="s-2"), 0
    while page := await store.read("s-1", after=follows, limit=1):
        copy = advance(copy, page[-1].event)
        await store.append(Append(copy, page, follows=follows))
        follows = page[-1].seq
    assert await store.read("s-2") == log.events
    assert await store.load("s-2") == copy
    assert await listed(store, Selection(query="cd")) == ["s-2", "s-1"]
    other = Log("s-2")
    other.session = copy
    await store.append(other.text("gh"))
    assert seqs(await store.read("s-2")) == [1, 4, 7, 10, 11]


@pytest.mark.parametrize("follows", [0, 1, 2, 5, 7, 8, None])
async def test_a_page_of_a_copy_enters_in_its_place_only(store: Store, follows: int | None) -> None:
    log = await begun(store)
    await store.append(log.next(e.TextComplete(text="a"), e.TextComplete(text="b"), holes=2))
    await store.append(log.text("c"))
    assert seqs(log.events) == [1, 2, 5, 6]
    late = Log()
    late.session = log.session.model_copy(update={"seq": 8})
    append = late.text("late")
    with pytest.raises(SequenceConflict):
        await store.append(replace(append, follows=follows))
    assert await store.read("s-1") == log.events
    await store.append(replace(append, follows=6))
    assert seqs(await store.read("s-1")) == [1, 2, 5, 6, 9]


# ── work that waits, or goes on ──


async def ready(store: Store, session_id: str, at_ms: int) -> Log:
    """A session with a suspended turn."""
    log = await begun(store, session_id, at_ms=at_ms)
    await store.append(log.next(prompt("p"), e.TurnSuspended(), at_ms=at_ms))
    assert log.session.ready_ms == at_ms
    return log


async def taken(store: Store, *, ready_before_ms: int = 100, now: int = 0, until: int = 10, limit: int = 10) -> Any:
    """`now` and `until` in minutes."""
    now_ms, until_ms = now * MINUTE_MS, until * MINUTE_MS
    return await store.take(ready_before_ms=ready_before_ms, now_ms=now_ms, until_ms=until_ms, limit=limit)


async def test_what_waits_is_taken_the_longest_first_and_told_once(store: Store) -> None:
    await begun(store, "s-idle")
    for number, at_ms in enumerate([30, 10, 20, 40]):
        await ready(store, f"s-{number}", at_ms)
    assert await taken(store, limit=2) == ["s-1", "s-2"]
    assert await taken(store, ready_before_ms=30) == []
    assert await taken(store, ready_before_ms=31) == ["s-0"]
    assert await taken(store) == ["s-3"]
    assert await taken(store, now=9) == []
    assert await taken(store, now=11, until=20, limit=3) == ["s-1", "s-2", "s-0"]
    assert await taken(store, now=15) == ["s-3"]


async def test_what_goes_on_waits_no_more(store: Store) -> None:
    log = await ready(store, "s-1", 5)
    gone = await ready(store, "s-2", 5)
    await store.append(log.next(e.TurnResumed(owner=OWNER)))
    await store.delete(gone.id)
    assert await taken(store) == []
    await store.append(log.next(e.TurnSuspended(), at_ms=50))
    assert await taken(store, ready_before_ms=50) == []
    assert await taken(store, ready_before_ms=51) == ["s-1"]


async def test_a_queued_prompt_without_a_turn_waits(store: Store) -> None:
    log = await begun(store)
    await store.append(log.next(prompt("p"), e.PromptQueued(prompt="q"), at_ms=3))
    assert await taken(store) == []
    await store.append(log.next(e.TurnCompleted(stop_reason="end"), at_ms=7))
    assert log.session.ready_ms == 7
    assert await taken(store) == ["s-1"]


async def test_processes_share_what_waits(store: Store, another: Store) -> None:
    names = {(await ready(store, f"s-{number:02}", number)).id for number in range(40)}
    told: list[str] = []

    async def one(which: Store) -> None:
        while found := await taken(which, limit=3):
            told.extend(found)

    with anyio.fail_after(LONG_S):
        async with anyio.create_task_group() as tasks:
            for which in (store, another) * 3:
                tasks.start_soon(one, which)
    assert len(told) == len(names)
    assert set(told) == names
    assert len(await taken(another, now=11, limit=100)) == 40


async def test_who_works_is_told_with_the_life_it_has(store: Store) -> None:
    await begun(store, "s-idle")
    await ready(store, "s-suspended", 5)
    running, stopping = await begun(store, "s-running"), await begun(store, "s-stopping")
    await store.append(running.next(prompt("p")))
    await store.append(stopping.next(prompt("p"), e.InterruptRequested(reason="requested")))
    assert sorted(await store.working()) == [("s-running", "life"), ("s-stopping", "life")]
    await store.append(running.next(e.TurnCompleted(stop_reason="end")))
    await store.delete("s-stopping")
    assert list(await store.working()) == []
    resumed = Log("s-suspended")
    resumed.session = await store.load("s-suspended")
    await store.append(resumed.next(e.TurnResumed(owner=OWNER.model_copy(update={"incarnation": "next life"}))))
    assert list(await store.working()) == [("s-suspended", "next life")]


# ── keeping house ──


LONG = e.ReasoningComplete(text="long " * 1000)


def shorter(recorded: Recorded, text: str) -> Recorded:
    return encode(recorded.event.model_copy(update={"text": text}))


async def test_tidying_takes_deltas_out_and_puts_less_in_the_place_of_more(store: Store) -> None:
    log = await begun(store)
    for piece in ("a", "b", "c"):
        await store.append(log.delta(piece))
    await store.append(log.next(LONG, e.TextComplete(text="message")))
    await store.append(log.delta("of what is said now"))
    created, *_, reasoning, message, last = log.events
    less = shorter(reasoning, "short")
    await store.tidy("s-1", without=range(2, 5), instead=[less])
    assert await store.read("s-1") == [created, less, message, last]
    assert await store.load("s-1") == log.session
    assert await listed(store, Selection(query="message")) == ["s-1"]
    await store.append(log.text("goes on", supersedes=last.seq))
    assert seqs(await store.read("s-1")) == [1, 5, 6, 8]
    assert await store.load("s-1") == log.session


async def test_tidying_leaves_the_last_event_and_whatever_is_no_delta(store: Store) -> None:
    log = await begun(store)
    await store.append(log.next(e.TextComplete(text="a"), LONG))
    await store.tidy("s-1", without=[1, 2, 3, 9], instead=[shorter(log.events[-1], "")])
    await store.append(log.delta("last"))
    before = list(log.events)
    await store.tidy("s-1", without=[2, 4], instead=[])
    assert await store.read("s-1") == before
    await store.append(log.text("goes on"))
    assert await store.read("s-1") == log.events


async def test_tidying_what_is_not_there_is_fine(store: Store) -> None:
    log = await begun(store)
    await store.append(log.next(e.TextDelta(text="a"), LONG, e.TextComplete(text="a"), supersedes=2))
    await store.tidy("s-1", without=[2, 70], instead=[replace(log.events[1], seq=2), replace(log.events[1], seq=71)])
    assert await store.read("s-1") == log.events
    await store.tidy("s-none", without=[1], instead=[])
    assert await store.read("s-none") == []


async def test_tidying_is_all_or_nothing_and_keeps_types(store: Store) -> None:
    log = await begun(store)
    await store.append(log.delta("a"))
    await store.append(log.next(LONG, e.TextComplete(text="a")))
    wrong = replace(log.events[0], seq=3)
    with pytest.raises(ValueError, match="cannot take the place"):
        await store.tidy("s-1", without=[2], instead=[wrong])
    assert await store.read("s-1") == log.events


async def test_tidying_is_told_to_nobody(store: Store, another: Store) -> None:
    log = await begun(store)
    await store.append(log.delta("a"))
    await store.append(log.text("b"))
    with anyio.fail_after(LONG_S):
        told = another.changes()
        assert set(await anext(told)) == {"s-1"}
        await store.tidy("s-1", without=[2], instead=[])
        assert seqs(await another.read("s-1")) == [1, 3]
        await begun(store, "s-2")
        assert set(await anext(told)) == {"s-2"}


async def test_one_process_is_on_duty_until_its_time_is_over(store: Store, open_store: OpenStore) -> None:
    other = await open_store()

    async def asked(which: Store, duty: str, incarnation: str, *, now: int, until: int) -> bool:
        return await which.on_duty(duty, incarnation, now_ms=now * MINUTE_MS, until_ms=until * MINUTE_MS)

    assert await asked(store, "sweep", "life-1", now=0, until=10)
    assert not await asked(other, "sweep", "life-2", now=5, until=15)
    assert await asked(other, "wash", "life-2", now=5, until=15)
    assert await asked(store, "sweep", "life-1", now=9, until=20)
    assert not await asked(other, "sweep", "life-2", now=19, until=30)
    assert await asked(other, "sweep", "life-2", now=21, until=30)
    assert not await asked(store, "sweep", "life-1", now=22, until=40)


async def test_the_sealing_key_is_one_for_all_and_for_good(store: Store, open_store: OpenStore) -> None:
    stores, keys = [store, await open_store()], list[bytes]()

    async def ask(number: int) -> None:
        keys.append(await stores[number % 2].sealing_key())

    with anyio.fail_after(LONG_S):
        async with anyio.create_task_group() as tasks:
            for number in range(6):
                tasks.start_soon(ask, number)
    assert len(set(keys)) == 1
    assert len(keys[0]) == SEALING_KEY_BYTES
    assert await (await open_store()).sealing_key() == keys[0]


# ── config ──


async def test_the_config_begins_empty(store: Store) -> None:
    config = await store.config()
    assert (config.generation, config.document) == (0, {})


async def test_a_config_is_given_back_as_it_was_put(store: Store) -> None:
    document = {"agent": {"system_prompt": "Füße ✂️", "provider_params": {"list": [1, None, True]}}}
    put = await store.put_config(document, expected=0)
    assert (put.generation, put.document) == (1, document)
    assert await store.config() == put
    assert (await store.put_config({}, expected=None)).generation == 2
    assert (await store.config()).document == {}


async def test_a_config_that_moved_on_is_not_overwritten(store: Store) -> None:
    await store.put_config({"a": 1}, expected=None)
    with pytest.raises(GenerationConflict) as refused:
        await store.put_config({"a": 2}, expected=0)
    assert refused.value.facts == {"expected": 0, "current": 1}
    assert (await store.config()).document == {"a": 1}


async def test_what_is_done_to_a_document_afterwards_does_not_reach_the_store(store: Store) -> None:
    document = {"agent": {"model": "a"}}
    put = await store.put_config(document, expected=None)
    document["agent"]["model"] = "b"
    put.document["agent"]["model"] = "c"
    (await store.config()).document["agent"]["model"] = "d"
    assert (await store.config()).document == {"agent": {"model": "a"}}


async def test_of_many_changes_to_one_generation_exactly_one_wins(store: Store, open_store: OpenStore) -> None:
    stores, won = [store, await open_store()], list[int]()

    async def put(number: int) -> None:
        try:
            await stores[number % 2].put_config({"won": number}, expected=0)
        except GenerationConflict:
            return
        won.append(number)

    with anyio.fail_after(LONG_S):
        async with anyio.create_task_group() as tasks:
            for number in range(20):
                tasks.start_soon(put, number)
    assert [(await store.config()).document["won"]] == won


# ── streams ──


def stream(stream_id: str = "evt-1", *, after_seq: int = 0, used_ms: int = 1, types: tuple[str, ...] = ()) -> Stream:
    return Stream(stream_id=stream_id, session_id="s-1", after_seq=after_seq, used_ms=used_ms, types=types)


async def test_a_stream_is_opened_moved_and_closed(store: Store) -> None:
    await begun(store)
    assert await store.stream("evt-1") is None
    await store.put_stream(stream(types=("text_complete", "turn_completed")))
    assert await store.stream("evt-1") == stream(types=("text_complete", "turn_completed"))
    await store.put_stream(stream(after_seq=7, used_ms=9))
    assert await store.stream("evt-1") == stream(after_seq=7, used_ms=9)
    assert await store.close_stream("evt-1") is True
    assert await store.close_stream("evt-1") is False
    assert await store.stream("evt-1") is None


async def test_a_stream_needs_a_session(store: Store) -> None:
    with pytest.raises(SessionNotFound):
        await store.put_stream(stream())


async def test_streams_that_idled_are_closed(store: Store) -> None:
    await begun(store)
    for number in range(5):
        await store.put_stream(stream(f"evt-{number}", used_ms=number))
    assert await store.prune_streams(used_before_ms=3) == 3
    assert await store.prune_streams(used_before_ms=3) == 0
    assert [await store.stream(f"evt-{number}") is not None for number in range(5)] == [False] * 3 + [True] * 2


# ── instances ──


def instance(incarnation: str = "life-1", *, expires_ms: int = 1000) -> Instance:
    return Instance(instance_id="i", incarnation=incarnation, host="h", pid=1, expires_ms=expires_ms)


async def test_an_instance_lives_while_its_lease_does(store: Store, open_store: OpenStore) -> None:
    other = await open_store()
    assert not await other.alive("life-1", now_ms=0)
    await store.renew(instance(expires_ms=MINUTE_MS))
    assert await store.alive("life-1", now_ms=0)
    assert await other.alive("life-1", now_ms=0)
    assert not await other.alive("life-1", now_ms=2 * MINUTE_MS)
    await store.renew(instance(expires_ms=3 * MINUTE_MS))
    assert await other.alive("life-1", now_ms=2 * MINUTE_MS)
    assert not await other.alive("life-2", now_ms=2 * MINUTE_MS)


async def test_a_retired_instance_is_forgotten(store: Store, open_store: OpenStore) -> None:
    await store.renew(instance())
    await store.retire("life-1")
    await store.retire("life-1")
    await store.retire("never heard of")
    assert not await store.alive("life-1", now_ms=0)
    assert not await (await open_store()).alive("life-1", now_ms=0)


# ── closing ──


async def test_what_was_kept_is_there_for_whoever_opens_the_store_next(store: Store, open_store: OpenStore) -> None:
    log = await begun(store)
    await store.put_config({"a": 1}, expected=None)
    await store.put_stream(stream())
    await store.close()
    again = await open_store()
    assert await again.read("s-1") == log.events
    assert (await again.config()).generation == 1
    assert await again.stream("evt-1") == stream()


async def test_closing_twice_is_fine(store: Store) -> None:
    await store.close()
    await store.close()
