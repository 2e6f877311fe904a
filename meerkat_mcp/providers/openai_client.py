"""What both wires of the openai SDK share: its client, its errors as ours, and what parameters and schemas may be.

The SDK builds the request, signs it and understands refusals. Its own reader of the stream takes 60 microseconds for
every piece, and a third of a second once an event is not quite as it knows them, so the events are read as they come.
"""

import difflib
import math
import re
import ssl
import sys
from collections.abc import AsyncGenerator, Callable, Generator, Mapping
from contextlib import aclosing, asynccontextmanager, contextmanager
from dataclasses import dataclass
from typing import Any, cast

import anyio
import anyio.to_thread

from meerkat_mcp.domain.errors import MeerkatError
from meerkat_mcp.domain.messages import AssistantMessage, JsonObject, ToolDefinition, ToolResult
from meerkat_mcp.providers import sse, wire
from meerkat_mcp.providers.base import Access, ModelRequest

EFFORTS = ("none", "minimal", "low", "medium", "high", "xhigh", "max")


class Server:
    """A server that speaks one of OpenAI's protocols, and the SDK's client for it: made once, when first needed.

    A `keyless` server gets a placeholder where there is no key. `part` is the part of the client that is used.
    """

    def __init__(
        self,
        access: Access,
        http: wire.Http,
        provider: str,
        *,
        part: Callable[[Any], Any],
        keyless: bool = False,
    ) -> None:
        self._access = access
        self._http = http
        self._provider = provider
        self._part = part
        self._key = access.api_key or ("none" if keyless else "")
        self._client: Any = None
        self._making = anyio.Lock()

    @asynccontextmanager
    async def stream(self, body: JsonObject) -> AsyncGenerator[AsyncGenerator[JsonObject]]:
        """The events that answer a request, as they came. Leaving hangs up.

        Raises:
            MeerkatError: for whatever the SDK, the network or a garbled event raises, also while events are read.
        """
        with failures(self._provider):
            create = self._part(await self._ready()).with_streaming_response.create
            async with create(stream=True, **body) as response:
                with failures(self._provider, reading=True):
                    async with aclosing(sse.events(response.http_response, self._provider)) as events:
                        yield events

    async def models(self) -> list[Any]:
        """The entries of the server's list of models, as the SDK gives them.

        Raises:
            MeerkatError: as `stream`.
        """
        with failures(self._provider):
            client = await self._ready()
        with failures(self._provider, reading=True):
            page = await client.models.list()
            entries: list[Any] = page.data or []
            return [entry for entry in entries if entry.id]

    async def _ready(self) -> Any:
        if not self._key:
            raise wire.failure("auth", self._provider, "there is no key")
        if not (self._key.isascii() and self._key.isprintable()):
            raise wire.failure("auth", self._provider, "the key holds characters that no key has")
        async with self._making:
            if self._client is None:
                sdk, http_client = await wire.load("openai"), await self._http.client()
                self._client = await anyio.to_thread.run_sync(self._made, sdk, http_client)
        return self._client

    def _made(self, sdk: Any, http_client: Any) -> Any:
        """The client: what it is not told here it would take from the environment, and send to any server."""
        access = self._access
        patience = sdk.Timeout(access.idle_timeout_s, connect=access.connect_timeout_s, pool=access.connect_timeout_s)
        client = sdk.AsyncOpenAI(
            api_key=self._key,
            base_url=access.base_url,
            admin_api_key="",
            organization="",
            project="",
            webhook_secret="",
            timeout=patience,
            max_retries=0,
            http_client=http_client,
        )
        client.organization = access.option("organization") or None  # an empty one is sent as an empty header
        client.project = access.option("project") or None
        client._custom_headers = {}  # those of the environment are taken whatever one passes
        _ = self._part(client).with_streaming_response  # what is first used is first imported
        _ = client.models
        return client


# ── errors ──

