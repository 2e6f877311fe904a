"""Real clients, and the shipped server that they talk to."""

from collections.abc import Iterator
from pathlib import Path

import pytest
from clients import installing, serving


@pytest.fixture(scope="session")
def packages(pytestconfig: pytest.Config) -> Path:
    """The folder with `node_modules`; it outlives the tests, so that the next ones find it."""
    return installing.packages(Path(pytestconfig.cache.mkdir("node_packages")))


@pytest.fixture(scope="session")
def node() -> str:
    return installing.node()


@pytest.fixture(scope="module")
def url(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The shipped server over HTTP, one for the tests of a module."""
    with serving.shipped(tmp_path_factory.mktemp("state")) as address:
        yield address
