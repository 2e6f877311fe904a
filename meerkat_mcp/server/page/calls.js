// A tool call: its name and arguments at a glance, all of it when opened, and a yes or no where one is needed.

import { copyButton, element, say, show } from "./dom.js";
import { approver, elapsed, legible, pretty, spell } from "./words.js";

const PREVIEW_CHARS = 160;

const WORDS = {
  asked: "",
  running: "running",
  done: "",
  failed: "failed",
  approval: "needs a yes",
  approved: "approved",
  denied: "denied",
  caller: "waits for its caller",
  dropped: "not made",
};

export class CallView {
  // `decide(verdict, reason)` brings a person's decision to the server; `mayApprove()` says whether it would be taken.
  constructor(event, { decide, mayApprove, command }) {
    this.id = event.tool_use_id;
    this.args = event.malformed ?? event.args;
    this.asking = { decide, mayApprove, command };
    this.result = null;
    this.startedMs = 0;
    this.state = "";
    this.word = element("span", { class: "word" });
    this.time = element("span", { class: "fact" });
    this.body = element("div", { class: "body" });
    this.question = element("div", { class: "question", hidden: true });
    const preview = typeof this.args === "string" ? this.args : inlineArgs(this.args);
    this.details = element(
      "details",
      { toggle: () => this.#fill() },
      element(
        "summary",
        {},
        element("span", { class: "dot" }),
        element("span", { class: "name" }, event.tool_name),
        element("span", { class: "preview" }, preview.slice(0, PREVIEW_CHARS)),
        this.word,
        this.time,
      ),
      this.body,
    );
    this.node = element("li", { class: "call" }, this.details, this.question);
    this.become("asked");
  }

  become(state) {
    this.state = state;
    this.node.dataset.state = state;
    say(this.word, WORDS[state]);
    show(this.question, state === "approval");
  }

  start(event) {
    this.startedMs = event.timestamp_ms;
    this.become("running");
  }

  tick(nowMs) {
    if (this.state === "running") say(this.time, elapsed(nowMs - this.startedMs));
  }

  complete(event) {
    this.result = event;
    const denied = this.state === "denied";
    this.become(denied ? "denied" : event.is_error ? "failed" : "done");
    say(this.time, event.duration_ms === undefined || denied ? "" : spell(event.duration_ms));
    this.#fill();
  }

  // The turn waits for a yes, which is a person's to give.
  ask() {
    if (!this.question.firstChild) this.#pose();
    this.become("approval");
    this.details.open = true;
  }

  resolve(event) {
    this.verdict = event;
    this.become(event.decision === "deny" ? "denied" : "approved");
    this.details.open = false;
    this.#fill();
  }

  // The turn is over: what has not come will not come.
  end() {
    if (["asked", "running", "approval", "approved", "caller"].includes(this.state)) this.become("dropped");
  }

  #pose() {
    const said = element("p", { class: "said", role: "status" });
    const reason = element("input", { type: "text", "aria-label": "Reason for a no", placeholder: "Reason for a no" });
    const decide = async (verdict, pressed) => {
      buttons.forEach((button) => (button.disabled = true));
      say(said, "");
      try {
        await this.asking.decide(this.id, verdict, verdict === "deny" ? reason.value : "");
      } catch (problem) {
        say(said, problem.words ?? String(problem));
        buttons.forEach((button) => (button.disabled = false));
        pressed.focus();
      }
    };
    const deny = element("button", { type: "button", click: () => decide("deny", deny) }, "Deny");
    const approve = element("button", { type: "button", class: "main", click: () => decide("approve", approve) }, "Approve");
    const buttons = this.asking.mayApprove() ? [approve, deny] : [deny];
    this.question.append(element("div", { class: "row" }, ...buttons, reason), said);
    if (!this.asking.mayApprove()) {
      const command = this.asking.command();
      this.question.append(
        element("p", {}, "A yes is given on the command line here, not through MCP:"),
        element("p", { class: "command" }, element("code", {}, command), copyButton("Copy the command", () => command)),
      );
    }
  }

  // Most calls are never opened: their contents are put in when one is.
  #fill() {
    if (!this.details.open) return;
    const parts = [part("Arguments", typeof this.args === "string" ? this.args : pretty(this.args))];
    if (this.verdict) {
      const { decision, by, reason } = this.verdict;
      const verdict = `${decision === "deny" ? "Denied" : "Approved"} ${approver(by)}${reason ? `: ${reason}` : "."}`;
      parts.push(element("p", { class: "verdict" }, verdict));
    }
    if (this.result) {
      parts.push(part(this.result.is_error ? "Error" : "Result", legible(this.result.content)));
      for (const image of this.result.images ?? []) {
        parts.push(element("p", { class: "verdict" }, `Picture: ${image.mime_type}, ${image.bytes.toLocaleString()} bytes.`));
      }
    }
    this.body.replaceChildren(...parts);
  }
}

function inlineArgs(args) {
  const pairs = Object.entries(args);
  return pairs.map(([name, value]) => `${name}: ${typeof value === "string" ? value : JSON.stringify(value)}`).join(", ");
}

function part(label, text) {
  return element(
    "section",
    { "aria-label": label },
    element("header", {}, element("span", { class: "label" }, label), copyButton(`Copy ${label.toLowerCase()}`, () => text)),
    element("pre", { tabindex: "0" }, text),
  );
}
