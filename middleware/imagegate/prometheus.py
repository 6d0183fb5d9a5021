"""Exchanges as Prometheus metrics.

``ImageGateway(..., hooks=[PrometheusHook(registry=...)])`` counts into a host's own registry. Labels have no values but
names of the configuration and words of this package, so their number is bounded whatever clients send.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final, Literal, NamedTuple

from prometheus_client import REGISTRY, CollectorRegistry, Counter, Gauge, Histogram

from imagegate import __version__
from imagegate.events import BreakerState, ExchangeRecord, Progress
from imagegate.names import FIELDS, OTHER, Names
from imagegate.size_classes import size_class
from imagegate.usage import tokens_by_kind

# Pictures take from a tenth of a second (a replay) to minutes (a task).
BUCKETS: Final = (0.1, 0.25, 0.5, 1, 2.5, 5, 10, 15, 20, 30, 45, 60, 90, 120, 180, 300)
TASK_STATES: Final = ("pending", "processing", "completed", "failed")
_BREAKER_STATES: Final[tuple[BreakerState, ...]] = ("closed", "open", "half_open")


class Metric(NamedTuple):
    """One metric of the gateway."""

    name: str
    kind: Literal["counter", "gauge", "histogram"]
    labels: tuple[str, ...]
    help: str


METRICS: Final[Mapping[str, Metric]] = {
    metric.name: metric
    for metric in (
        Metric(
            "imagegate_requests_total",
            "counter",
            ("operation", "route", "upstream", "model", "outcome"),
            "Exchanges that have ended.",
        ),
        Metric("imagegate_requests_in_flight", "gauge", ("operation",), "Exchanges that have begun and not ended."),
        Metric(
            "imagegate_request_duration_seconds",
            "histogram",
            ("operation", "upstream"),
            "From the request to the end of the answer.",
        ),
        Metric(
            "imagegate_first_byte_duration_seconds",
            "histogram",
            ("operation", "upstream"),
            "From the request to the first byte of the answer's body.",
        ),
        Metric(
            "imagegate_queue_duration_seconds",
            "histogram",
            ("upstream",),
            "That exchanges waited for a place, those that had to.",
        ),
        Metric(
            "imagegate_store_duration_seconds",
            "histogram",
            ("form",),
            "That pictures took to be stored, fetched or handed on in the form asked for.",
        ),
        Metric("imagegate_request_bytes_total", "counter", ("operation",), "Bytes of clients' bodies."),
        Metric("imagegate_response_bytes_total", "counter", ("operation",), "Bytes of the bodies of answers."),
        Metric(
            "imagegate_upstream_requests_total",
            "counter",
            ("upstream", "model", "outcome"),
            "Paid POSTs to providers; uncertain: it may have been made and billed.",
        ),
        Metric(
            "imagegate_upstream_duration_seconds",
            "histogram",
            ("upstream", "model"),
            "Of these POSTs, with the wait for a task.",
        ),
        Metric(
            "imagegate_uncertain_outcomes_total",
            "counter",
            ("upstream",),
            "POSTs that may have been made and billed without an answer that says so.",
        ),
        Metric("imagegate_upstream_retries_total", "counter", ("upstream",), "POSTs that were tried again."),
        Metric(
            "imagegate_fallbacks_total",
            "counter",
            ("route", "upstream"),
            "Times that another candidate was asked; upstream: who answered in the end.",
        ),
        Metric(
            "imagegate_breaker_state",
            "gauge",
            ("upstream", "state"),
            "Processes in which the upstream's circuit breaker is closed, open or half_open.",
        ),
        Metric("imagegate_upstream_polls_total", "counter", ("upstream",), "Questions to providers about tasks."),
        Metric(
            "imagegate_images_asked_total",
            "counter",
            ("operation", "upstream", "model"),
            "Images that clients asked for.",
        ),
        Metric(
            "imagegate_images_made_total",
            "counter",
            ("operation", "upstream", "model"),
            "Images in providers' replies.",
        ),
        Metric(
            "imagegate_images_delivered_total",
            "counter",
            ("operation", "upstream", "model", "form"),
            "Images that clients were given, by form: url, b64_json or unchanged.",
        ),
        Metric(
            "imagegate_store_failures_total",
            "counter",
            (),
            "Exchanges whose pictures were made and could not be stored or fetched.",
        ),
        Metric("imagegate_images_stored_total", "counter", ("operation",), "Images that were written to the store."),
        Metric(
            "imagegate_image_sizes_total",
            "counter",
            ("asked", "made"),
            "Images by class of the size asked for and of the size made, such as landscape_2k.",
        ),
        Metric("imagegate_tokens_total", "counter", ("upstream", "model", "kind"), "Tokens in providers' usage."),
        Metric(
            "imagegate_cost_total",
            "counter",
            ("upstream", "model", "currency"),
            "Cost of what was made, by the price table of the configuration.",
        ),
        Metric("imagegate_changed_requests_total", "counter", ("upstream",), "Exchanges that were changed on the way."),
        Metric("imagegate_changes_total", "counter", ("upstream", "field", "kind"), "Fields that were changed."),
        Metric("imagegate_uploads_total", "counter", ("operation",), "Files that clients sent."),
        Metric("imagegate_upload_bytes_total", "counter", ("operation",), "Bytes of these files."),
        Metric("imagegate_link_fetches_total", "counter", ("operation",), "Foreign links that were read."),
        Metric("imagegate_fetch_refusals_total", "counter", ("operation",), "Links that the guard refused (SSRF)."),
        Metric(
            "imagegate_idempotent_requests_total",
            "counter",
            ("operation", "how"),
            "Exchanges that joined another with the same Idempotency-Key, or got its result replayed.",
        ),
        Metric("imagegate_tasks_total", "counter", ("state",), "Times that a task of the gateway's own entered it."),
        Metric(
            "imagegate_task_duration_seconds",
            "histogram",
            ("state",),
            "From the making of a task to its end, completed or failed.",
        ),
        Metric("imagegate_build_info", "gauge", ("version",), "The processes that serve, by version."),
    )
}
"""Every metric there is, by name."""


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


class _Usual:
    """What nearly every exchange counts, found by one look-up: the methods of children for one set of labels.

    A child is made when it is first asked for, so that there are no series of what never happened.
    """

    def __init__(self, families: Mapping[str, _Family], labels: tuple[str, ...]) -> None:
        self._families = families
        self._labels = dict(zip(("operation", "route", "upstream", "model", "outcome", "form"), labels, strict=True))

    def __getattr__(self, name: str) -> Any:
        metric, method = _USUAL[name]
        labels = (self._labels[label] for label in METRICS[metric].labels)
        counting = getattr(self._families[metric](*labels), method)
        setattr(self, name, counting)
        return counting


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


class PrometheusHook:
    """Counts exchanges.

    Args:
        registry: that the host exposes; default: the process's own.

    Raises:
        ValueError: the registry has these metrics already; several gateways of a process share one hook.
    """

    def __init__(self, *, registry: CollectorRegistry = REGISTRY) -> None:
        families = {name: _Family(name, registry) for name in METRICS}
        self._names: tuple[Names, ...] = ()
        self._families = families
        self._usual: dict[tuple[str, ...], _Usual] = {}
        self._in_flight = families["imagegate_requests_in_flight"]
        self._calls = families["imagegate_upstream_requests_total"]
        self._call_duration = families["imagegate_upstream_duration_seconds"]
        self._sizes = families["imagegate_image_sizes_total"]
        self._changes = families["imagegate_changes_total"]
        self._breaker = families["imagegate_breaker_state"]
        self._tasks = families["imagegate_tasks_total"]
        families["imagegate_build_info"](__version__).set(1)

    def configured(self, names: Names) -> None:
        """Takes the names that labels may have, and makes the series that alerts look at, so that they start at 0."""
        self._names = (*self._names, names)
        for upstream in names.upstreams:
            self.breaker_changed(upstream, "closed")
            self._child("uncertain_outcomes_total", upstream)
        for state in TASK_STATES:
            self._tasks(state)

    def exchange_started(self, progress: Progress) -> None:
        self._in_flight(progress.endpoint).inc()

    def exchange_ended(self, record: ExchangeRecord) -> None:
        model = self._model(record.upstream, record.upstream_model)
        key = (record.endpoint, record.route, record.upstream, model, record.outcome_class, record.form or "")
        usual = self._usual.get(key)
        if usual is None:
            usual = self._usual[key] = _Usual(self._families, key)
        usual.ended()
        usual.count()
        usual.duration(record.seconds)
        if record.first_byte_seconds is not None:
            usual.first_byte(record.first_byte_seconds)
        if record.bytes_in:
            usual.bytes_in(record.bytes_in)
        if record.bytes_out:
            usual.bytes_out(record.bytes_out)
        for call in record.calls:
            name = model if call.model == record.upstream_model else self._model(call.upstream, call.model)
            self._calls(call.upstream, name, call.outcome).inc()
            self._call_duration(call.upstream, name).observe(call.seconds)
            if call.outcome == "uncertain":
                self._child("uncertain_outcomes_total", call.upstream).inc()
        if record.outcome_class == "storage_failed":
            self._child("store_failures_total").inc()
        if record.explained:
            return
        if record.images_asked:
            usual.asked(record.images_asked)
            if record.images_made:
                usual.made(record.images_made)
            if record.images_delivered:
                usual.delivered(record.images_delivered)
                usual.store(record.delivery_seconds)
            for size in record.sizes_made:
                self._sizes(size_class(record.size_asked), size_class(size)).inc()
        if record.changes:
            usual.changed()
            for change in record.changes:
                self._changes(record.upstream, self._field(change.field), change.kind).inc()
        self._count_rare(record, model)

    def _count_rare(self, record: ExchangeRecord, model: str) -> None:
        """What most exchanges have none of."""
        operation, upstream = record.endpoint, record.upstream
        if record.usage:
            for kind, count in tokens_by_kind(record.usage).items():
                self._child("tokens_total", upstream, model, kind).inc(count)
        if record.cost:
            self._child("cost_total", upstream, model, record.currency).inc(record.cost)
        if record.stored_images:
            self._child("images_stored_total", operation).inc(record.stored_images)
        if record.queue_seconds:
            self._child("queue_duration_seconds", upstream).observe(record.queue_seconds)
        if record.polls:
            self._child("upstream_polls_total", upstream).inc(record.polls)
        if record.retries:
            self._child("upstream_retries_total", upstream).inc(record.retries)
        if record.fallbacks:
            self._child("fallbacks_total", record.route, upstream).inc(record.fallbacks)
        if record.upload_count:
            self._child("uploads_total", operation).inc(record.upload_count)
            self._child("upload_bytes_total", operation).inc(record.upload_bytes)
        if record.link_fetches:
            self._child("link_fetches_total", operation).inc(record.link_fetches)
        if record.fetch_refusals:
            self._child("fetch_refusals_total", operation).inc(record.fetch_refusals)
        if record.idempotent:
            self._child("idempotent_requests_total", operation, record.idempotent).inc()

    def _child(self, name: str, *labels: str) -> Any:
        return self._families[f"imagegate_{name}"](*labels)

    def breaker_changed(self, upstream: str, state: BreakerState) -> None:
        for known in _BREAKER_STATES:
            self._breaker(upstream, known).set(known == state)

    def task_changed(self, state: str, seconds: float) -> None:
        if state not in TASK_STATES:
            state = OTHER
        self._tasks(state).inc()
        if state in ("completed", "failed"):
            self._child("task_duration_seconds", state).observe(seconds)

    def _model(self, upstream: str, model: str) -> str:
        """As the configuration names it. A model of no upstream is not counted by name."""
        if not model:
            return ""
        return next((name for names in self._names if (name := names.model(upstream, model)) != OTHER), OTHER)

    def _field(self, field: str) -> str:
        if not self._names:
            return field if field in FIELDS else OTHER
        return next((name for names in self._names if (name := names.field(field)) != OTHER), OTHER)
