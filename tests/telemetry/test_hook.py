"""The Prometheus hook and the record that it counts, without a server."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from prometheus_client import CollectorRegistry
from structlog.testing import capture_logs
from tests import virtual_time
from tests.test_docs import table

from imagegate.config.loader import parse_config
from imagegate.config.model_contracts import contracts_of
from imagegate.contracts.changes import Change
from imagegate.errors import UpstreamRefused, UpstreamUncertain, UpstreamUnreachable
from imagegate.telemetry.hooks import Hooks
from imagegate.telemetry.metric_definitions import METRICS
from imagegate.telemetry.metric_labels import Names
from imagegate.telemetry.progress import Progress, classify, finish, timed_call
from imagegate.telemetry.prometheus import FOLDER_VARIABLE, PrometheusHook
from imagegate.telemetry.record import ExchangeRecord

CONFIG = parse_config("""
[[upstreams]]
name = "openai"
api_key = "sk-test-key"
[[upstreams]]
name = "toapis"
api_key = "sk-test-key"
[routes]
"house" = ["openai/private-model"]
""")
DOCUMENTED = (Path(__file__).parents[2] / "examples" / "prometheus" / "README.md").read_text("utf-8")
words = st.text(max_size=12)
small = st.integers(0, 5)
changes = st.builds(Change, words, st.sampled_from(["dropped", "mapped"]), words, words)
records = st.builds(
    lambda status, **facts: finish(Progress(**facts), status=status, seconds=1.0),
    status=st.sampled_from([200, 400, 401, 404, 499, 500, 502, 503]),
    endpoint=st.sampled_from(["generations", "edits"]),
    model=words,
    upstream=st.sampled_from(["", "openai", "toapis"]),
    upstream_model=words | st.sampled_from(["gpt-image-1", "gemini-3-pro-image-preview", "private-model"]),
    images_asked=small,
    images_made=small,
    images_delivered=small,
    form=st.sampled_from(["url", "b64_json"]),
    size_asked=words,
    sizes_made=st.tuples(st.sampled_from(["1024x1024", "1536x1024"])),
    fit_changes=st.lists(changes, max_size=3).map(tuple),
    usage=st.dictionaries(words, small) | st.just({"input_tokens": 3}),
    error_code=words,
    outcome=st.sampled_from(["", "not_sent", "rejected", "uncertain"]),
)


def values(registry: CollectorRegistry, name: str) -> dict[str, set[str]]:
    """Label -> its values, in all series of a metric."""
    found: dict[str, set[str]] = {}
    for metric in registry.collect():
        for sample in metric.samples:
            if sample.name == name:
                for label, value in sample.labels.items():
                    found.setdefault(label, set()).add(value)
    return found


REGISTRY = CollectorRegistry()
HOOK = PrometheusHook(registry=REGISTRY)
NAMES = Names.of(CONFIG)
KNOWN = {name for contracts in contracts_of(CONFIG).values() for name in contracts} | {"private-model", "other", ""}
HOOK.configured(NAMES)


@given(st.lists(records, min_size=1, max_size=5))
def test_clients_make_no_labels(found: list[ExchangeRecord]) -> None:
    """After any exchanges, labels hold names of the configuration and words of the package, and no others."""
    for record in found:
        HOOK.exchange_ended(record)
    samples = [sample for metric in REGISTRY.collect() for sample in metric.samples]
    for sample in samples:
        assert sample.labels.get("model", "") in KNOWN
        assert NAMES.field(sample.labels.get("field", "other")) == sample.labels.get("field", "other")
        assert sample.labels.get("route", "") == ""
    assert len({sample.labels["asked"] for sample in samples if "asked" in sample.labels}) <= 30


@pytest.fixture
def registry() -> CollectorRegistry:
    return CollectorRegistry()


@pytest.fixture
def hook(registry: CollectorRegistry) -> PrometheusHook:
    return PrometheusHook(registry=registry)


def test_series_that_alerts_look_at_begin_at_nought(hook: PrometheusHook, registry: CollectorRegistry) -> None:
    """An increase from nothing to one would be none to Prometheus, so what alerts look at is there from the start."""
    hook.configured(Names.of(CONFIG))
    for upstream in ("openai", "toapis"):
        assert registry.get_sample_value("imagegate_uncertain_outcomes_total", {"upstream": upstream}) == 0
        labels = {"upstream": upstream, "state": "closed"}
        assert registry.get_sample_value("imagegate_breaker_state", labels) == 1
    assert registry.get_sample_value("imagegate_tasks_total", {"state": "pending"}) == 0
    assert registry.get_sample_value("imagegate_store_failures_total") == 0


def test_breakers_and_tasks(hook: PrometheusHook, registry: CollectorRegistry) -> None:
    """One state of a breaker at a time; tasks by state, their length when they end; unknown states are `other`."""
    hook.breaker_changed("openai", "open")
    hook.breaker_changed("openai", "half_open")
    states = {
        state: registry.get_sample_value("imagegate_breaker_state", {"upstream": "openai", "state": state})
        for state in ("closed", "open", "half_open")
    }
    assert states == {"closed": 0, "open": 0, "half_open": 1}
    for state in ("pending", "failed", "dreaming"):
        hook.task_changed(state, 12.0)
    assert values(registry, "imagegate_tasks_total") == {"state": {"pending", "failed", "other"}}
    assert registry.get_sample_value("imagegate_task_duration_seconds_sum", {"state": "failed"}) == 12


def test_shared_files_are_written_soon(monkeypatch: pytest.MonkeyPatch) -> None:
    """Where other processes read what is counted, it is counted without being asked for; at once without a loop."""
    monkeypatch.setenv(FOLDER_VARIABLE, "/nowhere")
    hook = PrometheusHook(registry=CollectorRegistry(), delay=0.01)
    counted: list[int] = []
    monkeypatch.setattr(hook, "_count_alike", lambda usual, records: counted.append(len(records)))

    async def run() -> None:
        for _ in range(3):
            hook.exchange_started(told())
            hook.exchange_ended(finish(told(), status=200, seconds=1))
        assert counted == []
        await asyncio.sleep(0.05)

    virtual_time.run(run())
    assert counted == [3]
    hook.exchange_ended(finish(told(), status=200, seconds=1))
    assert counted == [3, 1]


def test_no_record_waits_for_another_event_loop(monkeypatch: pytest.MonkeyPatch) -> None:
    """The loop whose record came first may have ended, and with it the timer that would have had both counted."""
    monkeypatch.setenv(FOLDER_VARIABLE, "/nowhere")
    hook = PrometheusHook(registry=CollectorRegistry(), delay=0.01)
    counted: list[int] = []
    monkeypatch.setattr(hook, "_count_alike", lambda usual, records: counted.append(len(records)))

    async def run(seconds: float) -> None:
        hook.exchange_ended(finish(told(), status=200, seconds=1))
        await asyncio.sleep(seconds)

    virtual_time.run(run(0))
    assert counted == []
    virtual_time.run(run(0.1))
    assert counted == [2]


def test_many_records_are_counted_at_a_time(hook: PrometheusHook, registry: CollectorRegistry) -> None:
    """However many exchanges end between two scrapes, all are counted, and few of them wait."""
    for _ in range(1000):
        hook.exchange_started(told())
        hook.exchange_ended(finish(told(upstream="x"), status=200, seconds=1))
        assert len(hook._waiting) < 128
    labels = {"operation": "generations", "route": "", "upstream": "x", "model": "", "outcome": "ok"}
    assert registry.get_sample_value("imagegate_requests_total", labels) == 1000
    assert registry.get_sample_value("imagegate_requests_in_flight", {"operation": "generations"}) == 0


def test_two_gateways_share_a_hook(hook: PrometheusHook, registry: CollectorRegistry) -> None:
    """Names of both are known."""
    other = parse_config('[[upstreams]]\nname = "openai"\napi_key = "sk-test-key"\n[routes]\n"x" = ["openai/theirs"]')
    hook.configured(Names.of(CONFIG))
    hook.configured(Names.of(other))
    for model in ("private-model", "theirs", "nobodys"):
        progress = Progress("generations", upstream="openai", upstream_model=model)
        hook.exchange_ended(finish(progress, status=200, seconds=1))
    assert values(registry, "imagegate_requests_total")["model"] == {"private-model", "theirs", "other"}


def test_twice_in_one_registry(hook: PrometheusHook, registry: CollectorRegistry) -> None:
    """A second hook for the same registry is an error, not a silent half."""
    with pytest.raises(ValueError, match="Duplicated timeseries"):
        PrometheusHook(registry=registry)


def test_without_names(hook: PrometheusHook, registry: CollectorRegistry) -> None:
    """A hook of a layer that stands alone knows the members of the Images API, and no model."""
    changes = (Change("size", "dropped"), Change("mine", "dropped"))
    progress = Progress("generations", upstream="x", upstream_model="y", fit_changes=changes)
    hook.exchange_ended(finish(progress, status=200, seconds=1))
    assert values(registry, "imagegate_changes_total")["field"] == {"size", "other"}
    assert values(registry, "imagegate_requests_total")["model"] == {"other"}


def test_table_of_metrics() -> None:
    """The documented table is the code's: name, kind, labels, meaning."""
    rows = [[cell.replace("`", "") for cell in row] for row in table(DOCUMENTED)]
    expected = [[m.name, m.kind, ", ".join(m.labels) or "–", m.help] for m in METRICS.values()]
    assert rows == expected


