// All sessions, newest activity first, always as they are now.

import { element, keyWords, say, show } from "./dom.js";
import { Row } from "./rows.js";
import { count } from "./words.js";

const REFRESH_MS = 3000;
const TYPING_MS = 150;
const PAGE = 50;
const PAGE_MAX = 200;
const STATES = [["", "All"], ["running", "Running"], ["waiting", "Waiting"], ["idle", "Idle"]];

export class ListPage {
  constructor(link, open) {
    this.link = link;
    this.open = open;
    this.rows = new Map();
    this.state = "";
    this.archived = false;
    this.wanted = PAGE;
    this.asked = 0;
    this.older = []; // pages beyond what a refresh brings anew
    this.stopping = new AbortController();
    this.#build();
  }

  start() {
    const { signal } = this.stopping;
    document.addEventListener("keydown", (event) => this.#key(event), { signal });
    document.addEventListener("visibilitychange", () => !document.hidden && this.refresh(), { signal });
    window.addEventListener("focus", () => this.refresh(), { signal });
    this.clock = setInterval(() => !document.hidden && this.refresh(), REFRESH_MS);
    this.#introduce();
    return this.refresh();
  }

  close() {
    this.stopping.abort();
    clearInterval(this.clock);
  }

  #build() {
    const again = () => {
      clearTimeout(this.typing);
      this.typing = setTimeout(() => this.#anew(), TYPING_MS);
    };
    this.filter = element("input", { type: "search", "aria-label": "Filter", placeholder: "Search titles, labels, messages", input: again, autocomplete: "off", spellcheck: "false" });
    this.chips = STATES.map(([state, label]) =>
      element("button", { type: "button", class: "chip", "data-state": state, "aria-pressed": String(state === ""), click: () => this.#choose(state) }, label),
    );
    this.shelf = element("button", { type: "button", class: "chip", "aria-pressed": "false", click: () => this.#turnShelf() }, "Archived");
    this.list = element("ul", { class: "sessions", "aria-label": "Sessions" });
    this.empty = element("p", { class: "empty", hidden: true });
    this.more = element("button", { type: "button", class: "more", hidden: true, click: () => this.#more() }, "Load more");
    this.line = element("span", { class: "line" });
    this.about = element("p", { class: "facts" });
    this.spoken = element("p", { class: "aside", role: "status", "aria-live": "polite" });
    const head = element(
      "header",
      { class: "bar" },
      element("div", { class: "head" }, element("h1", {}, "Sessions"), this.line),
      this.about,
      element("div", { class: "tools", role: "search" }, this.filter, element("div", { class: "chips", role: "group", "aria-label": "State" }, ...this.chips, this.shelf)),
    );
    const keys = element("p", { class: "keys" }, ...keyWords([["j", "k", "move"], ["Enter", "open"], ["/", "filter"]]));
    this.node = element("div", { class: "list" }, head, element("main", { id: "main" }, this.empty, this.list, this.more), keys, this.spoken);
    document.title = "Sessions · Meerkat";
  }

  async #introduce() {
    try {
      const about = await this.link.call("meerkat_capabilities");
      const who = about.caller?.principal ? `as ${about.caller.principal}` : "";
      say(this.about, [`Realm ${about.realm_id}`, about.backend, who].filter(Boolean).join("  ·  "));
    } catch {
      // the list itself says what is wrong
    }
  }

  #arguments() {
    const query = this.filter.value.trim();
    return {
      ...(query ? { query } : {}),
      ...(this.state ? { state: this.state } : {}),
      ...(this.archived ? { archived: true } : {}),
    };
  }

  async refresh() {
    const asked = ++this.asked;
    try {
      const page = await this.link.call("meerkat_sessions", { ...this.#arguments(), limit: Math.min(this.wanted, PAGE_MAX) });
      if (asked !== this.asked) return; // somebody has asked for something else since
      if (!this.older.length) this.next = page.next_cursor;
      this.#show(page.sessions);
      say(this.line, "");
    } catch (problem) {
      if (asked === this.asked && problem.status !== 401) say(this.line, problem.code === "unreachable" ? "Reconnecting…" : problem.words ?? String(problem));
    }
  }

  #show(head) {
    const seen = new Set(head.map((session) => session.session_id));
    const sessions = [...head, ...this.older.filter((session) => !seen.has(session.session_id))];
    const nowMs = Date.now() + this.link.skewMs;
    const focused = document.activeElement;
    let place = this.list.firstChild;
    for (const session of sessions) {
      const row = this.#row(session.session_id);
      row.show(session, nowMs);
      if (row.node === place) place = place.nextSibling;
      else this.list.insertBefore(row.node, place);
      seen.add(session.session_id);
    }
    for (const [id, row] of this.rows) {
      if (seen.has(id)) continue;
      row.node.remove();
      this.rows.delete(id);
    }
    if (focused !== document.activeElement && focused.isConnected) focused.focus({ preventScroll: true });
    this.#tell(sessions.length);
  }

  #tell(shown) {
    const filtered = Object.keys(this.#arguments()).length > 0;
    say(this.empty, filtered ? "No session is like that." : "No sessions yet. An agent starts one with meerkat_run.");
    show(this.empty, shown === 0);
    show(this.more, Boolean(this.next));
    if (filtered) say(this.spoken, count(shown, "session"));
  }

  #row(id) {
    if (!this.rows.has(id)) this.rows.set(id, new Row(this.link.href(id), (event) => this.open(event, id)));
    return this.rows.get(id);
  }

  async #more() {
    if (this.wanted < PAGE_MAX) {
      this.wanted += PAGE;
      return this.refresh();
    }
    const page = await this.link.call("meerkat_sessions", { ...this.#arguments(), cursor: this.next, limit: PAGE });
    this.older.push(...page.sessions);
    this.next = page.next_cursor;
    return this.refresh();
  }

  // Something else is asked for: begin at the top.
  #anew() {
    Object.assign(this, { older: [], wanted: PAGE, next: null });
    return this.refresh();
  }

  #choose(state) {
    this.state = state;
    this.chips.forEach((chip) => chip.setAttribute("aria-pressed", String(chip.dataset.state === state)));
    this.#anew();
  }

  #turnShelf() {
    this.archived = !this.archived;
    this.shelf.setAttribute("aria-pressed", String(this.archived));
    this.#anew();
  }

  // ── keys ──

  #key(event) {
    if (event.ctrlKey || event.metaKey || event.altKey) return;
    const typing = event.target === this.filter;
    if (typing && event.key === "Escape") {
      this.filter.value = "";
      this.filter.blur();
      this.#anew();
      return;
    }
    const by = { ArrowDown: 1, ArrowUp: -1, ...(typing ? {} : { j: 1, k: -1 }) }[event.key];
    if (by) {
      event.preventDefault();
      this.#move(by);
    } else if (event.key === "/" && !typing) {
      event.preventDefault();
      this.filter.select();
    }
  }

  #move(by) {
    const links = [...this.list.querySelectorAll("a.row")];
    const at = links.indexOf(document.activeElement);
    if (at === 0 && by < 0) return this.filter.focus();
    return links[Math.max(0, Math.min(links.length - 1, at + by))]?.focus();
  }
}
