"""`meerkat-mcp realm tidy` and `session prune`: keep a realm small, now."""

from argparse import Namespace
from dataclasses import asdict

from meerkat_mcp.cli import display, values
from meerkat_mcp.domain.plans import SHOWN_MAX, Plan
from meerkat_mcp.sessions.clock import DAY_MS
from meerkat_mcp.sessions.retention import Retention


async def tidy(args: Namespace) -> int:
    """Take away what the realm's config says, without waiting for a server to do it; dry, only say what."""
    async with values.realm_to_look_at(args) as realm:
        done = await Retention(realm.sessions, realm.shelf, realm.owner).tidy(dry_run=args.dry_run)
    if args.json:
        display.say_json({"realm_id": realm.id, "dry_run": args.dry_run, **asdict(done)})
    else:
        display.say(f"{'Would take away' if args.dry_run else 'Took away'}: {done}.")
    return 0


async def prune(args: Namespace) -> int:
    """Delete archived sessions without activity for so long: first say which, then those of that plan."""
    async with values.realm_to_look_at(args) as realm:
        before_ms = realm.journal.clock.now_ms() - args.archived_before * DAY_MS
        doomed = await realm.shelf.archived_before(before_ms)
        plan = Plan(realm_id=realm.id, session_ids=tuple(session.id for session in doomed))
        if args.plan is not None:
            plan.check(args.plan)
        does = args.yes or args.plan is not None
        if does:
            await realm.shelf.delete(*plan.session_ids, archived_only=True)
    if args.json:
        shown = {"session_ids": plan.session_ids[:SHOWN_MAX], "total": len(plan.session_ids), "plan_id": plan.plan_id}
        display.say_json({"deleted": does, **shown})
        return 0
    if does or not doomed:
        display.say(f"{len(doomed)} archived sessions deleted." if doomed else "No such archived sessions.")
        return 0
    display.table(
        ("SESSION", "ACTIVE", "TITLE"),
        [
            (session.id, display.ago(session.updated_ms), display.clipped(session.name, 50))
            for session in doomed[:SHOWN_MAX]
        ],
    )
    if len(doomed) > SHOWN_MAX:
        display.note(f"and {len(doomed) - SHOWN_MAX} more")
    display.note(f"Nothing was deleted. To delete these {len(doomed)} for good, say: --plan {plan.plan_id}")
    return 0
