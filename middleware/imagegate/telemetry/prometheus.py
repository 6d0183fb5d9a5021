"""Exchanges as Prometheus metrics.

``ImageGateway(..., hooks=[PrometheusHook(registry=...)])`` counts into a host's own registry. Labels have no values but
names of the configuration and words of this package, so their number is bounded whatever clients send.
"""

from __future__ import annotations

import os
from collections import defaultdict, deque
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, Final

from prometheus_client import REGISTRY, CollectorRegistry, Counter, Gauge, Histogram
from prometheus_client import Metric as PrometheusMetric
from prometheus_client.registry import Collector

from imagegate import __version__
from imagegate.protocol.trace_context import span_id, trace_id
from imagegate.protocol.usage import tokens_by_kind
from imagegate.stores.health import StoreState
from imagegate.telemetry.batching import Soon, taken
from imagegate.telemetry.hooks import BreakerState
from imagegate.telemetry.metric_definitions import METRICS
from imagegate.telemetry.metric_labels import FIELDS, OTHER, Holders, Names, size_class
from imagegate.telemetry.progress import Progress
from imagegate.telemetry.record import ExchangeRecord

# Pictures take from a tenth of a second (a replay) to minutes (a task).
BUCKETS: Final = (0.1, 0.25, 0.5, 1, 2.5, 5, 10, 15, 20, 30, 45, 60, 90, 120, 180, 300)
TASK_STATES: Final = ("pending", "processing", "completed", "failed")
RECORD_KINDS: Final = ("task", "reply")
_STORE_STATES: Final[tuple[StoreState, ...]] = ("usable", "full", "unavailable")
_BREAKER_STATES: Final[tuple[BreakerState, ...]] = ("closed", "open", "half_open")


_MOST_WAITING: Final = 128
"""Records that wait to be counted."""
_SOON: Final = 0.5
"""Seconds until they are, where several processes count together."""
FOLDER_VARIABLE: Final = "PROMETHEUS_MULTIPROC_DIR"
"""Names the folder of prometheus-client's files where several processes count together."""
_Sums = defaultdict[tuple[str, ...], float]
"""Metric and labels -> by how much it is to be raised."""
_WAITED: Final = 0.001
"""Seconds in a queue; less is the queue's own work."""


class _Family:
    """A metric with its children kept: looking one up by labels costs more than counting."""

    __slots__ = ("_children", "_metric")

    def __init__(self, name: str, registry: CollectorRegistry) -> None:
        of = METRICS[name]
        self._metric: Any
        if of.kind == "histogram":
            self._metric = Histogram(name, of.help, of.labels, buckets=BUCKETS, registry=registry)
        elif of.kind == "gauge":
            # Across processes gauges add up, and those of a process that has ended do not count.
            self._metric = Gauge(name, of.help, of.labels, multiprocess_mode="livesum", registry=registry)
        else:
            self._metric = Counter(name, of.help, of.labels, registry=registry)
        self._children: dict[tuple[str, ...], Any] = {}

    def __call__(self, *labels: str) -> Any:
        child = self._children.get(labels)
        if child is None:
            child = self._children[labels] = self._metric.labels(*labels) if labels else self._metric
        return child


def exemplar_of(traceparent: str) -> dict[str, str] | None:
    """Return the exemplar of a trace; None: there is none, or it is not sampled."""
    if not traceparent or not int(traceparent[53:55], 16) & 1:
        return None
    return {"trace_id": trace_id(traceparent), "span_id": span_id(traceparent)}


class _Usual:
    """What nearly every exchange counts, found by one look-up: the methods of children for one set of labels.

    A child is made when it is first asked for, so that there are no series of what never happened.
    """

    def __init__(self, families: Mapping[str, _Family], labels: tuple[str, ...]) -> None:
        self._families = families
        self.model = labels[3]
        self._labels = dict(zip(_USUAL_LABELS, labels, strict=True))

    def __getattr__(self, name: str) -> Any:
        metric, method = _USUAL[name]
        labels = (self._labels[label] for label in METRICS[metric].labels)
        counting = getattr(self._families[metric](*labels), method)
        setattr(self, name, counting)
        return counting


_AMOUNTS: Final = ("bytes_in", "bytes_out", "asked", "made", "delivered", "changed")
_USUAL_LABELS: Final[tuple[str, ...]] = ("operation", "route", "upstream", "model", "outcome", "form")
_USUAL: Final[Mapping[str, tuple[str, str]]] = {
    "count": ("imagegate_requests_total", "inc"),
    "ended": ("imagegate_requests_in_flight", "dec"),
    "duration": ("imagegate_request_duration_seconds", "observe"),
    "first_byte": ("imagegate_first_byte_duration_seconds", "observe"),
    "bytes_in": ("imagegate_request_bytes_total", "inc"),
    "bytes_out": ("imagegate_response_bytes_total", "inc"),
    "changed": ("imagegate_changed_requests_total", "inc"),
    "asked": ("imagegate_images_asked_total", "inc"),
    "made": ("imagegate_images_made_total", "inc"),
    "delivered": ("imagegate_images_delivered_total", "inc"),
    "store": ("imagegate_store_duration_seconds", "observe"),
}


