// The server behind a host that shows this page as an MCP App: everything is asked of the host, by messages.

import { Problem, taken } from "./problems.js";

const APPS_PROTOCOL = "2026-01-26";
const READ_TIMEOUT_MS = 20_000;
const READ_EVENTS_MAX = 500;
const HEIGHT_MAX = 640;

export class HostLink {
  constructor() {
    this.skewMs = 0;
    this.lastId = 0;
    this.waiting = new Map();
    this.shown = () => {}; // is told of the session that a tool's result is about
    this.opens = () => {}; // is told where to go
    window.addEventListener("message", (message) => this.#take(message));
  }

  // Meet the host. The page shows nothing before.
  async meet() {
    const met = await this.#ask("ui/initialize", {
      appInfo: { name: "meerkat-watch", version: "1" },
      appCapabilities: { availableDisplayModes: ["inline", "fullscreen"] },
      protocolVersion: APPS_PROTOCOL,
    });
    this.#dress(met.hostContext);
    this.#tell("ui/notifications/initialized", {});
    new ResizeObserver(() => this.#measure()).observe(document.body);
  }

  href() {
    return "#";
  }

  get home() {
    return "#";
  }

  // A host passes a page's calls on as its own: whether it may say yes is the realm's to say.
  approves(_, permissions) {
    return permissions.caller_may_approve || permissions.caller_is_trusted;
  }

  decide(sessionId, responses) {
    return this.call("meerkat_resume", { session_id: sessionId, responses, wait_seconds: 0, on_cancel: "detach" });
  }

  async call(tool, args = {}) {
    return taken(await this.#ask("tools/call", { name: tool, arguments: args }));
  }

  openLink(url) {
    this.#ask("ui/open-link", { url }).catch(() => {}); // the host may say no
  }

  async follow(sessionId, { after, events, state, signal }) {
    let stream = null;
    while (!signal.aborted) {
      try {
        stream ??= await this.call("meerkat_event_stream_open", { session_id: sessionId, after_seq: after() });
        state("live");
        const read = await this.call("meerkat_event_stream_read", {
          stream_id: stream.stream_id,
          after_seq: after(),
          timeout_ms: READ_TIMEOUT_MS,
          max_events: READ_EVENTS_MAX,
        });
        if (signal.aborted) break;
        if (read.events.length) events(read.events);
        if (read.status === "closed") return state("deleted");
      } catch (problem) {
        if (["session_not_found", "permission_denied"].includes(problem.code)) return state(problem);
        stream = null;
        state("reconnecting");
        await new Promise((resolve) => setTimeout(resolve, 2000));
      }
    }
    if (stream) this.call("meerkat_event_stream_close", { stream_id: stream.stream_id }).catch(() => {});
    return undefined;
  }

  #ask(method, params) {
    const id = ++this.lastId;
    window.parent.postMessage({ jsonrpc: "2.0", id, method, params }, "*");
    return new Promise((resolve, reject) => this.waiting.set(id, { resolve, reject }));
  }

  #tell(method, params) {
    window.parent.postMessage({ jsonrpc: "2.0", method, params }, "*");
  }

  #take({ source, data }) {
    if (source !== window.parent || data?.jsonrpc !== "2.0") return;
    if (!data.method) return this.#settle(data);
    if (data.method === "ui/notifications/host-context-changed") this.#dress(data.params);
    if (data.method === "ui/notifications/tool-result") this.#see(data.params);
    if (data.method === "ui/notifications/tool-input") this.#see({ structuredContent: data.params?.arguments });
    if (data.id !== undefined) window.parent.postMessage({ jsonrpc: "2.0", id: data.id, result: {} }, "*");
    return undefined;
  }

  #settle({ id, result, error }) {
    const waiting = this.waiting.get(id);
    this.waiting.delete(id);
    if (error) waiting?.reject(new Problem({ message: error.message, code: String(error.code) }));
    else waiting?.resolve(result);
  }

  #see(result) {
    try {
      const { session_id: sessionId } = taken(result);
      if (sessionId) this.shown(sessionId);
    } catch (problem) {
      if (problem.sessionId) this.shown(problem.sessionId); // a turn that failed
    }
  }

  #dress(context) {
    if (context?.theme) document.documentElement.dataset.theme = context.theme;
  }

  #measure() {
    const { scrollWidth, scrollHeight } = document.documentElement;
    this.#tell("ui/notifications/size-changed", { width: scrollWidth, height: Math.min(scrollHeight, HEIGHT_MAX) });
  }
}
