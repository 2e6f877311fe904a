"""The fake itself: the vendors' endpoints, the script and the recordings of each lane, and the same over HTTP.

POST /v1/messages, /v1/responses, /v1/chat/completions, /v1/interactions; what counts tokens; the lists of models.
POST /_fake/{lane} queues turns, GET reads the recordings and can wait for them, DELETE forgets the lane.

A lane is an API key. A missing key, and one that begins with `bad-`, gets the vendor's 401. A request that the vendor
would refuse gets the vendor's 400 and plays no turn, unless the lane is lenient.
"""

from collections import defaultdict
from collections.abc import Awaitable, Callable
from typing import Any

from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from vendors import models
from vendors.anthropic_wire import AnthropicWire
from vendors.chat_wire import ChatWire
from vendors.checks import anthropic, chat, interactions, responses, thinking_binding
from vendors.checks.asking import Asked, Check, Objection, objection
from vendors.interactions_wire import InteractionsWire
from vendors.lanes import Lane, Seen
from vendors.playing import Played
from vendors.responses_wire import ResponsesWire
from vendors.script import Fault, JsonObject, Turn, Wire, turn_from_json

Endpoint = Callable[[Request], Awaitable[Response]]
Remember = Callable[[dict[Any, Any], JsonObject, JsonObject], None]
BAD_KEY = "bad-"


