"""Where the config comes from: defaults, over them an operator's file, over that the realm's document.

The file says what holds for one machine, the realm what holds wherever the realm is opened. Each has to stand by
itself, so that a realm is not broken where there is no such file.
"""

from collections.abc import Iterator
from typing import Any, Literal, TypeAlias, cast

from meerkat_mcp.domain.config import merge
from meerkat_mcp.domain.messages import JsonObject

Layer: TypeAlias = Literal["file", "realm", "process"]

_NAMED = ("self_hosted", "mcp_servers")


def layered(file: JsonObject, realm: JsonObject) -> JsonObject:
    """The realm's document over the file's, key by key (RFC 7396: null gives the default back).

    A server that both name is the realm's: half of one definition and half of another would be neither's.
    """
    merged: JsonObject = merge(file, realm)
    for section in _NAMED:
        if realm.get(section):
            merged[section] = merged[section] | realm[section]
    return merged


def origins(file: JsonObject, realm: JsonObject) -> dict[str, Layer]:
    """Each key that one of them sets, with the one that holds."""
    found: dict[str, Layer] = dict.fromkeys(_keys(file), "file")
    for key in _keys(realm):
        found = {known: layer for known, layer in found.items() if not f"{known}.".startswith(f"{key}.")}
        found[key] = "realm"
    return dict(sorted(found.items()))


def _keys(document: JsonObject, *path: str) -> Iterator[str]:
    for key, value in document.items():
        here = (*path, key)
        named = len(here) == 2 and here[0] in _NAMED
        if isinstance(value, dict) and not named:
            yield from _keys(cast(dict[str, Any], value), *here)
        else:
            yield ".".join(here)
