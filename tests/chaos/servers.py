"""Server processes, spoken to line by line; one that dies is started again."""

import json
import os
import signal
import sys
import time
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from random import Random
from typing import Any

import anyio
from anyio.abc import Process

from meerkat_mcp import domain

ROOT = Path(domain.__file__).parents[2]
REALM = "chaos"
START_S = 60.0
PATIENCE_S = 90.0
"""How long a call may take beyond what it said itself: longer than any stroke of bad luck."""
CONNECTION_CLOSED = -32000
"""What the SDK answers to the calls that are under way when a connection ends."""
KEYS = ("ANTHROPIC_API_KEY", "OPENAI_API_KEY", "GEMINI_API_KEY", "GOOGLE_API_KEY")

Json = dict[str, Any]


@dataclass
class Answer:
    """What came of a call: a result, an error, or nothing, since its server was gone first."""

    result: Json | None = None
    error: Json | None = None
    took_s: float = 0.0
    calm: bool = False

    @property
    def lost(self) -> bool:
        return self.result is None and self.error is None

    @property
    def code(self) -> str:
        return str(self.error.get("code")) if self.error is not None else ""

    def __str__(self) -> str:
        if self.error is not None:
            return f"{self.code}: {self.error.get('message')}"
        if self.result is None:
            return "lost"
        shown = {key: value for key, value in self.result.items() if key in _SHOWN and value}
        for inner in ("session", "turn"):
            shown |= {key: value for key, value in (self.result.get(inner) or {}).items() if key in _SHOWN and value}
        return json.dumps(shown, ensure_ascii=False)


_SHOWN = (
    "turn_id",
    "state",
    "status",
    "stop_reason",
    "last_seq",
    "interrupted",
    "ended",
    "archived",
    "generation",
    "deleted",
)
"""What of a result the story tells."""


@dataclass
class Life:
    """One process of a server: what became of it. `troubled_ms` is when bad luck last touched it."""

    pid: int
    started_ms: int
    troubles: list[tuple[int, str]] = field(default_factory=list[tuple[int, str]])
    ended_ms: int | None = None
    code: int | None = None
    told_to_end_ms: int | None = None


