"""What OpenTelemetry gets to see, by its own SDK: spans, their attributes and family, and no content unasked."""

import json
import subprocess
import sys
import timeit
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import anyio
import pytest
from opentelemetry import trace
from opentelemetry.sdk.metrics import MeterProvider
from opentelemetry.sdk.metrics.export import InMemoryMetricReader
from opentelemetry.sdk.trace import ReadableSpan, TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from opentelemetry.sdk.trace.sampling import ALWAYS_OFF, ParentBased
from opentelemetry.trace import SpanKind, StatusCode
from words import WEATHER, resume, run

from meerkat_mcp import telemetry
from meerkat_mcp.domain.errors import ProviderRejected, ProviderUnavailable, StoreUnavailable
from meerkat_mcp.domain.messages import StopReason, ToolResult, Usage
from meerkat_mcp.realms import choose, open_realm

pytestmark = pytest.mark.anyio

USAGE = Usage(input_tokens=100, output_tokens=20, cache_read_tokens=60, cache_write_tokens=10, reasoning_tokens=5)


@pytest.fixture
def anyio_backend() -> str:
    return "asyncio"


class Seen:
    """What was exported."""

    def __init__(self, **tracing: Any) -> None:
        self._exporter = InMemorySpanExporter()
        self.provider = TracerProvider(shutdown_on_exit=False, **tracing)
        self.provider.add_span_processor(SimpleSpanProcessor(self._exporter))
        self._reader = InMemoryMetricReader()
        self.meters = MeterProvider([self._reader], shutdown_on_exit=False)

    @property
    def spans(self) -> dict[str, ReadableSpan]:
        return {span.name: span for span in self._exporter.get_finished_spans()}

    @property
    def all(self) -> Sequence[ReadableSpan]:
        return self._exporter.get_finished_spans()

    @property
    def span(self) -> ReadableSpan:
        (span,) = self._exporter.get_finished_spans()
        return span

    def measured(self, name: str) -> list[tuple[dict[str, Any], Any]]:
        """The points of a metric: dimensions, and the sum of what was counted or measured."""
        data = self._reader.get_metrics_data()
        metrics = [m for r in data.resource_metrics for s in r.scope_metrics for m in s.metrics] if data else []
        points = [point for metric in metrics if metric.name == name for point in metric.data.data_points]
        return [(dict(point.attributes), getattr(point, "value", getattr(point, "sum", None))) for point in points]


def watched(monkeypatch: pytest.MonkeyPatch, **tracing: Any) -> Seen:
    """OpenTelemetry's global provider can be set once in a process: ours is put into the module instead."""
    seen = Seen(**tracing)
    monkeypatch.setattr(telemetry, "_tracer", seen.provider.get_tracer("meerkat_mcp"))
    monkeypatch.setattr(telemetry, "_instruments", telemetry.Instruments(seen.meters.get_meter("meerkat_mcp")))
    return seen


@pytest.fixture
def seen(monkeypatch: pytest.MonkeyPatch) -> Iterator[Seen]:
    seen = watched(monkeypatch)
    yield seen
    seen.provider.shutdown()
    seen.meters.shutdown()


def turn() -> telemetry.Span:
    return telemetry.invoke_agent(
        session_id="ses_1", turn_id="turn_1", model="gpt-6.1-sol", provider="openai", kind="prompt"
    )


def model_call(provider: str = "openai", model: str = "gpt-6.1-sol", base_url: str = "") -> telemetry.ModelCall:
    return telemetry.chat(session_id="ses_1", provider=provider, model=model, max_tokens=1_000, base_url=base_url)


def tool(server: str = "") -> telemetry.Span:
    return telemetry.execute_tool(tool_name="clock__now", tool_use_id="call_1", server=server)


# ── what each span says ──


