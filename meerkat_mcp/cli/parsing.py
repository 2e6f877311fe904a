"""What the grammars of commands are made of: parsers whose complaints are errors like any other, commands, groups."""

from argparse import SUPPRESS, ArgumentParser
from typing import Any, NoReturn

from meerkat_mcp.cli import values
from meerkat_mcp.domain.errors import InvalidRequest

MODES = ("readonly", "ask", "auto")
GLOBAL_NOTE = "Every command takes --realm, --json and more: meerkat-mcp --help."

Commands = Any  # argparse does not name the type of what add_subparsers returns


class Parser(ArgumentParser):
    """Wrong usage is an error like any other."""

    def error(self, message: str) -> NoReturn:
        """Raises InvalidRequest."""
        raise InvalidRequest(f"{message[0].upper()}{message[1:]}.", hint=f"{self.prog} --help shows what there is.")


def command(commands: Commands, common: ArgumentParser, name: str, does: str, help_: str, **more: Any) -> Parser:
    """One command: `does` is the room and the function that carry it out."""
    parser: Parser = commands.add_parser(
        name,
        parents=[common],
        allow_abbrev=False,
        help=help_,
        description=f"{help_[0].upper()}{help_[1:]}.",
        **({"epilog": GLOBAL_NOTE} | more),
    )
    parser.set_defaults(command=does)
    return parser


def group(commands: Commands, common: ArgumentParser, name: str, help_: str) -> Commands:
    """A word that commands stand behind."""
    parser = commands.add_parser(name, parents=[common], allow_abbrev=False, help=help_, epilog=GLOBAL_NOTE)
    return parser.add_subparsers(metavar="COMMAND", parser_class=Parser, title="commands", required=True)


def add_ceiling(parser: Parser) -> None:
    """The flag that bounds what a turn of this process may do."""
    parser.add_argument(
        "--permission-ceiling",
        choices=MODES,
        help="no turn here goes beyond this permission mode, whatever it asks for",
    )


def add_sharing(parser: Parser) -> None:
    """The flags of a server that hosts share. They stand for other commands: the proxy's, and the server's own."""
    command: dict[str, Any] = {"dest": "command", "action": "store_const", "default": SUPPRESS}
    parser.add_argument(
        "--shared",
        **command,
        const="resident:through",
        help="share one server with the realm's other hosts (started when there is none), not one for each",
    )
    parser.add_argument("--resident", **command, const="resident:serve", help=SUPPRESS)
    parser.add_argument(
        "--idle-exit",
        metavar="SECONDS",
        type=values.between(3, 10**9),
        help="with --shared: when that server ends after its last host has left and its last turn has ended (600)",
    )
