import json

import anyio
import pytest
from jsonschema import Draft202012Validator
from mcp import MCPError

pytestmark = pytest.mark.anyio

WEATHER = {"name": "weather", "description": "What the weather is.", "input_schema": {"type": "object"}}
CALL = '[[call weather {"city": "Oslo"}]]'
TOOLS = [
    "meerkat_run",
    "meerkat_resume",
    "meerkat_sessions",
    "meerkat_read",
    "meerkat_history",
    "meerkat_interrupt",
    "meerkat_archive",
    "meerkat_fork",
    "meerkat_compact",
    "meerkat_delete",
    "meerkat_event_stream_open",
    "meerkat_event_stream_read",
    "meerkat_event_stream_close",
    "meerkat_config",
    "meerkat_capabilities",
    "meerkat_models_catalog",
]


async def test_the_surface_is_sixteen_tools_a_host_can_afford(host):
    tools = (await host.client.list_tools()).tools
    assert [tool.name for tool in tools] == TOOLS
    shown = [{"name": t.name, "description": t.description, "inputSchema": t.input_schema} for t in tools]
    assert len(json.dumps(shown, separators=(",", ":")).encode()) <= 12_000


async def test_every_tool_says_what_it_is_and_takes_nothing_unknown(host):
    for tool in (await host.client.list_tools()).tools:
        assert tool.description
        assert tool.title
        assert tool.annotations is not None
        assert tool.annotations.read_only_hint is not None
        assert tool.input_schema["additionalProperties"] is False
        Draft202012Validator.check_schema(tool.input_schema)
        Draft202012Validator.check_schema(tool.output_schema)


async def test_what_a_tool_gives_is_what_its_schema_says(host):
    schemas = {tool.name: tool.output_schema for tool in (await host.client.list_tools()).tools}
    run = await host.run("hi")
    sid = run["session_id"]
    waiting = await host.run(CALL, tools=[WEATHER])
    stream = await host.ok("meerkat_event_stream_open", session_id=sid, after_seq=0)
    given = {
        "meerkat_run": waiting,
        "meerkat_resume": await host.ok("meerkat_resume", session_id=sid, prompt="[[say a]]"),
        "meerkat_sessions": await host.ok("meerkat_sessions"),
        "meerkat_read": await host.ok("meerkat_read", session_id=sid),
        "meerkat_history": await host.ok("meerkat_history", session_id=sid),
        "meerkat_interrupt": await host.ok("meerkat_interrupt", session_id=sid),
        "meerkat_archive": await host.ok("meerkat_archive", session_id=sid, restore=True),
        "meerkat_fork": await host.ok("meerkat_fork", session_id=sid),
        "meerkat_compact": await host.ok("meerkat_compact", session_id=sid, dry_run=True),
        "meerkat_delete": await host.ok("meerkat_delete", session_id=sid),
        "meerkat_event_stream_open": stream,
        "meerkat_event_stream_read": await host.ok("meerkat_event_stream_read", stream_id=stream["stream_id"]),
        "meerkat_event_stream_close": await host.ok("meerkat_event_stream_close", stream_id=stream["stream_id"]),
        "meerkat_config": await host.ok("meerkat_config", action="get"),
        "meerkat_capabilities": await host.ok("meerkat_capabilities"),
        "meerkat_models_catalog": await host.ok("meerkat_models_catalog"),
    }
    assert set(given) == set(TOOLS)
    for name, result in given.items():
        Draft202012Validator(schemas[name]).validate(result)
        assert set(result) <= set(schemas[name]["properties"]), name


async def test_a_run_a_resume_that_remembers_and_a_replay(host):
    run = await host.run("My name is Ada.")
    assert run["session_ref"] == f"den:{run['session_id']}"
    again = await host.ok("meerkat_resume", session_id=run["session_id"], prompt="What is my name?")
    assert "Ada" in again["text"]
    stream = await host.ok("meerkat_event_stream_open", session_id=run["session_id"], after_seq=0)
    seqs = []
    while True:
        read = await host.ok("meerkat_event_stream_read", stream_id=stream["stream_id"], max_events=3, timeout_ms=0)
        if read["status"] == "timeout":
            break
        seqs += [event["seq"] for event in read["events"]]
        assert read["done"] == (read["events"][-1]["type"] == "turn_completed")
    assert seqs[-1] == again["last_seq"]
    assert seqs == sorted(set(seqs))


