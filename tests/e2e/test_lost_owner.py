"""An owner that is there and does nothing, and one whose parent is gone: the turn ends, the session goes on."""

import os
import signal
import sys

import anyio
import psutil
import pytest
from words import check_log, log

pytestmark = [pytest.mark.anyio, pytest.mark.skipif(sys.platform == "win32", reason="sends POSIX signals")]

LEASE_S = 1.5
SHORT_LEASE = f"""
from meerkat_mcp.cli import main
from meerkat_mcp.sessions import turns

turns.LEASE_S, turns.RENEW_INTERVAL_S = {LEASE_S}, 0.3  # else a test would have to wait for 15 s
raise SystemExit(main())
"""
PARENT = "import subprocess, sys; subprocess.run([sys.executable, *sys.argv[1:]])"
END_S = 2.0


async def test_a_stopped_owner_loses_its_turn_when_its_lease_is_over_and_cannot_write_when_it_goes_on(serve, look):
    async with serve(program=("-c", SHORT_LEASE)) as owner, serve() as other:
        call = await owner.begin("meerkat_run", prompt="[[say half]][[wait 2]][[say whole]]", stream=True)
        sid = (await owner.event("text_delta"))["session_id"]
        os.kill(owner.process.pid, signal.SIGSTOP)
        began = anyio.current_time()
        read = await other.call("meerkat_read", session_id=sid, wait_seconds=10)
        assert (read["turn"]["status"], read["turn"]["stop_reason"]) == ("interrupted", "owner_lost")
        assert anyio.current_time() - began < LEASE_S + 2
        assert read["turn"]["text"].strip() == "half"
        again = await other.call("meerkat_resume", session_id=sid, prompt="[[say on]]")
        assert again["text"] == "on"
        async with look() as realm:
            taken_over = await log(realm, sid)
            os.kill(owner.process.pid, signal.SIGCONT)
            result = (await owner.answer(call))["structuredContent"]
            assert (result["status"], result["stop_reason"]) == ("interrupted", "owner_lost")
            assert await log(realm, sid) == taken_over, "what it still had to say came too late"
            await check_log(realm, sid)
        after = await owner.call("meerkat_resume", session_id=sid, prompt="[[say back]]")
        assert after["text"] == "back"


async def test_a_server_whose_parent_is_killed_ends_and_leaves_its_turn_to_the_next_one(serve, look):
    async with serve(program=("-c", PARENT, "-m", "meerkat_mcp")) as host:
        run = await host.call("meerkat_run", prompt="[[say a b c]][[hang]]", wait_seconds=0.3)
        (server,) = psutil.Process(host.process.pid).children()
        host.process.kill()
        await host.until(lambda: not alive(server), within_s=END_S)
    async with look() as realm:
        assert (await realm.journal.load(run["session_id"])).state == "suspended"
        await check_log(realm, run["session_id"])


def alive(process: psutil.Process) -> bool:
    return process.is_running() and process.status() != psutil.STATUS_ZOMBIE
