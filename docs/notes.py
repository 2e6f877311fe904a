"""What the reference pages say beside what the code says: their openings, and a line where a field has none."""

TOOLS = """
# The MCP tools

Sixteen tools. Their names do not change. What a host shows its model of them (names, descriptions, input
schemas) is kept small.

**Arguments are closed.** An unknown argument is an error that names the nearest known one. `null` means: left out.

**A session is named** by its full id, by `realm:id`, by the first four or more characters of its id (several
sessions fit: `session_ambiguous` lists them), by `last`, or by `~N` (`~1` is the most recent one, `~2` the one
before). Archived sessions are not counted in `last` and `~N`. `meerkat_delete` takes full ids only.

**A result** is `structuredContent` that fits the tool's `outputSchema`. The text block is the same JSON. Fields
without a value are left out.

**An error** is a tool error: `isError: true` and one text block, `{"error": {"code", "message", "hint", …}}`. See
[the codes](errors.md). A turn that failed is such an error too, and its `error` has `session_id` and `turn_id`, so
that you can go on. Only a malformed request and an unknown tool are JSON-RPC errors.

**A long text** is cut after `max_chars` characters. Then `text_cut` says where to read on: call `meerkat_read` with
that `text_offset`.
"""

EVENTS = """
# Events

A session is its log, and the log is a list of events. Read them with `meerkat_event_stream_open` and
`meerkat_event_stream_read` ([how to](../how-to/follow-events.md)), or as progress notifications with `stream: true`.

There are two tiers. A **recorded** event is on the disk before anybody is told of it. A **delta** is a piece of a
text in the making. It is visible to every process at once, it is not waited for to reach the disk, and it is gone
from the log when the text is complete. So `seq` always grows by one when an event is written, and a hole in what
you read later is where deltas were ([why](../explanation/the-log.md)).

A turn has exactly one end: `turn_completed`, `turn_interrupted`, `turn_limit_reached` or `turn_failed`.
`turn_waiting` is not an end: the same turn goes on with `turn_resumed`. Nor is `turn_suspended`: the process of the
turn had to go, and another one, which `turn_resumed` names, goes on. What its unfinished step said is void then.

`done` is not an event. A stream read sets `done: true` when the last event it returns ended a turn, or left it
waiting for you.

New fields and new types can be added. A reader should pass over what it does not know.

`retrying` makes void what came since the `step_started` before it: the model is asked again, and text, reasoning and
tool calls of that step come anew.

## Why a turn is interrupted

| Reason | |
|---|---|
| `requested` | Somebody asked: `meerkat_interrupt`, or Ctrl-C in `meerkat-mcp run`. |
| `cancelled` | The caller cancelled the call that started the turn. |
| `superseded` | A prompt with `if_busy: "interrupt"` took its place. |
| `owner_lost` | The process that ran it died. |
| `shutdown` | The process that ran it was told to end, and was no server, which would have suspended it. |
| `abandoned` | Its session was archived or copied while it was not over. |

## The envelope

Every event has these fields beside its own.
"""

ERRORS = """
# Errors

An error that you or your model can act on has this form, on every surface:

```json
{"error": {"code": "session_busy", "message": "Session … is running turn ….", "hint": "Wait with …", "retryable": true}}
```

- `code` is one of the list below. It does not change between versions; `message` and `hint` may.
- `hint` says what to do. It is absent when there is nothing to say.
- `retryable: true` means that the same call can succeed later; `retry_after_s` says when to try, where that is known.
- More fields belong to a code: ids, limits, candidates.

Over MCP it is a tool error (`isError: true`, one text block with this JSON, no structured content). On the command
line it goes to stderr, as text or with `--json` as this JSON, and the process ends with the exit code.

A turn that fails after it has begun is recorded as `turn_failed` with this same object.
"""

CONFIG = """
# Config

A realm has one config: a JSON document with a **generation**, a number that grows by one with each change. A key
that is absent has its default. An unknown key is an error that names the nearest known one.

Read and change it with `meerkat_config` or `meerkat-mcp config` ([how to](../how-to/configure.md)). A change holds
for turns that begin after it. A turn that runs keeps what it began with. A machine's own file with the same keys
(`--config`) lies under it ([layers](../how-to/configure.md#on-one-machine)).

The document is at most 262,144 bytes. A key or a password in it is refused: secrets stay in the environment.

`permissions`, `providers`, `self_hosted`, `mcp_servers`, `retention` and a laxer `agent.permission_mode` are a
person's: over MCP a change of them is `permission_denied`, unless the server was started with `--trust-caller`
([why](../how-to/permissions.md)).
"""

