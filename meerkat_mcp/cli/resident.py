"""`serve --shared`: one server for all hosts of a realm; and `meerkat-mcp resident`, to look at it and to end it."""

import logging
import os
import threading
import time
from argparse import Namespace
from collections.abc import Awaitable
from typing import TYPE_CHECKING

from meerkat_mcp.cli import display, exits, http, values
from meerkat_mcp.cli.serve import serve as serve_alone
from meerkat_mcp.domain.errors import InvalidRequest, StoreUnavailable
from meerkat_mcp.shared import address, hello
from meerkat_mcp.shared.flags import VALUED, Wanted

if TYPE_CHECKING:
    from meerkat_mcp.realms import Realm

IDLE_EXIT_S = 600
LEAVE_S = 3.0
"""From the turns' end on: the store closes; whatever hangs then is left to the next process."""
STOP_WAIT_S = 20.0
_LOOK_INTERVAL_S = 0.02

log = logging.getLogger(__name__)


def through(args: Namespace) -> int | Awaitable[int]:
    """Be the proxy of a host. The usual flags never come here: `cli` knows them without this grammar.

    Raises:
        InvalidRequest: flags that do not go with `--shared`.
    """
    http.given(args)
    if args.http:
        raise InvalidRequest(
            "--shared is for hosts on stdin and stdout.", hint="A server with --http has many callers anyway."
        )
    if args.isolated:
        raise InvalidRequest("An isolated realm cannot be shared.", hint="Leave out --isolated or --shared.")
    args.context_root = args.context_root or str(values.here())
    if not address.available():
        display.note("--shared needs Unix sockets, which this platform has not: this process serves the realm itself.")
        return serve_alone(args)
    from meerkat_mcp.shared import proxy

    return proxy.run(_wanted(args))


async def serve(args: Namespace) -> int:
    """Be the resident server. Proxies start it."""
    from meerkat_mcp.realms import choose, open_realm
    from meerkat_mcp.shared.logfile import LogFile
    from meerkat_mcp.shared.place import Place
    from meerkat_mcp.shared.resident import Resident
    from meerkat_mcp.shared.starting import READY

    chosen = choose(
        args.realm,
        instance_id=args.instance,
        backend=args.realm_backend,
        dsn_env=args.realm_dsn_env,
        state_root=args.state_root,
        workspace=args.context_root or values.here(),
        permission_ceiling=args.permission_ceiling,
        config_file=args.config,
    )
    try:
        place = Place(_wanted(args).socket_path)
    except address.NoPlace as exc:
        raise StoreUnavailable(str(exc)) from None
    async with open_realm(chosen, serves=True) as realm:
        log_file = LogFile(realm.folder)
        log_file.open()
        resident = Resident(realm, place, log_file, idle_exit_s=args.idle_exit or IDLE_EXIT_S)
        exits.settle_in()

        def ready() -> None:
            _warn(realm)
            os.write(1, READY)
            log_file.open(stdout=True)

        await resident.serve(ready)
        timer = threading.Timer(LEAVE_S, exits.leave_at_once, (0,))
        timer.daemon = True
        timer.start()
    return 0


def status(args: Namespace) -> int:
    """Say which resident servers the realm has."""
    try:
        found = hello.residents_of(_folder(args))
    except (hello.Refused, address.NoPlace) as exc:
        raise StoreUnavailable(str(exc)) from None
    if args.json:
        display.say_json({"residents": found})
    elif not found:
        display.note("This realm has no resident server.")
    for one in [] if args.json else found:
        display.facts(
            [
                ("realm", str(one["realm_id"])),
                ("process", str(one["pid"])),
                ("version", str(one["version"])),
                ("started", display.ago(int(str(one["started_ms"])))),
                ("hosts", str(one["hosts"])),
                ("turns", str(one["running_turns"])),
                ("ceiling", str(one["permission_ceiling"] or "")),
            ]
        )
    return 0


def stop(args: Namespace) -> int:
    """End them; their turns are taken up by whoever serves the realm next."""
    from meerkat_mcp.shared.place import lock_of
    from meerkat_mcp.stores.filelock import is_held

    try:
        paths = address.socket_paths(_folder(args)) if address.available() else []
        stopped = [path for path in paths if hello.ask_once(path, "stop") is not None]
    except (hello.Refused, address.NoPlace) as exc:
        raise StoreUnavailable(str(exc)) from None
    until = time.monotonic() + STOP_WAIT_S
    while any(is_held(lock_of(path)) for path in stopped):
        if time.monotonic() > until:
            raise StoreUnavailable("The resident server does not end.", hint="meerkat-mcp resident status shows it.")
        time.sleep(_LOOK_INTERVAL_S)
    if args.json:
        display.say_json({"stopped": len(stopped)})
    else:
        display.note(f"{len(stopped)} ended." if stopped else "This realm has no resident server.")
    return 0


def _folder(args: Namespace) -> str:
    return str(values.choice(args).folder)


def _wanted(args: Namespace) -> Wanted:
    wanted = Wanted()
    for name in VALUED.values():
        value = getattr(args, name)
        setattr(wanted, name, None if value is None else str(value))
    wanted.trust_caller, wanted.expose_paths = args.trust_caller, args.expose_paths
    return wanted


def _warn(realm: "Realm") -> None:
    for warning in realm.warnings:
        log.warning("%s", warning)
