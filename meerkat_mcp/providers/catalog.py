"""The catalogue: whose a model is, what it costs, which ones are worth offering. Offline, from `genai-prices`.

Its data are big, so they are read in a thread when they are first asked for.
"""

import math
import re
from collections.abc import Iterable, Mapping
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

from meerkat_mcp.domain.messages import Usage
from meerkat_mcp.providers import wire
from meerkat_mcp.providers.base import Model

if TYPE_CHECKING:
    from genai_prices.data_snapshot import DataSnapshot
    from genai_prices.types import ModelInfo

DEFAULT_MODELS: Mapping[str, str] = {
    # $2 in, $10 out for a million tokens: below Opus and Fable, above Haiku, of the newest generation.
    "anthropic": "claude-sonnet-5-5",
    # The same price: below Astra, above Terra and Luna, and the newest of all.
    "openai": "gpt-6.1-sol",
    # $0.75 in, $3.75 out, double from 2027 on: the newest Flash, made for agents. Gemini 4 Argon costs more.
    "gemini": "gemini-3.8-flash",
}
"""The model that a session gets when its provider has a key and nothing is configured: capable, middle-priced."""

_SOURCES = {"anthropic": "anthropic", "openai": "openai", "gemini": "google"}
"""What `genai-prices` calls our providers. The others have no price list."""

_FAMILIES = (
    ("demo", re.compile(r"demo$")),
    ("anthropic", re.compile(r"claude-")),
    # gpt-oss is not OpenAI's to serve: its weights are open, whoever runs it is a host of its own.
    ("openai", re.compile(r"(ft:)?(gpt-(?!oss)|chatgpt-|codex-|o\d(-|$))")),
    # Gemma's weights are open too, but Google does serve it, under names without the colon or the slash of others.
    ("gemini", re.compile(r"(models/)?(gemini-|gemma-[^:/]+$)")),
)
_OTHER_TRADES = frozenset(
    (
        # They draw, speak, listen or hold a call; or compare and judge texts but write none.
        *("image", "tts", "audio", "live", "realtime", "transcribe", "translate", "whisper", "embedding", "moderation"),
        # They search, drive a robot or make films, and take no tools of ours.
        *("search", "research", "robotics", "omni", "banana"),
        # Only for those whom the provider has vetted.
        *("cyber", "rosalind", "discovery", "mythos"),
    )
)
_GENERATION = re.compile(r"(?:claude(?:-[a-z]+)?|gpt|gemini)-(\d+)(?:[.-](\d{1,2})(?!\d))?")
_GENERATIONS_OFFERED = 2
_SNAPSHOT = re.compile(r"-(\d{8}|\d{4}-\d{2}-\d{2}|\d{3}|latest)$")


def provider_of(model: str) -> str | None:
    """Whose a model is, by the family of its name, also when it is newer than the catalogue. None is nobody's."""
    return next((provider for provider, family in _FAMILIES if family.match(model)), None)


async def priced(provider: str, model: str, usage: Usage) -> Usage:
    """The usage with what it costs at today's list price; None where that is not known.

    A cost that the provider itself told stays. The demo is free.
    """
    if usage.cost_usd is not None:
        return usage
    if provider == "demo":
        return usage.model_copy(update={"cost_usd": 0.0})
    if provider not in _SOURCES:
        return usage
    return usage.model_copy(update={"cost_usd": _cost(await _data(), provider, model, usage)})


async def known_models(provider: str) -> tuple[Model, ...]:
    """The models that write text and use tools, with their prices, newest first; empty for an unknown provider.

    Left out are those which their provider calls deprecated, and all before its last two generations: of these most
    are switched off, and what is not, the provider's own list names.
    """
    if provider not in _SOURCES:
        return ()
    data = await _data()
    source = next(one for one in data.providers if one.id == _SOURCES[provider])
    offered = [info for info in source.models if _writes(provider, info.id) and not info.deprecated]
    newest = max(_generation(info.id)[0] for info in offered)
    recent = [info for info in offered if _generation(info.id)[0] > newest - _GENERATIONS_OFFERED]
    models = [_model(provider, info) for info in recent]
    return _newest_first(model for model in models if model.input_usd is not None and model.output_usd is not None)


def enriched(known: tuple[Model, ...], live: tuple[Model, ...]) -> tuple[Model, ...]:
    """The models that a provider says it has, with the prices that the catalogue knows, newest first.

    What the provider says of a model wins; what it does not say is filled in. A dated snapshot costs what its model
    costs. Known models that the provider does not list are left out, and so are live ones that write no text.
    """
    by_name = {(one.provider, one.model): one for one in known}
    models: list[Model] = []
    for said in live:
        if said.provider in _SOURCES and not _writes(said.provider, said.model):
            continue
        listed = by_name.get((said.provider, said.model))
        listed = listed or by_name.get((said.provider, _SNAPSHOT.sub("", said.model)))
        ours = listed.model_dump(exclude={"model", "provider"}) if listed else {}
        silent = {name: value for name, value in ours.items() if getattr(said, name) in (None, ())}
        models.append(said.model_copy(update=silent))
    return _newest_first(models)


# ── what is offered ──


def _writes(provider: str, model: str) -> bool:
    """Whether its name is that of a model which writes text, uses tools, and is there for all."""
    return provider_of(model) == provider and not _OTHER_TRADES.intersection(re.split(r"[-.:/]", model))


def _generation(model: str) -> tuple[int, int]:
    """The numbers in a model's name; (0, 0) where it has none."""
    found = _GENERATION.match(model.removeprefix("models/"))
    return (int(found[1]), int(found[2] or 0)) if found else (0, 0)


def _newest_first(models: Iterable[Model]) -> tuple[Model, ...]:
    """By generation, the dearer of one generation first; an unknown price stands before all: it is news."""

    def place(model: Model) -> tuple[int, int, float, str]:
        major, minor = _generation(model.model)
        return -major, -minor, -(math.inf if model.input_usd is None else model.input_usd), model.model

    return tuple(sorted(models, key=place))


# ── the price list ──


async def _data() -> "DataSnapshot":
    await wire.load("genai_prices.data")
    return (await wire.load("genai_prices.data_snapshot")).get_snapshot()


def _model(provider: str, info: "ModelInfo") -> Model:
    prices = info.get_prices(datetime.now(UTC))
    return Model(
        model=info.id,
        provider=provider,
        context_tokens=info.context_window,
        input_usd=_base(prices.input_mtok),
        output_usd=_base(prices.output_mtok),
        cache_read_usd=_base(prices.cache_read_mtok),
        cache_write_usd=_base(prices.cache_write_mtok),
    )


def _base(price: Any) -> float | None:
    """The price of a short prompt: some charge more for all tokens of a long one."""
    return None if price is None else float(getattr(price, "base", price))


def _cost(data: "DataSnapshot", provider: str, model: str, usage: Usage) -> float | None:
    counts = {
        "input_tokens": usage.input_tokens,
        "output_tokens": usage.output_tokens,
        "cache_read_tokens": usage.cache_read_tokens,
        "cache_write_tokens": usage.cache_write_tokens,
    }
    try:
        found = data.calc(counts, model.removeprefix("models/"), _SOURCES[provider], None, None)
    except (LookupError, ValueError):  # not known, or counts that cannot be: more cached than read
        return None
    prices = found.model_price
    if prices.input_mtok is None or prices.output_mtok is None:  # what has no price, the library counts as free
        return None
    return float(found.total_price)
