"""One MCP connection over a pair of descriptors, and every way it ends, whatever carries its bytes.

The SDK's stdio takes three threads per exchange and cannot be interrupted while it reads. Here a message is serialised
as it is sent, and what was sent in one tick of the loop leaves in one write. What ends the connection (EOF, a signal,
the parent's death, a reader who is gone) looks like EOF to the SDK, so that the lifespan is left in order. Only the
rooms of connections speak asyncio: anyio has no pipes for inherited descriptors.
"""

import asyncio
import logging
import os
import stat
from collections import deque
from collections.abc import Callable
from contextlib import suppress
from typing import Any, Protocol

import anyio
import mcp.types as rpc
from anyio.abc import ObjectReceiveStream, ObjectSendStream
from mcp.server import MCPServer
from mcp.shared.message import ServerMessageMetadata, SessionMessage

from meerkat_mcp.server import lines

PENDING_LIMIT_BYTES = 1024 * 1024  # what may wait for the client to read it; from there on every sender waits
TICK_BYTES = 16 * 1024  # what senders may add before they must let the loop write
CHUNK_BYTES = 64 * 1024  # what is read at once: the size of a Linux pipe
EOF_GRACE_SECONDS = 0.2  # for the lines before an EOF to be taken up
FLUSH_LIMIT_SECONDS = 1.0  # from the end on, for the client to read what was written for it
TEARDOWN_LIMIT_SECONDS = 1.2  # from the end on, for the server to return: clients kill after 2 s in all

logger = logging.getLogger(__name__)


class Wire(Protocol):
    """What carries a connection's bytes, and tells it what came."""

    def write(self) -> None:
        """Write what is pending, now and as there is room, until nothing is."""

    def pause(self) -> None:
        """Read no more for now."""

    def resume(self) -> None:
        """Read on."""

    def close(self) -> None:
        """Let go of the descriptors."""


class Connection(ObjectReceiveStream[SessionMessage], ObjectSendStream[SessionMessage]):
    """One connection from its first byte to its end; it is both streams which the SDK asks for."""

    def __init__(self, open_wire: Callable[["Connection"], Wire], on_ready: Callable[[], None] | None = None) -> None:
        self.pending = bytearray()  # what the client has not read; not empty: a write is scheduled or under way
        self._loop = asyncio.get_running_loop()
        self._wire = open_wire(self)
        self._on_ready = on_ready
        self._serving = anyio.CancelScope()
        self._flush_until: float | None = None  # not None: the connection has ended
        self._splitter = lines.LineSplitter()
        self._lines: deque[bytes | None] = deque()
        self._held_bytes = self._burst_bytes = 0
        self._paused = self._eof = self._broken = False
        self._arrived, self._shrank = asyncio.Event(), asyncio.Event()

    @property
    def ended(self) -> bool:
        """Whether nothing more comes from the client, nor from us what was not on its way by then."""
        return self._flush_until is not None

    async def serve(self, server: MCPServer[Any]) -> None:
        """Serve until the connection has ended, and close the wire."""
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
            logger.info("the connection ends: %s", reason)
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
        if self._held_bytes >= lines.LINE_LIMIT_BYTES and not self._paused:
            self._paused = True
            self._wire.pause()
        if not chunk:
            self._eof = True
            self._wire.pause()
            self._loop.call_later(EOF_GRACE_SECONDS, self.end, "the client closed it, and what it said is not taken up")
        self._arrived.set()

    def wrote(self, count: int) -> None:
        """The client's end took so much of what is pending."""
        del self.pending[:count]
        self._shrank.set()

    def broke(self) -> None:
        """Nothing more can be written."""
        self._broken = True
        self.pending.clear()
        self.end("nobody reads what is written")
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
            message = None if line is None else lines.decode(line)
            if message is not None:
                return SessionMessage(message, self._about(message))
            with suppress(anyio.BrokenResourceError):
                await self.send(SessionMessage(lines.refusal(line)))

    def _about(self, message: rpc.JSONRPCMessage) -> ServerMessageMetadata | None:
        """What whoever answers the message should know of how it came."""

    async def _next_line(self) -> bytes | None:
        await self._room()  # the work of a client that does not read its answers would pile up as tasks
        while not self._lines:
            if self._eof:
                self.end("the client closed it")
                raise anyio.EndOfStream
            self._arrived.clear()
            await self._arrived.wait()
            await self._room()
        line = self._lines.popleft()
        self._held_bytes -= len(line or b"")
        if self._paused and self._held_bytes < lines.LINE_LIMIT_BYTES:
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


class Pipes:
    """Carries the bytes through non-blocking descriptors in the event loop: pipes, or a socket (twice the same one)."""

    def __init__(self, connection: Connection, source: int, sink: int) -> None:
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
        """Read no more for now."""
        self._loop.remove_reader(self._source)

    def resume(self) -> None:
        """Read on."""
        self._loop.add_reader(self._source, self._read)

    def close(self) -> None:
        """Let go of the descriptors."""
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
