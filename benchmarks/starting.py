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
LATER = (*SDKS, "genai_prices", "mcp.client", "opentelemetry")
"""What nobody needs before the first turn of a real model, or of a tool, or before there is somebody to watch."""


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
    return sum(module in SDKS for module in _imported_by_serve(root))


def _imported_by_serve(root: Path) -> dict[str, float]:
    server = Server(ours(root), stderr=subprocess.PIPE, PYTHONPROFILEIMPORTTIME="1")
    return _imported(server.close())


def _imported_by_list(root: Path) -> dict[str, float]:
    argv = [sys.executable, "-X", "importtime", *_listing(root)]
    done = subprocess.run(argv, check=True, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE)
    return _imported(done.stderr)


def _imported(report: bytes) -> dict[str, float]:
    """What `-X importtime` tells: each module, and its own milliseconds."""
    lines = [
        line.removeprefix("import time:").split("|") for line in report.decode().splitlines() if line.count("|") == 2
    ]
    found = {name.strip(): int(own) / 1000 for own, _, name in lines if own.strip().isdigit()}
    if "meerkat_mcp.realms" not in found:
        raise RuntimeError("the imports were not seen")
    return found


def imports(scale: Scale) -> Sequence[Row]:
    """What `session list` and the start of `serve` import of what can wait: how many modules, their milliseconds."""
    rows: list[Row] = []
    with folder() as root:
        Server(ours(root)).close()
        for command, look in (("session list", _imported_by_list), ("serve", _imported_by_serve)):
            runs = [look(root) for _ in range(scale.of(2, 5))]
            for package in LATER:
                own_ms = [[ms for name, ms in run.items() if f"{name}.".startswith(f"{package}.")] for run in runs]
                what = f"{command}: imports of {package} ({len(own_ms[0])} modules)"
                target = at_most(0) if package in (*SDKS, "genai_prices") else None
                rows.append(Row("start", what, "ms", median(map(sum, own_ms)), None, target))
    return rows


def cli_list(scale: Scale) -> Sequence[Row]:
    """`session list` of 20 sessions as a process, against a python that imports what every command needs."""

    async def prepare(root: Path) -> None:
        async with realm_in(root) as realm:
            for number in range(20):
                await realm.sessions.run("", Settings(), title=f"session {number}")

    with folder() as root:
        anyio.run(prepare, root)
        listing = _listing(root)
        floor = ["-c", "import anyio, asyncio, pydantic, sqlite3"]
        listed, bare = interleaved(scale.of(3, 9), lambda: _wall_ms(listing), lambda: _wall_ms(floor))
    return [Row("issue", "meerkat-mcp session list, vs python importing anyio + pydantic", "ms", listed, bare)]


def _listing(root: Path) -> list[str]:
    return ["-m", "meerkat_mcp", "session", "list", "--state-root", str(root), "--realm", REALM]


def _wall_ms(words: Sequence[str]) -> float:
    started = time.perf_counter()
    subprocess.run([sys.executable, *words], check=True, stdout=subprocess.DEVNULL)
    return (time.perf_counter() - started) * 1000
