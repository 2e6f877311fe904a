"""Eight processes that write to one realm."""

import json
from collections.abc import Sequence
from statistics import median

import anyio

from benchmarks.appending import raw_file
from benchmarks.places import children, folder, store_in
from benchmarks.results import Row, Scale, alternating, at_least, at_most, share

PROCESSES = 8


def processes(scale: Scale) -> Sequence[Row]:
    """8 processes at 400 durable events/s: the p99 of an append, by our store and by busy_timeout."""
    p50s: tuple[list[float], list[float]] = ([], [])
    p99s: tuple[list[float], list[float]] = ([], [])
    for which in alternating(scale.of(1, 5)):
        said = _together(("store", "raw")[which], scale.of(1, 2))
        late_ms = [late for one in said for late in one["late_ms"]]
        p50s[which].append(share(late_ms, 0.5))
        p99s[which].append(share(late_ms, 0.99))
    p99 = median(p99s[0])
    return [
        Row("8", "8 processes x 400 ev/s, append p99, vs own p50", "ms", p99, median(p50s[0]), at_most(8)),
        Row("8", "the same, vs p99 of raw writers with busy_timeout", "ms", p99, median(p99s[1]), at_most(0.15)),
    ]


def fairness(scale: Scale) -> Sequence[Row]:
    """8 processes that append as fast as they can: the fewest appends of a process, over the most of one."""
    least: list[float] = []
    most: list[float] = []
    for _ in range(scale.of(1, 3)):
        counts = [one["count"] for one in _together("flood", scale.of(1, 2))]
        least.append(min(counts))
        most.append(max(counts))
    what = "8 processes flat out: fewest appends of one, vs most"
    return [Row("8", what, "events", median(least), median(most), at_least(0.75))]


def _together(mode: str, seconds: int) -> list[dict[str, list[float]]]:
    """What the processes said after they worked at the same time."""

    async def make() -> None:
        async with store_in(path):
            pass

    with folder() as path:
        if mode == "raw":
            raw_file(path / "raw.sqlite3", PROCESSES).close()
        else:
            anyio.run(make)
        with children("appender", PROCESSES, mode, path, seconds) as started:
            for child in started:
                child.tell()
            return [json.loads(child.line()) for child in started]
