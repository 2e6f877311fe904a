"""A real browser before the real program: `meerkat-mcp serve --http`, a process of its own, and headless Chromium.

Without a Chromium on this machine these tests are skipped and say why; in CI they fail.
"""

import os
import re
import shutil
import subprocess
import sys
from collections.abc import AsyncGenerator, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path

import anyio
import pytest
from anyio.abc import Process
from anyio.streams.text import TextReceiveStream
from e2e.conftest import Host, Serve, hosted
from playwright.async_api import Browser, Page, async_playwright, expect

from meerkat_mcp.realms import Realm, choose, open_realm

PATIENCE_S = 20.0
PATIENCE_MS = PATIENCE_S * 1000
NAMES = ("chromium", "chromium-browser", "google-chrome")
GONE = re.compile(
    r"Failed to load resource: (net::ERR_(CONNECTION_REFUSED|CONNECTION_RESET|INCOMPLETE_CHUNKED_ENCODING)"
    r"|the server responded with a status of 503)"  # what it says while it ends
)

expect.set_options(timeout=PATIENCE_MS)


def chromium() -> str:
    """The browser's program; without one the test is skipped, or in CI fails."""
    found = next(filter(None, map(shutil.which, NAMES)), None)
    if found is None and os.environ.get("CI"):
        pytest.fail("CI must have a Chromium for the tests of the watch page.")
    if found is None:
        pytest.skip(f"there is no browser on this machine: none of {', '.join(NAMES)}")
    return found


@pytest.fixture(scope="module")
def anyio_backend() -> str:
    """One event loop for a module, whose tests share a browser; for longer, and tests that run their own would fail."""
    return "asyncio"


@pytest.fixture(scope="module")
async def browser(anyio_backend) -> AsyncGenerator[Browser]:
    program = chromium()
    async with async_playwright() as playwright:
        browser = await playwright.chromium.launch(executable_path=program, args=["--no-sandbox"])
        yield browser
        await browser.close()


@dataclass
class Eyes:
    """Opens pages; what a page complains of, in its console or by a violated policy, fails the test."""

    browser: Browser
    complaints: list[str] = field(default_factory=list[str])
    tolerates: re.Pattern[str] | None = None

    async def open(self, url: str, **look) -> Page:
        """A page in a browser profile of its own. `look`: color_scheme, viewport, reduced_motion."""
        context = await self.browser.new_context(**look)
        context.set_default_timeout(PATIENCE_MS)
        page = await context.new_page()
        page.on("console", lambda message: self._hear(message.type, message.text))
        page.on("pageerror", lambda error: self.complaints.append(f"uncaught: {error}"))
        await page.goto(url)
        return page

    def _hear(self, kind: str, text: str) -> None:
        tolerated = GONE.search(text) or (self.tolerates is not None and self.tolerates.search(text))
        if kind in ("error", "warning") and not tolerated:
            self.complaints.append(f"{kind}: {text}")


async def holds(page: Page, expression: str, arg: object = None) -> None:
    """Wait until it does, looking once a frame. Playwright's own way makes code of text, which our policy forbids."""
    with anyio.fail_after(PATIENCE_S):
        while not await page.evaluate(expression, arg):
            await page.evaluate("new Promise(requestAnimationFrame)")


@pytest.fixture
async def eyes(browser) -> AsyncGenerator[Eyes]:
    eyes = Eyes(browser)
    yield eyes
    for context in browser.contexts:
        await context.close()
    assert eyes.complaints == []


@dataclass
class Server:
    """A serving process, and where it is."""

    process: Process
    url: str

    @property
    def port(self) -> int:
        return int(self.url.rpartition(":")[2])


ServeHttp = Callable[..., AbstractAsyncContextManager[Server]]


@asynccontextmanager
async def served(state_root: Path, *flags: str, port: int = 0) -> AsyncGenerator[Server]:
    """`serve --http` on the realm `den`; leaving ends it, as its operator would."""
    words = ["serve", "--http", "--port", str(port), "--no-access-log", "--drain", "0", *flags]
    realm = ["--realm", "den", "--state-root", str(state_root)]
    command = [sys.executable, "-m", "meerkat_mcp", *words, *realm]
    process = await anyio.open_process(command, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL)
    assert process.stderr is not None, "it was started with a pipe"
    stderr = TextReceiveStream(process.stderr)
    async with anyio.create_task_group() as tasks:
        try:
            yield Server(process, await _address(stderr))
        finally:
            with anyio.CancelScope(shield=True):
                tasks.start_soon(_drain, stderr)
                if process.returncode is None:
                    process.terminate()
                with anyio.move_on_after(PATIENCE_S):
                    await process.wait()
                if process.returncode is None:
                    process.kill()
                await process.wait()
            tasks.cancel_scope.cancel()
    with anyio.CancelScope(shield=True):
        await process.aclose()


async def _address(stderr: TextReceiveStream) -> str:
    said = ""
    with anyio.fail_after(PATIENCE_S):
        async for text in stderr:
            said += text
            if found := re.search(r"at (http://[^\s/]+)", said):
                return found[1]
    raise AssertionError(f"it did not begin to serve: {said}")


async def _drain(stderr: TextReceiveStream) -> None:
    """Nobody should wait because nobody reads."""
    async for _ in stderr:
        pass


@pytest.fixture
def serve_http(tmp_path) -> ServeHttp:
    return partial(served, tmp_path)


@pytest.fixture
def serve(tmp_path) -> Serve:
    """Each call starts a server process on stdio, on the same realm."""
    return partial(hosted, tmp_path)


Look = Callable[..., AbstractAsyncContextManager[Realm]]


def looking(state_root: Path) -> Look:
    """The realm, as one more process sees it."""
    return lambda **more: open_realm(choose("den", state_root=state_root), **more)


@pytest.fixture
def look(tmp_path) -> Look:
    return looking(tmp_path)


@dataclass
class Desk:
    """A realm with a server on HTTP, a host on stdio, and eyes. Tests share the realm, not their sessions."""

    url: str
    host: Host
    look: Look
    eyes: Eyes | None = None

    def at(self, session_id: str) -> str:
        return f"{self.url}/sessions/{session_id}"

    async def run(self, prompt: str, **given) -> str:
        """Begin a session in the stdio process; its id."""
        return (await self.host.call("meerkat_run", prompt=prompt, wait_seconds=0, **given))["session_id"]


@pytest.fixture(scope="module")
async def shared_desk(anyio_backend, tmp_path_factory) -> AsyncGenerator[Desk]:
    state_root = tmp_path_factory.mktemp("desk")
    async with hosted(state_root) as host, served(state_root) as server:
        yield Desk(server.url, host, looking(state_root))


@pytest.fixture
def desk(shared_desk, eyes) -> Desk:
    return replace(shared_desk, eyes=eyes)
