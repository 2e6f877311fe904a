from collections.abc import AsyncGenerator
from typing import Any

import anyio
import pytest
from mcp import Client
from mcp.types import Completion, PromptReference, ResourceTemplateReference
from server.surface_server import served
from words import settings

from meerkat_mcp.realms import Realm, choose, open_realm
from meerkat_mcp.server.callers import Caller
from meerkat_mcp.server.resources import EVENTS, SESSION, TRANSCRIPT

pytestmark = pytest.mark.anyio
PATIENCE_S = 20.0
SELF_HOSTED = {
    "rig": {"base_url": "http://127.0.0.1:9/v1", "models": ["qwen-9", "llama-9"]},
    "box": {"base_url": "http://127.0.0.1:9/v1", "models": ["qwen-9"]},
}


class Form:
    """A form that a person fills in, and what is suggested."""

    def __init__(self, client: Client, realm: Realm) -> None:
        self.client, self.realm = client, realm

    async def complete(self, ref: Any, name: str, value: str = "", **context: str) -> Completion:
        with anyio.fail_after(PATIENCE_S):
            given = {"name": name, "value": value}
            return (await self.client.complete(ref, given, context_arguments=context or None)).completion

    async def prompt(self, name: str, argument: str, value: str = "", **context: str) -> list[str]:
        found = await self.complete(PromptReference(name=name), argument, value, **context)
        assert found.total == len(found.values)
        assert found.has_more is False
        return found.values

    async def session(self, value: str = "", template: str = SESSION) -> Completion:
        return await self.complete(ResourceTemplateReference(uri=template), "session_id", value)


@pytest.fixture(params=["modern", "legacy"])
async def form(request: pytest.FixtureRequest, tmp_path) -> AsyncGenerator[Form]:
    async with open_realm(choose("den", state_root=tmp_path)) as realm:
        mode: dict[str, Any] = {"mode": "legacy"} if request.param == "legacy" else {}
        async with Client(served(realm), **mode) as client:
            yield Form(client, realm)


async def made(realm: Realm, *titles: str, by: str | None = None) -> list[str]:
    return [(await realm.sessions.run("", settings(), title=title, by=by)).session_id for title in titles]


async def test_sessions_are_suggested_newest_first_by_id_and_title(form):
    parser, lexer = await made(form.realm, "Parser review", "Lexer")
    for template in (SESSION, TRANSCRIPT, EVENTS):
        assert (await form.session(template=template)).values == ["last", lexer, parser]
    assert (await form.session(parser)).values == [parser]
    assert (await form.session("PARS")).values == [parser]
    assert (await form.session("la")).values == ["last"]
    assert (await form.session("nothing")).values == []
    assert await form.prompt("continue", "session", "lex") == [lexer]
    assert await form.prompt("handoff", "session") == ["last", lexer, parser]


async def test_nothing_is_suggested_where_there_is_no_session(form):
    found = await form.session()
    assert (found.values, found.total, found.has_more) == ([], 0, False)


async def test_an_archived_session_can_still_be_read_and_is_suggested(form):
    (away,) = await made(form.realm, "Away")
    await form.realm.shelf.archive(away)
    assert (await form.session(away[:20])).values == [away]


async def test_a_hundred_at_most_and_it_says_that_there_are_more(form):
    ids = await made(form.realm, *[f"Number {number}" for number in range(101)])
    found = await form.session("number")
    assert found.values == ids[:0:-1]
    assert (found.total, found.has_more) == (None, True)
    await form.realm.shelf.delete(ids[0])
    found = await form.session("number")
    assert (found.values, found.total, found.has_more) == (ids[:0:-1], 100, False)


async def test_models_are_those_of_the_catalogue_and_of_self_hosted_servers(form):
    await form.realm.set_config({"self_hosted": SELF_HOSTED})
    models = await form.prompt("delegate", "model")
    assert {"demo", "rig/qwen-9", "rig/llama-9", "box/qwen-9"} <= set(models)
    assert any(model.startswith("claude-") for model in models)
    assert await form.prompt("delegate", "model", "qwen") == ["rig/qwen-9", "box/qwen-9"]
    assert await form.prompt("delegate", "model", "RIG/") == ["rig/qwen-9", "rig/llama-9"]
    assert await form.prompt("delegate", "model", "de", provider="demo") == ["demo"]
    assert await form.prompt("delegate", "model", provider="box") == ["qwen-9"]
    assert await form.prompt("delegate", "model", provider="nobody") == []
    gemini = await form.prompt("delegate", "model", provider="gemini")
    assert gemini
    assert all(model.startswith("gemini-") for model in gemini)


async def test_every_suggested_model_is_one_that_a_session_can_have(form):
    await form.realm.set_config({"self_hosted": SELF_HOSTED})
    config = await form.realm.sessions.config()
    for model in await form.prompt("delegate", "model"):
        assert form.realm.providers.find(model, None, config)


async def test_a_server_that_does_not_answer_keeps_nobody_waiting(form):
    async def silent(stream: Any) -> None:
        async with stream:
            await anyio.sleep_forever()

    listener = await anyio.create_tcp_listener(local_host="127.0.0.1")
    port = listener.extra(anyio.abc.SocketAttribute.local_port)
    async with listener, anyio.create_task_group() as tasks:
        tasks.start_soon(listener.serve, silent)
        silent_one = {"base_url": f"http://127.0.0.1:{port}/v1"}
        await form.realm.set_config({"self_hosted": {"mute": silent_one, "rig": SELF_HOSTED["rig"]}})
        with anyio.fail_after(5):
            assert await form.prompt("delegate", "model", "rig") == ["rig/qwen-9", "rig/llama-9"]
        tasks.cancel_scope.cancel()


async def test_providers_and_permission_modes_are_those_that_this_realm_has(form):
    assert await form.prompt("delegate", "provider") == ["anthropic", "openai", "gemini", "demo"]
    assert await form.prompt("delegate", "permission_mode") == ["readonly", "ask", "auto"]
    await form.realm.set_config({"self_hosted": SELF_HOSTED, "permissions": {"ceiling": "ask"}})
    assert await form.prompt("delegate", "provider", "r") == ["rig", "anthropic"]
    assert await form.prompt("delegate", "provider", "box") == ["box"]
    assert await form.prompt("delegate", "permission_mode") == ["readonly", "ask"]


@pytest.mark.parametrize(
    ("ref", "name"),
    [
        (PromptReference(name="delegate"), "task"),
        (PromptReference(name="continue"), "model"),
        (PromptReference(name="nothing"), "session"),
        (ResourceTemplateReference(uri=EVENTS), "after_seq"),
        (ResourceTemplateReference(uri="other://{session_id}"), "session_id"),
    ],
)
async def test_nothing_is_suggested_for_free_text_and_for_what_is_not_ours(form, ref, name):
    await made(form.realm, "There is one")
    found = await form.complete(ref, name)
    assert (found.values, found.total, found.has_more) == ([], 0, False)


async def test_a_caller_who_sees_only_their_own_sessions_is_suggested_no_others(tmp_path):
    async with open_realm(choose("den", state_root=tmp_path)) as realm:
        await made(realm, "His", by="bob")
        ada = Caller(principal="ada", own_only=True)
        async with Client(served(realm, caller=ada)) as client:
            assert (await Form(client, realm).session()).values == []
            (hers,) = await made(realm, "Hers", by="ada")
            assert (await Form(client, realm).session()).values == ["last", hers]
            assert (await Form(client, realm).session("h")).values == [hers]
