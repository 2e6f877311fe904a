"""What happens in a session. The log of these is the truth; the rest is derived.

An event is a fact in the past tense. It is drafted without a place (`seq` 0) and gets its place, time and
id when the journal records it. Two tiers: *recorded* events are durable before anybody is told of them;
*deltas* are pieces of a text in the making, superseded by the event that completes the text. `seq` grows by
one with every event of either tier, so a hole in a log is where deltas were.

To add one: a class here, its place in `Event`, a row in the table of `session.py`; the type checker then
names every `match` that must learn of it, and a test the reference page.
"""

from dataclasses import dataclass
from typing import Annotated, Any, Literal, TypeAlias, TypeVar, get_args

from pydantic import Field, TypeAdapter
from pydantic_core import PydanticSerializationError

from meerkat_mcp.domain.errors import InvalidRequest
from meerkat_mcp.domain.messages import JsonObject, StopReason, ToolCall, Usage, Value, legible
from meerkat_mcp.domain.settings import Settings

E = TypeVar("E", bound="Fact")

InterruptReason = Literal["requested", "cancelled", "superseded", "owner_lost", "shutdown", "abandoned"]
"""Why a turn was interrupted: somebody asked; the caller cancelled its call; a new prompt took its place; its
process died; its process was told to end; its session was archived or deleted while it waited."""


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
    """The envelope that every event carries."""

    event_id: str = ""
    seq: int = 0
    session_id: str = ""
    turn_id: str | None = None
    timestamp_ms: int = 0


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
    """A waiting turn goes on: its tool results came before, `prompt` follows them when the caller sent one."""

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
    """A model call begins; `step` counts from 1 within the turn."""

    type: Literal["step_started"] = "step_started"
    step: int
    provider: str
    model: str


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
    """The model asks for a tool."""

    type: Literal["tool_call_requested"] = "tool_call_requested"
    tool_use_id: str
    tool_name: str
    args: JsonObject


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
    is_error: bool = False
    duration_ms: int | None = None


class StepCompleted(Fact):
    """A model call ended well; `items` are the provider's own output items, verbatim."""

    type: Literal["step_completed"] = "step_completed"
    step: int
    stop_reason: StopReason
    usage: Usage
    items: tuple[JsonObject, ...] = ()
    duration_ms: int = 0


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
    """The turn stands still until the caller brings the results of its tools."""

    type: Literal["turn_waiting"] = "turn_waiting"
    pending_tool_calls: tuple[ToolCall, ...]


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
    """From here on the model sees `summary` in place of everything up to `through_seq`. The log keeps all."""

    type: Literal["history_compacted"] = "history_compacted"
    summary: str
    through_seq: int
    messages_replaced: int


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
    | ToolExecutionStarted
    | ToolExecutionCompleted
    | StepCompleted
    | OutputRejected
    | BudgetWarning
    | InterruptRequested
    | TurnCompleted
    | TurnWaiting
    | TurnInterrupted
    | TurnLimitReached
    | TurnFailed
    | HistoryCompacted
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

_adapter: TypeAdapter[Event] = TypeAdapter(Annotated[Event, Field(discriminator="type")])


@dataclass(slots=True, frozen=True)
class Recorded:
    """An event in its place, with its JSON: written once, then the same bytes in store, stream and wire."""

    seq: int
    type: str
    body: bytes

    @property
    def event(self) -> Event:
        """The event itself, read from its JSON."""
        return _adapter.validate_json(self.body)

    @property
    def is_delta(self) -> bool:
        """Whether a later event supersedes this one."""
        return self.type in DELTAS


def place(draft: E, *, event_id: str, seq: int, session_id: str, turn_id: str | None, timestamp_ms: int) -> E:
    """The drafted event with its place in the log; a draft that names its own turn keeps it."""
    return draft.model_copy(
        update={
            "event_id": event_id,
            "seq": seq,
            "session_id": session_id,
            "turn_id": draft.turn_id or turn_id,
            "timestamp_ms": timestamp_ms,
        }
    )


def encode(event: Event) -> Recorded:
    """The event with its JSON, UTF-8. Fields that are None are left out.

    Raises:
        InvalidRequest: nobody could read it back: nested too deep, or half a character (a lone surrogate).
    """
    try:
        body = event.__pydantic_serializer__.to_json(event, exclude_none=True)
    except PydanticSerializationError:
        body = b""
    if not body or not legible(body):
        raise InvalidRequest(f"The {event.type} cannot be kept: nested too deep, or not Unicode.")
    return Recorded(event.seq, event.type, body)


def schema() -> JsonObject:
    """The JSON Schema of all events, for the reference page."""
    return _adapter.json_schema(mode="serialization")
