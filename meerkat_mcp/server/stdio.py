"""Serves one MCP connection on the process's own stdin and stdout, and knows every way such a connection ends.

The SDK's stdio takes three threads per exchange, dies of SIGTERM without a teardown and cannot be interrupted while it
reads. Here a message is serialised as it is sent, and what was sent in one tick of the loop leaves in one write. What
ends the connection (EOF, a signal, the parent's death, a broken stdout) looks like EOF to the SDK, so that the lifespan
is left in order. Only this room speaks asyncio: anyio has no pipes for inherited descriptors. Where these are no pipes
(a file, a terminal) or the platform has none (Windows), two threads carry the bytes behind the same interface.
"""

import asyncio
import functools
import logging
import os
import queue
import stat
import sys
import threading
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import suppress
from io import BytesIO
from typing import Any, Literal

import anyio
import mcp.types as rpc
from anyio.abc import ObjectReceiveStream, ObjectSendStream
from mcp.os.win32.utilities import rebind_std_handle_to_fd
from mcp.server import MCPServer
from mcp.shared.message import SessionMessage
from pydantic_core import from_json

from meerkat_mcp.server.signals import on_signals

LINE_LIMIT_BYTES = 16 * 1024 * 1024  # the longest line with its end, and what may lie here before it is taken up
PENDING_LIMIT_BYTES = 1024 * 1024  # what may wait for the client to read it; from there on every sender waits
TICK_BYTES = 16 * 1024  # what senders may add before they must let the loop write
CHUNK_BYTES = 64 * 1024  # what is read at once: the size of a Linux pipe
EOF_GRACE_SECONDS = 0.2  # for the lines before an EOF to be taken up
FLUSH_LIMIT_SECONDS = 1.0  # from the end on, for the client to read what was written for it
TEARDOWN_LIMIT_SECONDS = 1.2  # from the end on, for the server to return: clients kill after 2 s in all
PARENT_POLL_SECONDS = 0.5

logger = logging.getLogger(__name__)


async def serve_stdio(server: MCPServer[Any], *, on_ready: Callable[[], None] | None = None) -> None:
    """Serve one connection on fds 0 and 1 until it has ended; `on_ready` is told when the lifespan was entered."""
    connection = _Connection(on_ready)
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


class _Connection(ObjectReceiveStream[SessionMessage], ObjectSendStream[SessionMessage]):
    """One connection from its first byte to its end; it is both streams which the SDK asks for."""

    def __init__(self, on_ready: Callable[[], None] | None) -> None:
        self.pending = bytearray()  # what the client has not read; not empty: a write is scheduled or under way
        self._loop = asyncio.get_running_loop()
        self._wire = (_Pipes if transport_name() == "pipes" else _Threads)(self, *_claim_standard_streams())
        self._on_ready = on_ready
        self._serving = anyio.CancelScope()
        self._flush_until: float | None = None  # not None: the connection has ended
        self._splitter = LineSplitter()
        self._lines: deque[bytes | None] = deque()
        self._held_bytes = self._burst_bytes = 0
        self._paused = self._eof = self._broken = False
        self._arrived, self._shrank = asyncio.Event(), asyncio.Event()

    async def serve(self, server: MCPServer[Any]) -> None:
        # The SDK has no public way to serve streams of one's own; its own examples reach for this name.
        lowlevel = server._lowlevel_server  # pyright: ignore[reportPrivateUsage]
        try:
            with self._serving:
                await lowlevel.run(self, self, lowlevel.create_initialization_options())
            if self._serving.cancelled_caught:
                logger.warning("the server did not return in %s s and was cut off", TEARDOWN_LIMIT_SECONDS)
        finally:
            with anyio.CancelScope(deadline=self.end("the server has returned"), shield=True):
                while self.pending:
                    self._shrank.clear()
                    await self._shrank.wait()
            self._wire.close()

    def end(self, reason: str) -> float:
        """End the connection (once); return until when the client may read what is left for it."""
        if self._flush_until is None:
            logger.info("the stdio connection ends: %s", reason)
            self._flush_until = self._loop.time() + FLUSH_LIMIT_SECONDS
            self._loop.call_later(TEARDOWN_LIMIT_SECONDS, self._serving.cancel)
            self._wire.pause()
            self._lines.clear()
            self._eof = True
            self._arrived.set()
            self._shrank.set()
        return self._flush_until

    def received(self, chunk: bytes) -> None:
        """Take up what the client wrote; nothing is EOF, which comes after the lines before it."""
        for line in self._splitter.split(chunk or b"\n"):  # the last line may have no end of its own
            self._lines.append(line)
            self._held_bytes += len(line or b"")
        if self._held_bytes >= LINE_LIMIT_BYTES and not self._paused:
            self._paused = True
            self._wire.pause()
        if not chunk:
            self._eof = True
            self._wire.pause()
            self._loop.call_later(EOF_GRACE_SECONDS, self.end, "stdin was closed, and what it said is not taken up")
        self._arrived.set()

    def wrote(self, count: int) -> None:
        del self.pending[:count]
        self._shrank.set()

    def broke(self) -> None:
        self._broken = True
        self.pending.clear()
        self.end("stdout is broken")
        self._shrank.set()

    async def send(self, item: SessionMessage) -> None:
        """Take a message over; all waiting comes before that, so that a cancelled send has sent nothing."""
        if self._burst_bytes >= TICK_BYTES:
            self._burst_bytes = 0
            await asyncio.sleep(0)
        await self._room()
        if self._broken or len(self.pending) >= PENDING_LIMIT_BYTES:
            raise anyio.BrokenResourceError
        line = item.message.model_dump_json(by_alias=True, exclude_unset=True).encode() + b"\n"
        if not self.pending:
            self._loop.call_soon(self._wire.write)
        self.pending += line
        self._burst_bytes += len(line)

    async def receive(self) -> SessionMessage:
        """Return the next message and answer the lines that hold none."""
        if self._on_ready is not None:
            self._on_ready()  # the SDK asks for the first message once it has entered the lifespan
            self._on_ready = None
        while True:
            line = await self._next_line()
            message = None if line is None else decode(line)
            if message is not None:
                return SessionMessage(message)
            with suppress(anyio.BrokenResourceError):
                await self.send(SessionMessage(refusal(line)))

    async def _next_line(self) -> bytes | None:
        await self._room()  # the work of a client that does not read its answers would pile up as tasks
        while not self._lines:
            if self._eof:
                self.end("stdin was closed")
                raise anyio.EndOfStream
            self._arrived.clear()
            await self._arrived.wait()
            await self._room()
        line = self._lines.popleft()
        self._held_bytes -= len(line or b"")
        if self._paused and self._held_bytes < LINE_LIMIT_BYTES:
            self._paused = False
            self._wire.resume()
        return line

    async def _room(self) -> None:
        """Wait until more may be pending; after the end nobody waits, and what finds no room is lost."""
        while len(self.pending) >= PENDING_LIMIT_BYTES and self._flush_until is None:
            self._shrank.clear()
            await self._shrank.wait()

    async def aclose(self) -> None:
        """Do nothing: the SDK closes its streams before the lifespan is left and everything is flushed."""


