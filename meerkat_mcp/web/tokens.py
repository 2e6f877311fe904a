"""Static bearer tokens: from a variable, or from a file that is read anew when it changes.

One token a line: `TOKEN`, or `NAME TOKEN`, or `NAME TOKEN SCOPE SCOPE…`. Empty lines and lines that begin with `#` are
passed over. Several tokens are valid at once, the old one and the new one too, so that tokens can be changed while
clients are at work. Of a token only its SHA-256 is kept.
"""

import hashlib
import hmac
import logging
import os
import re
import stat
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

from starlette.routing import BaseRoute

from meerkat_mcp.domain.errors import InvalidRequest
from meerkat_mcp.server.callers import Caller
from meerkat_mcp.server.scopes import SCOPES, granted
from meerkat_mcp.web.auth import TOKEN68, TOKEN_CHARS_MAX

log = logging.getLogger(__name__)

TOKEN_CHARS_MIN = 16
FILE_BYTES_MAX = 1_000_000
UNNAMED = "token"
"""The principal of a token without a name."""

_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._@+-]{0,63}")
_MAKE_ONE = 'Make one: python -c "import secrets; print(secrets.token_urlsafe(32))"'
_FORMS = "A line is TOKEN, or NAME TOKEN, or NAME TOKEN SCOPE SCOPE…"
_SETTLED_NS = 2_000_000_000
"""A file changed less than this before it was read may change again without a new time: coarse clocks tick seldom."""


class Stamp(NamedTuple):
    """Tells one version of a file from another."""

    changed_ns: int
    size: int
    inode: int


@dataclass(frozen=True, slots=True)
class Token:
    """A token that is good: the SHA-256 of it, and whose it is."""

    digest: bytes
    caller: Caller


def parsed(text: str, source: str) -> tuple[Token, ...]:
    """The tokens in a text. Raises InvalidRequest, which names `source` and the line, never what stands on it."""
    tokens: dict[bytes, Token] = {}
    for number, line in enumerate(text.removeprefix("\ufeff").split("\n"), start=1):
        words = line.split()
        if not words or words[0].startswith("#"):
            continue
        token = _token(words, f"{source}, line {number}")
        if token.digest in tokens:
            raise InvalidRequest(f"{source}, line {number}: this token stands on an earlier line too.")
        tokens[token.digest] = token
    if not tokens:
        raise InvalidRequest(f"{source} holds no token.", hint=_MAKE_ONE)
    return tuple(tokens.values())


def _token(words: Sequence[str], where: str) -> Token:
    name, token = (UNNAMED, words[0]) if len(words) == 1 else words[:2]
    scopes = words[2:]
    if _NAME.fullmatch(name) is None:
        raise InvalidRequest(
            f"{where}: the name is not usable.", hint=f"Letters, digits and ._@+-, 64 at most. {_FORMS}."
        )
    if re.fullmatch(TOKEN68, token) is None or len(token) > TOKEN_CHARS_MAX:
        raise InvalidRequest(f"{where}: what should be the token cannot be one.", hint=f"{_FORMS}. {_MAKE_ONE}")
    if len(token) < TOKEN_CHARS_MIN:
        raise InvalidRequest(f"{where}: the token has less than {TOKEN_CHARS_MIN} characters.", hint=_MAKE_ONE)
    if unknown := sum(scope not in SCOPES for scope in scopes):
        raise InvalidRequest(
            f"{where}: {unknown} of its scopes {'is' if unknown == 1 else 'are'} unknown.",
            hint=f"Scopes are {', '.join(SCOPES)}.",
        )
    return Token(_fingerprint(token), Caller(principal=name, scopes=granted(scopes or SCOPES)))


