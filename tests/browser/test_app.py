"""The page as an MCP App: in a sandboxed frame, with a host that passes its tool calls on."""

import pytest
from browser.conftest import holds
from playwright.async_api import FrameLocator, Page, expect

from meerkat_mcp.server import page as files

pytestmark = [pytest.mark.anyio, pytest.mark.xdist_group("browser")]

QUICK = {"delta_ms": 0}
SLOWLY = {"delta_ms": 40}
POLICY = (
    "default-src 'none'; script-src 'self' 'unsafe-inline'; style-src 'self' 'unsafe-inline'; img-src 'self' data:; "
    "connect-src 'none'"
)
"""What a host enforces for an app that names no domains (MCP Apps 2026-01-26, "Host Behavior")."""

HOST = """
<iframe id="view" sandbox="allow-scripts" style="width: 700px; height: 640px"></iframe>
<script>
  window.heard = [];
  addEventListener("message", async ({ source, data }) => {
    if (source !== view.contentWindow) return;
    heard.push(data);
    const answer = (result) => source.postMessage({ jsonrpc: "2.0", id: data.id, result }, "*");
    const met = { protocolVersion: "2026-01-26", hostInfo: { name: "test", version: "1" },
      hostCapabilities: { serverTools: {}, openLinks: {} }, hostContext: { theme: "dark" } };
    if (data.method === "ui/initialize") answer(met);
    if (data.method === "tools/call") answer(await callTool(data.params.name, data.params.arguments));
    if (data.method === "ui/open-link") answer({});
  });
</script>
"""


@pytest.fixture
async def view(desk) -> tuple[Page, FrameLocator]:
    """A host with the app in it."""

    async def call_tool(name: str, args: dict) -> dict:
        return await desk.host.answer(await desk.host.send("tools/call", {"name": name, "arguments": args}))

    page = await desk.eyes.open("about:blank")
    await page.expose_function("callTool", call_tool)
    await page.set_content(HOST)
    policy = f'<meta http-equiv="Content-Security-Policy" content="{POLICY}">'
    await page.evaluate("html => { view.srcdoc = html }", files.document().replace("<head>", f"<head>{policy}"))
    return page, page.frame_locator("#view")


async def told(page: Page, method: str, params: dict) -> None:
    message = {"jsonrpc": "2.0", "method": method, "params": params}
    await page.evaluate("message => view.contentWindow.postMessage(message, '*')", message)


async def test_it_meets_its_host_and_lists_the_sessions(desk, view):
    page, app = view
    await desk.host.call("meerkat_run", prompt="[[say hello]]", title="In a host", provider_params=QUICK)
    await expect(app.get_by_role("heading", level=1)).to_have_text("Sessions")
    await expect(app.locator("a.row", has_text="In a host")).to_have_count(1)
    methods = await page.evaluate("heard.map(message => message.method)")
    assert methods[:2] == ["ui/initialize", "ui/notifications/initialized"]
    assert "ui/notifications/size-changed" in methods
    assert await app.locator("html").get_attribute("data-theme") == "dark"


async def test_it_follows_the_session_that_a_tool_result_names(desk, view):
    page, app = view
    sid = await desk.run("[[words 60]]", title="Followed", provider_params=SLOWLY)
    await expect(app.get_by_role("heading", level=1)).to_have_text("Sessions")
    await told(page, "ui/notifications/tool-result", {"content": [], "structuredContent": {"session_id": sid}})
    await expect(app.get_by_role("heading", level=1)).to_have_text("Followed")
    await expect(app.locator(".text.writing")).to_contain_text("word5")
    await expect(app.locator(".head .state")).to_have_text("idle")
    assert (await app.locator(".text").all_text_contents())[0].split() == [f"word{n}" for n in range(1, 61)]
    await app.get_by_role("textbox", name="Prompt").fill("[[say See [this](https://example.com/this).]]")
    await app.get_by_role("textbox", name="Prompt").press("Control+Enter")
    await expect(app.locator(".turn")).to_have_count(2)
    await app.locator(".text a").click()
    await holds(page, "heard.some(message => message.params?.url === 'https://example.com/this')")
    await app.get_by_role("link", name="Sessions", exact=False).first.click()
    await expect(app.locator("a.row", has_text="Followed")).to_have_count(1)
