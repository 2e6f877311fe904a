"""What is refused before anything begins: too long, no schema, a secret, more than is allowed here."""

from collections.abc import Mapping, Sequence

from pydantic import TypeAdapter, ValidationError

from meerkat_mcp.domain.config import Config, refuse_secrets
from meerkat_mcp.domain.errors import InvalidRequest, LimitExceeded, PermissionDenied
from meerkat_mcp.domain.messages import ToolResult
from meerkat_mcp.domain.settings import LABELS_MAX, TITLE_CHARS_MAX, Labels, PermissionMode, Settings, strictest
from meerkat_mcp.sessions.output import check_schema

_labels = TypeAdapter(Labels)


def check(prompt: str, settings: Settings, mode: PermissionMode | None, config: Config) -> None:
    """Check what a session is asked, and to be. `mode` is the permission mode that this very call asks for.

    Raises:
        LimitExceeded, SchemaInvalid, InvalidRequest (a secret), PermissionDenied (beyond the ceiling).
    """
    if len(prompt) > config.limits.max_prompt_chars:
        raise LimitExceeded(
            f"The prompt has {len(prompt)} characters.",
            limit="limits.max_prompt_chars",
            maximum=config.limits.max_prompt_chars,
        )
    if settings.output_schema is not None:
        check_schema(settings.output_schema)
    for name, server in (settings.mcp_servers or {}).items():
        if server is not None:
            refuse_secrets(server.model_dump(exclude_defaults=True), f"mcp_servers.{name}")
    ceiling = config.permissions.ceiling
    if mode is not None and strictest(mode, ceiling) != mode:
        raise PermissionDenied(
            f"permission_mode {mode!r} is more than is allowed here: {ceiling!r} at most.",
            hint=f"Use {ceiling!r}, or have the operator raise permissions.ceiling.",
            ceiling=ceiling,
        )


def check_results(results: Sequence[ToolResult], most: int) -> None:
    """Refuse tool results that are too long. Raises LimitExceeded."""
    for result in results:
        if len(result.content) > most:
            raise LimitExceeded(
                f"The result of {result.tool_use_id} has {len(result.content)} characters.",
                hint="Shorten it, or raise the limit in the realm's config.",
                limit="limits.max_tool_result_chars",
                maximum=most,
            )


def check_title(title: str) -> None:
    """Refuse a title that is too long. Raises InvalidRequest."""
    if len(title) > TITLE_CHARS_MAX:
        raise InvalidRequest(f"The title has {len(title)} characters; {TITLE_CHARS_MAX} is the most.")


def check_labels(labels: Mapping[str, str]) -> None:
    """Refuse labels that are too many or too long. Raises InvalidRequest."""
    if len(labels) > LABELS_MAX:
        raise InvalidRequest(f"A session has at most {LABELS_MAX} labels; these are {len(labels)}.")
    try:
        _labels.validate_python(dict(labels))
    except ValidationError as exc:
        error = exc.errors(include_url=False, include_input=False)[0]
        raise InvalidRequest(f"A label is not as it should be: {error['msg']}.") from None
