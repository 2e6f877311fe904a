"""An interrupt hangs up on the vendor at once, on every wire, whoever asks for it; and the session goes on."""

import statistics
import time

import anyio
import anyio.to_thread
import pytest
from vendors.lanes import Seen
from vendors.script import Fault, Text, Turn
from vendors.server import lane
from wires.faults import DONE, SEEN
from wires.talk import GOOD, WIRES, Spoken, config, told
from wires.test_faults_served import events_of

from meerkat_mcp.realms import choose, open_realm

pytestmark = pytest.mark.anyio

SOON_S = 1.0
TIMES = 3


async def reached(vendors, key: str, requests: int) -> Seen:
    """The request that the fake got last, once it got so many."""
    seen = await anyio.to_thread.run_sync(vendors.fake.wait_requests, key, requests, 10)
    return seen[-1]


async def hung_up(seen: Seen, since: float) -> float:
    """After how many seconds the fake saw the client go away."""
    assert await anyio.to_thread.run_sync(seen.gone.wait, 10), "the connection is still there"
    assert seen.disconnected is not None
    return seen.disconnected - since


def has_begun(events: list[dict], moment: str) -> bool:
    """Whether the log has all that was said up to this moment."""
    if moment == "before the headers":
        return any(event["type"] == "step_started" for event in events)
    return "".join(event["text"] for event in events if event["type"] == "text_delta") == SEEN


@pytest.mark.parametrize("wire", WIRES, ids=str)
async def test_an_interrupt_hangs_up_before_the_headers_and_in_the_stream(serve, vendors, tmp_path, wire: Spoken):
    key = lane()
    silent = {
        "before the headers": Turn(fault=Fault(stall_before=3600)),
        "in the stream": Turn([Text("Half of the answer.")], fault=Fault(stall_after=wire.middle)),
    }
    async with open_realm(choose("den", state_root=tmp_path / "state")) as realm:
        await realm.set_config(config(vendors.url))
    async with serve(**{wire.key_name: key}) as here, serve(**{wire.key_name: key}) as there:
        vendors.fake.queue(key, GOOD)
        sid = (await here.call("meerkat_run", prompt="Hello.", **wire.settings))["session_id"]
        requests = 1
        for moment, turn in silent.items():
            for who, asking in {"the same server": here, "another process": there}.items():
                took = []
                for _ in range(TIMES):
                    vendors.fake.queue(key, turn)
                    known = len(here.events())
                    call = await here.begin("meerkat_resume", session_id=sid, prompt="Go on.", stream=True)
                    seen = await reached(vendors, key, requests := requests + 1)
                    await here.until(lambda at=known, of=moment: has_begun(here.events()[at:], of))
                    since = time.time()
                    said = await asking.call("meerkat_interrupt", session_id=sid)
                    assert (said["interrupted"], said["ended"]) == (True, True)
                    took.append(await hung_up(seen, since))
                    ended = (await here.answer(call))["structuredContent"]
                    assert (ended["status"], ended["stop_reason"]) == ("interrupted", "requested")
                figure = f"{wire}, {who}, {moment}: {statistics.median(took) * 1000:.0f} ms"
                print(figure)
                assert max(took) < SOON_S, figure
        vendors.fake.queue(key, GOOD)
        again = await here.call("meerkat_resume", session_id=sid, prompt="And now?")
        assert (again["text"], again["status"]) == ("All is well.", "completed")
        log = told(await events_of(here, sid))
    interrupted = ["turn_started", "step_started", "interrupt_requested", "turn_interrupted requested"]
    cut = [*interrupted[:2], f"text_delta {SEEN}", *interrupted[2:]]
    done = ["turn_started", "step_started", *DONE]
    assert log == ["session_created", *done, *interrupted * 2 * TIMES, *cut * 2 * TIMES, *done]
    assert [seen.rejected for seen in vendors.fake.requests(key)] == [None] * (requests + 1)
