"""What a run comes to in numbers."""

import struct
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from meerkat_mcp.domain import events as e

if TYPE_CHECKING:
    from chaos.town import Town


@dataclass
class Figures:
    """Lines to print, and everything that is wrong."""

    lines: list[str] = field(default_factory=list[str])
    wrong: list[str] = field(default_factory=list[str])


def figures(town: "Town", strokes: Counter[str]) -> Figures:
    """Of what is in the store at the end, and of what callers saw; deleted sessions count for nothing."""
    seconds, ends, recorded, numbered, owners = town.plan.seconds, Counter[str](), 0, 0, 0
    for session, log in town.sessions.values():
        copied = session.forked_from.at_seq if session.forked_from is not None else 0
        numbered += session.seq - copied
        for event in log:
            if event.seq <= copied:
                continue
            recorded += event.type not in e.DELTAS
            owners += event.type == "turn_resumed"
            if event.type in e.TURN_ENDS:
                why = f" ({event.reason})" if isinstance(event, e.TurnInterrupted) else ""
                ends[f"{event.type.removeprefix('turn_')}{why}"] += 1
    appends = [seconds for server in town.servers for seconds in _appends(server.appends)]
    durable = [s * 1000 for s in appends if s > 0]
    pieces = [-s * 1000 for s in appends if s < 0]
    ledger = town.ledger
    lives = [life for server in town.servers for life in server.lives]
    leaving = [life.ended_ms - life.told_to_end_ms for life in lives if life.told_to_end_ms and life.ended_ms]
    lines = [
        f"{town.plan.backend}: {town.plan.processes} processes ({len(lives)} lives), {len(town.sessions)} sessions "
        f"({len(town.deleted)} deleted), {seconds:.0f} s, seed {town.plan.seed}",
        f"turns: {sum(ends.values())}, {sum(ends.values()) / seconds:.1f}/s; ends: {_counted(ends)}; resumed {owners}",
        f"events: {recorded} recorded, {recorded / seconds:.1f}/s; {numbered / seconds:.1f}/s with pieces of text",
        f"an append to the disk, in the server: {_of(durable, 'ms')}",
        f"an append of pieces, in the server: {_of(pieces, 'ms')}",
        f"a small change, call to answer, in calm: {_of([s * 1000 for s in ledger.small_s], 'ms')}",
        f"`session_busy`, call to answer, in calm: {_of([s * 1000 for s in ledger.refused_s], 'ms')}",
        f"event to follower, all: {_of([d for seen in ledger.followers for d in seen.delays_ms], 'ms')}",
        f"event to follower, in calm: {_of([d for seen in ledger.followers for d in seen.calm_delays_ms], 'ms')}",
        f"followers: {len(ledger.followers)}, {sum(len(seen.events) for seen in ledger.followers)} events seen, "
        f"{sum(seen.whole for seen in ledger.followers)} to the end",
        f"from being told to end to the end of the process: {_of(leaving, 'ms')}, at most {max(leaving, default=0)} ms",
        f"bad luck: {_counted(strokes)}",
        f"deeds: {_counted(ledger.deeds)}",
        f"errors that callers got: {_counted(ledger.codes)}",
        f"checked: {len(ledger.told)} promises, {len(ledger.prompts)} prompts, {len(ledger.keys)} keys",
    ]
    return Figures(lines)


def _appends(file: Path) -> Sequence[float]:
    body = file.read_bytes() if file.exists() else b""
    return [seconds for (seconds,) in struct.iter_unpack("d", body[: len(body) // 8 * 8])]


def _counted(counter: Counter[str]) -> str:
    return ", ".join(f"{what} {times}" for what, times in counter.most_common()) or "none"


def _of(numbers: Sequence[float], unit: str) -> str:
    if not numbers:
        return "none"
    ordered = sorted(numbers)
    at = [ordered[min(len(ordered) - 1, int(len(ordered) * part))] for part in (0.5, 0.99)]
    return f"p50 {at[0]:.2f} {unit}, p99 {at[1]:.2f} {unit}, of {len(ordered)}"
