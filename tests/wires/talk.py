"""The four wires as the tests of this room see them: how each is reached, and where its requests keep what was said."""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from vendors.anthropic_wire import AnthropicWire
from vendors.chat_wire import ChatWire
from vendors.interactions_wire import InteractionsWire
from vendors.lanes import Seen
from vendors.responses_wire import ResponsesWire
from vendors.script import Text, Turn, Wire, sse

from meerkat_mcp.domain import events as e
from meerkat_mcp.domain.messages import ToolDefinition
from meerkat_mcp.domain.settings import Settings

JsonObject = dict[str, Any]
FARM = "farm"
RETRY = {"attempts": 3, "base_delay_s": 0.01, "max_delay_s": 5}
GOOD = Turn([Text("All is well.")])


@dataclass(frozen=True)
class Spoken:
    """A wire: the provider that speaks it, one of its models, and what its requests and streams look like.

    `middle` is how many frames come before the third piece of a first text, `ending` how many say that it is over.
    `grown` is an event that makes a text grow by TEXT, `unknown` are events that a new version may have. `standing` is
    what a request has before the conversation, `said` where that is.
    """

    provider: str
    model: str
    key_name: str
    script: Wire
    middle: int
    ending: int
    grown: bytes
    unknown: bytes
    standing: tuple[str, ...]
    said: str
    priced: bool = True
    said_by_openai: bool = False

    def __str__(self) -> str:
        return self.provider

    @property
    def settings(self) -> dict[str, Any]:
        """What a session says to be answered on this wire."""
        return {"provider": self.provider, "model": self.model}

    def frames(self, turn: Turn) -> int:
        """How many frames a turn has."""
        return len(list(self.script.frames(turn, {"stream": True, "stream_options": {"include_usage": True}})))

    def reached(self, **given: Any) -> JsonObject:
        """Config of how this wire is reached."""
        return (
            {"self_hosted": {FARM: given}} if self.provider == "self_hosted" else {"providers": {self.provider: given}}
        )

    def conversation(self, seen: Seen | Mapping[str, Any]) -> list[JsonObject]:
        """What was said, as a request has it; without the system prompt, where that is part of it."""
        body = seen.body if isinstance(seen, Seen) else seen["body"]
        return [message for message in body[self.said] if message.get("role") != "system"]

    def before(self, seen: Seen) -> dict[str, str]:
        """What stands before the conversation, and so decides whether a prompt cache knows it."""
        body = seen.body
        first = [message for message in body[self.said] if message.get("role") == "system"]
        return {name: json.dumps(body.get(name)) for name in self.standing} | {"first": json.dumps(first)}


ANTHROPIC = Spoken(
    provider="anthropic",
    model="claude-sonnet-5-5",
    key_name="ANTHROPIC_API_KEY",
    script=AnthropicWire(),
    middle=5,
    ending=2,
    grown=sse(
        {"type": "content_block_delta", "index": 0, "delta": {"type": "text_delta", "text": "TEXT"}},
        "content_block_delta",
    ),
    unknown=sse({"type": "glitter", "index": 0}, "glitter")
    + sse({"type": "content_block_delta", "index": 0, "delta": {"type": "glitter"}}, "content_block_delta"),
    standing=("system", "tools"),
    said="messages",
)
OPENAI = Spoken(
    provider="openai",
    model="gpt-6.1-sol",
    key_name="OPENAI_API_KEY",
    script=ResponsesWire(),
    middle=6,
    ending=1,
    grown=sse(
        {"type": "response.output_text.delta", "output_index": 0, "content_index": 0, "delta": "TEXT"},
        "response.output_text.delta",
    ),
    unknown=sse({"type": "response.glitter.delta", "delta": "glitter"}, "response.glitter.delta"),
    standing=("instructions", "tools"),
    said="input",
    said_by_openai=True,
)
SELF_HOSTED = Spoken(
    provider="self_hosted",
    model="qwen3",
    key_name="FARM_KEY",
    script=ChatWire(),
    middle=3,
    ending=3,
    grown=sse({"choices": [{"index": 0, "delta": {"content": "TEXT"}, "finish_reason": None}]}),
    unknown=b": keep-alive\n\n" + sse({"choices": None, "glitter": 1}),
    standing=("tools",),
    said="messages",
    priced=False,
    said_by_openai=True,
)
GEMINI = Spoken(
    provider="gemini",
    model="gemini-3.8-flash",
    key_name="GEMINI_API_KEY",
    script=InteractionsWire(),
    middle=4,
    ending=2,
    grown=sse({"event_type": "step.delta", "index": 0, "delta": {"type": "text", "text": "TEXT"}}, "step.delta"),
    unknown=sse({"event_type": "interaction.glitter"}, "interaction.glitter")
    + sse({"event_type": "step.delta", "index": 0, "delta": {"type": "glitter"}}, "step.delta"),
    standing=("system_instruction", "tools"),
    said="input",
)
WIRES = (ANTHROPIC, OPENAI, SELF_HOSTED, GEMINI)


