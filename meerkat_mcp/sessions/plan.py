"""What a turn will do: the session's settings, where they are silent the realm's config, and who answers."""

from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass

from meerkat_mcp.domain.config import CompactionConfig, Config, RetryConfig
from meerkat_mcp.domain.errors import BudgetExhausted, InvalidRequest
from meerkat_mcp.domain.events import BudgetWarning, TurnLimitReached
from meerkat_mcp.domain.messages import JsonObject, ToolDefinition
from meerkat_mcp.domain.servers import ToolServer
from meerkat_mcp.domain.session import Session
from meerkat_mcp.domain.settings import Budget, PermissionMode, Settings, strictest
from meerkat_mcp.providers.base import Provider
from meerkat_mcp.sessions.providers import Choice, Providers

WARNING_SHARE = 0.8


Window = Callable[[], Awaitable[int | None]]


@dataclass(frozen=True, slots=True)
class Answering:
    """Who makes a model call: the provider, its model, where it is, and how long one call may take."""

    provider: Provider
    model: str
    base_url: str
    call_timeout_s: float


@dataclass(frozen=True, slots=True)
class Plan:
    """Everything a turn needs to know, fixed when it begins: a later change of config does not touch it.

    `window` says how many tokens the model can read, where that is known. `summarising` is who writes summaries; it
    raises what is wrong with the config there. `servers` are the MCP servers whose tools the model has, and
    `permission_mode` says which of these run by themselves.
    """

    answering: Answering
    window: Window
    provider_params: JsonObject
    system_prompt: str
    max_tokens: int
    max_steps: int
    tools: tuple[ToolDefinition, ...]
    servers: Mapping[str, ToolServer]
    permission_mode: PermissionMode
    output_schema: JsonObject | None
    output_retries: int
    budget: Budget
    retry: RetryConfig
    compaction: CompactionConfig
    summarising: Callable[[], Answering]
    tool_result_chars_max: int
    delta_interval_s: float


def plan(settings: Settings, config: Config, providers: Providers) -> Plan:
    """What a turn with these settings does.

    Raises:
        ModelUnknown, InvalidRequest, ProviderUnauthenticated.
    """
    agent = config.agent
    choice = chosen(settings, config, providers)
    answering = _answering(choice, config, providers)

    def summarising() -> Answering:
        model, provider = config.compaction.model, config.compaction.provider
        if model is None and provider is None:
            return answering
        return _answering(providers.find(model, provider, config), config, providers)

    async def window() -> int | None:
        model = await providers.model(choice, config)
        return model.context_tokens if model is not None else None

    system = settings.system_prompt if settings.system_prompt is not None else agent.system_prompt or ""
    return Plan(
        answering=answering,
        window=window,
        provider_params=_realm_params(choice, config, providers) | (settings.provider_params or {}),
        system_prompt="\n\n".join(part for part in (system, *settings.additional_instructions) if part),
        max_tokens=settings.max_tokens or agent.max_tokens_per_turn,
        max_steps=settings.max_steps or agent.max_steps,
        tools=settings.tools,
        servers=_servers(settings, config),
        permission_mode=strictest(settings.permission_mode or agent.permission_mode, config.permissions.ceiling),
        output_schema=settings.output_schema,
        output_retries=agent.structured_output_retries,
        budget=settings.budget.tightened(config.budget),
        retry=config.retry,
        compaction=config.compaction,
        summarising=summarising,
        tool_result_chars_max=config.limits.max_tool_result_chars,
        delta_interval_s=config.limits.delta_interval_ms / 1000,
    )


def chosen(settings: Settings, config: Config, providers: Providers) -> Choice:
    """The model of a session with these settings. Raises ModelUnknown, InvalidRequest."""
    if settings.model is None and settings.provider is None:
        choice, _ = providers.default(config)
        return choice
    return providers.find(settings.model, settings.provider, config)


def _realm_params(choice: Choice, config: Config, providers: Providers) -> JsonObject:
    """The config's provider_params, which were written for the config's provider: another one may not know them."""
    if not config.agent.provider_params:
        return {}
    default, _ = providers.default(config)
    same = (default.provider, default.server) == (choice.provider, choice.server)
    return config.agent.provider_params if same else {}


def _answering(choice: Choice, config: Config, providers: Providers) -> Answering:
    provider = providers.open(choice, config)
    base_url, call_timeout_s = providers.reach(choice, config)
    return Answering(provider, choice.model, base_url, call_timeout_s)


def _servers(settings: Settings, config: Config) -> dict[str, ToolServer]:
    """The tool servers of a session, by name: its own, and those that it only names."""
    if settings.mcp_servers is None:
        return {name: config.mcp_servers[name] for name in config.agent.mcp_servers}
    servers: dict[str, ToolServer] = {}
    for name, server in settings.mcp_servers.items():
        known = server or config.mcp_servers.get(name)
        if known is None:
            raise InvalidRequest(
                f"There is no tool server {name!r} in the realm's config.",
                hint=f"It has: {', '.join(sorted(config.mcp_servers)) or 'none'}. Or give its command or url.",
            )
        servers[name] = known
    return servers


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
