"""How a page of a realm's sessions is found in its file, fast in one of a hundred thousand.

A page is the newest sessions of many that a selection fits. Where it fits many, the way is to walk from the newest on
and look at each, and the page is soon full. Where it fits few, it is to collect those and put them in order. Neither
is bearable in place of the other, and no statistics know what is rare today. So each condition that may be rare is
asked for its sessions, but not for more than is of use; and words, where asking costs most, only when a short walk has
not filled the page.
"""

import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from meerkat_mcp.domain.session import State
from meerkat_mcp.stores.base import Cursor, Selection
from meerkat_mcp.stores.searching import beginnings, query_words
from meerkat_mcp.stores.sqlite_library import Connection
from meerkat_mcp.stores.sqlite_search import tells_all

COLLECTED_MAX = 300
"""So many sessions are fetched and put in order as fast as a walk along an index of 100,000 meets fifty of so many."""
KNOWN_MAX = 5000
"""So many are fetched to be known on a walk; where there are more, a walk that looks at each meets some soon."""
WALKED_FIRST = (100, 1000)
"""How many are looked at before the index is asked for words; the more only if they may well fill the page."""

AT_REST: frozenset[State] = frozenset({"new", "idle", "archived"})
"""Where `sessions.doing` says nothing."""

_ORDER = "ORDER BY updated_ms DESC, id DESC LIMIT ? OFFSET ?"
_FOUND = (
    "SELECT DISTINCT CASE WHEN rowid & 1 THEN rowid >> 1 "
    "ELSE (SELECT session FROM said_in WHERE position = search.rowid >> 1) END FROM search WHERE search MATCH ?"
)
_SAID_BY_WORD = "SELECT rowid FROM search WHERE search MATCH ?"
_KNOWN = "number IN (SELECT value FROM json_each(?))"
_COLLECTED = "(SELECT value AS hit FROM json_each(?)) CROSS JOIN sessions ON number = hit"
_BY_ID = "SELECT number FROM sessions WHERE id >= ? AND id < ?"


@dataclass(frozen=True, slots=True)
class Query:
    """SQL with what stands for its question marks."""

    sql: str
    parameters: tuple[Any, ...] = ()

    def rows(self, connection: Connection, *more: Any) -> list[tuple[Any, ...]]:
        """All its rows; `more` goes behind the parameters."""
        return connection.execute(self.sql, (*self.parameters, *more)).fetchall()


