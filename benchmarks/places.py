"""Where benchmarks work: realms and stores in temporary folders on a real disk, and other processes."""

import subprocess
import sys
import tempfile
import time
from collections.abc import AsyncGenerator, Generator, Sequence
from contextlib import asynccontextmanager, contextmanager
from pathlib import Path
from typing import Any

from meerkat_mcp.domain.recorded import Recorded
from meerkat_mcp.domain.session import Session
from meerkat_mcp.providers.base import Access, Provider
from meerkat_mcp.realms import Realm, choose, open_realm
from meerkat_mcp.sessions.clock import SystemClock
from meerkat_mcp.sessions.providers import DEMO, Providers, Wire
from meerkat_mcp.sessions.service import Sessions
from meerkat_mcp.stores.base import Append
from meerkat_mcp.stores.sqlite import SQLiteStore

REALM = "bench"
clock = SystemClock()


@contextmanager
def folder() -> Generator[Path]:
    """A folder that goes away afterwards."""
    with tempfile.TemporaryDirectory(prefix="meerkat-bench-", ignore_cleanup_errors=True) as path:
        yield Path(path)


@asynccontextmanager
async def realm_in(root: Path) -> AsyncGenerator[Realm]:
    """The realm of the benchmarks under this state root."""
    async with open_realm(choose(REALM, state_root=root)) as realm:
        yield realm


def sessions_of(realm: Realm, provider: Provider) -> Sessions:
    """The realm's sessions, answered by this provider: nothing else is there."""

    def opened(_: Access) -> Provider:
        return provider

    providers = Providers(wires={DEMO: Wire(opened)}, lookup=lambda _: None)
    return Sessions(realm.journal, realm.turns, providers)


@asynccontextmanager
async def store_in(path: Path) -> AsyncGenerator[SQLiteStore]:
    """The store in this folder."""
    store = await SQLiteStore.open(path, clock_ms=clock.now_ms)
    try:
        yield store
    finally:
        await store.close()


async def begun(store: SQLiteStore) -> Session:
    """A new session in the store, with its first event."""
    session = Session(id=clock.new_id(), seq=1)
    await store.append(Append(session, [recorded(1)]))
    return session


def recorded(seq: int, size: int = 300, kind: str = "step_started") -> Recorded:
    """An event whose JSON has this size; the store does not read it."""
    return Recorded(seq, kind, filler(size))


def filler(size: int) -> bytes:
    """JSON of this size."""
    return b'{"text":"' + b"x" * (size - 11) + b'"}'


def following(session: Session, seq: int, size: int = 300) -> Append:
    """The event that comes at this place, alone."""
    return Append(session, (recorded(seq, size),), shown=False)


class Child:
    """Another process of ours, spoken to in lines."""

    def __init__(self, module: str, *args: object) -> None:
        argv = [sys.executable, "-m", f"benchmarks.children.{module}", *map(str, args)]
        self._process = subprocess.Popen(argv, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)

    def line(self) -> str:
        """The next line it says."""
        assert self._process.stdout is not None, "it was started with a pipe"
        line = self._process.stdout.readline()
        if not line:
            raise RuntimeError(f"{self._process.args!r} ended with {self._process.wait()}")
        return line.strip()

    def tell(self, line: str = "go") -> None:
        """Say a line to it."""
        assert self._process.stdin is not None, "it was started with a pipe"
        self._process.stdin.write(line + "\n")
        self._process.stdin.flush()

    def end(self) -> None:
        """Wait for it to end; kill it when it does not."""
        try:
            self._process.communicate(timeout=10)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.communicate()

    def __enter__(self) -> "Child":
        return self

    def __exit__(self, *exc: Any) -> None:
        self.end()


@contextmanager
def children(module: str, count: int, *args: object) -> Generator[Sequence[Child]]:
    """Several at once, all ready; each is told its number after the other arguments."""
    started = [Child(module, *args, number) for number in range(count)]
    try:
        for child in started:
            child.line()
        yield started
    finally:
        for child in started:
            child.end()


def cpu_and_wall() -> tuple[float, float]:
    """The seconds this process has worked, and the seconds that went by."""
    return time.process_time(), time.perf_counter()
