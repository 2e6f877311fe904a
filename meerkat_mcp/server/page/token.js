// Asking for a token: it stays in this tab, and is forgotten with it.

import { element } from "./dom.js";

export function askForToken(link, refused) {
  if (document.querySelector(".token")) return;
  const field = element("input", { type: "password", id: "token", autocomplete: "off", required: true, spellcheck: "false" });
  const words = refused
    ? "The server did not take this token. It may have expired, or be meant for another server."
    : "This server asks who you are.";
  const form = element(
    "form",
    {
      submit: (event) => {
        event.preventDefault();
        link.token = field.value.trim();
        window.location.reload();
      },
    },
    element("h1", {}, "Token"),
    element("p", { id: "token-words", role: refused ? "alert" : null }, words),
    element("label", { for: "token" }, "Bearer token"),
    element("div", { class: "field" }, field, element("button", { type: "submit", class: "main" }, "Go on")),
    element("p", { class: "hint" }, "It is kept in this tab until you close it, and sent to this server alone."),
  );
  document.body.replaceChildren(element("main", { class: "token" }, form));
  field.focus();
}
