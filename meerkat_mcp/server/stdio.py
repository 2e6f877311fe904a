"""Serves one MCP connection on the process's own stdin and stdout, and ends it with whatever ends the process.

The SDK's stdio dies of SIGTERM without a teardown. Here signals and the parent's death end the connection in order.
Where stdin and stdout are no pipes (a file, a terminal) or the platform has none (Windows), two threads carry the bytes
behind the same interface.
"""

import asyncio
import functools
import os
import queue
import stat
import sys
import threading
from collections.abc import Callable
from contextlib import suppress
from typing import Any, Literal

from mcp.os.win32.utilities import rebind_std_handle_to_fd
from mcp.server import MCPServer

from meerkat_mcp.server.connection import CHUNK_BYTES, Connection, Pipes, Wire
from meerkat_mcp.server.signals import on_signals

PARENT_POLL_SECONDS = 0.5


async def serve_stdio(server: MCPServer[Any], *, on_ready: Callable[[], None] | None = None) -> None:
    """Serve one connection on fds 0 and 1 until it has ended; `on_ready` is told when the lifespan was entered."""
    connection = Connection(_standard_streams, on_ready)
    on_signals(connection.end)
    _watch_parent(connection.end)
    await connection.serve(server)


@functools.cache  # serving moves fds 0 and 1 away: the first answer is the one that stays true
def transport_name() -> Literal["pipes", "threads"]:
    """Say what carries the bytes of this process's stdio connection."""
    return "pipes" if pipes_usable() else "threads"


def pipes_usable() -> bool:
    """Say whether fds 0 and 1 may stop blocking: files cannot, and a terminal is shared with the shell and stderr."""
    with suppress(OSError):  # one of them is closed
        modes = [os.fstat(fd).st_mode for fd in (0, 1)]
        return sys.platform != "win32" and all(stat.S_ISFIFO(mode) or stat.S_ISSOCK(mode) for mode in modes)
    return False


class _Threads:
    """Carries the bytes with two threads which nobody joins: a blocked read or write cannot be interrupted."""

    def __init__(self, connection: Connection, source: int, sink: int) -> None:
        self._loop = asyncio.get_running_loop()
        self._connection = connection
        self._chunks = queue.SimpleQueue[bytearray]()
        self._may_read = threading.Semaphore()
        self._paused = False
        for work, fd in ((self._read, source), (self._write, sink)):
            threading.Thread(target=work, args=(fd,), daemon=True).start()

    def write(self) -> None:
        """Write a chunk, and the next one after it, until nothing is pending."""
        self._chunks.put(self._connection.pending[:CHUNK_BYTES])

    def pause(self) -> None:
        self._paused = True

    def resume(self) -> None:
        self._paused = False
        self._may_read.release()

    def close(self) -> None:
        """Do nothing: the threads still hold the descriptors."""

    def _read(self, source: int) -> None:
        chunk = b"?"
        while chunk:
            self._may_read.acquire()
            try:
                chunk = os.read(source, CHUNK_BYTES)
            except OSError:
                chunk = b""
            self._in_loop(self._received, chunk)

    def _received(self, chunk: bytes) -> None:
        self._connection.received(chunk)
        if not self._paused:
            self._may_read.release()

    def _write(self, sink: int) -> None:
        while True:
            try:
                count = os.write(sink, self._chunks.get())
            except OSError:
                return self._in_loop(self._connection.broke)
            self._in_loop(self._wrote, count)

    def _wrote(self, count: int) -> None:
        self._connection.wrote(count)
        if self._connection.pending:
            self.write()

    def _in_loop(self, callback: Callable[..., None], *args: object) -> None:
        with suppress(RuntimeError):  # the loop is closed: the process is ending
            self._loop.call_soon_threadsafe(callback, *args)


def _standard_streams(connection: Connection) -> Wire:
    return (Pipes if transport_name() == "pipes" else _Threads)(connection, *_claim_standard_streams())


def _claim_standard_streams() -> tuple[int, int]:
    """Move fds 0 and 1 out of reach of stray prints and child processes; return where they are now."""
    nowhere = os.open(os.devnull, os.O_RDONLY)
    source, sink = os.dup(0), os.dup(1)
    os.dup2(nowhere, 0)
    os.dup2(2, 1)
    os.close(nowhere)
    if sys.platform == "win32":  # children inherit Win32 handles, which dup2 leaves as they were
        for fd in (0, 1):
            rebind_std_handle_to_fd(fd)
    return source, sink


def _watch_parent(end: Callable[[str], object]) -> None:
    """End when the parent process is gone; stdin need not tell, for others may hold its other end open."""
    loop, parent = asyncio.get_running_loop(), os.getppid()
    if sys.platform == "win32" or parent == 1:
        return

    def poll() -> None:
        if os.getppid() == parent:
            loop.call_later(PARENT_POLL_SECONDS, poll)
        else:
            end("the parent process is gone")

    def gone() -> None:
        loop.remove_reader(pidfd)
        end("the parent process is gone")

    try:
        pidfd = os.pidfd_open(parent)
    except (AttributeError, OSError):  # no Linux, an old kernel, or gone already
        return poll()
    loop.add_reader(pidfd, gone)
