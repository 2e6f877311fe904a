"""`meerkat-mcp config`: read, replace and merge into a realm's config."""

from argparse import Namespace
from typing import Any

from meerkat_mcp.cli import display, values
from meerkat_mcp.domain.config import Config, parse
from meerkat_mcp.domain.errors import InvalidRequest, RealmNotFound
from meerkat_mcp.domain.layers import origins
from meerkat_mcp.realms import MANIFEST_NAME, Realm, open_realm, read_config, surroundings


async def get(args: Namespace) -> int:
    """Say the config; a realm that nobody made yet has the empty one."""
    chosen = values.choice(args)
    try:
        async with values.realm_to_look_at(args) as realm:
            current = await realm.store.config()
            document, where = current.document, {"generation": current.generation, **_where(realm)}
            if args.effective:
                effective = await realm.sessions.configuration.current()
                document = effective.config.model_dump(mode="json")
                told = {"layers": effective.origins, "environment": await surroundings(realm, effective.config)}
                where |= {"generation": effective.generation, **told}
    except RealmNotFound:
        if not values.unnamed(args, chosen.realm_id):
            raise
        file = read_config(chosen.config_file)
        document = parse(file).model_dump(mode="json") if args.effective else {}
        paths = {"realm": str(chosen.folder), "manifest": str(chosen.folder / MANIFEST_NAME)}
        where = {"generation": 0, "realm_id": chosen.realm_id, "resolved_paths": paths}
        where |= {"layers": origins(file, {})} if args.effective else {}
    shown = {"config": document, **where} if args.with_generation else document
    display.say(display.as_json(shown, indent=None if _as_json(args) else 2))
    return 0


async def set_(args: Namespace) -> int:
    """Replace the config: keys that are not there have their defaults."""
    return await _change(args, replace=True)


async def patch_(args: Namespace) -> int:
    """Merge into the config: null removes a key."""
    return await _change(args, replace=False)


async def _change(args: Namespace, *, replace: bool) -> int:
    document, expected = _document(args), args.expected_generation
    async with open_realm(values.choice(args), turns=False) as realm:
        change = realm.set_config if replace else realm.patch_config
        current = await change(document, expected_generation=expected)
        where = _where(realm)
    if _as_json(args):
        display.say_json({"config": current.document, "generation": current.generation, **where})
    else:
        display.say(f"The config of {where['realm_id']} is at generation {current.generation}.")
    return 0


def _document(args: Namespace) -> dict[str, Any]:
    if (args.document is None) == (args.file is None):
        raise InvalidRequest("Give one document: --json DOC, or a file.", hint=f"top-level keys: {_keys()}.")
    return values.json_object(args.document if args.file is None else f"@{args.file}", "--json")


def _keys() -> str:
    return ", ".join(sorted(Config.model_fields))


def _where(realm: Realm) -> dict[str, Any]:
    return {
        "realm_id": realm.id,
        "instance_id": realm.owner.instance_id,
        "backend": realm.manifest.backend,
        "resolved_paths": realm.paths,
    }


def _as_json(args: Namespace) -> bool:
    return args.json or args.format == "json"
