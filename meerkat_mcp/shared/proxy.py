"""The thin process that a host starts: it passes lines between the host's pipes and the realm's resident server.

It knows of each line only what it needs to keep its promises when the server ends: which requests wait for an answer
(they get one, an error), and what a connection of the handshake era was told (a new server is told it again, with the
host's next line). What it does not need to know it does not look at.

Standard library only, and little of it: see the package.
"""

import os
import select
import signal
import socket
import stat
import sys
import time
from collections.abc import Callable

from meerkat_mcp.domain.version import VERSION
from meerkat_mcp.shared import starting
from meerkat_mcp.shared.flags import Wanted
from meerkat_mcp.shared.hello import Refused
from meerkat_mcp.shared.talk import LINE_LIMIT_BYTES, Talk

CHUNK_BYTES = 256 * 1024
WAITING_BYTES_MAX = 1024 * 1024
"""What may wait to be written, each way; from there on whoever sends it waits."""
LEAVE_S = 1.5
"""For the server to say the rest after the host's end: hosts kill what takes 2 s."""
PARENT_POLL_S = 1.0
GONE = select.POLLERR | select.POLLHUP | select.POLLNVAL


def run(wanted: Wanted) -> int:
    """Serve the host on fds 0 and 1 until it ends; the exit code."""
    proxy = _Proxy(wanted)
    try:
        return proxy.run()
    finally:
        proxy.close()


