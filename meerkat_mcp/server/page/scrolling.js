// Staying at the end while somebody reads there, and nowhere else; and work done a frame at a time.

import { show } from "./dom.js";

const NEAR_PX = 60;
const HIDDEN_INTERVAL_MS = 250;
const FRAME_MS_MAX = 12;

export class Following {
  // `jump` is the button that leads back to the end.
  constructor(jump) {
    this.jump = jump;
    this.pinned = true;
    this.y = 0;
    window.addEventListener("scroll", () => this.#scrolled(), { passive: true });
    new ResizeObserver(() => this.settle()).observe(document.body);
    document.addEventListener("click", (event) => this.#opens(event));
    jump.addEventListener("click", () => this.toEnd());
  }

  // The page grew: go with it, or say that there is more.
  settle() {
    if (this.pinned) window.scrollTo(0, document.documentElement.scrollHeight);
    show(this.jump, !this.pinned && !this.#atEnd());
  }

  toEnd() {
    this.pinned = true;
    this.settle();
  }

  // Who opens something wants to read it, not to be taken to the end.
  #opens(event) {
    if (event.target.closest?.("summary")) this.pinned = false;
  }

  #atEnd() {
    return document.documentElement.scrollHeight - window.innerHeight - window.scrollY < NEAR_PX;
  }

  // Only going up lets go of the end: growing moves it away as well.
  #scrolled() {
    const y = window.scrollY;
    if (this.#atEnd()) this.pinned = true;
    else if (y < this.y - 2) this.pinned = false;
    this.y = y;
    show(this.jump, !this.pinned);
  }
}

// Takes things one by one, as many as fit into a frame; a page that nobody sees has no frames.
export class Frames {
  constructor(take, after) {
    this.take = take;
    this.after = after;
    this.queue = [];
    this.at = 0;
    this.planned = false;
  }

  add(things) {
    for (const thing of things) this.queue.push(thing);
    this.#plan();
  }

  #plan() {
    if (this.planned) return;
    this.planned = true;
    if (document.hidden) setTimeout(() => this.#run(), HIDDEN_INTERVAL_MS);
    else requestAnimationFrame(() => this.#run());
  }

  #run() {
    this.planned = false;
    const until = performance.now() + FRAME_MS_MAX;
    while (this.at < this.queue.length && performance.now() < until) this.take(this.queue[this.at++]);
    if (this.at === this.queue.length) [this.queue, this.at] = [[], 0];
    this.after();
    if (this.queue.length) this.#plan();
  }
}
