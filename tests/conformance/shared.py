"""What fixture servers that are replicas have in common: a folder, and in it events, and letters to each other."""

import hashlib
import json
import pickle
import secrets
from collections.abc import AsyncGenerator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import anyio
from mcp.server.subscriptions import (
    InMemorySubscriptionBus,
    PromptsListChanged,
    ResourcesListChanged,
    ResourceUpdated,
    ServerEvent,
    ToolsListChanged,
)

LOOK_INTERVAL_S = 0.01
PATIENCE_S = 5.0
EVENTS = {kind.__name__: kind for kind in (PromptsListChanged, ResourcesListChanged, ResourceUpdated, ToolsListChanged)}


def key(folder: Path) -> bytes:
    """A secret of those that have this folder."""
    return hashlib.sha256(str(folder.resolve()).encode()).digest()


class Bus:
    """What one of them publishes, all of them hear: it is appended to a file that all of them read."""

    def __init__(self, folder: Path) -> None:
        self._file = folder / "events"
        self._file.touch()
        self._read = self._file.stat().st_size
        self._own = InMemorySubscriptionBus()

    async def publish(self, event: ServerEvent) -> None:
        said = [type(event).__name__, *([event.uri] if isinstance(event, ResourceUpdated) else [])]
        with self._file.open("a") as file:
            file.write(json.dumps(said) + "\n")

    def subscribe(self, listener: Callable[[ServerEvent], None]) -> Callable[[], None]:
        return self._own.subscribe(listener)

    @asynccontextmanager
    async def running(self) -> AsyncGenerator[None]:
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(self._listen)
            yield
            tasks.cancel_scope.cancel()

    async def _listen(self) -> None:
        while True:
            with self._file.open() as file:
                file.seek(self._read)
                said = file.read()
            whole = said[: said.rfind("\n") + 1]
            self._read += len(whole.encode())
            for line in whole.splitlines():
                name, *uri = json.loads(line)
                await self._own.publish(EVENTS[name](*uri))
            await anyio.sleep(LOOK_INTERVAL_S)


class Shelf:
    """Things that one process keeps where others see them, and letters about them, which it gets from the others."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def put(self, name: str, thing: Any) -> None:
        """Show a thing."""
        fresh = self._folder / f"{name}.{secrets.token_hex(4)}"
        fresh.write_bytes(pickle.dumps(thing))
        fresh.replace(self._folder / f"{name}.thing")

    def get(self, name: str) -> Any:
        """What is shown; None: nothing."""
        place = self._folder / f"{name}.thing"
        return pickle.loads(place.read_bytes()) if place.exists() else None

    async def write(self, name: str, letter: Any) -> None:
        """Write to whoever shows a thing, until the letter was taken."""
        place = self._folder / f"{name}.{secrets.token_hex(4)}.letter"
        fresh = place.with_suffix(".new")
        fresh.write_bytes(pickle.dumps(letter))
        fresh.rename(place)
        with anyio.fail_after(PATIENCE_S):
            while True:
                if not place.exists():
                    return
                await anyio.sleep(LOOK_INTERVAL_S)

    def letters(self, name: str) -> list[tuple[Path, Any]]:
        """The letters that came, by the place of each: it is taken once that is `unlink`ed."""
        return [(place, pickle.loads(place.read_bytes())) for place in sorted(self._folder.glob(f"{name}.*.letter"))]
