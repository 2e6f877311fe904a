"""Our values as the database keeps them: texts without NUL, keys that fit into an index, appends as arrays."""

import hashlib
import json
from collections.abc import Sequence
from typing import Any

from meerkat_mcp.domain.errors import Corrupt
from meerkat_mcp.stores.base import Append, Claim, found_by

INDEXED_MAX = 1000
"""Bytes. An entry of an index must fit on a third of a page; what is longer is known by its hash."""


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


def arguments(appends: Sequence[Append]) -> tuple[Any, ...]:
    """What the database's `append` takes after realm and writer; see there. Raises Corrupt."""
    ids = sorted({append.session.id for append in appends})
    place = {session_id: number for number, session_id in enumerate(ids, 1)}
    gone = [(each.start, each.stop) if (each := append.superseded) else (None, None) for append in appends]
    return (
        any(append.durable for append in appends),
        ids,
        [place[append.session.id] for append in appends],
        [append.events[0].seq - 1 for append in appends],
        [append.events[-1].seq for append in appends],
        *(_columns(gone) if any(start for start, _ in gone) else [None] * 2),
        *_claims([append.claim for append in appends]),
        *_events(appends),
        *_shown(appends),
    )


def _claims(claims: Sequence[Claim | None]) -> Sequence[Sequence[Any] | None]:
    if not any(claims):
        return [None] * 4
    return _columns(
        [(indexed(each.key), each.digest, each.turn_id, each.created_ms) if each else (None,) * 4 for each in claims]
    )


def _events(appends: Sequence[Append]) -> Sequence[Sequence[Any]]:
    rows: list[tuple[Any, ...]] = []
    for number, append in enumerate(appends, 1):
        last = append.events[0].seq - 1
        for event in append.events:
            if event.seq <= last:
                raise Corrupt("An event does not follow the last one.", session_id=append.session.id)
            rows.append((number, event.seq, event.type, event.body))
            last = event.seq
    return _columns(rows)


def _shown(appends: Sequence[Append]) -> Sequence[Sequence[Any] | None]:
    shown = [(number, append.session) for number, append in enumerate(appends, 1) if append.shown or append.begins]
    if not shown:
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
                searched(found_by(session)),
                session.model_dump_json().encode(),
            )
            for number, session in shown
        ]
    )


def _columns(rows: Sequence[tuple[Any, ...]]) -> Sequence[Sequence[Any]]:
    return list(zip(*rows, strict=True))
