"""The format of a session's file, and what is known of a file that was read.

`docs/reference/jsonl-format.md` has it for people. In short: a line is an event, as it was recorded; or it is a
*note*, `{"$append": …}`, which says that the next so many events entered together, and what else entered with them.
An event without a note entered alone. So a file that ends within an append shows it, and is cut back to the one before.

What was superseded stays in the file until that is worth a rewriting; the numbers that are missing then are those that
some note says are superseded or missing, and any other gap is damage.
"""

from array import array
from bisect import bisect_left, bisect_right
from collections.abc import Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, NoReturn, cast

from pydantic import ValidationError
from pydantic_core import from_json

from meerkat_mcp.domain.events import DELTAS
from meerkat_mcp.domain.messages import JsonObject
from meerkat_mcp.domain.recorded import Recorded
from meerkat_mcp.domain.session import SHOWN_TYPES, Session, advance
from meerkat_mcp.stores.base import READ_BYTES_MAX, Append, Claim
from meerkat_mcp.stores.jsonl_notes import Note, is_note, note

_WASTE_MIN_B = 65_536
_SEQ_END = 1 << 63


class Foreign(Exception):
    """The file is no session's, or not the one's that its name says."""


class Damage(Exception):
    """The file contradicts itself in a line, and not only because its end is missing."""

    def __init__(self, line: int, why: str) -> None:
        super().__init__(f"line {line} {why}")
        self.line = line


class Unreadable(Exception):
    """This line says nothing."""


@dataclass(frozen=True, slots=True)
class Line:
    """An event's line: from `start` to `end` in the file, the line end included."""

    seq: int
    type: str
    start: int
    end: int

    def recorded(self, raw: bytes) -> Recorded:
        """The event, with the bytes that the file has."""
        return Recorded(self.seq, self.type, raw[:-1])


class Table:
    """Where the events of a log are that were not superseded: four columns, since a log can have very many."""

    def __init__(self) -> None:
        self._seqs, self._starts, self._ends = array("q"), array("q"), array("q")
        self._types: list[str] = []

    def __len__(self) -> int:
        return len(self._seqs)

    @property
    def seqs(self) -> set[int]:
        """The numbers of all events."""
        return set(self._seqs)

    @property
    def types(self) -> dict[int, str]:
        """The types of all events, by number."""
        return dict(zip(self._seqs, self._types, strict=True))

    def add(self, line: Line) -> None:
        """The next event."""
        self._seqs.append(line.seq)
        self._starts.append(line.start)
        self._ends.append(line.end)
        self._types.append(line.type)

    def supersede(self, gone: range) -> int:
        """Take the deltas with these numbers out; how many bytes they are."""
        first, end = bisect_left(self._seqs, gone.start), bisect_left(self._seqs, gone.stop)
        lines = [self._line(at) for at in range(first, len(self))]
        for column in (self._seqs, self._starts, self._ends, self._types):
            del column[first:]
        bytes_gone = 0
        for at, line in enumerate(lines, first):
            if at < end and line.type in DELTAS:
                bytes_gone += line.end - line.start
            else:
                self.add(line)
        return bytes_gone

    def select(self, after: int, through: int | None, types: Collection[str], limit: int) -> list[Line]:
        """The first of those with `after < seq <= through`, of these types if some are named: what is read at once."""
        at = bisect_right(self._seqs, after)
        end = len(self) if through is None else bisect_right(self._seqs, through)
        found, size = list[Line](), 0
        while at < end and len(found) < limit and size < READ_BYTES_MAX:
            if not types or self._types[at] in types:
                found.append(self._line(at))
                size += self._ends[at] - self._starts[at] - 1
            at += 1
        return found

    def _line(self, at: int) -> Line:
        return Line(self._seqs[at], self._types[at], self._starts[at], self._ends[at])


