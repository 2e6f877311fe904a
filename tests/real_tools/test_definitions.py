"""Which tool servers a session has: those of the realm's config, by default or by name, or those that a call brings."""

import json
import sys

import pytest
from real_tools.wires import ANTHROPIC, CHAT
from vendors.script import Call

pytestmark = pytest.mark.anyio

BY_NAME = {"mcp_servers": []}
"""An agent that has no tools unless its session names them."""


async def test_a_session_names_a_server_of_the_config_and_keeps_it(configure, inside, files, everything, model):
    await configure({"files": files, "everything": everything}, agent=BY_NAME)
    model.will()
    model.will()
    model.will()
    async with inside() as host:
        await host.run(**CHAT.settings)
        session = await host.run(mcp_servers={"files": {}}, **CHAT.settings)
        await host.resume(session["session_id"], prompt="again")
    none, named, again = (CHAT.tools(seen.body) for seen in model.requests)
    assert none == []
    assert {name.partition("__")[0] for name in named} == {"files"}
    assert again == named


async def test_a_name_that_the_config_has_not_is_an_error_that_says_which_there_are(configure, inside, files):
    await configure({"files": files}, agent=BY_NAME)
    async with inside() as host:
        refused = await host.run(mcp_servers={"fils": {}}, **CHAT.settings)
    assert refused["error"]["code"] == "invalid_request"
    assert "fils" in refused["error"]["message"]
    assert "files" in json.dumps(refused["error"])


async def test_a_call_may_bring_a_server_only_if_its_caller_is_trusted(configure, inside, serve, files, model, work):
    await configure({})
    brought = {"mcp_servers": {"files": files}, **ANTHROPIC.settings}
    async with inside() as host:
        refused = await host.run(**brought)
        assert refused["error"]["code"] == "permission_denied"
        assert "--trust-caller" in refused["error"]["hint"]
    model.will(Call("files__read_text_file", {"path": str(work / "notes.txt")}))
    async with serve("--trust-caller") as host:
        done = await host.run(**brought)
    assert done["status"] == "completed"
    assert [shown.text for shown in ANTHROPIC.results(model.requests[-1].body)] == ["buy milk"]


async def test_a_definition_refers_to_the_environment_and_no_more_of_it_is_handed_on(
    configure, serve, environment, files, everything, model, work, look
):
    environment |= {"WHERE_TO_WORK": str(work), "THEIR_TOKEN": "hush-hush"}
    command, (script, _) = files["command"], files["args"]
    referring = {"command": command, "args": [script, "${WHERE_TO_WORK}"]}
    given = {"TOKEN": "${THEIR_TOKEN}", "PLAIN": "${NOT_SET:-plain}"}
    await configure({"files": referring, "everything": everything | {"env": given}})
    listed = Call("files__list_directory", {"path": str(work)})
    model.will([listed, Call("everything__get-env")])
    async with serve() as host:
        done = await host.run(**ANTHROPIC.settings)
        settings = await host.call("meerkat_config", action="get", session_id=done["session_id"])
        config = await host.call("meerkat_config", action="get")
    directory, seen = ANTHROPIC.results(model.requests[-1].body)
    assert "notes.txt" in directory.text
    variables = json.loads(seen.text)
    assert (variables["TOKEN"], variables["PLAIN"]) == ("hush-hush", "plain")
    assert not {"ANTHROPIC_API_KEY", "THEIR_TOKEN", "WHERE_TO_WORK"} & variables.keys()
    assert "hush-hush" not in json.dumps([settings, config])
    assert "${THEIR_TOKEN}" in json.dumps(config)


@pytest.mark.parametrize(
    ("definition", "why"),
    [
        ({"command": "no-such-program"}, "there is no 'no-such-program' to start"),
        ({"command": sys.executable, "args": ["-c", "raise SystemExit('no luck')"]}, "no luck"),
        ({"command": sys.executable, "args": ["${NOT_SET}"]}, "The environment variable NOT_SET is not set"),
        ({"url": "http://127.0.0.1:9/mcp"}, "it cannot be reached"),
    ],
    ids=["absent", "dying", "unset", "unreachable"],
)
async def test_a_server_that_cannot_be_had_is_a_warning_or_if_required_an_error(
    configure, inside, everything, model, definition, why
):
    await configure({"everything": everything, "lost": definition}, agent=BY_NAME)
    model.will(Call("everything__echo", {"message": "alone"}))
    async with inside() as host:
        done = await host.run(mcp_servers={"everything": {}, "lost": {}}, **CHAT.settings)
        assert (done["status"], done["text"]) == ("completed", "done")
        (warning,) = done["warnings"]
        assert "lost" in warning
        assert why in warning
        assert CHAT.results(model.requests[-1].body)[0].text == "Echo: alone"

    await configure({"lost": definition | {"required": True}})
    async with inside() as host:
        failed = await host.run(**CHAT.settings)
    assert failed["error"]["code"] == "tool_server_unavailable"
    assert failed["error"]["server"] == "lost"
    assert why in failed["error"]["message"]
    assert failed["error"]["session_id"]
