"""What is told of a failure, and what never is."""

import pytest
from mcp import MCPError

from meerkat_mcp.domain.servers import ToolServer
from meerkat_mcp.tools.reasons import CHARS_MAX, Secrets, reason

ENVIRONMENT = {"LONG": "hush-hush/hush", "PART": "hush-hush", "PORT": "80", "EMPTY": ""}


def told(text: str, **fields) -> str:
    definition = ToolServer(**({"command": "${LONG}", "args": ("${PART}", "${PORT}", "${EMPTY}", "${NONE}")} | fields))
    return Secrets(definition, ENVIRONMENT.get).told(text)


def test_values_of_references_are_struck_out_the_longest_first():
    assert told("see hush-hush/hush and hush-hush") == "see ${LONG} and ${PART}"
    assert told("see hush-hush%2Fhush") == "see ${LONG}"


def test_what_is_too_short_for_a_secret_is_left():
    assert told("port 80") == "port 80"


def test_a_header_that_was_written_down_is_struck_out_too():
    web = {"command": None, "args": (), "url": "http://x", "headers": {"X-Key": "written-down", "X-N": "1"}}
    assert told("1 written-down", **web) == "1 [X-Key]"


def test_nothing_is_struck_out_where_there_are_no_secrets():
    assert told("as it is", command="x", args=()) == "as it is"


def test_a_long_text_is_cut():
    assert len(told("x" * 9_000)) == CHARS_MAX + 1


@pytest.mark.parametrize(
    ("exc", "words"),
    [
        (FileNotFoundError(2, "No such file", "uvx"), "there is no 'uvx' to start"),
        (PermissionError(13, "Denied", "uvx"), "'uvx' may not be started"),
        (OSError(8, "Exec format error"), "it cannot be started or reached (Exec format error)"),
        (MCPError(-32603, "no luck"), "no luck"),
        (MCPError(-32603, ""), "it refused (-32603)"),
        (ExceptionGroup("x", [ExceptionGroup("y", [ValueError("inside")]), ValueError("other")]), "inside"),
        (KeyError(), "KeyError"),
    ],
)
def test_an_exception_is_put_in_words(exc: Exception, words: str):
    assert reason(exc) == words
