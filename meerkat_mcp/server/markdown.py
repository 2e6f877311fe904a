"""A session as a page of markdown that people and models read: what was asked, said and called, how each turn ended.

What was said stands in quotes, what tools took and gave in fences longer than any inside: no text of a prompt, a model
or a tool can pass for a part of the page. Half-written text and reasoning are left out; the events have them.
"""

import json
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime

from meerkat_mcp.domain import events as e
from meerkat_mcp.domain.messages import (
    AssistantMessage,
    JsonObject,
    Text,
    ToolCall,
    ToolMessage,
    ToolResult,
    UserMessage,
)
from meerkat_mcp.domain.session import Session
from meerkat_mcp.domain.transcript import Placed, Transcript
from meerkat_mcp.domain.turn import TurnStatus

NOTE_CHARS_MAX = 4_000
LABEL_CHARS_MAX = 200
NOTICE_CHARS = 1_000
"""What the notice of a cut page may need, with the heading it goes on with."""


@dataclass(frozen=True, slots=True)
class Room:
    """How many characters there are for a page, and in it for each text, call and result; None: for all of it."""

    page: int | None = None
    text: int | None = None
    call: int | None = None
    result: int | None = None


HOST = Room(page=200_000, text=40_000, call=2_000, result=4_000)
"""What a host can still give to its model: about 50,000 tokens."""
PAPER = Room()
"""What a person keeps: all of it."""

Part = tuple[int, str | None, Sequence[str]]
"""What was said or happened at a place in the log: its seq, its turn, the pieces that show it."""


@dataclass(slots=True)
class Turn:
    """What a page says of a turn beside what was said in it."""

    number: int
    kind: str
    started_ms: int
    status: TurnStatus = "running"
    ended_ms: int | None = None
    model: str = ""
    steps: int = 0
    tool_calls: int = 0


@dataclass(frozen=True, slots=True)
class Block:
    """A piece of a page, and the turn it belongs to."""

    turn: Turn | None
    text: str
    heads: bool = False


@dataclass(slots=True)
class Page:
    """Folds a log, event by event, into a page."""

    room: Room = HOST
    _said: Transcript = field(default_factory=lambda: Transcript(whole=True))
    _turns: dict[str | None, Turn] = field(default_factory=dict[str | None, Turn])
    _notes: list[Part] = field(default_factory=list[Part])
    _labels: dict[int, str] = field(default_factory=dict[int, str])

    def add(self, event: e.Event) -> None:
        """Take the next event of the log; deltas may be left out."""
        self._said.add(event)
        if isinstance(event, e.TurnStarted):
            number = len(self._turns) + 1
            self._turns[event.turn_id] = Turn(number=number, kind=event.kind, started_ms=event.timestamp_ms)
        self._count(event)
        if note := _note(event):
            self._notes.append((event.seq, event.turn_id, [note]))
        if isinstance(event, e.HistoryCompacted):
            self._labels[event.seq] = "Summary, which the model reads instead of what came before"
        if isinstance(event, e.OutputRejected):
            self._labels[event.seq] = "The answer did not fit its schema"

    def markdown(self, session: Session, realm_id: str) -> str:
        """The page of the session, within its room. Cut, it keeps how the session began, and its end."""
        head = "\n".join(_head(session, realm_id))
        blocks = list(self._blocks(session))
        sizes = [len(block.text) + 2 for block in blocks]
        if self.room.page is None or len(head) + 2 + sum(sizes) <= self.room.page:
            return "\n\n".join([head, *(block.text for block in blocks)]) + "\n"
        room = self.room.page - len(head) - NOTICE_CHARS
        begin, size = 0, 0
        while begin < 2 and size + sizes[begin] <= room // 2:  # the first heading and the first prompt
            size += sizes[begin]
            begin += 1
        end = len(blocks)
        while end > begin and size + sizes[end - 1] <= room:
            end -= 1
            size += sizes[end]
        notice = f"**Here {end - begin} of {len(blocks)} parts are left out.** {_how_to_read_on(session)}"
        kept = [*blocks[:begin], Block(None, notice)]
        if end < len(blocks) and not blocks[end].heads and (turn := blocks[end].turn) is not None:
            kept.append(Block(turn, f"{_title(turn)}, continued"))
        return "\n\n".join([head, *(block.text for block in [*kept, *blocks[end:]])]) + "\n"

    def _count(self, event: e.Event) -> None:
        turn = self._turns.get(event.turn_id)
        if turn is None:
            return
        match event:
            case e.StepStarted() if event.purpose == "answer" or turn.kind == "compaction":
                turn.model = event.model
            case e.StepCompleted():
                turn.steps += 1
            case e.ToolExecutionCompleted():
                turn.tool_calls += 1
            case e.TurnWaiting():
                turn.status = "waiting"
            case e.TurnResumed():
                turn.status = "running"
            case e.TurnCompleted() | e.TurnInterrupted() | e.TurnLimitReached() | e.TurnFailed():
                turn.status, turn.ended_ms = _STATUS[event.type], event.timestamp_ms
            case _:
                pass

    def _blocks(self, session: Session) -> Iterator[Block]:
        """Headings and what is under them, in the order of the log."""
        parts = list(self._notes)
        names: dict[str, str] = {}
        for placed in self._said.placed:
            if isinstance(placed.message, AssistantMessage):
                names |= {call.tool_use_id: call.tool_name for call in placed.message.tool_calls}
            parts.append((placed.seq, placed.turn_id, list(self._message(placed, names))))
        shown: Turn | None = None
        for _, turn_id, texts in sorted(parts, key=lambda part: part[0]):
            turn = self._turns.get(turn_id)
            if turn is not None and turn is not shown:
                yield Block(turn, f"{_title(turn)}\n\n{_facts(turn)}", heads=True)
                shown = turn
            for text in texts:
                yield Block(turn, text)
        if (now := _now(session)) is not None:
            yield Block(shown, now)

    def _message(self, placed: Placed, names: dict[str, str]) -> Iterator[str]:
        room = self.room
        match placed.message:
            case UserMessage(text=text):
                yield _said(self._labels.get(placed.seq, "Prompt"), text, room.text, placed.seq)
            case AssistantMessage(blocks=blocks):
                for block in blocks:
                    match block:
                        case Text():
                            yield _said("Agent", block.text, room.text, placed.seq)
                        case ToolCall():
                            yield _call(block, room.call, placed.seq)
                        case _:
                            pass
            case ToolMessage(results=results):
                for result in results:
                    yield _result(result, names.get(result.tool_use_id, ""), room.result, placed.seq)


