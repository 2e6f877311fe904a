"""A server that must go suspends its turns, another one takes them up: nothing is lost, and nothing is done twice."""

from contextlib import asynccontextmanager

import anyio
import pytest
from databases import DSN, VARIABLE, need_postgres, new_realm_id
from sessions.actors import BOX, Bench, Scripted, call, calls, equip, says, tool, use
from words import PATIENCE_S, check_log, ended, log, outcome, settings

from meerkat_mcp.domain.errors import ProviderUnauthenticated, SessionBusy
from meerkat_mcp.providers.base import Piece
from meerkat_mcp.realms import choose, open_realm
from meerkat_mcp.sessions import succession
from meerkat_mcp.sessions.conversation import CUT_OFF
from meerkat_mcp.tools.base import Output

pytestmark = pytest.mark.anyio

AUTO = {"mcp_servers": {"box": BOX}, "permission_mode": "auto"}


@pytest.fixture(params=["sqlite", "postgres"])
def choice(request, tmp_path, monkeypatch):
    """A realm that several processes can share."""
    if request.param == "postgres":
        need_postgres()
        monkeypatch.setenv(VARIABLE, DSN)
        return choose(new_realm_id(), backend="postgres", dsn_env=VARIABLE, state_root=tmp_path)
    return choose("den", backend="sqlite", state_root=tmp_path)


@pytest.fixture
def serve(choice):
    """Each call opens the realm as one more server would."""
    return lambda: open_realm(choice, serves=True)


@pytest.fixture
def open_den(choice):
    """Each call opens it as a command would."""
    return lambda: open_realm(choice)


class Lingering(Bench):
    """Tools that take for ever to be put away."""

    @asynccontextmanager
    async def open(self, servers):
        async with super().open(servers) as toolbox:
            yield toolbox
            await anyio.sleep_forever()


async def kinds(realm, started):
    return [event.type for event in await log(realm, started.session_id)]


async def test_a_turn_stops_after_its_step_and_the_next_server_makes_the_rest(serve):
    working, done = anyio.Event(), anyio.Event()

    async def slow(_):
        working.set()
        await done.wait()
        return Output(content="slow done")

    with anyio.fail_after(PATIENCE_S):
        async with serve() as first:
            equip(first, Bench(tool("slow"), does={"slow": slow}))
            use(first, Scripted(calls(call("slow"))))
            started = await first.sessions.run("go", settings(**AUTO))
            await working.wait()
            async with anyio.create_task_group() as tasks:
                tasks.start_soon(first.turns.end, PATIENCE_S)
                await anyio.lowlevel.checkpoint()
                done.set()
            assert (await first.journal.load(started.session_id)).state == "suspended"
        async with serve() as second:
            bench = equip(second, Bench(tool("slow")))
            model = Scripted(says("all done"))
            use(second, model)
            finished = await ended(second, started)
            assert (finished.status, finished.text) == ("completed", "all done")
            assert (finished.steps, finished.tool_calls) == (2, 1)
            assert bench.made == [], "no call is made twice"
            assert [result.content for result in model.requests[0].messages[-1].results] == ["slow done"]
            await check_log(second, started.session_id)


async def test_who_waits_for_the_turn_waits_on_and_a_server_that_is_there_takes_it_up_by_itself(serve):
    with anyio.fail_after(PATIENCE_S):
        async with serve() as first, serve() as second:
            use(first, Scripted([anyio.Event()]))
            use(second, Scripted(says("here")))
            started = await first.sessions.run("go", settings())
            async with anyio.create_task_group() as tasks:
                tasks.start_soon(first.turns.end, 0.01)
                assert await first.sessions.wait(started.session_id, started.turn_id, PATIENCE_S)
            assert (await outcome(first, started)).text == "here"
            session = await second.journal.load(started.session_id)
            assert session.turn.owner == second.turns.owner


