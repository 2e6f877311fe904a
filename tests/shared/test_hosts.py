"""Many hosts, one resident server: what they share, what is each one's own, and what outlives them."""

import os
import signal
import sys

import anyio
import psutil
import pytest
from mcp import Client, StdioServerParameters
from shared.conftest import until
from words import check_log

pytestmark = [pytest.mark.anyio, pytest.mark.skipif(sys.platform == "win32", reason="there are no Unix sockets")]

HOSTS = 10


async def test_ten_hosts_that_start_at_once_share_one_resident_server_that_one_of_them_started(share, residents):
    pids: set[int] = set()
    sessions: set[str] = set()
    met = anyio.Event()

    async def use() -> None:
        async with share() as host:
            answer = await host.call("meerkat_run", prompt="My name is Ada.")
            sessions.add(answer["session_id"])
            pids.add(residents.one()["pid"])
            if len(sessions) == HOSTS:
                assert residents.one()["hosts"] == HOSTS
                listed = await host.call("meerkat_sessions", limit=50)
                assert {session["session_id"] for session in listed["sessions"]} == sessions
                met.set()
            await met.wait()

    with anyio.fail_after(60):
        async with anyio.create_task_group() as tasks:
            for _ in range(HOSTS):
                tasks.start_soon(use)
    assert len(pids) == 1


async def test_a_killed_proxy_changes_no_turn_and_another_host_reads_it(share, residents, look):
    async with share() as reader:
        async with share() as host:
            await host.begin("meerkat_run", prompt="[[say a]][[wait 1.5]][[say b]]", stream=True)
            begun = await host.event("text_delta")
            host.process.kill()
            await host.process.wait()
        await until(lambda: residents.one()["hosts"] == 1)
        assert residents.one()["running_turns"] == 1
        read = await reader.call("meerkat_read", session_id=begun["session_id"], wait_seconds=15)
        assert (read["turn"]["status"], read["turn"]["text"]) == ("completed", "a\nb")
    async with look() as realm:
        await check_log(realm, begun["session_id"])


async def test_a_turn_outlives_the_host_that_closes_its_pipes(share, residents):
    async with share() as host:
        run = await host.call("meerkat_run", prompt="[[wait 1.5]][[say done]]", wait_seconds=0)
        await host.process.stdin.aclose()
        assert await host.process.wait() == 0
    async with share() as host:
        read = await host.call("meerkat_read", session_id=run["session_id"], wait_seconds=15)
        assert (read["turn"]["turn_id"], read["turn"]["status"]) == (run["turn_id"], "completed")


async def test_a_call_that_its_host_cancels_is_interrupted_even_if_the_host_goes_at_once(share):
    async with share() as reader:
        async with share() as host:
            number = await host.begin("meerkat_run", prompt="[[say a]][[hang]]", stream=True)
            begun = await host.event("text_delta")
            await host.send("notifications/cancelled", {"requestId": number}, notify=True)
            await host.process.stdin.aclose()
            assert await host.process.wait() == 0
        read = await reader.call("meerkat_read", session_id=begun["session_id"], wait_seconds=15)
        assert (read["turn"]["status"], read["turn"]["stop_reason"]) == ("interrupted", "cancelled")


async def test_trust_is_each_host_s_own(share, residents):
    change = {"action": "patch", "patch": {"permissions": {"ceiling": "readonly"}}}
    async with share() as plain, share("--trust-caller", "--expose-paths") as trusted:
        assert len(residents.all()) == 1
        assert (await plain.call("meerkat_config", **change))["error"]["code"] == "permission_denied"
        assert "resolved_paths" not in await plain.call("meerkat_config", action="get")
        assert (await trusted.call("meerkat_config", **change))["resolved_paths"]
        assert (await plain.call("meerkat_capabilities"))["transport"] == "socket"


async def test_a_ceiling_is_a_server_s_own_so_another_one_has_another_server(share, residents):
    async with share() as plain, share("--permission-ceiling", "readonly") as bounded:
        assert sorted(facts["permission_ceiling"] or "" for facts in residents.all()) == ["", "readonly"]
        await plain.call("meerkat_run", prompt="Hello.")
        assert len((await bounded.call("meerkat_sessions"))["sessions"]) == 1


async def test_another_backend_than_the_realm_s_is_refused_with_an_error_for_every_request(host, share, residents):
    async with share("--realm-backend", "memory") as other:
        assert "pinned to" in (await other.ask("tools/list", {}))["error"]["message"]
        await other.process.stdin.aclose()
        assert await other.process.wait() == 1
    assert residents.one()["hosts"] == 1


