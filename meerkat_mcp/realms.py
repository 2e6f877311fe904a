"""Opening a realm: which one is meant, where it is kept, and everything wired together.

The only room that names concrete backends and providers and that reads the environment; it imports them when
they are needed, so that listing sessions never loads a provider.
"""

import hashlib
import json
import logging
import os
import socket
from collections.abc import AsyncGenerator, Callable, Iterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, cast

import anyio
from pydantic import ValidationError

from meerkat_mcp import telemetry
from meerkat_mcp.domain import config as configs
from meerkat_mcp.domain.config import Versioned
from meerkat_mcp.domain.errors import Corrupt, InvalidRequest, RealmNotFound, StoreUnavailable
from meerkat_mcp.domain.events import Owner
from meerkat_mcp.domain.messages import JsonObject
from meerkat_mcp.domain.realm import MANIFEST_VERSION, Backend, Manifest, check_pin, checked_backend, checked_id
from meerkat_mcp.domain.settings import TOOL_RESULT_CHARS_MAX, PermissionMode
from meerkat_mcp.providers.base import Access, Provider
from meerkat_mcp.providers.wire import Http
from meerkat_mcp.sessions.clock import Clock, SystemClock
from meerkat_mcp.sessions.journal import Journal
from meerkat_mcp.sessions.providers import Providers, Wire
from meerkat_mcp.sessions.reading import Reading
from meerkat_mcp.sessions.service import Sessions
from meerkat_mcp.sessions.shelf import Shelf
from meerkat_mcp.sessions.streams import Streams
from meerkat_mcp.sessions.turns import Turns
from meerkat_mcp.stores.base import Store
from meerkat_mcp.stores.filelock import FileLock
from meerkat_mcp.tools.base import RunningToolServers
from meerkat_mcp.tools.deferred import DeferredToolServers

MANIFEST_NAME = "realm_manifest.json"
STATE_ROOT_VARIABLE = "MEERKAT_STATE_ROOT"
REALM_VARIABLE = "MEERKAT_REALM"
CLOSE_WAIT_S = 1.0
TALKATIVE = ("httpx2", "anthropic", "openai", "google_genai")
"""Loggers of libraries that write addresses, prompts or keys: they say no more than warnings, whatever we say."""


@dataclass(frozen=True, slots=True)
class RealmChoice:
    """Which realm is meant, and as whom: the flags of every command, checked."""

    realm_id: str
    state_root: Path
    backend: Backend | None = None
    instance_id: str | None = None
    generated: bool = False
    permission_ceiling: PermissionMode | None = None

    @property
    def folder(self) -> Path:
        """Where the realm is kept."""
        return self.state_root / self.realm_id


@dataclass(frozen=True, slots=True)
class Realm:
    """An open realm: the doors to everything one can do in it."""

    manifest: Manifest
    folder: Path
    owner: Owner
    store: Store
    journal: Journal
    turns: Turns
    providers: Providers
    sessions: Sessions
    reading: Reading
    shelf: Shelf
    streams: Streams
    tool_servers: DeferredToolServers
    http: Http
    started_ms: int
    warnings: tuple[str, ...] = field(default=())

    @property
    def id(self) -> str:
        """The realm's name."""
        return self.manifest.realm_id

    @property
    def mechanisms(self) -> dict[str, str]:
        """How the backend does what differs between machines: its library, its doorbell."""
        return dict(self.store.mechanisms)

    @property
    def paths(self) -> dict[str, str]:
        """Where things lie; shown only when the operator allows it."""
        return {"realm": str(self.folder), "manifest": str(self.folder / MANIFEST_NAME)}

    async def set_config(self, document: JsonObject, *, expected_generation: int | None = None) -> Versioned:
        """Replace the config. Raises InvalidRequest, LimitExceeded, GenerationConflict."""
        return await self.change_config(lambda _: document, expected_generation)

    async def patch_config(self, patch: JsonObject, *, expected_generation: int | None = None) -> Versioned:
        """Merge into the config (RFC 7396). Raises InvalidRequest, LimitExceeded, GenerationConflict."""
        return await self.change_config(lambda before: configs.merge(before, patch), expected_generation)

    async def change_config(
        self,
        make: Callable[[JsonObject], JsonObject],
        expected_generation: int | None = None,
        *,
        allow: Callable[[configs.Config, configs.Config], None] | None = None,
    ) -> Versioned:
        """Put what `make` makes of the document in its place; `allow` may refuse the change from one config to another.

        Without an expected generation it is made anew when somebody else was first.

        Raises:
            InvalidRequest, LimitExceeded, GenerationConflict, and what `allow` raises.
        """
        while True:
            current = await self.store.config()
            expected = current.generation if expected_generation is None else expected_generation
            current.changed({}, expected)
            document = make(current.document)
            config = configs.parse(document)
            if allow is not None:
                allow(current.config, config)
            try:
                return await self.store.put_config(document, expected=expected)
            except configs.GenerationConflict:
                if expected_generation is not None:
                    raise


