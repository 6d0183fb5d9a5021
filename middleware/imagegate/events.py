"""Public names of `imagegate.telemetry`: the record of an exchange, and the hooks that are given it."""

from imagegate.telemetry.exchange import UpstreamCall
from imagegate.telemetry.hooks import (
    BreakerHook,
    BreakerState,
    ConfiguredHook,
    Hook,
    MemoryHook,
    RecordHook,
    StartHook,
    TaskHook,
)
from imagegate.telemetry.record import ExchangeRecord, OutcomeClass

__all__ = [
    "BreakerHook",
    "BreakerState",
    "ConfiguredHook",
    "ExchangeRecord",
    "Hook",
    "MemoryHook",
    "OutcomeClass",
    "RecordHook",
    "StartHook",
    "TaskHook",
    "UpstreamCall",
]
