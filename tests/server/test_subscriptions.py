"""Real clients of both eras are told of what changes here, and of what other processes on the realm change."""

import sys
from collections.abc import AsyncGenerator, Callable
from contextlib import asynccontextmanager
from itertools import pairwise
from typing import Any

import anyio
import pytest
import uvicorn
from mcp import Client, MCPError, StdioServerParameters
from mcp.client.subscriptions import Subscription
from mcp.server.mcpserver import Context
from mcp.server.subscriptions import ResourcesListChanged, ResourceUpdated, ServerEvent, ToolsListChanged
from mcp.types import (
    INVALID_PARAMS,
    EmptyResult,
    ResourceListChangedNotification,
    ResourceUpdatedNotification,
    SubscribeRequest,
    SubscribeRequestParams,
    TextContent,
    UnsubscribeRequest,
    UnsubscribeRequestParams,
)
from server.surface_server import served
from words import ended, resume, run, settings

from meerkat_mcp.realms import Realm, choose, open_realm
from meerkat_mcp.server.callers import Caller
from meerkat_mcp.server.subscriptions import STREAMS_MAX, URIS_MAX

pytestmark = pytest.mark.anyio
PATIENCE_S = 10.0
QUIET_S = 0.6
"""Longer than an update rests; what should not come is waited for so long."""
ADA = Caller(principal="ada", own_only=True)


class Ear:
    """What one client was told, with the time of each."""

    def __init__(self) -> None:
        self.told: list[tuple[float, ServerEvent]] = []
        self._changed = anyio.Event()

    def hear(self, event: ServerEvent) -> None:
        self.told.append((anyio.current_time(), event))
        self._changed.set()
        self._changed = anyio.Event()

    def count(self, event: ServerEvent) -> int:
        return sum(told == event for _, told in self.told)

    async def heard(self, event: ServerEvent | str, times: int = 1, within_s: float = PATIENCE_S) -> None:
        event = ResourceUpdated(event) if isinstance(event, str) else event
        with anyio.fail_after(within_s):
            while self.count(event) < times:
                await self._changed.wait()

    async def rested(self) -> None:
        """Until it was quiet for a while."""
        while True:
            with anyio.move_on_after(QUIET_S) as quiet:
                await self._changed.wait()
            if quiet.cancelled_caught:
                return


@asynccontextmanager
async def listening(
    server: Any, era: str, *uris: str, lists: bool = False
) -> AsyncGenerator[tuple[Ear, Client, Subscription | None]]:
    """A client of that era, subscribed to these."""
    ear = Ear()

    async def note(message: Any) -> None:
        if isinstance(message, ResourceUpdatedNotification):
            ear.hear(ResourceUpdated(message.params.uri))
        elif isinstance(message, ResourceListChangedNotification):
            ear.hear(ResourcesListChanged())

    async def follow(subscription: Subscription) -> None:
        async for event in subscription:
            ear.hear(event)

    if era == "legacy":
        async with Client(server, mode="legacy", message_handler=note, cache=None) as client:
            for uri in uris:
                await client.session.send_request(*_subscribing(uri))
            yield ear, client, None
    else:
        asked: dict[str, Any] = {"resource_subscriptions": list(uris), "resources_list_changed": lists}
        async with (
            Client(server, cache=None) as client,
            anyio.create_task_group() as tasks,
            client.listen(**asked) as subscription,
        ):
            tasks.start_soon(follow, subscription)
            yield ear, client, subscription
            tasks.cancel_scope.cancel()


def _subscribing(uri: str, *, stop: bool = False) -> tuple[Any, Any]:
    """A request of the handshake era, and what answers it: the client's own method for it warns that it is old."""
    if stop:
        return UnsubscribeRequest(params=UnsubscribeRequestParams(uri=uri)), EmptyResult
    return SubscribeRequest(params=SubscribeRequestParams(uri=uri)), EmptyResult


async def until(so: Callable[[], bool]) -> None:
    """Wait for what nobody announces."""
    with anyio.fail_after(PATIENCE_S):
        while True:
            if so():
                return
            await anyio.sleep(0.01)


