"""How soon an interrupt from another process hangs up on the model."""

import time
from collections.abc import Sequence
from pathlib import Path

import anyio

from benchmarks.places import Child, folder, realm_in
from benchmarks.results import Row, Scale, at_most, share


def interrupt(scale: Scale) -> Sequence[Row]:
    """From an interrupt in one process to the closed reply of the provider in the other, and to the turn's end here."""
    with folder() as root:
        hung_up, ended = anyio.run(_interrupted, root, scale.of(10, 60))
    return [
        Row("issue", "interrupt to model hung up, another process p50", "ms", share(hung_up, 0.5), None, at_most(50)),
        Row("issue", "interrupt to model hung up, another process p99", "ms", share(hung_up, 0.99)),
        Row("issue", "interrupt until its caller knows that it ended p50", "ms", share(ended, 0.5)),
    ]


async def _interrupted(root: Path, times: int) -> tuple[list[float], list[float]]:
    hung_up: list[float] = []
    ended: list[float] = []
    with Child("owner", root) as owner:
        owner.line()
        async with realm_in(root) as realm:
            for _ in range(times):
                owner.tell()
                session_id = owner.line()
                started_ns = time.monotonic_ns()
                said = await realm.sessions.interrupt(session_id)
                ended.append((time.monotonic_ns() - started_ns) / 1e6)
                if not said.ended:
                    raise RuntimeError("the turn did not end")
                hung_up.append((int(owner.line()) - started_ns) / 1e6)
    return hung_up, ended
