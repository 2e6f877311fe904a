"""The Python SDK's client over HTTP, in both protocol eras; over stdio it is in tests/e2e."""

import json
from collections.abc import AsyncGenerator
from typing import Any

import anyio
import pytest
from mcp import Client
from mcp.types import ProgressNotification, TextContent, TextResourceContents

pytestmark = pytest.mark.anyio

PATIENCE_S = 30.0
JsonObject = dict[str, Any]


class Host:
    """A host with the SDK's client; `events` are those that came as progress."""

    def __init__(self, url: str, mode: Any) -> None:
        self.client = Client(url, mode=mode, message_handler=self._hear)
        self.events: list[JsonObject] = []

    async def _hear(self, message: object) -> None:
        if isinstance(message, ProgressNotification) and "meerkat/event" in (message.params.meta or {}):
            self.events.append((message.params.meta or {})["meerkat/event"])

    async def call(self, tool: str, **arguments: Any) -> JsonObject:
        """The structured result, which the client compared with the tool's schema; or the error."""

        async def progressed(*_: object) -> None:
            pass  # asking for progress is what counts

        with anyio.fail_after(PATIENCE_S):
            result = await self.client.call_tool(tool, arguments, progress_callback=progressed)
        text = result.content[0]
        assert isinstance(text, TextContent)
        assert result.is_error or result.structured_content == json.loads(text.text)
        return json.loads(text.text)


@pytest.fixture(params=["2026-07-28", "legacy"])
async def host(request: pytest.FixtureRequest, url: str) -> AsyncGenerator[Host]:
    host = Host(url, request.param)
    async with host.client:
        assert host.client.protocol_version == ("2025-11-25" if request.param == "legacy" else request.param)
        yield host


async def test_a_turn_is_streamed_continued_and_read_again(host: Host):
    done = await host.call("meerkat_run", prompt="[[words 20]] Remember the otter.", provider="demo", stream=True)
    assert done["text"].startswith("word1 word2")
    types = [event["type"] for event in host.events]
    assert (types[0], types[-1]) == ("turn_started", "turn_completed")
    seqs = [event["seq"] for event in host.events]
    assert seqs == sorted(set(seqs))

    session = done["session_id"]
    resumed = await host.call("meerkat_resume", session_id=session, prompt="[[history]]")
    assert "Remember the otter." in resumed["text"]

    opened = await host.call("meerkat_event_stream_open", session_id=session, after_seq=0)
    read, more = [], True
    while more:
        page = await host.call("meerkat_event_stream_read", stream_id=opened["stream_id"], timeout_ms=0, max_events=5)
        read, more = [*read, *page["events"]], page["more"]
    kept = [event for event in host.events if event["type"] != "text_delta"]
    assert [event for event in read if event["type"] != "text_delta"][1 : len(kept) + 1] == kept
    await host.call("meerkat_event_stream_close", stream_id=opened["stream_id"])


async def test_a_turn_that_goes_on_is_interrupted(host: Host):
    running = await host.call("meerkat_run", prompt="[[hang]]", provider="demo", wait_seconds=0)
    assert running["status"] == "running"
    told = await host.call("meerkat_interrupt", session_id=running["session_id"])
    assert told["interrupted"] is True
    read = await host.call("meerkat_read", session_id=running["session_id"])
    assert (read["session"]["state"], read["turn"]["status"]) == ("idle", "interrupted")


async def test_a_mistake_is_an_error_that_names_the_fix(host: Host):
    said = await host.call("meerkat_run", promt="x")
    assert "did you mean 'prompt'" in said["error"]["message"]


async def test_a_session_can_be_mentioned_and_picked_from_a_menu(host: Host):
    done = await host.call("meerkat_run", prompt="[[say hello]]", provider="demo")
    session = done["session_id"]
    with anyio.fail_after(PATIENCE_S):
        listed = await host.client.list_resources()
        read = await host.client.read_resource(f"meerkat://sessions/{session}/transcript")
        prompted = await host.client.get_prompt("continue", {"session": session})
    assert f"meerkat://sessions/{session}/transcript" in [resource.uri for resource in listed.resources]
    assert isinstance(read.contents[0], TextResourceContents)
    assert "hello" in read.contents[0].text
    assert isinstance(prompted.messages[0].content, TextContent)
    assert session in prompted.messages[0].content.text
