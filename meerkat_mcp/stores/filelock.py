"""An exclusive lock on a file, held by one process at a time and given back by the OS when that process dies.

It serves two ends: a queue before a database that processes share (a bare `flock` on a descriptor that stays open, and
the kernel wakes those who wait in their order), and a proof of life (whoever holds the lock is alive, see `is_held`).
The file stays empty and is never removed: two processes could otherwise hold the lock of two files of one name.

Where the file system has no locks (some network mounts: ENOLCK, ENOTSUP) the OSError reaches the caller.
"""

import math
import os
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Protocol, Self

_MODE = 0o600
_RETRY_INTERVAL_S = 0.001

# Windows locks are mandatory, and allowed beyond a file's end: lock a byte that nobody would ever read.
_LOCKED_OFFSET = 1 << 30


class FileLock:
    """An exclusive lock on one file; one thread at a time may use it, and it is not reentrant.

    Two `FileLock`s on one path exclude each other, within a process as well as between processes.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._locker = _locker
        self._fd = os.open(path, os.O_RDWR | os.O_CREAT, _MODE)  # Python's descriptors are not inherited by children
        self._held = False

    def acquire(self, timeout_s: float | None = None) -> None:
        """Wait for the lock; raise TimeoutError when `timeout_s` pass first.

        A wait without a limit stands in the kernel's queue, where there is one; one with a limit asks repeatedly.
        """
        self._require_free()
        if timeout_s is None:
            self._locker.lock(self._fd)
        elif not _retry(lambda: self._locker.try_lock(self._fd), timeout_s):
            raise TimeoutError(f"{self.path} is still locked after {timeout_s} s")
        self._held = True

    def try_acquire(self) -> bool:
        """Take the lock if nobody has it, without waiting."""
        self._require_free()
        self._held = self._locker.try_lock(self._fd)
        return self._held

    def release(self) -> None:
        """Give the lock back."""
        if not self._held:
            raise RuntimeError(f"{self.path} is not locked here")
        self._held = False
        self._locker.unlock(self._fd)

    def close(self) -> None:
        """Give the lock back if it is held, and close the file; closing twice is fine."""
        if self._held:
            self.release()
        if self._fd >= 0:
            os.close(self._fd)
            self._fd = -1

    def __enter__(self) -> Self:
        self.acquire()
        return self

    def __exit__(self, *exc_info: object) -> None:
        self.release()

    def _require_free(self) -> None:
        # Locking twice succeeds at once with flock and waits forever on Windows: neither is what anyone means.
        if self._held:
            raise RuntimeError(f"{self.path} is already locked here")
        if self._fd < 0:
            raise ValueError(f"the lock on {self.path} is closed")


def is_held(path: Path) -> bool:
    """Whether anyone, in this process or another, holds the lock on `path` now; a file that is absent is not held.

    To ask is to hold a lock for a few microseconds: a `try_acquire` at that very moment fails, and on Windows another
    question is answered True. So the answer can be late in calling someone dead, and never calls someone alive dead.
    """
    try:
        fd = os.open(path, os.O_RDWR)
    except FileNotFoundError:
        return False
    try:
        if not _locker.try_lock_shared(fd):
            return True
        _locker.unlock(fd)
        return False
    finally:
        os.close(fd)


def _retry(attempt: Callable[[], bool], timeout_s: float) -> bool:
    # At a constant pace: growing pauses would favour whoever came last.
    deadline_s = time.monotonic() + timeout_s
    while not attempt():
        left_s = deadline_s - time.monotonic()
        if left_s <= 0:
            return False
        time.sleep(min(_RETRY_INTERVAL_S, left_s))
    return True


class _Locker(Protocol):
    """How an operating system locks an open file."""

    def lock(self, fd: int, /) -> None: ...
    def try_lock(self, fd: int, /) -> bool: ...
    def try_lock_shared(self, fd: int, /) -> bool: ...
    def unlock(self, fd: int, /) -> None: ...


class _Msvcrt(Protocol):
    """What we use of the module `msvcrt`, so that it can be stood in for elsewhere."""

    @property
    def LK_NBLCK(self) -> int: ...
    @property
    def LK_UNLCK(self) -> int: ...
    def locking(self, fd: int, mode: int, nbytes: int, /) -> None: ...


class _MsvcrtLocker:
    """Windows: locks a byte at the file's position, exclusively, and knows no wait longer than ten seconds."""

    def __init__(self, msvcrt: _Msvcrt) -> None:
        self._msvcrt = msvcrt

    def lock(self, fd: int, /) -> None:
        _retry(lambda: self.try_lock(fd), math.inf)

    def try_lock(self, fd: int, /) -> bool:
        os.lseek(fd, _LOCKED_OFFSET, os.SEEK_SET)
        try:
            self._msvcrt.locking(fd, self._msvcrt.LK_NBLCK, 1)
        except PermissionError:  # EACCES: someone else has it
            return False
        return True

    def try_lock_shared(self, fd: int, /) -> bool:
        return self.try_lock(fd)

    def unlock(self, fd: int, /) -> None:
        os.lseek(fd, _LOCKED_OFFSET, os.SEEK_SET)
        self._msvcrt.locking(fd, self._msvcrt.LK_UNLCK, 1)


if sys.platform == "win32":
    import msvcrt

    _locker: _Locker = _MsvcrtLocker(msvcrt)
else:
    import fcntl

    class _FlockLocker:
        """POSIX: locks belong to the open file, so that two openings within a process exclude each other too."""

        def lock(self, fd: int, /) -> None:
            fcntl.flock(fd, fcntl.LOCK_EX)

        def try_lock(self, fd: int, /) -> bool:
            return self._try(fd, fcntl.LOCK_EX)

        def try_lock_shared(self, fd: int, /) -> bool:
            return self._try(fd, fcntl.LOCK_SH)

        def unlock(self, fd: int, /) -> None:
            fcntl.flock(fd, fcntl.LOCK_UN)

        def _try(self, fd: int, operation: int) -> bool:
            try:
                fcntl.flock(fd, operation | fcntl.LOCK_NB)
            except BlockingIOError:
                return False
            return True

    _locker: _Locker = _FlockLocker()
