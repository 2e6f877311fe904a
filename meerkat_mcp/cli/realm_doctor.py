"""`meerkat-mcp realm doctor`: whether a realm is sound."""

from argparse import Namespace
from dataclasses import asdict
from typing import TYPE_CHECKING

from meerkat_mcp.cli import display, exits, values
from meerkat_mcp.cli.realm_copy import progress
from meerkat_mcp.cli.realm_life import named

if TYPE_CHECKING:
    from meerkat_mcp.realms.checkup import Checkup


async def doctor(args: Namespace) -> int:
    """Check one realm: that of ID, or the one meant here."""
    from meerkat_mcp.realms.checkup import checked
    from meerkat_mcp.sessions.clock import SystemClock

    chosen = values.choice(args) if args.realm_id is None else named(args, args.realm_id)
    found = await checked(chosen, SystemClock(), full=args.full, tell=progress(_line))
    code = exits.EXIT_CODES["corrupt"] if found.damaged else exits.UNFINISHED if found.findings else 0
    if args.json:
        display.say_json(asdict(found) | {"damaged": found.damaged})
        return code
    live = ", ".join(found.live)
    display.facts(
        [
            ("realm", found.realm_id),
            ("backend", found.backend),
            ("looked at", f"{found.sessions} sessions, {found.events} events, {display.size(found.size_bytes)}"),
            ("in use by", live),
            ("found", "" if found.findings else "nothing: all is well"),
        ]
    )
    for finding in sorted(found.findings, key=lambda finding: finding.level):
        display.say(f"\n{finding.level}: {finding.what}\n  {finding.do}")
    return code


def _line(done: "Checkup") -> str:
    return f"{done.sessions} sessions, {done.events} events, {len(done.findings)} findings"
