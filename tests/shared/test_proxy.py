"""The thin proxy alone: what it imports, how it reads its flags, where it looks, what it knows of the talk."""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from e2e.conftest import hosted

import meerkat_mcp
from meerkat_mcp.cli import grammar
from meerkat_mcp.realms import choose
from meerkat_mcp.server import lines
from meerkat_mcp.shared import flags
from meerkat_mcp.shared.talk import LINE_LIMIT_BYTES, Talk

PACKAGE = Path(meerkat_mcp.__file__).parent
OURS = {"cli", "domain", "domain.version", "shared"} | {
    f"shared.{name}" for name in ("address", "flags", "hello", "proxy", "starting", "talk")
}
HEAVY = {"argparse", "asyncio", "dataclasses", "inspect", "logging", "pathlib", "subprocess", "typing", "hashlib"}

# ── what it is ──

LOOK = """
import os, sys
before = set(sys.modules)
from meerkat_mcp import cli
from meerkat_mcp.shared import flags, proxy
proxy.run = lambda wanted: os.write(1, "\\n".join(set(sys.modules) - before).encode())
cli.serve_main(["--shared", "--realm", "den"])
"""


def imported(package_parent: Path) -> set[str]:
    """The modules that a proxy has when it begins to serve."""
    argv = [sys.executable, "-P", "-c", LOOK]
    env = os.environ | {"PYTHONPATH": str(package_parent)}
    return set(subprocess.run(argv, env=env, capture_output=True, text=True, check=True).stdout.split())


def foreign(modules: set[str]) -> set[str]:
    """Those that are not the light part of the standard library, nor the light part of ours."""
    ours = {f"meerkat_mcp.{name}" for name in OURS} | {"meerkat_mcp"}
    return {
        name
        for name in modules - ours
        if name.partition(".")[0] not in sys.stdlib_module_names or name.partition(".")[0] in HEAVY
    }


def test_it_imports_little_of_the_standard_library_and_nothing_else():
    modules = imported(PACKAGE.parent)
    assert "meerkat_mcp.shared.proxy" in modules
    assert foreign(modules) == set()


@pytest.mark.parametrize("breach", ["pydantic", "typing", "asyncio", "meerkat_mcp.domain.errors"])
def test_an_import_that_makes_it_heavy_is_noticed(tmp_path, breach):
    shutil.copytree(PACKAGE, tmp_path / "meerkat_mcp", ignore=shutil.ignore_patterns("__pycache__", "page"))
    with (tmp_path / "meerkat_mcp/shared/talk.py").open("a") as module:
        module.write(f"\nimport {breach}\n")
    assert breach in foreign(imported(tmp_path))


# ── what it was told ──

FLAGS = [
    [],
    ["--realm", "den"],
    ["--realm=den", "--state-root=~/elsewhere"],
    ["--context-root", "."],
    ["--context-root", "/tmp/../usr", "--state-root", "relative"],
    ["--realm", "den", "--config", "~/config.toml"],
]
SURROUNDINGS = [
    {},
    {"MEERKAT_REALM": "named"},
    {"MEERKAT_STATE_ROOT": "~/roots"},
    {"XDG_DATA_HOME": "/data"},
    {"XDG_DATA_HOME": "data"},
    {"MEERKAT_CONFIG": "here.toml"},
]


@pytest.mark.parametrize("words", FLAGS, ids=" ".join)
@pytest.mark.parametrize("variables", SURROUNDINGS, ids=str)
def test_it_means_the_same_realm_as_everybody_else(monkeypatch, words, variables):
    for name in ("MEERKAT_REALM", "MEERKAT_STATE_ROOT", "MEERKAT_CONFIG", "XDG_DATA_HOME"):
        monkeypatch.delenv(name, raising=False)
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    wanted, args = flags.wanted(["--shared", *words]), grammar.parsed_to_serve(["--shared", *words])
    chosen = choose(
        args.realm, state_root=args.state_root, workspace=args.context_root or Path.cwd(), config_file=args.config
    )
    assert wanted is not None
    assert (wanted.realm_id, Path(wanted.folder)) == (chosen.realm_id, chosen.folder.resolve())
    assert wanted.config_file == (None if chosen.config_file is None else str(chosen.config_file))


@pytest.mark.parametrize(
    "words",
    [
        ["--realm", "den"],
        ["--shared", "--http"],
        ["--shared", "--isolated"],
        ["--shared", "--help"],
        ["--shared", "--version"],
        ["--shared", "--realm"],
        ["--shared", "--realm", "--json"],
        ["--shared", "--real", "den"],
        ["--shared", "--idle-exit", "soon"],
        ["--shared", "more"],
    ],
    ids=" ".join,
)
def test_what_is_not_plain_is_left_to_the_grammar(words):
    assert flags.wanted(words) is None


def test_every_flag_it_knows_is_one_of_the_grammar_and_reaches_the_server_or_its_greeting():
    valued = [word for flag in flags.VALUED for word in (flag, "7" if flag == "--idle-exit" else "readonly")]
    valued[valued.index("--log-level") + 1] = "debug"
    wanted, args = flags.wanted([*flags.PLAIN, *valued]), grammar.parsed_to_serve([*flags.PLAIN, *valued])
    assert wanted is not None
    assert {name: str(getattr(args, name)) for name in flags.VALUED.values()} == {
        name: getattr(wanted, name) for name in flags.VALUED.values()
    }
    assert args.command == "resident:through"
    assert set(flags.VALUED) - set(wanted.as_words()) == {"--context-root"}, "it works in that folder instead"


