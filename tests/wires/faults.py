"""All that goes wrong between us and a vendor, as a table: what the vendor does, and what the log must say of it.

The expected log begins after the first `step_started`, in the words of `talk.told`. Each fault is a function of the
wire, for the wires differ in what they can say.
"""

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from itertools import pairwise
from typing import Any

import pytest
from vendors.lanes import Seen
from vendors.script import Call, Fault, Text, Turn
from wires.talk import GOOD, RETRY, WIRES, JsonObject, Spoken, told, tool

DONE = ["text_complete All is well.", "step_completed end", "turn_completed end"]
HALF = "Half of the answer."
SEEN = "Half of the answ"
"""What of it is said before the middle."""
PAGE = "<html><head><title>503</title></head><body><h1>Service Temporarily Unavailable</h1></body></html>"
IDLE_S = 0.6
CALL_S = 1.2
CLOSED = "http://127.0.0.1:9"
"""Where nobody listens: the port of the discard service."""
WEATHER = tool("weather", "city")


@dataclass(frozen=True)
class Case:
    """What the vendor does, and what is to come of it. `delays` are the pauses; None: what our backoff makes them."""

    turns: Sequence[Turn]
    log: Sequence[str]
    requests: int
    reached: JsonObject = field(default_factory=dict)
    error: JsonObject = field(default_factory=dict)
    says: str = ""
    never_says: tuple[str, ...] = (HALF[:8], "<html", "h1>")
    delays: Sequence[float] | None = None
    key: str = ""

    @property
    def keeps_half(self) -> bool:
        """Whether the half of the answer belongs to the conversation from now on."""
        return (f"text_complete {HALF}", "step_completed length") in pairwise(self.log)


Making = Callable[[Spoken], Case]
FAULTS: dict[str, Making] = {}


def fault(make: Making) -> Making:
    """Put a fault into the table."""
    FAULTS[make.__name__] = make
    return make


def check(case: Case, events: Sequence[JsonObject], seen: Sequence[Seen]) -> None:
    """Hold a log, and what the fake saw, against the table."""
    lines = told(list(events))
    assert lines[:3] == ["session_created", "turn_started", "step_started"]
    assert lines[3:] == list(case.log)
    assert len(seen) == case.requests
    assert [one.rejected for one in seen if not case.key] == [None] * (0 if case.key else case.requests)
    pauses = [event["delay_s"] for event in events if event["type"] == "retrying"]
    if case.delays is not None:
        assert pauses == list(case.delays)
    else:
        for number, pause in enumerate(pauses):
            longest = RETRY["base_delay_s"] * 2**number
            assert 0.7 * longest <= pause <= longest
    for pause, (before, after) in zip(pauses, pairwise(seen), strict=False):
        assert after.at - before.at >= pause
    error: JsonObject = next((event["error"] for event in events if event["type"] == "turn_failed"), {})
    assert {name: error.get(name) for name in case.error} == case.error
    assert case.says in json.dumps(error)
    messages = json.dumps([event["message"] for event in events if event["type"] == "retrying"] + [error])
    for word in case.never_says:
        assert word not in messages


def retried(*kinds: str, of: int = RETRY["attempts"], said: str = "") -> list[str]:
    """The log of attempts that failed so."""
    lines: list[str] = []
    for number, kind in enumerate(kinds):
        lines += [f"text_delta {said}"] if said else []
        lines.append(f"retrying {number + 2}/{of} {kind}")
    return lines


def half(**what: Any) -> Turn:
    """A text that something happens to."""
    return Turn([Text(HALF)], fault=Fault(**what))


def limited(wire: Spoken, seconds: float) -> Turn:
    """A refusal for now. Google says how long in the body, the others in a header."""
    if wire.provider != "gemini":
        return Turn(fault=Fault(status=429, headers={"retry-after": str(seconds)}))
    info = {"@type": "type.googleapis.com/google.rpc.RetryInfo", "retryDelay": f"{seconds}s"}
    said = {"code": 429, "message": "Resource exhausted.", "status": "RESOURCE_EXHAUSTED", "details": [info]}
    return Turn(fault=Fault(status=429, body=json.dumps({"error": said})))


# ── what is worth asking again ──


@fault
def a_rate_limit_that_passes(wire: Spoken) -> Case:
    return Case([limited(wire, 0.2), GOOD], [*retried("rate_limit"), *DONE], 2, delays=[0.2])


@fault
def a_rate_limit_that_stays(wire: Spoken) -> Case:
    return Case(
        [limited(wire, 0.02)] * 3,
        [*retried("rate_limit", "rate_limit"), "turn_failed provider_unavailable rate_limit"],
        3,
        delays=[0.02, 0.02],
        error={"retryable": True, "retry_after_s": 0.02, "status": 429, "provider": wire.provider},
    )


