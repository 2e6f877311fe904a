"""What happens in a session. The log of these is the truth; the rest is derived.

An event is a fact in the past tense. It is drafted without a place (`seq` 0) and gets its place, time and
id when the journal records it. Two tiers: *recorded* events are durable before anybody is told of them;
*deltas* are pieces of a text in the making, superseded by the event that completes the text. `seq` grows by
one with every event of either tier, so a hole in a log is where deltas were.

To add one: a class here, its place in `Event`, a row in the table of `session.py`; the type checker then
names every `match` that must learn of it, and a test the reference page.
"""

from typing import Any, Literal, TypeAlias, get_args

from pydantic import Field

from meerkat_mcp.domain.messages import Image, JsonObject, StopReason, ToolCall, Usage, Value
from meerkat_mcp.domain.settings import Settings

InterruptReason = Literal["requested", "cancelled", "superseded", "owner_lost", "shutdown", "abandoned"]
"""Why a turn was interrupted: somebody asked; the caller cancelled its call; a new prompt took its place; its
process died; its process was told to end; its session was archived or deleted while it waited."""


Purpose = Literal["answer", "summary"]
Verdict = Literal["approve", "deny"]
ApprovedBy = Literal["elicitation", "caller", "operator"]
"""Who decided on a call: the person in front of the host, the calling model, or a person on the command line."""


class Owner(Value):
    """The process a turn runs in: which instance, and which life of it."""

    instance_id: str
    incarnation: str
    host: str
    pid: int


class Fork(Value):
    """Where a session came from."""

    session_id: str
    at_seq: int


class Fact(Value):
    """The envelope that every event carries. `principal` is who asked for it, where callers are known by name."""

    event_id: str = ""
    seq: int = 0
    session_id: str = ""
    turn_id: str | None = None
    timestamp_ms: int = 0
    principal: str | None = None


class SessionCreated(Fact):
    """The first event of every log."""

    type: Literal["session_created"] = "session_created"
    settings: Settings
    title: str = ""
    labels: dict[str, str] = Field(default_factory=dict)
    forked_from: Fork | None = None


class TurnStarted(Fact):
    """A prompt was taken up. A `compaction` turn asks for a summary of the history instead."""

    type: Literal["turn_started"] = "turn_started"
    kind: Literal["prompt", "compaction"] = "prompt"
    prompt: str
    owner: Owner


class TurnResumed(Fact):
    """A waiting or suspended turn goes on, in the process that `owner` names. What a waiting one waited for came
    before; `prompt` follows that when the caller sent one.
    """

    type: Literal["turn_resumed"] = "turn_resumed"
    prompt: str = ""
    owner: Owner


class PromptQueued(Fact):
    """A prompt to run when the running turn has ended; its `turn_id` is the one it will run under.

    `first` puts it before those that are queued already: it interrupted the turn to take its place.
    """

    type: Literal["prompt_queued"] = "prompt_queued"
    prompt: str
    first: bool = False


class PromptDropped(Fact):
    """A queued prompt was withdrawn before it ran."""

    type: Literal["prompt_dropped"] = "prompt_dropped"


class StepStarted(Fact):
    """A model call begins; `step` counts from 1 within the turn. A `summary` is for a compaction, not the answer."""

    type: Literal["step_started"] = "step_started"
    step: int
    provider: str
    model: str
    purpose: Purpose = "answer"


class TextDelta(Fact):
    """A piece of the text being written. Gone from the log once the text is complete."""

    type: Literal["text_delta"] = "text_delta"
    text: str


class TextComplete(Fact):
    """One whole block of text of this step."""

    type: Literal["text_complete"] = "text_complete"
    text: str


class ReasoningDelta(Fact):
    """A piece of the reasoning being written. Gone from the log once the reasoning is complete."""

    type: Literal["reasoning_delta"] = "reasoning_delta"
    text: str


class ReasoningComplete(Fact):
    """One whole block of the reasoning that the provider shows."""

    type: Literal["reasoning_complete"] = "reasoning_complete"
    text: str


class ToolCallRequested(Fact):
    """The model asks for a tool. `malformed` is what it wrote where that was no JSON object; `args` is empty then."""

    type: Literal["tool_call_requested"] = "tool_call_requested"
    tool_use_id: str
    tool_name: str
    args: JsonObject
    malformed: str | None = None


class ApprovalRequested(Fact):
    """A call of a tool of ours that somebody has to allow first."""

    type: Literal["approval_requested"] = "approval_requested"
    tool_use_id: str
    tool_name: str


class ApprovalResolved(Fact):
    """Somebody decided on a call. A denied one is answered with an error, and the turn goes on."""

    type: Literal["approval_resolved"] = "approval_resolved"
    tool_use_id: str
    decision: Verdict
    by: ApprovedBy
    reason: str = ""


class ToolExecutionStarted(Fact):
    """A tool of ours begins to work. A caller's tool has no such event: its work is out of sight."""

    type: Literal["tool_execution_started"] = "tool_execution_started"
    tool_use_id: str
    tool_name: str


class ToolExecutionCompleted(Fact):
    """A tool answered: one of ours, or a caller's through `tool_results`."""

    type: Literal["tool_execution_completed"] = "tool_execution_completed"
    tool_use_id: str
    tool_name: str
    content: str
    images: tuple[Image, ...] = ()
    is_error: bool = False
    duration_ms: int | None = None


class ToolServerFailed(Fact):
    """A server that should bring tools cannot be reached: this step goes on without them."""

    type: Literal["tool_server_failed"] = "tool_server_failed"
    server: str
    message: str


