"""The seam to storage: what a backend keeps, and what *kept* means.

A backend is one class that meets `Store`. The rules every one of them keeps, and one contract suite tests:

- **One door.** Events enter a log by `append` only. An append is all or nothing. Its events follow the last
  one of the log directly (`seq` of the first = last + 1; a fork brings the holes of its origin along), else
  `SequenceConflict`: that is the whole concurrency control, across tasks, processes and machines.
- **Two tiers.** When an append with a recorded event returns, the events survive the death of the process and
  the power cut. One of deltas alone is visible to every reader when it returns, and survives the process.
- **Superseding.** An append may remove deltas that it completes. Nothing else is ever removed from a log but by
  `tidy`, which takes away what no fold of the log needs, and by `delete`.
- **Reading** gives events in order of `seq`, without those removed; of large ones fewer than were asked for
  (`READ_BYTES_MAX`), but at least one if there is one.
- **Changes.** `changes` tells what *other* processes recorded; it may tell too often, never too late or never.
- A method raises `StoreUnavailable` when the store cannot be reached or written, `Corrupt` when what it finds
  contradicts itself. After an error of `append` nothing of it is in the log.
"""

from collections.abc import AsyncIterator, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

from pydantic import Field

from meerkat_mcp.domain.config import Versioned
from meerkat_mcp.domain.messages import JsonObject, Value
from meerkat_mcp.domain.realm import Instance
from meerkat_mcp.domain.recorded import Recorded
from meerkat_mcp.domain.session import Session, State

READ_EVENTS_MAX = 1000
READ_BYTES_MAX = 1024 * 1024
"""Of events that are read at once; a single larger one still comes whole."""
LIST_SESSIONS_MAX = 200

SEALING_KEY_BYTES = 32

_COMPLETES = frozenset({"text_complete", "reasoning_complete"})


class SequenceConflict(Exception):
    """Another writer was first: the log goes on further than the append knew."""


class KeyTaken(Exception):
    """The idempotency key of an append is in use; `claim` says by what."""

    def __init__(self, claim: "Claim") -> None:
        super().__init__(claim.key)
        self.claim = claim


@dataclass(frozen=True, slots=True)
class Claim:
    """An idempotency key, the input it was used with (as a digest), and the turn that came of it."""

    key: str
    digest: str
    session_id: str
    turn_id: str
    created_ms: int


@dataclass(frozen=True, slots=True)
class Append:
    """Events that enter a log together.

    `session` is the session after them. `shown` says that a list shows something else now, so that the
    session itself is kept anew. `supersedes` is the first seq of the deltas that these events complete. A claim
    is for a turn of this session; where both its key and the place in the log are taken, `KeyTaken` is raised.
    `follows` is the seq of the last event before them, where that is not the number before the first: a log that is
    copied page by page has holes between pages, too.
    """

    session: Session
    events: Sequence[Recorded]
    shown: bool = True
    supersedes: int | None = None
    claim: Claim | None = None
    follows: int | None = None

    @property
    def after(self) -> int:
        """The seq that the log must end with for these events to enter it."""
        return self.events[0].seq - 1 if self.follows is None else self.follows

    @property
    def durable(self) -> bool:
        """Whether it has to reach the disk before it is told of."""
        return not all(recorded.is_delta for recorded in self.events)

    @property
    def begins(self) -> bool:
        """Whether the log begins with it; else there must be one."""
        return self.after == 0

    @property
    def superseded(self) -> range:
        """Where the deltas are that go: up to the last text that is completed here, so they may be among `events`."""
        if self.supersedes is None:
            return range(0)
        complete = (recorded.seq for recorded in self.events if recorded.type in _COMPLETES)
        return range(self.supersedes, max(complete, default=self.events[0].seq))


def fitting(found: Iterable[Recorded]) -> list[Recorded]:
    """As many of these as are read at once."""
    kept, size = list[Recorded](), 0
    for recorded in found:
        kept.append(recorded)
        size += len(recorded.body)
        if size >= READ_BYTES_MAX:
            break
    return kept


