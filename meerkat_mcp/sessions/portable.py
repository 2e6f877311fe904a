"""A session as a file that can be carried elsewhere: JSON lines.

    {"meerkat_session":1,"realm_id":"den","session_id":"019a…","exported_ms":…,"version":"0.1.0","state":"idle",…}
    {"type":"session_created",…,"seq":1,…}      one event a line, the bytes that the store has
    …
    {"meerkat_session_end":1,"events":7,"sha256":"…"}

The first line says what the file is, the last one how many events there are and the SHA-256 of their lines, each with
its line end `\\n`: a file that was cut, or changed, is recognised. `last_seq` of the first line is how far the log went
then; where the last events were deltas that a text took the place of since, the last event here comes before it.

What is read may be anybody's: nothing of it is taken for granted. A reader passes over fields of the first and last
line that it does not know, and refuses a format that is newer than its own.
"""

import re
from collections.abc import AsyncGenerator, AsyncIterable
from hashlib import sha256
from typing import Annotated, TypeVar

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from meerkat_mcp.domain.errors import InvalidRequest
from meerkat_mcp.domain.events import Event
from meerkat_mcp.domain.recorded import Recorded
from meerkat_mcp.domain.session import Session
from meerkat_mcp.domain.version import VERSION
from meerkat_mcp.sessions.journal import Journal

FORMAT = 1
LINE_BYTES_MAX = 64 * 1024 * 1024
"""Of one event. The largest that our tools make, a result full of pictures, has 12 MB."""
NUMBER_MAX = 2**53
"""Of a seq or a time: what every store and every reader of JSON has room for."""

_BEGIN = re.compile(rb'\s*\{\s*"meerkat_session"')
_END = re.compile(rb'\s*\{\s*"meerkat_session_end"')
_BOM = b"\xef\xbb\xbf"

Number = Annotated[int, Field(ge=0, le=NUMBER_MAX)]


class _Line(BaseModel):
    model_config = ConfigDict(frozen=True, extra="ignore")


class Header(_Line):
    """The first line: which session this was, and when. `state` is what it was doing, `last_seq` its last event."""

    meerkat_session: int
    realm_id: str = Field(max_length=64)
    session_id: str = Field(pattern=r"^[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}$")
    exported_ms: Number
    version: str = Field(max_length=64)
    state: str = Field(max_length=64)
    last_seq: int = Field(ge=1, le=NUMBER_MAX)


class Trailer(_Line):
    """The last line."""

    meerkat_session_end: int
    events: int
    sha256: str


L = TypeVar("L", bound=_Line)

# ── writing ──


async def export(journal: Journal, realm_id: str, session: Session) -> AsyncGenerator[bytes]:
    """The lines of the file, each with its end: the session up to its last event, however many come meanwhile.

    Raises:
        SessionNotFound: it was deleted meanwhile.
    """
    header = Header(
        meerkat_session=FORMAT,
        realm_id=realm_id,
        session_id=session.id,
        exported_ms=journal.clock.now_ms(),
        version=VERSION,
        state=session.state,
        last_seq=session.seq,
    )
    yield _written(header)
    digest, count = sha256(), 0
    async for recorded in journal.log(session.id, through=session.seq):
        line = recorded.body + b"\n"
        digest.update(line)
        count += 1
        yield line
    await journal.load(session.id)  # a log that was deleted is not one that ends here
    yield _written(Trailer(meerkat_session_end=FORMAT, events=count, sha256=digest.hexdigest()))


def _written(line: _Line) -> bytes:
    return line.model_dump_json().encode() + b"\n"


# ── reading ──