class Server:
    """A server of the realm, in one process after the other."""

    def __init__(self, name: str, folder: Path, flags: tuple[str, ...], env: Mapping[str, str], random: Random) -> None:
        self.name = name
        self.stderr = folder / f"{name}.stderr"
        self.appends = folder / f"{name}.appends"
        self.lives: list[Life] = []
        self.notes: list[Json] = []
        self.stopped = False
        self.up = anyio.Event()
        self.hangs: list[str] = []
        self.oddities: list[str] = []
        words = ["serve", "--realm", REALM, "--state-root", str(folder / "realms"), *flags]
        self._words = [sys.executable, "-m", "chaos.timed", *words]
        self._env = {key: value for key, value in os.environ.items() if key not in KEYS} | dict(env)
        self._env |= {"PYTHONPATH": f"{ROOT}{os.pathsep}{ROOT / 'tests'}", "CHAOS_APPENDS": str(self.appends)}
        self._random = random
        self._process: Process | None = None
        self._waiting: dict[int, tuple[anyio.Event, list[Json]]] = {}
        self._last_id = 0
        self._over = False
        self._wrote: Sequence[str] | None = None

    # ── its lives ──

    async def run(self) -> None:
        """One life after the other, until `retire`."""
        while not self._over:
            with self.stderr.open("ab") as stderr:
                process = await anyio.open_process(self._words, stderr=stderr, env=self._env, cwd=ROOT)
            life = Life(process.pid, _now_ms())
            self.lives.append(life)
            self._process = process
            try:
                async with anyio.create_task_group() as tasks:
                    tasks.start_soon(self._greet)
                    await self._listen(process)
                    tasks.cancel_scope.cancel()
                life.code = await process.wait()
            finally:
                self._mourn(life)
                with anyio.CancelScope(shield=True):
                    if process.returncode is None:
                        process.kill()
                    await process.aclose()
            if not self._over:
                await anyio.sleep(self._random.uniform(0.0, 0.7))

    def _mourn(self, life: Life) -> None:
        life.ended_ms = _now_ms()
        self._process = None
        self.stopped = False
        if self.up.is_set():
            self.up = anyio.Event()
        waiting, self._waiting = self._waiting, {}
        for event, _ in waiting.values():
            event.set()

    async def _greet(self) -> None:
        client = {"name": "chaos", "version": "1"}
        params = {"protocolVersion": "2025-11-25", "capabilities": {}, "clientInfo": client}
        with anyio.move_on_after(START_S) as patience:
            if await self._ask("initialize", params) is not None:
                await self._say({"method": "notifications/initialized", "params": {}})
                self.up.set()
        if patience.cancelled_caught and not self.stopped:
            self.hangs.append(f"{self.name} did not answer `initialize` in {START_S} s")
            self.strike("kill")

    async def _listen(self, process: Process) -> None:
        assert process.stdout is not None, "it was started with a pipe"
        held = b""
        async for chunk in process.stdout:
            *lines, held = (held + chunk).split(b"\n")
            for line in lines:
                self._take(line)

    def _take(self, line: bytes) -> None:
        try:
            message = json.loads(line)
        except ValueError:
            self.oddities.append(f"{self.name} said on stdout: {line[:200]!r}")
            return
        if "method" in message:
            if message["method"] == "notifications/progress":
                self.notes.append(message["params"])
        elif (waiting := self._waiting.pop(message.get("id"), None)) is not None:
            waiting[1].append(message)
            waiting[0].set()

    # ── what it is asked ──

    async def call(
        self, tool: str, arguments: Json, *, waits_s: float = 0.0, cancel_after_s: float | None = None
    ) -> Answer:
        """Call a tool. `waits_s` is how long the call itself may take; after `cancel_after_s` it is cancelled."""
        began, life = time.monotonic(), self.lives[-1] if self.lives else None
        troubles = len(life.troubles) if life is not None else 0
        params: Json = {"name": tool, "arguments": arguments}
        if arguments.get("stream"):
            params["_meta"] = {"progressToken": f"{self.name}-{self._last_id}"}
        message: Json | None = None
        with anyio.move_on_after(PATIENCE_S + waits_s) as patience:
            message = await self._ask("tools/call", params, cancel_after_s)
        if patience.cancelled_caught:
            self.hangs.append(f"{self.name} did not answer {tool} {json.dumps(arguments)} in {PATIENCE_S + waits_s} s")
        calm = life is not None and len(life.troubles) == troubles and not self.stopped
        answer = Answer(took_s=time.monotonic() - began, calm=calm)
        if message is None:
            return answer
        ending = life is not None and life.told_to_end_ms is not None
        if "error" in message and ending and message["error"]["code"] == CONNECTION_CLOSED:
            return answer
        if "error" in message:
            answer.error = {"code": "json-rpc", "message": json.dumps(message["error"])}
            return answer
        body = json.loads(message["result"]["content"][0]["text"])
        if message["result"].get("isError"):
            answer.error = body["error"]
        else:
            answer.result = body
        return answer

    async def _ask(self, method: str, params: Json, cancel_after_s: float | None = None) -> Json | None:
        self._last_id += 1
        number, event, came = self._last_id, anyio.Event(), list[Json]()
        if self._process is None:
            return None
        self._waiting[number] = (event, came)
        try:
            if not await self._say({"method": method, "params": params, "id": number}):
                return None
            if cancel_after_s is None:
                await event.wait()
            else:
                with anyio.move_on_after(cancel_after_s):
                    await event.wait()
                if not event.is_set():
                    await self._say({"method": "notifications/cancelled", "params": {"requestId": number}})
        finally:
            self._waiting.pop(number, None)
        return came[0] if came else None

    async def _say(self, message: Json) -> bool:
        process = self._process
        if process is None or process.stdin is None:
            return False
        try:
            await process.stdin.send(json.dumps({"jsonrpc": "2.0"} | message).encode() + b"\n")
        except (anyio.BrokenResourceError, anyio.ClosedResourceError, OSError):
            return False
        return True

    # ── what befalls it ──

    def trouble(self, what: str) -> None:
        """Write down what befalls it now."""
        if self.lives:
            self.lives[-1].troubles.append((_now_ms(), what))

    def strike(self, what: str) -> bool:
        """`kill`, `end` (SIGTERM), `stop` (SIGSTOP) or `go on` (SIGCONT); whether there was a process to strike."""
        process = self._process
        if process is None:
            return False
        self.trouble(what)
        if what == "end":
            self.lives[-1].told_to_end_ms = _now_ms()
        if what in ("stop", "go on"):
            self.stopped = what == "stop"
        with suppress(ProcessLookupError):
            process.send_signal(_SIGNALS[what])
        return True

    async def hang_up(self) -> None:
        """Close its stdin, as a host does that ends."""
        process = self._process
        if process is not None and process.stdin is not None:
            self.trouble("end of input")
            self.lives[-1].told_to_end_ms = _now_ms()
            await process.stdin.aclose()

    def bury(self) -> None:
        """Keep what it wrote, when its folder goes."""
        self._wrote = self.wrote()

    def wrote(self) -> Sequence[str]:
        """Its log, line by line."""
        if self._wrote is not None:
            return self._wrote
        return self.stderr.read_text(encoding="utf-8", errors="replace").splitlines() if self.stderr.exists() else ()

    def retire(self) -> None:
        """This life is the last."""
        self._over = True


_SIGNALS = {"kill": signal.SIGKILL, "end": signal.SIGTERM, "stop": signal.SIGSTOP, "go on": signal.SIGCONT}


def _now_ms() -> int:
    return time.time_ns() // 1_000_000
