"""Who hears that a resource changed: streams of `subscriptions/listen`, and connections of the handshake era.

The journal's listeners bring what this process and others record. Lists are compared before anything is said, and what
nobody announces is looked at while somebody watches it: the config every half second, once for all who watch it, so
that a change in another process is told within a second; a deletion there every 2 s. While nobody listens, nothing here
runs. A caller who sees only their own sessions hears of no others.
"""

import logging
import math
from collections.abc import AsyncGenerator, Awaitable, Callable, Collection, Sequence
from contextlib import asynccontextmanager
from typing import Any, cast

import anyio
from anyio.abc import TaskGroup
from mcp import MCPError
from mcp.server import MCPServer, ServerRequestContext
from mcp.server.connection import Connection
from mcp.server.context import CallNext, HandlerResult
from mcp.server.subscriptions import (
    SUBSCRIPTION_ID_META_KEY,
    InMemorySubscriptionBus,
    PromptsListChanged,
    ResourcesListChanged,
    ResourceUpdated,
    ServerEvent,
    ToolsListChanged,
)
from mcp.shared.subscriptions import event_to_notification
from mcp.shared.uri_template import UriTemplate
from mcp.types import (
    INVALID_REQUEST,
    EmptyResult,
    NotificationParams,
    SubscribeRequestParams,
    SubscriptionFilter,
    SubscriptionsAcknowledgedNotification,
    SubscriptionsAcknowledgedNotificationParams,
    SubscriptionsListenRequestParams,
    SubscriptionsListenResult,
    UnsubscribeRequestParams,
)

from meerkat_mcp.domain.errors import InvalidRequest, LimitExceeded, MeerkatError, Unavailable
from meerkat_mcp.domain.session import Session
from meerkat_mcp.realms import Realm
from meerkat_mcp.server.answering import answer_with, lowlevel
from meerkat_mcp.server.callers import Caller, caller_of
from meerkat_mcp.server.resources import LISTED_MAX, SCHEME, SESSIONS_MAX, place_of, session_of
from meerkat_mcp.server.scopes import READ
from meerkat_mcp.server.subscribers import Subscriber, Watch
from meerkat_mcp.stores.base import Append, Selection

STREAMS_MAX = 1024
URIS_MAX = 1000
UPDATE_REST_S = 0.25
LIST_REST_S = 1.0
LOOK_INTERVAL_S = 2.0
CONFIG_INTERVAL_S = 0.5
CONFIG_FRESH_S = 0.25
LIST_FRESH_S = 1.0
"""A list that was read so lately, and since when nothing was heard, is not read again."""
_SUBSCRIBER = "meerkat.subscriber"

log = logging.getLogger(__name__)


