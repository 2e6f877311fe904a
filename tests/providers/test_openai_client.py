"""What holds on both of OpenAI's wires: faults become our errors, nothing strays in, leaving hangs up."""

import itertools
import json
import time
from collections.abc import AsyncIterator, Callable
from typing import Any

import anyio
import anyio.to_thread
import httpx2
import openai
import pytest
from providers.openai_talk import CLOCK, WEATHER, WIRES, Talk
from vendors.script import Call, Fault, Text, Thinking, Turn
from vendors.server import Server

from meerkat_mcp.domain.errors import ProviderRejected, ProviderUnauthenticated, ProviderUnavailable
from meerkat_mcp.domain.messages import JsonObject
from meerkat_mcp.providers import openai_chat, openai_client, openai_responses, wire
from meerkat_mcp.providers.base import Piece, Reply
from meerkat_mcp.providers.wire import Http

pytestmark = pytest.mark.anyio
Make = Callable[..., Talk]
TALKING = Turn([Text("one two three four five six seven eight")])


@pytest.fixture
async def http() -> AsyncIterator[Http]:
    http = Http()
    yield http
    await http.close()


@pytest.fixture(params=WIRES)
def talk(request: pytest.FixtureRequest, vendors: Server, http: Http) -> Make:
    return lambda *turns, **access: Talk(request.param, vendors, http, *turns, **access)


def faulty(**fault: Any) -> Turn:
    return Turn(TALKING.parts, fault=Fault(**fault))


# ── faults ──

UNAVAILABLE, REJECTED, UNAUTHENTICATED = ProviderUnavailable, ProviderRejected, ProviderUnauthenticated


@pytest.mark.parametrize(
    ("fault", "error", "kind"),
    [
        (Fault(status=429, headers={"retry-after": "7"}), UNAVAILABLE, "rate_limit"),
        (Fault(status=429, code="insufficient_quota"), REJECTED, "quota"),
        (Fault(status=500), UNAVAILABLE, "server"),
        (Fault(status=502, body="<html>Bad Gateway</html>"), UNAVAILABLE, "server"),
        (Fault(status=503, body="<html>" + "x" * 5_000), UNAVAILABLE, "overloaded"),
        (Fault(status=504), UNAVAILABLE, "timeout"),
        (Fault(status=400, code="invalid_prompt"), REJECTED, "bad_request"),
        (Fault(status=400, code="context_length_exceeded"), REJECTED, "context"),
        (Fault(status=401), UNAUTHENTICATED, "auth"),
        (Fault(status=403), UNAUTHENTICATED, "auth"),
        (Fault(status=404, code="model_not_found"), REJECTED, "not_found"),
        (Fault(status=422), REJECTED, "bad_request"),
        (Fault(status=302, headers={"location": "/elsewhere"}, body="moved"), REJECTED, "bad_request"),
        (Fault(cut_after=0), UNAVAILABLE, "connection"),
        (Fault(cut_after=4), UNAVAILABLE, "connection"),
        (Fault(error_after=4), UNAVAILABLE, "server"),
        (Fault(error_after=4, code="rate_limit_exceeded"), UNAVAILABLE, "rate_limit"),
        (Fault(error_after=4, code="context_length_exceeded"), REJECTED, "context"),
        (Fault(garbage_after=4), UNAVAILABLE, "malformed"),
        (Fault(garbage_after=4, garbage=b"data: \xff\xfe\n\n"), UNAVAILABLE, "malformed"),
        (Fault(garbage_after=4, garbage=b'data: {"error": "the runner has stopped"}\n\n'), UNAVAILABLE, "server"),
    ],
    ids=str,
)
async def test_a_fault_is_an_error_of_ours_before_and_in_the_stream(talk: Make, fault: Fault, error: type, kind: str):
    chat = talk(Turn(TALKING.parts, fault=fault))
    with pytest.raises(error) as caught:
        await chat.say("Hello")
    assert caught.value.facts["kind"] == kind
    assert caught.value.facts["provider"] == chat.provider.name
    assert len(caught.value.message) < 600
    assert "<html>" not in caught.value.message
    assert len(chat.seen) == 1, "asking again is the caller's business"
    if fault.headers.get("retry-after"):
        assert caught.value.retry_after_s == 7
    if fault.status and fault.status >= 400:
        assert caught.value.facts["status"] == fault.status
        assert caught.value.facts["request_id"]


