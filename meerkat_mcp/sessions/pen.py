"""Text on its way: pieces are gathered and written down every few milliseconds, never waited for."""

from collections.abc import Awaitable, Callable, Sequence

import anyio

from meerkat_mcp.domain.events import Event, ReasoningDelta, TextDelta
from meerkat_mcp.providers.base import Piece


class Pen:
    """Gathers the pieces of a reply. The first one is written at once, later ones every `interval_s`."""

    def __init__(self, write: Callable[[Sequence[Event]], Awaitable[None]], interval_s: float) -> None:
        self._write = write
        self._interval_s = interval_s
        self._pieces: list[Piece] = []
        self._wet = anyio.Event()

    def add(self, piece: Piece) -> None:
        """Take a piece; costs an append to a list."""
        self._pieces.append(piece)
        if len(self._pieces) == 1:
            self._wet.set()

    def rest(self) -> list[Event]:
        """What is not written yet, as few deltas as possible; the caller writes it."""
        pieces, self._pieces = self._pieces, []
        drafts: list[Event] = []
        start = 0
        for end in range(1, len(pieces) + 1):
            if end == len(pieces) or pieces[end].kind != pieces[start].kind:
                text = "".join(piece.text for piece in pieces[start:end])
                drafts.append(TextDelta(text=text) if pieces[start].kind == "text" else ReasoningDelta(text=text))
                start = end
        return drafts

    async def run(self) -> None:
        """Write what gathers, until cancelled."""
        while True:
            await self._wet.wait()
            self._wet = anyio.Event()
            with anyio.CancelScope(shield=True):  # what was taken is written, also when the turn is cut short
                if drafts := self.rest():
                    await self._write(drafts)
            await anyio.sleep(self._interval_s)
