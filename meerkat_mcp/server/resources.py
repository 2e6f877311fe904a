"""What a host can read and mention without a tool call: the realm, its config, its sessions, and what was said in them.

A session in a URI is named as in the tools: an id, a prefix, `last`, `~2`. Whoever sees only their own sessions finds
no others here either.
"""

import json
import re
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import partial
from typing import Any, Literal

from mcp.server import MCPServer, ServerRequestContext
from mcp.shared.uri_template import UriTemplate
from mcp.types import (
    Annotations,
    ListResourcesResult,
    ListResourceTemplatesResult,
    PaginatedRequestParams,
    ReadResourceRequestParams,
    ReadResourceResult,
    Resource,
    ResourceTemplate,
    TextResourceContents,
)
from pydantic import BaseModel

from meerkat_mcp.domain.errors import InvalidRequest
from meerkat_mcp.domain.session import Session
from meerkat_mcp.domain.version import VERSION
from meerkat_mcp.realms import Realm
from meerkat_mcp.server import results as r
from meerkat_mcp.server.answering import answer_with, before
from meerkat_mcp.server.callers import Caller, caller_of
from meerkat_mcp.server.inputs import TEXT_CHARS
from meerkat_mcp.server.markdown import Page
from meerkat_mcp.sessions.streams import one_read
from meerkat_mcp.stores.base import Selection

SCHEME = "meerkat://"
REALM, CONFIG, SESSIONS = f"{SCHEME}realm", f"{SCHEME}config", f"{SCHEME}sessions"
SESSION = f"{SESSIONS}/{{session_id}}"
TRANSCRIPT = f"{SESSION}/transcript"
EVENTS = f"{SESSION}/events{{?after_seq}}"
LISTED_MAX = 20
"""Transcripts in `resources/list`: what fits into the menu of a host."""
SESSIONS_MAX = 50
EVENTS_MAX = 100
NAME_CHARS_MAX = 60
JSON, MARKDOWN = "application/json", "text/markdown"

Kind = Literal["realm", "config", "sessions", "session", "transcript", "events"]


@dataclass(frozen=True, slots=True)
class Place:
    """What a URI of ours points to; `reference` is the session as the URI names it."""

    kind: Kind
    reference: str = ""
    after_seq: int = 0


_PLAIN: dict[str, Kind] = {REALM: "realm", CONFIG: "config", SESSIONS: "sessions"}
_PATTERNS: tuple[tuple[UriTemplate, Kind], ...] = (
    (UriTemplate.parse(SESSION), "session"),
    (UriTemplate.parse(TRANSCRIPT), "transcript"),
    (UriTemplate.parse(EVENTS), "events"),
)
_FOR_MODELS = Annotations(audience=["assistant"])

STATIC: tuple[Resource, ...] = (
    Resource(
        uri=REALM,
        name="realm",
        title="This realm",
        description="Which realm this server works on: its id, backend, version, and the turns at work here.",
        mime_type=JSON,
        annotations=_FOR_MODELS,
    ),
    Resource(
        uri=CONFIG,
        name="config",
        title="The realm's config",
        description="What holds where a session chose nothing: the document and its generation.",
        mime_type=JSON,
        annotations=_FOR_MODELS,
    ),
    Resource(
        uri=SESSIONS,
        name="sessions",
        title="Sessions",
        description=f"The {SESSIONS_MAX} sessions with the latest activity.",
        mime_type=JSON,
        annotations=_FOR_MODELS,
    ),
)
"""The resources that are always there."""

