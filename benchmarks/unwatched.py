"""What telemetry costs when nobody has set it up, which is how nearly everybody runs this."""

import time
from collections.abc import Sequence
from statistics import median

from opentelemetry import trace

from benchmarks.results import Row, Scale, at_most
from meerkat_mcp import telemetry
from meerkat_mcp.domain.messages import Usage

USAGE = Usage(input_tokens=1000, output_tokens=200, cache_read_tokens=500, reasoning_tokens=50, cost_usd=0.01)
URL = "https://api.anthropic.com"


def telemetry_off(scale: Scale) -> Sequence[Row]:
    """The CPU of all that a turn says to OpenTelemetry when that is not set up: one step; two steps and a tool call."""
    if type(trace.get_tracer_provider()).__name__ != "ProxyTracerProvider":
        raise RuntimeError("OpenTelemetry is set up here")
    times, repetitions = scale.of(300, 2000), scale.of(3, 9)
    short = median(_turn_us(times, steps=1, tools=0) for _ in range(repetitions))
    long = median(_turn_us(times, steps=2, tools=1) for _ in range(repetitions))
    return [
        Row("adapter", "telemetry off: its CPU in a turn of one step", "us", short, None, at_most(200)),
        Row("adapter", "telemetry off: the same with a tool call and a second step", "us", long),
    ]


def _turn_us(times: int, *, steps: int, tools: int) -> float:
    """What one turn spends on it."""
    before = time.process_time()
    for number in range(times):
        who = {"session_id": "s", "model": "claude-sonnet-5-5", "provider": "anthropic"}
        with telemetry.invoke_agent(turn_id=str(number), kind="prompt", **who):
            for _ in range(steps):
                with telemetry.chat(max_tokens=1000, base_url=URL, **who) as span:
                    span.first_piece(0.5)
                    span.replied("claude-sonnet-5-5", "msg_1", "end", USAGE)
            for _ in range(tools):
                with telemetry.execute_tool(tool_name="noop__noop", tool_use_id="toolu_1", server="noop"):
                    pass
    return (time.process_time() - before) / times * 1e6
