"""The tools that work with the realm itself: its config, what it can do, which models there are."""

import platform
from collections.abc import Callable
from importlib.metadata import version
from typing import Any

from mcp.server.mcpserver import Context
from mcp.types import ToolAnnotations
from pydantic import ValidationError

from meerkat_mcp.domain.config import Config, explain, merge
from meerkat_mcp.domain.errors import GenerationConflict, InvalidRequest, MeerkatError
from meerkat_mcp.domain.messages import JsonObject
from meerkat_mcp.domain.settings import Settings
from meerkat_mcp.domain.version import VERSION
from meerkat_mcp.realms import Realm, surroundings
from meerkat_mcp.server import inputs as i
from meerkat_mcp.server import realm_results as r
from meerkat_mcp.server.callers import Caller, caller
from meerkat_mcp.server.scopes import TOOL_SCOPES
from meerkat_mcp.server.sockets import Asked
from meerkat_mcp.server.stdio import transport_name
from meerkat_mcp.server.surface import SurfaceTool, tool
from meerkat_mcp.server.trust import Trust

CONFIGURES = ToolAnnotations(read_only_hint=False, destructive_hint=False, idempotent_hint=False, open_world_hint=False)
READS = ToolAnnotations(read_only_hint=True, destructive_hint=False, idempotent_hint=True, open_world_hint=False)