@fault
def a_rate_limit_of_an_hour(wire: Spoken) -> Case:
    return Case(
        [limited(wire, 3600)],
        ["turn_failed provider_unavailable rate_limit"],
        1,
        error={"retryable": True, "retry_after_s": 3600, "status": 429},
        says="longer than retry.max_delay_s allows",
    )


@fault
def a_proxy_that_shows_a_page(wire: Spoken) -> Case:
    return Case(
        [Turn(fault=Fault(status=503, body=PAGE))] * 3,
        [*retried("overloaded", "overloaded"), "turn_failed provider_unavailable overloaded"],
        3,
        error={"retryable": True, "status": 503},
    )


@fault
def an_internal_error(wire: Spoken) -> Case:
    return Case([Turn(fault=Fault(status=500)), GOOD], [*retried("server"), *DONE], 2)


@fault
def an_overload_by_status(wire: Spoken) -> Case:
    return Case([Turn(fault=Fault(status=529)), GOOD], [*retried("overloaded"), *DONE], 2)


@fault
def an_overload_in_the_stream(wire: Spoken) -> Case:
    kind = {"anthropic": "overloaded", "gemini": "overloaded"}.get(wire.provider, "server")
    return Case([half(error_after=wire.middle), GOOD], [*retried(kind), *DONE], 2)


@fault
def an_overload_in_every_stream(wire: Spoken) -> Case:
    kind = {"anthropic": "overloaded", "gemini": "overloaded"}.get(wire.provider, "server")
    end = [f"text_delta {SEEN}", f"turn_failed provider_unavailable {kind}"]
    return Case([half(error_after=wire.middle)] * 3, [*retried(kind, kind, said=SEEN), *end], 3)


@fault
def a_connection_that_is_cut(wire: Spoken) -> Case:
    return Case([half(cut_after=wire.middle), GOOD], [*retried("connection"), *DONE], 2)


@fault
def a_connection_that_is_always_cut(wire: Spoken) -> Case:
    end = [f"text_delta {SEEN}", "turn_failed provider_unavailable connection"]
    kinds = ("connection", "connection")
    return Case([half(cut_after=wire.middle)] * 3, [*retried(*kinds, said=SEEN), *end], 3, error={"retryable": True})


@fault
def a_stream_that_just_stops(wire: Spoken) -> Case:
    return Case([half(end_after=wire.middle), GOOD], [*retried("truncated"), *DONE], 2)


@fault
def a_stream_that_stops_before_its_last_event(wire: Spoken) -> Case:
    """All was said, also a call: it is not made, for whoever did not say that it is over may have meant more."""
    parts = [Text(HALF), Call("weather", {"city": "Oslo"})]
    turn = Turn(parts, fault=Fault(end_after=wire.frames(Turn(parts)) - wire.ending))
    call = [] if wire.provider == "self_hosted" else ['tool_call_requested weather {"city": "Oslo"}']
    return Case([turn, GOOD], [f"text_complete {HALF}", *call, *retried("truncated"), *DONE], 2)


@fault
def an_empty_stream(wire: Spoken) -> Case:
    return Case([half(end_after=0), GOOD], [*retried("truncated"), *DONE], 2)


@fault
def json_that_is_none(wire: Spoken) -> Case:
    garbage = wire.grown.replace(b"{", b"{not ", 1)
    return Case([half(garbage_after=wire.middle, garbage=garbage), GOOD], [*retried("malformed"), *DONE], 2)


@fault
def text_that_is_no_utf_8(wire: Spoken) -> Case:
    garbage = wire.grown.replace(b"TEXT", b"\xff\xfe")
    return Case([half(garbage_after=wire.middle, garbage=garbage), GOOD], [*retried("malformed"), *DONE], 2)


@fault
def silence_before_the_headers(wire: Spoken) -> Case:
    reached = {"idle_timeout_s": IDLE_S}
    return Case([half(stall_before=3600), GOOD], [*retried("timeout"), *DONE], 2, reached)


@fault
def silence_in_the_stream(wire: Spoken) -> Case:
    reached = {"idle_timeout_s": IDLE_S}
    return Case([half(stall_after=wire.middle), GOOD], [*retried("timeout"), *DONE], 2, reached)


@fault
def a_call_that_takes_too_long(wire: Spoken) -> Case:
    """It is never silent for long, and never done."""
    slow = Turn([Text("and on " * 1000)], fault=Fault(delay=0.05))
    return Case([slow, GOOD], [*retried("timeout"), *DONE], 2, {"call_timeout_s": CALL_S})


@fault
def nobody_listens(wire: Spoken) -> Case:
    log = [*retried("connection", "connection"), "turn_failed provider_unavailable connection"]
    return Case([], log, 0, {"base_url": CLOSED}, error={"retryable": True, "provider": wire.provider})


# ── what is not ──


