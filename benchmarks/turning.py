"""What a turn costs beyond its provider: durable, and followed live."""

import time
from collections.abc import AsyncGenerator, Callable, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from statistics import median

import anyio

from benchmarks.places import folder, realm_in, sessions_of
from benchmarks.results import Row, Scale, alternating, at_most, share
from benchmarks.standins import REQUEST, SDK_DELTA_US, Burst, Late
from meerkat_mcp.domain.events import TURN_ENDS
from meerkat_mcp.domain.messages import UserMessage
from meerkat_mcp.domain.recorded import Recorded
from meerkat_mcp.domain.settings import Settings
from meerkat_mcp.providers.base import ModelRequest, Provider
from meerkat_mcp.providers.demo import DemoProvider
from meerkat_mcp.realms import Realm
from meerkat_mcp.sessions.service import Sessions

DELTAS = 4000
PAUSE_S = 0.05
"""Between two turns: nobody prompts as soon as the last word is said."""
SHORT = "[[delta_ms 0]][[words 20]]"
Cost = tuple[float, float]
"""Wall and CPU, in seconds."""


@asynccontextmanager
async def measured(cost: list[Cost]) -> AsyncGenerator[None]:
    """Adds what the body costs."""
    wall, cpu = time.perf_counter(), time.process_time()
    yield
    cost.append((time.perf_counter() - wall, time.process_time() - cpu))


async def alone(provider: Provider, request: ModelRequest) -> None:
    """The provider's reply, read and dropped."""
    async for _ in provider.reply(request):
        pass


async def turn(
    realm: Realm, sessions: Sessions, session_id: str, prompt: str, on_event: Callable[[Recorded], None] | None = None
) -> None:
    """One turn of a session, with one live reader, to its end in the reader's hands."""
    after = (await realm.journal.load(session_id)).seq
    async with realm.journal.follow(session_id, after=after) as log:
        await sessions.resume(session_id, prompt)
        while True:
            for recorded in await log.next():
                if on_event is not None:
                    on_event(recorded)
                if recorded.type in TURN_ENDS:
                    return


def turn_burst(scale: Scale) -> Sequence[Row]:
    """A turn of 4000 deltas in one burst, durable and with a live reader, against the same provider read alone."""
    repetitions = scale.of(3, 9)
    with folder() as root:
        ours, bare = anyio.run(_bursts, root, Burst(DELTAS), REQUEST, "go", repetitions)
    prompt = f"[[delta_ms 0]][[words {DELTAS}]]"
    request = ModelRequest(model="demo", messages=(UserMessage(text=prompt),), max_tokens=100_000)
    with folder() as root:
        demo_ours, demo_bare = anyio.run(_bursts, root, DemoProvider(), request, prompt, repetitions)
    added_us = (_middle(ours, 1) - _middle(bare, 1)) / DELTAS * 1e6
    like_sdk = f"4000 deltas of {SDK_DELTA_US:.0f} us each (as the leanest SDK), vs provider alone"
    return [
        Row("11", like_sdk, "ms", _middle(ours, 0) * 1000, _middle(bare, 0) * 1000, at_most(1.15)),
        Row("11", "CPU that we add to each of these", "us", added_us),
        Row("11", "4000 deltas of the demo, vs provider alone", "ms", _middle(demo_ours, 0) * 1000,
            _middle(demo_bare, 0) * 1000),
    ]  # fmt: skip


def _middle(costs: Sequence[Cost], which: int) -> float:
    return median(cost[which] for cost in costs)


async def _bursts(
    root: Path, provider: Provider, request: ModelRequest, prompt: str, times: int
) -> tuple[list[Cost], list[Cost]]:
    ours: list[Cost] = []
    bare: list[Cost] = []
    settings = Settings(max_tokens=100_000)
    async with realm_in(root) as realm:
        sessions = sessions_of(realm, provider)
        for which in alternating(times):
            session_id = (await sessions.run("", settings)).session_id
            if which == 0:
                async with measured(ours):
                    await turn(realm, sessions, session_id, prompt)
            else:
                async with measured(bare):
                    await alone(provider, request)
    return ours, bare


