"""Starting an MCP server as a child process, speaking to it line by line, and leaving nothing of it behind.

The SDK's own transport does much of this. Here are also: what the child said on stderr and how it ended, for the error
message; its own children, which go with it even when it ended by itself; and limits.
"""

import json
import logging
import os
import signal
import subprocess
import sys
from collections.abc import AsyncGenerator, Callable
from contextlib import asynccontextmanager, suppress
from typing import TextIO, TypeAlias, cast

import anyio
from anyio.abc import ByteReceiveStream, Process
from anyio.streams.memory import MemoryObjectReceiveStream, MemoryObjectSendStream
from mcp.client.stdio import get_default_environment
from mcp.shared.message import SessionMessage
from mcp.types import jsonrpc_message_adapter

from meerkat_mcp.domain.servers import ToolServer

if sys.platform == "win32":
    from mcp.os.win32.utilities import (
        close_process_job,
        create_windows_process,
        get_windows_executable_command,
        terminate_windows_process_tree,
    )

LINE_BYTES_MAX = 64 * 1024 * 1024  # one message; a few pictures fit
STDERR_BYTES_KEPT = 4_096
STDERR_CHARS_SHOWN = 1_000
FLUSH_S = 0.5
GRACE_S = 1.0  # to end by itself once its input has ended
TERM_S = 1.0  # to end after SIGTERM, before SIGKILL
HASTE = 0.35  # that share of both when we are leaving ourselves: hosts kill what takes longer than a second or two
KILL_S = 1.0
LAST_WORDS_S = 0.5

_log = logging.getLogger(__name__)
_Heard: TypeAlias = MemoryObjectReceiveStream[SessionMessage | Exception]
_Said: TypeAlias = MemoryObjectSendStream[SessionMessage]
_GONE = (anyio.EndOfStream, anyio.ClosedResourceError, anyio.BrokenResourceError, OSError)


class Child:
    """A server as a child process: `over` when it can no longer be spoken to, `died` when that was not our doing."""

    def __init__(self, definition: ToolServer, strike: Callable[[str], str]) -> None:
        self._strike = strike
        self.over = anyio.Event()
        self.died = False
        self._definition = definition
        self._process: Process | None = None
        self._stderr = bytearray()
        self._stderr_ended = anyio.Event()
        self._written = anyio.Event()
        self._too_long = False

    @asynccontextmanager
    async def streams(self) -> AsyncGenerator[tuple[_Heard, _Said]]:
        """Start it; leaving ends it and whatever it started: by the end of its input, then by signals.

        Raises:
            OSError, ValueError: it cannot be started.
        """
        process = self._process = await _start(self._definition)
        # No await before the task group stands: a cancellation in between would leave the child running.
        to_session, heard = anyio.create_memory_object_stream[SessionMessage | Exception](0)
        said, from_session = anyio.create_memory_object_stream[SessionMessage](0)
        async with anyio.create_task_group() as pipes:
            pipes.start_soon(self._read, process, to_session)
            pipes.start_soon(self._write, process, from_session)
            pipes.start_soon(self._read_stderr, process)
            pipes.start_soon(self._watch, process)
            haste = 1.0
            try:
                yield heard, said
            except anyio.get_cancelled_exc_class():
                haste = HASTE
                raise
            finally:
                self.died = self.over.is_set()
                with anyio.CancelScope(shield=True):
                    heard.close()
                    said.close()
                    with anyio.move_on_after(FLUSH_S):
                        await self._written.wait()
                    await _stop(process, haste)
                pipes.cancel_scope.cancel()
        self.over.set()

    @property
    def stderr(self) -> str:
        """What it said there last, without secrets: struck out before it is cut, which could leave half of one."""
        return self._strike(self._stderr.decode("utf-8", "replace")).strip()[-STDERR_CHARS_SHOWN:]

    async def last_words(self) -> str:
        """How it died, and what it said on stderr last; empty if it did not."""
        if self._process is None or not (self.died or self.over.is_set()):
            return ""
        with anyio.move_on_after(LAST_WORDS_S):
            await self._process.wait()
            await self._stderr_ended.wait()
        code = self._process.returncode
        if self._too_long:
            how = f"it sent a message of more than {LINE_BYTES_MAX} bytes"
        elif code is None:
            how = "it closed its output"
        else:
            how = f"it was ended by signal {-code}" if code < 0 else f"it ended with exit code {code}"
        return f"{how}: {self.stderr}" if self.stderr else how

    async def _read(self, process: Process, to_session: MemoryObjectSendStream[SessionMessage | Exception]) -> None:
        """Bring its messages to the session; after the session has gone, let it flush what it still has to say."""
        assert process.stdout is not None, "it was started with pipes"
        with anyio.CancelScope(shield=True), suppress(*_GONE):  # ends when `_stop` closes the pipe
            async with to_session:
                await self._deliver(process.stdout, to_session)
                self.over.set()
            while True:
                await process.stdout.receive()

    async def _deliver(
        self, stdout: ByteReceiveStream, to_session: MemoryObjectSendStream[SessionMessage | Exception]
    ) -> None:
        held = bytearray()
        with suppress(*_GONE):
            while len(held) <= LINE_BYTES_MAX:
                chunk = await stdout.receive()
                held += chunk
                if b"\n" in chunk:
                    *lines, held = held.split(b"\n")
                    for line in lines:
                        if (message := _message(line)) is not None:
                            await to_session.send(message)
            self._too_long = True

    async def _write(self, process: Process, from_session: MemoryObjectReceiveStream[SessionMessage]) -> None:
        assert process.stdin is not None, "it was started with pipes"
        try:
            async with from_session:
                async for message in from_session:
                    line = message.message.model_dump_json(by_alias=True, exclude_unset=True)
                    await process.stdin.send(line.encode() + b"\n")
        except _GONE:
            # It no longer listens, and may yet live: close its output as well, so that whoever waits learns of it.
            assert process.stdout is not None, "it was started with pipes"
            await process.stdout.aclose()
        finally:
            self._written.set()

    async def _read_stderr(self, process: Process) -> None:
        if process.stderr is not None:
            with anyio.CancelScope(shield=True), suppress(*_GONE):
                while True:
                    chunk = await process.stderr.receive()
                    self._stderr = (self._stderr + chunk)[-STDERR_BYTES_KEPT:]
                    _log.debug("a tool server says: %s", self._strike(chunk.decode("utf-8", "replace")).rstrip())
        self._stderr_ended.set()

    async def _watch(self, process: Process) -> None:
        """Its end is the end, also when a child of its own still holds the pipe."""
        await process.wait()
        with anyio.move_on_after(GRACE_S):
            await self.over.wait()
        if not self.over.is_set() and process.stdout is not None:
            await process.stdout.aclose()


