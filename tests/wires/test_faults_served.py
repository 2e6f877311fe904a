"""Every fault on every wire, through a real server process on its pipes: all of a wire's at once, as many hosts do."""

import anyio
import pytest
from vendors.server import lane
from wires.faults import FAULTS, WEATHER, Case, check
from wires.talk import GOOD, WIRES, Spoken, config

from meerkat_mcp.domain.config import merge

pytestmark = pytest.mark.anyio

WITHIN_S = 30


async def events_of(host, session_id: str) -> list[dict]:
    """A session's log, as a stream of the server gives it."""
    stream = await host.call("meerkat_event_stream_open", session_id=session_id, after_seq=0)
    events: list[dict] = []
    while page := (await host.call("meerkat_event_stream_read", stream_id=stream["stream_id"], timeout_ms=0))["events"]:
        events += page
    return events


@pytest.mark.parametrize("wire", WIRES, ids=str)
async def test_a_server_tells_every_fault_and_its_sessions_go_on(serve, vendors, wire: Spoken):
    cases: dict[str, Case] = {name: make(wire) for name, make in FAULTS.items()}
    lanes = {name: case.key + lane() for name, case in cases.items()}
    keys = {f"KEY_OF_{name.upper()}": key for name, key in lanes.items()}
    async with serve("--trust-caller", **keys, KEY_OF_WARM=(warm := lane())) as host:

        async def lead(name: str, reached: dict) -> None:
            """Have the next turn answered in the lane of a case. A turn that runs already stays in its own."""
            whole = merge(config(vendors.url), wire.reached(**reached, api_key_env=f"KEY_OF_{name.upper()}"))
            assert "error" not in await host.call("meerkat_config", action="set", config=whole)

        async def begin(name: str) -> dict:
            tools = [WEATHER.model_dump()]
            return await host.call("meerkat_run", prompt="Ask away.", **wire.settings, tools=tools, wait_seconds=0)

        vendors.fake.queue(warm, GOOD)
        await lead("warm", {})
        assert (await host.call("meerkat_run", prompt="Hello.", **wire.settings))["text"] == "All is well."

        turns: dict[str, dict] = {}
        for name, case in cases.items():
            vendors.fake.queue(lanes[name], *case.turns)
            await lead(name, case.reached)
            turns[name] = await begin(name)
            assert "error" not in turns[name]
        with anyio.fail_after(WITHIN_S):
            for name, case in cases.items():
                sid = turns[name]["session_id"]
                read = await host.call("meerkat_read", session_id=sid, wait_seconds=WITHIN_S, within_s=WITHIN_S)
                events = await events_of(host, sid)
                try:
                    check(case, events, vendors.fake.requests(lanes[name]))
                except AssertionError as failed:
                    failed.add_note(f"the fault: {name}")
                    raise
                failure = next((event["error"] for event in events if event["type"] == "turn_failed"), None)
                assert read["turn"].get("error") == failure
        await lead("warm", {})
        for turn in turns.values():
            vendors.fake.queue(warm, GOOD)
            again = await host.call("meerkat_resume", session_id=turn["session_id"], prompt="Go on.")
            assert again["text"] == "All is well."
        assert [seen.rejected for seen in vendors.fake.requests(warm)] == [None] * (1 + len(cases))
