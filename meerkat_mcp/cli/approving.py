"""A yes or a no to what a turn waits with: said in flags, or asked for at the terminal."""

import sys
from argparse import Namespace
from collections.abc import Sequence
from dataclasses import replace

import anyio
import anyio.to_thread

from meerkat_mcp.cli import display, values
from meerkat_mcp.domain.errors import InvalidRequest, NotWaiting
from meerkat_mcp.domain.messages import ToolCall
from meerkat_mcp.domain.session import Session
from meerkat_mcp.sessions.decisions import Approval

ALL = "all"
ARGS_CHARS_MAX = 2000
"""Of a call's arguments, where a person is asked; the rest is shown when they want it."""
REASON_CHARS_MAX = 2000


def verdicts(approve: Sequence[str], deny: Sequence[str]) -> list[Approval]:
    """The flags `--approve ID|all` and `--deny ID|all[=REASON]`. Raises InvalidRequest."""
    denied = [Approval(call, "deny", reason) for call, _, reason in (one.partition("=") for one in deny)]
    return checked([*(Approval(call, "approve") for call in approve), *denied])


def checked(said: list[Approval]) -> list[Approval]:
    """What was said, if it can be: no call twice, no reason too long. Raises InvalidRequest."""
    named = [one.tool_use_id for one in said]
    if twice := sorted({call for call in named if named.count(call) > 1}):
        raise InvalidRequest(f"{', '.join(twice)[:200]} is answered more than once.")
    if any(len(one.reason) > REASON_CHARS_MAX for one in said):
        raise InvalidRequest(f"A reason has at most {REASON_CHARS_MAX} characters.")
    return said


def approvals(said: Sequence[Approval], session: Session) -> list[Approval]:
    """What was said of each call that this session waits with: `all` are those that are not named.

    Raises:
        NotWaiting: `all`, and there is none.
    """
    named = {one.tool_use_id for one in said}
    waiting = session.turn.approvals if session.turn is not None and session.state == "waiting" else ()
    if ALL in named and not waiting:
        raise NotWaiting(
            f"Session {session.id} waits for no approvals.",
            hint="meerkat-mcp session show says how it stands.",
            session_id=session.id,
        )
    others = [call.tool_use_id for call in waiting if call.tool_use_id not in named]
    return [
        replace(one, tool_use_id=call)
        for one in said
        for call in (others if one.tool_use_id == ALL else [one.tool_use_id])
    ]


def is_attended(args: Namespace) -> bool:
    """Whether somebody is there to be asked: at a terminal, who did not ask for JSON."""
    return sys.stdin.isatty() and sys.stderr.isatty() and not args.json


async def ask(calls: Sequence[ToolCall]) -> list[Approval] | None:
    """What the person at the terminal says to each call; None when they leave it open (Ctrl-D)."""
    decided: list[Approval] = []
    for call in calls:
        verdict = await _ask(call)
        if verdict is None:
            display.note()
            return None
        decided.append(verdict)
    return decided


async def _ask(call: ToolCall) -> Approval | None:
    whole = display.as_json(call.args)
    display.note(f"The agent wants to call {call.tool_name} ({call.tool_use_id}) with")
    display.note(f"  {shown(call)}")
    while True:
        display.note(f"Allow it? [y]es, [n]o{', [a]ll of it' if len(whole) > ARGS_CHARS_MAX else ''}: ", end="")
        answer = await _line()
        match answer.strip().lower() if answer is not None else None:
            case None:
                return None
            case "y" | "yes":
                return Approval(call.tool_use_id, "approve")
            case "n" | "no":
                display.note("Why not? It is told to the model; Enter for no reason: ", end="")
                reason = await _line()
                return None if reason is None else Approval(call.tool_use_id, "deny", reason.strip()[:REASON_CHARS_MAX])
            case "a" | "all":
                display.note(f"  {whole}")
            case _:
                pass


def shown(call: ToolCall) -> str:
    """A call's arguments on one line, not too long a one."""
    whole = display.as_json(call.args)
    return whole if len(whole) <= ARGS_CHARS_MAX else f"{whole[:ARGS_CHARS_MAX]} … ({len(whole)} characters)"


def command(place: str, session_id: str) -> str:
    """The command that says yes; `place` are the flags that lead to the realm."""
    return f"meerkat-mcp session approve{place} {session_id}"


async def _line() -> str | None:
    """A line that is typed; None for the end of the input. Cancelling ends the wait."""
    if sys.platform == "win32":  # a console there is nothing one can wait for
        line = await anyio.to_thread.run_sync(sys.stdin.readline, abandon_on_cancel=True)
    else:
        await anyio.wait_readable(sys.stdin)
        line = sys.stdin.readline()
    return values.well_formed(line) if line else None
