"""The page of one session, in a browser, while other processes work on it."""

import re

import anyio
import pytest
from browser.conftest import PATIENCE_S, Eyes, holds
from browser.scenery import chatter
from playwright.async_api import Page, expect
from words import log

pytestmark = [pytest.mark.anyio, pytest.mark.xdist_group("browser")]

SLOWLY = {"delta_ms": 40}
QUICK = {"delta_ms": 0}


async def state(page: Page, wanted: str) -> None:
    await expect(page.locator(".head .state")).to_have_text(wanted)


async def texts(page: Page) -> list[str]:
    return [text.strip() for text in await page.locator(".text").all_text_contents()]


async def stored(look, session_id: str) -> list[str]:
    async with look() as realm:
        return [event.text for event in await log(realm, session_id) if event.type == "text_complete"]


async def test_two_pages_watch_one_session_that_a_stdio_process_runs(desk):
    sid = await desk.run("[[words 90]]", provider_params=SLOWLY)
    pages = [await desk.eyes.open(desk.at(sid)) for _ in range(2)]
    for page in pages:
        await expect(page.locator(".text.writing")).to_contain_text("word5")
        await state(page, "running")
        before = len((await texts(page))[0])
        await holds(page, "before => document.querySelector('.text').textContent.length > before", arg=before)
    for page in pages:
        await state(page, "idle")
        assert await texts(page) == await stored(desk.look, sid)
        assert await page.locator(".text.writing, .text.unfinished").count() == 0


async def test_a_reload_in_the_middle_of_a_text_shows_everything_once(desk):
    prompt = "[[reason I think first.]][[words 80]]"
    sid = await desk.run(prompt, provider_params=SLOWLY)
    page = await desk.eyes.open(desk.at(sid))
    await expect(page.locator(".text.writing")).to_contain_text("word9")
    for word in ("word20", "word40"):
        await page.reload()
        await expect(page.locator(".text.writing")).to_contain_text(word)
    await page.reload()
    await state(page, "idle")
    assert await texts(page) == await stored(desk.look, sid)
    assert await page.locator(".prompt .words").all_text_contents() == [prompt]
    assert await page.locator(".reasoning .words").all_text_contents() == ["I think first."]


async def test_a_server_that_is_restarted_in_mid_turn_costs_nothing(eyes, serve, serve_http, look):
    async with serve() as host:
        async with serve_http() as server:
            run = await host.call("meerkat_run", prompt="[[words 150]]", provider_params=SLOWLY, wait_seconds=0)
            page = await eyes.open(f"{server.url}/sessions/{run['session_id']}")
            await expect(page.locator(".text.writing")).to_contain_text("word9")
        await expect(page.locator(".bar .line")).to_have_text("Reconnecting…")
        async with serve_http(port=server.port):
            await expect(page.locator(".bar .line")).to_have_text("")
            await state(page, "idle")
            assert await texts(page) == await stored(look, run["session_id"])
            await expect(page.locator(".turn")).to_have_count(1)


async def test_the_interrupt_button_ends_a_turn_of_another_process(desk):
    sid = await desk.run("[[say I begin.]][[hang]]", provider_params=QUICK)
    page = await desk.eyes.open(desk.at(sid))
    await page.get_by_role("button", name="Interrupt").click()
    await state(page, "idle")
    await expect(page.locator(".turn .note")).to_have_text("Interrupted on request.")
    await expect(page.locator(".text.unfinished")).to_contain_text("I begin.")
    await expect(page.get_by_role("button", name="Interrupt")).to_be_hidden()


async def test_the_prompt_box_begins_a_turn(desk):
    sid = await desk.run("[[say hello]]", provider_params=QUICK)
    page = await desk.eyes.open(desk.at(sid))
    await state(page, "idle")
    box = page.get_by_role("textbox", name="Prompt")
    await page.keyboard.press("/")
    await expect(box).to_be_focused()
    await box.fill("My name is Ada.")
    await page.keyboard.press("Control+Enter")
    await expect(page.locator(".turn")).to_have_count(2)
    await expect(page.locator(".turn").nth(1).locator(".text")).to_contain_text("Nice to meet you, Ada.")
    await expect(box).to_have_value("")


