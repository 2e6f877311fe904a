"""The model vendors' servers, faked: a process of its own (`tests/vendors`), so its work does not count as ours."""

import itertools
import json
import os
import subprocess
import sys
import urllib.request
from collections.abc import Generator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

TESTS = Path(__file__).parent.parent / "tests"
CHUNK_BYTES = 16_384
"""What a client reads at once of a reply that comes in one burst."""

JsonObject = dict[str, Any]


def said(text: str, *, piece: int, **fault: Any) -> JsonObject:
    """A reply of text, in deltas of so many characters; `fault` is how it is sent, as `vendors.script.Fault` says."""
    return {"parts": [{"kind": "text", "text": text}], "piece": piece, "fault": fault}


def called(tool: str, **args: Any) -> JsonObject:
    """A reply that calls a tool."""
    return {"parts": [{"kind": "call", "name": tool, "args": args}]}


class Fake:
    """The fake, running. A lane is what one API key gets."""

    def __init__(self, url: str) -> None:
        self.url = url
        self._numbers = itertools.count(1)

    def always(self, turn: JsonObject) -> str:
        """A new lane, whose every reply is this one."""
        return self._lane({"always": turn})

    def queue(self, turns: Sequence[JsonObject]) -> str:
        """A new lane with these replies, one for each request."""
        return self._lane({"turns": list(turns)})

    def _lane(self, script: JsonObject) -> str:
        # Lenient: it does not check the requests and remembers no reply, so it answers as fast as it can.
        lane = f"bench-{next(self._numbers):04d}"
        asked = urllib.request.Request(
            f"{self.url}/_fake/{lane}",
            data=json.dumps(script | {"lenient": True}).encode(),
            headers={"content-type": "application/json"},
        )
        with urllib.request.urlopen(asked, timeout=10) as answer:
            answer.read()
        return lane


@contextmanager
def fake() -> Generator[Fake]:
    """The fake on a free port of this machine; it ends with us."""
    argv = [sys.executable, "-m", "vendors", "serve"]
    environment = os.environ | {"PYTHONPATH": str(TESTS)}
    with subprocess.Popen(
        argv, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True, env=environment
    ) as process:
        assert process.stdin is not None, "it was started with pipes"
        assert process.stdout is not None, "it was started with pipes"
        try:
            yield Fake(process.stdout.readline().strip())
        finally:
            process.stdin.close()
            try:
                process.wait(10)
            except subprocess.TimeoutExpired:
                process.kill()
