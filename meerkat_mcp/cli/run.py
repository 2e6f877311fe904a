"""`meerkat-mcp run`: start a session or go on with one, show the turn, and end it on Ctrl-C."""

import math
import re
import signal
import sys
from argparse import Namespace
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, cast

import anyio
import anyio.lowlevel
from pydantic import TypeAdapter, ValidationError

from meerkat_mcp.cli import display, exits, values
from meerkat_mcp.cli.telling import Teller
from meerkat_mcp.cli.views import tokens, turn_view
from meerkat_mcp.domain.config import explain
from meerkat_mcp.domain.errors import InvalidRequest, RealmNotFound
from meerkat_mcp.domain.events import TURN_PAUSES
from meerkat_mcp.domain.messages import ToolDefinition, ToolResult
from meerkat_mcp.domain.recorded import Recorded
from meerkat_mcp.domain.session import Session
from meerkat_mcp.domain.settings import LABELS_MAX, TITLE_CHARS_MAX, TOOLS_MAX, Budget, Labels, Settings
from meerkat_mcp.domain.transcript import TurnOutcome
from meerkat_mcp.realms import Realm, open_realm
from meerkat_mcp.sessions.claims import Started

DRAIN_S = 1.0
LOOK_S = 5.0
TERMINATED = 143


@dataclass(frozen=True, slots=True)
class Request:
    """What was asked for, checked. `reference` is None for a new session."""

    prompt: str
    reference: str | None
    changes: dict[str, Any]
    title: str | None
    labels: dict[str, str] | None
    tool_results: Sequence[ToolResult]
    if_busy: Any


async def run(args: Namespace) -> int:
    """Do it."""
    asked = _request(args)
    chosen = values.choice(args, asked.reference)
    if asked.reference is not None and values.unnamed(args, chosen.realm_id) and not chosen.folder.exists():
        raise RealmNotFound(
            "There is no session to go on with in this folder yet.", hint='start one with: meerkat-mcp run "…".'
        )
    exits.settle_in()
    async with open_realm(chosen, must_exist=asked.reference is not None) as realm:
        after, started = await _begun(realm, asked)
        if started.turn_id is None:
            session = await realm.journal.load(started.session_id)
            _tell_settings(session, realm, args)
            return 0
        stopped_by = await _followed(realm, started, after, args)
        session = await realm.sessions.settled(started.session_id)
        outcome = await realm.sessions.outcome(session, started.turn_id)
        code = _concluded(session, outcome, realm, args, stopped_by)
        if stopped_by is None:
            await _see_off(realm, session.id)
        return code


# ── what was asked for ──


def _request(args: Namespace) -> Request:
    prompt, reference = cast(str | None, args.prompt), cast(str | None, args.resume)
    if reference is not None and prompt is None and not values.is_reference(reference):
        prompt, reference = reference, values.LAST
    results = [
        ToolResult(tool_use_id=call, content=values.file_text(text[1:]) if text.startswith("@") else text)
        for call, text in values.pairs(args.tool_result, "--tool-result").items()
    ]
    changes = _changes(args)
    labels = _labels(args)
    silent = bool(results or changes or labels or args.title) and reference is not None
    if prompt == "-" or (prompt is None and not silent and not sys.stdin.isatty()):
        prompt = values.stdin_text().strip()
    if not prompt and not silent:
        raise InvalidRequest("There is no prompt.", hint='say it as an argument or on stdin: meerkat-mcp run "Hello".')
    if results and reference is None:
        raise InvalidRequest("--tool-result answers a waiting turn.", hint="say which session with --resume.")
    if args.title is not None and len(args.title) > TITLE_CHARS_MAX:
        raise InvalidRequest(f"--title has more than {TITLE_CHARS_MAX} characters.")
    return Request(prompt or "", reference, changes, args.title, labels, results, args.if_busy)


