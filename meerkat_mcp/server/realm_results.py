"""What the tools that work with the realm itself give back: its config, what it can do, its models."""

from pydantic import BaseModel

from meerkat_mcp.domain.messages import JsonObject
from meerkat_mcp.providers.base import Model


class ConfigProcess(BaseModel):
    """What the flags of this server say."""

    permission_ceiling: str
    trust_caller: bool
    config_file: bool


class ConfigVariable(BaseModel):
    """A variable of this server's environment; one that is set is not in force where a flag says something else."""

    variable: str
    used_for: str
    is_set: bool
    in_force: bool


class ConfigResult(BaseModel):
    """The realm's config; or a session's settings, whose generation is its last event. With `effective`, `layers` says
    where each key comes from that is not a default: file (this server's), realm or process.
    """

    config: JsonObject
    generation: int
    realm_id: str
    instance_id: str
    backend: str
    session_id: str | None = None
    resolved_paths: dict[str, str] | None = None
    layers: dict[str, str] | None = None
    process: ConfigProcess | None = None
    environment: list[ConfigVariable] | None = None


class Capabilities(BaseModel):
    """What this server is and may do."""

    realm_id: str
    instance_id: str
    backend: str
    version: str
    versions: dict[str, str]
    default_model: str
    default_provider: str
    default_reason: str
    providers: list[JsonObject]
    tool_servers: list[str]
    permissions: JsonObject
    caller: JsonObject
    limits: JsonObject
    running_turns: int
    transport: str
    warnings: list[str]


class CatalogModel(BaseModel):
    """A model. Prices are US dollars for a million tokens; what is absent is not known."""

    model: str
    provider: str
    server: str | None = None
    default: bool | None = None
    context_tokens: int | None = None
    output_tokens_max: int | None = None
    input_usd: float | None = None
    output_usd: float | None = None
    cache_read_usd: float | None = None
    cache_write_usd: float | None = None
    abilities: list[str]

    @classmethod
    def of(cls, model: Model, *, default: bool) -> "CatalogModel":
        """The model, marked when a session gets it that does not choose."""
        return cls(**model.model_dump(exclude={"abilities"}), abilities=list(model.abilities), default=default or None)


class CatalogResult(BaseModel):
    """The models, and which one a session gets that does not choose."""

    models: list[CatalogModel]
    default_model: str
    default_provider: str
    default_reason: str
