// Where a person says something to a session: the next prompt, or one that waits for its turn.

import { element, keyWords, say, show } from "./dom.js";

const SHORTCUTS = [["j", "k", "turns"], ["/", "prompt"], ["u", "sessions"]];

const PLACEHOLDERS = {
  idle: "Say what comes next",
  running: "Say what comes after this turn",
  stopping: "Say what comes after this turn",
  waiting: "Say what comes after this turn",
  suspended: "Say what comes after this turn",
};

export class Composer {
  // `send(prompt, key)` resolves when the server has taken it.
  constructor(send) {
    this.sending = send;
    this.sent = { text: "", key: "" };
    this.field = element("textarea", { rows: "1", "aria-label": "Prompt", input: () => this.#fit() });
    this.button = element("button", { type: "submit", class: "main" }, "Send");
    this.hint = element("span");
    this.problem = element("p", { class: "problem", role: "alert", hidden: true });
    this.form = element(
      "form",
      { class: "composer", "aria-label": "Prompt", submit: (event) => this.#submit(event) },
      this.problem,
      element("div", { class: "field" }, this.field, this.button),
      element("p", { class: "hint" }, this.hint, element("span", { class: "shortcuts" }, ...keyWords(SHORTCUTS))),
    );
    this.field.addEventListener("keydown", (event) => {
      if (event.key === "Enter" && (event.ctrlKey || event.metaKey)) this.#submit(event);
      if (event.key === "Escape") this.field.blur();
    });
    this.become("idle", "");
  }

  // Whether something can be said now; `refusal` says why not.
  become(state, refusal) {
    const reason = refusal || (state === "archived" ? "This session is archived: it can be read." : "");
    this.field.disabled = Boolean(reason);
    this.field.placeholder = reason || PLACEHOLDERS[state] || PLACEHOLDERS.idle;
    this.button.disabled = Boolean(reason) || this.busy === true;
    const queues = state !== "idle";
    say(this.button, queues ? "Queue" : "Send");
    const keys = /Mac|iPhone|iPad/.test(navigator.platform) ? "⌘ Enter" : "Ctrl+Enter";
    say(this.hint, reason ? "" : `${keys} ${queues ? "queues it for when this turn has ended" : "sends"}`);
  }

  tell(words) {
    say(this.problem, words);
    show(this.problem, Boolean(words));
  }

  focus() {
    this.field.focus();
  }

  async #submit(event) {
    event.preventDefault();
    const text = this.field.value.trim();
    if (!text || this.field.disabled || this.busy) return;
    if (this.sent.text !== text) this.sent = { text, key: randomKey() }; // the same again is not said twice
    this.busy = true;
    this.button.disabled = true;
    this.tell("");
    try {
      await this.sending(text, this.sent.key);
      this.sent = { text: "", key: "" };
      this.field.value = "";
    } catch (problem) {
      this.tell(problem.words ?? String(problem));
    }
    this.busy = false;
    this.button.disabled = this.field.disabled;
    this.#fit();
  }

  #fit() {
    this.field.style.height = "auto";
    this.field.style.height = `${this.field.scrollHeight + 2}px`;
  }
}

// `crypto.randomUUID` is missing where a page is not served over https.
function randomKey() {
  const bytes = crypto.getRandomValues(new Uint8Array(16));
  return `watch-${Array.from(bytes, (byte) => byte.toString(16).padStart(2, "0")).join("")}`;
}
