// What can go wrong between the page and the server, with what to do about it.

export class Problem extends Error {
  constructor({ message, code = "", hint = "", status = 0, scope = "", session_id: sessionId = "" }) {
    super(message);
    Object.assign(this, { code, hint, status, scope, sessionId });
  }

  get words() {
    const missing = this.scope && !this.hint.includes(this.scope) ? `Your token lacks the scope ${this.scope}.` : "";
    return [this.message, missing, this.hint].filter(Boolean).join(" ");
  }
}

// A tool's error is one text: `{"error": {code, message, hint}}`.
export function toolProblem(result) {
  const text = result.content?.find((block) => block.type === "text")?.text ?? "";
  try {
    return new Problem(JSON.parse(text).error);
  } catch {
    return new Problem({ message: text || "The call failed, and does not say why." });
  }
}

// What a tool gives back. Raises a Problem where it failed.
export function taken(result) {
  if (result.isError) throw toolProblem(result);
  if (result.structuredContent) return result.structuredContent;
  const text = result.content?.find((block) => block.type === "text")?.text ?? "{}";
  try {
    return JSON.parse(text);
  } catch {
    throw new Problem({ message: "The answer cannot be read." });
  }
}
