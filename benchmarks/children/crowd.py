"""A crowd of HTTP clients in one process, on bare sockets, so that it is the server that is measured.

`turns PORT CLIENTS SECONDS`: each client runs demo turns, one after the other, and follows each by its events.
`follow PORT CLIENTS SESSION`: each client follows one session until its turn ends.
`ping PORT SESSION SECONDS`: one client reads an idle session, twenty times a second.
Prints one JSON document: what each follower saw, or how long each read took.
"""

import json
import sys
import time
from collections.abc import AsyncGenerator
from typing import Any

import anyio
from anyio.abc import SocketStream

MODERN = "2026-07-28"
META = {
    "io.modelcontextprotocol/protocolVersion": MODERN,
    "io.modelcontextprotocol/clientCapabilities": {},
    "io.modelcontextprotocol/clientInfo": {"name": "crowd", "version": "1"},
}
PROMPT = "[[delta_ms 100]][[words 40]]"
ENDS = ("turn_completed", "turn_failed", "turn_interrupted", "turn_limit_reached")
SPREAD_S = 3.0

Seen = list[tuple[int, str]]


class Connection:
    """One keep-alive connection of HTTP/1.1."""

    def __init__(self, stream: SocketStream) -> None:
        self._stream = stream
        self._held = b""

    async def call(self, tool: str, arguments: dict[str, Any]) -> dict[str, Any]:
        params = {"name": tool, "arguments": arguments, "_meta": META}
        body = json.dumps({"jsonrpc": "2.0", "id": 1, "method": "tools/call", "params": params}).encode()
        await self._stream.send(
            f"POST /mcp HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Type: application/json\r\n"
            f"Content-Length: {len(body)}\r\nAccept: application/json, text/event-stream\r\n"
            f"MCP-Protocol-Version: {MODERN}\r\nMcp-Method: tools/call\r\nMcp-Name: {tool}\r\n\r\n".encode()
            + body
        )
        head = await self._until(b"\r\n\r\n")
        assert head.startswith(b"HTTP/1.1 200"), head
        length = int(head.lower().split(b"content-length: ")[1].split(b"\r\n")[0])
        while len(self._held) < length:
            self._held += await self._stream.receive()
        answer, self._held = self._held[:length], self._held[length:]
        result = json.loads(answer)["result"]
        assert not result.get("isError"), answer
        return result["structuredContent"]

    async def events(self, session_id: str) -> AsyncGenerator[tuple[int, str]]:
        await self._stream.send(
            f"GET /sessions/{session_id}/events?after_seq=0 HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n".encode()
        )
        head = await self._until(b"\r\n\r\n")
        assert head.startswith(b"HTTP/1.1 200"), head
        text = b""
        while True:
            size = int(await self._until(b"\r\n"), 16)
            while len(self._held) < size + 2:
                self._held += await self._stream.receive()
            text, self._held = text + self._held[:size], self._held[size + 2 :]
            if not size:
                return
            *messages, text = text.split(b"\n\n")
            for message in messages:
                fields = dict(
                    line.split(b": ", 1) for line in message.split(b"\n") if b": " in line and line[:1] != b":"
                )
                if b"id" in fields:
                    yield int(fields[b"id"]), fields[b"event"].decode()

    async def _until(self, end: bytes) -> bytes:
        while end not in self._held:
            self._held += await self._stream.receive()
        found, _, self._held = self._held.partition(end)
        return found


async def turns(port: int, clients: int, seconds: float) -> Any:
    seen: dict[str, Seen] = {}
    errors: list[str] = []
    until_s = time.monotonic() + seconds

    async def client(number: int) -> None:
        await anyio.sleep(SPREAD_S * number / clients)
        try:
            async with await anyio.connect_tcp("127.0.0.1", port) as stream:
                connection = Connection(stream)
                while time.monotonic() < until_s:
                    result = await connection.call("meerkat_run", {"prompt": PROMPT, "wait_seconds": 0})
                    session_id = result["session_id"]
                    async with await anyio.connect_tcp("127.0.0.1", port) as following:
                        seen[session_id] = await followed(Connection(following), session_id)
                    read = await connection.call("meerkat_read", {"session_id": session_id})
                    if read["turn"]["status"] != "completed":
                        errors.append(read["turn"]["status"])
        except Exception as exc:
            errors.append(repr(exc))

    async with anyio.create_task_group() as tasks:
        for number in range(clients):
            tasks.start_soon(client, number)
    return {"seen": seen, "errors": errors}


async def follow(port: int, clients: int, session_id: str) -> Any:
    seen: list[Seen] = []
    errors: list[str] = []

    async def client() -> None:
        try:
            async with await anyio.connect_tcp("127.0.0.1", port) as stream:
                seen.append(await followed(Connection(stream), session_id))
        except Exception as exc:
            errors.append(repr(exc))

    async with anyio.create_task_group() as tasks:
        for _ in range(clients):
            tasks.start_soon(client)
    return {"seen": seen, "errors": errors}


async def followed(connection: Connection, session_id: str) -> Seen:
    seen: Seen = []
    async for event in connection.events(session_id):
        seen.append(event)
        if event[1] in ENDS:
            break
    return seen


async def ping(port: int, session_id: str, seconds: float) -> Any:
    took_s: list[float] = []
    until_s = time.monotonic() + seconds
    async with await anyio.connect_tcp("127.0.0.1", port) as stream:
        connection = Connection(stream)
        while time.monotonic() < until_s:
            began_s = time.perf_counter()
            await connection.call("meerkat_read", {"session_id": session_id})
            took_s.append(time.perf_counter() - began_s)
            await anyio.sleep(0.05)
    return {"took_s": took_s}


def main() -> None:
    mode, port, *rest = sys.argv[1:]
    if mode == "turns":
        said = anyio.run(turns, int(port), int(rest[0]), float(rest[1]))
    elif mode == "follow":
        said = anyio.run(follow, int(port), int(rest[0]), rest[1])
    else:
        said = anyio.run(ping, int(port), rest[0], float(rest[1]))
    print(json.dumps(said), flush=True)


main()
