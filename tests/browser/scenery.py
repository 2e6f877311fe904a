"""Sessions to look at: logs as agents with tools leave them, written through the journal, with no model behind them."""

from typing import Any

from meerkat_mcp.domain import events as e
from meerkat_mcp.domain.messages import ToolCall, Usage
from meerkat_mcp.domain.settings import Settings
from meerkat_mcp.realms import Realm
from meerkat_mcp.sessions.clock import SystemClock

HOUR_MS = 3_600_000
MODEL = "claude-sonnet-4-5"
ASKED = "Why does the nightly export sometimes write an empty file? Find the cause, then propose the smallest fix."
REASONED = (
    "The export reads the rows first and opens the file afterwards, so an empty file means that the query gave "
    "nothing. The job starts at 02:00, and so does the rotation of the partitions. I should look at both schedules "
    "before I say that it is a race."
)
FOUND = """The export and the partition rotation both start at **02:00**. When the rotation wins, the export reads \
the new partition, which is still empty.

```python
rows = await partition.current().rows()   # decided here, before the lock
async with partition.lock():
    await write(rows)
```

Two ways out:

1. Take the lock first, then ask which partition is current. One line moves; nothing else changes.
2. Move the export to 02:30. It hides the race until a rotation is slow.

I suggest the first. The test `test_export_waits_for_rotation` fails without it, see https://example.com/runs/4812."""
WRITING = "I moved the lock in `export.py` and ran the tests: 212 passed. Now I write down why it has to be "


class StageClock(SystemClock):
    """A clock that is late, and can be moved on: what is written by it happened over hours."""

    def __init__(self) -> None:
        super().__init__()
        self.late_ms = 0

    def now_ms(self) -> int:
        return super().now_ms() - self.late_ms


class Scribe:
    """Writes one session's log, as the process that works on it."""

    def __init__(self, realm: Realm, clock: StageClock, session_id: str) -> None:
        self._realm = realm
        self._clock = clock
        self.session_id = session_id
        self._turn_id = ""
        self._step = 0

    async def say(self, *events: e.Event) -> None:
        turn = self._turn_id or None
        drafts = [event.model_copy(update={"turn_id": turn}) for event in events]
        await self._realm.journal.record(self.session_id, lambda _: drafts)

    async def turn(self, prompt: str) -> None:
        self._turn_id, self._step = self._realm.journal.clock.new_id(), 0
        await self.say(e.TurnStarted(prompt=prompt, owner=self._realm.turns.owner))

    async def step(self, model: str = MODEL) -> None:
        self._step += 1
        await self.say(e.StepStarted(step=self._step, provider="anthropic", model=model))

    async def stop(self, read: int, wrote: int, took_ms: int, cost_usd: float | None, *, calls: bool = False) -> None:
        usage = Usage(input_tokens=read, output_tokens=wrote, cost_usd=cost_usd)
        reason = "tool_calls" if calls else "end"
        self._clock.late_ms -= took_ms
        await self.say(e.StepCompleted(step=self._step, stop_reason=reason, usage=usage, duration_ms=took_ms))

    async def call(self, call_id: str, name: str, **args: Any) -> ToolCall:
        await self.say(e.ToolCallRequested(tool_use_id=call_id, tool_name=name, args=args))
        return ToolCall(tool_use_id=call_id, tool_name=name, args=args)

    async def answer(self, call: ToolCall, content: str, took_ms: int, *, is_error: bool = False) -> None:
        named = {"tool_use_id": call.tool_use_id, "tool_name": call.tool_name}
        self._clock.late_ms -= took_ms
        done = e.ToolExecutionCompleted(**named, content=content, is_error=is_error, duration_ms=took_ms)
        await self.say(e.ToolExecutionStarted(**named), done)


async def begin(realm: Realm, title: str, ago_ms: float, model: str = MODEL, **labels: str) -> Scribe:
    clock, session_id = realm.journal.clock, realm.journal.clock.new_id()
    assert isinstance(clock, StageClock)
    clock.late_ms = int(ago_ms)
    created = e.SessionCreated(settings=Settings(model=model), title=title, labels=labels)
    await realm.journal.create(session_id, [created])
    return Scribe(realm, clock, session_id)


async def short(
    realm: Realm,
    title: str,
    end: e.Event,
    ago_h: float,
    model: str = MODEL,
    cost_usd: float | None = 0.0126,
    **labels: str,
) -> Scribe:
    """A session with one turn."""
    scribe = await begin(realm, title, ago_h * HOUR_MS, model, **labels)
    await scribe.turn("Have a look, and tell me what you find.")
    await scribe.step(model)
    await scribe.say(e.TextComplete(text="I had a look."))
    await scribe.stop(int(3_120 * (1 + ago_h)), 214, 4_100, cost_usd)
    await scribe.say(end)
    return scribe