# ── words ──


def quote(text: str) -> str:
    """A text as a quote: markdown in it is shown as such, and cannot end the quote."""
    lines = text.replace("\r\n", "\n").replace("\r", "\n").split("\n")
    return "\n".join(f"> {line}" if line else ">" for line in lines)


def fenced(text: str, language: str = "") -> str:
    """A text in a fence that is longer than any inside."""
    longest = max((len(run) for run in re.findall(r"`+", text)), default=0)
    fence = "`" * max(3, longest + 1)
    return f"{fence}{language}\n{text}\n{fence}"


def code(text: str) -> str:
    """A name as inline code, on one line."""
    line = _line(text, LABEL_CHARS_MAX) or "(no name)"
    longest = max((len(run) for run in re.findall(r"`+", line)), default=0)
    fence = "`" * (longest + 1)
    return f"{fence} {line} {fence}" if longest else f"`{line}`"


def when(ms: int) -> str:
    """A moment, in UTC."""
    return f"{datetime.fromtimestamp(ms / 1000, UTC):%Y-%m-%d %H:%M:%S} UTC"


def _line(text: str, chars_max: int) -> str:
    line = " ".join(text.split())
    return line if len(line) <= chars_max else f"{line[: chars_max - 1]}…"


def _cut(text: str, chars_max: int | None, seq: int) -> tuple[str, str]:
    """The beginning of a text, and what is to be said of the rest."""
    if chars_max is None or len(text) <= chars_max:
        return text, ""
    return text[
        :chars_max
    ], f"\n\n(The first {chars_max:,} of {len(text):,} characters; the events up to {seq} have all.)"


def _counted(number: int, word: str) -> str:
    return f"{number:,} {word}{'' if number == 1 else 's'}"


# ── the head ──


def _head(session: Session, realm_id: str) -> Iterator[str]:
    usage = session.usage
    cost = f", ${usage.cost_usd:.4f}" if usage.cost_usd else ""
    yield f"# {_line(session.title, LABEL_CHARS_MAX) or f'Session {session.id[:8]}'}"
    yield ""
    yield f"- session: {code(f'{realm_id}:{session.id}')}"
    yield f"- state: {session.state}, {_counted(session.turns, 'turn')}, {_counted(session.messages, 'message')}"
    if session.settings.model:
        yield f"- model: {code(session.settings.model)}"
    yield f"- begun: {when(session.created_ms)}; latest activity: {when(session.updated_ms)}"
    yield f"- used: {usage.input_tokens:,} tokens read, {usage.output_tokens:,} written{cost}"
    if session.labels:
        yield f"- labels: {', '.join(code(f'{key}={value}') for key, value in session.labels.items())}"
    if session.forked_from is not None:
        yield f"- forked from: {code(session.forked_from.session_id)} at event {session.forked_from.at_seq}"


