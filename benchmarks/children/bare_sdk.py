"""Imports a vendor's SDK when it is told to, asks as its documentation shows, and says the ms to the first word."""

import sys
import time

import anyio

from benchmarks.wires import WIRES, close


async def main(name: str, url: str, lane: str) -> None:
    wire = next(wire for wire in WIRES if wire.name == name)
    came: list[float] = []
    print("ready", flush=True)
    sys.stdin.readline()
    started = time.perf_counter()
    client = wire.bare(url, lane)
    await wire.loop(client, wire.model, lambda _: came.append(time.perf_counter()))
    print((came[0] - started) * 1000, flush=True)
    await close(client)


anyio.run(main, sys.argv[1], sys.argv[2], sys.argv[3])
