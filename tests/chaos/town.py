"""Everything there is in one run: servers on one realm, who calls them, what befalls them, and how it all ends."""

import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Generator
from contextlib import AsyncExitStack, contextmanager
from pathlib import Path
from random import Random

import anyio
from anyio.abc import TaskGroup
from chaos import checks
from chaos.callers import Caller
from chaos.databases import Database, database
from chaos.fate import Fate
from chaos.figures import Figures, figures
from chaos.followers import Follower
from chaos.ledger import Ledger
from chaos.plan import Plan
from chaos.rest import bring_to_rest
from chaos.servers import REALM, ROOT, Answer, Server
from simulation.promises import Log
from stores.cutting import Wire, wired

from meerkat_mcp.domain.session import Session
from meerkat_mcp.stores.base import Store
from meerkat_mcp.stores.jsonl import JsonlStore
from meerkat_mcp.stores.postgres import PostgresStore
from meerkat_mcp.stores.sqlite import SQLiteStore

VARIABLE = "MEERKAT_CHAOS_DSN"
CONFIG = {
    "limits": {"max_concurrent_turns": 64},
    "retry": {"attempts": 2, "base_delay_s": 0.1},
}
NEVER = frozenset({"internal", "corrupt", "json-rpc", "schema_invalid", "model_unknown", "provider_unauthenticated"})
"""Codes that no caller may ever see here."""
SOMEBODY_S = 60.0


