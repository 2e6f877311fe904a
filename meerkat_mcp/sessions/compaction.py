"""When a history is shortened, where it is cut, and what the summariser reads.

The latest steps stay as they are, so that work in the middle of something goes on. The cut never comes between a call
and its result. What is before it is given to the summariser as plain text, in one message: no wire has rules for that.
"""

import json
from collections.abc import Sequence

from meerkat_mcp.domain.config import CompactionConfig
from meerkat_mcp.domain.messages import AssistantMessage, Message, ToolMessage, UserMessage
from meerkat_mcp.domain.session import Session
from meerkat_mcp.domain.transcript import Placed, Transcript
from meerkat_mcp.sessions.journal import Journal

CHARS_A_TOKEN = 4
RESULT_CHARS_MAX = 4_000
"""Of one tool result, for the summariser: it has to say what came of it, not to repeat it."""
SUMMARY_HEADING = "Summary of the conversation so far:"

SUMMARY_PROMPT = (
    "Summarise the conversation so far for yourself: you will go on with this summary instead of the messages. "
    "Keep what was asked, decided and found out, names, numbers and open points. Write nothing else."
)


def cut(placed: Sequence[Placed], keep_steps: int, *, least: int = 1) -> int:
    """How many of the messages a summary can stand for; 0 when there is nothing to gain.

    The last `keep_steps` model calls stay, with what was said between them and just before the first of them; fewer,
    but not less than `least`, where there are not so many or where they are most of the history.
    """
    steps = [index for index, one in enumerate(placed) if isinstance(one.message, AssistantMessage)]
    sizes = [sum(map(len, _lines(one.message))) for one in placed]
    for keep in range(min(keep_steps, len(steps)), least - 1, -1):
        at = steps[-keep] if keep else len(placed)
        while keep and at > 0 and isinstance(placed[at - 1].message, UserMessage):
            at -= 1
        if at > 1 and (sum(sizes[:at]) * 2 >= sum(sizes) or keep == least):
            return at
    return 0


async def replaceable(journal: Journal, session: Session, wanted: CompactionConfig) -> Sequence[Placed]:
    """The messages that a summary would stand for, if it was asked for now."""
    folded = Transcript()
    async for recorded in journal.log(session.id, after=session.compacted_seq, through=session.seq):
        folded.add(recorded.event)
    return folded.placed[: cut(folded.placed, wanted.keep_steps, least=0)]


def rendered(placed: Sequence[Placed]) -> str:
    """The messages as text."""
    return "\n\n".join(part for one in placed for part in _lines(one.message))


def request_text(placed: Sequence[Placed]) -> str:
    """What the summariser is asked."""
    return f"{SUMMARY_PROMPT}\n\n<conversation>\n{rendered(placed)}\n</conversation>"


def tokens_of(text_chars: int) -> int:
    """About how many tokens a text has, until its model has counted them."""
    return text_chars // CHARS_A_TOKEN


def _lines(message: Message) -> list[str]:
    match message:
        case UserMessage():
            return [f"## user\n{message.text}"]
        case AssistantMessage():
            said = [f"## assistant\n{message.text}"] if message.text else []
            calls = [
                f"## assistant calls {call.tool_name} ({call.tool_use_id})\n{json.dumps(call.args, ensure_ascii=False)}"
                for call in message.tool_calls
            ]
            return said + calls
        case ToolMessage():
            return [
                f"## result of {result.tool_use_id}{' (failed)' if result.is_error else ''}\n"
                + (
                    result.content
                    if len(result.content) <= RESULT_CHARS_MAX
                    else f"{result.content[:RESULT_CHARS_MAX]} …"
                )
                + "".join(f"\n[{image.mime_type}]" for image in result.images)
                for result in message.results
            ]
