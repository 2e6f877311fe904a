"""An open realm."""

from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

from meerkat_mcp.domain import config as configs
from meerkat_mcp.domain.config import Versioned
from meerkat_mcp.domain.events import Owner
from meerkat_mcp.domain.messages import JsonObject
from meerkat_mcp.domain.realm import Manifest
from meerkat_mcp.providers.wire import Http
from meerkat_mcp.realms.choice import RealmChoice
from meerkat_mcp.realms.manifest import MANIFEST_NAME
from meerkat_mcp.sessions.journal import Journal
from meerkat_mcp.sessions.providers import Providers
from meerkat_mcp.sessions.reading import Reading
from meerkat_mcp.sessions.service import Sessions
from meerkat_mcp.sessions.shelf import Shelf
from meerkat_mcp.sessions.streams import Streams
from meerkat_mcp.sessions.turns import Turns
from meerkat_mcp.stores.base import Store
from meerkat_mcp.tools.deferred import DeferredToolServers


@dataclass(frozen=True, slots=True)
class Realm:
    """An open realm: the doors to everything one can do in it."""

    choice: RealmChoice
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
    def exclusive(self) -> bool:
        """Whether one process alone can have it."""
        return self.manifest.backend in ("jsonl", "memory")

    @property
    def mechanisms(self) -> dict[str, str]:
        """How the backend does what differs between machines: its library, its doorbell."""
        return dict(self.store.mechanisms)

    @property
    def paths(self) -> dict[str, str]:
        """Where things lie; shown only when the operator allows it."""
        file = self.choice.config_file
        config = {} if file is None else {"config_file": str(file)}
        return {"realm": str(self.folder), "manifest": str(self.folder / MANIFEST_NAME), **config}

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
        """Put what `make` makes of the document in its place; `allow` may refuse the change from one config to another,
        each as it holds here, over this server's file.

        Without an expected generation it is made anew when somebody else was first.

        Raises:
            InvalidRequest, LimitExceeded, GenerationConflict, and what `allow` raises.
        """
        while True:
            current = await self.store.config()
            expected = current.generation if expected_generation is None else expected_generation
            current.changed({}, expected)
            document = make(current.document)
            config = await self.sessions.configuration.shared(current, document)
            if allow is not None:
                allow(await self.sessions.configuration.shared(current), config)
            try:
                return await self.store.put_config(document, expected=expected)
            except configs.GenerationConflict:
                if expected_generation is not None:
                    raise