@pytest.mark.parametrize("garbage", [b"data: 5\n\n", b"data: [1]\n\n", b'data: "x"\n\n', b"data: null\n\n"])
async def test_an_event_that_is_no_object_is_a_garbled_stream(talk: Make, garbage: bytes):
    with pytest.raises(ProviderUnavailable) as caught:
        await talk(faulty(garbage_after=4, garbage=garbage)).say("Hello")
    assert caught.value.facts["kind"] == "malformed"


@pytest.mark.parametrize("frames", [0, 1, 4, 6])
async def test_a_stream_that_just_ends_is_truncated_and_its_open_block_is_not_whole(talk: Make, frames: int):
    chat = talk(faulty(end_after=frames))
    reply = await chat.say("Hello")
    assert reply.stop_reason == "truncated"
    assert reply.items == ()
    assert chat.wholes() == []


@pytest.mark.parametrize(
    "fault", [{"chunk": 3}, {"garbage_after": 3, "garbage": b": keep-alive\n\n"}, {"delay": 0.001}]
)
async def test_how_the_bytes_are_cut_does_not_matter(talk: Make, fault: dict[str, Any]):
    chat = talk(Turn([Text("Grüße, Welt — 😀")], piece=3, fault=Fault(**fault)))
    await chat.say("Hello")
    assert chat.wholes() == ["Grüße, Welt — 😀"]
    assert "".join(chat.pieces()) == "Grüße, Welt — 😀"


@pytest.mark.parametrize("fault", [{"stall_before": 60}, {"stall_after": 4, "stall_for": 60}], ids=str)
async def test_silence_is_a_timeout(talk: Make, fault: dict[str, Any]):
    with pytest.raises(ProviderUnavailable) as caught:
        await talk(faulty(**fault), idle_timeout_s=0.1).say("Hello")
    assert caught.value.facts["kind"] == "timeout"


async def test_nobody_listening_is_a_connection_that_failed(talk: Make):
    with pytest.raises(ProviderUnavailable) as caught:
        await talk(base_url="http://127.0.0.1:9/v1").say("Hello")
    assert caught.value.facts["kind"] == "connection"


@pytest.mark.parametrize("base_url", ["http://[half/v1", "ftp://127.0.0.1/v1"])
async def test_an_address_that_is_none_is_an_error_of_ours(talk: Make, base_url: str):
    with pytest.raises((ProviderRejected, ProviderUnavailable)):
        await talk(base_url=base_url).say("Hello")


@pytest.mark.parametrize("key", ["sk-schlüssel", "sk-two\nlines"])
async def test_a_key_that_no_header_can_carry_is_told_without_quoting_it(talk: Make, key: str):
    chat = talk(TALKING, api_key=key)
    with pytest.raises(ProviderUnauthenticated) as caught:
        await chat.say("Hello")
    assert key[3:] not in str(caught.value.as_dict())


async def test_half_a_character_cannot_be_sent(talk: Make):
    with pytest.raises(ProviderRejected, match="half a character"):
        await talk(TALKING).say("\ud800")


async def test_one_connection_serves_reply_after_reply(talk: Make, http: Http):
    connected: list[str] = []

    async def trace(event: str, info: Any) -> None:
        if event == "connection.connect_tcp.complete":
            connected.append(event)

    async def watch(request: httpx2.Request) -> None:
        request.extensions["trace"] = trace

    (await http.client()).event_hooks = {"request": [watch]}
    chat = talk(TALKING, faulty(status=500), faulty(error_after=4), TALKING, TALKING)
    await chat.say("Hello")
    with pytest.raises(ProviderUnavailable):
        await chat.say("Hello")
    assert len(connected) == 1
    with pytest.raises(ProviderUnavailable):
        await chat.say("Hello")  # what else this one would say is not waited for
    for _ in range(2):
        await chat.say("Hello")
    assert len(connected) == 2


# ── every exception ──