async def test_what_a_step_said_before_it_was_cut_short_is_void_and_not_in_the_history(serve):
    with anyio.fail_after(PATIENCE_S):
        async with serve() as first:
            model = Scripted([Piece(kind="text", text="half a wo"), anyio.Event()])
            use(first, model)
            started = await first.sessions.run("go", settings())
            await model.reached.wait()
        async with serve() as second:
            model = Scripted(says("whole"))
            use(second, model)
            finished = await ended(second, started)
            assert (finished.text, finished.steps) == ("whole", 1)
            assert [message.role for message in model.requests[0].messages] == ["user"]
            assert (await kinds(second, started)).count("turn_suspended") == 1
            await check_log(second, started.session_id)


async def test_a_call_that_is_cut_off_is_answered_as_not_known_and_never_made_again(serve):
    working = anyio.Event()

    async def hang(_):
        working.set()
        await anyio.sleep_forever()

    with anyio.fail_after(PATIENCE_S):
        async with serve() as first:
            equip(first, Bench(tool("hang"), tool("quick"), does={"hang": hang}))
            use(first, Scripted(calls(call("quick", 1), call("hang", 2))))
            started = await first.sessions.run("go", settings(**AUTO))
            await working.wait()
        async with serve() as second:
            bench = equip(second, Bench(tool("hang"), tool("quick")))
            model = Scripted(says("I see"))
            use(second, model)
            assert (await ended(second, started)).text == "I see"
            assert bench.made == []
            results = model.requests[0].messages[-1].results
            assert [(result.content, result.is_error) for result in results] == [("quick done", False), (CUT_OFF, True)]


async def test_an_answer_that_is_complete_is_not_asked_for_again(serve):
    """The process ends after the last step was recorded and before the end of its turn was."""
    with anyio.fail_after(PATIENCE_S):
        async with serve() as first:
            use(first, Scripted(says("the answer")))
            equip(first, Lingering(tool("quick")))
            started = await first.sessions.run("go", settings(**AUTO))
            while "step_completed" not in await kinds(first, started):
                await anyio.lowlevel.checkpoint()
        async with serve() as second:
            model = Scripted()
            use(second, model)
            finished = await ended(second, started)
            assert (finished.status, finished.text, finished.steps) == ("completed", "the answer", 1)
            assert model.requests == []


async def test_a_yes_that_was_given_still_counts_and_a_call_that_was_not_asked_for_yet_is(serve):
    working = anyio.Event()

    async def slow(_):
        working.set()
        await anyio.sleep_forever()

    ask = {"mcp_servers": {"box": BOX}, "permission_mode": "ask"}
    with anyio.fail_after(PATIENCE_S):
        async with serve() as first:
            equip(first, Bench(tool("look", reads=True), tool("write"), does={"look": slow}))
            use(first, Scripted(calls(call("look", 1), call("write", 2))))
            started = await first.sessions.run("go", settings(**ask))
            await working.wait()
        async with serve() as second:
            bench = equip(second, Bench(tool("look", reads=True), tool("write")))
            use(second, Scripted(says("written")))
            waiting = await ended(second, started)
            assert [one.tool_name for one in waiting.approvals] == ["write"]
            assert (await kinds(second, started)).count("approval_requested") == 1
            assert bench.made == []


async def test_an_interrupt_ends_a_suspended_turn_and_a_prompt_may_take_its_place(serve, open_den):
    with anyio.fail_after(PATIENCE_S):
        async with serve() as first:
            one = await first.sessions.run("[[hang]]", settings())
            other = await first.sessions.run("[[hang]]", settings())
        async with open_den() as looking:
            with pytest.raises(SessionBusy, match="has suspended turn"):
                await looking.sessions.resume(one.session_id, "again")
            said = await looking.sessions.interrupt(one.session_id)
            assert (said.interrupted, said.ended, said.turn_id) == (True, True, one.turn_id)
            taken = await looking.sessions.resume(other.session_id, "[[say mine]]", if_busy="interrupt")
            assert (await ended(looking, taken)).text == "mine"
            assert (await outcome(looking, other)).stop_reason == "superseded"


