"""A way to a server that can be stopped, cut and stalled: a port here, and what goes through it."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from urllib.parse import urlsplit

LOOPBACK = "127.0.0.1"


class Wire:
    """Carries what comes to its port to a server, and back what that answers. Made by `wired`."""

    def __init__(self, host: str, port: int) -> None:
        self.swallow_answers = False
        """Whether the next answer is lost, and its connection with it."""
        self.port = 0
        self.carried = 0
        """Connections so far."""
        self._server: asyncio.Server | None = None
        self._to = host, port
        self._ends: set[asyncio.StreamWriter] = set()
        self._carrying: set[asyncio.Task[None]] = set()
        self._flows = asyncio.Event()
        self._flows.set()

    def through(self, url: str) -> str:
        """The URL, or DSN, of the server as it is reached through here."""
        return url.replace(f"//{urlsplit(url).netloc}", f"//{self._netloc(url)}")

    async def mend(self) -> None:
        """Let connections in, and let everything through."""
        self._flows.set()
        if self._server is None:
            self._server = await asyncio.start_server(self._accept, LOOPBACK, self.port)
            self.port = self._server.sockets[0].getsockname()[1]

    async def cut(self) -> None:
        """Break every connection, and let none in until it is mended."""
        await self.stop()
        await self.sever()

    async def stop(self) -> None:
        """Let no new connection in; those there are stay."""
        if self._server is not None:
            self._server.close()
            self._server = None

    async def sever(self) -> None:
        """Break every connection; new ones are let in as before."""
        for end in list(self._ends):
            end.transport.abort()
        for carrying in list(self._carrying):
            carrying.cancel()
        if self._carrying:
            await asyncio.wait(self._carrying)

    def stall(self) -> None:
        """Let connections in, and nothing through, either way, until it is mended."""
        self._flows.clear()

    def _netloc(self, url: str) -> str:
        user, at, _ = urlsplit(url).netloc.rpartition("@")
        return f"{user}{at}{LOOPBACK}:{self.port}"

    async def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.carried += 1
        carrying = asyncio.current_task()
        assert carrying is not None, "asyncio makes one for each connection"
        self._carrying.add(carrying)
        self._ends.add(writer)
        try:
            await self._flows.wait()
            with suppress(OSError):
                await self._carry(reader, writer)
        except asyncio.CancelledError:
            pass  # severed; nobody waits for this task
        finally:
            writer.transport.abort()
            self._ends.discard(writer)
            self._carrying.discard(carrying)

    async def _carry(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        up_reader, up_writer = await asyncio.open_connection(*self._to)
        self._ends.add(up_writer)
        pumps = (
            asyncio.create_task(self._pump(reader, up_writer, answers=False)),
            asyncio.create_task(self._pump(up_reader, writer, answers=True)),
        )
        try:
            await asyncio.wait(pumps, return_when=asyncio.FIRST_COMPLETED)
        finally:
            up_writer.transport.abort()
            self._ends.discard(up_writer)
            for pump in pumps:
                pump.cancel()
            await asyncio.wait(pumps)

    async def _pump(self, source: asyncio.StreamReader, sink: asyncio.StreamWriter, *, answers: bool) -> None:
        with suppress(OSError):
            while data := await source.read(65536):
                await self._flows.wait()
                if answers and self.swallow_answers:
                    self.swallow_answers = False
                    return  # and the connection breaks
                sink.write(data)
                await sink.drain()


@asynccontextmanager
async def wired(host: str, port: int) -> AsyncIterator[Wire]:
    """A way to that server."""
    wire = Wire(host, port)
    await wire.mend()
    try:
        yield wire
    finally:
        await wire.cut()
