"""The resident server's life: how it starts, what ends it, who takes its place, and whose environment it has."""

import os
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import anyio
import pytest
from e2e.conftest import hosted
from shared.conftest import is_gone, until
from vendors.script import Text, Turn
from vendors.server import Server
from words import check_log

import meerkat_mcp
from meerkat_mcp.domain.version import VERSION
from meerkat_mcp.shared import hello
from meerkat_mcp.shared.logfile import LOG_BYTES_MAX

pytestmark = [pytest.mark.anyio, pytest.mark.skipif(sys.platform == "win32", reason="there are no Unix sockets")]

PACKAGE = Path(meerkat_mcp.__file__).parent


def command(tmp_path: Path, *words: str, **more: str) -> subprocess.CompletedProcess[str]:
    place = ["--realm", "den", "--state-root", str(tmp_path)]
    argv = [sys.executable, "-m", "meerkat_mcp", *words, *place]
    return subprocess.run(argv, capture_output=True, text=True, timeout=40, check=False, env=os.environ | more)


def descriptors(pid: int) -> dict[int, Path]:
    """What a process has open."""
    return {int(path.name): path.readlink() for path in Path(f"/proc/{pid}/fd").iterdir()}


def said_to_nobody(path: str) -> bytes:
    """What the server there answers to a process of the user nobody."""
    program = (
        "import os, socket, sys; os.setuid(65534); link = socket.socket(socket.AF_UNIX); link.connect(sys.argv[1]);"
        "print('connected', end=', '); print(link.recv(100))"
    )
    Path(path).chmod(0o777)
    done = subprocess.run([sys.executable, "-c", program, path], capture_output=True, timeout=20, check=True)
    return done.stdout


# ── its start ──


@pytest.mark.skipif(sys.platform != "linux", reason="looks into /proc")
async def test_it_lives_in_a_session_of_its_own_without_the_pipes_of_who_started_it(host, residents):
    pid = residents.one()["pid"]
    assert os.getsid(pid) not in (os.getsid(0), os.getsid(host.process.pid))
    assert os.getppid() != pid
    held, log = descriptors(pid), residents.folder / "resident.log"
    assert {number: held[number] for number in range(3)} == {0: Path(os.devnull), 1: log, 2: log}
    assert log.stat().st_mode & 0o777 == 0o600
    pipes = descriptors(host.process.pid)
    assert not {pipes[0], pipes[1]} & set(held.values())


async def test_who_cannot_start_one_says_why_to_every_request_and_ends_with_an_error(share):
    async with share("--realm-backend", "redb") as host:
        said = await host.ask("tools/list", {})
        assert "There is no backend 'redb'" in said["error"]["message"]
        assert "use sqlite" in said["error"]["message"]
        await host.process.stdin.aclose()
        assert await host.process.wait() == 1


@pytest.mark.parametrize("how", ["open to others", "a link"])
async def test_a_runtime_folder_that_is_not_ours_alone_is_refused(share, runtime, tmp_path, how):
    if how == "a link":
        (tmp_path / "elsewhere").mkdir(mode=0o700)
        runtime.rmdir()
        runtime.symlink_to(tmp_path / "elsewhere")
    else:
        runtime.chmod(0o755)
    async with share() as host:
        said = await host.ask("tools/list", {})
        assert "is not a folder of yours that nobody else can enter" in said["error"]["message"]
    if how == "a link":
        runtime.unlink()
        runtime.mkdir(mode=0o700)
    else:
        runtime.chmod(0o700)


async def test_a_runtime_folder_with_too_long_a_name_is_refused(share, monkeypatch, tmp_path):
    async with share(env=os.environ | {"MEERKAT_RUNTIME_DIR": str(tmp_path / ("long" * 30))}) as host:
        assert "too long for the address" in (await host.ask("tools/list", {}))["error"]["message"]


@pytest.mark.skipif(os.getuid() != 0, reason="only root can become somebody else")
async def test_another_user_is_not_answered_even_where_the_folder_lets_them_in(host, residents, runtime):
    (path,) = residents.paths()
    runtime.chmod(0o711)
    try:
        said = said_to_nobody(path)
    finally:
        runtime.chmod(0o700)
    assert said == b"connected, b''\n"


# ── its end ──


async def test_it_ends_when_it_was_idle_for_so_long_but_never_while_a_turn_runs(share, residents):
    async with share("--idle-exit", "3") as host:
        run = await host.call("meerkat_run", prompt="[[wait 4.5]][[say done]]", wait_seconds=0)
        pid, started = residents.one()["pid"], anyio.current_time()
    await until(lambda: is_gone(pid))
    assert anyio.current_time() - started > 4.5 + 2.5
    assert residents.paths() == []
    async with share() as host:
        read = await host.call("meerkat_read", session_id=run["session_id"])
        assert (read["turn"]["status"], read["turn"]["text"]) == ("completed", "done")


