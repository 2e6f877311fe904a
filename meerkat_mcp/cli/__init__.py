"""The command line: `meerkat-mcp` for people and scripts, `rkat-mcp` for MCP hosts."""

from collections.abc import Sequence

__all__ = ["main", "serve_main"]


def main(argv: Sequence[str] | None = None) -> int:
    """`meerkat-mcp`: do what the arguments say; the exit code."""
    from meerkat_mcp.cli import grammar
    from meerkat_mcp.cli.exits import carry_out

    return carry_out(grammar.parsed, argv)


def serve_main(argv: Sequence[str] | None = None) -> int:
    """`rkat-mcp`: `meerkat-mcp serve` with its flags directly."""
    from meerkat_mcp.cli import grammar
    from meerkat_mcp.cli.exits import carry_out

    return carry_out(grammar.parsed_to_serve, argv)