def exceptions(module: Any) -> list[type[Exception]]:
    found = [getattr(module, name) for name in dir(module)]
    return [one for one in found if isinstance(one, type) and issubclass(one, Exception)]


def one(kind: type[Exception], status: int = 400) -> Exception:
    """An exception of that class, however it wants to be made."""
    request = httpx2.Request("POST", "http://127.0.0.1/v1")
    response = httpx2.Response(status, request=request)
    ways: list[tuple[tuple[Any, ...], JsonObject]] = [
        (("no",), {"response": response, "body": {"message": "no", "type": "t"}}),
        ((), {"response": response, "body": {"message": "no"}}),
        (("no",), {"request": request, "body": None}),
        ((), {"request": request}),
        ((request,), {}),
        ((response, None), {}),
        (("no",), {"request": request, "response": response}),
        (("no",), {"unsent_messages": []}),
        ((), {"completion": None}),
        (("no",), {}),
        ((), {}),
    ]
    for args, kwargs in ways:
        try:
            return kind(*args, **kwargs)
        except (TypeError, AttributeError):
            continue
    made = kind.__new__(kind)
    Exception.__init__(made, "no")
    return made


@pytest.mark.parametrize(
    "kind", [*exceptions(openai), *exceptions(httpx2)], ids=lambda kind: f"{kind.__module__}.{kind.__name__}"
)
def test_every_exception_of_the_sdk_and_of_the_transport_has_an_error_of_ours(kind: type[Exception]):
    error = openai_client.failure_of(one(kind), "openai")
    assert error is not None
    assert isinstance(error, wire.ERRORS[error.facts["kind"]])


def test_the_sdk_has_no_class_that_this_table_does_not_know_beyond_those_with_a_status():
    """A new class gets looked at before it is taken for a request of ours that was wrong."""
    known = set(openai_client.KINDS) | {"OpenAIError", "APIError", "_AmbiguousModuleClientUsageError"}
    rest = [kind for kind in exceptions(openai) if not issubclass(kind, openai.APIStatusError)]
    assert {kind.__name__ for kind in rest} <= known
    assert set(openai_client.KINDS) <= {kind.__name__ for kind in [*rest, *exceptions(openai._exceptions)]}


@pytest.mark.parametrize(
    ("status", "kind"),
    {
        400: "bad_request",
        401: "auth",
        402: "quota",
        404: "not_found",
        408: "timeout",
        409: "server",
        413: "context",
        422: "bad_request",
        429: "rate_limit",
        500: "server",
        503: "overloaded",
    }.items(),
)
def test_a_status_without_a_code_says_enough(status: int, kind: str):
    error = openai_client.failure_of(one(openai.APIStatusError, status), "openai")
    assert error is not None
    assert error.facts["kind"] == kind


@pytest.mark.parametrize(
    ("body", "kind", "said"),
    [
        ({"message": "Model not loaded", "code": 404, "type": "NotFoundError"}, "not_found", "Model not loaded"),
        ({"message": "too big", "code": 400, "type": "exceed_context_size_error"}, "context", "too big"),
        ({"message": "This model's maximum context length is 9 tokens"}, "context", "maximum context length"),
        ("model 'x' not found", "bad_request", "model 'x' not found"),
        ("", "bad_request", "no"),
    ],
    ids=str,
)
def test_other_servers_errors_are_read_as_they_mean_them(body: Any, kind: str, said: str):
    status = body["code"] if isinstance(body, dict) and "code" in body else 400
    response = httpx2.Response(status, request=httpx2.Request("POST", "http://127.0.0.1/v1"))
    error = openai_client.failure_of(openai.APIStatusError("no", response=response, body=body), "self_hosted")
    assert error is not None
    assert error.facts["kind"] == kind
    assert said in error.message


@pytest.mark.parametrize(
    ("exc", "kind"),
    [
        (json.JSONDecodeError("no", "", 0), "malformed"),
        (UnicodeDecodeError("utf-8", b"\xff", 0, 1, "no"), "malformed"),
        (UnicodeEncodeError("utf-8", "\ud800", 0, 1, "no"), "bad_request"),
        (TimeoutError(), "timeout"),
        (ConnectionResetError(), "connection"),
        (anyio.EndOfStream(), "connection"),
    ],
    ids=lambda value: type(value).__name__ if isinstance(value, Exception) else value,
)
def test_what_else_may_come_out_of_a_transport_is_known_too(exc: Exception, kind: str):
    error = openai_client.failure_of(exc, "openai")
    assert error is not None
    assert error.facts["kind"] == kind


