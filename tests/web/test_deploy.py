"""The systemd unit and the container file of `docs/deploy`: what they run is what this program takes, and it works."""

import json
import os
import re
import shlex
import shutil
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import anyio
import httpx2
import pytest
from web import proxies
from web.conftest import Server

from meerkat_mcp.cli import grammar
from meerkat_mcp.cli.http import given

ROOT = Path(__file__).parents[2]
UNIT = proxies.DEPLOY / "meerkat-mcp.service"
CONTAINERFILE = proxies.DEPLOY / "Containerfile"
HOME = "/opt/meerkat-mcp"
"""Where both install the program."""
INSTALL_S = 240
COMMAND_S = 60


# ── systemd ──


def unit() -> dict[str, list[str]]:
    """The settings of the unit, each with its values."""
    settings: dict[str, list[str]] = {}
    for line in UNIT.read_text(encoding="utf-8").replace("\\\n", " ").splitlines():
        name, equals, value = line.partition("=")
        if equals and not line.startswith("#"):
            settings.setdefault(name, []).append(value)
    return settings


def served(words: list[str]) -> grammar.Namespace:
    """The flags of a command that serves over HTTP, if it takes them."""
    asked = grammar.parsed(words)
    assert (asked.command, asked.http) == ("serve:serve", True)
    return asked


def test_the_unit_starts_a_server_that_may_end_its_turns_before_it_is_killed():
    (command,) = unit()["ExecStart"]
    program, *words = shlex.split(command)
    asked = served(words)
    assert (program, asked.realm) == (f"{HOME}/bin/meerkat-mcp", "team")
    assert float(unit()["TimeoutStopSec"][0]) >= asked.drain_s + 10
    assert unit()["KillMode"] == ["mixed"]
    assert asked.state_root == f"/var/lib/{unit()['StateDirectory'][0]}"


@pytest.mark.parametrize("port", ["9111", "%i"], ids=["one", "several"])
def test_systemd_takes_the_unit(tmp_path: Path, port: str):
    program = shutil.which("systemd-analyze") or pytest.skip("systemd-analyze is not installed")
    text = UNIT.read_text(encoding="utf-8").replace(f"{HOME}/bin/meerkat-mcp", sys.executable)
    text = text.replace("--port 9111", f"--port {port}")
    copy = tmp_path / ("meerkat-mcp.service" if port == "9111" else "meerkat-mcp@9111.service")
    copy.write_text(text, encoding="utf-8")
    done = subprocess.run([program, "verify", str(copy)], capture_output=True, text=True, timeout=COMMAND_S)
    assert (done.returncode, done.stderr) == (0, "")


def test_the_sandbox_of_the_unit_leaves_little_open(tmp_path: Path):
    program = shutil.which("systemd-analyze") or pytest.skip("systemd-analyze is not installed")
    copy = tmp_path / UNIT.name
    copy.write_text(UNIT.read_text(encoding="utf-8").replace(f"{HOME}/bin/meerkat-mcp", sys.executable))
    command = [program, "security", "--offline=yes", "--no-pager", str(copy)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=COMMAND_S)
    if "unrecognized option" in done.stderr:
        pytest.skip("this systemd-analyze cannot judge a unit that is not running")
    (exposure,) = re.findall(r"Overall exposure level for \S+: ([\d.]+)", done.stdout)
    assert float(exposure) < 2


# ── the container ──


@dataclass(frozen=True)
class Step:
    """An instruction of the container file: `stage` counts from 0."""

    stage: int
    name: str
    value: str

    def words(self) -> list[str]:
        """The words of an instruction that is written as a JSON list: no shell takes part."""
        return json.loads(self.value)


def steps() -> list[Step]:
    text = "\n".join(line for line in CONTAINERFILE.read_text(encoding="utf-8").splitlines() if line[:1] != "#")
    stage, found = -1, list[Step]()
    for line in text.replace("\\\n", " ").splitlines():
        name, _, value = line.partition(" ")
        if name:
            stage += name == "FROM"
            found.append(Step(stage, name, value.strip()))
    return found


def last(name: str) -> Step:
    """The instruction that holds when the container runs."""
    return [step for step in steps() if (step.stage, step.name) == (1, name)][-1]


def test_nothing_in_the_container_goes_through_a_shell():
    for step in steps():
        if step.name in ("RUN", "CMD", "ENTRYPOINT", "VOLUME"):
            assert all(isinstance(word, str) for word in step.words())
    _, _, check = last("HEALTHCHECK").value.partition(" CMD ")
    assert json.loads(check)[:2] == ["python", "-c"]