def is_full(page: Sequence[Recorded], limit: int) -> bool:
    """Whether there may be more events behind a page that was read with this limit."""
    return len(page) >= limit or sum(len(recorded.body) for recorded in page) >= READ_BYTES_MAX


def tidied(log: Sequence[Recorded], *, without: Collection[int], instead: Sequence[Recorded]) -> list[Recorded]:
    """What `tidy` makes of this log. Raises ValueError, as it does."""
    new = {recorded.seq: recorded for recorded in instead}
    kept = [new.get(each.seq, each) for each in log[:-1] if not (each.is_delta and each.seq in without)]
    check_instead(((each.seq, each.type) for each in log[:-1]), instead)
    return [*kept, *log[-1:]]


def check_instead(there: Iterable[tuple[int, str]], instead: Sequence[Recorded]) -> None:
    """Raises ValueError when an event that is to take the place of another is of another type than that one has.

    `there` are seqs and types of a log, of those events at least that are replaced.
    """
    types = {recorded.seq: recorded.type for recorded in instead}
    for seq, type_ in there:
        if types.get(seq, type_) != type_:
            raise ValueError(f"The {types[seq]} with seq {seq} cannot take the place of a {type_}.")


class Cursor(Value):
    """A place in the list of sessions: everything after the session with these."""

    updated_ms: int
    session_id: str


class Selection(Value):
    """Which sessions to list. `labels` must all match; `principal` began it. `query` begins the id; or each of its
    words begins a word of what `found_by` says, or of one message: see `searching`. One without any word in it finds
    only what it begins the id of.
    """

    labels: dict[str, str] = Field(default_factory=dict)
    states: tuple[State, ...] = ()
    archived: bool | None = False
    query: str = ""
    principal: str | None = None


def found_by(session: Session) -> str:
    """The text in whose words those of a query are looked for: title, opening, and each `key=value` of the labels."""
    labels = (f"{key}={value}" for key, value in session.labels.items())
    return "\n".join((session.title, session.opening, *labels))


class Stream(Value):
    """A client's place in a log, held open. `after_seq` is how far it has read."""

    stream_id: str
    session_id: str
    after_seq: int
    types: tuple[str, ...] = ()
    used_ms: int


