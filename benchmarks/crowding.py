"""Many HTTP clients on one process: nothing is lost, and an idle read stays quick.

The server, the crowd and whoever reads meanwhile are three processes on the same cores: what the crowd needs of them,
the server has not.
"""

import json
import re
import subprocess
import sys
import tempfile
import time
from collections.abc import Generator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import anyio
import psutil

from benchmarks.places import store_in
from benchmarks.results import Row, Scale, at_most, share
from meerkat_mcp.domain.events import DELTAS

CLIENTS, FOLLOWERS = 200, 1000
WARM_S = 10.0
CHILD = [sys.executable, "-m", "benchmarks.children.crowd"]


class Served:
    """A server in a process of its own, on a realm of its own."""

    def __init__(self, process: subprocess.Popen[str], port: int, folder: Path) -> None:
        self.port = port
        self.folder = folder
        self._measured = psutil.Process(process.pid)

    def mb(self) -> float:
        return self._measured.memory_info().rss / 2**20

    def cpu_s(self) -> float:
        times = self._measured.cpu_times()
        return times.user + times.system

    def child(self, mode: str, *rest: object) -> "subprocess.Popen[str]":
        return subprocess.Popen([*CHILD, mode, str(self.port), *map(str, rest)], stdout=subprocess.PIPE, text=True)

    def started(self, prompt: str) -> str:
        """A session whose turn goes on after this."""
        code = (
            "import anyio, sys\nfrom mcp import Client\nasync def main():\n"
            f"  async with Client('http://127.0.0.1:{self.port}/mcp') as c:\n"
            f"    a = dict(prompt={prompt!r}, wait_seconds=0, on_cancel='detach', provider_params={{'delta_ms': 0}})\n"
            "    print((await c.call_tool('meerkat_run', a)).structured_content['session_id'])\nanyio.run(main)\n"
        )
        return subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.strip()


@contextmanager
def served() -> Generator[Served]:
    with tempfile.TemporaryDirectory() as root:
        command = [sys.executable, "-m", "meerkat_mcp", "serve", "--http", "--port", "0", "--no-access-log"]
        command += ["--realm", "crowd", "--state-root", root]
        with subprocess.Popen(command, stderr=subprocess.PIPE, text=True) as process:
            assert process.stderr is not None
            found = re.search(r"MCP: http://[^:]+:(\d+)/", process.stderr.readline())
            assert found is not None, "the server says where it is"
            _configure(int(found[1]))
            yield Served(process, int(found[1]), Path(root) / "crowd")
            process.terminate()
            process.wait(timeout=10)


def crowd(scale: Scale) -> Sequence[Row]:
    """200 clients run demo turns over HTTP, each following its own; reads of an idle session meanwhile."""
    seconds = scale.of(10, 60)
    with served() as server:
        idle = server.started("[[say hi]]")
        clients = server.child("turns", CLIENTS, seconds)
        time.sleep(WARM_S / 2)
        reads = server.child("ping", idle, seconds - WARM_S / 2)
        before_mb, before_s, from_s = server.mb(), server.cpu_s(), time.monotonic()
        took_s = _said(reads)["took_s"]
        busy = (server.cpu_s() - before_s) / (time.monotonic() - from_s)
        said = _said(clients)
        grown_mb = server.mb() - before_mb
        lost = anyio.run(_lost, server.folder, said["seen"])
    events = sum(len(seen) for seen in said["seen"].values())
    what = f"{CLIENTS} HTTP clients for {seconds} s:"
    return [
        Row("http", f"{what} errors", "", len(said["errors"]), None, at_most(0)),
        Row("http", f"{what} followers whose log is not the store's", "", lost, None, at_most(0)),
        Row("http", f"{what} turns", "1/s", len(said["seen"]) / seconds),
        Row("http", f"{what} events delivered", "1/s", events / seconds),
        Row("http", f"{what} the server's share of a core", "cores", busy),
        Row("http", f"{what} memory gained", "MB", grown_mb, None, at_most(30)),
        Row("http", f"{what} an idle read, p50", "ms", share(took_s, 0.5) * 1000),
        Row("http", f"{what} an idle read, p99", "ms", share(took_s, 0.99) * 1000, None, at_most(250)),
    ]


def followers(scale: Scale) -> Sequence[Row]:
    """1000 followers of one session over HTTP, which gets ten pieces of text a second."""
    seconds = scale.of(20, 60)
    with served() as server:
        idle = server.started("[[say hi]]")
        watched = server.started(f"[[delta_ms 100]][[words {seconds * 10}]]")
        clients = server.child("follow", FOLLOWERS, watched)
        time.sleep(WARM_S)
        reads = server.child("ping", idle, seconds - WARM_S - 2)
        before_mb, before_s, from_s = server.mb(), server.cpu_s(), time.monotonic()
        took_s = _said(reads)["took_s"]
        busy = (server.cpu_s() - before_s) / (time.monotonic() - from_s)
        said = _said(clients)
        grown_mb = server.mb() - before_mb
        lost = sum(anyio.run(_lost, server.folder, {watched: seen}) for seen in said["seen"])
        missing = FOLLOWERS - len(said["seen"])
    what = f"{FOLLOWERS} followers of one session for {seconds} s:"
    return [
        Row("http", f"{what} errors", "", len(said["errors"]) + missing, None, at_most(0)),
        Row("http", f"{what} whose log is not the store's", "", lost, None, at_most(0)),
        Row("http", f"{what} events delivered", "1/s", sum(map(len, said["seen"])) / seconds),
        Row("http", f"{what} the server's share of a core", "cores", busy),
        Row("http", f"{what} memory gained", "MB", grown_mb, None, at_most(30)),
        Row("http", f"{what} an idle read, p50", "ms", share(took_s, 0.5) * 1000),
        Row("http", f"{what} an idle read, p99", "ms", share(took_s, 0.99) * 1000, None, at_most(250)),
    ]


def _configure(port: int) -> None:
    code = (
        "import anyio\nfrom mcp import Client\nasync def main():\n"
        f"  async with Client('http://127.0.0.1:{port}/mcp') as c:\n"
        "    r = await c.call_tool('meerkat_config', {'action': 'patch', 'patch': "
        "{'limits': {'max_concurrent_turns': 512}}})\n    assert not r.is_error, r\nanyio.run(main)\n"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


def _said(child: "subprocess.Popen[str]") -> Any:
    with child:
        assert child.stdout is not None
        return json.loads(child.stdout.read())


async def _lost(folder: Path, seen: dict[str, Sequence[Sequence[Any]]]) -> int:
    """How many followers did not see every recorded event once, in order."""
    wrong = 0
    async with store_in(folder) as store:
        for session_id, events in seen.items():
            told = [seq for seq, kind in events if kind not in DELTAS]
            kept = [recorded.seq for recorded in await store.read(session_id) if not recorded.is_delta]
            wrong += told != kept or [seq for seq, _ in events] != sorted({seq for seq, _ in events})
    return wrong
