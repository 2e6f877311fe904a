// What a host does with us, by the client of the TypeScript SDK: node walk.mjs PACKAGES CLIENT MODE -- URL | COMMAND ARG…
// CLIENT is v1 or v2, MODE how v2 finds the protocol: legacy or auto. Ends with 0 and one line of JSON about what it saw;
// whatever is not as it should be ends it with an exception.

import assert from "node:assert/strict";
import { createRequire } from "node:module";
import { join } from "node:path";

const PATIENCE_MS = 30_000;
const [folder, version, mode, , ...target] = process.argv.slice(2);
const packages = createRequire(join(folder, "package.json"));

function client() {
  const me = { name: "walk", version: "1" };
  if (version === "v1") return new (packages("@modelcontextprotocol/sdk/client/index.js").Client)(me);
  const { Client } = packages("@modelcontextprotocol/client");
  return new Client(me, { versionNegotiation: { mode } });
}

function transport() {
  const [first, ...args] = target;
  const sdk = "@modelcontextprotocol/sdk/client";
  if (first.startsWith("http")) {
    const from = version === "v1" ? `${sdk}/streamableHttp.js` : "@modelcontextprotocol/client";
    return new (packages(from).StreamableHTTPClientTransport)(new URL(first));
  }
  const from = version === "v1" ? `${sdk}/stdio.js` : "@modelcontextprotocol/client/stdio";
  return new (packages(from).StdioClientTransport)({ command: first, args });
}

const host = client();

async function raw(name, args, options = {}) {
  const limits = { timeout: PATIENCE_MS, ...options };
  // v1 takes a schema of the result between the two; undefined is its own
  return version === "v1"
    ? host.callTool({ name, arguments: args }, undefined, limits)
    : host.callTool({ name, arguments: args }, limits);
}

/** The structured result, which the client compared with the tool's schema. */
async function call(name, args, options) {
  const result = await raw(name, args, options);
  assert.ok(!result.isError, JSON.stringify(result.content));
  assert.deepEqual(JSON.parse(result.content[0].text), result.structuredContent);
  return result.structuredContent;
}

async function tools() {
  const found = [];
  for (let cursor; ; ) {
    const page = await host.listTools(cursor === undefined ? {} : { cursor });
    found.push(...page.tools);
    cursor = page.nextCursor;
    if (cursor === undefined) break;
  }
  for (const tool of found) {
    assert.ok(tool.description && tool.outputSchema, tool.name);
  }
  return found.map((tool) => tool.name).sort();
}

/** A first turn, streamed: one notification an event. */
async function run() {
  const heard = [];
  const asked = { prompt: "[[words 20]] Remember the otter.", provider: "demo", stream: true };
  const done = await call("meerkat_run", asked, { onprogress: (progress) => heard.push(progress) });
  assert.equal(done.status, "completed");
  assert.ok(done.text.startsWith("word1 word2"), done.text);
  const seqs = heard.map((progress) => progress.progress);
  assert.ok(seqs.every((seq, index) => index === 0 || seq > seqs[index - 1]), `not increasing: ${seqs}`);
  const events = heard.map((progress) => progress._meta["meerkat/event"]);
  assert.deepEqual(events.map((event) => event.seq), seqs);
  return { session: done.session_id, text: done.text, types: events.map((event) => event.type) };
}

/** All events of a session, through a stream that is opened after the fact. */
async function read(session) {
  const { stream_id } = await call("meerkat_event_stream_open", { session_id: session, after_seq: 0 });
  const events = [];
  for (let more = true; more; ) {
    const page = await call("meerkat_event_stream_read", { stream_id, timeout_ms: 0, max_events: 5 });
    events.push(...page.events);
    more = page.more;
  }
  await call("meerkat_event_stream_close", { stream_id });
  const seqs = events.map((event) => event.seq);
  assert.deepEqual(seqs, [...seqs].sort((a, b) => a - b));
  return events.map((event) => event.type);
}

async function interrupt() {
  const running = await call("meerkat_run", { prompt: "[[hang]]", provider: "demo", wait_seconds: 0 });
  assert.equal(running.status, "running");
  const told = await call("meerkat_interrupt", { session_id: running.session_id, expected_turn_id: running.turn_id });
  const after = await call("meerkat_read", { session_id: running.session_id });
  return { told: told.interrupted, state: after.session.state, turn: after.turn.status };
}

async function mistake() {
  const result = await raw("meerkat_run", { promt: "x" });
  assert.ok(result.isError);
  assert.equal(result.structuredContent, undefined);
  return JSON.parse(result.content[0].text).error;
}

async function mentioned(session) {
  const { resources } = await host.listResources();
  const { contents } = await host.readResource({ uri: `meerkat://sessions/${session}/transcript` });
  const { prompts } = await host.listPrompts();
  const { messages } = await host.getPrompt({ name: "continue", arguments: { session } });
  return {
    resources: resources.map((resource) => resource.uri),
    transcript: contents[0].text,
    prompts: prompts.map((prompt) => prompt.name),
    prompted: JSON.stringify(messages),
  };
}

await host.connect(transport(), { timeout: PATIENCE_MS });
const saw = { server: host.getServerVersion(), protocol: host.getNegotiatedProtocolVersion?.() };
saw.tools = await tools();
saw.run = await run();
saw.resumed = await call("meerkat_resume", { session_id: saw.run.session, prompt: "[[history]]" });
saw.events = await read(saw.run.session);
saw.interrupted = await interrupt();
saw.mistake = await mistake();
saw.mentioned = await mentioned(saw.run.session);
await host.close();
console.log(JSON.stringify(saw));
