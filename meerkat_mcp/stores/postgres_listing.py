"""Lists of sessions, newest activity first, as PostgreSQL is asked for them.

By state, archive and principal there are indexes that hold the sessions in the order of the list (`pgsql/0001` and
`0002`): a page is read from one of them, or put together from one for each state that is asked for.

Words and labels have indexes of their own, in another order. What is rare is found there, and sorted. What is common
would be hundreds of thousands of hits for a page of fifty: there it is better to walk through the list, and to look at
each session whether it fits. Nobody knows beforehand which it is; so a search begins to walk, and after some steps what
it met with tells. All of it sees one state of the tables.
"""

from collections.abc import Iterator, Sequence
from functools import partial
from typing import Any

from meerkat_mcp.domain.session import State
from meerkat_mcp.stores.base import Cursor, Selection
from meerkat_mcp.stores.postgres_library import Connection, Row
from meerkat_mcp.stores.postgres_server import Server
from meerkat_mcp.stores.postgres_values import label, question, searched

STEPS = (128, 256, 512, 1024, 2048, 4096, 8192)
"""How many sessions are looked at in one statement."""
STEPS_AHEAD_MAX = 1000
"""With more before it, by what was met with so far, the walk is given up; with many to be found, twice as many."""
FEW = 1000
"""A label of no more sessions is looked up first, whatever the words are."""

_ORDER = "ORDER BY updated_ms DESC, id DESC"
_SHOWN_FIRST = 2**63 - 1, ""
_SAID = "(SELECT true FROM findings WHERE findings.session = {}.session AND ts_match_vq(words, {}) LIMIT 1)"
"""As a function and not as an operator, so that it is the session's few messages that are looked at."""
_LABELLED = "(SELECT true FROM labels WHERE labels.session = {}.session AND label = {} LIMIT 1)"


async def listed(
    server: Server, realm: int, selection: Selection, *, after: Cursor | None, offset: int, limit: int
) -> Sequence[bytes]:
    """The sessions of a page, as they are kept."""
    place = _SHOWN_FIRST if after is None else (after.updated_ms, searched(after.session_id))
    if selection.labels or selection.query:
        ask = partial(_found, realm, selection, place, offset, limit)
        return await server.together(ask, isolation="repeatable_read", readonly=True)
    sql = _Statement(realm)
    lanes = sql.lanes(selection, place, offset + limit)
    rows = await server.rows(f"SELECT body FROM {lanes} {_ORDER} LIMIT {limit:d} OFFSET {offset:d}", *sql.parameters)
    return [body for (body,) in rows]