async def test_a_prompt_for_a_busy_session_is_queued_and_can_be_withdrawn(desk):
    sid = await desk.run("[[hang]]")
    page = await desk.eyes.open(desk.at(sid))
    await state(page, "running")
    for words in ("First.", "Second."):
        await page.get_by_role("textbox", name="Prompt").fill(words)
        await page.get_by_role("button", name="Queue").click()
        await expect(page.locator(".queue li").last).to_contain_text(words)
    await page.locator(".queue li", has_text="Second.").get_by_role("button", name="Withdraw").click()
    await expect(page.locator(".queue li")).to_have_count(1)
    await page.get_by_role("button", name="Interrupt").click()
    await expect(page.locator(".turn")).to_have_count(2)
    await expect(page.locator(".turn").nth(1).locator(".prompt")).to_contain_text("First.")
    await expect(page.locator(".queue")).to_be_hidden()


async def test_tool_calls_hang_under_their_step(desk):
    calls = '[[say Two things.]][[call weather {"city": "Oslo"}]][[call weather {"city": "Rome"}]]'
    sid = await desk.run(calls, tools=[{"name": "weather"}], provider_params=QUICK)
    page = await desk.eyes.open(desk.at(sid))
    await state(page, "waiting")
    rows = page.locator(".step .calls > .call")
    await expect(rows).to_have_count(2)
    await expect(rows.first).to_contain_text("waits for its caller")
    await rows.first.locator("summary").click()
    await expect(rows.first.locator("pre")).to_have_text('{\n  "city": "Oslo"\n}')
    results = [{"tool_use_id": f"call_1_{n}", "content": '{"sky": "grey"}', "is_error": n == 2} for n in (1, 2)]
    await desk.host.call("meerkat_resume", session_id=sid, tool_results=results)
    await state(page, "idle")
    await expect(rows.first.locator("pre").nth(1)).to_have_text('{\n  "sky": "grey"\n}')
    await expect(rows.nth(1)).to_have_attribute("data-state", "failed")


async def test_what_a_step_said_before_it_failed_goes_when_it_is_tried_again(desk):
    sid = await desk.run("[[say Half of it.]][[fail unavailable]]", provider_params=QUICK)
    page = await desk.eyes.open(desk.at(sid))
    await expect(page.locator(".turn > header .state")).to_have_text("failed")
    assert [text.removesuffix("unfinished") for text in await texts(page)] == ["Half of it."]
    await expect(page.locator(".note.warning").first).to_contain_text(re.compile("Attempt 2 of [0-9]"))
    await expect(page.locator(".note.error")).to_be_visible()


async def test_a_new_title_and_new_labels_are_shown_while_the_turn_goes_on(desk):
    sid = await desk.run("[[hang]]", title="As it was", labels={"kind": "old"})
    page = await desk.eyes.open(desk.at(sid))
    await state(page, "running")
    heading = page.get_by_role("heading", level=1)
    await expect(heading).to_have_text("As it was")
    await desk.host.call("meerkat_resume", session_id=sid, title="As it is", labels={"kind": "new"})
    await expect(heading).to_have_text("As it is")
    await expect(page.locator(".facts .label")).to_have_text("kind=new")
    await expect(page).to_have_title("● As it is · Meerkat")
    await expect(page.locator(".between")).to_have_text("Changed: title, labels.")
    await desk.host.call("meerkat_resume", session_id=sid, title="")
    await expect(heading).to_have_text("[[hang]]")
    await desk.host.call("meerkat_interrupt", session_id=sid)


async def test_markup_in_a_title_a_prompt_or_a_text_is_shown_as_text(desk):
    evil = "<img src=x onerror=alert(1)><script>alert(2)</script>"
    said = f"[[say {evil} and [here](javascript:alert(3)) or **[there](https://example.com)**]]"
    sid = await desk.run(said, title=evil, labels={"l": evil}, provider_params=QUICK)
    page = await desk.eyes.open(desk.at(sid))
    await state(page, "idle")
    await expect(page.get_by_role("heading", level=1)).to_have_text(evil)
    (text,) = await texts(page)
    assert text == f"{evil} and [here](javascript:alert(3)) or there (https://example.com)"
    links = page.locator(".text a")
    await expect(links).to_have_count(1)
    assert "noopener" in (await links.get_attribute("rel") or "")
    assert await page.locator("main img, main script").count() == 0


