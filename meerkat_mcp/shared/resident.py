"""The realm's resident server: MCP for every host that comes, each on a connection of its own, over one open realm.

Hosts come and go, turns stay. It goes when nobody was there and no turn ran for a while, when it is told to, or to make
way for another version: then it takes no more hosts, serves those it has until they leave, and lets its turns come to
the end of their step, where its successor takes them up. A realm that only one process can have has no successor before
that: there it makes way when it has neither hosts nor turns, and refuses until then.
"""

import json
import logging
import os
import socket
import struct
from collections.abc import Callable
from contextlib import suppress
from typing import Any, cast

import anyio
from anyio.abc import TaskGroup

from meerkat_mcp.domain.errors import MeerkatError
from meerkat_mcp.domain.realm import check_pin, checked_backend
from meerkat_mcp.domain.version import VERSION
from meerkat_mcp.realms import Realm, adopt_environment
from meerkat_mcp.server.app import RealmServer, build_server
from meerkat_mcp.server.signals import on_signals
from meerkat_mcp.server.sockets import SocketConnection
from meerkat_mcp.shared.hello import HELLO_BYTES_MAX, PROTOCOL, Said, line
from meerkat_mcp.shared.logfile import LogFile
from meerkat_mcp.shared.place import Place

HELLO_LIMIT_S = 10.0
HAND_OVER_S = 5.0
"""For turns to come to the end of their step when we are told to go."""
WAY_S = 600.0
"""The same when we make way: nobody waits for us."""
FAREWELL_S = 2.5
"""For connections to end."""
LOOK_INTERVAL_S = 0.5
REST_S = 0.1
CHUNK_BYTES = 64 * 1024

log = logging.getLogger(__name__)


