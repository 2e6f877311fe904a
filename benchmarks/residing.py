"""What a host costs that shares a server with others: the thin proxy in front of the realm's resident server."""

import os
import subprocess
import sys
import sysconfig
from collections.abc import Generator, Sequence
from contextlib import contextmanager
from pathlib import Path
from statistics import median

import psutil

from benchmarks.places import REALM, folder
from benchmarks.results import Row, Scale, alternating, at_most
from benchmarks.wire import CHILDREN, Server

PROXIES = 10


def shared_start(scale: Scale) -> Sequence[Row]:
    """From exec to the answer of `initialize` through a proxy, against a bare stdlib JSON-RPC loop; its memory too."""
    bare = [sys.executable, str(CHILDREN / "bare_loop.py")]
    with _resident() as proxy:
        Server(bare).close()
        Server(proxy).close()
        commands, started, rss, pss = (proxy, bare), ([], []), ([], []), ([], [])
        for which in alternating(scale.of(7, 41)):
            with Server(commands[which]) as server:
                started[which].append(server.started_s * 1000)
                memory = psutil.Process(server.pid).memory_full_info()
                rss[which].append(memory.rss / 1e6)
                pss[which].append(getattr(memory, "pss", memory.uss) / 1e6)
    (our_ms, bare_ms), (our_rss, bare_rss), (our_pss, bare_pss) = (
        (median(ours), median(theirs)) for ours, theirs in (started, rss, pss)
    )
    what = "exec to initialize through --shared, vs bare stdlib JSON-RPC loop"
    return [
        Row("issue", what, "ms", our_ms, bare_ms, at_most(2)),
        Row("issue", "a proxy's memory (RSS)", "MB", our_rss, None, at_most(12)),
        Row("issue", "the same, vs the bare loop", "MB", our_rss, bare_rss),
        Row("issue", "a proxy's memory (PSS), vs the bare loop", "MB", our_pss, bare_pss),
    ]


def shared_hosts(scale: Scale) -> Sequence[Row]:
    """Ten hosts of one realm with a proxy each and one resident server, against ten servers of their own: memory."""
    with _resident() as proxy:
        alone = [word for word in proxy if word != "--shared"]
        sizes: list[float] = []
        for command in (proxy, alone):
            servers = [Server(command) for _ in range(PROXIES)]
            processes = [psutil.Process(server.pid) for server in servers]
            if command is proxy:
                processes.append(_resident_process(proxy))
            full = (process.memory_full_info() for process in processes)
            sizes.append(sum(getattr(memory, "pss", memory.uss) for memory in full) / 1e6)
            for server in servers:
                server.close()
    what = f"memory of {PROXIES} hosts' servers (PSS), --shared vs one each"
    return [Row("issue", what, "MB", sizes[0], sizes[1], at_most(0.5))]


@contextmanager
def _resident() -> Generator[list[str]]:
    """The command of a proxy; the realm's resident server runs, and is ended afterwards."""
    with folder() as root:
        os.environ["MEERKAT_RUNTIME_DIR"] = str(root / "run")
        os.environ["PYTHONPYCACHEPREFIX"] = str(root / "bytecode")  # an installed package has it
        os.environ.pop("PYTHONDONTWRITEBYTECODE", None)
        place = ["--realm", REALM, "--state-root", str(root)]
        script = Path(sysconfig.get_path("scripts")) / "rkat-mcp"
        command = [str(script), "--shared", *place]
        try:
            Server(command).close()
            yield command
        finally:
            subprocess.run(
                [sys.executable, "-m", "meerkat_mcp", "resident", "stop", *place], check=True, stderr=subprocess.DEVNULL
            )


def _resident_process(proxy: Sequence[str]) -> psutil.Process:
    root = proxy[-1]
    (found,) = (process for process in psutil.process_iter(["cmdline"]) if _is_resident(process, root))
    return found


def _is_resident(process: psutil.Process, root: str) -> bool:
    words = process.info["cmdline"] or []
    return "--resident" in words and root in words
