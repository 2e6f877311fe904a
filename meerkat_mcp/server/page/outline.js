// What a session's events add up to, for its head: no elements here.

const OPENING_CHARS = 80;

export class Outline {
  constructor() {
    this.seq = 0;
    this.sessionId = "";
    this.title = "";
    this.opening = "";
    this.labels = {};
    this.settings = {};
    this.model = "";
    this.provider = "";
    this.forkedFrom = null;
    this.state = "idle";
    this.turnId = null;
    this.turns = 0;
    this.usage = { input_tokens: 0, output_tokens: 0, cost_usd: null };
    this.queue = new Map();
  }

  // Take the next event; false when it was taken before.
  take(event) {
    if (event.seq <= this.seq) return false;
    this.seq = event.seq;
    this.sessionId = event.session_id;
    OUTLINED[event.type]?.(this, event);
    return true;
  }

  // What a person calls it.
  get name() {
    return this.title || this.opening;
  }

  get active() {
    return this.state === "running" || this.state === "stopping";
  }
}

// How a session without a title is called: as the list calls it.
function opening(prompt) {
  const line = prompt.slice(0, 10 * OPENING_CHARS).trim().split(/\s+/).join(" ");
  return line.length <= OPENING_CHARS ? line : `${line.slice(0, OPENING_CHARS - 1).trimEnd()}…`;
}

const over = (outline) => Object.assign(outline, { state: "idle", turnId: null });

const OUTLINED = {
  session_created(outline, event) {
    const { title, labels, settings, forked_from: forkedFrom } = event;
    Object.assign(outline, { title: title ?? "", labels: labels ?? {}, settings, forkedFrom: forkedFrom ?? null });
    outline.model = settings.model ?? "";
    outline.provider = settings.provider ?? "";
  },
  settings_changed(outline, event) {
    outline.title = event.title ?? outline.title;
    outline.labels = event.labels ?? outline.labels;
    if (event.settings) {
      outline.settings = event.settings;
      outline.model = event.settings.model ?? outline.model;
    }
  },
  turn_started(outline, event) {
    if (event.kind === "prompt") outline.opening ||= opening(event.prompt);
    Object.assign(outline, { state: "running", turnId: event.turn_id, turns: outline.turns + 1 });
    outline.queue.delete(event.turn_id);
  },
  turn_resumed: (outline) => (outline.state = "running"),
  turn_waiting: (outline) => (outline.state = "waiting"),
  turn_suspended: (outline) => (outline.state = "suspended"),
  interrupt_requested: (outline) => (outline.state = "stopping"),
  turn_completed: over,
  turn_interrupted: over,
  turn_limit_reached: over,
  turn_failed: over,
  session_archived: (outline) => (outline.state = "archived"),
  session_restored: (outline) => (outline.state = "idle"),
  prompt_queued(outline, event) {
    const queued = [event.turn_id, event];
    outline.queue = new Map(event.first ? [queued, ...outline.queue] : [...outline.queue, queued]);
  },
  prompt_dropped: (outline, event) => outline.queue.delete(event.turn_id),
  step_started(outline, event) {
    if (event.purpose !== "summary") Object.assign(outline, { model: event.model, provider: event.provider });
  },
  step_completed(outline, { usage }) {
    outline.usage.input_tokens += usage.input_tokens;
    outline.usage.output_tokens += usage.output_tokens;
    if (usage.cost_usd !== undefined && usage.cost_usd !== null) outline.usage.cost_usd = (outline.usage.cost_usd ?? 0) + usage.cost_usd;
  },
};