class StaticTokens:
    """Knows its callers by tokens that `read` gives; `source` is what messages call their place.

    `stamp` says which version of the text there is, None when there is none (then nobody gets in). Without `stamp` the
    text is read once. Raises InvalidRequest when the text is not usable at the start; later the tokens of before stay.
    """

    def __init__(
        self, read: Callable[[], str], *, source: str = "The token", stamp: Callable[[], Stamp | None] | None = None
    ) -> None:
        self._read = read
        self._source = source
        self._stamp = stamp
        self._stamped: Stamp | None = self._settled(stamp()) if stamp is not None else None
        text = read()
        self._fingerprint: bytes | None = _fingerprint(text)
        self._tokens = parsed(text, source)

    async def authenticate(self, token: str) -> Caller | None:
        """Whose token it is. It is compared with all of them, however early it is found."""
        self._keep_up()
        digest = _fingerprint(token)
        caller: Caller | None = None
        for known in self._tokens:
            if hmac.compare_digest(known.digest, digest):
                caller = known.caller
        return caller

    def challenge(self) -> str:
        """Nothing: who has a token was given it by a person."""
        return ""

    def routes(self) -> Sequence[BaseRoute]:
        """None."""
        return ()

    def _keep_up(self) -> None:
        """Read the text anew if it changed. It costs one `stat` a request, and a short read just after a change."""
        if self._stamp is None:
            return
        stamp = self._stamp()
        if stamp is None:
            if self._tokens:
                log.warning("%s is gone. Nobody gets in until it is back.", self._source)
            self._tokens, self._stamped, self._fingerprint = (), None, None
        elif stamp != self._stamped:
            self._stamped = self._settled(stamp)
            self._take()

    def _take(self) -> None:
        try:
            text = self._read()
            fingerprint = _fingerprint(text)
            if fingerprint == self._fingerprint:
                return
            self._fingerprint = fingerprint
            self._tokens = parsed(text, self._source)
            log.info("%s was read anew: %d tokens.", self._source, len(self._tokens))
        except InvalidRequest as exc:
            log.warning("%s What was valid before stays valid.", exc.message)

    @staticmethod
    def _settled(stamp: Stamp | None) -> Stamp | None:
        """The stamp if it can be relied on; None: look again next time."""
        return stamp if stamp is not None and time.time_ns() - stamp.changed_ns > _SETTLED_NS else None


def token_file(path: Path) -> StaticTokens:
    """The tokens of a file. Raises InvalidRequest when there is none, or when it is not usable."""
    file = _File(path)
    return StaticTokens(file.read, source=file.name, stamp=file.stamp)


class _File:
    """A file with tokens in it: read whole, and not left open to others without a word."""

    def __init__(self, path: Path) -> None:
        self.name = f"The token file {path.name}"
        self._path = path
        self._open_to_others = False

    def stamp(self) -> Stamp | None:
        try:
            seen = self._path.stat()
        except OSError:
            return None
        return Stamp(seen.st_mtime_ns, seen.st_size, seen.st_ino)

    def read(self) -> str:
        """The text. Raises InvalidRequest."""
        try:
            seen = self._path.stat()
            if not stat.S_ISREG(seen.st_mode):
                raise InvalidRequest(f"{self.name} is no regular file.", hint="It is read again when it changes.")
            with self._path.open("rb") as file:
                content = file.read(FILE_BYTES_MAX + 1)
        except OSError as exc:
            raise InvalidRequest(f"{self.name} cannot be read: {exc.strerror}.", hint="See --token-file.") from None
        if len(content) > FILE_BYTES_MAX:
            raise InvalidRequest(f"{self.name} has more than {FILE_BYTES_MAX} bytes.", hint=_FORMS + ".")
        self._mind(seen.st_mode)
        try:
            return content.decode("utf-8")
        except UnicodeDecodeError:
            raise InvalidRequest(f"{self.name} is not UTF-8.", hint=_FORMS + ".") from None

    def _mind(self, mode: int) -> None:
        """Say it once when other users of this machine can read the file."""
        is_open = os.name == "posix" and bool(mode & 0o077)
        if is_open and not self._open_to_others:
            log.warning("%s can be read by other users of this machine. chmod 600 keeps it private.", self.name)
        self._open_to_others = is_open


def _fingerprint(text: str) -> bytes:
    return hashlib.sha256(text.encode(errors="replace")).digest()
