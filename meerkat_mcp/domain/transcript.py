"""What a log says as a conversation: the messages a model sees next, and what came of one turn."""

from collections.abc import Iterable
from typing import Any, Literal

from meerkat_mcp.domain import events as e
from meerkat_mcp.domain.messages import (
    UNFINISHED,
    AssistantMessage,
    Block,
    JsonObject,
    Message,
    Reasoning,
    StopReason,
    Text,
    ToolCall,
    ToolMessage,
    ToolResult,
    Usage,
    UserMessage,
    Value,
    without,
)
from meerkat_mcp.domain.turn import TurnStatus

UNANSWERED = "The turn was interrupted before this tool answered; it is not known whether it ran."
NOT_MADE = "This call was not made: its turn, or the reply that asked for it, ended before."


class Placed(Value):
    """A message with its place: the turn it belongs to and the event that completed it."""

    seq: int
    turn_id: str | None
    timestamp_ms: int
    message: Message


class Transcript:
    """Folds a log, event by event, into messages.

    A step counts once it is completed: half-written text of an interrupted one stays in the log only. Every
    call of a completed step has a result, if only that it is not known: providers refuse a history with open
    calls. After a compaction the conversation begins with its summary, then comes what it did not replace (`whole`
    keeps everything, and the summary where it was made).
    """

    def __init__(self, *, whole: bool = False) -> None:
        self.placed: list[Placed] = []
        self._whole = whole
        self._blocks: list[Block] = []
        self._step: e.StepStarted | None = None
        self._open: dict[str, ToolResult | None] = {}
        self._answered: e.Event | None = None
        self._compacting = False
        self._summary: Placed | None = None
        self._late: e.TurnResumed | None = None
        self._not_made: set[str] = set()
        self._unfinished = False

    def add(self, event: e.Event) -> None:
        """Take the next event of the log."""
        match event:
            case e.TurnStarted():
                self._compacting = event.kind == "compaction"
                self._settle()
                self._say(event, event.prompt)
            case e.TurnResumed():  # a call that was approved is made after this, and its result comes first
                if self._late is not None:
                    self._settle()
                self._late = event
                if not self.unanswered():
                    self._settle()
            case e.OutputRejected():
                self._settle()
                self._say(event, event.message)
            case e.StepStarted():
                self._settle()
                self._step, self._blocks = event if event.purpose == "answer" else None, []
            case e.Retrying() | e.TurnSuspended():
                self._blocks = []
            case e.TextComplete():
                self._blocks.append(Text(text=event.text))
            case e.ReasoningComplete():
                self._blocks.append(Reasoning(text=event.text))
            case e.ToolCallRequested():
                self._blocks.append(
                    ToolCall(
                        tool_use_id=event.tool_use_id,
                        tool_name=event.tool_name,
                        args=event.args,
                        malformed=event.malformed,
                    )
                )
            case e.StepCompleted():
                self._complete(event)
            case e.ApprovalRequested():
                self._not_made.add(event.tool_use_id)
            case e.ToolExecutionStarted():
                self._not_made.discard(event.tool_use_id)
            case e.ToolExecutionCompleted():
                if event.tool_use_id in self._open:  # a call the conversation does not have needs no answer
                    self._open[event.tool_use_id] = ToolResult(
                        tool_use_id=event.tool_use_id,
                        content=event.content,
                        images=event.images,
                        is_error=event.is_error,
                    )
                    if self._late is None:  # so that the results have their place before the prompt that follows them
                        self._answered = event
            case e.HistoryCompacted():
                self._compact(event)
            case e.TurnCompleted() | e.TurnInterrupted() | e.TurnLimitReached() | e.TurnFailed():
                self._settle()
                self._compacting = False
            case _:
                pass

    def messages(self) -> tuple[Message, ...]:
        """The conversation as a step that begins now takes it: with every call answered, and nothing left over."""
        said = [placed.message for placed in self.placed]
        if self._open:
            said.append(self._results())
        if self._late is not None and self._late.prompt:
            said.append(UserMessage(text=self._late.prompt))
        return tuple(said)

    def unanswered(self) -> tuple[ToolCall, ...]:
        """The calls of the last step that are to be made and have no result yet, in the model's order."""
        last = self.placed[-1].message if self.placed and not self._unfinished else None
        calls = last.tool_calls if isinstance(last, AssistantMessage) else ()
        return tuple(call for call in calls if call.tool_use_id in self._open and not self._open[call.tool_use_id])

    def _results(self) -> ToolMessage:
        return ToolMessage(
            results=tuple(
                result or ToolResult(tool_use_id=tool_use_id, content=self._silence(tool_use_id), is_error=True)
                for tool_use_id, result in self._open.items()
            )
        )

    def _silence(self, tool_use_id: str) -> str:
        return NOT_MADE if tool_use_id in self._not_made else UNANSWERED

    def _compact(self, event: e.HistoryCompacted) -> None:
        self._settle()
        summary = self._place(event, UserMessage(text=event.summary))
        if self._whole:
            self.placed.append(summary)
            return
        later = [  # what has no place yet was said just now
            placed
            for placed in self.placed
            if (placed.seq > event.through_seq or not placed.seq) and placed is not self._summary
        ]
        self.placed, self._summary = [summary, *later], summary

    def _say(self, event: e.Event, text: str) -> None:
        if text and not self._compacting:
            self.placed.append(self._place(event, UserMessage(text=text)))

    def _complete(self, event: e.StepCompleted) -> None:
        step, blocks = self._step, tuple(self._blocks)
        self._step, self._blocks = None, []
        if step is None or self._compacting:
            return
        message = AssistantMessage(blocks=blocks, provider=step.provider, model=step.model, items=event.items)
        self.placed.append(self._place(event, message))
        self._open, self._answered = {call.tool_use_id: None for call in message.tool_calls}, event
        self._unfinished = event.stop_reason in UNFINISHED
        self._not_made = set(self._open) if self._unfinished else set()

    def _settle(self) -> None:
        """Close the calls of the last step before anything else is said. Their place is that of the last result: a log
        that is read from there on has all that was said next.
        """
        if self._open and self._answered is not None:
            self.placed.append(self._place(self._answered, self._results()))
            self._open = {}
        if self._late is not None:
            late, self._late = self._late, None
            self._say(late, late.prompt)

    @staticmethod
    def _place(event: e.Event, message: Message) -> Placed:
        return Placed(seq=event.seq, turn_id=event.turn_id, timestamp_ms=event.timestamp_ms, message=message)