@pytest.mark.parametrize(
    "exc", [AttributeError("x"), KeyError("x"), IndexError(), TypeError(), ValueError(), RecursionError()], ids=repr
)
def test_a_surprise_is_a_garbled_stream_only_while_one_is_read(exc: Exception):
    error = openai_client.failure_of(exc, "openai", reading=True)
    assert error is not None
    assert error.facts["kind"] == "malformed"
    assert openai_client.failure_of(exc, "openai") is None
    with pytest.raises(type(exc)), openai_client.failures("openai"):
        raise exc


# ── hanging up ──


@pytest.mark.parametrize("fault", [{"stall_before": 60}, {"stall_after": 6}], ids=str)
async def test_cancelling_closes_the_connection_at_once(talk: Make, fault: dict[str, Any]):
    chat = talk(TALKING, faulty(**fault), TALKING)
    await chat.say("Hello")
    begun = anyio.Event()

    async def listen() -> None:
        async for _ in chat.provider.reply(chat.asked("Go on")):
            begun.set()

    with anyio.fail_after(10):
        async with anyio.create_task_group() as group:
            group.start_soon(listen)
            if "stall_before" in fault:
                await anyio.to_thread.run_sync(chat.server.fake.wait_requests, chat.lane, 2)
            else:
                await begun.wait()
            cancelled = time.time()
            group.cancel_scope.cancel()
        seen = chat.seen[1]
        assert await anyio.to_thread.run_sync(seen.gone.wait, 5)
    assert seen.disconnected is not None
    assert seen.disconnected - cancelled < 0.05
    assert (await chat.say("Once more")).stop_reason == "end", "the client can still be used"


async def test_leaving_the_stream_hangs_up_too(talk: Make):
    chat = talk(faulty(stall_after=6))
    with anyio.fail_after(10):
        stream = chat.provider.reply(chat.asked("Hello"))
        assert isinstance(await anext(stream), Piece)
        await stream.aclose()
        assert await anyio.to_thread.run_sync(chat.seen[0].gone.wait, 5)


# ── the environment ──

STRAY = {
    "OPENAI_API_KEY": "stray-key",
    "OPENAI_ADMIN_KEY": "stray-admin",
    "OPENAI_ORG_ID": "stray-org",
    "OPENAI_PROJECT_ID": "stray-project",
    "OPENAI_BASE_URL": "http://127.0.0.1:9/stray",
    "OPENAI_CUSTOM_HEADERS": "X-Stray: stray-header\nAuthorization: Bearer stray\nOpenAI-Organization: stray",
    "OPENAI_WEBHOOK_SECRET": "stray-secret",
}


async def test_nothing_of_the_environment_reaches_a_server(talk: Make, monkeypatch: pytest.MonkeyPatch):
    for name, value in STRAY.items():
        monkeypatch.setenv(name, value)
    chat = talk(TALKING)
    await chat.say("Hello")
    await chat.provider.models()
    for seen in (*chat.seen, *chat.server.fake.lookups(chat.lane)):
        assert "stray" not in f"{seen.headers} {seen.body} {seen.path}"
        assert "openai-organization" not in seen.headers
        assert "openai-project" not in seen.headers
        assert seen.headers["authorization"] == f"Bearer {chat.lane}"


async def test_organization_and_project_are_sent_when_they_are_configured(talk: Make):
    chat = talk(TALKING, options=(("organization", "org-1"), ("project", "proj-2")))
    await chat.say("Hello")
    assert chat.seen[0].headers["openai-organization"] == "org-1"
    assert chat.seen[0].headers["openai-project"] == "proj-2"


# ── parameters ──

PARAMS = {"openai": openai_responses.PARAMS, "self_hosted": openai_chat.PARAMS}