class LineSplitter:
    """Cuts chunks into lines and never holds more than one line of the allowed length."""

    def __init__(self) -> None:
        self._held = bytearray()

    def split(self, chunk: bytes) -> Iterator[bytes | None]:
        """Yield each line that ends in the chunk, with its end, unless it is blank; None for one that was too long."""
        for piece in BytesIO(chunk):  # which ends where a line ends, or the chunk
            self._held += piece[: LINE_LIMIT_BYTES + 1 - len(self._held)]
            if piece.endswith(b"\n"):
                if len(self._held) > LINE_LIMIT_BYTES:
                    yield None
                elif not self._held.isspace():
                    yield bytes(self._held)
                self._held.clear()


def decode(line: bytes) -> rpc.JSONRPCMessage | None:
    """Return the message on a line, None if it holds none."""
    try:
        message = rpc.jsonrpc_message_adapter.validate_json(line, by_name=False)
    except ValueError:
        return None
    # The SDK takes a request whose id is null or a fraction for a notification, and nobody would ever answer it.
    unanswerable = isinstance(message, rpc.JSONRPCNotification) and b'"id"' in line and "id" in from_json(line)
    return None if unanswerable else message


def refusal(line: bytes | None) -> rpc.JSONRPCError:
    """Return the answer to a line that holds no message; None is a line that was too long."""
    code, text = rpc.INVALID_REQUEST, f"Invalid request: a line is one JSON-RPC message of <= {LINE_LIMIT_BYTES} bytes"
    request_id: rpc.RequestId | None = None
    try:
        match from_json(line or b"null"):
            case {"result": _} | {"error": _} | {"id": bool()}:
                pass  # a broken response has an id of ours: it would hit a bystander among the client's own
            case {"id": int() | str() as request_id}:
                pass
            case _:
                pass
    except ValueError:
        code, text = rpc.PARSE_ERROR, "Parse error: the line is not JSON"
    return rpc.JSONRPCError(jsonrpc="2.0", id=request_id, error=rpc.ErrorData(code=code, message=text))


class _Pipes:
    """Carries the bytes as non-blocking pipes in the event loop."""

    def __init__(self, connection: _Connection, source: int, sink: int) -> None:
        self._loop = asyncio.get_running_loop()
        self._connection, self._source, self._sink = connection, source, sink
        os.set_blocking(source, False)
        os.set_blocking(sink, False)
        self.resume()
        # The writing end of a pipe polls readable once nobody reads it; a socket also when its peer sends.
        if stat.S_ISFIFO(os.fstat(sink).st_mode):
            self._loop.add_reader(sink, self._broke)

    def write(self) -> None:
        """Write once, and again whenever there is room, until nothing is pending."""
        try:
            count = os.write(self._sink, self._connection.pending)
        except BlockingIOError:
            count = 0
        except OSError:
            return self._broke()
        self._connection.wrote(count)
        if self._connection.pending:
            self._loop.add_writer(self._sink, self.write)
        else:
            self._loop.remove_writer(self._sink)

    def pause(self) -> None:
        self._loop.remove_reader(self._source)

    def resume(self) -> None:
        self._loop.add_reader(self._source, self._read)

    def close(self) -> None:
        self._loop.remove_reader(self._sink)
        self._loop.remove_writer(self._sink)
        for fd in (self._source, self._sink):
            os.set_blocking(fd, True)  # others who share the open file did not ask for non-blocking
            os.close(fd)

    def _read(self) -> None:
        try:
            chunk = os.read(self._source, CHUNK_BYTES)
        except BlockingIOError:
            return
        except OSError:
            chunk = b""
        self._connection.received(chunk)

    def _broke(self) -> None:
        self._loop.remove_reader(self._sink)
        self._loop.remove_writer(self._sink)
        self._connection.broke()


class _Threads:
    """Carries the bytes with two threads which nobody joins: a blocked read or write cannot be interrupted."""

    def __init__(self, connection: _Connection, source: int, sink: int) -> None:
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