async def investigation(realm: Realm) -> Scribe:
    """A session of two turns: one that is over, with tools; one that is being written."""
    scribe = await begin(realm, "Empty nightly export", 68_000, repo="warehouse", team="data")
    await scribe.turn(ASKED)
    await scribe.step()
    await scribe.say(e.ReasoningComplete(text=REASONED), e.TextComplete(text="I look at both schedules first."))
    export = await scribe.call("c1", "files__read", path="jobs/export.py", lines="1-80")
    cron = await scribe.call("c2", "files__search", pattern="0 2 * * *", under="deploy")
    logs = await scribe.call("c3", "logs__query", service="export", since="7d", level="error")
    await scribe.stop(4_812, 356, 6_240, 0.0198, calls=True)
    await scribe.answer(export, "async def export(partition):\n    rows = await partition.current().rows()\n", 41)
    await scribe.answer(cron, '{"matches": ["deploy/export.cron:3", "deploy/rotation.cron:1"]}', 112)
    await scribe.answer(logs, "The log store did not answer within 30 s.", 30_004, is_error=True)
    await scribe.step()
    await scribe.say(e.TextComplete(text=FOUND))
    await scribe.stop(6_930, 512, 9_870, 0.0285)
    await scribe.say(e.TurnCompleted())
    await scribe.turn("Do the first. Run the tests, and say in the commit why the order matters.")
    await scribe.step()
    edit = await scribe.call("c4", "files__edit", path="jobs/export.py", replace="rows = …", by="async with …")
    tests = await scribe.call("c5", "shell__run", command="pytest -q tests/jobs")
    await scribe.stop(8_240, 148, 3_020, 0.0269, calls=True)
    await scribe.answer(edit, "1 replacement made.", 18)
    await scribe.answer(tests, "212 passed in 11.4 s", 11_612)
    await scribe.step()
    await scribe.say(e.TextDelta(text=WRITING))
    return scribe


async def waiting(realm: Realm) -> Scribe:
    """A session whose turn waits for a yes."""
    scribe = await begin(realm, "Rotate the staging credentials", 7 * 60_000, env="staging")
    await scribe.turn("Rotate the credentials of the staging database, and restart what uses them.")
    await scribe.step()
    await scribe.say(
        e.TextComplete(text="I have the list of services. The next call changes things, so it needs a yes.")
    )
    call = await scribe.call("c1", "vault__rotate", path="staging/db", restart=["api", "worker"])
    await scribe.stop(2_400, 96, 2_200, 0.0087, calls=True)
    await scribe.say(e.ApprovalRequested(tool_use_id="c1", tool_name="vault__rotate"))
    await scribe.say(e.TurnWaiting(pending_approvals=(call,)))
    return scribe


async def furnish(realm: Realm) -> tuple[Scribe, Scribe]:
    """A realm as it looks in the middle of a day: the session that runs, and the one that waits."""
    done = e.TurnCompleted()
    failed = e.TurnFailed(error={"code": "provider_unavailable", "message": "Overloaded."})
    await short(realm, "Summarise the incident of 12 November", done, 71, "gpt-5.4", kind="report")
    await short(realm, "Translate the release notes", done, 26, "gemini-3-pro", 0.0041, lang="de")
    await short(realm, "Benchmark the importer", failed, 5, repo="warehouse")
    await short(realm, "", e.TurnInterrupted(reason="requested"), 3, "demo", None)
    await short(realm, "Review: store contract, second opinion", done, 0.7, "gpt-5.4", 0.0312, panel="review")
    await short(realm, "Review: store contract", done, 0.6, panel="review")
    asking = await waiting(realm)
    running = await investigation(realm)
    await realm.turns.reserve(1)  # so that this process is known to be alive, and to work
    return running, asking


async def chatter(realm: Realm, *, turns: int) -> str:
    """A long session: ten events a turn."""
    clock, owner = realm.journal.clock, realm.turns.owner
    session_id = clock.new_id()
    await realm.journal.create(session_id, [e.SessionCreated(settings=Settings(), title="Long")])
    for number in range(turns):
        call = {"tool_use_id": f"c{number}", "tool_name": "files__read", "turn_id": clock.new_id()}
        turn = {"turn_id": call["turn_id"]}
        stop = {"usage": Usage(input_tokens=100, output_tokens=20), "duration_ms": 900, **turn}
        events = [
            e.TurnStarted(prompt=f"Question {number}?", owner=owner, **turn),
            e.StepStarted(step=1, provider="demo", model="demo", **turn),
            e.ReasoningComplete(text="Hm. " * 20, **turn),
            e.ToolCallRequested(args={"path": f"chapter-{number}.md"}, **call),
            e.StepCompleted(step=1, stop_reason="tool_calls", **stop),
            e.ToolExecutionCompleted(content="All of it.\n" * 20, duration_ms=12, **call),
            e.StepStarted(step=2, provider="demo", model="demo", **turn),
            e.TextComplete(text=f"**Answer {number}**\n\n- one\n- `two`\n\n" + "Words and words. " * 20, **turn),
            e.StepCompleted(step=2, stop_reason="end", **stop),
            e.TurnCompleted(**turn),
        ]
        await realm.journal.record(session_id, lambda _, events=events: events)
    return session_id
