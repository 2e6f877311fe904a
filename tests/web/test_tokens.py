"""Static tokens: what a file may say, how it changes under a running server, and that nothing of a token gets out."""

import hashlib
import logging
import os
import secrets
import sys
from collections import Counter
from pathlib import Path

import pytest

from meerkat_mcp.domain.errors import InvalidRequest
from meerkat_mcp.server.scopes import CONFIGURE, DELETE, READ, RUN, SCOPES
from meerkat_mcp.web.tokens import StaticTokens, parsed, token_file

pytestmark = pytest.mark.anyio

A, B, C = (f"{letter}-{letter * 8}-0123456789" for letter in "abc")


def tokens(text: str) -> StaticTokens:
    return StaticTokens(lambda: text)


@pytest.fixture
def path(tmp_path: Path) -> Path:
    file = tmp_path / "tokens"
    write(file, A)
    return file


def write(path: Path, text: str, *, atomically: bool = True) -> None:
    """As an operator should (a new file in its place), or as an editor may (the same file with other bytes)."""
    if not atomically:
        path.write_text(text, encoding="utf-8")
        return
    new = path.with_name(f"new-{secrets.token_hex(4)}")
    new.write_text(text, encoding="utf-8")
    new.chmod(0o600)
    new.replace(path)


def rewrite_within_a_tick(path: Path, text: str) -> None:
    at = path.stat().st_mtime_ns
    write(path, text, atomically=False)
    os.utime(path, ns=(at, at))


def damage(path: Path, content: bytes | None) -> None:
    """Put other bytes into the file, or take it away."""
    if content is None:
        path.unlink()
    else:
        path.write_bytes(content)


def long_ago(path: Path) -> None:
    """As if the file had not been touched for a while: then only what `stat` says is looked at."""
    seen = path.stat()
    os.utime(path, ns=(seen.st_atime_ns, seen.st_mtime_ns - 3_600_000_000_000))


async def test_a_bare_token_has_all_scopes_and_no_name_of_its_own():
    caller = await tokens(A).authenticate(A)
    assert caller is not None
    assert (caller.principal, caller.scopes, caller.own_only) == ("token", frozenset(SCOPES), False)


async def test_a_line_may_name_who_has_the_token_and_what_they_may_do():
    known = tokens(f"# the team\n\n  ada {A}\r\n\tbot\t{B}  sessions:read \nops {C} sessions:run config:write\n")
    ada, bot, ops = [await known.authenticate(token) for token in (A, B, C)]
    assert ada is not None
    assert bot is not None
    assert ops is not None
    assert (ada.principal, ada.scopes) == ("ada", frozenset(SCOPES))
    assert (bot.principal, bot.scopes) == ("bot", {READ})
    assert (ops.principal, ops.scopes) == ("ops", {RUN, READ, CONFIGURE})
    assert DELETE not in ops.scopes


async def test_any_other_text_is_nobodys_token():
    known = tokens(f"ada {A}\nbot {B}")
    for other in ("", A[:-1], A + "=", A.upper(), "ada", f"ada {A}", "#", C, "\ud800"):
        assert await known.authenticate(other) is None


@pytest.mark.parametrize(
    ("text", "line", "about"),
    [
        ("", None, "holds no token"),
        ("# nothing\n\n", None, "holds no token"),
        ("short", 1, "less than 16 characters"),
        (f"# x\nada {'a' * 15}", 2, "less than 16 characters"),
        (f"ada {A}\nbot {B} sessions:reed", 2, "1 of its scopes is unknown"),
        (f"ada {A} {B} {C}", 1, "2 of its scopes are unknown"),
        (f"ada {A}\nbot {B}\neve {A}", 3, "stands on an earlier line too"),
        (f"{A} sessions:read", 1, "cannot be one"),
        (f"ada {A[:8]}é{A[8:]}", 1, "cannot be one"),
        (f"ada {'a' * 8193}", 1, "cannot be one"),
        (f"ada/x {A}", 1, "the name is not usable"),
        (f"{'n' * 65} {A}", 1, "the name is not usable"),
    ],
    ids=lambda value: str(value)[:24],
)
def test_what_cannot_be_meant_is_refused_with_its_line_and_without_the_token(text: str, line: int | None, about: str):
    with pytest.raises(InvalidRequest) as refused:
        tokens(text)
    said = str(refused.value.as_dict())
    assert about in said
    assert line is None or f"line {line}" in said
    for word in text.split():
        assert len(word) < 10 or word == "sessions:read" or word not in said


def test_who_has_too_short_a_token_is_told_how_to_make_one():
    with pytest.raises(InvalidRequest) as refused:
        tokens("secret")
    assert "secrets.token_urlsafe(32)" in refused.value.hint


def test_of_a_token_only_its_hash_is_kept():
    (token,) = parsed(f"ada {A}", "The token")
    assert token.digest == hashlib.sha256(A.encode()).digest()
    assert A not in repr(token)


