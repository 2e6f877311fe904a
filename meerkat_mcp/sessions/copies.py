"""What a copied log needs at its end to be a session of its own."""

from collections.abc import Mapping, Sequence

from meerkat_mcp.domain import events as e
from meerkat_mcp.domain.session import Session
from meerkat_mcp.domain.settings import Settings


def closing(
    copy: Session, *, title: str = "", labels: Mapping[str, str] | None = None, settings: Settings | None = None
) -> Sequence[e.Event]:
    """No open turn, no queue, not archived, its own name; and always something, so that it was active just now."""
    drafts: list[e.Event] = [e.PromptDropped(turn_id=queued.turn_id) for queued in copy.queue]
    if (turn := copy.open_turn) is not None:
        drafts.append(e.TurnInterrupted(turn_id=turn.turn_id, reason="abandoned"))
    if copy.state == "archived":
        drafts.append(e.SessionRestored())
    change = e.SettingsChanged(
        settings=settings, title=title or None, labels=dict(labels) if labels is not None else None
    )
    return [*drafts, change]
