"""Every backend by its flag: a realm is made with it, keeps its sessions, and says what it needs."""

import json

import pytest
from databases import DSN, need_postgres, new_realm_id

from meerkat_mcp.cli import main

VARIABLE = "MEERKAT_TEST_DSN"


@pytest.fixture
def meerkat(tmp_path, capsys):
    """The command on a realm of its own; its exit code, and the JSON that it said."""
    realm = new_realm_id()

    def command(*words: str) -> tuple[int, dict]:
        code = main(["--json", "--state-root", str(tmp_path), "--realm", realm, *words])
        said = capsys.readouterr()
        return code, json.loads((said.out if code == 0 else said.err).strip().splitlines()[-1])

    return command


@pytest.mark.parametrize("backend", ["sqlite", "jsonl", "postgres"])
def test_a_realm_keeps_its_sessions_on_every_backend_that_keeps_any(meerkat, backend: str, monkeypatch):
    flags = ["--realm-backend", backend]
    if backend == "postgres":
        need_postgres()
        monkeypatch.setenv(VARIABLE, DSN)
        flags += ["--realm-dsn-env", VARIABLE]
    code, first = meerkat(*flags, "run", "[[say one]]")
    assert (code, first["text"]) == (0, "one")
    code, second = meerkat("run", "--resume", first["session_id"], "[[history]]")
    assert code == 0, second
    assert "[[say one]]" in second["text"]
    code, refused = meerkat("--realm-backend", "memory", "session", "list")
    assert (code, refused["error"]["code"], refused["error"]["pinned"]) == (5, "backend_mismatch", backend)
    assert meerkat("session", "delete", first["session_id"], "--yes")[0] == 0


def test_a_realm_on_postgres_says_which_variable_is_missing(meerkat, monkeypatch):
    monkeypatch.delenv("MEERKAT_POSTGRES_DSN", raising=False)
    code, said = meerkat("--realm-backend", "postgres", "run", "hi")
    assert (code, said["error"]["code"]) == (8, "store_unavailable")
    assert "MEERKAT_POSTGRES_DSN" in said["error"]["message"]


def test_an_address_on_the_command_line_is_refused_and_not_repeated(meerkat):
    code, said = meerkat("--realm-backend", "postgres", "--realm-dsn-env", "postgresql://u:secret@h/d", "run", "hi")
    assert (code, said["error"]["code"]) == (2, "invalid_request")
    assert "secret" not in json.dumps(said)


def test_a_variable_for_postgres_is_refused_elsewhere(meerkat):
    assert meerkat("run", "[[say hi]]")[0] == 0
    code, said = meerkat("--realm-dsn-env", "X", "session", "list")
    assert (code, said["error"]["code"]) == (2, "invalid_request")
