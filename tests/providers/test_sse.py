"""Server-sent events: any cut of the bytes gives the same events, and what is none is an error."""

import itertools
import json
from collections.abc import AsyncIterator, Sequence
from typing import Any

import anyio
import httpx2
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from meerkat_mcp.domain.errors import ProviderUnavailable
from meerkat_mcp.domain.messages import JsonObject
from meerkat_mcp.providers import sse

pytestmark = pytest.mark.anyio
ENDS = ("\n", "\r\n", "\r")


class Chunks(httpx2.AsyncByteStream):
    """A body of these chunks; then it breaks, hangs, or just ends."""

    def __init__(self, chunks: Sequence[bytes], then: Exception | anyio.Event | None = None) -> None:
        self.chunks = chunks
        self.then = then
        self.closed = False

    async def __aiter__(self) -> AsyncIterator[bytes]:
        for chunk in self.chunks:
            yield chunk
        if isinstance(self.then, Exception):
            raise self.then
        if self.then is not None:
            await self.then.wait()

    async def aclose(self) -> None:
        self.closed = True


def cut(stream: bytes, places: Sequence[int]) -> list[bytes]:
    """The stream in pieces, some of them empty."""
    at = [0, *sorted(place % (len(stream) + 1) for place in places), len(stream)]
    return [stream[start:end] for start, end in itertools.pairwise(at)]


def fed(chunks: Sequence[bytes], event_bytes_max: int = sse.EVENT_BYTES_MAX) -> tuple[list[bytes], bool]:
    """The data of all events, and whether one was too long."""
    cutter, found = sse.Cutter("someone", event_bytes_max), list[bytes]()
    try:
        for chunk in chunks:
            for data in cutter.feed(chunk):
                found += [data]
    except ProviderUnavailable:
        return found, True
    return found, False


async def events(*chunks: bytes, then: Any = None) -> list[JsonObject]:
    """All that a stream of these chunks says."""
    response = httpx2.Response(200, stream=Chunks(chunks, then))
    with anyio.fail_after(5):
        return [event async for event in sse.events(response, "someone")]


# ── any cut ──

lines = st.sampled_from(
    ["data: {", 'data:"a": "é😀\u2028\u0085\x0b"', "data:}", "data", ": hm", "id: 7", "event", "datas: x", ""]
)
streams = st.lists(st.tuples(lines, st.sampled_from(ENDS)), max_size=20).map(
    lambda told: "".join(f"{line}{end}" for line, end in told).encode()
)
places = st.lists(st.integers(0, 10_000), max_size=30)


@given(st.one_of(streams, st.binary(max_size=100)), places, st.sampled_from([8, 30, 10_000]))
@example(b"\xef\xbb\xbfdata: 1\r\n\r\n", [1, 2, 12, 13], 10_000)
@example(b"data: 1\r\n\r\ndata: 2\r\rdata: 3\n\n", list(range(40)), 10_000)
def test_any_cut_gives_the_same_events(stream: bytes, places: list[int], most: int):
    assert fed(cut(stream, places), most) == fed([stream], most)


@given(st.lists(st.dictionaries(st.text(), st.text(), min_size=1)), st.booleans(), st.booleans(), places, st.data())
def test_what_was_written_is_read_whatever_ends_the_lines(
    told: list[JsonObject], marked: bool, indented: bool, places: list[int], data: st.DataObject
):
    end = data.draw(st.sampled_from(ENDS))
    written = [json.dumps(event, indent=1 if indented else None).splitlines() for event in told]
    frames = [[": hm", "event: x", *(f"data: {line}" for line in event), "id: 7", ""] for event in written]
    stream = ("\ufeff" if marked else "") + "".join(f"{line}{end}" for frame in frames for line in frame)
    found, _ = fed(cut(stream.encode(), places))
    assert [json.loads(event) for event in found] == told


# ── the rules ──