def test_a_turn_is_an_internal_span_of_the_agent(seen: Seen):
    with turn():
        pass
    assert seen.span.name == "invoke_agent meerkat"
    assert seen.span.kind is SpanKind.INTERNAL
    assert seen.span.status.status_code is StatusCode.UNSET
    assert seen.span.attributes == {
        "gen_ai.operation.name": "invoke_agent",
        "gen_ai.agent.name": "meerkat",
        "gen_ai.conversation.id": "ses_1",
        "gen_ai.provider.name": "openai",
        "gen_ai.request.model": "gpt-6.1-sol",
        "meerkat.turn.id": "turn_1",
        "meerkat.turn.kind": "prompt",
    }


def test_a_model_call_is_a_client_span_with_what_was_asked_and_what_came(seen: Seen):
    with model_call(base_url="https://api.openai.com/v1") as span:
        span.first_piece(0.25)
        span.replied("gpt-6.1-sol-2026-09-29", "resp_1", "end", USAGE.model_copy(update={"cost_usd": 0.5}))
    assert seen.span.name == "chat gpt-6.1-sol"
    assert seen.span.kind is SpanKind.CLIENT
    assert seen.span.status.status_code is StatusCode.UNSET
    assert seen.span.attributes == {
        "gen_ai.operation.name": "chat",
        "gen_ai.conversation.id": "ses_1",
        "gen_ai.provider.name": "openai",
        "gen_ai.request.model": "gpt-6.1-sol",
        "gen_ai.request.max_tokens": 1_000,
        "gen_ai.request.stream": True,
        "gen_ai.response.model": "gpt-6.1-sol-2026-09-29",
        "gen_ai.response.id": "resp_1",
        "gen_ai.response.finish_reasons": ("stop",),
        "gen_ai.response.time_to_first_chunk": 0.25,
        "gen_ai.usage.input_tokens": 100,
        "gen_ai.usage.output_tokens": 20,
        "gen_ai.usage.cache_read.input_tokens": 60,
        "gen_ai.usage.cache_write.input_tokens": 10,
        "gen_ai.usage.reasoning.output_tokens": 5,
        "meerkat.usage.cost_usd": 0.5,
        "server.address": "api.openai.com",
        "server.port": 443,
    }


def test_a_tool_is_an_internal_span_that_names_the_call(seen: Seen):
    with tool(server="clock"):
        pass
    assert seen.span.name == "execute_tool clock__now"
    assert seen.span.kind is SpanKind.INTERNAL
    assert seen.span.attributes == {
        "gen_ai.operation.name": "execute_tool",
        "gen_ai.tool.name": "clock__now",
        "gen_ai.tool.call.id": "call_1",
        "gen_ai.tool.type": "function",
        "meerkat.tool.server": "clock",
    }


def test_what_is_not_known_is_not_said(seen: Seen):
    with model_call() as span:
        span.replied("", "", "end", Usage(input_tokens=1))
    said = set(seen.span.attributes or {})
    assert not said & {"server.address", "server.port", "gen_ai.response.model", "gen_ai.response.id"}
    assert not {name for name in said if "cache" in name or "reasoning" in name or "cost" in name}
    assert "gen_ai.usage.output_tokens" in said


@pytest.mark.parametrize(
    ("provider", "name"),
    [("anthropic", "anthropic"), ("openai", "openai"), ("gemini", "gcp.gemini"), ("self_hosted", "self_hosted")],
)
def test_providers_have_the_names_of_the_conventions(seen: Seen, provider: str, name: str):
    with model_call(provider):
        pass
    assert (seen.span.attributes or {})["gen_ai.provider.name"] == name


@pytest.mark.parametrize(
    ("base_url", "address", "port"),
    [
        ("http://localhost:11434/v1", "localhost", 11434),
        ("http://ollama/v1", "ollama", 80),
        ("https://[::1]:8443/v1", "::1", 8443),
        ("https://user:secret@example.com", "example.com", 443),
        ("nonsense", None, None),
    ],
)
def test_a_server_is_named_by_address_and_port(seen: Seen, base_url: str, address: str | None, port: int | None):
    with model_call(base_url=base_url):
        pass
    said = seen.span.attributes or {}
    assert (said.get("server.address"), said.get("server.port")) == (address, port)


