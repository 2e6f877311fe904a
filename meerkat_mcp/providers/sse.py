"""Server-sent events as JSON objects.

The SDKs' typed readers cost up to a hundred times as much for every piece, and lose or stumble over what they do not
know. httpx2 has an `EventSource`, but it turns bytes that are no UTF-8 into other characters without a word, and
insists on the content type, which many a compatible server gets wrong. Here a stream is right or an error.
"""

from collections.abc import AsyncGenerator, Iterator
from contextlib import aclosing
from typing import TYPE_CHECKING, cast

import anyio
from pydantic_core import from_json

from meerkat_mcp.domain.errors import MeerkatError
from meerkat_mcp.domain.messages import JsonObject, legible
from meerkat_mcp.providers import wire

if TYPE_CHECKING:
    import httpx2

EVENT_BYTES_MAX = 16 * 1024 * 1024
DRAIN_S = 0.5

_BOM = b"\xef\xbb\xbf"
_DONE = b"[DONE]"


async def events(response: "httpx2.Response", provider: str) -> AsyncGenerator[JsonObject]:
    """The events of a stream, until it ends or says `[DONE]`. Their names and ids are of no interest.

    Raises:
        MeerkatError: an event is no object that can be kept, or longer than `EVENT_BYTES_MAX`.
        httpx2.HTTPError: the connection failed.
    """
    cutter = Cutter(provider)
    async with aclosing(response.aiter_bytes()) as chunks:
        async for chunk in chunks:
            for data in cutter.feed(chunk):
                if data.startswith(_DONE):
                    await drain(chunks)
                    return
                yield _object(data, provider)


async def drain(stream: AsyncGenerator[object]) -> None:
    """Read what follows the last thing of interest, so that the connection can be used again; not for long."""
    with anyio.move_on_after(DRAIN_S):
        try:
            async for _ in stream:
                pass
        except Exception:
            pass  # what was asked for is here already, whatever happens to the line now


class Cutter:
    """Cuts a stream into the data of its events, by the rules of the HTML standard (§9.2.6). Bytes come as they like.

    An event whose data is empty says nothing, and is passed over.
    """

    def __init__(self, provider: str, event_bytes_max: int = EVENT_BYTES_MAX) -> None:
        self._provider = provider
        self._bytes_max = event_bytes_max
        self._begun = False
        self._after_cr = False
        self._line: list[bytes] = []  # pieces of a line that has not ended
        self._line_bytes = 0
        self._data: list[bytes] = []
        self._data_bytes = 0

    def feed(self, chunk: bytes) -> Iterator[bytes]:
        """The data of the events that end in this chunk.

        Raises:
            MeerkatError: an event is too long.
        """
        if not chunk:
            return
        if self._after_cr:
            chunk = chunk.removeprefix(b"\n")  # the other half of a line end
        self._after_cr = chunk.endswith(b"\r")
        lines = chunk.splitlines()
        last = lines.pop() if lines and not chunk.endswith((b"\n", b"\r")) else b""
        for line in lines:
            if self._line:
                self._line.append(line)
                line = b"".join(self._line)
                self._line, self._line_bytes = [], 0
            if (data := self._take(line)) is not None:
                yield data
        if last:
            self._line.append(last)
            self._line_bytes += len(last)
            self._check(self._line_bytes)

    def _take(self, line: bytes) -> bytes | None:
        """The data of the event that this line ends, if it does."""
        self._check(len(line))
        if not self._begun:
            self._begun = True
            line = line.removeprefix(_BOM)
        if not line:
            data = b"\n".join(self._data)
            self._data, self._data_bytes = [], 0
            return data.strip() or None
        name, _, value = line.partition(b":")
        if name == b"data":
            self._data.append(value.removeprefix(b" "))
            self._data_bytes += len(line)
        return None

    def _check(self, more: int) -> None:
        if self._data_bytes + more > self._bytes_max:
            raise _garbled(self._provider, f"an event is longer than {self._bytes_max} bytes")


def _object(data: bytes, provider: str) -> JsonObject:
    """The JSON object of an event.

    Raises:
        MeerkatError: it is none that can be kept: no JSON, no object, half a character, NaN, nested too deep.
    """
    try:
        value = from_json(data, allow_inf_nan=False)
    except ValueError as exc:
        raise _garbled(provider, f"an event is no JSON: {exc}") from exc
    if not isinstance(value, dict):
        raise _garbled(provider, "an event is no object")
    if not legible(data):
        raise _garbled(provider, "an event is nested too deep")
    return cast(JsonObject, value)


def _garbled(provider: str, why: str) -> MeerkatError:
    return wire.failure("malformed", provider, f"the stream is garbled ({why})")