def choose(
    realm_id: str | None = None,
    *,
    isolated: bool = False,
    instance_id: str | None = None,
    backend: str | None = None,
    state_root: str | Path | None = None,
    workspace: str | Path | None = None,
    permission_ceiling: PermissionMode | None = None,
    clock: Clock | None = None,
) -> RealmChoice:
    """Make a choice of what a caller said: a named realm, a new one, or the one of a workspace.

    `permission_ceiling` holds for turns of this process, whatever the realm's config allows beyond it.

    Raises:
        InvalidRequest: an id that is none, both a name and `isolated`, or an unknown backend.
    """
    realm_id = realm_id or (None if isolated else os.environ.get(REALM_VARIABLE))
    if realm_id and isolated:
        raise InvalidRequest("A realm cannot be both named and isolated.", hint="Leave out --realm or --isolated.")
    generated = not realm_id and (isolated or workspace is None)
    if realm_id:
        name = checked_id(realm_id)
    elif workspace is None or generated:
        name = f"realm-{(clock or SystemClock()).new_id()}"
    else:
        name = f"ws-{hashlib.sha256(str(Path(workspace).resolve()).encode()).hexdigest()[:16]}"
    return RealmChoice(
        realm_id=name,
        state_root=default_state_root() if state_root is None else Path(state_root).expanduser().resolve(),
        backend=checked_backend(backend) if backend else None,
        instance_id=checked_id(instance_id, "instance") if instance_id else None,
        generated=generated,
        permission_ceiling=permission_ceiling,
    )


def default_state_root() -> Path:
    """Where realms lie when nobody says where: `MEERKAT_STATE_ROOT`, else the platform's folder for data."""
    from platformdirs import user_data_path

    named = os.environ.get(STATE_ROOT_VARIABLE)
    return Path(named).expanduser().resolve() if named else user_data_path("meerkat", appauthor=False) / "realms"


@asynccontextmanager
async def open_realm(
    choice: RealmChoice, *, clock: Clock | None = None, must_exist: bool = False, turns: bool = True
) -> AsyncGenerator[Realm]:
    """Open a realm; create it when it is new, unless `must_exist`. Without `turns` it is opened to look only.

    Leaving ends the turns that run here, each by its own event, and lets go of the store.

    Raises:
        RealmNotFound, BackendMismatch, StoreUnavailable, Corrupt.
    """
    clock = clock or SystemClock()
    for name in TALKATIVE:
        logging.getLogger(name).setLevel(logging.WARNING)
    telemetry.record_content(environment(telemetry.CONTENT_VARIABLE))
    manifest = _materialize(choice, clock, must_exist=must_exist)
    store = await _open_store(manifest, choice.folder, clock)
    raised: Exception | None = None
    realm: Realm | None = None
    try:
        realm = _wire(manifest, choice, store, clock)
        async with anyio.create_task_group() as tasks:
            if turns:
                tasks.start_soon(realm.tool_servers.run)
                await tasks.start(realm.turns.run)
            tasks.start_soon(realm.journal.run)
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
    providers = Providers(wires=_wires(http), lookup=environment)
    try:
        yield providers
    finally:
        with anyio.move_on_after(CLOSE_WAIT_S, shield=True):
            await providers.close()
            await http.close()


def realms(state_root: Path) -> Iterator[Manifest | tuple[str, str]]:
    """Every realm under a state root, by name; for one that cannot be read its folder and why."""
    if not state_root.is_dir():
        return
    for folder in sorted(path for path in state_root.iterdir() if (path / MANIFEST_NAME).exists()):
        try:
            yield _read_manifest(folder / MANIFEST_NAME)
        except (Corrupt, StoreUnavailable) as exc:
            yield folder.name, exc.message


