"""What more than one room of tests uses: the event loop, and nothing else."""

import pytest


@pytest.fixture
def anyio_backend() -> str:
    return "asyncio"
