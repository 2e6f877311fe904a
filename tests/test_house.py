"""The rules of the house, as tests. There is no list of exceptions: what breaks a rule gets changed.

A rule is a function from a module to its breaches. Each is tried on a module that breaks it as well, and so is each
import contract: a rule that notices nothing is no rule.
"""

import ast
import io
import os
import re
import shutil
import subprocess
import sys
import tokenize
import tomllib
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
PACKAGE = ROOT / "meerkat_mcp"
MODULE_LINES_MAX = 400
FUNCTION_LINES_MAX = 60

# ── the rules ──


@dataclass(frozen=True)
class Module:
    """A module: its path within the package, and its text."""

    path: str
    text: str

    @cached_property
    def nodes(self) -> list[ast.AST]:
        return list(ast.walk(ast.parse(self.text)))

    @cached_property
    def functions(self) -> list[ast.FunctionDef | ast.AsyncFunctionDef]:
        return [node for node in self.nodes if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)]


Rule = Callable[[Module], Iterator[str]]


def a_module_has_at_most_400_lines(module: Module) -> Iterator[str]:
    if (lines := len(module.text.splitlines())) > MODULE_LINES_MAX:
        yield f"{lines} lines"


def a_function_has_at_most_60_lines(module: Module) -> Iterator[str]:
    for function in module.functions:
        lines = (function.end_lineno or function.lineno) - function.lineno + 1
        if lines > FUNCTION_LINES_MAX:
            yield f"{function.name} has {lines} lines"


def a_module_says_what_it_is_for(module: Module) -> Iterator[str]:
    if not ast.get_docstring(ast.parse(module.text)):
        yield "no docstring"


def imports_stand_at_the_top(module: Module) -> Iterator[str]:
    """But where a part is wired in only when it is wanted: the realm, the commands, the package's lazy names."""
    if module.path == "__init__.py" or module.path.startswith(("cli/", "realms/")):
        return
    for function in module.functions:
        for node in ast.walk(function):
            if isinstance(node, ast.Import | ast.ImportFrom):
                yield f"{ast.unparse(node)} in {function.name}"


def names_say_what_things_are(module: Module) -> Iterator[str]:
    if set(Path(module.path).with_suffix("").parts) & {"util", "utils", "helper", "helpers", "common", "misc"}:
        yield "a module's name is a noun of the domain"
    for node in module.nodes:
        if isinstance(node, ast.ClassDef):
            words = set(re.findall(r"[A-Z]+[a-z]*", node.name))
            if words & {"Manager", "Handler", "Helper", "Helpers", "Util", "Utils", "Base"}:
                yield f"class {node.name}"


def only_the_realms_room_reads_the_environment(module: Module) -> Iterator[str]:
    """And the proxy of a shared server, which hands it on to that room in another process, and cannot import it."""
    reading = re.compile(r"\bos\.(environb?|getenvb?)\b|\bfrom os import .*\b(environb?|getenvb?)\b")
    if not module.path.startswith(("realms/", "shared/")):
        for node in module.nodes:
            if isinstance(node, ast.Attribute | ast.ImportFrom) and reading.search(ast.unparse(node)):
                yield f"line {node.lineno}: {ast.unparse(node)}"


def nothing_is_printed(module: Module) -> Iterator[str]:
    """Standard output belongs to the protocol."""
    for node in module.nodes:
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id == "print":
            yield f"line {node.lineno}"


