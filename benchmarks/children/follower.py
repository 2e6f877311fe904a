"""Follows a session through the journal; each event's title says when it was sent, and this how late it came."""

import json
import sys
import time
from pathlib import Path

import anyio

from benchmarks.places import realm_in


async def main(root: Path, session_id: str, count: int) -> None:
    late_ms: list[float] = []
    async with realm_in(root) as realm, realm.journal.follow(session_id, after=1) as log:
        print("ready", flush=True)
        while len(late_ms) < count:
            for recorded in await log.next():
                now_ns = time.monotonic_ns()
                late_ms.append((now_ns - int(recorded.event.title)) / 1e6)  # type: ignore[union-attr]
    print(json.dumps(late_ms), flush=True)


anyio.run(main, Path(sys.argv[1]), sys.argv[2], int(sys.argv[3]))
