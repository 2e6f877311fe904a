"""Owns turns whose model falls silent: for each line it starts one, says its session, then when it was hung up on."""

import sys
from pathlib import Path

import anyio
import anyio.to_thread

from benchmarks.places import realm_in, sessions_of
from benchmarks.standins import Endless
from meerkat_mcp.domain.settings import Settings


async def main(root: Path) -> None:
    def hung_up(when_ns: int) -> None:
        print(when_ns, flush=True)

    async with realm_in(root) as realm:
        sessions = sessions_of(realm, Endless(hung_up))
        print("ready", flush=True)
        while await anyio.to_thread.run_sync(sys.stdin.readline):
            started = await sessions.run("go", Settings())
            async with realm.journal.follow(started.session_id, after=0) as log:
                while not any(recorded.is_delta for recorded in await log.next()):
                    pass
            print(started.session_id, flush=True)


anyio.run(main, Path(sys.argv[1]))