async def test_a_long_turn_returns_running_and_is_read_afterwards(host):
    run = await host.run("[[wait 0.4]][[say done]]", wait_seconds=0.05)
    assert (run["status"], run["text"]) == ("running", "")
    read = await host.ok("meerkat_read", session_id=run["session_id"], wait_seconds=10)
    assert (read["turn"]["status"], read["turn"]["text"]) == ("completed", "done")


async def test_wait_seconds_zero_returns_at_once(host):
    run = await host.run("[[hang]]", wait_seconds=0)
    assert run["status"] == "running"
    assert (await host.ok("meerkat_interrupt", session_id=run["session_id"]))["ended"]


async def test_callback_tools_on_the_first_turn(host):
    waiting = await host.run(CALL + CALL, tools=[WEATHER])
    assert waiting["status"] == "waiting"
    assert waiting["pending_tool_calls"][0] == {
        "tool_use_id": "call_1_1",
        "tool_name": "weather",
        "args": {"city": "Oslo"},
    }
    error = await host.error(
        "meerkat_resume",
        session_id=waiting["session_id"],
        tool_results=[{"tool_use_id": "call_1_1", "content": "rain"}],
    )
    assert (error["code"], error["expected"]) == ("tool_results_mismatch", ["call_1_1", "call_1_2"])
    results = [{"tool_use_id": f"call_1_{n}", "content": "rain"} for n in (2, 1)]
    done = await host.ok("meerkat_resume", session_id=waiting["session_id"], tool_results=results)
    assert (done["status"], done["turn_id"], done["tool_calls"]) == ("completed", waiting["turn_id"], 2)


async def test_structured_output(host):
    schema = {"type": "object", "required": ["n"], "properties": {"n": {"type": "integer", "minimum": 3}}}
    run = await host.run("give", output_schema=schema)
    assert run["structured_output"] == {"n": 3}
    failed = await host.error("meerkat_run", prompt="[[bad_json 9]]", output_schema=schema)
    assert failed["code"] == "schema_invalid"
    assert failed["session_id"]
    assert failed["turn_id"]


async def test_a_failed_turn_is_an_error_with_which_the_caller_can_go_on(host):
    await host.realm.set_config({"retry": {"base_delay_s": 0}})
    failed = await host.error("meerkat_run", prompt="[[fail unavailable]]")
    assert (failed["code"], failed["retryable"]) == ("provider_unavailable", True)
    on = await host.ok("meerkat_resume", session_id=failed["session_id"], prompt="[[say on]]")
    assert on["text"] == "on"


async def test_a_long_text_is_cut_and_can_be_read_on(host):
    run = await host.run("[[chars 1000]]", max_chars=400)
    assert (len(run["text"]), run["text_cut"]) == (400, {"text_offset": 400, "total_chars": 1000})
    text, cut = run["text"], run["text_cut"]
    while cut:
        turn = (
            await host.ok("meerkat_read", session_id=run["session_id"], text_offset=cut["text_offset"], max_chars=400)
        )["turn"]
        text, cut = text + turn["text"], turn.get("text_cut")
    assert len(text) == 1000
    history = await host.ok("meerkat_history", session_id=run["session_id"], max_chars=300)
    assert history["messages"][-1]["cut"]


async def test_a_busy_session_says_so_and_if_busy_decides(host):
    run = await host.run("[[hang]]", wait_seconds=0)
    sid = run["session_id"]
    busy = await host.error("meerkat_resume", session_id=sid, prompt="x")
    assert (busy["code"], busy["turn_id"], busy["retryable"]) == ("session_busy", run["turn_id"], True)
    queued = await host.ok("meerkat_resume", session_id=sid, prompt="[[say q]]", if_busy="queue", wait_seconds=0)
    assert queued["status"] == "queued"
    mine = await host.ok("meerkat_resume", session_id=sid, prompt="[[say mine]]", if_busy="interrupt")
    assert mine["text"] in ("mine",)
    first = await host.ok("meerkat_read", session_id=sid, turn_id=run["turn_id"])
    assert first["turn"]["stop_reason"] == "superseded"


