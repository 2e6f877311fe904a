"""A plausible event of every type, and a log that grows as the journal lets it grow."""

from collections.abc import Iterable

from meerkat_mcp.domain import events as e
from meerkat_mcp.domain.messages import ToolCall, Usage
from meerkat_mcp.domain.recorded import encode, place
from meerkat_mcp.domain.session import Session, State, advance
from meerkat_mcp.domain.settings import Settings

OWNER = e.Owner(instance_id="laptop", incarnation="laptop-1", host="host", pid=7)
OTHER_OWNER = e.Owner(instance_id="desk", incarnation="desk-1", host="other", pid=8)
CALL = ToolCall(tool_use_id="call_1", tool_name="weather", args={"city": "Oslo", "when": None})
OURS = ToolCall(tool_use_id="call_2", tool_name="files_write", args={"path": "tea.txt"})
"""A call of a tool of an MCP server: somebody has to allow it first."""
USAGE = Usage(input_tokens=10, output_tokens=4, cost_usd=0.5)

SAMPLES: dict[str, e.Event] = {
    "session_created": e.SessionCreated(settings=Settings(model="demo"), title="Tea", labels={"team": "a"}),
    "settings_changed": e.SettingsChanged(title="Coffee"),
    "session_archived": e.SessionArchived(),
    "session_restored": e.SessionRestored(),
    "session_forked": e.SessionForked(fork_id="fork", at_seq=1),
    "turn_started": e.TurnStarted(prompt="Hello", owner=OWNER),
    "turn_resumed": e.TurnResumed(prompt="And now?", owner=OTHER_OWNER),
    "prompt_queued": e.PromptQueued(turn_id="queued", prompt="Later"),
    "prompt_dropped": e.PromptDropped(turn_id="queued"),
    "step_started": e.StepStarted(step=1, provider="demo", model="demo-1"),
    "text_delta": e.TextDelta(text="Hel"),
    "text_complete": e.TextComplete(text="Hello!"),
    "reasoning_delta": e.ReasoningDelta(text="They gr"),
    "reasoning_complete": e.ReasoningComplete(text="They greet me."),
    "tool_call_requested": e.ToolCallRequested(tool_use_id="call_1", tool_name="weather", args=CALL.args),
    "tool_execution_started": e.ToolExecutionStarted(tool_use_id="call_1", tool_name="weather"),
    "tool_execution_completed": e.ToolExecutionCompleted(tool_use_id="call_1", tool_name="weather", content="Rain"),
    "tool_server_failed": e.ToolServerFailed(server="files", message="no such program"),
    "approval_requested": e.ApprovalRequested(tool_use_id="call_2", tool_name="files_write"),
    "approval_resolved": e.ApprovalResolved(tool_use_id="call_2", decision="deny", by="elicitation", reason="Not now."),
    "retrying": e.Retrying(step=1, attempt=2, attempts_max=4, kind="overloaded", message="Busy.", delay_s=0.5),
    "step_completed": e.StepCompleted(step=1, stop_reason="end", usage=USAGE),
    "output_rejected": e.OutputRejected(attempt=1, message="Not JSON. Again, please."),
    "budget_warning": e.BudgetWarning(budget="max_tokens", used=80, limit=100),
    "interrupt_requested": e.InterruptRequested(reason="cancelled"),
    "turn_completed": e.TurnCompleted(stop_reason="end", structured_output={"x": None}),
    "turn_waiting": e.TurnWaiting(pending_tool_calls=(CALL,), pending_approvals=(OURS,)),
    "turn_suspended": e.TurnSuspended(),
    "turn_interrupted": e.TurnInterrupted(reason="requested"),
    "turn_limit_reached": e.TurnLimitReached(limit="max_steps", used=50, maximum=50),
    "turn_failed": e.TurnFailed(error={"code": "provider_rejected", "message": "No."}),
    "compaction_failed": e.CompactionFailed(error={"code": "provider_rejected", "message": "No."}),
    "history_compacted": e.HistoryCompacted(summary="They greeted.", through_seq=2, messages_replaced=2),
}

WAYS: dict[State, tuple[str, ...]] = {
    "new": (),
    "idle": ("session_created",),
    "running": ("session_created", "turn_started"),
    "stopping": ("session_created", "turn_started", "interrupt_requested"),
    "waiting": ("session_created", "turn_started", "turn_waiting"),
    "suspended": ("session_created", "turn_started", "turn_suspended"),
    "archived": ("session_created", "session_archived"),
}
"""The shortest way to each state."""


class Log:
    """A log as the journal writes it: each draft is checked, placed, told to the session, encoded and read back."""

    def __init__(self, *drafts: e.Event) -> None:
        self.session = Session(id="session")
        self.events: list[e.Event] = []
        self.now_ms = 1_000_000
        self.turn_id = "turn_1"
        self.add(*drafts)

    def add(self, *drafts: e.Event, after_ms: int = 0) -> Session:
        """Record drafts, `after_ms` later; those that name no turn belong to the latest one."""
        self.now_ms += after_ms
        for draft in drafts:
            self.session.check(draft)
            if isinstance(draft, e.TurnStarted) and draft.turn_id is not None:
                self.turn_id = draft.turn_id
            seq = self.session.seq + 1
            event = place(
                draft,
                event_id=f"event_{seq}",
                seq=seq,
                session_id=self.session.id,
                turn_id=self.turn_id,
                timestamp_ms=self.now_ms,
            )
            self.session = advance(self.session, event)
            self.events.append(encode(event).event)
        return self.session


def samples(names: Iterable[str]) -> list[e.Event]:
    return [SAMPLES[name] for name in names]


def log_in(state: State) -> Log:
    """A log whose session is in `state`."""
    return Log(*samples(WAYS[state]))
