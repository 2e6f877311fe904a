"""The HTTP app of a realm inside a Starlette app of your own, below a path, and a client that calls it there."""

import socket
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from functools import partial

import anyio
import uvicorn
from mcp import Client
from starlette.applications import Starlette
from starlette.routing import Mount

from meerkat_mcp import HttpOptions, build_app, choose, open_realm


def with_agents(agents: Starlette) -> Starlette:
    """An app of yours, with the realm's below /agents."""

    @asynccontextmanager
    async def lifespan(_: Starlette) -> AsyncGenerator[None]:
        async with agents.router.lifespan_context(agents):
            yield

    return Starlette(routes=[Mount("/agents", agents)], lifespan=lifespan)


async def main() -> None:
    async with open_realm(choose("embedded"), serves=True) as realm:
        agents = build_app(realm, HttpOptions(host="127.0.0.1", drain_s=0))
        server = uvicorn.Server(uvicorn.Config(with_agents(agents), http="h11", log_level="warning"))
        with socket.create_server(("127.0.0.1", 0)) as listener:
            url = f"http://127.0.0.1:{listener.getsockname()[1]}/agents/mcp"
            async with anyio.create_task_group() as tasks:
                tasks.start_soon(partial(server.serve, sockets=[listener]))
                async with Client(url) as client:
                    said = await client.call_tool("meerkat_run", {"prompt": "My name is Ada."})
                    print(said.structured_content["text"])
                await agents.end()  # turns end, and whoever follows one is told, while the app still answers
                server.should_exit = True


if __name__ == "__main__":
    anyio.run(main)