@pytest.fixture(params=["modern", "legacy"])
def era(request: pytest.FixtureRequest) -> str:
    return request.param


@pytest.fixture
async def realm(tmp_path) -> AsyncGenerator[Realm]:
    async with open_realm(choose("den", state_root=tmp_path)) as realm:
        yield realm


async def test_both_eras_are_told_that_resources_can_be_subscribed_to(realm, era):
    async with Client(served(realm), **({"mode": "legacy"} if era == "legacy" else {})) as client:
        assert client.server_capabilities.resources.subscribe is True
        assert client.server_capabilities.resources.list_changed is True
        assert client.server_capabilities.completions is not None
        assert client.server_capabilities.prompts is not None


async def test_a_turn_is_told_of_under_every_address_of_its_session(realm, era):
    started, _ = await run(realm, "[[say hi]]")
    other, _ = await run(realm, "[[say hi]]")
    await resume(realm, started.session_id, "[[say again]]")
    paths = [f"meerkat://sessions/{name}" for name in (started.session_id, "last", "~1", f"den:{started.session_id}")]
    uris = [
        *paths,
        f"{paths[0]}/transcript",
        f"{paths[1]}/events",
        f"{paths[0]}/events?after_seq=3",
        "meerkat://sessions",
    ]
    untouched = f"meerkat://sessions/{other.session_id}"
    async with listening(served(realm), era, *uris, untouched) as (ear, _, _):
        await resume(realm, started.session_id, "[[say more]]")
        for uri in uris:
            await ear.heard(uri)
        assert not ear.count(ResourceUpdated(untouched))


async def test_a_name_means_the_session_that_it_meant_when_it_was_subscribed_to(realm, era):
    started, _ = await run(realm, "[[say hi]]")
    async with listening(served(realm), era, "meerkat://sessions/last") as (ear, _, _):
        await run(realm, "[[say another one is last now]]")
        await ear.rested()
        assert not ear.count(ResourceUpdated("meerkat://sessions/last"))
        await resume(realm, started.session_id, "[[say hi]]")
        await ear.heard("meerkat://sessions/last")


async def test_a_burst_is_told_at_once_then_every_quarter_second_and_never_loses_its_end(realm, era):
    started = await realm.sessions.run("", settings())
    uri = f"meerkat://sessions/{started.session_id}"
    async with listening(served(realm), era, uri) as (ear, _, _):
        begun = anyio.current_time()
        await realm.sessions.resume(started.session_id, title="0")
        await ear.heard(uri, within_s=0.2)
        number = 0
        while anyio.current_time() < begun + 1.0:
            number += 1
            await realm.sessions.resume(started.session_id, title=str(number))
            last = anyio.current_time()
        await ear.rested()
        times = [time for time, event in ear.told if event == ResourceUpdated(uri)]
        assert number > 20
        assert 3 <= len(times) <= 6
        assert all(later - earlier > 0.2 for earlier, later in pairwise(times))
        assert times[-1] > last


async def test_pieces_of_a_text_change_the_events_and_not_the_transcript(realm, era):
    started = await realm.sessions.run("", settings())
    events, transcript = (f"meerkat://sessions/{started.session_id}/{what}" for what in ("events", "transcript"))
    async with listening(served(realm), era, events, transcript) as (ear, _, _):
        turn = await realm.sessions.resume(started.session_id, "[[delta_ms 60]][[words 40]]")
        await ear.heard(events, times=6)
        assert ear.count(ResourceUpdated(transcript)) <= 3
        before = ear.count(ResourceUpdated(transcript))
        await ended(realm, turn)
        await ear.heard(transcript, times=before + 1)


async def test_nothing_runs_while_nobody_listens(realm):
    server = served(realm)
    assert not realm.journal.listeners
    async with Client(server) as client:
        async with client.listen(resource_subscriptions=["meerkat://sessions"], resources_list_changed=True):
            assert len(realm.journal.listeners) == 1
        await until(lambda: not realm.journal.listeners)
    async with Client(server, mode="legacy") as client:
        await client.list_tools()
    assert not realm.journal.listeners


