"""What must hold when everything has come to rest, looked at in the store itself. Each check gives what is wrong."""

from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence

from chaos.ledger import Ledger
from chaos.servers import Server
from simulation.promises import OWNERS_ONLY, Log, check_log, check_seen

from meerkat_mcp.domain import events as e
from meerkat_mcp.domain.errors import SessionNotFound
from meerkat_mcp.domain.session import Session
from meerkat_mcp.stores.base import LIST_SESSIONS_MAX, Cursor, Selection, Store

Logs = Mapping[str, Log]
LATE_MS = 10_000
"""A stroke of bad luck may show in a log so much later: a lease lapses, somebody looks."""


async def kept(store: Store) -> dict[str, tuple[Session, Log]]:
    """Every session there is, with its whole log."""
    found: dict[str, tuple[Session, Log]] = {}
    after: Cursor | None = None
    while page := await store.sessions(Selection(archived=None), after=after, limit=LIST_SESSIONS_MAX):
        for listed in page:
            log: list[e.Event] = []
            while events := await store.read(listed.id, after=log[-1].seq if log else 0):
                log += [recorded.event for recorded in events]
            try:
                found[listed.id] = (await store.load(listed.id), log)
            except SessionNotFound:
                raise AssertionError(f"{listed.id} is listed, and is not there") from None
        after = Cursor(updated_ms=page[-1].updated_ms, session_id=page[-1].id)
    return found


def of_logs(sessions: Mapping[str, tuple[Session, Log]]) -> Iterator[str]:
    """One turn at a time, one end a turn, only by its owner, nothing twice; the log adds up to the session."""
    for session_id, (session, log) in sessions.items():
        for check in (lambda: check_log(session, log), lambda: _check_turns(log)):  # noqa: B023 - called here
            yield from _wrong(session_id, check)


def _check_turns(log: Log) -> None:
    open_turn: str | None = None
    begun: Counter[tuple[str | None, str, str]] = Counter()
    for event in log:
        if event.type == "turn_started":
            open_turn = event.turn_id
        copied = event.seq <= _copied(log)
        if isinstance(event, OWNERS_ONLY) and not copied:
            assert event.turn_id == open_turn, f"{event.seq} {event.type} of {event.turn_id}, but {open_turn} is open"
        if event.type in e.TURN_ENDS:
            open_turn = None
        match event:
            case e.ToolExecutionStarted() | e.ToolExecutionCompleted():
                begun[event.turn_id, event.type, event.tool_use_id] += 1
            case e.StepCompleted():
                begun[event.turn_id, event.type, f"{event.step} {event.purpose}"] += 1
            case e.TurnFailed():
                assert event.error["code"] != "internal", f"a turn failed by a bug: {event.error}"
            case _:
                pass
    twice = [what for what, times in begun.items() if times > 1]
    assert not twice, f"done twice: {twice}"


def of_prompts(logs: Logs, ledger: Ledger) -> Iterator[str]:
    """No prompt runs twice, and what was told of one is one turn; so with keys."""
    ran: dict[str, list[str | None]] = {}
    for log in logs.values():
        for event in log:
            if isinstance(event, e.TurnStarted) and event.kind == "prompt" and event.seq > _copied(log):
                ran.setdefault(event.prompt, []).append(event.turn_id)
    for prompt, turns in ran.items():
        if len(turns) > 1:
            yield f"a prompt ran twice: {prompt!r} as {turns}"
        if (told := ledger.prompts.get(prompt, set())) and not set(turns) <= told:
            yield f"a prompt ran as {turns}, and its caller was told {told}: {prompt!r}"
    for prompt, told in ledger.prompts.items():
        if len(told) > 1:
            yield f"one prompt, several turns: {prompt!r}: {told}"
    for key, results in ledger.keys.items():
        if len(results) > 1:
            yield f"one idempotency key, several turns: {key!r}: {results}"


def of_promises(logs: Logs, ledger: Ledger, deleted: set[str]) -> Iterator[str]:
    """What somebody was told is there, and what was deleted is not."""
    for session_id in deleted & logs.keys():
        yield f"{session_id}: it was deleted, and is there"
    for session_id, what, holds in ledger.told:
        gone = session_id in ledger.sessions and ledger.sessions[session_id].gone
        if session_id not in logs and not gone:
            yield f"{session_id}: somebody was told of {what}, and the session is not there"
        elif session_id in logs and not holds(logs[session_id]):
            yield f"{session_id}: somebody was told, and it is not in the log: {what}"
    yield from ledger.wrong


def of_followers(logs: Logs, ledger: Ledger) -> Iterator[str]:
    """Each saw every recorded event of its range once, in order."""
    for seen in ledger.followers:
        seqs = [event.seq for event in seen.events]
        if seqs != sorted(set(seqs)):
            yield f"{seen.session_id}: {seen.name} saw {seqs}"
        if (log := logs.get(seen.session_id)) is not None:
            check = _seen(log, seen.events, seen.after, seen.whole)
            yield from _wrong(f"{seen.session_id}: {seen.name} after {seen.after}", check)


