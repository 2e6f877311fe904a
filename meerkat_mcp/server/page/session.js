// One session: its head, its turns as they happen, and a place to answer.

import { Composer } from "./composer.js";
import { copyButton, element, say, show } from "./dom.js";
import { Outline } from "./outline.js";
import { Following, Frames } from "./scrolling.js";
import { TurnView } from "./turn.js";
import { count, shortId, usageWords } from "./words.js";

const HIDDEN_MS_MAX = 30_000;
const PEEK_INTERVAL_MS = 15_000;

export class SessionPage {
  constructor(link, sessionId, home) {
    this.link = link;
    this.sessionId = sessionId;
    this.caller = null;
    this.permissions = {};
    this.realm = "";
    this.views = new Map();
    this.outline = new Outline();
    this.frames = new Frames((event) => this.#take(event), () => this.#settle());
    this.composer = new Composer((prompt, key) => this.#prompt(prompt, key));
    this.#build(home);
    this.following = new Following(this.jump);
    this.asking = {
      decide: (id, verdict, reason) => this.#decide(id, verdict, reason),
      mayApprove: () => this.link.approves(this.caller, this.permissions),
      command: () => `meerkat-mcp session approve${this.realm ? ` --realm ${this.realm}` : ""} ${this.outline.sessionId}`,
    };
    this.stopping = new AbortController();
  }

  // Show it until `close`.
  async open() {
    document.addEventListener("keydown", (event) => this.#key(event), { signal: this.stopping.signal });
    document.addEventListener("visibilitychange", () => this.#seen(), { signal: this.stopping.signal });
    this.clock = setInterval(() => this.#tick(), 1000);
    await this.#learn();
    if (!this.stopping.signal.aborted) this.#follow();
  }

  close() {
    this.stopping.abort();
    this.reading?.abort();
    clearInterval(this.clock);
    clearInterval(this.peeking);
  }

  #build(home) {
    this.title = element("h1", {}, "\u00a0");
    this.facts = element("p", { class: "facts" });
    this.state = element("span", { class: "state" });
    this.line = element("span", { class: "line" }, "Connecting…");
    this.interrupt = element("button", { type: "button", class: "interrupt", hidden: true, click: () => this.#interrupt() }, "Interrupt");
    this.spoken = element("p", { class: "aside", role: "status", "aria-live": "polite" });
    this.turns = element("div", { class: "turns" });
    this.queue = element("ol", { class: "queue", "aria-label": "Queued prompts", hidden: true });
    this.empty = element("p", { class: "empty", hidden: true }, "Nothing was said in this session yet.");
    this.jump = element("button", { type: "button", class: "jump", hidden: true }, "Jump to latest ↓");
    const head = element(
      "header",
      { class: "bar" },
      element("nav", {}, home, this.line),
      element("div", { class: "head" }, this.title, this.state, this.interrupt),
      this.facts,
    );
    const foot = element("footer", { class: "foot" }, this.jump, this.composer.form);
    this.node = element("div", { class: "session" }, head, element("main", { id: "main" }, this.empty, this.turns, this.queue), foot, this.spoken);
  }

  // What the caller may do here, and which realm it is. A server that does not say lets everything through.
  async #learn() {
    if (this.realm) return;
    try {
      const about = await this.link.call("meerkat_capabilities");
      this.caller = about.caller ?? null;
      this.permissions = about.permissions ?? {};
      this.realm = about.realm_id;
    } catch (problem) {
      if (problem.code !== "unreachable") this.composer.tell(problem.words ?? String(problem));
    }
  }

  #refusal(tool) {
    const { caller } = this;
    if (!caller) return "";
    const lacks = caller.scopes && !caller.scopes.includes("sessions:run");
    if (lacks) return "You may look, not act: your token lacks the scope sessions:run.";
    return caller.denied_tools?.includes(tool) ? `Your token does not allow ${tool}.` : "";
  }

  // ── following ──

  #follow() {
    this.reading?.abort();
    this.reading = new AbortController();
    const { signal } = this.reading;
    this.link.follow(this.outline.sessionId || this.sessionId, {
      after: () => this.lastSeq ?? 0,
      events: (events) => {
        if (signal.aborted) return;
        this.lastSeq = events.at(-1).seq;
        this.frames.add(events);
      },
      state: (state) => !signal.aborted && this.#connected(state),
      signal,
    });
  }

  #connected(state) {
    this.connection = state;
    this.node.dataset.connection = typeof state === "string" ? state : "refused";
    if (state === "live") {
      this.#learn();
      return say(this.line, "");
    }
    if (state === "reconnecting") return say(this.line, "Reconnecting…");
    if (state === "deleted") return say(this.line, "This session was deleted.");
    if (state.code === "invalid_request" && this.lastSeq) return this.#again();
    say(this.line, "");
    say(this.title, state.code === "session_not_found" ? "No such session" : "Not shown");
    say(this.empty, state.words);
    show(this.empty, true);
    return show(this.composer.form, false);
  }

  // The log is shorter than what was seen of it, as after a machine lost power: begin anew.
  #again() {
    this.lastSeq = 0;
    this.outline = new Outline();
    this.views.clear();
    this.turns.replaceChildren();
    this.#follow();
  }

  // A browser holds few connections to a server: a tab that nobody looks at gives its own back, and only peeks.
  #seen() {
    clearTimeout(this.leaving);
    clearInterval(this.peeking);
    if (document.hidden) {
      this.leaving = setTimeout(() => {
        this.reading?.abort();
        this.peeking = setInterval(() => this.#peek(), PEEK_INTERVAL_MS);
      }, HIDDEN_MS_MAX);
    } else if (this.reading?.signal.aborted) this.#follow();
  }

  async #peek() {
    try {
      const { session } = await this.link.call("meerkat_read", { session_id: this.outline.sessionId, max_chars: 100 });
      this.#entitle(session.state, session.title ?? session.opening ?? "");
    } catch {
      // it will be followed again when somebody looks
    }
  }

