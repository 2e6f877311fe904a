"""The server of npm that shows everything there is in MCP, used by an agent over stdio and over streamable HTTP."""

import json

import pytest
from real_tools.wires import ANTHROPIC, CHAT, GEMINI, RESPONSES, Wire
from vendors.script import Call

pytestmark = pytest.mark.anyio

PNG = "iVBORw0KGgo"
"""How a PNG begins, in base64."""

LONG = Call("everything__trigger-long-running-operation", {"duration": 600, "steps": 1})


@pytest.mark.parametrize(
    ("wire", "transport", "start"),
    [
        (ANTHROPIC, "everything", "inside"),
        (RESPONSES, "everything_http", "inside"),
        (GEMINI, "everything", "serve"),
        (CHAT, "everything_http", "serve"),
    ],
    ids=["anthropic-stdio", "responses-http", "gemini-stdio", "chat-http"],
    indirect=["start"],
)
async def test_whatever_a_tool_answers_reaches_the_model(configure, start, model, wire: Wire, transport, request):
    await configure({"everything": request.getfixturevalue(transport)})
    model.will(
        [
            Call("everything__echo", {"message": "grüße 🐾"}),
            Call("everything__get-tiny-image"),
            Call("everything__get-resource-links", {"count": 2}),
            Call("everything__get-structured-content", {"location": "Chicago"}),
            Call("everything__get-sum", {"a": "two", "b": 3}),
        ]
    )
    async with start() as host:
        done = await host.run(permission_mode="readonly", **wire.settings)
    assert (done["status"], done["text"], done["tool_calls"]) == ("completed", "done", 5)
    echo, picture, links, weather, wrong = wire.results(model.requests[1].body)
    assert echo.text == "Echo: grüße 🐾"
    assert picture.text.startswith("Here's the image you requested:\nThe image above is the MCP logo.")
    if wire is CHAT:
        assert (picture.images, picture.text.count("image/png")) == ((), 1), "a note in its place"
    else:
        (image,) = picture.images
        assert image.startswith(PNG)
    assert "resource Text Resource 2: demo://resource/dynamic/text/2 (text/plain" in links.text
    assert json.loads(weather.text) == {"temperature": 36, "conditions": "Light rain / drizzle", "humidity": 82}
    assert "expected number" in wrong.text
    assert wrong.is_error or wire in (RESPONSES, CHAT), "they have no word for it"


@pytest.mark.parametrize("wire", [ANTHROPIC, GEMINI, RESPONSES], ids=lambda wire: wire.provider)
async def test_a_picture_stays_in_the_session_for_the_turns_to_come(configure, inside, everything, model, wire: Wire):
    await configure({"everything": everything})
    model.will(Call("everything__get-tiny-image"))
    model.will()
    async with inside() as host:
        first = await host.run(**wire.settings)
        await host.resume(first["session_id"], prompt="and?")
        history = await host.call("meerkat_history", session_id=first["session_id"])
    before, after = (wire.results(seen.body) for seen in model.requests[1:])
    assert after == before
    assert len(after[0].images) == 1
    (result,) = [result for message in history["messages"] for result in message.get("tool_results", ())]
    assert result["images"] == ["image/png"], "the kind, not the bytes"


async def test_interrupting_a_long_call_cancels_it_at_the_server(configure, serve, everything, model, overheard):
    await configure({"everything": overheard.through(everything)})
    model.will(LONG, ends=False)
    model.will(Call("everything__echo", {"message": "still here"}))
    async with serve() as host:
        started = await host.call("meerkat_run", prompt="go", wait_seconds=0, **ANTHROPIC.settings)
        call = await overheard.until("tools/call", name="trigger-long-running-operation")
        said = await host.call("meerkat_interrupt", session_id=started["session_id"])
        assert (said["interrupted"], said["ended"]) == (True, True)
        await overheard.until("notifications/cancelled", requestId=call["id"])
        ended = await host.call("meerkat_read", session_id=started["session_id"])
        assert (ended["turn"]["status"], ended["turn"]["stop_reason"]) == ("interrupted", "requested")
        assert len(model.requests) == 1
        again = await host.resume(started["session_id"], prompt="and now?")
    assert again["status"] == "completed"
    cut_off, echo = ANTHROPIC.results(model.requests[-1].body)[-2:]
    assert echo.text == "Echo: still here"
    assert cut_off.is_error
    assert len(overheard.heard("initialize")) == 1, "the same server went on"


async def test_a_long_call_over_http_can_be_interrupted_too(configure, serve, everything_http, model):
    await configure({"everything": everything_http})
    model.will(LONG, ends=False)
    model.will(Call("everything__echo", {"message": "still here"}))
    async with serve() as host:
        started = await host.call("meerkat_run", prompt="go", wait_seconds=0, **CHAT.settings)
        await host.event(started["session_id"], "tool_execution_started")
        said = await host.call("meerkat_interrupt", session_id=started["session_id"])
        assert (said["interrupted"], said["ended"]) == (True, True)
        again = await host.resume(started["session_id"], prompt="and now?")
    assert again["status"] == "completed"
    assert CHAT.results(model.requests[-1].body)[-1].text == "Echo: still here"
