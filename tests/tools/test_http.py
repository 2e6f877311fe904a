"""Tool servers behind a URL, in both eras, on a real socket."""

import anyio
import pytest
from tools.processes import names, value

from meerkat_mcp.domain.servers import ToolServer

pytestmark = pytest.mark.anyio

ENVIRONMENT = {"TOKEN": "hush-hush"}
BEARER = {"Authorization": "Bearer ${TOKEN}", "X-Extra": "1"}


def web(origin: str, path: str = "/mcp", **fields) -> ToolServer:
    return ToolServer(url=origin + path, **{"headers": BEARER, "connect_timeout_s": 10} | fields)


@pytest.mark.parametrize("flags", [(), ("legacy",)], ids=["2026", "older"])
async def test_a_server_behind_a_url(running, serve_http, flags: tuple[str, ...]):
    async with serve_http(*flags) as origin, running(ENVIRONMENT) as servers:
        definition = web(origin)
        async with servers.open({"web": definition}) as box:
            assert "web__add" in await names(box), box.problems
            assert (await box.call("web__add", {"a": 1, "b": 2})).content == "3"
            assert ((await box.call("web__era", {})).content == "2026-07-28") == (not flags)
            seen = await value(box, "web__headers")
            assert (seen["authorization"], seen["x-extra"]) == ("Bearer hush-hush", "1")
            assert "characters left out" in (await box.call("web__big", {})).content
            await box.call("web__grow", {})
            while "web__grown" not in await names(box):
                await box.call("web__add", {"a": 1, "b": 2})
            async with anyio.create_task_group() as calls:
                calls.start_soon(box.call, "web__hang", {})
                assert (await box.call("web__await_hanging", {})).content == "hanging"
                calls.cancel_scope.cancel()
            assert (await box.call("web__await_cancelled", {})).content == "cancelled"
            output = await box.call("web__die", {})
            assert output.is_error
            assert "'web' failed" in output.content


async def test_what_keeps_a_server_from_being_reached_is_told_without_secrets(running, serve_http):
    definitions = {
        "closed": web("http://127.0.0.1:9"),
        "other": lambda origin: web(origin, headers={"Authorization": "Bearer ${TOKEN}!"}),
        "away": lambda origin: web(origin, "/elsewhere"),
        "lost": lambda origin: web(origin, "/nowhere"),
        "odd": web("http://", ""),
        "none": web("${URL}", ""),
        "worse": web("http://127.0.0.1:9", headers={"Host": "x"}),
        "split": web("http://127.0.0.1:9", headers={"X-A": "${LINES}"}),
    }
    environment = ENVIRONMENT | {"URL": "ftp://hush-hush", "LINES": "hush-hush\r\nX-B: 1"}
    async with serve_http() as origin, running(environment) as servers:
        there = {name: made if isinstance(made, ToolServer) else made(origin) for name, made in definitions.items()}
        async with servers.open(there) as box:
            assert await box.tools() == ()
            told = box.problems
            assert "cannot be reached" in told["closed"]
            assert told["other"] == "it wants credentials, or other ones (401)"
            assert "localhost:9/mcp not followed" in told["away"]
            assert set(told) == set(definitions)
            assert told["odd"] == told["none"] == "its URL does not begin with http:// or https://"
            assert told["worse"] == "the header 'Host' cannot be set"
            assert told["split"] == "the header 'X-A' is not well-formed"
            assert "hush-hush" not in str(told)


@pytest.mark.parametrize("flags", [(), ("legacy",)], ids=["2026", "older"])
async def test_a_server_that_comes_back_is_found_again(running, serve_http, flags: tuple[str, ...]):
    """The older era has sessions, which a new process does not know: a call that it refuses for that is repeated."""
    async with running(ENVIRONMENT) as servers:
        async with serve_http(*flags) as origin:
            definition = web(origin)
            async with servers.open({"web": definition}) as box:
                assert (await box.call("web__add", {"a": 1, "b": 2})).content == "3"
        async with servers.open({"web": definition}) as box:
            output = await box.call("web__add", {"a": 1, "b": 2})
            assert output.is_error
            assert "cannot be reached" in output.content
            async with serve_http(*flags, port=int(origin.rpartition(":")[2])):
                assert (await box.call("web__add", {"a": 2, "b": 2})).content == "4"
