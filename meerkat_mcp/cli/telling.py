"""Events on a screen: a turn's text as it is written, and a log line by line."""

from collections.abc import Sequence

from meerkat_mcp.cli import display
from meerkat_mcp.cli.views import dollars
from meerkat_mcp.domain import events as e
from meerkat_mcp.domain.messages import Image, ToolCall, Usage

ARGS_CHARS = 120
LINE_CHARS = 160


class Teller:
    """Writes a turn as it happens: its text to stdout, all else to stderr, each piece once."""

    def __init__(self) -> None:
        self._block = ""
        self._kind = ""
        self._has_written = False
        self._tools: dict[str, str] = {}

    def tell(self, event: e.Event) -> None:
        """The next event of the turn."""
        match event:
            case e.TextDelta() | e.ReasoningDelta():
                self._piece(event.text, "text" if isinstance(event, e.TextDelta) else "reasoning")
            case e.TextComplete() | e.ReasoningComplete():
                kind = "text" if isinstance(event, e.TextComplete) else "reasoning"
                if kind != self._kind or not event.text.startswith(self._block):
                    self.end_line()
                self._piece(event.text[len(self._block) :], kind)
                self.end_line()
            case e.StepStarted():
                self._has_written = False
                if event.purpose == "summary":
                    self._aside(f"the history is summarised by {event.model}")
            case e.Retrying():
                void = "; what was written of this answer is void" if self._has_written else ""
                self._aside(f"{line(event)}{void}")
                self._has_written = False
            case e.ToolCallRequested():
                self._has_written = True
                self._tools[event.tool_use_id] = event.tool_name
                self._aside(f"→ {event.tool_name} {display.clipped(_args(event), ARGS_CHARS)}")
            case e.ToolExecutionStarted():
                self._aside(f"· {event.tool_name} works")
            case e.ToolExecutionCompleted():
                self._aside(f"← {event.tool_name}{_answered(event)}")
            case e.ApprovalRequested():
                self._aside(f"? {event.tool_name} ({event.tool_use_id}) needs a yes")
            case e.ApprovalResolved():
                self._aside(f"{self._tools.get(event.tool_use_id, event.tool_use_id)}: {_verdict(event)}")
            case e.OutputRejected() | e.BudgetWarning():
                self._aside(line(event))
            case e.ToolServerFailed() | e.CompactionFailed() | e.HistoryCompacted():
                self._aside(_said(event))
            case _:
                pass

    def end_line(self) -> None:
        """What comes next begins a line of its own."""
        if self._block and not self._block.endswith("\n"):
            (display.say if self._kind == "text" else display.note)()
        self._block = self._kind = ""

    def _piece(self, text: str, kind: str) -> None:
        if kind != self._kind:
            self.end_line()
            self._kind = kind
        self._block += text
        self._has_written = self._has_written or bool(text)
        (display.say if kind == "text" else display.note)(text, end="")

    def _aside(self, text: str) -> None:
        self.end_line()
        display.note(text)


def line(event: e.Event) -> str:
    """What an event says beyond its type, on one line."""
    return display.clipped(_said(event), LINE_CHARS)


def log_line(event: e.Event) -> str:
    """An event in a log: its number, time, type, and what it says."""
    return f"{event.seq:>6}  {display.moment(event.timestamp_ms)}  {event.type:<24}  {line(event)}".rstrip()


def result_text(content: str, images: Sequence[Image]) -> str:
    """What a tool answered, as a screen can show it."""
    return " ".join([*([content] if content else []), *(f"[{image.mime_type}]" for image in images)])


def _said(event: e.Event) -> str:
    match event:
        case e.TurnStarted() | e.PromptQueued() | e.TurnResumed():
            return event.prompt
        case e.TextDelta() | e.TextComplete() | e.ReasoningDelta() | e.ReasoningComplete():
            return event.text
        case e.OutputRejected():
            return f"attempt {event.attempt}: {event.message}"
        case e.BudgetWarning():
            return f"budget {event.budget}: {event.used:g} of {event.limit:g} used"
        case e.TurnWaiting():
            return _waits(event)
        case e.TurnLimitReached():
            return f"{event.limit}: {event.used:g} of {event.maximum:g}"
        case e.TurnFailed():
            return f"{event.error.get('code')}: {event.error.get('message')}"
        case e.TurnInterrupted() | e.InterruptRequested():
            return event.reason
        case e.TurnCompleted():
            return event.stop_reason
        case e.HistoryCompacted():
            return f"a summary stands for {event.messages_replaced} messages, up to event {event.through_seq}"
        case e.CompactionFailed():
            return f"the history could not be summarised, and stays: {event.error.get('message')}"
        case e.SessionForked():
            return f"{event.fork_id} at event {event.at_seq}"
        case e.SessionCreated():
            return event.title
        case _:
            return _said_of_a_step(event)


def _said_of_a_step(event: e.Event) -> str:
    match event:
        case e.StepStarted():
            return f"step {event.step}, {event.provider} {event.model}{_summary(event)}"
        case e.Retrying():
            return (
                f"step {event.step}: attempt {event.attempt} of {event.attempts_max} in "
                f"{display.took(event.delay_s * 1000)} ({event.kind}: {event.message})"
            )
        case e.StepCompleted():
            took = f", {display.took(event.duration_ms)}" if event.duration_ms else ""
            detail = f": {event.detail}" if event.detail else ""
            return f"step {event.step}{_summary(event)}, {event.stop_reason}, {_usage(event.usage)}{took}{detail}"
        case e.ToolCallRequested():
            return f"{event.tool_use_id} {event.tool_name} {_args(event)}"
        case e.ApprovalRequested() | e.ToolExecutionStarted():
            return f"{event.tool_use_id} {event.tool_name}"
        case e.ApprovalResolved():
            return f"{event.tool_use_id} {_verdict(event)}"
        case e.ToolExecutionCompleted():
            return f"{event.tool_use_id} {event.tool_name}{_answered(event)}"
        case e.ToolServerFailed():
            return f"tool server {event.server}: {event.message}"
        case _:
            return ""


def _summary(event: e.StepStarted | e.StepCompleted) -> str:
    return ", a summary" if event.purpose == "summary" else ""


def _usage(usage: Usage) -> str:
    cost = f", {dollars(usage.cost_usd)}" if usage.cost_usd else ""
    return f"{usage.output_tokens} tokens out{cost}"


def _args(event: e.ToolCallRequested) -> str:
    return display.as_json(event.args) if event.malformed is None else f"no JSON: {event.malformed}"


def _answered(event: e.ToolExecutionCompleted) -> str:
    took = f" ({display.took(event.duration_ms)})" if event.duration_ms is not None else ""
    content = display.clipped(event.content, ARGS_CHARS)
    return f"{took}{' failed:' if event.is_error else ''} {result_text(content, event.images)}".rstrip()


def _verdict(event: e.ApprovalResolved) -> str:
    said = "approved" if event.decision == "approve" else "denied"
    return f"{said} by {_WHO[event.by]}{f': {event.reason}' if event.reason else ''}"


def _waits(event: e.TurnWaiting) -> str:
    def names(calls: Sequence[ToolCall]) -> str:
        return ", ".join(f"{call.tool_use_id} {call.tool_name}" for call in calls)

    wanted = [names(event.pending_tool_calls)] if event.pending_tool_calls else []
    return "; ".join([*wanted, *([f"a yes to {names(event.pending_approvals)}"] if event.pending_approvals else [])])


_WHO: dict[e.ApprovedBy, str] = {
    "elicitation": "the host's user",
    "caller": "the calling model",
    "operator": "the operator",
}
