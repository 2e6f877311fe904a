"""The models that the vendors say they have, in each vendor's words: some that exist, with limits like theirs."""

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from starlette.requests import Request

from vendors.script import JsonObject

EFFORTS = ("low", "medium", "high", "xhigh", "max")


@dataclass(frozen=True)
class Known:
    """A model: how much it reads and writes, and the ways to make it think."""

    id: str
    title: str
    reads: int
    writes: int
    thinks: tuple[str, ...] = ()
    lifecycle: str = "active"


ANTHROPIC = (
    Known("claude-fable-5-1", "Claude Fable 5.1", 1_000_000, 128_000, ("adaptive",)),
    Known("claude-opus-5-5", "Claude Opus 5.5", 1_000_000, 128_000, ("adaptive",)),
    Known("claude-sonnet-5-5", "Claude Sonnet 5.5", 1_000_000, 128_000, ("adaptive", "between_tools")),
    Known("claude-haiku-5-5", "Claude Haiku 5.5", 1_000_000, 128_000, ("adaptive", "disabled")),
    Known("claude-opus-4-8", "Claude Opus 4.8", 1_000_000, 128_000, ("adaptive", "disabled")),
    Known("claude-sonnet-4-5", "Claude Sonnet 4.5", 200_000, 64_000, ("enabled", "disabled"), "deprecated"),
    Known("claude-haiku-4-5", "Claude Haiku 4.5", 200_000, 64_000, ("enabled", "disabled")),
)
OPENAI = (
    Known("gpt-6-sol", "", 922_000, 128_000),
    Known("gpt-5.5", "", 922_000, 128_000),
    Known("text-embedding-3-large", "", 8_192, 0),
)
GEMINI = (
    Known("gemini-4-argon", "Gemini 4 Argon", 1_048_576, 65_536, ("thinking",)),
    Known("gemini-3.8-flash", "Gemini 3.8 Flash", 1_048_576, 65_536, ("thinking",)),
    Known("gemini-embedding-2", "Gemini Embedding 2", 8_192, 1),
)


def anthropic_thinking_types(model: str) -> tuple[str, ...]:
    """The types of thinking that a model takes; a model that is not listed takes all."""
    found = [known for known in ANTHROPIC if re.fullmatch(rf"{known.id}(-\d{{8}})?", model)]
    return found[0].thinks if found else ("adaptive", "enabled", "disabled", "between_tools")


# ── each vendor's shape ──


def _anthropic(known: Known) -> JsonObject:
    """SDK: anthropic.types.ModelInfo."""
    thinks = {kind: _supported(kind in known.thinks) for kind in ("adaptive", "between_tools", "disabled", "enabled")}
    has_effort = "adaptive" in known.thinks
    capabilities: JsonObject = {
        name: _supported(True) for name in ("batch", "citations", "image_input", "pdf_input", "structured_outputs")
    }
    capabilities |= {
        "code_execution": _supported(has_effort),
        "server_tools": {"supported": True, "code_execution": _supported(True), "web_search": _supported(True)},
        "context_management": {"supported": False},
        "effort": {"supported": has_effort, **{level: _supported(has_effort) for level in EFFORTS}},
        "thinking": {"supported": bool(known.thinks), "types": thinks},
    }
    return {
        "type": "model",
        "id": known.id,
        "display_name": known.title,
        "created_at": "2026-01-01T00:00:00Z",
        "lifecycle": known.lifecycle,
        "deprecated_at": "2026-10-01T00:00:00Z" if known.lifecycle == "deprecated" else None,
        "retires_at": "2027-03-01T00:00:00Z" if known.lifecycle == "deprecated" else None,
        "line": None,
        "max_input_tokens": known.reads,
        "max_tokens": known.writes,
        "capabilities": capabilities,
    }


def _supported(is_so: bool) -> JsonObject:
    return {"supported": is_so}


def _openai(known: Known) -> JsonObject:
    """SDK: openai.types.Model; it says nothing of limits."""
    return {"id": known.id, "object": "model", "created": 1_760_000_000, "owned_by": "openai", "shutdown_date": None}


def _gemini(known: Known) -> JsonObject:
    """SDK: google.genai.types.Model and the Developer API's names of its fields (google/genai/models.py)."""
    actions = ["embedContent"] if "embedding" in known.id else ["generateContent", "countTokens", "createInteraction"]
    return {
        "name": f"models/{known.id}",
        "version": "001",
        "displayName": known.title,
        "description": f"{known.title}, as the fake has it",
        "inputTokenLimit": known.reads,
        "outputTokenLimit": known.writes,
        "supportedGenerationMethods": actions,
        "thinking": bool(known.thinks),
    }


# ── lists, page by page ──


def listing(request: Request) -> JsonObject:
    """The list that this request asks for: whose it is shows in the headers that each vendor's SDK sends."""
    asked = request.query_params
    if "x-goog-api-key" in request.headers:
        start = int(asked.get("pageToken", 0))
        end = start + int(asked.get("pageSize", 2))
        page: JsonObject = {"models": [_gemini(known) for known in GEMINI[start:end]]}
        return page | ({"nextPageToken": str(end)} if end < len(GEMINI) else {})
    if "anthropic-version" in request.headers:
        ids = [known.id for known in ANTHROPIC]
        start = ids.index(asked["after_id"]) + 1 if "after_id" in asked else 0
        end = start + int(asked.get("limit", 4))
        models = [_anthropic(known) for known in ANTHROPIC[start:end]]
        first, last = (models[0]["id"], models[-1]["id"]) if models else (None, None)
        return {"data": models, "has_more": end < len(ids), "first_id": first, "last_id": last}
    return {"object": "list", "data": [_openai(known) for known in OPENAI]}


def one(request: Request, name: str) -> JsonObject | None:
    """One model, or None."""
    models: Sequence[Known] = OPENAI
    shape: Callable[[Any], JsonObject] = _openai
    if "x-goog-api-key" in request.headers:
        models, shape = GEMINI, _gemini
    elif "anthropic-version" in request.headers:
        models, shape = ANTHROPIC, _anthropic
    return next((shape(known) for known in models if known.id == name), None)
