"""Files that commands write and read: a written one is there when it is complete, or not at all."""

import os
import sys
import tempfile
from collections.abc import AsyncGenerator, Generator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import BinaryIO

import anyio

from meerkat_mcp.domain.errors import InvalidRequest

CHUNK_BYTES = 1024 * 1024
STDIN = "-"


@contextmanager
def appearing(path: Path, *, force: bool) -> Generator[BinaryIO]:
    """A file to write, for its owner's eyes only, that appears under its name when the block has ended well.

    Raises:
        InvalidRequest: there is one and `force` was not said; or it cannot be written.
    """
    if not force and path.exists():
        raise _is_there(path)
    try:
        descriptor, name = tempfile.mkstemp(prefix=f".{path.name[:100]}.", suffix=".part", dir=path.parent)
    except OSError as exc:
        raise _unwritable(path, exc) from None
    try:
        with os.fdopen(descriptor, "wb") as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        _move(name, path, force=force)
        _settle(path.parent)
    except OSError as exc:
        raise _unwritable(path, exc) from None
    finally:
        with suppress(OSError):
            Path(name).unlink()


async def pieces(name: str) -> AsyncGenerator[bytes]:
    """The bytes of a file, or of stdin for `-`. Raises InvalidRequest."""
    try:
        file = sys.stdin.buffer if name == STDIN else opened(name)
        try:
            while piece := await anyio.to_thread.run_sync(os.read, file.fileno(), CHUNK_BYTES):
                yield piece
        finally:
            if name != STDIN:
                file.close()
    except OSError as exc:
        raise InvalidRequest(f"{name[:200]} cannot be read: {exc.strerror}.") from None


def opened(name: str) -> BinaryIO:
    """A file to read."""
    return place(name).open("rb")


def place(name: str) -> Path:
    """Where a file is, `~` understood."""
    return Path(name).expanduser()


def folder(name: str) -> Path:
    """A folder, made where it is not there. Raises InvalidRequest."""
    path = place(name)
    try:
        path.mkdir(parents=True, exist_ok=True)
    except OSError as exc:
        raise InvalidRequest(f"{name[:200]} cannot be made: {exc.strerror}.") from None
    return path


def _move(name: str, path: Path, *, force: bool) -> None:
    """Give the file its name: by a link where there are links, for that takes no other's place."""
    if force:
        Path(name).replace(path)
        return
    try:
        os.link(name, path)
    except FileExistsError:
        raise _is_there(path) from None
    except (OSError, AttributeError):  # a file system, or a system, without links
        if path.exists():
            raise _is_there(path) from None
        Path(name).replace(path)


def _settle(folder: Path) -> None:
    """Make the new name survive a power cut, where folders can be told to."""
    with suppress(OSError):
        descriptor = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)


def _is_there(path: Path) -> InvalidRequest:
    return InvalidRequest(f"{str(path)[:200]} is there already.", hint="say --force to replace it.")


def _unwritable(path: Path, exc: OSError) -> InvalidRequest:
    return InvalidRequest(f"{str(path)[:200]} cannot be written: {exc.strerror}.")
