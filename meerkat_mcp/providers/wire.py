"""What all wires share: which of our errors a foreign one is, ids and arguments, one HTTP client for all."""

import email.utils
import hashlib
import importlib
import json
import re
import sys
import time
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, Literal, TypeAlias, cast

import anyio
import anyio.to_thread

from meerkat_mcp.domain.errors import MeerkatError, ProviderRejected, ProviderUnauthenticated, ProviderUnavailable
from meerkat_mcp.domain.messages import AssistantMessage, JsonObject, legible

if TYPE_CHECKING:
    import httpx2

MESSAGE_CHARS_MAX = 500
CONNECTIONS_MAX = 1000
CALL_ID_CHARS_MAX = 64

Kind: TypeAlias = Literal[
    "rate_limit",
    "overloaded",
    "server",
    "timeout",
    "connection",
    "truncated",
    "malformed",
    "auth",
    "quota",
    "context",
    "not_found",
    "bad_request",
]
"""What went wrong at a provider, the same words for all wires."""

ERRORS: Mapping[Kind, type[MeerkatError]] = {
    "rate_limit": ProviderUnavailable,
    "overloaded": ProviderUnavailable,
    "server": ProviderUnavailable,
    "timeout": ProviderUnavailable,
    "connection": ProviderUnavailable,
    "truncated": ProviderUnavailable,
    "malformed": ProviderUnavailable,
    "auth": ProviderUnauthenticated,
    "quota": ProviderRejected,
    "context": ProviderRejected,
    "not_found": ProviderRejected,
    "bad_request": ProviderRejected,
}
"""Which error of ours each kind is. What is unavailable is worth asking again, the rest is not."""

_HINTS: Mapping[Kind, str] = {
    "auth": "Set a valid key in the environment variable that meerkat_capabilities names, and restart the server.",
    "quota": "The account has no credit left, or is at its spending limit. See the provider's billing page.",
    "context": "The conversation is longer than the model's window. Shorten it with meerkat_compact.",
    "not_found": "meerkat_models_catalog lists the models.",
    "bad_request": "Check provider_params, tools and output_schema.",
}

_CODES: Mapping[str, Kind] = {
    "insufficient_quota": "quota",
    "billing_not_active": "quota",
    "billing_error": "quota",
    "contract_spend_limit_reached": "quota",
    "enforced_spend_limit_reached": "quota",
    "ramp_limit_exceeded": "quota",
    "context_length_exceeded": "context",
    "request_too_large": "context",
    "model_not_found": "not_found",
    "not_found_error": "not_found",
    "not_found": "not_found",
    "rate_limit_error": "rate_limit",
    "rate_limit_exceeded": "rate_limit",
    "resource_exhausted": "rate_limit",
    "overloaded_error": "overloaded",
    "unavailable": "overloaded",
    "authentication_error": "auth",
    "permission_error": "auth",
    "invalid_api_key": "auth",
    "unauthenticated": "auth",
    "permission_denied": "auth",
    "timeout_error": "timeout",
    "deadline_exceeded": "timeout",
    "api_error": "server",
    "server_error": "server",
    "internal": "server",
}
_STATUSES: Mapping[int, Kind] = {
    401: "auth",
    402: "quota",
    403: "auth",
    404: "not_found",
    408: "timeout",
    409: "server",
    413: "context",
    429: "rate_limit",
    503: "overloaded",
    504: "timeout",
    529: "overloaded",
}
_TOO_LONG = re.compile(r"context (window|length)|prompt is too long|input token count .* exceeds", re.IGNORECASE)
_KEY = re.compile(r"\b(sk|pk|key|AIza)[-_]?[A-Za-z0-9_*.-]{8,}")
_KEY_CHARS_MIN = 8  # a shorter one is a placeholder, and stands in many a word

_keys: set[str] = set()


def keep_secret(key: str) -> None:
    """Strike this key out of what any provider says from now on: a server of one's own may have keys of any form."""
    if len(key) >= _KEY_CHARS_MIN:
        _keys.add(key)


def kind_of(status: int | None, code: str | None, message: str) -> Kind:
    """What a provider's refusal means: by its code where that says it, else by its words, else by its status."""
    known = _CODES.get((code or "").lower())
    if known in ("quota", "context"):
        return known
    if _TOO_LONG.search(message) and (status is None or status < 500):
        return "context"
    if known is not None and (status is None or status < 500 or known in ("overloaded", "timeout")):
        return known
    if status is not None and status in _STATUSES:
        return _STATUSES[status]
    return "server" if status is not None and status >= 500 else "bad_request"


