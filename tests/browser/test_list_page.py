"""The list of sessions, in a browser."""

import re

import pytest
from browser.conftest import holds
from playwright.async_api import expect
from words import settings

pytestmark = [pytest.mark.anyio, pytest.mark.xdist_group("browser")]

QUICK = {"delta_ms": 0}


async def test_the_list_keeps_up_with_what_happens(desk):
    page = await desk.eyes.open(f"{desk.url}/")
    sid = await desk.run("[[hang]]", title="Keeps up", labels={"kind": "list"})
    row = page.locator("a.row", has_text="Keeps up")
    await expect(row).to_have_attribute("data-state", "running")
    await expect(row).to_contain_text("kind=list")
    await expect(row).to_contain_text("1 turn")
    await desk.host.call("meerkat_interrupt", session_id=sid)
    await expect(row).to_have_attribute("data-state", "idle")
    await desk.host.call("meerkat_archive", session_id=sid)
    await expect(row).to_have_count(0)
    await page.get_by_role("button", name="Archived").click()
    await expect(row).to_have_count(1)


async def test_a_search_looks_into_what_was_said_and_shows_where(desk):
    await desk.host.call("meerkat_run", title="Silent", prompt="[[say x]]", provider_params=QUICK)
    said = await desk.host.call("meerkat_run", title="Talks", prompt="[[say x]]", provider_params=QUICK)
    await desk.host.call("meerkat_resume", session_id=said["session_id"], prompt="[[say y]] Where is the zeppelin?")
    page = await desk.eyes.open(f"{desk.url}/")
    await page.keyboard.press("/")
    await page.keyboard.type("zeppel")
    await expect(page.locator("a.row")).to_have_count(1)
    await expect(page.locator("a.row")).to_contain_text("Talks")
    await expect(page.locator("a.row .matched")).to_have_text("[[say y]] Where is the zeppelin?")
    await page.keyboard.press("Escape")
    await expect(page.locator("a.row", has_text="Talks").locator(".matched")).to_be_hidden()


async def test_it_is_worked_by_keyboard(desk):
    for number in range(3):
        await desk.host.call("meerkat_run", title=f"Keyboard {number}", prompt="[[say x]]", provider_params=QUICK)
    page = await desk.eyes.open(f"{desk.url}/")
    rows = page.locator("a.row", has_text="Keyboard")
    await expect(rows).to_have_count(3)
    await page.keyboard.press("/")
    await page.keyboard.type("keyboard")
    await expect(page.locator("a.row")).to_have_count(3)
    await page.keyboard.press("ArrowDown")
    await expect(rows.nth(0)).to_be_focused()
    for key, at in (("j", 1), ("j", 2), ("j", 2), ("k", 1), ("ArrowUp", 0)):
        await page.keyboard.press(key)
        await expect(rows.nth(at)).to_be_focused()
    outline = await rows.nth(0).evaluate("row => getComputedStyle(row).outlineStyle")
    assert outline == "solid"
    await page.keyboard.press("Enter")
    await expect(page.get_by_role("heading", level=1)).to_have_text("Keyboard 2")
    await page.keyboard.press("u")
    await expect(page.get_by_role("heading", level=1)).to_have_text("Sessions")


async def test_what_has_the_focus_keeps_it_when_the_order_changes(desk):
    old = (await desk.host.call("meerkat_run", title="Order old", prompt="[[say x]]", provider_params=QUICK))[
        "session_id"
    ]
    await desk.host.call("meerkat_run", title="Order new", prompt="[[say x]]", provider_params=QUICK)
    page = await desk.eyes.open(f"{desk.url}/")
    rows = page.locator("a.row", has_text="Order")
    await expect(rows.nth(1)).to_contain_text("Order old")
    await rows.nth(1).focus()
    await desk.host.call("meerkat_resume", session_id=old, prompt="[[say y]]")
    await expect(rows.nth(0)).to_contain_text("Order old")
    await expect(rows.nth(0)).to_be_focused()


async def test_chips_choose_by_state(desk):
    sid = await desk.run("[[hang]]", title="Chips run")
    await desk.host.call("meerkat_run", title="Chips rest", prompt="[[say x]]", provider_params=QUICK)
    page = await desk.eyes.open(f"{desk.url}/")
    rows = page.locator("a.row", has_text="Chips")
    await expect(rows).to_have_count(2)
    await page.get_by_role("button", name="Running").click()
    await expect(rows).to_have_count(1)
    await expect(rows).to_contain_text("Chips run")
    await expect(page.get_by_role("button", name="Running")).to_have_attribute("aria-pressed", "true")
    await page.get_by_role("button", name="Waiting").click()
    await expect(rows).to_have_count(0)
    await desk.host.call("meerkat_interrupt", session_id=sid)


async def test_more_are_loaded_when_asked_for_and_stay(eyes, serve_http, look):
    async with look() as realm:
        for number in range(230):
            await realm.sessions.run("", settings(), title=f"Many {number}")
    async with serve_http() as server:
        page = await eyes.open(f"{server.url}/")
        more = page.get_by_role("button", name="Load more")
        for loaded in (50, 100, 150, 200):
            await expect(page.locator("a.row")).to_have_count(loaded)
            await more.click()
        await expect(page.locator("a.row")).to_have_count(230)
        await expect(more).to_be_hidden()
        async with page.expect_response(lambda response: response.url.endswith("/mcp")):
            await page.evaluate("window.dispatchEvent(new Event('focus'))")
        titles = await page.locator("a.row .title").all_text_contents()
        assert titles == [f"Many {number}" for number in reversed(range(230))]


async def test_both_pages_fit_a_narrow_screen(desk):
    words = "a_very_long_word_without_any_place_to_break_it_" * 4
    args = f'{{"path": "{words}"}}'
    sid = await desk.run(
        f"[[say {words}]][[say `{words}`]][[call weather {args}]]",
        title=words,
        labels={"label": words[:60]},
        tools=[{"name": "weather"}],
        provider_params=QUICK,
    )
    narrow = {"viewport": {"width": 360, "height": 640}}
    for url in (f"{desk.url}/", desk.at(sid)):
        page = await desk.eyes.open(url, **narrow)
        await expect(page.get_by_text(words[:40]).first).to_be_visible()
        if url != f"{desk.url}/":
            await expect(page.locator(".call")).to_have_count(1)
            await page.locator(".call summary").click()
        assert await page.evaluate("document.documentElement.scrollWidth <= document.documentElement.clientWidth")


async def test_light_and_dark_follow_the_system(desk):
    seen = {}
    for scheme in ("light", "dark"):
        page = await desk.eyes.open(f"{desk.url}/", color_scheme=scheme)
        colours = "[getComputedStyle(document.documentElement)].map(style => [style.backgroundColor, style.color])[0]"
        seen[scheme] = [sum(map(int, re.findall(r"\d+", colour)[:3])) for colour in await page.evaluate(colours)]
    assert seen["light"][0] > 700 > 150 > seen["light"][1]
    assert seen["dark"][0] < 150 < 600 < seen["dark"][1]


async def test_nothing_moves_for_who_wants_no_motion(desk):
    sid = await desk.run("[[say x]][[hang]]", provider_params=QUICK)
    page = await desk.eyes.open(desk.at(sid), reduced_motion="reduce")
    await expect(page.locator(".text.writing")).to_have_count(1)
    assert await page.evaluate("document.getAnimations().length") == 0
    await page.emulate_media(reduced_motion="no-preference")
    await holds(page, "document.getAnimations().length > 0")
    await desk.host.call("meerkat_interrupt", session_id=sid)
