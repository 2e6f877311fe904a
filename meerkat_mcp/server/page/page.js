// The page in a browser: its address says what to show.

import { element } from "./dom.js";
import { HttpLink } from "./http.js";
import { ListPage } from "./list.js";
import { SessionPage } from "./session.js";
import { askForToken } from "./token.js";

const root = document.querySelector('meta[name="meerkat-root"]').content;
const link = new HttpLink(root);
let page = null;

link.needsToken = (refused) => {
  page?.close();
  askForToken(link, refused);
};

const sessionId = decodeURIComponent(/\/sessions\/([^/]+)\/?$/.exec(window.location.pathname)?.[1] ?? "");
if (sessionId) {
  page = new SessionPage(link, sessionId, element("a", { href: link.home }, "‹ Sessions"));
  document.body.replaceChildren(element("a", { class: "skip", href: "#main" }, "Skip to the turns"), page.node);
  page.open();
} else {
  page = new ListPage(link, () => {});
  document.body.replaceChildren(element("a", { class: "skip", href: "#main" }, "Skip to the sessions"), page.node);
  page.start();
}
