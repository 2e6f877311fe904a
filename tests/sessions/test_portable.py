"""Sessions as files: what is exported, what is imported again, and what no file can do."""

import hashlib
import json
from collections.abc import AsyncIterator, Callable, Iterable
from typing import Any

import anyio
import pytest
from words import CALL, PATIENCE_S, WEATHER, check_log, log, resume, run, settings, types, until

from meerkat_mcp.domain.errors import InvalidRequest, LimitExceeded, SchemaInvalid, SessionNotFound
from meerkat_mcp.domain.session import Session
from meerkat_mcp.realms import Realm, choose, open_realm
from meerkat_mcp.sessions.intake import PAGE_EVENTS, Imported

pytestmark = pytest.mark.anyio

ORIGIN = "0199aaaa-0000-7000-8000-000000000001"
OWNER = {"instance_id": "i", "incarnation": "n", "host": "h", "pid": 1}
COMMAND = {"files": {"command": "rm", "args": ["-rf"]}}


async def exported(realm: Realm, session_id: str) -> list[bytes]:
    return [line async for line in realm.reading.export_session(await realm.sessions.settled(session_id))]


async def pieces(parts: Iterable[bytes]) -> AsyncIterator[bytes]:
    for part in parts:
        yield part


async def imported(realm: Realm, *parts: bytes, **how: Any) -> Imported:
    with anyio.fail_after(PATIENCE_S):
        return await realm.shelf.import_session(pieces(parts), **how)


def packed(*events: dict[str, Any], header: dict[str, Any] | None = None) -> bytes:
    """A file as somebody could write it: with the right digest, whatever is in it."""
    begin = {
        "meerkat_session": 1,
        "realm_id": "far",
        "session_id": ORIGIN,
        "exported_ms": 1,
        "version": "0.1.0",
        "state": "idle",
        "last_seq": max((event["seq"] for event in events), default=1),
    }
    lines = [json.dumps(event).encode() + b"\n" for event in events]
    digest = hashlib.sha256(b"".join(lines)).hexdigest()
    end = {"meerkat_session_end": 1, "events": len(events), "sha256": digest}
    return b"".join([json.dumps(begin | (header or {})).encode(), b"\n", *lines, json.dumps(end).encode(), b"\n"])


def event(seq: int, kind: str, /, **more: Any) -> dict[str, Any]:
    return {"event_id": f"e{seq}", "seq": seq, "session_id": ORIGIN, "timestamp_ms": 1, "type": kind, **more}


def created(**more: Any) -> dict[str, Any]:
    return event(1, "session_created", **({"settings": {}} | more))


def started(seq: int, turn_id: str | None = "t1", prompt: str = "hi") -> dict[str, Any]:
    return event(seq, "turn_started", turn_id=turn_id, prompt=prompt, owner=OWNER)


async def sessions(realm: Realm) -> list[Session]:
    from meerkat_mcp.stores.base import Selection

    return list((await realm.reading.list(Selection(archived=None))).sessions)


# ── export ──


async def test_an_export_has_every_event_as_the_store_has_it(realm):
    session_id = (await run(realm, "My name is Ada."))[0].session_id
    first, *events, last = await exported(realm, session_id)
    kept = await realm.store.read(session_id)
    assert events == [recorded.body + b"\n" for recorded in kept]
    header, trailer = json.loads(first), json.loads(last)
    assert (header["meerkat_session"], header["session_id"], header["realm_id"]) == (1, session_id, "den")
    assert header["last_seq"] == kept[-1].seq
    assert trailer == {
        "meerkat_session_end": 1,
        "events": len(events),
        "sha256": hashlib.sha256(b"".join(events)).hexdigest(),
    }


async def test_a_session_that_works_is_exported_up_to_now_and_goes_on(den):
    started, _ = await run(den, "one")
    await den.sessions.resume(started.session_id, "[[hang]]")
    await until(den, started.session_id, "step_started", after=6)
    lines = await exported(den, started.session_id)
    assert json.loads(lines[0])["state"] == "running"
    made = (await imported(den, *lines)).session
    assert (made.state, made.turn and made.turn.status) == ("idle", "interrupted")
    assert (await den.journal.load(started.session_id)).state == "running"


async def test_an_export_of_what_is_deleted_meanwhile_has_no_end(den):
    started, _ = await run(den, "one")
    lines = den.reading.export_session(await den.journal.load(started.session_id))
    await anext(lines)
    await den.shelf.delete(started.session_id)
    with pytest.raises(SessionNotFound):
        async for _ in lines:
            pass


