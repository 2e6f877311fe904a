"""`python -m vendors serve`: prints the fake's URL and ends with its standard input, that is, with its parent."""

import logging
import sys

from vendors.server import Server


def main() -> None:
    if sys.argv[1:] != ["serve"]:
        sys.exit("usage: python -m vendors serve")
    logging.getLogger("uvicorn.error").setLevel(logging.CRITICAL)  # dropped connections are meant
    with Server() as server:
        print(server.url, flush=True)
        sys.stdin.read()


if __name__ == "__main__":
    main()
