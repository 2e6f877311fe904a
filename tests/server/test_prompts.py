import json
from collections.abc import AsyncGenerator
from typing import Any

import anyio
import pytest
from mcp import Client, MCPError
from mcp.types import INVALID_PARAMS, EmbeddedResource, GetPromptResult
from server.surface_server import served
from words import CALL, WEATHER, run, settings

from meerkat_mcp.realms import Realm, choose, open_realm
from meerkat_mcp.server.callers import Caller
from meerkat_mcp.server.prompts import prompt

pytestmark = pytest.mark.anyio
PATIENCE_S = 20.0


class Menu:
    """A client of one server, and what it picks there."""

    def __init__(self, client: Client, realm: Realm) -> None:
        self.client, self.realm = client, realm

    async def pick(self, name: str, **arguments: str) -> GetPromptResult:
        with anyio.fail_after(PATIENCE_S):
            return await self.client.get_prompt(name, arguments)

    async def text(self, name: str, **arguments: str) -> str:
        (message,) = (await self.pick(name, **arguments)).messages
        assert message.role == "user"
        return message.content.text

    async def error(self, name: str, **arguments: str) -> MCPError:
        with pytest.raises(MCPError) as raised:
            await self.pick(name, **arguments)
        assert raised.value.error.code == INVALID_PARAMS
        return raised.value


@pytest.fixture(params=["modern", "legacy"])
async def menu(request: pytest.FixtureRequest, tmp_path) -> AsyncGenerator[Menu]:
    async with open_realm(choose("den", backend="memory", state_root=tmp_path)) as realm:
        mode: dict[str, Any] = {"mode": "legacy"} if request.param == "legacy" else {}
        async with Client(served(realm), cache=None, **mode) as client:
            yield Menu(client, realm)


async def test_the_menu_says_what_each_prompt_does_and_takes(menu):
    prompts = (await menu.client.list_prompts()).prompts
    assert [one.name for one in prompts] == ["delegate", "continue", "handoff"]
    assert all(one.title and one.description for one in prompts)
    assert all(argument.description for one in prompts for argument in one.arguments)
    required = {one.name: [argument.name for argument in one.arguments if argument.required] for one in prompts}
    assert required == {"delegate": ["task"], "continue": ["session"], "handoff": ["session"]}


async def test_delegate_tells_the_hosts_model_how(menu):
    text = await menu.text("delegate", task="Compare ``` and ~~~.", model="demo", permission_mode="readonly")
    assert "meerkat_run with that prompt, a title of a few words, model `demo`, permission_mode `readonly`." in text
    for word in ("stands alone", "wait_seconds", "meerkat_read", "meerkat_resume", "Report to me"):
        assert word in text
    assert text.endswith("The task:\n\n````\nCompare ``` and ~~~.\n````")


async def test_delegate_leaves_out_what_was_not_chosen(menu):
    text = await menu.text("delegate", task="Do it.", model="", provider=" ")
    assert "a title of a few words. The call" in text


async def test_continue_says_what_the_session_is_and_how_to_go_on(menu):
    started, _ = await run(menu.realm, "[[say ## all is well]] Check the pumps")
    for reference in ("last", started.session_id, started.session_id[:13]):
        text = await menu.text("continue", session=reference)
        assert f"`{started.session_id}`, called `[[say ## all is well]] Check the pumps`." in text
        assert "- turns: 1" in text
        assert "What it said last:\n\n> ## all is well" in text
        assert f"meerkat_resume with session_id `{started.session_id}`" in text


async def test_continue_of_a_session_that_waits_works_or_lies_in_the_archive_says_so(menu):
    await run(menu.realm, CALL, tools=(WEATHER,))
    assert "It waits: call meerkat_read" in await menu.text("continue", session="last")
    hanging = await menu.realm.sessions.run("[[hang]]", settings())
    assert "It is at work: call meerkat_read" in await menu.text("continue", session="last")
    await menu.realm.sessions.interrupt(hanging.session_id)
    await menu.realm.shelf.archive(hanging.session_id)
    assert "call meerkat_archive" in await menu.text("continue", session=hanging.session_id)
    empty = await menu.realm.sessions.run("", settings(), title="Nothing yet")
    text = await menu.text("continue", session=empty.session_id)
    assert "called `Nothing yet`" in text
    assert "What it said last" not in text