async def test_the_list_changes_when_a_session_comes_goes_or_gets_another_name(realm, era):
    server = served(realm)
    async with listening(server, era, lists=True) as (ear, client, _):
        await client.list_tools()
        started, _ = await run(realm, "[[say hi]]")
        await ear.heard(ResourcesListChanged())
        await ear.rested()
        count = ear.count(ResourcesListChanged())
        await resume(realm, started.session_id, "[[say a turn changes no list]]")
        await anyio.sleep(1.2)
        assert ear.count(ResourcesListChanged()) == count
        await realm.sessions.resume(started.session_id, title="Named")
        await ear.heard(ResourcesListChanged(), times=count + 1)
        fork = await realm.shelf.fork(started.session_id)
        await ear.heard(ResourcesListChanged(), times=count + 2)
        await realm.shelf.delete(fork.id)
        server.subscriptions.heard([fork.id])
        await ear.heard(ResourcesListChanged(), times=count + 3)


async def test_the_config_is_told_of_whoever_changed_it(realm, era, tmp_path):
    server = served(realm)
    async with listening(server, era, "meerkat://config") as (ear, _, _):
        await anyio.sleep(0.3)
        await realm.set_config({"agent": {"model": "demo"}})
        server.subscriptions.config_changed()
        await ear.heard("meerkat://config", within_s=1)
        async with open_realm(choose("den", state_root=tmp_path)) as elsewhere:
            await elsewhere.patch_config({"agent": {"max_steps": 5}})
        await ear.heard("meerkat://config", times=2, within_s=2)  # a second, and one for a busy machine
        server.subscriptions.config_changed()
        await ear.rested()
        assert ear.count(ResourceUpdated("meerkat://config")) == 2


async def test_the_list_of_sessions_is_told_of_when_it_shows_something_else(realm, era):
    started, _ = await run(realm, "[[say hi]]")
    async with listening(served(realm), era, "meerkat://sessions") as (ear, _, _):
        turn = await realm.sessions.resume(started.session_id, "[[delta_ms 30]][[words 40]]")
        await ear.heard("meerkat://sessions")
        await ear.rested()
        assert ear.count(ResourceUpdated("meerkat://sessions")) == 1
        await ended(realm, turn)
        await ear.heard("meerkat://sessions", times=2)


# ── who may hear what ──


async def test_a_stream_says_what_it_watches_and_leaves_out_what_is_not_there(realm):
    started, _ = await run(realm, "[[say hi]]")
    good = [f"meerkat://sessions/{started.session_id}", "meerkat://realm"]
    bad = ["meerkat://sessions/0199aaaa-0000-7000-8000-000000000000", "meerkat://nothing", "other://thing", "last"]
    async with Client(served(realm)) as client:
        async with client.listen(resource_subscriptions=[*bad, *good, good[0]]) as subscription:
            assert subscription.honored.resource_subscriptions == good
            assert subscription.honored.resources_list_changed is None
        async with client.listen(resource_subscriptions=bad, resources_list_changed=True) as subscription:
            assert subscription.honored.resource_subscriptions is None
            assert subscription.honored.resources_list_changed is True


@pytest.mark.parametrize(
    ("uri", "code"),
    [
        ("meerkat://sessions/0199aaaa-0000-7000-8000-000000000000", "session_not_found"),
        ("meerkat://sessions/last/transcript", "session_not_found"),
        ("meerkat://nothing", "invalid_request"),
        ("other://thing", "invalid_request"),
    ],
)
async def test_a_connection_that_subscribes_to_what_is_not_there_is_refused(realm, uri, code):
    async with Client(served(realm), mode="legacy") as client:
        with pytest.raises(MCPError) as raised:
            await client.session.send_request(*_subscribing(uri))
    assert raised.value.error.code == INVALID_PARAMS
    assert (raised.value.error.data["uri"], raised.value.error.data["code"]) == (uri, code)