@dataclass(slots=True)
class Log:
    """What is known of a session's file. `shown` is the session as of the latest event that a list shows.

    `size` is where its last whole append ends, `torn` whether more than that is in the file. `wasted` are bytes of
    superseded deltas. `version` is odd while the file is rewritten, and is another one when places in it are others.
    """

    session: Session
    shown: Session
    claims: tuple[Claim, ...] = ()
    table: Table = field(default_factory=Table)
    size: int = 0
    torn: bool = False
    wasted: int = 0
    version: int = 0

    @property
    def wasteful(self) -> bool:
        """Whether rewriting the file is worth it: every byte is then rewritten once on average, however long it is."""
        return self.wasted > max(_WASTE_MIN_B, self.size - self.wasted)

    def take(self, append: Append, lines: Iterable[Line], size: int) -> None:
        """An append is in the file now."""
        self.enter(lines, Note.of(append), size)
        self.session = append.session
        if append.shown or append.begins:
            self.shown = append.session

    def enter(self, lines: Iterable[Line], note: Note, size: int) -> None:
        """Events entered together, and now the file ends at `size`."""
        for line in lines:
            self.table.add(line)
        if note.superseded:
            self.wasted += self.table.supersede(note.superseded)
        if note.forgotten_ms:
            self.claims = tuple(claim for claim in self.claims if claim.created_ms >= note.forgotten_ms)
        if note.claim:
            self.claims = (*self.claims, note.claim)
        self.size = size


def written(append: Append, at: int) -> tuple[bytes, list[Line]]:
    """An append as it goes into a file at `at`, and where its events are then."""
    note = Note.of(append)
    data = bytearray(note.line if note.needed else b"")
    lines: list[Line] = []
    for event in append.events:
        start = at + len(data)
        data += event.body
        data += b"\n"
        lines.append(Line(event.seq, event.type, start, at + len(data)))
    return bytes(data), lines


class Reader:
    """Reads a file line by line; `known` is a session of which the events are not looked into once more."""

    def __init__(self, session_id: str, known: Session | None = None) -> None:
        session = known or Session(id=session_id)
        self.log = Log(session, session)
        self._known_seq = session.seq
        self._last_seq = 0
        self._note: Note | None = None
        self._append: list[tuple[Line, bytes]] = []
        self._gaps: list[tuple[range, int]] = []
        self._gone: list[range] = []
        self._line = 0
        self._end = 0

    def read(self, file: Iterable[bytes]) -> Log:
        """What the file has. Raises Foreign, Damage."""
        lines = iter(file)
        for raw in lines:
            self._line += 1
            self._end += len(raw)
            try:
                parsed = _parsed(raw)
            except Unreadable as unreadable:
                self._refuse_unless_torn(raw, lines, str(unreadable))
                break
            if is_note(parsed):
                self._take_note(parsed)
            elif not self._last_seq and not self._begins(parsed):
                self._refuse_beginning(lines, "is not the first event of this session")
            else:
                self._take_event(parsed, raw)
        self.log.torn = self._end > self.log.size
        self._refuse_gaps()
        return self.log

    def _begins(self, parsed: JsonObject) -> bool:
        return (parsed["seq"], parsed["type"]) == (1, "session_created") and self._is_ours(parsed)

    def _is_ours(self, parsed: JsonObject) -> bool:
        return parsed.get("session_id") == self.log.session.id

    def _refuse_beginning(self, rest: Iterator[bytes], why: str) -> NoReturn:
        """A file that does not begin as a session is damaged if something in it is of this session, else foreign."""
        for later in rest:
            try:
                if self._is_ours(_parsed(later)):
                    raise Damage(self._line, why)
            except Unreadable:
                continue
        raise Foreign

    def _refuse_unless_torn(self, raw: bytes, rest: Iterator[bytes], why: str) -> None:
        """What a crash leaves is an end that says nothing: after it comes nothing that the disk was waited for."""
        if not self._last_seq and not raw.startswith((b"{", b"\0")):
            self._refuse_beginning(rest, why)
        for later in rest:
            try:
                parsed = _parsed(later)
            except Unreadable:
                continue
            if is_note(parsed) or parsed["type"] not in DELTAS:
                raise Damage(self._line, why)

    def _take_note(self, parsed: JsonObject) -> None:
        if self._note is not None:
            raise Damage(self._line, f"begins an append where {self._missing} events of the one before are missing")
        try:
            self._note = note(parsed, self.log.session.id)
        except ValidationError as error:
            raise Damage(self._line, "is no note that this program knows") from error
        if not self._note.events:
            self._commit()

    @property
    def _missing(self) -> int:
        return self._note.events - len(self._append) if self._note else 0

    def _take_event(self, parsed: JsonObject, raw: bytes) -> None:
        line = Line(parsed["seq"], parsed["type"], self._end - len(raw), self._end)
        if line.seq <= self._last_seq:
            raise Damage(self._line, f"has the number {line.seq} after {self._last_seq}")
        if not self._append and line.seq > self._last_seq + 1:
            self._gaps.append((range(self._last_seq + 1, line.seq), self._line))
        self._last_seq = line.seq
        self._append.append((line, raw))
        if self._note is None or not self._missing:
            self._commit()

    def _commit(self) -> None:
        log, note = self.log, self._note or Note(1)
        shown = not len(log.table)
        for number, (line, raw) in enumerate(self._append, self._line - len(self._append) + 1):
            shown = shown or line.type in SHOWN_TYPES
            if line.seq > self._known_seq:
                try:
                    log.session = advance(log.session, line.recorded(raw).event)
                except (ValidationError, AssertionError) as error:
                    raise Damage(number, "is no event that this program knows, or not in its place") from error
        if shown and log.session.seq > self._known_seq:
            log.shown = log.session
        log.enter((line for line, _ in self._append), note, self._end)
        self._gone += [gone for gone in (note.superseded, note.missing) if gone]
        self._append, self._note = [], None

    def _refuse_gaps(self) -> None:
        """Every number that is missing must be one that some note says is gone."""
        if not self._gaps:
            return
        gone = _joined(self._gone)
        for gap, line in self._gaps:
            at = bisect_right(gone, gap.start, key=lambda span: span.start) - 1
            if at < 0 or gap.stop > gone[at].stop:
                raise Damage(line, "does not follow the event before it")


