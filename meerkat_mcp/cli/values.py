"""What flags mean: references, pairs, documents, and which realm."""

import json
import re
import sys
from argparse import ArgumentTypeError, Namespace
from collections.abc import AsyncGenerator, Callable, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

from meerkat_mcp.domain.errors import InvalidRequest, RealmNotFound

if TYPE_CHECKING:
    from meerkat_mcp.realms import Realm, RealmChoice

LAST = "last"
FILE_BYTES_MAX = 16 * 1024 * 1024
_REFERENCE = re.compile(r"(?:[a-z0-9][a-z0-9_-]{0,63}:)?(?:last|~[0-9]{1,6}|[0-9a-f][0-9a-f-]{3,35})", re.IGNORECASE)


def is_reference(text: str) -> bool:
    """Whether this looks like a session's name rather than like something to say."""
    return _REFERENCE.fullmatch(text.strip()) is not None


def between(least: int, most: int) -> Callable[[str], int]:
    """A type of argument: a whole number within bounds."""

    def number(text: str) -> int:
        if not re.fullmatch(r"[0-9]{1,16}", text) or not least <= int(text) <= most:
            raise ArgumentTypeError(f"{text[:40]!r} is no number from {least} to {most}")
        return int(text)

    return number


def pairs(said: Sequence[str], flag: str) -> dict[str, str]:
    """`k=v`, several times. Raises InvalidRequest."""
    found: dict[str, str] = {}
    for pair in said:
        key, equals, value = pair.partition("=")
        if not equals or not key:
            raise InvalidRequest(f"{flag} {pair[:80]!r} is not KEY=VALUE.")
        found[key] = value
    return found


def json_pairs(said: Sequence[str], flag: str) -> dict[str, Any]:
    """`k=v`, where a value that reads as JSON is that. Raises InvalidRequest."""
    return {key: _as_json_or_text(value) for key, value in pairs(said, flag).items()}


def document(said: str, flag: str) -> Any:
    """JSON as it was typed, or from `@FILE`, a file's name, or stdin for `-`. Raises InvalidRequest."""
    text, whence = said, flag
    if said == "-":
        text, whence = stdin_text(), "stdin"
    elif said.startswith("@"):
        text, whence = file_text(said[1:]), said[1:]
    elif not said.lstrip().startswith(("{", "[")):
        text, whence = file_text(said), said
    try:
        return json.loads(text)
    except (ValueError, RecursionError) as exc:
        raise InvalidRequest(f"{whence} holds no JSON: {exc}.") from None


def json_object(said: str, flag: str) -> dict[str, Any]:
    """A document that is an object. Raises InvalidRequest."""
    value = document(said, flag)
    if not isinstance(value, dict):
        raise InvalidRequest(f"{flag} takes a JSON object, not {type(value).__name__}.")
    return cast(dict[str, Any], value)


def file_text(name: str) -> str:
    """A text file. Raises InvalidRequest."""
    try:
        with Path(name).expanduser().open(encoding="utf-8-sig") as file:
            text = file.read(FILE_BYTES_MAX + 1)
    except (OSError, ValueError) as exc:
        why = exc.strerror if isinstance(exc, OSError) else "it is not UTF-8 text"
        raise InvalidRequest(f"{name[:200]} cannot be read: {why}.") from None
    if len(text) > FILE_BYTES_MAX:
        raise InvalidRequest(f"{name[:200]} is too large.")
    return text


def stdin_text() -> str:
    """All of stdin, as UTF-8. Raises InvalidRequest."""
    try:
        return sys.stdin.buffer.read(FILE_BYTES_MAX).decode("utf-8-sig")
    except UnicodeDecodeError:
        raise InvalidRequest("stdin is not UTF-8 text.") from None


def well_formed(text: str) -> str:
    """The text without what was no UTF-8 where it was typed."""
    return text.encode("utf-8", "replace").decode()


def choice(args: Namespace, reference: str | None = None) -> "RealmChoice":
    """The realm that a command means: the one named, the one of its reference, or that of the folder."""
    from meerkat_mcp.realms import choose

    realm_id: str | None = args.realm
    if realm_id is None and not args.isolated and reference and ":" in reference:
        realm_id = reference.rpartition(":")[0]
    return choose(
        realm_id,
        isolated=args.isolated,
        instance_id=args.instance,
        backend=args.realm_backend,
        dsn_env=args.realm_dsn_env,
        state_root=args.state_root,
        workspace=args.context_root or ("." if realm_id else here()),
        permission_ceiling=args.permission_ceiling,
        config_file=args.config,
    )


def here() -> Path:
    """The folder one is in. Raises InvalidRequest."""
    try:
        return Path.cwd()
    except OSError:
        raise InvalidRequest("The current folder is gone.", hint="name a realm with --realm.") from None


def unnamed(args: Namespace, realm_id: str) -> bool:
    """Whether nobody named the realm: it is the folder's, which may not have one yet."""
    return args.realm is None and realm_id.startswith("ws-")


@asynccontextmanager
async def realm_to_look_at(args: Namespace, reference: str | None = None) -> "AsyncGenerator[Realm]":
    """The realm, opened to look only. Raises RealmNotFound, and creates nothing."""
    from meerkat_mcp.realms import open_realm

    chosen = choice(args, reference)
    if unnamed(args, chosen.realm_id) and not chosen.folder.exists():
        raise RealmNotFound(
            "No session was started in this folder yet.",
            hint='start one with: meerkat-mcp run "…"; or name a realm with --realm.',
        )
    async with open_realm(chosen, turns=False, must_exist=True) as realm:
        yield realm


def same_place(args: Namespace, realm: "Realm") -> str:
    """The flags that lead to the same realm again, for a command to type."""
    named = [
        ("--realm", None if unnamed(args, realm.id) else realm.id),
        ("--state-root", args.state_root),
        ("--context-root", args.context_root),
        ("--config", args.config),
    ]
    return "".join(f" {flag} {_quoted(str(value))}" for flag, value in named if value is not None)


def _quoted(text: str) -> str:
    return text if re.fullmatch(r"[\w@%+=:,./\\-]+", text) else json.dumps(text, ensure_ascii=False)


def _as_json_or_text(text: str) -> Any:
    try:
        return json.loads(text)
    except (ValueError, RecursionError):
        return text
