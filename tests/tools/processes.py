"""What several tests of tool servers look at: answers, names, and whether processes have ended."""

import json
from typing import Any

import anyio.to_thread
import psutil

from meerkat_mcp.tools.base import Toolbox


async def value(box: Toolbox, name: str, **arguments: Any) -> Any:
    """What a tool answers, read as JSON."""
    output = await box.call(name, arguments)
    assert not output.is_error, output.content
    return json.loads(output.content)


async def names(box: Toolbox) -> list[str]:
    return [tool.name for tool in await box.tools()]


class Started:
    """The children of this process that came since: other tests keep some of their own."""

    def __init__(self) -> None:
        self._before = {child.pid for child in psutil.Process().children()}

    def now(self) -> list[psutil.Process]:
        return [child for child in psutil.Process().children() if child.pid not in self._before]


async def ended(*pids: int) -> bool:
    """Whether the processes end, soon. One that only waits for its parent to notice has ended."""

    def wait() -> bool:
        there = [psutil.Process(pid) for pid in pids if psutil.pid_exists(pid)]
        _, left = psutil.wait_procs(there, timeout=0.01)
        for _ in range(500):
            left = [process for process in left if alive(process)]
            if not left:
                return True
            _, left = psutil.wait_procs(left, timeout=0.01)
        return not left

    return await anyio.to_thread.run_sync(wait)


def alive(process: psutil.Process) -> bool:
    try:
        return process.status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False