def _joined(spans: Iterable[range]) -> list[range]:
    """The same numbers in as few spans as can be, the lowest first."""
    joined: list[range] = []
    for span in sorted(spans, key=lambda span: span.start):
        if joined and span.start <= joined[-1].stop:
            joined[-1] = range(joined[-1].start, max(joined[-1].stop, span.stop))
        else:
            joined.append(span)
    return joined


def without_waste(
    file: Iterable[bytes], kept: Collection[int], claims: Collection[str], instead: Mapping[int, bytes]
) -> Iterator[bytes]:
    """The lines of a file that is whole, with the events of the numbers `kept` and the claims of these keys alone.

    `instead` are other lines for events, by number. What the notes said of deltas that are not there any more is now
    said where numbers are missing.
    """
    found = Note(1)
    events: list[tuple[int, bytes]] = []
    left = last = 0
    for raw in file:
        parsed = _parsed(raw)
        if is_note(parsed):
            found = note(parsed, "")
            left = found.events
        else:
            left -= 1
            if (seq := parsed["seq"]) in kept:
                events.append((seq, instead.get(seq, raw)))
        if left <= 0:
            claim = found.claim if found.claim and found.claim.key in claims else None
            missing = range(last + 1, events[0][0]) if events else range(0)
            now = Note(len(events), claim=claim, missing=missing)
            if now.needed:
                yield now.line
            yield from (line for _, line in events)
            last = events[-1][0] if events else last
            found, events, left = Note(1), [], 0


def _parsed(raw: bytes) -> JsonObject:
    """A line as JSON: a note, or what has the number and the type of an event."""
    if not raw.endswith(b"\n"):
        raise Unreadable("has no end")
    try:
        parsed: Any = from_json(raw)
    except ValueError as error:
        raise Unreadable("is no JSON") from error
    if isinstance(parsed, dict):
        known = cast(JsonObject, parsed)
        seq, kind = known.get("seq"), known.get("type")
        if is_note(known) or (isinstance(seq, int) and 0 < seq < _SEQ_END and isinstance(kind, str)):
            return known
    raise Unreadable("is neither an event nor a note")