@pytest.mark.parametrize(
    ("wrong", "nearest"), [("reasoning_efort", "reasoning_effort"), ("paralel_tool_call", "parallel_tool_calls")]
)
async def test_an_unknown_parameter_is_refused_with_the_nearest_one(talk: Make, wrong: str, nearest: str):
    chat = talk(TALKING)
    with pytest.raises(ProviderRejected, match=f"Did you mean '{nearest}'"):
        await chat.say("Hello", provider_params={wrong: "high"})
    assert chat.seen == []


async def test_a_parameter_like_no_other_is_refused_with_the_list(talk: Make):
    chat = talk(TALKING)
    with pytest.raises(ProviderRejected) as caught:
        await chat.say("Hello", provider_params={"zzz": 1})
    assert all(name in caught.value.message for name in PARAMS[chat.provider.name])
    assert chat.seen == []


WRONG: dict[str, list[Any]] = {
    "reasoning_effort": ["huge", 3, None],
    "reasoning_summary": ["long"],
    "verbosity": ["loud"],
    "service_tier": ["cheap"],
    "parallel_tool_calls": ["yes", 1],
    "truncation": [True],
    "safety_identifier": ["", "x" * 129, 5],
    "prompt_cache_ttl": ["5m", 30],
    "tool_choice": ["required", {"type": "function", "name": "weather"}],
    "metadata": [{"a": 1}, "x", {str(n): "" for n in range(17)}, {"x" * 65: ""}],
    "temperature": [-0.1, 2.1, "1", True, float("nan"), float("inf")],
    "top_p": [1.1, None],
    "top_k": [-2, 1.5, True],
    "seed": ["1", 2**64],
    "stop": ["", [], ["a", 1], ["x"] * 17],
    "frequency_penalty": [3],
    "presence_penalty": [-3],
    "extra_body": ["x", {"model": "other"}, {"messages": []}],
}


async def test_a_wrong_value_is_refused_before_anything_is_sent(talk: Make):
    chat = talk(TALKING)
    rules = PARAMS[chat.provider.name]
    assert rules.keys() <= WRONG.keys()
    for name in rules:
        for value in WRONG[name]:
            with pytest.raises(ProviderRejected, match=f"provider_params.{name} must be "):
                await chat.say("Hello", provider_params={name: value})
    assert chat.seen == []


# ── conversations ──


async def test_the_next_request_begins_with_the_last_one(talk: Make):
    chat = talk(
        Turn([Thinking("Hm."), Text("Let me see."), Call("weather", {"city": "Oslo"}), Call("clock")]),
        Turn([Text("Cold.")]),
        Turn([Text("Bye.")]),
    )
    await chat.say("Weather?", system_prompt="Be brief.", tools=(WEATHER, CLOCK), session_id="s")
    await chat.answer("-3", "noon")
    await chat.say("Thanks")
    history = "input" if "input" in chat.bodies[0] else "messages"
    bodies = chat.bodies
    for earlier, later in itertools.pairwise(bodies):
        assert json.dumps(later[history]).startswith(json.dumps(earlier[history])[:-1])
        assert [json.dumps({**earlier, history: 0}), json.dumps({**later, history: 0})] == [
            json.dumps({**bodies[0], history: 0})
        ] * 2


async def test_the_client_is_built_once_also_for_replies_that_begin_together(talk: Make):
    chat = talk(*[TALKING] * 4)

    async def ask() -> None:
        parts = [part async for part in chat.provider.reply(chat.asked("Hello"))]
        assert isinstance(parts[-1], Reply)

    with anyio.fail_after(10):
        async with anyio.create_task_group() as group:
            for _ in range(4):
                group.start_soon(ask)
    assert len(chat.seen) == 4


async def test_the_models_are_those_that_the_server_lists(talk: Make):
    chat = talk()
    models = await chat.provider.models()
    assert {"gpt-6-sol", "gpt-5.5"} <= {model.model for model in models}
    assert {model.provider for model in models} == {chat.provider.name}
    assert all(model.input_usd is None for model in models)


async def test_a_list_of_models_that_cannot_be_had_is_an_error_of_ours(talk: Make):
    with pytest.raises(ProviderUnauthenticated):
        await talk(api_key="bad-key").provider.models()