class _CountFirst(Collector):
    """Collect nothing itself; registered first, so that it is called before the other metrics are collected."""

    def __init__(self, hook: PrometheusHook) -> None:
        self._hook = hook

    def collect(self) -> Iterable[PrometheusMetric]:
        self._hook.count()
        return ()

    def describe(self) -> Iterable[PrometheusMetric]:
        return ()


class PrometheusHook:
    """Counts exchanges.

    Args:
        registry: that the host exposes; default: the process's own.
        delay: seconds until a record is counted at the latest, where several processes count together.

    Raises:
        ValueError: the registry has these metrics already; several gateways of a process share one hook.
    """

    def __init__(self, *, registry: CollectorRegistry = REGISTRY, delay: float = _SOON) -> None:
        self._is_shared = FOLDER_VARIABLE in os.environ
        """Whether others read the files in which we count, who cannot ask us to count first."""
        self._soon = Soon(delay)
        self._begun: deque[str] = deque()
        self._waiting: deque[ExchangeRecord] = deque()
        registry.register(_CountFirst(self))
        families = {name: _Family(name, registry) for name in METRICS}
        self._names: tuple[Names, ...] = ()
        self._families = families
        self._usual: dict[tuple[str, ...], _Usual] = {}
        self._memory = families["imagegate_memory_held_bytes"]()
        self._held: list[Callable[[], int]] = []
        self._in_flight = families["imagegate_requests_in_flight"]
        self._call_duration = families["imagegate_upstream_duration_seconds"]
        self._breaker = families["imagegate_breaker_state"]
        self._store = families["imagegate_store_state"]
        self._tasks = families["imagegate_tasks_total"]
        self._holders = Holders()
        families["imagegate_build_info"](__version__).set(1)

    def configured(self, names: Names) -> None:
        """Take the names that labels may have, and make the series that alerts look at, so that they start at 0."""
        self._names = (*self._names, names)
        for upstream in names.upstreams:
            self.breaker_changed(upstream, "closed")
            self._child("uncertain_outcomes_total", upstream)
            self._child("surplus_replies_total", upstream)
            self._child("stale_connections_total", upstream)
        self.store_changed("usable")
        for state in TASK_STATES:
            self._tasks(state)
        for kind in RECORD_KINDS:
            self._child("unreadable_records_total", kind)

    def limit_near(self, account: str, limit: str) -> None:
        self._count_limit("limits_near_total", account, limit)

    def limit_reached(self, account: str, limit: str) -> None:
        self._count_limit("limits_reached_total", account, limit)

    def _count_limit(self, metric: str, account: str, limit: str) -> None:
        kind, _, name = account.partition(":")
        self._child(metric, kind, self._holders.label(name), limit).inc(1)

    def memory_watched(self, held: Callable[[], int]) -> None:
        self._held.append(held)

    def exchange_started(self, progress: Progress) -> None:
        self._begun.append(progress.endpoint)
        if self._is_shared:
            self._soon.run(self.count)

    def exchange_ended(self, record: ExchangeRecord) -> None:
        """Keep the record until it is counted: many at a time are counted at half the cost."""
        self._waiting.append(record)
        if len(self._waiting) >= _MOST_WAITING:
            self.count()
        elif self._is_shared:
            self._soon.run(self.count)

    def count(self) -> None:
        """Count the records that were kept. The registry has it done before it is read."""
        self._memory.set(sum([held() for held in self._held]))
        for operation in taken(self._begun):
            self._in_flight(operation).inc()
        alike: dict[tuple[str, ...], list[ExchangeRecord]] = {}
        for record in taken(self._waiting):
            model = self._model(record.upstream, record.upstream_model)
            key = (record.endpoint, record.route, record.upstream, model, record.outcome_class, record.form or "")
            alike.setdefault(key, []).append(record)
        for labels, records in alike.items():
            usual = self._usual.get(labels)
            if usual is None:
                usual = self._usual[labels] = _Usual(self._families, labels)
            self._count_alike(usual, records)

    def _count_alike(self, usual: _Usual, records: Sequence[ExchangeRecord]) -> None:
        """Count records that differ in amounts only: amounts are added up first, which costs less than counting."""
        clients = [record for record in records if not record.in_background]
        if clients:
            usual.ended(len(clients))
            usual.count(len(clients))
        sums: _Sums = defaultdict(float)
        bytes_in = bytes_out = asked = made = delivered = changed = 0
        for record in records:
            self._count_calls(record, sums)
            if not record.in_background:  # the record of what the client was answered has the same
                usual.duration(record.seconds, exemplar_of(record.traceparent))
                if record.first_byte_seconds is not None:
                    usual.first_byte(record.first_byte_seconds)
                bytes_in += record.bytes_in
                bytes_out += record.bytes_out
            if record.explained:
                continue
            if not record.in_background:
                asked += record.images_asked
                changed += bool(record.changes)
            made += record.images_made
            if record.images_delivered:
                delivered += record.images_delivered
                usual.store(record.delivery_seconds)
            self._count_details(record, usual.model, sums)
        amounts = (bytes_in, bytes_out, asked, made, delivered, changed)
        for name, amount in zip(
            ("bytes_in", "bytes_out", "asked", "made", "delivered", "changed"), amounts, strict=True
        ):
            if amount:
                getattr(usual, name)(amount)
        for (name, *labels), total in sums.items():
            self._child(name, *labels).inc(total)

    def _count_calls(self, record: ExchangeRecord, sums: _Sums) -> None:
        for call in record.calls:
            model = self._model(call.upstream, call.model)
            self._call_duration(call.upstream, model).observe(call.seconds)
            sums["upstream_requests_total", call.upstream, model, call.outcome] += 1
            if call.outcome == "uncertain":
                sums["uncertain_outcomes_total", call.upstream] += 1
        if record.outcome_class == "storage_failed":
            sums["store_failures_total",] += 1
        if record.queue_seconds >= _WAITED:
            self._child("queue_duration_seconds", record.upstream).observe(record.queue_seconds)

    def _count_details(self, record: ExchangeRecord, model: str, sums: _Sums) -> None:
        """Count what has more than the usual labels, and what most exchanges have none of."""
        operation, upstream = record.endpoint, record.upstream
        for size in record.sizes_made:
            sums["image_sizes_total", size_class(record.size_asked), size_class(size)] += 1
        for change in () if record.in_background else record.changes:
            sums["changes_total", upstream, self._field(change.field), change.kind] += 1
        if record.usage:
            for kind, count in tokens_by_kind(record.usage).items():
                sums["tokens_total", upstream, model, kind] += count
        if key := record.key_name or record.user or record.principal_id:
            key = self._holders.label(key)
            if record.images_made:
                sums["key_images_total", key] += record.images_made
            if record.cost:
                sums["key_cost_total", key, record.currency] += record.cost
        if record.cost:
            sums["cost_total", upstream, model, record.currency] += record.cost
        if record.fallbacks:
            sums["fallbacks_total", record.route, upstream] += record.fallbacks
        if record.idempotent:
            sums["idempotent_requests_total", operation, record.idempotent] += 1
        if record.polls:
            sums["upstream_polls_total", upstream] += record.polls
        if record.stale_connections:
            sums["stale_connections_total", upstream] += record.stale_connections
        if record.retries:
            sums["upstream_retries_total", upstream] += record.retries
        if record.stored_images:
            sums["images_stored_total", operation] += record.stored_images
        if record.upload_count:
            sums["uploads_total", operation] += record.upload_count
            sums["upload_bytes_total", operation] += record.upload_bytes
        if record.link_fetches:
            sums["link_fetches_total", operation] += record.link_fetches
        if record.fetch_refusals:
            sums["fetch_refusals_total", operation] += record.fetch_refusals

    def _child(self, name: str, *labels: str) -> Any:
        return self._families[f"imagegate_{name}"](*labels)

    def breaker_changed(self, upstream: str, state: BreakerState) -> None:
        for known in _BREAKER_STATES:
            self._breaker(upstream, known).set(known == state)

    def surplus_received(self, upstream: str) -> None:
        self._child("surplus_replies_total", upstream).inc()

    def store_changed(self, state: StoreState) -> None:
        for known in _STORE_STATES:
            self._store(known).set(known == state)

    def task_changed(self, state: str, seconds: float) -> None:
        if state not in TASK_STATES:
            state = OTHER
        self._tasks(state).inc()
        if state in ("completed", "failed"):
            self._child("task_duration_seconds", state).observe(seconds)

    def record_unreadable(self, kind: str) -> None:
        self._child("unreadable_records_total", kind if kind in RECORD_KINDS else OTHER).inc()

    def _model(self, upstream: str, model: str) -> str:
        """Return the model as the configuration names it. One of no upstream is not counted by name."""
        if not model:
            return ""
        return next((name for names in self._names if (name := names.model(upstream, model)) != OTHER), OTHER)

    def _field(self, field: str) -> str:
        if not self._names:
            return field if field in FIELDS else OTHER
        return next((name for names in self._names if (name := names.field(field)) != OTHER), OTHER)
