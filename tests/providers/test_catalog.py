"""The catalogue: prices, windows, whose a model is. The numbers are of the price list that is installed."""

import subprocess
import sys

import anyio
import pytest

from meerkat_mcp.domain.messages import Usage
from meerkat_mcp.providers.base import Model
from meerkat_mcp.providers.catalog import DEFAULT_MODELS, enriched, known_models, priced, provider_of

pytestmark = pytest.mark.anyio

USAGE = Usage(
    input_tokens=10_000, output_tokens=1_000, cache_read_tokens=6_000, cache_write_tokens=1_000, reasoning_tokens=400
)


@pytest.fixture
def anyio_backend() -> str:
    return "asyncio"


# ── what a call costs ──


@pytest.mark.parametrize(
    ("provider", "model", "cost_usd"),
    [
        # 3,000 fresh at $2, 6,000 cached at $0.10, 1,000 written to the cache at $2.50, 1,000 out at $10: a million.
        ("anthropic", "claude-sonnet-5-5", 0.006 + 0.0006 + 0.0025 + 0.01),
        ("anthropic", "claude-opus-5-5", 0.012 + 0.0012 + 0.005 + 0.02),
        ("openai", "gpt-6-sol", 0.006 + 0.0012 + 0.0025 + 0.01),
        # No price for writing: what goes into the cache is read at the plain price.
        ("openai", "gpt-5.2", 4_000 * 1.75e-6 + 6_000 * 0.175e-6 + 0.014),
        ("gemini", "gemini-3.5-flash", 4_000 * 1.5e-6 + 6_000 * 0.15e-6 + 0.009),
        # Without a price for cached tokens they cost as much as the others.
        ("openai", "gpt-5.5-pro", 10_000 * 30e-6 + 0.18),
    ],
)
async def test_a_call_costs_what_one_reckons_by_hand(provider: str, model: str, cost_usd: float):
    told = await priced(provider, model, USAGE)
    assert told.cost_usd == pytest.approx(cost_usd, abs=1e-12)
    assert told == USAGE.model_copy(update={"cost_usd": told.cost_usd})


async def test_a_long_prompt_costs_its_higher_price_for_all_of_its_tokens():
    told = await priced("openai", "gpt-6-sol", Usage(input_tokens=300_000, output_tokens=1_000))
    assert told.cost_usd == pytest.approx(300_000 * 4e-6 + 1_000 * 15e-6)


async def test_cached_tokens_are_cheaper_for_every_default_model():
    for provider, model in DEFAULT_MODELS.items():
        fresh = await priced(provider, model, Usage(input_tokens=10_000, output_tokens=10))
        cached = await priced(provider, model, Usage(input_tokens=10_000, output_tokens=10, cache_read_tokens=9_000))
        assert fresh.cost_usd
        assert cached.cost_usd
        assert cached.cost_usd < fresh.cost_usd / 2


@pytest.mark.parametrize(
    ("provider", "snapshot", "model"),
    [
        ("anthropic", "claude-opus-5-5-20260901", "claude-opus-5-5"),
        ("openai", "gpt-6-sol-2026-09-09", "gpt-6-sol"),
        ("gemini", "models/gemini-3.8-flash", "gemini-3.8-flash"),
    ],
)
async def test_a_dated_snapshot_costs_what_its_model_costs(provider: str, snapshot: str, model: str):
    told = await priced(provider, snapshot, USAGE)
    assert told.cost_usd is not None
    assert told == await priced(provider, model, USAGE)


@pytest.mark.parametrize(
    ("provider", "model"),
    [
        ("anthropic", "claude-opus-77"),
        ("openai", "gpt-77"),
        ("openai", "claude-opus-5-5"),
        ("openai", ""),
        ("openai", "text-embedding-3-small"),  # has no price for what it writes
        ("gemini", "gemma-4-31b-it"),  # is listed without a price
        ("self_hosted", "gpt-6-sol"),
        ("nobody", "gpt-6-sol"),
    ],
)
async def test_an_unknown_price_is_none_and_never_zero(provider: str, model: str):
    assert await priced(provider, model, USAGE) == USAGE
    assert USAGE.cost_usd is None


