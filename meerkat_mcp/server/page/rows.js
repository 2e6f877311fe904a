// A row of the list: made once, then only what changed in it is written.

import { element, say, show } from "./dom.js";
import { ago, count, money, shortId, tokens } from "./words.js";

export class Row {
  constructor(href, open) {
    this.dot = element("span", { class: "dot" });
    this.title = element("span", { class: "title" });
    this.labels = element("span", { class: "labels" });
    this.matched = element("span", { class: "matched", hidden: true });
    this.state = element("span", { class: "state" });
    this.model = element("span", { class: "model" });
    this.turns = element("span", { class: "turns-count" });
    this.usage = element("span", { class: "usage" });
    this.cost = element("span", { class: "cost" });
    this.time = element("time", {});
    this.link = element(
      "a",
      { href, class: "row", click: open },
      this.dot,
      element("span", { class: "what" }, this.title, this.labels, this.matched),
      this.state,
      this.model,
      this.turns,
      this.usage,
      this.cost,
      this.time,
    );
    this.node = element("li", {}, this.link);
  }

  show(session, nowMs) {
    this.session = session;
    this.link.dataset.state = session.state;
    const name = session.title ?? session.opening;
    say(this.title, name ?? shortId(session.session_id));
    this.title.classList.toggle("untitled", !name);
    this.#label(Object.entries(session.labels ?? {}));
    say(this.matched, session.matched?.text ?? "");
    show(this.matched, Boolean(session.matched));
    say(this.state, session.state);
    say(this.model, session.model ?? "");
    say(this.turns, count(session.turns, "turn"));
    const used = session.usage.input_tokens + session.usage.output_tokens;
    say(this.usage, used ? `${tokens(used)} tok` : "");
    say(this.cost, session.usage.cost_usd ? money(session.usage.cost_usd) : "");
    this.link.title = session.session_id;
    this.time.dateTime = new Date(session.updated_ms).toISOString();
    this.tick(nowMs);
  }

  tick(nowMs) {
    say(this.time, ago(this.session.updated_ms, nowMs));
  }

  #label(labels) {
    const shown = labels.map(([key, value]) => `${key}=${value}`);
    if (shown.join("\n") === this.shown) return;
    this.shown = shown.join("\n");
    this.labels.replaceChildren(...shown.map((label) => element("span", { class: "label" }, label)));
    show(this.labels, shown.length > 0);
  }
}
