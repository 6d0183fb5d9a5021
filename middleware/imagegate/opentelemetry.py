"""Spans and metrics of exchanges by OpenTelemetry: the hook, for ``ImageGateway(hooks=[..., OTelHook()])``."""

from imagegate.telemetry.otel import OTelHook

__all__ = ["OTelHook"]
