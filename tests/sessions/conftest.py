"""An open realm on every backend, and few words to work with it."""

from collections.abc import AsyncGenerator, Callable
from contextlib import AbstractAsyncContextManager

import pytest

from meerkat_mcp.realms import Realm, choose, open_realm

OpenRealm = Callable[[], AbstractAsyncContextManager[Realm]]


@pytest.fixture(params=["memory", "sqlite"])
async def realm(request: pytest.FixtureRequest, tmp_path) -> AsyncGenerator[Realm]:
    async with open_realm(choose("den", backend=request.param, state_root=tmp_path)) as opened:
        yield opened


@pytest.fixture
def open_den(tmp_path) -> OpenRealm:
    """Each call opens the same SQLite realm as one more process would."""
    return lambda: open_realm(choose("den", backend="sqlite", state_root=tmp_path))


@pytest.fixture
async def den(tmp_path) -> AsyncGenerator[Realm]:
    """An open realm in memory: for what no backend can make a difference to."""
    async with open_realm(choose("den", backend="memory", state_root=tmp_path)) as opened:
        yield opened
