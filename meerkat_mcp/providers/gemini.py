"""Gemini, through google-genai's Interactions API: nothing is stored there, every request tells it all.

The SDK builds the request, signs it and understands refusals. Its own reader of the stream takes 0.6 ms for every
piece and loses what it does not know, so the events are read from the response it hands out.
"""

import re
from collections.abc import AsyncGenerator, Generator, Iterator, Mapping
from contextlib import aclosing, contextmanager
from typing import TYPE_CHECKING, Any, cast

import anyio
import anyio.to_thread

from meerkat_mcp.domain.errors import MeerkatError
from meerkat_mcp.domain.messages import JsonObject, StopReason, Usage
from meerkat_mcp.providers import gemini_history, sse, wire
from meerkat_mcp.providers.base import Access, Model, ModelRequest, Part, Reply
from meerkat_mcp.providers.catalog import priced
from meerkat_mcp.providers.gemini_steps import Steps

if TYPE_CHECKING:
    import httpx2

API_VERSION = "v1"
MODELS_PAGE = 1000

_STOPS: Mapping[str, StopReason] = {
    "completed": "end",
    "requires_action": "end",
    "incomplete": "length",
    "requires_continuation": "pause",
}
_RPC_CODES = {
    3: "INVALID_ARGUMENT",
    4: "DEADLINE_EXCEEDED",
    5: "NOT_FOUND",
    7: "PERMISSION_DENIED",
    8: "RESOURCE_EXHAUSTED",
    13: "INTERNAL",
    14: "UNAVAILABLE",
    16: "UNAUTHENTICATED",
}
_OUR_FAULTS = frozenset({"invalid_argument", "invalid_request", "failed_precondition", "out_of_range"})
_REFUSED = re.compile(r"safety|prohibited|blocked|blocklist|recitation|policy|policies|harm|\bspii\b", re.IGNORECASE)
_WRITES_TEXT = frozenset({"generateContent", "createInteraction"})
_WRITES_NO_TEXT = re.compile(r"embedding|-tts|-image|imagen|veo|lyria")


