"""Log lines on standard error, in one format for the gateway and for its server. Only for a process that is ours."""

from __future__ import annotations

import logging
import sys
from collections.abc import MutableMapping
from datetime import UTC, datetime
from typing import Any, Final

import msgspec
import structlog

_SERVERS: Final = ("uvicorn", "uvicorn.access", "uvicorn.error")
"""Loggers that uvicorn gives handlers and formats of their own."""
_without_meta: Final = structlog.stdlib.ProcessorFormatter.remove_processors_meta


def configure_logs(style: str, *, least: int = logging.INFO) -> None:
    """Log lines on standard error: structlog's, and the standard library's in the same format.

    Args:
        style: ``json``, or ``console`` for people, in colors on a terminal.
        least: level of the lines that are written.
    """
    if style == "console":
        # Tracebacks without local variables: those hold keys and prompts.
        renderer: Any = structlog.dev.ConsoleRenderer(
            colors=sys.stderr.isatty(), exception_formatter=structlog.dev.plain_traceback
        )
        processors: list[Any] = [
            structlog.contextvars.merge_contextvars,
            structlog.processors.add_log_level,
            structlog.processors.TimeStamper(fmt="iso", utc=True),
        ]
        factory: Any = structlog.PrintLoggerFactory(sys.stderr)
        structlog.configure(
            processors=[*processors, renderer],
            wrapper_class=structlog.make_filtering_bound_logger(least),
            logger_factory=factory,
            cache_logger_on_first_use=True,
        )
        _configure_standard_library(
            [*processors, structlog.stdlib.ProcessorFormatter.remove_processors_meta, renderer], least
        )
    else:
        structlog.configure(
            processors=[_as_json],
            wrapper_class=structlog.make_filtering_bound_logger(least),
            logger_factory=structlog.BytesLoggerFactory(sys.stderr.buffer),
            cache_logger_on_first_use=True,
        )
        _configure_standard_library([_without_meta, _as_json_text], least)


def _configure_standard_library(processors: list[Any], least: int) -> None:
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(structlog.stdlib.ProcessorFormatter(processors=processors))
    root = logging.getLogger()
    root.handlers = [handler]
    for name in _SERVERS:
        logger = logging.getLogger(name)
        if logger.handlers or logger.propagate:  # else the server has switched it off: links in its lines are secrets
            logger.handlers, logger.propagate = [], True
        logger.setLevel(least)


_with_traceback: Final = structlog.processors.ExceptionRenderer(
    structlog.tracebacks.ExceptionDictTransformer(show_locals=False)
)


def _as_json(_: Any, level: str, event: MutableMapping[str, Any]) -> bytes:
    """Return a line of JSON in one step: every exchange writes one; a chain of processors costs three times as much."""
    if "exc_info" in event:
        event = _with_traceback(None, level, event)
    line = {
        "timestamp": datetime.now(UTC),
        "level": "error" if level == "exception" else level,
        **structlog.contextvars.get_contextvars(),
        **event,
    }
    return msgspec.json.encode(line, enc_hook=repr)


def _as_json_text(_: Any, level: str, event: MutableMapping[str, Any]) -> str:
    return _as_json(_, level, event).decode()