async def test_a_caller_who_sees_only_their_own_sessions_hears_of_no_others(realm, era):
    his = (await realm.sessions.run("", settings(), title="His", by="bob")).session_id
    hers = (await realm.sessions.run("", settings(), title="Hers", by="ada")).session_id
    server = served(realm, caller=ADA)
    mine = f"meerkat://sessions/{hers}"
    async with listening(server, era, mine, "meerkat://sessions", lists=True) as (ear, client, subscription):
        await client.list_tools()
        if subscription is not None:
            assert subscription.honored.resource_subscriptions == [mine, "meerkat://sessions"]
        await realm.sessions.resume(his, title="His, still", by="bob")
        await realm.sessions.run("", settings(), title="His too", by="bob")
        await anyio.sleep(1.2)
        assert ear.told == []
        await realm.sessions.resume(hers, title="Hers, still", by="ada")
        for event in (ResourceUpdated(mine), ResourceUpdated("meerkat://sessions"), ResourcesListChanged()):
            await ear.heard(event)


async def test_a_foreign_session_cannot_be_subscribed_to(realm):
    his = f"meerkat://sessions/{(await realm.sessions.run('', settings(), by='bob')).session_id}/events"
    server = served(realm, caller=ADA)
    async with Client(server) as client, client.listen(resource_subscriptions=[his]) as subscription:
        assert subscription.honored.resource_subscriptions is None
    async with Client(server, mode="legacy") as client:
        with pytest.raises(MCPError, match="There is no session"):
            await client.session.send_request(*_subscribing(his))


# ── ends and limits ──


async def test_unsubscribing_ends_it_and_is_fine_twice(realm):
    started, _ = await run(realm, "[[say hi]]")
    uri = f"meerkat://sessions/{started.session_id}"
    async with listening(served(realm), "legacy", uri, uri) as (ear, client, _):
        await resume(realm, started.session_id, "[[say hi]]")
        await ear.rested()
        count = ear.count(ResourceUpdated(uri))
        assert count
        for _ in range(2):
            await client.session.send_request(*_subscribing(uri, stop=True))
        await resume(realm, started.session_id, "[[say hi]]")
        await ear.rested()
        assert ear.count(ResourceUpdated(uri)) == count


async def test_closing_ends_every_stream_in_order(realm):
    server = served(realm)
    async with Client(server) as client:
        async with (
            client.listen(resources_list_changed=True) as first,
            client.listen(resource_subscriptions=["meerkat://config"]) as second,
        ):
            server.subscriptions.close()
            with anyio.fail_after(PATIENCE_S):
                assert [event async for event in first] == []
                assert [event async for event in second] == []
        async with client.listen(resources_list_changed=True) as late:
            with anyio.fail_after(PATIENCE_S):
                assert [event async for event in late] == []
    assert not realm.journal.listeners


async def test_one_client_watches_a_thousand_resources_and_no_more(realm, era):
    started, _ = await run(realm, "[[say hi]]")
    uris = [f"meerkat://sessions/{started.session_id}/events?after_seq={number}" for number in range(URIS_MAX + 1)]
    server = served(realm)
    async with listening(server, era, *uris[:-1]) as (ear, client, _):

        async def too_many() -> None:
            if era == "legacy":
                await client.session.send_request(*_subscribing(uris[-1]))
            async with client.listen(resource_subscriptions=uris):
                pass

        with pytest.raises(MCPError, match=f"at most {URIS_MAX} resources") as raised:
            await too_many()
        assert raised.value.error.code == INVALID_PARAMS
        await resume(realm, started.session_id, "[[say hi]]")
        for uri in (uris[0], uris[-2]):
            await ear.heard(uri)


async def test_so_many_streams_and_no_more(realm):
    server = served(realm)
    async with Client(server) as client, anyio.create_task_group() as tasks:

        async def stream(*, task_status: Any) -> None:
            async with client.listen(prompts_list_changed=True):
                task_status.started()
                await anyio.sleep_forever()

        for _ in range(STREAMS_MAX):
            await tasks.start(stream)
        with pytest.raises(MCPError, match="Too many streams"):
            async with client.listen(prompts_list_changed=True):
                pass
        tasks.cancel_scope.cancel()