def _how_to_read_on(session: Session) -> str:
    tool = f"meerkat_history with session_id {code(session.id)} and offset 0"
    return f"To read them: {tool}, or the resource {code(f'meerkat://sessions/{session.id}/events')}."


# ── turns ──

_STATUS: dict[str, TurnStatus] = {
    "turn_completed": "completed",
    "turn_interrupted": "interrupted",
    "turn_limit_reached": "limit",
    "turn_failed": "failed",
}


def _title(turn: Turn) -> str:
    return f"## Turn {turn.number}{', compaction' if turn.kind == 'compaction' else ''}: {turn.status}"


def _facts(turn: Turn) -> str:
    facts = [code(turn.model)] if turn.model else []
    facts += [_counted(turn.steps, "step"), _counted(turn.tool_calls, "tool call"), when(turn.started_ms)]
    if turn.ended_ms is not None:
        facts.append(f"{max(0, turn.ended_ms - turn.started_ms) / 1000:.1f} s")
    return ", ".join(facts)


def _note(event: e.Event) -> str | None:
    """What happened beside what was said."""
    match event:
        case e.TurnInterrupted():
            return f"**Interrupted:** {event.reason}."
        case e.TurnLimitReached():
            return f"**Limit reached:** {code(event.limit)}, {event.used:g} of {event.maximum:g}."
        case e.TurnFailed():
            return f"**Failed**\n\n{_why(event.error)}"
        case e.ToolServerFailed():
            return f"**Without tool server** {code(event.server)}\n\n{_short(event.message)}"
        case e.CompactionFailed():
            return f"**Not compacted**\n\n{_why(event.error)}"
        case e.ApprovalResolved():
            reason = f"\n\n{_short(event.reason)}" if event.reason else ""
            word = "Approved" if event.decision == "approve" else "Denied"
            return f"**{word}** by {event.by}: {code(event.tool_use_id)}{reason}"
        case e.BudgetWarning():
            return f"**Budget:** {event.used:g} of {event.limit:g} used of {code(event.budget)}."
        case _:
            return None


def _why(error: JsonObject) -> str:
    return _short(f"{error.get('code', '')}: {error.get('message', '')}")


def _short(text: str) -> str:
    return quote(text[:NOTE_CHARS_MAX])


def _now(session: Session) -> str | None:
    """How the session stands, where a reader should know."""
    turn = session.turn
    if session.state == "waiting" and turn is not None:
        waits = [f"the result of {code(call.tool_name)} ({code(call.tool_use_id)})" for call in turn.pending]
        waits += [f"a yes or a no to {code(call.tool_name)} ({code(call.tool_use_id)})" for call in turn.approvals]
        return f"**Waits for** {', '.join(waits)}."
    if session.active:
        return "**At work:** what the turn does next is not here yet."
    if session.state == "suspended":
        return "**Suspended:** its process has ended; another one of the realm takes the turn up."
    return "**Archived:** restore it with meerkat_archive to go on." if session.state == "archived" else None


# ── messages ──


def _said(label: str, text: str, chars_max: int | None, seq: int) -> str:
    text, rest = _cut(text, chars_max, seq)
    return f"**{label}**\n\n{quote(text)}{rest}"


def _call(call: ToolCall, chars_max: int | None, seq: int) -> str:
    title = f"**Call** {code(call.tool_name)} ({code(call.tool_use_id)})"
    if call.malformed is not None:
        text, rest = _cut(call.malformed, chars_max, seq)
        return f"{title}, arguments that are no JSON object\n\n{fenced(text)}{rest}"
    text, rest = _cut(json.dumps(call.args, ensure_ascii=False, indent=2), chars_max, seq)
    return f"{title}\n\n{fenced(text, 'json')}{rest}"


def _result(result: ToolResult, tool_name: str, chars_max: int | None, seq: int) -> str:
    text, rest = _cut(result.content, chars_max, seq)
    title = f"**Result** {code(tool_name)} ({code(result.tool_use_id)}){', an error' if result.is_error else ''}"
    pictures = "".join(f"\n\n(A picture, {code(image.mime_type)}.)" for image in result.images)
    return f"{title}\n\n{fenced(text)}{rest}{pictures}"
