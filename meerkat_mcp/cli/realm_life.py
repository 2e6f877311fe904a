"""`meerkat-mcp realm create`, `delete` and `prune`."""

import sys
from argparse import Namespace
from typing import TYPE_CHECKING

import anyio

from meerkat_mcp.cli import display, exits, values
from meerkat_mcp.domain.errors import InvalidRequest, RealmConflict

if TYPE_CHECKING:
    from meerkat_mcp.realms import RealmChoice
    from meerkat_mcp.realms.removal import Pruning, Removed


async def create(args: Namespace) -> int:
    """Make a realm, and whatever its backend needs, so that what is wrong shows now."""
    from meerkat_mcp.realms import open_realm
    from meerkat_mcp.realms.manifest import found

    chosen = named(args, args.realm_id)
    if not args.exist_ok and found(chosen) is not None:
        raise RealmConflict(
            f"There is a realm {chosen.realm_id!r} already.", hint="Choose another name; or say --exist-ok."
        )
    async with open_realm(chosen, turns=False) as realm:
        view = realm.manifest.model_dump(exclude_none=True)
    if args.json:
        display.say_json(view)
    else:
        display.say(f"{chosen.realm_id}  is there, on {view['backend']}.")
    return 0


async def delete(args: Namespace) -> int:
    """Remove a realm, after a yes."""
    from meerkat_mcp.realms.census import counted
    from meerkat_mcp.realms.manifest import found, unknown_realm
    from meerkat_mcp.realms.removal import removed, require_unused
    from meerkat_mcp.sessions.clock import SystemClock

    chosen, clock = named(args, args.realm_id), SystemClock()
    if (manifest := found(chosen)) is None:
        raise unknown_realm(chosen.realm_id)
    if not args.only_here:
        await require_unused(manifest, chosen, clock)
    if not args.yes:
        one = await counted(manifest, chosen.state_root, clock)
        sessions = "?" if one.glance is None else one.glance.sessions
        size = display.size(one.size_bytes)
        display.note(f"{chosen.realm_id}: {sessions} sessions on {manifest.backend}, {size} in its folder.")
        if not await _agreed("Delete all of it for good?"):
            display.note("Nothing was deleted.")
            return 0
    return _told(args, [await removed(chosen, clock, only_here=args.only_here)])


async def prune(args: Namespace) -> int:
    """Say which realms nobody has used for long; remove them when that was agreed to."""
    from meerkat_mcp.realms.removal import pruning, removed
    from meerkat_mcp.sessions.clock import SystemClock

    clock, state_root = SystemClock(), values.choice(args).state_root
    plan = await pruning(state_root, clock, unused_days=args.unused_for)
    if args.plan is not None:
        plan.check(args.plan)
    if args.plan is None and not args.yes:
        _say_plan(args, plan)
        return 0
    return _told(args, [await removed(named(args, one.realm_id), clock) for one in plan.going])


def named(args: Namespace, realm_id: str) -> "RealmChoice":
    """The realm of that name, with the flags that were said."""
    from meerkat_mcp.realms import choose

    if args.isolated:
        raise InvalidRequest("--isolated makes a realm that has no name yet.", hint="Leave it out.")
    return choose(
        realm_id,
        instance_id=args.instance,
        backend=args.realm_backend,
        dsn_env=args.realm_dsn_env,
        state_root=args.state_root,
    )


def _say_plan(args: Namespace, plan: "Pruning") -> None:
    if args.json:
        going = [
            {"realm_id": one.realm_id, "used_ms": one.used_ms, "sessions": one.glance and one.glance.sessions}
            for one in plan.going
        ]
        unknown = [{"realm_id": one.realm_id, "error": one.trouble} for one in plan.unknown]
        display.say_json({"plan_id": plan.plan_id, "realms": going, "unknown": unknown})
        return
    for one in plan.unknown:
        display.note(f"{one.realm_id} stays: {one.trouble}")
    if not plan.going:
        display.note("No realm has been unused for so long.")
        return
    display.table(
        ("REALM", "SESSIONS", "LAST USED", "SIZE"),
        [
            (one.realm_id, str(one.glance.sessions), display.ago(one.used_ms), display.size(one.size_bytes))
            for one in plan.going
            if one.glance is not None and one.used_ms is not None
        ],
    )
    display.note(f"Nothing was deleted. To delete exactly these: --plan {plan.plan_id}")


def _told(args: Namespace, gone: "list[Removed]") -> int:
    if args.json:
        view = [{"realm_id": one.realm_id, "files": one.files, "left": list(one.left)} for one in gone]
        display.say_json({"deleted": view})
    else:
        for one in gone:
            display.say(f"{one.realm_id}  deleted.")
            if one.left:
                display.note(f"Its folder stays, for what is not the realm's: {', '.join(one.left[:10])}")
    return exits.UNFINISHED if any(one.left for one in gone) else 0


async def _agreed(question: str) -> bool:
    if not sys.stdin.isatty():
        raise InvalidRequest("Deleting asks first, and stdin is no terminal.", hint="say --yes.")
    display.note(f"{question} [y/N] ", end="")
    return (await anyio.to_thread.run_sync(sys.stdin.readline)).strip().lower() in ("y", "yes")
