"""One tool server over its whole life: at rest, started when it is needed, started anew after it died, stopped idle.

A client must be entered and left by the same task, so each running server has a task of its own, in the group of
`McpToolServers.run`. Turns speak to it from their own tasks, and their cancelling ends nothing but their call.
"""

import logging
import math
from collections.abc import Callable, Sequence
from typing import Literal

import anyio
from anyio.abc import TaskGroup, TaskStatus
from mcp import Client, MCPError, types
from mcp.client.session import IncomingMessage
from mcp.client.subscriptions import SubscriptionLost
from mcp.types import CONNECTION_CLOSED, HEADER_MISMATCH, METHOD_NOT_FOUND
from mcp_types.version import MODERN_PROTOCOL_VERSIONS
from opentelemetry import context
from pydantic import TypeAdapter

from meerkat_mcp.domain.messages import JsonObject
from meerkat_mcp.domain.servers import ToolServer
from meerkat_mcp.domain.version import VERSION
from meerkat_mcp.tools.http import SESSION_LOST, Web
from meerkat_mcp.tools.reasons import Secrets, reason
from meerkat_mcp.tools.stdio import Child

TOOLS_MAX = 512
PAGES_MAX = 64
SUBSCRIBE_S = 5.0
STOP_S = 5.0
RETRY_S_MAX = 60.0
NEWS_S = 1.0  # for the news of a death to arrive after the death

_log = logging.getLogger(__name__)
_ANSWER: TypeAdapter[types.CallToolResult | types.InputRequiredResult] = TypeAdapter(
    types.CallToolResult | types.InputRequiredResult
)


class Expired:
    """The server no longer knows our session, and refused the call unseen: it can be made again."""


class Live:
    """A running server: what it lists, and calls to it. Answers in words are problems, with secrets still in them."""

    def __init__(self, link: Child | Web, mode: Literal["auto", "legacy"]) -> None:
        self.link = link
        self.expired = anyio.Event()
        self.client = Client(
            link.streams(),
            mode=mode,
            message_handler=self._hear,
            client_info=types.Implementation(name="meerkat-mcp", version=VERSION),
            cache=None,  # the list is kept here
        )
        self._tools: tuple[types.Tool, ...] = ()
        self._stale = True
        self._listing = anyio.Lock()

    @property
    def over(self) -> bool:
        """Whether it can no longer be spoken to."""
        return self.link.over.is_set() or self.expired.is_set()

    @property
    def modern(self) -> bool:
        """Whether it speaks the protocol of 2026, in which news must be subscribed to."""
        return self.client.protocol_version in MODERN_PROTOCOL_VERSIONS

    async def get_ready(self, beside: TaskGroup) -> None:
        """List its tools, and first see to it that changes of the list are told; that goes on in the task group.

        Raises:
            MCPError, ValidationError: it does not tell.
        """
        tools = self.client.server_capabilities.tools
        if self.modern and tools is not None and tools.list_changed:
            with anyio.move_on_after(SUBSCRIBE_S):
                await beside.start(self._follow_changes)
        await self.tools()

    async def until_over(self) -> None:
        """Wait for its end."""
        async with anyio.create_task_group() as both:

            async def wait(event: anyio.Event) -> None:
                await event.wait()
                both.cancel_scope.cancel()

            both.start_soon(wait, self.link.over)
            both.start_soon(wait, self.expired)

    async def tools(self) -> Sequence[types.Tool]:
        """What it lists; asked again only after it said that this has changed.

        Raises:
            MCPError, ValidationError: it does not tell.
        """
        async with self._listing:
            if self._stale:
                self._stale = False  # before asking: a change from now on counts again
                try:
                    self._tools = await self._list()
                except BaseException as exc:
                    self._stale = True
                    if isinstance(exc, MCPError) and exc.code == SESSION_LOST:
                        self.expired.set()
                    raise
            return self._tools

    async def call(self, tool: str, args: JsonObject) -> types.CallToolResult | Expired | str:
        """Call a tool, once. Cancelling it tells the server."""
        request = types.CallToolRequest(params=types.CallToolRequestParams(name=tool, arguments=args))
        try:
            # Not `Client.call_tool`: that throws a result away which does not fit the tool's own output schema.
            answer = await self.client.session.send_request(request, _ANSWER)
        except MCPError as exc:
            return await self._refused(exc)
        except Exception as exc:  # ends here: a call answers in words
            _log.debug("a tool call failed", exc_info=True)
            return reason(exc)
        if isinstance(answer, types.InputRequiredResult):
            return "it asks for input of a person, which it cannot get here"
        return answer

    async def _follow_changes(self, *, task_status: TaskStatus[None]) -> None:
        """Hold a subscription to changes of its list open (2026-07-28), anew when it breaks off."""
        pause_s, subscribed = 1.0, False
        while True:
            try:
                async with self.client.listen(tools_list_changed=True) as changes:
                    if subscribed:
                        self._stale = True  # nobody told us of changes in between
                    else:
                        subscribed = True
                        task_status.started()
                    async for _ in changes:
                        self._stale = True
            except (MCPError, SubscriptionLost) as exc:
                if not subscribed:  # it does not offer this
                    _log.debug("no subscription to a tool server's list: %s", type(exc).__name__)
                    task_status.started()
                    return
            await anyio.sleep(pause_s)
            pause_s = min(2 * pause_s, RETRY_S_MAX)

    async def _list(self) -> tuple[types.Tool, ...]:
        found: list[types.Tool] = []
        cursor: str | None = None
        for _ in range(PAGES_MAX):
            try:
                page = await self.client.list_tools(cursor=cursor)
            except MCPError as exc:
                if exc.code == METHOD_NOT_FOUND and self.client.server_capabilities.tools is None:
                    return ()  # it brings something else, and never said that it has tools
                raise
            found += page.tools
            cursor = page.next_cursor
            if cursor is None or len(found) >= TOOLS_MAX:
                break
        return tuple(found[:TOOLS_MAX])

    async def _hear(self, message: IncomingMessage) -> None:
        if isinstance(message, types.ToolListChangedNotification):
            self._stale = True

    async def _refused(self, exc: MCPError) -> Expired | str:
        if exc.code == SESSION_LOST:
            self.expired.set()
            return Expired()
        if exc.code == HEADER_MISMATCH:
            self._stale = True
            return f"its tools have changed: {exc.message}"
        if exc.code == CONNECTION_CLOSED:
            with anyio.move_on_after(NEWS_S):
                await self.link.over.wait()
            how = await self.link.last_words() or exc.message
            return f"the connection was lost during the call, which may have had an effect: {how}"
        return reason(exc)


