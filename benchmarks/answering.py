"""How long a caller of the whole server waits for the first word, against the bare SDK in a process of its own."""

import json
import time
from collections.abc import Sequence
from pathlib import Path
from statistics import median
from typing import Any

import anyio

from benchmarks.appending import EVENT_BYTES, INSERT, raw_file
from benchmarks.fake import JsonObject, fake, said
from benchmarks.places import Child, filler, folder, realm_in
from benchmarks.results import Row, Scale, alternating, share
from benchmarks.wire import Server, call, ours
from benchmarks.wires import PROMPT, WIRES, BothWays, close
from meerkat_mcp.providers.base import ModelRequest, Piece, Provider
from meerkat_mcp.providers.wire import Http

LINGER_S = 0.06
"""How long a reply goes on after its first word, so that nothing but the word itself can carry it to a reader."""
THINK_S = 0.2
KEYS = ("ANTHROPIC_API_KEY", "OPENAI_API_KEY", "GEMINI_API_KEY", "FAKE_API_KEY")


def first_word(scale: Scale) -> Sequence[Row]:
    """From `tools/call meerkat_run` to the progress of the first text delta, on a warm server; the model is quick."""
    return _rows(0.0, scale.of(15, 60))


def first_word_late(scale: Scale) -> Sequence[Row]:
    """The same, of a model that thinks for 200 ms."""
    return _rows(THINK_S, scale.of(8, 25))


def first_word_cold(scale: Scale) -> Sequence[Row]:
    """The first call of a server, against a process that has Python and anyio, and imports the SDK when it is asked."""
    rows: list[Row] = []
    with fake() as vendors, folder() as root:
        anyio.run(prepare, root, vendors.url)
        for wire in WIRES:
            lane = vendors.always(_word(wire, 0.0))
            times: tuple[list[float], list[float]] = ([], [])
            for which in alternating(scale.of(2, 5)):
                if which == 0:
                    with Server(ours(root), **keys(lane)) as server:
                        times[0].append(streamed_ms(server, wire))
                else:
                    with Child("bare_sdk", wire.name, vendors.url, lane) as child:
                        child.line()
                        child.tell()
                        times[1].append(float(child.line()))
            what = f"{wire.name}: first delta, first call (cold), vs bare SDK with its import"
            rows.append(Row("adapter", what, "ms", median(times[0]), median(times[1])))
    return rows


def _rows(think_s: float, times: int) -> list[Row]:
    rows: list[Row] = []
    thinks = f" (thinks {think_s * 1000:g} ms)" if think_s else ""
    with fake() as vendors, folder() as root:
        anyio.run(prepare, root, vendors.url)
        for wire in WIRES:
            lane = vendors.always(_word(wire, think_s))
            with Server(ours(root), **keys(lane)) as server:
                whole_ms, adapter_ms, bare_ms = anyio.run(_ways, wire, server, vendors.url, lane, times)
            whole, adapter, bare = (share(taken, 0.5) for taken in (whole_ms, adapter_ms, bare_ms))
            what = f"{wire.name}: first delta through the server, vs bare SDK{thinks}"
            rows += [
                Row("adapter", f"{what}, p50", "ms", whole, bare),
                Row("adapter", "the same, p99", "ms", share(whole_ms, 0.99), share(bare_ms, 0.99)),
                Row("adapter", "through the adapter alone, vs bare SDK, p50", "ms", adapter, bare),
                Row("adapter", "what the server adds to the bare SDK's p50", "ms", whole - bare),
            ]
        commit_ms = share(_commits_ms(root / "raw.sqlite3", times), 0.5)
    return [*rows, Row("adapter", "for comparison: one raw INSERT+COMMIT to this disk, p50", "ms", commit_ms)]


def _commits_ms(path: Path, times: int) -> list[float]:
    """What the disk takes to write one event durably, now and then, as a server is asked now and then."""
    taken: list[float] = []
    raw = raw_file(path, 1)
    for seq in range(1, times + 1):
        time.sleep(LINGER_S / 4)
        started = time.perf_counter()
        raw.execute(INSERT, (1, seq, filler(EVENT_BYTES)))
        taken.append((time.perf_counter() - started) * 1000)
    raw.close()
    return taken


def _word(wire: BothWays, think_s: float) -> JsonObject:
    return said("word word", piece=5, stall_before=think_s, stall_after=wire.frames_to_text, stall_for=LINGER_S)


async def prepare(root: Path, url: str, **more: Any) -> None:
    """A realm whose providers are the fake."""
    vendors = {"anthropic": {"base_url": url}, "openai": {"base_url": f"{url}/v1"}, "gemini": {"base_url": url}}
    here = {"base_url": f"{url}/v1", "api_key_env": "FAKE_API_KEY", "models": ["qwen3"]}
    async with realm_in(root) as realm:
        await realm.set_config({"providers": vendors, "self_hosted": {"fake": here}, **more})


def keys(lane: str) -> dict[str, str]:
    """The environment of a server whose every provider has this key."""
    return dict.fromkeys(KEYS, lane)


async def _ways(wire: BothWays, server: Server, url: str, lane: str, times: int) -> Sequence[Sequence[float]]:
    """Milliseconds to the first word by the server, by our adapter alone, by the SDK: once uncounted, then in turn.

    The server is waited for in the loop: nothing else is to run here meanwhile.
    """
    http, client = Http(), wire.bare(url, lane)
    provider = wire.ours(url, lane, http)

    async def whole() -> float:
        return streamed_ms(server, wire)

    async def adapter() -> float:
        return await _replied_ms(provider, wire.request)

    async def bare() -> float:
        return await asked_ms(wire, client)

    ways = (whole, adapter, bare)
    taken: tuple[list[float], ...] = ([], [], [])
    for way in ways:
        await way()
    for which in alternating(times, len(ways)):
        taken[which].append(await ways[which]())
    await close(client)
    await http.close()
    return taken


def streamed_ms(server: Server, wire: BothWays) -> float:
    """From the call to the first text delta; then the call is heard out."""
    arguments = {"prompt": PROMPT, "provider": wire.provider, "model": wire.model, "stream": True}
    line = call(3, "meerkat_run", arguments, _meta={"progressToken": "p"})
    started = time.perf_counter()
    server.send(line)
    first_ms = 0.0
    while True:
        heard = server.line()
        if not first_ms and b'"text_delta"' in heard:
            first_ms = (time.perf_counter() - started) * 1000
        if b'"result"' in heard or b'"error"' in heard:
            break
    status = json.loads(heard).get("result", {}).get("structuredContent", {}).get("status")
    if status != "completed" or not first_ms:
        raise RuntimeError(f"{wire.name}: no delta, or no end: {heard[:500]!r}")
    return first_ms


async def asked_ms(wire: BothWays, client: Any) -> float:
    """The same of the bare SDK."""
    came: list[float] = []

    def on_text(text: str) -> None:
        came.append(time.perf_counter())

    started = time.perf_counter()
    await wire.loop(client, wire.model, on_text)
    return (came[0] - started) * 1000


async def _replied_ms(provider: Provider, request: ModelRequest) -> float:
    """The same of our adapter, without a server around it."""
    first_ms, started = 0.0, time.perf_counter()
    async for part in provider.reply(request):
        if not first_ms and isinstance(part, Piece):
            first_ms = (time.perf_counter() - started) * 1000
    return first_ms
