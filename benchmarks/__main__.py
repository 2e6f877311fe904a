"""`python -m benchmarks`: run them, show one table."""

import argparse
import json
import os
import subprocess
import sys
import time
from collections.abc import Sequence

from benchmarks import show
from benchmarks.catalog import BENCHMARKS, line, load
from benchmarks.results import Row, Scale

TIMEOUT_S = 300.0


def main() -> int:
    """Run what was asked for; 1 under `--strict` when a target is missed."""
    args = _parsed()
    if args.list:
        for name in args.names:
            print(f"{name:14} {line(name)}")
        return 0
    level = "full" if args.full else "quick" if args.quick else "normal"
    if args.worker:
        rows = load(args.names[0])(Scale(level))
        print(json.dumps([row.as_dict() for row in rows]))
        return 0
    load_before, started = os.getloadavg()[0] if hasattr(os, "getloadavg") else 0.0, time.monotonic()
    rows, broken = _run(args.names, level)
    about = show.machine() | {
        "level": level,
        "seconds": round(time.monotonic() - started),
        "load_before": round(load_before, 2),
    }
    if args.json:
        print(json.dumps({"about": about, "rows": [row.as_dict() for row in rows], "broken": broken}, indent=2))
    else:
        show.table(rows, broken, about)
    missed = any(row.verdict == "MISSED" for row in rows) or bool(broken)
    return int(args.strict and missed)


def _parsed() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__)
    parser.add_argument("names", nargs="*", metavar="NAME", help=f"some of: {', '.join(BENCHMARKS)}")
    parser.add_argument("--quick", action="store_true", help="fewer repetitions: a look, no verdict to rely on")
    parser.add_argument("--full", action="store_true", help="with ten million events too")
    parser.add_argument("--json", action="store_true", help="JSON instead of a table")
    parser.add_argument("--strict", action="store_true", help="exit 1 when a target is missed")
    parser.add_argument("--list", action="store_true", help="say what each measures, and leave")
    parser.add_argument("--worker", action="store_true", help=argparse.SUPPRESS)
    args = parser.parse_args()
    for name in args.names:
        if name not in BENCHMARKS:
            parser.error(f"there is no benchmark {name!r}; there are: {', '.join(BENCHMARKS)}")
    args.names = args.names or list(BENCHMARKS)
    return args


def _run(names: Sequence[str], level: str) -> tuple[list[Row], dict[str, str]]:
    """The rows of all, and what went wrong in those that broke."""
    rows: list[Row] = []
    broken: dict[str, str] = {}
    for name in names:
        started = time.monotonic()
        argv = [sys.executable, "-m", "benchmarks", "--worker", name]
        argv += [f"--{level}"] if level != "normal" else []
        try:
            done = subprocess.run(argv, capture_output=True, text=True, timeout=TIMEOUT_S, check=True)
            rows += [Row.from_dict(said) for said in json.loads(done.stdout)]
        except subprocess.CalledProcessError as exc:
            broken[name] = exc.stderr.strip()[-2000:]
        except subprocess.TimeoutExpired:
            broken[name] = f"not done in {TIMEOUT_S:.0f} s"
        if sys.stderr.isatty():
            print(f"{name}: {time.monotonic() - started:.1f} s", file=sys.stderr)
    return rows, broken


if __name__ == "__main__":
    raise SystemExit(main())
