"""Who can answer here: which models there are and whose, which one a session gets, how its provider is reached.

What is reached, and with whose key, is the realm's config and the environment's business: this room asks them anew for
every turn, and keeps the providers that it has opened.
"""

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

import anyio

from meerkat_mcp.domain.config import Config, ProviderConfig, SelfHostedConfig
from meerkat_mcp.domain.errors import InvalidRequest, MeerkatError, ModelUnknown, ProviderUnauthenticated
from meerkat_mcp.domain.messages import JsonObject
from meerkat_mcp.providers.base import Access, Model, Provider
from meerkat_mcp.providers.catalog import DEFAULT_MODELS, enriched, known_models, provider_of
from meerkat_mcp.providers.wire import keep_secret

DEMO = "demo"
SELF_HOSTED = "self_hosted"
VENDORS = ("anthropic", "openai", "gemini")
LIVE_LIST_S = 3600.0
LIVE_FAILED_S = 60.0
LIVE_WAIT_S = 10.0


@dataclass(frozen=True, slots=True)
class Wire:
    """How one kind of provider is opened. `key_names` are the variables its vendor documents, the first one first."""

    open: Callable[[Access], Provider]
    base_url: str = ""
    key_names: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Choice:
    """A model and whose it is; `server` is the name of a self-hosted one in the config."""

    provider: str
    model: str
    server: str | None = None


@dataclass(slots=True)
class _Live:
    """What a provider said of its models, and until when that holds."""

    models: tuple[Model, ...] | None
    until_s: float
    problem: str | None = None


