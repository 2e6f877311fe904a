"""What the MCP tools take: closed models, every field with its limits and a line of description."""

from typing import Annotated, Any, ClassVar, Literal, get_args

from pydantic import BaseModel, ConfigDict, Field, TypeAdapter, ValidationError, model_validator

from meerkat_mcp.domain.config import explain
from meerkat_mcp.domain.errors import InvalidRequest
from meerkat_mcp.domain.messages import JsonObject, ToolDefinition, ToolResult
from meerkat_mcp.domain.servers import SERVERS_MAX, ServerName, ToolServer
from meerkat_mcp.domain.settings import (
    LABELS_MAX,
    PROMPT_CHARS_MAX,
    TITLE_CHARS_MAX,
    TOOL_RESULT_CHARS_MAX,
    TOOLS_MAX,
    Budget,
    Labels,
    PermissionMode,
)
from meerkat_mcp.sessions.decisions import Approval

TEXT_CHARS = 40_000
"""How much text a result has unless its caller says otherwise: about 10,000 tokens, well under hosts' limits."""

OFFSET_MAX = 2**31
SessionRef = Annotated[str, Field(min_length=1, max_length=200)]
Prompt = Annotated[str, Field(max_length=PROMPT_CHARS_MAX)]
MaxChars = Annotated[int, Field(ge=100, le=1_000_000)]


class Input(BaseModel):
    """Closed: an unknown argument is an error that names the nearest known one. Null means left out."""

    model_config = ConfigDict(extra="forbid")
    DESCRIBED_BY: ClassVar[type[BaseModel] | None] = None

    @model_validator(mode="before")
    @classmethod
    def _null_is_absent(cls, given: Any) -> Any:
        if not isinstance(given, dict):
            return given
        return {key: value for key, value in given.items() if value is not None}  # pyright: ignore[reportUnknownVariableType]


class CallerTool(Input):
    """A tool of the caller's: the turn waits until its result is brought with meerkat_resume."""

    name: str = Field(pattern=r"^[A-Za-z0-9_-]{1,64}$")
    description: str = Field(default="", max_length=20_000)
    input_schema: JsonObject = Field(default_factory=lambda: {"type": "object"})

    def definition(self) -> ToolDefinition:
        """The tool as a model sees it."""
        return ToolDefinition(name=self.name, description=self.description, input_schema=self.input_schema)


class BroughtResult(Input):
    """What a caller's tool answered."""

    tool_use_id: str = Field(min_length=1, max_length=200)
    content: str = Field(max_length=TOOL_RESULT_CHARS_MAX)
    is_error: bool = False

    def result(self) -> ToolResult:
        """The result as the session keeps it."""
        return ToolResult(**self.model_dump())


class Response(Input):
    """A yes or a no to a pending approval."""

    tool_use_id: str = Field(min_length=1, max_length=200)
    decision: Literal["approve", "deny"]
    reason: str = Field(default="", max_length=2000)

    def approval(self) -> Approval:
        """The decision as the session takes it."""
        return Approval(self.tool_use_id, self.decision, self.reason)


class BudgetInput(Input):
    """A session's budget."""

    max_tokens: int | None = Field(default=None, ge=1)
    max_duration_s: float | None = Field(default=None, gt=0)
    max_tool_calls: int | None = Field(default=None, ge=0)
    max_cost_usd: float | None = Field(default=None, gt=0)