def _wire(manifest: Manifest, choice: RealmChoice, store: Store, clock: Clock) -> Realm:
    incarnation = clock.new_id()
    owner = Owner(
        instance_id=choice.instance_id or f"instance-{incarnation}",
        incarnation=incarnation,
        host=socket.gethostname(),
        pid=os.getpid(),
    )
    journal = Journal(store, clock)
    servers = DeferredToolServers(_tool_servers)
    turns = Turns(journal, owner, servers)
    http = Http()
    providers = Providers(wires=_wires(http), lookup=environment)
    sessions = Sessions(journal, turns, providers, choice.permission_ceiling)
    return Realm(
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


def environment(name: str) -> str | None:
    """A variable of the environment. A host that fills nothing in for `${NAME}` in its config hands on just that."""
    value = os.environ.get(name)
    return None if value is not None and value.startswith("${") else value


def _tool_servers() -> RunningToolServers:
    from meerkat_mcp.tools.remote import McpToolServers

    return McpToolServers(environment, chars_max=TOOL_RESULT_CHARS_MAX)


def _wires(http: Http) -> dict[str, Wire]:
    """How each provider is opened, where it is, and which variables its vendor documents for the key."""

    def demo(_: Access) -> Provider:
        from meerkat_mcp.providers.demo import DemoProvider

        return DemoProvider()

    def anthropic(access: Access) -> Provider:
        from meerkat_mcp.providers.anthropic import AnthropicProvider

        return AnthropicProvider(access, http)

    def openai(access: Access) -> Provider:
        from meerkat_mcp.providers.openai_responses import ResponsesProvider

        return ResponsesProvider(access, http)

    def gemini(access: Access) -> Provider:
        from meerkat_mcp.providers.gemini import GeminiProvider

        return GeminiProvider(access, http)

    def self_hosted(access: Access) -> Provider:
        from meerkat_mcp.providers.openai_chat import ChatProvider

        return ChatProvider(access, http)

    return {
        "anthropic": Wire(anthropic, "https://api.anthropic.com", ("ANTHROPIC_API_KEY",)),
        "openai": Wire(openai, "https://api.openai.com/v1", ("OPENAI_API_KEY",)),
        "gemini": Wire(gemini, "https://generativelanguage.googleapis.com", ("GEMINI_API_KEY", "GOOGLE_API_KEY")),
        "self_hosted": Wire(self_hosted),
        "demo": Wire(demo),
    }


async def _open_store(manifest: Manifest, folder: Path, clock: Clock) -> Store:
    match manifest.backend:
        case "memory":
            from meerkat_mcp.stores.memory import MemoryStore

            return MemoryStore()
        case "sqlite":
            from meerkat_mcp.stores.sqlite import SQLiteStore

            return await SQLiteStore.open(folder, clock_ms=clock.now_ms)


def _materialize(choice: RealmChoice, clock: Clock, *, must_exist: bool) -> Manifest:
    """The realm's manifest; written first, under a lock, when the realm is new."""
    path = choice.folder / MANIFEST_NAME
    try:
        if not path.exists():
            if must_exist:
                raise RealmNotFound(
                    f"There is no realm {choice.realm_id!r} here.", hint="meerkat-mcp realm list shows those there are."
                )
            choice.folder.mkdir(mode=0o700, parents=True, exist_ok=True)
            with FileLock(choice.folder / "manifest.lock"):
                if not path.exists():
                    born = Manifest(
                        realm_id=choice.realm_id, backend=choice.backend or "sqlite", created_ms=clock.now_ms()
                    )
                    _write_durably(path, json.dumps(born.model_dump(), indent=2) + "\n")
        manifest = _read_manifest(path)
    except OSError as exc:
        raise StoreUnavailable(
            f"Realm {choice.realm_id!r} cannot be opened: {exc.strerror or exc}.",
            hint="Check that the state root exists and can be written, or name another with --state-root.",
        ) from exc
    if manifest.realm_id != choice.realm_id:
        raise Corrupt(
            f"The folder of realm {choice.realm_id!r} belongs to {manifest.realm_id!r}.",
            hint="Use that name, or another state root.",
        )
    check_pin(manifest, choice.backend)
    return manifest


def _read_manifest(path: Path) -> Manifest:
    try:
        document: Any = json.loads(path.read_text(encoding="utf-8"))
        version: Any = cast(JsonObject, document).get("version") if isinstance(document, dict) else None
        if isinstance(version, int) and version > MANIFEST_VERSION:
            raise Corrupt(f"The realm was made by a newer meerkat_mcp (manifest {version}).", hint="Update this one.")
        return Manifest.model_validate(document)
    except (ValidationError, ValueError) as exc:
        raise Corrupt(f"The manifest of realm {path.parent.name!r} is damaged.", hint="See its file.") from exc
    except OSError as exc:
        raise StoreUnavailable(f"The manifest of realm {path.parent.name!r} cannot be read.") from exc


def _write_durably(path: Path, text: str) -> None:
    """Write a file so that it is there whole or not at all, also after a power cut."""
    fresh = path.with_suffix(".new")
    with fresh.open("w", encoding="utf-8", newline="\n") as file:
        file.write(text)
        file.flush()
        os.fsync(file.fileno())
    fresh.replace(path)
