"""Hunt by hand: `PYTHONPATH=.:tests python -m simulation 0 5000` lives those seeds, `… 17` tells of one."""

import logging
import sys
import time

from simulation.life import Failed, live

logging.disable()


def main(first: int, last: int | None = None) -> None:
    if last is None:
        try:
            return print("\n".join(live(first).story))
        except Failed as failed:
            return print(failed)
    start, failures = time.monotonic(), dict[int, str]()
    for seed in range(first, last):
        try:
            live(seed)
        except Failed as failed:
            failures[seed] = str(failed).splitlines()[0]
            print(failures[seed], flush=True)
    print(f"{last - first} seeds, {len(failures)} failed, {time.monotonic() - start:.1f} s")


if __name__ == "__main__":
    main(*map(int, sys.argv[1:]))
