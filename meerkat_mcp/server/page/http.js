// The server over HTTP: tools by MCP (2026-07-28, no handshake), events as a stream that comes back by itself.

import { Problem, taken } from "./problems.js";
import { messages } from "./sse.js";

const PROTOCOL = "2026-07-28";
const TOKEN_KEY = "meerkat-token";
const SILENCE_MS_MAX = 40_000; // the server says something every 15 s
const DELAY_MS = [250, 500, 1000, 2000, 4000, 8000];
const FINAL = [400, 403, 404, 409];

export class HttpLink {
  constructor(root) {
    this.root = root;
    this.skewMs = 0;
    this.needsToken = () => {};
    this.lastId = 0;
  }

  href(sessionId) {
    return `${this.root}/sessions/${encodeURIComponent(sessionId)}`;
  }

  get home() {
    return `${this.root}/`;
  }

  get token() {
    return sessionStorage.getItem(TOKEN_KEY);
  }

  set token(token) {
    sessionStorage.setItem(TOKEN_KEY, token);
  }

  // A tool's structured result. Raises a Problem.
  async call(tool, args = {}) {
    const id = ++this.lastId;
    const meta = {
      "io.modelcontextprotocol/protocolVersion": PROTOCOL,
      "io.modelcontextprotocol/clientCapabilities": {},
      "io.modelcontextprotocol/clientInfo": { name: "meerkat-watch", version: "1" },
    };
    const response = await this.#fetch(`${this.root}/mcp`, {
      method: "POST",
      headers: {
        "Content-Type": "application/json",
        Accept: "application/json, text/event-stream",
        "MCP-Protocol-Version": PROTOCOL,
        "Mcp-Method": "tools/call",
        "Mcp-Name": tool,
      },
      body: JSON.stringify({
        jsonrpc: "2.0",
        id,
        method: "tools/call",
        params: { name: tool, arguments: args, _meta: meta },
      }),
    });
    if (!response.ok) throw await problemOf(response);
    const answer = await answerOf(response, id);
    if (answer.error) throw new Problem({ message: answer.error.message, code: String(answer.error.code) });
    return taken(answer.result);
  }

  // Whether whoever looks may say yes here.
  approves(caller) {
    return !caller?.scopes || caller.scopes.includes("sessions:approve");
  }

  // Say yes or no to what a turn waits with: not by MCP, where a model could say it, but for a no of who may say no
  // more than that. Raises a Problem.
  async decide(sessionId, responses, caller) {
    if (!this.approves(caller)) return this.refuse(sessionId, responses);
    const response = await this.#fetch(`${this.href(sessionId)}/approvals`, {
      method: "POST",
      headers: { "Content-Type": "application/json" },
      body: JSON.stringify({ responses }),
    });
    if (!response.ok) throw await problemOf(response);
  }

  refuse(sessionId, responses) {
    return this.call("meerkat_resume", { session_id: sessionId, responses, wait_seconds: 0, on_cancel: "detach" });
  }

  // Hand on the events after `after()` in batches, now and as they come, until `signal` aborts. `state` is told
  // "live", "reconnecting", "deleted", or of a Problem that trying again would not mend.
  async follow(sessionId, { after, events, state, signal }) {
    let failures = 0;
    while (!signal.aborted) {
      const attempt = new AbortController();
      const stop = () => attempt.abort();
      signal.addEventListener("abort", stop, { once: true });
      try {
        const address = `${this.href(sessionId)}/events?after_seq=${after()}`;
        const response = await this.#fetch(address, { signal: attempt.signal, cache: "no-store" });
        if (!response.ok) {
          const problem = await problemOf(response);
          if (FINAL.includes(response.status)) return state(problem);
          throw problem;
        }
        state("live");
        failures = 0;
        if ((await this.#read(response, attempt, events)) === "closed") return state("deleted");
      } catch (problem) {
        if (problem.status === 401) return undefined;
      } finally {
        signal.removeEventListener("abort", stop);
        attempt.abort();
      }
      if (signal.aborted) return undefined;
      state("reconnecting");
      await pause(DELAY_MS[Math.min(failures++, DELAY_MS.length - 1)] * (0.7 + 0.6 * Math.random()), signal);
    }
    return undefined;
  }

  // Read one stream to its end; "closed" when there will be no other.
  async #read(response, attempt, events) {
    let silence = setTimeout(() => attempt.abort(), SILENCE_MS_MAX);
    try {
      for await (const batch of messages(response.body)) {
        clearTimeout(silence);
        silence = setTimeout(() => attempt.abort(), SILENCE_MS_MAX);
        const told = batch.filter((message) => message.id && message.data).map((message) => JSON.parse(message.data));
        if (told.length) events(told);
        const farewell = batch.find((message) => message.event === "closed" || message.event === "bye");
        if (farewell) return farewell.event;
      }
    } finally {
      clearTimeout(silence);
    }
    return "cut";
  }

  async #fetch(address, options) {
    const { token } = this;
    const headers = { ...options.headers, ...(token ? { Authorization: `Bearer ${token}` } : {}) };
    let response;
    try {
      response = await fetch(address, { ...options, headers });
    } catch (reason) {
      throw new Problem({ message: "The server cannot be reached.", code: "unreachable", hint: "Is it running?" });
    }
    if (response.status === 401) this.needsToken(Boolean(token));
    const skew = Date.parse(response.headers.get("date")) - Date.now();
    this.skewMs = Math.abs(skew) > 2000 ? skew : 0;
    return response;
  }
}

async function problemOf(response) {
  const challenge = response.headers.get("www-authenticate") ?? "";
  const scope = /scope="([^"]+)"/.exec(challenge)?.[1] ?? "";
  const { status } = response;
  try {
    const { error, error_description: description } = await response.json();
    if (description) return new Problem({ message: description, code: error, scope, status });
    if (error?.message) return new Problem({ scope, ...error, code: String(error.code), status });
  } catch {
    // the status has to say it
  }
  const message = status === 401 ? "A token is needed." : `The server answered with status ${status}.`;
  return new Problem({ message, status, scope });
}

async function answerOf(response, id) {
  if (!response.headers.get("content-type")?.startsWith("text/event-stream")) return response.json();
  for await (const batch of messages(response.body)) {
    for (const message of batch) {
      const answer = message.data ? JSON.parse(message.data) : {};
      if (answer.id === id && ("result" in answer || "error" in answer)) return answer;
    }
  }
  throw new Problem({ message: "The answer broke off." });
}

// Wait; less when the network is back or somebody looks again.
function pause(ms, signal) {
  return new Promise((resolve) => {
    const timer = setTimeout(done, ms);
    function done() {
      clearTimeout(timer);
      window.removeEventListener("online", done);
      document.removeEventListener("visibilitychange", done);
      signal.removeEventListener("abort", done);
      resolve();
    }
    window.addEventListener("online", done);
    document.addEventListener("visibilitychange", done);
    signal.addEventListener("abort", done);
  });
}
