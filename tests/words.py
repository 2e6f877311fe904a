"""What the tests of the sessions say over and over."""

from typing import Any

import anyio

from meerkat_mcp.domain import events as e
from meerkat_mcp.domain.messages import ToolDefinition
from meerkat_mcp.domain.session import Session, advance
from meerkat_mcp.domain.settings import Settings
from meerkat_mcp.domain.transcript import TurnOutcome
from meerkat_mcp.realms import Realm
from meerkat_mcp.sessions.claims import Started

PATIENCE_S = 10.0
QUICK = {"delta_ms": 0}


def settings(**given: Any) -> Settings:
    return Settings(**({"provider_params": QUICK} | given))


WEATHER = ToolDefinition(name="weather", description="What the weather is.")
CALL = '[[call weather {"city": "Oslo"}]]'


async def run(realm: Realm, prompt: str, *, key: str | None = None, **given: Any) -> tuple[Started, TurnOutcome]:
    """A new session; its first turn, ended."""
    with anyio.fail_after(PATIENCE_S):
        started = await realm.sessions.run(prompt, settings(**given), idempotency_key=key)
        return started, await ended(realm, started)


async def resume(realm: Realm, session_id: str, prompt: str = "", **given: Any) -> TurnOutcome:
    """The next turn of a session, ended."""
    with anyio.fail_after(PATIENCE_S):
        return await ended(realm, await realm.sessions.resume(session_id, prompt, **given))


async def ended(realm: Realm, started: Started) -> TurnOutcome:
    assert started.turn_id is not None
    with anyio.fail_after(PATIENCE_S):
        assert await realm.sessions.wait(started.session_id, started.turn_id, PATIENCE_S)
        return await outcome(realm, started)


async def outcome(realm: Realm, started: Started) -> TurnOutcome:
    assert started.turn_id is not None
    return await realm.sessions.outcome(await realm.journal.load(started.session_id), started.turn_id)


async def log(realm: Realm, session_id: str) -> list[e.Event]:
    events: list[e.Event] = []
    while page := await realm.store.read(session_id, after=events[-1].seq if events else 0):
        events += [recorded.event for recorded in page]
    return events


async def types(realm: Realm, session_id: str) -> list[str]:
    return [event.type for event in await log(realm, session_id) if event.type not in e.DELTAS]


async def until(realm: Realm, session_id: str, kind: str, *, after: int = 0) -> e.Event:
    """The next event of that type, as a follower sees it."""
    with anyio.fail_after(PATIENCE_S):
        async with realm.journal.follow(session_id, after=after) as events:
            while True:
                for recorded in await events.next():
                    if recorded.type == kind:
                        return recorded.event


async def check_log(realm: Realm, session_id: str) -> Session:
    """What must hold of every log at every time: order, one end a turn, and that it adds up to the session."""
    folded, seqs = Session(id=session_id), list[int]()
    open_turn: str | None = None
    for event in await log(realm, session_id):
        folded.check(event)
        folded = advance(folded, event)
        seqs.append(event.seq)
        if event.type == "turn_started":
            assert open_turn is None, "one turn at a time"
            open_turn = event.turn_id
        elif event.type in e.TURN_ENDS:
            assert event.turn_id == open_turn, "every end is the end of the open turn"
            open_turn = None
    assert seqs == sorted(set(seqs)), "seqs strictly increase"
    assert folded == await realm.store.load(session_id), "the log adds up to the stored session"
    return folded
