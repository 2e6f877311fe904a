"""One conversation on every wire, through a real realm, against vendors that refuse what the real ones would."""

import itertools
import json

import anyio
import pytest
from vendors.lanes import Seen
from vendors.script import Call, Text, Thinking, Turn, Usage
from wires.talk import WIRES, Spoken, begins, plain, settings, told, tool
from words import PATIENCE_S, check_log, ended, log, outcome, resume

from meerkat_mcp.domain.events import StepCompleted
from meerkat_mcp.domain.messages import ToolResult
from meerkat_mcp.domain.messages import Usage as Tokens
from meerkat_mcp.sessions.claims import Started

pytestmark = pytest.mark.anyio

SYSTEM = "You tell the weather. Be brief, and say “please”."
TOOLS = (tool("weather", "city"), tool("clock", "city"))
ASKED = Turn(
    [
        Thinking("Both can be looked up at once.", "sig-1"),
        Text("I look at the sky över Oslo."),
        Call("weather", {"city": "Oslo"}),
        Call("clock", {"city": "Tromsø"}),
    ],
    usage=Usage(input=100, output=20, cached=40, cache_write=10, reasoning=7),
)
ANSWERED = Turn([Thinking("Rain, then.", "sig-2"), Text("It rains; it is noon.")], usage=Usage(input=200, cached=140))
AGAIN = Turn([Text("It still rains.")], usage=Usage(input=300, cached=240, cache_write=0, reasoning=0))
RESULTS = (
    ToolResult(tool_use_id="call-1", content="rain, 7 °C"),
    ToolResult(tool_use_id="call-2", content="the clock has stopped", is_error=True),
)
FIRST, SECOND = "What is it like in Oslo?", "And now?"


async def asked(realm, wire: Spoken) -> Started:
    """The conversation up to where the model waits for its two tools."""
    with anyio.fail_after(PATIENCE_S):
        started = await realm.sessions.run(FIRST, settings(wire, system_prompt=SYSTEM, tools=TOOLS))
        waiting = await ended(realm, started)
    assert (waiting.status, waiting.error) == ("waiting", None)
    assert [call.tool_name for call in waiting.pending] == ["weather", "clock"]
    return started


async def answered(realm, started: Started, **changes) -> str:
    """The tools' results, brought; what the model said to them."""
    waiting = await outcome(realm, started)
    results = [
        result.model_copy(update={"tool_use_id": call.tool_use_id})
        for result, call in zip(RESULTS, waiting.pending, strict=True)
    ]
    done = await resume(realm, started.session_id, tool_results=results, **changes)
    assert (done.status, done.error) == ("completed", None)
    return done.text


async def test_one_conversation_is_the_same_on_every_wire(realm, wire, at_fake):
    at_fake.queue(ASKED, ANSWERED, AGAIN)
    started = await asked(realm, wire)
    assert await answered(realm, started) == "It rains; it is noon."
    assert (await resume(realm, started.session_id, SECOND)).text == "It still rains."
    at_fake.check(requests=3)
    events = await log(realm, started.session_id)
    assert told(plain(events)) == TOLD
    await check_log(realm, started.session_id)
    steps = [event for event in events if event.type == "step_completed"]
    check_usage(wire, steps, (await realm.journal.load(started.session_id)).usage)
    check_requests(wire, at_fake.seen)
    check_what_goes_back(wire, steps, at_fake.seen)
    check_caching(wire, at_fake.seen, started.session_id)


TOLD = [
    "session_created",
    "turn_started",
    "step_started",
    "reasoning_complete Both can be looked up at once.",
    "text_complete I look at the sky över Oslo.",
    'tool_call_requested weather {"city": "Oslo"}',
    'tool_call_requested clock {"city": "Troms\\u00f8"}',
    "step_completed tool_calls",
    "turn_waiting",
    "tool_execution_completed weather",
    "tool_execution_completed clock error",
    "turn_resumed",
    "step_started",
    "reasoning_complete Rain, then.",
    "text_complete It rains; it is noon.",
    "step_completed end",
    "turn_completed end",
    "turn_started",
    "step_started",
    "text_complete It still rains.",
    "step_completed end",
    "turn_completed end",
]


def check_usage(wire: Spoken, steps: list[StepCompleted], whole: Tokens) -> None:
    """Cache and reasoning are counted, and what it costs is known where anybody knows it."""
    written = 0 if wire.provider == "gemini" else 10  # which does not say what it keeps
    assert [step.usage.model_copy(update={"cost_usd": None}) for step in steps] == [
        Tokens(
            input_tokens=100, output_tokens=20, cache_read_tokens=40, cache_write_tokens=written, reasoning_tokens=7
        ),
        Tokens(
            input_tokens=200, output_tokens=20, cache_read_tokens=140, cache_write_tokens=written, reasoning_tokens=7
        ),
        Tokens(input_tokens=300, output_tokens=20, cache_read_tokens=240),
    ]
    assert whole.total_tokens == 660
    costs = [step.usage.cost_usd for step in steps]
    if wire.priced:
        assert all(cost is not None and 0 < cost < 0.01 for cost in costs)
        assert whole.cost_usd == pytest.approx(sum(cost or 0 for cost in costs))
    else:
        assert [*costs, whole.cost_usd] == [None] * 4
    assert {step.answered_by for step in steps} == {wire.model}
    assert all(step.response_id for step in steps)


