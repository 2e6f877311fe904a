"""What others wrote and these tests run: Node, the packages of `package.json`, and Chromium; or the reason why not.

The packages are installed once, into a folder that is kept. A newcomer without Node, a registry or Chromium sees the
tests skipped, and why. In CI they fail.
"""

import hashlib
import os
import shutil
import subprocess
from pathlib import Path
from typing import NoReturn

import pytest

from meerkat_mcp.stores.filelock import FileLock

WANTED = ("package.json", "package-lock.json")
NODE_MIN = (22, 19)
"""What the Inspector needs."""
PATIENCE_S = 100


def missing(reason: str) -> NoReturn:
    if os.environ.get("CI"):
        pytest.fail(f"CI must be able to run real clients: {reason}")
    pytest.skip(reason)


def node() -> str:
    """Where Node is, if it is new enough."""
    path = shutil.which("node") or missing("node is not installed")
    version = subprocess.run([path, "--version"], capture_output=True, text=True, check=True, timeout=30).stdout.strip()
    if tuple(int(part) for part in version.lstrip("v").split(".")[:2]) < NODE_MIN:
        missing(f"Node {'.'.join(map(str, NODE_MIN))} or newer is needed, this is {version}")
    return path


def chromium() -> str:
    """Where Chromium is."""
    names = ("chromium", "chromium-browser", "google-chrome")
    return next(filter(None, map(shutil.which, names)), None) or missing("chromium is not installed")


def packages(folder: Path) -> Path:
    """The folder in which `node_modules` is. Whoever comes first fills it, under another name until it is whole."""
    here = Path(__file__).parent
    done = folder / hashlib.sha256(b"".join((here / name).read_bytes() for name in WANTED)).hexdigest()[:16]
    npm = shutil.which("npm") or missing("npm is not installed")
    quiet = ("--loglevel=error", "--no-fund", "--no-audit", "--ignore-scripts", "--prefer-offline", "--fetch-retries=1")
    lock = FileLock(folder / "lock")
    try:
        lock.acquire(timeout_s=PATIENCE_S)
        if not done.exists():
            fresh = folder / "unfinished"
            shutil.rmtree(fresh, ignore_errors=True)
            fresh.mkdir()
            for name in WANTED:
                shutil.copy(here / name, fresh)
            said = subprocess.run([npm, "ci", *quiet], cwd=fresh, capture_output=True, text=True, timeout=PATIENCE_S)
            if said.returncode:
                missing(f"npm cannot install the packages: {said.stderr.strip()[:300]}")
            fresh.rename(done)
    except (subprocess.TimeoutExpired, TimeoutError):
        missing(f"the packages could not be installed within {PATIENCE_S} s")
    finally:
        lock.close()
    return done
