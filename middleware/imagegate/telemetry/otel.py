"""Exchanges as OpenTelemetry spans and metrics, by the API alone: the host application owns the SDK.

Names follow the semantic conventions for generative AI, which have no operation for images yet
(https://opentelemetry.io/docs/specs/semconv/gen-ai/): ``image_generation``, ``image_edit`` and ``image_variation`` are
ours, and so is everything below ``imagegate.``. No span or metric has a key, a prompt or an image.
"""

from __future__ import annotations

from collections.abc import Mapping
from time import perf_counter
from typing import Any, Final

from opentelemetry import context as contexts
from opentelemetry import metrics, trace
from opentelemetry.trace import Span, SpanKind, Status, StatusCode
from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator

from imagegate import tracing
from imagegate.errors import ImagegateError, UpstreamError
from imagegate.protocol.trace_context import trace_headers
from imagegate.telemetry.metric_labels import Names
from imagegate.telemetry.otel_attributes import (
    DURATION_BUCKETS,
    OPERATIONS,
    TOKEN_BUCKETS,
    AttributeValue,
    operation_attributes,
    record_attributes,
)
from imagegate.telemetry.progress import Progress
from imagegate.telemetry.record import ExchangeRecord

_PROPAGATOR: Final = TraceContextTextMapPropagator()
_NAMES: Final[Mapping[tracing.OperationName, str]] = {
    "part": "part",
    "upload": "upload reference",
    "poll": "poll task",
    "fetch": "fetch image",
    "store": "store image",
    "webhook": "deliver webhook",
}
"""Names of spans, but for attempts, which are called like the exchange."""

_LABELS: Final = ("gen_ai.operation.name", "gen_ai.provider.name", "server.address", "error.type")
"""Attributes that metrics have beside the model."""


class OTelHook:
    """Records one span for each exchange, below the host's server span, and one for each of its operations.

    Args:
        tracer_provider: default: the global one, which the host application sets.
        meter_provider: likewise.
        links: whether spans name the links of delivered images, which whoever has them can load. They are known only
            where ``[log] links`` or the console takes answers down.
    """

    def __init__(
        self,
        *,
        tracer_provider: trace.TracerProvider | None = None,
        meter_provider: metrics.MeterProvider | None = None,
        links: bool = False,
    ) -> None:
        from imagegate import __version__

        self._links = links
        self._tracer = trace.get_tracer("imagegate", __version__, tracer_provider)
        meter = metrics.get_meter("imagegate", __version__, meter_provider)
        self._duration = meter.create_histogram(
            "gen_ai.client.operation.duration",
            unit="s",
            description="Of one request to a provider, with the wait for its task.",
            explicit_bucket_boundaries_advisory=DURATION_BUCKETS,
        )
        self._tokens = meter.create_histogram(
            "gen_ai.client.token.usage",
            unit="{token}",
            description="Tokens of one request, by the provider's own count.",
            explicit_bucket_boundaries_advisory=TOKEN_BUCKETS,
        )
        self._known: Names | None = None

    def configured(self, names: Names) -> None:
        """Learn which models there are, so that clients cannot make new series."""
        self._known = names

    def exchange_ended(self, record: ExchangeRecord) -> None:
        """Do nothing: a span is made when the exchange has ended."""

    def exchange_traced(self, progress: Progress) -> ExchangeSpan:
        """Begin the span of an exchange: below the span at work here, else below the client's ``traceparent``.

        The work of a task is below the exchange that made the task, in whichever process it runs.
        """
        here = contexts.get_current()
        if progress.in_background or not trace.get_current_span(here).get_span_context().is_valid:
            here = _context_of(progress.traceparent, progress.tracestate)
        return ExchangeSpan(self, progress, here)

    def webhook_traced(self, traceparent: str) -> OperationSpan:
        """Begin the span of a webhook, below the exchange that made the task."""
        span = self.start(_NAMES["webhook"], _context_of(traceparent), SpanKind.CLIENT)
        return OperationSpan(self, "webhook", span, {})

    def start(
        self,
        name: str,
        parent: contexts.Context,
        kind: SpanKind,
        attributes: Mapping[str, AttributeValue] | None = None,
    ) -> Span:
        """Begin a span."""
        return self._tracer.start_span(name, parent, kind, attributes)

    def measured(self, attributes: Mapping[str, AttributeValue], seconds: float) -> None:
        """Count one request to a provider, by the attributes of its span."""
        upstream, model = str(attributes.get("imagegate.upstream", "")), str(attributes.get("gen_ai.request.model", ""))
        labels = {name: attributes[name] for name in _LABELS if name in attributes}
        labels["gen_ai.request.model"] = self._known.model(upstream, model) if self._known is not None else model
        self._duration.record(seconds, labels)
        for kind in ("input", "output"):
            if (count := attributes.get(f"gen_ai.usage.{kind}_tokens")) is not None:
                self._tokens.record(int(str(count)), {**labels, "gen_ai.token.type": kind})

    def links_of(self, record: ExchangeRecord) -> list[str]:
        """Return the links that the span of an exchange names."""
        return record.capture.links() if self._links and record.capture is not None else []


