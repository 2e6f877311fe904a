"""`meerkat-mcp models`: which models there are, what they cost, which one a session gets, and whose key is set."""

from argparse import Namespace
from collections.abc import AsyncGenerator, Sequence
from contextlib import asynccontextmanager
from typing import Any

from meerkat_mcp.cli import display, values
from meerkat_mcp.domain.config import Config, parse
from meerkat_mcp.domain.errors import RealmNotFound
from meerkat_mcp.providers.base import Model
from meerkat_mcp.realms import open_providers, read_config
from meerkat_mcp.sessions.providers import Choice, Providers

_MILLION, _THOUSAND = 1_000_000, 1000


async def models(args: Namespace) -> int:
    """The catalogue, as the realm's config has it; a realm that nobody made yet has the empty config."""
    async with _providers(args) as (providers, config):
        default, reason = providers.default(config)
        with display.waiting("asking the providers …"):
            found = await providers.catalog(config, args.provider)
        known = await providers.about(config)
    chosen = (default.server or default.provider, default.model)
    about = [row | _key_variable(row, config) for row in known if _is_meant(row, args.provider)]
    if args.json:
        shown = [_view(model, is_default=(model.server or model.provider, model.model) == chosen) for model in found]
        named = {"default_model": default.model, "default_provider": default.server or default.provider}
        display.say_json({"models": shown, **named, "default_reason": reason, "providers": about})
        return 0
    _tell_models(found, chosen)
    display.say()
    display.table(("PROVIDER", "KEY"), [(row["provider"], _key(row)) for row in about])
    display.say()
    display.say(f"A session that names no model gets {_whose(default)}: {reason}.")
    return 0


@asynccontextmanager
async def _providers(args: Namespace) -> AsyncGenerator[tuple[Providers, Config]]:
    try:
        async with values.realm_to_look_at(args) as realm:
            yield realm.providers, await realm.sessions.config()
    except RealmNotFound:
        chosen = values.choice(args)
        if not values.unnamed(args, chosen.realm_id):
            raise
        config = parse(read_config(chosen.config_file))
        async with open_providers() as providers:
            yield providers, config


def _tell_models(found: Sequence[Model], default: tuple[str, str]) -> None:
    display.table(
        ("MODEL", "PROVIDER", "WINDOW", "MAX OUTPUT", "$ IN", "$ OUT", ""),
        [
            (
                model.model,
                model.server or model.provider,
                _count(model.context_tokens),
                _count(model.output_tokens_max),
                _price(model.input_usd),
                _price(model.output_usd),
                "default" if (model.server or model.provider, model.model) == default else "",
            )
            for model in found
        ],
    )
    if found:
        display.note("Prices are US dollars for a million tokens; what is not known is left out.")
    else:
        display.note("No models are known of it: name one with --model and --provider all the same.")


def _view(model: Model, *, is_default: bool) -> dict[str, Any]:
    return model.model_dump(mode="json", exclude_none=True) | ({"default": True} if is_default else {})


def _is_meant(row: dict[str, Any], provider: str | None) -> bool:
    return provider in (None, row["provider"], row.get("kind"))


def _key_variable(row: dict[str, Any], config: Config) -> dict[str, str]:
    """The variable that a self-hosted server's key is in; of the others it is known."""
    server = config.self_hosted.get(row["provider"]) if row.get("kind") else None
    return {"key_variable": server.api_key_env} if server is not None and server.api_key_env else {}


def _key(row: dict[str, Any]) -> str:
    """Whether there is a key, never the key."""
    if "key_variable" not in row:
        return "needs none"
    return f"{row['key_variable']} is {'set' if row['has_key'] else 'not set'}"


def _count(tokens: int | None) -> str:
    if tokens is None:
        return ""
    if tokens >= _MILLION:
        return f"{tokens / _MILLION:.3g}M"
    return f"{tokens / _THOUSAND:.3g}k" if tokens >= _THOUSAND else str(tokens)


def _price(usd: float | None) -> str:
    return "" if usd is None else f"{usd:.2f}" if usd >= 0.1 or usd == 0 else f"{usd:.3g}"


def _whose(choice: Choice) -> str:
    provider = choice.server or choice.provider
    return choice.model if choice.model == provider else f"{choice.model} of {provider}"