def _message(line: bytearray) -> SessionMessage | None:
    """A line as a message; None for what is none: some servers print to stdout."""
    if not line.strip():
        return None
    try:
        return SessionMessage(jsonrpc_message_adapter.validate_json(bytes(line), by_name=False))
    except ValueError:
        with suppress(ValueError, RecursionError):  # half a surrogate pair, or no UTF-8: mend it
            mended = json.dumps(json.loads(line.decode("utf-8", "replace")), ensure_ascii=False)
            return SessionMessage(
                jsonrpc_message_adapter.validate_json(mended.encode("utf-8", "replace"), by_name=False)
            )
        _log.debug("a tool server printed a line of %d bytes that is no message", len(line))
        return None


async def _start(definition: ToolServer) -> Process:
    command, args = definition.command or "", list(definition.args)
    # Never our whole environment: it holds the keys of providers.
    environment = get_default_environment() | definition.env
    if sys.platform == "win32":
        command = await anyio.to_thread.run_sync(get_windows_executable_command, command)
        nowhere = cast(TextIO, subprocess.DEVNULL)
        return await create_windows_process(command, args, environment, nowhere, definition.cwd)
    return await anyio.open_process(
        [command, *args],
        env=environment,
        stderr=subprocess.PIPE,
        cwd=definition.cwd,
        start_new_session=True,  # its own process group, so that its children can be ended with it
    )


async def _stop(process: Process, haste: float) -> None:
    """End a process and its children. Every wait is bounded; what survives SIGKILL is left."""
    if process.stdin is not None:
        with suppress(*_GONE):
            await process.stdin.aclose()
    with anyio.move_on_after(GRACE_S * haste):
        await process.wait()
    if sys.platform == "win32":
        await terminate_windows_process_tree(process)
        close_process_job(process)
    else:
        await _stop_group(process.pid, TERM_S * haste)
    with anyio.move_on_after(KILL_S):
        await process.aclose()


async def _stop_group(group: int, within_s: float) -> None:
    """Ask all processes of a group to end, and soon make them."""
    try:
        _signal(group, signal.SIGTERM)
        with anyio.move_on_after(within_s):
            while True:
                await anyio.sleep(0.01)
                _signal(group, 0)
        _signal(group, signal.SIGKILL)
    except ProcessLookupError:
        pass  # all of it has gone


def _signal(group: int, how: int) -> None:
    assert sys.platform != "win32", "it knows no process groups"
    with suppress(PermissionError):  # macOS says so of a group that holds only zombies
        os.killpg(group, how)