async def test_a_command_that_only_passes_by_takes_no_suspended_turn_up(serve, open_den):
    with anyio.fail_after(PATIENCE_S):
        async with serve() as first:
            started = await first.sessions.run("[[hang]]", settings())
        async with open_den() as passing:
            assert (await passing.sessions.settled(started.session_id)).state == "suspended"
            assert not await passing.sessions.wait(started.session_id, started.turn_id, 0.05)


async def test_a_suspended_session_can_be_archived_forked_and_deleted(serve, open_den):
    with anyio.fail_after(PATIENCE_S):
        async with serve() as first:
            first_one, second_one = [await first.sessions.run("[[hang]]", settings()) for _ in range(2)]
        async with open_den() as looking:
            fork = await looking.shelf.fork(first_one.session_id)
            assert (fork.state, fork.turns) == ("idle", 0)
            assert (await looking.shelf.archive(first_one.session_id)).state == "archived"
            await looking.shelf.delete(second_one.session_id)
            for session_id in (fork.id, first_one.session_id):
                await check_log(looking, session_id)


async def test_a_queued_prompt_runs_where_a_server_is_when_its_own_has_gone(serve):
    with anyio.fail_after(PATIENCE_S):
        async with serve() as first:
            started = await first.sessions.run("[[hang]]", settings())
            queued = await first.sessions.resume(started.session_id, "[[say next]]", if_busy="queue")
        async with serve() as second:
            await second.sessions.interrupt(started.session_id)
            assert (await ended(second, queued)).text == "next"


async def test_a_server_without_the_key_leaves_a_turn_to_others_until_nobody_came(serve, monkeypatch):
    with anyio.fail_after(PATIENCE_S):
        async with serve() as first:
            started = await first.sessions.run("[[hang]]", settings())
        async with serve() as second:

            def refuse(*_):
                raise ProviderUnauthenticated("No key.")

            second.sessions.succession._planned = refuse
            for _ in range(3):
                assert (await second.sessions.settled(started.session_id)).state == "suspended"
            monkeypatch.setattr(succession, "OTHERS_MAY_S", 0.0)
            assert (await second.sessions.settled(started.session_id)).state == "idle"
            failed = await outcome(second, started)
            assert (failed.status, failed.error["code"]) == ("failed", "provider_unauthenticated")


async def test_many_suspended_turns_are_shared_out_and_each_goes_on_once(serve):
    with anyio.fail_after(3 * PATIENCE_S):
        async with serve() as first:
            left = [await first.sessions.run("[[wait 2]][[say x]]", settings()) for _ in range(12)]
        async with serve() as second, serve() as third:
            for started in left:
                assert await second.sessions.wait(started.session_id, started.turn_id, PATIENCE_S)
                assert (await outcome(second, started)).text == "x"
                assert (await kinds(second, started)).count("turn_resumed") == 1
                owner = (await second.journal.load(started.session_id)).turn.owner
                assert owner in (second.turns.owner, third.turns.owner)


async def test_a_turn_that_is_begun_as_its_server_ends_is_left_to_others_too(serve):
    with anyio.fail_after(PATIENCE_S):
        async with serve() as first:
            started = await first.sessions.run("[[hang]]", settings())
        async with serve() as second:
            planned = second.sessions.succession._planned

            def as_it_ends(*given):
                second.turns._tasks = None  # as it is from the moment on in which its tasks are cancelled
                return planned(*given)

            second.sessions.succession._planned = as_it_ends
            taken = await second.sessions.settled(started.session_id)
            assert (taken.state, taken.turn.owner) == ("suspended", second.turns.owner)
            assert (await kinds(second, started))[-2:] == ["turn_resumed", "turn_suspended"]
