"""A turn in this process, seen through to its end: shown meanwhile, ended by Ctrl-C, its questions put to a person."""

import math
import signal
from argparse import Namespace
from dataclasses import dataclass, field

import anyio
import anyio.lowlevel

from meerkat_mcp.cli import approving, display
from meerkat_mcp.cli.telling import Teller
from meerkat_mcp.domain.errors import NotWaiting, ToolResultsMismatch
from meerkat_mcp.domain.events import TURN_PAUSES
from meerkat_mcp.domain.session import Session
from meerkat_mcp.realms import Realm

DRAIN_S = 1.0
LOOK_S = 5.0


@dataclass(slots=True)
class _Heard:
    """The signals that came, and the question that they end, while one is asked."""

    signals: list[int] = field(default_factory=list[int])
    question: anyio.CancelScope | None = None


async def see_through(realm: Realm, session_id: str, turn_id: str, after: int, args: Namespace) -> int | None:
    """Wait until the turn has ended or waits for what nobody here says; the signal that asked for the end, if any."""
    heard, teller = _Heard(), Teller()
    async with anyio.create_task_group() as tasks:

        async def heed() -> None:
            await _heed(realm, session_id, turn_id, heard, tasks.cancel_scope)

        tasks.start_soon(heed)
        while True:
            await _followed(realm, session_id, turn_id, after, args, teller)
            session = await realm.sessions.settled(session_id)
            if heard.signals or not approving.is_attended(args):
                break
            if not await _decided(realm, session, turn_id, heard):
                break
            after = session.seq
        tasks.cancel_scope.cancel()
    return heard.signals[0] if heard.signals else None


async def see_off(realm: Realm, session_id: str) -> None:
    """Stay for the prompts that others queued meanwhile: the process that ended the turn before works on them."""
    told = False
    while realm.turns.running:
        session = await realm.journal.load(session_id)
        if session.active and session.turn is not None:
            if not told:
                display.note("A prompt that was queued meanwhile runs here now; Ctrl-C ends it.")
                told = True
            await realm.sessions.wait(session_id, session.turn.turn_id, LOOK_S)
        await anyio.lowlevel.checkpoint()


async def _decided(realm: Realm, session: Session, turn_id: str, heard: _Heard) -> bool:
    """Ask the person at the terminal what the turn needs a yes for; whether there is more to follow."""
    turn, decided = session.turn, None
    if session.state != "waiting" or turn is None or turn.turn_id != turn_id or not turn.approvals:
        return False
    with anyio.CancelScope() as heard.question:
        decided = await approving.ask(turn.approvals)
    heard.question = None
    if heard.signals:
        await realm.sessions.interrupt(session.id, expected_turn_id=turn_id)
        return False
    if not decided:
        return False
    try:
        await realm.sessions.resume(session.id, approvals=decided, approved_by="operator")
    except (NotWaiting, ToolResultsMismatch):
        display.note("Somebody else was first: it was answered elsewhere.")
    return True


async def _heed(realm: Realm, session_id: str, turn_id: str, heard: _Heard, scope: anyio.CancelScope) -> None:
    """The first signal ends the turn, a second one does not wait for that."""
    try:
        with anyio.open_signal_receiver(signal.SIGINT, signal.SIGTERM) as received:
            async for number in received:
                if heard.signals:
                    scope.cancel()
                heard.signals.append(int(number))
                if heard.question is not None:
                    heard.question.cancel()
                else:
                    await realm.sessions.interrupt(session_id, expected_turn_id=turn_id, wait_s=0)
    except NotImplementedError:  # Windows: Ctrl-C cancels everything, and the turn ends by that
        return


async def _followed(realm: Realm, session_id: str, turn_id: str, after: int, args: Namespace, teller: Teller) -> None:
    """Wait until the turn has ended or waits, showing it meanwhile."""
    if not args.stream:
        with display.waiting("working … Ctrl-C interrupts"):
            await realm.sessions.wait(session_id, turn_id, math.inf)
        return
    through = await _standstill(realm, session_id, turn_id, after)
    async with anyio.create_task_group() as tasks:
        told = anyio.Event()

        async def show() -> None:
            await _shown(realm, session_id, turn_id, after, through, None if args.json else teller)
            told.set()

        tasks.start_soon(show)
        await realm.sessions.wait(session_id, turn_id, math.inf)
        with anyio.move_on_after(DRAIN_S):
            await told.wait()
        tasks.cancel_scope.cancel()


async def _standstill(realm: Realm, session_id: str, turn_id: str, after: int) -> int | None:
    """The last event there is of a turn that was brought only some of what it waits for; None: it goes on."""
    session = await realm.journal.load(session_id)
    turn = session.turn
    stands = session.state == "waiting" and turn is not None and turn.turn_id == turn_id and turn.resumed_seq <= after
    return session.seq if stands else None


async def _shown(
    realm: Realm, session_id: str, turn_id: str, after: int, through: int | None, teller: Teller | None
) -> None:
    """Write the turn's events until it has ended or waits: as JSON where there is nobody to tell them."""
    ends = TURN_PAUSES | {"prompt_dropped"}
    async with realm.journal.follow(session_id, after=after) as log:
        while through is None or after < through:
            for recorded in await log.next():
                event, after = recorded.event, recorded.event.seq
                if event.turn_id not in (turn_id, None):
                    continue
                if teller is None:
                    display.say(recorded.body.decode())
                else:
                    teller.tell(event)
                if event.turn_id == turn_id and recorded.type in ends:
                    return teller.end_line() if teller is not None else None
