"""OpenAI chat.completions, as OpenAI, Ollama, vLLM and llama.cpp speak it: POST /v1/chat/completions."""

import time
from collections.abc import Iterator, Sequence
from typing import Any

from vendors.responses_wire import openai_error
from vendors.script import Call, JsonObject, Text, Thinking, Turn, new, read, sse

FINISHES = {
    "end": "stop",
    "tool": "tool_calls",
    "length": "length",
    "refusal": "stop",
    "context": "length",
    "pause": "stop",
}


class ChatWire:
    """A choice of deltas. Where the reasoning stands differs by server: `reasoning_key`."""

    name = "chat"

    def __init__(self) -> None:
        self.reasoning_key = "reasoning_content"

    def frames(self, turn: Turn, request: JsonObject) -> Iterator[bytes]:
        head = {
            "id": new("chatcmpl-"),
            "object": "chat.completion.chunk",
            "created": int(time.time()),
            "model": turn.model or request.get("model"),
            "system_fingerprint": "fp_fake",
        }

        def chunk(delta: JsonObject, finish: str | None = None) -> bytes:
            return sse(head | {"choices": [{"index": 0, "delta": delta, "logprobs": None, "finish_reason": finish}]})

        yield chunk({"role": "assistant", "content": "", "refusal": None})
        calls = 0
        for part in turn.parts:
            for delta in self._deltas(part, turn, calls):
                yield chunk(delta)
            calls += isinstance(part, Call)
        yield chunk({}, FINISHES[turn.stopped])
        if (request.get("stream_options") or {}).get("include_usage") or not request.get("stream"):
            yield sse(head | {"choices": [], "usage": _usage(turn)})
        yield sse("[DONE]")

    def _deltas(self, part: Any, turn: Turn, index: int) -> Iterator[JsonObject]:
        match part:
            case Thinking():
                yield from ({self.reasoning_key: piece} for piece in turn.cut(part.text))
            case Text():
                key = "refusal" if turn.stopped == "refusal" else "content"
                yield from ({key: piece} for piece in turn.cut(part.text))
            case Call():
                function = {"name": part.name, "arguments": ""}
                call = {"index": index, "id": part.id or new("call_"), "type": "function", "function": function}
                yield {"tool_calls": [call]}
                for piece in turn.cut(part.written):
                    yield {"tool_calls": [{"index": index, "function": {"arguments": piece}}]}

    def whole(self, frames: Sequence[bytes]) -> JsonObject:
        first, *rest = [chunk for chunk in map(read, frames) if chunk]
        message: JsonObject = dict(first["choices"][0]["delta"])
        finish, usage = None, None
        for chunk in rest:
            usage = chunk.get("usage", usage)
            for choice in chunk["choices"]:
                finish = choice["finish_reason"] or finish
                for key, value in choice["delta"].items():
                    if key == "tool_calls":
                        _merge(message.setdefault("tool_calls", []), value[0])
                    else:
                        message[key] = (message.get(key) or "") + value
        message["content"] = message["content"] or None
        choice = {"index": 0, "message": message, "logprobs": None, "finish_reason": finish}
        return {**first, "object": "chat.completion", "choices": [choice], "usage": usage}

    def error(self, status: int, code: str | None = None, message: str | None = None) -> JsonObject:
        return openai_error(status, code, message)

    def broken(self, code: str | None, frame: int) -> bytes:
        return sse(openai_error(503, code))


def _merge(calls: list[JsonObject], delta: JsonObject) -> None:
    """Put a piece of a call to the call it belongs to."""
    if delta["index"] == len(calls):
        calls.append({name: value for name, value in delta.items() if name != "index"})
    else:
        calls[delta["index"]]["function"]["arguments"] += delta["function"]["arguments"]


def _usage(turn: Turn) -> JsonObject:
    usage = turn.usage
    return {
        "prompt_tokens": usage.input,
        "completion_tokens": usage.output,
        "total_tokens": usage.input + usage.output,
        "prompt_tokens_details": {"cached_tokens": usage.cached, "cache_write_tokens": usage.cache_write},
        "completion_tokens_details": {"reasoning_tokens": usage.reasoning},
    }
