"""Realms of a size: sessions as they are in life, appended by the real store, many at a time."""

import os
import random
import secrets
from collections.abc import AsyncGenerator, Generator, Sequence
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass
from pathlib import Path

import anyio

from benchmarks.places import REALM, clock
from meerkat_mcp.domain import events as e
from meerkat_mcp.domain.messages import ToolCall, Usage
from meerkat_mcp.domain.realm import Backend
from meerkat_mcp.domain.recorded import Recorded, encode, place
from meerkat_mcp.domain.session import SHOWN, Session, advance
from meerkat_mcp.domain.settings import Settings
from meerkat_mcp.realms import Realm, choose, open_realm
from meerkat_mcp.stores.base import Append, Store

EVENTS_OF_SESSION = 10
AT_ONCE = 400
DSN_VARIABLE = "MEERKAT_BENCH_POSTGRES_DSN"
LOCAL_DSN = "postgresql://postgres@127.0.0.1:5432/postgres"
WORKING, READY, WAITING_SHARE, ARCHIVED_SHARE = 8, 8, 0.01, 0.05
RARE, COMMON = "chrysoberyl", "report"
OWNER = e.Owner(instance_id="bench", incarnation="0", host="here", pid=1)
CALL = ToolCall(tool_use_id="call_1_1", tool_name="weather", args={"city": "Oslo"})
_SYLLABLES = ("ka", "lo", "mi", "ter", "va", "sun", "pol", "dri", "en", "gos", "fa", "ruk", "bel", "ino", "sta", "qui")
WORDS = [a + b + c for a in _SYLLABLES for b in _SYLLABLES for c in _SYLLABLES]


@dataclass(frozen=True, slots=True)
class Place:
    """A state root with a realm of this backend in it, if it was filled."""

    root: Path
    backend: Backend

    @property
    def dsn_env(self) -> str | None:
        return DSN_VARIABLE if self.backend == "postgres" else None

    @asynccontextmanager
    async def opened(self) -> AsyncGenerator[Realm]:
        choice = choose(REALM, state_root=self.root, backend=self.backend, dsn_env=self.dsn_env)
        async with open_realm(choice, turns=False) as realm:  # what is ready, or was left, is to stay so
            yield realm


@dataclass(frozen=True, slots=True)
class Filled:
    """What was put in: ids in the order of their last activity, oldest first; `long_id` has a log of `long_events`."""

    session_ids: Sequence[str]
    long_id: str
    long_events: int


class _Log:
    """A session under way; what it has recorded is taken out in one append or several."""

    def __init__(self, session_id: str, now_ms: int) -> None:
        self.session = Session(id=session_id)
        self.now_ms = now_ms
        self._events: list[Recorded] = []

    def add(self, draft: e.Event, turn_id: str | None = None) -> None:
        self.now_ms += 1
        seq, session_id = self.session.seq + 1, self.session.id
        event = place(
            draft,
            event_id=f"{session_id}/{seq}",
            seq=seq,
            session_id=session_id,
            turn_id=turn_id,
            timestamp_ms=self.now_ms,
        )
        self.session = advance(self.session, event)
        self._events.append(encode(event))

    def taken(self) -> Append:
        events, self._events = self._events, []
        return Append(self.session, events)


def text(chance: random.Random, count: int) -> str:
    """So many words out of 4096."""
    return " ".join(chance.choices(WORDS, k=count))


