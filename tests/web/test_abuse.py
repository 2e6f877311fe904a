"""Ten thousand bad requests get the status that each must get, tell nothing, and change nothing.

They are made from a seed, so that number N is the same request in every run; a failure names it. More of them, or
others: `MEERKAT_ABUSE=COUNT` or `MEERKAT_ABUSE=COUNT:SEED`.
"""

import os
import signal
import statistics
import time
from collections import Counter
from collections.abc import AsyncGenerator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from random import Random

import anyio
import psutil
import pytest
from web.abuse import arguments, callers, messages, transport
from web.abuse.kinds import KINDS, Kind, World, initialize, message_of
from web.abuse.strangers import refused_tokens
from web.abuse.wire import Answer, Wire
from web.conftest import PATIENCE_S, OpenServer, Server
from web.issuer import AUDIENCE, Issuer, running

from meerkat_mcp.realms import choose, open_realm
from meerkat_mcp.server.scopes import CONFIGURE, DELETE, READ, RUN, SCOPES
from meerkat_mcp.stores.base import Selection

pytestmark = pytest.mark.anyio

REQUESTS, SEED = (int(part) for part in f"{os.environ.get('MEERKAT_ABUSE', '10000')}:1".split(":")[:2])
WARM_UP = 1000
CLIENTS = 12
BODY_BYTES_MAX = 40_000
GROWTH_BYTES_MAX = 40 * 1024 * 1024
ANSWER_S = 20.0
FAILURES_SHOWN = 8
CHECKED_EVERY = 8
"""After one in so many answers the connection is asked for something good."""
TELLTALE = (b"Traceback", b"site-packages", b'.py", line', b"Exception")
ROOMS = (messages, transport, callers, arguments)
TOKENS = {
    "all": tuple(SCOPES),
    "other": (READ, RUN),
    "read": (READ,),
    "run": (RUN,),
    "configure": (CONFIGURE,),
    "delete": (DELETE,),
}


@dataclass
class Target:
    """A server under abuse."""

    server: Server
    world: World
    where: tuple[str, int]

    @property
    def process(self) -> psutil.Process:
        return psutil.Process(self.server.process.pid)


@pytest.fixture
async def target(open_server: OpenServer, tmp_path: Path) -> AsyncGenerator[Target]:
    async with hosted(open_server, tmp_path) as one:
        yield one


@asynccontextmanager
async def hosted(open_server: OpenServer, tmp_path: Path) -> AsyncGenerator[Target]:
    """A server with OAuth and a token file, two MCP sessions of 2025, and a session with a turn."""
    tokens = {name: f"{name}-{'0123456789' * 3}" for name in TOKENS}
    file = tmp_path / "tokens"
    file.write_text("".join(f"{name} {tokens[name]} {' '.join(scopes)}\n" for name, scopes in TOKENS.items()))
    file.chmod(0o600)
    async with running(Issuer()) as issuer, running(Issuer()) as elsewhere:
        ways = ("--token-file", str(file), "--oauth-issuer", issuer.url, "--oauth-audience", AUDIENCE)
        async with open_server(*ways, "--max-body", str(BODY_BYTES_MAX), "--no-access-log") as server:
            host = server.url.removeprefix("http://")
            tokens["oauth"] = issuer.token(scope=f"{READ} {RUN}")
            world = World(host, tokens, body_bytes_max=BODY_BYTES_MAX, refused=refused_tokens(issuer, elsewhere))
            where = (host.split(":")[0], int(host.split(":")[1]))
            async with Wire(*where) as wire:
                world.mcp_session = await begun(wire, world, "all")
                world.foreign_mcp_session = await begun(wire, world, "other")
                ran = message_of(await wire.ask(world.tool("meerkat_run", {"prompt": "[[words 30]]"}, who="oauth")))
                world.session_id = ran["result"]["structuredContent"]["session_id"]
            yield Target(server, world, where)


async def begun(wire: Wire, world: World, who: str) -> str:
    """The id of a new MCP session of 2025."""
    session = (await wire.ask(world.post(initialize(), who=who))).header("mcp-session-id")
    note = {"jsonrpc": "2.0", "method": "notifications/initialized"}
    assert (await wire.ask(world.legacy(note, session=session, who=who))).status == 202
    return session


# ── what must be true of every answer ──


def made(number: int, world: World, seed: int = SEED) -> tuple[Kind, bytes]:
    """The bad request of that number: kinds in turn, the rest by chance."""
    kind = list(KINDS.values())[number % len(KINDS)]
    return kind, kind.make(Random(f"{seed}:{number}"), world)


def judge(kind: Kind, answer: Answer, secrets: list[bytes]) -> None:
    """Raises AssertionError, or whatever a check stumbles over."""
    assert answer.status in kind.statuses, f"status {answer.status}"
    if not answer.status:
        return
    told = [word for word in (*TELLTALE, *secrets) if word in answer.body]
    assert not told, f"the answer tells {told}"
    if kind.ours:
        assert b"pydantic" not in answer.body
        if answer.status >= 400 and not answer.closes:
            assert answer.header("content-type") == "application/json"
            message_of(answer)
    kind.check(answer)