def _labels(args: Namespace) -> dict[str, str] | None:
    labels = values.pairs(args.label, "--label")
    try:
        TypeAdapter(Labels).validate_python(labels)
    except ValidationError as exc:
        raise InvalidRequest(f"--label: {exc.errors(include_url=False)[0]['msg']}.") from None
    if len(labels) > LABELS_MAX:
        raise InvalidRequest(f"A session has at most {LABELS_MAX} labels.")
    return labels or None


def _changes(args: Namespace) -> dict[str, Any]:
    """The settings that were given."""
    given: dict[str, Any] = {
        "model": args.model,
        "provider": args.provider,
        "provider_params": values.json_pairs(args.param, "--param") or None,
        "system_prompt": args.system_prompt,
        "additional_instructions": tuple(args.instruction) or None,
        "max_tokens": args.max_tokens,
        "max_steps": args.max_steps,
    }
    if args.output_schema is not None:
        given["output_schema"] = values.json_object(args.output_schema, "--output-schema")
    if args.tools is not None:
        given["tools"] = _tools(values.document(args.tools, "--tools"))
    if args.budget:
        try:
            given["budget"] = Budget.model_validate(values.json_pairs(args.budget, "--budget"))
        except ValidationError as exc:
            raise InvalidRequest(f"--budget: {explain(exc, Budget)}.") from None
    return {name: value for name, value in given.items() if value is not None}


def _tools(said: Any) -> tuple[ToolDefinition, ...]:
    many: list[Any] = cast(list[Any], said) if isinstance(said, list) else [said]
    if len(many) > TOOLS_MAX:
        raise InvalidRequest(f"--tools: a session has at most {TOOLS_MAX}.")
    try:
        tools = tuple(ToolDefinition.model_validate(tool) for tool in many)
    except ValidationError as exc:
        raise InvalidRequest(f"--tools: {explain(exc, ToolDefinition)}.") from None
    for tool in tools:
        if not re.fullmatch(r"[A-Za-z0-9_-]{1,64}", tool.name):
            raise InvalidRequest(f"--tools: {tool.name[:80]!r} is no name for a tool.", hint="use A-Z a-z 0-9 _ -.")
    return tools


# ── the turn ──


async def _begun(realm: Realm, asked: Request) -> tuple[int, Started]:
    """The turn, and after which event of the log it begins."""
    if asked.reference is None:
        settings = Settings(**asked.changes)
        started = await realm.sessions.run(asked.prompt, settings, title=asked.title or "", labels=asked.labels)
        return 0, started
    session_id = await realm.reading.resolve(asked.reference)
    before = await realm.sessions.settled(session_id)
    started = await realm.sessions.resume(
        session_id,
        asked.prompt,
        changes=asked.changes,
        title=asked.title,
        labels=asked.labels,
        tool_results=asked.tool_results,
        if_busy=asked.if_busy,
    )
    return before.seq, started


async def _followed(realm: Realm, started: Started, after: int, args: Namespace) -> int | None:
    """Wait for the turn's end, showing it meanwhile; the signal that asked for the end, if one did."""
    session_id, turn_id = started.session_id, started.turn_id
    assert turn_id is not None, "a turn was started"
    signals: list[int] = []
    async with anyio.create_task_group() as tasks:
        told = anyio.Event()

        async def show() -> None:
            await _shown(realm, session_id, turn_id, after, as_json=args.json)
            told.set()

        async def heed() -> None:
            await _heed(realm, session_id, turn_id, signals, tasks.cancel_scope)

        tasks.start_soon(heed)
        if args.stream:
            tasks.start_soon(show)
            await realm.sessions.wait(session_id, turn_id, math.inf)
            with anyio.move_on_after(DRAIN_S):
                await told.wait()
        else:
            with display.waiting("working … Ctrl-C interrupts"):
                await realm.sessions.wait(session_id, turn_id, math.inf)
        tasks.cancel_scope.cancel()
    return signals[0] if signals else None


