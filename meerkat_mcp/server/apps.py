"""The watch page as an MCP App: a host that can show one puts it beside the answer of a tool."""

from mcp.server.apps import Apps

from meerkat_mcp.domain.messages import JsonObject
from meerkat_mcp.server import page

WATCH_URI = "ui://meerkat/watch.html"

SHOWN_BY: JsonObject = {"ui": {"resourceUri": WATCH_URI}}
"""The `_meta` of a tool whose result the page shows."""


def watch_app() -> Apps:
    """The extension with the page in it. It needs no network of its own: the host passes its tool calls on."""
    apps = Apps()
    apps.add_html_resource(
        WATCH_URI,
        page.document(),
        name="watch",
        title="Watch sessions",
        description="Sessions of this realm, and one of them as it works.",
        prefers_border=True,
    )
    return apps
