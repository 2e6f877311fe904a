"""Following a turn for a caller: waiting within bounds, and progress that never holds the turn up."""

from collections.abc import Sequence
from typing import Any

import anyio
from mcp.server.mcpserver import Context
from mcp.types import ProgressNotification, ProgressNotificationParams

from meerkat_mcp.domain.errors import MeerkatError
from meerkat_mcp.domain.events import TURN_PAUSES, Event
from meerkat_mcp.domain.messages import JsonObject
from meerkat_mcp.domain.recorded import Recorded
from meerkat_mcp.realms import Realm
from meerkat_mcp.server.results import event_view

BEAT_INTERVAL_S = 10.0
"""Hosts give up a silent call after 60 s at the earliest; one of them looks every 30 s."""
BACKLOG_EVENTS_MAX = 200
"""A reader that is further behind than this gets the latest events only; the log has the rest."""
DRAIN_S = 1.0
MESSAGE_CHARS_MAX = 200
EVENT_META_KEY = "meerkat/event"


async def follow(
    realm: Realm, context: Context[Any, Any], session_id: str, turn_id: str, *, seconds: float, stream: bool
) -> bool:
    """Wait for the turn's end or until `seconds` are over, with progress; whether it has ended."""
    if _token(context) is None and not stream:
        return await realm.sessions.wait(session_id, turn_id, seconds)
    ended = False
    async with anyio.create_task_group() as tasks:
        done = anyio.Event()

        async def tell() -> None:
            await _tell(realm, context, session_id, turn_id, stream)
            done.set()

        tasks.start_soon(tell)
        ended = await realm.sessions.wait(session_id, turn_id, seconds)
        if ended and stream:
            with anyio.move_on_after(DRAIN_S):
                await done.wait()
        tasks.cancel_scope.cancel()
    return ended


async def stop_if_asked(realm: Realm, session_id: str, turn_id: str, on_cancel: str, *, by: str | None) -> None:
    """The caller gave its call up: tell the turn to end, unless it said that it should go on.

    A turn that waits does no work that could be stopped: what it waits for can still be brought. A host whose patience
    ends while a person thinks about a question cancels its call, too.
    """
    if on_cancel == "detach":
        return
    with anyio.move_on_after(DRAIN_S, shield=True):
        try:
            if (await realm.journal.load(session_id)).state == "waiting":
                return
            await realm.sessions.interrupt(session_id, expected_turn_id=turn_id, reason="cancelled", wait_s=0, by=by)
        except MeerkatError:
            return  # it has ended, or its session is gone: nothing is left to stop


async def _tell(realm: Realm, context: Context[Any, Any], session_id: str, turn_id: str, stream: bool) -> None:
    """Tell of every event, or now and then of life, until the turn pauses or the caller has waited enough."""
    session = await realm.journal.load(session_id)
    turn = session.turn
    after = turn.resumed_seq - 1 if turn is not None and turn.turn_id == turn_id else session.seq
    beats, next_beat = 0, anyio.current_time() + BEAT_INTERVAL_S
    async with realm.journal.follow(session_id, after=after) as log:
        while True:
            found: Sequence[Recorded] = ()
            with anyio.move_on_after(next_beat - anyio.current_time()) as beat:
                found = await log.next()
            if not found and not beat.cancelled_caught:
                return  # the process ends
            events = [event for one in found if (event := one.event).turn_id == turn_id]
            for event in events[-BACKLOG_EVENTS_MAX:] if stream else ():
                await _send(context, event)
                next_beat = anyio.current_time() + BEAT_INTERVAL_S
            if any(event.type in TURN_PAUSES for event in events):
                return
            if anyio.current_time() >= next_beat:
                beats, next_beat = beats + 1, anyio.current_time() + BEAT_INTERVAL_S
                state = (await realm.journal.load(session_id)).state
                await context.report_progress(log.seq + beats / 1000, None, f"{state}: {log.seq} events so far")


async def _send(context: Context[Any, Any], happened: Event) -> None:
    event = event_view(happened.model_dump(mode="json", exclude_none=True))
    token = _token(context)
    if token is None:  # a client in this very process has no token, and may listen all the same
        return await context.report_progress(happened.seq, None, message(event))
    await context.session.send_notification(
        ProgressNotification(
            params=ProgressNotificationParams(
                progress_token=token,
                progress=happened.seq,
                message=message(event),
                _meta={EVENT_META_KEY: event},  # pyright: ignore[reportCallIssue]  (the SDK's alias of `meta`)
            )
        ),
        related_request_id=context.request_id,
    )


def message(event: JsonObject) -> str:
    """An event in a few words, for a person who watches."""
    match event["type"]:
        case "text_delta" | "text_complete":
            said = event["text"]
        case "reasoning_delta" | "reasoning_complete":
            said = f"(thinking) {event['text']}"
        case "tool_call_requested" | "tool_execution_started":
            said = f"calls {event['tool_name']}"
        case "tool_execution_completed":
            said = f"{event['tool_name']} {'failed' if event.get('is_error') else 'answered'}"
        case "step_started":
            said = f"asks {event['model']}, step {event['step']}"
        case "retrying":
            said = f"tries again in {event['delay_s']:g} s: {event['message']}"
        case "approval_requested":
            said = f"needs a yes for {event['tool_name']}"
        case "tool_server_failed":
            said = f"tool server {event['server']} is away: {event['message']}"
        case "turn_failed":
            said = f"failed: {event['error'].get('message', '')}"
        case "turn_limit_reached":
            said = f"stopped at {event['limit']}"
        case kind:
            said = kind.replace("_", " ")
    return said[:MESSAGE_CHARS_MAX]


def _token(context: Context[Any, Any]) -> str | int | None:
    meta = context.request_context.meta
    return meta.get("progress_token") if meta else None
