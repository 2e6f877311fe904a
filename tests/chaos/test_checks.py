"""That the checks of the chaos see what is wrong: each is given a log that breaks its promise."""

from pathlib import Path
from random import Random

import pytest
from chaos import checks
from chaos.ledger import Ledger, Seen, ended
from chaos.servers import Life, Server
from simulation import promises
from stores.conftest import Log

from meerkat_mcp.domain import events as e
from meerkat_mcp.domain.messages import Usage

OWNER = e.Owner(instance_id="i", incarnation="1", host="h", pid=7)
STARTED = e.TurnStarted(turn_id="t-1", prompt="p", owner=OWNER)
STEP = e.StepStarted(step=1, provider="demo", model="demo")
STEPPED = e.StepCompleted(step=1, stop_reason="end", usage=Usage())


def log_of(*drafts: e.Event) -> Log:
    log = Log("s")
    log.begin()
    log.next(*drafts, at_ms=1000)
    return log


def kept(log: Log) -> list[e.Event]:
    return [recorded.event for recorded in log.events]


def server(tmp_path: Path, said: str = "") -> Server:
    made = Server("s1", tmp_path, (), {}, Random(0))
    made.stderr.write_text(said, encoding="utf-8")
    made.lives.append(Life(OWNER.pid, 0))
    return made


def test_a_good_log_has_nothing_wrong():
    log = log_of(STARTED, STEP, STEPPED, e.TurnCompleted())
    assert not [*checks.of_logs({"s": (log.session, kept(log))})]


def test_a_session_that_is_not_what_its_log_adds_up_to_is_seen():
    log = log_of(STARTED, STEP, STEPPED, e.TurnCompleted())
    assert [*checks.of_logs({"s": (log.session, kept(log)[:-1])})]


@pytest.mark.parametrize(
    "twice",
    [
        (STEP, STEPPED, STEP, STEPPED),
        [e.ToolExecutionCompleted(tool_use_id="c", tool_name="t", content="x")] * 2,
        [e.ToolExecutionStarted(tool_use_id="c", tool_name="t")] * 2,
    ],
)
def test_what_a_turn_does_twice_is_seen(twice):
    log = log_of(STARTED, *twice, e.TurnCompleted())
    assert any("done twice" in wrong for wrong in checks.of_logs({"s": (log.session, kept(log))}))


def test_a_prompt_that_runs_twice_is_seen():
    again = e.TurnStarted(turn_id="t-2", prompt="p", owner=OWNER)
    log = log_of(STARTED, e.TurnCompleted(), again, e.TurnCompleted())
    assert [*checks.of_prompts({"s": kept(log)}, Ledger())]


def test_one_key_with_two_turns_is_seen():
    assert [*checks.of_prompts({}, Ledger(keys={"k": {("s", "t-1"), ("s", "t-2")}}))]


def test_what_was_told_and_is_not_there_is_seen():
    ledger = Ledger()
    ledger.met("s")
    ledger.tell("s", "an end", ended("t-1", "turn_completed"))
    log = log_of(STARTED)
    assert [*checks.of_promises({"s": kept(log)}, ledger, set())]
    assert [*checks.of_promises({}, ledger, set())], "a whole session was lost"
    ledger.sessions["s"].gone = True
    assert not [*checks.of_promises({}, ledger, {"s"})]
    assert [*checks.of_promises({"s": kept(log)}, ledger, {"s"})], "it was deleted, and is there"


@pytest.mark.parametrize("seen", [[0, 2], [0, 1, 1, 2], [1, 0, 2], [0, 1]])
def test_a_follower_that_misses_an_event_or_sees_one_twice_is_seen(seen):
    log = kept(log_of(STARTED, STEP))
    ledger = Ledger(followers=[Seen("f", "s", 0, [log[at] for at in seen], whole=True)])
    assert [*checks.of_followers({"s": log}, ledger)]
    ledger.followers = [Seen("f", "s", 1, log[1:], whole=True)]
    assert not [*checks.of_followers({"s": log}, ledger)]


