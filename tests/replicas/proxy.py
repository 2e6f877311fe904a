"""A plain round-robin reverse proxy: each request goes to the next server, whoever sent it and whatever it is.

`python -m replicas.proxy URL…` serves until it is ended; the address is the first line on standard error. An answer
says in `x-replica` which of the servers gave it, counted from 0. One that cannot be reached is passed over, as by any
proxy; a request that was sent is never sent again.
"""

import itertools
import sys
from collections.abc import Sequence

import anyio
import httpx2
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route
from starlette.types import Receive, Scope, Send

from meerkat_mcp.web.options import HttpOptions
from meerkat_mcp.web.serving import serve_http

HOP = {"connection", "keep-alive", "transfer-encoding", "te", "trailer", "upgrade"}


class RoundRobin:
    """The proxy, as an app."""

    def __init__(self, servers: Sequence[str]) -> None:
        self._servers = servers
        self._next = itertools.count()
        transport = httpx2.AsyncHTTPTransport(limits=httpx2.Limits(max_connections=None, max_keepalive_connections=0))
        self._client = httpx2.AsyncClient(transport=transport, timeout=httpx2.Timeout(None, connect=2))

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        request = Request(scope, receive)
        body = await request.body()
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(self._until_gone, receive, tasks.cancel_scope)
            for _ in self._servers:
                number = next(self._next) % len(self._servers)
                try:
                    await self._pass(number, request, body, send)
                    break
                except httpx2.ConnectError:
                    continue
            else:
                await Response("no server is there", 502)(scope, receive, send)
            tasks.cancel_scope.cancel()

    async def _pass(self, number: int, request: Request, body: bytes, send: Send) -> None:
        headers = [(name, value) for name, value in request.headers.raw if name.decode() not in HOP]
        if request.client is not None:
            headers = [(name, value) for name, value in headers if name != b"x-forwarded-for"]
            headers.append((b"x-forwarded-for", request.client.host.encode()))
        url = self._servers[number] + request.url.path + (f"?{request.url.query}" if request.url.query else "")
        begun = False
        try:
            async with self._client.stream(request.method, url, headers=headers, content=body) as answer:
                back = [(name, value) for name, value in answer.headers.raw if name.decode().lower() not in HOP]
                begun = True
                back.append((b"x-replica", b"%d" % number))
                await send({"type": "http.response.start", "status": answer.status_code, "headers": back})
                async for chunk in answer.aiter_raw():
                    await send({"type": "http.response.body", "body": chunk, "more_body": True})
                await send({"type": "http.response.body", "body": b"", "more_body": False})
        except httpx2.ConnectError:
            raise
        except httpx2.TransportError as exc:
            if not begun:
                await Response(f"the server broke off: {type(exc).__name__}", 502)(request.scope, request.receive, send)

    @staticmethod
    async def _until_gone(receive: Receive, scope: anyio.CancelScope) -> None:
        while (await receive())["type"] != "http.disconnect":
            pass
        scope.cancel()


async def serve(servers: Sequence[str]) -> None:
    app = Starlette(routes=[Route("/{path:path}", RoundRobin(servers))])
    await serve_http(app, HttpOptions(port=0), on_ready=lambda url: print(url, file=sys.stderr, flush=True))


if __name__ == "__main__":
    anyio.run(serve, sys.argv[1:])
