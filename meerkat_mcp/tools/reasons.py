"""Why a tool server cannot be reached or did not answer, in words for people and models, without secrets."""

import re
from collections.abc import Callable
from typing import cast
from urllib.parse import quote

from mcp import MCPError
from pydantic import ValidationError

from meerkat_mcp.domain.servers import ToolServer

CHARS_MAX = 1_500
_SECRET_CHARS_MIN = 4  # anything shorter is no secret, and would be struck out of innocent words
_HEADER_CHARS_MIN = 8


class Secrets:
    """What a definition's references stand for, so that it can be struck out of whatever is shown."""

    def __init__(self, definition: ToolServer, lookup: Callable[[str], str | None]) -> None:
        known = {value: f"${{{name}}}" for name in definition.references if (value := lookup(name))}
        written = {value: f"[{name}]" for name, value in definition.headers.items() if len(value) >= _HEADER_CHARS_MIN}
        spelled = {quote(value, safe=""): name for value, name in known.items()}
        values = {value: name for value, name in (written | spelled | known).items() if len(value) >= _SECRET_CHARS_MIN}
        self._names = values
        longest_first = sorted(values, key=len, reverse=True)
        self._values = re.compile("|".join(map(re.escape, longest_first))) if values else None

    def strike(self, text: str) -> str:
        """The text with the name of each secret in place of its value."""
        return text if self._values is None else self._values.sub(lambda found: self._names[found[0]], text)

    def told(self, text: str) -> str:
        """The text as it may be shown: without secrets, and cut when it is long."""
        text = self.strike(text)
        return text if len(text) <= CHARS_MAX else f"{text[:CHARS_MAX]}…"


def reason(exc: BaseException) -> str:
    """What an exception means to somebody who only knows that there is a tool server. Secrets are still in it."""
    while isinstance(exc, BaseExceptionGroup):
        exc = cast("BaseExceptionGroup[BaseException]", exc).exceptions[0]
    match exc:
        case MCPError():
            return exc.message or f"it refused ({exc.code})"
        case ValidationError():
            return "it sent what the protocol does not allow"
        case FileNotFoundError():
            return f"there is no {exc.filename!r} to start"
        case PermissionError():
            return f"{exc.filename!r} may not be started"
        case OSError():
            return f"it cannot be started or reached ({exc.strerror or exc})"
        case other:
            return str(other) or type(other).__name__
