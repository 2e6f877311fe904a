"""A realm's config: one closed document with a generation. Every key listed here does something."""

import difflib
import re
from typing import Annotated, Any, Literal, cast, get_args, get_origin

from pydantic import BaseModel, Field, ValidationError, field_validator, model_validator
from pydantic_core import PydanticSerializationError

from meerkat_mcp.domain.errors import GenerationConflict, InvalidRequest, LimitExceeded
from meerkat_mcp.domain.messages import JsonObject, Value, legible
from meerkat_mcp.domain.servers import REFERENCE, SERVERS_MAX, ServerName, ToolServer
from meerkat_mcp.domain.settings import PROMPT_CHARS_MAX, TOOL_RESULT_CHARS_MAX, Budget, PermissionMode

CONFIG_BYTES_MAX = 262_144

_SECRET_KEY = re.compile(r"(?:^|[_-])(?:api[_-]?key|token|secret|password|authorization)$", re.IGNORECASE)
_SECRET_VALUE = re.compile(r"\b(?:sk-[A-Za-z0-9_-]{16,}|AIza[A-Za-z0-9_-]{30,}|gh[pousr]_[A-Za-z0-9]{20,})")
_SECRET_IN_URL = re.compile(
    r"://[^/\s@]+:(?!\$\{)[^/\s@]+@|[?&](?:api_?key|access_token|token|secret|password)=(?!\$\{)[^&\s]", re.IGNORECASE
)


class AgentConfig(Value):
    """What a session has where it did not choose for itself."""

    model: str | None = Field(default=None, min_length=1, max_length=200, description="The model; absent: the default.")
    provider: str | None = Field(
        default=None, min_length=1, max_length=64, description="Who answers; absent: whoever has the model."
    )
    system_prompt: str | None = Field(default=None, max_length=PROMPT_CHARS_MAX, description="Said before everything.")
    max_tokens_per_turn: int = Field(default=16_384, ge=1, le=1_000_000, description="Longest reply of one step.")
    max_steps: int = Field(default=50, ge=1, le=1000, description="Most model calls in one turn.")
    provider_params: JsonObject = Field(default_factory=dict, description="Passed on to the provider.")
    structured_output_retries: int = Field(default=2, ge=0, le=10, description="Times to ask again for a valid answer.")
    mcp_servers: tuple[ServerName, ...] = Field(
        default=(), max_length=SERVERS_MAX, description="Names in mcp_servers: the tools of a session without its own."
    )
    permission_mode: PermissionMode = Field(
        default="ask", description="Which tools of MCP servers run: readonly, ask (first, unless read-only), auto."
    )


class LimitsConfig(Value):
    """Bounds of this realm."""

    wait_seconds: float = Field(default=45.0, ge=0, le=3600, description="How long a call waits for its turn's end.")
    max_concurrent_turns: int = Field(default=32, ge=1, le=10_000, description="Turns at once in one process.")
    max_queued_prompts: int = Field(default=16, ge=0, le=1000, description="Prompts waiting in one session.")
    max_prompt_chars: int = Field(default=PROMPT_CHARS_MAX, ge=1, le=PROMPT_CHARS_MAX, description="Longest prompt.")
    max_tool_result_chars: int = Field(
        default=200_000, ge=100, le=TOOL_RESULT_CHARS_MAX, description="Longest tool result."
    )
    delta_interval_ms: int = Field(default=50, ge=1, le=1000, description="How often text in the making is written.")
    stream_idle_s: float = Field(
        default=86_400, ge=60, le=31_536_000, description="Then an idle event stream is closed."
    )


_VARIABLE = r"^[A-Za-z_][A-Za-z0-9_]*$"
_URL = r"^https?://[^\s]+$"


class _Patience(Value):
    """How long to wait for a provider."""

    connect_timeout_s: float = Field(default=5.0, gt=0, le=600, description="To connect.")
    idle_timeout_s: float = Field(default=300.0, gt=0, le=86_400, description="Silence between two pieces of a reply.")
    call_timeout_s: float = Field(default=3600.0, gt=0, le=86_400, description="One whole model call.")


class ProviderConfig(_Patience):
    """How to reach a vendor. Only the name of the key's variable is kept, never a key."""

    base_url: str | None = Field(default=None, pattern=_URL, max_length=2000, description="Absent: the vendor's own.")
    api_key_env: str | None = Field(
        default=None, pattern=_VARIABLE, max_length=200, description="The variable with the key; absent: the usual one."
    )


class GeminiConfig(ProviderConfig):
    """How to reach Gemini."""

    api_version: str | None = Field(default=None, pattern=r"^v[0-9a-z]{1,20}$", description="Absent: v1.")


class ProvidersConfig(Value):
    """The vendors."""

    anthropic: ProviderConfig = ProviderConfig()
    openai: ProviderConfig = ProviderConfig()
    gemini: GeminiConfig = GeminiConfig()


