"""The life of one world, from its seed to its end."""

import random

import anyio
from simulation.callers import Caller
from simulation.virtual import VirtualLoop
from simulation.world import World


class Failed(Exception):
    """A world broke a promise; the message has everything that happened in it."""


def live(seed: int) -> World:
    """Let the world of a seed run its course. Raises Failed."""
    worlds: list[World] = []
    random.seed(seed)  # the pauses between two attempts have jitter

    async def run() -> None:
        worlds.append(World(seed, Caller))
        await worlds[0].run()

    try:
        anyio.run(run, backend_options={"loop_factory": VirtualLoop})
    except BaseException as exc:
        story = "\n".join(worlds[0].story)
        raise Failed(f"seed {seed}: {reason(exc)}\n{story}") from exc
    return worlds[0]


def reason(exc: BaseException) -> str:
    """What is at the bottom of nested groups."""
    while isinstance(exc, BaseExceptionGroup):
        exc = exc.exceptions[0]
    return f"{type(exc).__name__}: {exc}"
