"""Public name of the metrics: Prometheus collectors for a registry of the application's choice."""

from imagegate.telemetry.prometheus import PrometheusHook

__all__ = ["PrometheusHook"]
