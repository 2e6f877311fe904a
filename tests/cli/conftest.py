"""A command line of one's own: its state root, its folder, nothing of the machine's."""

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).parents[2]
TOOL_SERVER = {"command": sys.executable, "args": [str(Path(__file__).with_name("tool_server.py"))]}
LIMIT_SECONDS = 20


@dataclass
class Commands:
    """Runs `python -m meerkat_mcp …` in a folder, over a state root."""

    folder: Path
    state_root: Path
    started: list[subprocess.Popen[str]] = field(default_factory=list)

    @property
    def environment(self) -> dict[str, str]:
        theirs = ("MEERKAT_", "ANTHROPIC_", "OPENAI_", "GEMINI_", "GOOGLE_")
        ours = {name: value for name, value in os.environ.items() if not name.startswith(theirs)}
        return ours | {"PYTHONPATH": str(ROOT), "HOME": str(self.folder), "COLUMNS": "100"}

    def words(self, *args: str) -> list[str]:
        return [sys.executable, "-m", "meerkat_mcp", "--state-root", str(self.state_root), *args]

    def __call__(self, *args: str, stdin: str | None = None, **more: Any) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            self.words(*args),
            input=stdin if stdin is not None else "",
            capture_output=True,
            encoding="utf-8",
            timeout=LIMIT_SECONDS,
            cwd=self.folder,
            env=self.environment | more,
        )

    def json(self, *args: str, code: int = 0) -> Any:
        """What `--json` says on stdout: exactly one document."""
        done = self("--json", *args)
        assert done.returncode == code, done.stderr
        return json.loads(done.stdout)

    def start(self, *args: str) -> subprocess.Popen[str]:
        process = subprocess.Popen(
            self.words(*args),
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            encoding="utf-8",
            cwd=self.folder,
            env=self.environment,
        )
        self.started.append(process)
        return process

    @contextmanager
    def at_a_terminal(self, *args: str) -> Iterator["Terminal"]:
        """The command as a person runs it: it can be asked what is on its stderr, and told something."""
        import pty

        leader, follower = pty.openpty()
        process = subprocess.Popen(
            self.words(*args),
            stdin=follower,
            stdout=subprocess.PIPE,
            stderr=follower,
            encoding="utf-8",
            cwd=self.folder,
            env=self.environment | {"TERM": "dumb"},
        )
        os.close(follower)
        try:
            yield Terminal(process, leader)
        finally:
            process.kill()
            process.wait()
            os.close(leader)
            assert process.stdout is not None
            process.stdout.close()


@dataclass
class Terminal:
    """The other end of a terminal that a command runs at."""

    process: subprocess.Popen[str]
    leader: int
    seen: str = ""

    def until(self, what: str) -> None:
        """Read until that is there, and go on after it; the test's timeout bounds the wait."""
        while what not in self.seen:
            try:
                chunk = os.read(self.leader, 4096)
            except OSError:  # the command has ended
                chunk = b""
            if not chunk:
                raise AssertionError(f"{what!r} never came; there is {self.seen!r}")
            self.seen += chunk.decode()
        self.seen = self.seen.partition(what)[2]

    def type(self, text: str) -> None:
        os.write(self.leader, text.encode())

    def end(self) -> tuple[int, str]:
        """The exit code, and what went to stdout."""
        said, _ = self.process.communicate(timeout=LIMIT_SECONDS)
        return self.process.returncode, said


@pytest.fixture
def meerkat(tmp_path: Path) -> Iterator[Commands]:
    folder = tmp_path / "workspace"
    folder.mkdir()
    commands = Commands(folder, tmp_path / "state")
    yield commands
    for process in commands.started:
        process.kill()
        process.wait()
        for pipe in (process.stdin, process.stdout, process.stderr):
            assert pipe is not None
            with suppress(BrokenPipeError):
                pipe.close()


def until(process: subprocess.Popen[str], what: str) -> str:
    """The first line on stdout that has `what` in it; the test's timeout bounds the wait."""
    assert process.stdout is not None
    for line in process.stdout:
        if what in line:
            return line
    raise AssertionError(f"{what!r} never came")