CONFIG_SECTIONS: dict[str, str] = {
    "providers": "The vendors. [Use real models](../how-to/real-models.md) says how they are used.",
    "providers.openai": "The same for OpenAI.",
    "providers.gemini": "The same for Gemini, and the version of its API.",
    "self_hosted.NAME": "Servers that speak OpenAI's chat completions: Ollama, vLLM, llama.cpp, OpenRouter and the "
    "like. `NAME` is a name of your choice: letters, digits, `_` and `-`, at most 32. At most 32 servers.",
    "mcp_servers.NAME": "MCP servers whose tools an agent can have: a `command` to start, or a `url` that speaks "
    "streamable HTTP. `NAME` is a name of your choice, as above. `command`, `args`, `env`, `cwd`, `url` and `headers` "
    "may hold `${VARIABLE}`, or `${VARIABLE:-what else}`, from the environment of the process that runs the turn.",
}

CLI = """
# The command line

`meerkat-mcp` is for people and scripts. `rkat-mcp` is `meerkat-mcp serve` with its flags directly, for MCP hosts.

What a command was asked for goes to stdout, everything else to stderr. With `--json` stdout has JSON only.
Exit codes are on [the errors page](errors.md). Beyond those: 0 is success (or a turn that waits), 1 also means
that a turn was interrupted or stopped at a limit, 130 is Ctrl-C, and 141 a closed pipe.

Environment: `MEERKAT_STATE_ROOT` is the folder that realms lie in, `MEERKAT_REALM` the realm that is meant when
no `--realm` is given, and `MEERKAT_CONFIG` this machine's config file where no `--config` is. A flag wins over a
variable. The providers' keys are in `ANTHROPIC_API_KEY`, `OPENAI_API_KEY`, and `GEMINI_API_KEY` or `GOOGLE_API_KEY`.
"""

EVENT_GROUPS: tuple[tuple[str, tuple[str, ...]], ...] = (
    (
        "Sessions",
        (
            "session_created",
            "settings_changed",
            "session_archived",
            "session_restored",
            "session_forked",
        ),
    ),
    (
        "Turns",
        (
            "turn_started",
            "turn_waiting",
            "turn_suspended",
            "turn_resumed",
            "turn_completed",
            "turn_interrupted",
            "turn_limit_reached",
            "turn_failed",
            "interrupt_requested",
            "prompt_queued",
            "prompt_dropped",
        ),
    ),
    (
        "Steps",
        (
            "step_started",
            "text_delta",
            "text_complete",
            "reasoning_delta",
            "reasoning_complete",
            "step_completed",
            "retrying",
            "output_rejected",
            "budget_warning",
        ),
    ),
    ("Tool calls", ("tool_call_requested", "tool_execution_started", "tool_execution_completed")),
    ("Approvals", ("approval_requested", "approval_resolved")),
    ("Tool servers", ("tool_server_failed",)),
    ("Compaction", ("history_compacted", "compaction_failed")),
)

