"""`meerkat-mcp run`, `session approve` and `session compact`: a turn in this process, and what came of it."""

import signal
from argparse import Namespace

from meerkat_mcp.cli import approving, display, exits, values
from meerkat_mcp.cli.following import see_off, see_through
from meerkat_mcp.cli.request import Request, request
from meerkat_mcp.cli.views import tokens, turn_view
from meerkat_mcp.domain.errors import RealmNotFound
from meerkat_mcp.domain.session import Session
from meerkat_mcp.domain.settings import Settings
from meerkat_mcp.domain.transcript import TurnOutcome
from meerkat_mcp.realms import Realm, RealmChoice, open_realm
from meerkat_mcp.sessions.claims import Started
from meerkat_mcp.sessions.decisions import Approval

TERMINATED = 143


async def run(args: Namespace) -> int:
    """Start a session, or go on with one."""
    asked = request(args)
    chosen = values.choice(args, asked.reference)
    if asked.reference is not None:
        _check_begun(args, chosen)
    exits.settle_in()
    async with open_realm(chosen, must_exist=asked.reference is not None) as realm:
        after, started = await _begun(realm, asked)
        return await _concluded(realm, started, after, args)


async def approve(args: Namespace) -> int:
    """Say yes or no to what a turn waits with, and see the turn through: it goes on in this process."""
    verdict = "deny" if args.deny else "approve"
    said = approving.checked([Approval(name, verdict, args.reason) for name in args.ids or [approving.ALL]])
    chosen = values.choice(args, args.reference)
    _check_begun(args, chosen)
    exits.settle_in()
    async with open_realm(chosen, must_exist=True) as realm:
        before = await realm.sessions.settled(await realm.reading.resolve(args.reference))
        decided = approving.approvals(said, before)
        started = await realm.sessions.resume(before.id, approvals=decided, approved_by="operator")
        return await _concluded(realm, started, before.seq, args)


async def compact(args: Namespace) -> int:
    """Have the model summarise a session's history; with --dry-run say what a summary would stand for."""
    chosen = values.choice(args, args.reference)
    _check_begun(args, chosen)
    exits.settle_in()
    async with open_realm(chosen, must_exist=True) as realm:
        before = await realm.sessions.settled(await realm.reading.resolve(args.reference))
        if args.dry_run:
            messages, chars = await realm.shelf.compactable(before.id)
            if args.json:
                display.say_json({"session_id": before.id, "messages_replaced": messages, "chars_before": chars})
            else:
                display.say(f"A summary would stand for {messages} messages, {chars} characters.")
            return 0
        return await _concluded(realm, await realm.sessions.compact(before.id), before.seq, args)


def _check_begun(args: Namespace, chosen: RealmChoice) -> None:
    if values.unnamed(args, chosen.realm_id) and not chosen.folder.exists():
        raise RealmNotFound(
            "There is no session to go on with in this folder yet.", hint='start one with: meerkat-mcp run "…".'
        )


async def _begun(realm: Realm, asked: Request) -> tuple[int, Started]:
    """The turn, and after which event of the log it begins."""
    if asked.reference is None:
        settings = Settings(**asked.changes)
        started = await realm.sessions.run(asked.prompt, settings, title=asked.title or "", labels=asked.labels)
        return 0, started
    session_id = await realm.reading.resolve(asked.reference)
    before = await realm.sessions.settled(session_id)
    started = await realm.sessions.resume(
        session_id,
        asked.prompt,
        changes=asked.changes,
        title=asked.title,
        labels=asked.labels,
        tool_results=asked.tool_results,
        approvals=approving.approvals(asked.verdicts, before),
        approved_by="operator",
        if_busy=asked.if_busy,
    )
    return before.seq, started


async def _concluded(realm: Realm, started: Started, after: int, args: Namespace) -> int:
    """See the turn through, and say what came of it; the exit code."""
    if started.turn_id is None:
        _tell_settings(await realm.journal.load(started.session_id), realm, args)
        return 0
    stopped_by = await see_through(realm, started.session_id, started.turn_id, after, args)
    session = await realm.sessions.settled(started.session_id)
    outcome = await realm.sessions.outcome(session, started.turn_id)
    if args.json:
        view = turn_view(session, realm.id, outcome)
        display.say_json({"result": view} if args.stream else view)
    else:
        _tell_outcome(session, outcome, realm, args)
    if stopped_by is None:
        await see_off(realm, session.id)
    return _exit_code(outcome, stopped_by)


# ── what came of it ──


def _exit_code(outcome: TurnOutcome, stopped_by: int | None) -> int:
    if outcome.status == "failed":
        return exits.exit_code(outcome.error)
    if outcome.status in ("completed", "waiting"):
        return 0
    if stopped_by is not None:
        return TERMINATED if stopped_by == signal.SIGTERM else exits.INTERRUPTED
    return exits.UNFINISHED


def _tell_outcome(session: Session, outcome: TurnOutcome, realm: Realm, args: Namespace) -> None:
    if not args.stream:
        if outcome.structured_output is not None:
            display.say(display.as_json(outcome.structured_output, indent=2))
        elif outcome.text:
            display.say(outcome.text)
        for warning in outcome.warnings:  # whoever follows the stream has been told
            display.note(f"warning: {warning}")
    if outcome.error is not None:
        display.complain(str(outcome.error.get("message")), exits.hint(outcome.error))
    place = values.same_place(args, realm)
    if outcome.status == "waiting":
        return _tell_waiting(session.id, outcome, place)
    ended = outcome.status if outcome.status in ("completed", "failed") else _why(outcome)
    go_on = f'meerkat-mcp run{place} --resume {session.id} "…"'
    display.note(f"{session.id}  {ended}, {tokens(outcome.usage)}. Go on: {go_on}")


def _tell_waiting(session_id: str, outcome: TurnOutcome, place: str) -> None:
    """What the turn waits for, and the command that answers."""
    for call in outcome.approvals:
        display.note(f"needs a yes: {call.tool_name} ({call.tool_use_id}): {approving.shown(call)}")
    for call in outcome.pending:
        display.note(f"waits for {call.tool_name} ({call.tool_use_id}): {display.as_json(call.args)}")
    stands = f"{session_id}  waiting, {tokens(outcome.usage)}."
    if not outcome.pending:
        return display.note(f"{stands} Approve: {approving.command(place, session_id)} (--deny --reason TEXT says no)")
    answers = "".join(f" --tool-result {call.tool_use_id}=…" for call in outcome.pending)
    answers += " --approve all" if outcome.approvals else ""
    display.note(f"{stands} Answer: meerkat-mcp run{place} --resume {session_id}{answers}")


def _why(outcome: TurnOutcome) -> str:
    what = "stopped at" if outcome.status == "limit" else f"{outcome.status}:"
    return f"{what} {outcome.stop_reason}" if outcome.stop_reason else outcome.status


def _tell_settings(session: Session, realm: Realm, args: Namespace) -> None:
    if args.json:
        display.say_json(turn_view(session, realm.id, None))
    else:
        display.note(f"{session.id}  changed; nothing was asked.")
