"""Public names of `imagegate.telemetry`: the record of an exchange, and the hooks that are given it."""

from imagegate.telemetry.events import (
    BreakerHook,
    BreakerState,
    ConfiguredHook,
    ExchangeRecord,
    Hook,
    OutcomeClass,
    StartHook,
    TaskHook,
    UpstreamCall,
)

__all__ = [
    "BreakerHook",
    "BreakerState",
    "ConfiguredHook",
    "ExchangeRecord",
    "Hook",
    "OutcomeClass",
    "StartHook",
    "TaskHook",
    "UpstreamCall",
]
