"""Two server processes, one realm: one wins, the other is told, and both see everything."""

import anyio
import pytest
from e2e.conftest import QUICK
from words import check_log, log

pytestmark = pytest.mark.anyio


async def test_of_two_prompts_at_one_moment_one_runs_and_one_is_told_so(serve, look):
    async with serve() as here, serve() as there:
        sid = (await here.call("meerkat_run", provider_params=QUICK))["session_id"]
        ran: list[str] = []
        for number in range(200):
            answers: dict[str, dict] = {}

            async def prompt(host, name: str, n: int = number, into: dict = answers) -> None:
                started = anyio.current_time()
                into[name] = await host.call(
                    "meerkat_resume", session_id=sid, prompt=f"[[say {name} {n}]][[wait 0.02]]", wait_seconds=10
                )
                if "error" in into[name]:
                    assert anyio.current_time() - started < 1

            async with anyio.create_task_group() as tasks:
                tasks.start_soon(prompt, here, "here")
                tasks.start_soon(prompt, there, "there")
            won = [name for name, answer in answers.items() if "error" not in answer]
            for name in won:
                assert answers[name]["text"] == f"{name} {number}"
            if len(won) == 1:  # else the second came when the first was done
                (lost,) = set(answers) - set(won)
                assert answers[lost]["error"]["code"] == "session_busy"
            ran += [f"{name} {number}" for name in won]
    async with look() as realm:
        await check_log(realm, sid)
        texts = [event.text for event in await log(realm, sid) if event.type == "text_complete"]
        assert sorted(texts) == sorted(ran)


async def test_the_other_process_interrupts_and_is_told_when_it_is_over(serve, look):
    async with serve() as here, serve() as there:
        call = await here.begin("meerkat_run", prompt="[[say a b c]][[hang]]", stream=True)
        sid = (await here.event("text_delta"))["session_id"]
        said = await there.call("meerkat_interrupt", session_id=sid)
        assert (said["interrupted"], said["ended"]) == (True, True)
        ended = (await here.answer(call))["structuredContent"]
        assert (ended["status"], ended["stop_reason"]) == ("interrupted", "requested")
        idle = await there.call("meerkat_interrupt", session_id=sid)
        assert idle["interrupted"] is False
    async with look() as realm:
        await check_log(realm, sid)


async def test_twenty_interrupts_by_the_other_process_are_each_over_in_a_second(serve, look):
    async with serve() as here, serve() as there:
        sid = (await here.call("meerkat_run", provider_params=QUICK))["session_id"]
        for _ in range(20):
            await here.call("meerkat_resume", session_id=sid, prompt="[[words 9]][[hang]]", wait_seconds=0)
            said = await there.call("meerkat_interrupt", session_id=sid, within_s=1)
            assert (said["interrupted"], said["ended"]) == (True, True)
    async with look() as realm:
        events = await log(realm, sid)
        asked = [event.timestamp_ms for event in events if event.type == "interrupt_requested"]
        ended = [event.timestamp_ms for event in events if event.type == "turn_interrupted"]
        assert len(asked) == len(ended) == 20
        assert all(there - here < 1000 for here, there in zip(asked, ended, strict=True))
        await check_log(realm, sid)


async def test_the_other_process_follows_the_text_while_it_is_written(serve):
    async with serve() as here, serve() as there:
        run = await here.call("meerkat_run", prompt="[[words 60]]", provider_params={"delta_ms": 20}, wait_seconds=0)
        stream = await there.call("meerkat_event_stream_open", session_id=run["session_id"], after_seq=0)
        seen: list[dict] = []
        while not seen or seen[-1]["type"] != "turn_completed":
            read = await there.call("meerkat_event_stream_read", stream_id=stream["stream_id"], timeout_ms=10_000)
            assert read["status"] == "event"
            seen += read["events"]
        seqs = [event["seq"] for event in seen]
        assert seqs == sorted(set(seqs))
        whole = next(event["text"] for event in seen if event["type"] == "text_complete")
        written = "".join(event["text"] for event in seen if event["type"] == "text_delta")
        assert len([event for event in seen if event["type"] == "text_delta"]) > 3
        assert whole.startswith(written[: len(written) // 2])


async def test_a_waiting_turn_is_answered_in_another_process(serve):
    async with serve() as here, serve() as there:
        weather = {"name": "weather"}
        waiting = await here.call("meerkat_run", prompt="[[call weather {}]]", tools=[weather])
        results = [{"tool_use_id": waiting["pending_tool_calls"][0]["tool_use_id"], "content": "rain"}]
        done = await there.call("meerkat_resume", session_id=waiting["session_id"], tool_results=results)
        assert (done["status"], done["turn_id"]) == ("completed", waiting["turn_id"])


async def test_of_two_changes_to_the_config_on_one_generation_one_is_refused(serve):
    async with serve() as here, serve() as there:
        for generation in range(20):
            answers: list[dict] = []

            async def patch(host, steps: int, on: int = generation, into: list = answers) -> None:
                into.append(
                    await host.call(
                        "meerkat_config", action="patch", patch={"agent": {"max_steps": steps}}, expected_generation=on
                    )
                )

            async with anyio.create_task_group() as tasks:
                tasks.start_soon(patch, here, 1)
                tasks.start_soon(patch, there, 2)
            assert sorted("error" in answer for answer in answers) == [False, True]


async def test_two_who_change_different_settings_at_one_moment_do_not_undo_each_other(serve, look):
    async with serve() as here, serve() as there, look() as realm:
        sid = (await here.call("meerkat_run"))["session_id"]
        for number in range(2, 22):

            async def change(host, **settings: int) -> None:
                assert "error" not in await host.call("meerkat_resume", session_id=sid, **settings)

            async with anyio.create_task_group() as tasks:
                tasks.start_soon(lambda n=number: change(here, max_steps=n))
                tasks.start_soon(lambda n=number: change(there, max_tokens=n))
            settings = (await realm.journal.load(sid)).settings
            assert (settings.max_steps, settings.max_tokens) == (number, number)
        await check_log(realm, sid)