async def test_config_by_generation(host):
    first = await host.ok("meerkat_config", action="get")
    assert (first["config"], first["generation"], first["backend"]) == ({}, 0, "sqlite")
    assert "resolved_paths" not in first
    patched = await host.ok("meerkat_config", action="patch", patch={"agent": {"max_steps": 9}}, expected_generation=0)
    assert (patched["config"], patched["generation"]) == ({"agent": {"max_steps": 9}}, 1)
    stale = await host.error("meerkat_config", action="set", config={}, expected_generation=0)
    assert (stale["code"], stale["expected"], stale["current"]) == ("generation_conflict", 0, 1)
    unknown = await host.error("meerkat_config", action="patch", patch={"agent": {"max_step": 9}})
    assert "did you mean 'max_steps'" in unknown["message"]
    secret = await host.error("meerkat_config", action="patch", patch={"agent": {"provider_params": {"api_key": "x"}}})
    assert "api_key_env" in secret["hint"]
    effective = await host.ok("meerkat_config", action="get", effective=True)
    assert effective["config"]["limits"]["wait_seconds"] == 45
    assert effective["layers"] == {"agent.max_steps": "realm"}
    assert effective["process"] == {"permission_ceiling": "auto", "trust_caller": False, "config_file": False}
    said = {row["used_for"]: row for row in effective["environment"]}
    openai = {"variable": "OPENAI_API_KEY", "used_for": "providers.openai", "is_set": False, "in_force": False}
    assert said["providers.openai"] == openai
    assert {"config file", "realm", "state root"} < set(said)
    reset = await host.ok("meerkat_config", action="set", config={})
    assert (reset["config"], reset["generation"]) == ({}, 2)


async def test_a_sessions_settings_through_config(host):
    sid = (await host.run("hi", system_prompt="one"))["session_id"]
    got = await host.ok("meerkat_config", action="get", session_id=sid)
    assert got["config"]["system_prompt"] == "one"
    changed = await host.ok(
        "meerkat_config", action="patch", session_id=sid, patch={"system_prompt": "two"},
        expected_generation=got["generation"],
    )  # fmt: skip
    assert changed["config"]["system_prompt"] == "two"
    assert (await host.ok("meerkat_resume", session_id=sid, prompt="[[system]]"))["text"] == "two"
    reset = await host.ok("meerkat_resume", session_id=sid, prompt="[[say x]]", reset=["system_prompt"])
    assert reset["status"] == "completed"
    assert "system_prompt" not in (await host.ok("meerkat_config", action="get", session_id=sid))["config"]


async def test_delete_shows_first_and_deletes_what_was_confirmed(host):
    one = (await host.run("one"))["session_id"]
    two = (await host.run("two"))["session_id"]
    preview = await host.ok("meerkat_delete", session_id=one)
    assert (preview["deleted"], preview["confirm"]) == (False, one)
    assert (await host.error("meerkat_delete", session_id=one, confirm=two))["code"] == "invalid_request"
    assert (await host.error("meerkat_delete", session_id="last"))["code"] == "invalid_request"
    assert (await host.ok("meerkat_delete", session_id=one, confirm=one))["deleted"]
    assert (await host.error("meerkat_read", session_id=one))["code"] == "session_not_found"
    await host.ok("meerkat_archive", session_id=two)
    with anyio.fail_after(10):
        while (plan := await host.ok("meerkat_delete", older_than="0s"))["total"] == 0:
            await anyio.lowlevel.checkpoint()
    assert plan["session_ids"] == [two]
    assert plan["plan_id"] == plan["confirm"]
    assert (await host.ok("meerkat_delete", older_than="0s", confirm=plan["plan_id"]))["deleted"]
    assert (await host.error("meerkat_delete"))["code"] == "invalid_request"


async def test_a_plan_deletes_exactly_what_it_showed(host):
    first, second = [(await host.run(name))["session_id"] for name in ("first", "second")]
    await host.ok("meerkat_archive", session_id=first)
    with anyio.fail_after(10):
        while (plan := await host.ok("meerkat_delete", older_than="0s"))["total"] == 0:
            await anyio.lowlevel.checkpoint()
        await host.ok("meerkat_archive", session_id=second)
        while (await host.ok("meerkat_delete", older_than="0s"))["total"] == 1:
            await anyio.lowlevel.checkpoint()
    changed = await host.error("meerkat_delete", older_than="0s", confirm=plan["plan_id"])
    assert (changed["code"], changed["total"], set(changed["session_ids"])) == ("plan_changed", 2, {first, second})
    await host.ok("meerkat_read", session_id=first)
    await host.ok("meerkat_archive", session_id=second, restore=True)
    done = await host.ok("meerkat_delete", older_than="0s", confirm=plan["plan_id"])
    assert (done["deleted"], done["session_ids"], done["total"]) == (True, [first], 1)
    await host.ok("meerkat_read", session_id=second)