class _Proxy:
    """One host's connection, over one server after the other."""

    def __init__(self, wanted: Wanted) -> None:
        self._wanted = wanted
        self._talk = Talk()
        self._link: socket.socket | None = None
        self._up, self._down = bytearray(), bytearray()  # what waits to be written: to the server, to the host
        self._refused: str | None = None
        self._eof = self._broken = False
        self._until: float | None = None  # when we leave at the latest
        self._blocking = {fd: os.get_blocking(fd) for fd in (0, 1) if _may_stop_blocking(fd)}
        self._parent, self._parent_fd = os.getppid(), _watched_parent()
        self._told, self._tells = os.pipe()  # a signal is a byte on it

    def run(self) -> int:
        """Serve until the host has ended, and what there was to say is said."""
        self._reach(again=False)
        if 1 in self._blocking:
            os.set_blocking(1, False)
        os.set_blocking(self._tells, False)
        signal.set_wakeup_fd(self._tells, warn_on_full_buffer=False)
        while not self._finished():
            self._step()
        return 1 if self._refused else 0

    def close(self) -> None:
        """Leave the host's pipes as they were."""
        for fd, blocking in self._blocking.items():
            os.set_blocking(fd, blocking)

    def _finished(self) -> bool:
        if self._broken or (self._until is not None and time.monotonic() >= self._until):
            return True
        return self._eof and self._link is None and not self._down

    def _step(self) -> None:
        waiting = select.poll()
        waiting.register(self._told, select.POLLIN)
        waiting.register(1, select.POLLOUT if self._down else 0)
        if not self._eof and len(self._up) < WAITING_BYTES_MAX and len(self._down) < WAITING_BYTES_MAX:
            waiting.register(0, select.POLLIN)
        if self._parent_fd is not None:
            waiting.register(self._parent_fd, select.POLLIN)
        link = -1
        if self._link is not None:
            link = self._link.fileno()
            reads = select.POLLIN if len(self._down) < WAITING_BYTES_MAX else 0
            waiting.register(link, reads | (select.POLLOUT if self._up else 0))
        ready = dict(waiting.poll(self._patience_ms()))
        if self._told in ready or self._parent_fd in ready or os.getppid() != self._parent:
            os.set_blocking(self._told, False)
            self._host_ended()
        if ready.get(1, 0):
            self._write_down(ready[1])
        if 0 in ready:
            self._read_host()
        if link in ready and self._link is not None:
            self._exchange(self._link, ready[link])

    def _patience_ms(self) -> float | None:
        if self._until is not None:
            return max(0.0, self._until - time.monotonic()) * 1000
        return PARENT_POLL_S * 1000 if self._parent_fd is None else None

    # ── the host ──

    def _read_host(self) -> None:
        try:
            chunk = os.read(0, CHUNK_BYTES)
        except OSError:
            chunk = b""
        lines = self._talk.from_host(chunk)
        if lines and self._link is None and self._refused is None:
            self._reach(again=True)
        for line in lines:
            self._pass_up(line)
        if not chunk:
            self._host_ended()

    def _pass_up(self, line: bytes) -> None:
        if len(line) > LINE_LIMIT_BYTES:
            self._down += self._talk.too_long()
        elif self._talk.asked(line):
            if self._refused is not None:
                self._down += self._talk.refusals(self._refused)
            else:
                self._up += line

    def _host_ended(self) -> None:
        if not self._eof:
            self._eof, self._until = True, time.monotonic() + LEAVE_S
            self._half_close()

    def _half_close(self) -> None:
        if self._eof and not self._up and self._link is not None:
            try:
                self._link.shutdown(socket.SHUT_WR)
            except OSError:
                return  # it is gone: we hear of that

    def _write_down(self, events: int) -> None:
        try:
            if events & GONE and not events & select.POLLOUT:
                raise BrokenPipeError
            del self._down[: os.write(1, self._down[:CHUNK_BYTES])]
        except BlockingIOError:
            return
        except OSError:
            self._broken = True

    # ── the server ──

    def _reach(self, *, again: bool) -> None:
        _on_signals(signal.SIG_DFL)  # a server that starts may take long: then they end us as they are
        try:
            self._link, says = starting.served(self._wanted, again=again)
        except Refused as exc:
            self._refused = str(exc)
            _say(f"error: {self._refused}")
            return
        finally:
            _on_signals(_do_nothing)
        self._link.setblocking(False)
        self._up += self._talk.replayed()
        _say(f"meerkat-mcp {VERSION}: {says}")

    def _exchange(self, link: socket.socket, events: int) -> None:
        if events & select.POLLOUT:
            try:
                del self._up[: link.send(self._up[:CHUNK_BYTES])]
            except BlockingIOError:
                pass
            except OSError:
                return self._lost(link)
            self._half_close()
        if events & (select.POLLIN | GONE):
            try:
                chunk = link.recv(CHUNK_BYTES)
            except BlockingIOError:
                return
            except OSError:
                chunk = b""
            if not chunk:
                return self._lost(link)
            self._down += self._talk.from_server(chunk)

    def _lost(self, link: socket.socket) -> None:
        link.close()
        self._link = None
        self._up.clear()
        if not self._eof:
            _say("the realm's resident server has ended; the next request starts another one")
            self._down += self._talk.refusals(
                "The realm's resident server ended before it had answered. What was recorded is kept: look at it "
                "(meerkat_sessions, meerkat_read), or call again with the same idempotency_key."
            )
        self._talk.forget_server()


def _say(text: str) -> None:
    """To stderr, which a host shows as our log."""
    try:
        os.write(2, f"{text}\n".encode(errors="replace"))
    except OSError:
        return


def _on_signals(does: Callable[[int, object], None] | signal.Handlers) -> None:
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, does)


def _do_nothing(number: int, frame: object) -> None:
    """A signal is heard through the wakeup descriptor."""


def _may_stop_blocking(fd: int) -> bool:
    """Files cannot, and a terminal is shared with the shell."""
    try:
        mode = os.fstat(fd).st_mode
    except OSError:
        return False
    return stat.S_ISFIFO(mode) or stat.S_ISSOCK(mode)


def _watched_parent() -> int | None:
    """A descriptor that is readable once the parent is gone, where there is such a thing."""
    try:
        return os.pidfd_open(os.getppid()) if sys.platform == "linux" else None
    except OSError:
        return None
