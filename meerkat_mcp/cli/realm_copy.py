"""`meerkat-mcp realm copy` and `backup`."""

import sys
import time
from argparse import Namespace
from collections.abc import Callable
from dataclasses import asdict, replace
from typing import TYPE_CHECKING

from meerkat_mcp.cli import display
from meerkat_mcp.cli.realm_life import named

if TYPE_CHECKING:
    from meerkat_mcp.realms import RealmChoice
    from meerkat_mcp.realms.copying import Progress

TELL_INTERVAL_S = 2.0


async def copy(args: Namespace) -> int:
    """Copy a realm into another one, and verify it."""
    return await _copied(args, args.to_realm_id, args.to_state_root, args.to_backend, args.to_dsn_env)


async def backup(args: Namespace) -> int:
    """Copy a realm into another folder."""
    args.as_it_is = False
    return await _copied(args, args.realm_id, args.folder, args.to_backend, None)


async def _copied(
    args: Namespace, realm_id: str, state_root: str | None, backend: str | None, dsn_env: str | None
) -> int:
    from meerkat_mcp.realms import choose
    from meerkat_mcp.realms.copying import copied
    from meerkat_mcp.sessions.clock import SystemClock

    source = named(args, args.realm_id)
    target = choose(realm_id, backend=backend, dsn_env=dsn_env, state_root=state_root or source.state_root)
    if args.command == "realm_copy:backup":
        target = _for_backup(target)
    done = await copied(source, target, SystemClock(), as_it_is=args.as_it_is, mirror=args.mirror, tell=progress(_line))
    if args.json:
        display.say_json({"realm_id": target.realm_id, "state_root": str(target.state_root), **asdict(done)})
        return 0
    display.say(
        f"{target.realm_id}  is a whole copy of {source.realm_id}: {done.sessions} sessions, {done.events} events, "
        f"every one compared; {done.new_events} were new."
    )
    if left := done.only_here - done.removed:
        display.note(f"{left} sessions are only in the copy: the source has them no more. --mirror deletes them.")
    return 0


def progress(line: Callable[..., str]) -> Callable[..., None]:
    """Says on stderr how far it is, when that takes long."""
    told_s = time.monotonic()

    def tell(done: object) -> None:
        nonlocal told_s
        if time.monotonic() - told_s > TELL_INTERVAL_S:
            told_s = time.monotonic()
            sys.stderr.write(line(done) + "\n")
            sys.stderr.flush()

    return tell


def _line(done: "Progress") -> str:
    return f"{done.sessions} of {done.total} sessions, {done.events} events compared, {done.new_events} of them new"


def _for_backup(target: "RealmChoice") -> "RealmChoice":

    from meerkat_mcp.realms.manifest import found

    if found(target) is None:
        return replace(target, backend=target.backend or "sqlite")
    return target
