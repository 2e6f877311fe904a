"""What is special about a realm of files: their format, crashes at every byte, damage, and one process at a time.

What every store promises is in `test_contract.py`.
"""

import json
import os
import random
import re
import shutil
import subprocess
import sys
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from dataclasses import replace
from pathlib import Path
from typing import Any

import anyio
import pytest
from anyio.abc import Process
from anyio.streams.text import TextReceiveStream
from stores.conftest import Log

from meerkat_mcp.domain import events as e
from meerkat_mcp.domain.errors import Corrupt, SessionNotFound, StoreUnavailable
from meerkat_mcp.domain.messages import Usage
from meerkat_mcp.domain.realm import Instance
from meerkat_mcp.domain.recorded import Recorded
from meerkat_mcp.domain.session import Session, advance
from meerkat_mcp.stores import jsonl_file, jsonl_index, jsonl_log, jsonl_logs, searching
from meerkat_mcp.stores.base import Claim, KeyTaken, Selection, SequenceConflict, Stream
from meerkat_mcp.stores.jsonl import JsonlStore
from meerkat_mcp.stores.jsonl_file import unavailable

pytestmark = pytest.mark.anyio

LONG_S = 100
ROOT = Path(jsonl_log.__file__).parents[2]
PAGE = ROOT / "docs" / "reference" / "jsonl-format.md"
OWNER = e.Owner(instance_id="i", incarnation="life", host="h", pid=1)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return tmp_path / "realm"


@pytest.fixture
def file(folder: Path) -> Path:
    return folder / "sessions" / "s-1.jsonl"


