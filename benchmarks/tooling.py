"""A turn with a tool: two model calls and one call of an MCP server's tool, through our server and without it."""

import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import anyio
from mcp import Client, StdioServerParameters
from mcp.client.stdio import stdio_client

from benchmarks.answering import keys, prepare
from benchmarks.fake import called, fake, said
from benchmarks.places import folder
from benchmarks.results import Row, Scale, alternating, share
from benchmarks.wire import Server, call, ours, sdk
from benchmarks.wires import MAX_TOKENS, PROMPT, WIRES, close

CLAUDE = WIRES[0]
TOOL = "noop__noop"
UNCOUNTED = 2


def tool_step(scale: Scale) -> Sequence[Row]:
    """Model, tool over stdio, model: a turn through our server, against SDK and mcp Client in one loop of 30 lines."""
    times = scale.of(15, 80)
    turns = [called(TOOL, x="x"), said("It is done.", piece=4)] * (times + UNCOUNTED)
    command, *args = sdk()
    servers = {
        "mcp_servers": {"noop": {"command": command, "args": args}},
        "agent": {"mcp_servers": ["noop"], "permission_mode": "auto"},
    }
    with fake() as vendors, folder() as root:
        anyio.run(_prepared, root, vendors.url, servers)
        lanes = vendors.queue(turns), vendors.queue(turns)
        with Server(ours(root), **keys(lanes[0])) as server:
            our_ms, bare_ms = anyio.run(_both, server, CLAUDE.bare(vendors.url, lanes[1]), times)
    return [
        Row("adapter", "turn with a tool step, vs SDK and mcp Client alone, p50", "ms", share(our_ms, 0.5),
            share(bare_ms, 0.5)),
        Row("adapter", "the same, p99", "ms", share(our_ms, 0.99), share(bare_ms, 0.99)),
        Row("adapter", "what the server adds to p50", "ms", share(our_ms, 0.5) - share(bare_ms, 0.5)),
    ]  # fmt: skip


async def _prepared(root: Path, url: str, servers: dict[str, Any]) -> None:
    await prepare(root, url, **servers)


async def _both(server: Server, claude: Any, times: int) -> tuple[list[float], list[float]]:
    taken: tuple[list[float], list[float]] = ([], [])
    command, *args = sdk()
    async with Client(stdio_client(StdioServerParameters(command=command, args=args))) as tools:
        listed = (await tools.list_tools()).tools
        offered = [
            {"name": TOOL, "description": tool.description, "input_schema": tool.input_schema} for tool in listed
        ]
        for _ in range(UNCOUNTED):
            _our_turn(server)
            await _bare_turn(claude, tools, offered)
        for which in alternating(times):
            started = time.perf_counter()
            if which == 0:
                _our_turn(server)
            else:
                await _bare_turn(claude, tools, offered)
            taken[which].append((time.perf_counter() - started) * 1000)
    await close(claude)
    return taken


def _our_turn(server: Server) -> None:
    line = call(4, "meerkat_run", {"prompt": PROMPT, "provider": CLAUDE.provider, "model": CLAUDE.model})
    said_last = server.asked(line)["structuredContent"]
    if said_last["status"] != "completed" or said_last["text"] != "It is done.":
        raise RuntimeError(f"no such turn: {said_last!r}"[:1000])


async def _bare_turn(claude: Any, tools: Client, offered: list[dict[str, Any]]) -> None:
    """The loop as the SDK's documentation has it, streaming both times; it keeps nothing."""
    messages: list[dict[str, Any]] = [{"role": "user", "content": PROMPT}]
    text = ""
    while not text:
        async with claude.messages.stream(
            model=CLAUDE.model, max_tokens=MAX_TOKENS, messages=messages, tools=offered
        ) as stream:
            message = await stream.get_final_message()
        text = "".join(block.text for block in message.content if block.type == "text")
        results: list[dict[str, Any]] = []
        for block in message.content:
            if block.type == "tool_use":
                answer = await tools.call_tool(block.name.partition("__")[2], block.input)
                content = [{"type": "text", "text": part.text} for part in answer.content]  # type: ignore[union-attr]
                results.append({"type": "tool_result", "tool_use_id": block.id, "content": content})
        messages += [{"role": "assistant", "content": message.content}, {"role": "user", "content": results}]
    if text != "It is done.":
        raise RuntimeError(f"no such answer: {text!r}")
