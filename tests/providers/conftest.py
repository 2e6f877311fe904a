"""The model vendors' servers that the tests of this room talk to."""

from collections.abc import Iterator

import pytest
from vendors.server import Server


@pytest.fixture(scope="session")
def vendors() -> Iterator[Server]:
    with Server() as server:
        yield server
