"""`meerkat-mcp session`: look at sessions, follow them, put them away."""

import signal
import sys
from argparse import Namespace
from collections.abc import Mapping, Sequence

import anyio

from meerkat_mcp.cli import approving, display, exits, telling, values
from meerkat_mcp.cli.views import message_view, reference, session_view, tokens, turn_view
from meerkat_mcp.domain.errors import InvalidRequest, RealmNotFound
from meerkat_mcp.domain.recorded import Recorded
from meerkat_mcp.domain.session import Session, State
from meerkat_mcp.domain.settings import Settings
from meerkat_mcp.domain.transcript import Placed, TurnOutcome
from meerkat_mcp.realms import Realm
from meerkat_mcp.sessions.reading import Listing
from meerkat_mcp.stores.base import Selection

TITLE_CHARS = 50
PAGE_EVENTS = 1000
SETTLE_INTERVAL_S = 5.0
"""How often a follower looks whether the process that works is still there."""

_STATES: dict[str | None, tuple[State, ...]] = {
    None: (),
    "idle": ("idle",),
    "running": ("running", "stopping"),
    "waiting": ("waiting",),
}


async def listing(args: Namespace) -> int:
    """Sessions, latest activity first; none where none was ever started."""
    selection = Selection(
        labels=values.pairs(args.label, "--label"),
        states=_STATES[args.state],
        archived=args.archived,
        query=args.query,
    )
    try:
        async with values.realm_to_look_at(args) as realm:
            found = await realm.reading.list(selection, cursor=args.cursor, offset=args.offset, limit=args.limit)
            names = {} if args.json else {session.id: _name(session) for session in found.sessions}
    except RealmNotFound:
        if not values.unnamed(args, values.choice(args).realm_id):
            raise
        found, names = Listing((), None), dict[str, str]()
    if args.json:
        more = {"next_cursor": found.next_cursor} if found.next_cursor else {}
        display.say_json({"sessions": [session_view(session) for session in found.sessions], **more})
    else:
        _tell_sessions(found, names, args)
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
        _tell_session(session, outcome, realm.id, values.same_place(args, realm))
        if args.history:
            display.say()
            _tell_messages(messages)
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
    _tell_messages(page.messages)
    if len(page.messages) < page.total:
        display.note(f"messages {page.offset + 1} to {end} of {page.total}; --offset and --limit show others.")
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
    _done(args, {"session_id": session_id, "deleted": True}, f"{session_id}  deleted.")
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
    _done(args, view | {"forked_from": made.forked_from.model_dump()}, said)
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
    _done(args, view, said)
    return 0 if found.ended or not found.interrupted else 1


async def _shelved(args: Namespace, *, archived: bool) -> int:
    async with values.realm_to_look_at(args, args.reference) as realm:
        session_id = await realm.reading.resolve(args.reference)
        shelf = realm.shelf
        session = await (shelf.archive(session_id) if archived else shelf.restore(session_id))
    is_archived = session.state == "archived"
    said = f"{session_id}  is {'archived' if is_archived else session.state}."
    _done(args, {"session_id": session_id, "archived": is_archived}, said)
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


def _tell_sessions(found: Listing, names: dict[str, str], args: Namespace) -> None:
    if not found.sessions:
        return display.note("No sessions." if not _narrowed(args) else "No such sessions.")
    short = display.short_ids([session.id for session in found.sessions])
    display.table(
        ("SESSION", "STATE", "ACTIVE", "TURNS", "TITLE"),
        [
            (
                short[session.id],
                session.state,
                display.ago(session.updated_ms),
                str(session.turns),
                names[session.id],
            )
            for session in found.sessions
        ],
    )
    if found.next_cursor:
        display.note(f"There are more: --offset {args.offset + len(found.sessions)}")


def _name(session: Session) -> str:
    """The session's title, or how it began; and its labels."""
    labels = " ".join(f"{key}={value}" for key, value in session.labels.items())
    named = " ".join(part for part in (session.name, f"[{labels}]" if labels else "") if part)
    return display.clipped(named, TITLE_CHARS)


def _narrowed(args: Namespace) -> bool:
    return bool(args.label or args.state or args.archived or args.query or args.offset or args.cursor)


def _tell_session(session: Session, outcome: TurnOutcome | None, realm_id: str, place: str) -> None:
    origin, settings = session.forked_from, session.settings
    display.facts(
        [
            ("session", session.id),
            ("realm", realm_id),
            ("title", session.title),
            ("labels", " ".join(f"{key}={value}" for key, value in session.labels.items())),
            ("state", session.state),
            ("model", " of ".join(name for name in (settings.model, settings.provider) if name)),
            ("tool servers", _servers(settings)),
            ("permissions", settings.permission_mode or ""),
            ("turns", f"{session.turns}, {session.messages} messages, {session.tool_calls} tool calls"),
            ("usage", tokens(session.usage)),
            ("created", f"{display.moment(session.created_ms)} ({display.ago(session.created_ms)})"),
            ("active", f"{display.moment(session.updated_ms)} ({display.ago(session.updated_ms)})"),
            ("events", str(session.seq)),
            ("forked from", f"{origin.session_id} at event {origin.at_seq}" if origin is not None else ""),
            ("queued", ", ".join(queued.turn_id for queued in session.queue)),
        ]
    )
    if outcome is not None:
        _tell_turn(session, outcome, place)


def _tell_turn(session: Session, outcome: TurnOutcome, place: str) -> None:
    display.say()
    stop = f" ({outcome.stop_reason})" if outcome.stop_reason else ""
    steps = f"{outcome.steps}, by {outcome.model} of {outcome.provider}" if outcome.model else ""
    display.facts(
        [
            ("turn", outcome.turn_id),
            ("status", f"{outcome.status}{stop}"),
            ("steps", steps),
            ("usage", tokens(outcome.usage)),
        ]
    )
    for warning in outcome.warnings:
        display.say(f"warning: {warning}")
    for call in outcome.approvals:
        display.say(f"needs a yes: {call.tool_name} ({call.tool_use_id}): {display.as_json(call.args)}")
    for call in outcome.pending:
        display.say(f"waits for {call.tool_name} ({call.tool_use_id}): {display.as_json(call.args)}")
    if outcome.error is not None:
        display.say(f"error: {outcome.error.get('message')}")
    if outcome.text:
        display.say(f"\n{outcome.text}")
    if outcome.approvals:
        display.note(f"Approve: {approving.command(place, session.id)} (--deny --reason TEXT says no)")


def _servers(settings: Settings) -> str:
    """The names of a session's own tool servers; `none` when it wants none, nothing when the config says."""
    return "" if settings.mcp_servers is None else ", ".join(settings.mcp_servers) or "none"


def _tell_messages(messages: Sequence[Placed]) -> None:
    for placed in messages:
        view = message_view(placed)
        display.say(f"── {view['role']}, event {placed.seq}, {display.ago(placed.timestamp_ms)}")
        if "reasoning" in view:
            display.say(f"(thinking) {view['reasoning']}")
        if "text" in view:
            display.say(view["text"])
        for call in view.get("tool_calls", ()):
            display.say(f"→ {call['tool_name']} ({call['tool_use_id']}) {display.as_json(call['args'])}")
        for result in view.get("tool_results", ()):
            failed = "failed: " if result["is_error"] else ""
            pictures = "".join(f" [{kind}]" for kind in result.get("images", ()))
            display.say(f"← ({result['tool_use_id']}) {failed}{result['content']}{pictures}")
        display.say()


def _done(args: Namespace, view: Mapping[str, object], said: str) -> None:
    if args.json:
        display.say_json(view)
    else:
        display.say(said)
