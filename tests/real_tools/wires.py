"""The same on every wire: how a realm reaches the fake by it, and what a request says of tools and their results."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

JsonObject = dict[str, Any]


@dataclass(frozen=True)
class Shown:
    """A tool's result as the model is shown it."""

    text: str
    images: tuple[str, ...] = ()
    is_error: bool = False


@dataclass(frozen=True)
class Wire:
    """One vendor's protocol: whom a session asks, and how to read what was asked."""

    provider: str
    model: str
    tools: Callable[[JsonObject], Sequence[str]]
    results: Callable[[JsonObject], Sequence[Shown]]

    @property
    def settings(self) -> JsonObject:
        return {"provider": self.provider, "model": self.model}


def _anthropic_results(body: JsonObject) -> list[Shown]:
    blocks = [block for message in body["messages"] for block in message["content"] if block["type"] == "tool_result"]
    return [_shown(block["content"], block.get("is_error", False)) for block in blocks]


def _responses_results(body: JsonObject) -> list[Shown]:
    return [_shown(item["output"]) for item in body["input"] if item.get("type") == "function_call_output"]


def _chat_results(body: JsonObject) -> list[Shown]:
    return [_shown(message["content"]) for message in body["messages"] if message["role"] == "tool"]


def _gemini_results(body: JsonObject) -> list[Shown]:
    steps = [step for step in body["input"] if step["type"] == "function_result"]
    return [_shown(step["result"], step.get("is_error", False)) for step in steps]


def _shown(content: str | list[JsonObject], is_error: bool = False) -> Shown:
    if isinstance(content, str):
        return Shown(content, is_error=is_error)
    texts = [part["text"] for part in content if "text" in part]
    images = [_data(part) for part in content if "text" not in part]
    return Shown("\n".join(texts), tuple(images), is_error)


def _data(part: JsonObject) -> str:
    """A picture's bytes in base64, wherever the wire puts them."""
    return part.get("data") or part.get("source", part).get("data") or part["image_url"].partition(",")[2]


ANTHROPIC = Wire(
    "anthropic", "claude-sonnet-5-5", lambda body: [tool["name"] for tool in body.get("tools", ())], _anthropic_results
)
RESPONSES = Wire(
    "openai", "gpt-6-sol", lambda body: [tool["name"] for tool in body.get("tools", ())], _responses_results
)
GEMINI = Wire(
    "gemini", "gemini-3.8-flash", lambda body: [tool["name"] for tool in body.get("tools", ())], _gemini_results
)
CHAT = Wire("box", "m", lambda body: [tool["function"]["name"] for tool in body.get("tools", ())], _chat_results)

KEYS = ("ANTHROPIC_API_KEY", "OPENAI_API_KEY", "GEMINI_API_KEY", "BOX_API_KEY")


def config(url: str) -> JsonObject:
    """A realm's config by which every wire leads to the fake."""
    return {
        "providers": {
            "anthropic": {"base_url": url},
            "openai": {"base_url": f"{url}/v1"},
            "gemini": {"base_url": url},
        },
        "self_hosted": {"box": {"base_url": f"{url}/v1", "api_key_env": "BOX_API_KEY", "models": ["m"]}},
    }
