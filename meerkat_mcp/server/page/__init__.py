"""The page to watch sessions: a shell, a style sheet, a few modules. Served as files, or as one document of an MCP App.

The modules import each other by name, one `import { … } from "./….js";` a statement, and export by `export` in front
of a declaration: so they can be joined without a build step (`document`).
"""

import re
from functools import cache
from importlib.resources import files

ICON = "icon.svg"
STYLE = "watch.css"
MODULES = (
    "dom.js",
    "words.js",
    "markdown.js",
    "problems.js",
    "sse.js",
    "http.js",
    "host.js",
    "blocks.js",
    "calls.js",
    "turn.js",
    "outline.js",
    "composer.js",
    "scrolling.js",
    "session.js",
    "rows.js",
    "list.js",
    "token.js",
    "page.js",
    "app.js",
)
"""In the order in which they can be joined: a module imports only from modules before it."""

_PAGE_ONLY = ("sse.js", "http.js", "token.js", "page.js")
_IMPORT = re.compile(r'^import \{[^}]*\} from "\./[a-z]+\.js";\n', re.MULTILINE)
_EXPORT = re.compile(r"^export (?=(async )?function|const|let|class)", re.MULTILINE)


@cache
def text(name: str) -> str:
    """A file of the page. Raises FileNotFoundError."""
    return files(__name__).joinpath(name).read_text(encoding="utf-8")


@cache
def document() -> str:
    """The page as one HTML document for an MCP App: it asks its host for everything, and loads nothing."""
    joined = "\n".join(_bare(text(name)) for name in MODULES if name not in _PAGE_ONLY)
    if "</script" in joined.lower() or "</style" in text(STYLE).lower():
        raise ValueError("A file of the page would end the element that it is put into.")
    return text("app.html").replace("/* style */", text(STYLE)).replace("/* script */", joined)


def _bare(module: str) -> str:
    return _EXPORT.sub("", _IMPORT.sub("", module))