# ── import ──


async def test_an_import_has_the_history_and_goes_on(realm):
    session_id = (await run(realm, "My name is Ada."))[0].session_id
    await realm.shelf.rename(session_id, title="A first one", labels={"team": "red"})
    origin = await realm.journal.load(session_id)
    lines = await exported(realm, session_id)
    made = (await imported(realm, *lines)).session
    assert made.id != session_id
    assert made.forked_from is not None
    assert (made.forked_from.session_id, made.forked_from.at_seq) == (session_id, origin.seq)
    assert (made.title, made.labels, made.created_ms) == ("A first one", {"team": "red"}, origin.created_ms)
    assert "Ada" in (await resume(realm, made.id, "What is my name?")).text
    assert (await realm.reading.history(session_id)).total == 2
    assert (await realm.reading.history(made.id)).total == 4
    await check_log(realm, made.id)


async def test_the_events_keep_their_places_and_are_new_ones_of_the_new_session(den):
    session_id = (await run(den, "one"))[0].session_id
    before = await log(den, session_id)
    made = (await imported(den, *await exported(den, session_id), title="Two")).session
    after = await log(den, made.id)
    assert [(one.seq, one.type) for one in before] == [(one.seq, one.type) for one in after[:-1]]
    assert not {one.event_id for one in before} & {one.event_id for one in after}
    assert {one.session_id for one in after} == {made.id}
    assert (made.title, after[-1].type) == ("Two", "settings_changed")


async def test_a_session_keeps_its_id_where_that_is_free(realm, tmp_path):
    session_id = (await run(realm, "My name is Ada."))[0].session_id
    lines = await exported(realm, session_id)
    with pytest.raises(InvalidRequest, match="here already"):
        await imported(realm, *lines, keep_id=True)
    await check_log(realm, session_id)
    async with open_realm(choose("burrow", backend="memory", state_root=tmp_path)) as other:
        made = (await imported(other, *lines, keep_id=True)).session
        assert (made.id, made.forked_from) == (session_id, None)
        assert (await exported(other, session_id))[1 : len(lines) - 1] == lines[1:-1]
        await check_log(other, session_id)


async def _waiting(realm: Realm) -> str:
    return (await run(realm, CALL, tools=(WEATHER,)))[0].session_id


async def _queued(realm: Realm) -> str:
    session_id = (await run(realm, "one"))[0].session_id
    await realm.sessions.resume(session_id, "[[hang]]")
    await realm.sessions.resume(session_id, "later", if_busy="queue")
    return session_id


async def _archived(realm: Realm) -> str:
    session_id = (await run(realm, "one"))[0].session_id
    await realm.shelf.archive(session_id)
    return session_id


async def _compacted(realm: Realm) -> str:
    session_id = (await run(realm, "My name is Ada."))[0].session_id
    await resume(realm, session_id, "I like tea.")
    begun = await realm.sessions.compact(session_id)
    assert begun.turn_id is not None
    assert await realm.sessions.wait(session_id, begun.turn_id, PATIENCE_S)
    return session_id


async def _forked(realm: Realm) -> str:
    session_id = (await run(realm, "one"))[0].session_id
    return (await realm.shelf.fork(session_id, at_seq=3)).id


async def _answered(realm: Realm) -> str:
    from meerkat_mcp.domain.messages import ToolResult

    session_id = await _waiting(realm)
    await resume(realm, session_id, tool_results=[ToolResult(tool_use_id="call_1_1", content="Rain.")])
    return session_id


@pytest.mark.parametrize("keep_id", [False, True])
@pytest.mark.parametrize("make", [_waiting, _queued, _archived, _compacted, _forked, _answered])
async def test_whatever_a_session_did_its_import_is_idle_and_can_go_on(
    den, tmp_path, make: Callable[[Realm], Any], keep_id: bool
):
    lines = await exported(den, await make(den))
    async with open_realm(choose("burrow", backend="memory", state_root=tmp_path)) as other:
        made = (await imported(other, *lines, keep_id=keep_id)).session
        assert (made.state, made.queue) == ("idle", ())
        await check_log(other, made.id)
        assert (await resume(other, made.id, "[[say on]]")).text == "on"
        await check_log(other, made.id)


async def test_a_suspended_turn_ends_in_an_import(den):
    turn = [started(2), event(3, "turn_suspended", turn_id="t1")]
    made = (await imported(den, packed(created(), *turn))).session
    assert (made.state, made.ready_ms) == ("idle", None)
    assert await types(den, made.id) == [
        "session_created",
        "turn_started",
        "turn_suspended",
        "turn_interrupted",
        "settings_changed",
    ]