def config(url: str, **more: Any) -> JsonObject:
    """A realm's config that has all four wires lead to the fake."""
    return {
        "providers": {
            "anthropic": {"base_url": url},
            "openai": {"base_url": f"{url}/v1"},
            "gemini": {"base_url": url},
        },
        "self_hosted": {FARM: {"base_url": f"{url}/v1", "api_key_env": "FARM_KEY", "models": ["qwen3"]}},
        "retry": RETRY,
        **more,
    }


def settings(wire: Spoken, **given: Any) -> Settings:
    return Settings(**wire.settings, **given)


def tool(name: str, *arguments: str) -> ToolDefinition:
    properties = {argument: {"type": "string"} for argument in arguments}
    schema = {"type": "object", "properties": properties, "required": list(arguments), "additionalProperties": False}
    return ToolDefinition(name=name, description=f"Tells the {name}.", input_schema=schema)


def begins(first: list[Any], second: list[Any]) -> bool:
    """Whether the second list begins with the first one, byte by byte."""
    return json.dumps(second).startswith(json.dumps(first).removesuffix("]"))


def told(events: list[JsonObject]) -> list[str]:
    """A log in short, one line an event, deltas of one kind that follow each other as one."""
    lines: list[str] = []
    for event in events:
        kind = event["type"]
        match event:
            case {"type": "text_delta" | "reasoning_delta", "text": text}:
                if lines and lines[-1].startswith(f"{kind} "):
                    lines[-1] += text
                    continue
                lines.append(f"{kind} {text}")
            case {"type": "text_complete" | "reasoning_complete", "text": text}:
                lines.append(f"{kind} {text}")
            case {"type": "retrying"}:
                lines.append(f"retrying {event['attempt']}/{event['attempts_max']} {event['kind']}")
            case {"type": "tool_call_requested"}:
                broken = f" malformed {event['malformed']}" if event.get("malformed") is not None else ""
                lines.append(f"tool_call_requested {event['tool_name']} {json.dumps(event['args'])}{broken}")
            case {"type": "tool_execution_completed"}:
                lines.append(f"{kind} {event['tool_name']}{' error' if event['is_error'] else ''}")
            case {"type": "step_completed" | "turn_completed"}:
                lines.append(f"{kind} {event['stop_reason']}")
            case {"type": "turn_failed", "error": error}:
                lines.append(" ".join([kind, error["code"], *([error["kind"]] if "kind" in error else [])]))
            case {"type": "turn_limit_reached"}:
                lines.append(f"{kind} {event['limit']}")
            case {"type": "turn_interrupted"}:
                lines.append(f"{kind} {event['reason']}")
            case _:
                lines.append(kind)
    return lines


def plain(events: list[e.Event]) -> list[JsonObject]:
    """Events as every outside shows them."""
    return [event.model_dump(mode="json") for event in events]
