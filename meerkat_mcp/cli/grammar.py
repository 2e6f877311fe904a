"""What one can type: commands, flags, and the short forms that stand for longer ones."""

import argparse
from argparse import SUPPRESS, ArgumentParser, Namespace
from collections.abc import Sequence
from typing import Any

from meerkat_mcp.cli import http, values
from meerkat_mcp.cli.parsing import MODES, Commands, Parser, add_ceiling, add_sharing, command, group
from meerkat_mcp.cli.realm_grammar import add_realm
from meerkat_mcp.cli.session_grammar import add_session
from meerkat_mcp.domain.errors import InvalidRequest

GLOBAL_DEFAULTS: dict[str, Any] = {
    "realm": None,
    "isolated": False,
    "instance": None,
    "realm_backend": None,
    "realm_dsn_env": None,
    "state_root": None,
    "context_root": None,
    "config": None,
    "log_level": "warning",
    "json": False,
    "permission_ceiling": None,
    "command": None,
}
_TAKES_VALUE = (
    "--realm",
    "--instance",
    "--realm-backend",
    "--realm-dsn-env",
    "--state-root",
    "--context-root",
    "--config",
    "--log-level",
)
_TAKES_NONE = ("--isolated", "--json")

RUN_NOTES = """A session reference is a full id, its first 4 or more characters, last, ~N (~2 is the second most
recent), or realm:id. `--resume "Keep going"` alone resumes the last session; the word `run` may be left out
before flags. The prompt comes from stdin when it is - or left out and stdin is no terminal.
Ctrl-C ends the turn, and the session keeps what it had finished.
A tool of an MCP server that does more than read needs a yes, unless the permission mode is auto: at a terminal you
are asked; elsewhere, or with --json, the turn waits, and `session approve` or --approve goes on with it.
Exit codes: 0 done or waiting, 1 interrupted, at a limit, or a bug, 2 a wrong request, 4 not found, 5 a conflict, 6 not
permitted, 7 over a limit, 8 provider or store unavailable, 9 damaged, 130 Ctrl-C.
Every command takes --realm, --json and more: meerkat-mcp --help."""


def parsed(words: Sequence[str]) -> Namespace:
    """What `meerkat-mcp` was told. Raises InvalidRequest; SystemExit after showing help."""
    parser = _parser()
    args, left = parser.parse_known_args(_expanded(words), namespace=Namespace(**GLOBAL_DEFAULTS, version=False))
    if args.command == "run:approve":  # argparse gives up on a list of words at the first flag between them
        args.ids += [word for word in left if not word.startswith("-")]
        left = [word for word in left if word.startswith("-")]
    if left:
        parser.error(f"unrecognized arguments: {' '.join(left)}")
    if args.version:
        args.command = "realm:version"
    if args.command is None:
        raise InvalidRequest(
            "No command was given.",
            hint="meerkat-mcp tour shows what this is; serve is for an MCP host; --help lists all commands.",
        )
    return args


def parsed_to_serve(words: Sequence[str]) -> Namespace:
    """What `rkat-mcp` was told."""
    parser = Parser(
        prog="rkat-mcp",
        parents=[_globals(shown=True)],
        allow_abbrev=False,
        description="Serve MCP on stdin and stdout: what `meerkat-mcp serve` does.",
    )
    parser.add_argument("--version", action="store_true", help="say the version and leave")
    _add_serve_flags(parser)
    args = parser.parse_args(list(words), namespace=Namespace(**GLOBAL_DEFAULTS))
    args.command = "realm:version" if args.version else args.command or "serve:serve"
    return args


def _expanded(words: Sequence[str]) -> list[str]:
    """With the word `run` where only its flags were said: `--resume "Keep going"`."""
    at = 0
    while at < len(words):
        if words[at] in _TAKES_VALUE:
            at += 2
        elif words[at] in _TAKES_NONE or words[at].partition("=")[0] in _TAKES_VALUE:
            at += 1
        else:
            break
    short = at < len(words) and words[at].startswith("-") and words[at] not in ("-h", "--help", "--version")
    return [*words[:at], *(["run"] if short else []), *words[at:]]


def _globals(*, shown: bool = False, json: bool = True) -> ArgumentParser:
    """The flags of every command. They have no defaults, so that said before the command they stay."""
    flags = Parser(add_help=False, argument_default=SUPPRESS, allow_abbrev=False)
    group = flags.add_argument_group("flags of every command") if shown else flags

    def add(name: str, help_: str, **more: Any) -> None:
        group.add_argument(name, help=help_ if shown else SUPPRESS, **more)

    add("--realm", "the realm; without it that of this folder (or MEERKAT_REALM)", metavar="ID")
    add("--isolated", "a new realm that nobody else has", action="store_true")
    add("--instance", "a name for this process", metavar="ID")
    add("--realm-backend", "for a new realm: sqlite (default), postgres, jsonl or memory", metavar="NAME")
    add("--realm-dsn-env", "the variable with a postgres realm's address (MEERKAT_POSTGRES_DSN)", metavar="NAME")
    add("--state-root", "where realms are kept (or MEERKAT_STATE_ROOT)", metavar="DIR")
    add("--context-root", "the folder whose realm is meant; default: this one", metavar="DIR")
    add("--config", "a TOML or JSON file: this machine's config, under the realm's (or MEERKAT_CONFIG)", metavar="FILE")
    add("--log-level", "how much goes to stderr", choices=("debug", "info", "warning", "error"))
    if json:
        add("--json", "JSON on stdout; errors as JSON on stderr", action="store_true")
    return flags


