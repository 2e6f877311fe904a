// The page in a host, as an MCP App: the list, or the session that a tool's result is about.

import { element } from "./dom.js";
import { HostLink } from "./host.js";
import { ListPage } from "./list.js";
import { SessionPage } from "./session.js";

const host = new HostLink();
let shown = { id: null, page: null };

function place(id, page) {
  shown.page?.close();
  shown = { id, page };
  document.body.replaceChildren(page.node);
}

function showList() {
  const page = new ListPage(host, (event, id) => {
    event.preventDefault();
    showSession(id);
  });
  place("", page);
  page.start();
}

function showSession(id) {
  if (shown.id === id) return;
  const back = (event) => {
    event.preventDefault();
    showList();
  };
  const page = new SessionPage(host, id, element("a", { href: "#", click: back }, "‹ Sessions"));
  place(id, page);
  page.open();
}

host.shown = showSession;
document.addEventListener("click", (event) => {
  const link = event.target.closest?.('a[target="_blank"]');
  if (!link) return;
  event.preventDefault(); // a frame may not open windows, its host may
  host.openLink(link.href);
});
host.meet().then(() => shown.page ?? showList());
