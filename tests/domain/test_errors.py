"""One tree of errors, one code each, and a table at the head of the file that says so."""

import re

import pytest

from meerkat_mcp.domain import errors
from meerkat_mcp.domain.errors import Internal, MeerkatError, SessionBusy, SessionNotFound, codes

DESIGNED = {
    *("invalid_request", "session_not_found", "session_ambiguous", "session_archived", "session_busy"),
    *("not_waiting", "tool_results_mismatch", "idempotency_conflict", "generation_conflict", "plan_changed"),
    *("realm_conflict", "backend_mismatch"),
    *("realm_not_found", "stream_not_found", "model_unknown", "provider_unauthenticated", "provider_unavailable"),
    *("provider_rejected", "budget_exhausted", "permission_denied", "limit_exceeded", "schema_invalid"),
    *("tool_server_unavailable", "store_unavailable", "corrupt", "internal"),
}
PARENTS = {"MeerkatError", "NotFound", "Conflict", "Unavailable"}
"""Never raised themselves, so without a code of their own."""

ROW = re.compile(r"^(?P<branch>[│├└─ ]*)(?P<name>\w+) +(?P<code>\w+|\(its children's\)) +(?P<http>\d+) +(?P<exit>\d+)")
ROWS = [found for line in (errors.__doc__ or "").splitlines() if (found := ROW.match(line)) and found["name"]]
TABLE = {row["name"]: (row["code"], int(row["http"]), int(row["exit"])) for row in ROWS if row["http"] != "HTTP"}


def tree(root: type[MeerkatError] = MeerkatError) -> list[type[MeerkatError]]:
    ours = [child for child in root.__subclasses__() if child.__module__ == errors.__name__]
    return [root, *(error for child in ours for error in tree(child))]


def test_the_codes_are_those_of_the_design_and_each_is_said_once():
    assert sorted(codes()) == sorted(DESIGNED)


@pytest.mark.parametrize("error", tree(), ids=lambda error: error.__name__)
def test_every_error_has_a_code_of_its_own_or_is_a_parent(error: type[MeerkatError]):
    if error.__name__ in PARENTS:
        assert error.__subclasses__()
        assert error.code == "internal"
    else:
        assert error.code == re.sub(r"(?<!^)(?=[A-Z])", "_", error.__name__).lower()


def test_the_table_at_the_head_of_the_file_has_a_row_for_every_error():
    assert set(TABLE) == {error.__name__ for error in tree()} - {"MeerkatError"}
    assert {code for code, _, _ in TABLE.values() if not code.startswith("(")} == DESIGNED


@pytest.mark.parametrize("error", tree()[1:], ids=lambda error: error.__name__)
def test_the_table_says_the_code_of_each_error(error: type[MeerkatError]):
    said = TABLE[error.__name__][0]
    assert said == ("(its children's)" if error.__name__ in PARENTS else error.code)


def test_the_table_is_drawn_as_the_tree_is():
    path: list[str] = []
    for row in ROWS:
        if row["http"] == "HTTP":
            continue
        depth = len(row["branch"]) // 4
        path[depth - 1 :] = [row["name"]]
        parent = path[depth - 2] if depth > 1 else "MeerkatError"
        assert getattr(errors, row["name"]).__base__.__name__ == parent


def test_relatives_share_their_http_status_and_exit_code_and_only_they():
    for error in tree()[1:]:
        parent = error.__base__
        if parent is not None and parent is not MeerkatError:
            assert TABLE[error.__name__][1:] == TABLE[parent.__name__][1:]
    assert all(400 <= http < 600 and 1 <= code < 10 for _, http, code in TABLE.values())
    assert all(code != 0 for _, _, code in TABLE.values())


def test_only_what_may_be_better_next_time_is_retryable():
    retryable = {error.code for error in tree() if error.retryable and error.__name__ not in PARENTS}
    assert retryable == {"session_busy", "provider_unavailable", "tool_server_unavailable", "store_unavailable"}


@pytest.mark.parametrize("name", ["ProviderUnavailable", "ToolServerUnavailable", "StoreUnavailable"])
def test_what_is_not_there_for_now_is_a_503_and_exit_8(name: str):
    assert TABLE[name][1:] == (503, 8)


def test_an_error_shows_its_code_and_message_then_what_is_known_beyond():
    error = SessionBusy("Busy.", hint="Wait.", retry_after_s=1.5, session_id="s", owner=None, candidates=[])
    assert list(error.as_dict().items()) == [
        ("code", "session_busy"),
        ("message", "Busy."),
        ("hint", "Wait."),
        ("retryable", True),
        ("retry_after_s", 1.5),
        ("session_id", "s"),
        ("candidates", []),
    ]


def test_what_is_not_known_is_not_shown():
    assert SessionNotFound("Gone.").as_dict() == {"code": "session_not_found", "message": "Gone.", "retryable": False}


def test_retrying_at_once_is_worth_saying():
    assert SessionBusy("Busy.", retry_after_s=0).as_dict()["retry_after_s"] == 0


def test_an_error_reads_as_its_message():
    assert str(SessionNotFound("There is no session 'x'.")) == "There is no session 'x'."


def test_a_bug_says_nothing_of_itself_but_where_to_look():
    shown = Internal().as_dict()
    assert shown["message"] == "Internal error."
    assert "log" in shown["hint"]