def test_metrics_keep_to_the_conventions() -> None:
    """Names say their unit, counters end in _total, and only they do."""
    for metric in METRICS.values():
        assert metric.name.endswith("_total") == (metric.kind == "counter")
        assert metric.name.endswith("_seconds") == (metric.kind == "histogram")
        assert "bytes" not in metric.name or "_bytes_" in metric.name or metric.name.endswith("_bytes")
        assert metric.help.endswith(".")


def told(**facts: Any) -> Progress:
    return Progress("generations", **facts)


@pytest.mark.parametrize(
    ("progress", "status", "expected"),
    [
        (told(), 200, "ok"),
        (told(explained=True), 200, "explained"),
        (told(explained=True, error_code="invalid_value"), 400, "invalid"),
        (told(error_code="invalid_api_key"), 401, "denied"),
        (told(error_code="model_not_found"), 404, "invalid"),
        (told(error_code="overloaded"), 503, "overloaded"),
        (told(error_code="moderation_blocked", outcome="rejected"), 400, "moderated"),
        (told(error_code="rate_limit_exceeded", outcome="rejected"), 429, "rejected"),
        (told(error_code="upstream_unreachable", outcome="not_sent"), 502, "not_sent"),
        (told(error_code="upstream_uncertain", outcome="uncertain"), 502, "uncertain"),
        (told(error_code="storage_full"), 507, "storage_failed"),
        (told(error_code="image_fetch_failed"), 502, "storage_failed"),
        (told(error_code="client_disconnected"), 499, "client_left"),
        (told(error_code="internal_error"), 500, "internal"),
        (told(error_code="upstream_uncertain", outcome="uncertain", streamed=True), 200, "uncertain"),
        (told(error_code="odd"), 200, "internal"),
        (told(), 503, "internal"),
    ],
)
def test_classify(progress: Progress, status: int, expected: str) -> None:
    """Every way to end has one word, a stream that failed after its head among them."""
    assert classify(progress, status) == expected