async def test_counts_that_cannot_be_have_no_price():
    assert (await priced("openai", "gpt-6-sol", Usage(input_tokens=5, cache_read_tokens=9))).cost_usd is None


async def test_nothing_used_costs_nothing():
    assert (await priced("openai", "gpt-6-sol", Usage())).cost_usd == 0.0


async def test_the_demo_is_free_and_a_told_cost_stays():
    assert (await priced("demo", "demo", USAGE)).cost_usd == 0.0
    told = Usage(input_tokens=1, cost_usd=0.5)
    assert await priced("openai", "gpt-6-sol", told) == told
    assert await priced("self_hosted", "any", told) == told


async def test_the_price_list_is_read_late_and_by_many_at_once():
    script = """
import sys, anyio
from meerkat_mcp.domain.messages import Usage
from meerkat_mcp.providers import catalog
assert "genai_prices" not in sys.modules
costs = []
async def ask():
    costs.append((await catalog.priced("openai", "gpt-6-sol", Usage(input_tokens=1_000_000))).cost_usd)
async def main():
    async with anyio.create_task_group() as tasks:
        for _ in range(20):
            tasks.start_soon(ask)
anyio.run(main)
assert costs == [4.0] * 20, costs
"""
    with anyio.fail_after(30):
        done = await anyio.run_process(
            [sys.executable, "-W", "error", "-c", script], check=False, stderr=subprocess.PIPE
        )
    assert done.returncode == 0, done.stderr.decode()


# ── what there is ──


async def test_a_known_model_has_its_window_and_all_its_prices():
    models = {model.model: model for provider in DEFAULT_MODELS for model in await known_models(provider)}
    assert models["claude-sonnet-5-5"] == Model(
        model="claude-sonnet-5-5",
        provider="anthropic",
        context_tokens=1_000_000,
        input_usd=2.0,
        output_usd=10.0,
        cache_read_usd=0.1,
        cache_write_usd=2.5,
    )
    assert models["gpt-6-sol"] == Model(  # of prices that rise with the prompt, the base
        model="gpt-6-sol",
        provider="openai",
        context_tokens=1_050_000,
        input_usd=2.0,
        output_usd=10.0,
        cache_read_usd=0.2,
        cache_write_usd=2.5,
    )
    assert models["gemini-3.5-flash"] == Model(
        model="gemini-3.5-flash",
        provider="gemini",
        context_tokens=1_000_000,
        input_usd=1.5,
        output_usd=9.0,
        cache_read_usd=0.15,
    )


async def test_every_known_model_has_a_price_and_costs_by_it():
    for provider in DEFAULT_MODELS:
        models = await known_models(provider)
        assert len(models) > 5
        for model in models:
            assert provider_of(model.model) == model.provider == provider
            assert model.input_usd
            assert model.output_usd
            told = await priced(provider, model.model, Usage(input_tokens=1_000, output_tokens=1_000))
            assert told.cost_usd == pytest.approx((model.input_usd + model.output_usd) / 1_000)


async def test_the_default_models_are_known_and_among_the_newest():
    for provider, default in DEFAULT_MODELS.items():
        names = [model.model for model in await known_models(provider)]
        assert names.index(default) < 3


async def test_the_newest_models_come_first():
    names = [model.model for model in await known_models("openai")]
    assert names[:5] == ["gpt-6.1-sol", "gpt-6.1-terra", "gpt-6-astra", "gpt-6-sol", "gpt-6-luna"]
    names = [model.model for model in await known_models("anthropic")]
    assert names.index("claude-opus-5-5") < names.index("claude-fable-5-2") < names.index("claude-opus-4-8")


