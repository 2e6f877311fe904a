"""Putting words on the screen: plain in a pipe, pleasant on a terminal; rich is loaded for the latter only."""

import json
import logging
import os
import sys
import time
from collections.abc import Generator, Sequence
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING, Any, TextIO

if TYPE_CHECKING:
    from rich.console import Console

SHORT_ID_CHARS_MIN = 13  # the milliseconds of a UUIDv7
_AGES = ((60, 1, "s"), (3600, 60, "min"), (86_400, 3600, "h"), (30 * 86_400, 86_400, "days"))
_consoles: dict[bool, "Console"] = {}
_TURNS_TEXT = (*range(0x202A, 0x202F), *range(0x2066, 0x206A))  # shown, text could stand in another order than it is
_CONTROLS = {code: 0x2400 + code for code in range(32) if chr(code) not in "\n\t"} | dict.fromkeys(
    (*range(0x7F, 0xA0), *_TURNS_TEXT), 0xFFFD
)


def speak_utf8() -> None:
    """Write UTF-8 whatever the locale says; a stream that was closed goes nowhere."""
    for name, mode in (("stdin", "r"), ("stdout", "w"), ("stderr", "w")):
        if getattr(sys, name) is None:
            setattr(sys, name, os.fdopen(os.open(os.devnull, os.O_RDWR), mode, encoding="utf-8"))
    for stream in (sys.stdout, sys.stderr):
        reconfigure = getattr(stream, "reconfigure", None)
        if reconfigure is not None:
            reconfigure(encoding="utf-8", errors="replace")


def say(text: str = "", *, end: str = "\n") -> None:
    """Write to stdout: what was asked for."""
    sys.stdout.write((_harmless(text) if sys.stdout.isatty() else text) + end)
    sys.stdout.flush()


def note(text: str = "", *, end: str = "\n") -> None:
    """Write to stderr, dim on a terminal: what is only said beside it."""
    if sys.stderr.isatty():
        console(stderr=True).print(_harmless(text), style="dim", end=end, markup=False, highlight=False, soft_wrap=True)
    else:
        sys.stderr.write(text + end)
    sys.stderr.flush()


def heading(text: str) -> None:
    """Write a title to stdout, bold on a terminal."""
    if sys.stdout.isatty():
        console().print(_harmless(text), style="bold", markup=False, highlight=False, soft_wrap=True)
    else:
        say(text)


def say_bytes(line: bytes) -> None:
    """Write a line of a file to stdout, as it is; on a terminal without what would steer it."""
    if sys.stdout.isatty():
        say(line.decode(errors="replace"), end="")
    else:
        sys.stdout.buffer.write(line)


def say_json(value: Any) -> None:
    """Write one JSON document to stdout, on one line."""
    sys.stdout.write(as_json(value) + "\n")
    sys.stdout.flush()


def as_json(value: Any, *, indent: int | None = None) -> str:
    """JSON as people and programs read it: UTF-8."""
    return json.dumps(value, ensure_ascii=False, indent=indent, default=str)


def complain(message: str, hint: str = "", details: Sequence[str] = ()) -> None:
    """Say an error on stderr."""
    lines = [f"error: {message}", *(f"  {detail}" for detail in details), *([f"hint: {hint}"] if hint else [])]
    if sys.stderr.isatty():
        out = console(stderr=True)
        for line in lines:
            style = "bold red" if line.startswith("error:") else "dim"
            out.print(_harmless(line), style=style, markup=False, highlight=False, soft_wrap=True)
    else:
        sys.stderr.write("\n".join(lines) + "\n")
    sys.stderr.flush()


