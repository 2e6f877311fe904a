"""`meerkat-mcp session export` and `import`: sessions as files."""

from argparse import Namespace
from collections.abc import AsyncGenerator
from contextlib import aclosing
from pathlib import Path

from meerkat_mcp.cli import display, files, values
from meerkat_mcp.cli.showing import done
from meerkat_mcp.cli.views import reference
from meerkat_mcp.domain.errors import InvalidRequest, SessionNotFound
from meerkat_mcp.domain.session import Session
from meerkat_mcp.realms import Realm, open_realm
from meerkat_mcp.server.markdown import PAPER, Page
from meerkat_mcp.sessions.intake import Imported
from meerkat_mcp.stores.base import LIST_SESSIONS_MAX, Selection

_ENDINGS = {"jsonl": ".jsonl", "markdown": ".md"}
_MARKDOWN = (".md", ".markdown")

# ── export ──


async def export(args: Namespace) -> int:
    """Write a session, or many, to files or to stdout."""
    _check(args)
    output: str | None = args.output
    form = args.format or ("markdown" if output is not None and output.lower().endswith(_MARKDOWN) else "jsonl")
    if args.all:
        return await _export_all(files.folder(args.output), form, args)
    async with values.realm_to_look_at(args, args.reference) as realm:
        session = await realm.sessions.settled(await realm.reading.resolve(args.reference))
        if output is not None:
            await _write(realm, session, files.place(output), form, args)
        else:
            async with aclosing(_contents(realm, session, form)) as contents:
                async for piece in contents:
                    display.say_bytes(piece)
            _tell_unfinished(session)
    return 0


async def _export_all(folder: Path, form: str, args: Namespace) -> int:
    """Every session that there is when it begins; of those that are deleted meanwhile nothing."""
    selection = Selection(labels=values.pairs(args.label, "--label"), archived=None, query=args.query)
    async with values.realm_to_look_at(args) as realm:
        ids: list[str] = []
        cursor: str | None = None
        while True:
            found = await realm.reading.list(selection, cursor=cursor, limit=LIST_SESSIONS_MAX)
            ids += [session.id for session in found.sessions]
            if (cursor := found.next_cursor) is None:
                break
        for session_id in ids:
            try:
                session = await realm.journal.load(session_id)
                await _write(realm, session, folder / f"{session_id}{_ENDINGS[form]}", form, args)
            except SessionNotFound:
                continue
    return 0


async def _write(realm: Realm, session: Session, path: Path, form: str, args: Namespace) -> None:
    size = 0
    with files.appearing(path, force=args.force) as file:
        async with aclosing(_contents(realm, session, form)) as contents:
            async for piece in contents:
                size += file.write(piece)
    view = {"session_id": session.id, "session_ref": reference(realm.id, session.id), "state": session.state}
    view |= {"file": str(path), "format": form, "bytes": size, "last_seq": session.seq}
    done(args, view, f"{session.id}  is in {path}, {size} bytes.")
    _tell_unfinished(session)


async def _contents(realm: Realm, session: Session, form: str) -> AsyncGenerator[bytes]:
    if form == "jsonl":
        async with aclosing(realm.reading.export_session(session)) as lines:
            async for line in lines:
                yield line
        return
    page = Page(PAPER)
    async for recorded in realm.journal.log(session.id, through=session.seq):
        if not recorded.is_delta:
            page.add(recorded.event)
    yield page.markdown(session, realm.id).encode()


def _tell_unfinished(session: Session) -> None:
    if session.open_turn is not None:
        display.note(f"{session.id}  is {session.state}: this is the session up to event {session.seq}.")


def _check(args: Namespace) -> None:
    if args.all == (args.reference is not None):
        raise InvalidRequest("Say which session: a reference, or --all.")
    if args.all and args.output is None:
        raise InvalidRequest("--all writes a file for each session.", hint="say --output DIR.")
    if not args.all and (args.label or args.query):
        raise InvalidRequest("--label and --query choose among all sessions.", hint="say --all too.")
    if args.force and args.output is None:
        raise InvalidRequest("--force is about a file.", hint="say --output FILE.")


# ── import ──


async def import_(args: Namespace) -> int:
    """Make a session of each file; a realm that is not there yet is made, too."""
    if args.title is not None and len(args.files) > 1:
        raise InvalidRequest("--title is for one session.", hint="import the files one by one.")
    async with open_realm(values.choice(args), turns=False) as realm:
        for name in args.files:
            try:
                async with aclosing(files.pieces(name)) as pieces:
                    made = await realm.shelf.import_session(
                        pieces, title=args.title or "", keep_id=args.keep_id, trusted=args.trust
                    )
            except InvalidRequest as exc:
                exc.message = exc.message if name in exc.message else f"{name[:200]}: {exc.message}"
                raise
            _tell(made, realm, args)
    return 0


def _tell(made: Imported, realm: Realm, args: Namespace) -> None:
    session, origin = made.session, made.origin
    view = {"session_id": session.id, "session_ref": reference(realm.id, session.id), "last_seq": session.seq}
    view |= {"origin": {"realm_id": origin.realm_id, "session_id": origin.session_id}, "dropped": list(made.dropped)}
    done(args, view, f"{session.id}  has the history of {origin.realm_id}:{origin.session_id}.")
    if made.dropped and not args.json:
        display.note(f"{session.id}  without {', '.join(made.dropped)}: --trust keeps what a file brings.")
