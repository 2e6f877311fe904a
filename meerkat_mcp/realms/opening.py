"""Opening a realm: its store, and everything wired together around it."""

import logging
import os
import socket
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager

import anyio

from meerkat_mcp import telemetry
from meerkat_mcp.domain.events import Owner
from meerkat_mcp.domain.realm import Manifest
from meerkat_mcp.providers.wire import Http
from meerkat_mcp.realms.choice import RealmChoice
from meerkat_mcp.realms.configfile import ConfigFile
from meerkat_mcp.realms.manifest import materialized
from meerkat_mcp.realms.realm import Realm
from meerkat_mcp.realms.wiring import environment, opened_store, tool_servers, wires
from meerkat_mcp.sessions.clock import Clock, SystemClock
from meerkat_mcp.sessions.journal import Journal
from meerkat_mcp.sessions.providers import Providers
from meerkat_mcp.sessions.reading import Reading
from meerkat_mcp.sessions.retention import Retention
from meerkat_mcp.sessions.service import Sessions
from meerkat_mcp.sessions.shelf import Shelf
from meerkat_mcp.sessions.streams import Streams
from meerkat_mcp.sessions.turns import Turns
from meerkat_mcp.sessions.upkeep import Upkeep
from meerkat_mcp.stores.base import Store
from meerkat_mcp.tools.deferred import DeferredToolServers

CLOSE_WAIT_S = 1.0
TALKATIVE = ("httpx2", "anthropic", "openai", "google_genai")
"""Loggers of libraries that write addresses, prompts or keys: they say no more than warnings, whatever we say."""


@asynccontextmanager
async def open_realm(
    choice: RealmChoice,
    *,
    clock: Clock | None = None,
    must_exist: bool = False,
    turns: bool = True,
    serves: bool = False,
) -> AsyncGenerator[Realm]:
    """Open a realm; create it when it is new, unless `must_exist`. Without `turns` it is opened to look only.

    A process that `serves` stays: it takes up what waits in the realm, and does its chores. Leaving ends the turns that
    run here, each by its own event, or, where it serves, suspends them for another server; and lets go of the store.

    Raises:
        RealmNotFound, BackendMismatch, StoreUnavailable, Corrupt; InvalidRequest: what the config file says is wrong.
    """
    clock = clock or SystemClock()
    for name in TALKATIVE:
        logging.getLogger(name).setLevel(logging.WARNING)
    telemetry.record_content(environment(telemetry.CONTENT_VARIABLE))
    source = ConfigFile(choice.config_file) if choice.config_file is not None else None
    manifest = materialized(choice, clock, must_exist=must_exist)
    store = await opened_store(manifest, choice, clock)
    raised: Exception | None = None
    realm: Realm | None = None
    try:
        realm = _wire(manifest, choice, store, clock, source, serves=serves)
        async with anyio.create_task_group() as tasks:
            if turns:
                tasks.start_soon(realm.tool_servers.run)
                await tasks.start(realm.turns.run)
            tasks.start_soon(realm.journal.run)
            if serves:
                tasks.start_soon(Upkeep(realm.sessions).run)
                tasks.start_soon(Retention(realm.sessions, realm.shelf, realm.owner).run)
            try:
                yield realm
            except Exception as exc:  # raised again outside of the group, which would wrap it
                raised = exc
            finally:
                tasks.cancel_scope.cancel()
        if raised is not None:
            raise raised
    finally:
        with anyio.move_on_after(CLOSE_WAIT_S, shield=True):
            await store.close()
        if realm is not None:
            with anyio.move_on_after(CLOSE_WAIT_S, shield=True):
                await realm.providers.close()
                await realm.http.close()


@asynccontextmanager
async def open_providers() -> AsyncGenerator[Providers]:
    """The providers as this process's environment has them, for whoever needs no realm."""
    http = Http()
    providers = Providers(wires=wires(http), lookup=environment)
    try:
        yield providers
    finally:
        with anyio.move_on_after(CLOSE_WAIT_S, shield=True):
            await providers.close()
            await http.close()


def _wire(
    manifest: Manifest, choice: RealmChoice, store: Store, clock: Clock, source: ConfigFile | None, *, serves: bool
) -> Realm:
    incarnation = clock.new_id()
    owner = Owner(
        instance_id=choice.instance_id or f"instance-{incarnation}",
        incarnation=incarnation,
        host=socket.gethostname(),
        pid=os.getpid(),
    )
    journal = Journal(store, clock)
    servers = DeferredToolServers(tool_servers)
    turns = Turns(journal, owner, servers, hands_over=serves)
    http = Http()
    providers = Providers(wires=wires(http), lookup=environment)
    sessions = Sessions(journal, turns, providers, choice.permission_ceiling, source)
    return Realm(
        choice=choice,
        manifest=manifest,
        folder=choice.folder,
        owner=owner,
        store=store,
        journal=journal,
        turns=turns,
        providers=providers,
        sessions=sessions,
        reading=Reading(manifest.realm_id, journal, turns),
        shelf=Shelf(sessions),
        streams=Streams(sessions),
        tool_servers=servers,
        http=http,
        started_ms=clock.now_ms(),
        warnings=tuple(store.warnings),
    )
