"""`meerkat-mcp realm`: which realms there are, and which one is meant here."""

import platform
from argparse import Namespace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from meerkat_mcp.cli import display, values
from meerkat_mcp.domain.version import VERSION

if TYPE_CHECKING:
    from meerkat_mcp.realms.census import Counted


async def listing(args: Namespace) -> int:
    """All of them; one that cannot be read is listed with why, and hides none of the others."""
    from meerkat_mcp.realms.census import census
    from meerkat_mcp.sessions.clock import SystemClock

    state_root = values.choice(args).state_root
    found = await census(state_root, SystemClock())
    if args.json:
        display.say_json({"state_root": str(state_root), "realms": [_row(one) for one in found]})
        return 0
    if not found:
        display.note(f"No realms in {state_root}.")
        return 0
    display.table(
        ("REALM", "BACKEND", "SESSIONS", "LAST USED", "SIZE", "IN USE"),
        [
            (
                one.realm_id,
                one.manifest.backend if one.manifest else "?",
                str(one.glance.sessions) if one.glance else "?",
                "?" if one.used_ms is None else display.ago(one.used_ms),
                display.size(one.size_bytes),
                one.trouble or ("yes" if one.glance and one.glance.live else _mark(one)),
            )
            for one in found
        ],
    )
    return 0


async def show(args: Namespace) -> int:
    """One realm: its manifest, config generation, and how its store works on this machine."""
    if args.realm_id is not None:
        args.realm, args.isolated = args.realm_id, False
    async with values.realm_to_look_at(args) as realm:
        manifest, config = realm.manifest, await realm.store.config()
        view: dict[str, Any] = {
            **manifest.model_dump(),
            "config_generation": config.generation,
            "mechanisms": realm.mechanisms,
            "warnings": list(realm.warnings),
            "resolved_paths": realm.paths,
        }
    if args.json:
        display.say_json(view)
        return 0
    display.facts(
        [
            ("realm", manifest.realm_id),
            ("backend", manifest.backend),
            ("made", f"{display.moment(manifest.created_ms)} ({display.ago(manifest.created_ms)})"),
            ("config", f"generation {config.generation}"),
            ("store", ", ".join(f"{name} {value}" for name, value in view["mechanisms"].items())),
            ("folder", view["resolved_paths"]["realm"]),
        ]
    )
    for warning in view["warnings"]:
        display.note(f"warning: {warning}")
    return 0


def current(args: Namespace) -> int:
    """The realm that commands use here."""
    chosen = values.choice(args)
    workspace = str(Path(args.context_root or values.here()).resolve())
    why = f"the folder {workspace}"
    if args.realm is not None:
        why = "--realm"
    elif args.isolated:
        why = "--isolated: a new one each time"
    elif not chosen.realm_id.startswith("ws-"):
        why = "MEERKAT_REALM"
    exists = chosen.folder.exists()
    if args.json:
        view = {"realm_id": chosen.realm_id, "why": why, "exists": exists, "state_root": str(chosen.state_root)}
        display.say_json(view)
    else:
        made = "yes" if exists else "not yet: the first session makes it"
        display.facts(
            [("realm", chosen.realm_id), ("because of", why), ("exists", made), ("state root", str(chosen.state_root))]
        )
    return 0


def version(args: Namespace) -> int:
    """Which program this is."""
    if args.json:
        display.say_json({"version": VERSION, "python": platform.python_version()})
    else:
        display.say(f"meerkat-mcp {VERSION}")
    return 0


def _row(one: "Counted") -> dict[str, Any]:
    if one.manifest is None:
        return {"realm_id": one.realm_id, "size_bytes": one.size_bytes, "error": one.trouble}
    row = {**one.manifest.model_dump(), "size_bytes": one.size_bytes, "used_ms": one.used_ms}
    if one.glance is None:
        return row | {"error": one.trouble}
    return row | {"sessions": one.glance.sessions, "live": list(one.glance.live)}


def _mark(one: "Counted") -> str:
    unfinished = one.manifest and one.manifest.unfinished
    return {"copy": "a copy that is not whole", "deletion": "is being deleted"}.get(unfinished or "", "no")