async def test_a_realm_in_memory_can_be_shared(share, residents):
    async with share("--realm-backend", "memory") as one:
        run = await one.call("meerkat_run", prompt="My name is Ada.")
        async with share() as other:
            again = await other.call("meerkat_resume", session_id=run["session_id"], prompt="What's my name?")
            assert "Your name is Ada." in again["text"]


@pytest.mark.parametrize("how", ["EOF", "SIGTERM", "SIGINT"])
async def test_a_proxy_ends_soon_even_in_the_middle_of_a_call(share, residents, how):
    async with share() as host:
        await host.begin("meerkat_run", prompt="[[say a]][[wait 2]]", stream=True)
        await host.event("text_delta")
        with anyio.fail_after(2):
            if how == "EOF":
                await host.process.stdin.aclose()
            else:
                host.process.send_signal(signal.Signals[how])
            assert await host.process.wait() == 0
        assert residents.one()["running_turns"] == 1


async def test_a_proxy_ends_with_its_parent(share, tmp_path, residents):
    program = "import subprocess, sys; subprocess.run([sys.executable, '-m', 'meerkat_mcp', *sys.argv[1:]])"
    async with share(program=("-c", program)) as host:
        assert residents.one()["hosts"] == 1
        host.process.kill()
        await until(lambda: not residents.one()["hosts"], within_s=5)


@pytest.mark.parametrize("mode", ["auto", "legacy"])
async def test_the_real_client_works_through_a_proxy_in_both_eras(tmp_path, residents, mode):
    flags = ["serve", "--shared", "--realm", "den", "--state-root", str(tmp_path)]
    server = StdioServerParameters(command=sys.executable, args=["-m", "meerkat_mcp", *flags], env=dict(os.environ))
    heard: list[float] = []

    async def progressed(progress: float, *_: object) -> None:
        heard.append(progress)

    with anyio.fail_after(30):
        async with Client(server, mode=mode) as client:
            assert len((await client.list_tools()).tools) > 10
            arguments = {"prompt": "[[say one two three]]", "stream": True}
            result = await client.call_tool("meerkat_run", arguments, progress_callback=progressed)
            assert result.structured_content is not None
            assert result.structured_content["text"] == "one two three"
    assert heard == sorted(heard)
    assert heard


@pytest.mark.parametrize("size", [100_000, 5_000_000])
async def test_a_big_message_passes_both_ways(share, size):
    text = "".join(chr(97 + at % 26) for at in range(size))
    async with share() as host:
        run = await host.call("meerkat_run", prompt=f"[[say {text}]]", max_chars=size + 100)
        if "error" in run:  # the longest prompt there may be is smaller
            assert run["error"]["code"] in ("invalid_request", "limit_exceeded")
        else:
            assert run["text"] == text
        assert "result" in await host.ask("ping", {})


async def test_a_line_that_is_too_long_is_refused_and_the_next_one_is_served(share):
    async with share() as host:
        await host.send("ping", {"x": "x" * (17 * 1024 * 1024)})
        refused = await host.until(lambda: next((line for line in host.lines if '"error"' in line), None))
        assert '"id": null' in refused
        assert "result" in await host.ask("ping", {})


async def test_requests_of_a_host_that_stops_reading_wait_until_it_reads(residents, tmp_path):
    argv = [sys.executable, "-m", "meerkat_mcp", "serve", "--shared", "--realm", "den", "--state-root", str(tmp_path)]
    line = b'{"jsonrpc":"2.0","id":%d,"method":"initialize","params":{"protocolVersion":"2025-11-25","capabilities":{},'
    line += b'"clientInfo":{"name":"test","version":"1","title":"' + b"x" * 3000 + b'"}}}\n'
    async with await anyio.open_process(argv) as process:
        sent = 0
        with anyio.move_on_after(3):
            for sent in range(1, 20_000):
                await process.stdin.send(line % sent)
        assert sent < 15_000, "what may lie in the server, the proxy, the socket and the pipes"
        assert psutil.Process(process.pid).memory_info().rss < 60_000_000
        heard, begun = b"", 0
        with anyio.fail_after(60):
            while begun < sent - 1:
                chunk = await process.stdout.receive()
                heard = (heard + chunk)[-40:]
                begun += chunk.count(b'"id":')
        process.kill()