class Resident:
    """One open realm's server on a socket."""

    def __init__(self, realm: Realm, place: Place, log_file: LogFile, *, idle_exit_s: float) -> None:
        self._realm, self._place, self._log_file = realm, place, log_file
        self._idle_exit_s = idle_exit_s
        self._servers: dict[tuple[bool, bool], RealmServer] = {}
        self._hosts: set[SocketConnection] = set()
        self._greeting = 0
        self._makes_way = False
        self._ending, self._closed, self._left = anyio.Event(), anyio.Event(), anyio.Event()
        self._accepting, self._finishing = anyio.CancelScope(), anyio.CancelScope()

    async def serve(self, on_ready: Callable[[], None]) -> None:
        """Serve until it is time to go, and hand the turns over; `on_ready` is told when hosts can come."""
        on_signals(self.end)
        listener = self._place.listen()
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(self._accept, listener, tasks)
            tasks.start_soon(self._look)
            on_ready()
            await self._ending.wait()
            await self._take_no_more()
            with anyio.move_on_after(FAREWELL_S):
                for host in list(self._hosts):
                    host.leave("the resident server ends")
                while self._hosts:
                    self._left = anyio.Event()
                    await self._left.wait()
            tasks.cancel_scope.cancel()
        if self._makes_way:
            with self._finishing:
                await self._realm.turns.end(WAY_S)
        await self._realm.turns.end(HAND_OVER_S)

    def end(self, reason: str) -> None:
        """Go: now, whatever we waited for."""
        log.info("the resident server ends: %s", reason)
        self._ending.set()
        self._finishing.cancel()

    # ── who comes ──

    async def _accept(self, listener: socket.socket, tasks: TaskGroup) -> None:
        try:
            with self._accepting:
                while True:
                    await anyio.wait_readable(listener)
                    try:
                        peer, _ = listener.accept()
                    except BlockingIOError:
                        continue
                    except OSError as exc:  # it was gone again, or we have no descriptors left
                        log.warning("A host could not be let in: %s", exc)
                        await anyio.sleep(REST_S)
                        continue
                    tasks.start_soon(self._meet, peer)
        finally:
            listener.close()
            self._closed.set()

    async def _take_no_more(self) -> None:
        self._place.vanish()
        self._accepting.cancel()
        await self._closed.wait()

    async def _meet(self, peer: socket.socket) -> None:
        self._greeting += 1
        try:
            with peer:
                peer.setblocking(False)
                host = await self._greeted(peer)
        finally:
            self._greeting -= 1
        if host is None:
            return
        connection, server = host
        try:
            await connection.serve(server)
        except Exception:
            log.exception("A host's connection broke by a bug.")
        finally:
            self._hosts.discard(connection)
            self._left.set()

    async def _greeted(self, peer: socket.socket) -> tuple[SocketConnection, RealmServer] | None:
        """Hear what the peer wants and answer; its connection if it is a host that is to be served."""
        if not _is_same_user(peer):
            return None
        with anyio.move_on_after(HELLO_LIMIT_S), suppress(OSError):
            said, rest = await _heard(peer)
            if said is None:
                return None
            answer = await self._answer(said)
            serves = answer["ok"] and said.get("does") == "serve"
            if serves:
                adopt_environment(_variables(said))
            left = line(answer)
            while left:
                await anyio.wait_writable(peer)
                left = left[peer.send(left) :]
            if said.get("does") == "stop":
                self.end("it was told to")
            if serves and not self._ending.is_set():
                connection = SocketConnection(peer)
                self._hosts.add(connection)
                if rest:
                    connection.received(rest)
                return connection, self._server(said)
        return None

    def _server(self, said: Said) -> RealmServer:
        """The server for hosts who are trusted that far."""
        flags = said.get("trust_caller") is True, said.get("expose_paths") is True
        if flags not in self._servers:
            self._servers[flags] = build_server(self._realm, trust_caller=flags[0], expose_paths=flags[1])
        return self._servers[flags]

    # ── what is answered ──

    async def _answer(self, said: Said) -> Said:
        if said.get("does") in ("status", "stop"):
            return {"ok": True, "makes_way": False, "message": self._who(), **self._facts()}
        if self._ending.is_set():
            return _no("The resident server is ending.", makes_way=True)
        if said.get("version") != VERSION or said.get("protocol") != PROTOCOL:
            return await self._other_version(said)
        try:
            asked = said.get("backend")
            check_pin(self._realm.manifest, checked_backend(asked) if isinstance(asked, str) else None)
        except MeerkatError as exc:
            return _no(f"{exc.message} {exc.hint}")
        own, instance = self._realm.owner.instance_id, said.get("instance")
        other = f"; it is instance {own}, not {instance}" if instance not in (None, own) else ""
        return {"ok": True, "makes_way": False, "message": self._who() + other, **self._facts()}

    async def _other_version(self, said: Said) -> Said:
        theirs = str(said.get("version"))[:40]
        if said.get("again") is True:
            return _no(
                f"meerkat-mcp was changed from {theirs} to {VERSION} while this host was served. "
                "Restart the MCP server in the host."
            )
        if self._realm.exclusive and (self._hosts or self._realm.turns.running):
            return _no(
                f"This realm's resident server is meerkat-mcp {VERSION}, this host has {theirs}, and a realm on "
                f"{self._realm.manifest.backend} is one process's alone. It serves {len(self._hosts)} other hosts and "
                f"runs {self._realm.turns.running} turns: close them, or end it with meerkat-mcp resident stop."
            )
        log.warning("The resident server makes way for meerkat-mcp %s.", theirs)
        await self._make_way()
        return _no(f"The resident server is meerkat-mcp {VERSION}; it makes way.", makes_way=True)

    async def _make_way(self) -> None:
        self._makes_way = True
        await self._take_no_more()
        if not self._realm.exclusive:
            self._place.close()

    def _who(self) -> str:
        realm = self._realm
        return f"sharing realm {realm.id} ({realm.manifest.backend}) with its resident server, process {os.getpid()}"

    def _facts(self) -> Said:
        return {
            "realm_id": self._realm.id,
            "pid": os.getpid(),
            "version": VERSION,
            "started_ms": self._realm.started_ms,
            "hosts": len(self._hosts),
            "running_turns": self._realm.turns.running,
            "idle_exit_s": self._idle_exit_s,
            "permission_ceiling": self._realm.choice.permission_ceiling,
        }

    # ── when to go ──

    async def _look(self) -> None:
        """Go when there was nothing to do for a while. What waits in the realm is taken up, and is a turn then."""
        idle_since = anyio.current_time()
        while True:
            await anyio.sleep(LOOK_INTERVAL_S)
            try:
                self._log_file.keep_short()
            except OSError as exc:
                log.warning("The log could not be put aside: %s", exc)
            if not self._makes_way and not self._place.is_found:
                log.warning("The resident server's socket was removed: it makes way for another one.")
                await self._make_way()
            if self._makes_way and not self._hosts and not (self._realm.exclusive and self._realm.turns.running):
                return self._ending.set()
            if self._hosts or self._greeting or self._realm.turns.running:
                idle_since = anyio.current_time()
            elif anyio.current_time() - idle_since >= self._idle_exit_s:
                return self.end("nobody was there")


def _no(message: str, *, makes_way: bool = False) -> Said:
    return {"ok": False, "makes_way": makes_way, "message": message}


def _variables(said: Said) -> dict[str, str]:
    found = said.get("environment")
    pairs = cast(dict[str, object], found).items() if isinstance(found, dict) else ()
    return {name: value for name, value in pairs if isinstance(value, str)}


def _is_same_user(peer: socket.socket) -> bool:
    """Whether the peer is a process of our user; where the system cannot tell, the folder of the socket has to do."""
    if not hasattr(socket, "SO_PEERCRED"):
        return True
    _, user, _ = struct.unpack("3i", peer.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, struct.calcsize("3i")))
    return user == os.getuid()


async def _heard(peer: socket.socket) -> tuple[Said | None, bytes]:
    """The first line, and what came with it; None for one that is no greeting."""
    held = bytearray()
    while b"\n" not in held:
        await anyio.wait_readable(peer)
        chunk = peer.recv(CHUNK_BYTES)
        held += chunk
        if not chunk or len(held) > HELLO_BYTES_MAX:
            return None, b""
    first, _, rest = bytes(held).partition(b"\n")
    try:
        said: Any = json.loads(first)
    except (ValueError, RecursionError):
        return None, b""
    return (cast(Said, said), rest) if isinstance(said, dict) else (None, b"")
