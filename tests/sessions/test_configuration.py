"""One config for all processes of a realm."""

import anyio
import pytest

from meerkat_mcp.domain.errors import GenerationConflict

pytestmark = pytest.mark.anyio


async def test_a_change_in_another_process_holds_for_the_next_who_asks(open_den):
    async with open_den() as here, open_den() as there:
        assert (await here.sessions.config()).agent.max_steps == 50
        await there.patch_config({"agent": {"max_steps": 3}})
        assert (await here.sessions.config()).agent.max_steps == 3


async def test_of_many_who_change_the_same_generation_exactly_one_wins(open_den):
    won: list[int] = []
    lost: list[int] = []

    async def change(realm, steps: int) -> None:
        try:
            await realm.set_config({"agent": {"max_steps": steps}}, expected_generation=0)
            won.append(steps)
        except GenerationConflict:
            lost.append(steps)

    async with open_den() as here, open_den() as there:
        async with anyio.create_task_group() as tasks:
            for number in range(1, 11):
                tasks.start_soon(change, here, 2 * number)
                tasks.start_soon(change, there, 2 * number + 1)
        assert (len(won), len(lost)) == (1, 19)
        for realm in (here, there):
            assert (await realm.store.config()).generation == 1
            assert (await realm.sessions.config()).agent.max_steps == won[0]


async def test_without_a_generation_every_patch_comes_in(open_den):
    async def patch(realm, section: str, key: str) -> None:
        await realm.patch_config({section: {key: 7}})

    async with open_den() as here, open_den() as there:
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(patch, here, "agent", "max_steps")
            tasks.start_soon(patch, there, "limits", "wait_seconds")
            tasks.start_soon(patch, here, "budget", "max_tokens")
            tasks.start_soon(patch, there, "retry", "attempts")
        config = await here.sessions.config()
        assert (config.agent.max_steps, config.limits.wait_seconds, config.retry.attempts) == (7, 7, 7)
        assert (await there.store.config()).generation == 4
