import json
from collections.abc import AsyncGenerator
from typing import Any

import anyio
import pytest
from mcp import Client, MCPError
from mcp.types import INVALID_PARAMS
from server.surface_server import served
from words import CALL, WEATHER, ended, run, settings

from meerkat_mcp.domain.messages import ToolResult
from meerkat_mcp.domain.version import VERSION
from meerkat_mcp.realms import Realm, choose, open_realm
from meerkat_mcp.server.callers import Caller
from meerkat_mcp.server.resources import read

pytestmark = pytest.mark.anyio
PATIENCE_S = 20.0


class Reader:
    """A client of one server, and what it reads."""

    def __init__(self, client: Client, realm: Realm) -> None:
        self.client, self.realm = client, realm

    async def text(self, uri: str) -> str:
        with anyio.fail_after(PATIENCE_S):
            (contents,) = (await self.client.read_resource(uri)).contents
        assert contents.uri == uri
        return contents.text

    async def json(self, uri: str) -> dict:
        return json.loads(await self.text(uri))

    async def mentioned(self) -> list[str]:
        """The names of the transcripts that a person can mention."""
        listed = (await self.client.list_resources()).resources
        return [one.name for one in listed if one.uri.startswith("meerkat://sessions/")]

    async def error(self, uri: str) -> dict:
        """The data of a refusal; its message is what a person reads."""
        with pytest.raises(MCPError) as raised:
            await self.text(uri)
        assert raised.value.error.code == INVALID_PARAMS
        assert raised.value.error.message
        assert raised.value.error.data["uri"] == uri
        return raised.value.error.data


@pytest.fixture(params=["modern", "legacy"])
async def reader(request: pytest.FixtureRequest, tmp_path) -> AsyncGenerator[Reader]:
    async with open_realm(choose("den", state_root=tmp_path)) as realm:
        mode: dict[str, Any] = {"mode": "legacy"} if request.param == "legacy" else {}
        async with Client(served(realm), cache=None, **mode) as client:
            yield Reader(client, realm)


@pytest.fixture
async def realm(tmp_path) -> AsyncGenerator[Realm]:
    async with open_realm(choose("den", backend="memory", state_root=tmp_path)) as realm:
        yield realm


async def test_a_host_finds_the_static_resources_and_the_latest_transcripts(reader):
    first, _ = await run(
        reader.realm, "[[say hi]] Compare the two parsers and say which of them is the faster one, please"
    )
    titled = await reader.realm.sessions.run("", settings(), title="Parser review")
    listed = (await reader.client.list_resources()).resources
    assert [one.uri for one in listed[:3]] == ["meerkat://realm", "meerkat://config", "meerkat://sessions"]
    assert [(one.uri, one.name) for one in listed[3:5]] == [
        (f"meerkat://sessions/{titled.session_id}/transcript", "Parser review"),
        (
            f"meerkat://sessions/{first.session_id}/transcript",
            "[[say hi]] Compare the two parsers and say which of them is…",
        ),
    ]
    assert listed[4].description == "Session, idle, 1 turn, default model"
    assert listed[4].mime_type == "text/markdown"
    assert listed[4].annotations.last_modified.endswith("Z")
    assert all(one.title or one.name for one in listed)


async def test_no_more_than_twenty_sessions_are_listed(reader):
    for number in range(22):
        await reader.realm.sessions.run("", settings(), title=f"Number {number}")
    assert await reader.mentioned() == [f"Number {number}" for number in range(21, 1, -1)]


async def test_the_templates_say_what_they_take(reader):
    templates = (await reader.client.list_resource_templates()).resource_templates
    assert [one.uri_template for one in templates] == [
        "meerkat://sessions/{session_id}",
        "meerkat://sessions/{session_id}/transcript",
        "meerkat://sessions/{session_id}/events{?after_seq}",
    ]
    assert all(one.title and one.description and one.mime_type for one in templates)


async def test_the_realm_and_its_config_can_be_read(reader):
    about = await reader.json("meerkat://realm")
    assert (about["realm_id"], about["backend"], about["version"]) == ("den", "sqlite", VERSION)
    assert (await reader.json("meerkat://config")) == {"config": {}, "generation": 0}
    await reader.realm.set_config({"agent": {"model": "demo"}})
    assert (await reader.json("meerkat://config")) == {"config": {"agent": {"model": "demo"}}, "generation": 1}


async def test_a_session_reads_as_the_tool_reads_it(reader):
    started, _ = await run(reader.realm, "[[say hi]]")
    tool = await reader.client.call_tool("meerkat_read", {"session_id": started.session_id})
    for reference in (started.session_id, "last", "~1", started.session_id[:13], f"den:{started.session_id}"):
        assert await reader.json(f"meerkat://sessions/{reference}") == tool.structured_content
    sessions = await reader.json("meerkat://sessions")
    assert sessions["sessions"] == [tool.structured_content["session"]]


async def test_a_transcript_is_markdown(reader):
    await run(reader.realm, "[[say hello there]]")
    text = await reader.text("meerkat://sessions/last/transcript")
    assert "**Agent**\n\n> hello there" in text