class Connection:
    """A tool server that turns share. Whatever goes wrong is an answer in words, without secrets."""

    def __init__(self, definition: ToolServer, secrets: Secrets, *, idle_s: float, on_rest: Callable[[], None]) -> None:
        self.users = 0
        self._definition = definition
        self._secrets = secrets
        self._idle_s = idle_s
        self._on_rest = on_rest
        self._released_s = anyio.current_time()
        self._link = self._new_link()
        self._live: Live | None = None
        self._starting: anyio.Event | None = None
        self._legacy = False
        self._failures = 0
        self._not_before_s = 0.0
        self._problem = ""

    @property
    def at_rest(self) -> bool:
        """Whether nothing of it runs and nobody uses it."""
        return self.users == 0 and self._live is None and self._starting is None

    def release(self) -> None:
        """One user less."""
        self.users -= 1
        self._released_s = anyio.current_time()
        if self.at_rest:
            self._on_rest()

    async def tools(self, tasks: TaskGroup, within_s: float) -> Sequence[types.Tool] | str:
        """What it lists, or why that cannot be had. Starts it in the task group when it does not run."""
        until_s = anyio.current_time() + within_s
        with anyio.CancelScope(deadline=until_s):
            for last_try in (False, True):
                live = await self._running(tasks, within_s)
                if isinstance(live, str):
                    return live
                try:
                    return await live.tools()
                except Exception as exc:  # ends here: a list that cannot be had is told in words
                    _log.debug("a tool server's list cannot be had", exc_info=True)
                    if last_try or not live.over:
                        return self._secrets.told(await live.link.last_words() or reason(exc))
        return self._too_slow(within_s)

    async def call(
        self, tasks: TaskGroup, tool: str, args: JsonObject, connect_within_s: float
    ) -> types.CallToolResult | str:
        """Call a tool, or say why that failed. Starts the server when it does not run, and repeats no call."""
        for _ in range(2):
            live = await self._running(tasks, connect_within_s)
            if isinstance(live, str):
                return live
            answer = await live.call(tool, args)
            if isinstance(answer, types.CallToolResult):
                self._failures = 0
                return answer
            if isinstance(answer, str):
                return self._secrets.told(answer)
        return "it ended our session twice"

    async def _running(self, tasks: TaskGroup, within_s: float) -> Live | str:
        """The server, started if need be; when it died again and again, only after a while."""
        if self._live is not None and not self._live.over:
            return self._live
        if self._starting is None:
            if anyio.current_time() < self._not_before_s:
                return self._problem
            self._starting = anyio.Event()
            nobodys = context.attach(context.Context())  # it outlives the turn that needs it first, and its trace
            try:
                tasks.start_soon(self._run, self._starting, within_s)
            finally:
                context.detach(nobodys)
        with anyio.move_on_after(within_s):
            await self._starting.wait()
            return self._live or self._problem or "it has ended"
        return self._too_slow(within_s)

    async def _run(self, starting: anyio.Event, within_s: float) -> None:
        """The task of a running server, from its start to its end."""
        until_s = anyio.current_time() + within_s
        link, failure = self._link, None
        try:
            # A few servers end when the first thing they are asked is not the handshake of old: try that as well.
            for mode in ("legacy", "auto") if self._legacy else ("auto", "legacy"):
                link = self._link = self._new_link()
                failure = await self._serve(Live(link, mode), starting, until_s)
                if failure is None or not link.died:
                    break
            if failure is not None or link.died:
                await self._failed(link, failure, within_s)
        finally:
            if self._starting is starting:
                self._starting = None
            starting.set()
            if self.at_rest:
                self._on_rest()

    async def _serve(self, live: Live, starting: anyio.Event, until_s: float) -> Exception | None:
        """Hold a server open for as long as it is needed; what it failed with, if it never got ready."""
        ready = False
        with anyio.CancelScope(deadline=until_s) as scope:
            try:
                async with live.client, anyio.create_task_group() as beside:
                    await live.get_ready(beside)
                    ready, scope.deadline = True, math.inf
                    self._live, self._starting, self._legacy = live, None, not live.modern
                    starting.set()
                    await self._while_needed(live)
                    self._let_go(live)
                    beside.cancel_scope.cancel()
                    scope.deadline = anyio.current_time() + STOP_S  # to take leave, which some servers let wait
            except Exception as exc:  # ends here: it would end the task group, and every other server with it
                _log.debug("a tool server failed", exc_info=True)
                return None if ready else exc
            finally:
                self._let_go(live)
        return TimeoutError() if scope.cancelled_caught and not ready else None

    def _new_link(self) -> Child | Web:
        return Web(self._definition) if self._definition.url else Child(self._definition, self._secrets.strike)

    def _let_go(self, live: Live) -> None:
        if self._live is live:
            self._live = None

    async def _while_needed(self, live: Live) -> None:
        """Wait until it is over, or nobody has used it for a while."""
        while not live.over:
            left_s = self._idle_s if self.users else self._released_s + self._idle_s - anyio.current_time()
            if left_s <= 0:
                return
            with anyio.move_on_after(left_s):
                await live.until_over()

    async def _failed(self, link: Child | Web, failure: Exception | None, within_s: float) -> None:
        """Keep why, and how long to wait before it is started again: not at all at first."""
        if isinstance(failure, TimeoutError):
            self._problem = self._too_slow(within_s)
        else:
            how = await link.last_words() or (reason(failure) if failure else "it has ended")
            self._problem = self._secrets.told(how)
        if failure is not None:
            self._legacy = False
        self._failures += 1
        pause_s = min(2.0 ** (self._failures - 2), RETRY_S_MAX) if self._failures > 1 else 0.0
        self._not_before_s = anyio.current_time() + pause_s

    def _too_slow(self, within_s: float) -> str:
        said = self._link.stderr
        return f"it did not answer within {within_s:g} s" + (f": {said}" if said else "")
