"""What is said of events: while a turn runs, and in a log."""

import json

import pytest

from meerkat_mcp.cli import telling
from meerkat_mcp.domain import events as e
from meerkat_mcp.domain.messages import Image, ToolCall, Usage

from .conftest import Commands

CALL = ToolCall(tool_use_id="c1", tool_name="paper__write", args={})


def test_an_attempt_that_failed_is_told_and_what_it_wrote_is_void(meerkat: Commands) -> None:
    meerkat("config", "set", "--json", '{"retry": {"attempts": 2, "base_delay_s": 0}}')
    broken = meerkat("run", "-s", "[[say Half a]][[truncate]]")
    assert broken.returncode == 8
    assert "step 1: attempt 2 of 2 in 0 ms (truncated: The model's stream broke off before its end.); " in broken.stderr
    assert broken.stderr.count("what was written of this answer is void") == 1
    silent = meerkat("run", "-s", "[[fail unavailable]]")
    assert (silent.returncode, "is void" in silent.stderr) == (8, False)
    log = meerkat("session", "show", "last", "--events").stdout
    assert "retrying                  step 1: attempt 2 of 2 in 0 ms (" in log
    once = json.loads(meerkat("--json", "run", "[[fail unavailable]]").stdout)["error"]
    assert once["code"] == "provider_unavailable"


@pytest.mark.parametrize(
    ("event", "said"),
    [
        (
            e.StepStarted(step=2, provider="openai", model="gpt-6.1-sol", purpose="summary"),
            "step 2, openai gpt-6.1-sol, a summary",
        ),
        (
            e.StepCompleted(
                step=2,
                purpose="summary",
                stop_reason="end",
                usage=Usage(output_tokens=9, cost_usd=0.01234),
                duration_ms=2150,
            ),
            "step 2, a summary, end, 9 tokens out, $0.0123, 2.1 s",
        ),
        (
            e.StepCompleted(step=1, stop_reason="refusal", usage=Usage(cost_usd=0.00001), detail="cyber"),
            "step 1, refusal, 0 tokens out, less than $0.0001: cyber",
        ),
        (
            e.ToolCallRequested(tool_use_id="c1", tool_name="t", args={}, malformed="{oops"),
            "c1 t no JSON: {oops",
        ),
        (
            e.ToolExecutionCompleted(
                tool_use_id="c1",
                tool_name="t",
                content="",
                images=(Image(mime_type="image/png", data=""), Image(mime_type="image/gif", data="")),
                duration_ms=340,
            ),
            "c1 t (340 ms) [image/png] [image/gif]",
        ),
        (
            e.ApprovalResolved(tool_use_id="c1", decision="approve", by="elicitation"),
            "c1 approved by the host's user",
        ),
        (
            e.ApprovalResolved(tool_use_id="c1", decision="deny", by="caller", reason="no need"),
            "c1 denied by the calling model: no need",
        ),
        (
            e.TurnWaiting(pending_tool_calls=(CALL,), pending_approvals=(CALL, CALL)),
            "c1 paper__write; a yes to c1 paper__write, c1 paper__write",
        ),
        (e.ToolServerFailed(server="paper", message="it ended"), "tool server paper: it ended"),
        (
            e.HistoryCompacted(summary="…", through_seq=40, messages_replaced=12),
            "a summary stands for 12 messages, up to event 40",
        ),
        (
            e.CompactionFailed(error={"code": "x", "message": "No."}),
            "the history could not be summarised, and stays: No.",
        ),
    ],
    ids=lambda value: getattr(value, "type", ""),
)
def test_an_event_is_told_on_one_line(event: e.Event, said: str) -> None:
    assert telling.line(event) == said


def test_a_summary_in_passing_is_told_as_it_happens(capsys: pytest.CaptureFixture[str]) -> None:
    teller = telling.Teller()
    for event in (
        e.StepStarted(step=2, provider="p", model="small", purpose="summary"),
        e.StepCompleted(step=2, purpose="summary", stop_reason="end", usage=Usage()),
        e.HistoryCompacted(summary="…", through_seq=4, messages_replaced=3),
        e.CompactionFailed(error={"message": "No."}),
        e.TextDelta(text="On"),
        e.TextComplete(text="Onward"),
    ):
        teller.tell(event)
    said = capsys.readouterr()
    assert said.out == "Onward\n"
    assert said.err.splitlines() == [
        "the history is summarised by small",
        "a summary stands for 3 messages, up to event 4",
        "the history could not be summarised, and stays: No.",
    ]