async def test_events_are_read_from_a_place_on(reader):
    started, _ = await run(reader.realm, "[[say hi]]")
    uri = f"meerkat://sessions/{started.session_id}/events"
    whole = await reader.json(uri)
    assert (whole["session_id"], whole["more"]) == (started.session_id, False)
    seqs = [event["seq"] for event in whole["events"]]
    assert seqs[0] == 1
    assert whole["next_seq"] == seqs[-1]
    rest = await reader.json(f"{uri}?after_seq={seqs[1]}")
    assert rest["events"] == whole["events"][2:]
    none = await reader.json(f"{uri}?after_seq={seqs[-1]}")
    assert (none["events"], none["next_seq"], none["more"]) == ([], seqs[-1], False)


async def test_events_come_a_hundred_at_a_time(reader):
    started = await reader.realm.sessions.run("", settings())
    for number in range(120):
        await reader.realm.sessions.resume(started.session_id, title=f"Title {number}")
    first = await reader.json("meerkat://sessions/last/events")
    assert (len(first["events"]), first["more"]) == (100, True)
    rest = await reader.json(f"meerkat://sessions/last/events?after_seq={first['next_seq']}")
    assert (len(rest["events"]), rest["more"]) == (21, False)


async def test_events_of_two_hundred_kilobytes_are_cut_and_a_larger_one_comes_whole(reader):
    await reader.realm.patch_config({"limits": {"max_tool_result_chars": 300_000}})
    started, _ = await run(reader.realm, CALL, tools=(WEATHER,))
    result = ToolResult(tool_use_id="call_1_1", content="x" * 250_000)
    await ended(reader.realm, await reader.realm.sessions.resume(started.session_id, tool_results=[result]))
    await ended(reader.realm, await reader.realm.sessions.resume(started.session_id, "[[chars 150000]]"))
    after_seq, sizes, seqs = 0, [], []
    while True:
        page = await reader.json(f"meerkat://sessions/last/events?after_seq={after_seq}")
        sizes.append([len(json.dumps(event)) for event in page["events"]])
        seqs += [event["seq"] for event in page["events"]]
        after_seq = page["next_seq"]
        if not page["more"]:
            break
    assert seqs == sorted(set(seqs))
    assert [len(page) for page in sizes if sum(page) > 210_000] == [1]
    assert len(sizes) > 2


@pytest.mark.parametrize(
    ("uri", "code"),
    [
        ("meerkat://nothing", "invalid_request"),
        ("meerkat://sessions/", "invalid_request"),
        ("meerkat://sessions/last/nothing", "invalid_request"),
        ("meerkat://sessions/last", "session_not_found"),
        ("meerkat://sessions/0199aaaa-0000-7000-8000-000000000000", "session_not_found"),
        ("meerkat://sessions/0199aaaa-0000-7000-8000-000000000000/transcript", "session_not_found"),
        ("meerkat://sessions/abc/events", "invalid_request"),
        ("meerkat://sessions/..%2Fother/events", "invalid_request"),
        ("meerkat://sessions/last/events?after_seq=-1", "invalid_request"),
        ("meerkat://sessions/last/events?after_seq=1e9", "invalid_request"),
        ("meerkat://sessions/other:last", "session_not_found"),
        ("meerkat://sessions/" + "x" * 5000, "invalid_request"),
    ],
)
async def test_what_is_not_there_is_refused_with_a_word_on_why(reader, uri, code):
    assert (await reader.error(uri))["code"] == code


async def test_a_prefix_of_several_sessions_names_them(reader):
    ids = [(await reader.realm.sessions.run("", settings())).session_id for _ in range(2)]
    error = await reader.error(f"meerkat://sessions/{ids[0][:4]}")
    assert error["code"] == "session_ambiguous"
    assert set(error["candidates"]) == set(ids)


async def test_a_place_beyond_the_log_is_a_mistake_and_not_silence(reader):
    await reader.realm.sessions.run("", settings())
    error = await reader.error("meerkat://sessions/last/events?after_seq=99")
    assert (error["code"], error["last_seq"]) == ("invalid_request", 1)


async def test_a_resource_of_another_scheme_is_answered_by_the_sdk(reader):
    with pytest.raises(MCPError, match="Unknown resource") as raised:
        await reader.text("other://thing")
    assert (raised.value.error.code, raised.value.error.data) == (INVALID_PARAMS, {"uri": "other://thing"})


async def test_a_program_that_embeds_us_has_resources_of_its_own(realm):
    server = served(realm)

    @server.resource("house://motto")
    def motto() -> str:
        return "Keep watch."

    assert motto
    async with Client(server) as client:
        assert (await client.list_resources()).resources[-1].uri == "house://motto"
        assert (await client.read_resource("house://motto")).contents[0].text == "Keep watch."
        assert (await client.read_resource("meerkat://realm")).contents


async def test_a_caller_who_sees_only_their_own_sessions_finds_no_others(realm):
    ada = Caller(principal="ada", own_only=True)
    hers = (await realm.sessions.run("", settings(), title="Hers", by="ada")).session_id
    his = (await realm.sessions.run("", settings(), title="His", by="bob")).session_id
    async with Client(served(realm, caller=ada)) as client:
        reader = Reader(client, realm)
        assert await reader.mentioned() == ["Hers"]
        assert [one["session_id"] for one in (await reader.json("meerkat://sessions"))["sessions"]] == [hers]
        assert (await reader.json("meerkat://sessions/last"))["session"]["session_id"] == hers
        for path in ("", "/transcript", "/events"):
            error = await reader.error(f"meerkat://sessions/{his}{path}")
            assert error["code"] == "session_not_found"
    assert (await read(realm, Caller(principal="ada"), f"meerkat://sessions/{his}")).text