async def test_a_client_that_does_not_read_keeps_nobody_waiting(realm, era):
    started, _ = await run(realm, "[[say hi]]")
    uri = f"meerkat://sessions/{started.session_id}"
    stuck = anyio.Event()

    async def never(message: Any) -> None:
        if isinstance(message, ResourceUpdatedNotification):
            stuck.set()
            await anyio.sleep_forever()

    server = served(realm)
    async with Client(server, mode="legacy", message_handler=never, cache=None) as deaf:
        await deaf.session.send_request(*_subscribing(uri))
        async with listening(server, era, uri) as (ear, _, _):
            with anyio.fail_after(PATIENCE_S):
                for times in (1, 2, 3):
                    await resume(realm, started.session_id, "[[say hi]]")
                    await ear.heard(uri, times)
            assert stuck.is_set()


async def test_what_a_program_that_embeds_us_publishes_reaches_who_listens(realm):
    server = served(realm)

    @server.tool()
    async def announce(ctx: Context[Any, Any]) -> TextContent:
        await ctx.notify_tools_changed()
        await ctx.notify_resource_updated("house://motto")
        return TextContent(type="text", text="done")

    @server.resource("house://motto")
    def motto() -> str:
        return "Keep watch."

    assert announce
    assert motto
    ear = Ear()
    async with (
        Client(server, cache=None) as client,
        client.listen(tools_list_changed=True, resource_subscriptions=["house://motto"]) as subscription,
    ):
        assert subscription.honored.resource_subscriptions == ["house://motto"]
        await client.call_tool("announce", {})
        with anyio.fail_after(PATIENCE_S):
            async for event in subscription:
                ear.hear(event)
                if len(ear.told) == 2:
                    break
    assert {event for _, event in ear.told} == {ToolsListChanged(), ResourceUpdated("house://motto")}


# ── other processes, and the wire ──


async def test_a_server_process_tells_of_a_turn_that_another_process_runs(realm, era, tmp_path):
    started, _ = await run(realm, "[[say hi]]")
    paths = [f"meerkat://sessions/{started.session_id}{what}" for what in ("", "/transcript", "/events")]
    words = ["-m", "meerkat_mcp", "serve", "--realm", "den", "--state-root", str(tmp_path)]
    program = StdioServerParameters(command=sys.executable, args=words)
    async with listening(program, era, *paths, "meerkat://sessions", lists=True) as (ear, client, _):
        await client.list_tools()
        await resume(realm, started.session_id, "[[say more]]")
        for uri in (*paths, "meerkat://sessions"):
            await ear.heard(uri, within_s=2)
        await run(realm, "[[say a new one]]")
        await ear.heard(ResourcesListChanged(), within_s=3)


@asynccontextmanager
async def on_http(server: Any) -> AsyncGenerator[str]:
    """The server behind HTTP, on a port of its own."""
    config = uvicorn.Config(server.streamable_http_app(), port=0, log_level="error", timeout_graceful_shutdown=1)
    web = uvicorn.Server(config)
    socket = config.bind_socket()
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(web.serve, [socket])
        await until(lambda: web.started)
        yield f"http://127.0.0.1:{socket.getsockname()[1]}/mcp"
        web.should_exit = True


async def test_over_http_a_stream_and_the_get_stream_of_a_session_are_told(realm, era):
    started, _ = await run(realm, "[[say hi]]")
    uri = f"meerkat://sessions/{started.session_id}/transcript"
    server = served(realm)
    async with on_http(server) as address, listening(address, era, uri, lists=True) as (ear, client, _):
        await client.list_tools()
        with anyio.fail_after(PATIENCE_S):
            while not ear.count(ResourceUpdated(uri)):  # the GET stream of the older era opens when it opens
                await resume(realm, started.session_id, "[[say more]]")
                await ear.rested()
        await realm.sessions.run("", settings(), title="New")
        await ear.heard(ResourcesListChanged())
        server.subscriptions.close()
    await until(lambda: not realm.journal.listeners)
