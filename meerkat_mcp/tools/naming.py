"""The names by which a model calls tools: `{server}__{tool}`, safe on every wire, never two tools under one name."""

import hashlib
import re

NAME_CHARS_MAX = 64  # OpenAI's and Anthropic's limit; Gemini's is wider
HASH_CHARS = 10  # 40 bits: nobody's tool gets another's name by accident

_PLAIN = re.compile(r"[A-Za-z_][A-Za-z0-9_-]*")  # Gemini wants no digit first
_HASHED = re.compile(rf"_[0-9a-f]{{{HASH_CHARS}}}\Z")


def tool_name(server: str, tool: str) -> str:
    """The name of a server's tool: the same every time, whatever other servers and tools there are.

    A name that must be changed or cut, or that could be read as another server's, ends with a hash of what it stands
    for. All others show by their first `__` where the server's name ends, so that no two of them are equal.
    """
    name = f"{server}__{tool}"
    ambiguous = not tool or "__" in server or server.endswith("_") or _HASHED.search(name)
    if not ambiguous and len(name) <= NAME_CHARS_MAX and _PLAIN.fullmatch(name):
        return name
    shown = re.sub(r"[^A-Za-z0-9_-]", "_", name)
    if not _PLAIN.fullmatch(shown):
        shown = f"_{shown}"
    digest = hashlib.sha256(f"{server}\0{tool}".encode("utf-8", "backslashreplace")).hexdigest()[:HASH_CHARS]
    return f"{shown[: NAME_CHARS_MAX - HASH_CHARS - 1]}_{digest}"
