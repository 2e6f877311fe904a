"""Sessions, turns and messages as a person reads them."""

from argparse import Namespace
from collections.abc import Mapping, Sequence

from meerkat_mcp.cli import approving, display
from meerkat_mcp.cli.views import message_view, tokens
from meerkat_mcp.domain.session import Session
from meerkat_mcp.domain.settings import Settings
from meerkat_mcp.domain.transcript import Placed, TurnOutcome
from meerkat_mcp.sessions.excerpts import Excerpt

TITLE_CHARS = 50
MATCHED_CHARS = 80


def tell_sessions(
    sessions: Sequence[Session], matched: Mapping[str, Excerpt], *, next_offset: int | None = None
) -> None:
    """A table of sessions; with what a search found in messages, why. `next_offset` is where there are more."""
    short = display.short_ids([session.id for session in sessions])
    headings = ["SESSION", "STATE", "ACTIVE", "TURNS", "TITLE", *(["FOUND"] if matched else [])]
    rows: list[list[str]] = []
    for session in sessions:
        shown = [
            short[session.id],
            session.state,
            display.ago(session.updated_ms),
            str(session.turns),
            title_of(session),
        ]
        found = matched.get(session.id)
        said = [f"{found.role}: {display.clipped(found.text, MATCHED_CHARS)}" if found is not None else ""]
        rows.append([*shown, *(said if matched else [])])
    display.table(headings, rows)
    if next_offset is not None:
        display.note(f"There are more: --offset {next_offset}")


def title_of(session: Session) -> str:
    """The session's title, or how it began; and its labels."""
    labels = _labels(session)
    named = " ".join(part for part in (session.name, f"[{labels}]" if labels else "") if part)
    return display.clipped(named, TITLE_CHARS)


def _labels(session: Session) -> str:
    return " ".join(f"{key}={value}" for key, value in session.labels.items())


def tell_session(session: Session, outcome: TurnOutcome | None, realm_id: str, place: str) -> None:
    """A session and its latest turn. `place` are the flags that lead to its realm again."""
    origin, settings = session.forked_from, session.settings
    display.facts(
        [
            ("session", session.id),
            ("realm", realm_id),
            ("title", session.title),
            ("labels", _labels(session)),
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
            ("not whole", _missing(session)),
            ("queued", ", ".join(queued.turn_id for queued in session.queue)),
        ]
    )
    if outcome is not None:
        _tell_turn(session, outcome, place)


def _missing(session: Session) -> str:
    """What is wrong with a copy whose making was cut off: its log ends before the place it was to be copied up to."""
    origin = session.forked_from
    if origin is None or session.seq >= origin.at_seq:
        return ""
    return "it is being imported, or its import was cut off: then delete it, and import it again"


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


def tell_messages(messages: Sequence[Placed]) -> None:
    """Messages, oldest first."""
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


def done(args: Namespace, view: Mapping[str, object], said: str) -> None:
    """What a command did: as JSON where that was asked for."""
    if args.json:
        display.say_json(view)
    else:
        display.say(said)
