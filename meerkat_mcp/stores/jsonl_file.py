"""Files that are there whole or not at all: how one is appended to, replaced and cut, and what a refusal means.

Everything here blocks, and raises OSError.
"""

import errno
import os
import sys
from collections.abc import Callable, Iterable, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Literal

from meerkat_mcp.domain.errors import StoreUnavailable

_O_BINARY: int = getattr(os, "O_BINARY", 0)  # Windows would rewrite line ends
_READ_WRITE = os.O_RDWR | _O_BINARY
_MODE = 0o600
_BUFFER_B = 1 << 20
FRESH = ".new"
"""What the name of a file ends in until it takes its place; one that is found was left by a process that died."""

_LOCAL_DISK = "Put the state root on a local disk, with --state-root."
_OWNER = "Check who owns the realm's folder and its files."
_HINTS = {
    "ENOSPC": "Free space on the disk of the state root and try again.",
    "EDQUOT": "Free space within your quota and try again.",
    "EFBIG": "Raise the limit on the size of files, or put the state root on another disk, with --state-root.",
    "EROFS": "Check how the disk is mounted.",
    "EACCES": _OWNER,
    "EPERM": _OWNER,
    "EIO": "Check the disk; nothing acknowledged was undone.",
    "EMFILE": "Raise the limit on open files.",
    "ENOLCK": _LOCAL_DISK,
    "ENOTSUP": _LOCAL_DISK,
}

if sys.platform == "darwin":
    import fcntl

    def _full_sync(fd: int, /) -> None:  # an fsync of macOS does not reach the disk
        fcntl.fcntl(fd, fcntl.F_FULLFSYNC)

    sync: Callable[[int], None] = _full_sync
else:
    sync: Callable[[int], None] = getattr(os, "fdatasync", os.fsync)
"""Wait until the disk has what was written to an open file."""

MECHANISM = "F_FULLFSYNC" if sys.platform == "darwin" else sync.__name__


class Changed(Exception):
    """A file is not as we left it: another program writes to it."""


def unavailable(error: OSError, path: Path) -> StoreUnavailable:
    """What the operating system's refusal means."""
    hint = _HINTS.get(
        errno.errorcode.get(error.errno or 0, ""),
        "Check that the realm's folder exists, can be written, and is on a local disk.",
    )
    return StoreUnavailable(f"{path.name} cannot be used: {error.strerror or error}.", hint=hint)


def make_folder(folder: Path) -> None:
    """A folder for its owner alone, if it is not there."""
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)


def append(path: Path, data: bytes, *, at: int, durable: bool) -> int:
    """Write at the end of a file, which is at `at`; a file that begins is made. Gives its time of change, in ns.

    When it fails, the file is cut back to where it was. Raises Changed.
    """
    fd = os.open(path, _READ_WRITE | (0 if at else os.O_CREAT), _MODE)
    try:
        if os.fstat(fd).st_size != at:
            raise Changed
        try:
            _write(fd, data, at)
            if durable:
                sync(fd)
            if durable and not at:
                sync_folder(path.parent)
        except BaseException:
            with suppress(OSError):
                os.ftruncate(fd, at)
            raise
    finally:
        os.close(fd)
    return path.stat().st_mtime_ns


def replace(path: Path, chunks: Iterable[bytes], *, wait_for: Literal["nothing", "content", "name"] = "name") -> None:
    """Put a new file in the place of one, if there is one: readers see the old or the new one, whole.

    After a power cut that is so if the `content` was waited for. That it is the new one, if the `name` was too.
    """
    fresh = path.with_name(path.name + FRESH)
    try:
        with os.fdopen(os.open(fresh, _READ_WRITE | os.O_CREAT | os.O_TRUNC, _MODE), "wb", _BUFFER_B) as file:
            file.writelines(chunks)
            file.flush()
            if wait_for != "nothing":
                sync(file.fileno())
        fresh.replace(path)
    except BaseException:
        with suppress(OSError):
            fresh.unlink()
        raise
    if wait_for == "name":
        sync_folder(path.parent)


def cut(path: Path, size: int, aside: Path) -> None:
    """Cut a file off at `size`; what is cut is kept in `aside` first. Of a file cut at 0 nothing is left."""
    with path.open("rb") as file:
        file.seek(size)
        torn = file.read()
    if torn:
        replace(aside, [torn])
    if not size:
        path.unlink()
        sync_folder(path.parent)
        return
    fd = os.open(path, _READ_WRITE)
    try:
        os.ftruncate(fd, size)
        sync(fd)
    finally:
        os.close(fd)


def settle(path: Path) -> None:
    """Wait until the disk has a file, whoever wrote it."""
    fd = os.open(path, _READ_WRITE)
    try:
        sync(fd)
    finally:
        os.close(fd)


def pieces(path: Path, spans: Sequence[tuple[int, int]]) -> list[bytes]:
    """What a file has from each start to its end; neighbours are read together. Raises Changed."""
    read: list[bytes] = []
    with path.open("rb", buffering=0) as file:
        first = 0
        while first < len(spans):
            last = first
            while last + 1 < len(spans) and spans[last + 1][0] == spans[last][1]:
                last += 1
            begin, end = spans[first][0], spans[last][1]
            file.seek(begin)
            run = _read(file.fileno(), end - begin)
            read += [run[start - begin : stop - begin] for start, stop in spans[first : last + 1]]
            first = last + 1
    return read


def sync_folder(folder: Path) -> None:
    """Wait until the disk has the names in a folder; Windows writes them down by itself."""
    if os.name == "nt":
        return
    fd = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)


def _write(fd: int, data: bytes, at: int) -> None:
    os.lseek(fd, at, os.SEEK_SET)
    left = memoryview(data)
    while left:
        left = left[os.write(fd, left) :]


def _read(fd: int, size: int) -> bytes:
    data = bytearray()
    while len(data) < size:
        if not (more := os.read(fd, size - len(data))):
            raise Changed
        data += more
    return bytes(data)
