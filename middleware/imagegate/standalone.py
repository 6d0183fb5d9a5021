"""The gateway alone under an ASGI server: ``uvicorn imagegate.standalone:app``.

The configuration is the file that ``IMAGEGATE_CONFIG`` names, else ``imagegate.toml`` where there is one, else every
provider whose ``<NAME>_API_KEY`` is set.
"""

from __future__ import annotations

import logging
import os
import sys
from collections.abc import MutableMapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import msgspec
import prometheus_client
import structlog
from starlette.types import Receive, Scope, Send

from imagegate.config import Config, default_config, load_config
from imagegate.events import Hook
from imagegate.gateway import ImageGateway
from imagegate.log import LogHook
from imagegate.prometheus import PrometheusHook
from imagegate.scraping import ServeMetrics

_client: Any = prometheus_client  # has one function without types
CONFIG_VARIABLE = "IMAGEGATE_CONFIG"
LOG_VARIABLE = "IMAGEGATE_LOG"
DEFAULT_FILE = Path("imagegate.toml")


def find_config() -> Config:
    """The configuration of a gateway that stands alone. Raises `ConfigError`."""
    if path := os.environ.get(CONFIG_VARIABLE):
        return load_config(path)
    return load_config(DEFAULT_FILE) if DEFAULT_FILE.exists() else default_config()


def configure_logs(style: str, *, least: int = logging.INFO) -> None:
    """Log lines on standard error, as ``json`` or for the ``console``. Only for a process that is ours.

    Args:
        least: level of the lines that are written.
    """
    processors: list[Any]
    factory: Any
    # Tracebacks without local variables: those hold keys and prompts.
    if style == "console":
        processors = [
            structlog.contextvars.merge_contextvars,
            structlog.processors.add_log_level,
            structlog.processors.TimeStamper(fmt="iso", utc=True),
            structlog.dev.ConsoleRenderer(exception_formatter=structlog.dev.plain_traceback),
        ]
        factory = structlog.PrintLoggerFactory(sys.stderr)
    else:
        without_locals = structlog.tracebacks.ExceptionDictTransformer(show_locals=False)
        processors = [structlog.processors.ExceptionRenderer(without_locals), _as_json]
        factory = structlog.BytesLoggerFactory(sys.stderr.buffer)
    structlog.configure(
        processors=processors,
        wrapper_class=structlog.make_filtering_bound_logger(least),
        logger_factory=factory,
        cache_logger_on_first_use=True,
    )


def _as_json(_: Any, level: str, event: MutableMapping[str, Any]) -> bytes:
    """A line of JSON, in one step: every exchange writes one, and a chain of processors costs three times as much."""
    line = {
        "timestamp": datetime.now(UTC).isoformat(),
        "level": "error" if level == "exception" else level,
        **structlog.contextvars.get_contextvars(),
        **event,
    }
    return msgspec.json.encode(line, enc_hook=repr)


class Standalone:
    """The gateway with what only a process of its own has: ``/metrics``, and the console unless switched off."""

    def __init__(self, config: Config) -> None:
        _client.disable_created_metrics()  # when a series began is nothing that anybody watches; it doubles the page
        registry = prometheus_client.CollectorRegistry()
        hooks: list[Hook] = [LogHook(config.log), PrometheusHook(registry=registry)]
        self.gateway = ImageGateway(config=config, hooks=hooks, alone=True)
        self._app = ServeMetrics(self.gateway, registry=registry, key=config.metrics.key)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        await self._app(scope, receive, send)


def create_app() -> Standalone:
    """The ASGI application. Raises `ConfigError`."""
    configure_logs(os.environ.get(LOG_VARIABLE) or ("console" if sys.stderr.isatty() else "json"))
    return Standalone(find_config())


def __getattr__(name: str) -> Any:
    """``app`` is made when a server asks for it, so that importing this module reads no configuration."""
    if name != "app":
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    app = create_app()
    globals()["app"] = app
    return app
