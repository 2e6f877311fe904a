"""Which processes of a realm live: each has a lease that it renews, and a lock that the system drops when it dies.

The lock tells of a death at once. The lease tells of a process that is there and does nothing (stopped, or starved),
and decides alone where the file system has no locks. Pids decide nothing: they are given again.
"""

from contextlib import suppress
from pathlib import Path

from meerkat_mcp.domain.realm import Instance
from meerkat_mcp.stores.filelock import FileLock, is_held
from meerkat_mcp.stores.sqlite_library import Connection

EXPIRES = "SELECT expires_ms FROM instances WHERE incarnation = ?"

_RENEW = "INSERT OR REPLACE INTO instances (incarnation, instance_id, host, pid, expires_ms) VALUES (?, ?, ?, ?, ?)"
_FORGET = "DELETE FROM instances WHERE incarnation = ?"


class Instances:
    """The locks in one folder, and the rows that go with them; `own` are those of this process."""

    def __init__(self, folder: Path) -> None:
        self.own: dict[str, FileLock | None] = {}
        self._folder = folder

    def renew(self, connection: Connection, instance: Instance, *, now_ms: int) -> None:
        """Write the lease down. The first time take the lock before, and sweep up after those who died."""
        if instance.incarnation not in self.own:
            self._sweep(connection, now_ms)
            self.own[instance.incarnation] = self._lock(instance.incarnation)
        row = (instance.incarnation, instance.instance_id, instance.host, instance.pid, instance.expires_ms)
        connection.execute(_RENEW, row)

    def is_dead(self, incarnation: str) -> bool:
        """Whether the process has died: it had a lock, and that is free."""
        return self._held(incarnation) is False

    def retire(self, connection: Connection, incarnation: str) -> None:
        """Forget an instance and its lock."""
        connection.execute(_FORGET, (incarnation,))
        if lock := self.own.pop(incarnation, None):
            lock.close()
        with suppress(OSError):  # not there, or on Windows somebody just looks at it: the next one sweeps it up
            self._path(incarnation).unlink()

    def close(self) -> None:
        """Let go of the locks: who closed the store does nothing in it any more."""
        while self.own:
            _, lock = self.own.popitem()
            if lock is not None:
                lock.close()

    def _lock(self, incarnation: str) -> FileLock | None:
        with suppress(OSError):  # no locks here: the lease alone decides
            self._folder.mkdir(mode=0o700, exist_ok=True)
            lock = FileLock(self._path(incarnation))
            try:
                lock.acquire()
            except BaseException:
                lock.close()
                self._path(incarnation).unlink()
                raise
            return lock
        return None

    def _held(self, incarnation: str) -> bool | None:
        """Whether somebody holds the lock; None when that cannot be known."""
        path = self._path(incarnation)
        try:
            return is_held(path) if path.exists() else None
        except OSError:
            return None

    def _sweep(self, connection: Connection, now_ms: int) -> None:
        for incarnation, expires_ms in connection.execute("SELECT incarnation, expires_ms FROM instances").fetchall():
            held = self._held(incarnation)
            if held is False or (held is None and expires_ms <= now_ms):
                self.retire(connection, incarnation)

    def _path(self, incarnation: str) -> Path:
        return self._folder / f"{incarnation}.lock"
