"""What is known of every session, so that a list needs no file: a card each, and the file that keeps the cards.

That file is a cache. A card says how large the session's file was and when it was changed, and holds only as long as
both are so; the file ends with a checksum, and begins with the version of the program and the shape of its sessions,
since another program may make something else of the same events.
"""

import heapq
import json
import os
import zlib
from bisect import bisect_left, insort
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

from pydantic_core import from_json, to_json

from meerkat_mcp.domain.session import Session
from meerkat_mcp.domain.version import VERSION
from meerkat_mcp.stores import jsonl_file
from meerkat_mcp.stores.base import Claim, Cursor
from meerkat_mcp.stores.selecting import Listed

FORMAT = 2


@dataclass(frozen=True, slots=True)
class Card:
    """A session as a list shows it, what its file looked like then, and the claims in it.

    The session is kept as JSON: as an object it takes ten times the memory. `ready_ms` is its own, and `owner` the
    incarnation of who works on its turn, if somebody does.
    """

    listed: Listed
    session: str
    size: int
    changed_ns: int
    claims: tuple[Claim, ...]
    ready_ms: int | None = None
    owner: str | None = None

    @classmethod
    def of(cls, session: Session, *, size: int, changed_ns: int, claims: tuple[Claim, ...]) -> "Card":
        """The card of a session."""
        owner = session.turn.owner.incarnation if session.turn and session.active else None
        kept = session.model_dump_json()
        return cls(Listed.of(session), kept, size, changed_ns, claims, session.ready_ms, owner)

    @property
    def id(self) -> str:
        """Whose it is."""
        return self.listed.session_id

    def fits(self, status: os.stat_result) -> bool:
        """Whether the file is still as it was."""
        return (self.size, self.changed_ns) == (status.st_size, status.st_mtime_ns)

    def shown(self) -> Session:
        """The session as of the latest event that a list shows."""
        return Session.model_validate_json(self.session)


class Index:
    """The cards of all sessions, by their latest activity; since when those wait that do, and who works on others."""

    def __init__(self, cards: Iterable[Card] = ()) -> None:
        self.cards = {card.id: card for card in cards}
        self.ready = {card.id: card.ready_ms for card in self.cards.values() if card.ready_ms is not None}
        self.owners = {card.id: card.owner for card in self.cards.values() if card.owner is not None}
        self._places = sorted(card.listed.place for card in self.cards.values())

    def put(self, card: Card) -> None:
        """Keep a card, in the place of the one before."""
        before = self.cards.get(card.id)
        self.cards[card.id] = card
        if before is None or before.listed.place != card.listed.place:
            if before is not None:
                self._leave(before)
            insort(self._places, card.listed.place)
        self._forget_work(card.id)
        if card.ready_ms is not None:
            self.ready[card.id] = card.ready_ms
        if card.owner is not None:
            self.owners[card.id] = card.owner

    def remove(self, session_id: str) -> Card | None:
        """Forget a session."""
        card = self.cards.pop(session_id, None)
        if card is not None:
            self._leave(card)
            self._forget_work(session_id)
        return card

    def newest(self, after: Cursor | None) -> Iterator[Card]:
        """The cards, newest activity first, of those that come after a place."""
        end = len(self._places) if after is None else bisect_left(self._places, (after.updated_ms, after.session_id))
        for at in range(end - 1, -1, -1):
            yield self.cards[self._places[at][1]]

    def matching(self, prefix: str, *, limit: int, principal: str | None) -> list[str]:
        """The ids that begin so, the greatest first."""
        return heapq.nlargest(
            limit,
            (
                card.id
                for card in self.cards.values()
                if card.id.startswith(prefix) and principal in (None, card.listed.principal)
            ),
        )

    def _forget_work(self, session_id: str) -> None:
        self.ready.pop(session_id, None)
        self.owners.pop(session_id, None)

    def _leave(self, card: Card) -> None:
        del self._places[bisect_left(self._places, card.listed.place)]


def save(path: Path, cards: Iterable[Card]) -> None:
    """Write the cards down. Raises OSError."""
    jsonl_file.replace(path, _with_checksum(_lines(cards)), wait_for="nothing")


def load(path: Path) -> dict[str, Card]:
    """The cards that were written down; none, when they are not there, not whole, or another version's."""
    try:
        data = path.read_bytes()
    except OSError:
        return {}
    body, _, checksum = data.rstrip(b"\n").rpartition(b"\n")
    if checksum != _checksum(zlib.crc32(body + b"\n")).rstrip(b"\n"):
        return {}
    header, *lines = body.split(b"\n")
    if header + b"\n" != _header():
        return {}
    return {card.id: card for card in map(_card, lines)}


@cache
def _header() -> bytes:
    shape = zlib.crc32(json.dumps(Session.model_json_schema()).encode())
    return json.dumps({"index": FORMAT, "version": VERSION, "sessions": shape}).encode() + b"\n"


def _lines(cards: Iterable[Card]) -> Iterator[bytes]:
    yield _header()
    for card in cards:
        listed = card.listed
        by = (listed.session_id, listed.updated_ms, listed.state, listed.principal, listed.labels, listed.found_by)
        work = (card.ready_ms, card.owner)
        yield to_json((by, card.session, card.size, card.changed_ns, card.claims, work)) + b"\n"


def _with_checksum(lines: Iterable[bytes]) -> Iterator[bytes]:
    checksum = 0
    for line in lines:
        checksum = zlib.crc32(line, checksum)
        yield line
    yield _checksum(checksum)


def _checksum(crc: int) -> bytes:
    return json.dumps({"crc32": crc}).encode() + b"\n"


def _card(line: bytes) -> Card:
    said: list[Any] = from_json(line)
    listed, session, size, changed_ns, claims, work = said
    return Card(Listed(*listed), session, size, changed_ns, tuple(Claim(**claim) for claim in claims), *work)
