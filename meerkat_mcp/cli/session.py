"""`meerkat-mcp session`: look at sessions, follow them, rename them, put them away."""

import signal
import sys
from argparse import Namespace
from collections.abc import Sequence

import anyio

from meerkat_mcp.cli import display, exits, telling, values
from meerkat_mcp.cli.showing import TITLE_CHARS, done, tell_messages, tell_session, tell_sessions, title_of
from meerkat_mcp.cli.views import message_view, reference, session_view, turn_view
from meerkat_mcp.domain.errors import InvalidRequest, RealmNotFound
from meerkat_mcp.domain.recorded import Recorded
from meerkat_mcp.domain.session import LISTED_AS, Session
from meerkat_mcp.domain.transcript import Placed
from meerkat_mcp.realms import Realm
from meerkat_mcp.sessions.excerpts import Excerpt
from meerkat_mcp.sessions.reading import Listing
from meerkat_mcp.stores.base import Selection

PAGE_EVENTS = 1000
SETTLE_INTERVAL_S = 5.0
"""How often a follower looks whether the process that works is still there."""


async def listing(args: Namespace) -> int:
    """Sessions, latest activity first; none where none was ever started."""
    selection = Selection(
        labels=values.pairs(args.label, "--label"),
        states=LISTED_AS[args.state],
        archived=args.archived,
        query=args.query,
    )
    try:
        async with values.realm_to_look_at(args) as realm:
            found = await realm.reading.list(selection, cursor=args.cursor, offset=args.offset, limit=args.limit)
            matched = await realm.reading.matched(found.sessions, args.query)
    except RealmNotFound:
        if not values.unnamed(args, values.choice(args).realm_id):
            raise
        found, matched = Listing((), None), dict[str, Excerpt]()
    if args.json:
        more = {"next_cursor": found.next_cursor} if found.next_cursor else {}
        views = [session_view(session, matched.get(session.id)) for session in found.sessions]
        display.say_json({"sessions": views, **more})
    elif not found.sessions:
        display.note("No sessions." if not _narrowed(args) else "No such sessions.")
    else:
        next_offset = args.offset + len(found.sessions) if found.next_cursor else None
        tell_sessions(found.sessions, matched, next_offset=next_offset)
    return 0


async def show(args: Namespace) -> int:
    """A session with its latest turn; with --events its log."""
    if not args.events and (args.follow or args.after_seq is not None):
        raise InvalidRequest("--after-seq and --follow are about events.", hint="say --events too.")
    async with values.realm_to_look_at(args, args.reference) as realm:
        session = await realm.sessions.settled(await realm.reading.resolve(args.reference))
        if args.events:
            return await (_follow_events if args.follow else _tell_events)(realm, session, args)
        outcome = await realm.sessions.outcome(session, session.turn.turn_id) if session.turn is not None else None
        messages: Sequence[Placed] = ()
        if args.history:
            messages = (await realm.reading.history(session.id, offset=0, limit=sys.maxsize)).messages
    if not args.json:
        tell_session(session, outcome, realm.id, values.same_place(args, realm))
        if args.history:
            display.say()
            tell_messages(messages)
        return 0
    view = {"session_ref": reference(realm.id, session.id), "session": session_view(session)}
    view |= {"turn": turn_view(session, realm.id, outcome)} if outcome is not None else {}
    view |= {"queued_turns": [queued.turn_id for queued in session.queue]} if session.queue else {}
    view |= {"messages": [message_view(placed) for placed in messages]} if args.history else {}
    display.say_json(view)
    return 0


async def history(args: Namespace) -> int:
    """A page of messages, oldest first."""
    async with values.realm_to_look_at(args, args.reference) as realm:
        session_id = await realm.reading.resolve(args.reference)
        page = await realm.reading.history(session_id, offset=args.offset, limit=args.limit)
    end = page.offset + len(page.messages)
    if args.json:
        shown = [message_view(placed) for placed in page.messages]
        where = {"offset": page.offset, "total": page.total, "has_more": end < page.total}
        display.say_json({"session_id": session_id, "messages": shown, **where})
        return 0
    tell_messages(page.messages)
    if len(page.messages) < page.total:
        display.note(f"messages {page.offset + 1} to {end} of {page.total}; --offset and --limit show others.")
    return 0


async def edit(args: Namespace) -> int:
    """Another title, other labels."""
    labels: dict[str, str | None] = {**values.pairs(args.label, "--label"), **dict.fromkeys(args.unlabel)}
    if args.title is None and not labels:
        raise InvalidRequest("There is nothing to change.", hint="say --title, --label or --unlabel.")
    if both := sorted(set(values.pairs(args.label, "--label")) & set(args.unlabel)):
        raise InvalidRequest(f"--label and --unlabel both name {both[0][:80]!r}.")
    async with values.realm_to_look_at(args, args.reference) as realm:
        session_id = await realm.reading.resolve(args.reference)
        session = await realm.shelf.rename(session_id, title=args.title, labels=labels)
    done(args, session_view(session), f"{session_id}  is called {title_of(session)}.")
    return 0


