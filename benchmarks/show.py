"""The table: rich on a terminal, plain text elsewhere."""

import os
import platform
import sys
from collections.abc import Mapping, Sequence
from importlib.metadata import version
from typing import Any

from benchmarks.results import Row

HEAD = ("goal", "what", "ours", "limit", "unit", "ratio", "target", "")


def machine() -> dict[str, Any]:
    """What the numbers were taken on, without a name of the machine."""
    from meerkat_mcp.stores.sqlite_library import sqlite_version

    return {
        "python": platform.python_version(),
        "system": platform.system(),
        "cores": os.cpu_count(),
        "sqlite": sqlite_version,
        "mcp": version("mcp"),
        "pydantic": version("pydantic"),
        "load_now": round(os.getloadavg()[0], 2) if hasattr(os, "getloadavg") else None,
    }


def table(rows: Sequence[Row], broken: Mapping[str, str], about: Mapping[str, Any]) -> None:
    """Print everything."""
    if sys.stdout.isatty():
        _rich(rows)
    else:
        _plain(rows)
    for name, why in broken.items():
        print(f"\n{name} BROKE:\n{why}")
    missed = sum(row.verdict == "MISSED" for row in rows)
    judged = sum(row.target is not None for row in rows)
    print(f"\n{judged - missed} of {judged} targets met. {', '.join(f'{key} {value}' for key, value in about.items())}")


def _rich(rows: Sequence[Row]) -> None:
    from rich.console import Console
    from rich.table import Table

    shown = Table(*HEAD, box=None, pad_edge=False)
    for column in (2, 3, 5):
        shown.columns[column].justify = "right"
    styles = {"ok": "green", "MISSED": "bold red", "": ""}
    for row in rows:
        *cells, verdict = _cells(row)
        shown.add_row(*cells, f"[{styles[verdict]}]{verdict}[/]" if verdict else "")
    Console().print(shown)


def _plain(rows: Sequence[Row]) -> None:
    lines = [HEAD, *map(_cells, rows)]
    widths = [max(len(line[column]) for line in lines) for column in range(len(HEAD))]
    for line in lines:
        right = {2, 3, 5}
        cells = [
            text.rjust(width) if column in right else text.ljust(width)
            for column, (text, width) in enumerate(zip(line, widths, strict=True))
        ]
        print("  ".join(cells).rstrip())


def _cells(row: Row) -> tuple[str, ...]:
    target = str(row.target) if row.target else ""
    return (row.goal, row.what, _short(row.ours), _short(row.limit), row.unit, _short(row.ratio), target, row.verdict)


def _short(number: float | None) -> str:
    """Three digits that count."""
    if number is None:
        return ""
    if abs(number) >= 1000:
        return f"{number:,.0f}"
    return f"{number:.3g}"
