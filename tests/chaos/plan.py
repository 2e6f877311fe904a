"""What a run of the chaos is to be like."""

from dataclasses import dataclass

from meerkat_mcp.domain.realm import Backend


@dataclass(frozen=True, slots=True)
class Plan:
    """How many of everything, for how long, and which bad luck; `seed` decides the rest, as far as real processes let.

    `rhythm_s` are the shortest and the longest time between two strokes of bad luck.
    """

    backend: Backend
    seed: int = 0
    processes: int = 8
    sessions: int = 100
    seconds: float = 300.0
    callers: int = 16
    followers: int = 24
    kills: bool = True
    ends: bool = True
    stops: bool = True
    long_stops: bool = True
    cuts: bool = True
    restarts: bool = False
    rhythm_s: tuple[float, float] = (1.0, 6.0)
