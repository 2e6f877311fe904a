"""What one can type after `realm`."""

from argparse import ArgumentParser
from collections.abc import Callable

from meerkat_mcp.cli import values
from meerkat_mcp.cli.parsing import GLOBAL_NOTE, Commands, Parser, command

COPY_NOTE = (
    "The source may be at work. The copy cannot be opened before it is verified, event by event. Done again it goes on "
    "where it was, and only copies what is new. " + GLOBAL_NOTE
)
BACKUP_NOTE = (
    "A backup is a realm of the same name in another folder; to restore it, copy it back: "
    "realm copy ID NEW_ID --state-root DIR --to-state-root …. " + GLOBAL_NOTE
)
DELETE_NOTE = (
    "There is no way back. Files in the realm's folder that are not the realm's stay, and so does the folder; the exit "
    "code is 1 then. " + GLOBAL_NOTE
)
PRUNE_NOTE = (
    "Without --yes or --plan it only says what would go, and the id of that plan. --plan removes exactly that, or "
    "nothing if something has changed. Realms in use never go, nor do those that cannot be looked into. " + GLOBAL_NOTE
)
DOCTOR_NOTE = "It only looks. Exit codes: 0 all is well, 1 there are warnings, 9 something is damaged. " + GLOBAL_NOTE


def add_realm(commands: Commands, common: ArgumentParser) -> None:
    """The commands that look at realms, and those that make, copy and remove them."""

    def add(name: str, does: str, help_: str, note: str = GLOBAL_NOTE) -> Parser:
        return command(commands, common, name, does, help_, epilog=note)

    add("list", "realm:listing", "all realms under the state root")
    add("show", "realm:show", "one realm").add_argument("realm_id", metavar="ID", nargs="?")
    add("current", "realm:current", "the realm that commands use here, and why")
    create = add("create", "realm_life:create", "make a realm")
    create.add_argument("realm_id", metavar="ID")
    create.add_argument("--exist-ok", action="store_true", help="do nothing when it is there already")
    _add_copies(add)
    delete = add("delete", "realm_life:delete", "delete a realm for good", DELETE_NOTE)
    delete.add_argument("realm_id", metavar="ID")
    delete.add_argument("--yes", action="store_true", help="do not ask")
    delete.add_argument("--only-here", action="store_true", help="of a postgres realm: leave what is in the database")
    prune = add("prune", "realm_life:prune", "delete realms that nobody uses any more", PRUNE_NOTE)
    prune.add_argument("--unused-for", metavar="DAYS", type=values.between(0, 36_500), required=True)
    agreed = prune.add_mutually_exclusive_group()
    agreed.add_argument("--yes", action="store_true", help="delete what would go now")
    agreed.add_argument("--plan", metavar="PLAN_ID", help="delete exactly what that plan named")
    doctor = add("doctor", "realm_doctor:doctor", "check a realm, and say what to do", DOCTOR_NOTE)
    doctor.add_argument("realm_id", metavar="ID", nargs="?")
    doctor.add_argument("--full", action="store_true", help="read every page of a database file, too")


def _add_copies(add: Callable[..., Parser]) -> None:
    copy = add("copy", "realm_copy:copy", "copy a realm into a new one, of any backend", COPY_NOTE)
    copy.add_argument("realm_id", metavar="SRC")
    copy.add_argument("to_realm_id", metavar="DST")
    copy.add_argument("--to-backend", metavar="NAME", help="sqlite, postgres or jsonl; default: that of SRC")
    copy.add_argument("--to-dsn-env", metavar="NAME", help="the variable with the address of DST's database")
    copy.add_argument("--to-state-root", metavar="DIR", help="where DST is kept; default: with SRC")
    copy.add_argument("--as-it-is", action="store_true", help="take SRC though it is a copy that was cut off")
    backup = add("backup", "realm_copy:backup", "copy a realm into another folder, under its name", BACKUP_NOTE)
    backup.add_argument("realm_id", metavar="ID")
    backup.add_argument("folder", metavar="DIR", help="a state root for backups")
    backup.add_argument("--to-backend", metavar="NAME", choices=("sqlite", "jsonl"), help="sqlite (default) or jsonl")
    for parser in (copy, backup):
        parser.add_argument("--mirror", action="store_true", help="delete sessions that the source has not any more")
