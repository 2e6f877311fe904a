"""OpenAI Responses: POST /v1/responses."""

import itertools
import time
from collections.abc import Iterator, Sequence
from typing import Any

from vendors.script import Call, JsonObject, Text, Thinking, Turn, new, read, sse

TYPES = {429: "rate_limit_error"}
CODES = {429: "rate_limit_exceeded", 401: "invalid_api_key"}
ENCRYPTED = "reasoning.encrypted_content"


def openai_error(status: int, code: str | None = None, message: str | None = None) -> JsonObject:
    """The body of an error, the same for both of OpenAI's wires."""
    kind = TYPES.get(status, "server_error" if status >= 500 else "invalid_request_error")
    code = code or CODES.get(status)
    return {"error": {"message": message or f"fake error {status}", "type": kind, "param": None, "code": code}}


class ResponsesWire:
    """A response of output items, told in numbered events."""

    name = "responses"

    def frames(self, turn: Turn, request: JsonObject) -> Iterator[bytes]:
        return _Stream(turn, request).frames()

    def whole(self, frames: Sequence[bytes]) -> JsonObject:
        return read(frames[-1])["response"]

    def error(self, status: int, code: str | None = None, message: str | None = None) -> JsonObject:
        return openai_error(status, code, message)

    def broken(self, code: str | None, frame: int) -> bytes:
        error = {"code": code or "server_error", "message": "fake", "param": None}
        return sse({"type": "error", "sequence_number": frame, **error}, "error")


class _Stream:
    def __init__(self, turn: Turn, request: JsonObject) -> None:
        self._turn = turn
        self._request = request
        self._id = new("resp_")
        self._created_at = int(time.time())
        self._numbers = itertools.count()
        self._output: list[JsonObject] = []

    def _event(self, kind: str, **fields: Any) -> bytes:
        return sse({"type": kind, "sequence_number": next(self._numbers), **fields}, kind)

    def frames(self) -> Iterator[bytes]:
        yield self._event("response.created", response=self._response("in_progress"))
        yield self._event("response.in_progress", response=self._response("in_progress"))
        for index, part in enumerate(self._turn.parts):
            match part:
                case Thinking():
                    yield from self._reasoning(index, part)
                case Text():
                    yield from self._message(index, part)
                case Call():
                    yield from self._call(index, part)
        match self._turn.stopped:
            case "length":
                cut = self._response("incomplete", incomplete_details={"reason": "max_output_tokens"})
                yield self._event("response.incomplete", response=cut)
            case "context":
                error = {"code": "invalid_prompt", "message": "Your input exceeds the context window of this model."}
                yield self._event("response.failed", response=self._response("failed", error=error))
            case _:
                yield self._event("response.completed", response=self._response("completed"))

    def _response(self, status: str, **fields: Any) -> JsonObject:
        return {
            "id": self._id,
            "object": "response",
            "created_at": self._created_at,
            "status": status,
            "error": None,
            "incomplete_details": None,
            "instructions": self._request.get("instructions"),
            "metadata": {},
            "model": self._turn.model or self._request.get("model"),
            "output": list(self._output),
            "parallel_tool_calls": True,
            "tool_choice": "auto",
            "tools": self._request.get("tools") or [],
            "temperature": 1.0,
            "top_p": 1.0,
            "store": self._request.get("store", True),
            "usage": None if status == "in_progress" else self._usage(),
            **fields,
        }

    def _usage(self) -> JsonObject:
        usage = self._turn.usage
        return {
            "input_tokens": usage.input,
            "input_tokens_details": {"cached_tokens": usage.cached, "cache_write_tokens": usage.cache_write},
            "output_tokens": usage.output,
            "output_tokens_details": {"reasoning_tokens": usage.reasoning},
            "total_tokens": usage.input + usage.output,
        }

    def _added(self, index: int, **item: Any) -> bytes:
        return self._event("response.output_item.added", output_index=index, item=item)

    def _done(self, index: int, **item: Any) -> bytes:
        self._output.append(item)
        return self._event("response.output_item.done", output_index=index, item=item)

    def _reasoning(self, index: int, part: Thinking) -> Iterator[bytes]:
        item: JsonObject = {"id": new("rs_"), "type": "reasoning", "summary": []}
        yield self._added(index, **item)
        if part.text:
            at = {"item_id": item["id"], "output_index": index, "summary_index": 0}
            summary = {"type": "summary_text", "text": part.text}
            yield self._event("response.reasoning_summary_part.added", **at, part={**summary, "text": ""})
            for piece in self._turn.cut(part.text):
                yield self._event("response.reasoning_summary_text.delta", **at, delta=piece)
            yield self._event("response.reasoning_summary_text.done", **at, text=part.text)
            yield self._event("response.reasoning_summary_part.done", **at, part=summary)
            item |= {"summary": [summary]}
        if ENCRYPTED in (self._request.get("include") or []):
            item |= {"encrypted_content": part.signature}
        yield self._done(index, **item)

    def _message(self, index: int, part: Text) -> Iterator[bytes]:
        item = {"id": new("msg_"), "type": "message", "role": "assistant"}
        at = {"item_id": item["id"], "output_index": index, "content_index": 0}
        refuses = self._turn.stopped == "refusal"
        key, kind = ("refusal", "refusal") if refuses else ("text", "output_text")
        more: JsonObject = {} if refuses else {"logprobs": []}
        content = {"type": kind, key: part.text, **({} if refuses else {"annotations": [], "logprobs": []})}
        yield self._added(index, **item, status="in_progress", content=[])
        yield self._event("response.content_part.added", **at, part={**content, key: ""})
        for piece in self._turn.cut(part.text):
            yield self._event(f"response.{kind}.delta", **at, delta=piece, **more)
        yield self._event(f"response.{kind}.done", **at, **{key: part.text}, **more)
        yield self._event("response.content_part.done", **at, part=content)
        yield self._done(index, **item, status="completed", content=[content])

    def _call(self, index: int, part: Call) -> Iterator[bytes]:
        item = {"id": new("fc_"), "type": "function_call", "call_id": part.id or new("call_"), "name": part.name}
        at = {"item_id": item["id"], "output_index": index}
        yield self._added(index, **item, arguments="", status="in_progress")
        for piece in self._turn.cut(part.written):
            yield self._event("response.function_call_arguments.delta", **at, delta=piece)
        yield self._event("response.function_call_arguments.done", **at, name=part.name, arguments=part.written)
        yield self._done(index, **item, arguments=part.written, status="completed")
