"""A server like any other, which also writes down how long the store took for each append.

Eight bytes an append into the file that `CHAOS_APPENDS` names: seconds, negative for pieces of text, which need not
reach the disk.
"""

import os
import struct
import sys
from collections.abc import Collection

from meerkat_mcp.cli import main
from meerkat_mcp.realms import opening
from meerkat_mcp.sessions.clock import Clock
from meerkat_mcp.sessions.journal import Journal
from meerkat_mcp.stores.base import Append, Store


class TimedJournal(Journal):
    """With a listener that writes times down."""

    def __init__(self, store: Store, clock: Clock) -> None:
        super().__init__(store, clock)
        self.listeners.add(_Times())


class _Times:
    def __init__(self) -> None:
        self._fd = os.open(os.environ["CHAOS_APPENDS"], os.O_WRONLY | os.O_APPEND | os.O_CREAT)

    def recorded(self, append: Append, seconds: float) -> None:
        os.write(self._fd, struct.pack("d", seconds if append.durable else -seconds))

    def heard(self, session_ids: Collection[str]) -> None:
        pass

    def lagged(self, seconds: float) -> None:
        pass


if __name__ == "__main__":
    opening.Journal = TimedJournal
    sys.exit(main())
