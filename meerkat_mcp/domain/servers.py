"""MCP servers that bring tools: how each is started or reached. Secrets are named, never written down."""

import re
from collections.abc import Callable
from typing import Annotated, Literal

from pydantic import Field, model_validator

from meerkat_mcp.domain.errors import InvalidRequest
from meerkat_mcp.domain.messages import Value

SERVERS_MAX = 32
SERVER_NAME = r"^[A-Za-z0-9][A-Za-z0-9_-]{0,31}$"
REFERENCE = re.compile(r"\$\{([A-Za-z_][A-Za-z0-9_]*)(?::-([^}]*))?\}")
"""`${NAME}`, or `${NAME:-what to use when it is not set}`: a variable of the server's environment."""

ServerName = Annotated[str, Field(pattern=SERVER_NAME)]
_Text = Annotated[str, Field(max_length=8192)]


class ToolServer(Value):
    """An MCP server: a `command` to start and speak to over stdio, or a `url` that speaks streamable HTTP.

    `command`, `args`, `env`, `cwd`, `url` and `headers` may hold `${NAME}`. A server that is `required` and cannot be
    reached fails the turn; without any other the turn goes on.
    """

    type: Literal["stdio", "http"] | None = Field(default=None, description="What command or url say already.")
    command: str | None = Field(default=None, min_length=1, max_length=4096, description="A program to start.")
    args: tuple[_Text, ...] = Field(default=(), max_length=256, description="Its arguments.")
    env: dict[str, _Text] = Field(default_factory=dict, max_length=256, description="Variables beside the basic ones.")
    cwd: str | None = Field(default=None, min_length=1, max_length=4096, description="Where it is started.")
    url: str | None = Field(
        default=None, pattern=r"^(https?://|\$\{)", max_length=4096, description="Where it is reached."
    )
    headers: dict[str, _Text] = Field(default_factory=dict, max_length=64, description="Sent with every request.")
    required: bool = Field(default=False, description="Without it the turn fails.")
    connect_timeout_s: float = Field(default=30.0, gt=0, le=600, description="To start, and to list its tools.")
    call_timeout_s: float = Field(default=300.0, gt=0, le=86_400, description="For one tool call.")

    @model_validator(mode="after")
    def _one_way_to_reach_it(self) -> "ToolServer":
        if (self.command is None) == (self.url is None):
            raise ValueError("give either command or url")
        if self.type is not None and (self.type == "stdio") != (self.command is not None):
            raise ValueError("type stdio goes with command, http with url")
        if self.url is not None and (self.args or self.env or self.cwd):
            raise ValueError("args, env and cwd go with command")
        if self.command is not None and self.headers:
            raise ValueError("headers go with url")
        return self

    @property
    def references(self) -> frozenset[str]:
        """The variables of the environment that it names."""
        return frozenset(name for text in self._texts() for name, _ in REFERENCE.findall(text))

    def resolved(self, lookup: Callable[[str], str | None]) -> "ToolServer":
        """With every reference replaced by its value: to be used, never to be kept or shown.

        Raises:
            InvalidRequest: a variable is not set.
        """

        def fill(text: str) -> str:
            def value(found: re.Match[str]) -> str:
                known = lookup(found[1])
                if known is None and found[2] is None:
                    raise InvalidRequest(
                        f"The environment variable {found[1]} is not set.",
                        hint="Set it where the server is started; a tool server's definition refers to it.",
                    )
                return known if known is not None else found[2]

            return REFERENCE.sub(value, text)

        return self.model_copy(
            update={
                "command": fill(self.command) if self.command else None,
                "args": tuple(fill(arg) for arg in self.args),
                "env": {name: fill(value) for name, value in self.env.items()},
                "cwd": fill(self.cwd) if self.cwd else None,
                "url": fill(self.url) if self.url else None,
                "headers": {name: fill(value) for name, value in self.headers.items()},
            }
        )

    def _texts(self) -> tuple[str, ...]:
        single = (self.command or "", self.url or "", self.cwd or "")
        return (*single, *self.args, *self.env.values(), *self.headers.values())