KINDS: Mapping[str, wire.Kind] = {
    "APITimeoutError": "timeout",
    "APIConnectionError": "connection",
    "APIResponseValidationError": "malformed",
    "WebSocketConnectionClosedError": "connection",
    "WebSocketQueueFullError": "connection",
    "SubjectTokenProviderError": "auth",
    "LengthFinishReasonError": "malformed",
    "ContentFilterFinishReasonError": "malformed",
    "InvalidWebhookSignatureError": "malformed",
}
"""What the SDK's own exceptions mean that do not bring the server's word; the nearest class counts."""

_CODES: Mapping[str, wire.Kind] = {"exceed_context_size_error": "context", "unavailable_error": "overloaded"}
"""Codes that only llama.cpp has."""

_SAYS_NOTHING = "the server tells of an error, and nothing more"
_NETWORK = (OSError, ssl.SSLError, anyio.EndOfStream, anyio.BrokenResourceError, anyio.ClosedResourceError)
_GARBLED = (AttributeError, LookupError, TypeError, ValueError, RecursionError)


@contextmanager
def failures(provider: str, *, reading: bool = False) -> Generator[None]:
    """Whatever the SDK or the network raises within becomes an error of ours; what only a bug raises stays.

    While an answer is `reading`, a surprise about its form is no bug of ours: the stream is garbled.
    """
    try:
        yield
    except MeerkatError:
        raise
    except Exception as exc:
        ours = failure_of(exc, provider, reading=reading)
        if ours is None:
            raise
        raise ours from exc


def failure_of(exc: Exception, provider: str, *, reading: bool = False) -> MeerkatError | None:
    """Our error for an exception; None for one that is neither the SDK's nor the network's."""
    names = [base.__name__ for base in type(exc).__mro__ if base.__module__.partition(".")[0] == "openai"]
    if "APIStatusError" in names:
        return _refused(exc, provider)
    known: wire.Kind | None = next((KINDS[name] for name in names if name in KINDS), None)
    if known is not None:
        cause = f" ({type(exc.__cause__).__name__}: {exc.__cause__})" if exc.__cause__ else ""
        return wire.failure(known, provider, f"{exc}{cause}")
    if "APIError" in names:
        return told_by(provider, cast(Any, exc).body or str(exc))
    if names:
        return wire.failure("bad_request", provider, str(exc))
    if ours := wire.transport_failure(exc, provider):
        return ours
    httpx: Any = sys.modules.get("httpx2")
    if isinstance(exc, TimeoutError):
        return wire.failure("timeout", provider, "no answer in time")
    if isinstance(exc, _NETWORK):
        return wire.failure("connection", provider, f"the connection failed ({type(exc).__name__}: {exc})")
    if isinstance(exc, UnicodeError):
        return wire.failure("bad_request", provider, "the request holds text that cannot be sent: half a character")
    if httpx is not None and isinstance(exc, httpx.InvalidURL | httpx.CookieConflict | httpx.SSEError):
        kind: wire.Kind = "malformed" if isinstance(exc, httpx.SSEError) else "bad_request"
        return wire.failure(kind, provider, f"{type(exc).__name__}: {exc}")
    if reading and isinstance(exc, _GARBLED):
        return wire.failure("malformed", provider, f"the stream is garbled ({type(exc).__name__})")
    return None


def told(provider: str, code: Any, message: Any) -> MeerkatError:
    """The error that a server tells in a stream that it has begun.

    It has accepted the request, so an error without a code is its own. Some servers give a status as the code.
    """
    code, message = str(code) if code else None, str(message or _SAYS_NOTHING)
    if code and code.isdecimal() and 400 <= int(code) < 600:
        return wire.failure(wire.kind_of(int(code), None, message), provider, message, status=int(code))
    kind = _CODES.get(code or "") or wire.kind_of(None, code, message)
    return wire.failure("server" if kind == "bad_request" and not code else kind, provider, message, code=code)


def told_by(provider: str, error: Any) -> MeerkatError:
    """The same for what stands under `error`: an object, or just words."""
    said = cast(JsonObject, error) if isinstance(error, dict) else {}
    return told(provider, said.get("code") or said.get("type"), _words(error, _SAYS_NOTHING))


