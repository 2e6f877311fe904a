"""How a process that serves is told to end."""

import asyncio
import os
import signal
from collections.abc import Callable


def on_signals(end: Callable[[str], object]) -> None:
    """End on SIGTERM and SIGINT until the loop closes; the same one again kills: clients may send both in a row."""
    loop = asyncio.get_running_loop()
    seen: set[int] = set()

    def arrived(number: int) -> None:
        if number in seen:
            os._exit(128 + number)
        seen.add(number)
        end(signal.Signals(number).name)

    for number in (signal.SIGTERM, signal.SIGINT):
        try:
            loop.add_signal_handler(number, arrived, number)
        except NotImplementedError:  # Windows
            signal.signal(number, lambda number, _: loop.call_soon_threadsafe(arrived, number))
