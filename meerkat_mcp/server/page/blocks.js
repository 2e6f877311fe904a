// What a model says: text and reasoning, piece by piece, then whole.

import { element, say } from "./dom.js";
import { markdown } from "./markdown.js";
import { count } from "./words.js";

const MARKDOWN_CHARS_MAX = 100_000;
const PART_CHARS = 4000;

// Pieces go to the end of the last text node. A long text goes on in a new part after a line's end, so that a piece
// costs the layout of a part, not of the whole.
class Pieces {
  constructor(into) {
    this.into = into;
    this.part = null;
  }

  add(text) {
    if (!this.part) {
      this.part = document.createTextNode("");
      this.into.append(element("div", {}, this.part));
    }
    const cut = this.part.length + text.length > PART_CHARS ? text.lastIndexOf("\n") + 1 : 0;
    this.part.appendData(cut ? text.slice(0, cut) : text);
    if (!cut) return;
    this.part = null;
    if (cut < text.length) this.add(text.slice(cut));
  }
}

export class TextBlock {
  constructor() {
    this.node = element("div", { class: "text writing" });
    this.pieces = new Pieces(this.node);
  }

  add(text) {
    this.pieces.add(text);
  }

  complete(text) {
    this.node.className = "text";
    const whole = text.length > MARKDOWN_CHARS_MAX ? element("div", { class: "plain" }, text) : markdown(text);
    this.node.replaceChildren(whole);
  }

  // The turn ended before the text did: it stays in the log, and leaves what the model sees.
  abandon() {
    this.node.className = "text unfinished";
    this.node.title = "Unfinished: the model will not see this.";
  }
}

export class ReasoningBlock {
  constructor() {
    this.label = element("span", { class: "label" }, "Thinking");
    this.size = element("span", { class: "fact" });
    this.words = element("div", { class: "words" });
    this.node = element(
      "details",
      { class: "reasoning writing" },
      element("summary", {}, this.label, this.size),
      this.words,
    );
    this.pieces = new Pieces(this.words);
    this.written = 0;
  }

  add(text) {
    this.pieces.add(text);
    this.written += text.split(/\s+/).length - 1;
    say(this.size, count(Math.max(1, this.written), "word"));
  }

  complete(text) {
    this.node.className = "reasoning";
    this.words.replaceChildren(text);
    say(this.label, "Reasoning");
    say(this.size, count(text.split(/\s+/).filter(Boolean).length, "word"));
  }

  abandon() {
    this.node.className = "reasoning unfinished";
    say(this.label, "Reasoning, unfinished");
  }
}
