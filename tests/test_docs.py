"""What the pages say is so: every snippet is run, every name is there, every link leads somewhere.

CONTRIBUTING.md says how a page is read here. A page's tool calls are one conversation with a realm of its own, its
commands another one, both without anybody's keys.
"""

import argparse
import json
import os
import re
import runpy
import shlex
import subprocess
import sys
import tomllib
import urllib.request
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, cast, get_args, get_origin

import anyio
import pytest
from mcp import Client, StdioServerParameters

from meerkat_mcp import Realm, build_server, choose, open_realm
from meerkat_mcp.cli import grammar, http
from meerkat_mcp.domain import errors, events
from meerkat_mcp.domain.config import Config
from meerkat_mcp.providers import anthropic_params, openai_chat, openai_responses
from meerkat_mcp.providers.gemini_history import _PARAMS as GEMINI
from meerkat_mcp.server.app import surface
from meerkat_mcp.web.app import MCP_PATH
from meerkat_mcp.web.guard import Load
from meerkat_mcp.web.metrics import Metrics
from meerkat_mcp.web.options import PORT

ROOT = Path(__file__).parent.parent
DOCS = ROOT / "docs"
STARTED_BY_PAGES = {"notes_server.py"}  # a tool server: what a page's config starts
EXAMPLES = [path for path in sorted((DOCS / "examples").glob("*.py")) if path.name not in STARTED_BY_PAGES]
INSPECTOR = ROOT / "inspector-configs"
CALL_LIMIT_S = 15
COMMAND_LIMIT_S = 30
TOUR_LIMIT_S = 60
KEYS = {"ANTHROPIC_API_KEY", "OPENAI_API_KEY", "GEMINI_API_KEY"}

TOOLS = [tool.name for tool in surface(cast(Any, None))]  # the tools are described without a realm


# ── reading pages ──


@dataclass(frozen=True)
class Block:
    """A fenced block: its language, its text, and the notes to the test in the lines before it."""

    language: str
    text: str
    line: int
    notes: dict[str, str]

    def json(self) -> list[Any]:
        """Its JSON values, one after another."""
        values: list[Any] = []
        rest = self.text.strip()
        while rest:
            value, end = json.JSONDecoder().raw_decode(rest)
            values.append(value)
            rest = rest[end:].strip()
        return values

    def calls(self) -> list[dict[str, Any]]:
        """Its tool calls, if that is what it holds."""
        values = self.json()
        return values if all(isinstance(one, dict) and set(one) == {"name", "arguments"} for one in values) else []

    def commands(self) -> list[str]:
        """Its commands, each on one line."""
        return [line for line in self.text.replace("\\\n", " ").splitlines() if line.strip()]


@dataclass(frozen=True)
class Page:
    """A page of documentation."""

    path: Path
    blocks: list[Block]
    prose: str

    @property
    def name(self) -> str:
        return self.path.relative_to(ROOT).as_posix()

    def of(self, *languages: str) -> list[Block]:
        return [block for block in self.blocks if block.language in languages]


def read(path: Path) -> Page:
    blocks: list[Block] = []
    prose: list[str] = []
    notes: dict[str, str] = {}
    lines = iter(enumerate(path.read_text(encoding="utf-8").splitlines(), start=1))
    for number, line in lines:
        if note := re.fullmatch(r"<!-- (\w+)(?:: (.+))? -->", line):
            notes[note[1]] = note[2] or ""
        elif fence := re.fullmatch(r"```(\w*)", line):
            inside: list[str] = []
            for _, more in lines:
                if more == "```":
                    break
                inside.append(more)
            blocks.append(Block(fence[1], "\n".join(inside) + "\n", number, notes))
            notes = {}
        else:
            prose.append(line)
            notes = {} if line.strip() else notes
    return Page(path, blocks, "\n".join(prose))


PAGES = [
    read(path)
    for path in [
        *(ROOT / name for name in ("README.md", "CHANGELOG.md", "CONTRIBUTING.md")),
        *sorted(INSPECTOR.glob("*.md")),
        *sorted(DOCS.rglob("*.md")),
    ]
]


def with_a(wanted: Callable[[Page], Any]) -> Any:
    """The pages that have something of that kind."""
    return pytest.mark.parametrize("page", [page for page in PAGES if wanted(page)], ids=lambda page: page.name)