async def test_fork_and_compact(host):
    sid = (await host.run("My name is Ada."))["session_id"]
    fork = await host.ok("meerkat_fork", session_id=sid, title="branch")
    assert fork["forked_from"]["session_id"] == sid
    done = await host.ok("meerkat_compact", session_id=fork["session_id"])
    assert (done["status"], done["messages_replaced"]) == ("completed", 2)
    answer = await host.ok("meerkat_resume", session_id=fork["session_id"], prompt="What is my name?")
    assert "Ada" in answer["text"]


async def test_labels_state_and_query_select_sessions(host):
    one = (await host.run("x", labels={"team": "a"}, title="Release notes"))["session_id"]
    two = (await host.run(CALL, labels={"team": "b"}, tools=[WEATHER]))["session_id"]

    async def found(**selection) -> list[str]:
        return [row["session_id"] for row in (await host.ok("meerkat_sessions", **selection))["sessions"]]

    assert await found() == [two, one]
    assert await found(labels={"team": "a"}) == [one]
    assert await found(state="waiting") == [two]
    assert await found(query="release") == [one]
    assert await found(query="%") == []
    await host.ok("meerkat_archive", session_id=one)
    assert await found() == [two]
    assert await found(archived=True) == [one]


async def test_a_query_finds_what_was_said_and_says_where(host):
    titled = (await host.run("[[say Nothing]]", title="Needle and thread"))["session_id"]
    sid = (await host.run("Look at the barn. " * 10))["session_id"]
    await host.ok("meerkat_resume", session_id=sid, prompt="[[say The needle is in the haystack.]]" + " please" * 60)
    by_id = {one["session_id"]: one for one in (await host.ok("meerkat_sessions", query="NEEDLE"))["sessions"]}
    assert set(by_id) == {titled, sid}
    assert "matched" not in by_id[titled]
    matched = by_id[sid]["matched"]
    assert matched["role"] == "user"
    assert "The needle is in the haystack" in matched["text"]
    assert len(matched["text"]) <= 160
    (one,) = (await host.ok("meerkat_sessions", query="hayst in"))["sessions"]
    assert one["matched"]["seq"] == matched["seq"]
    assert "matched" not in (await host.ok("meerkat_read", session_id=sid))["session"]
    assert all("matched" not in one for one in (await host.ok("meerkat_sessions"))["sessions"])


async def test_title_and_labels_change_later_and_the_list_knows_at_once(host):
    sid = (await host.run("one", title="First", labels={"team": "a"}))["session_id"]

    async def changed(**change) -> dict:
        result = await host.ok("meerkat_resume", session_id=sid, **change)
        assert (result["status"], "turn_id" in result) == ("idle", False)
        return (await host.ok("meerkat_sessions", query=sid))["sessions"][0]

    assert (await changed(title="Second"))["title"] == "Second"
    assert (await changed(labels={"team": "b"}))["labels"] == {"team": "b"}
    assert (await host.ok("meerkat_sessions", labels={"team": "a"}))["sessions"] == []
    assert [one["session_id"] for one in (await host.ok("meerkat_sessions", query="second"))["sessions"]] == [sid]
    assert "title" not in await changed(title="")
    assert "labels" not in await changed(labels={})
    await host.ok("meerkat_resume", session_id=sid, prompt="[[hang]]", wait_seconds=0, on_cancel="detach")
    running = await changed(title="At work")
    assert (running["state"], running["title"]) == ("running", "At work")
    await host.ok("meerkat_interrupt", session_id=sid)
    await host.ok("meerkat_resume", session_id=sid, prompt=CALL, tools=[WEATHER])
    waiting = await changed(labels={"k": "v"})
    assert (waiting["state"], waiting["title"], waiting["labels"]) == ("waiting", "At work", {"k": "v"})
    await host.ok("meerkat_archive", session_id=sid)
    error = await host.error("meerkat_resume", session_id=sid, title="Put away")
    assert (error["code"], "restore" in error["hint"]) == ("session_archived", True)