def table(headings: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
    """Write rows: a rich table on a terminal, columns with spaces between them in a pipe."""
    rows = [[" ".join(_harmless(cell).split()) for cell in row] for row in rows]
    if sys.stdout.isatty():
        from rich.box import SIMPLE_HEAD
        from rich.table import Table
        from rich.text import Text

        shown = Table(box=SIMPLE_HEAD, pad_edge=False)
        for place, heading in enumerate(headings):
            shown.add_column(heading, no_wrap=place == 0, overflow="ellipsis")
        for row in rows:
            shown.add_row(*(Text(cell) for cell in row))
        return console().print(shown)
    widths = [max(len(cell) for cell in column) for column in zip(headings, *rows, strict=True)]
    for row in (headings, *rows):
        say("  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip())


def facts(pairs: Sequence[tuple[str, str]]) -> None:
    """Write names and values, one a line; what is empty is left out."""
    known = [(name, value) for name, value in pairs if value]
    width = max((len(name) for name, _ in known), default=0)
    for name, value in known:
        say(f"{name.ljust(width)}  {value}")


def ago(then_ms: int, now_ms: int | None = None) -> str:
    """How long ago that was, in a word or two."""
    seconds = max(0, (time.time_ns() // 1_000_000 if now_ms is None else now_ms) - then_ms) // 1000
    if seconds < 5:
        return "just now"
    for below, unit, name in _AGES:
        if seconds < below:
            count = seconds // unit
            return f"{count} {'day' if name == 'days' and count == 1 else name} ago"
    return time.strftime("%Y-%m-%d", time.localtime(then_ms / 1000))


def moment(then_ms: int) -> str:
    """A time of day with its date, in the local zone."""
    return time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(then_ms / 1000))


def took(ms: float) -> str:
    """How long something took."""
    return f"{ms:.0f} ms" if ms < 1000 else f"{ms / 1000:.1f} s"


def size(size_bytes: int) -> str:
    """How much room something takes."""
    return (
        f"{size_bytes} B"
        if size_bytes < 1024
        else f"{size_bytes / 1024:.0f} KiB"
        if size_bytes < 1 << 20
        else (f"{size_bytes / (1 << 20):.1f} MiB")
    )


def short_ids(ids: Sequence[str]) -> dict[str, str]:
    """Each id cut to what still tells it from the others: a prefix that commands take."""
    size = SHORT_ID_CHARS_MIN
    while len({name[:size] for name in ids}) < len(set(ids)):
        size += 1
    while any(name[size - 1 : size] == "-" for name in ids):
        size += 1
    return {name: name[:size] for name in ids}


def clipped(text: str, chars: int) -> str:
    """The text on one line, no longer than that."""
    line = " ".join(text.split())
    return line if len(line) <= chars else line[: chars - 1] + "…"


@contextmanager
def waiting(what: str) -> Generator[None]:
    """Show on a terminal's stderr that something is going on."""
    if sys.stderr.isatty() and sys.stdout.isatty():
        with console(stderr=True).status(f"[dim]{what}[/dim]"):
            yield
    else:
        yield


def console(*, stderr: bool = False) -> "Console":
    """The terminal, through rich."""
    from rich.console import Console

    if stderr not in _consoles:
        _consoles[stderr] = Console(stderr=stderr)
    return _consoles[stderr]


def close_stdout() -> None:
    """Nobody reads stdout any more: nothing more is to be said about that."""
    with suppress(OSError, ValueError):
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def log_to_stderr(level: str) -> None:
    """Our own log at `level`, everybody else's from warnings on: their debug lines hold prompts."""
    logger = logging.StreamHandler(_Stderr())
    logger.setFormatter(_OneLine("%(asctime)s %(levelname)s %(name)s: %(message)s"))
    logging.basicConfig(handlers=[logger], level=logging.WARNING)
    logging.getLogger("meerkat_mcp").setLevel(level.upper())


class _OneLine(logging.Formatter):
    """A record is one line, a traceback too."""

    def format(self, record: logging.LogRecord) -> str:
        return super().format(record).replace("\n", "\\n")


class _Stderr:
    """Whatever stderr is at the time."""

    def write(self, text: str) -> int:
        return self._stream.write(text)

    def flush(self) -> None:
        self._stream.flush()

    @property
    def _stream(self) -> TextIO:
        return sys.stderr


def _harmless(text: str) -> str:
    """Without what would steer a terminal."""
    return text.translate(_CONTROLS)