def turn_overhead(scale: Scale) -> Sequence[Row]:
    """What a short turn (20 words) takes from the call to its durable end, beyond its provider alone."""
    with folder() as root:
        ours, bare = anyio.run(_short_turns, root, scale.of(50, 300))
    added = [(our[0] - other[0]) * 1000 for our, other in zip(ours, bare, strict=True)]
    return [
        Row("issue", "short turn beyond its provider alone, p50", "ms", share(added, 0.5), None, at_most(15)),
        Row("issue", "the same, p99", "ms", share(added, 0.99)),
    ]


async def _short_turns(root: Path, times: int) -> tuple[list[Cost], list[Cost]]:
    ours: list[Cost] = []
    bare: list[Cost] = []
    provider = DemoProvider()
    request = ModelRequest(model="demo", messages=(UserMessage(text=SHORT),), max_tokens=1000)
    async with realm_in(root) as realm:
        session_id = (await realm.sessions.run("", Settings())).session_id
        for number, which in enumerate(alternating(times)):
            if number % 40 == 0:
                session_id = (await realm.sessions.run("", Settings())).session_id
            async with measured((ours, bare)[which]):
                if which == 0:
                    started = await realm.sessions.resume(session_id, SHORT)
                    assert started.turn_id is not None, "a prompt makes a turn"
                    await realm.sessions.wait(session_id, started.turn_id, 10)
                else:
                    await alone(provider, request)
    return ours, bare


def first_delta(scale: Scale) -> Sequence[Row]:
    """How long a live reader waits for the first piece, over the time the provider took: 1.3 ms, then 100 ms."""
    rows: list[Row] = []
    for think_ms, times, target in ((1.3, scale.of(20, 80), at_most(1.5)), (100.0, scale.of(10, 40), None)):
        with folder() as root:
            own_ms, whole_ms = anyio.run(_first_deltas, root, think_ms / 1000, times)
        what = f"first delta at a reader, vs its provider (thinks {think_ms:g} ms)"
        rows.append(Row("13", what, "ms", share(whole_ms, 0.5), share(own_ms, 0.5), target))
    return rows


async def _first_deltas(root: Path, think_s: float, times: int) -> tuple[list[float], list[float]]:
    """How long the provider took to its first piece, and the reader to get it."""
    own_ms: list[float] = []
    whole_ms: list[float] = []
    provider = Late(think_s)

    def on_event(recorded: Recorded) -> None:
        if recorded.type == "text_delta":
            own_ms.append((provider.sent_ns - provider.asked_ns) / 1e6)
            whole_ms.append((time.monotonic_ns() - provider.asked_ns) / 1e6)

    async with realm_in(root) as realm:
        sessions = sessions_of(realm, provider)
        for number in range(times):
            if number % 20 == 0:
                session_id = (await sessions.run("", Settings())).session_id
            await turn(realm, sessions, session_id, "go", on_event)
            await anyio.sleep(PAUSE_S)
    return own_ms, whole_ms


def deltas(scale: Scale) -> Sequence[Row]:
    """How many deltas are written down for one that the provider sends, at 80 a second."""
    words = scale.of(120, 400)

    async def count(root: Path) -> int:
        written = 0

        def on_event(recorded: Recorded) -> None:
            nonlocal written
            written += recorded.is_delta

        async with realm_in(root) as realm:
            session_id = (await realm.sessions.run("", Settings())).session_id
            await turn(realm, realm.sessions, session_id, f"[[delta_ms 12.5]][[words {words}]]", on_event)
        return written

    with folder() as root:
        written = anyio.run(count, root)
    return [Row("15", "deltas written, vs deltas of the provider (80/s)", "", written, words, at_most(0.3))]
