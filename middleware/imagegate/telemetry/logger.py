"""The name that the rest of telemetry knows the logger by."""

from imagegate.logger import NAME, get_logger, get_plain_logger

__all__ = ["NAME", "get_logger", "get_plain_logger"]
