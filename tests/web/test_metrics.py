"""What Prometheus is told: the work that was done, and nothing that a stranger could make much of."""

import pytest
from prometheus_client.parser import text_string_to_metric_families
from words import CALL, WEATHER, run, settings

from meerkat_mcp.realms import Realm, choose, open_realm
from meerkat_mcp.web.guard import Load
from meerkat_mcp.web.metrics import Metrics

pytestmark = pytest.mark.anyio


def read(metrics: Metrics) -> dict[str, float]:
    """Every sample by its name and labels, as a scraper reads them."""
    found: dict[str, float] = {}
    for family in text_string_to_metric_families(metrics.render().decode()):
        for sample in family.samples:
            labels = ",".join(f"{key}={value}" for key, value in sorted(sample.labels.items()))
            found[f"{sample.name}{{{labels}}}" if labels else sample.name] = sample.value
    return found


@pytest.fixture
async def den(tmp_path):
    async with open_realm(choose("den", state_root=tmp_path)) as realm:
        yield realm


def counting(realm: Realm) -> Metrics:
    metrics = Metrics(realm, Load())
    realm.journal.listeners.add(metrics)
    return metrics


async def test_turns_steps_and_tokens_are_counted_as_the_log_says(den):
    metrics = counting(den)
    _, first = await run(den, "[[say one two]]")
    _, waiting = await run(den, CALL, tools=(WEATHER,))
    await run(den, "[[fail rejected]]")
    counted = read(metrics)
    assert counted["meerkat_turns_total{status=completed}"] == 1
    assert counted["meerkat_turns_total{status=failed}"] == 1
    assert counted["meerkat_turn_seconds_count"] == 2
    assert counted["meerkat_steps_total{model=demo,provider=demo,stop_reason=end}"] == 1
    assert counted["meerkat_steps_total{model=demo,provider=demo,stop_reason=tool_calls}"] == 1
    tokens = counted["meerkat_tokens_total{kind=output,model=demo,provider=demo}"]
    assert tokens == first.usage.output_tokens + waiting.usage.output_tokens
    assert counted["meerkat_events_recorded_total{type=turn_started}"] == 3
    assert counted["meerkat_store_append_seconds_count{tier=recorded}"] > 3


async def test_what_goes_on_now_is_measured_when_it_is_asked_for(den):
    metrics = counting(den)
    started = await den.sessions.run("[[hang]]", settings())
    assert read(metrics)["meerkat_turns_running"] == 1
    async with den.journal.follow(started.session_id, after=0):
        assert read(metrics)["meerkat_followers"] >= 1
    await den.sessions.interrupt(started.session_id)
    assert read(metrics)["meerkat_turns_total{status=interrupted}"] == 1


async def test_how_late_events_of_another_process_are_is_measured(den, tmp_path):
    metrics = counting(den)
    started, _ = await run(den, "hi")
    async with (
        open_realm(choose("den", state_root=tmp_path)) as other,
        den.journal.follow(started.session_id, after=(await den.journal.load(started.session_id)).seq) as log,
    ):
        await other.shelf.archive(started.session_id)
        assert [recorded.type for recorded in await log.next()] == ["session_archived"]
    assert read(metrics)["meerkat_event_lag_seconds_count"] == 1


async def test_names_that_callers_make_up_are_in_no_label(den):
    metrics = counting(den)
    await den.sessions.run("", settings(), title="secret-title", labels={"secret": "label"})
    metrics.answered("GET", "none", 404, 0.1)
    text = metrics.render().decode()
    assert "secret" not in text
    assert 'meerkat_http_requests_total{method="GET",route="none",status="404"} 1.0' in text


async def test_the_version_is_said(den):
    assert any(name.startswith("meerkat_build_info{backend=sqlite,version=") for name in read(Metrics(den, Load())))