class Town:
    """One run, from the first process to the last check."""

    def __init__(self, plan: Plan, folder: Path) -> None:
        self.plan = plan
        self.folder = folder
        self.ledger = Ledger()
        self.servers: list[Server] = []
        self.wires: dict[str, Wire] = {}
        self.database: Database | None = None
        self.deleted: set[str] = set()
        self.story: list[str] = []
        self.resting = anyio.Event()
        self.time_is_up = anyio.Event()
        self.calm_since_ms = 0
        self._began_s = time.monotonic()
        self._followers = 0
        self._followed: TaskGroup | None = None
        self.sessions: dict[str, tuple[Session, Log]] = {}

    # ── what others ask of it ──

    def say(self, what: str) -> None:
        self.story.append(f"{time.monotonic() - self._began_s:9.3f}  {what}")

    @property
    def over(self) -> bool:
        return self.time_is_up.is_set()

    def heard(self, answer: Answer, what: str) -> None:
        """Write an answer down; some may never come."""
        self.say(f"{what}: {answer}")
        if answer.error is not None:
            self.ledger.codes[answer.code] += 1
            if answer.code in NEVER:
                self.ledger.wrong.append(f"{what}: {answer.error}")
            if answer.code == "session_busy" and answer.calm:
                self.ledger.refused_s.append(answer.took_s)
        elif answer.lost:
            self.ledger.codes["(lost)"] += 1

    def any_server(self, random: Random) -> Server:
        return random.choice(self.servers)

    async def somebody(self, random: Random) -> Server:
        """A server that is up; now and then one that is stopped."""
        until = time.monotonic() + SOMEBODY_S
        while time.monotonic() < until:
            up = [server for server in self.servers if server.up.is_set()]
            awake = [server for server in up if not server.stopped]
            if awake and random.random() > 0.05:
                return random.choice(awake)
            if up and not self.resting.is_set():
                return random.choice(up)
            await anyio.sleep(0.05)
        raise AssertionError(f"no server came up in {SOMEBODY_S} s")

    def trouble(self, seconds: float) -> None:
        """From now on, for so long and a little more, what is measured is no measure of calm."""
        self.calm_since_ms = max(self.calm_since_ms, time.time_ns() // 1_000_000 + int(seconds * 1000) + 500)

    def watch(self, session_id: str) -> None:
        """One more follower, unless there are enough."""
        if self._followed is None or self._followers >= self.plan.followers:
            return
        self._followers += 1
        name = f"f{len(self.ledger.followers) + 1}.{self._followers}"
        follower = Follower(self, name, session_id, Random(f"{self.plan.seed} {name}"))

        async def follow() -> None:
            try:
                await follower.follow()
            finally:
                self._followers -= 1

        self._followed.start_soon(follow)

    # ── its course ──

    async def live(self) -> Figures:
        """Run; then check everything. What is wrong stands in the figures."""
        async with AsyncExitStack() as owned:
            port = owned.enter_context(_notes(self.folder / "notes"))
            if self.plan.backend == "postgres":
                self.database = await owned.enter_async_context(database(own=self.plan.restarts))
            fate = Fate(self)
            await self._run(fate, port)
            store = await self._store()
            try:
                self.sessions = await checks.kept(store)
                config = await store.config()
            finally:
                await store.close()
            left = {name: at["base_url"] for name, at in config.document.get("self_hosted", {}).items()}
        said = figures(self, fate.strokes)
        said.wrong += self._wrong(config.generation, left)
        return said

    async def _run(self, fate: Fate, notes_port: int) -> None:
        async with AsyncExitStack() as owned, anyio.create_task_group() as tasks:
            for number in range(self.plan.processes):
                await self._start(tasks, owned, number)
            await self._configure(notes_port)
            self.say("── begins ──")
            with anyio.fail_after(self.plan.seconds + 600):
                async with anyio.create_task_group() as self._followed:
                    async with anyio.create_task_group() as busy:
                        for number in range(self.plan.callers):
                            busy.start_soon(Caller(self, number).live)
                        busy.start_soon(fate.run)
                        await anyio.sleep(self.plan.seconds)
                        self.say("── time is up ──")
                        self.time_is_up.set()
                    for server in self.servers:
                        server.strike("go on")
                    for wire in self.wires.values():
                        await wire.mend()
                    await bring_to_rest(self)
                    self.resting.set()
            self.say("── all are told to end ──")
            for server in self.servers:
                server.retire()
                server.strike("end")
            with anyio.move_on_after(20):
                while any(server.lives[-1].ended_ms is None for server in self.servers):  # noqa: ASYNC110
                    await anyio.sleep(0.05)
            tasks.cancel_scope.cancel()

    async def _start(self, tasks: TaskGroup, owned: AsyncExitStack, number: int) -> None:
        name = f"s{number + 1}"
        flags, env = ("--trust-caller", "--realm-backend", self.plan.backend), dict[str, str]()
        if self.database is not None:
            wire = await owned.enter_async_context(wired("127.0.0.1", self.database.port))
            self.wires[name] = wire
            flags, env = (*flags, "--realm-dsn-env", VARIABLE), {VARIABLE: wire.through(self.database.dsn)}
        server = Server(name, self.folder, flags, env, Random(f"{self.plan.seed} {name}"))
        self.servers.append(server)
        tasks.start_soon(server.run)

    async def _configure(self, notes_port: int) -> None:
        config = CONFIG | {"mcp_servers": {"notes": {"url": f"http://127.0.0.1:{notes_port}/mcp"}}}
        for server in self.servers:
            with anyio.move_on_after(SOMEBODY_S):
                while not server.up.is_set():  # noqa: ASYNC110 - it is started again with another event
                    await anyio.sleep(0.02)
            assert server.up.is_set(), f"{server.name} does not start: {server.wrote()[-5:]}"
        asked = {"action": "set", "config": config}
        answer = await self.servers[0].call("meerkat_config", asked)
        assert answer.result is not None, f"the config was not taken: {answer}"
        self._began_s = time.monotonic()

    async def _store(self) -> Store:
        folder = self.folder / "realms" / REALM

        def clock_ms() -> int:
            return time.time_ns() // 1_000_000

        match self.plan.backend:
            case "sqlite":
                return await SQLiteStore.open(folder, clock_ms=clock_ms)
            case "jsonl":
                return await JsonlStore.open(folder, clock_ms=clock_ms)
            case "postgres":
                assert self.database is not None, "the realm is on it"
                return await PostgresStore.open(self.database.dsn, REALM, clock_ms=clock_ms)
            case _:
                raise ValueError(f"processes cannot share a realm in {self.plan.backend}")

    def _wrong(self, generation: int, left: dict[str, str]) -> list[str]:
        logs = {session_id: log for session_id, (_, log) in self.sessions.items()}
        noted_in = self.folder / "notes"
        noted = noted_in.read_text(encoding="utf-8").splitlines() if noted_in.exists() else []
        whole = not any(known.gone for known in self.ledger.sessions.values())
        return [
            *checks.of_logs(self.sessions),
            *checks.of_prompts(logs, self.ledger),
            *checks.of_promises(logs, self.ledger, self.deleted),
            *checks.of_followers(logs, self.ledger),
            *checks.of_tools(logs, noted, whole),
            *checks.of_owners(logs, self.servers),
            *(checks.of_ends(logs, self.ledger) if _suspends() else ()),
            *checks.of_config(generation, left, self.ledger),
            *checks.of_processes(self.servers),
        ]


def _suspends() -> bool:
    """Whether turns outlive their process already."""
    return (ROOT / "meerkat_mcp" / "sessions" / "upkeep.py").exists()


@contextmanager
def _notes(file: Path) -> Generator[int]:
    """The tool server; gives its port."""
    env = dict(os.environ) | {"PYTHONPATH": f"{ROOT}{os.pathsep}{ROOT / 'tests'}"}
    command = [sys.executable, "-m", "chaos.notes", str(file)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, cwd=ROOT, env=env) as process:
        assert process.stdout is not None, "it was started with a pipe"
        try:
            yield int(process.stdout.readline())
        finally:
            process.kill()


async def lived(plan: Plan) -> tuple[Town, Figures]:
    """A whole run in a temporary folder."""
    with tempfile.TemporaryDirectory(prefix="meerkat-chaos-", ignore_cleanup_errors=True) as folder:
        town = Town(plan, Path(folder))
        said = await town.live()
        for server in town.servers:
            server.bury()
        return town, said