class FakeLLM:
    """All vendors in one app. A lane's turns are played in order; each request is recorded."""

    def __init__(self) -> None:
        self._lanes: dict[str, Lane] = defaultdict(Lane)
        self._chat = ChatWire()
        claude, gpt, gemini = AnthropicWire(), ResponsesWire(), InteractionsWire()
        self.app = Starlette(
            routes=[
                _post("/v1/messages", self._wire(claude, anthropic.CHECKS, thinking_binding.remember)),
                _post("/v1/messages/count_tokens", self._count(claude)),
                _post("/v1/responses", self._wire(gpt, responses.CHECKS, responses.remember)),
                _post("/v1/responses/input_tokens", self._count(gpt, object="response.input_tokens")),
                _post("/v1/chat/completions", self._wire(self._chat, chat.CHECKS, chat.remember)),
                _post("/{version}/interactions", self._wire(gemini, interactions.CHECKS, interactions.remember)),
                Route("/{version:str}/models", self._models),
                Route("/{version:str}/models/{model}", self._models),
                Route("/_fake/{lane}", self._control, methods=["GET", "POST", "DELETE"]),
            ]
        )

    @property
    def reasoning_key(self) -> str:
        """Where chat.completions puts reasoning: `reasoning_content` or `reasoning`."""
        return self._chat.reasoning_key

    @reasoning_key.setter
    def reasoning_key(self, key: str) -> None:
        self._chat.reasoning_key = key

    # ── for the tests ──

    def queue(self, lane: str, *turns: Turn) -> None:
        """Play these, one a request, after what is queued already."""
        self._lanes[lane].turns.extend(turns)

    def always(self, lane: str, turn: Turn) -> None:
        """Play this whenever nothing is queued."""
        self._lanes[lane].always = turn

    def lenient(self, lane: str) -> None:
        """Take any request."""
        self._lanes[lane].lenient = True

    def requests(self, lane: str) -> list[Seen]:
        """What was asked, but for the lists of models."""
        return self._lanes[lane].seen

    def lookups(self, lane: str) -> list[Seen]:
        """The requests for lists of models."""
        return self._lanes[lane].lookups

    def wait_requests(self, lane: str, count: int, timeout_s: float = 5) -> list[Seen]:
        """Block this thread until so many requests have come.

        Raises:
            TimeoutError: there were fewer.
        """
        known = self._lanes[lane]
        if not known.wait(lambda: len(known.seen) >= count, timeout_s):
            raise TimeoutError(f"{len(known.seen)} of {count} requests came within {timeout_s} s")
        return known.seen

    def forget(self, lane: str) -> None:
        """Drop the lane's turns, recordings and memory."""
        self._lanes.pop(lane, None)

    async def _control(self, request: Request) -> Response:
        """The same over HTTP.

        POST takes a list of turns, or `turns`, `always` and `lenient`. GET takes `until` (requests, finished,
        disconnected or rejected), `count` and `timeout_s`; it answers 408 when that took too long.
        """
        name = request.path_params["lane"]
        status = 200
        if request.method == "POST":
            asked = await request.json()
            script = {"turns": asked} if isinstance(asked, list) else asked
            self.queue(name, *map(turn_from_json, script.get("turns", [])))
            if "always" in script:
                self.always(name, turn_from_json(script["always"]))
            if script.get("lenient"):
                self.lenient(name)
        elif request.method == "DELETE":
            self.forget(name)
        elif "until" in request.query_params and not await self._waited(name, request):
            status = 408
        return JSONResponse([seen.as_json() for seen in self.requests(name)], status)

    async def _waited(self, name: str, request: Request) -> bool:
        lane, asked = self._lanes[name], request.query_params
        until, count = asked["until"], int(asked.get("count", 1))

        def reached() -> bool:
            return sum(until == "requests" or bool(getattr(seen, until)) for seen in lane.seen) >= count

        return await lane.reached(reached, float(asked.get("timeout_s", 5)))

    # ── the endpoints ──

    def _wire(self, wire: Wire, checks: tuple[Check, ...], remember: Remember) -> Endpoint:
        async def answer(request: Request) -> Response:
            body = await request.json()
            name = _key(request, wire.name)
            lane = self._lanes[name]
            seen = _seen(wire.name, request, body)
            lane.seen.append(seen)
            wrong = _unknown_key(name)
            if wrong is None and not lane.lenient:
                wrong = objection(checks, Asked(body, seen.headers, lane.memory))
            turn = None if wrong else lane.next_turn()
            if turn is None:
                wrong = wrong or Objection("no turn is queued in this lane", code="fake_script_exhausted")
                seen.rejected = wrong.message
                lane.changed()
                return _refused(wire, wrong)
            lane.changed()
            frames = list(wire.frames(turn, body))
            if not lane.lenient:
                remember(lane.memory, body, wire.whole(frames))
            return Played(wire, lane, seen, frames, turn.fault or Fault())

        return answer

    def _count(self, wire: Wire, **more: Any) -> Endpoint:
        async def count(request: Request) -> Response:
            body = await request.body()
            name = _key(request, wire.name)
            lane = self._lanes[name]
            lane.seen.append(_seen("count", request, await request.json()))
            lane.changed()
            if wrong := _unknown_key(name):
                return _refused(wire, wrong)
            return JSONResponse({"input_tokens": len(body) // 4, **more})

        return count

    async def _models(self, request: Request) -> Response:
        wire: Wire = self._chat
        if "x-goog-api-key" in request.headers:
            wire = InteractionsWire()
        elif "anthropic-version" in request.headers:
            wire = AnthropicWire()
        name = _key(request, wire.name)
        self._lanes[name].lookups.append(_seen("models", request, None))
        self._lanes[name].changed()
        if wrong := _unknown_key(name):
            return _refused(wire, wrong)
        if (model := request.path_params.get("model")) is None:
            return JSONResponse(models.listing(request))
        found = models.one(request, model)
        return JSONResponse(found) if found else _refused(wire, Objection(f"model: {model}", status=404))


def _key(request: Request, wire: str) -> str:
    """The API key, where this vendor looks for it; empty without."""
    headers = request.headers
    if wire == "interactions":
        return headers.get("x-goog-api-key", "")
    own = headers.get("x-api-key") if wire == "anthropic" else None
    scheme, _, token = headers.get("authorization", "").partition(" ")
    return own or (token if scheme.lower() == "bearer" else "")


def _unknown_key(key: str) -> Objection | None:
    if not key:
        return Objection("You didn't provide an API key.", status=401)
    return Objection("invalid x-api-key", status=401) if key.startswith(BAD_KEY) else None


def _refused(wire: Wire, wrong: Objection) -> Response:
    error = wire.error(wrong.status, wrong.code, wrong.message)
    if "param" in error["error"]:
        error["error"]["param"] = wrong.param
    return JSONResponse(error, wrong.status, {"request-id": "req_refused", "x-request-id": "req_refused"})


def _post(path: str, endpoint: Endpoint) -> Route:
    return Route(path, endpoint, methods=["POST"])


def _seen(wire: str, request: Request, body: Any) -> Seen:
    query = f"?{request.url.query}" if request.url.query else ""
    return Seen(wire, request.url.path + query, dict(request.headers), body)