async def fill(store: Store, events: int) -> Filled:
    """Put so many events into an empty realm: a tenth of them in one long session, ten in each of the others."""
    chance = random.Random(events)
    long_events = max(events // 10, 100)
    number = max((events - long_events) // EVENTS_OF_SESSION, 4 * (WORKING + READY))
    now_ms = clock.now_ms() - 20 * number
    ids: list[str] = []
    long_id = await _fill_long(store, long_events, now_ms, chance)
    for first in range(0, number, AT_ONCE):
        appends = [_session(at, number, now_ms + 20 * at, chance) for at in range(first, min(first + AT_ONCE, number))]
        ids += [append.session.id for append in appends]
        async with anyio.create_task_group() as tasks:
            for append in appends:
                tasks.start_soon(store.append, append)
    return Filled(ids, long_id, long_events)


def _session(at: int, number: int, now_ms: int, chance: random.Random) -> Append:
    log = _Log(clock.new_id(), now_ms)
    labels = {"team": f"t{at % 10}", "job": f"j{at // 5}"}
    log.add(e.SessionCreated(settings=Settings(), title=text(chance, 4), labels=labels))
    _turn(log, chance, RARE if at % max(number // 5, 1) == 1 else "")
    log.add(e.SettingsChanged(title=text(chance, 5)))
    turn_id = clock.new_id()
    log.add(e.TurnStarted(prompt=f"{COMMON} {text(chance, 8)}", owner=OWNER), turn_id)
    at_end = number - at
    if at_end <= WORKING:
        log.add(e.StepStarted(step=1, provider="demo", model="demo"), turn_id)
    elif at_end <= WORKING + READY:
        log.add(e.TurnSuspended(), turn_id)
    elif chance.random() < WAITING_SHARE:
        log.add(e.TurnWaiting(pending_tool_calls=(CALL,)), turn_id)
    else:
        log.add(e.TurnInterrupted(reason="requested"), turn_id)
        if chance.random() < ARCHIVED_SHARE:
            log.add(e.SessionArchived())
    return log.taken()


def _turn(log: _Log, chance: random.Random, word: str) -> None:
    turn_id = clock.new_id()
    log.add(e.TurnStarted(prompt=f"{COMMON} {text(chance, 12)} {word}", owner=OWNER), turn_id)
    log.add(e.StepStarted(step=1, provider="demo", model="demo"), turn_id)
    log.add(e.ReasoningComplete(text=text(chance, 10)), turn_id)
    log.add(e.TextComplete(text=text(chance, 30)), turn_id)
    usage = Usage(input_tokens=100, output_tokens=40)
    log.add(e.StepCompleted(step=1, stop_reason="end", usage=usage, duration_ms=5), turn_id)
    log.add(e.TurnCompleted(), turn_id)


async def _fill_long(store: Store, events: int, now_ms: int, chance: random.Random) -> str:
    log = _Log(clock.new_id(), now_ms)
    log.add(e.SessionCreated(settings=Settings(), title="the long one"))
    while log.session.seq < events:
        for _ in range(50):
            _turn(log, chance, "")
        await store.append(log.taken())
    return log.session.id


async def settle_in() -> None:
    """What PostgreSQL does by itself in a minute: tidy up, and count what is there, to plan queries well."""
    import asyncpg

    connection = await asyncpg.connect(os.environ[DSN_VARIABLE], timeout=10)
    try:
        await connection.execute("VACUUM ANALYZE")
    finally:
        await connection.close()


def following(session: Session, draft: e.Event) -> Append:
    """One event more."""
    seq = session.seq + 1
    event = place(
        draft,
        event_id=f"{session.id}/{seq}",
        seq=seq,
        session_id=session.id,
        turn_id=None,
        timestamp_ms=clock.now_ms(),
    )
    return Append(advance(session, event), [encode(event)], shown=isinstance(draft, SHOWN))


@contextmanager
def postgres_database() -> Generator[str | None]:
    """An empty database, whose address stands in the environment meanwhile; None when there is no server."""
    import asyncpg

    server = os.environ.get(DSN_VARIABLE, LOCAL_DSN)
    name = f"meerkat_bench_{secrets.token_hex(6)}"

    async def tell(statement: str) -> None:
        connection = await asyncpg.connect(server, timeout=10)
        try:
            await connection.execute(statement)
        finally:
            await connection.close()

    try:
        anyio.run(tell, f"CREATE DATABASE {name} ENCODING 'UTF8' TEMPLATE template0")
    except OSError:
        yield None
        return
    before = os.environ.get(DSN_VARIABLE)
    os.environ[DSN_VARIABLE] = f"{server.rpartition('/')[0]}/{name}"
    try:
        yield os.environ[DSN_VARIABLE]
    finally:
        if before is None:
            del os.environ[DSN_VARIABLE]
        else:
            os.environ[DSN_VARIABLE] = before
        anyio.run(tell, f"DROP DATABASE {name} WITH (FORCE)")
