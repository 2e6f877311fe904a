"""Hearing what a tool server is told: a program between us and it, and who listens to that.

`python overhearing.py PORT COMMAND …` runs the server and repeats every line that it is told, first to the listener.
The server's answers go back by themselves; nothing is changed on the way.
"""

import json
import socket
import subprocess
import sys
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from typing import Any

import anyio
from anyio.abc import SocketStream

JsonObject = dict[str, Any]
PATIENCE_S = 20.0


class Overheard:
    """What was heard so far: messages of JSON-RPC, in their order."""

    def __init__(self, port: int) -> None:
        self.messages: list[JsonObject] = []
        self._port = port
        self._more = anyio.Event()

    def through(self, server: JsonObject) -> JsonObject:
        """The definition of a server, so that it is overheard."""
        return server | {
            "command": sys.executable,
            "args": [__file__, str(self._port), server["command"], *server["args"]],
        }

    async def hear(self, stream: SocketStream) -> None:
        """Listen to one server."""
        held = b""
        async with stream:
            async for chunk in stream:
                *lines, held = (held + chunk).split(b"\n")
                self.messages += [json.loads(line) for line in lines]
                self._more.set()
                self._more = anyio.Event()

    async def until(self, method: str, **params: Any) -> JsonObject:
        """The first message with that method and these parameters, as soon as it comes."""
        with anyio.fail_after(PATIENCE_S):
            while not (found := self.heard(method, **params)):
                await self._more.wait()
        return found[0]

    def heard(self, method: str, **params: Any) -> list[JsonObject]:
        return [
            message
            for message in self.messages
            if message.get("method") == method and params.items() <= message.get("params", {}).items()
        ]


@asynccontextmanager
async def overhear() -> AsyncGenerator[Overheard]:
    """Listen, as long as the block lasts."""
    async with await anyio.create_tcp_listener(local_host="127.0.0.1", local_port=0) as listener:
        overheard = Overheard(listener.extra(anyio.abc.SocketAttribute.local_port))
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(listener.serve, overheard.hear)
            yield overheard
            tasks.cancel_scope.cancel()


def main() -> int:
    server = subprocess.Popen(sys.argv[2:], stdin=subprocess.PIPE)
    assert server.stdin is not None, "it was started with a pipe"
    with socket.create_connection(("127.0.0.1", int(sys.argv[1]))) as listener:
        for line in sys.stdin.buffer:
            listener.sendall(line)
            server.stdin.write(line)
            server.stdin.flush()
    server.stdin.close()
    return server.wait()


if __name__ == "__main__":
    sys.exit(main())
