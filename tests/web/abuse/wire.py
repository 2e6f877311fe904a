"""HTTP by the byte: what a client library would never send, and what comes back, as it comes back."""

from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from types import TracebackType

import anyio
from anyio.abc import ByteStream

CHUNK_BYTES = 65_536
LARGE = 32 * 1024
"""What is larger is sent while the answer is awaited: a server may answer before it has read all."""
GONE = (anyio.EndOfStream, anyio.BrokenResourceError, anyio.ClosedResourceError)

Headers = Sequence[tuple[str, str]]


@dataclass(frozen=True)
class Answer:
    """A response; `status` 0: the connection was closed without one. `closes`: there will be no other on it."""

    status: int
    headers: tuple[tuple[str, str], ...] = ()
    body: bytes = b""
    closes: bool = True

    def header(self, name: str) -> str:
        return ", ".join(value for key, value in self.headers if key == name)

    @property
    def text(self) -> str:
        return self.body.decode(errors="replace")


def request(method: str, path: str, headers: Headers = (), body: bytes = b"", *, length: bool = True) -> bytes:
    """A request as bytes; what is in `headers` goes out as it is. No Content-Length without `length`."""
    lines = [f"{method} {path} HTTP/1.1", *(f"{name}: {value}" for name, value in headers)]
    if length and (body or method in ("POST", "PUT", "PATCH")):
        lines.append(f"Content-Length: {len(body)}")
    return "\r\n".join((*lines, "", "")).encode("latin-1", "surrogateescape") + body


def chunked(*chunks: bytes) -> bytes:
    """A body in chunks, with its end."""
    return b"".join(b"%x\r\n%b\r\n" % (len(chunk), chunk) for chunk in (*chunks, b""))


class Wire:
    """A connection that is opened when it is needed, and again after the server has closed it."""

    def __init__(self, host: str, port: int) -> None:
        self._where = (host, port)
        self._stream: ByteStream | None = None
        self._held = b""

    async def __aenter__(self) -> "Wire":
        return self

    async def __aexit__(self, _: type[BaseException] | None, __: BaseException | None, ___: TracebackType | None):
        await self.close()

    async def close(self) -> None:
        if self._stream is not None:
            with anyio.CancelScope(shield=True), suppress(*GONE):
                await self._stream.aclose()
        self._stream, self._held = None, b""

    async def send(self, raw: bytes) -> None:
        """Send, and wait for nothing."""
        if self._stream is None:
            self._stream = await anyio.connect_tcp(*self._where)
        await self._stream.send(raw)

    async def ask(self, raw: bytes) -> Answer:
        """Send a request and read what comes."""
        kept = self._stream is not None
        answer = await self._asked(raw)
        if kept and not answer.status:
            answer = await self._asked(raw)  # it was closed while nobody looked, as servers may
        if answer.closes:
            await self.close()
        return answer

    async def _asked(self, raw: bytes) -> Answer:
        head_only = raw.startswith(b"HEAD ")
        try:
            if len(raw) <= LARGE:
                with suppress(*GONE):
                    await self.send(raw)
                return await self.answer(head_only=head_only)
            answers: list[Answer] = []
            await self.send(b"")
            async with anyio.create_task_group() as tasks:
                tasks.start_soon(self._pushed, raw)
                answers.append(await self.answer(head_only=head_only))
                tasks.cancel_scope.cancel()
            return answers[0]
        except GONE:
            await self.close()
            return Answer(0)

    async def _pushed(self, raw: bytes) -> None:
        with suppress(*GONE):
            await self.send(raw)

    async def answer(self, *, head_only: bool = False) -> Answer:
        """The next response, or only the head of it. Raises one of GONE when there is none."""
        status = 100
        while 100 <= status < 200:
            head = await self._until(b"\r\n\r\n")
            first, *lines = head.decode("latin-1").split("\r\n")
            status = int(first.split(" ")[1])
        pairs = (line.partition(":") for line in lines if line)
        headers = tuple((name.lower(), value.strip()) for name, _, value in pairs)
        answer = Answer(status, headers)
        closes = "close" in answer.header("connection").lower()
        if head_only or status in (204, 304):
            body = b""
        elif "chunked" in answer.header("transfer-encoding"):
            body = await self.chunks()
        elif length := answer.header("content-length"):
            body = await self._exactly(int(length))
        else:
            body, closes = await self._rest(), True
        return Answer(status, headers, body, closes)

    async def _more(self) -> None:
        if self._stream is None:
            raise anyio.ClosedResourceError
        self._held += await self._stream.receive(CHUNK_BYTES)

    async def _until(self, mark: bytes) -> bytes:
        while (at := self._held.find(mark)) < 0:
            await self._more()
        found, self._held = self._held[:at], self._held[at + len(mark) :]
        return found

    async def _exactly(self, count: int) -> bytes:
        while len(self._held) < count:
            await self._more()
        found, self._held = self._held[:count], self._held[count:]
        return found

    async def chunks(self) -> bytes:
        """A body in chunks, to its end. Raises one of GONE when it is cut off."""
        body = b""
        while size := int(await self._until(b"\r\n"), 16):
            body += await self._exactly(size)
            await self._until(b"\r\n")
        await self._until(b"\r\n")
        return body

    async def _rest(self) -> bytes:
        with suppress(*GONE):
            while True:
                await self._more()
        found, self._held = self._held, b""
        return found
