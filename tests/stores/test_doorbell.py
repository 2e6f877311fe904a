"""A doorbell within a process and between real ones, heard by inotify and by polling, with pwrite and without."""

import ctypes
import errno
import os
import subprocess
import sys
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager, closing
from pathlib import Path
from types import SimpleNamespace

import anyio
import anyio.lowlevel
import anyio.to_thread
import pytest

from meerkat_mcp.stores import doorbell
from meerkat_mcp.stores.doorbell import Doorbell

pytestmark = pytest.mark.anyio

ROOT = Path(doorbell.__file__).parents[2]
LONG_S = 30
POLL_INTERVAL_S = 0.005

RING_AT_EACH_LINE = """
import sys
from pathlib import Path
from meerkat_mcp.stores.doorbell import Doorbell
bell = Doorbell(Path(sys.argv[1]))
print("ready", flush=True)
for _ in sys.stdin:
    bell.ring()
"""


@pytest.fixture(params=["inotify", "poll"])
def open_bell(request: pytest.FixtureRequest, tmp_path: Path) -> Callable[[], Doorbell]:
    if request.param == "inotify" and sys.platform != "linux":
        pytest.skip("only Linux has inotify")
    return lambda: Doorbell(tmp_path / "bell", poll_interval_s=POLL_INTERVAL_S, use_inotify=request.param == "inotify")


@pytest.fixture
def bell(open_bell: Callable[[], Doorbell]) -> Iterator[Doorbell]:
    with closing(open_bell()) as bell:
        yield bell


async def let_others_park() -> None:
    # `anyio.wait_all_tasks_blocked` looks every 100 ms, and finds a polling task awake again and again.
    for _ in range(5):
        await anyio.lowlevel.checkpoint()


@asynccontextmanager
async def waiting_at(bell: Doorbell) -> AsyncIterator[None]:
    """Run the body while a task waits, then see the wait end."""
    with anyio.fail_after(LONG_S):
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(bell.wait)
            await let_others_park()
            yield


async def assert_silent(bell: Doorbell) -> None:
    with anyio.move_on_after(0.05) as limit:
        await bell.wait()
    assert limit.cancelled_caught


async def test_ringing_wakes_a_waiter_in_the_same_process(bell: Doorbell) -> None:
    async with waiting_at(bell):
        bell.ring()


async def test_ringing_from_another_thread_wakes_the_waiter(bell: Doorbell) -> None:
    async with waiting_at(bell):
        await anyio.to_thread.run_sync(bell.ring)


async def test_ringing_another_bell_on_the_file_wakes_the_waiter(bell: Doorbell, tmp_path: Path) -> None:
    with closing(Doorbell(tmp_path / "bell", use_inotify=False)) as other:
        for _ in range(3):
            async with waiting_at(bell):
                other.ring()


async def test_ringing_in_another_process_wakes_the_waiter(bell: Doorbell, tmp_path: Path) -> None:
    command = [sys.executable, "-c", RING_AT_EACH_LINE, str(tmp_path / "bell")]
    with anyio.fail_after(LONG_S):
        async with await anyio.open_process(command, cwd=ROOT, stderr=subprocess.DEVNULL) as ringer:
            assert ringer.stdin is not None
            assert ringer.stdout is not None
            assert (await ringer.stdout.receive()).split() == [b"ready"]
            for _ in range(3):
                async with waiting_at(bell):
                    await ringer.stdin.send(b"\n")


async def test_a_bell_nobody_rang_is_silent(bell: Doorbell) -> None:
    await assert_silent(bell)


async def test_a_ring_before_the_wait_is_not_lost(bell: Doorbell) -> None:
    with anyio.fail_after(LONG_S):
        for _ in range(3):
            bell.ring()
            await bell.wait()
    await assert_silent(bell)


async def test_a_ring_survives_a_cancelled_wait(bell: Doorbell) -> None:
    bell.ring()
    with anyio.CancelScope() as scope:
        scope.cancel()
        await bell.wait()
    with anyio.fail_after(LONG_S):
        await bell.wait()


