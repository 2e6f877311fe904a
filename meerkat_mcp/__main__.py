"""`python -m meerkat_mcp` is `meerkat-mcp`."""

from meerkat_mcp.cli import main

if __name__ == "__main__":
    raise SystemExit(main())
