"""Servers on a free port, as processes of their own."""

import re
import subprocess
import sys
import threading
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path

ADDRESS = re.compile(r"http://127\.0\.0\.1:\d+")
PATIENCE_S = 30.0


class Log:
    """What a process says, and the address in it."""

    def __init__(self, process: subprocess.Popen[str]) -> None:
        self.lines: list[str] = []
        self.address: str | None = None
        self._ready = threading.Event()
        self._process = process
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()

    def _read(self) -> None:
        assert self._process.stdout is not None, "it was started with a pipe"
        with self._process.stdout as said:
            for line in said:
                self.lines.append(line)
                if self.address is None and (found := ADDRESS.search(line)):
                    self.address = found[0]
                    self._ready.set()
        self._ready.set()

    def wait(self) -> str:
        """The address, as soon as it is said."""
        assert self._ready.wait(PATIENCE_S), f"no address within {PATIENCE_S} s"
        assert self.address is not None, "it ended without an address"
        return self.address

    def end(self) -> None:
        """Read to the end of what an ended process said."""
        self._reader.join(PATIENCE_S)


@contextmanager
def started(
    command: Sequence[str], *, folder: Path | None = None, env: Mapping[str, str] | None = None
) -> Iterator[str]:
    """The address that a server says as it starts; all that it said is shown when something fails."""
    process = subprocess.Popen(
        command,
        cwd=folder,
        env=env,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        encoding="utf-8",
    )
    log = Log(process)
    try:
        yield log.wait()
    except BaseException:
        print(f"{' '.join(command)} said:", *log.lines[-100:], sep="\n")
        raise
    finally:
        process.terminate()
        try:
            process.wait(PATIENCE_S)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
        log.end()


def flags(state_root: Path) -> list[str]:
    """How Python runs the shipped server on stdio; `--http --port 0` more, and it is on a free port."""
    return ["-m", "meerkat_mcp", "serve", "--realm", "den", "--state-root", str(state_root)]


@contextmanager
def shipped(state_root: Path) -> Iterator[str]:
    """The MCP address of the server that people start."""
    with started([sys.executable, *flags(state_root), "--http", "--port", "0"]) as address:
        yield f"{address}/mcp"
