"""The real client of the SDK over a real pipe, in both protocol eras: streaming, signs of life, giving a call up."""

import sys
from collections.abc import AsyncGenerator, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import anyio
import pytest
from mcp import Client, StdioServerParameters
from mcp.types import ProgressNotification

pytestmark = pytest.mark.anyio

PATIENCE_S = 20.0
WEATHER = {"name": "weather"}
QUICK_BEATS = """
from meerkat_mcp.cli import main
from meerkat_mcp.server import following

following.BEAT_INTERVAL_S = 0.1  # else a test would have to wait for 10 s
raise SystemExit(main())
"""


class Caller:
    """A host with the SDK's client; `heard` are the progress notifications it got."""

    def __init__(self, folder: Path, mode: str, program: Sequence[str]) -> None:
        args = [*program, "serve", "--realm", "den", "--state-root", str(folder)]
        server = StdioServerParameters(command=sys.executable, args=args)
        self.client = Client(server, mode=mode, message_handler=self._hear)
        self.heard: list[ProgressNotification] = []
        self._came = anyio.Event()

    async def _hear(self, message: object) -> None:
        if isinstance(message, ProgressNotification):
            self.heard.append(message)
            self._came.set()
            self._came = anyio.Event()

    async def call(self, tool: str, **arguments: Any) -> dict[str, Any]:
        async def progressed(*_: object) -> None:
            pass  # asking for progress is what counts

        with anyio.fail_after(PATIENCE_S):
            result = await self.client.call_tool(tool, arguments, progress_callback=progressed)
        assert not result.is_error, result.content
        assert result.structured_content is not None
        return result.structured_content

    def events(self) -> list[dict[str, Any]]:
        metas = [note.params.meta or {} for note in self.heard]
        return [meta["meerkat/event"] for meta in metas if "meerkat/event" in meta]

    async def event(self, kind: str) -> dict[str, Any]:
        """The first event of that type, as soon as it is told."""
        with anyio.fail_after(PATIENCE_S):
            while not (found := [event for event in self.events() if event["type"] == kind]):
                await self._came.wait()
        return found[0]


@pytest.fixture(params=["2026-07-28", "legacy"])
def open_caller(request: pytest.FixtureRequest, tmp_path: Path) -> Any:
    @asynccontextmanager
    async def opened(program: Sequence[str] = ("-m", "meerkat_mcp")) -> AsyncGenerator[Caller]:
        caller = Caller(tmp_path, "auto" if request.param != "legacy" else "legacy", program)
        async with caller.client:
            version = caller.client.protocol_version
            assert version == ("2025-11-25" if request.param == "legacy" else request.param)
            yield caller

    return opened


async def test_streamed_events_come_whole_and_in_order(open_caller) -> None:
    async with open_caller() as caller:
        done = await caller.call(
            "meerkat_run", prompt="[[reason hm]][[words 60]]", stream=True, provider_params={"delta_ms": 3}
        )
        seqs = [event["seq"] for event in caller.events()]
        assert seqs == list(range(2, done["last_seq"] + 1)), "everything from the turn's first event on, once"
        said = "".join(event["text"] for event in caller.events() if event["type"] == "text_delta")
        assert said == done["text"]
        progress = [note.params.progress for note in caller.heard]
        assert progress == seqs
        assert all(note.params.message and len(note.params.message) <= 200 for note in caller.heard)


async def test_a_resumed_turn_streams_what_comes_after_its_pause(open_caller) -> None:
    async with open_caller() as caller:
        waiting = await caller.call("meerkat_run", prompt="[[call weather]][[next]][[say done]]", tools=[WEATHER])
        results = [{"tool_use_id": call["tool_use_id"], "content": "rain"} for call in waiting["pending_tool_calls"]]
        sid = waiting["session_id"]
        done = await caller.call("meerkat_resume", session_id=sid, tool_results=results, stream=True)
        kinds = [event["type"] for event in caller.events() if event["type"] != "text_delta"]
        assert kinds[-4:] == ["step_started", "text_complete", "step_completed", "turn_completed"]
        assert "turn_started" not in kinds
        assert done["text"] == "done"


async def test_a_silent_turn_gives_signs_of_life(open_caller) -> None:
    async with open_caller(program=("-c", QUICK_BEATS)) as caller:
        done = await caller.call("meerkat_run", prompt="[[wait 0.5]][[say late]]")
        assert done["text"] == "late"
        progress = [note.params.progress for note in caller.heard]
        assert len(progress) >= 3
        assert progress == sorted(set(progress)), "progress only grows"
        assert not caller.events(), "nobody asked for them"


@pytest.mark.parametrize("on_cancel", ["interrupt", "detach"])
async def test_a_call_given_up_ends_its_turn_unless_it_said_otherwise(open_caller, on_cancel) -> None:
    async with open_caller() as caller:
        async with anyio.create_task_group() as calls:
            asked = {"prompt": "[[say a]][[wait 0.4]][[say b]]", "stream": True, "on_cancel": on_cancel}
            calls.start_soon(lambda: caller.call("meerkat_run", **asked))
            sid = (await caller.event("text_delta"))["session_id"]
            calls.cancel_scope.cancel()
        turn = (await caller.call("meerkat_read", session_id=sid, wait_seconds=10))["turn"]
        if on_cancel == "interrupt":
            assert (turn["status"], turn["stop_reason"], turn["text"].strip()) == ("interrupted", "cancelled", "a")
        else:
            assert (turn["status"], turn["text"]) == ("completed", "a\nb")


async def test_a_call_given_up_is_asked_again_with_its_key_of_a_new_server(open_caller) -> None:
    asked = {"prompt": "[[say a]][[wait 0.2]][[say b]]", "on_cancel": "detach", "idempotency_key": "once"}
    async with open_caller() as caller:
        async with anyio.create_task_group() as calls:
            calls.start_soon(lambda: caller.call("meerkat_run", stream=True, **asked))
            first = await caller.event("text_delta")
            calls.cancel_scope.cancel()
        await caller.call("meerkat_read", session_id=first["session_id"], wait_seconds=10)
    async with open_caller() as caller:
        again = await caller.call("meerkat_run", **asked)
        assert (again["turn_id"], again["text"]) == (first["turn_id"], "a\nb")
        assert len((await caller.call("meerkat_sessions"))["sessions"]) == 1