@dataclass(frozen=True, slots=True)
class Page:
    """Which page of which list."""

    selection: Selection
    after: Cursor | None
    offset: int
    limit: int

    @property
    def is_plain(self) -> bool:
        """Whether nothing has to be looked for: it stands in an index from end to end."""
        selected = self.selection
        return not (selected.query or selected.labels or selected.states or selected.principal is not None)

    def walk(self) -> Query:
        """The page, as it is found by going from the newest session on."""
        return self._walk(*self._fits())

    def find(self, connection: Connection) -> list[tuple[bytes]]:
        """The sessions on the page, each as JSON."""
        few = [found for asked in self._rare() if (found := _few(connection, asked)) is not None]
        rare = min(few, key=len) if few else None
        fits = self._fits()
        if rare is not None and (not fits or len(rare) <= COLLECTED_MAX):
            return self._among(rare, *fits).rows(connection)
        if not fits:
            return self.walk().rows(connection)
        for count in WALKED_FIRST if rare is None else ():
            page = self._walk_first(count).rows(connection)
            if len(page) == self.limit:
                return page
            if len(page) * WALKED_FIRST[-1] < self.limit * count:
                break
        return self._search(connection, rare).rows(connection)

    def _search(self, connection: Connection, rare: Sequence[int] | None) -> Query:
        """The page of a query that a short walk did not fill; `rare` are what the other conditions leave, if few."""
        said, told = self._said(connection)
        ids = _few(connection, Query(_BY_ID, self._ids))
        found = None if said is None or ids is None else sorted({*said, *ids})
        if found is not None and (rare is None or len(found) < len(rare)):
            return self._among(found, *(() if told else self._fits()))
        if rare is not None:
            return self._among(rare, *self._fits())
        if said is not None and told:
            return self._walk(Query(f"(id >= ? AND id < ? OR {_KNOWN})", (*self._ids, json.dumps(said))))
        return self.walk()

    def _among(self, numbers: Sequence[int], *asked: Query) -> Query:
        """The page out of sessions that are known by number; `asked` is what else is to be asked of each."""
        if len(numbers) <= COLLECTED_MAX:
            conditions = [*self._frame(), *self._conditions(*asked)]
            ordered = _within(_COLLECTED, conditions, (self.limit, self.offset))
            return Query(ordered.sql, (json.dumps(numbers), *ordered.parameters))
        return self._walk(Query(_KNOWN, (json.dumps(numbers),)), *asked)

    def _said(self, connection: Connection) -> tuple[list[int] | None, bool]:
        """The numbers of the sessions with a text that has all words of the query, None if they are many or cannot be
        told; and whether it has them for sure: words that are known to be common are not asked for beside others.
        """
        words = query_words(self.selection.query)
        if not words:
            return [], True
        if not tells_all(connection):
            return None, False
        telling = [word for word in words if not _is_common(connection, word)] if len(words) > 1 else words
        wanted = " ".join(f'"{word}"*' for word in telling or words)
        return _few(connection, Query(_FOUND, (wanted,))), len(telling) in (0, len(words))

    @property
    def _walked(self) -> str:
        """The index to walk."""
        match self.selection:
            case Selection(archived=None):
                return "INDEXED BY sessions_by_activity"
            case Selection(principal=None):
                return "INDEXED BY sessions_by_archive"
            case _:
                return "INDEXED BY sessions_by_principal"

    def _walk(self, *asked: Query) -> Query:
        conditions = [*self._frame(), *self._conditions(*asked)]
        return _within(f"sessions {self._walked}", conditions, (self.limit, self.offset))

    def _walk_first(self, count: int) -> Query:
        where, parameters = _where(self._frame())
        newest = f"(SELECT * FROM sessions {self._walked}{where} ORDER BY updated_ms DESC, id DESC LIMIT {count})"
        walk = _within(newest, self._conditions(*self._fits()), (self.limit, self.offset))
        return Query(walk.sql, (*parameters, *walk.parameters))

    def _frame(self) -> Iterator[Query]:
        """What stands in the index that is walked."""
        if self.selection.principal is not None:
            yield Query("principal = ?", (self.selection.principal,))
        if self.selection.archived is not None:
            yield Query("archived = ?", (self.selection.archived,))
        if self.after is not None:
            yield Query("(updated_ms, id) < (?, ?)", (self.after.updated_ms, self.after.session_id))

    def _conditions(self, *asked: Query) -> Iterator[Query]:
        """What is looked at in each session; `asked` of it the last."""
        if states := self.selection.states:
            yield Query(f"state IN ({_marks(states)})", states)
        for label in self.selection.labels.items():
            yield Query("EXISTS (SELECT 1 FROM labels WHERE session = number AND key = ? AND value = ?)", label)
        yield from asked

    def _fits(self) -> tuple[Query, ...]:
        """Whether the query finds a session, from what is kept of it; nothing, when there is no query."""
        if not self.selection.query:
            return ()
        words = beginnings(self.selection.query)
        by_id = "id >= ? AND id < ?"
        if not words:
            return (Query(by_id, self._ids),)
        in_title = " AND ".join("instr(found_by, ?)" for _ in words)
        in_message = " AND ".join("instr(words, ?)" for _ in words)
        said = f"EXISTS (SELECT 1 FROM said WHERE session = number AND {in_message})"
        return (Query(f"({by_id} OR {in_title} OR {said})", (*self._ids, *words, *words)),)

    @property
    def _ids(self) -> tuple[str, str]:
        """The ids that begin with the query lie between these; ids have no capitals."""
        return id_range(self.selection.query.casefold())

    def _rare(self) -> Iterator[Query]:
        """What may fit few sessions, each as a query for the numbers of those."""
        selected = self.selection
        if selected.states and AT_REST.isdisjoint(selected.states):
            yield Query(f"SELECT number FROM sessions WHERE doing IN ({_marks(selected.states)})", selected.states)
        for label in selected.labels.items():
            yield Query("SELECT session FROM labels WHERE key = ? AND value = ?", label)
        if selected.principal is not None and selected.archived is None:
            yield Query("SELECT number FROM sessions WHERE principal = ?", (selected.principal,))


def id_range(prefix: str) -> tuple[str, str]:
    """The ids that begin so are from the first of these on, and before the second."""
    return prefix, prefix + chr(0x10FFFF)


def _few(connection: Connection, query: Query) -> list[int] | None:
    """The numbers that a query gives, unless they are many."""
    rows = Query(f"{query.sql} LIMIT ?", query.parameters).rows(connection, KNOWN_MAX + 1)
    return None if len(rows) > KNOWN_MAX else [number for (number,) in rows]


def _is_common(connection: Connection, word: str) -> bool:
    """Whether many texts have this very word. That is told at once, other than how many have one that begins so."""
    return _few(connection, Query(_SAID_BY_WORD, (f'"{word}"',))) is None


def _within(sessions: str, conditions: Sequence[Query] | Iterator[Query], place: tuple[int, int]) -> Query:
    where, parameters = _where(conditions)
    return Query(f"SELECT body FROM {sessions}{where} {_ORDER}", (*parameters, *place))


def _where(conditions: Sequence[Query] | Iterator[Query]) -> tuple[str, tuple[Any, ...]]:
    known = list(conditions)
    where = f" WHERE {' AND '.join(each.sql for each in known)}" if known else ""
    return where, tuple(parameter for each in known for parameter in each.parameters)


def _marks(values: Sequence[object]) -> str:
    return ", ".join("?" * len(values))
