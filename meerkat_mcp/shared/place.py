"""The address of a resident server, held by one process at a time: a lock for its life, and the socket of its hosts."""

import os
import socket
from pathlib import Path

from meerkat_mcp.domain.errors import StoreUnavailable
from meerkat_mcp.stores.filelock import FileLock

FREE_WAIT_S = 20.0
"""For a server that ends to be gone; then the next one may begin."""
BACKLOG = 128


def lock_of(path: str) -> Path:
    """The file that is locked for as long as a server has this address."""
    return Path(path).with_suffix(".lock")


class Place:
    """An address, ours from the beginning to `close`. Who has the lock may remove the socket of somebody who died.

    Raises:
        StoreUnavailable: another server has it.
    """

    def __init__(self, path: str) -> None:
        self._path = Path(path)
        self._socket = 0  # the inode of the socket, while it is ours to remove
        self._lock = FileLock(lock_of(path))
        try:
            self._lock.acquire(FREE_WAIT_S)
        except TimeoutError:
            self._lock.close()
            raise StoreUnavailable(
                "This realm has a resident server already.", hint="End it with: meerkat-mcp resident stop."
            ) from None

    def listen(self) -> socket.socket:
        """The socket that hosts come to."""
        self._path.unlink(missing_ok=True)
        listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        mask = os.umask(0o177)
        try:
            listener.bind(str(self._path))
        finally:
            os.umask(mask)
        listener.listen(BACKLOG)
        listener.setblocking(False)
        self._socket = self._path.stat().st_ino
        return listener

    @property
    def is_found(self) -> bool:
        """Whether who looks here finds us: somebody may have removed the socket."""
        try:
            return self._path.stat().st_ino == self._socket
        except OSError:
            return False

    def vanish(self) -> None:
        """Nobody finds us any more; who does not know of that yet is refused by the system. Only the first time counts:
        then there may be a successor.
        """
        if self.is_found:
            self._path.unlink(missing_ok=True)
        self._socket = 0

    def close(self) -> None:
        """Let the next one have the address."""
        self._lock.close()