# ── what it knows of the talk ──


def line(**message: object) -> bytes:
    return json.dumps({"jsonrpc": "2.0"} | message).encode() + b"\n"


def said(**message: object) -> bytes:
    return json.dumps({"jsonrpc": "2.0"} | message, separators=(",", ":")).encode() + b"\n"


def test_it_refuses_what_waits_and_nothing_else():
    talk = Talk()
    for request in (1, "one", 0, 'a"b', 2):
        assert talk.asked(line(id=request, method="ping"))
    assert talk.asked(line(method="notifications/cancelled", params={"requestId": 2}))
    answers = said(id=1, result={}) + said(id='a"b', error={}) + said(method="notifications/x", params={"id": 0})
    assert talk.from_server(answers) == answers
    refused = [json.loads(refusal) for refusal in talk.refusals("gone").splitlines()]
    assert [(refusal["id"], refusal["error"]["message"]) for refusal in refused] == [("one", "gone"), (0, "gone")]
    assert talk.refusals("gone") == b""


def test_an_id_of_any_length_is_found():
    talk, long = Talk(), "x" * 10_000
    talk.asked(line(id=long, method="ping"))
    talk.from_server(said(id=long, result={}))
    assert talk.refusals("gone") == b""


def test_a_new_server_is_told_what_the_connection_is_and_its_answers_stay_here():
    talk = Talk()
    for message in (
        line(id=1, method="initialize", params={"a": 1}),
        line(method="notifications/initialized"),
        line(id=2, method="resources/subscribe", params={"uri": "u:1"}),
        line(id=3, method="resources/subscribe", params={"uri": "u:2"}),
        line(id=4, method="logging/setLevel", params={"level": "info"}),
        line(id=5, method="logging/setLevel", params={"level": "debug"}),
        line(id=6, method="resources/unsubscribe", params={"uri": "u:1"}),
        line(id=7, method="tools/list"),
    ):
        assert talk.asked(message)
    talk.refusals("gone")
    talk.forget_server()
    again = [json.loads(message) for message in talk.replayed().splitlines()]
    assert [(message["method"], message.get("params")) for message in again] == [
        ("initialize", {"a": 1}),
        ("notifications/initialized", None),
        ("resources/subscribe", {"uri": "u:2"}),
        ("logging/setLevel", {"level": "debug"}),
    ]
    for message in again:
        if "id" in message:
            assert talk.from_server(said(id=message["id"], result={})) == b""
    other = said(id=8, result={})
    assert talk.from_server(other) == other


def test_an_answer_to_what_a_server_asked_that_is_gone_is_for_nobody():
    talk = Talk()
    asked = said(id=1, method="elicitation/create", params={})
    assert talk.from_server(asked) == asked
    assert talk.asked(line(id=1, result={}))
    talk.from_server(asked)
    talk.forget_server()
    assert not talk.asked(line(id=1, result={}))


def test_half_a_line_of_a_server_that_is_gone_is_never_passed_on():
    talk = Talk()
    assert talk.from_server(b'{"jsonrpc":"2.0","method":"a"}\n{"json') == b'{"jsonrpc":"2.0","method":"a"}\n'
    talk.forget_server()
    assert talk.from_server(b'{"jsonrpc":"2.0","method":"b"}\n') == b'{"jsonrpc":"2.0","method":"b"}\n'


def test_lines_are_cut_as_the_server_cuts_them():
    assert LINE_LIMIT_BYTES == lines.LINE_LIMIT_BYTES
    talk = Talk()
    assert talk.from_host(b'{"a":1}\n\n \r\n{"b"') == [b'{"a":1}\n']
    assert talk.from_host(b":2}\n{") == [b'{"b":2}\n']
    assert talk.from_host(b"") == [b"{\n"], "the last line may have no end of its own"
    talk.from_host(b"x" * (LINE_LIMIT_BYTES + 10))
    (cut,) = talk.from_host(b"y\n")
    assert len(cut) > LINE_LIMIT_BYTES


@pytest.mark.parametrize("message", [b"nonsense\n", b"[1]\n", b"7\n", b'{"id": null, "method": "x"}\n', b"[" * 100_000])
def test_what_it_does_not_understand_is_the_server_s_to_answer(message):
    talk = Talk()
    assert talk.asked(message)
    assert talk.refusals("gone") == b""


# ── where there are no Unix sockets ──

WITHOUT = """
import sys
from meerkat_mcp.shared import address
address.available = lambda: False
from meerkat_mcp.cli import main
raise SystemExit(main(sys.argv[1:]))
"""


@pytest.mark.anyio
async def test_without_unix_sockets_the_process_serves_the_realm_itself_and_says_so(tmp_path):
    with (tmp_path / "stderr").open("w") as stderr:
        async with hosted(tmp_path, "--shared", program=("-c", WITHOUT), stderr=stderr) as host:
            assert (await host.call("meerkat_capabilities"))["transport"] == "pipes"
    assert "--shared needs Unix sockets" in (tmp_path / "stderr").read_text()


@pytest.mark.parametrize(("flag", "why"), [("--http", "stdin and stdout"), ("--isolated", "cannot be shared")])
def test_flags_that_do_not_go_with_it_are_refused(tmp_path, flag, why):
    argv = [sys.executable, "-m", "meerkat_mcp", "serve", "--shared", flag, "--state-root", str(tmp_path)]
    done = subprocess.run(argv, capture_output=True, text=True, timeout=30, check=False)
    assert done.returncode == 2
    assert why in done.stderr
