"""What a list of sessions goes by, for stores that look through them in memory."""

from collections.abc import Mapping
from dataclasses import dataclass

from meerkat_mcp.domain.session import Session, State
from meerkat_mcp.stores.base import Selection, found_by


@dataclass(frozen=True, slots=True)
class Listed:
    """What a session is found and ordered by; `found_by` is the text that a query is looked for in."""

    session_id: str
    updated_ms: int
    state: State
    principal: str | None
    labels: Mapping[str, str]
    found_by: str

    @classmethod
    def of(cls, session: Session) -> "Listed":
        """That of a session."""
        return cls(session.id, session.updated_ms, session.state, session.principal, session.labels, found_by(session))

    @property
    def place(self) -> tuple[int, str]:
        """Its place in a list; the greatest comes first."""
        return self.updated_ms, self.session_id

    def selected(self, selection: Selection) -> bool:
        """Whether a list of this selection shows it."""
        query = selection.query.casefold()
        return (
            selection.archived in (None, self.state == "archived")
            and (not selection.states or self.state in selection.states)
            and selection.labels.items() <= self.labels.items()
            and selection.principal in (None, self.principal)
            and (not query or self.session_id.lower().startswith(query) or query in self.found_by)
        )