def _parser() -> Parser:
    common, without_json = _globals(), _globals(json=False)
    parser = Parser(
        prog="meerkat-mcp",
        parents=[_globals(shown=True)],
        allow_abbrev=False,
        description="Durable agent sessions behind MCP tools.",
        epilog="New here? meerkat-mcp tour",
    )
    parser.add_argument("--version", action="store_true", help="say the version and leave")
    commands = parser.add_subparsers(metavar="COMMAND", parser_class=Parser, title="commands")
    serve = command(commands, common, "serve", "serve:serve", "serve MCP on stdin and stdout, for a host, or over HTTP")
    _add_serve_flags(serve)
    _add_run(commands, common)
    add_session(group(commands, common, "session", "look at sessions, and put them away"), common)
    models = command(
        commands, common, "models", "models:models", "the models there are, their prices, and whose key is set"
    )
    models.add_argument("-p", "--provider", metavar="NAME", help="only of this provider")
    _add_config(group(commands, common, "config", "the realm's config"), common, without_json)
    realm = group(commands, common, "realm", "which realms there are, and what becomes of them")
    add_realm(realm, common)
    tidy = command(realm, common, "tidy", "tidying:tidy", "take away what the config's retention says, now")
    tidy.add_argument("--dry-run", action="store_true", help="only say what would go")
    resident = group(commands, common, "resident", "the server that hosts share with serve --shared")
    command(resident, common, "status", "resident:status", "which one this realm has, and for how many hosts")
    command(resident, common, "stop", "resident:stop", "end it; the next host's request starts another one")
    tour = command(commands, common, "tour", "tour:tour", "see it work: a server, a session, a restart (15 s, no key)")
    tour.add_argument("--keep", action="store_true", help="keep what the tour made, and say where")
    return parser


def _add_serve_flags(parser: Parser) -> None:
    parser.add_argument("--expose-paths", action="store_true", help="let clients see where things lie on this machine")
    parser.add_argument(
        "--trust-caller",
        action="store_true",
        help="let the calling model bring tool servers, change all of the config, and approve calls",
    )
    add_ceiling(parser)
    add_sharing(parser)
    http.add_flags(parser)


def _add_run(commands: Commands, common: ArgumentParser) -> None:
    run = command(
        commands,
        common,
        "run",
        "run:run",
        "start a session, or go on with one",
        epilog=RUN_NOTES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    run.add_argument("prompt", metavar="PROMPT", nargs="?", help="what to say; - reads stdin")
    run.add_argument("-s", "--stream", action="store_true", help="print the text as it is written")
    run.add_argument("--resume", metavar="REF", nargs="?", const=values.LAST, help="go on with a session; alone: last")
    run.add_argument("--if-busy", choices=("reject", "interrupt", "queue"), default="reject", help="with --resume")
    run.add_argument("--title", help="a name for the session")
    run.add_argument("--label", metavar="K=V", action="append", default=[], help="a label; may be repeated")
    _add_settings(
        run.add_argument_group("how the agent works (a session keeps these; what is left out stays as it was)")
    )
    answers = run.add_argument_group("for a turn that waits (with --resume)")
    answers.add_argument("--tool-result", metavar="ID=TEXT", action="append", default=[], help="or ID=@FILE")
    answers.add_argument(
        "--approve", metavar="ID", action="append", default=[], help="allow this call; all: each that is not named"
    )
    answers.add_argument(
        "--deny", metavar="ID[=REASON]", action="append", default=[], help="refuse it; the reason is for the model"
    )
    add_ceiling(run)


def _add_settings(how: Any) -> None:
    how.add_argument("-m", "--model")
    how.add_argument("-p", "--provider")
    how.add_argument("--param", metavar="K=V", action="append", default=[], help="for the provider; V may be JSON")
    how.add_argument("--system-prompt", metavar="TEXT")
    how.add_argument("--instruction", metavar="TEXT", action="append", default=[], help="said after the system prompt")
    how.add_argument("--max-tokens", metavar="N", type=values.between(1, 1_000_000), help="longest reply of one step")
    how.add_argument("--max-steps", metavar="N", type=values.between(1, 1000), help="most model calls in a turn")
    how.add_argument("--budget", metavar="K=V", action="append", default=[], help="max_tokens, max_duration_s, …")
    how.add_argument("--output-schema", metavar="FILE|JSON", help="JSON Schema that the answer must fit")
    how.add_argument("--tools", metavar="FILE|JSON", help="tools of yours: the turn waits for --tool-result")
    servers = how.add_mutually_exclusive_group()
    servers.add_argument(
        "--mcp-server",
        metavar="NAME[=JSON]",
        action="append",
        default=[],
        help="an MCP server whose tools the agent has: one of the realm's config, or JSON or @FILE with command or url",
    )
    servers.add_argument("--no-mcp-servers", action="store_true", help="none, not even those of the config")
    how.add_argument(
        "--permission-mode", choices=MODES, help="readonly: only what reads; ask: others after a yes; auto: all"
    )


def _add_config(commands: Commands, common: ArgumentParser, without_json: ArgumentParser) -> None:
    get = command(commands, common, "get", "config:get", "say the config")
    get.add_argument("--effective", action="store_true", help="as it holds on this machine, with all defaults")
    get.add_argument("--with-generation", action="store_true", help="in an envelope: generation, realm, paths, layers")
    get.add_argument("--format", choices=("text", "json"), help="json is what --json says")
    for name, help_ in (("set", "replace the config"), ("patch", "merge into the config (RFC 7396: null removes)")):
        change = command(commands, without_json, name, f"config:{name}_", help_)
        change.add_argument("--json", metavar="DOC", dest="document", help="the document, @FILE, or - for stdin")
        change.add_argument("file", metavar="FILE", nargs="?", help="a file with the document instead")
        change.add_argument("--expected-generation", metavar="N", type=values.between(0, 2**53), help="else a conflict")
        change.add_argument("--format", choices=("text", "json"), help="of what is said about it")
