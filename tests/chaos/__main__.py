"""`PYTHONPATH=.:tests python -m chaos --backend sqlite --processes 8 --sessions 100 --seconds 300 --seed 1`.

Ends with 1 when a promise was broken; then it shows what, and writes the story and the logs to `--story`.
"""

import argparse
import logging
import sys
from pathlib import Path

import anyio
from chaos.plan import Plan
from chaos.telling import told
from chaos.town import lived


def main() -> int:
    args = _parsed()
    plan = Plan(
        backend=args.backend,
        seed=args.seed,
        processes=1 if args.backend == "jsonl" else args.processes,
        sessions=args.sessions,
        seconds=args.seconds,
        callers=args.callers or 2 * args.processes,
        followers=args.followers,
        kills=not args.no_kills,
        ends=not args.no_ends,
        stops=not args.no_stops,
        long_stops=not args.no_long_stops,
        cuts=not args.no_cuts,
        restarts=args.restart_database,
        rhythm_s=(args.rhythm / 4, args.rhythm),
    )
    logging.getLogger("asyncio").setLevel(logging.ERROR)  # a pipe to a killed process is closed, it says
    town, figures = anyio.run(lived, plan)
    print("\n".join(figures.lines))
    if args.story:
        Path(args.story).write_text(told(town, figures.wrong, whole=True), encoding="utf-8")
    if figures.wrong:
        print(told(town, figures.wrong))
    return int(bool(figures.wrong))


def _parsed() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m chaos", description=__doc__)
    parser.add_argument("--backend", choices=("sqlite", "postgres", "jsonl"), default="sqlite")
    parser.add_argument("--processes", type=int, default=8, help="of the server; jsonl has one")
    parser.add_argument("--sessions", type=int, default=100, help="at most so many at a time")
    parser.add_argument("--seconds", type=float, default=300.0)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--callers", type=int, default=0, help="default: two a process")
    parser.add_argument("--followers", type=int, default=24)
    parser.add_argument("--rhythm", type=float, default=6.0, help="most seconds between two strokes of bad luck")
    parser.add_argument("--no-kills", action="store_true", help="no kill -9")
    parser.add_argument("--no-ends", action="store_true", help="no SIGTERM, no end of input")
    parser.add_argument("--no-stops", action="store_true", help="no short SIGSTOP")
    parser.add_argument("--no-long-stops", action="store_true", help="no SIGSTOP for longer than the lease")
    parser.add_argument("--no-cuts", action="store_true", help="no broken connections to PostgreSQL")
    parser.add_argument("--restart-database", action="store_true", help="a PostgreSQL server of our own, restarted")
    parser.add_argument("--story", metavar="FILE", help="write down everything that happened")
    return parser.parse_args()


if __name__ == "__main__":
    sys.exit(main())