FIELDS: dict[str, str] = {
    # wherever they are
    "session_id": "Which session.",
    "session_ref": "The id with its realm: `realm:id`.",
    "turn_id": "Which turn.",
    "stream_id": "Which stream.",
    "tool_use_id": "Names the call; its result must carry it.",
    "tool_name": "Which tool.",
    "args": "What the model called it with; fits the tool's `input_schema`.",
    "timestamp_ms": "When.",
    "forked_from": "The session it was copied from, and up to where.",
    "settings": "How the session works.",
    "usage": "Tokens and cost.",
    "step": "Counts from 1 within the turn.",
    "duration_ms": "How long it took, in milliseconds.",
    "text": "The text.",
    "provider": "Who answers.",
    "model": "Which model.",
    "stop_reason": "Why the model stopped.",
    "limit": "Which limit.",
    "used": "How much is used.",
    "maximum": "How much is allowed.",
    "reason": "See [the reasons](#why-a-turn-is-interrupted).",
    "prompt": "What was said.",
    "items": "The provider's own output items, verbatim.",
    "is_error": "The tool failed.",
    "content": "What the tool answered.",
    "title": "For people.",
    "labels": "For your own order.",
    "at_seq": "The last event that was copied.",
    "provider_params": "Passed on to the provider.",
    "system_prompt": "Said to the model before everything.",
    "additional_instructions": "Appended to the system prompt.",
    "max_tokens": "Longest reply of one model call.",
    "max_steps": "Most model calls in a turn.",
    "output_schema": "The JSON Schema that answers must fit.",
    "tools": "The caller's tools.",
    "budget": "What the session may use up.",
    "name": "The model calls it by this name.",
    "description": "What it does, for the model.",
    "input_schema": "JSON Schema of its arguments.",
    "realm_id": "Which realm.",
    "instance_id": "Which process.",
    "host": "On which machine.",
    "backend": "The kind of store.",
    "version": "Of this program.",
    "sessions": "Latest activity first.",
    "session": "The session.",
    "messages": "Oldest first.",
    "default_model": "What a session gets that does not choose.",
    "default_provider": "Its provider.",
    "default_reason": "Why it is that one.",
    "providers": "Who can answer here, and how many models each has.",
    "limits": "The realm's limits.",
    "models": "The models.",
    "abilities": "What it can do.",
    "output_tokens_max": "Longest reply.",
    "text_offset": "Where to read on.",
    "total_chars": "How long the whole text is.",
    "role": "Who said it.",
    "input_tokens": "Read.",
    "output_tokens": "Written, reasoning included.",
    "cache_read_tokens": "Read from the provider's cache.",
    "cache_write_tokens": "Written to the provider's cache.",
    "reasoning_tokens": "Of those written: reasoning.",
    "mcp_servers": "By name. Null stands for the realm's server of that name.",
    "permission_mode": "Which tools of MCP servers run by themselves.",
    "pending_approvals": "Somebody has to say yes or no to these.",
    "malformed": "What the model wrote where that was no JSON object.",
    "images": "Pictures.",
    "mime_type": "Its kind.",
    "data": "Its bytes, as base64. Over MCP there is `bytes` in its place, their number.",
    "server": "The name of the tool server.",
    "message": "What is wrong, for people.",
    "error": "What [the errors page](errors.md) shows.",
    "purpose": "`summary`: for a compaction.",
    "kind": "Which kind.",
    # arguments
    "SettingsInput.model": "One of meerkat_models_catalog. Left out: the realm's config decides.",
    "SettingsInput.provider": "Who answers. Left out: whoever has the model.",
    "SettingsInput.system_prompt": "Said to the model before everything.",
    "SettingsInput.labels": "At most 32. For your own order; meerkat_sessions filters by them.",
    "SettingsInput.title": "For people; meerkat_sessions finds it.",
    "ResumeInput.prompt": "What to say next. May come with tool_results; then it follows them.",
    "ResumeInput.if_busy": "When a turn runs: refuse, stop that turn first, or run this prompt after it.",
    "SessionsInput.limit": "How many.",
    "SessionsInput.offset": "How many to pass over; a cursor is better.",
    "SessionsInput.labels": "All of these must match.",
    "SessionsInput.state": "`running` includes a turn that is about to stop.",
    "ReadInput.session_id": "Which session.",
    "ReadInput.max_chars": "Longest text in the result.",
    "HistoryInput.session_id": "Which session.",
    "HistoryInput.limit": "How many messages.",
    "HistoryInput.max_chars": "For all texts of the page together.",
    "InterruptInput.session_id": "Which session.",
    "ArchiveInput.session_id": "Which session.",
    "ForkInput.session_id": "The session to copy.",
    "ForkInput.title": "Left out: the title of the origin.",
    "ForkInput.labels": "Left out: the labels of the origin.",
    "CompactInput.session_id": "Which session.",
    "CompactInput.wait_seconds": "As for meerkat_run.",
    "ConfigInput.action": "`set` replaces the document, `patch` merges into it.",
    "ConfigInput.expected_generation": "The generation you read; a stale one is refused.",
    "CatalogInput.provider": "Only its models.",
    "StreamOpenInput.session_id": "Which session.",
    "StreamReadInput.stream_id": "From meerkat_event_stream_open.",
    "StreamReadInput.timeout_ms": "How long to wait for the first event.",
    "StreamReadInput.max_events": "How many at most; 200,000 bytes of them at most.",
    "StreamCloseInput.stream_id": "From meerkat_event_stream_open.",
    "CallerTool.name": "The model calls it by this name.",
    "CallerTool.description": "What it does and when to use it, for the model.",
    "CallerTool.input_schema": "JSON Schema of its arguments.",
    "BroughtResult.tool_use_id": "Of the pending call.",
    "BroughtResult.content": "What your tool answered.",
    "BroughtResult.is_error": "True: your tool failed; content tells the model how.",
    "Response.tool_use_id": "Of the pending approval.",
    "Response.decision": "Yes or no.",
    "Response.reason": "For the model, with a no.",
    "BudgetInput.max_tokens": "Tokens read and written, cached ones too.",
    "BudgetInput.max_duration_s": "Seconds in which turns work; waiting does not count.",
    "BudgetInput.max_tool_calls": "Tool calls.",
    "BudgetInput.max_cost_usd": "US dollars, where prices are known.",
    "Budget.max_tokens": "Tokens read and written, cached ones too.",
    "Budget.max_duration_s": "Seconds in which turns work; waiting does not count.",
    "Budget.max_tool_calls": "Tool calls.",
    "Budget.max_cost_usd": "US dollars, where prices are known.",
    # results
    "TurnResult.session_id": "Keep it: it works tomorrow, and from any process of the realm.",
    "TurnResult.session_ref": "The id with its realm: `realm:id`.",
    "TurnResult.turn_id": "Absent when no turn was asked for.",
    "TurnResult.status": "`running`, `queued`: not ended. `waiting`: for results or a yes. `limit`: see stop_reason.",
    "TurnResult.stop_reason": "Why it stopped: `end`, `tool_calls`, `refusal`, the limit, why it was interrupted, …",
    "TurnResult.text": "What the model said in its last step.",
    "TurnResult.text_cut": "Present when the text is longer than shown.",
    "TurnResult.structured_output": "The answer as a value that fits output_schema.",
    "TurnResult.pending_tool_calls": "Answer all of them with meerkat_resume.",
    "TurnResult.pending_approvals": "Tools that need a yes: `responses` of meerkat_resume, or "
    "`meerkat-mcp session approve`.",
    "TurnResult.hint": "What a turn that waits waits for, and how to bring it.",
    "TurnResult.steps": "Model calls of this turn.",
    "TurnResult.tool_calls": "Tool calls of this turn that were answered.",
    "TurnResult.usage": "Of this turn.",
    "TurnResult.model": "The model of the last step.",
    "TurnResult.provider": "Its provider.",
    "TurnResult.last_seq": "The last event of the turn: a place to read events after.",
    "TurnResult.warnings": "What went wrong without ending the turn (a tool server is away, a compaction failed), "
    "or was left out.",
    "TurnResult.error": "Why the turn failed.",
    "SessionView.state": "`stopping`: a turn was told to end and has not ended yet. `suspended`: its process had to "
    "go, and a server of the realm takes it up.",
    "SessionView.model": "Absent: the realm's default.",
    "SessionView.messages": "Prompts and replies.",
    "SessionView.usage": "Of all its turns.",
    "SessionView.last_seq": "Its last event.",
    "SessionView.matched": "Where `query` found it; absent where this row shows the words, or the id.",
    "Excerpt.seq": "The event that it is in.",
    "Excerpt.text": "At most 160 characters around the word.",
    "SessionList.next_cursor": "Absent on the last page.",
    "ReadResult.turn": "Absent when the session never had a turn.",
    "ReadResult.queued_turns": "Prompts that run next.",
    "MessageView.cut": "Some text of this message is cut.",
    "HistoryResult.offset": "Place of the first message shown.",
    "HistoryResult.total": "Messages in all.",
    "CompactResult.status": "`preview`: nothing was done.",
    "CompactResult.messages_replaced": "How many messages the summary stands for.",
    "CompactResult.chars_before": "Their size as JSON.",
    "CompactResult.summary": "What the model sees from now on.",
    "DeleteResult.session_ids": "At most 100 of them are listed.",
    "DeleteResult.confirm": "Send this to do it.",
    "ConfigResult.resolved_paths": "Only when the server was started with `--expose-paths`.",
    "Capabilities.providers": "Who can answer, how many models each has, and whether its key is set.",
    "Capabilities.tool_servers": "Those of the config, by name.",
    "Capabilities.permissions": "The default mode, the ceiling, and what the caller may do.",
    "Capabilities.versions": "Of Python, the MCP SDK, pydantic, and of what the backend uses.",
    "Capabilities.default_reason": "Why this model is the default.",
    "Capabilities.running_turns": "In this process.",
    "Capabilities.transport": "What carries this call: http; socket with `--shared`; or on stdio pipes or threads.",
    "Capabilities.warnings": "What the operator should know.",
    "StreamEvents.status": "`timeout`: nothing came in time. `closed`: the session or the stream is gone.",
    "StreamEvents.events": "See [the events](events.md).",
    "StreamEvents.done": "The last of them ended a turn, or left it waiting.",
    "StreamOpened.after_seq": "Where it begins.",
    "StreamClosed.closed": "Whether it was open.",
    "SessionView.turns": "How many.",
    "SessionView.created_ms": "When it was made.",
    "SessionView.updated_ms": "When something happened last.",
    "HistoryResult.has_more": "There are newer messages after this page.",
    "MessageView.text": "What was said.",
    "MessageView.reasoning": "The reasoning that the provider shows.",
    "MessageView.seq": "The event that completed it.",
    "MessageView.tool_calls": "What the model asked for.",
    "MessageView.tool_results": "What the tools answered.",
    "InterruptResult.interrupted": "Whether something ran, waited or was queued.",
    "InterruptResult.ended": "Whether it is over.",
    "ArchiveResult.archived": "Whether it is archived now.",
    "ForkResult.last_seq": "Its last event.",
    "DeleteResult.deleted": "False: this was a preview.",
    "DeleteResult.total": "How many.",
    "ConfigResult.config": "The document, or the session's settings.",
    "ConfigResult.generation": "Send it as expected_generation with a change.",
    "CatalogModel.default": "True for the one that a session gets that does not choose.",
    "CatalogModel.context_tokens": "Its window.",
    "CatalogModel.input_usd": "Of tokens read.",
    "CatalogModel.output_usd": "Of tokens written.",
    "CatalogModel.cache_read_usd": "Of tokens read from the provider's cache.",
    "CatalogModel.cache_write_usd": "Of tokens written to it.",
    "TurnStarted.kind": "`compaction`: the prompt asks for a summary.",
    "TurnStarted.prompt": "What was asked.",
    "TurnResumed.prompt": "What was said along with the results, if anything.",
    "TurnWaiting.pending_tool_calls": "Bring results for all of these.",
    "StepStarted.purpose": "`summary`: for a compaction, not for the answer.",
    "StepCompleted.answered_by": "The model that the provider says answered.",
    "StepCompleted.response_id": "The provider's name for the reply.",
    "StepCompleted.detail": "The provider's own word on a refusal.",
    "StepCompleted.duration_ms": "How long it took, retries and their pauses included.",
    "ApprovalResolved.decision": "Yes or no.",
    "ApprovalResolved.by": "`elicitation`: the person in front of the host. `caller`: the calling model. `operator`: a "
    "person on the command line.",
    "ApprovalResolved.reason": "Told to the model, with a no.",
    "ToolExecutionCompleted.duration_ms": "Absent for a caller's tool.",
    "ToolCall.kind": "Always this.",
    "Retrying.attempt": "The one that comes next, from 2.",
    "Retrying.attempts_max": "How many there are at most (`retry.attempts`).",
    "Retrying.kind": "What went wrong: `rate_limit`, `overloaded`, `server`, `timeout`, `connection`, `truncated`, …",
    "Retrying.message": "The same in words.",
    "Retrying.delay_s": "The pause before it, in seconds.",
    "TurnCompleted.structured_output": "The answer as a value, when there was an output_schema.",
    "TurnLimitReached.limit": "`max_steps`, `max_tokens`, or `budget.…`.",
    "OutputRejected.attempt": "How many answers did not fit so far.",
    "OutputRejected.message": "What the model is told.",
    "BudgetWarning.budget": "Which budget.",
    "BudgetWarning.limit": "Its limit.",
    "HistoryCompacted.summary": "What the model sees instead.",
    "HistoryCompacted.through_seq": "The last event that the summary stands for.",
    "HistoryCompacted.messages_replaced": "How many messages it stands for.",
    "SessionForked.fork_id": "The new session.",
    "SessionForked.at_seq": "The last event that was copied.",
    "PromptQueued.first": "It goes before those that are queued already.",
    "StreamEvents.next_seq": "How far the stream has read: the after_seq of the next read.",
    "StreamEvents.more": "There are more events already: read again at once.",
    "Usage.cost_usd": "Absent when a price is not known.",
    # events
    "Fact.event_id": "A UUIDv7, unique everywhere.",
    "Fact.seq": "The place in the log, from 1.",
    "Fact.session_id": "Whose log it is.",
    "Fact.turn_id": "The turn it belongs to; absent for what belongs to the session.",
    "Fact.timestamp_ms": "When it was written, in milliseconds since the Unix epoch.",
    "SettingsChanged.labels": "All labels from now on.",
    "TurnStarted.owner": "The process that works on the turn.",
    "TurnResumed.owner": "The process that goes on with the turn.",
    "Owner.incarnation": "One life of the process: a restart has another one.",
    "Owner.pid": "For people. Nothing is decided by it.",
}