class SelfHostedConfig(_Patience):
    """An OpenAI-compatible server: Ollama, vLLM, llama.cpp, OpenRouter and the like."""

    base_url: str = Field(pattern=_URL, max_length=2000, description="With /v1, as the OpenAI SDK takes it.")
    api_key_env: str | None = Field(
        default=None, pattern=_VARIABLE, max_length=200, description="The variable with the key, if it wants one."
    )
    models: tuple[Annotated[str, Field(min_length=1, max_length=200)], ...] = Field(
        default=(), max_length=1000, description="Models it has; the first is its default. Absent: it is asked."
    )
    context_tokens: int | None = Field(default=None, ge=1, description="The window of its models.")
    structured_output: Literal["native", "instruction"] = Field(
        default="native", description="instruction: it knows no response_format."
    )


class RetryConfig(Value):
    """How often and how patiently a failed model call is made again."""

    attempts: int = Field(default=4, ge=1, le=20, description="Model calls in all, for one step.")
    base_delay_s: float = Field(default=0.5, ge=0, le=60, description="The first pause; each one twice as long.")
    max_delay_s: float = Field(
        default=60.0, ge=0, le=3600, description="Longest pause; a provider that asks for more ends the turn."
    )


class CompactionConfig(Value):
    """When a long history is summarised by itself, and by whom."""

    auto: bool = Field(default=True, description="Summarise when the window fills; needs a known window.")
    threshold: float = Field(default=0.8, gt=0.05, le=1, description="Share of the model's window.")
    keep_steps: int = Field(default=3, ge=1, le=100, description="Latest model calls that stay as they are.")
    model: str | None = Field(default=None, min_length=1, max_length=200, description="Absent: the session's own.")
    provider: str | None = Field(default=None, min_length=1, max_length=64, description="Whose model that is.")


class PermissionsConfig(Value):
    """What callers and sessions may do at most."""

    ceiling: PermissionMode = Field(default="auto", description="No session's permission_mode goes beyond this.")
    caller_may_approve: bool = Field(default=False, description="The calling model may answer pending approvals.")


class RetentionConfig(Value):
    """What is taken away by itself, and when. Unless it is told to, that is no session and nothing that was said."""

    archived_days: float | None = Field(
        default=None, ge=0, le=36_500, description="Archived sessions are deleted after so long without activity."
    )
    delta_days: float = Field(
        default=7.0,
        ge=0,
        le=36_500,
        description="Pieces of texts that never were completed stay so long after their turn.",
    )
    max_event_bytes: int | None = Field(
        default=None, ge=10_000, description="Where a log has more, what a compaction replaced loses its long texts."
    )
    idempotency_key_days: float = Field(
        default=30.0, ge=1, le=36_500, description="How long an idempotency_key finds its first call."
    )


class Config(Value):
    """The whole document. Absent keys have their defaults."""

    agent: AgentConfig = AgentConfig()
    budget: Budget = Budget()
    limits: LimitsConfig = LimitsConfig()
    permissions: PermissionsConfig = PermissionsConfig()
    providers: ProvidersConfig = ProvidersConfig()
    self_hosted: dict[ServerName, SelfHostedConfig] = Field(default_factory=dict, max_length=SERVERS_MAX)
    mcp_servers: dict[ServerName, ToolServer] = Field(default_factory=dict, max_length=SERVERS_MAX)
    compaction: CompactionConfig = CompactionConfig()
    retry: RetryConfig = RetryConfig()
    retention: RetentionConfig = RetentionConfig()

    @field_validator("self_hosted")
    @classmethod
    def _names_are_their_own(cls, servers: dict[str, SelfHostedConfig]) -> dict[str, SelfHostedConfig]:
        if taken := sorted({*ProvidersConfig.model_fields, "demo", "self_hosted"} & servers.keys()):
            raise ValueError(f"{', '.join(taken)} is the name of a provider already")
        return servers

    @model_validator(mode="after")
    def _servers_are_known(self) -> "Config":
        if missing := [name for name in self.agent.mcp_servers if name not in self.mcp_servers]:
            raise ValueError(f"agent.mcp_servers names what mcp_servers has not: {', '.join(missing)}")
        return self

    @field_validator("*", mode="before")
    @classmethod
    def _no_null_section(cls, value: Any) -> Any:
        return {} if value is None else value


class Versioned(Value):
    """The config with its generation: 0 before the first change, then one more with each."""

    generation: Annotated[int, Field(ge=0)]
    document: JsonObject

    @property
    def config(self) -> Config:
        """The document with the defaults of what is absent."""
        return parse(self.document)

    def changed(self, document: JsonObject, expected: int | None) -> "Versioned":
        """The next generation.

        Raises:
            GenerationConflict: the config is not at the generation the change was made on.
        """
        if expected is not None and expected != self.generation:
            raise GenerationConflict(
                f"The config is at generation {self.generation}, not {expected}.",
                hint="Read it again with action=get and make the change on that.",
                expected=expected,
                current=self.generation,
            )
        return Versioned(generation=self.generation + 1, document=document)


