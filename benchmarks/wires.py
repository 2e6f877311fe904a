"""The four wires, each twice: the vendor's SDK in the loop that its documentation shows, and our adapter over it."""

from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Any

from meerkat_mcp.domain.messages import UserMessage
from meerkat_mcp.providers.base import Access, ModelRequest, Provider
from meerkat_mcp.providers.wire import Http

PROMPT = "Say something."
MAX_TOKENS = 20_000

OnText = Callable[[str], object]
Loop = Callable[[Any, str, OnText], Awaitable[None]]
"""Asks a client's model and hands each piece of text on."""


@dataclass(frozen=True, slots=True)
class BothWays:
    """One wire. `client` makes the SDK's client, `loop` asks it; `adapter` is ours. `path` belongs to the base URL.

    `frames_to_text` is how many events of the fake lead to the first text, that one included.
    """

    name: str
    provider: str
    model: str
    path: str
    frames_to_text: int
    client: Callable[[str, str], Any]
    loop: Loop
    adapter: Callable[[Access, Http], Provider]

    def bare(self, url: str, lane: str) -> Any:
        """The SDK's client, as its documentation makes it, but for the address and the key."""
        return self.client(url + self.path, lane)

    def ours(self, url: str, lane: str, http: Http) -> Provider:
        """Our adapter, as a realm opens it."""
        return self.adapter(Access(base_url=url + self.path, api_key=lane), http)

    @property
    def request(self) -> ModelRequest:
        """What the adapter is asked: the same as the bare SDK."""
        return ModelRequest(model=self.model, messages=(UserMessage(text=PROMPT),), max_tokens=MAX_TOKENS)


# ── Anthropic Messages ──


def _anthropic_client(url: str, key: str) -> Any:
    from anthropic import AsyncAnthropic

    return AsyncAnthropic(base_url=url, api_key=key)


async def _anthropic_loop(client: Any, model: str, on_text: OnText) -> None:
    stream = await client.messages.create(
        model=model, max_tokens=MAX_TOKENS, messages=[{"role": "user", "content": PROMPT}], stream=True
    )
    async for event in stream:
        if event.type == "content_block_delta" and event.delta.type == "text_delta":
            on_text(event.delta.text)


def _anthropic(access: Access, http: Http) -> Provider:
    from meerkat_mcp.providers.anthropic import AnthropicProvider

    return AnthropicProvider(access, http)


# ── OpenAI Responses ──


def _openai_client(url: str, key: str) -> Any:
    from openai import AsyncOpenAI

    return AsyncOpenAI(base_url=url, api_key=key)


async def _responses_loop(client: Any, model: str, on_text: OnText) -> None:
    stream = await client.responses.create(model=model, max_output_tokens=MAX_TOKENS, input=PROMPT, stream=True)
    async for event in stream:
        if event.type == "response.output_text.delta":
            on_text(event.delta)


def _responses(access: Access, http: Http) -> Provider:
    from meerkat_mcp.providers.openai_responses import ResponsesProvider

    return ResponsesProvider(access, http)


# ── chat completions ──


async def _chat_loop(client: Any, model: str, on_text: OnText) -> None:
    stream = await client.chat.completions.create(
        model=model, max_tokens=MAX_TOKENS, messages=[{"role": "user", "content": PROMPT}], stream=True
    )
    async for chunk in stream:
        if chunk.choices and chunk.choices[0].delta.content:
            on_text(chunk.choices[0].delta.content)


def _chat(access: Access, http: Http) -> Provider:
    from meerkat_mcp.providers.openai_chat import ChatProvider

    return ChatProvider(access, http)


# ── Gemini Interactions ──


def _gemini_client(url: str, key: str) -> Any:
    from google import genai

    return genai.Client(api_key=key, http_options={"base_url": url})


async def _gemini_loop(client: Any, model: str, on_text: OnText) -> None:
    stream = await client.aio.interactions.create(model=model, input=PROMPT, stream=True)
    async for event in stream:
        if event.event_type == "step.delta" and event.delta.type == "text":
            on_text(event.delta.text)
        elif event.event_type == "step.start" and event.step.type == "model_output":
            for content in event.step.content or ():
                on_text(content.text)


def _gemini(access: Access, http: Http) -> Provider:
    from meerkat_mcp.providers.gemini import GeminiProvider

    return GeminiProvider(access, http)


WIRES = (
    BothWays("Anthropic", "anthropic", "claude-sonnet-5-5", "", 4, _anthropic_client, _anthropic_loop, _anthropic),
    BothWays("Responses", "openai", "gpt-6-sol", "/v1", 5, _openai_client, _responses_loop, _responses),
    BothWays("chat", "fake", "qwen3", "/v1", 2, _openai_client, _chat_loop, _chat),
    BothWays("Gemini", "gemini", "gemini-3.8-flash", "", 3, _gemini_client, _gemini_loop, _gemini),
)


async def close(client: Any) -> None:
    """Close an SDK's client; else it does so itself when it is forgotten, in whatever loop runs by then."""
    if hasattr(client, "aio"):
        await client.aio.aclose()
        client.close()
    else:
        await client.close()