def _refused(exc: Any, provider: str) -> MeerkatError:
    """The error of an answer with a status of 400 or more."""
    code = exc.type if not exc.code or exc.code.isdecimal() else exc.code
    message = _words(exc.body, str(exc.message))
    kind = _CODES.get(code or "") or wire.kind_of(exc.status_code, code, message)
    return wire.failure(
        kind,
        provider,
        message,
        status=exc.status_code,
        code=code,
        headers=cast("Mapping[str, str]", exc.response.headers),
    )


def _words(body: Any, otherwise: str) -> str:
    """What the server says, without what the SDK puts around it."""
    said: Any = cast(JsonObject, body).get("message") if isinstance(body, dict) else body
    if isinstance(body, str) and body.lstrip().startswith("<"):
        return "a web page came in place of an answer"
    return said if isinstance(said, str) and said else otherwise


# ── parameters ──


@dataclass(frozen=True, slots=True)
class Rule:
    """What a parameter must be: in words, and as a test."""

    words: str
    fits: Callable[[Any], bool]


FLAG = Rule("true or false", lambda value: isinstance(value, bool))
OBJECT = Rule("an object", lambda value: isinstance(value, dict))


def one_of(*words: str) -> Rule:
    """One of these words."""
    return Rule(f"one of {', '.join(words)}", lambda value: isinstance(value, str) and value in words)


def number(least: float, most: float) -> Rule:
    """A number within these bounds."""
    return Rule(
        f"a number from {least:g} to {most:g}",
        lambda value: type(value) in (int, float) and math.isfinite(value) and least <= value <= most,
    )


def integer(least: int) -> Rule:
    """A whole number, at least this, that fits into 64 bits."""
    return Rule(f"a whole number from {least}", lambda value: type(value) is int and least <= value < 2**63)


def text(most: int) -> Rule:
    """Text of one to so many characters."""
    return Rule(f"text of 1 to {most} characters", lambda value: isinstance(value, str) and 0 < len(value) <= most)


def check_params(provider: str, params: JsonObject, rules: Mapping[str, Rule]) -> None:
    """Refuse a parameter that is unknown, or not what it must be.

    Raises:
        ProviderRejected: it names the parameter, and the nearest known one or what it must be.
    """
    for name, value in params.items():
        if (rule := rules.get(name)) is None:
            near = difflib.get_close_matches(name, rules, n=1)
            instead = f"Did you mean {near[0]!r}?" if near else f"There are: {', '.join(sorted(rules))}."
            raise wire.failure("bad_request", provider, f"there is no parameter {name[:50]!r}. {instead}")
        if not rule.fits(value):
            raise wire.failure("bad_request", provider, f"provider_params.{name} must be {rule.words}")


# ── conversations ──


def call_ids(request: ModelRequest, provider: str) -> dict[str, str]:
    """Under which id each call goes out, and so its result: its own in verbatim items, elsewhere a safe form of it."""
    ids: dict[str, str] = {}
    for message in request.messages:
        if isinstance(message, AssistantMessage):
            own = wire.verbatim(message, provider, request.model)
            ids |= {
                call.tool_use_id: call.tool_use_id if own else wire.call_id(call.tool_use_id)
                for call in message.tool_calls
            }
    return ids


def content_of(result: ToolResult) -> str:
    """A tool's answer as text, since these wires have no flag that says that it failed."""
    return f"Error: {result.content}" if result.is_error else result.content


def function_of(tool: ToolDefinition) -> JsonObject:
    """A tool as a function. Parameters without `properties` are refused by OpenAI, so there are always some."""
    parameters: JsonObject = {"type": "object", "properties": {}, **tool.input_schema}
    return {"name": tool.name, "description": tool.description, "parameters": parameters}


def function_name(name: str) -> str:
    """A tool's name in a form that is taken back, also when a model made it up."""
    return re.sub(r"[^A-Za-z0-9_-]", "_", name)[:64] or "_"


def count(usage: Any, *path: str) -> int:
    """A count of tokens somewhere in what a server says of usage; 0 where it says nothing."""
    for name in path:
        usage = cast(JsonObject, usage).get(name) if isinstance(usage, dict) else None
    return usage if type(usage) is int and usage > 0 else 0
