"""Every fault on every wire, in a realm of this process: the log of it, and that the session goes on."""

import json

import anyio
import pytest
from wires.faults import SEEN, TABLE, WEATHER, check
from wires.talk import GOOD, config, plain, settings
from words import PATIENCE_S, check_log, ended, log, resume

from meerkat_mcp.domain.config import merge

pytestmark = pytest.mark.anyio


@pytest.mark.parametrize(("wire", "make"), TABLE)
async def test_a_fault_is_told_and_the_session_goes_on(realm, warm, at_fake, monkeypatch, wire, make):
    case = make(wire)
    at_fake.queue(*case.turns)
    whole, key = config(at_fake.url), at_fake.key
    await realm.set_config(merge(whole, wire.reached(**case.reached)))
    if case.key:
        at_fake.key = case.key + key
        monkeypatch.setenv(wire.key_name, at_fake.key)
    with anyio.fail_after(PATIENCE_S):
        started = await realm.sessions.run("Ask away.", settings(wire, tools=(WEATHER,)))
        outcome = await ended(realm, started)
    events = plain(await log(realm, started.session_id))
    check(case, events, at_fake.seen)
    assert outcome.error == next((event["error"] for event in events if event["type"] == "turn_failed"), None)

    at_fake.key = key
    monkeypatch.setenv(wire.key_name, key)
    await realm.set_config(whole)
    at_fake.queue(GOOD)
    assert (await resume(realm, started.session_id, "Go on.")).text == "All is well."
    last = at_fake.seen[-1]
    assert last.rejected is None
    said = json.dumps(wire.conversation(last))
    assert said.count("Ask away.") == said.count("Go on.") == 1
    assert said.count(SEEN) == int(case.keeps_half), "what is void is void for the model, too"
    await check_log(realm, started.session_id)
