"""The filesystem server of npm, used by an agent: one tool that reads and one that writes, called side by side."""

from collections.abc import Callable

import pytest
from mcp.types import ElicitResult
from real_tools.hosts import approve, close, deny
from real_tools.wires import ANTHROPIC, CHAT, GEMINI, RESPONSES, Wire
from vendors.script import Call

pytestmark = pytest.mark.anyio

READ, WRITE = "files__read_text_file", "files__write_file"
ALL = pytest.mark.parametrize(
    ("wire", "start"),
    [(ANTHROPIC, "serve"), (RESPONSES, "inside"), (GEMINI, "inside"), (CHAT, "serve")],
    ids=["anthropic", "responses", "gemini", "chat"],
    indirect=["start"],
)
TWO = pytest.mark.parametrize(
    ("wire", "start"), [(ANTHROPIC, "serve"), (CHAT, "inside")], ids=["anthropic", "chat"], indirect=["start"]
)
ERAS = pytest.mark.parametrize("mode", ["auto", "legacy"], ids=["2026-07-28", "2025-11-25"])


@pytest.fixture
def both(model, work) -> Callable[[str], None]:
    """The model reads and writes in one step, then says done; once by itself, and again when it is called."""

    def will(name: str) -> None:
        read = Call(READ, {"path": str(work / "notes.txt")})
        model.will([read, Call(WRITE, {"path": str(work / name), "content": "bought"})])

    will("new.txt")
    return will


@ALL
async def test_auto_reads_and_writes_in_one_step(configure, start, files, both, model, work, wire: Wire):
    await configure({"files": files}, agent={"permission_mode": "auto"})
    async with start() as host:
        done = await host.run(**wire.settings)
    assert (done["status"], done["text"], done["steps"], done["tool_calls"]) == ("completed", "done", 2, 2)
    assert (work / "new.txt").read_text() == "bought"
    first, second = (seen.body for seen in model.requests)
    assert {READ, WRITE} < set(wire.tools(first))
    assert wire.tools(second) == wire.tools(first)
    read, written = wire.results(second)
    assert (read.text, read.is_error) == ("buy milk", False)
    assert "Successfully wrote" in written.text


@TWO
async def test_readonly_offers_no_writing_and_refuses_it_if_the_model_tries(
    configure, start, files, both, model, work, wire: Wire
):
    await configure({"files": files})
    async with start() as host:
        done = await host.run(permission_mode="readonly", **wire.settings)
    assert (done["status"], done["text"]) == ("completed", "done")
    assert not (work / "new.txt").exists()
    first, second = (seen.body for seen in model.requests)
    assert READ in wire.tools(first)
    assert not set(wire.tools(first)) & {WRITE, "files__edit_file", "files__move_file", "files__create_directory"}
    read, refused = wire.results(second)
    assert read.text == "buy milk"
    assert "this session only reads" in refused.text
    assert refused.is_error or wire is CHAT, "chat completions has no word for it"


@TWO
async def test_ask_reads_at_once_and_waits_with_what_writes(configure, start, files, both, model, work, wire: Wire):
    await configure({"files": files})
    async with start() as host:
        waiting = await host.run(**wire.settings)
        assert waiting["status"] == "waiting"
        (pending,) = waiting["pending_approvals"]
        assert (pending["tool_name"], pending["args"]["content"]) == (WRITE, "bought")
        assert "pending_tool_calls" not in waiting
        assert len(model.requests) == 1, "the model is asked when all is answered"

        response = {"tool_use_id": pending["tool_use_id"], "decision": "approve"}
        refused = await host.resume(waiting["session_id"], responses=[response])
        assert refused["error"]["code"] == "permission_denied"
        assert "caller_may_approve" in refused["error"]["hint"]

        response |= {"decision": "deny", "reason": "not on a Sunday"}
        done = await host.resume(waiting["session_id"], responses=[response])
    assert (done["status"], done["text"]) == ("completed", "done")
    assert not (work / "new.txt").exists()
    read, denied = wire.results(model.requests[1].body)
    assert read.text == "buy milk"
    assert denied.text.endswith("This call was not allowed: not on a Sunday")


async def test_a_caller_who_may_approve_has_the_call_made(configure, serve, files, both, model, work, overheard):
    await configure({"files": overheard.through(files)}, permissions={"caller_may_approve": True})
    async with serve() as host:
        waiting = await host.run(**ANTHROPIC.settings)
        assert not (work / "new.txt").exists()
        (pending,) = waiting["pending_approvals"]
        response = {"tool_use_id": pending["tool_use_id"], "decision": "approve"}
        done = await host.resume(waiting["session_id"], responses=[response])
    assert (done["status"], done["text"], done["tool_calls"]) == ("completed", "done", 2)
    assert (work / "new.txt").read_text() == "bought"
    assert [shown.is_error for shown in ANTHROPIC.results(model.requests[1].body)] == [False, False]
    assert len(overheard.heard("tools/call", name="read_text_file")) == 1, "what has run does not run again"


async def test_a_caller_who_is_trusted_may_approve(configure, inside, files, both, work):
    await configure({"files": files})
    async with inside(trust_caller=True) as host:
        waiting = await host.run(**ANTHROPIC.settings)
        (pending,) = waiting["pending_approvals"]
        response = {"tool_use_id": pending["tool_use_id"], "decision": "approve"}
        done = await host.resume(waiting["session_id"], responses=[response])
    assert done["status"] == "completed"
    assert (work / "new.txt").read_text() == "bought"


@ERAS
async def test_a_person_in_front_of_the_host_decides(configure, serve, files, both, model, work, mode):
    await configure({"files": files})
    answers = {"new.txt": approve, "other.txt": deny}

    def person(question: str) -> ElicitResult:
        assert question.startswith(f"The agent wants to call {WRITE} with ")
        return next(answer for name, answer in answers.items() if name in question)(question)

    async with serve(mode=mode, answer=person) as host:
        yes = await host.run(**ANTHROPIC.settings)
        assert (yes["status"], yes["text"]) == ("completed", "done")
        assert (work / "new.txt").read_text() == "bought"
        both("other.txt")
        no = await host.resume(yes["session_id"], prompt="again")
    assert (no["status"], no["text"]) == ("completed", "done")
    assert not (work / "other.txt").exists()
    assert len(host.asked) == 2
    results = [shown.text for shown in ANTHROPIC.results(model.requests[-1].body)]
    assert results[2:] == ["buy milk", "This call was not allowed: not on a Sunday"]


@ERAS
async def test_a_question_that_is_closed_leaves_the_turn_waiting(configure, inside, files, both, work, mode):
    await configure({"files": files})
    async with inside(mode=mode, answer=close) as host:
        waiting = await host.run(**ANTHROPIC.settings)
    assert len(host.asked) == 1
    assert waiting["status"] == "waiting"
    assert [call["tool_name"] for call in waiting["pending_approvals"]] == [WRITE]
    assert not (work / "new.txt").exists()


async def test_no_session_goes_beyond_the_ceiling_of_its_realm(configure, inside, files, both, model, work):
    await configure({"files": files}, permissions={"ceiling": "readonly"})
    async with inside() as host:
        refused = await host.run(permission_mode="auto", **ANTHROPIC.settings)
        assert refused["error"]["code"] == "permission_denied"
        done = await host.run(**ANTHROPIC.settings)
    assert done["status"] == "completed"
    assert WRITE not in ANTHROPIC.tools(model.requests[0].body)
    assert not (work / "new.txt").exists()
