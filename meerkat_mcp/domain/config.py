"""A realm's config: one closed document with a generation. Every key listed here does something."""

import difflib
import re
from typing import Annotated, Any, cast, get_args

from pydantic import BaseModel, Field, ValidationError, field_validator
from pydantic_core import PydanticSerializationError

from meerkat_mcp.domain.errors import GenerationConflict, InvalidRequest, LimitExceeded
from meerkat_mcp.domain.messages import JsonObject, Value, legible
from meerkat_mcp.domain.settings import PROMPT_CHARS_MAX, Budget

CONFIG_BYTES_MAX = 262_144

_SECRET_KEY = re.compile(r"(?:^|[_-])(?:api[_-]?key|token|secret|password|authorization)$", re.IGNORECASE)
_SECRET_VALUE = re.compile(r"\b(?:sk-[A-Za-z0-9_-]{16,}|AIza[A-Za-z0-9_-]{30,}|gh[pousr]_[A-Za-z0-9]{20,})")


class AgentConfig(Value):
    """What a session has where it did not choose for itself."""

    model: str | None = Field(default=None, min_length=1, max_length=200, description="The model; absent: the default.")
    provider: str | None = Field(default=None, description="Who answers; absent: whoever has the model.")
    system_prompt: str | None = Field(default=None, max_length=PROMPT_CHARS_MAX, description="Said before everything.")
    max_tokens_per_turn: int = Field(default=16_384, ge=1, le=1_000_000, description="Longest reply of one step.")
    max_steps: int = Field(default=50, ge=1, le=1000, description="Most model calls in one turn.")
    provider_params: JsonObject = Field(default_factory=dict, description="Passed on to the provider.")
    structured_output_retries: int = Field(default=2, ge=0, le=10, description="Times to ask again for a valid answer.")


class LimitsConfig(Value):
    """Bounds of this realm."""

    wait_seconds: float = Field(default=45.0, ge=0, le=3600, description="How long a call waits for its turn's end.")
    max_concurrent_turns: int = Field(default=32, ge=1, le=10_000, description="Turns at once in one process.")
    max_queued_prompts: int = Field(default=16, ge=0, le=1000, description="Prompts waiting in one session.")
    max_prompt_chars: int = Field(default=PROMPT_CHARS_MAX, ge=1, le=PROMPT_CHARS_MAX, description="Longest prompt.")
    max_tool_result_chars: int = Field(default=200_000, ge=100, le=10_000_000, description="Longest tool result.")
    delta_interval_ms: int = Field(default=50, ge=1, le=1000, description="How often text in the making is written.")
    stream_idle_s: float = Field(default=86_400, ge=60, le=31_536_000, description="Life of an idle event stream.")


class Config(Value):
    """The whole document. Absent keys have their defaults."""

    agent: AgentConfig = AgentConfig()
    budget: Budget = Budget()
    limits: LimitsConfig = LimitsConfig()

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
    _refuse_secrets(document, "config")
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
            said.append(f"{where}: {error['msg']}" if where else error["msg"])
    return "; ".join(said)


def _known_keys(model: type[BaseModel], path: list[str]) -> list[str]:
    """The keys of the object at `path` in `model`, as far as the path leads through plain models."""
    for part in path:
        field = model.model_fields.get(part)
        inner = _model_in(field.annotation) if field is not None else None
        if inner is not None:
            model = inner
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


def _refuse_secrets(value: Any, path: str) -> None:
    """A store is read by many: secrets stay in the environment, the config names the variable."""
    if isinstance(value, dict):
        for key, inner in cast(JsonObject, value).items():
            if inner and not isinstance(inner, dict) and _SECRET_KEY.search(key):
                raise InvalidRequest(
                    f"{path}.{key} would put a secret into the store.",
                    hint=f"Put it into an environment variable and name that in {key}_env.",
                )
            _refuse_secrets(inner, f"{path}.{key}")
    elif isinstance(value, list):
        for inner in cast(list[Any], value):
            _refuse_secrets(inner, path)
    elif isinstance(value, str) and _SECRET_VALUE.search(value):
        raise InvalidRequest(
            f"{path} holds what looks like a key.", hint="Put it into an environment variable instead."
        )
