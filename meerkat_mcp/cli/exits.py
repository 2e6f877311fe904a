"""How a command ends: its exit code, and what is said of an error."""

import gc
import os
import re
import sys
from argparse import Namespace
from collections.abc import Awaitable, Callable, Sequence
from contextlib import suppress
from importlib import import_module
from typing import Any, cast

from meerkat_mcp.cli import display
from meerkat_mcp.domain.errors import MeerkatError

EXIT_CODES: dict[str, int] = {
    "internal": 1,
    "invalid_request": 2,
    "not_waiting": 2,
    "tool_results_mismatch": 2,
    "model_unknown": 2,
    "schema_invalid": 2,
    "session_not_found": 4,
    "realm_not_found": 4,
    "stream_not_found": 4,
    "session_ambiguous": 5,
    "session_archived": 5,
    "session_busy": 5,
    "idempotency_conflict": 5,
    "generation_conflict": 5,
    "plan_changed": 5,
    "realm_conflict": 5,
    "backend_mismatch": 5,
    "permission_denied": 6,
    "limit_exceeded": 7,
    "budget_exhausted": 7,
    "provider_rejected": 8,
    "provider_unauthenticated": 8,
    "provider_unavailable": 8,
    "tool_server_unavailable": 8,
    "store_unavailable": 8,
    "corrupt": 9,
}
"""The exit code of every error code: the one table."""

UNFINISHED = 1
"""A turn that ended, but not as it should: interrupted, or at a limit."""
INTERRUPTED = 130
BROKEN_PIPE = 141

_HINTS = {
    "session_busy": "wait for its end, or end it: meerkat-mcp session interrupt; or say --if-busy interrupt or queue.",
    "session_archived": "bring it back with: meerkat-mcp session restore.",
    "tool_results_mismatch": "answer all of them at once: those that need a yes with --approve and --deny, tools of "
    "yours with --tool-result; or end the turn: meerkat-mcp session interrupt.",
    "generation_conflict": "read it again with: meerkat-mcp config get --with-generation.",
}
_COMMANDS = {
    "meerkat_sessions": "meerkat-mcp session list",
    "meerkat_interrupt": "meerkat-mcp session interrupt",
    "meerkat_resume": "meerkat-mcp run --resume",
    "meerkat_models_catalog": "meerkat-mcp models",
    "meerkat_compact": "meerkat-mcp session compact",
    "where the server is started, and restart it": "in the environment",
    "where the server is started": "in the environment",
    "tool_results": "--tool-result",
    "responses": "--approve and --deny",
    "at_seq": "--at-seq",
    "Use the server of that realm": "name that realm with --realm",
}
"""The core's hints speak to callers of the tools; these are the same things on a command line."""


def carry_out(parse: Callable[[Sequence[str]], Namespace], argv: Sequence[str] | None) -> int:
    """Parse and do; nothing but an exit code comes out, whatever happens."""
    gc.disable()  # imports make much that stays; a command that goes on working sets this aside (`settle_in`)
    display.speak_utf8()
    words = [_utf8(word) for word in (sys.argv[1:] if argv is None else argv)]
    args = Namespace(json=_asks_for_json(words), log_level="warning")
    try:
        args = parse(words)
        display.log_to_stderr(args.log_level)
        code = _done(args)
        sys.stdout.flush()
        return code
    except SystemExit as exc:  # argparse has printed its help
        return exc.code if isinstance(exc.code, int) else 0
    except BaseException as exc:
        return _said(exc, args)


def settle_in() -> None:
    """Everything is imported: keep that out of every later collection, and begin to collect.

    Without a collection before: it takes 45 ms of the start, and the process is no smaller after it (measured).
    """
    gc.freeze()
    gc.enable()


def exit_code(error: dict[str, Any] | None) -> int:
    """The exit code of an error, as `MeerkatError.as_dict` shows it."""
    return EXIT_CODES.get(str((error or {}).get("code")), EXIT_CODES["internal"])


def hint(error: dict[str, Any]) -> str:
    """What to do about an error, in the words of the command line."""
    return _in_our_words(_HINTS.get(error["code"], str(error.get("hint", ""))))


def _in_our_words(said: str) -> str:
    return re.sub(r"\b(?:" + "|".join(_COMMANDS) + r")\b", lambda found: _COMMANDS[found[0]], said)


def _done(args: Namespace) -> int:
    room, _, name = str(args.command).partition(":")
    command = getattr(import_module(f"meerkat_mcp.cli.{room}"), name)
    result = command(args)
    if isinstance(result, Awaitable):
        import anyio

        async def awaited() -> int:
            return await cast(Awaitable[int], result)

        return anyio.run(awaited)
    return result


def _said(raised: BaseException, args: Namespace) -> int:
    """Say on stderr what went wrong; the exit code."""
    exc = leaf(raised)
    if isinstance(exc, BrokenPipeError):
        display.close_stdout()
        return BROKEN_PIPE
    with suppress(OSError):
        sys.stdout.flush()
    if isinstance(exc, KeyboardInterrupt):
        return INTERRUPTED
    if not isinstance(exc, MeerkatError):
        if args.log_level == "debug":
            import traceback

            traceback.print_exception(raised)
        shown = {"code": "internal", "message": "Internal error."}
        return _tell(shown | {"hint": "this is a bug; --log-level debug shows where."}, args)
    return _tell(exc.as_dict(), args)


def _tell(error: dict[str, Any], args: Namespace) -> int:
    said = {key: value for key, value in (error | {"hint": hint(error)}).items() if value != ""}
    with suppress(OSError):
        if args.json:
            sys.stderr.write(display.as_json({"error": said}) + "\n")
        else:
            known = error["code"] == "tool_results_mismatch"  # its message is ours alone: nobody's words are in it
            message = _in_our_words(said["message"]) if known else said["message"]
            display.complain(message, said.get("hint", ""), _details(said))
    return exit_code(error)


def _details(error: dict[str, Any]) -> Sequence[str]:
    """What the message leaves out: the sessions a prefix fits, who works on a busy one, which answers are missing."""
    owner = error.get("owner")
    if not owner or "since_ms" not in error:  # the owner of a whole realm is in the message
        wrong = [f"{what}: {', '.join(error[what])}" for what in ("missing", "unknown", "twice") if error.get(what)]
        return wrong or error.get("candidates", ())
    return (f"by {owner['instance_id']} on {owner['host']}, process {owner['pid']}, {display.ago(error['since_ms'])}",)


def leaf(exc: BaseException) -> BaseException:
    """What task groups wrapped."""
    while isinstance(exc, BaseExceptionGroup):
        exc = cast(BaseExceptionGroup[BaseException], exc).exceptions[0]
    return exc


def _utf8(word: str) -> str:
    """An argument as it was typed, also where the locale knows ASCII only."""
    return word if word.isascii() or sys.platform == "win32" else os.fsencode(word).decode(errors="replace")


def _asks_for_json(words: Sequence[str]) -> bool:
    """Whether `--json` was said as a flag: after `config set` and `config patch` it brings the document."""
    flags = words[: words.index("--")] if "--" in words else words
    changes = "config" in flags and ("set" in flags or "patch" in flags)
    until = flags.index("config") if changes else len(flags)
    return "--json" in flags[:until]


def leave_at_once(code: int) -> None:
    """End the process without waiting for threads."""
    with suppress(OSError):
        sys.stderr.flush()
    os._exit(code)
