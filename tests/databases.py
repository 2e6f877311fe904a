"""The PostgreSQL server that tests use. In CI there must be one; elsewhere they skip without it, and say why."""

import functools
import os
import socket
import uuid
from urllib.parse import urlsplit

import pytest

VARIABLE = "MEERKAT_TEST_POSTGRES_DSN"
DSN = os.environ.get(VARIABLE, "postgresql://postgres@127.0.0.1:5432/test")


@functools.cache
def reaches_postgres() -> bool:
    """Whether the server answers."""

    address = urlsplit(DSN)
    try:
        socket.create_connection((address.hostname, address.port or 5432), timeout=5).close()
    except OSError:
        return False
    return True


def need_postgres() -> None:
    """Skip the test where there is no server; in CI that is a failure."""
    if not reaches_postgres():
        assert not os.environ.get("CI"), "CI needs PostgreSQL"
        pytest.skip("no PostgreSQL on 127.0.0.1:5432")


def new_realm_id() -> str:
    """The name of a realm that no other test has: they share the database."""
    return f"test-{uuid.uuid4().hex[:16]}"