ADVICE: dict[str, str] = {
    "invalid_request": "Change the call as message and hint say. Repeating it does not help.",
    "not_waiting": "Somebody answered already, or the turn was ended. Look with `meerkat_read`, then send a prompt.",
    "tool_results_mismatch": "`expected` lists the ids of pending tool calls, `expected_approvals` those of pending "
    "approvals. Answer all of a kind in one call, each once. A prompt alone, while a turn waits, has this code too; "
    "`if_busy: queue` and `interrupt` work there as well.",
    "model_unknown": "`meerkat_models_catalog` lists the models. Any other name is taken when you name its provider "
    "too ([how](../how-to/real-models.md#choose-a-model)).",
    "schema_invalid": "Before a turn: mend the schema. After one (`attempts` is there): the model could not meet the "
    "schema; make it simpler, or raise `agent.structured_output_retries`.",
    "session_not_found": "`meerkat_sessions` lists what there is. Another realm has other sessions.",
    "realm_not_found": "`meerkat-mcp realm list` lists the realms of this state root.",
    "stream_not_found": "Open a new stream. `after_seq` brings you back to where you were; nothing is lost.",
    "session_ambiguous": "`candidates` lists the sessions. Use more characters of the id.",
    "session_archived": "Bring it back with `meerkat_archive` and `restore: true`, or fork it.",
    "session_busy": "`turn_id`, `owner` and `since_ms` say what runs where. Wait with `meerkat_read` and "
    "`wait_seconds`, or resume with `if_busy`: `interrupt` or `queue`.",
    "idempotency_conflict": "`session_id` and `turn_id` say what it was used for. Take a new key for a new request.",
    "generation_conflict": "`expected` and `current` are the two generations. Read again, make your change on that.",
    "plan_changed": "`plan_id` is the plan of now, `session_ids` and `total` say what it would delete. Look at it, and "
    "confirm that one.",
    "realm_conflict": "Another name is free; a realm in use is free when its processes have ended; a copy or a "
    "deletion that was cut off is finished by the same command. [Manage realms](../how-to/manage-realms.md).",
    "backend_mismatch": "A realm keeps the backend it was made with. Leave the flag out, or use another realm.",
    "permission_denied": "It is a person's to do, or the operator's to allow: the hint says how. "
    "[Permissions and approvals](../how-to/permissions.md).",
    "limit_exceeded": "`limit` and `maximum` say which limit. Most are keys of [the config](config.md).",
    "budget_exhausted": "Raise the session's budget with `meerkat_resume`, or the realm's, or start a new session. A "
    "session's budget cannot be higher than the realm's.",
    "provider_rejected": "The provider says why in the message; `kind` is `quota`, `context`, `not_found` or "
    "`bad_request`. Change the request, the model or the account.",
    "provider_unauthenticated": "Set the environment variable that the hint names, and restart the server. A key "
    "that is refused has this code too.",
    "provider_unavailable": "It was tried again already, as `retry` of [the config](config.md#retry) says. Prompt "
    "again later; `retry_after_s` says when, where the provider did. What the turn had finished is in the history.",
    "tool_server_unavailable": "`server` says which one; the message has what it said last. Mend its definition "
    "(`mcp_servers`), or leave out `required`: then the turn goes on without its tools.",
    "store_unavailable": "The hint says what to check: disk space, permissions, another program that locks the file.",
    "corrupt": "Stop all processes of the realm and keep a copy of its folder before you do anything else.",
    "internal": "Please report it. The server's log (stderr) has the traceback; the caller never sees it.",
}

FLAGS: dict[str, str] = {
    "model": "the model; see `meerkat_models_catalog`",
    "provider": "who answers",
    "title": "a title for the fork",
    "limit": "how many",
    "offset": "how many to pass over",
    "state": "only in this state",
}
FLAGS |= {
    "reference": "the session; `meerkat-mcp run --help` says how to name it",
    "realm_id": "the realm; left out: the one meant here",
    "system_prompt": "said to the model before everything",
}
