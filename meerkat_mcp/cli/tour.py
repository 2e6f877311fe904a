"""`meerkat-mcp tour`: the main job as it happens, with a real server, a real client, and a restart in between."""

import shutil
import sys
import tempfile
import time
from argparse import Namespace
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NoReturn, TextIO, cast

import anyio
from mcp import Client, StdioServerParameters
from mcp.client.stdio import stdio_client
from mcp.types import CallToolResult, ProgressNotification

import meerkat_mcp
from meerkat_mcp.cli import display, exits
from meerkat_mcp.domain.errors import Internal
from meerkat_mcp.domain.events import DELTAS, TURN_PAUSES
from meerkat_mcp.server.following import EVENT_META_KEY

REALM = "tour"
WORD_MS, WORD_MS_UNSEEN = 60, 5
"""The pace of the demo model: so that one can read along, or nobody watches."""
LIMIT_S = 60.0
DRAIN_S = 2.0
LOG_CHARS_SHOWN = 2000

NEXT_STEPS = """Put it into your host (any realm name will do; the same name is the same sessions):

   {"mcpServers": {"meerkat": {"command": "meerkat-mcp", "args": ["serve", "--realm", "main"]}}}

   claude mcp add meerkat -- meerkat-mcp serve --realm main
   codex mcp add meerkat -- meerkat-mcp serve --realm main

Or stay here:

   meerkat-mcp run --stream "My name is Ada."
   meerkat-mcp run --resume "What is my name?"
   meerkat-mcp session list"""

Event = dict[str, Any]


@dataclass(slots=True)
class Visit:
    """One life of the server, seen from its client: every event that came as progress."""

    client: Client
    live: list[Event] = field(default_factory=list[Event])
    ended: anyio.Event = field(default_factory=anyio.Event)

    async def call(self, tool: str, arguments: dict[str, Any], *, follow: bool = False) -> dict[str, Any]:
        """The tool's structured result; with `follow` after all its events came."""
        result: CallToolResult = await self.client.call_tool(
            tool, arguments, progress_callback=_nothing if follow else None
        )
        if result.is_error:
            _wrong(f"{tool} answered: {result.content}")
        if follow:
            with anyio.move_on_after(DRAIN_S):
                await self.ended.wait()
        return cast(dict[str, Any], result.structured_content)


@dataclass(slots=True)
class Findings:
    """What the tour saw; with --json this is what it prints."""

    protocol_version: str = ""
    tools: list[str] = field(default_factory=list[str])
    session_id: str = ""
    turns: list[dict[str, Any]] = field(default_factory=list[dict[str, Any]])
    live_seqs: list[int] = field(default_factory=list[int])
    replayed_seqs: list[int] = field(default_factory=list[int])
    processes: list[int] = field(default_factory=list[int])


async def tour(args: Namespace) -> int:
    """Go; an error when anything is not as it should be."""
    exits.settle_in()
    began = time.monotonic()
    guide = _Guide(silent=args.json)
    state_root = Path(tempfile.mkdtemp(prefix="meerkat-tour-"))
    log_path = state_root / "server.log"
    try:
        with log_path.open("w", encoding="utf-8") as log, anyio.fail_after(LIMIT_S):
            seen = await _go(state_root, log, guide)
    except Exception as exc:
        _tell_log(log_path)
        match exits.leaf(exc):
            case Internal():
                raise
            case TimeoutError():
                _wrong(f"it took longer than {LIMIT_S:g} s")
            case other:
                _wrong(f"{type(other).__name__}: {other}")
    finally:
        if not args.keep:
            shutil.rmtree(state_root, ignore_errors=True)
    seconds = time.monotonic() - began
    kept = f" Kept in {state_root}" if args.keep else " All of it is deleted again."
    guide.heading(f"Done in {seconds:.0f} s.{kept}")
    guide.line(NEXT_STEPS)
    if args.json:
        facts = {name: getattr(seen, name) for name in Findings.__slots__}
        more = {"state_root": str(state_root)} if args.keep else {}
        display.say_json({"ok": True, **facts, "seconds": round(seconds, 1), **more})
    return 0


async def _go(state_root: Path, log: TextIO, guide: "_Guide") -> Findings:
    seen = Findings()
    command = f"$ meerkat-mcp serve --realm {REALM} --state-root {state_root}"
    guide.line(
        f"meerkat-mcp {meerkat_mcp.__version__}: agent sessions that last, as MCP tools. The demo model plays along."
    )
    guide.heading("1  A host starts the server")
    guide.line(command)
    async with _visit(state_root, log, guide) as first:
        seen.protocol_version = first.client.protocol_version
        seen.tools = [tool.name for tool in (await first.client.list_tools()).tools]
        _expect("meerkat_run" in seen.tools, "the server offers meerkat_run")
        guide.line(f"connected over stdio, MCP {seen.protocol_version}, {len(seen.tools)} tools")
        guide.heading("2  meerkat_run starts a session; the answer streams as it is written")
        pace = {"provider": "demo", "provider_params": {"delta_ms": guide.word_ms}}
        await _turn(first, "meerkat_run", {"prompt": "My name is Ada.", **pace}, seen, guide)
    guide.heading("3  That server has ended. Another process takes the session up")
    guide.line(command)
    async with _visit(state_root, log, guide) as second:
        asked = {"session_id": seen.session_id, "prompt": "What is my name?"}
        text = await _turn(second, "meerkat_resume", asked, seen, guide)
        _expect("Your name is Ada." in text, "the session remembers the name")
        guide.heading("4  The session is its log: read from event 0, everything comes once more")
        replayed = await _replayed(second, seen.session_id)
        _compare(first.live + second.live, replayed, seen, guide)
    return seen


