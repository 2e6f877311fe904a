"""What a benchmark gives back: rows with a number of ours, its limit, and what was promised of the two."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass
from statistics import median
from typing import Any, Literal


@dataclass(frozen=True, slots=True)
class Target:
    """A bound on the ratio of ours to the limit, or on ours where there is no limit."""

    bound: Literal["<=", ">="]
    value: float

    def met_by(self, number: float) -> bool:
        return number <= self.value if self.bound == "<=" else number >= self.value

    def __str__(self) -> str:
        return f"{self.bound} {self.value:g}"


def at_most(value: float) -> Target:
    return Target("<=", value)


def at_least(value: float) -> Target:
    return Target(">=", value)


@dataclass(frozen=True, slots=True)
class Row:
    """One line of the table. `goal` is the number of the goal it belongs to, or `issue`."""

    goal: str
    what: str
    unit: str
    ours: float
    limit: float | None = None
    target: Target | None = None

    @property
    def ratio(self) -> float | None:
        """Ours to the limit; nothing against nothing is 1."""
        if self.limit is None:
            return None
        return self.ours / self.limit if self.limit else (1.0 if not self.ours else float("inf"))

    @property
    def verdict(self) -> Literal["ok", "MISSED", ""]:
        if self.target is None:
            return ""
        judged = self.ours if self.ratio is None else self.ratio
        return "ok" if self.target.met_by(judged) else "MISSED"

    def as_dict(self) -> dict[str, Any]:
        return asdict(self) | {
            "ratio": self.ratio,
            "target": str(self.target) if self.target else None,
            "verdict": self.verdict,
        }

    @classmethod
    def from_dict(cls, said: dict[str, Any]) -> "Row":
        bound, _, value = (said["target"] or "").partition(" ")
        target = Target(bound, float(value)) if value else None  # pyright: ignore[reportArgumentType]
        return cls(said["goal"], said["what"], said["unit"], said["ours"], said["limit"], target)


@dataclass(frozen=True, slots=True)
class Scale:
    """How much of everything: `--quick` for a look, `--full` for the ten million events."""

    level: Literal["quick", "normal", "full"]

    def of(self, quick: int, normal: int, full: int | None = None) -> int:
        if self.level == "quick":
            return quick
        return full if full is not None and self.level == "full" else normal


Benchmark = Callable[[Scale], Sequence[Row]]


def alternating(times: int, count: int = 2) -> Iterator[int]:
    """Which of `count` things to measure next, each `times` times: in turn, and every other time backwards."""
    for repetition in range(times):
        yield from range(count) if repetition % 2 == 0 else reversed(range(count))


def interleaved(times: int, *measures: Callable[[], float]) -> list[float]:
    """The median of each measure, taken in turn."""
    found: list[list[float]] = [[] for _ in measures]
    for which in alternating(times, len(measures)):
        found[which].append(measures[which]())
    return [median(numbers) for numbers in found]


def share(numbers: Sequence[float], part: float) -> float:
    """The number below which this part of them lies: 0.5 is the median, 0.99 the p99."""
    ordered = sorted(numbers)
    return ordered[min(len(ordered) - 1, int(len(ordered) * part))]