@fault
def a_wrong_key(wire: Spoken) -> Case:
    error = {"retryable": False, "status": 401}
    return Case([], ["turn_failed provider_unauthenticated auth"], 1, error=error, key="bad-", never_says=("bad-",))


@fault
def a_model_that_is_not_there(wire: Spoken) -> Case:
    code = {"openai": "model_not_found", "self_hosted": "model_not_found"}.get(wire.provider)
    error = {"retryable": False, "status": 404}
    turn = Turn(fault=Fault(status=404, code=code))
    return Case([turn], ["turn_failed provider_rejected not_found"], 1, error=error, says="meerkat_models_catalog")


@fault
def a_request_that_is_refused(wire: Spoken) -> Case:
    turn = Turn(fault=Fault(status=400, message="The tool `weather` is not to our taste."))
    error = {"retryable": False, "status": 400}
    return Case([turn], ["turn_failed provider_rejected bad_request"], 1, error=error, says="not to our taste")


@fault
def an_account_without_credit(wire: Spoken) -> Case:
    """OpenAI says so with the status of a rate limit, which would be asked again for nothing."""
    said = Fault(status=429, code="insufficient_quota") if wire.said_by_openai else Fault(status=402)
    return Case([Turn(fault=said)], ["turn_failed provider_rejected quota"], 1, error={"retryable": False})


@fault
def a_conversation_that_is_too_long(wire: Spoken) -> Case:
    said = {
        "anthropic": Fault(status=400, message="prompt is too long: 1000123 tokens > 1000000 maximum"),
        "openai": Fault(status=400, code="context_length_exceeded", message="Your input exceeds the context window."),
        "self_hosted": Fault(status=400, message="This model's maximum context length is 8192 tokens."),
        "gemini": Fault(
            status=400,
            message="The input token count (1048577) exceeds the maximum number of tokens allowed (1048576).",
        ),
    }
    turn = Turn(fault=said[wire.provider])
    log = ["turn_failed provider_rejected context"]
    return Case([turn], log, 1, error={"retryable": False, "status": 400}, says="meerkat_compact")


# ── what is no error ──


@fault
def a_refusal(wire: Spoken) -> Case:
    log = ["text_complete I will not.", "step_completed refusal", "turn_completed refusal"]
    return Case([Turn([Text("I will not.")], stop="refusal")], log, 1)


@fault
def a_refusal_without_a_word(wire: Spoken) -> Case:
    if wire.provider == "self_hosted":  # where a refusal is a text
        return Case([Turn([])], ["step_completed end", "turn_completed end"], 1)
    if wire.provider == "openai":
        return Case([Turn([])], ["step_completed end", "turn_completed end"], 1)
    return Case([Turn([], stop="refusal")], ["step_completed refusal", "turn_completed refusal"], 1)


@fault
def a_reply_that_is_cut_by_its_length(wire: Spoken) -> Case:
    log = [f"text_complete {HALF}", "step_completed length", "turn_limit_reached max_tokens"]
    return Case([Turn([Text(HALF)], stop="length")], log, 1)


@fault
def a_call_in_a_reply_that_is_cut(wire: Spoken) -> Case:
    """Its arguments were to come: that there are none yet is no reason to call without."""
    call = "tool_call_requested weather {}"
    turn = Turn([Text("I look."), Call("weather", bad_json="")], stop="length")
    return Case([turn], ["text_complete I look.", call, "step_completed length", "turn_limit_reached max_tokens"], 1)


@fault
def a_call_in_a_refusal(wire: Spoken) -> Case:
    call = 'tool_call_requested weather {"city": "Oslo"}'
    turn = Turn([Text("I will not."), Call("weather", {"city": "Oslo"})], stop="refusal")
    return Case([turn], ["text_complete I will not.", call, "step_completed refusal", "turn_completed refusal"], 1)


@fault
def bytes_in_threes(wire: Spoken) -> Case:
    text = "Grüße aus Tromsø, 🦦 und “danke”."
    log = [f"text_complete {text}", "step_completed end", "turn_completed end"]
    return Case([Turn([Text(text)], piece=1, fault=Fault(chunk=3))], log, 1)


@fault
def events_that_nobody_knows(wire: Spoken) -> Case:
    turn = Turn(GOOD.parts, fault=Fault(garbage_after=wire.middle, garbage=wire.unknown))
    return Case([turn], DONE, 1)


@fault
def arguments_that_are_no_json(wire: Spoken) -> Case:
    log = [
        'tool_call_requested weather {} malformed {"city": "Os',
        "step_completed tool_calls",
        "tool_execution_completed weather error",
        "step_started",
        *DONE,
    ]
    return Case([Turn([Call("weather", bad_json='{"city": "Os')]), GOOD], log, 2)


TABLE = [pytest.param(wire, make, id=f"{name}-{wire}") for name, make in FAULTS.items() for wire in WIRES]