def anyio_runs_everything(module: Module) -> Iterator[str]:
    """Cancelling is what ends turns here, and anyio's is level-triggered and scoped; asyncio's is neither.

    asyncio itself stays where there is no other way: the pipes and sockets of our connections, whose reads and writes
    are callbacks of the event loop; signals, which anyio does not hear on Windows; and drivers of stores that are
    written for it.
    """
    connections = ("server/connection.py", "server/stdio.py", "server/signals.py")
    if module.path in connections or module.path.startswith("stores/"):
        return
    for node in module.nodes:
        names = [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
        names += [node.module or ""] if isinstance(node, ast.ImportFrom) else []
        if any(name.partition(".")[0] == "asyncio" for name in names):
            yield ast.unparse(node)


def nothing_is_left_for_later(module: Module) -> Iterator[str]:
    for token in tokenize.generate_tokens(io.StringIO(module.text).readline):
        if token.type == tokenize.COMMENT and re.search(r"\b(TODO|FIXME|XXX)\b", token.string):
            yield f"line {token.start[0]}: {token.string}"


RULES: dict[Rule, Module] = {
    a_module_has_at_most_400_lines: Module("long.py", "x = 1\n" * 401),
    a_function_has_at_most_60_lines: Module("long.py", "async def long():\n" + "    x = 1\n" * 60),
    a_module_says_what_it_is_for: Module("silent.py", "x = 1\n"),
    imports_stand_at_the_top: Module("server/__init__.py", "def f():\n    if x:\n        from os import path\n"),
    names_say_what_things_are: Module("turns.py", "class TurnManager: ...\n"),
    only_the_realms_room_reads_the_environment: Module("cli/run.py", "import os\nx = os.environ['HOME']\n"),
    nothing_is_printed: Module("cli/run.py", "print('hello')\n"),
    anyio_runs_everything: Module("sessions/turn.py", "from asyncio import sleep\n"),
    nothing_is_left_for_later: Module("turn.py", "x = 1  # TODO: two\n"),
}
"""Each rule with a module that breaks it."""

MODULES = [
    Module(path.relative_to(PACKAGE).as_posix(), path.read_text(encoding="utf-8"))
    for path in sorted(PACKAGE.rglob("*.py"))
]


@pytest.mark.parametrize("rule", RULES, ids=lambda rule: rule.__name__)
def test_the_house_keeps_its_rules(rule: Rule):
    assert [f"{module.path}: {breach}" for module in MODULES for breach in rule(module)] == []


@pytest.mark.parametrize("rule", RULES, ids=lambda rule: rule.__name__)
def test_a_rule_notices_what_breaks_it(rule: Rule):
    assert list(rule(RULES[rule]))


@pytest.mark.parametrize(
    "module",
    [
        Module("sessions/helpers.py", ""),
        Module("common/turn.py", ""),
        Module("x.py", "class BaseStore: ...\n"),
        Module("x.py", "class EventHandler: ...\n"),
    ],
    ids=lambda module: module.text or module.path,
)
def test_no_name_says_only_that_something_is_handled_managed_or_shared(module: Module):
    assert list(names_say_what_things_are(module))


def test_a_name_that_only_contains_such_a_word_is_fine():
    assert not list(names_say_what_things_are(Module("stores/base.py", "class Baseline: ...\nclass Database: ...\n")))


# ── tools that know more ──


def run(*command: str, cwd: Path = ROOT, **environment: str) -> subprocess.CompletedProcess[str]:
    """Run a tool of this environment. Its output is shown when a test fails."""
    return subprocess.run(
        [sys.executable, *command],
        cwd=cwd,
        env=os.environ | {"PYTHONPATH": str(cwd), "PYTHONUTF8": "1", "NO_COLOR": "1"} | environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        encoding="utf-8",
        timeout=110,
        check=False,
    )


PLACES = [folder for folder in ("meerkat_mcp", "tests", "benchmarks", "docs") if (ROOT / folder).exists()]


@pytest.mark.parametrize("command", [("check",), ("format", "--check")], ids=" ".join)
def test_ruff_finds_nothing(command: tuple[str, ...]):
    found = run("-m", "ruff", *command, "--no-cache", *PLACES)
    assert found.returncode == 0, found.stdout


def test_pyright_finds_nothing_in_strict_mode():
    tried = run("-m", "pyright", "--version", PYRIGHT_PYTHON_IGNORE_WARNINGS="1")
    if tried.returncode != 0 and not os.environ.get("CI"):
        pytest.skip(f"pyright cannot run here (it needs Node, and fetches itself once): {tried.stdout[-300:]}")
    assert tried.returncode == 0, tried.stdout
    found = run("-m", "pyright", "--pythonpath", sys.executable, PYRIGHT_PYTHON_IGNORE_WARNINGS="1")
    assert found.returncode == 0, found.stdout


# ── who may import whom ──

LINT_IMPORTS = ("-c", "from importlinter.cli import lint_imports_command as lint; lint()", "--no-cache")
PLANTED = {
    "Floors": ("stores/base.py", "import meerkat_mcp.sessions.journal"),
    "Rooms": ("stores/memory.py", "import meerkat_mcp.stores.sqlite"),
    "Wires": ("providers/demo.py", "import meerkat_mcp.providers.gemini"),
    "Seams": ("sessions/turn.py", "import meerkat_mcp.tools.remote"),
    "Ground is pure": ("domain/session.py", "import time"),
    "MCP stays at the edge": ("sessions/turn.py", "import mcp"),
    "HTTP stays in the web room": ("server/callers.py", "import starlette"),
    "Proxy": ("shared/talk.py", "import pydantic"),
    "No cycles anywhere": ("domain/messages.py", "import meerkat_mcp.domain.events"),
}
"""For each contract an import that breaks it, and where."""

CONTRACTS = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["tool"]["importlinter"]["contracts"]


def broken(said: str) -> list[str]:
    """The contracts that a report calls broken."""
    return [line.partition(":")[0].removesuffix(" BROKEN") for line in said.splitlines() if line.endswith(" BROKEN")]


def test_the_import_contracts_hold():
    found = run(*LINT_IMPORTS)
    assert found.returncode == 0, found.stdout
    assert f"Contracts: {len(CONTRACTS)} kept, 0 broken." in found.stdout


def test_there_is_a_breach_to_plant_for_every_contract():
    assert [contract["name"].partition(":")[0] for contract in CONTRACTS] == list(PLANTED)


@pytest.mark.parametrize("contract", PLANTED)
def test_a_planted_breach_of_a_contract_is_named(contract: str, tmp_path: Path):
    shutil.copytree(PACKAGE, tmp_path / PACKAGE.name, ignore=shutil.ignore_patterns("__pycache__"))
    shutil.copy(ROOT / "pyproject.toml", tmp_path)
    path, breach = PLANTED[contract]
    with (tmp_path / PACKAGE.name / path).open("a", encoding="utf-8") as module:
        module.write(f"\n{breach}\n")
    found = run(*LINT_IMPORTS, cwd=tmp_path)
    assert found.returncode == 1, found.stdout
    assert contract in broken(found.stdout), found.stdout
    assert f".{Path(path).stem} -> " in found.stdout