async def test_the_socket_of_one_that_was_killed_is_replaced(share, residents):
    async with share():
        first = residents.one()["pid"]
    os.kill(first, signal.SIGKILL)
    await until(lambda: is_gone(first))
    assert residents.paths()
    async with share() as host:
        assert residents.one()["pid"] != first
        assert "result" in await host.ask("ping", {})


async def test_a_host_whose_server_is_killed_gets_errors_for_what_is_open_and_goes_on_with_a_new_one(share, residents):
    async with share() as host:
        run = await host.call("meerkat_run", prompt="My name is Ada.")
        uri = f"meerkat://sessions/{run['session_id']}"
        assert "result" in await host.ask("resources/subscribe", {"uri": uri})
        number = await host.begin("meerkat_run", prompt="[[say a]][[hang]]", stream=True)
        await host.event("text_delta")
        first = residents.one()["pid"]
        os.kill(first, signal.SIGKILL)
        lost = await host.until(lambda: host.said(number))
        assert "ended before it had answered" in lost["error"]["message"]
        assert residents.all() == []
        again = await host.call("meerkat_resume", session_id=run["session_id"], prompt="What's my name?")
        assert "Your name is Ada." in again["text"]
        assert residents.one()["pid"] != first
        updates = [note["params"]["uri"] for note in host.notes if note["method"] == "notifications/resources/updated"]
        assert uri in updates, "the new server knows what this connection had subscribed to"
        ours = [line for line in host.lines if "meerkat-mcp-proxy" in line]
        assert ours == [], "what the proxy says for itself is its own"


async def test_one_that_is_told_to_go_suspends_its_turns_for_the_next_one(share, residents, look, tmp_path):
    async with share() as host:
        run = await host.call("meerkat_run", prompt="[[say a]][[wait 8]][[say b]]", wait_seconds=0.3)
        first = residents.one()["pid"]
        stopped = command(tmp_path, "resident", "stop")
        assert (stopped.returncode, stopped.stderr) == (0, "1 ended.\n")
        await until(lambda: is_gone(first))
        async with look() as realm:
            assert (await realm.journal.load(run["session_id"])).state == "suspended"
        read = await host.call("meerkat_read", session_id=run["session_id"], wait_seconds=15)
        assert (read["turn"]["turn_id"], read["turn"]["status"]) == (run["turn_id"], "completed")
        assert read["turn"]["text"] == "a\nb"
    async with look() as realm:
        await check_log(realm, run["session_id"])


async def test_the_commands_say_what_there_is(host, residents, tmp_path):
    said = command(tmp_path, "resident", "status")
    assert f"process  {residents.one()['pid']}" in said.stdout
    assert '"hosts": 1' in command(tmp_path, "resident", "status", "--json").stdout
    assert command(tmp_path, "resident", "stop", "--json").stdout == '{"stopped": 1}\n'
    assert command(tmp_path, "resident", "status").stderr == "This realm has no resident server.\n"
    assert command(tmp_path, "resident", "stop").stderr == "This realm has no resident server.\n"


async def test_its_log_does_not_grow_without_bound_and_holds_no_prompt(share, residents):
    async with share("--log-level", "debug") as host:
        await host.call("meerkat_run", prompt="[[say xyzzy-plugh]] xyzzy-prompt")
        assert "xyzzy" not in residents.log()
        log = residents.folder / "resident.log"
        with log.open("a") as file:
            file.write("x" * LOG_BYTES_MAX)
        await until(lambda: log.stat().st_size < LOG_BYTES_MAX)
        aside = residents.folder / "resident.log.1"
        assert aside.stat().st_size >= LOG_BYTES_MAX


# ── versions ──


async def test_another_version_makes_it_make_way_and_it_serves_its_hosts_until_they_leave(share, residents):
    async with share() as old_host:
        first = residents.one()["pid"]
        link, answer = residents.greet(version="999.0")
        link.close()
        assert (answer["ok"], answer["makes_way"]) == (False, True)
        assert residents.paths() == []
        run = await old_host.call("meerkat_run", prompt="My name is Ada.")
        async with share() as new_host:
            assert residents.one()["pid"] != first
            again = await new_host.call("meerkat_resume", session_id=run["session_id"], prompt="What's my name?")
            assert "Your name is Ada." in again["text"]
            assert "result" in await old_host.ask("ping", {})
            assert not is_gone(first)
            await old_host.process.stdin.aclose()
            assert await old_host.process.wait() == 0
            await until(lambda: is_gone(first))
            assert "result" in await new_host.ask("ping", {})
            second = residents.one()["pid"]
            async with share():
                assert residents.one()["pid"] == second, "it is still where hosts look for it"