class RealmTools:
    """The functions behind the tools."""

    def __init__(self, realm: Realm, *, trust: Trust, expose_paths: bool, config_changed: Callable[[], None]) -> None:
        self._realm = realm
        self._trust = trust
        self._expose_paths = expose_paths
        self._config_changed = config_changed

    def tools(self) -> list[SurfaceTool]:
        """The tools."""
        return [
            tool(self.meerkat_config, "Configure", CONFIGURES),
            tool(self.meerkat_capabilities, "Capabilities", READS),
            tool(self.meerkat_models_catalog, "Models", READS),
        ]

    async def meerkat_config(self, given: i.ConfigInput, context: Context[Any, Any]) -> r.ConfigResult:
        """Get, set (replace) or patch (RFC 7396) the realm's config; with session_id a session's settings. Send the
        generation you read as expected_generation, and a stale change is refused.
        """
        _check_fields(given)
        if given.session_id is not None:
            return await self._session_config(given, caller(context))
        realm, expected = self._realm, given.expected_generation
        match given.action:
            case "get":
                current = await realm.store.config()
            case "set":
                document = given.config or {}
                current = await realm.change_config(lambda _: document, expected, allow=self._trust.check_config)
            case "patch":
                patch = given.patch or {}
                current = await realm.change_config(
                    lambda before: merge(before, patch), expected, allow=self._trust.check_config
                )
        if given.action != "get":
            self._config_changed()
        return await self._effective() if given.effective else self._result(current.document, current.generation)

    async def meerkat_capabilities(self, given: i.CapabilitiesInput, context: Context[Any, Any]) -> r.Capabilities:
        """This server's realm, backend, limits, providers and versions."""
        realm = self._realm
        config = await realm.sessions.config()
        model, provider, reason = self._default(config)
        who = caller(context)
        versions = {"python": platform.python_version(), "mcp": version("mcp"), "pydantic": version("pydantic")}
        return r.Capabilities(
            realm_id=realm.id,
            instance_id=realm.owner.instance_id,
            backend=realm.manifest.backend,
            version=VERSION,
            versions=versions | realm.mechanisms,
            default_model=model,
            default_provider=provider,
            default_reason=reason,
            providers=await realm.providers.about(config),
            tool_servers=sorted(config.mcp_servers),
            permissions={
                "default_mode": config.agent.permission_mode,
                "ceiling": config.permissions.ceiling,
                "caller_may_approve": config.permissions.caller_may_approve,
                "caller_is_trusted": self._trust.caller,
            },
            caller={
                "principal": who.principal,
                "scopes": sorted(who.scopes),
                "own_sessions_only": who.own_only,
                "denied_tools": [name for name, scope in TOOL_SCOPES.items() if scope not in who.scopes],
            },
            limits=config.limits.model_dump(mode="json"),
            running_turns=realm.turns.running,
            transport=_transport(context.request_context.request),
            warnings=list(realm.warnings),
        )

    async def meerkat_models_catalog(self, given: i.CatalogInput, context: Context[Any, Any]) -> r.CatalogResult:
        """The known models with windows, prices and abilities; the default one and why."""
        providers = self._realm.providers
        config = await self._realm.sessions.config()
        model, provider, reason = self._default(config)
        models = await providers.catalog(config, given.provider)
        return r.CatalogResult(
            models=[
                r.CatalogModel.of(one, default=(one.server or one.provider, one.model) == (provider, model))
                for one in models
            ],
            default_model=model,
            default_provider=provider,
            default_reason=reason,
        )

    def _default(self, config: Config) -> tuple[str, str, str]:
        """The model of a session that chooses none, its provider, and why; or why sessions here have to choose one."""
        try:
            choice, reason = self._realm.providers.default(config)
        except MeerkatError as exc:
            return config.agent.model or "", config.agent.provider or "", f"not usable: {exc.message}"
        return choice.model, choice.server or choice.provider, reason

    async def _session_config(self, given: i.ConfigInput, who: Caller) -> r.ConfigResult:
        """A session's settings: like the config, with the session's last event as generation."""
        session_id = await self._realm.reading.resolve(given.session_id or "", sees=who.sees)
        session = await self._realm.sessions.settled(session_id)
        expected = given.expected_generation
        if given.action != "get":
            if expected is not None and expected != session.seq:
                raise GenerationConflict(
                    f"The session is at event {session.seq}, not {expected}.", expected=expected, current=session.seq
                )
            before = session.settings.model_dump(mode="json", exclude_none=True)
            wanted = given.config if given.action == "set" else merge(before, given.patch)
            try:
                settings = Settings.model_validate(wanted)
            except ValidationError as exc:
                raise InvalidRequest(f"Invalid settings: {explain(exc, Settings)}.") from None
            if settings != session.settings:
                self._trust.check_servers(settings.mcp_servers, session.settings.mcp_servers)
                changes = {name: value for name, value in settings if value != getattr(session.settings, name)}
                if "model" in changes:
                    changes["provider"] = settings.provider
                self._trust.check_mode(changes.get("permission_mode"), await self._realm.sessions.config())
                await self._realm.sessions.resume(session_id, changes=changes, by=who.principal)
                session = await self._realm.sessions.settled(session_id)
        shown = session.settings.model_dump(mode="json", exclude_none=True)
        return self._result(shown, session.seq, session_id=session_id)

    async def _effective(self) -> r.ConfigResult:
        """What holds here, and why."""
        configuration = self._realm.sessions.configuration
        effective = await configuration.current()
        found = self._result(effective.config.model_dump(mode="json"), effective.generation)
        found.layers = dict(effective.origins)
        found.process = r.ConfigProcess(
            permission_ceiling=configuration.ceiling,
            trust_caller=self._trust.caller,
            config_file=configuration.has_file,
        )
        variables = await surroundings(self._realm, effective.config)
        found.environment = [r.ConfigVariable.model_validate(variable) for variable in variables]
        return found

    def _result(self, document: JsonObject, generation: int, *, session_id: str | None = None) -> r.ConfigResult:
        return r.ConfigResult(
            config=document,
            generation=generation,
            realm_id=self._realm.id,
            instance_id=self._realm.owner.instance_id,
            backend=self._realm.manifest.backend,
            session_id=session_id,
            resolved_paths=self._realm.paths if self._expose_paths else None,
        )


def _check_fields(given: i.ConfigInput) -> None:
    """An argument that the action does not use is a mistake, not to be passed over."""
    keys = ", ".join(sorted(Config.model_fields))
    if (given.action == "set") != (given.config is not None):
        raise InvalidRequest("action=set, and only that, takes config.", hint=f"An object with any of: {keys}.")
    if (given.action == "patch") != (given.patch is not None):
        raise InvalidRequest("action=patch, and only that, takes patch.", hint=f"An object with any of: {keys}.")
    if given.action == "get" and given.expected_generation is not None:
        raise InvalidRequest("action=get takes no expected_generation.", hint="It returns the generation.")
    if given.effective and given.session_id is not None:
        raise InvalidRequest("effective is for the realm's config.", hint="Leave it out with session_id.")


def _transport(request: Any) -> str:
    if isinstance(request, Asked):
        return request.transport
    return "http" if hasattr(request, "scope") else transport_name()