TEMPLATES: tuple[ResourceTemplate, ...] = (
    ResourceTemplate(
        uri_template=SESSION,
        name="session",
        title="A session",
        description="A session's state and its latest turn. session_id: an id, a prefix, `last`, or `~2`.",
        mime_type=JSON,
        annotations=_FOR_MODELS,
    ),
    ResourceTemplate(
        uri_template=TRANSCRIPT,
        name="transcript",
        title="A session's transcript",
        description="What was asked, said and called in a session, as markdown.",
        mime_type=MARKDOWN,
        annotations=Annotations(audience=["user", "assistant"]),
    ),
    ResourceTemplate(
        uri_template=EVENTS,
        name="events",
        title="A session's events",
        description=f"The next {EVENTS_MAX} events at most after after_seq (0: from the start), and where to read on.",
        mime_type=JSON,
        annotations=_FOR_MODELS,
    ),
)
"""The resources that there are for every session."""


def add_resources(server: MCPServer[Any], realm: Realm) -> None:
    """Let a server list and read these, beside those that it has."""
    lists, templates, reads = (
        before(server, method) for method in ("resources/list", "resources/templates/list", "resources/read")
    )

    async def list_resources(
        ctx: ServerRequestContext[Any, Any], params: PaginatedRequestParams
    ) -> ListResourcesResult:
        others: ListResourcesResult = await lists(ctx, params)
        return ListResourcesResult(resources=[*await listed(realm, caller_of(ctx.request)), *others.resources])

    async def list_templates(
        ctx: ServerRequestContext[Any, Any], params: PaginatedRequestParams
    ) -> ListResourceTemplatesResult:
        others: ListResourceTemplatesResult = await templates(ctx, params)
        return ListResourceTemplatesResult(resource_templates=[*TEMPLATES, *others.resource_templates])

    async def read_resource(ctx: ServerRequestContext[Any, Any], params: ReadResourceRequestParams) -> BaseModel:
        if not params.uri.startswith(SCHEME):
            return await reads(ctx, params)
        return ReadResourceResult(contents=[await read(realm, caller_of(ctx.request), params.uri)])

    answer_with(server, "resources/list", PaginatedRequestParams, list_resources)
    answer_with(server, "resources/templates/list", PaginatedRequestParams, list_templates)
    answer_with(server, "resources/read", ReadResourceRequestParams, read_resource)


async def listed(realm: Realm, caller: Caller) -> list[Resource]:
    """What a host offers to mention: the static ones, and the transcripts of the latest sessions."""
    found = await realm.reading.list(Selection(principal=caller.sees), limit=LISTED_MAX)
    return [*STATIC, *[_mention(session) for session in found.sessions]]


async def read(realm: Realm, caller: Caller, uri: str) -> TextResourceContents:
    """The resource at a URI of ours.

    Raises:
        InvalidRequest: there is none, or the reference is no reference.
        SessionNotFound, SessionAmbiguous.
    """
    place = place_of(uri)
    contents = partial(TextResourceContents, uri=uri)
    match place.kind:
        case "realm":
            return contents(mime_type=JSON, text=_json(_about(realm)))
        case "config":
            current = await realm.store.config()
            return contents(mime_type=JSON, text=_json({"config": current.document, "generation": current.generation}))
        case "sessions":
            found = await realm.reading.list(Selection(principal=caller.sees), limit=SESSIONS_MAX)
            views = [r.session_view(session) for session in found.sessions]
            return contents(mime_type=JSON, text=_json(r.SessionList(sessions=views, next_cursor=found.next_cursor)))
        case "session":
            session = await session_of(realm, caller, place.reference)
            return contents(mime_type=JSON, text=_json(await _session(realm, session)))
        case "transcript":
            session = await session_of(realm, caller, place.reference)
            return contents(mime_type=MARKDOWN, text=await transcript(realm, session))
        case "events":
            session = await session_of(realm, caller, place.reference)
            return contents(mime_type=JSON, text=_json(await _events(realm, session, place.after_seq)))