async def _turn(visit: Visit, tool: str, arguments: dict[str, Any], seen: Findings, guide: "_Guide") -> str:
    arguments |= {"stream": True}
    guide.line(f"{tool} {display.as_json(arguments)}")
    result = await visit.call(tool, arguments, follow=True)
    streamed = "".join(event["text"] for event in visit.live if event["type"] == "text_delta")
    _expect(result["status"] == "completed", "the turn completes")
    _expect(result["text"] != "" and streamed == result["text"], "the pieces that streamed are the text")
    seen.session_id = result["session_id"]
    seen.turns.append({name: result[name] for name in ("turn_id", "status", "text", "usage")})
    guide.line(f"completed: session {seen.session_id}, {len(visit.live)} progress notifications")
    return result["text"]


async def _replayed(visit: Visit, session_id: str) -> list[Event]:
    """The log from its start, through an event stream."""
    opened = await visit.call("meerkat_event_stream_open", {"session_id": session_id, "after_seq": 0})
    events: list[Event] = []
    more = True
    while more:
        page = await visit.call("meerkat_event_stream_read", {"stream_id": opened["stream_id"], "timeout_ms": 2000})
        _expect(page["status"] == "event", "the stream has events")
        events += page["events"]
        more = page["more"]
    closed = await visit.call("meerkat_event_stream_close", {"stream_id": opened["stream_id"]})
    _expect(closed["closed"], "the stream closes")
    return events


def _compare(live: list[Event], replayed: list[Event], seen: Findings, guide: "_Guide") -> None:
    """What was seen live, but for deltas, which their text supersedes, is what the log says."""
    lasting = [event for event in live if event["type"] not in DELTAS]
    seen.live_seqs = [event["seq"] for event in lasting]
    seen.replayed_seqs = [event["seq"] for event in replayed]
    owners = [event["owner"] for event in replayed if event["type"] == "turn_started"]
    seen.processes = [owner["pid"] for owner in owners]
    _expect(replayed[:1] != [] and replayed[0]["type"] == "session_created", "the log begins with its session")
    _expect(lasting == replayed[1:], "what was seen live is what is read again")
    _expect(len({owner["incarnation"] for owner in owners}) == 2, "each turn ran in a process of its own")
    for event in replayed:
        guide.line(f"{event['seq']:>3}  {event['type']}{_remark(event)}")
    processes = " and ".join(str(pid) for pid in seen.processes)
    guide.line(
        f"the same {len(lasting)} events as seen live, by processes {processes}; gaps are deltas that became text"
    )


def _remark(event: Event) -> str:
    match event["type"]:
        case "turn_started":
            return f"  process {event['owner']['pid']}: {event['prompt']}"
        case "text_complete":
            return f"  {display.clipped(event['text'], 60)}"
        case _:
            return ""


def server_words(state_root: Path) -> list[str]:
    """The command that starts the server."""
    return [sys.executable, "-m", "meerkat_mcp", "serve", "--realm", REALM, "--state-root", str(state_root)]


@asynccontextmanager
async def _visit(state_root: Path, log: TextIO, guide: "_Guide") -> AsyncGenerator[Visit]:
    """A server of its own process, and a client on it; at the end the server is gone."""
    package_root = Path(meerkat_mcp.__file__).parents[1]
    is_installed = package_root.name in ("site-packages", "dist-packages")
    command, *words = server_words(state_root)
    server = StdioServerParameters(
        command=command,
        args=words,
        env={"PYTHONUTF8": "1"} | ({} if is_installed else {"PYTHONPATH": str(package_root)}),
    )

    async def heard(message: Any) -> None:
        meta = message.params.meta or {} if isinstance(message, ProgressNotification) else {}
        if event := cast(Event, meta.get(EVENT_META_KEY, {})):
            visit.live.append(event)
            guide.progress(event)
            if event["type"] in TURN_PAUSES:
                visit.ended.set()

    visit = Visit(Client(stdio_client(server, errlog=log), message_handler=heard))
    async with visit.client:
        yield visit


class _Guide:
    """Tells what happens, unless it is to be silent."""

    def __init__(self, *, silent: bool) -> None:
        self._silent = silent
        self.word_ms = WORD_MS_UNSEEN if silent else WORD_MS

    def heading(self, text: str) -> None:
        if not self._silent:
            display.heading(f"\n{text}")

    def line(self, text: str) -> None:
        if not self._silent:
            display.say("\n".join(f"   {line}".rstrip() for line in text.split("\n")))

    def progress(self, event: Event) -> None:
        if self._silent:
            return
        match event["type"]:
            case "step_started":
                display.say("   » ", end="")
            case "text_delta":
                display.say(event["text"], end="")
            case "text_complete":
                display.say()
            case _:
                pass


async def _nothing(progress: float, total: float | None, message: str | None) -> None:
    """A call asks for progress by having somebody to tell; the events come through the message handler."""


def _expect(is_so: bool, what: str) -> None:
    if not is_so:
        _wrong(f"expected that {what}")


def _wrong(what: str) -> NoReturn:
    raise Internal(f"The tour did not go as it should: {what}.")


def _tell_log(path: Path) -> None:
    """What the server said, for whoever looks into it."""
    if path.exists() and (said := path.read_text(encoding="utf-8", errors="replace").strip()):
        display.note(f"the server said:\n{said[-LOG_CHARS_SHOWN:]}")
