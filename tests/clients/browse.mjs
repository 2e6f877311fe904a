// The Inspector's page in headless Chromium: node browse.mjs PACKAGES CHROMIUM ADDRESS SERVER
// Connects to a server of its list, runs a turn by the tool's form, and ends with one line of JSON about what the page
// shows. Whatever cannot be found on the page ends it with an exception and the page's text.

import { createRequire } from "node:module";
import { join } from "node:path";

const PATIENCE_MS = 30_000;
const [folder, executablePath, address, server] = process.argv.slice(2);
const { chromium } = createRequire(join(folder, "package.json"))("playwright-core");

// as root, Chromium has no sandbox; and in a container /dev/shm is small
const browser = await chromium.launch({ executablePath, args: ["--no-sandbox", "--disable-dev-shm-usage"] });
const page = await browser.newPage();
page.setDefaultTimeout(PATIENCE_MS);
try {
  await page.goto(address);
  // the switch is drawn by its label and has no size of its own
  await page.getByRole("switch", { name: `Connect or disconnect "${server}"` }).dispatchEvent("click");
  await page.locator('[data-testid="connection-status"][data-status="connected"]').waitFor();

  await page.getByText("Tools", { exact: true }).first().click();
  await page.getByText("meerkat_run", { exact: true }).first().click();
  await page.getByLabel("prompt", { exact: true }).fill("[[words 6]]");
  await page.getByLabel("stream", { exact: true }).dispatchEvent("click");
  await page.getByRole("button", { name: "Execute Tool" }).click();

  const result = page.getByTestId("structured-output");
  await result.getByText("word6").waitFor();
  const saw = {
    result: await result.innerText(),
    progress: await page.getByText("notifications/progress").count(),
    task: (await page.getByText("Task Details").count()) > 0,
  };
  console.log(JSON.stringify(saw));
} catch (error) {
  console.error(await page.innerText("body"));
  throw error;
} finally {
  await browser.close();
}
