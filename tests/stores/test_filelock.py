"""File locks between real processes, with the system's own locks and with Windows' acted out on POSIX ones."""

import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from meerkat_mcp.stores import filelock
from meerkat_mcp.stores.filelock import FileLock, is_held

ROOT = Path(filelock.__file__).parents[2]

# Stands in for `msvcrt`: refuses with EACCES, also a second lock of one opening, and only knows the byte we agreed on.
FAKE_MSVCRT = """
import errno, fcntl, os
LK_UNLCK, LK_NBLCK = 0, 2
_locked = set()
def locking(fd, mode, nbytes):
    assert (os.lseek(fd, 0, os.SEEK_CUR), nbytes) == (1 << 30, 1)
    if mode == LK_UNLCK:
        _locked.remove(fd)
        return fcntl.flock(fd, fcntl.LOCK_UN)
    try:
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        raise PermissionError(errno.EACCES, "Permission denied") from None
    if fd in _locked:
        raise PermissionError(errno.EACCES, "Permission denied")
    _locked.add(fd)
"""
USE_FAKE_MSVCRT = f"""
import types
from meerkat_mcp.stores import filelock
fake = types.ModuleType("fake_msvcrt")
exec({FAKE_MSVCRT!r}, fake.__dict__)
filelock._locker = filelock._MsvcrtLocker(fake)
"""
OPEN_LOCK = """
import sys
from pathlib import Path
from meerkat_mcp.stores.filelock import FileLock
lock = FileLock(Path(sys.argv[1]))
"""
HOLD_UNTIL_TOLD = """
with lock:
    print("held", flush=True)
    sys.stdin.readline()
print("released", flush=True)
sys.stdin.read()
"""
ADD_ONE_300_TIMES = """
total = Path(sys.argv[2])
for _ in range(300):
    with lock:
        total.write_text(str(int(total.read_text()) + 1))
"""

Spawn = Callable[..., subprocess.Popen[str]]


@pytest.fixture(params=["native", "msvcrt"])
def spawn(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Spawn:
    """Choose the way to lock, here and in every process that is started with the result."""
    prelude = ""
    if request.param == "msvcrt":
        if sys.platform == "win32":
            pytest.skip("Windows locks with msvcrt anyway")
        monkeypatch.setattr(filelock, "_locker", filelock._locker)  # so that it is put back afterwards
        exec(prelude := USE_FAKE_MSVCRT, {})

    def start(program: str, *args: Path) -> subprocess.Popen[str]:
        command = [sys.executable, "-c", prelude + OPEN_LOCK + program, *map(str, args)]
        return subprocess.Popen(command, cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)

    return start


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "it.lock"


@pytest.fixture
def lock(spawn: Spawn, path: Path) -> Iterator[FileLock]:
    lock = FileLock(path)
    yield lock
    lock.close()


@contextmanager
def held_elsewhere(spawn: Spawn, path: Path) -> Iterator[subprocess.Popen[str]]:
    with spawn(HOLD_UNTIL_TOLD, path) as holder:
        assert holder.stdout is not None
        assert holder.stdout.readline() == "held\n"
        try:
            yield holder
        finally:
            holder.kill()


def tell(holder: subprocess.Popen[str]) -> None:
    assert holder.stdin is not None
    holder.stdin.write("\n")
    holder.stdin.flush()


def test_a_lock_held_by_another_process_is_refused_until_released(spawn: Spawn, lock: FileLock, path: Path) -> None:
    with held_elsewhere(spawn, path) as holder:
        assert not lock.try_acquire()
        tell(holder)
        assert holder.stdout is not None
        assert holder.stdout.readline() == "released\n"
        assert lock.try_acquire()


def test_an_unlimited_wait_ends_when_the_holder_releases(spawn: Spawn, lock: FileLock, path: Path) -> None:
    with held_elsewhere(spawn, path) as holder:
        tell(holder)
        lock.acquire()
        assert is_held(path)


def test_killing_the_holder_releases_its_lock(spawn: Spawn, lock: FileLock, path: Path) -> None:
    with held_elsewhere(spawn, path) as holder:
        assert is_held(path)
        holder.kill()
        lock.acquire(timeout_s=30)
    lock.release()
    assert not is_held(path)


def test_a_limited_wait_times_out_and_may_be_tried_again(spawn: Spawn, lock: FileLock, path: Path) -> None:
    with held_elsewhere(spawn, path) as holder:
        for timeout_s in (0, 0.02):
            with pytest.raises(TimeoutError, match=r"it\.lock is still locked"):
                lock.acquire(timeout_s)
        tell(holder)
        lock.acquire(timeout_s=30)


def test_processes_never_hold_the_lock_together(spawn: Spawn, lock: FileLock, path: Path, tmp_path: Path) -> None:
    total = tmp_path / "total"
    total.write_text("0")
    adders = [spawn(ADD_ONE_300_TIMES, path, total) for _ in range(3)]
    for adder in adders:
        adder.communicate(timeout=60)
        assert adder.returncode == 0
    assert total.read_text() == "900"


def test_two_locks_on_one_path_exclude_each_other_within_a_process(lock: FileLock, path: Path) -> None:
    other = FileLock(path)
    with lock:
        assert not other.try_acquire()
    assert other.try_acquire()
    other.close()
    assert lock.try_acquire()


def test_is_held_follows_the_holder_and_leaves_no_lock_behind(lock: FileLock, path: Path) -> None:
    assert not is_held(path)
    with lock:
        assert is_held(path)
        assert is_held(path)
    assert not is_held(path)
    assert lock.try_acquire()


def test_an_absent_file_is_not_held_and_not_created_by_asking(path: Path) -> None:
    assert not is_held(path)
    assert not path.exists()


def test_a_child_process_does_not_keep_our_lock(lock: FileLock, path: Path) -> None:
    lock.acquire()
    with subprocess.Popen(
        [sys.executable, "-c", "input()"], stdin=subprocess.PIPE, stderr=subprocess.DEVNULL, close_fds=False
    ) as child:
        lock.close()
        assert not is_held(path)
        child.kill()


def test_misuse_is_refused_the_same_everywhere(lock: FileLock) -> None:
    with pytest.raises(RuntimeError, match="not locked here"):
        lock.release()
    with lock, pytest.raises(RuntimeError, match="already locked here"):
        lock.acquire()
    lock.close()
    lock.close()
    with pytest.raises(ValueError, match="is closed"):
        lock.try_acquire()


def test_a_file_system_without_locks_raises_its_error(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    class NoLocks:
        def try_lock(self, fd: int) -> bool:
            raise OSError(37, "No locks available")

    monkeypatch.setattr(filelock, "_locker", NoLocks())
    lock = FileLock(path)
    with pytest.raises(OSError, match="No locks available"):
        lock.try_acquire()
    lock.close()


@pytest.mark.skipif(os.name == "nt", reason="Windows has no such modes")
def test_only_the_owner_may_open_the_file(lock: FileLock, path: Path) -> None:
    assert path.stat().st_mode & 0o777 == 0o600


def test_on_posix_those_who_ask_at_once_do_not_mislead_each_other(path: Path) -> None:
    fcntl = pytest.importorskip("fcntl")
    with path.open("w") as asked_elsewhere:
        fcntl.flock(asked_elsewhere, fcntl.LOCK_SH)
        assert not is_held(path)
