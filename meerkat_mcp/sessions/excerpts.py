"""Why a search found a session: a piece of the message that its words are in.

Stores say which sessions a query finds, not where. What a list shows anyway (title, opening, labels, id) needs no
reason; in the others the log is read again, from its start, at a bounded cost.
"""

import re
from collections.abc import Sequence
from typing import Literal

from meerkat_mcp.domain.messages import Value
from meerkat_mcp.domain.recorded import Recorded
from meerkat_mcp.domain.session import Session
from meerkat_mcp.stores.base import Store, found_by, is_full
from meerkat_mcp.stores.searching import SEARCHED, begins_all, folded, query_words, said, words

EXCERPT_CHARS_MAX = 160
BEFORE_CHARS_MAX = 60
MESSAGES_MAX = 2_000
"""Of one session: where the words come later than that, no reason is said."""
PAGE_MESSAGES_MAX = 10_000
"""Of all sessions of a page together: a long page of long sessions takes a tenth of a second at most."""
READ_MESSAGES = 200

_WORD = re.compile(r"\w+")


class Excerpt(Value):
    """A piece of a message, on one line: who said it, and the event that it is in."""

    role: Literal["user", "assistant"]
    seq: int
    text: str


async def excerpts(store: Store, sessions: Sequence[Session], query: str) -> dict[str, Excerpt]:
    """The first message of each session that a query finds it by, where what a list shows of it does not say why."""
    wanted = query_words(query)
    found: dict[str, Excerpt] = {}
    left = PAGE_MESSAGES_MAX
    for session in sessions if wanted else ():
        shown = session.id.startswith(query.casefold()) or begins_all(wanted, words(found_by(session)))
        if not shown and left > 0:
            excerpt, looked_at = await _first(store, session, wanted, min(left, MESSAGES_MAX))
            left -= looked_at
            if excerpt is not None:
                found[session.id] = excerpt
    return found


async def _first(store: Store, session: Session, wanted: Sequence[str], most: int) -> tuple[Excerpt | None, int]:
    """The first message with all the words, among that many; and how many were looked at."""
    after, looked_at = 0, 0
    while looked_at < most:
        limit = min(READ_MESSAGES, most - looked_at)
        page = await store.read(session.id, after=after, limit=limit, types=SEARCHED)
        for recorded in page:
            looked_at += 1
            if (text := _matching(recorded, wanted)) is not None:
                role = "assistant" if recorded.type == "text_complete" else "user"
                return Excerpt(role=role, seq=recorded.seq, text=_piece(text, wanted)), looked_at
        if not is_full(page, limit):
            break
        after = page[-1].seq
    return None, looked_at


def _matching(recorded: Recorded, wanted: Sequence[str]) -> str | None:
    """The text of a message, if the words are all in it. Most are refused by their bytes, without being read."""
    body = folded(recorded.body.decode())
    if not all(word in body for word in wanted):
        return None
    text = said(recorded)
    return text if begins_all(wanted, words(text)) else None


def _piece(text: str, wanted: Sequence[str]) -> str:
    """The text around the first place of its most telling word: the longest."""
    longest = max(wanted, key=len)
    begins = (word.start() for word in _WORD.finditer(text) if folded(word[0]).startswith(longest))
    place = next(begins, max(0, folded(text).find(longest)))  # Chinese has no spaces: there it is nearly that place
    wide = 4 * EXCERPT_CHARS_MAX  # enough to be cut from once it is on one line
    before, after = text[max(0, place - wide) : place], text[place : place + wide]
    lead = " ".join(before.split()) + (" " if before[-1:].isspace() else "")
    line = " ".join(after.split())
    lead = lead.lstrip()
    if len(lead) > BEFORE_CHARS_MAX or place > wide:
        lead = f"…{lead[1 - BEFORE_CHARS_MAX :]}"
    room = EXCERPT_CHARS_MAX - len(lead)
    if len(line) > room or place + wide < len(text):
        line = f"{line[: room - 1].rstrip()}…"
    return lead + line