async def unpacked(pieces: AsyncIterable[bytes]) -> tuple[Header, AsyncGenerator[Event]]:
    """What a file says of itself, and its events as they are read. That it is whole is known after the last one.

    Raises InvalidRequest, the events too: it is no export, a newer one, cut, or changed.
    """
    lines = _lines(pieces)
    line = await anext(lines, b"")
    if not _BEGIN.match(line):
        raise InvalidRequest(
            "This is no exported session: its first line does not say so.",
            hint="Export one with: meerkat-mcp session export REF --output FILE.jsonl; markdown cannot be imported.",
        )
    header = _read(Header, line, 1)
    if header.meerkat_session != FORMAT:
        raise InvalidRequest(
            f"This export has format {header.meerkat_session}, of version {header.version!r}; {VERSION} reads "
            f"format {FORMAT}.",
            hint="Import it with a version that knows its format.",
        )
    return header, _events(header, lines)


async def _events(header: Header, lines: AsyncGenerator[bytes]) -> AsyncGenerator[Event]:
    digest, count, last = sha256(), 0, 0
    async for line in lines:
        if _END.match(line):
            _check_end(_read(Trailer, line, count + 2), count, digest.hexdigest())
            async for more in lines:
                if more.strip():
                    raise InvalidRequest("There is more after the end of the session.", hint="A file has one session.")
            return
        event = _event(line, count + 2, header)
        if not last < event.seq <= header.last_seq or (last == 0 and event.seq != 1):
            raise _wrong(count + 2, f"its seq is {event.seq}, after {last}, in a log of {header.last_seq}")
        digest.update(line + b"\n")
        count, last = count + 1, event.seq
        yield event
    raise InvalidRequest(
        f"The file is cut: it ends after {count} events, without its last line.", hint="Export the session again."
    )


def _check_end(trailer: Trailer, count: int, digest: str) -> None:
    if not count:
        raise InvalidRequest("The file has no event: a session has at least its first.")
    if (trailer.events, trailer.sha256) != (count, digest):
        found = f"{count} events where it says {trailer.events}" if trailer.events != count else "another SHA-256"
        raise InvalidRequest(
            f"The file is not what was exported: it has {found}.", hint="Use the file as it was, or export it again."
        )


def _event(line: bytes, number: int, header: Header) -> Event:
    try:
        event = Recorded(0, "", line).event
    except ValidationError as exc:
        error = exc.errors(include_url=False, include_input=False)[0]
        if error["type"] == "union_tag_invalid":
            raise _wrong(
                number, f"version {VERSION} does not know events of this type; it is of {header.version!r}"
            ) from None
        where = ".".join(str(part) for part in error["loc"][1:])
        raise _wrong(number, f"{where}: {error['msg']}" if where else error["msg"]) from None
    if event.session_id != header.session_id:
        raise _wrong(number, "it is of another session")
    if not 0 <= event.timestamp_ms <= NUMBER_MAX:
        raise _wrong(number, "its time is none")
    return event


def _read(kind: type[L], line: bytes, number: int) -> L:
    try:
        return kind.model_validate_json(line)
    except ValidationError as exc:
        error = exc.errors(include_url=False, include_input=False)[0]
        raise _wrong(number, f"{'.'.join(map(str, error['loc']))}: {error['msg']}") from None


def _wrong(number: int, why: str) -> InvalidRequest:
    return InvalidRequest(f"Line {number} of the file is not as it should be: {why}.")


async def _lines(pieces: AsyncIterable[bytes]) -> AsyncGenerator[bytes]:
    """The lines of a file without their ends, which may have become those of Windows on the way."""
    held, first = bytearray(), True
    async for piece in pieces:
        before, *whole = piece.split(b"\n")
        held += before
        if len(held) > LINE_BYTES_MAX or any(len(line) > LINE_BYTES_MAX for line in whole):
            raise InvalidRequest(f"A line of the file is longer than {LINE_BYTES_MAX} bytes.")
        if whole:
            *whole, rest = whole
            for line in (bytes(held), *whole):
                yield line.removeprefix(_BOM if first else b"").removesuffix(b"\r")
                first = False
            held = bytearray(rest)
    if held:
        yield bytes(held).removeprefix(_BOM if first else b"")