def test_the_container_runs_as_nobody_with_what_the_lock_says():
    stages = [step.value for step in steps() if step.name == "FROM"]
    assert stages == ["${PYTHON} AS build", "${PYTHON}"]
    assert re.fullmatch(r"[1-9]\d{3,}:[1-9]\d{3,}", last("USER").value)
    assert last("STOPSIGNAL").value == "SIGTERM"
    (pip, own) = [step.words() for step in steps() if step.name == "RUN" and "pip" in step.words()]
    assert {"--require-hashes", "--only-binary=:all:", "requirements.lock"} <= set(pip)
    assert {"--no-index", "--no-deps", "--no-build-isolation"} <= set(own)
    assert last("VOLUME").words() == [environment()["MEERKAT_STATE_ROOT"]]


def test_the_container_starts_a_server_that_asks_who_calls():
    assert last("ENTRYPOINT").words() == ["meerkat-mcp"]
    asked = served(last("CMD").words())
    assert (asked.host, asked.realm, environment()["MEERKAT_REALM"]) == ("0.0.0.0", None, "team")
    assert last("EXPOSE").value == "9111"
    assert "port" not in given(asked), "then it is the one that the file exposes"
    assert set(given(asked)) & {"token_file", "token_env", "oauth_issuer"}
    assert "insecure" not in given(asked)


def environment() -> dict[str, str]:
    """What the container file sets."""
    return dict(word.split("=", 1) for word in shlex.split(last("ENV").value))


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The program, installed by the steps of the container file, in a folder in place of a container's root."""
    root = tmp_path_factory.mktemp("container")
    place = root / "build"
    place.mkdir()
    for step in (step for step in steps() if step.stage == 0):
        if step.name == "COPY":
            *sources, _ = step.value.split()
            copied(sources, place)
        elif step.name == "RUN":
            words = [word.replace(HOME, str(root / "home")) for word in step.words()]
            words = [sys.executable if word == "python3" else word for word in words]
            done = subprocess.run(words, cwd=place, capture_output=True, text=True, timeout=INSTALL_S)
            if done.returncode and "pip" in words and "No matching distribution" in done.stderr:
                proxies.missing(f"no registry has what requirements.lock names: {done.stderr.strip()[-300:]}")
            assert done.returncode == 0, done.stdout + done.stderr
    shutil.rmtree(place)
    return root / "home"


def copied(sources: list[str], place: Path) -> None:
    for source in sources:
        if (ROOT / source).is_dir():
            shutil.copytree(ROOT / source, place / source, ignore=shutil.ignore_patterns("__pycache__"))
        else:
            shutil.copy(ROOT / source, place)


@pytest.mark.anyio
@pytest.mark.timeout(INSTALL_S + COMMAND_S)
@pytest.mark.skipif(os.name == "nt", reason="the steps are for Linux, and folders have other names here")
async def test_the_steps_of_the_container_give_a_server_that_writes_into_its_state_alone(built: Path, tmp_path: Path):
    before = seen(built)
    tokens = tmp_path / "tokens"
    tokens.write_text("ada a-token-that-is-long-enough\n")
    tokens.chmod(0o400)
    words = [word.replace("/etc/meerkat-mcp/tokens", str(tokens)) for word in last("CMD").words()]
    own = {"MEERKAT_STATE_ROOT": str(tmp_path / "state"), "HOME": str(tmp_path / "nowhere")}
    env = {"PATH": f"{built}/bin"} | {key: value for key, value in environment().items() if key != "PATH"} | own
    command = [str(built / "bin" / "meerkat-mcp"), *words, "--port", "0"]
    process = await anyio.open_process(command, stdin=None, env=env, cwd=tmp_path)
    async with process, anyio.create_task_group() as tasks:
        server = Server(process)
        tasks.start_soon(server.listen)
        try:
            said = await server.until_said(r"serving realm team .* at http://0\.0\.0\.0:(\d+)/")
            url = f"http://127.0.0.1:{said[1]}"
            await anyio.to_thread.run_sync(check_health, built, url)
            async with httpx2.AsyncClient(headers={"authorization": "Bearer a-token-that-is-long-enough"}) as client:
                page = await client.get(f"{url}/assets/page.js")
                assert page.status_code == 200, "the page is in what was built"
                assert (await client.get(f"{url}/metrics")).status_code == 200
            server.end()
            assert await server.ended() == 0
        finally:
            if process.returncode is None:
                process.kill()
            tasks.cancel_scope.cancel()
    assert seen(built) == before
    assert {path.removeprefix(f"{tmp_path}/").split("/")[0] for path in seen(tmp_path)} == {"state", "tokens"}


def check_health(built: Path, url: str) -> None:
    """What the container file asks of a server that runs."""
    _, _, check = last("HEALTHCHECK").value.partition(" CMD ")
    _, flag, code = json.loads(check)
    code = code.replace("http://127.0.0.1:9111", url)
    done = subprocess.run([str(built / "bin" / "python"), flag, code], capture_output=True, timeout=COMMAND_S)
    assert done.returncode == 0, done.stderr


def seen(folder: Path) -> dict[str, int]:
    """Every file with the time of its last change."""
    return {str(path): path.stat().st_mtime_ns for path in folder.rglob("*") if path.is_file()}