@pytest.mark.parametrize(
    ("stop_reason", "finish_reason"),
    [
        ("end", "stop"),
        ("tool_calls", "tool_call"),
        ("length", "length"),
        ("context", "length"),
        ("refusal", "content_filter"),
        ("truncated", "error"),
        ("pause", "pause"),
    ],
)
def test_stop_reasons_have_the_names_of_the_conventions(seen: Seen, stop_reason: StopReason, finish_reason: str):
    with model_call() as span:
        span.replied("m", "r", stop_reason, USAGE)
    assert (seen.span.attributes or {})["gen_ai.response.finish_reasons"] == (finish_reason,)


def test_retries_stay_in_the_one_span_and_are_counted(seen: Seen):
    with model_call() as span:
        span.retried(1)
        span.retried(2)
        span.replied("m", "r", "end", USAGE)
    assert (seen.span.attributes or {})["meerkat.retries"] == 2
    assert seen.span.status.status_code is StatusCode.UNSET


# ── how it fails ──


@pytest.mark.parametrize(
    ("error", "error_type"),
    [
        (ProviderUnavailable("openai: sk-secret is busy", kind="rate_limit"), "rate_limit"),
        (ProviderRejected("no"), "provider_rejected"),
        (StoreUnavailable("sk-secret"), "store_unavailable"),
        (ValueError("sk-secret"), "ValueError"),
        (KeyboardInterrupt("sk-secret"), "cancelled"),
    ],
)
def test_an_exception_is_how_it_failed_and_its_text_stays_out(seen: Seen, error: BaseException, error_type: str):
    with pytest.raises(type(error)), tool():
        raise error
    assert seen.span.status.status_code is StatusCode.ERROR
    assert (seen.span.attributes or {})["error.type"] == error_type
    assert seen.span.events == ()
    assert "sk-secret" not in seen.span.to_json()


def test_what_is_said_of_a_failure_stands_before_the_exception(seen: Seen):
    def fail() -> None:
        with turn() as span:
            span.failed("budget_exhausted")
            raise ValueError("late")

    with pytest.raises(ValueError, match="late"):
        fail()
    assert (seen.span.attributes or {})["error.type"] == "budget_exhausted"
    assert seen.span.status.status_code is StatusCode.ERROR


def test_a_reply_that_never_came_ends_by_error(seen: Seen):
    with pytest.raises(ProviderUnavailable), model_call():
        raise ProviderUnavailable("gone", kind="connection")
    assert (seen.span.attributes or {})["gen_ai.response.finish_reasons"] == ("error",)


async def test_a_cancelled_call_is_ended_and_says_so(seen: Seen):
    with anyio.move_on_after(0):
        with model_call():
            await anyio.sleep_forever()
    assert (seen.span.attributes or {})["error.type"] == "cancelled"
    assert not trace.get_current_span().get_span_context().is_valid


# ── whose child it is ──


async def test_spans_nest_over_awaits_and_tasks(seen: Seen):
    async def one_tool() -> None:
        await anyio.lowlevel.checkpoint()
        with tool():
            await anyio.lowlevel.checkpoint()

    with seen.provider.get_tracer("mcp").start_as_current_span("tools/call meerkat_run"), turn():
        with model_call():
            await anyio.lowlevel.checkpoint()
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(one_tool)
    request, agent = seen.spans["tools/call meerkat_run"], seen.spans["invoke_agent meerkat"]
    parents = {name: span.parent and span.parent.span_id for name, span in seen.spans.items()}
    assert request.context
    assert agent.context
    assert parents == {
        "tools/call meerkat_run": None,
        "invoke_agent meerkat": request.context.span_id,
        "chat gpt-6.1-sol": agent.context.span_id,
        "execute_tool clock__now": agent.context.span_id,
    }
    assert len({span.context.trace_id for span in seen.spans.values() if span.context}) == 1


