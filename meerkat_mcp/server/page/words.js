// Numbers, times and reasons as a person reads them.

export function count(number, one, many = `${one}s`) {
  return `${number.toLocaleString("en")} ${number === 1 ? one : many}`;
}

export function tokens(number) {
  if (number < 10_000) return number.toLocaleString("en");
  if (number < 1_000_000) return `${(number / 1000).toFixed(number < 100_000 ? 1 : 0)}k`;
  return `${(number / 1_000_000).toFixed(1)}M`;
}

export function money(usd) {
  if (usd === undefined || usd === null) return "";
  if (usd === 0) return "$0";
  return usd < 0.01 ? `$${usd.toPrecision(2)}` : `$${usd.toFixed(usd < 1 ? 3 : 2)}`;
}

export function spell(ms) {
  if (ms < 1000) return `${Math.max(0, Math.round(ms))} ms`;
  const seconds = ms / 1000;
  if (seconds < 10) return `${seconds.toFixed(1)} s`;
  return elapsed(ms);
}

// For a clock that runs: whole seconds, and no jumping about.
export function elapsed(ms) {
  const seconds = Math.max(0, Math.floor(ms / 1000));
  const [minutes, hours] = [Math.floor(seconds / 60), Math.floor(seconds / 3600)];
  if (hours) return `${hours} h ${String(minutes % 60).padStart(2, "0")} min`;
  if (minutes) return `${minutes} min ${String(seconds % 60).padStart(2, "0")} s`;
  return `${seconds} s`;
}

export function ago(ms, now) {
  const seconds = Math.max(0, (now - ms) / 1000);
  if (seconds < 5) return "now";
  if (seconds < 60) return `${Math.floor(seconds)} s ago`;
  if (seconds < 3600) return `${Math.floor(seconds / 60)} min ago`;
  if (seconds < 86_400) return `${Math.floor(seconds / 3600)} h ago`;
  if (seconds < 7 * 86_400) return `${Math.floor(seconds / 86_400)} d ago`;
  return new Date(ms).toLocaleDateString(undefined, { day: "numeric", month: "short", year: "numeric" });
}

export function moment(ms) {
  const at = new Date(ms);
  const time = at.toLocaleTimeString(undefined, { hour: "2-digit", minute: "2-digit" });
  if (at.toDateString() === new Date().toDateString()) return time;
  return `${at.toLocaleDateString(undefined, { day: "numeric", month: "short" })}, ${time}`;
}

export function shortId(id) {
  return id.length > 16 ? `${id.slice(0, 8)}…${id.slice(-4)}` : id;
}

export function usageWords(usage) {
  if (!usage || !(usage.input_tokens || usage.output_tokens)) return [];
  const said = [`${tokens(usage.input_tokens)} in`, `${tokens(usage.output_tokens)} out`];
  if (usage.cost_usd) said.push(money(usage.cost_usd));
  return said;
}

const INTERRUPTED = {
  requested: "Interrupted on request.",
  cancelled: "Interrupted: the caller cancelled its call.",
  superseded: "Interrupted: a new prompt took its place.",
  owner_lost: "Interrupted: the process that ran it died.",
  shutdown: "Interrupted: the process that ran it was told to end.",
  abandoned: "Interrupted: its session was archived or copied.",
};

export function interruption(reason) {
  return INTERRUPTED[reason] ?? `Interrupted: ${reason}.`;
}

const STOPPED = {
  refusal: "The model refused.",
  length: "The reply reached its longest length.",
  truncated: "The reply broke off.",
  context: "The model's window is full.",
};

export function stopWords(reason) {
  return STOPPED[reason] ?? "";
}

export function approver(by) {
  return { elicitation: "by the user", caller: "by the caller", operator: "by the operator" }[by] ?? `by ${by}`;
}

export function pretty(value) {
  return JSON.stringify(value, null, 2);
}

// A tool's answer: JSON is laid out, anything else stays as it came.
export function legible(content) {
  if (content.length < 200_000 && /^\s*[[{]/.test(content)) {
    try {
      return pretty(JSON.parse(content));
    } catch {
      return content;
    }
  }
  return content;
}
