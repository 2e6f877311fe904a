"""The pictures of the page in the docs: made by the browser, from sessions as agents leave them.

They are written when MEERKAT_PICTURES is set; else they are only made.
"""

import os
from pathlib import Path

import pytest
from browser.scenery import StageClock, furnish
from playwright.async_api import expect

PICTURES = Path(__file__).parents[2] / "docs" / "pictures"
BYTES_MAX = 200_000

pytestmark = [pytest.mark.anyio, pytest.mark.xdist_group("browser")]


async def test_the_pictures_of_the_page_can_be_made(eyes, serve_http, look):
    async with look(clock=StageClock()) as realm:
        running, _ = await furnish(realm)
        async with serve_http() as server:
            session = f"{server.url}/sessions/{running.session_id}"
            shots = {
                "watch-list": (f"{server.url}/", "light", 1100, 560),
                "watch-session-light": (session, "light", 1100, 1180),
                "watch-session-dark": (session, "dark", 1100, 1180),
                "watch-narrow": (session, "light", 360, 720),
            }
            for name, (url, scheme, width, height) in shots.items():
                viewport = {"width": width, "height": height}
                page = await eyes.open(url, color_scheme=scheme, viewport=viewport, reduced_motion="reduce")
                last = page.locator(".text.writing") if url == session else page.locator("a.row").last
                await expect(last).to_be_visible()
                picture = await page.screenshot()
                assert len(picture) < BYTES_MAX
                if os.environ.get("MEERKAT_PICTURES"):
                    PICTURES.mkdir(exist_ok=True)
                    (PICTURES / f"{name}.png").write_bytes(picture)
