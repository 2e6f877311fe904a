"""What an answer may be held to on every wire, a schema or a budget in dollars; and who answers unless one is named."""

import pytest
from vendors.script import Call, Text, Turn, Usage
from vendors.server import lane
from wires.faults import WEATHER
from wires.talk import FARM, GOOD, SELF_HOSTED, WIRES, Spoken, config, plain, settings, told
from words import log, resume, run

from meerkat_mcp.domain.messages import ToolResult
from meerkat_mcp.domain.settings import Budget
from meerkat_mcp.realms import choose, open_realm

pytestmark = pytest.mark.anyio

SCHEMA = {
    "type": "object",
    "properties": {"city": {"type": "string"}, "degrees": {"type": "integer"}},
    "required": ["city", "degrees"],
    "additionalProperties": False,
}
OPEN = {
    "type": "object",
    "properties": {"city": {"type": "string"}, "degrees": {"type": "integer", "minimum": -90}},
    "required": ["city"],
}
FITS = '{"city": "Oslo", "degrees": 7}'
WRONG = '{"city": "Oslo", "degrees": "seven"}'


def asked_form(wire: Spoken, body: dict) -> dict:
    """The schema that a request holds the answer to."""
    match wire.provider:
        case "anthropic":
            assert body["output_config"]["format"]["type"] == "json_schema"
            return body["output_config"]["format"]["schema"]
        case "openai":
            form = body["text"]["format"]
            assert (form["type"], bool(form["name"])) == ("json_schema", True)
            return form["schema"]
        case "gemini":
            assert body["response_format"]["mime_type"] == "application/json"
            return body["response_format"]["schema"]
        case _:
            assert body["response_format"]["type"] == "json_schema"
            return body["response_format"]["json_schema"]["schema"]


async def test_an_answer_is_held_to_its_schema_by_the_vendor(realm, wire, at_fake):
    at_fake.queue(Turn([Text(FITS)]))
    _, done = await run(realm, "How is Oslo?", **wire.settings, provider_params={}, output_schema=SCHEMA)
    assert (done.status, done.structured_output) == ("completed", {"city": "Oslo", "degrees": 7})
    at_fake.check(requests=1)
    assert asked_form(wire, at_fake.seen[0].body) == SCHEMA


async def test_a_schema_that_no_vendor_enforces_as_it_stands_is_still_taken(realm, wire, at_fake):
    at_fake.queue(Turn([Text(FITS)]))
    _, done = await run(realm, "How is Oslo?", **wire.settings, provider_params={}, output_schema=OPEN)
    assert (done.status, done.structured_output) == ("completed", {"city": "Oslo", "degrees": 7})
    at_fake.check(requests=1)
    assert set(asked_form(wire, at_fake.seen[0].body)["properties"]) == {"city", "degrees"}


async def test_an_answer_that_does_not_fit_is_asked_for_again(realm, wire, at_fake):
    at_fake.queue(Turn([Text(WRONG)]), Turn([Text(FITS)]))
    started, done = await run(realm, "How is Oslo?", **wire.settings, provider_params={}, output_schema=SCHEMA)
    assert done.structured_output == {"city": "Oslo", "degrees": 7}
    at_fake.check(requests=2)
    assert told(plain(await log(realm, started.session_id)))[2:] == [
        "step_started",
        f"text_complete {WRONG}",
        "step_completed end",
        "output_rejected",
        "step_started",
        f"text_complete {FITS}",
        "step_completed end",
        "turn_completed end",
    ]
    assert "degrees" in str(wire.conversation(at_fake.seen[1])[-1]), "the model is told what did not fit"


async def test_an_answer_that_never_fits_fails_with_its_last_text(realm, wire, at_fake):
    at_fake.queue(*[Turn([Text(WRONG)])] * 2, Turn([Text("I give up.")]))
    started, failed = await run(realm, "How is Oslo?", **wire.settings, provider_params={}, output_schema=SCHEMA)
    assert failed.status == "failed"
    assert (failed.error["code"], failed.error["attempts"], failed.error["text"]) == ("schema_invalid", 3, "I give up.")
    at_fake.check(requests=3)
    assert told(plain(await log(realm, started.session_id)))[-1] == "turn_failed schema_invalid"


COSTLY = Turn([Call("weather", {"city": "Oslo"})], usage=Usage(input=90_000, cached=0, cache_write=0))


