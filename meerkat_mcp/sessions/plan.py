"""What a turn will do: the session's settings, where they are silent the realm's config, and who answers."""

from collections.abc import Mapping
from dataclasses import dataclass

from meerkat_mcp.domain.config import Config
from meerkat_mcp.domain.errors import BudgetExhausted, InvalidRequest, ModelUnknown
from meerkat_mcp.domain.events import BudgetWarning, TurnLimitReached
from meerkat_mcp.domain.messages import JsonObject, Message, ToolDefinition
from meerkat_mcp.domain.session import Session
from meerkat_mcp.domain.settings import Budget, Settings
from meerkat_mcp.providers.base import Model, ModelRequest, Provider

WARNING_SHARE = 0.8


@dataclass(frozen=True, slots=True)
class Plan:
    """Everything a turn needs to know, fixed when it begins: a later change of config does not touch it."""

    provider: Provider
    model: str
    provider_params: JsonObject
    system_prompt: str
    max_tokens: int
    max_steps: int
    tools: tuple[ToolDefinition, ...]
    output_schema: JsonObject | None
    output_retries: int
    budget: Budget
    delta_interval_s: float

    def request(self, messages: tuple[Message, ...], *, tokens_left: int | None) -> ModelRequest:
        """The next model call. `tokens_left` of a budget shorten the reply."""
        return ModelRequest(
            model=self.model,
            provider_params=self.provider_params,
            system_prompt=self.system_prompt,
            messages=messages,
            tools=self.tools,
            output_schema=self.output_schema,
            max_tokens=self.max_tokens if tokens_left is None else max(1, min(self.max_tokens, tokens_left)),
        )


class Providers:
    """Who can answer here, by name, and which model is whose."""

    def __init__(self, providers: Mapping[str, Provider]) -> None:
        self._providers = dict(providers)

    def catalog(self) -> tuple[Model, ...]:
        """Every known model, grouped by provider."""
        return tuple(model for provider in self._providers.values() for model in provider.models())

    def counts(self) -> dict[str, int]:
        """How many models each provider is known to have."""
        return {name: len(provider.models()) for name, provider in self._providers.items()}

    def default(self, config: Config) -> tuple[str, str, str]:
        """The model a session has that did not choose, its provider, and why."""
        if config.agent.model is not None:
            provider, model = self.find(config.agent.model, config.agent.provider)
            return model, provider.name, "the realm's config names it (agent.model)"
        if config.agent.provider is not None:
            provider, model = self.find(None, config.agent.provider)
            return model, provider.name, "the first model of the config's provider (agent.provider)"
        model = self.catalog()[0]
        return model.model, model.provider, "nothing is configured; the demo model needs no key"

    def find(self, model: str | None, provider: str | None) -> tuple[Provider, str]:
        """The provider of a model. Either may be None, not both.

        Raises:
            ModelUnknown: nobody has that model.
            InvalidRequest: there is no such provider.
        """
        if provider is not None and provider not in self._providers:
            raise InvalidRequest(
                f"There is no provider {provider!r}.",
                hint=f"Available here: {', '.join(self._providers)}.",
            )
        for known in self.catalog():
            if (model is None or known.model == model) and (provider is None or known.provider == provider):
                return self._providers[known.provider], known.model
        whose = f"Provider {provider} has no model" if provider else "No provider here has the model"
        raise ModelUnknown(
            f"{whose} {model!r}.",
            hint=f"meerkat_models_catalog lists them: {', '.join(known.model for known in self.catalog())}.",
            model=model,
        )

    def plan(self, settings: Settings, config: Config) -> Plan:
        """What a turn with these settings does. Raises ModelUnknown, InvalidRequest."""
        agent = config.agent
        model, provider = settings.model, settings.provider
        if model is None and provider is None:
            model, provider, _ = self.default(config)
        answers, model = self.find(model, provider)
        system = settings.system_prompt if settings.system_prompt is not None else agent.system_prompt or ""
        return Plan(
            provider=answers,
            model=model,
            provider_params=agent.provider_params | (settings.provider_params or {}),
            system_prompt="\n\n".join(part for part in (system, *settings.additional_instructions) if part),
            max_tokens=settings.max_tokens or agent.max_tokens_per_turn,
            max_steps=settings.max_steps or agent.max_steps,
            tools=settings.tools,
            output_schema=settings.output_schema,
            output_retries=agent.structured_output_retries,
            budget=settings.budget.tightened(config.budget),
            delta_interval_s=config.limits.delta_interval_ms / 1000,
        )


def spent(session: Session, now_ms: int) -> dict[str, float]:
    """What a session has used of each budget so far, the running turn included."""
    running_ms = now_ms - session.turn.resumed_ms if session.active and session.turn is not None else 0
    return {
        "max_tokens": session.usage.total_tokens,
        "max_duration_s": (session.busy_ms + running_ms) / 1000,
        "max_tool_calls": session.tool_calls,
        "max_cost_usd": session.usage.cost_usd or 0.0,
    }


def exhausted(session: Session, budget: Budget, now_ms: int) -> TurnLimitReached | None:
    """The budget that is used up. Tool calls are asked about when there are some: see `over_tool_calls`."""
    used = spent(session, now_ms)
    for name, limit in budget.model_dump(exclude_none=True, exclude={"max_tool_calls"}).items():
        if used[name] >= limit:
            return TurnLimitReached(limit=f"budget.{name}", used=used[name], maximum=limit)
    return None


def over_tool_calls(session: Session, budget: Budget, calls: int) -> TurnLimitReached | None:
    """Whether so many more tool calls are too many."""
    used, limit = session.tool_calls + calls, budget.max_tool_calls
    if limit is None or used <= limit:
        return None
    return TurnLimitReached(limit="budget.max_tool_calls", used=used, maximum=limit)


def warnings(session: Session, budget: Budget, now_ms: int) -> list[BudgetWarning]:
    """The budgets of which four fifths are used, and nobody was told yet."""
    used = spent(session, now_ms)
    return [
        BudgetWarning(budget=name, used=used[name], limit=limit)
        for name, limit in budget.model_dump(exclude_none=True).items()
        if name not in session.warned and limit and used[name] >= WARNING_SHARE * limit
    ]


def check_budget(session: Session, budget: Budget, now_ms: int) -> None:
    """Refuse a turn that could not do anything.

    Raises:
        BudgetExhausted: a budget is used up already.
    """
    over = exhausted(session, budget, now_ms)
    if over is not None:
        raise BudgetExhausted(
            f"Session {session.id} has used up {over.limit}: {over.used:g} of {over.maximum:g}.",
            hint="Raise the budget (of the session, or budget.* in the realm's config), or start a new session.",
            session_id=session.id,
            limit=over.limit,
            used=over.used,
            maximum=over.maximum,
        )