@pytest.mark.parametrize(
    ("provider", "models"),
    [
        ("openai", "gpt-6-cyber gpt-5-image gpt-image-2 gpt-realtime gpt-audio gpt-5-search-api o3 gpt-4 whisper-1"),
        ("openai", "text-embedding-3-large tts-1 gpt-oss-20b moderation davinci-002 gpt-live-1"),
        ("gemini", "gemini-3.8-live gemini-3.8-flash-tts gemini-3-pro-image-preview gemini-3-pro-preview gemini-pro"),
        ("gemini", "gemini-embedding-2 gemini-omni-1.1-flash gemini-1.5-pro claude-opus-5-5"),
        ("anthropic", "claude-2 claude-v1 claude-3-opus-latest claude-mythos-5-2"),
    ],
)
async def test_what_is_old_or_writes_no_text_is_not_offered(provider: str, models: str):
    assert not {model.model for model in await known_models(provider)} & set(models.split())


@pytest.mark.parametrize("provider", ["demo", "self_hosted", "nobody"])
async def test_nothing_is_known_of_other_providers(provider: str):
    assert await known_models(provider) == ()


# ── what a provider says it has ──

SOL = Model(model="gpt-6-sol", provider="openai", context_tokens=1_050_000, input_usd=2.0, output_usd=10.0)
LUNA = Model(model="gpt-6-luna", provider="openai", context_tokens=1_050_000, input_usd=0.1, output_usd=0.5)


def live(model: str, provider: str = "openai", **said: int | tuple[str, ...]) -> Model:
    return Model.model_validate({"model": model, "provider": provider, **said})


def test_what_the_provider_says_wins_and_the_catalogue_fills_the_gaps():
    said = live("gpt-6-sol", context_tokens=922_000, output_tokens_max=128_000, abilities=("tools",))
    assert enriched((SOL,), (said,)) == (said.model_copy(update={"input_usd": 2.0, "output_usd": 10.0}),)
    assert enriched((SOL,), (live("gpt-6-sol"),)) == (SOL,)


def test_a_model_that_the_provider_does_not_list_is_left_out():
    assert enriched((SOL, LUNA), (live("gpt-6-luna"),)) == (LUNA,)
    assert enriched((SOL,), ()) == ()


def test_a_model_newer_than_the_catalogue_comes_first_without_a_price():
    assert enriched((SOL,), (live("gpt-6-sol"), live("gpt-7-sol"))) == (live("gpt-7-sol"), SOL)


def test_a_live_snapshot_gets_the_price_of_its_model():
    dated = "gpt-6-sol-2026-09-09"
    assert enriched((SOL,), (live(dated),)) == (SOL.model_copy(update={"model": dated}),)
    claude = Model(model="claude-haiku-4-5", provider="anthropic", input_usd=1.0)
    assert enriched((claude,), (live("claude-haiku-4-5-20251001", "anthropic"),))[0].input_usd == 1.0


def test_a_name_of_another_provider_gets_no_price_of_ours():
    mine = live("gpt-6-sol", "self_hosted", context_tokens=8_000)
    assert enriched((SOL,), (mine,)) == (mine,)


def test_live_models_that_write_no_text_are_left_out_but_a_server_of_ones_own_is_believed():
    names = ["whisper-1", "text-embedding-3-small", "gpt-image-2", "gpt-realtime-2", "omni-moderation-latest", "sora-3"]
    assert enriched((), tuple(live(name) for name in names)) == ()
    assert len(enriched((), tuple(live(name, "self_hosted") for name in names))) == len(names)


# ── whose it is ──


@pytest.mark.parametrize(
    ("provider", "models"),
    [
        ("anthropic", "claude-sonnet-5-5 claude-opus-9 claude-3-5-haiku-latest"),
        ("openai", "gpt-7-nova gpt-4o o1 o3-mini o4-mini-deep-research chatgpt-4o-latest codex-mini ft:gpt-4o:me::1"),
        ("gemini", "gemini-9-neon models/gemini-3.8-flash gemma-4-31b-it"),
        ("demo", "demo"),
        (
            None,
            "llama3.3 gpt-oss:20b openai/gpt-oss-120b gemma3:4b google/gemma-3-27b-it qwen3 demo-2 opus o1x my-gpt-4",
        ),
    ],
)
def test_a_name_tells_whose_model_it_is(provider: str | None, models: str):
    assert {model: provider_of(model) for model in models.split()} == dict.fromkeys(models.split(), provider)
    assert provider_of("") is None
