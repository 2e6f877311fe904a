"""Runs the fake on loopback: `with Server() as server: server.fake.queue(...); server.url`."""

import socket
import threading
import uuid
from types import TracebackType
from typing import Self

import uvicorn

from vendors.app import FakeLLM

START_TIMEOUT_S = 10


class Server:
    """The fake in a thread of its own, with its own loop, on a free port of 127.0.0.1."""

    def __init__(self) -> None:
        self.fake = FakeLLM()
        self.url = ""

    def __enter__(self) -> Self:
        # The protocol must be named, or asyncio leaves Nagle's algorithm on: 40 ms for each small answer.
        self._socket = socket.socket(socket.AF_INET, socket.SOCK_STREAM, socket.IPPROTO_TCP)
        self._socket.bind(("127.0.0.1", 0))
        self.url = f"http://127.0.0.1:{self._socket.getsockname()[1]}"
        config = uvicorn.Config(
            self.fake.app, lifespan="off", ws="none", log_config=None, access_log=False, timeout_graceful_shutdown=1
        )
        self._server = _Uvicorn(config)
        self._thread = threading.Thread(target=self._server.run, kwargs={"sockets": [self._socket]}, daemon=True)
        self._thread.start()
        assert self._server.ready.wait(START_TIMEOUT_S), "the fake did not start"
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._server.should_exit = True
        self._server.force_exit = True
        self._thread.join(START_TIMEOUT_S)
        self._socket.close()


class _Uvicorn(uvicorn.Server):
    """Says when it listens."""

    def __init__(self, config: uvicorn.Config) -> None:
        super().__init__(config)
        self.ready = threading.Event()

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        await super().startup(sockets)
        self.ready.set()


def lane() -> str:
    """A lane that no other test has."""
    return f"lane-{uuid.uuid4().hex[:12]}"
