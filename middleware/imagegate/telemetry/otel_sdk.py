"""OpenTelemetry's SDK for a process of our own, set up from the standard ``OTEL_*`` variables.

Source of the variables: https://opentelemetry.io/docs/specs/otel/configuration/sdk-environment-variables/.

Exporters are ``otlp`` over HTTP, ``console`` and ``none``; what is not read here (sampler, batches, endpoint, headers,
resource) the SDK and its exporters read themselves. A collector that is down or slow costs spans, never requests: they
are exported by a thread, from a queue of bounded length.
"""

from __future__ import annotations

import atexit
import os
import threading
import time
from collections.abc import Callable, Sequence
from importlib.util import find_spec
from typing import Any, Final

from imagegate import __version__
from imagegate.errors import ConfigError

_EXPORTERS: Final = ("otlp", "console", "none")
_SECONDS_TO_FLUSH: Final = 5.0
"""For what has not been exported when the process ends; the SDK itself would wait for a silent collector for 20 s."""


def check() -> None:
    """Raise `ConfigError` where the SDK is not installed or a variable names what there is none of."""
    if _is_disabled():
        return
    try:
        is_there = find_spec("opentelemetry.exporter.otlp.proto.http") is not None
    except ModuleNotFoundError:  # of a package above it
        is_there = False
    if not is_there:
        raise ConfigError("serve --otel needs OpenTelemetry's SDK: pip install 'imagegate[otlp]'")
    for signal in ("TRACES", "METRICS"):
        if _exporter(signal) == "otlp":
            _check_protocol(signal)


def set_up() -> None:
    """Make the global providers of spans and metrics. Raises as `check`."""
    check()
    if _is_disabled():
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
    shutdowns: list[Callable[[], None]] = []
    if (spans := _span_exporter()) is not None:
        tracers = TracerProvider(resource=resource, shutdown_on_exit=False)
        tracers.add_span_processor(BatchSpanProcessor(spans))
        trace.set_tracer_provider(tracers)
        shutdowns.append(tracers.shutdown)
    if (reader := _metric_reader()) is not None:
        meters = MeterProvider([reader], resource=resource, shutdown_on_exit=False)
        metrics.set_meter_provider(meters)
        shutdowns.append(meters.shutdown)
    atexit.register(at_exit(shutdowns, seconds=_SECONDS_TO_FLUSH))


def at_exit(shutdowns: Sequence[Callable[[], None]], *, seconds: float) -> Callable[[], None]:
    """Return what calls all of `shutdowns` at a time, and waits for them for so long.

    The threads begin now: an interpreter that is about to end starts none.
    """
    is_over = threading.Event()

    def run(shutdown: Callable[[], None]) -> None:
        is_over.wait()
        shutdown()

    threads = [threading.Thread(target=run, args=(shutdown,), daemon=True) for shutdown in shutdowns]
    for thread in threads:
        thread.start()

    def end() -> None:
        is_over.set()
        until = time.monotonic() + seconds
        for thread in threads:
            thread.join(max(0.0, until - time.monotonic()))

    return end


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


def _check_protocol(signal: str) -> None:
    for variable in (f"OTEL_EXPORTER_OTLP_{signal}_PROTOCOL", "OTEL_EXPORTER_OTLP_PROTOCOL"):
        if protocol := os.environ.get(variable):
            if protocol != "http/protobuf":
                raise ConfigError(f"{variable}: {protocol!r} is not supported; http/protobuf is")
            return


def _is_disabled() -> bool:
    return os.environ.get("OTEL_SDK_DISABLED", "").strip().lower() == "true"
