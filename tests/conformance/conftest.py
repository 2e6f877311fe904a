"""The suite, ready to be run against each of the two servers, and against two of one behind a proxy."""

import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path

import pytest
from clients import installing, serving
from conformance import suite

TESTS = Path(__file__).parent.parent
Running = Callable[[str], suite.Run]
"""Runs the scenarios of a revision."""


@pytest.fixture(scope="session")
def run(pytestconfig: pytest.Config) -> Callable[..., suite.Run]:
    node = installing.node()
    return partial(suite.run, node, installing.packages(Path(pytestconfig.cache.mkdir("node_packages"))))


@pytest.fixture
def run_on_fixtures(run: Callable[..., suite.Run], tmp_path: Path) -> Iterator[Running]:
    """Against the fixture server."""
    with fixture_server(tmp_path / "fixtures") as address:
        yield partial(run, f"{address}/mcp", tmp_path)


@pytest.fixture
def run_on_replicas(run: Callable[..., suite.Run], tmp_path: Path) -> Iterator[Running]:
    """Against two fixture servers, each of which gets every second request."""
    shared = tmp_path / "fixtures"
    with (
        fixture_server(shared) as one,
        fixture_server(shared) as other,
        serving.started([sys.executable, "-m", "replicas.proxy", one, other], folder=TESTS) as address,
    ):
        yield partial(run, f"{address}/mcp", tmp_path)


@contextmanager
def fixture_server(shared: Path) -> Iterator[str]:
    shared.mkdir(exist_ok=True)
    with serving.started([sys.executable, "-m", "conformance.fixture_server", str(shared)], folder=TESTS) as address:
        yield address


@pytest.fixture
def run_on_shipped(run: Callable[..., suite.Run], tmp_path: Path) -> Iterator[Running]:
    """Against the server that people start."""
    with serving.shipped(tmp_path / "state") as url:
        yield partial(run, url, tmp_path / "results")
