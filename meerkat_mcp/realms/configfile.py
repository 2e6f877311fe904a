"""An operator's config file: what holds on this machine where a realm's own config says nothing.

It is read when a realm is opened and again when it has changed, which is looked at once a second at most and beside
the event loop. A file that went bad is told of once, and what it said before holds on.
"""

import json
import logging
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, cast

import anyio.to_thread

from meerkat_mcp.domain.config import parse
from meerkat_mcp.domain.errors import InvalidRequest, LimitExceeded
from meerkat_mcp.domain.messages import JsonObject
from meerkat_mcp.sessions.configuration import FileLayer

LOOK_INTERVAL_S = 1.0
FILE_BYTES_MAX = 1024 * 1024

log = logging.getLogger(__name__)

_Signature = tuple[int, int, int]


class ConfigFile:
    """The file, open for as long as its realm is."""

    def __init__(self, path: Path) -> None:
        """Raises InvalidRequest: it cannot be read, or says what no config says."""
        self.path = path
        self._signature = _signature(path)
        self._layer = FileLayer(1, read_config(path))
        self._looked_s = time.monotonic()

    async def read(self, check: Callable[[JsonObject], object]) -> FileLayer:
        """See `ConfigSource`."""
        now_s = time.monotonic()
        if now_s - self._looked_s >= LOOK_INTERVAL_S:
            self._looked_s = now_s
            await self._look(check)
        return self._layer

    async def _look(self, check: Callable[[JsonObject], object]) -> None:
        signature = await anyio.to_thread.run_sync(_signature, self.path)
        if signature == self._signature:
            return
        self._signature = signature
        try:
            document = await anyio.to_thread.run_sync(read_config, self.path)
            check(document)
        except (InvalidRequest, LimitExceeded) as exc:
            log.warning("What the config file said before holds on. %s", exc.message)
        else:
            self._layer = FileLayer(self._layer.version + 1, document)
            log.info("The config file was read again.")


def read_config(path: Path | None) -> JsonObject:
    """The document in a file, checked; the empty one without a file. Raises InvalidRequest: it names file and key."""
    if path is None:
        return {}
    try:
        document = _document(path)
        parse(document)
    except (InvalidRequest, LimitExceeded) as exc:
        raise InvalidRequest(f"The config file {path}: {exc.message}", hint=exc.hint) from None
    return document


def _document(path: Path) -> JsonObject:
    if path.suffix not in (".toml", ".json"):
        raise InvalidRequest("its name says nothing of its format.", hint="Call it something.toml or something.json.")
    try:
        with path.open("rb") as file:
            body = file.read(FILE_BYTES_MAX + 1)
    except OSError as exc:
        hint = "--config or MEERKAT_CONFIG names it."
        raise InvalidRequest(f"it cannot be read: {exc.strerror}.", hint=hint) from None
    if len(body) > FILE_BYTES_MAX:
        raise InvalidRequest("it is too large.")
    try:
        text = body.decode("utf-8-sig")
        plain: Any = json.loads(json.dumps(_parsed(text, path.suffix), allow_nan=False))
    except (ValueError, TypeError, RecursionError) as exc:  # a date in TOML is a TypeError: JSON has none
        raise InvalidRequest(f"it holds no {path.suffix[1:].upper()} that could be JSON: {exc}.") from None
    if not isinstance(plain, dict):
        raise InvalidRequest(f"it holds no object, but {type(plain).__name__}.")
    return cast(JsonObject, plain)


def _parsed(text: str, suffix: str) -> Any:
    if suffix == ".json":
        return json.loads(text)
    import tomllib  # 12 ms, for those who have such a file

    return tomllib.loads(text)


def _signature(path: Path) -> _Signature | None:
    """What changes when the file does: replaced, written, or gone."""
    try:
        found = path.stat()
    except OSError:
        return None
    return found.st_mtime_ns, found.st_size, found.st_ino
