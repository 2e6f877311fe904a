"""Plays one turn to one client, with its faults, and notices when the client hangs up: also before the headers."""

import json
import time
from collections.abc import AsyncIterator, Sequence

import anyio
import anyio.lowlevel
from starlette.responses import Response
from starlette.types import Receive, Scope, Send

from vendors.lanes import Lane, Seen
from vendors.script import Fault, Wire, dumps, new


class Cut(Exception):
    """The connection is to drop here."""


class Played(Response):
    """The answer to one model call: a stream of frames, or one body."""

    def __init__(self, wire: Wire, lane: Lane, seen: Seen, frames: Sequence[bytes], fault: Fault) -> None:
        super().__init__()
        self._wire = wire
        self._lane = lane
        self._seen = seen
        self._frames = frames
        self._fault = fault
        self._over = False

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        async with anyio.create_task_group() as group:
            group.start_soon(self._watch, receive, group.cancel_scope)
            await self._answer(send)
            self._over = True
            group.cancel_scope.cancel()

    async def _watch(self, receive: Receive, scope: anyio.CancelScope) -> None:
        while (await receive())["type"] != "http.disconnect":
            pass
        if not self._over:
            self._seen.disconnected = time.time()
            self._seen.gone.set()
            self._lane.changed()
            scope.cancel()

    async def _answer(self, send: Send) -> None:
        fault = self._fault
        if fault.stall_before:
            await anyio.sleep(fault.stall_before)
        if fault.status:
            error = dumps(self._wire.error(fault.status, fault.code, fault.message))
            await self._send_whole(send, fault.status, error if fault.body is None else fault.body)
        elif self._seen.body.get("stream"):
            await self._send_stream(send)
        else:
            await self._send_whole(send, 200, json.dumps(self._wire.whole(self._frames)))

    def _start(self, status: int, media_type: str) -> dict[str, object]:
        request_id = new("req_")
        named = {"content-type": media_type, "request-id": request_id, "x-request-id": request_id}
        headers = [(name.encode(), value.encode()) for name, value in (named | self._fault.headers).items()]
        return {"type": "http.response.start", "status": status, "headers": headers}

    def _finished(self) -> None:
        self._over = True
        self._seen.finished = True
        self._lane.changed()

    async def _send_whole(self, send: Send, status: int, body: str) -> None:
        media_type = "application/json" if body.startswith("{") else "text/html"
        await send(self._start(status, media_type))
        self._finished()
        await send({"type": "http.response.body", "body": body.encode(), "more_body": False})

    async def _send_stream(self, send: Send) -> None:
        await send(self._start(200, "text/event-stream; charset=utf-8"))
        try:
            async for piece in self._pieces():
                await send({"type": "http.response.body", "body": piece, "more_body": True})
        except Cut:
            self._over = True
            return  # a response that is not completed makes the server drop the connection
        self._finished()
        await send({"type": "http.response.body", "body": b"", "more_body": False})

    async def _pieces(self) -> AsyncIterator[bytes]:
        size = self._fault.chunk
        if size is None:
            async for frame in self._faulty():
                yield frame
            return
        rest = b"".join([frame async for frame in self._faulty()])
        for at in range(0, len(rest), size):
            yield rest[at : at + size]
            await anyio.lowlevel.checkpoint()

    async def _faulty(self) -> AsyncIterator[bytes]:
        """The frames, as far as the fault lets them."""
        fault = self._fault
        for number, frame in enumerate(self._frames):
            if fault.cut_after == number:
                raise Cut
            if fault.end_after == number:
                return
            if fault.stall_after == number:
                await anyio.sleep(fault.stall_for)
            if fault.garbage_after == number:
                yield fault.garbage
            if fault.error_after == number:
                yield self._wire.broken(fault.code, number)
                return
            if fault.delay:
                await anyio.sleep(fault.delay)
            yield frame
            self._seen.frames = number + 1
            await anyio.lowlevel.checkpoint()