async def test_capabilities_and_catalog_name_the_default_and_why(host):
    capabilities = await host.ok("meerkat_capabilities")
    assert (capabilities["realm_id"], capabilities["default_model"]) == ("den", "demo")
    assert "no key" in capabilities["default_reason"]
    assert {"python", "mcp", "sqlite", "bell"} <= set(capabilities["versions"])
    catalog = await host.ok("meerkat_models_catalog", provider="demo")
    assert [model["model"] for model in catalog["models"] if model.get("default")] == ["demo"]
    assert (await host.error("meerkat_models_catalog", provider="nobody"))["code"] == "invalid_request"


@pytest.mark.parametrize(
    ("tool", "arguments", "said"),
    [
        ("meerkat_run", {"promt": "x"}, "did you mean 'prompt'"),
        ("meerkat_run", {"prompt": 7}, "prompt: Input should be a valid string"),
        ("meerkat_run", {"prompt": "x", "max_steps": 0}, "greater than or equal to 1"),
        ("meerkat_run", {"prompt": "x", "tools": [{"name": "no spaces!"}]}, "tools.0.name"),
        ("meerkat_run", {"prompt": "x", "budget": {"max_token": 3}}, "did you mean 'max_tokens'"),
        ("meerkat_resume", {"prompt": "x"}, "session_id: Field required"),
        ("meerkat_resume", {"session_id": "last", "prompt": "x"}, "no session 'last'"),
        ("meerkat_read", {"session_id": "ab"}, "no session reference"),
        ("meerkat_config", {"action": "patch"}, "takes patch"),
        ("meerkat_config", {"action": "get", "config": {}}, "takes config"),
        ("meerkat_event_stream_open", {"session_id": "last", "types": ["text"]}, "no events of type text"),
        ("meerkat_event_stream_read", {"stream_id": "evt-nope"}, "no open event stream"),
    ],
)
async def test_a_wrong_input_is_told_what_to_mend(host, tool, arguments, said):
    error = await host.error(tool, **arguments)
    assert said in error["message"]


async def test_free_text_that_looks_like_json_stays_text(host):
    for text in ('{"a": 1}', "null", "[1]", '"quoted"', "7"):
        run = await host.run("[[system]]", system_prompt=text)
        assert run["text"] == text


async def test_null_is_the_same_as_left_out(host):
    run = await host.ok("meerkat_run", prompt="[[say x]]", model=None, tools=None, wait_seconds=None)
    assert run["status"] == "completed"


async def test_an_unknown_tool_is_a_protocol_error(host):
    with pytest.raises(MCPError) as refused:
        await host.raw("meerkat_rnu")
    assert refused.value.error.code == -32602


async def test_ids_of_a_failing_call_never_show_what_is_inside(host):
    error = await host.error("meerkat_run", prompt="[[fail crash]]")
    assert error["code"] == "internal"
    assert "demo" not in error["message"]


async def test_a_client_that_asked_for_progress_hears_of_every_event(host):
    heard: list[tuple[float, str | None]] = []

    async def listen(progress: float, total: float | None, message: str | None) -> None:
        heard.append((progress, message))

    with anyio.fail_after(20):
        result = await host.client.call_tool(
            "meerkat_run", {"prompt": "[[say Hello]]", "stream": True}, progress_callback=listen
        )
    seqs = [progress for progress, _ in heard]
    assert seqs == sorted(set(seqs))
    assert seqs[-1] == result.structured_content["last_seq"]
    assert "Hello" in [message for _, message in heard]


async def test_a_client_that_waits_is_told_that_the_turn_lives_though_text_flows(host, monkeypatch):
    monkeypatch.setattr("meerkat_mcp.server.following.BEAT_INTERVAL_S", 0.05)
    heard: list[float] = []

    async def listen(progress: float, total: float | None, message: str | None) -> None:
        heard.append(progress)

    with anyio.fail_after(20):
        await host.client.call_tool(
            "meerkat_run", {"prompt": "[[words 60]]", "provider_params": {"delta_ms": 10}}, progress_callback=listen
        )
    if host.client.protocol_version == "2026-07-28":
        return  # in one process there is no token, so nobody is known to listen
    assert len(heard) > 2
    assert heard == sorted(set(heard))


async def test_the_instructions_are_one_line_since_a_host_may_show_only_the_first(host):
    assert "\n" not in host.client.instructions
    assert host.client.instructions.startswith("Durable agent sessions.")
