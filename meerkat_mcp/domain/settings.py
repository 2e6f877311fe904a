"""What a session was asked to be: everything a call may set and the next call inherits."""

from typing import Annotated, Any, Literal

from pydantic import Field

from meerkat_mcp.domain.messages import JsonObject, ToolDefinition, Value
from meerkat_mcp.domain.servers import ServerName, ToolServer

PROMPT_CHARS_MAX = 1_000_000
TOOLS_MAX = 128
TOOL_RESULT_CHARS_MAX = 10_000_000
LABELS_MAX = 32
LABEL_CHARS_MAX = 200
TITLE_CHARS_MAX = 200

Labels = dict[
    Annotated[str, Field(min_length=1, max_length=64)],
    Annotated[str, Field(max_length=LABEL_CHARS_MAX)],
]


PermissionMode = Literal["readonly", "ask", "auto"]
"""Which tools of MCP servers run by themselves: those that only read and no others; those, and others when somebody
has said yes; all of them. Only a tool's annotation says that it only reads."""

STRICTNESS: tuple[PermissionMode, ...] = ("readonly", "ask", "auto")


def strictest(*modes: PermissionMode) -> PermissionMode:
    """The mode that lets least run."""
    return min(modes, key=STRICTNESS.index)


class Budget(Value):
    """What a session may use up over its whole life; None is unlimited. Checked before each step and tool call."""

    max_tokens: int | None = Field(default=None, ge=1, description="Tokens read and written.")
    max_duration_s: float | None = Field(default=None, gt=0, description="Seconds worked, not waited.")
    max_tool_calls: int | None = Field(default=None, ge=0, description="Tool calls.")
    max_cost_usd: float | None = Field(default=None, gt=0, description="US dollars.")

    def tightened(self, other: "Budget") -> "Budget":
        """The stricter of the two, limit by limit: a caller can lower the realm's budget, never raise it."""
        pairs = {name: (getattr(self, name), getattr(other, name)) for name in Budget.model_fields}
        return Budget(**{name: min((v for v in pair if v is not None), default=None) for name, pair in pairs.items()})


class Settings(Value):
    """The choices of a session. None means: what the realm's config says when the turn starts.

    An `mcp_servers` entry that is None is the realm's server of that name.
    """

    model: str | None = None
    provider: str | None = None
    provider_params: JsonObject | None = None
    system_prompt: str | None = None
    additional_instructions: tuple[str, ...] = ()
    max_tokens: int | None = None
    max_steps: int | None = None
    output_schema: JsonObject | None = None
    tools: tuple[ToolDefinition, ...] = ()
    mcp_servers: dict[ServerName, ToolServer | None] | None = None
    permission_mode: PermissionMode | None = None
    budget: Budget = Budget()

    def changed(self, **changes: Any) -> "Settings":
        """These settings with `changes`; a change to what already is gives an equal value."""
        return Settings.model_validate(self.model_dump() | changes)
