"""What sessions are found by: the words of their titles, labels, and of what was said in them.

The same in every backend, and nothing of it is any database's: text becomes words here, and an index is given words.
A query finds a session when each of its words begins a word of the title, the opening and the labels together, or of
one message. Case makes no difference, nor do accents: `Quebec` finds Québec. Letters, digits and `_` make words;
everything else stands between them. Chinese and Japanese put nothing between words, so there each character makes a
word together with the one that follows it: what stands in the middle of a sentence is found, by one character and by
many.
"""

import re
import unicodedata
from collections.abc import Iterable
from functools import lru_cache

from meerkat_mcp.domain import events as e
from meerkat_mcp.domain.recorded import Recorded

WORD_CHARS_MAX = 64
"""A longer word is found by its beginning."""
WORDS_MAX = 20_000
"""Of one message; what comes after is not found by."""
TEXT_CHARS_MAX = 1_000_000
"""Of one message, likewise."""
QUERY_WORDS_MAX = 16

SEARCHED = frozenset({"turn_started", "turn_resumed", "text_complete"})
"""The types of the events whose text is searched: prompts and replies."""

_ACCENTS = re.compile("[\u0300-\u036f]+")
_ASCII = re.compile(r"[a-z0-9_]+")
_UNSPACED = "\u3040-\u30ff\u3400-\u4dbf\u4e00-\u9fff\uf900-\ufaff\U00020000-\U000323af"
_WORD = re.compile(rf"(?=([{_UNSPACED}]{{1,2}}))[{_UNSPACED}]|([^\W{_UNSPACED}]+)")


def words(text: str, most: int = WORDS_MAX) -> list[str]:
    """The different words of a text, in order of their first place."""
    text = folded(text[:TEXT_CHARS_MAX])
    found = _ASCII.findall(text) if text.isascii() else [pair or word for pair, word in _WORD.findall(text)]
    return list(dict.fromkeys(word[:WORD_CHARS_MAX] for word in found))[:most]


def folded(text: str) -> str:
    """The text without what makes no difference: case, accents, ways to write the same letter."""
    if text.isascii():
        return text.lower()
    apart = unicodedata.normalize("NFKD", unicodedata.normalize("NFKD", text).casefold())
    return unicodedata.normalize("NFKC", _ACCENTS.sub("", apart))


def query_words(query: str) -> list[str]:
    """The words of a query; none when it has nothing that a word could begin with."""
    return words(query, QUERY_WORDS_MAX)


def said(recorded: Recorded) -> str:
    """The text of an event that is searched; empty for any other."""
    if recorded.type not in SEARCHED:
        return ""
    match event := recorded.event:
        case e.TurnStarted(kind="prompt") | e.TurnResumed():
            return event.prompt
        case e.TextComplete():
            return event.text
        case _:
            return ""


def begins_all(wanted: Iterable[str], there: Iterable[str]) -> bool:
    """Whether each wanted word begins one that is there."""
    return begun_in(tuple(f" {word}" for word in wanted), _spelled(there))


def spelled(text: str) -> str:
    """The words of a text, each after a space: where one of them begins so, there is a space and that beginning."""
    return _spelled(words(text))


@lru_cache(maxsize=64)
def beginnings(query: str) -> tuple[str, ...]:
    """What must be in what `spelled` gives for a query to find it."""
    return tuple(f" {word}" for word in query_words(query))


def begun_in(beginnings: tuple[str, ...], spelled: str) -> bool:
    """Whether a query with these beginnings finds what is spelled so; one of no words finds nothing."""
    return bool(beginnings) and all(beginning in spelled for beginning in beginnings)


def _spelled(words: Iterable[str]) -> str:
    return "".join(f" {word}" for word in words)
