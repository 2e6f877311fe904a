"""Words in and words out: flags, exit codes, times, ids, and what a terminal may see."""

import json
import re
from argparse import Namespace

import pytest

from meerkat_mcp.cli import display, exits, grammar, values
from meerkat_mcp.domain import errors
from meerkat_mcp.domain.errors import InvalidRequest, codes

from .conftest import Commands


def test_every_error_code_has_an_exit_code() -> None:
    assert set(exits.EXIT_CODES) == set(codes())
    assert all(1 <= code <= 9 for code in exits.EXIT_CODES.values())


def test_the_exit_codes_are_those_at_the_head_of_the_errors() -> None:
    rows = re.findall(r" ([a-z_]+) +\d{3} +(\d)", errors.__doc__ or "")
    assert {code: int(exit_code) for code, exit_code in rows} == exits.EXIT_CODES


@pytest.mark.parametrize(
    "words",
    [
        "--realm a --json --state-root /x session list --limit 3",
        "session list --limit 3 --realm a --json --state-root /x",
        "session --realm a list --json --limit=3 --state-root=/x",
        "--state-root /x session --json --realm=a list --limit 3",
    ],
)
def test_flags_of_every_command_stand_before_or_after_it(words: str) -> None:
    args = grammar.parsed(words.split())
    assert (args.realm, args.json, args.state_root, args.limit) == ("a", True, "/x", 3)
    assert (args.isolated, args.instance, args.command) == (False, None, "session:listing")


@pytest.mark.parametrize(
    ("words", "prompt", "resume"),
    [
        (["--resume", "Keep going"], None, "Keep going"),
        (["--realm", "a", "--resume", "last", "Go"], "Go", "last"),
        (["-s", "Tell me"], "Tell me", None),
        (["run", "Go", "--resume"], "Go", "last"),
        (["run", "--resume=019c8b99", "Go"], "Go", "019c8b99"),
        (["run", "--resume", "--", "-5 is a number"], "-5 is a number", "last"),
    ],
)
def test_run_may_be_left_out_before_flags(words: list[str], prompt: str | None, resume: str | None) -> None:
    args = grammar.parsed(words)
    assert (args.command, args.prompt, args.resume) == ("run:run", prompt, resume)


def test_json_of_config_set_is_the_document_and_before_it_the_flag() -> None:
    args = grammar.parsed(["--json", "config", "set", "--json", "{}"])
    assert (args.json, args.document) == (True, "{}")
    assert grammar.parsed(["config", "patch", "--json", "{}"]).json is False


@pytest.mark.parametrize(
    "text",
    [
        "last",
        "LAST",
        "~1",
        "~23",
        "019c8b99",
        "dead",
        "01936f8a-7b2c-7000-8000-000000000001",
        "team-a:last",
        "team:019c",
    ],
)
def test_this_is_a_reference(text: str) -> None:
    assert values.is_reference(text)


@pytest.mark.parametrize(
    "text", ["Keep going", "go", "abc", "last one", "~", "Note: cafe", "feed me", "team:", "facade!"]
)
def test_this_is_something_to_say(text: str) -> None:
    assert not values.is_reference(text)


@pytest.mark.parametrize(
    "words", [[], ["nonsense"], ["run", "--max-tokens", "0", "x"], ["session"], ["session", "show"]]
)
def test_wrong_usage_is_an_error_with_a_hint(words: list[str]) -> None:
    with pytest.raises(InvalidRequest) as caught:
        grammar.parsed(words)
    assert "meerkat-mcp" in caught.value.hint


def test_errors_are_words_or_json_on_stderr_and_nothing_on_stdout(meerkat: Commands) -> None:
    said = meerkat("session", "show", "not a session", "--realm", "no way")
    assert (said.returncode, said.stdout) == (2, "")
    assert said.stderr.startswith("error: 'no way' is no realm id.\nhint: ")
    for words in (["--json", "run", "--bogus"], ["session", "show", "--json"], ["--json"]):
        done = meerkat(*words)
        assert (done.returncode, done.stdout) == (2, "")
        assert json.loads(done.stderr)["error"]["code"] == "invalid_request"


def test_a_bug_is_an_internal_error_whose_trace_is_for_debugging(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(display, "speak_utf8", lambda: None)
    monkeypatch.setattr(display, "log_to_stderr", lambda level: None)
    for level, shows in (("warning", False), ("debug", True)):
        code = exits.carry_out(lambda _, level=level: Namespace(command="no:where", json=False, log_level=level), [])
        said = capsys.readouterr().err
        assert (code, "error: Internal error." in said, "Traceback" in said) == (1, True, shows)


def test_hints_speak_of_commands() -> None:
    hint = "meerkat_sessions lists those there are; bring tool_results with meerkat_resume."
    said = exits.hint({"code": "invalid_request", "hint": hint})
    assert said == (
        "meerkat-mcp session list lists those there are; bring --tool-result with meerkat-mcp run --resume."
    )


@pytest.mark.parametrize(
    ("seconds", "said"),
    [
        (0, "just now"),
        (7, "7 s ago"),
        (200, "3 min ago"),
        (7300, "2 h ago"),
        (90_000, "1 day ago"),
        (400_000, "4 days ago"),
    ],
)
def test_times_are_told_as_people_do(seconds: int, said: str) -> None:
    assert display.ago(1_000_000, 1_000_000 + seconds * 1000) == said


def test_short_ids_tell_sessions_apart_and_are_prefixes() -> None:
    ids = [
        "01a1fbdd-e6f8-7708-8e79-507670322bef",
        "01a1fbdd-e6f8-7709-8e79-507670322bef",
        "01a1fbdd-0000-7709-8e79-507670322bef",
    ]
    short = display.short_ids(ids)
    assert [short[one] for one in ids] == ["01a1fbdd-e6f8-7708", "01a1fbdd-e6f8-7709", "01a1fbdd-0000-7709"]
    assert list(display.short_ids(ids[1:2]).values()) == ["01a1fbdd-e6f8"]


def test_output_is_utf8_whatever_the_locale_says(meerkat: Commands) -> None:
    done = meerkat("run", "[[say ü → 猫]]", LC_ALL="C", PYTHONUTF8="0", PYTHONIOENCODING="ascii")
    assert done.stdout == "ü → 猫\n"


def test_the_version_is_said(meerkat: Commands) -> None:
    assert meerkat("--version").stdout.startswith("meerkat-mcp ")
    assert "version" in meerkat.json("--version")
