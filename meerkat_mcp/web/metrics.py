"""What Prometheus may ask: the work of this process, read off the events as they are recorded.

Every name begins with `meerkat_`. Labels hold only what we made ourselves, or a model that has answered: nothing that
a stranger could make many of.
"""

from collections.abc import Callable, Collection

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest
from prometheus_client.process_collector import ProcessCollector

from meerkat_mcp.domain import events as e
from meerkat_mcp.domain.version import VERSION
from meerkat_mcp.realms import Realm
from meerkat_mcp.stores.base import Append
from meerkat_mcp.web.guard import Load

CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8"
STEPS_KEPT_MAX = 10_000

_STORE_S = (0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 1, 5)
_HTTP_S = (0.001, 0.005, 0.01, 0.05, 0.1, 0.5, 1, 5, 15, 60, 300)
_TURN_S = (0.1, 0.5, 1, 5, 15, 60, 300, 1800, 7200)
_ENDS = {
    "turn_completed": "completed",
    "turn_interrupted": "interrupted",
    "turn_limit_reached": "limit",
    "turn_failed": "failed",
}


class Metrics:
    """Counts as a listener of the journal; `render` is what is asked for."""

    def __init__(self, realm: Realm, load: Load) -> None:
        self._registry = CollectorRegistry()
        self._asked: dict[str, tuple[str, str]] = {}
        ProcessCollector(registry=self._registry)
        self._measure_work()
        self._measure_model_calls()
        self._measure_delivery()
        self._gauge("build_info", "The version that runs.", lambda: 1, version=VERSION, backend=realm.manifest.backend)
        self._gauge("turns_running", "Turns that this process works on.", lambda: realm.turns.running)
        self._gauge("followers", "Places in logs that are followed here.", lambda: realm.journal.followers)
        self._gauge("http_in_flight", "HTTP requests that are not over.", lambda: load.requests)

    def render(self) -> bytes:
        """Everything, in Prometheus' text format."""
        return generate_latest(self._registry)

    # ── the journal's listener ──

    def recorded(self, append: Append, seconds: float) -> None:
        """Count what this process recorded."""
        self._append_s.labels("recorded" if append.durable else "deltas").observe(seconds)
        for recorded in append.events:
            self._events.labels(recorded.type).inc()
            if recorded.type in _COUNTED:
                self._count(append, recorded.event)

    def heard(self, session_ids: Collection[str]) -> None:
        """Nothing: who recorded it counts it."""

    def lagged(self, seconds: float) -> None:
        """How late an event of another process was."""
        self._lag_s.observe(seconds)

    # ── the observer of HTTP ──

    def answered(self, method: str, route: str, status: int, seconds: float) -> None:
        """Count a request that is over."""
        self._http.labels(method, route, str(status)).inc()
        self._http_s.labels(route).observe(seconds)

    def _count(self, append: Append, event: e.Event) -> None:
        session = append.session
        match event:
            case e.StepStarted():
                if len(self._asked) >= STEPS_KEPT_MAX:
                    self._asked.pop(next(iter(self._asked)))
                self._asked[session.id] = (event.provider, event.model)
            case e.StepCompleted():
                self._count_step(session.id, event)
            case e.ToolExecutionCompleted():
                self._tool_calls.labels("error" if event.is_error else "ok").inc()
                if event.duration_ms is not None:
                    self._tool_s.observe(event.duration_ms / 1000)
            case e.Retrying():
                self._retries.labels(event.kind).inc()
            case e.TurnCompleted() | e.TurnInterrupted() | e.TurnLimitReached() | e.TurnFailed():
                self._asked.pop(session.id, None)
                self._turns.labels(_ENDS[event.type]).inc()
                if session.turn is not None:
                    self._turn_s.observe(max(0, event.timestamp_ms - session.turn.started_ms) / 1000)
            case _:
                pass

    def _count_step(self, session_id: str, event: e.StepCompleted) -> None:
        asked = self._asked.pop(session_id, ("", ""))
        usage = event.usage
        self._steps.labels(*asked, event.stop_reason).inc()
        self._step_s.labels(asked[0]).observe(event.duration_ms / 1000)
        kinds = {
            "input": usage.input_tokens,
            "output": usage.output_tokens,
            "cache_read": usage.cache_read_tokens,
            "cache_write": usage.cache_write_tokens,
            "reasoning": usage.reasoning_tokens,
        }
        for kind, count in kinds.items():
            if count:
                self._tokens.labels(*asked, kind).inc(count)
        if usage.cost_usd:
            self._cost.labels(*asked).inc(usage.cost_usd)

    # ── what is measured ──

    def _measure_work(self) -> None:
        self._turns = self._counter("turns", "Turns that ended here.", "status")
        self._turn_s = self._histogram("turn_seconds", "From a turn's start to its end.", _TURN_S)
        self._tool_calls = self._counter("tool_calls", "Tool calls that were answered.", "outcome")
        self._tool_s = self._histogram("tool_seconds", "How long tools of ours worked.", _HTTP_S)

    def _measure_model_calls(self) -> None:
        self._steps = self._counter("steps", "Model calls that ended well.", "provider", "model", "stop_reason")
        self._step_s = self._histogram("step_seconds", "How long model calls took.", _TURN_S, "provider")
        self._retries = self._counter("retries", "Model calls that failed and were made again.", "kind")
        self._tokens = self._counter("tokens", "Tokens of model calls that ended well.", "provider", "model", "kind")
        self._cost = self._counter("cost_usd", "What they cost, where the price is known.", "provider", "model")

    def _measure_delivery(self) -> None:
        self._events = self._counter("events_recorded", "Events that this process recorded.", "type")
        self._append_s = self._histogram("store_append_seconds", "How long the store took.", _STORE_S, "tier")
        self._lag_s = self._histogram("event_lag_seconds", "How late events of other processes came.", _STORE_S)
        self._http = self._counter("http_requests", "HTTP requests that are over.", "method", "route", "status")
        self._http_s = self._histogram("http_request_seconds", "How long they took.", _HTTP_S, "route")

    def _counter(self, name: str, about: str, *labels: str) -> Counter:
        return Counter(f"meerkat_{name}", about, labels, registry=self._registry)

    def _histogram(self, name: str, about: str, buckets: tuple[float, ...], *labels: str) -> Histogram:
        return Histogram(f"meerkat_{name}", about, labels, buckets=buckets, registry=self._registry)

    def _gauge(self, name: str, about: str, read: Callable[[], float], **labels: str) -> None:
        gauge = Gauge(f"meerkat_{name}", about, list(labels), registry=self._registry)
        (gauge.labels(**labels) if labels else gauge).set_function(read)


_COUNTED = {
    "step_started",
    "step_completed",
    "tool_execution_completed",
    "retrying",
    *_ENDS,
}