class Retrying(Fact):
    """A model call failed and is made again after `delay_s`. What this step said so far is void."""

    type: Literal["retrying"] = "retrying"
    step: int
    attempt: int
    attempts_max: int
    kind: str
    message: str
    delay_s: float


class StepCompleted(Fact):
    """A model call ended well; `items` are the provider's own output items, verbatim.

    `answered_by` is the model that the provider says answered, `response_id` the provider's name for the reply.
    """

    type: Literal["step_completed"] = "step_completed"
    step: int
    purpose: Purpose = "answer"
    stop_reason: StopReason
    usage: Usage
    items: tuple[JsonObject, ...] = ()
    duration_ms: int = 0
    answered_by: str = ""
    response_id: str = ""
    detail: str = ""


class OutputRejected(Fact):
    """The answer did not fit `output_schema`; the model is asked again with `message`."""

    type: Literal["output_rejected"] = "output_rejected"
    attempt: int
    message: str


class BudgetWarning(Fact):
    """Four fifths of a budget are used; said once for each budget of a session."""

    type: Literal["budget_warning"] = "budget_warning"
    budget: str
    used: float
    limit: float


class InterruptRequested(Fact):
    """Somebody, in any process, wants the running turn to end."""

    type: Literal["interrupt_requested"] = "interrupt_requested"
    reason: InterruptReason = "requested"


class TurnCompleted(Fact):
    """The turn ended as it should."""

    type: Literal["turn_completed"] = "turn_completed"
    stop_reason: StopReason = "end"
    structured_output: Any = None


class TurnWaiting(Fact):
    """The turn stands still until the caller brings the results of its own tools, and the approvals are decided on."""

    type: Literal["turn_waiting"] = "turn_waiting"
    pending_tool_calls: tuple[ToolCall, ...] = ()
    pending_approvals: tuple[ToolCall, ...] = ()


class TurnSuspended(Fact):
    """The process of the turn had to end: another one of the realm takes the turn up where it is. What a step that is
    not completed said so far is void.
    """

    type: Literal["turn_suspended"] = "turn_suspended"


class TurnInterrupted(Fact):
    """The turn was ended from outside. What it had finished stays in the history."""

    type: Literal["turn_interrupted"] = "turn_interrupted"
    reason: InterruptReason


class TurnLimitReached(Fact):
    """The turn ran into `max_steps`, `max_tokens` of a reply, or a budget."""

    type: Literal["turn_limit_reached"] = "turn_limit_reached"
    limit: str
    used: float
    maximum: float


class TurnFailed(Fact):
    """The turn ended with an error, as `MeerkatError.as_dict` shows it."""

    type: Literal["turn_failed"] = "turn_failed"
    error: JsonObject


class HistoryCompacted(Fact):
    """From here on the model sees `summary` in place of everything up to `through_seq`, then what came after that.
    The log keeps all.
    """

    type: Literal["history_compacted"] = "history_compacted"
    summary: str
    through_seq: int
    messages_replaced: int


class CompactionFailed(Fact):
    """The history grew long and could not be summarised: the turn goes on with all of it."""

    type: Literal["compaction_failed"] = "compaction_failed"
    error: JsonObject


class SettingsChanged(Fact):
    """The session's settings, title or labels are now these; None leaves as it was."""

    type: Literal["settings_changed"] = "settings_changed"
    settings: Settings | None = None
    title: str | None = None
    labels: dict[str, str] | None = None


class SessionArchived(Fact):
    """Put away: readable, not continued."""

    type: Literal["session_archived"] = "session_archived"


class SessionRestored(Fact):
    """Brought back from the archive."""

    type: Literal["session_restored"] = "session_restored"


class SessionForked(Fact):
    """A new session was made from this one's events up to `at_seq`."""

    type: Literal["session_forked"] = "session_forked"
    fork_id: str
    at_seq: int


TurnEnd: TypeAlias = TurnCompleted | TurnInterrupted | TurnLimitReached | TurnFailed
Delta: TypeAlias = TextDelta | ReasoningDelta
Event: TypeAlias = (
    SessionCreated
    | TurnStarted
    | TurnResumed
    | PromptQueued
    | PromptDropped
    | StepStarted
    | TextDelta
    | TextComplete
    | ReasoningDelta
    | ReasoningComplete
    | ToolCallRequested
    | ApprovalRequested
    | ApprovalResolved
    | ToolExecutionStarted
    | ToolExecutionCompleted
    | ToolServerFailed
    | Retrying
    | StepCompleted
    | OutputRejected
    | BudgetWarning
    | InterruptRequested
    | TurnCompleted
    | TurnWaiting
    | TurnSuspended
    | TurnInterrupted
    | TurnLimitReached
    | TurnFailed
    | HistoryCompacted
    | CompactionFailed
    | SettingsChanged
    | SessionArchived
    | SessionRestored
    | SessionForked
)

DELTAS: frozenset[str] = frozenset({"text_delta", "reasoning_delta"})
TURN_ENDS: frozenset[str] = frozenset({"turn_completed", "turn_interrupted", "turn_limit_reached", "turn_failed"})
TURN_PAUSES: frozenset[str] = TURN_ENDS | {"turn_waiting"}
"""After one of these the turn does nothing until somebody acts: a reader that follows one turn is `done`."""

EVENT_TYPES: frozenset[str] = frozenset(kind.model_fields["type"].default for kind in get_args(Event))