def has_calls(page: Page) -> bool:
    return any(block.calls() or "config" in block.notes for block in page.of("json"))


def has_commands(page: Page) -> bool:
    return any(line.startswith("meerkat-mcp ") for block in page.of("sh") for line in block.commands())


# ── reference pages ──


def test_the_reference_pages_say_what_the_code_says():
    command = [sys.executable, str(DOCS / "generate.py"), "--check"]
    done = subprocess.run(command, env=environment(), capture_output=True, text=True, timeout=COMMAND_LIMIT_S)
    assert done.returncode == 0, done.stderr


def config_keys(model: Any = Config, prefix: str = "") -> list[str]:
    """Every key that a config can have, by its path."""
    keys: list[str] = []
    for name, known in model.model_fields.items():
        inner: Any = get_args(known.annotation)[1] if get_origin(known.annotation) is dict else known.annotation
        if hasattr(inner, "model_fields"):
            keys += config_keys(inner, f"{prefix}{name}." + ("NAME." if inner is not known.annotation else ""))
        else:
            keys.append(f"{prefix}{name}")
    return keys


def commands() -> Iterator[str]:
    """Every command that does something, as it is typed."""

    def inside(parser: Any, words: str) -> Iterator[str]:
        deeper = [action.choices for action in parser._actions if isinstance(action.choices, dict)]
        if not deeper:
            yield words
        for name, inner in (deeper[0] if deeper else {}).items():
            yield from inside(inner, f"{words} {name}")

    return inside(grammar._parser(), "meerkat-mcp")


