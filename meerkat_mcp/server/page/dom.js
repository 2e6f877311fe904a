// Elements made from data: text only ever becomes text.

export function element(tag, attributes = {}, ...children) {
  const made = document.createElement(tag);
  for (const [name, value] of Object.entries(attributes)) {
    if (value === undefined || value === null || value === false) continue;
    if (typeof value === "function") made.addEventListener(name.replace(/^on/, ""), value);
    else made.setAttribute(name, value === true ? "" : value);
  }
  made.append(...children.filter((child) => child !== undefined && child !== null && child !== ""));
  return made;
}

// Writing the same text again would cost a layout, and lose a selection.
export function say(node, text) {
  if (node.textContent !== text) node.textContent = text;
}

export function show(node, shown) {
  if (node.hidden === shown) node.hidden = !shown;
}

// The clipboard needs https or localhost; elsewhere the older way still works.
export async function copy(text) {
  if (navigator.clipboard && window.isSecureContext) return navigator.clipboard.writeText(text);
  const field = element("textarea", { class: "aside", readonly: true });
  field.value = text;
  document.body.append(field);
  field.select();
  document.execCommand("copy");
  field.remove();
}

// A button that copies, and says for a moment that it did.
export function copyButton(label, textOf) {
  const button = element("button", { type: "button", class: "copy", "aria-label": label, title: label }, "Copy");
  let back = 0;
  button.addEventListener("click", async () => {
    await copy(textOf());
    clearTimeout(back);
    say(button, "Copied");
    back = setTimeout(() => say(button, "Copy"), 1500);
  });
  return button;
}

// Which keys do what: of each group the last is the word, the others are keys.
export function keyWords(groups) {
  return groups.map((group) => {
    const keys = group.slice(0, -1).map((key) => element("kbd", {}, key));
    return element("span", {}, ...keys, ` ${group.at(-1)}`);
  });
}