def failure(
    kind: Kind,
    provider: str,
    message: str,
    *,
    status: int | None = None,
    code: str | None = None,
    headers: Mapping[str, str] | None = None,
    retry_after_s: float | None = None,
) -> MeerkatError:
    """The error of ours. Keys that a provider quotes are struck out, long messages cut."""
    headers = headers or {}
    for key in _keys:
        message = message.replace(key, "[key]")
    said = _KEY.sub("[key]", message).strip() or kind.replace("_", " ")
    return ERRORS[kind](
        f"{provider}: {said[:MESSAGE_CHARS_MAX]}",
        hint=_HINTS.get(kind, ""),
        retry_after_s=retry_after_s if retry_after_s is not None else retry_after(headers),
        kind=kind,
        provider=provider,
        status=status,
        provider_code=code,
        request_id=headers.get("request-id") or headers.get("x-request-id"),
    )


def retry_after(headers: Mapping[str, str]) -> float | None:
    """How many seconds a provider asks us to wait (RFC 9110 §10.2.3, and `retry-after-ms`)."""
    try:
        if milliseconds := headers.get("retry-after-ms"):
            return max(0.0, float(milliseconds) / 1000)
        if not (text := headers.get("retry-after")):
            return None
        return max(0.0, float(text))
    except ValueError:
        date = email.utils.parsedate_tz(headers.get("retry-after", ""))
        return max(0.0, email.utils.mktime_tz(date) - time.time()) if date else None


def transport_failure(exc: Exception, provider: str) -> MeerkatError | None:
    """Our error for what the network or a garbled stream raises; None for anything else.

    The vendors' SDKs wrap such exceptions before a stream begins, and let them out while it runs.
    """
    httpx = sys.modules.get("httpx2")
    if httpx is not None and isinstance(exc, httpx.TimeoutException):
        return failure("timeout", provider, f"no answer in time ({type(exc).__name__})")
    if httpx is not None and isinstance(exc, httpx.HTTPError | httpx.StreamError):
        return failure("connection", provider, f"the connection failed ({type(exc).__name__}: {exc})")
    if isinstance(exc, json.JSONDecodeError | UnicodeDecodeError):
        return failure("malformed", provider, f"the stream is garbled ({type(exc).__name__})")
    return None


def arguments(raw: str) -> tuple[JsonObject, str | None]:
    """A tool call's arguments from the text that the model wrote; and that text, when it is no JSON object.

    What Python reads and nobody else takes is none either: `NaN`, half a character, what is nested too deep.
    """
    try:
        value: Any = json.loads(raw or "{}", parse_constant=_refuse)
        readable = legible(json.dumps(value, ensure_ascii=False).encode())
    except (ValueError, RecursionError):
        return {}, raw.encode("utf-8", "replace").decode()
    return (cast(JsonObject, value), None) if readable and isinstance(value, dict) else ({}, raw)


def _refuse(constant: str) -> None:
    raise ValueError(constant)


def call_id(foreign: str) -> str:
    """A tool call's id in a form that every wire takes; the same id gets the same form."""
    if re.fullmatch(rf"[A-Za-z0-9_-]{{1,{CALL_ID_CHARS_MAX}}}", foreign):
        return foreign
    return f"call_{hashlib.sha256(foreign.encode()).hexdigest()[:24]}"


_loaded: dict[str, Any] = {}


async def load(module: str) -> Any:
    """Import a vendor's SDK, in a thread: it takes up to a second, and the event loop must go on.

    `sys.modules` is not asked: it has a module already while another thread is still importing it.
    """
    if module not in _loaded:
        _loaded[module] = await anyio.to_thread.run_sync(importlib.import_module, module)
    return _loaded[module]


def verbatim(message: AssistantMessage, provider: str, model: str) -> bool:
    """Whether a reply goes back as the provider's own items: it is of this provider and of this model."""
    return bool(message.items) and (message.provider, message.model) == (provider, model)


def told_schema(system_prompt: str, schema: JsonObject) -> str:
    """The system prompt for a model whose answer cannot be bound to a schema: it is asked to keep to it."""
    asked = f"Answer with nothing but JSON that fits this JSON Schema:\n{json.dumps(schema, ensure_ascii=False)}"
    return f"{system_prompt}\n\n{asked}" if system_prompt else asked


class Http:
    """One HTTP client for all providers: made when it is first needed, closed with the realm.

    Each SDK would make its own otherwise, with a TLS context (20 to 45 ms) and a pool of its own.
    """

    def __init__(self) -> None:
        self._client: httpx2.AsyncClient | None = None
        self._making = anyio.Lock()

    async def client(self) -> "httpx2.AsyncClient":
        """The client. It follows no redirects and reads nothing from the environment but the proxy."""
        async with self._making:
            if self._client is None:
                httpx = await load("httpx2")

                def make() -> Any:
                    limits = httpx.Limits(max_connections=CONNECTIONS_MAX, max_keepalive_connections=20)
                    return httpx.AsyncClient(limits=limits, timeout=None)

                self._client = await anyio.to_thread.run_sync(make)
        assert self._client is not None, "it was just made"
        return self._client

    async def close(self) -> None:
        """Let go of all connections."""
        client, self._client = self._client, None
        if client is not None:
            await client.aclose()