class ExchangeSpan:
    """The span of one exchange, and the tracer of its operations."""

    def __init__(self, hook: OTelHook, progress: Progress, parent: contexts.Context) -> None:
        self._hook = hook
        self.operation_name = OPERATIONS.get(progress.endpoint, "")
        self._span = hook.start(self.operation_name or f"imagegate {progress.endpoint}", parent, SpanKind.INTERNAL)
        context = trace.set_span_in_context(self._span, parent)
        if traceparent := _traceparent(self._span):
            progress.traceparent, progress.tracestate = traceparent, _tracestate(self._span)
        self._attached = contexts.attach(context)
        self._used = tracing.use(self)
        self._provider = ""

    def ended(self, record: ExchangeRecord | None) -> None:
        """End the span with what the record says; None: another process goes on with the work."""
        tracing.restore(self._used)
        contexts.detach(self._attached)
        span = self._span
        if span.is_recording():
            if record is None:
                span.set_attribute("imagegate.outcome", "handed_over")
            else:
                self._describe(span, record)
        span.end()

    def _describe(self, span: Span, record: ExchangeRecord) -> None:
        if self.operation_name and record.model:
            span.update_name(f"{self.operation_name} {record.model[:128]}")
        attributes = record_attributes(record, self.operation_name, self._provider)
        if links := self._hook.links_of(record):
            attributes["imagegate.image.links"] = links
        span.set_attributes(attributes)
        if record.error_code:
            span.set_status(Status(StatusCode.ERROR))

    def operation(self, name: tracing.OperationName, facts: dict[str, Any], *, nests: bool) -> OperationSpan:
        """Begin the span of an operation, below the one at work here."""
        attributes = operation_attributes(facts, self.operation_name if name == "attempt" else "")
        if name == "attempt":
            self._provider = str(attributes.get("gen_ai.provider.name", ""))
            title = f"{self.operation_name} {attributes.get('gen_ai.request.model', '')}".strip()
        else:
            title = _NAMES[name]
        parent = contexts.get_current()
        kind = SpanKind.INTERNAL if name == "part" else SpanKind.CLIENT
        span = self._hook.start(title, parent, kind, attributes)
        return OperationSpan(self._hook, name, span, attributes, parent if nests else None)


class OperationSpan:
    """The span of one operation.

    Args:
        parent: context of the span above, where operations that begin meanwhile are its children.
    """

    def __init__(
        self,
        hook: OTelHook,
        name: tracing.OperationName,
        span: Span,
        attributes: dict[str, AttributeValue],
        parent: contexts.Context | None = None,
    ) -> None:
        self._hook = hook
        self._name = name
        self._span = span
        self._attributes = attributes
        self._attached = None if parent is None else contexts.attach(trace.set_span_in_context(span, parent))
        self._started = perf_counter()

    @property
    def traceparent(self) -> str:
        """W3C Trace Context of the span."""
        return _traceparent(self._span)

    @property
    def tracestate(self) -> str:
        """What goes upstream beside it."""
        return _tracestate(self._span)

    def ended(self, error: BaseException | None, facts: dict[str, Any]) -> None:
        """End the span, with the class or code of an error and never its text."""
        if self._attached is not None:
            contexts.detach(self._attached)
        attributes = operation_attributes(facts)
        if error is not None:
            attributes["error.type"] = _type_of(error)
            if isinstance(error, UpstreamError):
                attributes["imagegate.outcome"] = error.outcome
            self._span.set_status(Status(StatusCode.ERROR))
        if attributes:
            self._span.set_attributes(attributes)
        self._span.end()
        if self._name == "attempt":
            self._hook.measured({**self._attributes, **attributes}, perf_counter() - self._started)


def _type_of(error: BaseException) -> str:
    if isinstance(error, ImagegateError):
        return error.code or error.type
    return type(error).__name__


def _context_of(traceparent: str, tracestate: str = "") -> contexts.Context:
    return _PROPAGATOR.extract(dict(trace_headers(traceparent, tracestate)), contexts.Context())


def _traceparent(span: Span) -> str:
    context = span.get_span_context()
    if not context.is_valid:
        return ""
    return f"00-{context.trace_id:032x}-{context.span_id:016x}-{context.trace_flags:02x}"


def _tracestate(span: Span) -> str:
    return span.get_span_context().trace_state.to_header()
