"""What `run` was asked for: its flags, checked, as the session takes them."""

import re
import sys
from argparse import Namespace
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, cast

from pydantic import TypeAdapter, ValidationError

from meerkat_mcp.cli import approving, values
from meerkat_mcp.domain.config import explain
from meerkat_mcp.domain.errors import InvalidRequest
from meerkat_mcp.domain.messages import ToolDefinition, ToolResult
from meerkat_mcp.domain.servers import SERVER_NAME, SERVERS_MAX, ToolServer
from meerkat_mcp.domain.settings import LABELS_MAX, TITLE_CHARS_MAX, TOOLS_MAX, Budget, Labels
from meerkat_mcp.sessions.decisions import Approval


@dataclass(frozen=True, slots=True)
class Request:
    """What was asked for. `reference` is None for a new session."""

    prompt: str
    reference: str | None
    changes: dict[str, Any]
    title: str | None
    labels: dict[str, str] | None
    tool_results: Sequence[ToolResult]
    verdicts: Sequence[Approval]
    if_busy: Any


def request(args: Namespace) -> Request:
    """The flags of `run`, and its prompt, from stdin where that is meant. Raises InvalidRequest."""
    prompt, reference = cast(str | None, args.prompt), cast(str | None, args.resume)
    if reference is not None and prompt is None and not values.is_reference(reference):
        prompt, reference = reference, values.LAST
    results = [
        ToolResult(tool_use_id=call, content=values.file_text(text[1:]) if text.startswith("@") else text)
        for call, text in values.pairs(args.tool_result, "--tool-result").items()
    ]
    verdicts = approving.verdicts(args.approve, args.deny)
    changes = _changes(args)
    labels = _labels(args)
    silent = bool(results or verdicts or changes or labels or args.title) and reference is not None
    if prompt == "-" or (prompt is None and not silent and not sys.stdin.isatty()):
        prompt = values.stdin_text().strip()
    if not prompt and not silent:
        raise InvalidRequest("There is no prompt.", hint='say it as an argument or on stdin: meerkat-mcp run "Hello".')
    if (results or verdicts) and reference is None:
        flag = "--tool-result" if results else f"--{verdicts[0].verdict}"
        raise InvalidRequest(f"{flag} answers a waiting turn.", hint="say which session with --resume.")
    if args.title is not None and len(args.title) > TITLE_CHARS_MAX:
        raise InvalidRequest(f"--title has more than {TITLE_CHARS_MAX} characters.")
    return Request(prompt or "", reference, changes, args.title, labels, results, verdicts, args.if_busy)


def _labels(args: Namespace) -> dict[str, str] | None:
    labels = values.pairs(args.label, "--label")
    try:
        TypeAdapter(Labels).validate_python(labels)
    except ValidationError as exc:
        raise InvalidRequest(f"--label: {exc.errors(include_url=False)[0]['msg']}.") from None
    if len(labels) > LABELS_MAX:
        raise InvalidRequest(f"A session has at most {LABELS_MAX} labels.")
    return labels or None


def _changes(args: Namespace) -> dict[str, Any]:
    """The settings that were given."""
    given: dict[str, Any] = {
        "model": args.model,
        "provider": args.provider,
        "provider_params": values.json_pairs(args.param, "--param") or None,
        "system_prompt": args.system_prompt,
        "additional_instructions": tuple(args.instruction) or None,
        "max_tokens": args.max_tokens,
        "max_steps": args.max_steps,
        "mcp_servers": {} if args.no_mcp_servers else _servers(args.mcp_server) or None,
        "permission_mode": args.permission_mode,
    }
    if args.output_schema is not None:
        given["output_schema"] = values.json_object(args.output_schema, "--output-schema")
    if args.tools is not None:
        given["tools"] = _tools(values.document(args.tools, "--tools"))
    if args.budget:
        try:
            given["budget"] = Budget.model_validate(values.json_pairs(args.budget, "--budget"))
        except ValidationError as exc:
            raise InvalidRequest(f"--budget: {explain(exc, Budget)}.") from None
    return {name: value for name, value in given.items() if value is not None}


def _tools(said: Any) -> tuple[ToolDefinition, ...]:
    many: list[Any] = cast(list[Any], said) if isinstance(said, list) else [said]
    if len(many) > TOOLS_MAX:
        raise InvalidRequest(f"--tools: a session has at most {TOOLS_MAX}.")
    try:
        tools = tuple(ToolDefinition.model_validate(tool) for tool in many)
    except ValidationError as exc:
        raise InvalidRequest(f"--tools: {explain(exc, ToolDefinition)}.") from None
    for tool in tools:
        if not re.fullmatch(r"[A-Za-z0-9_-]{1,64}", tool.name):
            raise InvalidRequest(f"--tools: {tool.name[:80]!r} is no name for a tool.", hint="use A-Z a-z 0-9 _ -.")
    return tools


def _servers(said: Sequence[str]) -> dict[str, ToolServer | None]:
    """Tool servers by name; None stands for the one of that name in the realm's config."""
    servers: dict[str, ToolServer | None] = {}
    for one in said:
        name, equals, definition = one.partition("=")
        if not re.fullmatch(SERVER_NAME, name):
            raise InvalidRequest(
                f"--mcp-server: {name[:80]!r} is no name for a tool server.",
                hint="a name has 1 to 32 of A-Z a-z 0-9 _ -, and begins with a letter or a digit.",
            )
        given = values.json_object(definition, f"--mcp-server {name}") if equals else None
        try:
            servers[name] = ToolServer.model_validate(given) if given is not None else None
        except ValidationError as exc:
            raise InvalidRequest(f"--mcp-server {name}: {explain(exc, ToolServer)}.") from None
    if len(servers) > SERVERS_MAX:
        raise InvalidRequest(f"--mcp-server: a session has at most {SERVERS_MAX}.")
    return servers
