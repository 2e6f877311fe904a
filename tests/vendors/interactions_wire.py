"""Gemini Interactions: POST /v1/interactions."""

import base64
import itertools
from collections.abc import Iterator, Sequence
from typing import Any

from vendors.script import Call, JsonObject, Text, Thinking, Turn, new, parsed, read, sse

STATUSES = {
    "end": "completed",
    "tool": "requires_action",
    "length": "incomplete",
    "refusal": "failed",
    "context": "failed",
    "pause": "requires_continuation",
}
ERRORS = {
    400: "INVALID_ARGUMENT",
    401: "UNAUTHENTICATED",
    403: "PERMISSION_DENIED",
    404: "NOT_FOUND",
    429: "RESOURCE_EXHAUSTED",
    500: "INTERNAL",
    503: "UNAVAILABLE",
    504: "DEADLINE_EXCEEDED",
}


class InteractionsWire:
    """An interaction of steps."""

    name = "interactions"

    def frames(self, turn: Turn, request: JsonObject) -> Iterator[bytes]:
        numbers = itertools.count(1)
        interaction = {"id": new("v1_"), "object": "interaction", "model": turn.model or request.get("model")}

        def event(kind: str, **fields: Any) -> bytes:
            return sse({"event_type": kind, "event_id": f"ev{next(numbers)}", **fields}, kind)

        yield event("interaction.created", interaction={**interaction, "status": "in_progress"})
        yield event("interaction.status_update", interaction_id=interaction["id"], status="in_progress")
        for index, part in enumerate(turn.parts):
            step, deltas = _step(index, part, turn)
            yield event("step.start", index=index, step=step)
            for delta in deltas:
                yield event("step.delta", index=index, delta=delta)
            yield event("step.stop", index=index)
        done = {**interaction, "status": STATUSES[turn.stopped], "usage": _usage(turn)}
        yield event("interaction.completed", interaction=done)
        yield sse("[DONE]", "done")

    def whole(self, frames: Sequence[bytes]) -> JsonObject:
        steps: list[JsonObject] = []
        written: dict[int, str] = {}
        interaction: JsonObject = {}
        for event in map(read, frames):
            match event:
                case {"event_type": "step.start"}:
                    steps.append(event["step"])
                case {"event_type": "step.delta", "index": index, "delta": {"type": "arguments_delta"} as delta}:
                    written[index] = written.get(index, "") + delta["arguments"]
                    steps[index]["arguments"] = parsed(written[index])
                case {"event_type": "step.delta", "index": index, "delta": delta}:
                    _grow(steps[index], delta)
                case {"event_type": "interaction.completed"}:
                    interaction = event["interaction"]
        return {**interaction, "steps": steps}

    def error(self, status: int, code: str | None = None, message: str | None = None) -> JsonObject:
        word = code or ERRORS.get(status, "UNKNOWN")
        error: JsonObject = {"code": status, "message": message or f"fake {word}", "status": word}
        if status == 429:
            retry = {"@type": "type.googleapis.com/google.rpc.RetryInfo", "retryDelay": "2s"}
            error["details"] = [retry]
        return {"error": error}

    def broken(self, code: str | None, frame: int) -> bytes:
        error = {"code": code or "UNAVAILABLE", "message": "fake"}
        return sse({"event_type": "error", "error": error}, "error")


def _step(index: int, part: Any, turn: Turn) -> tuple[JsonObject, list[JsonObject]]:
    """A step as it starts, and its deltas. The first piece of text rides in the start (facts §1.4)."""
    match part:
        case Thinking():
            first, *rest = turn.cut(part.text)
            start: JsonObject = {"type": "thought", "signature": ""}
            if first:
                start["summary"] = [{"type": "text", "text": first}]
            deltas = [{"type": "thought_summary", "content": {"type": "text", "text": piece}} for piece in rest]
            signature = _base64(part.signature)
            return start, [*deltas, {"type": "thought_signature", "signature": signature}]
        case Text():
            first, *rest = turn.cut(part.text)
            start = {"type": "model_output", "content": [{"type": "text", "text": first}]}
            return start, [{"type": "text", "text": piece} for piece in rest]
        case Call():
            start = {
                "type": "function_call",
                "id": part.id or new("fc"),
                "name": part.name,
                "arguments": {},
                "signature": _base64(f"fc-sig-{index}"),
            }
            return start, [{"type": "arguments_delta", "arguments": piece} for piece in turn.cut(part.written)]
    raise TypeError(part)


def _grow(step: JsonObject, delta: JsonObject) -> None:
    match delta:
        case {"type": "text", "text": text}:
            step["content"][-1]["text"] += text
        case {"type": "thought_summary", "content": {"text": text}}:
            step["summary"][-1]["text"] += text
        case {"type": "thought_signature", "signature": signature}:
            step["signature"] = signature


def _base64(text: str) -> str:
    return base64.b64encode(text.encode()).decode()


def _usage(turn: Turn) -> JsonObject:
    usage = turn.usage
    return {
        "total_input_tokens": usage.input,
        "total_output_tokens": usage.output - usage.reasoning,
        "total_thought_tokens": usage.reasoning,
        "total_cached_tokens": usage.cached,
        "total_tool_use_tokens": 0,
        "total_tokens": usage.input + usage.output,
    }
