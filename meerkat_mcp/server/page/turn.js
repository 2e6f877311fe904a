// A turn: its prompt, its steps with what they said and called, what went wrong on the way, and how it ended.

import { ReasoningBlock, TextBlock } from "./blocks.js";
import { CallView } from "./calls.js";
import { element, say, show } from "./dom.js";
import { markdown } from "./markdown.js";
import { elapsed, interruption, moment, pretty, spell, stopWords, tokens, usageWords } from "./words.js";

const ENDS = {
  turn_completed: "completed",
  turn_interrupted: "interrupted",
  turn_limit_reached: "limit",
  turn_failed: "failed",
};

class StepView {
  constructor(event, before) {
    this.facts = element("span", { class: "facts" });
    this.name = element("span");
    this.label = element("p", { class: "step-label" }, this.name, element("span", { class: "rule" }), this.facts);
    this.node = element("section", { class: "step" }, this.label);
    this.model = event.model;
    this.number = event.step;
    this.calls = null;
    this.open = {};
    const purpose = event.purpose === "summary" ? "summary for a compaction" : "";
    const model = event.model === before?.model ? "" : event.model;
    say(this.name, [`Step ${event.step}`, model, purpose].filter(Boolean).join(" · "));
  }

  piece(kind, text) {
    this.#block(kind).add(text);
  }

  complete(kind, text) {
    this.#block(kind).complete(text);
    delete this.open[kind];
  }

  call(view) {
    this.open = {};
    if (!this.calls) this.node.append((this.calls = element("ul", { class: "calls", "aria-label": "Tool calls" })));
    this.calls.append(view.node);
  }

  // The model is asked again: what this step said is void, and `why` is all that is left.
  clear(why) {
    this.open = {};
    this.calls = null;
    this.node.replaceChildren(...this.node.querySelectorAll(":scope > :is(.step-label, .note)"), why);
  }

  abandon() {
    Object.values(this.open).forEach((block) => block.abandon());
    this.open = {};
  }

  #block(kind) {
    if (!this.open[kind]) {
      const block = kind === "text" ? new TextBlock() : new ReasoningBlock();
      this.calls = null;
      this.open[kind] = block;
      this.node.append(block.node);
    }
    return this.open[kind];
  }
}

export class TurnView {
  constructor(number, event, asking) {
    this.id = event.turn_id;
    this.asking = asking;
    this.startedMs = event.timestamp_ms;
    this.steps = [];
    this.step = null;
    this.calls = new Map();
    this.usage = { input_tokens: 0, output_tokens: 0 };
    this.over = false;
    this.state = element("span", { class: "state" });
    this.facts = element("span", { class: "facts" });
    this.content = element("div", { class: "content" });
    this.name = event.kind === "compaction" ? `Turn ${number} · compaction` : `Turn ${number}`;
    const title = element("h2", { id: `turn-${number}` }, this.name);
    const time = element("time", { datetime: new Date(this.startedMs).toISOString() }, moment(this.startedMs));
    this.node = element(
      "article",
      { class: "turn", tabindex: "-1", "aria-labelledby": `turn-${number}` },
      element("header", {}, title, time, this.state, this.facts),
      this.content,
    );
    if (event.kind !== "compaction") this.prompt(event.prompt, event.principal);
    this.become("running");
  }

  become(state) {
    this.status = state;
    this.node.dataset.state = state;
    say(this.state, state === "completed" ? "" : state === "limit" ? "at a limit" : state);
    this.node.setAttribute("aria-busy", String(state === "running" || state === "stopping"));
  }

  prompt(text, principal) {
    if (!text) return;
    const by = principal ? element("span", { class: "by" }, principal) : "";
    this.content.append(element("div", { class: "prompt" }, by, element("div", { class: "words" }, text)));
  }

  note(kind, words, more = "") {
    const attributes = { class: `note ${kind}` };
    if (!more) return this.content.append(element("p", attributes, words));
    return this.content.append(element("details", attributes, element("summary", {}, words), more));
  }

  tick(nowMs) {
    if (this.over) return;
    this.#tally(elapsed(nowMs - this.startedMs));
    this.calls.forEach((call) => call.tick(nowMs));
  }

  // Take the next event of this turn.
  take(event) {
    this[event.type]?.(event);
    if (event.type in ENDS) this.#end(event);
  }

