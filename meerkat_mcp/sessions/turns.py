"""The turns that run in this process: room for them, the lease that says we live, and what the dead left behind."""

import logging
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass

import anyio
from anyio.abc import TaskGroup

from meerkat_mcp.domain import events as e
from meerkat_mcp.domain.errors import LimitExceeded, MeerkatError, StoreUnavailable, Unavailable
from meerkat_mcp.domain.realm import Instance
from meerkat_mcp.domain.session import Session
from meerkat_mcp.domain.turn import Turn
from meerkat_mcp.sessions.journal import Journal
from meerkat_mcp.sessions.plan import Plan
from meerkat_mcp.sessions.turn import TurnRun
from meerkat_mcp.tools.base import ToolServers

LEASE_S = 15.0
RENEW_INTERVAL_S = 5.0
END_S = 1.0
"""For what a process that ends has still to record."""
JUMP_S = 5.0
"""A clock that went on by so much more than we did: the machine slept, or somebody set it."""

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Place:
    """A place for one turn, taken before the turn is recorded and given back when it has ended."""

    free: Callable[[], None]


Then = Callable[[str, Place], Awaitable[None]]


class Turns:
    """Runs turns as this process's instance. Only inside `run` can it take any.

    When the process ends, its turns are suspended for another one to take up if it `hands_over`, else interrupted.
    """

    def __init__(
        self, journal: Journal, owner: e.Owner, tool_servers: ToolServers, *, hands_over: bool = False
    ) -> None:
        self.owner = owner
        self.hands_over = hands_over
        self._tool_servers = tool_servers
        self._journal = journal
        self._tasks: TaskGroup | None = None
        self._taken = 0
        self._working: list[TurnRun] = []  # a turn is twice in it for a moment when it was resumed as soon as it waited
        self._ending = False
        self._freed, self._ended = anyio.Event(), anyio.Event()
        self._lease_ms = 0
        self._renewing = anyio.Lock()
        self._clock_ahead_s = self._ahead_s()
        self._doubt_until_s = 0.0

    @property
    def running(self) -> int:
        """How many turns this process works on."""
        return self._taken

    @property
    def accepting(self) -> bool:
        """Whether turns can begin here; not in a command that only looks, nor in a process that ends."""
        return self._tasks is not None and not self._ending

    @property
    def leased(self) -> bool:
        """Whether others can see that this process lives; none of its turns needs that when none runs."""
        return not self._taken or self._lease_ms > self._journal.clock.now_ms()

    async def end(self, within_s: float) -> None:
        """Begin no more turns; let those that run end by themselves for so long, or come to the end of their step where
        another process takes them up; then cut them short. Queued prompts stay queued.
        """
        self._ending = True
        for run in self._working if self.hands_over else ():
            run.leave()
        with anyio.move_on_after(within_s):
            while self._taken:
                self._freed = anyio.Event()
                await self._freed.wait()
        if self._tasks is not None:
            self._tasks.cancel_scope.cancel()
        await self._ended.wait()

    async def run(self, *, task_status: anyio.abc.TaskStatus[None] = anyio.TASK_STATUS_IGNORED) -> None:
        """Take turns until cancelled; then each one running ends as interrupted before this returns."""
        try:
            async with anyio.create_task_group() as tasks:
                self._tasks = tasks
                task_status.started()
                try:
                    await self._keep_lease()
                finally:
                    self._tasks = None  # a turn begun later would never hear that it is cancelled, and spin
        finally:
            self._ended.set()
            if self._lease_ms:
                with anyio.move_on_after(END_S, shield=True):
                    await self._retire()

    async def reserve(self, most: int) -> Place:
        """A place for one turn, with a lease that others can see.

        Raises:
            LimitExceeded: `most` turns run here already.
            Unavailable: this process is ending, or was opened to look only.
        """
        if not self.accepting:
            raise StoreUnavailable("This process takes no turns: it is ending.", hint="Try again with a new one.")
        if self._taken >= most:
            raise LimitExceeded(
                f"{self._taken} turns are running in this process, as many as it may.",
                hint="Wait for one to end, or raise limits.max_concurrent_turns.",
                limit="limits.max_concurrent_turns",
                maximum=most,
            )
        self._taken += 1
        freed = False

        def free() -> None:
            nonlocal freed
            if not freed:
                freed = True
                self._taken -= 1
                self._freed.set()

        try:
            async with self._renewing:
                if self._lease_ms - self._journal.clock.now_ms() < (LEASE_S - RENEW_INTERVAL_S) * 1000:
                    await self._renew()
        except BaseException:
            free()
            raise
        return Place(free)

    async def start(self, session: Session, plan: Plan, place: Place, *, then: Then) -> None:
        """Work on the session's turn, which was just recorded as ours; `then` gets the place when it has ended."""
        run = TurnRun(self._journal, session, plan, self._tool_servers, hands_over=self.hands_over)
        if self._tasks is None:  # recorded just as we began to end: nobody here will work on it
            place.free()
            with anyio.move_on_after(END_S, shield=True):
                await run.leave_it()
            return
        self._working.append(run)
        if self._ending and self.hands_over:
            run.leave()
        self._tasks.start_soon(self._work, run, place, then)

    async def settle(self, session: Session) -> Session:
        """Bring to an end what a dead process left running. Its owner is asked for, never its pid.

        Tools are not run again, prompts not replayed.
        """
        turn = session.turn
        if not session.active or turn is None:
            return session
        if await self._is_worked_on(turn) or self._clock_jumped():
            return session

        def decide(current: Session) -> Sequence[e.Event]:
            same = current.active and current.turn is not None and current.turn.owner == turn.owner
            if not same or current.turn is None or current.turn.turn_id != turn.turn_id:
                return ()
            return [e.TurnInterrupted(turn_id=turn.turn_id, reason=current.turn.interrupt or "owner_lost")]

        log.warning("Turn %s was left running by %s; nobody works on it.", turn.turn_id, turn.owner.instance_id)
        return await self._journal.record(session.id, decide)

    async def lost(self, working: Sequence[tuple[str, str]]) -> Sequence[str]:
        """Of sessions that are worked on, each with its owner's incarnation, those whose owner is dead."""
        owners = {incarnation for _, incarnation in working} - {self.owner.incarnation}
        now_ms = self._journal.clock.now_ms()
        dead = {owner for owner in owners if not await self._journal.store.alive(owner, now_ms=now_ms)}
        return [session_id for session_id, incarnation in working if incarnation in dead]

    async def _is_worked_on(self, turn: Turn) -> bool:
        """Ours is when we know of it, or may be when a place is taken for one that is just being recorded."""
        if turn.owner.incarnation == self.owner.incarnation:
            return any(run.turn_id == turn.turn_id for run in self._working) or len(self._working) < self._taken
        return await self._journal.store.alive(turn.owner.incarnation, now_ms=self._journal.clock.now_ms())

    def _clock_jumped(self) -> bool:
        """Whether leases say nothing just now: the clock went on without us, and perhaps without their owners, who get
        the time to renew them.
        """
        before_s, self._clock_ahead_s = self._clock_ahead_s, self._ahead_s()
        if abs(self._clock_ahead_s - before_s) > JUMP_S:
            self._doubt_until_s = anyio.current_time() + RENEW_INTERVAL_S + END_S
        return anyio.current_time() < self._doubt_until_s

    def _ahead_s(self) -> float:
        """How far the clock is ahead of the time that passed for us."""
        return self._journal.clock.now_ms() / 1000 - anyio.current_time()

    async def _work(self, run: TurnRun, place: Place, then: Then) -> None:
        try:
            try:
                await run.run()
            finally:
                self._working.remove(run)
            await then(run.session_id, place)
        except MeerkatError as exc:
            place.free()
            log.warning("After the turn of session %s: %s", run.session_id, exc.message)
        except BaseException:
            place.free()
            raise

    async def _keep_lease(self) -> None:
        """A server is known to be there when it has nothing to do, too: nobody deletes the realm under it."""
        if self.hands_over:
            await self._renew_or_warn()
        while True:
            await anyio.sleep(RENEW_INTERVAL_S)
            self._clock_jumped()  # what is noticed late is noticed too late
            if self._taken or self.hands_over:
                await self._renew_or_warn()

    async def _renew(self) -> None:
        """Take the lease anew; at once again, when the store took as long as the pause between two renewals."""
        clock, owner = self._journal.clock, self.owner
        while True:
            begun_ms = clock.now_ms()
            expires_ms = begun_ms + int(LEASE_S * 1000)
            await self._journal.store.renew(
                Instance(
                    instance_id=owner.instance_id,
                    incarnation=owner.incarnation,
                    host=owner.host,
                    pid=owner.pid,
                    expires_ms=expires_ms,
                )
            )
            self._lease_ms = expires_ms
            if clock.now_ms() - begun_ms < RENEW_INTERVAL_S * 1000:
                return

    async def _renew_or_warn(self) -> None:
        try:
            await self._renew()
        except Unavailable as exc:
            log.warning("The lease could not be renewed: %s", exc.message)

    async def _retire(self) -> None:
        try:
            await self._journal.store.retire(self.owner.incarnation)
        except MeerkatError as exc:
            log.debug("Not retired: %s", exc.message)