def test_a_tool_that_ran_twice_or_that_no_log_knows_is_seen():
    call = e.ToolCallRequested(tool_use_id="c", tool_name="notes__write", args={"name": "n"})
    began = e.ToolExecutionStarted(tool_use_id="c", tool_name="notes__write")
    done = e.ToolExecutionCompleted(tool_use_id="c", tool_name="notes__write", content="wrote n")
    logs = {"s": kept(log_of(STARTED, STEP, call, STEPPED, began, done))}
    assert not [*checks.of_tools(logs, ["n"], whole=True)]
    assert [*checks.of_tools(logs, ["n", "n"], whole=True)]
    assert [*checks.of_tools(logs, [], whole=True)], "it says that it was done"
    assert [*checks.of_tools(logs, ["n", "m"], whole=True)]


def test_a_turn_that_is_taken_from_a_process_without_trouble_is_seen(tmp_path):
    owner = server(tmp_path)
    logs = {"s": kept(log_of(STARTED, e.TurnInterrupted(turn_id="t-1", reason="owner_lost")))}
    assert [*checks.of_owners(logs, [owner])]
    owner.lives[0].troubles.append((1, "kill"))
    assert not [*checks.of_owners(logs, [owner])]


def test_that_another_process_is_stopped_is_no_excuse(tmp_path):
    owner, other = server(tmp_path), server(tmp_path)
    other.lives[0].pid, other.lives[0].troubles = 8, [(10_000, "stop"), (26_000, "go on")]
    log = log_of(STARTED)
    log.next(e.TurnInterrupted(turn_id="t-1", reason="owner_lost"), at_ms=26_500)
    assert [*checks.of_owners({"s": kept(log)}, [owner, other])]


def test_a_detached_turn_that_ends_with_its_process_is_seen():
    logs = {"s": kept(log_of(STARTED, e.TurnInterrupted(turn_id="t-1", reason="shutdown")))}
    assert [*checks.of_ends(logs, Ledger(detached={"t-1"}))]
    assert not [*checks.of_ends(logs, Ledger())]


def test_a_config_that_forgets_is_seen():
    ledger = Ledger()
    ledger.config.generations, ledger.config.left = [1, 2], {"c1": ["a"]}
    assert not [*checks.of_config(2, {"c1": "a"}, ledger)]
    assert [*checks.of_config(1, {"c1": "a"}, ledger)]
    assert [*checks.of_config(2, {"c1": "b"}, ledger)]


@pytest.mark.parametrize("line", ["x ERROR y: z", "Traceback (most recent call last):", "Tool t failed by a bug."])
def test_a_bug_in_a_log_is_seen(tmp_path, line):
    assert not [*checks.of_processes([server(tmp_path, "x WARNING y: slow")])]
    assert [*checks.of_processes([server(tmp_path, line)])]


def test_a_process_that_ends_by_itself_or_badly_is_seen(tmp_path):
    ended_alone = server(tmp_path)
    ended_alone.lives[0].code = 1
    assert [*checks.of_processes([ended_alone])]
    ended_alone.lives = [Life(7, 0, [(1, "end")], ended_ms=500, code=0, told_to_end_ms=1)]
    assert not [*checks.of_processes([ended_alone])]
    ended_alone.lives[0].code = 1
    assert [*checks.of_processes([ended_alone])]
    ended_alone.lives[0].code, ended_alone.lives[0].ended_ms = 0, 60_000
    assert [*checks.of_processes([ended_alone])]


def test_being_interrupted_is_seen_in_a_log():
    log = kept(log_of(STARTED, e.TurnInterrupted(turn_id="t-1", reason="requested")))
    assert promises.interrupted("t-1")(log)
    assert not promises.interrupted("t-2")(log)
