// A little Markdown, built from nodes: fences, headings, lists, quotes, tables as they are, code, bold, links.
// What it does not know stays text. Nothing here makes markup from data.

import { element } from "./dom.js";

const FENCE = /^\s{0,3}(```+|~~~+)\s*([\w+#.-]*)/;
const HEADING = /^(#{1,6})\s+(.*?)\s*#*$/;
const ITEM = /^(\s*)([-*+]|\d{1,9}[.)])\s+(.*)$/;
const RULE = /^\s{0,3}([-*_])(\s*\1){2,}\s*$/;
const INLINE = /(`+)(.+?)\1|\*\*(?=\S)(.+?\S|\S)\*\*|\[([^\]\n]+)\]\(([^()\s]+)\)|(https?:\/\/[^\s<>"'`]+[^\s<>"'`.,;:!?)\]}])/gs;
const INLINE_CHARS_MAX = 8000;

export function markdown(source) {
  const made = document.createDocumentFragment();
  const lines = source.split("\n");
  let at = 0;
  while (at < lines.length) {
    const block = BLOCKS.find(({ begins }) => begins(lines[at])) ?? PARAGRAPH;
    at = block.take(lines, at, made);
  }
  return made;
}

const PARAGRAPH = {
  take(lines, at, into) {
    let end = at + 1;
    while (end < lines.length && lines[end].trim() && !BLOCKS.some(({ begins }) => begins(lines[end]))) end++;
    into.append(element("p", {}, ...inline(lines.slice(at, end).join("\n"))));
    return end;
  },
};

const BLOCKS = [
  { begins: (line) => !line.trim(), take: (lines, at) => at + 1 },
  { begins: (line) => FENCE.test(line), take: fence },
  {
    begins: (line) => HEADING.test(line),
    take(lines, at, into) {
      const [, marks, words] = HEADING.exec(lines[at]);
      into.append(element("p", { class: "heading", role: "heading", "aria-level": marks.length + 2 }, ...inline(words)));
      return at + 1;
    },
  },
  {
    begins: (line) => RULE.test(line),
    take(lines, at, into) {
      into.append(element("hr"));
      return at + 1;
    },
  },
  { begins: (line) => ITEM.test(line), take: list },
  {
    begins: (line) => line.startsWith(">"),
    take(lines, at, into) {
      const end = ending(lines, at, (line) => line.startsWith(">"));
      const inner = lines.slice(at, end).map((line) => line.replace(/^>\s?/, ""));
      into.append(element("blockquote", {}, markdown(inner.join("\n"))));
      return end;
    },
  },
  {
    begins: (line) => /^\s*\|.*\|\s*$/.test(line),
    take(lines, at, into) {
      const end = ending(lines, at, (line) => /^\s*\|.*\|\s*$/.test(line));
      into.append(element("pre", { class: "table", tabindex: "0" }, lines.slice(at, end).join("\n")));
      return end;
    },
  },
];

function ending(lines, at, goes) {
  let end = at;
  while (end < lines.length && goes(lines[end])) end++;
  return end;
}

function fence(lines, at, into) {
  const [, marks, language] = FENCE.exec(lines[at]);
  let end = at + 1;
  while (end < lines.length && !lines[end].trim().startsWith(marks)) end++;
  const code = element("code", {}, lines.slice(at + 1, end).join("\n"));
  into.append(element("pre", { tabindex: "0", "data-language": language || null }, code));
  return end + 1;
}

function list(lines, at, into) {
  const [, base, mark] = ITEM.exec(lines[at]);
  const ordered = /\d/.test(mark);
  const made = element(ordered ? "ol" : "ul", ordered ? { start: parseInt(mark, 10) } : {});
  let end = at;
  while (end < lines.length) {
    const item = ITEM.exec(lines[end]);
    if (!item || item[1].length < base.length) break;
    if (item[1].length > base.length + 1 && made.lastChild) {
      end = list(lines, end, made.lastChild);
      continue;
    }
    if (/\d/.test(item[2]) !== ordered) break;
    const rest = ending(lines, end + 1, (line) => line.trim() && /^\s/.test(line) && !ITEM.test(line));
    const words = [item[3], ...lines.slice(end + 1, rest).map((line) => line.trim())].join("\n");
    made.append(element("li", {}, ...inline(words)));
    end = rest;
  }
  into.append(made);
  return end;
}

function inline(words) {
  if (words.length > INLINE_CHARS_MAX) return [words]; // looking for pairs takes the square of it
  const made = [];
  let at = 0;
  for (const found of words.matchAll(INLINE)) {
    const [whole, , code, bold, label, target, bare] = found;
    made.push(words.slice(at, found.index));
    if (code !== undefined) made.push(element("code", {}, code));
    else if (bold !== undefined) made.push(element("strong", {}, ...inline(bold)));
    else made.push(...link(whole, label, target ?? bare));
    at = found.index + whole.length;
  }
  made.push(words.slice(at));
  return made.filter(Boolean);
}

// Where a link leads is always there to read: its words may say something else.
function link(whole, label, target) {
  if (!/^https?:\/\//i.test(target)) return [whole];
  const made = element("a", { href: target, rel: "noopener noreferrer nofollow", target: "_blank" }, label ?? target);
  return label && label !== target ? [made, element("span", { class: "target" }, ` (${target})`)] : [made];
}
