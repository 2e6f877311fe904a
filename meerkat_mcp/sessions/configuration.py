"""The config as it holds in this process: every layer of it, read anew for whoever asks, parsed when it changed."""

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Protocol

from meerkat_mcp.domain.config import Config, Versioned, parse
from meerkat_mcp.domain.errors import InvalidRequest, LimitExceeded
from meerkat_mcp.domain.layers import Layer, layered, origins
from meerkat_mcp.domain.messages import JsonObject
from meerkat_mcp.domain.settings import PermissionMode, strictest
from meerkat_mcp.stores.base import Store


@dataclass(frozen=True, slots=True)
class FileLayer:
    """What an operator's file says; another `version` says something else."""

    version: int = 0
    document: JsonObject = field(default_factory=dict[str, object])


class ConfigSource(Protocol):
    """An operator's file, or what stands for one."""

    async def read(self, check: Callable[[JsonObject], object]) -> FileLayer:
        """What it says now. What `check` refuses, or what cannot be read, is passed over for what it said before."""
        ...


@dataclass(frozen=True, slots=True)
class Effective:
    """The config with every layer, the generation of the realm's own, and which layer set what."""

    config: Config
    generation: int
    origins: dict[str, Layer]


class Configuration:
    """The config of a realm in one process. `ceiling` is the process's own, whatever the config allows beyond it."""

    def __init__(
        self, store: Store, *, ceiling: PermissionMode | None = None, source: ConfigSource | None = None
    ) -> None:
        self.ceiling: PermissionMode = ceiling or "auto"
        self._store = store
        self._source = source
        self._known: tuple[int, int, Effective] | None = None

    @property
    def has_file(self) -> bool:
        """Whether an operator's file lies under the realm's document."""
        return self._source is not None

    async def current(self) -> Effective:
        """What holds now. Raises StoreUnavailable; InvalidRequest: file and realm do not go together."""
        stored = await self._store.config()
        file = await self._file(stored)
        if self._known is None or self._known[:2] != (stored.generation, file.version):
            self._known = (stored.generation, file.version, self._effective(stored, file))
        return self._known[2]

    async def shared(self, stored: Versioned, document: JsonObject | None = None) -> Config:
        """What holds with this as the realm's document, but for the process's own ceiling.

        With a `document`, what would hold if that took its place.

        Raises:
            InvalidRequest, LimitExceeded: it is wrong by itself, or does not go together with the file.
        """
        return _together(await self._file(stored), stored.document if document is None else document)

    async def _file(self, stored: Versioned) -> FileLayer:
        if self._source is None:
            return FileLayer()
        return await self._source.read(lambda document: parse(layered(document, stored.document)))

    def _effective(self, stored: Versioned, file: FileLayer) -> Effective:
        config = _together(file, stored.document)
        set_by = origins(file.document, stored.document)
        ceiling = strictest(self.ceiling, config.permissions.ceiling)
        if ceiling != config.permissions.ceiling:
            permissions = config.permissions.model_copy(update={"ceiling": ceiling})
            config = config.model_copy(update={"permissions": permissions})
            set_by["permissions.ceiling"] = "process"
        return Effective(config, stored.generation, set_by)


def _together(file: FileLayer, document: JsonObject) -> Config:
    alone = parse(document)
    if not file.document:
        return alone
    try:
        return parse(layered(file.document, document))
    except (InvalidRequest, LimitExceeded) as exc:
        raise InvalidRequest(
            f"The realm's config does not go together with this server's config file. {exc.message}", hint=exc.hint
        ) from None