def parse(document: JsonObject) -> Config:
    """Check a document.

    Raises:
        InvalidRequest: an unknown key (the nearest known one is named), a bad value, a literal secret, or what
            could not be read back.
        LimitExceeded: the document is larger than 256 KiB.
    """
    refuse_secrets(document, "config")
    try:
        config = Config.model_validate(document)
    except ValidationError as exc:
        raise InvalidRequest(f"Invalid config: {explain(exc, Config)}.") from None
    try:
        body = config.model_dump_json().encode()
    except PydanticSerializationError:
        body = b""
    if not body or not legible(body):
        raise InvalidRequest("Invalid config: nested too deep, or not Unicode.")
    if (size := len(body)) > CONFIG_BYTES_MAX:
        raise LimitExceeded(f"The config has {size} bytes.", limit="config_bytes", maximum=CONFIG_BYTES_MAX)
    return config


def merge(document: Any, patch: Any) -> Any:
    """A JSON merge patch (RFC 7396): null removes, objects merge, anything else replaces."""
    if not isinstance(patch, dict):
        return patch
    merged = dict(cast(JsonObject, document)) if isinstance(document, dict) else {}
    for key, value in cast(JsonObject, patch).items():
        if value is None:
            merged.pop(key, None)
        else:
            merged[key] = merge(merged.get(key), value)
    return merged


def explain(exc: ValidationError, model: type[BaseModel]) -> str:
    """What is wrong with an input, for a person or a model: where and why, never the value itself."""
    said: list[str] = []
    for error in exc.errors(include_url=False, include_input=False)[:5]:
        path = [str(part) for part in error["loc"]]
        if error["type"] == "extra_forbidden":
            known = _known_keys(model, path[:-1])
            near = difflib.get_close_matches(path[-1], known, n=1, cutoff=0.5)
            hint = f"did you mean {near[0]!r}?" if near else f"known are: {', '.join(sorted(known))}"
            said.append(f"unknown key {'.'.join(path)[:200]!r} ({hint})")
        else:
            where = ".".join(path)[:200]
            message = error["msg"].removeprefix("Value error, ")
            said.append(f"{where}: {message}" if where else message)
    return "; ".join(said)


def _known_keys(model: type[BaseModel], path: list[str]) -> list[str]:
    """The keys of the object at `path` in `model`, as far as the path leads through plain models."""
    named = False  # the next part is a name somebody chose, like that of a server
    for part in path:
        field = model.model_fields.get(part) if not named else None
        inner = _model_in(field.annotation) if field is not None else None
        if field is not None and inner is not None:
            model, named = inner, _is_dict(field.annotation)
        elif named:
            named = False
        elif not part.isdigit():
            return []
    return [field.alias or name for name, field in model.model_fields.items()]


def _model_in(annotation: Any) -> type[BaseModel] | None:
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return annotation
    for argument in get_args(annotation):
        if (found := _model_in(argument)) is not None:
            return found
    return None


def _is_dict(annotation: Any) -> bool:
    return dict in (get_origin(annotation), *map(get_origin, get_args(annotation)))


def refuse_secrets(value: Any, path: str) -> None:
    """A store is read by many: secrets stay in the environment, what is stored names the variable.

    Raises:
        InvalidRequest: a key or a value that looks like a secret.
    """
    if isinstance(value, dict):
        for key, inner in cast(JsonObject, value).items():
            if inner and not isinstance(inner, dict) and _SECRET_KEY.search(key) and not _refers(inner):
                raise InvalidRequest(
                    f"{path}.{key} would put a secret into the store.",
                    hint="Put it into an environment variable. A provider names that in api_key_env, a tool server "
                    "writes ${NAME} in its env and headers.",
                )
            refuse_secrets(inner, f"{path}.{key}")
    elif isinstance(value, list):
        for inner in cast(list[Any], value):
            refuse_secrets(inner, path)
    elif isinstance(value, str) and (_SECRET_VALUE.search(value) or _SECRET_IN_URL.search(value)):
        raise InvalidRequest(
            f"{path} holds what looks like a key.", hint="Put it into an environment variable instead."
        )


def _refers(value: Any) -> bool:
    """Whether a text has nothing but references to the environment, and perhaps the name of a scheme."""
    if not isinstance(value, str) or not (found := REFERENCE.findall(value)) or any(default for _, default in found):
        return False
    return re.fullmatch(r"(?:[A-Za-z]{1,20} +)?", REFERENCE.sub("", value)) is not None