class SettingsInput(Input):
    """What a session may be told about how to work."""

    model: str | None = Field(default=None, min_length=1, max_length=200)
    provider: str | None = Field(default=None, min_length=1, max_length=64)
    provider_params: JsonObject | None = Field(default=None, description="Flat, passed to the provider.")
    system_prompt: str | None = Field(default=None, max_length=PROMPT_CHARS_MAX)
    additional_instructions: list[Prompt] | None = Field(
        default=None, max_length=32, description="Appended to the system prompt."
    )
    max_tokens: int | None = Field(default=None, ge=1, le=1_000_000, description="Longest reply of one model call.")
    max_steps: int | None = Field(default=None, ge=1, le=1000, description="Most model calls in a turn.")
    output_schema: JsonObject | None = Field(
        default=None, description="JSON Schema; the answer comes as structured_output."
    )
    tools: list[CallerTool] | None = Field(
        default=None, max_length=TOOLS_MAX, description="Your tools: the turn waits for you to bring their results."
    )
    mcp_servers: dict[str, JsonObject] | None = Field(
        default=None, max_length=SERVERS_MAX, description="Whose tools the agent has: {NAME: {}} of the realm's config."
    )
    permission_mode: PermissionMode | None = Field(
        default=None, description="What of these runs: what only reads; ask before others; all."
    )
    budget: BudgetInput | None = Field(default=None, description="For the session's whole life.")
    labels: Labels | None = Field(default=None, max_length=LABELS_MAX)
    title: str | None = Field(default=None, max_length=TITLE_CHARS_MAX)

    def changes(self) -> dict[str, Any]:
        """The settings that were given, as `domain.settings.Settings` takes them."""
        given = self.model_dump(include=_SETTINGS, exclude_none=True)
        if self.tools is not None:
            given["tools"] = [tool.definition() for tool in self.tools]
        if self.mcp_servers is not None:
            given["mcp_servers"] = {name: _server(name, given) for name, given in self.mcp_servers.items()}
        if self.budget is not None:
            given["budget"] = Budget(**self.budget.model_dump())
        return given


RESETTABLE = Literal[
    "model",
    "provider",
    "provider_params",
    "system_prompt",
    "additional_instructions",
    "max_tokens",
    "max_steps",
    "output_schema",
    "tools",
    "mcp_servers",
    "permission_mode",
    "budget",
]
_SETTINGS = set(get_args(RESETTABLE)) - {"tools", "mcp_servers", "budget"}


_name: TypeAdapter[str] = TypeAdapter(ServerName)


def _server(name: str, given: JsonObject) -> ToolServer | None:
    """A tool server as it was given; nothing given: the one that the realm's config has by that name."""
    try:
        _name.validate_python(name)
        return ToolServer.model_validate(given) if given else None
    except ValidationError as exc:
        raise InvalidRequest(
            f"Invalid mcp_servers.{name}: {explain(exc, ToolServer)}.",
            hint=f"Give a command or a url; there are {', '.join(ToolServer.model_fields)}.",
        ) from None


class TurnInput(SettingsInput):
    """How to follow the turn that a call starts."""

    stream: bool = Field(default=False, description="Send each event as a progress notification.")
    wait_seconds: float | None = Field(
        default=None, ge=0, le=3600, description="Wait this long for the end (default 45; 0: return at once)."
    )
    on_cancel: Literal["interrupt", "detach"] = Field(
        default="interrupt", description="If you cancel this call: stop the turn, or let it go on."
    )
    max_chars: MaxChars = Field(default=TEXT_CHARS, description="Longest text in the result.")
    idempotency_key: str | None = Field(
        default=None, min_length=1, max_length=200, description="Same key and input again: the first call's turn."
    )


class RunInput(TurnInput):
    """A new session."""

    prompt: Prompt = Field(default="", description="Left out: the session is made without a turn.")


class ResumeInput(TurnInput):
    """The next turn of a session, or what it waits for, or changed settings alone.

    What it shares with RunInput is described there: a host shows both to its model, with every request.
    """

    DESCRIBED_BY: ClassVar[type[BaseModel] | None] = RunInput

    session_id: SessionRef = Field(description="Id, its first 4+ characters, last, or ~2.")
    prompt: Prompt = ""
    tool_results: list[BroughtResult] | None = Field(
        default=None, max_length=TOOLS_MAX, description="For every pending tool call."
    )
    responses: list[Response] | None = Field(
        default=None, max_length=TOOLS_MAX, description="For every pending approval."
    )
    if_busy: Literal["reject", "interrupt", "queue"] = "reject"
    reset: list[RESETTABLE] | None = Field(default=None, description="Settings to give back to the realm's default.")


