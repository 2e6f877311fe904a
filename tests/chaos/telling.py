"""What went wrong, told so that one can work on it: the seed, the broken promises, the logs, and the story."""

import re
from collections.abc import Sequence
from typing import TYPE_CHECKING

from meerkat_mcp.cli.telling import log_line
from meerkat_mcp.domain import events as e

if TYPE_CHECKING:
    from chaos.town import Town

WRONG_MAX, LOGS_MAX, LINES_MAX, WROTE_MAX = 40, 3, 150, 20

_ID = re.compile(r"[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}")


def told(town: "Town", wrong: Sequence[str], *, whole: bool = False) -> str:
    """The first of everything; all of it when `whole`."""
    many = 10**9 if whole else 1
    lines = [f"\n{len(wrong)} PROMISES BROKEN; seed {town.plan.seed}, {town.plan}"]
    lines += [f"  - {what}" for what in wrong[: max(many, WRONG_MAX)]]
    named = dict.fromkeys(found for what in wrong for found in _ID.findall(what) if found in town.sessions)
    for session_id in [*named][: max(many, LOGS_MAX)]:
        lines += ["", f"── {session_id} ──", *_log(town, session_id)]
        about = [line for line in town.story if session_id in line]
        lines += ["", *about[-max(many, LINES_MAX) :]]
    if whole:
        for session_id in town.sessions.keys() - named.keys():
            lines += ["", f"── {session_id} ──", *_log(town, session_id)]
    for server in town.servers:
        lines += ["", f"── {server.name} wrote ──", *server.wrote()[-max(many, WROTE_MAX) :]]
    lines += ["", "── story ──", *town.story[-max(many, LINES_MAX) :]]
    return "\n".join(lines)


def _log(town: "Town", session_id: str) -> Sequence[str]:
    return [_line(event) for event in town.sessions[session_id][1]]


def _line(event: e.Event) -> str:
    owner = f" of {event.owner.pid}" if isinstance(event, e.TurnStarted | e.TurnResumed) else ""
    return f"{log_line(event)}  {event.turn_id or ''}{owner}"
