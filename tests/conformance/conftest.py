"""The suite, ready to be run against each of the two servers."""

import sys
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path

import pytest
from clients import installing, serving
from conformance import suite

Running = Callable[[str], suite.Run]
"""Runs the scenarios of a revision."""


@pytest.fixture(scope="session")
def run(pytestconfig: pytest.Config) -> Callable[..., suite.Run]:
    node = installing.node()
    return partial(suite.run, node, installing.packages(Path(pytestconfig.cache.mkdir("node_packages"))))


@pytest.fixture
def run_on_fixtures(run: Callable[..., suite.Run], tmp_path: Path) -> Iterator[Running]:
    """Against the fixture server."""
    tests = Path(__file__).parent.parent
    with serving.started([sys.executable, "-m", "conformance.fixture_server"], folder=tests) as address:
        yield partial(run, f"{address}/mcp", tmp_path)


@pytest.fixture
def run_on_shipped(run: Callable[..., suite.Run], tmp_path: Path) -> Iterator[Running]:
    """Against the server that people start."""
    with serving.shipped(tmp_path / "state") as url:
        yield partial(run, url, tmp_path / "results")
