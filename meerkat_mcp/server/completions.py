"""What a host suggests while a person fills in a prompt's argument or a resource's address."""

from collections.abc import Iterable, Sequence
from typing import Any

import anyio
from mcp.server import MCPServer, ServerRequestContext
from mcp.types import CompleteRequestParams, CompleteResult, Completion, PromptReference

from meerkat_mcp.domain.config import Config
from meerkat_mcp.domain.settings import STRICTNESS
from meerkat_mcp.providers.base import Model
from meerkat_mcp.providers.catalog import known_models
from meerkat_mcp.realms import Realm
from meerkat_mcp.server.answering import answer_with
from meerkat_mcp.server.callers import Caller, caller_of
from meerkat_mcp.server.prompts import PROMPTS
from meerkat_mcp.server.resources import TEMPLATES
from meerkat_mcp.stores.base import Selection

VALUES_MAX = 100
"""As MCP has it."""
LIVE_WAIT_S = 2.0
"""How long a provider may take to list its models before we suggest those that are known offline."""


def add_completions(server: MCPServer[Any], realm: Realm) -> None:
    """Let a server complete what these prompts and resources take."""

    async def complete(ctx: ServerRequestContext[Any, Any], params: CompleteRequestParams) -> CompleteResult:
        return await completed(realm, caller_of(ctx.request), params)

    answer_with(server, "completion/complete", CompleteRequestParams, complete)


async def completed(realm: Realm, caller: Caller, params: CompleteRequestParams) -> CompleteResult:
    """What an argument can be; nothing for one that is free text, or not ours."""
    given = params.argument.value.strip().casefold()
    match _kind(params):
        case "session":
            return await _sessions(realm, caller, given)
        case "model":
            arguments = (params.context.arguments if params.context is not None else None) or {}
            return _fitting(await _models(realm, arguments.get("provider") or None), given)
        case "provider":
            config = await realm.sessions.config()
            return _fitting([*realm.providers.names(config), *config.self_hosted], given)
        case "permission_mode":
            ceiling = (await realm.sessions.config()).permissions.ceiling
            return _fitting(STRICTNESS[: STRICTNESS.index(ceiling) + 1], given)
        case _:
            return _result([])


def _kind(params: CompleteRequestParams) -> str:
    """What is to be completed; empty where we have nothing to say."""
    ref, name = params.ref, params.argument.name
    if isinstance(ref, PromptReference):
        prompt = next((prompt for prompt in PROMPTS if prompt.name == ref.name), None)
        taken = [argument.name for argument in (prompt.arguments or ())] if prompt is not None else []
        return name if name in taken else ""
    ours = any(template.uri_template == ref.uri for template in TEMPLATES)
    return "session" if ours and name == "session_id" else ""


async def _sessions(realm: Realm, caller: Caller, given: str) -> CompleteResult:
    """Ids, latest activity first: those that begin so, and those whose title or labels have it; `last` before them."""
    selection = Selection(query=given, archived=None, principal=caller.sees)
    found = await realm.store.sessions(selection, limit=VALUES_MAX + 1)
    names = [session.id for session in found]
    if "last".startswith(given) and await realm.store.sessions(Selection(principal=caller.sees), limit=1):
        names.insert(0, "last")
    return _result(names, whole=len(found) <= VALUES_MAX)


async def _models(realm: Realm, provider: str | None) -> Sequence[str]:
    config = await realm.sessions.config()
    if provider is not None and provider not in (*realm.providers.names(config), *config.self_hosted):
        return ()
    models: Sequence[Model] | None = None
    with anyio.move_on_after(LIVE_WAIT_S):
        models = await realm.providers.catalog(config, provider)
    if models is None:
        models = await _known(config, [provider] if provider is not None else realm.providers.names(config))
    named = provider in config.self_hosted
    return [f"{one.server}/{one.model}" if one.server and not named else one.model for one in models]


async def _known(config: Config, providers: Iterable[str]) -> Sequence[Model]:
    """What needs nobody to be asked."""
    known = [model for provider in providers for model in await known_models(provider)]
    for name, server in config.self_hosted.items():
        if name in providers or "self_hosted" in providers:
            known += [Model(model=model, provider="self_hosted", server=name) for model in server.models]
    return known


def _fitting(values: Iterable[str], given: str) -> CompleteResult:
    """The values that have it: first those that begin so."""
    having = [value for value in dict.fromkeys(values) if given in value.casefold()]
    return _result(sorted(having, key=lambda value: not value.casefold().startswith(given)))


def _result(values: Sequence[str], *, whole: bool = True) -> CompleteResult:
    """At most 100 of the values; how many there are, when these are all."""
    more = not whole or len(values) > VALUES_MAX
    total = len(values) if whole else None
    return CompleteResult(completion=Completion(values=list(values[:VALUES_MAX]), total=total, has_more=more))