def place_of(uri: str) -> Place:
    """What a URI points to. Raises InvalidRequest: nothing of ours is there."""
    if (kind := _PLAIN.get(uri)) is not None:
        return Place(kind)
    for pattern, kind in _PATTERNS:
        found = pattern.match(uri, max_uri_length=1000)
        if found is not None and found["session_id"]:
            after_seq = str(found.get("after_seq") or "0")
            if not re.fullmatch(r"[0-9]{1,15}", after_seq):
                raise InvalidRequest(
                    f"after_seq is a whole number of at least 0, not {after_seq[:100]!r}.",
                    hint="Use next_seq of the read before, or 0.",
                )
            return Place(kind, str(found["session_id"]), int(after_seq))
    known = ", ".join([*_PLAIN, SESSION, TRANSCRIPT, EVENTS])
    raise InvalidRequest(f"There is no resource {uri[:200]!r}.", hint=f"Known: {known}.")


async def session_of(realm: Realm, caller: Caller, reference: str) -> Session:
    """The session that a caller means. Raises SessionNotFound, SessionAmbiguous, InvalidRequest."""
    return await realm.sessions.settled(await realm.reading.resolve(reference, sees=caller.sees))


async def transcript(realm: Realm, session: Session) -> str:
    """A session as markdown."""
    page = Page()
    async for recorded in realm.journal.log(session.id, through=session.seq):
        if not recorded.is_delta:
            page.add(recorded.event)
    return page.markdown(session, realm.id)


def name_of(session: Session) -> str:
    """What a person calls a session, short enough for a menu."""
    name = " ".join(session.name.split()) or f"Session {session.id[:8]}"
    return name if len(name) <= NAME_CHARS_MAX else f"{name[: NAME_CHARS_MAX - 1].rstrip()}…"


def _mention(session: Session) -> Resource:
    turns = f"{session.turns} turn{'' if session.turns == 1 else 's'}"
    return Resource(
        uri=f"{SESSIONS}/{session.id}/transcript",
        name=name_of(session),
        description=f"Session, {session.state}, {turns}, {session.settings.model or 'default model'}",
        mime_type=MARKDOWN,
        annotations=Annotations(audience=["user", "assistant"], last_modified=_iso(session.updated_ms)),
    )


def _about(realm: Realm) -> dict[str, Any]:
    return {
        "realm_id": realm.id,
        "instance_id": realm.owner.instance_id,
        "backend": realm.manifest.backend,
        "version": VERSION,
        "running_turns": realm.turns.running,
        "started": _iso(realm.started_ms),
    }


async def _session(realm: Realm, session: Session) -> r.ReadResult:
    outcome = await realm.sessions.outcome(session, session.turn.turn_id) if session.turn is not None else None
    return r.ReadResult(
        session_ref=f"{realm.id}:{session.id}",
        session=r.session_view(session),
        turn=r.turn_result(session, realm.id, outcome, max_chars=TEXT_CHARS) if outcome is not None else None,
        queued_turns=[queued.turn_id for queued in session.queue] or None,
    )


async def _events(realm: Realm, session: Session, after_seq: int) -> dict[str, Any]:
    if after_seq > session.seq:
        raise InvalidRequest(
            f"after_seq {after_seq} is beyond the last event, {session.seq}.",
            hint="Leave after_seq out to read from the start.",
            last_seq=session.seq,
        )
    found = await realm.store.read(session.id, after=after_seq, limit=EVENTS_MAX + 1)
    kept, more = one_read(found, EVENTS_MAX)
    return {
        "session_id": session.id,
        "events": [r.event_view(json.loads(recorded.body)) for recorded in kept],
        "next_seq": kept[-1].seq if kept else after_seq,
        "more": more or bool(kept and kept[-1].seq < session.seq),  # large events are not found all at once
    }


def _json(value: BaseModel | dict[str, Any]) -> str:
    plain = value.model_dump(mode="json", exclude_none=True) if isinstance(value, BaseModel) else value
    return json.dumps(plain, ensure_ascii=False, separators=(",", ":"))


def _iso(ms: int) -> str:
    return datetime.fromtimestamp(ms / 1000, UTC).isoformat(timespec="seconds").replace("+00:00", "Z")