def check_requests(wire: Spoken, requests: list[Seen]) -> None:
    """Each request begins with the one before, byte by byte: that is what prompt caches go by."""
    assert SYSTEM in json.dumps(requests[0].body, ensure_ascii=False)
    for first, second in itertools.pairwise(requests):
        assert wire.before(first) == wire.before(second)
        assert begins(wire.conversation(first), wire.conversation(second))
        assert len(wire.conversation(first)) < len(wire.conversation(second))


def check_what_goes_back(wire: Spoken, steps: list[StepCompleted], requests: list[Seen]) -> None:
    """What the provider wrote goes back as it came."""
    last = json.dumps(requests[-1].body)
    for step in steps[:2]:
        assert step.items
        assert json.dumps(step.items)[1:-1] in last
    own = {"anthropic": ["sig-1", "sig-2"], "self_hosted": ["Both can be looked up at once.", "Rain, then."]}
    for kept in own.get(wire.provider, []):
        assert kept in last


def check_caching(wire: Spoken, requests: list[Seen], session_id: str) -> None:
    """A cache is asked for where that is needed; a server of one's own may refuse what it does not know."""
    for body in (seen.body for seen in requests):
        match wire.provider:
            case "anthropic":
                assert body["cache_control"] == {"type": "ephemeral"}
            case "openai":
                assert (body["prompt_cache_key"], body["store"]) == (session_id, False)
                assert body["include"] == ["reasoning.encrypted_content"]
            case "gemini":
                assert body["store"] is False
            case _:
                assert not {"prompt_cache_key", "cache_control", "store"} & body.keys()


async def test_a_turn_that_waits_goes_on_in_another_life_of_the_realm(open_den, wire, at_fake):
    at_fake.queue(ASKED, ANSWERED, AGAIN)
    async with open_den() as realm:
        started = await asked(realm, wire)
    async with open_den() as realm:
        assert await answered(realm, started) == "It rains; it is noon."
    async with open_den() as realm:
        assert (await resume(realm, started.session_id, SECOND)).text == "It still rains."
        await check_log(realm, started.session_id)
    at_fake.check(requests=3)
    check_requests(wire, at_fake.seen)


async def test_a_fork_goes_on_from_what_both_share(realm, wire, at_fake):
    at_fake.queue(ASKED, ANSWERED, AGAIN, AGAIN)
    started = await asked(realm, wire)
    await answered(realm, started)
    fork = await realm.shelf.fork(started.session_id)
    assert (await resume(realm, fork.id, "And there?")).text == "It still rains."
    assert (await resume(realm, started.session_id, SECOND)).text == "It still rains."
    at_fake.check(requests=4)
    _, shared, forked, own = at_fake.seen
    for later in (forked, own):
        assert wire.before(shared) == wire.before(later)
        assert begins(wire.conversation(shared), wire.conversation(later))
    assert wire.conversation(forked)[:-1] == wire.conversation(own)[:-1]
    await check_log(realm, fork.id)


PAIRS = [pytest.param(here, there, id=f"{here}-{there}") for here, there in itertools.permutations(WIRES, 2)]


@pytest.mark.parametrize(("here", "there"), PAIRS)
async def test_another_provider_takes_the_conversation_over_and_gives_it_back(realm, here, there, at_fake):
    at_fake.queue(ASKED, ANSWERED, AGAIN, AGAIN)
    started = await asked(realm, here)
    await answered(realm, started)
    assert (await resume(realm, started.session_id, SECOND, changes=there.settings)).text == "It still rains."
    assert (await resume(realm, started.session_id, SECOND, changes=here.settings)).text == "It still rains."
    at_fake.check(requests=4)
    _, before, elsewhere, back = at_fake.seen
    retold = json.dumps(elsewhere.body, ensure_ascii=False)
    for kept in (
        SYSTEM.replace('"', '\\"'),
        "I look at the sky över Oslo.",
        "Tromsø",
        "rain, 7 °C",
        "the clock has stopped",
    ):
        assert kept in retold
    for private in ("Both can be looked up at once.", "sig-1", "encrypted", "thought"):
        assert private not in json.dumps(there.conversation(elsewhere))
    assert here.before(before) == here.before(back)
    assert begins(here.conversation(before), here.conversation(back))
    steps = [event for event in await log(realm, started.session_id) if event.type == "step_started"]
    assert [step.provider for step in steps] == [here.provider, here.provider, there.provider, here.provider]
    await check_log(realm, started.session_id)


@pytest.mark.parametrize(("here", "there"), PAIRS)
async def test_another_provider_takes_over_between_a_call_and_its_result(realm, here, there, at_fake):
    at_fake.queue(ASKED, ANSWERED, ASKED, ANSWERED)
    started = await asked(realm, here)
    assert await answered(realm, started, changes=there.settings) == "It rains; it is noon."
    again = await resume(realm, started.session_id, SECOND)
    assert (again.status, again.error) == ("waiting", None)
    brought = [ToolResult(tool_use_id=call.tool_use_id, content="as before") for call in again.pending]
    done = await resume(realm, started.session_id, tool_results=brought, changes=here.settings)
    assert (done.status, done.text) == ("completed", "It rains; it is noon.")
    at_fake.check(requests=4)
    await check_log(realm, started.session_id)
