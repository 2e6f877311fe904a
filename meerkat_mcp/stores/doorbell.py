"""A bell on a file: whoever commits rings it, and every process that waits at it wakes and looks for what is new.

To ring is to write a token over the file's first eight bytes. Linux tells the waiters (inotify, 0.1 ms); elsewhere, and
when inotify is refused (its limits are per user and small), they compare the token with the last one they saw every
25 ms. So both kinds of waiters can share a bell, tokens must differ from each other whoever wrote them: a clock would
repeat within its tick (15.6 ms on Windows), and a counter in the file would need a lock to be counted up. Each bell
therefore counts on its own, up from a random number of 63 bits. The file must not be removed while it is in use.
"""

import errno
import itertools
import os
import secrets
import sys
import threading
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Literal

import anyio

try:
    import ctypes
except ImportError:  # some builds of Python lack it
    ctypes = None
import anyio.lowlevel

_TOKEN_SIZE_B = 8
_IN_MODIFY = 0x2
_O_BINARY: int = getattr(os, "O_BINARY", 0)  # Windows would rewrite line ends within a token


class Doorbell:
    """Tells other processes that something was committed, and wakes one task of ours when anyone did.

    Only one task at a time may wait at a Doorbell; a second one gets `anyio.BusyResourceError`.
    """

    def __init__(self, path: Path, *, poll_interval_s: float = 0.025, use_inotify: bool | None = None) -> None:
        """Start listening: rings count from now on, waited for or not.

        `use_inotify` None takes inotify where it can be had, False polls, True raises where it cannot be had.
        """
        self._fd = os.open(path, os.O_WRONLY | os.O_CREAT | _O_BINARY, 0o600)
        try:
            self._ear = _listen(path, poll_interval_s, use_inotify)
        except BaseException:
            os.close(self._fd)
            raise
        self._tokens = itertools.count(secrets.randbits(63))
        self._ringing = threading.Lock()
        self._waiting = False

    @property
    def mechanism(self) -> Literal["inotify", "poll"]:
        """How this bell is heard here."""
        return self._ear.mechanism

    def ring(self) -> None:
        """Wake every waiter, this bell's own too; any thread may call it, after the commit it tells of."""
        # The lock makes seek-and-write one step, and keeps a token out of a file that took over a closed descriptor.
        with self._ringing:
            if self._fd < 0:
                raise anyio.ClosedResourceError
            _pwrite(self._fd, next(self._tokens).to_bytes(_TOKEN_SIZE_B, "little"), 0)

    async def wait(self) -> None:
        """Return once anyone has rung since the last return; many rings may count as one, and none is lost.

        It may return early, so look for what is new rather than count returns. A cancelled wait loses no ring.
        """
        if self._waiting:
            raise anyio.BusyResourceError("waiting at")
        self._waiting = True
        try:
            await self._ear.wait()
        finally:
            self._waiting = False

    def close(self) -> None:
        """End a wait that is under way, and any later `wait` or `ring`, with `anyio.ClosedResourceError`.

        Call it where the waiter runs (its event loop's thread); closing twice is fine.
        """
        self._ear.close(self._waiting)
        with self._ringing:
            if self._fd >= 0:
                os.close(self._fd)
                self._fd = -1


class _Inotify:
    """Hears the kernel tell of each write to the file; the kernel folds those not yet read into one."""

    mechanism: Literal["inotify"] = "inotify"

    def __init__(self, path: Path) -> None:
        if sys.platform != "linux":
            raise OSError(errno.ENOSYS, "inotify is Linux's")
        if ctypes is None:
            raise OSError(errno.ENOSYS, "this Python has no ctypes")
        libc = ctypes.CDLL(None, use_errno=True)
        self._fd: int = libc.inotify_init1(os.O_NONBLOCK | os.O_CLOEXEC)
        if self._fd < 0:
            raise OSError(ctypes.get_errno(), "inotify_init1 failed")
        if libc.inotify_add_watch(self._fd, os.fsencode(path), _IN_MODIFY) < 0:
            refusal = OSError(ctypes.get_errno(), "inotify_add_watch failed", str(path))
            os.close(self._fd)
            raise refusal

    async def wait(self) -> None:
        if self._fd >= 0:
            await anyio.wait_readable(self._fd)
        if self._fd < 0:  # closed before we came, or after the bell rang and before we ran
            raise anyio.ClosedResourceError
        with suppress(BlockingIOError):
            os.read(self._fd, 4096)  # one watch has one event pending at most, of 16 bytes

    def close(self, waited_for: bool) -> None:
        if self._fd >= 0:
            fd, self._fd = self._fd, -1
            if waited_for:
                anyio.notify_closing(fd)
            os.close(fd)


class _Poll:
    """Looks at the file's token at intervals; a closed bell ends a wait at the next look."""

    mechanism: Literal["poll"] = "poll"

    def __init__(self, path: Path, interval_s: float) -> None:
        self._interval_s = interval_s
        self._fd = os.open(path, os.O_RDONLY | _O_BINARY)  # of its own, for seeking away from those who ring
        self._seen = self._token()

    async def wait(self) -> None:
        await anyio.lowlevel.checkpoint()
        while (token := self._token()) == self._seen:  # noqa: ASYNC110 - no event tells of another process's write
            await anyio.sleep(self._interval_s)
        self._seen = token

    def close(self, waited_for: bool) -> None:
        if self._fd >= 0:
            os.close(self._fd)
            self._fd = -1

    def _token(self) -> bytes:
        if self._fd < 0:
            raise anyio.ClosedResourceError
        os.lseek(self._fd, 0, os.SEEK_SET)
        return os.read(self._fd, _TOKEN_SIZE_B)


def _listen(path: Path, poll_interval_s: float, use_inotify: bool | None) -> _Inotify | _Poll:
    if use_inotify is not False:
        try:
            return _Inotify(path)
        except (OSError, AttributeError):  # refused, or no ctypes, or a libc without it
            if use_inotify:
                raise
    return _Poll(path, poll_interval_s)


def _seek_and_write(fd: int, data: bytes, offset: int, /) -> int:
    os.lseek(fd, offset, os.SEEK_SET)
    return os.write(fd, data)


# One call gives up the interpreter once, where two calls would let a busy event loop in between; Windows has only two.
_pwrite: Callable[[int, bytes, int], int] = getattr(os, "pwrite", _seek_and_write)