async def test_turns_side_by_side_do_not_mix(seen: Seen):
    async def one_turn(number: int) -> None:
        with turn():
            await anyio.lowlevel.checkpoint()
            with model_call(model=f"model-{number}"):
                await anyio.lowlevel.checkpoint()

    async with anyio.create_task_group() as tasks:
        for number in range(5):
            tasks.start_soon(one_turn, number)
    calls = [span for name, span in seen.spans.items() if name.startswith("chat")]
    assert len({span.parent.span_id for span in calls if span.parent}) == 5


def test_nothing_inside_a_span_that_is_not_sampled_is_recorded(monkeypatch: pytest.MonkeyPatch):
    seen = watched(monkeypatch, sampler=ParentBased(ALWAYS_OFF))
    with turn():
        parent = trace.get_current_span().get_span_context()
        with model_call() as span:
            span.first_piece(0.1)
            span.replied("m", "r", "end", USAGE)
            assert trace.get_current_span().get_span_context().trace_id == parent.trace_id
    assert parent.is_valid
    assert seen.spans == {}
    assert len(seen.measured("gen_ai.client.inference.duration")) == 1, "what is measured is not sampled"


# ── what is measured ──


def test_tokens_are_counted_and_times_measured(seen: Seen):
    for _ in range(2):
        with turn():
            with model_call(base_url="http://localhost:8000") as span:
                span.first_piece(0.25)
                span.replied("gpt-6.1-sol-2026-09-29", "resp_1", "end", USAGE)
            with tool():
                pass
    asked = {
        "gen_ai.operation.name": "chat",
        "gen_ai.provider.name": "openai",
        "gen_ai.request.model": "gpt-6.1-sol",
        "server.address": "localhost",
        "server.port": 8000,
    }
    answered = asked | {"gen_ai.response.model": "gpt-6.1-sol-2026-09-29"}
    counted = answered | {"gen_ai.token.modality": "unknown"}
    usage = "gen_ai.client.inference.usage"
    assert seen.measured(f"{usage}.input_tokens") == [(counted, 200)]
    assert seen.measured(f"{usage}.output_tokens") == [(counted, 40)]
    assert seen.measured(f"{usage}.cache_read.input_tokens") == [(counted, 120)]
    assert seen.measured(f"{usage}.cache_write.input_tokens") == [(counted, 20)]
    assert seen.measured(f"{usage}.reasoning.output_tokens") == [(counted, 10)]
    assert seen.measured("gen_ai.client.inference.time_to_first_chunk") == [(asked, 0.5)]
    ((dimensions, seconds),) = seen.measured("gen_ai.client.inference.duration")
    assert dimensions == answered
    assert 0 < seconds < 5
    ((dimensions, _),) = seen.measured("gen_ai.execute_tool.duration")
    assert set(dimensions) == {"gen_ai.operation.name", "gen_ai.tool.name", "gen_ai.tool.type"}
    ((dimensions, _),) = seen.measured("gen_ai.invoke_agent.duration")
    assert dimensions["gen_ai.agent.name"] == "meerkat"


def test_what_failed_is_measured_as_failed(seen: Seen):
    with pytest.raises(ProviderRejected), model_call():
        raise ProviderRejected("no", kind="context")
    ((dimensions, _),) = seen.measured("gen_ai.client.inference.duration")
    assert dimensions["error.type"] == "context"
    assert seen.measured("gen_ai.client.inference.usage.input_tokens") == []


# ── without OpenTelemetry ──


