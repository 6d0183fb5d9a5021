"""Public name of the log: one line for each exchange."""

from imagegate.telemetry.log import LogHook

__all__ = ["LogHook"]
