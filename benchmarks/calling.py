"""Tool calls and progress over stdio, ours against the SDK's, driven by one raw client."""

import sys
import time
from collections.abc import Sequence
from pathlib import Path
from statistics import median

import anyio

from benchmarks.places import folder, realm_in
from benchmarks.results import Row, Scale, alternating, at_least, at_most, interleaved, share
from benchmarks.wire import Server, call, ours, sdk
from meerkat_mcp.domain.settings import Settings

IN_FLIGHT = 32


def stdio_call(scale: Scale) -> Sequence[Row]:
    """`meerkat_read` of a session that had a turn, over our stdio, against a no-op tool over the SDK's."""
    with folder() as root:
        session_id = anyio.run(_session, root)
        read = call(7, "meerkat_read", {"session_id": session_id})
        noop = call(7, "noop", {"x": "x"})
        count = scale.of(100, 400)
        with Server(ours(root)) as our, Server(sdk()) as other:
            assert our.asked(read)["structuredContent"]["turn"]["status"] == "completed", "it had a turn"
            other.asked(noop)
            our_us, sdk_us = interleaved(
                scale.of(3, 7), lambda: _latency_us(our, read, count), lambda: _latency_us(other, noop, count)
            )
            our_rate, sdk_rate = interleaved(
                scale.of(3, 7), lambda: _throughput(our, read, 4 * count), lambda: _throughput(other, noop, 2 * count)
            )
    return [
        Row("3", "stdio call p50: meerkat_read, vs no-op on the SDK's stdio", "us", our_us, sdk_us, at_most(0.65)),
        Row("3", "the same, 32 in flight", "calls/s", our_rate, sdk_rate, at_least(2.5)),
    ]


async def _session(root: Path) -> str:
    async with realm_in(root) as realm:
        started = await realm.sessions.run("[[delta_ms 0]][[words 100]]", Settings())
        assert started.turn_id is not None, "a prompt makes a turn"
        await realm.sessions.wait(started.session_id, started.turn_id, 30)
        return started.session_id


def _latency_us(server: Server, line: bytes, count: int) -> float:
    """The median time from a request to its answer."""
    taken: list[float] = []
    for _ in range(count):
        started = time.perf_counter()
        server.send(line)
        server.line()
        taken.append((time.perf_counter() - started) * 1e6)
    return share(taken, 0.5)


def _throughput(server: Server, line: bytes, count: int) -> float:
    """Calls a second, with as many under way as said above."""
    started = time.perf_counter()
    server.send(line * IN_FLIGHT)
    for _ in range(count - IN_FLIGHT):
        server.line()
        server.send(line)
    for _ in range(IN_FLIGHT):
        server.line()
    return count / (time.perf_counter() - started)


def progress(scale: Scale) -> Sequence[Row]:
    """Progress notifications of one tool call a second, the same MCPServer on our stdio and on the SDK's."""
    commands = [[sys.executable, "-m", "benchmarks.children.progress_server", whose] for whose in ("ours", "sdk")]
    counts = (scale.of(10_000, 30_000), scale.of(1000, 3000))
    rates: tuple[list[float], list[float]] = ([], [])
    costs: tuple[list[float], list[float]] = ([], [])
    with Server(commands[0]) as our, Server(commands[1]) as other:
        for which in alternating(scale.of(3, 7)):
            rate, cost_us = _progress(our if which == 0 else other, counts[which])
            rates[which].append(rate)
            costs[which].append(cost_us)
    return [
        Row("4", "progress over stdio, vs the SDK's", "1/s", *map(median, rates), at_least(20)),
        Row("4", f"server's CPU for one of ours (the SDK's: {median(costs[1]):.0f})", "us", median(costs[0]),
            None, at_most(15)),
    ]  # fmt: skip


def _progress(server: Server, count: int) -> tuple[float, float]:
    """Notifications a second, and the server's CPU for each in microseconds."""
    cpu_before = server.called("cpu")["result"]
    started = time.perf_counter()
    server.send(call(9, "progress", {"n": count}, _meta={"progressToken": "t"}))
    for _ in range(count):
        server.line()
    wall_s = time.perf_counter() - started
    if b'"id"' not in server.line():
        raise RuntimeError("more progress than asked for")
    return count / wall_s, (server.called("cpu")["result"] - cpu_before) / count * 1e6
