"""The log of a resident server: its stderr, in a file of the realm's folder that does not grow without bound."""

import os
from pathlib import Path

LOG_NAME = "resident.log"
LOG_BYTES_MAX = 1024 * 1024
"""From here on the file is put aside, in place of the one before it."""


class LogFile:
    """Where stderr goes, and what stray output there is."""

    def __init__(self, folder: Path) -> None:
        self._path = folder / LOG_NAME

    def open(self, *, stdout: bool = False) -> None:
        """Send stderr there, or stdout too. Raises OSError."""
        log = os.open(self._path, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)
        try:
            for number in (1, 2) if stdout else (2,):
                os.dup2(log, number)
        finally:
            os.close(log)

    def keep_short(self) -> None:
        """Put the file aside if it is long. Raises OSError."""
        if os.fstat(2).st_size >= LOG_BYTES_MAX:
            self._path.replace(self._path.with_suffix(".log.1"))
            self.open(stdout=True)