async def test_a_thousand_rings_are_one(bell: Doorbell) -> None:
    for _ in range(1000):
        bell.ring()
    with anyio.fail_after(LONG_S):
        await bell.wait()
    await assert_silent(bell)


async def test_a_bell_opened_later_does_not_hear_earlier_rings(
    bell: Doorbell, open_bell: Callable[[], Doorbell]
) -> None:
    bell.ring()
    with closing(open_bell()) as later:
        await assert_silent(later)


async def test_a_second_waiter_is_refused(bell: Doorbell) -> None:
    async with waiting_at(bell):
        with pytest.raises(anyio.BusyResourceError):
            await bell.wait()
        bell.ring()


async def test_closing_ends_the_wait_under_way(bell: Doorbell) -> None:
    with pytest.RaisesGroup(anyio.ClosedResourceError):
        async with waiting_at(bell):
            bell.close()


async def test_closing_right_after_a_ring_ends_the_wait(bell: Doorbell) -> None:
    with anyio.fail_after(LONG_S):
        async with anyio.create_task_group() as tasks:
            ended = anyio.Event()

            async def wait() -> None:
                try:
                    await bell.wait()
                except anyio.ClosedResourceError:
                    ended.set()

            tasks.start_soon(wait)
            await let_others_park()
            bell.ring()
            bell.close()
            await ended.wait()


async def test_a_closed_bell_refuses_and_may_be_closed_again(bell: Doorbell) -> None:
    bell.close()
    bell.close()
    with pytest.raises(anyio.ClosedResourceError):
        bell.ring()
    with pytest.raises(anyio.ClosedResourceError):
        await bell.wait()


async def test_a_bell_rings_where_there_is_no_pwrite(bell: Doorbell, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(doorbell, "_pwrite", doorbell._seek_and_write)
    for _ in range(3):
        async with waiting_at(bell):
            bell.ring()


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux has inotify")
def test_linux_hears_by_inotify_unless_told_otherwise(tmp_path: Path) -> None:
    with (
        closing(Doorbell(tmp_path / "bell")) as by_default,
        closing(Doorbell(tmp_path / "bell", use_inotify=False)) as told,
    ):
        assert (by_default.mechanism, told.mechanism) == ("inotify", "poll")


def open_descriptors() -> set[Path]:
    return set(Path("/proc/self/fd").iterdir())


def refuse(reason: int) -> Callable[..., int]:
    def call(*args: object) -> int:
        ctypes.set_errno(reason)
        return -1

    return call


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux has inotify")
@pytest.mark.parametrize(
    "libc",
    [
        SimpleNamespace(inotify_init1=refuse(errno.EMFILE)),
        SimpleNamespace(inotify_init1=refuse(errno.EPERM)),
        SimpleNamespace(inotify_init1=lambda flags: os.open(os.devnull, flags), inotify_add_watch=refuse(errno.ENOSPC)),
        SimpleNamespace(),
    ],
    ids=["no instances left", "forbidden", "no watches left", "unknown to libc"],
)
async def test_a_bell_polls_where_inotify_is_refused(
    libc: SimpleNamespace, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(ctypes, "CDLL", lambda name, use_errno: libc)
    before = open_descriptors()
    with closing(Doorbell(tmp_path / "bell", poll_interval_s=POLL_INTERVAL_S)) as bell:
        assert bell.mechanism == "poll"
        async with waiting_at(bell):
            bell.ring()
    with pytest.raises((OSError, AttributeError)):
        Doorbell(tmp_path / "bell", use_inotify=True)
    assert open_descriptors() == before


@pytest.mark.skipif(sys.platform == "linux", reason="Linux has inotify")
def test_elsewhere_a_bell_polls(tmp_path: Path) -> None:
    with closing(Doorbell(tmp_path / "bell")) as bell:
        assert bell.mechanism == "poll"
