"""The latest turn of a session, and the prompts that wait behind it."""

from typing import Literal

from meerkat_mcp.domain import events as e
from meerkat_mcp.domain.messages import StopReason, ToolCall, Usage, Value

TurnStatus = Literal["queued", "running", "waiting", "completed", "interrupted", "limit", "failed"]
"""A suspended turn counts as running: nobody has to do anything for it to go on."""


class Turn(Value):
    """The running, waiting or latest turn: enough to show and to go on; its texts are in the log.

    Of its `steps`, `summaries` wrote a summary. While it waits, `pending` are the calls that the caller has to answer,
    `approvals` those to be decided on.
    """

    turn_id: str
    kind: Literal["prompt", "compaction"] = "prompt"
    status: TurnStatus = "running"
    owner: e.Owner
    principal: str | None = None
    started_ms: int
    resumed_ms: int
    ended_ms: int | None = None
    first_seq: int
    resumed_seq: int
    last_seq: int
    steps: int = 0
    summaries: int = 0
    tool_calls: int = 0
    usage: Usage = Usage()
    pending: tuple[ToolCall, ...] = ()
    approvals: tuple[ToolCall, ...] = ()
    stop_reason: StopReason | None = None
    interrupt: e.InterruptReason | None = None


class Queued(Value):
    """A prompt that waits for the running turn to end; its text is at `seq` in the log."""

    turn_id: str
    seq: int