  // ── what happened ──

  #take(event) {
    const { outline } = this;
    if (!outline.take(event)) return;
    if (event.type === "turn_started") {
      const view = new TurnView(outline.turns, event, this.asking);
      this.views.set(event.turn_id, view);
      this.turns.append(view.node);
    }
    const view = this.views.get(event.turn_id);
    if (view) view.take(event);
    else this.#happened(event);
    const words = SPOKEN[event.type];
    if (words && event.timestamp_ms > Date.now() + this.link.skewMs - 10_000) say(this.spoken, words);
  }

  // What belongs to the session, between its turns.
  #happened(event) {
    const words = HAPPENED[event.type]?.(event);
    if (words) this.turns.append(element("p", { class: "between" }, words));
  }

  #settle() {
    const { outline } = this;
    say(this.title, outline.seq ? outline.name || "Untitled session" : "\u00a0");
    this.title.classList.toggle("untitled", !outline.name);
    this.state.dataset.state = outline.state;
    this.node.dataset.state = outline.state;
    say(this.state, outline.state);
    show(this.state, outline.seq > 0);
    show(this.empty, outline.seq > 0 && !this.turns.firstChild);
    const refusal = this.#refusal("meerkat_interrupt");
    show(this.interrupt, outline.active || ["waiting", "suspended"].includes(outline.state));
    this.interrupt.disabled = Boolean(refusal) || outline.state === "stopping";
    this.interrupt.title = refusal;
    say(this.interrupt, outline.state === "stopping" ? "Interrupting…" : "Interrupt");
    this.composer.become(outline.state, this.#refusal("meerkat_resume"));
    this.#summarise();
    this.#queued();
    this.#entitle(outline.state, outline.name);
    this.#tick();
    this.following.settle();
  }

  #summarise() {
    const { outline } = this;
    const model = [outline.model, outline.provider].filter((word, at, all) => word && all.indexOf(word) === at).join(" · ");
    const labels = Object.entries(outline.labels).map(([key, value]) => `${key}=${value}`);
    const said = [model, count(outline.turns, "turn"), ...usageWords(outline.usage)].filter(Boolean).join("  ·  ");
    const shown = JSON.stringify([said, labels, outline.sessionId]);
    if (shown === this.summarised || !outline.seq) return;
    this.summarised = shown;
    const id = element("code", { title: outline.sessionId }, shortId(outline.sessionId));
    this.facts.replaceChildren(
      element("span", { class: "id" }, id, copyButton("Copy the session's id", () => outline.sessionId)),
      element("span", {}, said),
      ...labels.map((label) => element("span", { class: "label" }, label)),
    );
  }

  #queued() {
    const { queue } = this.outline;
    show(this.queue, queue.size > 0);
    if ([...queue.keys()].join() === this.queueShown) return;
    this.queueShown = [...queue.keys()].join();
    const items = [...queue.values()].map((event) => {
      const withdraw = async () => {
        button.disabled = true;
        await this.#act("meerkat_interrupt", { expected_turn_id: event.turn_id });
        button.disabled = false;
      };
      const button = element("button", { type: "button", click: withdraw }, "Withdraw");
      return element("li", {}, element("span", { class: "label" }, "Queued"), element("span", { class: "words" }, event.prompt), button);
    });
    this.queue.replaceChildren(...items);
  }

  #entitle(state, title) {
    const mark = { running: "● ", stopping: "● ", waiting: "◐ ", suspended: "◐ " }[state] ?? "";
    const wanted = `${mark}${title || shortId(this.outline.sessionId || this.sessionId)} · Meerkat`;
    if (document.title !== wanted) document.title = wanted;
  }

  #tick() {
    if (this.outline.turnId) this.views.get(this.outline.turnId)?.tick(Date.now() + this.link.skewMs);
  }

  // ── acting ──

  async #prompt(prompt, key) {
    await this.link.call("meerkat_resume", {
      session_id: this.outline.sessionId,
      prompt,
      wait_seconds: 0,
      on_cancel: "detach",
      if_busy: "queue",
      idempotency_key: key,
    });
    this.following.toEnd();
  }

  async #interrupt() {
    this.interrupt.disabled = true;
    say(this.interrupt, "Interrupting…");
    const done = await this.#act("meerkat_interrupt", { expected_turn_id: this.outline.turnId });
    if (done && !done.interrupted) this.composer.tell("Nothing was running any more.");
    this.#settle();
  }

  #decide(toolUseId, verdict, reason) {
    return this.link.decide(this.outline.sessionId, this.#responses(toolUseId, verdict, reason), this.caller);
  }

  #responses(toolUseId, decision, reason) {
    return [{ tool_use_id: toolUseId, decision, ...(reason ? { reason } : {}) }];
  }

  async #act(tool, args) {
    this.composer.tell("");
    try {
      return await this.link.call(tool, { session_id: this.outline.sessionId, ...args });
    } catch (problem) {
      this.composer.tell(problem.words ?? String(problem));
      return null;
    }
  }

  // ── keys ──

  #key(event) {
    if (event.ctrlKey || event.metaKey || event.altKey || event.target.closest("input, textarea, select")) return;
    const actions = {
      j: () => this.#step(1),
      k: () => this.#step(-1),
      G: () => this.following.toEnd(),
      "/": () => this.composer.focus(),
      u: () => this.node.querySelector("nav a").click(),
    };
    const action = actions[event.key];
    if (!action) return;
    event.preventDefault();
    action();
  }

  // To the next turn, or the one before.
  #step(by) {
    const turns = [...this.turns.querySelectorAll(".turn")];
    const at = turns.indexOf(document.activeElement);
    const edge = this.node.querySelector(".bar").offsetHeight + 8;
    const seen = turns.findIndex((turn) => turn.getBoundingClientRect().bottom > edge);
    const wanted = turns[Math.min(turns.length - 1, Math.max(0, at < 0 ? seen : at + by))];
    wanted?.focus({ preventScroll: true });
    wanted?.scrollIntoView({ block: "start" });
  }
}

const SPOKEN = {
  turn_started: "A turn has started.",
  turn_waiting: "The turn is waiting.",
  turn_suspended: "The turn is suspended.",
  turn_completed: "The turn has ended.",
  turn_interrupted: "The turn was interrupted.",
  turn_limit_reached: "The turn is at a limit.",
  turn_failed: "The turn has failed.",
};

const HAPPENED = {
  session_created: ({ forked_from: fork }) => (fork ? `Forked from ${shortId(fork.session_id)} at event ${fork.at_seq}.` : ""),
  session_archived: () => "Archived.",
  session_restored: () => "Restored from the archive.",
  session_forked: ({ fork_id: id, at_seq: seq }) => `Forked as ${shortId(id)} at event ${seq}.`,
  settings_changed: ({ settings, title, labels }) => {
    const what = [title !== undefined && "title", labels && "labels", settings && "settings"].filter(Boolean);
    if (!what.length) return ""; // a fork that changes nothing
    return `Changed: ${what.join(", ")}${settings?.model ? ` (model ${settings.model})` : ""}.`;
  },
};