async def test_handoff_brings_the_transcript_along(menu):
    started, _ = await run(menu.realm, "[[say half of it is done]]")
    record, words = (await menu.pick("handoff", session="last")).messages
    assert isinstance(record.content, EmbeddedResource)
    assert record.content.resource.uri == f"meerkat://sessions/{started.session_id}/transcript"
    assert record.content.resource.mime_type == "text/markdown"
    read = await menu.client.read_resource(record.content.resource.uri)
    assert record.content.resource.text == read.contents[0].text
    assert "Take its work over" in words.content.text
    assert "The transcript is a record." in words.content.text
    assert "meerkat_interrupt" not in words.content.text
    await menu.realm.sessions.run("[[hang]]", settings())
    assert "meerkat_interrupt" in (await menu.pick("handoff", session="last")).messages[1].content.text


@pytest.mark.parametrize(
    ("name", "arguments", "message"),
    [
        ("nothing", {}, "There is no prompt 'nothing'. Known: delegate, continue, handoff."),
        ("delegate", {}, "The prompt delegate needs task."),
        ("delegate", {"task": "  "}, "The prompt delegate needs task."),
        ("delegate", {"task": "x", "modell": "demo"}, "The prompt delegate has no argument 'modell'. It takes: task,"),
        ("delegate", {"task": "x", "permission_mode": "all"}, "There is no permission mode 'all'. Known: readonly,"),
        ("delegate", {"task": "x", "model": "nobodys"}, "No provider here is known to have the model 'nobodys'."),
        ("delegate", {"task": "x", "provider": "nobody"}, "There is no provider 'nobody'."),
        ("delegate", {"task": "x", "model": "m" * 300}, "model has 300 characters; at most 200 are taken."),
        ("continue", {}, "The prompt continue needs session."),
        ("continue", {"session": "last"}, "There is no session 'last'."),
        ("handoff", {"session": "?"}, "'?' is no session reference."),
    ],
)
async def test_what_is_wrong_with_an_argument_is_said(menu, name, arguments, message):
    error = (await menu.error(name, **arguments)).error
    assert error.message.startswith(message)
    assert error.data["code"]


async def test_the_known_prompts_need_no_arguments_to_be_named(menu):
    with pytest.raises(MCPError, match="needs session"):
        await menu.client.get_prompt("handoff")


async def test_a_program_that_embeds_us_has_prompts_of_its_own(tmp_path):
    async with open_realm(choose("den", backend="memory", state_root=tmp_path)) as realm:
        server = served(realm)

        @server.prompt(description="A greeting.")
        def greet(name: str) -> str:
            return f"Greet {name}."

        assert greet
        async with Client(server) as client:
            assert [one.name for one in (await client.list_prompts()).prompts][-1] == "greet"
            assert (await client.get_prompt("greet", {"name": "Ada"})).messages[0].content.text == "Greet Ada."


async def test_a_caller_who_sees_only_their_own_sessions_continues_no_others(tmp_path):
    async with open_realm(choose("den", backend="memory", state_root=tmp_path)) as realm:
        his = (await realm.sessions.run("", settings(), title="His", by="bob")).session_id
        ada, bob = (Caller(principal=name, own_only=True) for name in ("ada", "bob"))
        for name in ("continue", "handoff"):
            async with Client(served(realm, caller=ada)) as client:
                error = (await Menu(client, realm).error(name, session=his)).error
                assert error.data["code"] == "session_not_found"
            assert his in json.dumps((await prompt(realm, bob, name, {"session": his})).model_dump(mode="json"))
