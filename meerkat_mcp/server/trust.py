"""What a calling model may not do by itself: start programs, point our keys elsewhere, allow what needs a person.

A model can be talked into anything by what it reads. So the keys of the config that decide where secrets go, which
programs run, what needs a yes and what is deleted are a person's, on the command line; and a call may name the realm's
tool servers, not bring its own. An operator who trusts the caller that far starts the server with `--trust-caller`.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from meerkat_mcp.domain.config import Config, PermissionsConfig
from meerkat_mcp.domain.errors import PermissionDenied
from meerkat_mcp.domain.servers import ToolServer
from meerkat_mcp.domain.settings import PermissionMode, strictest
from meerkat_mcp.sessions.decisions import Approval

PROTECTED = ("permissions", "providers", "self_hosted", "mcp_servers", "retention")


@dataclass(frozen=True, slots=True)
class Trust:
    """How far callers of this server are trusted."""

    caller: bool = False

    def check_config(self, before: Config, after: Config) -> None:
        """Refuse a change of what is a person's. Raises PermissionDenied."""
        touched = [name for name in PROTECTED if getattr(before, name) != getattr(after, name)]
        modes = before.agent.permission_mode, after.agent.permission_mode
        if strictest(*modes) != modes[1]:
            touched.append("agent.permission_mode")
        if touched and not self.caller:
            raise PermissionDenied(
                f"The config's {', '.join(touched)} can be changed by a person only: they decide where keys are sent, "
                "which programs are started, what needs a yes, what is deleted.",
                hint="Ask the user to change it with `meerkat-mcp config patch`, or to start this server with "
                "--trust-caller.",
                keys=touched,
            )

    def check_mode(self, wanted: PermissionMode | None, config: Config) -> None:
        """Refuse a mode that lets more run than the realm's own: that is a yes in advance.

        Raises:
            PermissionDenied: a calling model may be stricter than `agent.permission_mode`, not laxer.
        """
        given = config.agent.permission_mode
        if wanted is not None and strictest(wanted, given) != wanted and not self.caller:
            raise PermissionDenied(
                f"permission_mode {wanted!r} lets more run than this realm's own, {given!r}: a person has to say so.",
                hint=f"Use {given!r}, or leave it out. The user can set agent.permission_mode with `meerkat-mcp config "
                "patch`, or start this server with --trust-caller.",
                permission_mode=given,
            )

    def check_servers(
        self, wanted: Mapping[str, ToolServer | None] | None, known: Mapping[str, ToolServer | None] | None = None
    ) -> None:
        """Refuse tool servers that a call brings itself, but for those that its session has already.

        Raises:
            PermissionDenied: a call may only name servers of the realm's config.
        """
        brought = [name for name, server in (wanted or {}).items() if server and (known or {}).get(name) != server]
        if brought and not self.caller:
            raise PermissionDenied(
                f"This call brings tool servers ({', '.join(brought)}); it may only name those of the realm's config.",
                hint="Ask the user to add them with `meerkat-mcp config patch` (mcp_servers) and name them here as "
                '{"NAME": {}}, or to start this server with --trust-caller.',
                servers=brought,
            )

    def check_approvals(self, approvals: Sequence[Approval], permissions: PermissionsConfig) -> None:
        """Refuse a yes of the calling model, unless the realm's config allows it. It may always say no.

        Raises:
            PermissionDenied: approving is for a person here.
        """
        approves = any(approval.verdict == "approve" for approval in approvals)
        if approves and not self.caller and not permissions.caller_may_approve:
            raise PermissionDenied(
                "Approving tool calls is for a person here, not for the calling model.",
                hint="Ask the user: they can approve with `meerkat-mcp session approve SESSION_ID`, or set "
                "permissions.caller_may_approve in the realm's config. You may deny.",
            )
