"""Whether a query finds a session by its messages, where no index of words is kept: its file is read, line by line.

In memory is one line at a time. What is found early is not read to its end.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Any, cast

from pydantic import ValidationError
from pydantic_core import from_json

from meerkat_mcp.domain.messages import JsonObject
from meerkat_mcp.domain.recorded import Recorded
from meerkat_mcp.stores.searching import SEARCHED, beginnings, begun_in, said, spelled


def was_said(path: Path, query: str) -> bool:
    """Whether one message of the session's file has all words of the query; what cannot be read has none. It blocks."""
    if not (wanted := beginnings(query)):
        return False
    plain = [word.strip().encode() for word in wanted if word.isascii()]
    try:
        with path.open("rb", 1 << 16) as file:
            return any(_says(line, wanted) for line in file if _may_say(line, plain))
    except OSError:
        return False


def _may_say(line: bytes, plain: Sequence[bytes]) -> bool:
    """False where it is certain that the line does not have these words, which takes no parsing.

    In a line with letters beyond ASCII it is not: some of them become ASCII when case is set aside.
    """
    if not line.isascii():
        return True
    lower = line.lower()
    return all(word in lower for word in plain)


def _says(line: bytes, wanted: tuple[str, ...]) -> bool:
    try:
        parsed: Any = from_json(line)
        kind: Any = cast(JsonObject, parsed).get("type") if isinstance(parsed, dict) else None
        if kind not in SEARCHED:
            return False
        return begun_in(wanted, spelled(said(Recorded(0, kind, line))))
    except (ValueError, ValidationError):
        return False
