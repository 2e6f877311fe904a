"""The command line: `meerkat-mcp` for people and scripts, `rkat-mcp` for MCP hosts."""

import sys

TYPE_CHECKING = False  # as `typing` has it, whose import takes longer than all that a proxy does at its start
if TYPE_CHECKING:
    from collections.abc import Sequence

__all__ = ["main", "serve_main"]


def main(argv: "Sequence[str] | None" = None) -> int:
    """`meerkat-mcp`: do what the arguments say; the exit code."""
    words = list(sys.argv[1:] if argv is None else argv)
    if words[:1] == ["serve"] and (code := _shared(words[1:])) is not None:
        return code
    from meerkat_mcp.cli import grammar
    from meerkat_mcp.cli.exits import carry_out

    return carry_out(grammar.parsed, argv)


def serve_main(argv: "Sequence[str] | None" = None) -> int:
    """`rkat-mcp`: `meerkat-mcp serve` with its flags directly."""
    code = _shared(list(sys.argv[1:] if argv is None else argv))
    if code is not None:
        return code
    from meerkat_mcp.cli import grammar
    from meerkat_mcp.cli.exits import carry_out

    return carry_out(grammar.parsed_to_serve, argv)


def _shared(words: "list[str]") -> "int | None":
    """Be the proxy of a shared server, without the grammar and all it brings along; None when that cannot be."""
    if "--shared" not in words:
        return None
    from meerkat_mcp.shared import flags

    wanted = flags.wanted(words)
    if wanted is None:
        return None
    from meerkat_mcp.shared import proxy

    return proxy.run(wanted)
