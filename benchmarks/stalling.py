"""How long the server's event loop is busy with one thing, seen from outside."""

import gc
import json
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from statistics import median

from benchmarks.places import folder
from benchmarks.results import Row, Scale, at_most, share
from benchmarks.wire import Server, call, ours, request

TURNS = 20
PING = request(5, "ping", {})
UNFROZEN = "import meerkat_mcp.cli.serve, meerkat_mcp.realms, meerkat_mcp.server.app, meerkat_mcp.server.stdio\n" + (
    "import meerkat_mcp.stores.sqlite, gc, time\n"
    "started = time.perf_counter(); gc.collect(); print((time.perf_counter() - started) * 1000)"
)
"""A process that has imported what the server imports, and what the first full collection takes there."""


def stall(scale: Scale) -> Sequence[Row]:
    """The longest that a ping or a meerkat_read takes in 10 s while 20 turns stream, against a full GC, unfrozen."""
    longest: list[float] = []
    p99: list[float] = []
    collections: list[float] = []
    for _ in range(scale.of(1, 3)):
        said = subprocess.run([sys.executable, "-c", UNFROZEN], check=True, capture_output=True, text=True)
        collections.append(float(said.stdout))
        with folder() as root:
            waits_ms = _pinged(root, scale.of(3, 10))
        longest.append(max(waits_ms))
        p99.append(share(waits_ms, 0.99))
    return [
        Row("20", f"longest call while {TURNS} turns stream, vs a full GC unfrozen", "ms", median(longest),
            median(collections), at_most(0.3)),
        Row("20", "p99 of those calls", "ms", median(p99)),
    ]  # fmt: skip


def _pinged(root: Path, seconds: int) -> list[float]:
    """How long each call took, in milliseconds, while the server works."""
    with Server(ours(root)) as server:
        words = seconds * 80 + 400
        prompt = f"[[delta_ms 12.5]][[words {words}]]"
        session_ids = [
            server.called("meerkat_run", prompt=prompt, wait_seconds=0, max_tokens=100_000)["session_id"]
            for _ in range(TURNS)
        ]
        gc.collect()
        gc.freeze()
        reads = [call(6, "meerkat_read", {"session_id": session_id}) for session_id in session_ids]
        waits_ms: list[float] = []
        end = time.perf_counter() + seconds
        while time.perf_counter() < end:
            line = PING if len(waits_ms) % 2 else reads[len(waits_ms) // 2 % TURNS]
            started = time.perf_counter()
            server.send(line)
            server.line()
            waits_ms.append((time.perf_counter() - started) * 1000)
            time.sleep(0.001)
        last = server.called("meerkat_read", session_id=session_ids[0])
        if last["turn"]["status"] != "running":
            raise RuntimeError(f"the load ended early: {json.dumps(last)[:500]}")
    return waits_ms
