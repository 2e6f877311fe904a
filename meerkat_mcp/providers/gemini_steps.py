"""What comes in from Gemini's Interactions API: steps that begin, grow and stop, as parts and as items to send back."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, cast

from meerkat_mcp.domain.messages import JsonObject, ToolCall, Usage
from meerkat_mcp.providers import wire
from meerkat_mcp.providers.base import ArgsPiece, Part, Piece, Whole
from meerkat_mcp.providers.gemini_history import CONTINUATION, Names

_TEXTS = {"model_output": "content", "thought": "summary"}
"""Where a step of a type keeps its texts."""
_COUNTS = ("input", "tool_use", "output", "thought", "cached")


@dataclass
class _Step:
    """A step that has not stopped. `written` is what was written so far: its text, or its arguments."""

    item: JsonObject
    written: list[str] = field(default_factory=list[str])

    @property
    def texts(self) -> list[JsonObject]:
        return self.item.setdefault(_TEXTS[self.item["type"]], [])


class Steps:
    """One reply as its events tell it.

    The items are what the provider sent, field by field: also fields that no SDK knows, like a call's signature.
    """

    def __init__(self, names: Names) -> None:
        self._names = names
        self._items: list[JsonObject] = []
        self._running: dict[int, _Step] = {}
        self.calls = 0
        self.model = ""
        self.response_id = ""
        self.final: JsonObject | None = None
        """The interaction as it ended; None while it has not."""

    def take(self, event: JsonObject) -> Sequence[Part]:
        """The parts of an event.

        Raises:
            LookupError, TypeError, AttributeError, ValueError: it is not as it should be.
        """
        match event.get("event_type"):
            case "interaction.created":
                self._named(event["interaction"])
            case "interaction.completed":
                parts = [part for index in sorted(self._running) for part in self._stop(index)]
                self._named(event["interaction"])
                self.final = event["interaction"]
                return parts
            case "step.start":
                return self._start(int(event["index"]), dict(event["step"]))
            case "step.delta":
                return self._grow(self._running[event["index"]], event["delta"])
            case "step.stop":
                return self._stop(event["index"])
            case _:
                pass
        return ()

    def items(self) -> tuple[JsonObject, ...]:
        """What to send back for this reply."""
        token = (self.final or {}).get("continuation_token")
        paused = ({"type": CONTINUATION, "continuation_token": token},) if token else ()
        return (*self._items, *paused)

    @property
    def error(self) -> JsonObject:
        """The error that an output of the reply, or the interaction, carries; empty when there is none."""
        for carrier in (*self._items, self.final or {}):
            if isinstance(error := carrier.get("error"), dict) and error:
                return cast(JsonObject, error)
        return {}

    @property
    def usage(self) -> Usage:
        """The tokens. On the wire thoughts are no part of the output, and what tools were asked none of the input."""
        told: Any = (self.final or {}).get("usage") or {}
        count = {name: int(told.get(f"total_{name}_tokens") or 0) for name in _COUNTS}
        return Usage(
            input_tokens=count["input"] + count["tool_use"],
            output_tokens=count["output"] + count["thought"],
            cache_read_tokens=count["cached"],
            reasoning_tokens=count["thought"],
        )

    def _named(self, interaction: JsonObject) -> None:
        self.model = str(interaction.get("model") or self.model)
        self.response_id = str(interaction.get("id") or self.response_id)

    def _start(self, index: int, item: JsonObject) -> list[Part]:
        """A step begins; the first piece of its text may be in it already."""
        item = {name: value for name, value in item.items() if value is not None}
        step = self._running[index] = _Step(item)
        self._items.append(item)
        if item["type"] == "function_call":
            item["id"] = item.get("id") or f"{self.response_id or 'call'}_{index}"
            return []
        if item["type"] not in _TEXTS:
            return []
        return [part for text in step.texts for part in self._piece(step, text.get("text"))]

    def _piece(self, step: _Step, text: str | None) -> list[Part]:
        if not text:
            return []
        step.written.append(text)
        return [Piece(kind="text" if step.item["type"] == "model_output" else "reasoning", text=text)]

    def _grow(self, step: _Step, delta: JsonObject) -> list[Part]:
        match delta["type"]:
            case "text":
                return self._write(step, delta)
            case "thought_summary" if delta.get("content"):
                return self._write(step, delta["content"])
            case "thought_signature":
                step.item["signature"] = delta["signature"]
            case "arguments_delta" if delta.get("arguments"):
                step.written.append(delta["arguments"])
                name = self._names.meant(step.item["name"])
                return [ArgsPiece(tool_use_id=step.item["id"], tool_name=name, text=delta["arguments"])]
            case "text_annotation_delta" if step.texts:
                step.texts[-1].setdefault("annotations", []).extend(delta.get("annotations") or ())
            case "image" | "audio" | "video" | "document":
                step.texts.append(delta)
            case _:
                pass
        return []

    def _write(self, step: _Step, content: JsonObject) -> list[Part]:
        """A piece of text goes on with the text before it; anything else begins anew."""
        if content["type"] != "text" or not step.texts or step.texts[-1].get("type") != "text":
            step.texts.append(dict(content))
        else:
            step.texts[-1]["text"] = step.texts[-1].get("text", "") + content["text"]
        return self._piece(step, content.get("text"))

    def _stop(self, index: int) -> list[Part]:
        step = self._running.pop(index)
        written = "".join(step.written)
        if step.item["type"] == "function_call":
            return [self._called(step.item, written)]
        if not written:
            return []
        return [Whole(kind="text" if step.item["type"] == "model_output" else "reasoning", text=written)]

    def _called(self, item: JsonObject, written: str) -> ToolCall:
        """The call. What goes back to the provider is always an object, as its wire wants it."""
        args, malformed = wire.arguments(written) if written else (dict(item.get("arguments") or {}), None)
        item["arguments"] = args
        self.calls += 1
        return ToolCall(
            tool_use_id=item["id"], tool_name=self._names.meant(item["name"]), args=args, malformed=malformed
        )