async def _heed(realm: Realm, session_id: str, turn_id: str, signals: list[int], scope: anyio.CancelScope) -> None:
    """The first signal ends the turn, a second one does not wait for that."""
    try:
        with anyio.open_signal_receiver(signal.SIGINT, signal.SIGTERM) as received:
            async for number in received:
                if signals:
                    scope.cancel()
                signals.append(int(number))
                await realm.sessions.interrupt(session_id, expected_turn_id=turn_id, wait_s=0)
    except NotImplementedError:  # Windows: Ctrl-C cancels everything, and the turn ends by that
        return


async def _shown(realm: Realm, session_id: str, turn_id: str, after: int, *, as_json: bool) -> None:
    """Write the turn's events until it has ended or waits."""

    teller = Teller()
    ends = TURN_PAUSES | {"prompt_dropped"}
    async with realm.journal.follow(session_id, after=after) as log:
        while True:
            for recorded in await log.next():
                event = recorded.event
                if event.turn_id not in (turn_id, None):
                    continue
                if as_json:
                    _write(recorded)
                else:
                    teller.tell(event)
                if event.turn_id == turn_id and recorded.type in ends:
                    return teller.end_line()


async def _see_off(realm: Realm, session_id: str) -> None:
    """Stay for the prompts that others queued meanwhile: the process that ended the turn before works on them."""
    told = False
    while realm.turns.running:
        session = await realm.journal.load(session_id)
        if session.active and session.turn is not None:
            if not told:
                display.note("A prompt that was queued meanwhile runs here now; Ctrl-C ends it.")
                told = True
            await realm.sessions.wait(session_id, session.turn.turn_id, LOOK_S)
        await anyio.lowlevel.checkpoint()


def _write(recorded: Recorded) -> None:
    display.say(recorded.body.decode())


# ── what came of it ──


def _concluded(session: Session, outcome: TurnOutcome, realm: Realm, args: Namespace, stopped_by: int | None) -> int:
    if args.json:
        view = turn_view(session, realm.id, outcome)
        display.say_json({"result": view} if args.stream else view)
    else:
        _tell_outcome(session, outcome, realm, args)
    if outcome.status == "failed":
        return exits.exit_code(outcome.error)
    if stopped_by is not None and outcome.status not in ("completed", "waiting"):
        return TERMINATED if stopped_by == signal.SIGTERM else exits.INTERRUPTED
    return 0 if outcome.status in ("completed", "waiting") else exits.UNFINISHED


def _tell_outcome(session: Session, outcome: TurnOutcome, realm: Realm, args: Namespace) -> None:
    if not args.stream:
        if outcome.structured_output is not None:
            display.say(display.as_json(outcome.structured_output, indent=2))
        elif outcome.text:
            display.say(outcome.text)
    again = f"meerkat-mcp run{values.same_place(args, realm)} --resume {session.id}"
    if outcome.error is not None:
        display.complain(str(outcome.error.get("message")), exits.hint(outcome.error))
    ended = outcome.status if outcome.status in ("completed", "failed") else _why(outcome)
    if outcome.status != "waiting":
        return display.note(f'{session.id}  {ended}, {tokens(outcome.usage)}. Go on: {again} "…"')
    for call in outcome.pending:
        display.note(f"waits for {call.tool_name} ({call.tool_use_id}): {display.as_json(call.args)}")
    answers = "".join(f" --tool-result {call.tool_use_id}=…" for call in outcome.pending)
    display.note(f"{session.id}  waiting, {tokens(outcome.usage)}. Answer: {again}{answers}")


def _why(outcome: TurnOutcome) -> str:
    what = "stopped at" if outcome.status == "limit" else f"{outcome.status}:"
    return f"{what} {outcome.stop_reason}" if outcome.stop_reason else outcome.status


def _tell_settings(session: Session, realm: Realm, args: Namespace) -> None:
    if args.json:
        display.say_json(turn_view(session, realm.id, None))
    else:
        display.note(f"{session.id}  changed; nothing was asked.")