def transcript(log: Iterable[e.Event], *, whole: bool = False) -> Transcript:
    """Fold a whole log, in order."""
    folded = Transcript(whole=whole)
    for event in log:
        folded.add(event)
    return folded


class TurnOutcome(Value):
    """What came of one turn, so far or in the end. `text` is that of its last step, whole."""

    turn_id: str
    kind: Literal["prompt", "compaction"] = "prompt"
    status: TurnStatus = "running"
    stop_reason: str | None = None
    text: str = ""
    structured_output: Any = None
    pending: tuple[ToolCall, ...] = ()
    approvals: tuple[ToolCall, ...] = ()
    warnings: tuple[str, ...] = ()
    steps: int = 0
    tool_calls: int = 0
    usage: Usage = Usage()
    model: str = ""
    provider: str = ""
    last_seq: int = 0
    error: JsonObject | None = None


def outcome(turn_id: str, log: Iterable[e.Event]) -> TurnOutcome:
    """Fold the events of one turn; those of others are passed over.

    While a text is being written its deltas count, so that a reader sees what is there.
    """
    facts: dict[str, Any] = {"turn_id": turn_id}
    usage, steps, tool_calls = Usage(), 0, 0
    texts: list[str] = []
    pieces: list[str] = []
    warnings: list[str] = []
    stop: StopReason | None = None
    aside = False  # a summary made in passing says nothing of the turn
    asked = False
    for event in log:
        if event.turn_id != turn_id:
            continue
        facts["last_seq"] = event.seq
        match event:
            case e.PromptQueued():
                facts["status"] = "queued"
            case e.TurnStarted():
                facts |= {"status": "running", "kind": event.kind}
            case e.TurnResumed():
                facts |= {"status": "running", "pending": (), "approvals": ()}
            case e.StepStarted():
                asked, aside = True, event.purpose == "summary" and facts.get("kind") != "compaction"
                if not aside:
                    texts, pieces = [], []
                    facts |= {"provider": event.provider, "model": event.model}
            case e.Retrying() | e.TurnSuspended() if asked and not aside:
                texts, pieces = [], []
            case e.TextDelta() if not aside:
                pieces.append(event.text)
            case e.TextComplete() if not aside:
                texts.append(event.text)
                pieces = []
            case e.StepCompleted():
                usage, steps, stop = usage + event.usage, steps + 1, stop if aside else event.stop_reason
                asked = False
            case e.ToolExecutionCompleted():
                tool_calls += 1
                facts["pending"] = without(facts.get("pending", ()), event.tool_use_id)
            case e.ApprovalResolved():
                facts["approvals"] = without(facts.get("approvals", ()), event.tool_use_id)
            case e.ToolServerFailed():
                warnings.append(f"tool server {event.server}: {event.message}")
            case e.CompactionFailed():
                warnings.append(f"the history could not be compacted: {event.error.get('message', '')}")
            case _:
                facts |= _ending(event)
    facts.setdefault("stop_reason", stop)
    facts["warnings"] = tuple(dict.fromkeys(warnings))
    return TurnOutcome(text="".join(texts + pieces), usage=usage, steps=steps, tool_calls=tool_calls, **facts)


def _ending(event: e.Event) -> dict[str, Any]:
    match event:
        case e.TurnWaiting():
            return {
                "status": "waiting",
                "pending": event.pending_tool_calls,
                "approvals": event.pending_approvals,
            }
        case e.TurnCompleted():
            return {
                "status": "completed",
                "stop_reason": event.stop_reason,
                "structured_output": event.structured_output,
            }
        case e.TurnInterrupted():
            return {"status": "interrupted", "stop_reason": event.reason, "pending": (), "approvals": ()}
        case e.TurnLimitReached():
            return {"status": "limit", "stop_reason": event.limit}
        case e.TurnFailed():
            return {"status": "failed", "stop_reason": "error", "error": event.error}
        case e.PromptDropped():
            return {"status": "interrupted", "stop_reason": "withdrawn"}
        case _:
            return {}