async def test_the_page_stays_where_somebody_reads_and_leads_back_to_the_end(desk):
    sid = await desk.run("[[chars 20000]]", provider_params=QUICK)
    page = await desk.eyes.open(desk.at(sid))
    await state(page, "idle")
    await holds(page, "scrollY + innerHeight > document.documentElement.scrollHeight - 5")
    await desk.host.call(
        "meerkat_resume", session_id=sid, prompt="[[words 120]]", wait_seconds=0, provider_params=SLOWLY
    )
    await expect(page.locator(".text.writing")).to_contain_text("word9")
    await page.mouse.move(300, 300)
    await page.mouse.wheel(0, -4000)
    jump = page.get_by_role("button", name="Jump to latest")
    await expect(jump).to_be_visible()
    there = await page.evaluate("scrollY")
    await expect(page.locator(".text.writing")).to_contain_text("word60")
    assert await page.evaluate("scrollY") == there
    await jump.click()
    await expect(jump).to_be_hidden()
    await holds(page, "scrollY + innerHeight > document.documentElement.scrollHeight - 5")


async def test_a_session_that_is_not_there_is_said_not_to_be(eyes: Eyes, serve_http):
    eyes.tolerates = re.compile("status of 404")
    async with serve_http() as server:
        page = await eyes.open(f"{server.url}/sessions/00000000-0000-7000-8000-000000000000")
        await expect(page.get_by_role("heading", level=1)).to_have_text("No such session")
        await expect(page.get_by_role("textbox")).to_be_hidden()


async def test_a_deleted_session_is_said_to_be_deleted(desk):
    sid = await desk.run("[[say hello]]", provider_params=QUICK)
    page = await desk.eyes.open(desk.at(sid))
    await state(page, "idle")
    await desk.host.call("meerkat_delete", session_id=sid, confirm=sid)
    await expect(page.locator(".bar .line")).to_have_text("This session was deleted.")


async def test_a_long_log_is_there_at_once(eyes: Eyes, serve_http, look):
    async with look() as realm:
        sid = await chatter(realm, turns=500)
    async with serve_http() as server:
        began = anyio.current_time()
        page = await eyes.open(f"{server.url}/sessions/{sid}")
        await expect(page.locator(".turn")).to_have_count(500, timeout=PATIENCE_S * 1000)
        took_s = anyio.current_time() - began
        assert took_s < 10
        await holds(page, "scrollY + innerHeight > document.documentElement.scrollHeight - 5")


async def test_a_tab_that_nobody_looks_at_gives_its_connection_back_and_misses_nothing(desk):
    sid = await desk.run("[[say hello]]", provider_params=QUICK)
    page = await desk.eyes.open("about:blank")
    await page.clock.install()
    await page.add_init_script("Object.defineProperty(document, 'hidden', { get: () => window.away === true })")
    await page.goto(desk.at(sid))
    await state(page, "idle")
    look_away = "away => { window.away = away; document.dispatchEvent(new Event('visibilitychange')) }"
    async with page.expect_event("requestfailed", lambda request: "/events" in request.url):
        await page.evaluate(look_away, True)
        await page.clock.fast_forward(31_000)
    await desk.host.call("meerkat_resume", session_id=sid, prompt="[[say hello again]]")
    hung = await desk.host.call("meerkat_resume", session_id=sid, prompt="[[hang]]", wait_seconds=0)
    await page.clock.fast_forward(16_000)
    await expect(page).to_have_title(re.compile("^● "))
    await expect(page.locator(".turn")).to_have_count(1)
    await page.evaluate(look_away, False)
    await expect(page.locator(".turn")).to_have_count(3)
    assert await texts(page) == ["hello", "hello again"]
    await desk.host.call("meerkat_interrupt", session_id=sid, expected_turn_id=hung["turn_id"])
