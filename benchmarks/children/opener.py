"""Opens a realm in a process of its own: how long that takes, and the memory it needs."""

import json
import sys
import time
from typing import Any

import anyio
import psutil

from benchmarks.places import REALM
from meerkat_mcp.realms import choose, open_realm
from meerkat_mcp.stores.base import Selection


async def main(root: str, backend: str, dsn_env: str) -> None:
    """The first time is with all that is imported then; what is told is the second."""
    process = psutil.Process()
    how: dict[str, Any] = {"state_root": root, "backend": backend, "dsn_env": dsn_env or None}
    async with open_realm(choose("empty", **how), turns=False) as realm:
        await realm.store.sessions(Selection(), limit=1)
    before_mb, started = process.memory_info().rss / 2**20, time.perf_counter()
    async with open_realm(choose(REALM, **how), turns=False) as realm:
        await realm.store.sessions(Selection(), limit=1)
        took_ms = (time.perf_counter() - started) * 1000
        print(json.dumps({"ms": took_ms, "mb": process.memory_info().rss / 2**20 - before_mb}))


anyio.run(main, *sys.argv[1:])