class GeminiProvider:
    """Gemini models. `access.option("api_version")` is the version of the API, v1 unless said."""

    def __init__(self, access: Access, http: wire.Http, *, name: str = "gemini") -> None:
        self.name = name
        self._access = access
        self._http = http
        self._made: Any = None
        self._making = anyio.Lock()

    async def reply(self, request: ModelRequest) -> AsyncGenerator[Part]:
        """Stream one reply; see `Provider.reply`."""
        names = gemini_history.Names(request.tools)
        body = gemini_history.body(request, names, self.name)
        steps = Steps(names)
        with self._failures():
            create = (await self._client()).aio.interactions.with_streaming_response.create
            async with create(model=request.model, stream=True, extra_body=body) as response:
                self._check(response)
                async with aclosing(sse.events(response.http_response, self.name)) as events:
                    async for event in events:
                        for part in self._parts(steps, event):
                            yield part
                        if steps.final is not None:
                            await sse.drain(events)
        yield await self._reply(request, steps)

    async def models(self) -> tuple[Model, ...]:
        """What the vendor lists now, of models that write text; see `Provider.models`."""
        with self._failures():
            client = await self._client()
            listed = [model async for model in await client.aio.models.list(config={"page_size": MODELS_PAGE})]
        return tuple(self._model(model) for model in listed if _writes_text(model))

    def _model(self, listed: Any) -> Model:
        return Model(
            model=str(listed.name).removeprefix("models/"),
            provider=self.name,
            context_tokens=listed.input_token_limit,
            output_tokens_max=listed.output_token_limit,
            abilities=("reasoning",) if listed.thinking else (),
        )

    # ── the client ──

    async def _client(self) -> Any:
        """The SDK's client, made once. Everything is said to it, so that it asks the environment for nothing."""
        key = self._access.api_key
        if not key or not key.isascii() or not key.isprintable():
            raise wire.failure("auth", self.name, "no key" if not key else "the key is none: it holds odd characters")
        async with self._making:
            if self._made is None:
                shared = await self._http.client()
                httpx, sdk = await wire.load("httpx2"), await wire.load("google.genai")
                line = _Line(shared, self._access, httpx.Response)

                def make() -> Any:
                    options = {
                        "base_url": self._access.base_url,
                        "api_version": self._access.option("api_version") or API_VERSION,
                        "retry_options": {"attempts": 1},
                        "httpx_client": httpx.Client(transport=line, trust_env=False),  # never used, but cheap
                        "httpx_async_client": httpx.AsyncClient(transport=line, trust_env=False),
                    }
                    debug = sdk.client.DebugConfig(client_mode=None, replays_directory=None, replay_id=None)
                    client = sdk.Client(api_key=key, enterprise=False, http_options=options, debug_config=debug)
                    assert client.aio.interactions, "this imports half a second's worth: better here than in the loop"
                    return client

                self._made = await anyio.to_thread.run_sync(make)
        return self._made

    # ── the stream ──

    def _check(self, response: Any) -> None:
        """Whether a stream begins. The SDK raises only for 4xx and 5xx."""
        kind = str(response.headers.get("content-type", "text/event-stream"))
        if response.status_code != 200:
            status = int(response.status_code)
            raise wire.failure(wire.kind_of(status, None, ""), self.name, f"HTTP {status}", status=status)
        if not kind.startswith("text/event-stream"):
            raise wire.failure("malformed", self.name, f"the answer is {kind[:100]}, not a stream")

    def _parts(self, steps: Steps, event: JsonObject) -> Iterator[Part]:
        if event.get("event_type") == "error" or isinstance(event.get("error"), dict):
            raise self._told(event.get("error"))
        try:
            yield from steps.take(event)
        except (LookupError, TypeError, AttributeError, ValueError) as exc:
            raise wire.failure("malformed", self.name, f"an event is not as it should be ({exc!r})") from exc

    async def _reply(self, request: ModelRequest, steps: Steps) -> Reply:
        """How it ended.

        Raises:
            As `reply`: the interaction failed.
        """
        if steps.final is None:
            return Reply(stop_reason="truncated", usage=Usage(), model=steps.model, response_id=steps.response_id)
        status = str(steps.final.get("status"))
        stop, detail = _STOPS.get(status), ""
        if stop is None or (steps.error and not steps.calls):
            detail = self._refusal(status, steps.error)
            stop = "refusal"
        if stop == "end" and steps.calls:
            stop = "tool_calls"
        return Reply(
            stop_reason=stop,
            usage=await priced(self.name, steps.model or request.model, steps.usage),
            items=steps.items(),
            model=steps.model,
            response_id=steps.response_id,
            detail=detail,
        )

    def _refusal(self, status: str, error: JsonObject) -> str:
        """The vendor's word on why it will not answer.

        Raises:
            As `reply`: it did not refuse, it broke, or has no money left for us.
        """
        said = " ".join(str(error[name]) for name in ("status", "code", "message") if error.get(name))
        if status == "budget_exceeded":
            raise wire.failure("quota", self.name, said or "the budget is used up", code=status)
        if error and not _REFUSED.search(said):
            raise self._told(error)
        if status not in ("failed", *_STOPS):
            raise wire.failure("server", self.name, f"the interaction ended as {status}", code=status)
        return said or "Gemini failed the interaction and did not say why."

    # ── errors ──

    @contextmanager
    def _failures(self) -> Generator[None]:
        """Whatever the SDK, the network or a garbled stream raises within becomes an error of ours."""
        try:
            yield
        except Exception as exc:
            ours = self._failure(exc)
            if ours is None:
                raise
            raise ours from exc

    def _told(self, error: Any, status: int | None = None, headers: Mapping[str, str] | None = None) -> MeerkatError:
        """Our error for one in Google's own words: a message, a status or a code, details."""
        error = cast(JsonObject, error) if isinstance(error, dict) else {"message": str(error or "")}
        code, message = error.get("status") or error.get("code"), str(error.get("message") or "")
        if isinstance(code, int):
            status, code = (status or code, None) if code >= 100 else (status, _RPC_CODES.get(code, str(code)))
        code = str(code).rpartition("/")[2] if code else None
        listed: list[Any] = error.get("details") or []
        details = [cast(JsonObject, detail) for detail in listed if isinstance(detail, dict)]
        delay = next((_seconds(detail["retryDelay"]) for detail in details if "retryDelay" in detail), None)
        kind = wire.kind_of(status, code, message)
        if any(detail.get("reason") == "API_KEY_INVALID" for detail in details) or "API key not valid" in message:
            kind = "auth"  # which Google calls an invalid argument
        elif kind == "bad_request" and status is None and (code or "").lower() not in _OUR_FAULTS:
            kind = "server"  # the request had been taken
        said = message or code or (f"HTTP {status}" if status else "an error that it does not name")
        return wire.failure(kind, self.name, said, status=status, code=code, headers=headers, retry_after_s=delay)

    def _failure(self, exc: Exception) -> MeerkatError | None:
        """Our error for what the SDK, the network or a garbled stream raises; None for anything else."""
        if (known := wire.transport_failure(exc, self.name)) is not None:
            return known
        home = type(exc).__module__.partition(".")[0]
        kinds = {kind.__name__ for kind in type(exc).__mro__}
        if home == "httpx2":
            return wire.failure("bad_request", self.name, f"no request could be made ({exc})")
        if isinstance(exc, ImportError):
            return wire.failure("bad_request", self.name, f"google-genai cannot be used here ({exc})")
        if home == "pydantic_core":
            return wire.failure("malformed", self.name, "the answer is not as it should be")
        if home == "google":
            return self._sdk_failure(exc, kinds)
        return None

    def _sdk_failure(self, exc: Exception, kinds: set[str]) -> MeerkatError:
        """Our error for one of the SDK's. They are known by name: most live in modules that are not public."""
        if isinstance(exc.__cause__, Exception) and (known := wire.transport_failure(exc.__cause__, self.name)):
            return known
        if "APITimeoutError" in kinds:
            return wire.failure("timeout", self.name, "no answer in time")
        if kinds & {"APIConnectionError", "NoResponseError"}:
            return wire.failure("connection", self.name, "the connection failed")
        if kinds & {"APIResponseValidationError", "ResponseValidationError", "UnknownApiResponseError"}:
            return wire.failure("malformed", self.name, "the answer is not as it should be")
        response = getattr(exc, "response", None) or getattr(exc, "raw_response", None)
        status = getattr(exc, "status_code", None) or getattr(exc, "code", None)
        told: Any = getattr(exc, "body", None) or getattr(exc, "details", None)
        if isinstance(told, list):
            told = next(iter(cast("list[Any]", told)), None)
        if isinstance(told, dict):
            told = cast(JsonObject, told).get("error", cast(JsonObject, told))
        elif isinstance(told, str) and told.lstrip().startswith("<"):
            told = None  # a page for people
        elif not told and status is None:
            told = str(exc)
        return self._told(told, status if isinstance(status, int) else None, getattr(response, "headers", None))


