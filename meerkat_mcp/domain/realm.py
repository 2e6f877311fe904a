"""What a realm is: its id, the manifest that pins its backend, and who is alive in it."""

import re
from typing import Literal, get_args

from meerkat_mcp.domain.errors import BackendMismatch, InvalidRequest
from meerkat_mcp.domain.messages import Value

Backend = Literal["sqlite", "postgres", "jsonl", "memory"]
BACKENDS: tuple[str, ...] = get_args(Backend)

REALM_ID_CHARS_MAX = 64
INSTANCE_ID_CHARS_MAX = 64
MANIFEST_VERSION = 1

_ID = re.compile(r"[A-Za-z0-9][A-Za-z0-9_-]*")
_UUID = re.compile(r"[0-9a-f]{8}-?[0-9a-f]{4}-?[0-9a-f]{4}-?[0-9a-f]{4}-?[0-9a-f]{12}", re.IGNORECASE)

_ELSEWHERE = {
    "redb": "redb is a store of the Rust Meerkat; use sqlite, which also lets several processes share a realm.",
}


class Manifest(Value):
    """What a realm was born with, for good. `dsn_env` names the variable that says where its database is.

    While a copy is made or the realm is deleted, `unfinished` says so: nobody opens it then.
    """

    version: int = MANIFEST_VERSION
    realm_id: str
    backend: Backend
    created_ms: int
    dsn_env: str | None = None
    unfinished: Literal["copy", "deletion"] | None = None


class Instance(Value):
    """One running process on a realm. `expires_ms` is when its lease ends if it is not renewed."""

    instance_id: str
    incarnation: str
    host: str
    pid: int
    expires_ms: int


def checked_id(text: str, what: str = "realm") -> str:
    """The id, if it is one: 1 to 64 of `[A-Za-z0-9_-]`, first a letter or digit, and no UUID.

    A UUID is refused because `realm:session` would be easily mistaken, and because a new one each time is
    what a server without `--realm` makes by itself.

    Raises:
        InvalidRequest: it is none; the message says what is wrong.
    """
    if not text or len(text) > REALM_ID_CHARS_MAX or not _ID.fullmatch(text):
        raise InvalidRequest(
            f"{text[:80]!r} is no {what} id.",
            hint=f"Use 1 to {REALM_ID_CHARS_MAX} of the characters A-Z a-z 0-9 _ -, beginning with a letter or digit.",
        )
    if what == "realm" and _UUID.fullmatch(text):
        raise InvalidRequest(f"{text!r} is a UUID, not a realm id.", hint="Give the realm a name, e.g. team-alpha.")
    return text


def checked_backend(name: str) -> Backend:
    """The backend of that name.

    Raises:
        InvalidRequest: there is none; the hint says what to use.
    """
    for backend in get_args(Backend):
        if name == backend:
            return backend
    hint = _ELSEWHERE.get(name, f"Choose one of: {', '.join(BACKENDS)}.")
    raise InvalidRequest(f"There is no backend {name[:80]!r}.", hint=hint)


def check_pin(manifest: Manifest, asked: Backend | None) -> None:
    """A realm keeps its backend.

    Raises:
        BackendMismatch: another one was asked for.
    """
    if asked is not None and asked != manifest.backend:
        raise BackendMismatch(
            f"Realm {manifest.realm_id!r} is pinned to {manifest.backend}, not {asked}.",
            hint=f"Leave out --realm-backend, or use another realm for {asked}.",
            pinned=manifest.backend,
            asked=asked,
        )
