"""How a server learns where other replicas reach it, and what it says when it does not know."""

import pytest
from replicas.conftest import OpenPair

from meerkat_mcp.cli import grammar
from meerkat_mcp.cli.http import chosen, given
from meerkat_mcp.domain.errors import InvalidRequest

pytestmark = pytest.mark.anyio

SERVE = ("serve", "--http", "--replica-url")
WARNING = "Say --replica-url"


def test_the_address_is_a_flag_and_is_checked_as_it_is_read():
    assert chosen(given(grammar.parsed([*SERVE, "http://10.0.0.7:9111/"]))).replica_url == "http://10.0.0.7:9111"
    with pytest.raises(InvalidRequest, match="is no address of a replica"):
        grammar.parsed([*SERVE, "http://0.0.0.0:9111"])


async def test_servers_on_postgres_that_others_cannot_find_say_so(open_pair: OpenPair):
    async with open_pair("--host", "0.0.0.0", "--insecure") as pair:
        for server in pair.servers:
            await server.until_said(WARNING)


async def test_servers_that_others_find_say_nothing_of_it(open_pair: OpenPair):
    async with open_pair("--host", "0.0.0.0", "--insecure", "--replica-url", "http://127.0.0.1:1") as pair:
        assert WARNING not in "".join(server.said for server in pair.servers)