async def test_one_whose_socket_was_removed_makes_way_for_one_that_can_be_found(share, residents):
    async with share() as old_host:
        first = residents.one()["pid"]
        (path,) = residents.paths()
        os.unlink(path)  # noqa: PTH108 - as somebody else does it
        async with share() as new_host:
            assert residents.one()["pid"] != first
            assert "result" in await new_host.ask("ping", {})
            assert "result" in await old_host.ask("ping", {})
    await until(lambda: is_gone(first))


async def test_a_turn_of_one_that_made_way_is_taken_up_by_its_successor(share, residents):
    async with share() as host:
        prompt = "[[wait 2]][[say a]][[call look]][[next]][[say b]]"
        run = await host.call("meerkat_run", prompt=prompt, wait_seconds=0)
        first = residents.one()["pid"]
    await until(lambda: residents.one()["hosts"] == 0)
    link, _ = residents.greet(version="999.0")
    link.close()
    async with share() as host:
        read = await host.call("meerkat_read", session_id=run["session_id"], wait_seconds=20)
        assert read["turn"]["turn_id"] == run["turn_id"]
        assert read["turn"]["status"] in ("completed", "waiting")
        await until(lambda: is_gone(first))


async def test_a_host_that_was_served_before_does_not_chase_a_newer_server_away(host, residents):
    link, answer = residents.greet(version="0.0.1", again=True)
    link.close()
    assert (answer["ok"], answer["makes_way"]) == (False, False)
    assert "Restart the MCP server in the host" in answer["message"]
    assert residents.one()["hosts"] == 1


async def test_a_realm_for_one_process_alone_is_not_given_up_while_it_has_hosts(share, residents):
    async with share("--realm-backend", "jsonl"):
        first = residents.one()["pid"]
        link, answer = residents.greet(version="999.0")
        link.close()
        assert (answer["ok"], answer["makes_way"]) == (False, False)
        assert "one process's alone" in answer["message"]
    await until(lambda: residents.one()["hosts"] == 0)
    link, answer = residents.greet(version="999.0")
    link.close()
    assert answer["makes_way"]
    async with share() as host:
        assert residents.one()["pid"] != first
        assert "result" in await host.ask("ping", {})


async def test_an_updated_program_replaces_the_resident_server_of_the_one_before(share, residents, tmp_path):
    copy = tmp_path / "updated"
    shutil.copytree(PACKAGE, copy / "meerkat_mcp", ignore=shutil.ignore_patterns("__pycache__"))
    (copy / "meerkat_mcp/domain/version.py").write_text('"""Newer."""\n\nVERSION = "999.0"\n')
    async with share() as old_host:
        assert residents.one()["version"] == VERSION
        program, env = ("-P", "-m", "meerkat_mcp"), os.environ | {"PYTHONPATH": str(copy)}
        async with hosted(tmp_path, "--shared", program=program, env=env) as new_host:
            assert residents.one()["version"] == "999.0"
            assert "result" in await new_host.ask("ping", {})
            assert "result" in await old_host.ask("ping", {})


async def test_what_is_no_greeting_is_not_answered(host, residents):
    (path,) = residents.paths()
    for nonsense in (b"GET / HTTP/1.1\n", b"[1, 2]\n", b'{"does": "stop"'):
        link = hello.reach(path)
        assert link is not None
        with link:
            link.sendall(nonsense)
            link.shutdown(1)
            link.settimeout(10)
            assert link.recv(100) == b""
    assert "result" in await host.ask("ping", {})


# ── its environment ──


async def test_it_has_the_keys_of_the_host_that_came_last(share, residents):
    def said(text: str) -> Turn:
        return Turn([Text(text)])

    with Server() as vendors:
        vendors.fake.queue("key-one", said("one"), said("one again"))
        vendors.fake.queue("key-two", said("two"))
        model = {"provider": "self_hosted", "model": "local", "provider_params": {}}
        farm = {"base_url": f"{vendors.url}/v1", "api_key_env": "FARM_KEY", "models": ["local"]}
        patch = {"self_hosted": {"farm": farm}}
        async with share("--trust-caller", env=os.environ | {"FARM_KEY": "key-one"}) as first:
            configured = await first.call("meerkat_config", action="patch", patch=patch)
            assert "error" not in configured, configured
            run = await first.call("meerkat_run", prompt="Hello.", **model)
            assert run.get("text") == "one", run
            async with share(env=os.environ | {"FARM_KEY": "key-two"}) as second:
                assert (await second.call("meerkat_run", prompt="Hello.", **model))["text"] == "two"
                vendors.fake.queue("key-two", said("two again"))
                again = await first.call("meerkat_resume", session_id=run["session_id"], prompt="Again.")
                assert again["text"] == "two again", "the newest variables hold for everybody"
            async with share() as third:
                vendors.fake.queue("key-two", said("two still"))
                kept = await third.call("meerkat_run", prompt="Hello.", **model)
                assert kept["text"] == "two still", "a host without the variable takes nothing away"
        assert len(residents.all()) == 1