def test_calls_are_classified_by_their_error() -> None:
    """A POST is what its error says; one that somebody broke off is cancelled."""
    progress = told()

    with timed_call(progress, "a", "b"):
        pass
    for error in (UpstreamUnreachable("x"), UpstreamRefused("x"), UpstreamUncertain("x"), KeyboardInterrupt()):
        with pytest.raises(type(error)), timed_call(progress, "a", "b"):
            raise error
    assert [call.outcome for call in progress.calls] == ["ok", "not_sent", "rejected", "uncertain", "cancelled"]
    assert all(call.seconds >= 0 for call in progress.calls)


class Faulty:
    """A hook that always raises, and quotes what it was told."""

    def exchange_started(self, progress: Progress) -> None:
        raise RuntimeError(progress.model)

    def exchange_ended(self, record: ExchangeRecord) -> None:
        raise RuntimeError(record.model)


def test_a_hook_that_raises_harms_nobody() -> None:
    """The others are told all the same; the log names the hook, and not what it was told."""
    heard: list[str] = []

    class Good:
        def exchange_ended(self, record: ExchangeRecord) -> None:
            heard.append(record.model)

    hooks = Hooks([Faulty(), Good()])
    progress = told(model="secret-model")
    with capture_logs() as lines:
        hooks.exchange_started(progress)
        hooks.exchange_ended(progress, status=200, seconds=1)
        hooks.breaker_changed("x", "open")
        hooks.task_changed("pending", 0)
    assert heard == ["secret-model"]
    assert [line["event"] for line in lines] == ["a hook failed"] * 2
    assert "Faulty.exchange_ended" in lines[1]["hook"]
    assert "secret-model" not in str(lines)


def test_replies_add_up() -> None:
    """The parts of a split request are counted together."""
    progress = told()
    progress.replied(2, {"input_tokens": 3})
    progress.replied(1, {"input_tokens": 4})
    progress.replied(1, "no usage")
    assert (progress.images_made, progress.usage) == (4, {"input_tokens": 7})