class Store(Protocol):
    """Everything a realm keeps. See the module for what the words promise."""

    @property
    def mechanisms(self) -> Mapping[str, str]:
        """What does the work here that differs from machine to machine: for who operates it."""
        ...

    @property
    def warnings(self) -> Sequence[str]:
        """What a person should know about these."""
        ...

    # ── logs ──
    async def append(self, append: Append) -> None:
        """Raises SequenceConflict, KeyTaken, StoreUnavailable."""
        ...

    async def load(self, session_id: str) -> Session:
        """The session as of its last event. Raises SessionNotFound."""
        ...

    async def read(
        self,
        session_id: str,
        *,
        after: int = 0,
        limit: int = READ_EVENTS_MAX,
        types: Collection[str] = (),
        through: int | None = None,
    ) -> Sequence[Recorded]:
        """The next events with `after < seq <= through`, at most `limit`; only `types`, when some are named."""
        ...

    def changes(self) -> AsyncIterator[Collection[str]]:
        """The ids of sessions in which another process recorded something since the store was opened, as it happens.

        For one reader at a time; one that comes after it begins with what that one was told last.
        """
        ...

    # ── sessions ──
    async def sessions(
        self, selection: Selection, *, after: Cursor | None = None, offset: int = 0, limit: int = 50
    ) -> Sequence[Session]:
        """Newest activity first, as of the latest event that a list shows."""
        ...

    async def matching(self, prefix: str, *, limit: int, principal: str | None = None) -> Sequence[str]:
        """Ids that begin so, newest first, archived ones too; only of sessions that `principal` began, if named."""
        ...

    async def delete(self, session_id: str) -> None:
        """Remove every byte of a session, from the files too: its log, claims and streams.

        Deleting what is not there is fine. StoreUnavailable can mean here that the session is gone and some bytes are
        not yet; then it helps to delete it again. Several at once cost little more than one.
        """
        ...

    async def claim(self, key: str) -> Claim | None:
        """What an idempotency key was used for."""
        ...

    async def put_claim(self, claim: Claim) -> None:
        """Keep the claim of a session that was copied here; one whose key is there already stays. Raises
        SessionNotFound.
        """
        ...

    async def prune_claims(self, *, created_before_ms: int) -> int:
        """Forget old idempotency keys (`created_ms < created_before_ms`); how many they were."""
        ...

    async def kept_with(self, session_id: str) -> tuple[Sequence[Claim], Sequence[Stream]]:
        """The claims and the open streams of a session, in any order; none of one that is not there."""
        ...

    # ── work that waits, or goes on ──
    async def take(self, *, ready_before_ms: int, until_ms: int, now_ms: int, limit: int) -> Sequence[str]:
        """Sessions in which something waits for a process since before then (`Session.ready_ms < ready_before_ms`), the
        longest first, of equal ones by id.

        Nobody else is told of these until `until_ms`, so that processes share what waits and do not all reach for the
        same. It is no lock: the log decides who goes on.
        """
        ...

    async def working(self) -> Sequence[tuple[str, str]]:
        """Every session with a turn that is being worked on (`WORKING`), and its owner's incarnation, in any order."""
        ...

    # ── keeping house ──
    async def tidy(self, session_id: str, *, without: Collection[int], instead: Sequence[Recorded]) -> None:
        """Take deltas out of a log, by seq, and put events in the place of those with their seq, all or nothing.

        What is put there says less and folds to the same: only its type must be that of the one before, else
        ValueError. The last event of a log stays as it is, and so does what is named in `without` and is no delta. What
        is not there is passed over. No reader is told. The bytes may stay in the files until something else takes their
        place.
        """
        ...

    async def on_duty(self, duty: str, incarnation: str, *, now_ms: int, until_ms: int) -> bool:
        """Whether this process is the one of the realm that does something, until then: nobody else is, or was and
        its time is over. Asking again renews it.
        """
        ...

    async def sealing_key(self) -> bytes:
        """32 random bytes, the same for all processes of the realm for good; made when first asked for.

        They seal what a client keeps for us between two calls, nothing else: who can read the store needs no key.
        """
        ...

    # ── config ──
    async def config(self) -> Versioned:
        """The document as it was put, generation 0 and empty before that."""
        ...

    async def put_config(self, document: JsonObject, *, expected: int | None) -> Versioned:
        """Compare and set, in one transaction. Raises GenerationConflict."""
        ...

    # ── streams ──
    async def put_stream(self, stream: Stream) -> None:
        """Open a stream, or move it. Raises SessionNotFound."""
        ...

    async def stream(self, stream_id: str) -> Stream | None:
        """The stream, if it is open."""
        ...

    async def close_stream(self, stream_id: str) -> bool:
        """Whether it was open."""
        ...

    async def prune_streams(self, *, used_before_ms: int) -> int:
        """Close those that idled; how many they were."""
        ...

    # ── instances ──
    async def renew(self, instance: Instance) -> None:
        """Say that this process lives, until `expires_ms` at least. The first call makes it known."""
        ...

    async def alive(self, incarnation: str, *, now_ms: int) -> bool:
        """Whether the process of that life can still be working.

        False at once when it is known to be dead on this host (it held an OS lock, and the lock is free),
        else when its lease has lapsed or it was never heard of. Never decided by a pid.
        """
        ...

    async def retire(self, incarnation: str) -> None:
        """Forget an instance that ended."""
        ...

    async def close(self) -> None:
        """Finish what is queued and let go of everything; closing twice is fine."""
        ...
