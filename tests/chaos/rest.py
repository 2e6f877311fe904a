"""How everything comes to rest: each turn that still works or waits is ended, and each queue runs dry."""

from random import Random
from typing import TYPE_CHECKING

import anyio
from chaos.ledger import Known
from chaos.servers import Json

if TYPE_CHECKING:
    from chaos.town import Town

ROUNDS = 60
TAKEN_UP_ROUNDS = 12
"""So often is a suspended turn looked at, each time for a second or two, before it counts as forgotten."""
AT_ONCE = 16


async def bring_to_rest(town: "Town") -> None:
    """Every session is idle or archived after this, with nothing queued; those that are not, stand in `wrong`."""
    town.say("── rest ──")
    random, room = Random(f"{town.plan.seed} rest"), anyio.CapacityLimiter(AT_ONCE)

    async def one(known: Known) -> None:
        async with room:
            await _settle(town, known, random)

    async with anyio.create_task_group() as tasks:
        for known in town.ledger.living():
            tasks.start_soon(one, known)


async def _settle(town: "Town", known: Known, random: Random) -> None:
    session_id, last = known.session_id, "never read"
    for number in range(ROUNDS):
        server = await town.somebody(random)
        asked: Json = {"session_id": session_id, "wait_seconds": 2 if number < 2 else 1}
        read = await server.call("meerkat_read", asked, waits_s=5)
        town.heard(read, f"rest ← {server.name} read {session_id}")
        if read.code == "session_not_found":
            return
        if read.result is not None:
            state, queued = read.result["session"]["state"], read.result.get("queued_turns")
            last = f"{state}, queued {queued}"
            if state in ("idle", "archived") and not queued:
                return
            if state == "suspended" and number >= TAKEN_UP_ROUNDS:
                town.ledger.wrong.append(f"{session_id} is suspended, and nobody takes it up")
            if number and (state != "suspended" or number >= TAKEN_UP_ROUNDS):
                said = await server.call("meerkat_interrupt", {"session_id": session_id}, waits_s=10)
                town.heard(said, f"rest ← {server.name} interrupt {session_id}")
        await anyio.sleep(0.2)
    town.ledger.wrong.append(f"{session_id} never comes to rest: {last}")
