"""The tools that work with sessions: run, resume, list, read, interrupt, archive, fork, compact, delete."""

import re
from typing import Any

import anyio
from mcp.server.mcpserver import Context
from mcp.types import ToolAnnotations

from meerkat_mcp.domain.errors import InvalidRequest
from meerkat_mcp.domain.plans import SHOWN_MAX, Plan
from meerkat_mcp.domain.session import LISTED_AS, Session
from meerkat_mcp.domain.settings import Settings
from meerkat_mcp.realms import Realm
from meerkat_mcp.server import inputs as i
from meerkat_mcp.server import results as r
from meerkat_mcp.server.approving import answered, ask, can_ask, decide
from meerkat_mcp.server.apps import SHOWN_BY
from meerkat_mcp.server.callers import caller
from meerkat_mcp.server.following import follow, stop_if_asked
from meerkat_mcp.server.message_views import message_views
from meerkat_mcp.server.sockets import left_behind
from meerkat_mcp.server.surface import Rejected, SurfaceTool, tool
from meerkat_mcp.server.trust import Trust
from meerkat_mcp.sessions.claims import Started
from meerkat_mcp.stores.base import Selection

OPEN = ToolAnnotations(read_only_hint=False, destructive_hint=False, idempotent_hint=False, open_world_hint=True)
READS = ToolAnnotations(read_only_hint=True, destructive_hint=False, idempotent_hint=True, open_world_hint=False)
REPEATABLE = ToolAnnotations(read_only_hint=False, destructive_hint=False, idempotent_hint=True, open_world_hint=False)
ADDS = ToolAnnotations(read_only_hint=False, destructive_hint=False, idempotent_hint=False, open_world_hint=False)
DESTROYS = ToolAnnotations(read_only_hint=False, destructive_hint=True, idempotent_hint=True, open_world_hint=False)

_SECONDS = {"s": 1, "m": 60, "h": 3600, "d": 86_400, "w": 604_800}