@dataclass(slots=True)
class Providers:
    """The providers of one process. `lookup` reads the environment: keys come from there and nowhere else."""

    wires: Mapping[str, Wire]
    lookup: Callable[[str], str | None]
    _open: dict[tuple[str, Access], Provider] = field(default_factory=dict[tuple[str, Access], Provider])
    _live: dict[tuple[str, Access], _Live] = field(default_factory=dict[tuple[str, Access], _Live])
    _asking: anyio.Lock = field(default_factory=anyio.Lock)

    @property
    def _vendors(self) -> tuple[str, ...]:
        return tuple(name for name in VENDORS if name in self.wires)

    # ── which one ──

    def names(self, config: Config) -> tuple[str, ...]:
        """The providers that a session can name."""
        return (*self._vendors, *((SELF_HOSTED,) if config.self_hosted else ()), DEMO)

    def default(self, config: Config) -> tuple[Choice, str]:
        """The model of a session that did not choose, and why that one."""
        agent = config.agent
        if agent.model is not None:
            return self.find(agent.model, agent.provider, config), "the realm's config names it (agent.model)"
        if agent.provider is not None:
            choice = self.find(None, agent.provider, config)
            return choice, "the default model of the config's provider (agent.provider)"
        for vendor in self._vendors:
            if (variable := self.key_variable(vendor, config)) is not None:
                return self.find(None, vendor, config), f"the first provider with a key ({variable} is set)"
        named = next((name for name, server in config.self_hosted.items() if server.models), None)
        if named is not None:
            model = config.self_hosted[named].models[0]
            return Choice(SELF_HOSTED, model, named), f"no vendor has a key; the first model of self_hosted.{named}"
        return Choice(DEMO, DEMO), "nothing is configured and no vendor has a key; the demo model needs no key"

    def find(self, model: str | None, provider: str | None, config: Config) -> Choice:
        """Whose a model is. Either may be None, not both. A model newer than the catalogue goes by its family.

        Raises:
            ModelUnknown: nobody is known to have that model; name a provider as well, and it is asked for it.
            InvalidRequest: there is no such provider.
        """
        if provider in config.self_hosted or provider == SELF_HOSTED:
            return self._self_hosted(model, None if provider == SELF_HOSTED else provider, config)
        if provider is not None and provider not in self.wires:
            available = ", ".join((*self.names(config), *config.self_hosted))
            raise InvalidRequest(f"There is no provider {provider[:100]!r}.", hint=f"Available here: {available}.")
        if model is None:
            return Choice(provider or DEMO, DEFAULT_MODELS.get(provider or DEMO, DEMO))
        if provider == DEMO and model != DEMO:
            raise ModelUnknown(f"Provider demo has no model {model!r}.", hint="It has one: demo.", model=model)
        if provider is not None:
            return Choice(provider, model)
        server = self._server_of(model, config)
        if server is not None:
            return server
        family = provider_of(model)
        if family is None:
            raise ModelUnknown(
                f"No provider here is known to have the model {model!r}.",
                hint="meerkat_models_catalog lists the known ones; any other is taken when you name its provider too.",
                model=model,
            )
        return Choice(family, model)

    def _self_hosted(self, model: str | None, server: str | None, config: Config) -> Choice:
        if not config.self_hosted:
            raise InvalidRequest(
                "No self-hosted server is configured.",
                hint='Add one to the realm\'s config: {"self_hosted": {"NAME": {"base_url": "http://…/v1"}}}.',
            )
        if server is None and model is not None and (known := self._server_of(model, config)) is not None:
            return known
        if server is None and len(config.self_hosted) > 1 and model is not None:
            raise InvalidRequest(
                f"Which self-hosted server has {model[:100]!r}?",
                hint=f"Name it as provider: {', '.join(config.self_hosted)}.",
            )
        server = server or next(iter(config.self_hosted))
        models = config.self_hosted[server].models
        if model is None and not models:
            raise ModelUnknown(
                f"self_hosted.{server} names no models.", hint="Name a model, or list them in its config (models)."
            )
        return Choice(SELF_HOSTED, model or models[0], server)

    def _server_of(self, model: str, config: Config) -> Choice | None:
        """The self-hosted server that a model's name points to: as `server/model`, or by the config's lists."""
        name, slash, rest = model.partition("/")
        if slash and rest and name in config.self_hosted:
            return Choice(SELF_HOSTED, rest, name)
        found = next((name for name, server in config.self_hosted.items() if model in server.models), None)
        return Choice(SELF_HOSTED, model, found) if found is not None else None

    # ── how it is reached ──

    def key_variable(self, provider: str, config: Config) -> str | None:
        """The variable that has the provider's key; None when none is set."""
        return next((name for name in self._key_names(provider, config) if self.lookup(name)), None)

    def open(self, choice: Choice, config: Config) -> Provider:
        """The provider, ready to be asked; nothing is connected yet.

        Raises:
            ProviderUnauthenticated: it has no key; the hint names the variable.
        """
        return self._opened(choice.provider, self._access(choice, config))

    def reach(self, choice: Choice, config: Config) -> tuple[str, float]:
        """Where a provider is, and how many seconds one model call may take."""
        reached = _reached(choice, config)
        if reached is None:
            return "", float("inf")
        return reached.base_url or self.wires[choice.provider].base_url, reached.call_timeout_s

    async def close(self) -> None:
        """Close what was opened."""
        opened, self._open = list(self._open.values()), {}
        for provider in opened:
            close = getattr(provider, "close", None)
            if close is not None:
                await close()

    def _opened(self, kind: str, access: Access) -> Provider:
        known = self._open.get((kind, access))
        if known is None:
            known = self._open[kind, access] = self.wires[kind].open(access)
        return known

    def _access(self, choice: Choice, config: Config) -> Access:
        wire, reached = self.wires[choice.provider], _reached(choice, config)
        if reached is None:
            return Access(base_url="", api_key="")
        options: dict[str, str] = {}
        if isinstance(reached, SelfHostedConfig):
            key = self.lookup(reached.api_key_env) if reached.api_key_env else ""
            options["structured_output"] = reached.structured_output
            names = (reached.api_key_env,) if reached.api_key_env else ()
        else:
            names = self._key_names(choice.provider, config)
            key = next((found for name in names if (found := self.lookup(name))), None)
            if version := getattr(reached, "api_version", None):
                options["api_version"] = version
        if names and not key:
            raise ProviderUnauthenticated(
                f"Provider {choice.server or choice.provider} has no key: {' or '.join(names)} is not set.",
                hint=f"Set {names[0]} where the server is started, and restart it; or use the demo model.",
                kind="auth",
                provider=choice.provider,
            )
        keep_secret(key or "")
        return Access(
            base_url=reached.base_url or wire.base_url,
            api_key=key or "",
            connect_timeout_s=reached.connect_timeout_s,
            idle_timeout_s=reached.idle_timeout_s,
            options=tuple(sorted(options.items())),
        )

    def _key_names(self, provider: str, config: Config) -> tuple[str, ...]:
        given: ProviderConfig | None = getattr(config.providers, provider, None)
        if given is not None and given.api_key_env is not None:
            return (given.api_key_env,)
        return self.wires[provider].key_names

    # ── what they have ──

    async def catalog(self, config: Config, provider: str | None = None) -> tuple[Model, ...]:
        """The models there are, by provider: what is known offline, and with a key what the provider itself says.

        Raises:
            InvalidRequest: there is no such provider.
        """
        wanted = (provider,) if provider is not None else self.names(config)
        if provider is not None and provider not in (*self.names(config), *config.self_hosted):
            self.find("any", provider, config)
        return tuple([model for name in wanted for model in await self._models(name, config)])

    async def model(self, choice: Choice, config: Config) -> Model | None:
        """What is known of one model, None of one that nobody lists. Its provider is asked when we do not know."""
        offline = next((known for known in await known_models(choice.provider) if known.model == choice.model), None)
        if offline is not None:
            return offline
        listed = {model.model: model for model in await self._models(choice.server or choice.provider, config)}
        return listed.get(choice.model)

    async def about(self, config: Config) -> list[JsonObject]:
        """Each provider with whether it has a key, for whoever asks what this server can do. Asks nobody."""
        shown: list[JsonObject] = []
        for name in (*self._vendors, DEMO):
            variable = self.key_variable(name, config)
            names = self._key_names(name, config)
            known = len(await known_models(name)) if name != DEMO else 1
            key = {"has_key": variable is not None, "key_variable": variable or names[0]} if names else {}
            shown.append({"provider": name, "models": known, **key, **self._problem(Choice(name, ""), config)})
        for name, server in config.self_hosted.items():
            key = {"has_key": bool(self.lookup(server.api_key_env))} if server.api_key_env else {}
            problem = self._problem(Choice(SELF_HOSTED, "", name), config)
            shown.append({"provider": name, "kind": SELF_HOSTED, "models": len(server.models), **key, **problem})
        return shown

    def _problem(self, choice: Choice, config: Config) -> JsonObject:
        """Why the live list could not be had when it was last asked for."""
        try:
            live = self._live.get((choice.provider, self._access(choice, config)))
        except ProviderUnauthenticated:
            return {}
        return {"problem": live.problem} if live is not None and live.problem is not None else {}

    async def _models(self, name: str, config: Config) -> tuple[Model, ...]:
        if name == DEMO:
            return await self._opened(DEMO, Access(base_url="", api_key="")).models()
        if name in self._vendors:
            known = await known_models(name)
            return await self._listed(Choice(name, ""), config, known)
        servers = config.self_hosted if name == SELF_HOSTED else {name: config.self_hosted[name]}
        found: list[Model] = []
        for server, given in servers.items():
            models = tuple(
                Model(model=model, provider=SELF_HOSTED, context_tokens=given.context_tokens) for model in given.models
            )
            listed = models or await self._listed(Choice(SELF_HOSTED, "", server), config, ())
            ours: JsonObject = {"context_tokens": given.context_tokens} if given.context_tokens else {}
            found += [model.model_copy(update=ours | {"server": server}) for model in listed]
        return tuple(found)

    async def _listed(self, choice: Choice, config: Config, known: tuple[Model, ...]) -> tuple[Model, ...]:
        """The live list where there is one, asked once an hour; else what is known."""
        try:
            access = self._access(choice, config)
        except ProviderUnauthenticated:
            return known
        async with self._asking:
            live = self._live.get((choice.provider, access))
            if live is None or live.until_s < time.monotonic():
                live = self._live[choice.provider, access] = await self._ask(choice, access)
        return enriched(known, live.models) if live.models is not None else known

    async def _ask(self, choice: Choice, access: Access) -> _Live:
        try:
            with anyio.fail_after(LIVE_WAIT_S):
                models = await self._opened(choice.provider, access).models()
            return _Live(models, time.monotonic() + LIVE_LIST_S)
        except (MeerkatError, TimeoutError) as exc:
            return _Live(None, time.monotonic() + LIVE_FAILED_S, str(exc))


def _reached(choice: Choice, config: Config) -> ProviderConfig | SelfHostedConfig | None:
    if choice.server is not None:
        return config.self_hosted.get(choice.server)
    return getattr(config.providers, choice.provider, None)
