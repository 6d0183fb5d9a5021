"""OpenTelemetry's SDK for a process of our own, set up from the standard ``OTEL_*`` variables.

Source of the variables: https://opentelemetry.io/docs/specs/otel/configuration/sdk-environment-variables/.

Exporters are ``otlp`` over HTTP, ``console`` and ``none``; what is not read here (sampler, batches, endpoint, headers,
resource) the SDK and its exporters read themselves. A collector that is down or slow costs spans, never requests: they
are exported by a thread, from a queue of bounded length.
"""

from __future__ import annotations

import os
from importlib.util import find_spec
from typing import Any, Final

from imagegate import __version__
from imagegate.errors import ConfigError

_EXPORTERS: Final = ("otlp", "console", "none")


def check() -> None:
    """Raise `ConfigError` where the SDK is not installed or a variable names what there is none of."""
    try:
        is_there = find_spec("opentelemetry.exporter.otlp.proto.http") is not None
    except ModuleNotFoundError:  # of a package above it
        is_there = False
    if not is_there:
        raise ConfigError("serve --otel needs OpenTelemetry's SDK: pip install 'imagegate[otlp]'")
    for signal in ("TRACES", "METRICS"):
        _exporter(signal)
    protocol = _protocol()
    if protocol != "http/protobuf":
        raise ConfigError(f"OTEL_EXPORTER_OTLP_PROTOCOL: {protocol!r} is not supported; http/protobuf is")


def set_up() -> None:
    """Make the global providers of spans and metrics. Raises as `check`."""
    check()
    if os.environ.get("OTEL_SDK_DISABLED", "").lower() == "true":
        return
    from opentelemetry import metrics, trace
    from opentelemetry.sdk.metrics import MeterProvider
    from opentelemetry.sdk.resources import Resource
    from opentelemetry.sdk.trace import TracerProvider
    from opentelemetry.sdk.trace.export import BatchSpanProcessor

    named = bool(os.environ.get("OTEL_SERVICE_NAME")) or "service.name=" in os.environ.get(
        "OTEL_RESOURCE_ATTRIBUTES", ""
    )
    attributes = {"service.version": __version__} | ({} if named else {"service.name": "imagegate"})
    resource = Resource.create(attributes)
    if (spans := _span_exporter()) is not None:
        provider = TracerProvider(resource=resource)
        provider.add_span_processor(BatchSpanProcessor(spans))
        trace.set_tracer_provider(provider)
    if (reader := _metric_reader()) is not None:
        metrics.set_meter_provider(MeterProvider([reader], resource=resource))


def _span_exporter() -> Any:
    from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
    from opentelemetry.sdk.trace.export import ConsoleSpanExporter

    kind = _exporter("TRACES")
    if kind == "none":
        return None
    return OTLPSpanExporter() if kind == "otlp" else ConsoleSpanExporter()


def _metric_reader() -> Any:
    from opentelemetry.exporter.otlp.proto.http.metric_exporter import OTLPMetricExporter
    from opentelemetry.sdk.metrics.export import ConsoleMetricExporter, PeriodicExportingMetricReader

    kind = _exporter("METRICS")
    if kind == "none":
        return None
    return PeriodicExportingMetricReader(OTLPMetricExporter() if kind == "otlp" else ConsoleMetricExporter())


def _exporter(signal: str) -> str:
    name = os.environ.get(f"OTEL_{signal}_EXPORTER") or "otlp"
    if name not in _EXPORTERS:
        raise ConfigError(f"OTEL_{signal}_EXPORTER: {name!r} is not supported; allowed: {', '.join(_EXPORTERS)}")
    return name


def _protocol() -> str:
    return os.environ.get("OTEL_EXPORTER_OTLP_PROTOCOL") or "http/protobuf"