def _seen(log: Log, events: Log, after: int, whole: bool) -> Callable[[], None]:
    return lambda: check_seen(log, events, after, whole=whole)


def of_tools(logs: Logs, noted: Sequence[str], whole: bool) -> Iterator[str]:
    """What a tool did, it did once, and a log knew before; what it answered, it did. `whole`: no log was deleted."""
    for name, times in Counter(noted).items():
        if times > 1:
            yield f"a tool was called {times} times for {name!r}"
    started, answered = set[str](), set[str]()
    for log in logs.values():
        names = {
            (event.turn_id, event.tool_use_id): str(event.args.get("name"))
            for event in log
            if isinstance(event, e.ToolCallRequested)
        }
        for event in log:
            match event:
                case e.ToolExecutionStarted():
                    started.add(names[event.turn_id, event.tool_use_id])
                case e.ToolExecutionCompleted() if event.tool_name == "notes__write" and not event.is_error:
                    answered.add(names[event.turn_id, event.tool_use_id])
                case _:
                    pass
    if whole and (unknown := set(noted) - started):
        yield f"a tool ran, and no log knows that it began: {unknown}"
    if lost := answered - set(noted):
        yield f"a tool answered that was never asked: {lost}"


def of_owners(logs: Logs, servers: Sequence[Server]) -> Iterator[str]:
    """Nobody loses a turn who had no bad luck, whatever happened to others."""
    lives = {life.pid: life for server in servers for life in server.lives}
    for session_id, turn_id, owner, at_ms in _lost(logs):
        life = lives.get(owner.pid)
        if life is not None and not any(before_ms <= at_ms for before_ms, _ in life.troubles):
            yield f"{session_id}: turn {turn_id} of process {owner.pid} was lost, which had no trouble"


def _lost(logs: Logs) -> Iterator[tuple[str, str | None, e.Owner, int]]:
    """Session, turn, owner and time of every turn that was ended because its owner counted as dead."""
    for session_id, log in logs.items():
        owner: e.Owner | None = None
        for event in log:
            if isinstance(event, e.TurnStarted | e.TurnResumed):
                owner = event.owner
            lost = isinstance(event, e.TurnInterrupted) and event.reason == "owner_lost"
            if lost and owner is not None and event.seq > _copied(log):
                yield session_id, event.turn_id, owner, event.timestamp_ms


def of_ends(logs: Logs, ledger: Ledger) -> Iterator[str]:
    """A turn that nobody waited for goes on elsewhere when its process is told to end."""
    for session_id, log in logs.items():
        for event in log:
            ended = isinstance(event, e.TurnInterrupted) and event.reason == "shutdown"
            if ended and event.turn_id in ledger.detached:
                yield f"{session_id}: the detached turn {event.turn_id} was ended by a shutdown"


def of_config(generation: int, left: Mapping[str, str], ledger: Ledger) -> Iterator[str]:
    """No generation was given twice, and each caller finds what it left last."""
    told = ledger.config.generations
    if max(told, default=0) > generation:
        yield f"config: somebody was told generation {max(told)}, and it is at {generation}"
    for name, values in ledger.config.left.items():
        if left.get(name, "") not in values:
            yield f"config: {name} left one of {values}, and finds {left.get(name)}"


def of_processes(servers: Sequence[Server]) -> Iterator[str]:
    """No bug is in any log, no call hung, every process that was told to end ended, and by itself."""
    for server in servers:
        yield from server.hangs
        yield from server.oddities
        for line in server.wrote():
            if "Traceback" in line or " ERROR " in line or " CRITICAL " in line or "bug" in line:
                yield f"{server.name} wrote: {line[:3000]}"
        for life in server.lives:
            if life.code is not None and not life.troubles:
                yield f"{server.name}: process {life.pid} ended with {life.code}, and nobody had told it to"
            asked, done = life.told_to_end_ms, life.ended_ms
            if asked is None or done is None:
                continue
            struck = {what for at_ms, what in life.troubles if at_ms > asked}
            if done - asked > LATE_MS and "stop" not in struck:
                yield f"{server.name}: process {life.pid} took {done - asked} ms to end"
            elif life.code not in (0, -9) and "kill" not in struck:
                yield f"{server.name}: process {life.pid} was told to end, and ended with {life.code}"


def _copied(log: Log) -> int:
    """Up to which event a log is that of another session."""
    first = log[0]
    return first.forked_from.at_seq if isinstance(first, e.SessionCreated) and first.forked_from else 0


def _wrong(where: str, check: Callable[[], None]) -> Iterator[str]:
    try:
        check()
    except Exception as exc:  # whatever makes a log unreadable is wrong
        yield f"{where}: {type(exc).__name__}: {exc}"
