"""Who may do what on the page: tokens and scopes, and a yes to a tool call."""

import re
import sys
from pathlib import Path

import pytest
from playwright.async_api import expect

NOTES_SERVER = Path(__file__).parents[2] / "docs" / "examples" / "notes_server.py"
ADA, BOB, CID = "ada-0123456789abcdef", "bob-0123456789abcdef", "cid-0123456789abcdef"
QUICK = {"delta_ms": 0}

pytestmark = [pytest.mark.anyio, pytest.mark.xdist_group("browser")]


@pytest.fixture
def tokens(tmp_path) -> Path:
    """Ada may do everything, Bob may look, Cid may run turns."""
    file = tmp_path / "tokens"
    file.write_text(f"ada {ADA}\nbob {BOB} sessions:read\ncid {CID} sessions:run\n", encoding="utf-8")
    file.chmod(0o600)
    return file


async def test_a_token_is_asked_for_kept_in_the_tab_and_never_in_the_address(eyes, serve_http, serve, tokens):
    eyes.tolerates = re.compile("status of 401")
    async with serve() as host, serve_http("--token-file", str(tokens)) as server:
        await host.call("meerkat_run", prompt="[[say hello]]", title="Guarded", provider_params=QUICK)
        page = await eyes.open(f"{server.url}/")
        field = page.get_by_label("Bearer token")
        await expect(field).to_be_focused()
        await field.fill("eve-0123456789abcdef")
        await page.keyboard.press("Enter")
        await expect(page.get_by_role("alert")).to_contain_text("did not take this token")
        await field.fill(ADA)
        await page.keyboard.press("Enter")
        await expect(page.locator("a.row", has_text="Guarded")).to_have_count(1)
        await expect(page.locator(".bar .facts")).to_contain_text("as ada")
        await page.locator("a.row", has_text="Guarded").click()
        await expect(page.locator(".text")).to_have_text("hello")
        assert "ada" not in page.url
        assert await page.evaluate("[localStorage.length, document.cookie]") == [0, ""]


async def test_who_may_only_look_is_told_so_and_can_do_nothing(eyes, serve_http, serve, tokens):
    eyes.tolerates = re.compile("status of 401")
    async with serve() as host, serve_http("--token-file", str(tokens)) as server:
        run = await host.call("meerkat_run", prompt="[[hang]]", wait_seconds=0)
        page = await eyes.open(f"{server.url}/sessions/{run['session_id']}")
        await page.get_by_label("Bearer token").fill(BOB)
        await page.keyboard.press("Enter")
        await expect(page.locator(".head .state")).to_have_text("running")
        await expect(page.get_by_role("button", name="Interrupt")).to_be_disabled()
        box = page.get_by_role("textbox", name="Prompt")
        await expect(box).to_be_disabled()
        await expect(box).to_have_attribute("placeholder", re.compile("sessions:run"))


async def prepare(look, tmp_path, **permissions) -> Path:
    """Give the realm a tool server whose calls need a yes; the file that it writes to."""
    notes = tmp_path / "notes.txt"
    server = {"command": sys.executable, "args": [str(NOTES_SERVER), str(notes)]}
    async with look() as realm:
        await realm.change_config(lambda _: {"mcp_servers": {"notes": server}, "permissions": permissions}, None)
    return notes


ASK = '[[call notes__add {"text": "Buy milk."}]]'


async def test_a_call_is_approved_on_the_page_though_callers_may_not(eyes, serve_http, serve, look, tmp_path):
    notes = await prepare(look, tmp_path, caller_may_approve=False)
    async with serve() as host, serve_http() as server:
        run = await host.call("meerkat_run", prompt=ASK, mcp_servers={"notes": {}}, provider_params=QUICK)
        page = await eyes.open(f"{server.url}/sessions/{run['session_id']}")
        call = page.locator(".call")
        await expect(call).to_have_attribute("data-state", "approval")
        await expect(call.locator("pre")).to_contain_text("Buy milk.")
        await call.get_by_role("button", name="Approve").click()
        await expect(page.locator(".head .state")).to_have_text("idle")
        await expect(call).to_have_attribute("data-state", "done")
        await call.locator("summary").click()
        await expect(call.locator(".verdict")).to_have_text("Approved by the operator.")
    assert "Buy milk." in notes.read_text(encoding="utf-8")


async def test_who_may_not_approve_is_told_the_command(eyes, serve_http, serve, look, tokens, tmp_path):
    eyes.tolerates = re.compile("status of 401")
    await prepare(look, tmp_path)
    async with serve() as host, serve_http("--token-file", str(tokens)) as server:
        run = await host.call("meerkat_run", prompt=ASK, mcp_servers={"notes": {}}, provider_params=QUICK)
        page = await eyes.open(f"{server.url}/sessions/{run['session_id']}")
        await page.get_by_label("Bearer token").fill(CID)
        await page.keyboard.press("Enter")
        command = f"meerkat-mcp session approve --realm den {run['session_id']}"
        await expect(page.locator(".call .command code")).to_have_text(command)
        await expect(page.locator(".call").get_by_role("button", name="Approve")).to_have_count(0)
        await page.locator(".call").get_by_role("button", name="Deny").click()
        await expect(page.locator(".call")).to_have_attribute("data-state", "denied")


async def test_a_call_is_denied_with_a_reason(eyes, serve_http, serve, look, tmp_path):
    notes = await prepare(look, tmp_path)
    async with serve() as host, serve_http() as server:
        run = await host.call("meerkat_run", prompt=ASK, mcp_servers={"notes": {}}, provider_params=QUICK)
        sid = run["session_id"]
        page = await eyes.open(f"{server.url}/sessions/{sid}")
        call = page.locator(".call")
        await call.get_by_role("textbox", name="Reason").fill("Not today.")
        await call.get_by_role("button", name="Deny").click()
        await expect(page.locator(".head .state")).to_have_text("idle")
        await expect(call).to_have_attribute("data-state", "denied")
        await call.locator("summary").click()
        await expect(call.locator(".verdict")).to_have_text("Denied by the operator: Not today.")
    assert not notes.exists()