async def test_a_token_is_compared_with_all_of_them_wherever_it_stands():
    known = tokens("\n".join(f"n{number} {secrets.token_urlsafe(24)}" for number in range(20)) + f"\n{A}\n{B}\n{C}")
    compared: Counter[str] = Counter()
    for token in (A, C, "nobodys-token-at-all"):
        counted = 0

        def watch(frame, event, called):
            nonlocal counted
            counted += event == "c_call" and getattr(called, "__name__", "") == "compare_digest"

        sys.setprofile(watch)
        try:
            await known.authenticate(token)
        finally:
            sys.setprofile(None)
        compared[token] = counted
    assert set(compared.values()) == {23}


# ── a file that changes ──


@pytest.mark.parametrize("atomically", [True, False])
async def test_tokens_change_without_a_restart(path: Path, atomically: bool):
    known = token_file(path)
    assert await known.authenticate(A)
    for _ in range(50):  # faster than clocks of file systems tick, and each time with the same size
        write(path, B, atomically=atomically)
        assert await known.authenticate(A) is None
        assert await known.authenticate(B)
        write(path, A, atomically=atomically)
        assert await known.authenticate(A)
        assert await known.authenticate(B) is None


async def test_a_change_that_the_clock_of_the_file_system_does_not_tell_is_seen(path: Path):
    """Same size, same file, same time: as when it is written twice within one tick of a coarse clock."""
    known = token_file(path)
    for text, other in ((B, A), (C, B), (A, C)):
        rewrite_within_a_tick(path, text)
        assert await known.authenticate(text)
        assert await known.authenticate(other) is None


async def test_the_old_token_and_the_new_one_are_both_good_while_both_are_there(path: Path):
    known = token_file(path)
    write(path, f"ada {A}\nada {B}")
    assert [caller and caller.principal for caller in (await known.authenticate(A), await known.authenticate(B))] == [
        "ada",
        "ada",
    ]
    write(path, f"ada {B}")
    assert await known.authenticate(A) is None
    assert await known.authenticate(B)


async def test_a_file_that_did_not_change_is_not_read_again(path: Path):
    long_ago(path)
    known = token_file(path)
    assert await known.authenticate(A)
    opened = []
    hook = {"on": True}

    def audit(event: str, args: tuple):
        if hook["on"] and event == "open" and str(args[0]) == str(path):
            opened.append(args)

    sys.addaudithook(audit)
    for _ in range(100):
        assert await known.authenticate(A)
    hook["on"] = False
    assert opened == []


@pytest.mark.parametrize("broken", [b"short", b"", b"ada", b"\xff\xfe\x00", b"x" * 1_000_001])
async def test_a_broken_file_leaves_the_tokens_of_before_and_a_warning(
    path: Path, broken: bytes, caplog: pytest.LogCaptureFixture
):
    known = token_file(path)
    with caplog.at_level(logging.WARNING, "meerkat_mcp"):
        damage(path, broken)
        for _ in range(5):
            assert await known.authenticate(A)
    assert [("What was valid before stays valid." in text) for text in caplog.messages].count(True) >= 1
    assert A not in caplog.text
    write(path, B)
    assert await known.authenticate(B)
    assert await known.authenticate(A) is None


async def test_a_broken_text_is_warned_of_once(path: Path, caplog: pytest.LogCaptureFixture):
    known = token_file(path)
    write(path, "short")
    with caplog.at_level(logging.WARNING, "meerkat_mcp"):
        for _ in range(20):
            await known.authenticate(A)
    assert len(caplog.messages) == 1


async def test_without_its_file_nobody_gets_in_until_it_is_back(path: Path, caplog: pytest.LogCaptureFixture):
    known = token_file(path)
    damage(path, None)
    with caplog.at_level(logging.WARNING, "meerkat_mcp"):
        assert [await known.authenticate(A) for _ in range(3)] == [None, None, None]
    assert len(caplog.messages) == 1
    assert "Nobody gets in" in caplog.text
    write(path, A)
    assert await known.authenticate(A)


@pytest.mark.skipif(os.name != "posix", reason="POSIX permissions")
def test_a_file_that_others_can_read_is_warned_of(path: Path, caplog: pytest.LogCaptureFixture):
    path.chmod(0o640)
    with caplog.at_level(logging.WARNING, "meerkat_mcp"):
        token_file(path)
        assert "chmod 600" in caplog.text
        caplog.clear()
        path.chmod(0o600)
        token_file(path)
    assert caplog.text == ""


def test_at_the_start_a_file_that_is_missing_is_refused(tmp_path: Path):
    with pytest.raises(InvalidRequest, match="cannot be read"):
        token_file(tmp_path / "none")


@pytest.mark.skipif(os.name != "posix", reason="POSIX pipes")
def test_a_pipe_is_refused_at_once_and_not_waited_for(tmp_path: Path):
    os.mkfifo(tmp_path / "pipe")
    with pytest.raises(InvalidRequest, match="no regular file"):
        token_file(tmp_path / "pipe")


def test_a_file_may_begin_with_a_byte_order_mark(path: Path):
    path.write_text(f"\ufeff# from an editor of Windows\r\nada {A}\r\n", encoding="utf-8")
    assert token_file(path)