async def delete(args: Namespace) -> int:
    """Remove every byte of a session."""
    async with values.realm_to_look_at(args, args.reference) as realm:
        session_id = await realm.reading.resolve(args.reference, exact=True)
        session = await realm.sessions.settled(session_id)
        if not args.yes and not await _agreed(session):
            display.note("Nothing was deleted.")
            return 1
        await realm.shelf.delete(session_id)
    done(args, {"session_id": session_id, "deleted": True}, f"{session_id}  deleted.")
    return 0


async def archive(args: Namespace) -> int:
    """Put a session away."""
    return await _shelved(args, archived=True)


async def restore(args: Namespace) -> int:
    """Bring a session back."""
    return await _shelved(args, archived=False)


async def fork(args: Namespace) -> int:
    """A new session with the history of another."""
    async with values.realm_to_look_at(args, args.reference) as realm:
        session_id = await realm.reading.resolve(args.reference)
        made = await realm.shelf.fork(session_id, at_seq=args.at_seq, title=args.title)
    assert made.forked_from is not None, "a fork says where it comes from"
    view = {"session_id": made.id, "session_ref": reference(realm.id, made.id), "last_seq": made.seq}
    said = f"{made.id}  forked from {session_id} at event {made.forked_from.at_seq}."
    done(args, view | {"forked_from": made.forked_from.model_dump()}, said)
    return 0


async def interrupt(args: Namespace) -> int:
    """End the running turn; fine when none is running."""
    async with values.realm_to_look_at(args, args.reference) as realm:
        session_id = await realm.reading.resolve(args.reference)
        found = await realm.sessions.interrupt(session_id, expected_turn_id=args.turn)
    view = {"session_id": session_id, "interrupted": found.interrupted, "ended": found.ended}
    view |= {"turn_id": found.turn_id} if found.turn_id else {}
    said = f"{session_id}  nothing was running."
    if found.interrupted:
        said = (
            f"{session_id}  turn {found.turn_id} {'has ended' if found.ended else 'was told to end, and has not yet'}."
        )
    done(args, view, said)
    return 0 if found.ended or not found.interrupted else 1


async def _shelved(args: Namespace, *, archived: bool) -> int:
    async with values.realm_to_look_at(args, args.reference) as realm:
        session_id = await realm.reading.resolve(args.reference)
        shelf = realm.shelf
        session = await (shelf.archive(session_id) if archived else shelf.restore(session_id))
    is_archived = session.state == "archived"
    said = f"{session_id}  is {'archived' if is_archived else session.state}."
    done(args, {"session_id": session_id, "archived": is_archived}, said)
    return 0


async def _agreed(session: Session) -> bool:
    if not sys.stdin.isatty():
        raise InvalidRequest("Deleting asks first, and stdin is no terminal.", hint="say --yes.")
    title = f" “{display.clipped(session.title, TITLE_CHARS)}”" if session.title else ""
    display.note(f"Delete {session.id}{title} with its {session.messages} messages for good? [y/N] ", end="")
    return (await anyio.to_thread.run_sync(sys.stdin.readline)).strip().lower() in ("y", "yes")


async def _tell_events(realm: Realm, session: Session, args: Namespace) -> int:
    """The log after a place, as far as it goes."""
    async for recorded in realm.journal.log(session.id, after=args.after_seq or 0):
        _tell_event(recorded, args)
    return 0


async def _follow_events(realm: Realm, session: Session, args: Namespace) -> int:
    """The log after a place, then what comes, until a signal; the exit code."""
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(_until_signal, tasks.cancel_scope)
        async with realm.journal.follow(session.id, after=args.after_seq or 0) as log:
            while True:
                events: Sequence[Recorded] = ()
                with anyio.move_on_after(SETTLE_INTERVAL_S):
                    events = await log.next()
                for recorded in events:
                    _tell_event(recorded, args)
                if not events:
                    await realm.sessions.settled(session.id)
    return exits.INTERRUPTED


async def _until_signal(scope: anyio.CancelScope) -> None:
    """Cancel on Ctrl-C. Left to asyncio, a Ctrl-C in the moment of a timeout would be taken for the timeout."""
    try:
        with anyio.open_signal_receiver(signal.SIGINT) as received:
            async for _ in received:
                scope.cancel()
    except NotImplementedError:  # Windows: there it is left to asyncio
        return


def _tell_event(recorded: Recorded, args: Namespace) -> None:
    display.say(recorded.body.decode() if args.json else telling.log_line(recorded.event))


def _narrowed(args: Namespace) -> bool:
    return bool(args.label or args.state or args.archived or args.query or args.offset or args.cursor)
