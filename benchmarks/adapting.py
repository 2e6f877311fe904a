"""What our adapters cost over the bare SDKs, in the CPU of the process that reads a long reply."""

import gc
import time
from collections.abc import Awaitable, Callable, Sequence
from statistics import median

import anyio

from benchmarks.fake import CHUNK_BYTES, Fake, fake, said
from benchmarks.results import Row, Scale, alternating, at_most
from benchmarks.wires import WIRES, BothWays, close
from meerkat_mcp.providers.base import Piece, Reply
from meerkat_mcp.providers.wire import Http

TARGET = at_most(1.5)
PACED_S = 0.004
Count = Callable[[], Awaitable[int]]
"""Reads a whole reply; how many pieces it had."""


def adapters(scale: Scale) -> Sequence[Row]:
    """The CPU for a delta of a long reply: each adapter's `reply()` against the loop of its SDK's documentation."""
    burst, paced = scale.of(2000, 5000), scale.of(100, 150)
    rows: list[Row] = []
    with fake() as vendors:
        for wire in WIRES:
            in_burst = said("words..." * burst, piece=8, chunk=CHUNK_BYTES)
            ours, bare = anyio.run(_measured, wire, vendors, in_burst, burst, scale.of(3, 9))
            rows.append(
                Row("adapter", f"{wire.name}: CPU for a delta of a burst, vs bare SDK", "us", ours, bare, TARGET)
            )
        for wire in WIRES:
            one_by_one = said("words..." * paced, piece=8, delay=PACED_S)
            ours, bare = anyio.run(_measured, wire, vendors, one_by_one, paced, scale.of(3, 5))
            what = f"{wire.name}: the same, one delta each {PACED_S * 1000:g} ms"
            rows.append(Row("adapter", what, "us", ours, bare, TARGET))
    return rows


async def _measured(wire: BothWays, vendors: Fake, turn: dict[str, object], deltas: int, times: int) -> list[float]:
    """The medians of ours and of the bare SDK, in microseconds a delta."""
    lane = vendors.always(turn)
    http = Http()
    provider, client = wire.ours(vendors.url, lane, http), wire.bare(vendors.url, lane)

    async def ours() -> int:
        pieces, ended = 0, False
        async for part in provider.reply(wire.request):
            pieces += isinstance(part, Piece)
            ended = isinstance(part, Reply) and part.stop_reason == "end"
        return pieces if ended else 0

    async def bare() -> int:
        texts: list[str] = []
        await wire.loop(client, wire.model, texts.append)
        return len(texts)

    ways: tuple[Count, ...] = (ours, bare)
    costs_us: tuple[list[float], list[float]] = ([], [])
    for read in ways:
        await read()  # what is loaded or built at first is not counted
    for which in alternating(times):
        gc.collect()
        before = time.process_time()
        pieces = await ways[which]()
        costs_us[which].append((time.process_time() - before) / deltas * 1e6)
        if pieces != deltas:
            raise RuntimeError(f"{wire.name}: {pieces} of {deltas} deltas came")
    await close(client)
    await http.close()
    return [median(costs) for costs in costs_us]