class SessionsInput(Input):
    """Which sessions to list."""

    limit: int = Field(default=20, ge=1, le=200)
    offset: int = Field(default=0, ge=0, le=OFFSET_MAX)
    cursor: str | None = Field(default=None, max_length=500, description="next_cursor of the page before.")
    labels: Labels | None = Field(default=None, max_length=LABELS_MAX)
    state: Literal["idle", "running", "waiting"] | None = None
    archived: bool | None = Field(default=None, description="true: only archived; left out: none of them.")
    query: str = Field(default="", max_length=200, description="Words in title, labels, messages; or an id's start.")


class ReadInput(Input):
    """One session."""

    session_id: SessionRef
    wait_seconds: float = Field(default=0, ge=0, le=3600, description="Wait for the running turn's end.")
    turn_id: str | None = Field(default=None, min_length=1, max_length=64, description="Default: the latest turn.")
    text_offset: int = Field(default=0, ge=0, le=OFFSET_MAX, description="Read a long text on from here.")
    max_chars: MaxChars = TEXT_CHARS


class HistoryInput(Input):
    """A page of a session's messages."""

    session_id: SessionRef
    offset: int | None = Field(
        default=None, ge=0, le=OFFSET_MAX, description="From the first message; left out: the newest page."
    )
    limit: int = Field(default=20, ge=1, le=200)
    max_chars: MaxChars = TEXT_CHARS


class InterruptInput(Input):
    """A turn to end."""

    session_id: SessionRef
    expected_turn_id: str | None = Field(
        default=None, min_length=1, max_length=64, description="Only this turn; a queued one is withdrawn."
    )


class ArchiveInput(Input):
    """A session to put away."""

    session_id: SessionRef
    restore: bool = Field(default=False, description="Bring it back instead.")


class ForkInput(Input):
    """A session to copy."""

    session_id: SessionRef
    at_seq: int | None = Field(default=None, ge=1, description="Up to this event; left out: the last ended turn.")
    title: str = Field(default="", max_length=TITLE_CHARS_MAX)
    labels: Labels | None = Field(default=None, max_length=LABELS_MAX)


class CompactInput(Input):
    """A session whose history is to be shortened."""

    session_id: SessionRef
    dry_run: bool = Field(default=False, description="Only say what would be replaced.")
    wait_seconds: float | None = Field(default=None, ge=0, le=3600)


class DeleteInput(Input):
    """What to delete for good."""

    session_id: str | None = Field(default=None, min_length=1, max_length=200, description="A full id.")
    confirm: str | None = Field(
        default=None, max_length=200, description="The full id again; for older_than the preview's plan_id."
    )
    older_than: str | None = Field(
        default=None, pattern=r"^[0-9]{1,6}[smhdw]$", description="Archived ones without activity for e.g. 30d."
    )


class ConfigInput(Input):
    """What to do with the realm's config, or a session's settings."""

    action: Literal["get", "set", "patch"]
    config: JsonObject | None = Field(default=None, description="For set: the whole document.")
    patch: JsonObject | None = Field(default=None, description="For patch: an RFC 7396 merge patch.")
    expected_generation: int | None = Field(default=None, ge=0)
    effective: bool = Field(default=False, description="As it holds here, and where from.")
    session_id: str | None = Field(default=None, min_length=1, max_length=200, description="That session's settings.")


class CapabilitiesInput(Input):
    """Nothing to say."""


class CatalogInput(Input):
    """Which models to list."""

    provider: str | None = Field(default=None, min_length=1, max_length=64)


class StreamOpenInput(Input):
    """A place in a session's log."""

    session_id: SessionRef
    after_seq: int | None = Field(default=None, ge=0, description="0: from the start; left out: from now.")
    types: list[Annotated[str, Field(max_length=64)]] = Field(
        default_factory=list, max_length=32, description="Only these event types."
    )


class StreamReadInput(Input):
    """The next events of a stream."""

    stream_id: str = Field(min_length=1, max_length=100)
    timeout_ms: int = Field(default=30_000, ge=0, le=300_000)
    max_events: int = Field(default=100, ge=1, le=1000)
    after_seq: int | None = Field(default=None, ge=0, description="Read again from here.")


class StreamCloseInput(Input):
    """A stream to close."""

    stream_id: str = Field(min_length=1, max_length=100)
