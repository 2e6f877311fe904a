"""Anthropic binds a thinking block to all that stood before it: system, tools and messages (facts §1.1).

What is compared: platform.claude.com/docs/en/build-with-claude/preserved-thinking/prefix-checks. Cache marks are left
out of it. A block that was produced by another model is dropped without an error, so that is not refused here.
"""

import hashlib
import re
from collections.abc import Iterator
from typing import Any

from vendors.checks.asking import Asked
from vendors.script import JsonObject, dumps

BETA = "thinking-binding-controls-2026-08-01"
BOUND = re.compile(r"claude-(fable|mythos|opus|sonnet|haiku)-5-\d")
"""The models that check the prefix: 5.1 and later, not Opus 5 or Sonnet 5."""

THINKING = ("thinking", "redacted_thinking")
Standing = tuple[str, JsonObject, str]
"""Where a block stands, the block, and a digest of all before it."""


def remember(memory: dict[Any, Any], request: JsonObject, reply: JsonObject) -> None:
    """Keep the thinking of a reply: its signature, its text and the prefix that it is bound to."""
    if not any(block["type"] in THINKING for block in reply["content"]):
        return
    messages = [*request["messages"], {"role": "assistant", "content": reply["content"]}]
    before = len(request["messages"])
    for where, block, prefix in _thinking({**request, "messages": messages}):
        if int(where.split(".")[1]) >= before:
            memory.setdefault(_signature(block), set()).add((block.get("thinking"), prefix))


def thinking_comes_back_as_it_was(asked: Asked) -> Iterator[str]:
    """Facts §1.1, thinking replay: unmodified, in order, with the same things before it."""
    drops, objection = _drops(asked)
    if objection:
        yield objection
    is_bound = BOUND.match(asked.body["model"])
    for where, block, prefix in _thinking(asked.body):
        sent = asked.memory.get(_signature(block))
        invalid = f"{where}: Invalid `signature` in `{block['type']}` block"
        if sent is None:
            yield invalid
        elif block.get("thinking") not in {text for text, _ in sent}:
            yield (
                f"{where}: `thinking` or `redacted_thinking` blocks in the latest assistant message cannot be "
                "modified. These blocks must remain as they were in the original response."
            )
        elif is_bound and not drops and (block.get("thinking"), prefix) not in sent:
            yield (
                f"{invalid}. The block is bound to a different conversation. Remove the block, or set "
                '`thinking.block_binding.prefix_mismatch_behavior` to "drop_block".'
            )


def _drops(asked: Asked) -> tuple[bool, str | None]:
    """Whether the request wants unbound blocks dropped; and what is wrong with how it says so."""
    thinking = asked.body.get("thinking") or {}
    binding = thinking.get("block_binding")
    if binding is None:
        return False, None
    if BETA not in asked.headers.get("anthropic-beta", ""):
        return False, f"thinking.{thinking.get('type')}.block_binding: Extra inputs are not permitted"
    return binding.get("prefix_mismatch_behavior") == "drop_block", None


def _signature(block: JsonObject) -> tuple[str, Any]:
    return block["type"], block.get("signature", block.get("data"))


def _thinking(body: JsonObject) -> Iterator[Standing]:
    """The thinking blocks of a request."""
    digest = hashlib.sha256(dumps([_plain(_blocks(body.get("system"))), _plain(body.get("tools") or [])]).encode())
    for index, message in enumerate(body.get("messages") or []):
        for at, block in enumerate(_blocks(message.get("content"))):
            if block.get("type") in THINKING:
                yield f"messages.{index}.content.{at}", block, digest.hexdigest()
            digest.update(dumps([message["role"], _plain(block)]).encode())


def _blocks(content: Any) -> list[JsonObject]:
    if isinstance(content, str):
        return [{"type": "text", "text": content}] if content else []
    return content or []


def _plain(value: Any) -> Any:
    """A value without cache marks and what is null, its keys in order: what says the same looks the same."""
    if isinstance(value, dict):
        kept = {name: _plain(item) for name, item in sorted(value.items()) if name != "cache_control"}
        return {name: item for name, item in kept.items() if item is not None}
    return [_plain(item) for item in value] if isinstance(value, list) else value
