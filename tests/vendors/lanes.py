"""A lane is what one test sees of the fake: its own turns and recordings, by the API key it hands to the SDK."""

import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import anyio

from vendors.script import Turn


@dataclass
class Seen:
    """One request, and how its response went. Times are of `time.time`."""

    wire: str
    path: str
    headers: Mapping[str, str]
    body: Any
    at: float = field(default_factory=time.time)
    frames: int = 0
    finished: bool = False
    disconnected: float | None = None
    """When the client went away, before the response was done."""
    rejected: str | None = None
    """What the checks, or a wrong key, had against it."""
    gone: threading.Event = field(default_factory=threading.Event, repr=False, compare=False)
    """Set with `disconnected`; for tests to wait on."""

    def as_json(self) -> dict[str, Any]:
        return {name: value for name, value in vars(self).items() if name != "gone"}


class Lane:
    """Turns to play and requests seen. The server's loop changes it, a test in another thread reads it."""

    def __init__(self) -> None:
        self.turns: list[Turn] = []
        self.always: Turn | None = None
        self.seen: list[Seen] = []
        self.lookups: list[Seen] = []
        """Requests for the list of models."""
        self.lenient = False
        self.memory: dict[Any, Any] = {}
        """What the checks remember of the replies."""
        self._news = anyio.Event()
        self._told = threading.Condition()

    def next_turn(self) -> Turn | None:
        return self.turns.pop(0) if self.turns else self.always

    def changed(self) -> None:
        """Something was recorded: wake whoever waits for it. Only the server's loop may call this."""
        self._news.set()
        self._news = anyio.Event()
        with self._told:
            self._told.notify_all()

    def wait(self, reached: Callable[[], bool], timeout_s: float) -> bool:
        """Block this thread until it is so; False if that took too long."""
        with self._told:
            return self._told.wait_for(reached, timeout_s)

    async def reached(self, reached: Callable[[], bool], timeout_s: float) -> bool:
        """Wait in the server's loop until it is so; False if that took too long."""
        with anyio.move_on_after(timeout_s):
            while not reached():
                await self._news.wait()
        return reached()
