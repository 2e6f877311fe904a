"""How long it takes until something answers."""

import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from statistics import median

import anyio

from benchmarks.places import REALM, folder, realm_in
from benchmarks.results import Row, Scale, alternating, at_most, interleaved
from benchmarks.wire import Server, ours, sdk
from meerkat_mcp.domain.settings import Settings

SDKS = ("anthropic", "openai", "google.genai")


def cold_start(scale: Scale) -> Sequence[Row]:
    """From exec to the answer of `initialize`: `serve` on an existing realm against the smallest MCPServer."""
    with folder() as root:
        Server(ours(root)).close()  # the realm exists from here on, and all byte code
        Server(sdk()).close()
        commands, started, rss = (ours(root), sdk()), ([], []), ([], [])
        for which in alternating(scale.of(3, 11)):
            with Server(commands[which]) as server:
                started[which].append(server.started_s * 1000)
                rss[which].append(server.rss_bytes / 1e6)
        loaded = _sdks_loaded(root)
    (our_ms, sdk_ms), (our_mb, sdk_mb) = map(median, started), map(median, rss)
    return [
        Row("1", "exec to initialize, vs smallest MCPServer", "ms", our_ms, sdk_ms, at_most(1.05)),
        Row("1", "memory then (RSS), vs the same", "MB", our_mb, sdk_mb, at_most(1.15)),
        Row("1", "provider SDKs imported by then", "", loaded, None, at_most(0)),
    ]


def _sdks_loaded(root: Path) -> int:
    server = Server(ours(root), stderr=subprocess.PIPE, PYTHONPROFILEIMPORTTIME="1")
    modules = [line.rpartition("|")[2].strip() for line in server.close().decode().splitlines()]
    if "meerkat_mcp.server.app" not in modules:
        raise RuntimeError("the imports were not seen")
    return sum(module in SDKS for module in modules)


def cli_list(scale: Scale) -> Sequence[Row]:
    """`session list` of 20 sessions as a process, against a python that imports what every command needs."""

    async def prepare(root: Path) -> None:
        async with realm_in(root) as realm:
            for number in range(20):
                await realm.sessions.run("", Settings(), title=f"session {number}")

    with folder() as root:
        anyio.run(prepare, root)
        listing = ["-m", "meerkat_mcp", "session", "list", "--state-root", str(root), "--realm", REALM]
        floor = ["-c", "import anyio, asyncio, pydantic, sqlite3"]
        listed, bare = interleaved(scale.of(3, 9), lambda: _wall_ms(listing), lambda: _wall_ms(floor))
    return [Row("issue", "meerkat-mcp session list, vs python importing anyio + pydantic", "ms", listed, bare)]


def _wall_ms(words: Sequence[str]) -> float:
    started = time.perf_counter()
    subprocess.run([sys.executable, *words], check=True, stdout=subprocess.DEVNULL)
    return (time.perf_counter() - started) * 1000
