"""What a turn says, on its way into the log: gathered for a few milliseconds, written together and in order."""

from collections.abc import Awaitable, Callable, Sequence

import anyio

from meerkat_mcp.domain.events import Event, ReasoningDelta, TextDelta
from meerkat_mcp.providers.base import Piece


class Pen:
    """Takes pieces and events without ever waiting. The first delta is written at once, later ones every
    `interval_s`: `write` takes the `rest` and writes it, and so does whoever has to know that all is written.
    """

    def __init__(self, write: Callable[[], Awaitable[object]], interval_s: float) -> None:
        self._write = write
        self._interval_s = interval_s
        self._said: list[Piece | Event] = []
        self._wet = anyio.Event()

    def add(self, said: Piece | Event) -> None:
        """Take a piece or an event; costs an append to a list."""
        self._said.append(said)
        self._wet.set()

    def rest(self) -> list[Event]:
        """What is not written yet, in order; pieces that follow each other become one delta."""
        said, self._said = self._said, []
        drafts: list[Event] = []
        texts: list[str] = []
        for number, one in enumerate(said):
            if not isinstance(one, Piece):
                drafts.append(one)
                continue
            texts.append(one.text)
            following = said[number + 1] if number + 1 < len(said) else None
            if not isinstance(following, Piece) or following.kind != one.kind:
                text, texts = "".join(texts), []
                drafts.append(TextDelta(text=text) if one.kind == "text" else ReasoningDelta(text=text))
        return drafts

    def put_back(self, drafts: Sequence[Event]) -> None:
        """What was taken and could not be written: it comes before all that was said since, with the next of that."""
        self._said[:0] = drafts

    async def run(self) -> None:
        """Write what gathers, until cancelled."""
        while True:
            await self._wet.wait()
            self._wet = anyio.Event()
            pieces = any(isinstance(one, Piece) for one in self._said)
            if self._said:
                await self._write()
            if pieces:
                await anyio.sleep(self._interval_s)