@pytest.mark.parametrize(
    ("page", "names"),
    [
        ("tools.md", TOOLS),
        ("events.md", sorted(events.EVENT_TYPES)),
        ("errors.md", sorted(errors.codes())),
        ("config.md", config_keys()),
        ("cli.md", list(commands())),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_everything_is_on_its_reference_page(page: str, names: list[str]):
    text = (DOCS / "reference" / page).read_text(encoding="utf-8")
    assert names
    assert [name for name in names if f"`{name}`" not in text] == []


def provider_params() -> list[str]:
    """What `provider_params` may hold, for any provider."""
    return sorted({*anthropic_params.Params.model_fields, *openai_responses.PARAMS, *openai_chat.PARAMS, *GEMINI})


def test_every_parameter_of_a_provider_is_on_the_page_about_models():
    text = (DOCS / "how-to" / "real-models.md").read_text(encoding="utf-8")
    assert [name for name in provider_params() if f"`{name}`" not in text] == []


def test_every_name_that_opentelemetry_sees_is_on_its_page():
    text = (DOCS / "how-to" / "opentelemetry.md").read_text(encoding="utf-8")
    source = (ROOT / "meerkat_mcp" / "telemetry.py").read_text(encoding="utf-8")
    names = set(re.findall(r'"((?:gen_ai|meerkat|server|error)\.[a-z_.]+)"', source))
    assert len(names) > 20
    assert sorted(name for name in names if f"`{name}`" not in text) == []


def test_every_flag_for_http_is_on_its_page():
    parser = argparse.ArgumentParser(add_help=False)
    http.add_flags(parser)
    text = (DOCS / "how-to" / "serve-over-http.md").read_text(encoding="utf-8")
    flags = [flag for action in parser._actions for flag in action.option_strings]
    assert len(flags) > 15
    assert [flag for flag in flags if flag not in text] == []


@pytest.mark.anyio
async def test_every_metric_is_on_its_page_with_its_labels(tmp_path: Path):
    page = (DOCS / "how-to" / "serve-over-http.md").read_text(encoding="utf-8")
    rows = dict(re.findall(r"^\| `(meerkat_\w+)` \| ([^|]*?) ?\|", page, re.MULTILINE))
    async with open_realm(choose("docs", backend="memory", state_root=tmp_path)) as realm:
        collectors = [*Metrics(realm, Load())._registry._collector_to_names]
    names = {
        f"{one._name}_total" if one._type == "counter" else one._name: one._labelnames
        for one in cast(list[Any], collectors)
        if hasattr(one, "_labelnames")
    }
    assert rows == {name: ", ".join(f"`{label}`" for label in labels) for name, labels in names.items()}


def test_the_readme_lists_every_tool_once():
    rows = re.findall(r"^\| `(meerkat_\w+)` \|", (ROOT / "README.md").read_text(encoding="utf-8"), re.MULTILINE)
    assert sorted(rows) == sorted(TOOLS)


# ── tool calls ──


@dataclass
class Conversation:
    """The tool calls of a page on a real server, from top to bottom."""

    client: Client
    realm: Realm
    folder: Path
    known: dict[str, str] = field(default_factory=dict)
    result: Any = None

    async def play(self, block: Block) -> None:
        if "config" in block.notes:  # as a person would, on the command line
            await self.realm.patch_config(json.loads(here(block.text, self.folder)))
        for call in block.calls():
            await self.call(call, block.notes.get("fails"))

    async def call(self, call: dict[str, Any], fails: str | None) -> None:
        with anyio.fail_after(CALL_LIMIT_S):
            said = await self.client.call_tool(call["name"], self._filled(call["arguments"]))
        self.result = json.loads(cast(Any, said.content[0]).text)
        code = self.result["error"]["code"] if said.is_error else None
        assert code == fails, self.result
        self._learn(self.result)

    def _filled(self, value: Any) -> Any:
        """With `<key>` replaced by the latest value of that key."""
        match value:
            case str():
                return re.sub(r"<(\w+)>", lambda found: self.known[found[1]], value)
            case dict():
                return {key: self._filled(inner) for key, inner in value.items()}
            case list():
                return [self._filled(inner) for inner in value]
            case _:
                return value

    def _learn(self, value: Any) -> None:
        if isinstance(value, list):
            for inner in value:
                self._learn(inner)
        elif isinstance(value, dict):
            for key, inner in value.items():
                if isinstance(inner, str):
                    self.known[key] = inner
                self._learn(inner)


def here(text: str, folder: Path) -> str:
    """A page's text with places of this machine."""
    places = {"/path/to/.venv/bin/python": sys.executable, "/path/to/docs": str(DOCS), "/path/to": str(folder)}
    for shown, real in places.items():
        text = text.replace(shown, real.replace("\\", "/"))
    return text


def fits(shown: Any, real: Any) -> bool:
    """Whether what a page shows is so. It need not show all fields; `…` stands for anything."""
    match shown:
        case "…":
            return True
        case str() if isinstance(real, str):
            return re.fullmatch(".*".join(map(re.escape, shown.split("…"))), real, re.DOTALL) is not None
        case dict() if isinstance(real, dict):
            return all(key in real and fits(inner, real[key]) for key, inner in shown.items())
        case [*first, "…"] if isinstance(real, list):
            return len(real) >= len(first) and all(map(fits, first, real))
        case list() if isinstance(real, list):
            return len(shown) == len(real) and all(map(fits, shown, real))
        case _:
            return type(shown) is type(real) and shown == real


@pytest.mark.parametrize(
    ("shown", "real", "is_so"),
    [
        ({"a": 1}, {"a": 1, "b": 2}, True),
        ({"a": 1}, {"a": True}, False),
        ({"a": 1}, {}, False),
        ("so it … ends", "so it really\nends", False),
        ("so it …ends", "so it really\nends", True),
        (["x", "…"], ["x", "y", "z"], True),
        (["x", "…"], [], False),
        (["x"], ["x", "y"], False),
        ("…", 5, True),
        ("5", 5, False),
    ],
)
def test_a_shown_result_is_compared_field_by_field(shown: Any, real: Any, is_so: bool):
    assert fits(shown, real) is is_so


@pytest.mark.anyio
@with_a(has_calls)
async def test_the_tool_calls_of_a_page_work_as_it_says(page: Page, tmp_path: Path):
    choice = choose("docs", backend="memory", state_root=tmp_path)
    async with open_realm(choice) as realm, Client(build_server(realm)) as client:
        conversation = Conversation(client, realm, tmp_path)
        for block in page.of("json"):
            where = f"{page.name}:{block.line}"
            await conversation.play(block)
            if "result" in block.notes:
                (shown,) = block.json()
                assert fits(shown, conversation.result), f"{where}: the result is {conversation.result}"


@with_a(lambda page: page.of("json", "toml"))
def test_json_and_toml_on_a_page_can_be_read(page: Page):
    for block in page.of("json", "toml"):
        assert block.json() if block.language == "json" else tomllib.loads(block.text)


# ── host configs ──


@with_a(lambda page: any("host" in block.notes for block in page.blocks))
def test_the_host_configs_of_a_page_start_our_server(page: Page):
    for block in page.blocks:
        if "host" in block.notes:
            config = tomllib.loads(block.text) if block.language == "toml" else block.json()[0]
            ((key, servers),) = [(key, value) for key, value in config.items() if key != "inputs"]
            assert key in ("mcpServers", "servers", "context_servers", "mcp_servers")
            for server in servers.values():
                if "url" in server:
                    assert_reaches(server)
                    continue
                assert server["command"] == "/path/to/.venv/bin/meerkat-mcp"
                assert_serves(server["args"])
                assert {*server.get("env", ()), *server.get("env_vars", ())} <= KEYS


def assert_reaches(server: dict[str, Any]) -> None:
    """A host's config for HTTP: our address as it is without flags, and a token by its name, never a real one."""
    assert server["url"] == f"http://127.0.0.1:{PORT}{MCP_PATH}"
    token = server.get("bearer_token_env_var") or server["headers"]["Authorization"]
    assert re.fullmatch(r"MEERKAT_TOKEN|Bearer (\$\{?(env:|input:)?(MEERKAT_TOKEN|meerkat-token)\}?|YOUR_TOKEN)", token)


@with_a(lambda page: "/path/to/.venv/bin/meerkat-mcp" in page.path.read_text(encoding="utf-8"))
def test_the_commands_that_add_us_to_a_host_start_our_server(page: Page):
    for block in page.of("sh", "text"):
        for line in block.commands():
            _, ours, flags = line.partition("/path/to/.venv/bin/meerkat-mcp ")
            if ours:
                assert_serves(shlex.split(flags))


def assert_serves(arguments: list[str]) -> None:
    asked = grammar.parsed(arguments)
    assert asked.command in ("serve:serve", "resident:through")
    assert asked.realm == "my-realm"


def inspector_servers() -> list[Any]:
    configs = {path.name: json.loads(path.read_text(encoding="utf-8")) for path in sorted(INSPECTOR.glob("*.json"))}
    return [
        pytest.param(server, id=f"{file}-{name}")
        for file, config in configs.items()
        for name, server in config["mcpServers"].items()
        if server["type"] == "stdio"  # tests/clients starts servers for those that are on HTTP
    ]


@pytest.mark.anyio
@pytest.mark.parametrize("server", inspector_servers())
async def test_the_inspector_configs_start_a_server_that_answers(server: dict[str, Any], tmp_path: Path):
    mode = {"auto": "auto", "legacy": "legacy", "modern": "2026-07-28"}[server["protocolEra"]]
    assert server["command"] == "python"
    assert server["type"] == "stdio"
    started = StdioServerParameters(
        command=sys.executable, args=server["args"], env=environment(MEERKAT_STATE_ROOT=str(tmp_path))
    )
    with anyio.fail_after(COMMAND_LIMIT_S):
        async with Client(started, mode=cast(Any, mode)) as client:
            assert sorted(tool.name for tool in (await client.list_tools()).tools) == sorted(TOOLS)
            said = await client.call_tool("meerkat_run", {"prompt": "[[say hello]]"})
            assert cast(Any, said.structured_content)["text"] == "hello"


# ── commands ──


@dataclass
class Terminal:
    """The commands of a page, in a folder and with a state root of their own."""

    folder: Path
    seen: str = ""

    def run(self, line: str) -> str:
        done = subprocess.run(self._words(line), **self._place(), capture_output=True, timeout=COMMAND_LIMIT_S)
        assert done.returncode == 0, f"{line}\n{done.stdout}{done.stderr}"
        self.seen += done.stdout + done.stderr
        return done.stdout

    def begin(self, line: str) -> "subprocess.Popen[str]":
        """Run a command beside those that follow; it is at work when this returns."""
        process = subprocess.Popen(
            self._words(line), **self._place(), stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
        )
        realm = re.findall(r"--realm \S+", line)[0]
        for _ in range(20):  # each look takes a process of its own
            if process.poll() is None and (self.folder / "state").exists():
                look = f"meerkat-mcp session list {realm} --state running --json"
                if json.loads(self.run(look))["sessions"]:
                    return process
        process.kill()
        raise AssertionError(f"{line} does not begin to work")

    def _words(self, line: str) -> list[str]:
        if "SESSION_ID" in line:
            latest = re.findall(r"[0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12}", self.seen)[-1]
            line = line.replace("SESSION_ID", latest)
        return [sys.executable, "-m", "meerkat_mcp", *shlex.split(here(line, self.folder))[1:]]

    def _place(self) -> dict[str, Any]:
        env = environment(MEERKAT_STATE_ROOT=str(self.folder / "state"))
        return {"cwd": self.folder, "env": env, "stdin": subprocess.DEVNULL, "text": True, "encoding": "utf-8"}


def environment(**more: str) -> dict[str, str]:
    return {key: value for key, value in os.environ.items() if not key.startswith("MEERKAT_")} | {
        "PYTHONPATH": str(ROOT),
        "PYTHONUTF8": "1",
        **more,
    }


@with_a(has_commands)
def test_the_commands_of_a_page_work(page: Page, tmp_path: Path):
    terminal = Terminal(tmp_path)
    beside: list[tuple[subprocess.Popen[str], int]] = []
    try:
        for block in page.blocks:
            if "file" in block.notes:
                (tmp_path / block.notes["file"]).write_text(block.text, encoding="utf-8")
            for line in block.commands() if block.language == "sh" else ():
                if not line.startswith("meerkat-mcp "):
                    continue
                if "background" in block.notes:
                    beside.append((terminal.begin(line), int(block.notes["background"])))
                else:
                    terminal.run(line)
        for process, code in beside:
            assert process.wait(COMMAND_LIMIT_S) == code
    finally:
        for process, _ in beside:
            process.kill()
            process.wait(COMMAND_LIMIT_S)


def test_the_tour_goes_as_the_readme_shows_it(tmp_path: Path):
    (shown,) = (block for block in read(ROOT / "README.md").blocks if "tour" in block.notes)
    command = [sys.executable, "-m", "meerkat_mcp", "tour"]
    done = subprocess.run(
        command, cwd=tmp_path, env=environment(), capture_output=True, encoding="utf-8", timeout=TOUR_LIMIT_S
    )
    assert done.returncode == 0, done.stdout + done.stderr
    real = [same_for_all(line) for line in done.stdout.splitlines()]
    for line in shown.text.splitlines():
        assert any(fits(same_for_all(line), one) for one in real), line


def test_the_server_over_http_says_what_the_readme_shows(tmp_path: Path):
    (shown,) = (block for block in read(ROOT / "README.md").blocks if "http" in block.notes)
    (serve, started), (ask, answer) = (part.splitlines() for part in shown.text.strip().split("\n\n"))
    command = [sys.executable, "-m", "meerkat_mcp", *shlex.split(serve)[2:], "--port", "0"]
    process = subprocess.Popen(
        command, cwd=tmp_path, env=environment(MEERKAT_STATE_ROOT=str(tmp_path)), stderr=subprocess.PIPE, text=True
    )
    with process:
        try:
            assert process.stderr is not None, "it was started with a pipe"
            line = process.stderr.readline()
            assert same_for_all(line) == same_for_all(started)
            (address,) = re.findall(r"at (http://[\d.:]+)/", line)
            path = ask.removeprefix("$ curl http://127.0.0.1:9111")
            with urllib.request.urlopen(address + path, timeout=COMMAND_LIMIT_S) as said:
                assert said.read().decode() == answer
        finally:
            process.kill()


def same_for_all(line: str) -> str:
    """Without what differs from run to run: ids and numbers."""
    return re.sub(r"\d+", "N", re.sub(r"[0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12}", "ID", line)).strip()


# ── examples ──

SAYS = {
    "approvals.py": "completed The demo model got these results:\n- notes__add (call_1_1) answered: Noted: Buy milk.",
    "callback_tool.py": "Rain and 4 degrees in Oslo.",
    "embed.py": "Your name is Ada.",
    "embed_export.py": "Names {'from': 'embedded'} ()\nThis is the demo model: a script, no AI. Turn 2 of this "
    "conversation. Your name is Ada.",
    "embed_follow.py": "turn_completed",
    "embed_http.py": "Nice to meet you, Ada.",
    "embed_server.py": "Nice to meet you, Ada.",
    "first_session.py": "Your name is Ada.",
    "follow_events.py": "text_complete word1 word2",
    "fork_session.py": "You asked me to remember: walrus.",
    "interrupt_elsewhere.py": "the next turn: completed",
    "keep_going.py": "running\ncompleted",
    "progress.py": "turn completed\ncompleted",
    "structured_output.py": "City(name='Oslo', people=724290)",
}


def test_every_example_is_run():
    assert [path.name for path in EXAMPLES] == sorted(SAYS)


@pytest.mark.parametrize("path", EXAMPLES, ids=lambda path: path.name)
def test_an_example_does_what_it_says(
    path: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
):
    monkeypatch.setenv("MEERKAT_STATE_ROOT", str(tmp_path))
    monkeypatch.setenv("PYTHONPATH", str(ROOT))
    monkeypatch.delenv("MEERKAT_REALM", raising=False)
    main = runpy.run_path(str(path))["main"]

    async def bounded() -> None:
        with anyio.fail_after(COMMAND_LIMIT_S):
            await main()

    anyio.run(bounded)
    assert SAYS[path.name] in capfd.readouterr().out


@with_a(lambda page: page.of("python"))
def test_the_python_of_a_page_is_an_example_that_is_run(page: Page):
    examples = [path.read_text(encoding="utf-8") for path in EXAMPLES]
    for block in page.of("python"):
        assert any(block.text in example for example in examples), f"{page.name}:{block.line}"


# ── links ──


@with_a(lambda page: "](" in page.prose)
def test_the_links_of_a_page_lead_somewhere(page: Page):
    for target in re.findall(r"\]\(([^)\s]+)\)", page.prose):
        if re.match(r"https?://", target):
            continue
        name, _, anchor = target.partition("#")
        path = (page.path.parent / name).resolve() if name else page.path
        assert path.exists(), f"{page.name}: {target}"
        assert ROOT in path.parents, f"{page.name}: {target}"
        if anchor:
            assert anchor in headings(path), f"{page.name}: {target}"


def headings(path: Path) -> set[str]:
    """The anchors that a page's headings make."""
    said = re.findall(r"^#+ (.+)$", read(path).prose, re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", title.lower()).replace(" ", "-") for title in said}


def test_every_page_is_linked_from_the_index():
    linked = set(re.findall(r"\]\(([^)#]+)", (DOCS / "index.md").read_text(encoding="utf-8")))
    pages = {path.relative_to(DOCS).as_posix() for path in DOCS.rglob("*.md")} - {"index.md"}
    assert pages - linked == set()


# ── what no file may say ──

REGISTRIES = [
    ".".join(parts)
    for parts in [
        ("pypi", "org"),
        ("pythonhosted", "org"),
        ("npmjs", "org"),
        ("npmjs", "com"),
        ("crates", "io"),
        ("proxy", "golang", "org"),
        ("conda", "anaconda", "org"),
    ]
]
MACHINES = ["/" + "work/", "/" + "root/", r"/" + r"home/\w", "/" + r"Users/\w", r"C:\\+" + "Users"]


def files() -> Iterator[Path]:
    """Every file that is in the repository or would be."""
    command = ["git", "ls-files", "--cached", "--others", "--exclude-standard", "-z"]
    listed = subprocess.run(command, cwd=ROOT, capture_output=True, encoding="utf-8", timeout=COMMAND_LIMIT_S)
    if listed.returncode:
        pytest.skip("this is no git repository")
    yield from (ROOT / name for name in listed.stdout.split("\0") if name and (ROOT / name).is_file())


def test_no_file_names_a_registry_or_somebodys_machine():
    unwanted = re.compile("|".join([*map(re.escape, REGISTRIES), *MACHINES]))
    found: list[str] = []
    for path in files():
        try:
            text = path.read_text(encoding="utf-8")
        except UnicodeDecodeError:
            continue
        lines = enumerate(text.splitlines(), start=1)
        found += [f"{path.relative_to(ROOT)}:{n}: {hit[0]}" for n, line in lines if (hit := unwanted.search(line))]
    assert found == []