async def _found(
    realm: int, selection: Selection, place: tuple[int, str], offset: int, limit: int, connection: Connection
) -> Sequence[bytes]:
    needed, looked_at, found = offset + limit, 0, list[bytes]()
    step, start = _step(needed + needed // 4), place
    while step is not None:
        rows = await _walked(realm, selection, start, step, connection)
        found += (body for _, _, body in rows if body is not None)
        if len(found) >= needed or len(rows) < step:
            return found[offset:needed]
        looked_at, start = looked_at + step, (rows[-1][0], rows[-1][1])
        step = _next_step(looked_at, len(found), needed)
    return await _looked_up(realm, selection, place, offset, limit, connection)


def _step(sessions: int) -> int | None:
    """How many sessions to look at for so many."""
    return next((step for step in STEPS if step >= sessions), STEPS[-1])


def _next_step(looked_at: int, found: int, needed: int) -> int | None:
    """How many sessions to look at next; None when looking up is better."""
    ahead = (needed - found) * looked_at // found if found else STEPS_AHEAD_MAX + 2 * needed + 1
    if ahead > STEPS_AHEAD_MAX + 2 * needed:
        return None
    return _step(ahead)


async def _walked(
    realm: int, selection: Selection, start: tuple[int, str], step: int, connection: Connection
) -> Sequence[Row]:
    """The next sessions of the list, with place, and body of those that fit."""
    sql = _Statement(realm)
    lanes = sql.lanes(selection, start, step)
    fits = " AND ".join(sql.fits("walked", selection))
    return await connection.fetch(
        f"SELECT updated_ms, id, CASE WHEN {fits} THEN body END"
        f" FROM (SELECT * FROM {lanes} {_ORDER} LIMIT {step:d}) AS walked {_ORDER}",
        *sql.parameters,
    )


async def _looked_up(
    realm: int, selection: Selection, place: tuple[int, str], offset: int, limit: int, connection: Connection
) -> Sequence[bytes]:
    first = await _first_label(realm, selection, connection)
    await connection.execute("SET LOCAL enable_bitmapscan = on")  # there is no other way to look into an index of words
    sql = _Statement(realm)
    if first is None:
        hits, rest = sql.said(selection), selection.model_copy(update={"query": ""})
    else:
        hits = f"SELECT session FROM labels WHERE realm = $1 AND label = {sql.add(label(*first))}"
        labels = {key: value for key, value in selection.labels.items() if (key, value) != first}
        rest = selection.model_copy(update={"labels": labels})
    lanes = " OR ".join(f"({' AND '.join(lane)})" for lane in _lanes(selection))
    conditions = (*sql.plain(selection), sql.after(place), f"({lanes})", *sql.fits("shown", rest))
    rows = await connection.fetch(
        f"WITH hits AS MATERIALIZED ({hits}), page AS MATERIALIZED ("
        "SELECT shown.session, updated_ms, id FROM hits JOIN shown ON shown.session = hits.session"
        f" WHERE {' AND '.join(conditions)} {_ORDER} LIMIT {limit:d} OFFSET {offset:d}"
        ") SELECT body FROM page JOIN shown ON shown.session = page.session"
        " ORDER BY page.updated_ms DESC, page.id DESC",
        *sql.parameters,
    )
    return [body for (body,) in rows]


async def _first_label(realm: int, selection: Selection, connection: Connection) -> tuple[str, str] | None:
    """The label to look up; none when words are better."""
    counted: dict[tuple[str, str], int] = {}
    for each in selection.labels.items():
        few = f"(SELECT 1 FROM labels WHERE realm = $1 AND label = $2 LIMIT {FEW + 1})"
        ((counted[each],),) = await connection.fetch(f"SELECT count(*) FROM {few} AS few", realm, label(*each))
    rarest = min(counted, key=lambda each: counted[each], default=None)
    return None if rarest is None or (selection.query and counted[rarest] > FEW) else rarest


def _lanes(selection: Selection) -> Iterator[Sequence[str]]:
    """The parts of a list that lie in order in one index each, with their conditions."""
    if selection.states:
        for state in dict[State, None].fromkeys(selection.states):
            yield f"state = '{state}'", f"archived = {state == 'archived'}"
    elif selection.principal is not None and selection.archived is None:
        yield from (("archived = false",), ("archived = true",))
    else:
        yield ("true",)


class _Statement:
    """Pieces of a statement, with its parameters; the first is the realm."""

    def __init__(self, realm: int) -> None:
        self.parameters: list[Any] = [realm]

    def add(self, parameter: Any) -> str:
        """One more parameter."""
        self.parameters.append(parameter)
        return f"${len(self.parameters)}"

    def plain(self, selection: Selection) -> Sequence[str]:
        """What is asked of a row of `shown`, but for its state."""
        conditions = ["shown.realm = $1"]
        if selection.archived is not None:
            conditions.append(f"archived = {selection.archived}")
        if selection.principal is not None:
            conditions.append(f"principal = {self.add(searched(selection.principal))}")
        return conditions

    def after(self, place: tuple[int, str]) -> str:
        """What comes after a place in the list."""
        return f"(updated_ms, id) < ({self.add(place[0])}, {self.add(place[1])})"

    def lanes(self, selection: Selection, start: tuple[int, str], most: int) -> str:
        """The next sessions of the list, as a table, whatever their labels and words are."""
        conditions = (*self.plain(selection), self.after(start))
        lanes = (
            "(SELECT session, updated_ms, id, body FROM shown"
            f" WHERE {' AND '.join((*conditions, *lane))} {_ORDER} LIMIT {most:d})"
            for lane in _lanes(selection)
        )
        return f"({' UNION ALL '.join(lanes)}) AS listed"

    def fits(self, table: str, selection: Selection) -> Iterator[str]:
        """What is asked of a session beside that."""
        for each in selection.labels.items():
            yield _LABELLED.format(table, self.add(label(*each)))
        if selection.query:
            begins = f"starts_with(lower({table}.id), {self.add(searched(selection.query.casefold()))})"
            words = question(self.parameters[0], selection.query)
            said = [] if words is None else [_SAID.format(table, f"{self.add(words)}::text::tsquery")]
            yield f"({' OR '.join([begins, *said])})"

    def said(self, selection: Selection) -> str:
        """The sessions that a query finds, and perhaps more, as a subquery."""
        query = searched(selection.query.casefold())
        begins = f"lower(id) >= {self.add(query)} AND lower(id) < {self.add(query + chr(0x10FFFF))}"
        found = f"SELECT number AS session FROM sessions WHERE realm = $1 AND {begins}"
        words = question(self.parameters[0], selection.query)
        if words is not None:
            found += f" UNION SELECT session FROM findings WHERE words @@ {self.add(words)}::text::tsquery"
        return found
