"""A thousand small worlds, each of them by its seed, with all the bad luck there is.

A world that broke a promise tells its seed and its whole story. To see one again, put its seed into REPLAYED, or say
`PYTHONPATH=.:tests python -m simulation SEED`; with two numbers that hunts through all seeds between them.
"""

import logging
from collections.abc import Iterator

import pytest
from simulation.life import live

CHUNKS, SEEDS_IN_CHUNK = 20, 50
REPLAYED: tuple[int, ...] = (20512,)
"""Further worlds in which it shows, should one of these go wrong again: a turn that is told to end before it begins."""


@pytest.fixture(autouse=True)
def quiet() -> Iterator[None]:
    """Thousands of lines about a failing store say nothing."""
    logging.disable()
    yield
    logging.disable(logging.NOTSET)


@pytest.mark.parametrize("chunk", range(CHUNKS))
def test_every_world_keeps_its_promises(chunk: int) -> None:
    for seed in range(chunk * SEEDS_IN_CHUNK, (chunk + 1) * SEEDS_IN_CHUNK):
        live(seed)


@pytest.mark.parametrize("seed", REPLAYED)
def test_a_world_that_once_broke_keeps_its_promises(seed: int) -> None:
    live(seed)
