"""The git server of PyPI, used by an agent: what each tool says of itself decides which need a yes."""

import anyio
import pytest
from real_tools.hosts import approve
from real_tools.wires import ANTHROPIC, RESPONSES
from vendors.script import Call

pytestmark = pytest.mark.anyio

READ = ("status", "diff_unstaged", "diff_staged", "diff", "log", "show", "branch")
WRITE = ("add", "commit", "reset", "create_branch", "checkout")


async def test_what_reads_is_offered_and_what_writes_is_not(configure, inside, git, model, work):
    (work / "notes.txt").write_text("buy bread")
    status = Call("git__git_status", {"repo_path": str(work)})
    log = Call("git__git_log", {"repo_path": str(work)})
    model.will([status, log])
    await configure({"git": git})
    async with inside() as host:
        done = await host.run(permission_mode="readonly", **RESPONSES.settings)
    assert done["status"] == "completed"
    offered = RESPONSES.tools(model.requests[0].body)
    assert set(offered) == {f"git__git_{name}" for name in READ}
    state, history = RESPONSES.results(model.requests[1].body)
    assert "notes.txt" in state.text
    assert "First notes" in history.text


async def test_a_commit_is_made_after_a_yes_for_each_step(configure, serve, git, model, work):
    (work / "notes.txt").write_text("buy bread")
    here = {"repo_path": str(work)}
    model.will(
        Call("git__git_diff_unstaged", here),
        Call("git__git_add", here | {"files": ["notes.txt"]}),
        Call("git__git_commit", here | {"message": "Bread, not milk"}),
        Call("git__git_log", here),
    )
    await configure({"git": git})
    async with serve(answer=approve) as host:
        done = await host.run(**ANTHROPIC.settings)
    assert (done["status"], done["tool_calls"]) == ("completed", 4)
    asked = [question.split()[5] for question in host.asked]
    assert asked == ["git__git_add", "git__git_commit"]
    assert set(ANTHROPIC.tools(model.requests[0].body)) == {f"git__git_{name}" for name in (*READ, *WRITE)}
    diff, added, committed, history = ANTHROPIC.results(model.requests[-1].body)
    assert "+buy bread" in diff.text
    assert [shown.is_error for shown in (diff, added, committed, history)] == [False] * 4
    assert "Bread, not milk" in history.text
    said = await anyio.run_process(["git", "log", "--format=%s"], cwd=work)
    assert said.stdout.decode().splitlines() == ["Bread, not milk", "First notes"]


async def test_what_the_insider_refuses_is_an_error_that_the_model_reads(configure, inside, git, model, work):
    model.will(Call("git__git_status", {"repo_path": str(work.parent)}), Call("git__git_status", {}))
    await configure({"git": git})
    async with inside() as host:
        done = await host.run(**ANTHROPIC.settings)
    assert (done["status"], done["text"]) == ("completed", "done")
    outside, incomplete = ANTHROPIC.results(model.requests[-1].body)
    assert outside.is_error
    assert "outside" in outside.text
    assert incomplete.is_error
    assert "repo_path" in incomplete.text
