"""Events on a screen: a turn's text as it is written, and a log line by line."""

from meerkat_mcp.cli import display
from meerkat_mcp.domain import events as e

ARGS_CHARS = 120
LINE_CHARS = 160


class Teller:
    """Writes a turn as it happens: its text to stdout, all else to stderr, each piece once."""

    def __init__(self) -> None:
        self._block = ""
        self._kind = ""
        self._told = False

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
            case e.ToolCallRequested():
                self._aside(f"→ {event.tool_name} {display.clipped(display.as_json(event.args), ARGS_CHARS)}")
            case e.ToolExecutionCompleted():
                failed = " failed:" if event.is_error else ""
                self._aside(f"← {event.tool_name}{failed} {display.clipped(event.content, ARGS_CHARS)}")
            case e.OutputRejected() | e.BudgetWarning():
                self._aside(line(event))
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


def _said(event: e.Event) -> str:
    match event:
        case e.TurnStarted() | e.PromptQueued():
            return event.prompt
        case e.TextDelta() | e.TextComplete() | e.ReasoningDelta() | e.ReasoningComplete():
            return event.text
        case e.ToolCallRequested():
            return f"{event.tool_use_id} {event.tool_name} {display.as_json(event.args)}"
        case e.ToolExecutionStarted():
            return f"{event.tool_use_id} {event.tool_name}"
        case e.ToolExecutionCompleted():
            return f"{event.tool_use_id} {'failed: ' if event.is_error else ''}{event.content}"
        case e.StepStarted():
            return f"step {event.step}, {event.provider} {event.model}"
        case e.StepCompleted():
            return f"step {event.step}, {event.stop_reason}, {event.usage.output_tokens} tokens out"
        case e.OutputRejected():
            return f"attempt {event.attempt}: {event.message}"
        case e.BudgetWarning():
            return f"budget {event.budget}: {event.used:g} of {event.limit:g} used"
        case e.TurnWaiting():
            return ", ".join(f"{call.tool_use_id} {call.tool_name}" for call in event.pending_tool_calls)
        case e.TurnLimitReached():
            return f"{event.limit}: {event.used:g} of {event.maximum:g}"
        case e.TurnFailed():
            return f"{event.error.get('code')}: {event.error.get('message')}"
        case e.TurnInterrupted() | e.InterruptRequested():
            return event.reason
        case e.TurnCompleted():
            return event.stop_reason
        case e.HistoryCompacted():
            return f"{event.messages_replaced} messages up to event {event.through_seq}"
        case e.SessionForked():
            return f"{event.fork_id} at event {event.at_seq}"
        case e.SessionCreated():
            return event.title
        case _:
            return ""