  step_started(event) {
    this.step?.abandon();
    this.step = new StepView(event, this.step);
    this.steps.push(this.step);
    show(this.step.label, this.steps.length > 1 || event.purpose === "summary");
    if (this.steps.length === 2) show(this.steps[0].label, true);
    this.content.append(this.step.node);
  }

  text_delta(event) {
    this.step?.piece("text", event.text);
  }

  text_complete(event) {
    this.step?.complete("text", event.text);
  }

  reasoning_delta(event) {
    this.step?.piece("reasoning", event.text);
  }

  reasoning_complete(event) {
    this.step?.complete("reasoning", event.text);
  }

  tool_call_requested(event) {
    const view = new CallView(event, this.asking);
    this.calls.set(event.tool_use_id, view);
    this.step?.call(view);
  }

  tool_execution_started(event) {
    this.calls.get(event.tool_use_id)?.start(event);
  }

  tool_execution_completed(event) {
    this.calls.get(event.tool_use_id)?.complete(event);
  }

  approval_resolved(event) {
    this.calls.get(event.tool_use_id)?.resolve(event);
  }

  step_completed(event) {
    for (const [name, value] of Object.entries(event.usage)) this.usage[name] = (this.usage[name] ?? 0) + value;
    const facts = [
      `${tokens(event.usage.input_tokens)} in`,
      `${tokens(event.usage.output_tokens)} out`,
      spell(event.duration_ms),
    ];
    if (this.step) say(this.step.facts, facts.join(" · "));
    if (this.step && event.answered_by) this.step.label.title = `Answered by ${event.answered_by}`;
    if (stopWords(event.stop_reason)) this.note("warning", [stopWords(event.stop_reason), event.detail].filter(Boolean).join(" "));
  }

  retrying(event) {
    const when = event.delay_s >= 0.1 ? ` in ${event.delay_s.toFixed(1)} s` : "";
    const words = `${event.message} Attempt ${event.attempt} of ${event.attempts_max}${when}.`;
    this.step?.clear(element("p", { class: "note warning" }, words));
    const failed = [...this.calls].filter(([, call]) => !this.node.contains(call.node));
    failed.forEach(([id]) => this.calls.delete(id));
  }

  output_rejected(event) {
    const asked = element("div", { class: "words" }, event.message);
    this.note("warning", `The answer does not fit the schema; the model is asked again (${event.attempt}).`, asked);
  }

  budget_warning(event) {
    this.note("warning", `Four fifths of ${event.budget} are used: ${event.used} of ${event.limit}.`);
  }

  tool_server_failed(event) {
    this.note("warning", `Tool server ${event.server}: ${event.message}`);
  }

  history_compacted(event) {
    const summary = element("div", { class: "text" }, markdown(event.summary));
    this.note("change", `History compacted: a summary stands for ${event.messages_replaced} messages.`, summary);
  }

  compaction_failed(event) {
    this.note("warning", `The history could not be summarised: ${event.error.message}`);
  }

  interrupt_requested() {
    this.become("stopping");
  }

  turn_waiting(event) {
    this.become("waiting");
    for (const { tool_use_id: id } of event.pending_tool_calls ?? []) this.calls.get(id)?.become("caller");
    for (const { tool_use_id: id } of event.pending_approvals ?? []) this.calls.get(id)?.ask();
  }

  turn_suspended() {
    this.step?.abandon();
    this.become("suspended");
    this.note("change", "Suspended: the process that ran it had to end. Another one takes it up from here.");
  }

  turn_resumed(event) {
    this.become("running");
    this.prompt(event.prompt, event.principal);
  }

  turn_completed(event) {
    if (event.structured_output === undefined) return;
    const value = element("pre", { tabindex: "0" }, pretty(event.structured_output));
    this.note("change", "Structured output", value);
  }

  turn_interrupted(event) {
    this.note("ended", interruption(event.reason));
  }

  turn_limit_reached(event) {
    this.note("warning", `At the limit ${event.limit}: ${event.used} of ${event.maximum}.`);
  }

  turn_failed(event) {
    this.note("error", [event.error.message, event.error.hint].filter(Boolean).join(" "));
  }

  #end(event) {
    this.over = true;
    this.step?.abandon();
    this.calls.forEach((call) => call.end());
    this.become(ENDS[event.type]);
    this.#tally(spell(event.timestamp_ms - this.startedMs));
  }

  #tally(time) {
    say(this.facts, [time, ...usageWords(this.usage)].join(" · "));
  }
}