@pytest.mark.parametrize(
    ("stream", "found"),
    [
        (b"data: 1\n\n", [b"1"]),
        (b"data:1\ndata: 2\n\n", [b"1\n2"]),
        (b"data:  1 \n\n", [b"1"]),
        (b"data: 1\n", []),
        (b"data: 1", []),
        (b"data\n\ndata:\n\n\n\n", []),
        (b"datum: 1\ndata : 2\n data: 3\nDATA: 4\n\n", []),
        (b": data: 1\n\n", []),
        (b"event: ping\n\n", []),
        (b"data: 1\n: data: 3\nid: 4\nretry: 5\ndata: 2\n\n", [b"1\n2"]),
        (b"\xef\xbb\xbfdata: 1\n\n\xef\xbb\xbfdata: 2\n\n", [b"1"]),
        (b"data: 1\r\rdata: 2\r\n\r\ndata: 3\n\n", [b"1", b"2", b"3"]),
        (b"data: 1\x0b2\x0c3\x1c4\x854\n\n", [b"1\x0b2\x0c3\x1c4\x854"]),
    ],
)
def test_events_are_cut_by_the_standards_rules(stream: bytes, found: list[bytes]):
    assert fed([stream]) == (found, False)


def test_an_event_is_there_as_soon_as_its_last_line_ends():
    cutter = sse.Cutter("someone")
    assert list(cutter.feed(b"data: 1\r")) == []
    assert list(cutter.feed(b"\n\r")) == [b"1"]
    assert list(cutter.feed(b"\n")) == []


def test_an_event_that_is_too_long_is_an_error_before_it_ends():
    assert fed([b"data: 123\n\n"] * 3, 9) == ([b"123"] * 3, False)
    assert fed([b"data: 1\n", b"data: 2\n\n"], 13) == ([], True)
    assert fed([b"data: 1\n\ndata: ", b"2345"], 9) == ([b"1"], True)
    assert fed([b": hm\n"] * 100, 9) == ([], False), "comments are not kept"


# ── objects ──


async def test_events_are_objects_and_end_where_they_are_said_to():
    assert await events(b'data: {"a": [1, null]}\n\ndata: {}\n\n') == [{"a": [1, None]}, {}]
    assert await events(b'data: {"a": 1}\n\ndata: [DONE]\n\ndata: {"a": 2}\n\n') == [{"a": 1}]


@pytest.mark.parametrize("then", [httpx2.ReadError("gone"), anyio.Event()], ids=["breaks", "stays open"])
async def test_what_comes_after_the_end_does_not_matter(then: Any, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(sse, "DRAIN_S", 0.01)
    assert await events(b'data: {"a": 1}\n\ndata: [DONE]\n\n', then=then) == [{"a": 1}]


@pytest.mark.parametrize(
    "data",
    [
        b"{nonsense",
        b"5",
        b"null",
        b"[1]",
        b'"x"',
        b'{"a": "\xff"}',
        b'{"a": "\\ud83d"}',
        b'{"a": NaN}',
        b'{"a": -Infinity}',
        b'{"a":' + b"[" * 199 + b"]" * 199 + b"}",
        b'{"a":' + b"[" * 5_000 + b"]" * 5_000 + b"}",
    ],
    ids=lambda data: data[:20],
)
async def test_what_cannot_be_kept_is_a_garbled_stream(data: bytes):
    with pytest.raises(ProviderUnavailable, match="someone: the stream is garbled") as caught:
        await events(b"data: " + data + b"\n\n")
    assert caught.value.facts["kind"] == "malformed"


async def test_what_is_too_long_is_a_garbled_stream():
    long = b'data: {"a": "' + b"x" * sse.EVENT_BYTES_MAX
    with pytest.raises(ProviderUnavailable, match="longer than 16777216 bytes") as caught:
        await events(*[long[at : at + 1_000_000] for at in range(0, len(long), 1_000_000)])
    assert caught.value.facts["kind"] == "malformed"


async def test_what_the_network_raises_is_let_through():
    with pytest.raises(httpx2.ReadError):
        await events(b'data: {"a": 1}\n\n', then=httpx2.ReadError("gone"))


async def test_leaving_closes_the_body():
    body = Chunks([b'data: {"a": 1}\n\n'], anyio.Event())
    response = httpx2.Response(200, stream=body)
    with anyio.fail_after(5):
        reading = sse.events(response, "someone")
        assert await anext(reading) == {"a": 1}
        await reading.aclose()
    assert body.closed
