"""What a list of sessions goes by, for stores that look through them in memory."""

from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass

from meerkat_mcp.domain.session import Session, State
from meerkat_mcp.stores.base import Selection, found_by
from meerkat_mcp.stores.searching import beginnings, begun_in, spelled


@dataclass(frozen=True, slots=True)
class Listed:
    """What a session is found and ordered by; `found_by` is the words that a query is looked for in, as `spelled`."""

    session_id: str
    updated_ms: int
    state: State
    principal: str | None
    labels: Mapping[str, str]
    found_by: str

    @classmethod
    def of(cls, session: Session) -> "Listed":
        """That of a session."""
        words = spelled(found_by(session))
        return cls(session.id, session.updated_ms, session.state, session.principal, session.labels, words)

    @property
    def place(self) -> tuple[int, str]:
        """Its place in a list; the greatest comes first."""
        return self.updated_ms, self.session_id

    def selected(
        self, selection: Selection, said_in: Collection[str] | Callable[[str], bool] = frozenset[str]()
    ) -> bool:
        """Whether a list of this selection shows it.

        `said_in` is for what this does not know, the messages: the ids of the sessions where one message has all the
        words of the query (a set of them, looked up once before the list is gone through), or what tells it of an id.
        It is asked last, so only of sessions that everything else selects and that are not found without it.
        """
        return (
            selection.archived in (None, self.state == "archived")
            and (not selection.states or self.state in selection.states)
            and selection.labels.items() <= self.labels.items()
            and selection.principal in (None, self.principal)
            and (not selection.query or self._found(selection.query, said_in))
        )

    def _found(self, query: str, said_in: Collection[str] | Callable[[str], bool]) -> bool:
        return (
            self.session_id.lower().startswith(query.casefold())
            or begun_in(beginnings(query), self.found_by)
            or (said_in(self.session_id) if callable(said_in) else self.session_id in said_in)
        )
