"""Our values as the database keeps them: texts without NUL, keys and words that fit an index, appends as arrays."""

import hashlib
import json
from collections.abc import Iterable, Iterator, Sequence
from typing import Any

from meerkat_mcp.domain.errors import Corrupt
from meerkat_mcp.domain.recorded import Recorded
from meerkat_mcp.domain.session import Session
from meerkat_mcp.stores.base import Append, Claim, found_by
from meerkat_mcp.stores.searching import query_words, said, words

INDEXED_MAX = 1000
"""Bytes. An entry of an index must fit on a third of a page; what is longer is known by its hash."""

FINDING_BYTES_MAX = 1_000_000
"""PostgreSQL keeps less than 1 MiB of words together; a text with more different ones is not found by the last."""


def searched(text: str) -> str:
    """A text to look for, or to look in: PostgreSQL's text holds no NUL."""
    return text.replace("\0", "\ufffd")


def label(key: str, value: str) -> str:
    """A label as one text."""
    whole = json.dumps([key, value])
    return whole if len(whole) <= INDEXED_MAX else hashlib.sha256(whole.encode()).hexdigest()


def indexed(key: str) -> bytes:
    """An idempotency key."""
    whole = key.encode()
    return whole if len(whole) <= INDEXED_MAX else hashlib.sha256(whole).digest()


def whole_key(key: str) -> bytes | None:
    """An idempotency key that is known by its hash."""
    whole = key.encode()
    return whole if len(whole) > INDEXED_MAX else None


def claimed(key: bytes, whole: bytes | None) -> str | None:
    """The key that was kept as these; None if only a hash of it was, by version 1."""
    try:
        return (whole or key).decode()
    except UnicodeDecodeError:
        return None


def finding(realm: int, text: str) -> str:
    """The words of a text, each as it lies in the index, with spaces between them."""
    found, size = list[str](), 0
    for word in words(text):
        word = f"{realm}:{word}"
        size += len(word.encode())
        if size > FINDING_BYTES_MAX:
            break
        found.append(word)
    return " ".join(found)


def findings(realm: int, events: Iterable[Recorded]) -> Iterator[tuple[int, str]]:
    """Seqs and words of the events whose text is searched."""
    for recorded in events:
        if text := said(recorded):
            yield recorded.seq, finding(realm, text)


def question(realm: int, query: str) -> str | None:
    """A query as a tsquery. Quoted, a word has no other meaning; it has no quotes in it."""
    return " & ".join(f"'{realm}:{word}':*" for word in query_words(query)) or None


def arguments(realm: int, appends: Sequence[Append]) -> tuple[Any, ...]:
    """What the database's `append` takes after realm and writer; see there. Raises Corrupt."""
    ids = sorted({append.session.id for append in appends})
    place = {session_id: number for number, session_id in enumerate(ids, 1)}
    gone = [(each.start, each.stop) if (each := append.superseded) else (None, None) for append in appends]
    return (
        True,  # durable, pieces of text too: else a database that crashes gives numbers again that somebody saw
        ids,
        [place[append.session.id] for append in appends],
        [append.after for append in appends],
        [append.events[-1].seq for append in appends],
        *(_columns(gone) if any(start for start, _ in gone) else [None] * 2),
        *_claims([append.claim for append in appends]),
        *_events(appends),
        *_shown(appends),
        *_findings(realm, appends),
    )


def _claims(claims: Sequence[Claim | None]) -> Sequence[Sequence[Any] | None]:
    if not any(claims):
        return [None] * 5
    return _columns(
        [
            (indexed(each.key), whole_key(each.key), each.digest, each.turn_id, each.created_ms)
            if each
            else (None,) * 5
            for each in claims
        ]
    )


def _events(appends: Sequence[Append]) -> Sequence[Sequence[Any]]:
    rows: list[tuple[Any, ...]] = []
    for number, append in enumerate(appends, 1):
        last = append.after
        for event in append.events:
            if event.seq <= last:
                raise Corrupt("An event does not follow the last one.", session_id=append.session.id)
            rows.append((number, event.seq, event.type, event.body))
            last = event.seq
    return _columns(rows)


def _shown(appends: Sequence[Append]) -> Sequence[Sequence[Any] | None]:
    if not (shown := list(_listed(appends))):
        return [None] * 8
    return _columns(
        [
            (
                number,
                session.seq,
                session.state,
                session.updated_ms,
                None if session.principal is None else searched(session.principal),
                "\n".join(label(*each) for each in session.labels.items()),
                session.ready_ms,
                session.model_dump_json().encode(),
            )
            for number, session in shown
        ]
    )


def _findings(realm: int, appends: Sequence[Append]) -> Sequence[Sequence[Any] | None]:
    found = [(number, 0, finding(realm, found_by(session))) for number, session in _listed(appends)]
    for number, append in enumerate(appends, 1):
        found += ((number, *each) for each in findings(realm, append.events))
    return _columns(found) if found else [None] * 3


def _listed(appends: Sequence[Append]) -> Iterator[tuple[int, Session]]:
    """What a list shows from now on, and which append says so."""
    for number, append in enumerate(appends, 1):
        if append.shown or append.begins:
            yield number, append.session


def _columns(rows: Sequence[tuple[Any, ...]]) -> Sequence[Sequence[Any]]:
    return list(zip(*rows, strict=True))