@pytest.mark.parametrize("span", [turn, model_call, tool])
def test_it_costs_next_to_nothing_when_nobody_looks(span: Any):
    def once() -> None:
        with span() as it:
            if isinstance(it, telemetry.ModelCall):
                it.first_piece(0.1)
                it.replied("m", "r", "end", USAGE)

    assert not trace.get_current_span().is_recording()
    seconds = min(timeit.repeat(once, number=200, repeat=5)) / 200
    assert seconds < 50e-6, "2 to 5 µs where nothing else runs"


def test_a_provider_that_is_set_later_is_used():
    script = """
from meerkat_mcp import telemetry
from opentelemetry import trace
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
def call():
    with telemetry.execute_tool(tool_name="now", tool_use_id="call_1"):
        return trace.get_current_span().is_recording()
assert not call()
exporter = InMemorySpanExporter()
provider = TracerProvider()
provider.add_span_processor(SimpleSpanProcessor(exporter))
trace.set_tracer_provider(provider)
assert call()
(span,) = exporter.get_finished_spans()
assert (span.name, span.instrumentation_scope.name) == ("execute_tool now", "meerkat_mcp")
"""
    done = subprocess.run([sys.executable, "-W", "error", "-c", script], capture_output=True, text=True, timeout=30)
    assert done.returncode == 0, done.stderr


# ── content, when an operator asks for it ──

PROMPT = '[[call weather {"city": "Oslo"}]]'


async def talked(tmp_path: Path) -> None:
    """A session with a call of its caller's tool, and one turn more."""
    async with open_realm(choose("den", backend="memory", state_root=tmp_path)) as realm:
        started, _ = await run(realm, PROMPT, tools=(WEATHER,), system_prompt="Be brief.")
        await resume(realm, started.session_id, tool_results=[ToolResult(tool_use_id="call_1_1", content="rain")])


async def test_nothing_that_was_said_is_in_a_span_unless_it_is_asked_for(seen: Seen, tmp_path: Path):
    await talked(tmp_path)
    told = "".join(str(span.attributes) for span in seen.all)
    assert not [word for word in ("Oslo", "brief", "rain") if word in told]


async def test_an_operator_can_have_it_recorded(seen: Seen, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv(telemetry.CONTENT_VARIABLE, "true")
    monkeypatch.setattr(telemetry, "_records_content", False)
    await talked(tmp_path)
    first, second = (span.attributes for span in seen.all if span.name == "chat demo")
    assert json.loads(first["gen_ai.system_instructions"]) == [{"type": "text", "content": "Be brief."}]
    call = {"type": "tool_call", "id": "call_1_1", "name": "weather", "arguments": {"city": "Oslo"}}
    assert json.loads(first["gen_ai.output.messages"]) == [{"role": "assistant", "parts": [call]}]
    assert json.loads(second["gen_ai.input.messages"]) == [
        {"role": "user", "parts": [{"type": "text", "content": PROMPT}]},
        {"role": "assistant", "parts": [call]},
        {"role": "tool", "parts": [{"type": "tool_call_response", "id": "call_1_1", "response": "rain"}]},
    ]


def test_a_tools_arguments_and_result_are_content_too(seen: Seen, monkeypatch: pytest.MonkeyPatch):
    with tool() as span:
        span.called({"zone": "CET"}, "noon")
    monkeypatch.setattr(telemetry, "_records_content", True)
    with tool() as span:
        span.called({"zone": "CET"}, "noon")
    silent, telling = (span.attributes for span in seen.all)
    assert "gen_ai.tool.call.arguments" not in silent
    assert json.loads(telling["gen_ai.tool.call.arguments"]) == {"zone": "CET"}
    assert telling["gen_ai.tool.call.result"] == "noon"


@pytest.mark.parametrize(("value", "records"), [(None, False), ("false", False), ("true", True), ("SPAN_ONLY", True)])
def test_only_a_clear_wish_records_content(monkeypatch: pytest.MonkeyPatch, value: str | None, records: bool):
    monkeypatch.setattr(telemetry, "_records_content", not records)
    telemetry.record_content(value)
    assert telemetry._records_content is records