async def test_deltas_that_went_since_the_export_began_leave_a_hole(den):
    file = packed(created(), started(2), event(3, "text_delta", turn_id="t1", text="x"), header={"last_seq": 9})
    made = (await imported(den, file)).session
    assert [one.seq for one in await log(den, made.id)] == [1, 2, 3, 10, 11]
    await check_log(den, made.id)


async def test_a_file_may_come_in_any_pieces_and_with_the_line_ends_of_windows(den):
    session_id = (await run(den, "one"))[0].session_id
    whole = b"".join(await exported(den, session_id))
    for parts in ([whole[at : at + 1] for at in range(len(whole))], [b"\xef\xbb\xbf" + whole.replace(b"\n", b"\r\n")]):
        made = (await imported(den, *parts)).session
        assert (await den.reading.history(made.id)).total == 2


# ── what no file can do ──


async def test_a_cut_or_changed_file_leaves_nothing(realm):
    session_id = (await run(realm, "My name is Ada."))[0].session_id
    lines = await exported(realm, session_id)
    whole = b"".join(lines)
    broken = {
        "cut": [*lines[:-1]],
        "cut in a line": [whole[: len(whole) // 2]],
        "a line less": [*lines[:3], *lines[4:]],
        "a line twice": [*lines[:3], lines[2], *lines[3:]],
        "another word": [whole.replace(b"Ada", b"Eve")],
        "more behind": [whole, whole],
        "nothing": [],
        "empty": [b""],
        "markdown": [b"# Session\n\n- session: x\n"],
        "no JSON": [lines[0], b"{\n", *lines[1:]],
        "not UTF-8": [lines[0], b'{"type":"\xff"}\n', lines[-1]],
    }
    for name, parts in broken.items():
        with pytest.raises(InvalidRequest):
            await imported(realm, *parts)
        assert [one.id for one in await sessions(realm)] == [session_id], name


@pytest.mark.parametrize(
    ("file", "says"),
    [
        (packed(created(), header={"meerkat_session": 2, "version": "9.1"}), "format 2, of version '9.1'"),
        (packed(created(), event(2, "session_dreamt")), "does not know events of this type; it is of '0.1.0'"),
        (packed(created(), header={"session_id": "../../etc/passwd"}), "session_id"),
        (packed(created() | {"session_id": ORIGIN[:-1] + "2"}), "another session"),
        (packed(started(1)), "cannot come where it stands"),
        (packed(created(), event(2, "turn_completed", turn_id="t1")), "cannot come where it stands"),
        (packed(created(), started(2, turn_id=None)), "turn"),
        (packed(created(), started(2), event(3, "turn_completed", turn_id="other")), "turn"),
        (packed(created(), started(2), event(3, "step_started", turn_id="o", step=1, provider="", model="")), "turn"),
        (packed(created(), event(2, "prompt_dropped")), "turn"),
        (packed(created(), started(3), started(2)), "seq is 2, after 3"),
        (packed(created() | {"seq": 2}), "seq is 2"),
        (packed(created(), event(2, "session_archived"), header={"last_seq": 1}), "in a log of 1"),
        (packed(created() | {"timestamp_ms": 2**60}), "time"),
        (packed(created(), event(2**54, "session_archived")), "last_seq"),
        (packed(created(title="x" * 300)), "title has 300"),
        (packed(created(labels={str(n): "" for n in range(40)})), "at most 32 labels"),
        (packed(created(nobody="knows")), "nobody"),
        (packed(), "has no event"),
        (
            packed(
                created(),
                started(2),
                event(3, "history_compacted", turn_id="t1", summary="s", through_seq=2**70, messages_replaced=1),
            ),
            "place",
        ),
        (
            packed(
                created(),
                started(2),
                event(
                    3, "retrying", turn_id="t1", step=1, attempt=1, attempts_max=2, kind="", message="", delay_s=1e308
                )
                | {"delay_s": float("inf")},
            ),
            "number that cannot be kept",
        ),
    ],
)
async def test_what_cannot_be_is_refused_by_its_line(realm, file: bytes, says: str):
    with pytest.raises(InvalidRequest, match=says):
        await imported(realm, file)
    assert await sessions(realm) == []


async def test_a_wrong_output_schema_is_refused(den):
    with pytest.raises(SchemaInvalid):
        await imported(den, packed(created(settings={"output_schema": {"type": "nothing"}})))
    assert await sessions(den) == []


async def test_tool_servers_and_a_laxer_mode_are_dropped_unless_the_file_is_trusted(den):
    file = packed(
        created(settings={"mcp_servers": COMMAND | {"ours": None}, "permission_mode": "auto", "system_prompt": "Be."})
    )
    made = await imported(den, file)
    assert made.dropped == ("tool server files", "permission mode auto")
    assert made.session.settings == settings(
        provider_params=None, mcp_servers={"ours": None}, permission_mode=None, system_prompt="Be."
    )
    trusted = await imported(den, file, trusted=True)
    assert trusted.dropped == ()
    assert trusted.session.settings.permission_mode == "auto"
    assert set(trusted.session.settings.mcp_servers or ()) == {"files", "ours"}


async def test_a_stricter_mode_of_a_file_stays(den):
    made = await imported(den, packed(created(settings={"permission_mode": "readonly"})))
    assert (made.dropped, made.session.settings.permission_mode) == ((), "readonly")


async def test_who_asked_is_who_imports_whatever_the_file_says(den):
    file = packed(created(principal="root"), started(2) | {"principal": "root"})
    for by in (None, "ada"):
        made = (await imported(den, file, by=by)).session
        assert made.principal == by
        assert {one.principal for one in await log(den, made.id)} == {by}


# ── large ones ──


def large(events: int) -> list[dict[str, Any]]:
    return [created(), *(event(seq, "settings_changed", title=f"title {seq}") for seq in range(2, events + 1))]


async def test_a_large_session_is_imported_page_by_page(den):
    file = packed(*large(PAGE_EVENTS + 5))
    made = (await imported(den, file)).session
    assert (made.seq, made.title) == (PAGE_EVENTS + 6, f"title {PAGE_EVENTS + 5}")
    await check_log(den, made.id)


async def test_what_fails_after_a_page_was_recorded_takes_it_away_again(den):
    whole = packed(*large(PAGE_EVENTS + 5))
    seen: list[Session] = []

    async def cut() -> AsyncIterator[bytes]:
        lines = whole.splitlines(keepends=True)
        yield b"".join(lines[:-2])
        seen.extend(await sessions(den))

    with pytest.raises(InvalidRequest, match="cut"):
        await den.shelf.import_session(cut())
    (begun,) = seen
    assert begun.forked_from is not None
    assert begun.seq < begun.forked_from.at_seq  # how one is known that nobody could take away
    assert await sessions(den) == []


async def test_an_import_that_is_cancelled_leaves_nothing(den):
    whole = packed(*large(PAGE_EVENTS + 5))
    begun = anyio.Event()

    async def endless() -> AsyncIterator[bytes]:
        yield b"".join(whole.splitlines(keepends=True)[:-1])
        begun.set()
        await anyio.sleep_forever()

    with anyio.fail_after(PATIENCE_S):
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(den.shelf.import_session, endless())
            await begun.wait()
            assert len(await sessions(den)) == 1
            tasks.cancel_scope.cancel()
    assert await sessions(den) == []


async def test_pages_end_only_where_nobody_finds_something_to_go_on_with(den):
    """A turn longer than a page is recorded whole: another process would take its first half for one that died."""
    steps = [event(seq, "text_delta", turn_id="t1", text="x") for seq in range(3, PAGE_EVENTS + 10)]
    whole = packed(created(), started(2), *steps)

    async def looked_at() -> AsyncIterator[bytes]:
        lines = whole.splitlines(keepends=True)
        yield b"".join(lines[:-1])
        assert await sessions(den) == []
        yield lines[-1]

    made = (await den.shelf.import_session(looked_at())).session
    assert (await check_log(den, made.id)).state == "idle"


async def test_one_that_keeps_its_id_enters_at_once_or_not_at_all(den):
    from meerkat_mcp.sessions.intake import APPEND_EVENTS_MAX

    async def endless() -> AsyncIterator[bytes]:
        yield packed(header={"last_seq": 10**9}).splitlines(keepends=True)[0]
        yield json.dumps(created()).encode() + b"\n"
        for seq in range(2, APPEND_EVENTS_MAX + 10):
            yield (
                b'{"event_id":"e","seq":%d,"session_id":"%s","timestamp_ms":1,"type":"session_forked",'
                % (
                    seq,
                    ORIGIN.encode(),
                )
                + b'"fork_id":"f","at_seq":1}\n'
            )

    with pytest.raises(LimitExceeded) as raised:
        await den.shelf.import_session(endless(), keep_id=True)
    assert "without keeping its id" in raised.value.hint
    assert await sessions(den) == []