class Subscriptions:
    """Everybody who listens to one server. It is a listener of the journal while somebody does."""

    def __init__(self, realm: Realm) -> None:
        self.bus = InMemorySubscriptionBus()
        """What a program that embeds us publishes with the SDK's `ctx.notify_…`; give it to the server."""
        self._realm = realm
        self._watching: dict[str, dict[Watch, Subscriber]] = {}
        self._streams: set[Subscriber] = set()
        self._closed = False
        self._changes = 0
        self._lists: dict[str | None, tuple[int, float, Sequence[Session]]] = {}
        self._looking = anyio.Lock()
        self._config: int | None = None
        self._config_read_s = -math.inf
        self._known: Callable[[str], Awaitable[bool]] = _nothing_known

    # ── wiring ──

    def add_to(self, server: MCPServer[Any]) -> None:
        """Let a server take subscriptions in both eras, and say so. Its lifespan has to be ours."""

        async def known(uri: str) -> bool:
            if any(resource.uri == uri for resource in await server.list_resources()):
                return True
            templates = await server.list_resource_templates()
            return any(UriTemplate.parse(template.uri_template).match(uri) is not None for template in templates)

        self._known = known
        answer_with(server, "subscriptions/listen", SubscriptionsListenRequestParams, self._listen)
        answer_with(server, "resources/subscribe", SubscribeRequestParams, self._subscribe)
        answer_with(server, "resources/unsubscribe", UnsubscribeRequestParams, self._unsubscribe)
        lowlevel(server).add_notification_handler("notifications/initialized", NotificationParams, self._initialized)
        server.middleware.append(_says_that_lists_change)

    @asynccontextmanager
    async def lifespan(self, _: MCPServer[Any]) -> AsyncGenerator[TaskGroup]:
        """Where the tasks run that tell connections of the handshake era; a request finds it as lifespan context."""
        raised: Exception | None = None
        async with anyio.create_task_group() as tasks:
            try:
                yield tasks
            except Exception as exc:  # raised again outside of the group, which would wrap it
                raised = exc
            finally:
                tasks.cancel_scope.cancel()
        if raised is not None:
            raise raised

    def close(self) -> None:
        """End every stream in order: each client gets the result that says so. What comes after it ends at once."""
        self._closed = True
        for subscriber in self._streams:
            subscriber.end()

    # ── hearing: the journal's Listener ──

    def recorded(self, append: Append, seconds: float) -> None:
        """This process recorded something."""
        self._stir(append.session.id, whole=append.durable)
        if append.shown or any(recorded.type == "session_forked" for recorded in append.events):
            self._stir_lists()

    def heard(self, session_ids: Collection[str]) -> None:
        """Others recorded something; what, nobody said."""
        for session_id in session_ids:
            self._stir(session_id, whole=True)
        self._stir_lists()

    def lagged(self, seconds: float) -> None:
        """How late that is does not matter here."""

    def config_changed(self) -> None:
        """This process changed the config."""
        self._config_read_s = -math.inf
        self._stir("config", whole=True)

    def _stir(self, topic: str, *, whole: bool) -> None:
        for watch, subscriber in self._watching.get(topic, {}).items():
            if whole or not watch.whole:
                subscriber.stir(watch)

    def _stir_lists(self) -> None:
        self._changes += 1
        self._stir("sessions", whole=True)

    # ── the era of 2026-07-28 ──

    async def _listen(
        self, ctx: ServerRequestContext[Any, Any], params: SubscriptionsListenRequestParams
    ) -> SubscriptionsListenResult:
        """One stream: what is watched of what was asked for, then every change, until client or server ends it."""
        stream_id = ctx.request_id
        if stream_id is None:
            raise MCPError(INVALID_REQUEST, "subscriptions/listen needs a request id.")
        if len(self._streams) >= STREAMS_MAX:
            raise LimitExceeded("Too many streams listen already.", limit="listen_streams", maximum=STREAMS_MAX)
        meta: dict[str, Any] = {SUBSCRIPTION_ID_META_KEY: stream_id}

        async def tell(event: ServerEvent) -> None:
            await ctx.session.send_notification(event_to_notification(event, meta), stream_id)

        subscriber = Subscriber(tell)
        forget = self.bus.subscribe(subscriber.told)
        self._streams.add(subscriber)
        try:
            honored = await self._honored(subscriber, caller_of(ctx.request), params.notifications)
            acknowledged = SubscriptionsAcknowledgedNotificationParams(notifications=honored, _meta=meta)
            await ctx.session.send_notification(SubscriptionsAcknowledgedNotification(params=acknowledged), stream_id)
            if not self._closed:
                await subscriber.run()
        finally:
            forget()
            self._streams.discard(subscriber)
            self._leave(subscriber)
        return SubscriptionsListenResult(_meta=meta)

    async def _honored(self, subscriber: Subscriber, caller: Caller, asked: SubscriptionFilter) -> SubscriptionFilter:
        """Watch what was asked for. A resource that this caller cannot read is left out, and nothing said of why."""
        uris = list(dict.fromkeys(asked.resource_subscriptions or ()))
        if len(uris) > URIS_MAX:
            raise _too_many()
        watched: list[str] = []
        for uri in uris:
            try:
                await self._watch(subscriber, await self._watch_of(uri, caller))
            except MeerkatError as exc:
                if isinstance(exc, Unavailable):
                    raise
                continue
            watched.append(uri)
        if asked.resources_list_changed:
            await self._watch(subscriber, self._list_watch(caller, every_s=LOOK_INTERVAL_S))
        if asked.tools_list_changed:
            await self._watch(subscriber, Watch(ToolsListChanged(), "", LIST_REST_S))
        if asked.prompts_list_changed:
            await self._watch(subscriber, Watch(PromptsListChanged(), "", LIST_REST_S))
        return SubscriptionFilter(
            tools_list_changed=asked.tools_list_changed or None,
            prompts_list_changed=asked.prompts_list_changed or None,
            resources_list_changed=asked.resources_list_changed or None,
            resource_subscriptions=watched or None,
        )

    # ── the handshake era ──

    async def _initialized(self, ctx: ServerRequestContext[Any, Any], params: NotificationParams) -> None:
        """A connection is there; without being asked it is told that the list of resources changed."""
        caller = caller_of(ctx.request)
        if READ in caller.scopes:
            await self._watch(self._connected(ctx), self._list_watch(caller))

    async def _subscribe(self, ctx: ServerRequestContext[Any, Any], params: SubscribeRequestParams) -> EmptyResult:
        """Twice is fine: then a name like `last` means who it is now."""
        watch = await self._watch_of(params.uri, caller_of(ctx.request))
        subscriber = self._connected(ctx)
        if len(subscriber.watches) > URIS_MAX:  # one more: the list of resources
            raise _too_many()
        self._unwatch(subscriber, watch.event)
        await self._watch(subscriber, watch)
        return EmptyResult()

    async def _unsubscribe(self, ctx: ServerRequestContext[Any, Any], params: UnsubscribeRequestParams) -> EmptyResult:
        """Fine for what was not subscribed to."""
        self._unwatch(self._connected(ctx), ResourceUpdated(params.uri))
        return EmptyResult()

    def _connected(self, ctx: ServerRequestContext[Any, Any]) -> Subscriber:
        """The connection's subscriber; it goes when the connection goes."""
        connection = ctx.session._connection  # pyright: ignore[reportPrivateUsage]  (no public way to it)
        subscriber: Subscriber | None = connection.state.get(_SUBSCRIBER)
        if subscriber is None:
            subscriber = connection.state[_SUBSCRIBER] = Subscriber(_teller(connection))
            connection.exit_stack.callback(self._leave, subscriber)
            connection.exit_stack.callback(self.bus.subscribe(subscriber.told))
            cast(TaskGroup, ctx.lifespan_context).start_soon(_run, subscriber)
        return subscriber

    # ── watches ──

    async def _watch_of(self, uri: str, caller: Caller) -> Watch:
        """What it takes to watch a resource. Raises what reading it would raise."""
        event = ResourceUpdated(uri)
        if not uri.startswith(SCHEME):
            if not await self._known(uri):
                raise InvalidRequest(f"There is no resource {uri[:200]!r}.")
            return Watch(event, "", UPDATE_REST_S)
        place = place_of(uri)
        match place.kind:
            case "realm":
                return Watch(event, "", UPDATE_REST_S)
            case "config":
                return Watch(event, "config", UPDATE_REST_S, look=self._generation, every_s=CONFIG_INTERVAL_S)
            case "sessions":

                async def places() -> object:
                    found = await self._list(caller.sees)
                    return [(session.id, session.seq) for session in found]

                return Watch(event, "sessions", UPDATE_REST_S, look=places, every_s=LOOK_INTERVAL_S)
            case "session" | "transcript" | "events":
                session = await session_of(self._realm, caller, place.reference)
                return Watch(event, session.id, UPDATE_REST_S, whole=place.kind == "transcript")

    def _list_watch(self, caller: Caller, *, every_s: float = math.inf) -> Watch:
        async def names() -> object:
            return {(session.id, session.title) for session in (await self._list(caller.sees))[:LISTED_MAX]}

        return Watch(ResourcesListChanged(), "sessions", LIST_REST_S, look=names, every_s=every_s)

    async def _watch(self, subscriber: Subscriber, watch: Watch) -> None:
        """Begin to watch: first so that nothing is missed, then with what there is to see now."""
        if not self._watching:
            self._realm.journal.listeners.add(self)
        subscriber.watches[watch.event] = watch
        self._watching.setdefault(watch.topic, {})[watch] = subscriber
        if watch.look is not None:
            try:
                watch.shown = await watch.look()
            except BaseException:
                self._unwatch(subscriber, watch.event)
                raise
        subscriber.rest(watch)

    def _unwatch(self, subscriber: Subscriber, event: ServerEvent) -> None:
        """Hear of it no more; fine when it was not watched."""
        watch = subscriber.forget(event)
        if watch is None:
            return
        watching = self._watching.get(watch.topic, {})
        watching.pop(watch, None)
        if not watching:
            self._watching.pop(watch.topic, None)
        if not self._watching:
            self._realm.journal.listeners.discard(self)
            self._lists.clear()

    def _leave(self, subscriber: Subscriber) -> None:
        subscriber.end()
        subscriber.scope.cancel()
        for event in list(subscriber.watches):
            self._unwatch(subscriber, event)

    async def _generation(self) -> object:
        async with self._looking:
            if anyio.current_time() - self._config_read_s > CONFIG_FRESH_S:
                self._config_read_s = anyio.current_time()
                self._config = (await self._realm.store.config()).generation
            return self._config

    async def _list(self, sees: str | None) -> Sequence[Session]:
        """The latest sessions as a list shows them; read once for all who look after the same change."""
        async with self._looking:
            changes, read_s, found = self._lists.get(sees, (-1, 0.0, ()))
            if changes != self._changes or anyio.current_time() - read_s > LIST_FRESH_S:
                changes = self._changes
                found = await self._realm.store.sessions(Selection(principal=sees), limit=SESSIONS_MAX)
                self._lists[sees] = (changes, anyio.current_time(), found)
            return found


async def _run(subscriber: Subscriber) -> None:
    """Tell a connection, and never end the others with it."""
    try:
        with subscriber.scope:
            await subscriber.run()
    except Exception:
        log.exception("A connection cannot be told of changes.")


def _teller(connection: Connection) -> Callable[[ServerEvent], Awaitable[None]]:
    async def tell(event: ServerEvent) -> None:
        note = event_to_notification(event, {}).model_dump(by_alias=True, mode="json", exclude_none=True)
        await connection.notify(note["method"], note.get("params"))

    return tell


async def _says_that_lists_change(ctx: ServerRequestContext[Any, Any], call_next: CallNext) -> HandlerResult:
    """The SDK has no other way to advertise `listChanged` in the handshake era on every transport."""
    result = await call_next(ctx)
    if ctx.method == "initialize" and isinstance(result, dict):
        result["capabilities"]["resources"]["listChanged"] = True
    return result


async def _nothing_known(_: str) -> bool:
    return False


def _too_many() -> InvalidRequest:
    return InvalidRequest(
        f"One client watches at most {URIS_MAX} resources.",
        hint="Watch meerkat://sessions, or those that you show.",
        limit="subscriptions",
        maximum=URIS_MAX,
    )
