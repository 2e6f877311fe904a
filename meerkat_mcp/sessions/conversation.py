"""What a turn knows of its conversation: read from the log when it begins or goes on, then kept as it speaks."""

from collections.abc import Sequence

from meerkat_mcp.domain import events as e
from meerkat_mcp.domain.messages import AssistantMessage, Message, Text, ToolCall
from meerkat_mcp.domain.transcript import Placed, Transcript
from meerkat_mcp.providers.base import Reply
from meerkat_mcp.sessions import compaction
from meerkat_mcp.sessions.asking import Answer

CUT_OFF = "The process that ran this tool had to end before it answered; it is not known whether it did its work."


class Conversation:
    """The messages so far, and where the turn of `turn_id` stands in them.

    `context_tokens` is how long it is, as its model has counted up to its last step. `rejections` is how many answers
    of the turn did not fit its schema, `allowed` the calls that somebody said yes to, `asked` those that needed it.
    """

    def __init__(self, turn_id: str) -> None:
        self._turn_id = turn_id
        self._transcript = Transcript()
        self._step: e.StepCompleted | None = None
        self._at_work: dict[str, str] = {}
        self.context_tokens = 0
        self.rejections = 0
        self.allowed: set[str] = set()
        self.asked: set[str] = set()

    @property
    def placed(self) -> Sequence[Placed]:
        """The messages with their places in the log; what was said just now has none yet."""
        return self._transcript.placed

    def messages(self) -> tuple[Message, ...]:
        """What a step that begins now sends to the model."""
        return self._transcript.messages()

    def take(self, event: e.Event) -> None:
        """The conversation goes on."""
        self._transcript.add(event)
        match event:
            case e.StepCompleted(purpose="answer"):
                self._step = event
                self.context_tokens = event.usage.total_tokens
            case e.ToolExecutionStarted():
                self._at_work[event.tool_use_id] = event.tool_name
            case e.ToolExecutionCompleted():
                self._at_work.pop(event.tool_use_id, None)
                self.context_tokens += compaction.tokens_of(len(event.content))
            case e.TurnStarted(kind="prompt") | e.TurnResumed():
                self.context_tokens += compaction.tokens_of(len(event.prompt))
            case e.HistoryCompacted():
                self.context_tokens = 0
            case e.OutputRejected() if event.turn_id == self._turn_id:
                self.rejections = event.attempt
            case e.ApprovalRequested():
                self.asked.add(event.tool_use_id)
            case e.ApprovalResolved(decision="approve"):
                self.allowed.add(event.tool_use_id)
            case _:
                pass

    def standing(self) -> Answer | None:
        """The answer of a step that is completed, while the turn has not gone on from there; with the calls that are
        still to be made. A turn that was resumed begins with it instead of asking again.
        """
        last = self.placed[-1] if self.placed else None
        if last is None or last.turn_id != self._turn_id or self._step is None:
            return None
        if not isinstance(last.message, AssistantMessage):
            return None
        text = "".join(block.text for block in last.message.blocks if isinstance(block, Text))
        reply = Reply(stop_reason=self._step.stop_reason, usage=self._step.usage)
        return Answer(reply=reply, text=text, calls=list[ToolCall](self._transcript.unanswered()))

    def cut_off(self) -> list[e.ToolExecutionCompleted]:
        """What becomes of the calls that are at work when their process has to end: nobody will make them again."""
        return [
            e.ToolExecutionCompleted(tool_use_id=tool_use_id, tool_name=name, content=CUT_OFF, is_error=True)
            for tool_use_id, name in self._at_work.items()
        ]