async def opened(folder: Path, *, wait_s: float = 0) -> JsonlStore:
    return await JsonlStore.open(folder, clock_ms=lambda: time.time_ns() // 1_000_000, wait_s=wait_s)


@asynccontextmanager
async def a_store(folder: Path) -> AsyncIterator[JsonlStore]:
    """A store on what is in the folder now, closed again at the end."""
    store = await opened(folder)
    try:
        yield store
    finally:
        await store.close()


async def begun(store: JsonlStore, session_id: str = "s-1", **how: Any) -> Log:
    log = Log(session_id)
    await store.append(log.begin(**how))
    return log


async def written(folder: Path, *session_ids: str) -> dict[str, Log]:
    """A realm with these sessions in it, each with some texts, closed."""
    async with a_store(folder) as store:
        logs = {
            session_id: await begun(store, session_id, title=f"title of {session_id}") for session_id in session_ids
        }
        for log in logs.values():
            await store.append(log.text("one"))
            await store.append(log.next(e.TextComplete(text="two"), e.TextComplete(text="three")))
            await store.append(log.text("four"))
    return logs


def found(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in sorted(folder.rglob("*")) if path.is_file()}


def bytes_in(folder: Path) -> bytes:
    return b"".join(found(folder).values())


def content(file: Path) -> bytes:
    return file.read_bytes()


def size_of(file: Path) -> int:
    return file.stat().st_size


def there(file: Path) -> bool:
    return file.exists()


def made_a_folder(file: Path) -> None:
    file.unlink()
    file.mkdir()


def modes(folder: Path) -> dict[str, set[int]]:
    modes: dict[str, set[int]] = {"file": set(), "folder": {folder.stat().st_mode & 0o777}}
    for path in folder.rglob("*"):
        modes["folder" if path.is_dir() else "file"].add(path.stat().st_mode & 0o777)
    return modes


def laid(file: Path, content: bytes) -> None:
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_bytes(content)


def lines_of(file: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in content(file).splitlines()]


def spoiled_unnoticed(file: Path, before: bytes, after: bytes) -> None:
    """Replace bytes so that the file looks as it did, from outside."""
    status = file.stat()
    file.write_bytes(file.read_bytes().replace(before, after))
    os.utime(file, ns=(status.st_atime_ns, status.st_mtime_ns))


async def whole(store: JsonlStore, session_id: str) -> list[Recorded]:
    """All events of a log."""
    events: list[Recorded] = []
    while page := await store.read(session_id, after=events[-1].seq if events else 0):
        events += page
    return events


async def listed(store: JsonlStore) -> list[str]:
    return sorted(session.id for session in await store.sessions(Selection(archived=None)))


IN_ANOTHER_PROCESS = """
import os, sys, random
sys.path[:0] = [{root!r}, {tests!r}]
import anyio
from pathlib import Path
from stores.conftest import Log
from meerkat_mcp.domain import events as e
from meerkat_mcp.domain.errors import StoreUnavailable
from meerkat_mcp.domain.messages import Usage
from meerkat_mcp.domain.realm import Instance
from meerkat_mcp.stores.jsonl import JsonlStore

FOLDER = Path(sys.argv[1])

def say(*what):
    os.write(1, (" ".join(map(str, what)) + chr(10)).encode())

async def opened():
    return await JsonlStore.open(FOLDER, clock_ms=lambda: 5, wait_s=0)

async def main():
    {main}

{body}
"""


@asynccontextmanager
async def another_process(
    folder: Path, *, main: str = "pass", body: str = ""
) -> AsyncIterator[tuple[Process, "Lines"]]:
    """Run a script in a process of its own; gives it and the lines it says."""
    script = IN_ANOTHER_PROCESS.format(
        root=str(ROOT),
        tests=str(ROOT / "tests"),
        main=main.strip().replace("\n", "\n    "),
        body=body or "anyio.run(main)",
    )
    process = await anyio.open_process([sys.executable, "-c", script, str(folder)], stderr=None)
    try:
        yield process, Lines(process)
    finally:
        if process.returncode is None:
            process.kill()
        with anyio.CancelScope(shield=True):
            await process.aclose()


class Lines:
    """What a process says, line by line."""

    def __init__(self, process: Process) -> None:
        assert process.stdout is not None
        self._stream = TextReceiveStream(process.stdout)
        self._rest = ""

    async def next(self) -> str:
        while "\n" not in self._rest:
            self._rest += await self._stream.receive()
        line, _, self._rest = self._rest.partition("\n")
        return line


async def tell(process: Process, what: str = "") -> None:
    assert process.stdin is not None
    await process.stdin.send(f"{what}\n".encode())


# ── the format ──


async def test_a_line_is_an_event_with_the_bytes_it_was_recorded_with(jsonl: JsonlStore, file: Path) -> None:
    log = await begun(jsonl, title="Füße ✂️ \u2028")
    await jsonl.append(log.delta("a"))
    await jsonl.append(log.text("b"))
    assert content(file) == b"".join(recorded.body + b"\n" for recorded in log.events)


async def test_what_events_do_not_say_is_in_a_note_before_them(jsonl: JsonlStore, file: Path) -> None:
    log = await begun(jsonl)
    await jsonl.append(log.next(e.TextComplete(text="a"), e.TextComplete(text="b")))
    await jsonl.append(log.delta())
    await jsonl.append(log.text(supersedes=4))
    claim = Claim(key="Schlüssel", digest="d", session_id="s-1", turn_id="t-1", created_ms=5)
    await jsonl.append(log.next(e.TextComplete(text="c"), claim=claim))
    notes = [line["$append"] for line in lines_of(file) if "$append" in line]
    said = {"key": "Schlüssel", "digest": "d", "turn_id": "t-1", "created_ms": 5}
    assert notes == [{"events": 2}, {"events": 1, "superseded": [4, 4]}, {"events": 1, "claim": said}]
    assert [line.get("seq") for line in lines_of(file)] == [1, None, 2, 3, 4, None, 5, None, 6]


async def test_claims_and_superseded_deltas_are_known_after_reopening_without_an_index(folder: Path) -> None:
    claim = Claim(key="key", digest="d", session_id="s-1", turn_id="t-1", created_ms=5)
    async with a_store(folder) as store:
        log = await begun(store)
        for number in range(5):
            await store.append(log.delta(str(number)))
        await store.append(log.next(e.TextComplete(text="x"), supersedes=3, claim=claim))
    (folder / "index.jsonl").unlink()
    async with a_store(folder) as store:
        assert await store.read("s-1") == log.events
        assert await store.load("s-1") == log.session
        assert await store.claim("key") == claim
        with pytest.raises(KeyTaken):
            await store.append(log.next(e.TextComplete(text="y"), claim=claim))


@pytest.mark.parametrize("session_id", ["a/b", "../../outside", "..", ".", "Füße", "a b%2f", "CON:", "a\nb", "x.jsonl"])
async def test_any_id_is_a_file_in_the_folder(folder: Path, session_id: str) -> None:
    async with a_store(folder) as store:
        log = await begun(store, session_id)
    assert len(list((folder / "sessions").iterdir())) == 1
    (folder / "index.jsonl").unlink()
    async with a_store(folder) as store:
        assert await listed(store) == [session_id]
        assert await store.read(session_id) == log.events
        await store.delete(session_id)
    assert list((folder / "sessions").iterdir()) == []


@pytest.mark.skipif(os.name == "nt", reason="Windows has other permissions")
async def test_only_the_owner_can_look_into_the_files(jsonl: JsonlStore, folder: Path) -> None:
    await begun(jsonl)
    await jsonl.put_config({"a": 1}, expected=None)
    await jsonl.put_stream(Stream(stream_id="evt-1", session_id="s-1", after_seq=0, used_ms=1))
    await jsonl.close()
    names = {"s-1.jsonl", "config.json", "streams.json", "index.jsonl", "realm.lock", "realm.owner"}
    assert set(found(folder)) == names
    assert modes(folder) == {"file": {0o600}, "folder": {0o700}}


# ── the page ──


def blocks(language: str) -> list[str]:
    return re.findall(rf"```{language}\n(.*?)```", PAGE.read_text(encoding="utf-8"), re.DOTALL)


async def test_the_session_on_the_page_can_be_opened(folder: Path) -> None:
    (sample,) = blocks("jsonl")
    laid(folder / "sessions" / "01a2.jsonl", sample.encode())
    async with a_store(folder) as store:
        assert store.warnings == ()
        session = await store.load("01a2")
        assert (session.state, session.title, session.turns) == ("idle", "Greeting", 1)
        assert [recorded.seq for recorded in await store.read("01a2")] == [1, 2, 3, 6, 7, 8]
        claim = await store.claim("order-7")
        assert claim is not None
        assert claim.turn_id == "t-1"
    assert (folder / "sessions" / "01a2.jsonl").read_text(encoding="utf-8") == sample


async def test_the_session_on_the_page_is_as_this_program_writes_it(folder: Path) -> None:
    (sample,) = blocks("jsonl")
    laid(folder / "sessions" / "01a2.jsonl", sample.encode())
    async with a_store(folder) as store:
        for recorded in await store.read("01a2"):
            again = recorded.event.model_dump_json(exclude_none=True).encode()
            assert again == recorded.body


@pytest.mark.skipif(shutil.which("jq") is None, reason="no jq here")
def test_what_the_page_reads_with_jq_is_so(folder: Path) -> None:
    (sample,), commands, answers = blocks("jsonl"), blocks("sh"), blocks("text")
    laid(folder / "sessions" / "01a2.jsonl", sample.encode())
    assert len(commands) == len(answers) > 2
    for command, answer in zip(commands, answers, strict=True):
        done = subprocess.run(["sh", "-c", command], cwd=folder, capture_output=True, text=True, timeout=LONG_S)
        assert (done.stdout, done.stderr) == (answer, "")


# ── one process ──


async def test_a_second_process_is_refused_and_told_who_has_the_realm(folder: Path) -> None:
    main = """
store = await opened()
await store.renew(Instance(instance_id="the-first", incarnation="i", host="h", pid=1, expires_ms=1 << 60))
say(os.getpid())
await anyio.sleep_forever()
"""
    with anyio.fail_after(LONG_S):
        async with another_process(folder, main=main) as (process, lines):
            pid = int(await lines.next())
            with pytest.raises(StoreUnavailable, match=f"in use by instance the-first, process {pid} on ") as refused:
                await opened(folder)
            assert "sqlite" in refused.value.hint
            assert refused.value.facts["owner"]["since_ms"] == 5
            process.kill()
            await process.wait()
            async with a_store(folder) as store:
                assert not await store.alive("i", now_ms=0)


async def test_a_second_store_of_the_same_process_is_refused_too(jsonl: JsonlStore, folder: Path) -> None:
    with pytest.raises(StoreUnavailable, match="in use by process"):
        await opened(folder)
    (folder / "realm.owner").write_text("{", encoding="utf-8")
    with pytest.raises(StoreUnavailable, match="in use by another process"):
        await opened(folder)
    await jsonl.close()
    async with a_store(folder) as store:
        await begun(store)


async def test_who_opens_a_realm_that_is_being_closed_waits_for_it(jsonl: JsonlStore, folder: Path) -> None:
    await begun(jsonl)
    with anyio.fail_after(LONG_S):
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(jsonl.close)
            store = await opened(folder, wait_s=LONG_S)
    assert await listed(store) == ["s-1"]
    await store.close()


# ── crashes ──

WRITE_UNTIL_KILLED = """
async def one(store, name, by_chance):
    try:
        session = await store.load(name)
    except Exception:
        log = Log(name)
        await store.append(log.begin())
    else:
        log = Log(name)
        log.session = session
    say(name, log.session.seq)
    while True:
        first = log.session.seq + 1
        for number in range(by_chance.randrange(3)):
            await store.append(log.delta("x" * by_chance.choice((10, 1000))))
            say(name, log.session.seq)
        count = by_chance.randrange(1, 5)
        texts = [f"{first}/{count} " + "y" * by_chance.choice((1, 100, 9000)) for _ in range(count)]
        await store.append(log.next(*(e.TextComplete(text=text) for text in texts), supersedes=first))
        say(name, log.session.seq)

async def write(seed):
    store = await opened()
    async with anyio.create_task_group() as tasks:
        for number in range(3):
            tasks.start_soon(one, store, f"s-{int(seed) // 10}-{number}", random.Random(f"{seed}-{number}"))

for line in sys.stdin:
    if not (pid := os.fork()):
        say(os.getpid())
        anyio.run(write, line)
    os.waitpid(pid, 0)
    say("dead")
"""


@pytest.mark.skipif(not hasattr(os, "fork"), reason="only where processes fork this is quick enough")
async def test_processes_killed_at_random_lose_nothing_acknowledged_and_leave_nothing_half(folder: Path) -> None:
    by_chance = random.Random(7)
    with anyio.fail_after(LONG_S):
        async with another_process(folder, body=WRITE_UNTIL_KILLED) as (process, lines):
            for life in range(40):
                await tell(process, str(life))
                pid = int(await lines.next())
                acknowledged: dict[str, int] = {}
                left = by_chance.randrange(1, 60)
                while (line := await lines.next()) != "dead":
                    name, seq = line.split()
                    acknowledged[name] = int(seq)
                    if not (left := left - 1):
                        os.kill(pid, 9)
                async with a_store(folder) as store:
                    for name, seq in acknowledged.items():
                        await is_whole(store, name, at_least=seq)


async def is_whole(store: JsonlStore, session_id: str, *, at_least: int) -> None:
    events, session = await whole(store, session_id), Session(id=session_id)
    appends: dict[str, int] = {}
    for recorded in events:
        event = recorded.event
        session = advance(session, event)
        if isinstance(event, e.TextComplete):
            append = event.text.split()[0]
            appends[append] = appends.get(append, 0) + 1
            superseded = range(int(append.split("/")[0]), event.seq)
            assert not [other for other in events if other.is_delta and other.seq in superseded]
    assert all(count == int(append.split("/")[1]) for append, count in appends.items())
    assert await store.load(session_id) == session
    assert session.seq >= at_least


async def test_a_tail_torn_at_any_byte_is_cut_to_the_append_before(folder: Path, file: Path, tmp_path: Path) -> None:
    claim = Claim(key="key", digest="d", session_id="s-1", turn_id="t-1", created_ms=5)
    async with a_store(folder) as store:
        log = await begun(store, title="Füße")
        await store.append(log.delta("a"))
        before, session, size = log.events, log.session, size_of(file)
        await store.append(
            log.next(e.TextComplete(text="ü"), e.TurnStarted(prompt="p", owner=OWNER), supersedes=2, claim=claim)
        )
    whole = content(file)
    copy = tmp_path / "copy"
    shutil.copytree(folder, copy)
    for end in range(size, len(whole)):
        for rest in (b"", b"\0" * (len(whole) - end))[: 2 if end % 7 == 0 else 1]:
            laid(copy / "sessions" / "s-1.jsonl", whole[:end] + rest)
            async with a_store(copy) as store:
                assert (await store.read("s-1"), await store.load("s-1")) == (before, session)
                assert [shown.title for shown in await store.sessions(Selection(states=("idle",)))] == ["Füße"]
                assert await store.claim("key") is None
                if end == size and not rest:
                    assert store.warnings == ()
                else:
                    torn = copy / "sessions" / "s-1.torn-1"
                    assert torn.read_bytes() == whole[size:end] + rest
                    assert "s-1.torn-1" in store.warnings[0]
                    torn.unlink()
            assert (copy / "sessions" / "s-1.jsonl").read_bytes() == whole[:size]


async def test_after_a_repair_the_log_goes_on_and_each_torn_tail_is_kept(folder: Path, file: Path) -> None:
    log = (await written(folder, "s-1"))["s-1"]
    for number in (1, 2):
        with file.open("ab") as end:
            end.write(b'{"$append":{"events":2}}\n{"event_id"')
        async with a_store(folder) as store:
            await store.append(log.text(f"after {number}"))
            assert await store.read("s-1") == log.events
    assert sorted(path.name for path in file.parent.iterdir()) == ["s-1.jsonl", "s-1.torn-1", "s-1.torn-2"]
    async with a_store(folder) as store:
        assert store.warnings == ()
        assert await store.read("s-1") == log.events
        await store.delete("s-1")
    assert list(file.parent.iterdir()) == []


@pytest.mark.parametrize(
    "torn", [b"", b'{"event_id":"s-9/1","seq":1', b'{"$append":{"events":2}}\n', b"\0" * 500, b"{"]
)
async def test_a_session_whose_first_append_was_torn_never_was(folder: Path, torn: bytes) -> None:
    await written(folder, "s-1")
    laid(folder / "sessions" / "s-9.jsonl", torn)
    async with a_store(folder) as store:
        assert await listed(store) == ["s-1"]
        assert len(store.warnings) == bool(torn)
        log = await begun(store, "s-9")
        assert await store.read("s-9") == log.events
    assert ("s-9.torn-1" in found(folder)) == bool(torn)


async def test_deltas_that_a_power_cut_tore_are_a_torn_tail(folder: Path, file: Path) -> None:
    async with a_store(folder) as store:
        log = await begun(store)
        await store.append(log.text())
        before, size = log.events, size_of(file)
        for _ in range(5):
            await store.append(log.delta("x" * 100))
    data = bytearray(content(file))
    data[size + 20 : size + 60] = bytes(40)
    laid(file, bytes(data))
    async with a_store(folder) as store:
        assert await store.read("s-1") == before
        assert len(store.warnings) == 1


async def test_what_a_rewriting_left_when_its_process_died_is_removed(folder: Path, file: Path) -> None:
    log = (await written(folder, "s-1"))["s-1"]
    laid(file.with_name("s-1.jsonl.new"), b"half")
    async with a_store(folder) as store:
        assert await store.read("s-1") == log.events
    assert list(file.parent.iterdir()) == [file]


# ── damage ──


def instead(lines: list[bytes], number: int, *others: bytes) -> list[bytes]:
    """Other lines in the place of one, which are counted from 1 here as the messages do."""
    return [*lines[: number - 1], *others, *lines[number:]]


DAMAGES = {
    "no JSON": (2, "is no JSON", lambda lines: instead(lines, 2, b"garbage\n")),
    "no object": (2, "neither an event nor a note", lambda lines: instead(lines, 2, b"[1]\n")),
    "an empty line": (2, "is no JSON", lambda lines: instead(lines, 2, b"\n", lines[1])),
    "a page of nothing": (2, "is no JSON", lambda lines: instead(lines, 2, bytes(4096) + b"\n")),
    "the first line": (1, "is no JSON", lambda lines: instead(lines, 1, lines[0][:-9] + b"\n")),
    "an event is missing": (3, "does not follow", lambda lines: instead(lines, 2)),
    "an event is there twice": (3, "has the number 2 after 2", lambda lines: instead(lines, 2, lines[1], lines[1])),
    "an append is not whole": (
        5,
        "begins an append where",
        lambda lines: instead(lines, 5, b'{"$append":{"events":1}}\n'),
    ),
    "a note of tomorrow": (3, "no note that", lambda lines: instead(lines, 3, b'{"$append":{"events":2,"key":1}}\n')),
    "a kind of note of tomorrow": (7, "no note that", lambda lines: [*lines, b'{"$tomorrow":1}\n']),
    "an event of tomorrow": (
        2,
        "no event that",
        lambda lines: instead(lines, 2, lines[1].replace(b"_complete", b"_sung")),
    ),
    "an event out of place": (2, "no event that", lambda lines: instead(lines, 2, turn_ended(lines[1]))),
}


def turn_ended(line: bytes) -> bytes:
    return line.replace(b'"text_complete","text":"one"', b'"turn_completed"')


@pytest.mark.parametrize("damage", DAMAGES)
async def test_a_damaged_file_is_refused_alone_and_named_with_the_line(folder: Path, file: Path, damage: str) -> None:
    line, why, do = DAMAGES[damage]
    logs = await written(folder, "s-1", "s-2")
    laid(file, b"".join(do(content(file).splitlines(keepends=True))))
    damaged = content(file)
    async with a_store(folder) as store:
        assert await listed(store) == ["s-2"]
        assert await store.matching("s-", limit=9) == ["s-2", "s-1"]
        assert await store.matching("s-", limit=9, principal="ann") == []
        assert await store.read("s-2") == logs["s-2"].events
        for use in (store.load("s-1"), store.read("s-1"), store.append(logs["s-1"].text())):
            with pytest.raises(Corrupt, match=why) as refused:
                await use
            assert refused.value.facts == {"session_id": "s-1", "file": "s-1.jsonl", "line": line}
        assert store.warnings == (refused.value.message,)
        assert content(file) == damaged
        await store.delete("s-1")
        assert not there(file)
        await begun(store)


async def test_damage_that_is_met_while_the_realm_is_open_is_refused_too(folder: Path, file: Path) -> None:
    await written(folder, "s-1", "s-2")
    spoiled_unnoticed(file, b'"text":"one"', b'"text";"one"')
    async with a_store(folder) as store:
        assert await listed(store) == ["s-1", "s-2"]  # from the index, which could not know
        for _ in range(2):
            with pytest.raises(Corrupt, match=r"s-1\.jsonl is damaged: line 2"):
                await store.read("s-1")
        assert await listed(store) == ["s-2"]
        assert await store.matching("s-", limit=9) == ["s-2", "s-1"]


async def rich(folder: Path) -> None:
    """A session with something of everything."""
    async with a_store(folder) as store:
        log = await begun(store, title="Füße", labels={"k": "v"})
        key = Claim(key="key", digest="d", session_id="s-1", turn_id="t-1", created_ms=5)
        started = (e.TurnStarted(prompt="p", owner=OWNER), e.StepStarted(step=1, provider="p", model="m"))
        await store.append(log.next(*started, claim=key))
        await store.append(log.delta("a"))
        await store.append(
            log.next(
                e.TextComplete(text="a"), e.ToolCallRequested(tool_use_id="u", tool_name="n", args={}), supersedes=4
            )
        )
        await store.append(log.next(e.ToolExecutionCompleted(tool_use_id="u", tool_name="n", content="c")))
        await store.append(
            log.next(e.StepCompleted(step=1, stop_reason="end", usage=Usage(input_tokens=3)), e.TurnCompleted())
        )
        await begun(store, "s-2")


def spoiled(data: bytes, by_chance: random.Random) -> bytes:
    """Something was done to the file."""
    lines = data.splitlines(keepends=True)
    at, other = (by_chance.randrange(len(data)) for _ in range(2))
    match by_chance.randrange(6):
        case 0:
            return data[:at] + by_chance.randbytes(by_chance.choice((1, 1, 1, 30))) + data[at + 1 :]
        case 1:
            return data[: min(at, other)] + data[max(at, other) :]
        case 2:
            return data[:at] + by_chance.choice((b"9" * 30, b'"', b"\n", b"{" * 300, b"null,", b"\0" * 50)) + data[at:]
        case 3:
            by_chance.shuffle(lines)
            return b"".join(lines)
        case 4:
            return b"".join(by_chance.choices(lines, k=len(lines)))
        case _:
            return re.sub(
                rb"\d+", lambda _: str(by_chance.choice((0, 1, 7, -1, 1 << 70))).encode(), data, count=at % 20 + 1
            )


async def test_whatever_is_in_a_file_the_realm_opens(folder: Path, file: Path) -> None:
    await rich(folder)
    good, by_chance = content(file), random.Random(3)
    for _ in range(400):
        laid(file, spoiled(good, by_chance))
        async with a_store(folder) as store:
            assert len(await store.read("s-2")) == 1
            assert {"s-2"} <= set(await listed(store)) <= {"s-1", "s-2"}
            with suppress(Corrupt):
                events, session = await store.read("s-1"), Session(id="s-1")
                for recorded in events:
                    session = advance(session, recorded.event)
                assert not events or session == await store.load("s-1")
        for torn in file.parent.glob("*.torn-*"):
            torn.unlink()


async def test_not_more_is_told_than_a_person_reads(folder: Path) -> None:
    for number in range(40):
        laid(folder / "sessions" / f"s-{number}.jsonl", b"not ours\n")
    async with a_store(folder) as store:
        assert len(store.warnings) == 21


async def test_foreign_files_are_left_alone(folder: Path, file: Path) -> None:
    await written(folder, "s-1")
    sessions = file.parent
    laid(sessions / "notes.txt", b"notes")
    laid(sessions / "README.jsonl", b"no session\n")
    laid(sessions / "s-1 copy.jsonl", content(file))
    laid(sessions / "other.jsonl", content(file))
    laid(sessions / "values.jsonl", b'{"seq":7,"type":"mine"}\n')
    (sessions / "folder.jsonl").mkdir()
    if os.name != "nt":
        (sessions / "link.jsonl").symlink_to(file)
    before = found(folder / "sessions")
    async with a_store(folder) as store:
        assert await listed(store) == await store.matching("", limit=99) == ["s-1"]
        assert sorted(warning.split()[0] for warning in store.warnings) == [
            "README.jsonl",
            "other.jsonl",
            "values.jsonl",
        ]
        for name in ("README", "other", "notes.txt", "s-1 copy"):
            await store.delete(name)
            with pytest.raises(SessionNotFound):
                await store.load(name)
        with pytest.raises(StoreUnavailable, match="changed by another program"):
            await begun(store, "README")
        assert await listed(store) == ["s-1"]
    assert found(folder / "sessions") == before


@pytest.mark.parametrize("name", ["config.json", "streams.json"])
@pytest.mark.parametrize("content", ["{", "[1]", '{"a": 1}'])
async def test_another_damaged_file_is_named(folder: Path, name: str, content: str) -> None:
    await written(folder, "s-1")
    laid(folder / name, content.encode())
    with pytest.raises(Corrupt, match=name):
        await opened(folder)
    (folder / name).unlink()
    async with a_store(folder) as store:
        assert await listed(store) == ["s-1"]


async def test_a_file_that_another_program_writes_to_is_read_anew(jsonl: JsonlStore, file: Path) -> None:
    log = await begun(jsonl)
    stranger = Log()
    stranger.session, stranger.events = log.session, list(log.events)
    text = stranger.text("of a stranger").events[0].body
    laid(file, content(file) + text + b"\n")
    with pytest.raises(StoreUnavailable, match="changed by another program"):
        await jsonl.append(log.text("mine"))
    assert await jsonl.read("s-1") == stranger.events
    with pytest.raises(SequenceConflict):
        await jsonl.append(Log().begin())
    await jsonl.append(stranger.text("after it"))
    assert await jsonl.read("s-1") == stranger.events
    laid(file, b"".join(content(file).splitlines(keepends=True)[:-1]))
    assert len(await jsonl.read("s-1")) == 2


# ── what the disk refuses ──


@pytest.mark.skipif(os.name == "nt", reason="Windows has no limit on the size of files")
async def test_a_full_disk_is_said_and_the_file_is_as_it_was(folder: Path, file: Path) -> None:
    main = """
import resource
def limit(size):
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, resource.RLIM_INFINITY))

store, log = await opened(), Log()
await store.append(log.begin())
await store.append(log.text("one"))
path = FOLDER / "sessions" / "s-1.jsonl"
before, session, size = path.read_bytes(), log.session, path.stat().st_size
for room in (0, 1, 100, 3000):
    limit(size + room)
    try:
        await store.append(log.next(e.TextComplete(text="x" * 2000), e.TextComplete(text="y" * 2000)))
    except StoreUnavailable as error:
        say(error.message, "|", error.hint)
    log.session = session
    assert path.read_bytes() == before and await store.load("s-1") == session
limit(0)
for name in ("s-2", "s-3"):
    try:
        await store.append(Log(name).begin())
    except StoreUnavailable as error:
        say(error.message)
    assert await store.matching(name, limit=1) == []
for use in (store.put_config({"a": 1}, expected=None), store.close()):
    try:
        await use
    except StoreUnavailable as error:
        say(error.message)
limit(resource.RLIM_INFINITY)
store = await opened()
assert (await store.config()).generation == 0
await store.append(log.text("two"))
await store.append(Log("s-2").begin())
await store.close()
say("done")
"""
    with anyio.fail_after(LONG_S):
        async with another_process(folder, main=main) as (_, lines):
            for _ in range(4):
                assert re.match(r"s-1\.jsonl cannot be used: .+\. \| Raise the limit", await lines.next())
            for name in ("s-2.jsonl", "s-3.jsonl", "config.json", "index.jsonl"):
                assert (await lines.next()).startswith(f"{name} cannot be used")
            assert await lines.next() == "done"
    async with a_store(folder) as store:
        assert [recorded.seq for recorded in await store.read("s-1")] == [1, 2, 3]
        assert await listed(store) == ["s-1", "s-2"]


@pytest.mark.parametrize(
    ("code", "hint"),
    [
        ("ENOSPC", "Free space"),
        ("EROFS", "mounted"),
        ("EACCES", "who owns"),
        ("ENOLCK", "local disk"),
        ("EXDEV", "Check"),
    ],
)
def test_what_the_system_refuses_comes_with_what_to_do(code: str, hint: str) -> None:
    import errno

    refused = unavailable(OSError(getattr(errno, code), "why"), Path("a folder/s-1.jsonl"))
    assert refused.message == "s-1.jsonl cannot be used: why."
    assert hint in refused.hint


async def test_a_folder_that_cannot_be_one_is_said(folder: Path) -> None:
    laid(folder, b"")
    with pytest.raises(StoreUnavailable, match="realm cannot be used"):
        await opened(folder)


async def test_a_file_that_cannot_be_made_smaller_is_as_good_as_before(
    jsonl: JsonlStore, file: Path, caplog: pytest.LogCaptureFixture
) -> None:
    file.parent.joinpath("s-1.jsonl.new").mkdir()
    log = await begun(jsonl)
    await wasted(jsonl, log)
    assert await jsonl.read("s-1") == log.events
    assert "could not be made smaller" in caplog.text
    assert size_of(file) > 65_536


# ── writing ──


async def test_only_recorded_events_wait_for_the_disk(jsonl: JsonlStore, monkeypatch: pytest.MonkeyPatch) -> None:
    synced: list[int] = []
    monkeypatch.setattr(jsonl_file, "sync", synced.append)
    log = await begun(jsonl)
    for append, waits in (("delta", 0), ("text", 1), ("delta", 0)):
        synced.clear()
        await jsonl.append(getattr(log, append)())
        assert len(synced) == waits


async def test_what_waits_together_for_a_file_goes_with_one_write(
    jsonl: JsonlStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    synced: list[int] = []
    log, other = await begun(jsonl), await begun(jsonl, "s-2")
    monkeypatch.setattr(jsonl_file, "sync", synced.append)
    with anyio.fail_after(LONG_S):
        async with anyio.create_task_group() as tasks:
            for append in [*(log.text(str(number)) for number in range(100)), other.text(), log.delta()]:
                tasks.start_soon(jsonl.append, append)
    assert len(synced) == 2
    assert await jsonl.read("s-1") == log.events


async def test_an_append_that_is_cancelled_in_line_is_not_written(jsonl: JsonlStore) -> None:
    log = await begun(jsonl)
    before, events = log.session, list(log.events)
    with anyio.fail_after(LONG_S):
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(jsonl.append, log.text("cancelled"))
            tasks.cancel_scope.cancel()
    log.session, log.events = before, events
    await jsonl.append(log.text("after"))
    assert await jsonl.read("s-1") == log.events


async def test_a_key_of_an_append_that_failed_is_free_for_who_waited_for_it(jsonl: JsonlStore, file: Path) -> None:
    laid(file, b"of a stranger\n")
    outcomes: dict[str, object] = {}

    async def claim(session_id: str) -> None:
        log = Log(session_id)
        key = Claim(key="key", digest=session_id, session_id=session_id, turn_id="t", created_ms=1)
        try:
            await jsonl.append(log.next(e.SessionCreated(settings=log.session.settings), claim=key))
        except (StoreUnavailable, KeyTaken) as error:
            outcomes[session_id] = type(error)

    with anyio.fail_after(LONG_S):
        async with anyio.create_task_group() as tasks:
            for session_id in ("s-1", "s-2", "s-3"):
                tasks.start_soon(claim, session_id)
    taken = await jsonl.claim("key")
    assert taken is not None
    assert taken.session_id in ("s-2", "s-3")
    assert outcomes == {"s-1": StoreUnavailable, "s-2": KeyTaken, "s-3": KeyTaken} | {taken.session_id: None} or (
        outcomes.pop("s-1"),
        list(outcomes.values()),
    ) == (StoreUnavailable, [KeyTaken])


async def wasted(store: JsonlStore, log: Log, *, times: int = 1) -> None:
    """Write texts in pieces, and then whole."""
    for _ in range(times):
        first = log.session.seq + 1
        for _ in range(10):
            await store.append(log.delta("x" * 10_000))
        await store.append(log.next(e.TextComplete(text="x"), e.TextDelta(text="of the next"), supersedes=first))


async def test_a_file_that_is_mostly_superseded_deltas_is_written_anew(folder: Path, file: Path) -> None:
    claim = Claim(key="key", digest="d", session_id="s-1", turn_id="t-1", created_ms=5)
    async with a_store(folder) as store:
        log = await begun(store)
        await store.append(log.next(e.TextComplete(text="a"), e.TextDelta(text="b"), claim=claim))
        await wasted(store, log, times=3)
        assert size_of(file) < 65_536
        assert await store.read("s-1") == log.events
        assert await store.load("s-1") == log.session
        await store.append(log.text())
    for index in (True, False):
        (folder / "index.jsonl").unlink(missing_ok=index)
        async with a_store(folder) as store:
            assert await store.read("s-1") == log.events
            assert await store.load("s-1") == log.session
            assert await store.claim("key") == claim
            assert store.warnings == ()


async def test_who_reads_while_a_file_is_written_anew_gets_its_events(jsonl: JsonlStore) -> None:
    log, other = await begun(jsonl), await begun(jsonl, "s-2")
    await jsonl.append(log.next(*(e.TextComplete(text=f"text {number}") for number in range(300))))
    expected, reads = list(log.events), 0

    async def read(tasks: Any) -> None:
        nonlocal reads
        while not tasks.cancel_scope.cancel_called:
            assert await jsonl.read("s-1", limit=len(expected)) == expected
            reads += 1

    with anyio.fail_after(LONG_S):
        async with anyio.create_task_group() as tasks:
            for _ in range(4):
                tasks.start_soon(read, tasks)
            await wasted(jsonl, log, times=10)
            await jsonl.append(other.text())
            tasks.cancel_scope.cancel()
    assert reads > 10


async def test_who_reads_a_session_while_it_is_deleted_gets_all_or_nothing(jsonl: JsonlStore) -> None:
    log = await begun(jsonl)
    await jsonl.append(log.next(*(e.TextComplete(text=f"text {number}") for number in range(300))))
    got: list[int] = []

    async def read() -> None:
        got.append(len(await jsonl.read("s-1")))

    with anyio.fail_after(LONG_S):
        async with anyio.create_task_group() as tasks:
            for number in range(20):
                tasks.start_soon(read)
                if number == 10:
                    tasks.start_soon(jsonl.delete, "s-1")
    assert set(got) <= {0, 301}


async def test_what_is_not_used_is_not_kept_in_memory(jsonl: JsonlStore, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(jsonl_logs, "LOGS_KEPT_MAX", 3)
    monkeypatch.setattr(jsonl_logs, "EVENTS_KEPT_MAX", 40)
    logs = [await begun(jsonl, f"s-{number}") for number in range(20)]
    for _ in range(3):
        for log in logs:
            await jsonl.append(log.next(*(e.TextComplete(text=str(number)) for number in range(7))))
            assert await jsonl.read(log.id) == log.events
    assert 1 <= len(jsonl._logs._kept) <= 3
    assert not jsonl._logs._lanes


# ── holes, claims that come and go, tidying ──


def notes(file: Path) -> list[Any]:
    return [line["$append"] for line in lines_of(file) if "$append" in line]


async def test_a_page_that_follows_with_a_hole_says_which_numbers_are_missing(folder: Path, file: Path) -> None:
    async with a_store(folder) as store:
        log = await begun(store)
        for holes, count in ((2, 1), (3, 2)):
            before = log.session.seq
            log.session = log.session.model_copy(update={"seq": before + holes})
            page = log.next(*(e.TextComplete(text=str(number)) for number in range(count)), holes=1)
            with pytest.raises(SequenceConflict):
                await store.append(page)
            await store.append(replace(page, follows=before))
        assert await store.read("s-1") == log.events
    assert [recorded.seq for recorded in log.events] == [1, 4, 8, 10]
    assert notes(file) == [{"events": 1, "missing": [2, 3]}, {"events": 2, "missing": [5, 7]}]
    (folder / "index.jsonl").unlink()
    async with a_store(folder) as store:
        assert store.warnings == ()
        assert await store.read("s-1") == log.events
        assert await store.load("s-1") == log.session


async def test_a_claim_that_is_put_and_one_that_is_forgotten_stay_so_without_an_index(folder: Path, file: Path) -> None:
    old, new = (Claim(key=key, digest="d", session_id="s-1", turn_id="t", created_ms=ms) for key, ms in KEYS)
    async with a_store(folder) as store:
        await begun(store)
        await store.put_claim(old)
        await store.put_claim(new)
        assert await store.prune_claims(created_before_ms=5) == 1
        again = replace(old, digest="again")  # made before, by a clock that was set back, but not forgotten
        await store.put_claim(again)
    said = [{"key": key, "digest": digest, "turn_id": "t", "created_ms": ms} for key, digest, ms in WRITTEN]
    assert notes(file) == [
        {"events": 0, "claim": said[0]},
        {"events": 0, "claim": said[1]},
        {"events": 0, "forgotten_ms": 5},
        {"events": 0, "claim": said[2]},
    ]
    (folder / "index.jsonl").unlink()
    async with a_store(folder) as store:
        assert (await store.claim("old"), await store.claim("new")) == (again, new)
        assert set((await store.kept_with("s-1"))[0]) == {again, new}


KEYS = (("old", 4), ("new", 5))
WRITTEN = (("old", "d", 4), ("new", "d", 5), ("old", "again", 4))


async def test_two_that_put_a_claim_of_one_key_at_once_keep_one(jsonl: JsonlStore) -> None:
    for name in ("s-1", "s-2"):
        await begun(jsonl, name)
    with anyio.fail_after(LONG_S):
        async with anyio.create_task_group() as tasks:
            for name in ("s-1", "s-2"):
                tasks.start_soon(jsonl.put_claim, Claim("key", "d", name, "t", 1))
    kept = [claim for name in ("s-1", "s-2") for claim in (await jsonl.kept_with(name))[0]]
    assert kept == [await jsonl.claim("key")]


async def untidy(store: JsonlStore) -> Log:
    log = await begun(store)
    await store.append(log.next(e.TextComplete(text="a"), claim=Claim("key", "d", "s-1", "t-1", 5)))
    for number in range(4):
        await store.append(log.delta(f"delta {number}"))
    await store.append(log.next(e.TextDelta(text="delta 4"), e.TextComplete(text="long " * 50), e.TextDelta(text="5")))
    await store.append(log.text("last"))
    return log


async def test_a_tidied_file_is_whole_and_is_read_the_same_without_an_index(folder: Path, file: Path) -> None:
    async with a_store(folder) as store:
        log = await untidy(store)
        short = Recorded(8, "text_complete", log.events[7].body.replace(b"long " * 50, b"short"))
        await store.tidy("s-1", without={3, 4, 6, 7, 10, 99}, instead=[short])
        left = [log.events[0], log.events[1], log.events[4], short, log.events[8], log.events[9]]
        assert await store.read("s-1") == left
        assert b"delta 1" not in content(file)
        assert b"long" not in content(file)
        await store.append(log.text("after"))
        left.append(log.events[-1])
    claim = {"key": "key", "digest": "d", "turn_id": "t-1", "created_ms": 5}
    missing = [{"events": 1, "missing": [3, 4]}, {"events": 2, "missing": [6, 7]}]
    assert notes(file) == [{"events": 1, "claim": claim}, *missing]
    (folder / "index.jsonl").unlink()
    async with a_store(folder) as store:
        assert store.warnings == ()
        assert await store.read("s-1") == left
        assert await store.load("s-1") == log.session
        await store.tidy("s-1", without={5, 9}, instead=[])
        assert [recorded.seq for recorded in await store.read("s-1")] == [1, 2, 8, 10, 11]
    (folder / "index.jsonl").unlink()
    async with a_store(folder) as store:
        assert [recorded.seq for recorded in await store.read("s-1")] == [1, 2, 8, 10, 11]


async def test_tidying_waits_for_the_disk_and_one_that_fails_changes_nothing(
    folder: Path, file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with a_store(folder) as store:
        log, synced = await untidy(store), list[int]()
        in_the_way = file.with_name("s-1.jsonl.new")
        in_the_way.mkdir()
        with pytest.raises(StoreUnavailable, match=r"s-1\.jsonl cannot be used"):
            await store.tidy("s-1", without={3, 4}, instead=[])
        assert await store.read("s-1") == log.events
        in_the_way.rmdir()
        monkeypatch.setattr(jsonl_file, "sync", synced.append)
        await store.tidy("s-1", without={3, 4}, instead=[])
        assert len(synced) == 1
        await store.append(log.text("after"))
        assert [recorded.seq for recorded in await store.read("s-1")] == [1, 2, *range(5, 12)]


async def test_a_rewriting_that_took_place_and_was_then_refused_is_read_anew(
    jsonl: JsonlStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    log = await untidy(jsonl)
    with monkeypatch.context() as patched:
        patched.setattr(jsonl_file, "sync_folder", lambda folder: os.fsync(1 << 20))
        with pytest.raises(StoreUnavailable):
            await jsonl.tidy("s-1", without={3}, instead=[])
    assert [recorded.seq for recorded in await jsonl.read("s-1")] == [1, 2, *range(4, 11)]
    await jsonl.append(log.text("after"))
    assert await jsonl.load("s-1") == log.session


async def test_who_reads_while_a_file_is_tidied_gets_the_log_before_or_after(jsonl: JsonlStore) -> None:
    log = await begun(jsonl)
    for _ in range(100):
        await jsonl.append(log.delta())
    await jsonl.append(log.text("last"))
    lengths: set[int] = set()

    async def read(tasks: Any) -> None:
        while not tasks.cancel_scope.cancel_called:
            page = await jsonl.read("s-1")
            assert [each for each in page if each in log.events] == page
            lengths.add(len(page))

    with anyio.fail_after(LONG_S):
        async with anyio.create_task_group() as tasks:
            for _ in range(3):
                tasks.start_soon(read, tasks)
            for seq in range(2, 102, 10):
                await jsonl.tidy("s-1", without=range(seq, seq + 10), instead=[])
            tasks.cancel_scope.cancel()
    assert lengths <= set(range(2, 103, 10))
    assert len(await jsonl.read("s-1")) == 2


# ── work, and finding what was said ──


@pytest.mark.parametrize("index", ["with its index", "without"])
async def test_what_waits_and_what_is_worked_on_is_known_after_reopening(folder: Path, index: str) -> None:
    async with a_store(folder) as store:
        for name in ("s-1", "s-2"):
            log = await begun(store, name)
            await store.append(log.next(e.TurnStarted(prompt="p", owner=OWNER), at_ms=2))
            if name == "s-2":
                await store.append(log.next(e.TurnSuspended(), at_ms=7))
    if index == "without":
        (folder / "index.jsonl").unlink()
    async with a_store(folder) as store:
        assert await store.working() == [("s-1", "life")]
        asked: dict[str, int] = {"until_ms": 20, "limit": 9}
        assert await store.take(ready_before_ms=7, now_ms=10, **asked) == []
        assert await store.take(ready_before_ms=8, now_ms=10, **asked) == ["s-2"]
        assert await store.take(ready_before_ms=8, now_ms=19, **asked) == []
        assert await store.take(ready_before_ms=8, now_ms=20, **asked) == ["s-2"]
        await store.delete("s-2")
        assert await store.take(ready_before_ms=8, now_ms=50, **asked) == []


SAYINGS = ("Straße", "ﬁne day", "K2 is 8611 m", "日本語の文章", "İstanbul", "tab\there", "NAÏVE café")


@pytest.mark.parametrize(
    "query", ["strasse", "STRASSE", "fine", "k2", "本語", "istanbul", "here", "naive cafe", "8611 k"]
)
async def test_what_was_said_is_found_whatever_its_letters(jsonl: JsonlStore, query: str) -> None:
    for number, text in enumerate(SAYINGS):
        log = await begun(jsonl, f"s-{number}")
        await jsonl.append(log.next(e.TurnStarted(prompt="x", owner=OWNER), e.TextComplete(text=text)))
    wanted = searching.query_words(query)
    expected = [
        f"s-{number}" for number, text in enumerate(SAYINGS) if searching.begins_all(wanted, searching.words(text))
    ]
    found = await jsonl.sessions(Selection(query=query))
    assert sorted(session.id for session in found) == expected
    assert len(expected) == 1


async def test_a_search_passes_over_what_it_cannot_read(folder: Path, file: Path) -> None:
    for name, text in (("s-1", "needle one"), ("s-2", "needle two")):
        async with a_store(folder) as store:
            log = await begun(store, name)
            await store.append(log.text(text))
    spoiled_unnoticed(file, b'"text":"needle', b'"text";"needle')
    async with a_store(folder) as store:
        assert [session.id for session in await store.sessions(Selection(query="needle"))] == ["s-2"]
        assert await store.sessions(Selection(query="needle one")) == []


# ── the key that seals ──


async def test_the_sealing_key_is_in_a_file_of_its_own_for_its_owner_alone(folder: Path) -> None:
    keys: set[bytes] = set()
    for _ in range(2):
        async with a_store(folder) as store:
            keys |= {await store.sealing_key(), await store.sealing_key()}
    (key,) = keys
    path = folder / "sealing.key"
    assert (len(key), bytes.fromhex(path.read_text(encoding="ascii"))) == (32, key)
    assert os.name == "nt" or path.stat().st_mode & 0o777 == 0o600


@pytest.mark.parametrize("content", [b"", b"short", b"\xff" * 64, b"0" * 62])
async def test_a_damaged_sealing_key_is_named(folder: Path, content: bytes) -> None:
    laid(folder / "sealing.key", content)
    async with a_store(folder) as store:
        with pytest.raises(Corrupt, match=r"sealing\.key is damaged"):
            await store.sealing_key()


# ── deleting ──


async def test_a_deleted_session_leaves_no_byte_in_any_file(folder: Path) -> None:
    logs = await written(folder, *(f"s-{number}-mark{number}mark" for number in range(4)))
    torn = folder / "sessions" / "s-3-mark3mark.jsonl"
    laid(torn, torn.read_bytes() + b'{"mark3mark')
    async with a_store(folder) as store:
        for session_id, log in logs.items():
            claim = Claim(key=session_id, digest="d", session_id=session_id, turn_id="t", created_ms=1)
            await store.append(log.next(e.TextComplete(text=session_id), claim=claim))
            await store.put_stream(Stream(stream_id=session_id, session_id=session_id, after_seq=0, used_ms=1))
        for number in (3, 1):
            assert f"mark{number}mark".encode() in bytes_in(folder)
            await store.delete(f"s-{number}-mark{number}mark")
            assert f"mark{number}mark".encode() not in bytes_in(folder)
        assert len(await listed(store)) == 2
    assert b"mark1mark" not in bytes_in(folder)
    assert b"mark2mark" in bytes_in(folder)


async def test_who_opens_the_realm_next_finishes_a_deletion_that_was_cut_off(folder: Path) -> None:
    logs = await written(folder, "s-1", "s-2")
    async with a_store(folder) as store:
        for session_id in logs:
            await store.put_stream(Stream(stream_id=f"evt-{session_id}", session_id=session_id, after_seq=0, used_ms=1))
    (folder / "sessions" / "s-1.jsonl").unlink()
    assert b"s-1" in bytes_in(folder)
    async with a_store(folder) as store:
        assert b"s-1" not in bytes_in(folder)
        assert await store.stream("evt-s-2") is not None


async def test_a_deletion_that_the_system_refused_can_be_repeated(jsonl: JsonlStore, file: Path) -> None:
    await begun(jsonl)
    data = content(file)
    made_a_folder(file)
    with pytest.raises(StoreUnavailable, match=r"s-1\.jsonl cannot be used"):
        await jsonl.delete("s-1")
    with pytest.raises(SessionNotFound):
        await jsonl.load("s-1")
    shutil.rmtree(file)
    laid(file, data)
    await jsonl.delete("s-1")
    assert not there(file)


# ── the index ──


def other_version(data: bytes) -> bytes:
    header, _, rest = data.partition(b"\n")
    lines = rest.splitlines(keepends=True)[:-1]
    return b"".join(jsonl_index._with_checksum([header.replace(b'"version": "', b'"version": "9') + b"\n", *lines]))


def other_shape(data: bytes) -> bytes:
    header, _, rest = data.partition(b"\n")
    lines = rest.splitlines(keepends=True)[:-1]
    return b"".join(jsonl_index._with_checksum([header.replace(b'"sessions": ', b'"sessions": 9') + b"\n", *lines]))


WRONG = {
    "is not there": lambda data: None,
    "is empty": lambda data: b"",
    "is cut": lambda data: data[: len(data) // 2],
    "has a wrong byte": lambda data: data.replace(b"title of s-1", b"title of s-7"),
    "is no JSON": lambda data: b"\0\xff" * 999,
    "is another version's": other_version,
    "has sessions of another shape": other_shape,
}


@pytest.mark.parametrize("wrong", WRONG)
async def test_an_index_that_is_wrong_is_made_anew(folder: Path, wrong: str) -> None:
    logs = await written(folder, "s-1", "s-2")
    index = folder / "index.jsonl"
    right = index.read_bytes()
    if (data := WRONG[wrong](right)) is None:
        index.unlink()
    else:
        laid(index, data)
    async with a_store(folder) as store:
        assert await store.sessions(Selection()) == [logs["s-2"].shown, logs["s-1"].shown]
        assert index.read_bytes() == right


async def test_what_a_killed_process_wrote_is_on_the_disk_before_anybody_reads_it(
    folder: Path, file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    await written(folder, "s-1", "s-2")
    synced: list[int] = []
    monkeypatch.setattr(jsonl_file, "sync", synced.append)
    for data, waits in ((content(file) + encoded(6), 1), (None, 0)):
        if data is not None:
            laid(file, data)
        synced.clear()
        async with a_store(folder):
            assert len(synced) == waits


def encoded(seq: int) -> bytes:
    log = Log()
    log.session = log.session.model_copy(update={"seq": seq - 1})
    return log.text("written, and nobody was told").events[0].body + b"\n"


async def test_an_index_that_is_behind_is_brought_up_to_date(folder: Path) -> None:
    logs = await written(folder, "s-1", "s-2")
    behind = (folder / "index.jsonl").read_bytes()
    async with a_store(folder) as store:
        await store.append(logs["s-1"].next(e.SettingsChanged(title="new"), at_ms=9))
        logs["s-3"] = await begun(store, "s-3", at_ms=4)
    laid(folder / "index.jsonl", behind)
    async with a_store(folder) as store:
        assert await store.sessions(Selection()) == [logs[f"s-{number}"].shown for number in (1, 3, 2)]


async def test_the_index_is_written_now_and_then(
    jsonl: JsonlStore, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("meerkat_mcp.stores.jsonl.UNSAVED_MAX", 3)
    lease = Instance(instance_id="i", incarnation="life", host="h", pid=1, expires_ms=1000)
    for number in range(3):
        assert not (folder / "index.jsonl").exists()
        await begun(jsonl, f"s-{number}")
        await jsonl.renew(lease)
    assert len(jsonl_index.load(folder / "index.jsonl")) == 3


def made(sessions: Path, count: int) -> None:
    """So many sessions, as another program writes them; nobody touched them today."""
    log = Log("the id")
    appends = (log.begin(title="title 98765", at_ms=98765), log.text("x" * 200))
    template = b"".join(append.events[0].body + b"\n" for append in appends).decode()
    sessions.mkdir(parents=True)
    for number in range(count):
        session_id = f"0191f0aa-0000-7000-8000-{number:012}"
        path = sessions / f"{session_id}.jsonl"
        path.write_text(template.replace("the id", session_id).replace("98765", str(number)), newline="\n")
        os.utime(path, (number, number))


async def test_ten_thousand_sessions_open_and_list_quickly(folder: Path) -> None:
    made(folder / "sessions", 10_000)
    seconds: dict[str, float] = {}
    for what in ("open without an index", "open", "open again"):
        begun_s = time.perf_counter()
        async with a_store(folder) as store:
            seconds[what] = time.perf_counter() - begun_s
            begun_s = time.perf_counter()
            page = await store.sessions(Selection(), limit=50)
            seconds["list"] = time.perf_counter() - begun_s
            assert [session.updated_ms for session in page] == list(range(9999, 9949, -1))
            begun_s = time.perf_counter()
            assert len(await store.sessions(Selection(query="title 77"), limit=200)) == 111
            seconds["search"] = time.perf_counter() - begun_s
    print({what: f"{taken * 1000:.0f} ms" for what, taken in seconds.items()})
    assert seconds["open"] < seconds["open without an index"] / 2
    assert seconds["list"] < 0.5


# ── closing ──


async def test_a_store_that_is_closing_writes_what_is_in_line_and_takes_nothing_more(
    jsonl: JsonlStore, folder: Path
) -> None:
    log = await begun(jsonl)
    with anyio.fail_after(LONG_S):
        async with anyio.create_task_group() as tasks:
            for _ in range(10):
                tasks.start_soon(jsonl.append, log.text())
            await anyio.lowlevel.checkpoint()
            tasks.start_soon(jsonl.close)
            await anyio.lowlevel.checkpoint()
            with pytest.raises(StoreUnavailable, match="closed"):
                await jsonl.append(log.text())
    async with a_store(folder) as store:
        assert len(await store.read("s-1")) == 11


async def test_a_closed_store_says_so(jsonl: JsonlStore) -> None:
    log = await begun(jsonl)
    await jsonl.close()
    stream = Stream(stream_id="evt-1", session_id="s-1", after_seq=0, used_ms=1)
    for use in (
        jsonl.append(log.text()),
        jsonl.load("s-1"),
        jsonl.read("s-1"),
        jsonl.sessions(Selection()),
        jsonl.put_config({}, expected=None),
        jsonl.put_stream(stream),
        jsonl.delete("s-1"),
    ):
        with pytest.raises(StoreUnavailable, match="closed"):
            await use


def test_one_event_loop_after_the_other_can_use_a_realm(folder: Path) -> None:
    async def use() -> int:
        async with a_store(folder) as store:
            log = Log()
            log.session = log.session.model_copy(update={"seq": len(await store.read("s-1"))})
            await store.append(log.text() if log.session.seq else log.begin())
            return log.session.seq

    assert [anyio.run(use) for _ in range(3)] == [1, 2, 3]


async def test_what_works_here_is_told(jsonl: JsonlStore) -> None:
    mechanism = {"linux": "fdatasync", "darwin": "F_FULLFSYNC"}.get(sys.platform, "fsync")
    assert jsonl.mechanisms == {"sync": mechanism}
