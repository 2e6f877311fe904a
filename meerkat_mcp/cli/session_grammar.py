"""What one can type after `session`."""

from argparse import ArgumentParser
from typing import Any

from meerkat_mcp.cli import values
from meerkat_mcp.cli.parsing import GLOBAL_NOTE, Commands, Parser, add_ceiling, command

_STATES = ("idle", "running", "waiting")
_ROOMS = {
    "approve": "run",  # a turn in this process, as one of `run`
    "compact": "run",
    "export": "portable",
    "import_": "portable",
    "prune": "tidying",
}
_QUERY = "words of the title, labels, prompts and replies; or how the id begins"

DELETE_NOTE = (
    "There is no way back. To put a session away, as Meerkat's own `delete` does, use: session archive. " + GLOBAL_NOTE
)
PRUNE_NOTE = "Without --plan or --yes it deletes nothing, says what it would delete, and names the plan. " + GLOBAL_NOTE
APPROVE_NOTE = (
    "All calls of a turn are answered at once; to allow some and refuse others: "
    "run --resume REF --approve ID --deny ID=REASON. " + GLOBAL_NOTE
)
EXPORT_NOTE = (
    "A JSONL file has all of the log and can be imported; markdown is for people. The file is for its owner's eyes "
    "only (mode 600), and appears when it is complete. " + GLOBAL_NOTE
)
IMPORT_NOTE = (
    "A file is somebody's word: tool servers and the permission mode that it brings are dropped, unless you say "
    "--trust. The session stands by itself: a turn that was not over ends as interrupted. " + GLOBAL_NOTE
)


def add_session(commands: Commands, common: ArgumentParser) -> None:
    """The commands that look at sessions, and those that change, move or end them."""

    def add(name: str, does: str, help_: str, *, reference: str | None = "REF", **more: Any) -> Parser:
        parser = command(commands, common, name, f"{_ROOMS.get(does, 'session')}:{does}", help_, **more)
        if reference is not None:
            parser.add_argument("reference", metavar=reference)
        return parser

    _add_list(add("list", "listing", "sessions, latest activity first", reference=None))
    show = add("show", "show", "a session and its latest turn")
    show.add_argument("--history", action="store_true", help="and its messages")
    show.add_argument("--events", action="store_true", help="its events instead")
    show.add_argument("--after-seq", metavar="N", type=values.between(0, 2**53), help="events after this one")
    show.add_argument("--follow", action="store_true", help="go on as events come, until Ctrl-C")
    history = add("history", "history", "a session's messages, the newest page by default")
    history.add_argument("--offset", metavar="N", type=values.between(0, 2**31), help="from the first message")
    history.add_argument("--limit", metavar="N", type=values.between(1, 1000), default=50)
    _add_edit(add("edit", "edit", "change a session's title and labels, also while it works"))
    delete = add("delete", "delete", "delete a session for good", reference="FULL_ID", epilog=DELETE_NOTE)
    delete.add_argument("--yes", action="store_true", help="do not ask")
    prune = add("prune", "prune", "delete archived sessions: dry first", reference=None, epilog=PRUNE_NOTE)
    prune.add_argument(
        "--archived-before",
        metavar="DAYS",
        type=values.between(0, 36_500),
        required=True,
        help="those without activity for so long",
    )
    sure = prune.add_mutually_exclusive_group()
    sure.add_argument("--plan", metavar="ID", help="delete what was shown under this plan, if that is still the same")
    sure.add_argument("--yes", action="store_true", help="delete without looking first")
    add("archive", "archive", "put a session away; it stays readable")
    add("restore", "restore", "bring a session back from the archive")
    fork = add("fork", "fork", "a new session with this one's history")
    fork.add_argument("--at-seq", metavar="N", type=values.between(1, 2**53), help="up to this event")
    fork.add_argument("--title", default="")
    _add_export(add("export", "export", "write a session to a file or stdout", reference=None, epilog=EXPORT_NOTE))
    _add_import(add("import", "import_", "make sessions of exported JSONL files", reference=None, epilog=IMPORT_NOTE))
    _add_approve(
        add("approve", "approve", "allow what a waiting turn wants to do, and see it through", epilog=APPROVE_NOTE)
    )
    compact = add("compact", "compact", "have the model summarise the history; the log keeps all")
    compact.add_argument("--dry-run", action="store_true", help="only say what would be replaced")
    compact.add_argument("-s", "--stream", action="store_true", help="print the summary as it is written")
    interrupt = add("interrupt", "interrupt", "end the running turn, in whatever process it runs")
    interrupt.add_argument("--turn", metavar="ID", help="only this one")


def _add_list(listing: Parser) -> None:
    listing.add_argument("--limit", metavar="N", type=values.between(1, 200), default=20)
    listing.add_argument("--offset", metavar="N", type=values.between(0, 2**31), default=0)
    listing.add_argument("--cursor", help="next_cursor of the page before")
    listing.add_argument("--label", metavar="K=V", action="append", default=[], help="only with this label")
    listing.add_argument("--state", choices=_STATES)
    listing.add_argument("--archived", action="store_true", help="only archived ones")
    listing.add_argument("--query", metavar="TEXT", default="", help=_QUERY)


def _add_edit(edit: Parser) -> None:
    edit.add_argument("--title", metavar="TEXT", help="its new title; an empty one leaves it without")
    edit.add_argument("--label", metavar="K=V", action="append", default=[], help="set this label; may be repeated")
    edit.add_argument("--unlabel", metavar="K", action="append", default=[], help="take this label off")


def _add_export(export: Parser) -> None:
    export.add_argument("reference", metavar="REF", nargs="?")
    export.add_argument(
        "--format", choices=("jsonl", "markdown"), help="default: as FILE's ending says, .md or another; else jsonl"
    )
    export.add_argument("-o", "--output", metavar="FILE", help="where to; with --all a folder; left out: stdout")
    export.add_argument("--force", action="store_true", help="replace the file when there is one")
    export.add_argument("--all", action="store_true", help="every session, archived ones too, each to a file of DIR")
    export.add_argument("--label", metavar="K=V", action="append", default=[], help="with --all: only with this label")
    export.add_argument("--query", metavar="TEXT", default="", help=f"with --all: only found by {_QUERY}")


def _add_import(import_: Parser) -> None:
    import_.add_argument("files", metavar="FILE", nargs="+", help="- is stdin")
    import_.add_argument("--title", metavar="TEXT", help="another title")
    import_.add_argument("--keep-id", action="store_true", help="under the id that it had, when that is free here")
    import_.add_argument(
        "--trust", action="store_true", help="keep the tool servers and the permission mode that the file brings"
    )


def _add_approve(parser: Parser) -> None:
    parser.add_argument("ids", metavar="ID", nargs="*", help="the calls; without one all that wait for a yes")
    parser.add_argument("--deny", action="store_true", help="refuse them instead; the agent is told, and goes on")
    parser.add_argument("--reason", metavar="TEXT", default="", help="told to the model when it is a no")
    parser.add_argument("-s", "--stream", action="store_true", help="print the text as it is written")
    add_ceiling(parser)