@pytest.mark.parametrize("wire", [wire for wire in WIRES if wire.priced], ids=str)
async def test_a_budget_in_dollars_ends_the_turn_that_uses_it_up(realm, wire, at_fake):
    at_fake.queue(COSTLY, GOOD)
    budget = Budget(max_cost_usd=0.01)
    started, waiting = await run(realm, "Oslo?", **wire.settings, provider_params={}, tools=(WEATHER,), budget=budget)
    assert waiting.status == "waiting"
    brought = [ToolResult(tool_use_id=call.tool_use_id, content="rain") for call in waiting.pending]
    last = await resume(realm, started.session_id, tool_results=brought)
    assert (last.status, last.stop_reason) == ("limit", "budget.max_cost_usd")
    at_fake.check(requests=1)
    warned = [event for event in await log(realm, started.session_id) if event.type == "budget_warning"]
    assert [(event.budget, event.limit) for event in warned] == [("max_cost_usd", 0.01)]
    assert warned[0].used == pytest.approx(last.usage.cost_usd)


async def test_a_budget_in_dollars_is_not_passed_over_where_nobody_knows_the_price(realm, at_fake):
    at_fake.queue(COSTLY, GOOD)
    budget = Budget(max_cost_usd=0.01)
    _, failed = await run(realm, "Oslo?", **SELF_HOSTED.settings, provider_params={}, tools=(WEATHER,), budget=budget)
    assert (failed.status, failed.error["code"]) == ("failed", "invalid_request")
    assert "budget.max_cost_usd" in failed.error["message"]
    at_fake.check(requests=1)


async def test_a_model_that_nobody_knows_is_taken_from_the_provider_that_is_named(realm, wire, at_fake):
    at_fake.queue(GOOD)
    given = {"provider": wire.provider, "model": "zeta-nova-1", "provider_params": {}}
    _, done = await run(realm, "Hello.", **given)
    assert (done.status, done.model, done.provider) == ("completed", "zeta-nova-1", wire.provider)
    assert done.usage.total_tokens == 120
    assert done.usage.cost_usd is None
    at_fake.check(requests=1)
    assert at_fake.seen[0].body["model"] == "zeta-nova-1"


DEFAULTS = {
    "ANTHROPIC_API_KEY OPENAI_API_KEY GEMINI_API_KEY": ("anthropic", "ANTHROPIC_API_KEY is set"),
    "OPENAI_API_KEY GEMINI_API_KEY": ("openai", "OPENAI_API_KEY is set"),
    "GEMINI_API_KEY GOOGLE_API_KEY": ("gemini", "GEMINI_API_KEY is set"),
    "GOOGLE_API_KEY": ("gemini", "GOOGLE_API_KEY is set"),
    "FARM_KEY": (FARM, "the first model of self_hosted.farm"),
}


@pytest.mark.parametrize("names", DEFAULTS)
async def test_the_keys_that_are_set_decide_who_answers(realm, at_fake, monkeypatch, names):
    provider, why = DEFAULTS[names]
    for name in {wire.key_name for wire in WIRES} - {*names.split()}:
        monkeypatch.delenv(name)
    for name in names.split():
        monkeypatch.setenv(name, at_fake.key)
    choice, reason = realm.providers.default(await realm.sessions.config())
    assert (choice.server or choice.provider) == provider
    assert why in reason
    at_fake.queue(GOOD)
    _, done = await run(realm, "Hello.", provider_params={})
    assert (done.text, done.model, done.provider) == ("All is well.", choice.model, choice.provider)
    at_fake.check(requests=1)
    assert at_fake.seen[0].body["model"] == choice.model


@pytest.mark.parametrize("names", DEFAULTS)
async def test_the_server_says_who_answers_and_why_and_shows_no_key(serve, vendors, tmp_path, names):
    provider, why = DEFAULTS[names]
    key = lane()
    async with open_realm(choose("den", state_root=tmp_path / "state")) as realm:
        await realm.set_config(config(vendors.url))
    async with serve(**dict.fromkeys(names.split(), key)) as host:
        able = await host.call("meerkat_capabilities")
        assert able["default_provider"] == provider
        assert why in able["default_reason"]
        have = {one["provider"]: one.get("has_key") for one in able["providers"]}
        assert have == {
            "anthropic": "ANTHROPIC_API_KEY" in names,
            "openai": "OPENAI_API_KEY" in names,
            "gemini": "GEMINI_API_KEY" in names or "GOOGLE_API_KEY" in names,
            "demo": None,
            FARM: "FARM_KEY" in names,
        }
        assert not any(key in line for line in host.lines)


async def test_without_any_key_the_demo_answers_and_the_server_says_so(serve):
    async with serve() as host:
        able = await host.call("meerkat_capabilities")
        assert (able["default_provider"], able["default_model"]) == ("demo", "demo")
        assert "no vendor has a key" in able["default_reason"]


@pytest.mark.parametrize("wire", WIRES, ids=str)
async def test_a_provider_without_its_key_names_the_variable(realm, wire, at_fake, monkeypatch):
    monkeypatch.delenv(wire.key_name)
    with pytest.raises(Exception, match=wire.key_name) as refused:
        await realm.sessions.run("Hello.", settings(wire))
    assert refused.value.code == "provider_unauthenticated"
    at_fake.check(requests=0)
