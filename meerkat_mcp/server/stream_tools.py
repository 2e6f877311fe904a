"""The tools that follow events: open a place in a log, read on, close."""

import json
from typing import Any

from mcp.server.mcpserver import Context
from mcp.types import ToolAnnotations

from meerkat_mcp.domain.errors import InvalidRequest
from meerkat_mcp.domain.events import EVENT_TYPES, TURN_PAUSES
from meerkat_mcp.realms import Realm
from meerkat_mcp.server import inputs as i
from meerkat_mcp.server import results as r
from meerkat_mcp.server.callers import caller
from meerkat_mcp.server.surface import SurfaceTool, tool

OPENS = ToolAnnotations(read_only_hint=False, destructive_hint=False, idempotent_hint=False, open_world_hint=False)
CLOSES = ToolAnnotations(read_only_hint=False, destructive_hint=False, idempotent_hint=True, open_world_hint=False)


class StreamTools:
    """The functions behind the tools."""

    def __init__(self, realm: Realm) -> None:
        self._realm = realm

    def tools(self) -> list[SurfaceTool]:
        """The tools."""
        return [
            tool(self.meerkat_event_stream_open, "Open an event stream", OPENS),
            tool(self.meerkat_event_stream_read, "Read an event stream", OPENS),
            tool(self.meerkat_event_stream_close, "Close an event stream", CLOSES),
        ]

    async def meerkat_event_stream_open(self, given: i.StreamOpenInput, context: Context[Any, Any]) -> r.StreamOpened:
        """Follow a session's events: replay from after_seq, then live. The stream_id works until closed or idle for a
        day, also after a restart.
        """
        if unknown := sorted(set(given.types) - EVENT_TYPES):
            raise InvalidRequest(
                f"There are no events of type {', '.join(unknown)}.", hint=f"Known: {', '.join(sorted(EVENT_TYPES))}."
            )
        session_id = await self._realm.reading.resolve(given.session_id, sees=caller(context).sees)
        stream = await self._realm.streams.open(session_id, after_seq=given.after_seq, types=given.types)
        return r.StreamOpened(stream_id=stream.stream_id, session_id=session_id, after_seq=stream.after_seq)

    async def meerkat_event_stream_read(self, given: i.StreamReadInput, context: Context[Any, Any]) -> r.StreamEvents:
        """Wait for the next events. Each event comes once, in order; after_seq reads again. `done`: the turn has ended
        or waits for you.
        """
        found = await self._realm.streams.read(
            given.stream_id,
            after_seq=given.after_seq,
            events_max=given.max_events,
            timeout_s=given.timeout_ms / 1000,
            sees=caller(context).sees,
        )
        return r.StreamEvents(
            status=found.status,
            stream_id=given.stream_id,
            events=[r.event_view(json.loads(recorded.body)) for recorded in found.events],
            next_seq=found.next_seq,
            more=found.more,
            done=bool(found.events) and found.events[-1].type in TURN_PAUSES,
        )

    async def meerkat_event_stream_close(self, given: i.StreamCloseInput, context: Context[Any, Any]) -> r.StreamClosed:
        """Close a stream; closing it twice is fine."""
        closed = await self._realm.streams.close(given.stream_id, sees=caller(context).sees)
        return r.StreamClosed(stream_id=given.stream_id, closed=closed)
