"""Anthropic Messages, version 2026-10-21: POST /v1/messages."""

from collections.abc import Iterator, Sequence

from vendors.script import Call, JsonObject, Part, Text, Thinking, Turn, new, parsed, read, sse

STOPS = {
    "end": "end_turn",
    "tool": "tool_use",
    "length": "max_tokens",
    "refusal": "refusal",
    "context": "model_context_window_exceeded",
    "pause": "pause_turn",
}
ERRORS = {
    400: "invalid_request_error",
    401: "authentication_error",
    402: "billing_error",
    403: "permission_error",
    404: "not_found_error",
    413: "request_too_large",
    429: "rate_limit_error",
    504: "timeout_error",
    529: "overloaded_error",
}
GROWS = {"text_delta": "text", "thinking_delta": "thinking", "signature_delta": "signature"}


def _event(event: JsonObject) -> bytes:
    return sse(event, event["type"])


class AnthropicWire:
    """A message of content blocks."""

    name = "anthropic"

    def frames(self, turn: Turn, request: JsonObject) -> Iterator[bytes]:
        yield _event({"type": "message_start", "message": _begun(turn, request)})
        yield _event({"type": "ping"})
        for index, part in enumerate(turn.parts):
            block, deltas = _block(part, turn)
            yield _event({"type": "content_block_start", "index": index, "content_block": block})
            for delta in deltas:
                yield _event({"type": "content_block_delta", "index": index, "delta": delta})
            yield _event({"type": "content_block_stop", "index": index})
        stop = turn.stopped
        details = {"type": "refusal", "category": "cyber", "explanation": "fake refusal"} if stop == "refusal" else None
        yield _event(
            {
                "type": "message_delta",
                "delta": {"stop_reason": STOPS[stop], "stop_sequence": None, "stop_details": details},
                "usage": {
                    "output_tokens": turn.usage.output,
                    "output_tokens_details": {"thinking_tokens": turn.usage.reasoning},
                },
            }
        )
        yield _event({"type": "message_stop"})

    def whole(self, frames: Sequence[bytes]) -> JsonObject:
        message: JsonObject = {}
        written: dict[int, str] = {}
        for event in map(read, frames):
            match event:
                case {"type": "message_start"}:
                    message = event["message"]
                case {"type": "content_block_start"}:
                    message["content"].append(event["content_block"])
                case {"type": "content_block_delta", "index": index, "delta": {"type": "input_json_delta"} as delta}:
                    written[index] = written.get(index, "") + delta["partial_json"]
                    message["content"][index]["input"] = parsed(written[index])
                case {"type": "content_block_delta", "index": index, "delta": delta}:
                    message["content"][index][GROWS[delta["type"]]] += delta[GROWS[delta["type"]]]
                case {"type": "message_delta"}:
                    message |= event["delta"]
                    message["usage"] |= event["usage"]
        return message

    def error(self, status: int, code: str | None = None, message: str | None = None) -> JsonObject:
        kind = code or ERRORS.get(status, "api_error")
        return {
            "type": "error",
            "error": {"type": kind, "message": message or f"fake {kind}"},
            "request_id": "req_fake",
        }

    def broken(self, code: str | None, frame: int) -> bytes:
        return sse(self.error(529, code), "error")


def _begun(turn: Turn, request: JsonObject) -> JsonObject:
    usage = turn.usage
    return {
        "id": new("msg_"),
        "type": "message",
        "role": "assistant",
        "model": turn.model or request.get("model"),
        "content": [],
        "stop_reason": None,
        "stop_sequence": None,
        "stop_details": None,
        "usage": {
            "input_tokens": usage.input - usage.cached - usage.cache_write,
            "cache_creation_input_tokens": usage.cache_write,
            "cache_read_input_tokens": usage.cached,
            "output_tokens": 1,
            "service_tier": "standard",
            "cache_creation": {"ephemeral_5m_input_tokens": usage.cache_write, "ephemeral_1h_input_tokens": 0},
        },
    }


def _block(part: Part, turn: Turn) -> tuple[JsonObject, list[JsonObject]]:
    """A block as it starts, and its deltas."""
    match part:
        case Thinking(redacted=True):
            return {"type": "redacted_thinking", "data": part.signature}, []
        case Thinking():
            pieces = turn.cut(part.text) if part.text else []
            deltas = [{"type": "thinking_delta", "thinking": piece} for piece in pieces]
            deltas.append({"type": "signature_delta", "signature": part.signature})
            return {"type": "thinking", "thinking": "", "signature": ""}, deltas
        case Text():
            deltas = [{"type": "text_delta", "text": piece} for piece in turn.cut(part.text)]
            return {"type": "text", "text": ""}, deltas
        case Call():
            pieces = ["", *turn.cut(part.written)]  # the first one is empty (facts §1.1)
            deltas = [{"type": "input_json_delta", "partial_json": piece} for piece in pieces]
            return {"type": "tool_use", "id": part.id or new("toolu_"), "name": part.name, "input": {}}, deltas