class Abuse:
    """Sends the bad requests from `first` to `last` on many connections, and gathers what was wrong."""

    def __init__(self, target: Target, first: int, last: int) -> None:
        self._target = target
        self._numbers = iter(range(first, last))
        self._secrets = [token.encode() for token in (*target.world.tokens.values(), *target.world.refused.values())]
        self.failures: list[str] = []
        self.statuses: Counter[int] = Counter()

    async def run(self) -> None:
        async with anyio.create_task_group() as tasks:
            for _ in range(CLIENTS):
                tasks.start_soon(self._client)

    async def _client(self) -> None:
        async with Wire(*self._target.where) as wire:
            for number in self._numbers:
                kind, raw = made(number, self._target.world)
                try:
                    with anyio.fail_after(ANSWER_S):
                        await self._one(wire, kind, raw, number)
                except Exception as exc:
                    await wire.close()
                    self.failures.append(f"{number}, {kind.name}: {type(exc).__name__} {exc}; {raw[-200:]!r}"[:600])

    async def _one(self, wire: Wire, kind: Kind, raw: bytes, number: int) -> None:
        if kind.how == "cut":
            await wire.send(raw)
            return await wire.close()
        answer = await wire.ask(raw)
        self.statuses[answer.status] += 1
        judge(kind, answer, self._secrets)
        if number % CHECKED_EVERY == 0:
            after = await wire.ask(self._target.world.get("/healthz", who=None))
            assert (after.status, after.body) == (200, b'{"status":"ok"}'), f"then {after}"


# ── what must be as it was ──


async def known(target: Target) -> dict[str, object]:
    """What the realm says of itself: its sessions with their last events, and the generation of its config."""
    async with Wire(*target.where) as wire:
        listed = message_of(await wire.ask(target.world.tool("meerkat_sessions", {"limit": 200})))
        config = message_of(await wire.ask(target.world.tool("meerkat_config", {"action": "get"})))
    sessions = listed["result"]["structuredContent"]["sessions"]
    return {"sessions": sessions, "generation": config["result"]["structuredContent"]["generation"]}


async def measured(target: Target, name: str) -> float:
    """A figure of the metrics, summed over its labels."""
    async with Wire(*target.where) as wire:
        text = (await wire.ask(target.world.get("/metrics"))).text
    return sum(float(line.split()[-1]) for line in text.splitlines() if line.startswith((f"{name} ", f"{name}{{")))


async def latency(target: Target) -> float:
    """What a good request takes, in the middle."""
    taken: list[float] = []
    async with Wire(*target.where) as wire:
        for _ in range(50):
            begun_s = time.perf_counter()
            assert (await wire.ask(target.world.get("/healthz", who=None))).status == 200
            taken.append(time.perf_counter() - begun_s)
    return statistics.median(taken)


async def until(true: Callable[[], bool]) -> None:
    with anyio.fail_after(PATIENCE_S):
        while not true():
            await anyio.lowlevel.checkpoint()


def test_every_kind_is_named_for_what_it_does_and_there_are_many():
    assert len(KINDS) > 80
    assert {kind.make.__module__.rpartition(".")[2] for kind in KINDS.values()} == {
        room.__name__.rpartition(".")[2] for room in ROOMS
    }


async def test_bad_requests_get_the_right_status_and_change_nothing(target: Target, tmp_path: Path):
    warm = Abuse(target, 0, WARM_UP)
    await warm.run()
    before, quick, bytes_before = await known(target), await latency(target), target.process.memory_info().rss
    handles_before = target.process.num_fds() if os.name == "posix" else 0
    events_before = await measured(target, "meerkat_events_recorded_total")

    abuse = Abuse(target, WARM_UP, REQUESTS)
    await abuse.run()

    failures = warm.failures + abuse.failures
    assert not failures, f"{len(failures)} failed with seed {SEED}:\n" + "\n".join(failures[:FAILURES_SHOWN])
    assert not [status for status in abuse.statuses if status >= 500 and status not in (501, 503, 505)]
    assert await known(target) == before
    assert await measured(target, "meerkat_events_recorded_total") == events_before
    assert await measured(target, "meerkat_http_in_flight") == 1  # the one that asks
    assert await latency(target) < 5 * quick + 0.001
    grown = target.process.memory_info().rss - bytes_before
    assert grown < GROWTH_BYTES_MAX, f"{grown / 1024**2:.0f} MiB more"
    if os.name == "posix":
        await until(lambda: target.process.num_fds() <= handles_before)
    await and_then_it_still_works(target, tmp_path)


async def and_then_it_still_works(target: Target, tmp_path: Path) -> None:
    """Turns run in both eras, the server ends well, its log tells nothing, and the store has what was acknowledged."""
    call = {"name": "meerkat_run", "arguments": {"prompt": "[[say hi]]"}}
    async with Wire(*target.where) as wire:
        await begun(wire, target.world, "all")
        for raw in (
            target.world.modern("tools/call", call),
            target.world.legacy({"jsonrpc": "2.0", "id": 1, "method": "tools/call", "params": call}),
        ):
            assert message_of(await wire.ask(raw))["result"]["structuredContent"]["text"] == "hi"
    target.server.end(signal.SIGTERM)
    assert await target.server.ended() == 0
    said = target.server.said
    assert "Traceback" not in said, said[said.index("Traceback") - 300 :][:2000]
    assert " ERROR " not in said
    assert not [token for token in (*target.world.tokens.values(), *target.world.refused.values()) if token in said]
    async with open_realm(choose("den", state_root=tmp_path / "realms")) as realm:
        sessions = await realm.store.sessions(Selection(), limit=10)
        assert [session.state for session in sessions] == ["idle"] * 3
        assert target.world.session_id in {session.id for session in sessions}