class SessionTools:
    """The functions behind the tools; each decodes, calls, encodes."""

    def __init__(self, realm: Realm, *, trust: Trust) -> None:
        self._realm = realm
        self._trust = trust

    def tools(self) -> list[SurfaceTool]:
        """The tools, in the order in which a reader meets them."""
        return [
            tool(self.meerkat_run, "Run an agent", OPEN, SHOWN_BY),
            tool(self.meerkat_resume, "Resume a session", OPEN, SHOWN_BY),
            tool(self.meerkat_sessions, "List sessions", READS, SHOWN_BY),
            tool(self.meerkat_read, "Read a session", READS, SHOWN_BY),
            tool(self.meerkat_history, "Read a history", READS),
            tool(self.meerkat_interrupt, "Interrupt a turn", REPEATABLE),
            tool(self.meerkat_archive, "Archive a session", REPEATABLE),
            tool(self.meerkat_fork, "Fork a session", ADDS),
            tool(self.meerkat_compact, "Compact a history", OPEN),
            tool(self.meerkat_delete, "Delete sessions", DESTROYS),
        ]

    async def meerkat_run(self, given: i.RunInput, context: Context[Any, Any]) -> r.TurnResult:
        """Start a durable agent session and run its first turn. Returns session_id and the turn's result. When the
        turn outlasts wait_seconds, status is `running`: follow it with meerkat_read (wait_seconds) or an event
        stream. Status `waiting`: bring results with meerkat_resume.
        """
        return await self._followed(await self.start_run(given, context), given, context)

    async def meerkat_resume(self, given: i.ResumeInput, context: Context[Any, Any]) -> r.TurnResult:
        """Continue a session: a new prompt, or what a waiting turn waits for (tool_results, responses). It remembers
        its whole history and its settings (those of meerkat_run); what you leave out stays as it was.
        """
        return await self._followed(await self.start_resume(given, context), given, context)

    async def meerkat_sessions(self, given: i.SessionsInput, context: Context[Any, Any]) -> r.SessionList:
        """List sessions, latest activity first."""
        selection = Selection(
            labels=given.labels or {},
            states=LISTED_AS[given.state],
            archived=bool(given.archived),
            query=given.query,
            principal=caller(context).sees,
        )
        listing = await self._realm.reading.list(selection, cursor=given.cursor, offset=given.offset, limit=given.limit)
        matched = await self._realm.reading.matched(listing.sessions, given.query)
        return r.SessionList(
            sessions=[r.session_view(session, matched.get(session.id)) for session in listing.sessions],
            next_cursor=listing.next_cursor,
        )

    async def meerkat_read(self, given: i.ReadInput, context: Context[Any, Any]) -> r.ReadResult:
        """A session's state and its latest turn: status, text, usage, pending tool calls."""
        sessions = self._realm.sessions
        session = await sessions.settled(await self._session(given.session_id, context))
        turn_id = given.turn_id or (session.turn.turn_id if session.turn is not None else None)
        if turn_id is not None and given.wait_seconds:
            await follow(self._realm, context, session.id, turn_id, seconds=given.wait_seconds, stream=False)
            session = await sessions.settled(session.id)
        return r.ReadResult(
            session_ref=f"{self._realm.id}:{session.id}",
            session=r.session_view(session),
            turn=await self._turn(session, turn_id, given.max_chars, given.text_offset) if turn_id else None,
            queued_turns=[queued.turn_id for queued in session.queue] or None,
        )

    async def meerkat_history(self, given: i.HistoryInput, context: Context[Any, Any]) -> r.HistoryResult:
        """A session's messages, a page at a time, the newest page first."""
        session_id = await self._session(given.session_id, context)
        history = await self._realm.reading.history(session_id, offset=given.offset, limit=given.limit)
        return r.HistoryResult(
            session_id=session_id,
            messages=message_views(history.messages, given.max_chars),
            offset=history.offset,
            total=history.total,
            has_more=history.offset + len(history.messages) < history.total,
        )

    async def meerkat_interrupt(self, given: i.InterruptInput, context: Context[Any, Any]) -> r.InterruptResult:
        """End the running or waiting turn, wherever it runs; returns once it has ended. What it had finished stays.
        Does nothing to an idle session.
        """
        session_id = await self._session(given.session_id, context)
        by = caller(context).principal
        said = await self._realm.sessions.interrupt(session_id, expected_turn_id=given.expected_turn_id, by=by)
        return r.InterruptResult(
            session_id=session_id, interrupted=said.interrupted, ended=said.ended, turn_id=said.turn_id
        )

    async def meerkat_archive(self, given: i.ArchiveInput, context: Context[Any, Any]) -> r.ArchiveResult:
        """Put a session away, or bring it back. Archived sessions stay readable."""
        session_id = await self._session(given.session_id, context)
        move = self._realm.shelf.restore if given.restore else self._realm.shelf.archive
        session = await move(session_id, by=caller(context).principal)
        return r.ArchiveResult(session_id=session_id, archived=session.state == "archived")

    async def meerkat_fork(self, given: i.ForkInput, context: Context[Any, Any]) -> r.ForkResult:
        """A new session with this one's history, up to a point of your choice."""
        session_id = await self._session(given.session_id, context)
        fork = await self._realm.shelf.fork(
            session_id, at_seq=given.at_seq, title=given.title, labels=given.labels, by=caller(context).principal
        )
        assert fork.forked_from is not None, "a fork says where it comes from"
        return r.ForkResult(
            session_id=fork.id,
            session_ref=f"{self._realm.id}:{fork.id}",
            forked_from=fork.forked_from,
            last_seq=fork.seq,
        )

    async def meerkat_compact(self, given: i.CompactInput, context: Context[Any, Any]) -> r.CompactResult:
        """Have the model summarise the history; from then on it sees the summary. Nothing is lost from the log."""
        session_id = await self._session(given.session_id, context)
        messages, chars = await self._realm.shelf.compactable(session_id)
        if given.dry_run:
            return r.CompactResult(
                session_id=session_id, status="preview", messages_replaced=messages, chars_before=chars
            )
        started = await self._realm.sessions.compact(session_id, by=caller(context).principal)
        seconds = await self._seconds(given.wait_seconds)
        assert started.turn_id is not None, "a compaction is a turn"
        turn = await self._end(started.session_id, started.turn_id, "interrupt", seconds, context, stream=False)
        return r.CompactResult(
            session_id=session_id,
            turn_id=started.turn_id,
            status=turn.status if turn.status != "idle" else "completed",
            messages_replaced=messages,
            chars_before=chars,
            summary=turn.text or None,
        )

    async def meerkat_delete(self, given: i.DeleteInput, context: Context[Any, Any]) -> r.DeleteResult:
        """Delete a session for good, or archived ones older than a time. Without `confirm` it only says what it would
        delete.
        """
        if (given.session_id is None) == (given.older_than is None):
            raise InvalidRequest("Give either session_id or older_than.")
        if given.session_id is not None:
            session_id = await self._session(given.session_id, context, exact=True)
            await self._realm.sessions.settled(session_id)
            return await self._delete_one(session_id, given.confirm)
        before_ms = self._before_ms(given.older_than or "")
        doomed = await self._realm.shelf.archived_before(before_ms, principal=caller(context).sees)
        plan = Plan(realm_id=self._realm.id, session_ids=tuple(session.id for session in doomed))
        if given.confirm is not None:
            plan.check(given.confirm)
            await self._realm.shelf.delete(*plan.session_ids, archived_only=True)
        return r.DeleteResult(
            deleted=given.confirm is not None,
            session_ids=list(plan.session_ids[:SHOWN_MAX]),
            total=len(plan.session_ids),
            plan_id=plan.plan_id,
            confirm=plan.plan_id if given.confirm is None else None,
        )

    async def _delete_one(self, session_id: str, confirm: str | None) -> r.DeleteResult:
        if confirm not in (None, session_id):
            raise InvalidRequest(
                "confirm is not what is about to be deleted.",
                hint="Call without confirm first, look, and send the confirm that it returns.",
                confirm=session_id,
            )
        if confirm is not None:
            await self._realm.shelf.delete(session_id)
        done = confirm is not None
        return r.DeleteResult(deleted=done, session_ids=[session_id], total=1, confirm=None if done else session_id)

    # ── starting ──

    async def start_run(self, given: i.RunInput, context: Context[Any, Any]) -> Started:
        """What meerkat_run begins, not followed. Raises what `Sessions.run` raises, PermissionDenied."""
        if (asked := await answered(self._realm, context)) is not None:
            return asked
        settings = Settings(**given.changes())
        self._trust.check_servers(settings.mcp_servers)
        self._trust.check_mode(settings.permission_mode, await self._realm.sessions.config())
        return await self._realm.sessions.run(
            given.prompt,
            settings,
            title=given.title or "",
            labels=given.labels,
            idempotency_key=given.idempotency_key,
            by=caller(context).principal,
        )

    async def start_resume(self, given: i.ResumeInput, context: Context[Any, Any]) -> Started:
        """What meerkat_resume begins, not followed. Raises what `Sessions.resume` raises, PermissionDenied."""
        if (asked := await answered(self._realm, context)) is not None:
            return asked
        session_id = await self._session(given.session_id, context)
        defaults = Settings()
        changes = {name: getattr(defaults, name) for name in given.reset or ()} | given.changes()
        self._trust.check_servers(changes.get("mcp_servers"))
        approvals = [response.approval() for response in given.responses or ()]
        config = await self._realm.sessions.config()
        self._trust.check_mode(given.permission_mode, config)
        self._trust.check_approvals(approvals, config.permissions)
        return await self._realm.sessions.resume(
            session_id,
            given.prompt,
            changes=changes,
            title=given.title,
            labels=given.labels,
            tool_results=[brought.result() for brought in given.tool_results or ()],
            approvals=approvals,
            if_busy=given.if_busy,
            idempotency_key=given.idempotency_key,
            by=caller(context).principal,
        )

    # ── following ──

    async def turn_result(self, session_id: str, turn_id: str, max_chars: int = i.TEXT_CHARS) -> r.TurnResult:
        """How a turn stands. Raises Rejected when it failed, with where to go on."""
        result = await self._turn(await self._realm.sessions.settled(session_id), turn_id, max_chars, 0)
        if result.status == "failed" and result.error is not None:
            raise Rejected(result.error, session_id, turn_id)
        return result

    async def _session(self, reference: str, context: Context[Any, Any], *, exact: bool = False) -> str:
        return await self._realm.reading.resolve(reference, exact=exact, sees=caller(context).sees)

    async def _followed(self, started: Started, given: i.TurnInput, context: Context[Any, Any]) -> r.TurnResult:
        if started.turn_id is None:
            session = await self._realm.journal.load(started.session_id)
            return r.turn_result(session, self._realm.id, None, max_chars=given.max_chars)
        seconds = await self._seconds(given.wait_seconds)
        return await self._end(
            started.session_id,
            started.turn_id,
            given.on_cancel,
            seconds,
            context,
            stream=given.stream,
            max_chars=given.max_chars,
        )

    async def _end(
        self,
        session_id: str,
        turn_id: str,
        on_cancel: str,
        seconds: float,
        context: Context[Any, Any],
        *,
        stream: bool,
        max_chars: int = i.TEXT_CHARS,
    ) -> r.TurnResult:
        try:
            await follow(self._realm, context, session_id, turn_id, seconds=seconds, stream=stream)
            while await self._allowed(session_id, turn_id, context):
                await follow(self._realm, context, session_id, turn_id, seconds=seconds, stream=stream)
        except anyio.get_cancelled_exc_class():
            if not left_behind(context):
                await stop_if_asked(self._realm, session_id, turn_id, on_cancel, by=caller(context).principal)
            raise
        return await self.turn_result(session_id, turn_id, max_chars)

    async def _allowed(self, session_id: str, turn_id: str, context: Context[Any, Any]) -> bool:
        """Whether the turn, which waited for a yes or a no, has it: a person was asked, or somebody was faster."""
        turn = (await self._realm.journal.load(session_id)).turn
        if turn is None or turn.turn_id != turn_id or not turn.approvals or not can_ask(context):
            return False
        said = await ask(context, session_id, turn_id, turn.approvals)
        await decide(self._realm, session_id, said, by=caller(context).principal)
        now = (await self._realm.journal.load(session_id)).turn
        return now is not None and now.turn_id == turn_id and now.approvals != turn.approvals

    async def _turn(self, session: Session, turn_id: str, max_chars: int, text_offset: int) -> r.TurnResult:
        outcome = await self._realm.sessions.outcome(session, turn_id)
        if not outcome.last_seq:
            raise InvalidRequest(f"Session {session.id} has no turn {turn_id!r}.", session_id=session.id)
        return r.turn_result(session, self._realm.id, outcome, max_chars=max_chars, text_offset=text_offset)

    async def _seconds(self, given: float | None) -> float:
        return given if given is not None else (await self._realm.sessions.config()).limits.wait_seconds

    def _before_ms(self, age: str) -> int:
        number, unit = re.findall(r"^(\d+)(\w)$", age)[0]
        return self._realm.journal.clock.now_ms() - int(number) * _SECONDS[unit] * 1000
