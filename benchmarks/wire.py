"""A client of a stdio server that costs next to nothing: lines out, lines in, read only as far as needed."""

import json
import os
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import psutil

from benchmarks.places import REALM

PROTOCOL = "2025-06-18"
CHILDREN = Path(__file__).parent / "children"


def ours(root: Path) -> list[str]:
    """The command line of our server on the benchmarks' realm under this state root."""
    return [sys.executable, "-m", "meerkat_mcp", "serve", "--state-root", str(root), "--realm", REALM]


def sdk() -> list[str]:
    """The command line of the smallest MCPServer there can be, on the SDK's own stdio."""
    return [sys.executable, str(CHILDREN / "sdk_server.py")]


def request(number: int, method: str, params: dict[str, Any]) -> bytes:
    """One request as a line."""
    return json.dumps({"jsonrpc": "2.0", "id": number, "method": method, "params": params}).encode() + b"\n"


def call(number: int, name: str, arguments: dict[str, Any], **params: Any) -> bytes:
    """A tool call as a line."""
    return request(number, "tools/call", {"name": name, "arguments": arguments, **params})


class Server:
    """A stdio server under measurement, initialized."""

    def __init__(self, argv: Sequence[str], *, stderr: int = subprocess.DEVNULL, **environment: str) -> None:
        started = time.perf_counter()
        self._process = subprocess.Popen(
            argv, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=stderr, env=os.environ | environment
        )
        assert self._process.stdin is not None, "it was started with pipes"
        assert self._process.stdout is not None, "it was started with pipes"
        self.stdin, self.stdout = self._process.stdin, self._process.stdout
        about = {"name": "bench", "version": "1"}
        self.send(request(0, "initialize", {"protocolVersion": PROTOCOL, "capabilities": {}, "clientInfo": about}))
        self.line()
        self.started_s = time.perf_counter() - started
        self.rss_bytes = psutil.Process(self._process.pid).memory_info().rss
        self.send(b'{"jsonrpc":"2.0","method":"notifications/initialized"}\n')

    @property
    def pid(self) -> int:
        return self._process.pid

    def send(self, line: bytes) -> None:
        self.stdin.write(line)
        self.stdin.flush()

    def line(self) -> bytes:
        """The next line; it is an error when there is none."""
        line = self.stdout.readline()
        if not line:
            raise RuntimeError(f"{self._process.args!r} ended with {self._process.wait()}")
        return line

    def asked(self, line: bytes) -> dict[str, Any]:
        """The result of a request, the only one under way; what comes before it is passed over."""
        self.send(line)
        while b'"id"' not in (answer := self.line()):
            pass
        said = json.loads(answer)
        if "error" in said or said["result"].get("isError"):
            raise RuntimeError(f"refused: {answer[:500]!r}")
        return said["result"]

    def called(self, name: str, **arguments: Any) -> dict[str, Any]:
        """What a tool answers, structured."""
        return self.asked(call(1, name, arguments))["structuredContent"]

    def close(self) -> bytes:
        """End it as a host does, by closing its stdin; what it had said on stderr, when that was asked for."""
        try:
            return self._process.communicate(timeout=10)[1] or b""
        except subprocess.TimeoutExpired:
            self._process.kill()
            return self._process.communicate()[1] or b""

    def __enter__(self) -> "Server":
        return self

    def __exit__(self, *exc: Any) -> None:
        self.close()
