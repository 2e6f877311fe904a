"""`meerkat-mcp serve` and `rkat-mcp`: the MCP server of one realm, on stdin and stdout or over HTTP."""

import logging
import sys
import threading
from argparse import Namespace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from meerkat_mcp.cli import display, exits, http
from meerkat_mcp.domain.version import VERSION

if TYPE_CHECKING:
    from meerkat_mcp.realms import Realm, RealmChoice

HAND_OVER_S = 0.8
"""For turns to come to the end of their step, after the connection has ended."""
LEAVE_S = 1.4
"""From the connection's end on: turns end, the store closes; whatever hangs then is left to the next process."""

log = logging.getLogger(__name__)


async def serve(args: Namespace) -> int:
    """Serve until stdin ends or a signal comes."""
    said = http.given(args)
    if args.http:
        return await _serve_http(args, said)
    from meerkat_mcp.realms import open_realm
    from meerkat_mcp.server.app import build_server
    from meerkat_mcp.server.stdio import serve_stdio

    chosen = _choice(args, workspace=args.context_root)
    if sys.stdin.isatty():
        display.note(
            "This speaks MCP (JSON-RPC) on stdin and stdout: an MCP host should start it.\n"
            "To see what it does: meerkat-mcp tour. To leave: Ctrl-D."
        )
    async with open_realm(chosen, serves=True) as realm:
        server = build_server(realm, trust_caller=args.trust_caller, expose_paths=args.expose_paths)
        exits.settle_in()
        await serve_stdio(server, on_ready=lambda: _started(realm, chosen, args))
        _leave_soon()
        await realm.turns.end(HAND_OVER_S)
    return 0


async def _serve_http(args: Namespace, said: dict[str, Any]) -> int:
    """A server that people start stays with one realm: that of the folder, as the other commands do."""
    from meerkat_mcp.realms import open_realm

    options = http.chosen(said)
    options.check()
    chosen = _choice(args, workspace=args.context_root or Path.cwd())
    async with open_realm(chosen, serves=True) as realm:

        def started(where: str) -> None:
            http.say_started(realm, where, said)
            _warn(realm)

        await http.serve(realm, args, options, started)
        _leave_soon()
    return 0


def _choice(args: Namespace, workspace: str | Path | None) -> "RealmChoice":
    from meerkat_mcp.realms import choose

    return choose(
        args.realm,
        isolated=args.isolated,
        instance_id=args.instance,
        backend=args.realm_backend,
        dsn_env=args.realm_dsn_env,
        state_root=args.state_root,
        workspace=workspace,
        permission_ceiling=args.permission_ceiling,
        config_file=args.config,
    )


def _started(realm: "Realm", chosen: "RealmChoice", args: Namespace) -> None:
    keep = f"; it is new, keep it with: --realm {realm.id}" if chosen.generated else ""
    where = f" in {realm.folder}" if args.expose_paths else ""
    trust = "; it trusts its caller" if args.trust_caller else ""
    sys.stderr.write(
        f"meerkat-mcp {VERSION}: serving realm {realm.id} ({realm.manifest.backend}){where}{trust}{keep}\n"
    )
    sys.stderr.flush()
    _warn(realm)


def _warn(realm: "Realm") -> None:
    for warning in realm.warnings:
        log.warning("%s", warning)


def _leave_soon() -> None:
    """End the process in a second even if something does not let go: hosts kill what takes longer."""
    timer = threading.Timer(LEAVE_S, exits.leave_at_once, (0,))
    timer.daemon = True
    timer.start()