class _Line:
    """Carries the SDK's requests over the shared client, with the timeouts of this provider.

    The SDK knows only one timeout for all, and sets none for the lists. What it takes from the environment to put
    into a header stays behind.
    """

    def __init__(self, shared: "httpx2.AsyncClient", access: Access, response: Any) -> None:
        self._shared = shared
        self._response = response
        way, silence = access.connect_timeout_s, access.idle_timeout_s
        self._timeout = {"connect": way, "pool": way, "read": silence, "write": silence}

    async def handle_async_request(self, request: Any) -> Any:
        """Send it; the body streams."""
        request.extensions["timeout"] = self._timeout
        request.headers.pop("x-goog-user-project", None)
        got = await self._shared.send(request, stream=True)
        return self._response(got.status_code, headers=got.headers, stream=got.stream, extensions=got.extensions)

    async def aclose(self) -> None:
        """Nothing here is ours to close."""


def _seconds(duration: Any) -> float | None:
    """A duration as Google writes it: "1.5s"."""
    try:
        return max(0.0, float(str(duration).removesuffix("s")))
    except ValueError:
        return None


def _writes_text(listed: Any) -> bool:
    actions = listed.supported_actions
    return (actions is None or not _WRITES_TEXT.isdisjoint(actions)) and not _WRITES_NO_TEXT.search(str(listed.name))
