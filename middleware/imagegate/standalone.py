"""The gateway alone under an ASGI server: ``uvicorn imagegate.standalone:app``.

The configuration is the file that ``IMAGEGATE_CONFIG`` names, else ``imagegate.toml`` where there is one, else every
provider whose ``<NAME>_API_KEY`` is set.
"""

from __future__ import annotations

import asyncio
import os
import signal
import sys
import threading
from collections.abc import Callable, Collection, Generator
from contextlib import contextmanager
from functools import cached_property, partial
from pathlib import Path
from types import FrameType, ModuleType
from typing import Any, BinaryIO, Final

import prometheus_client
from starlette.middleware.cors import CORSMiddleware
from starlette.types import ASGIApp, Receive, Scope, Send

from imagegate.asgi.helpers import report_failure, running_loop
from imagegate.config.loader import default_config, load_config
from imagegate.config.schema import Config
from imagegate.errors import ConfigError
from imagegate.gateway import ImageGateway
from imagegate.logger import get_logger
from imagegate.openapi.endpoint import ServeDocument
from imagegate.openapi.headers import RESPONSE_HEADERS
from imagegate.telemetry.hooks import Hook
from imagegate.telemetry.log import LogHook
from imagegate.telemetry.log_output import configure_logs
from imagegate.telemetry.metrics_endpoint import ServeMetrics
from imagegate.telemetry.prometheus import PrometheusHook

_client: Any = prometheus_client  # has one function without types
CONFIG_VARIABLE = "IMAGEGATE_CONFIG"
LOG_VARIABLE = "IMAGEGATE_LOG"
GRACE_VARIABLE = "IMAGEGATE_GRACE"
OTEL_VARIABLE = "IMAGEGATE_OTEL"
"""``1``: spans and metrics go where the standard ``OTEL_*`` variables say."""
DEFAULT_GRACE = 60
"""Seconds that running exchanges, and then the gateway's own work, have from the signal to end on."""
DEFAULT_FILE = Path("imagegate.toml")


def find_config() -> Config:
    """Return the configuration of a standalone gateway. Raises `ConfigError`."""
    if path := os.environ.get(CONFIG_VARIABLE):
        return load_config(path)
    return load_config(DEFAULT_FILE) if DEFAULT_FILE.exists() else default_config()


class Standalone:
    """The gateway with what only a process of its own has: ``/metrics``, its OpenAPI document, the console and an end.

    It drains as soon as the server gets a signal to end.

    Args:
        find: reads the configuration once more at SIGHUP; None: the signal is ignored.
        more_hooks: beside those for the log and the metrics.
        grace: seconds that running exchanges have then.
        log: takes a line of JSON for each exchange; None: structlog does.
    """

    def __init__(
        self,
        config: Config,
        *,
        find: Callable[[], Config] | None = None,
        more_hooks: Collection[Hook] = (),
        grace: float = DEFAULT_GRACE,
        log: BinaryIO | None = None,
    ) -> None:
        self._find = find
        self._reloading = asyncio.Lock()
        self._reload: asyncio.Task[None] | None = None
        _client.disable_created_metrics()  # the creation time of each series would double the page
        registry = prometheus_client.CollectorRegistry()
        self._metrics = PrometheusHook(registry=registry)
        self._log = LogHook(config.log, output=log)
        hooks: list[Hook] = [self._log, self._metrics, *more_hooks]
        self.gateway = ImageGateway(config=config, hooks=hooks, alone=True, grace=grace)
        documented = ServeDocument(self.gateway, partial(self.gateway.openapi, metrics=True))
        self._app: ASGIApp = ServeMetrics(
            documented, registry=registry, key=config.metrics.key, guard=self.gateway.services.guard
        )
        if config.access.allowed_origins:
            self._app = _with_cors(self._app, config.access.allowed_origins)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "lifespan":
            await self._app(scope, receive, send)
            return
        try:
            running_loop()
        except RuntimeError as error:
            await report_failure(str(error), scope, receive, send)
            raise
        with _on_signals(self.gateway.drain), _on_hangup(self._begin_reload):
            await self._app(scope, receive, send)
        self._log.write()
        self._metrics.count()  # for the processes that go on

    def _begin_reload(self) -> None:
        self._reload = asyncio.get_running_loop().create_task(self.reload())

    async def reload(self) -> None:
        """Apply the configuration as it is now; one that cannot be used is logged, and the one before goes on."""
        if (find := self._find) is None:
            get_logger().warning("SIGHUP is ignored; restart the gateway to apply another configuration")
            return
        async with self._reloading:
            if self.gateway.is_draining:
                return
            try:
                self.gateway.reload(await asyncio.to_thread(lambda: self.gateway.load(find())))
            except ConfigError as error:
                get_logger().error("the configuration is refused, and the one before goes on", reason=str(error))
            else:
                get_logger().info("the configuration was applied")


def _with_cors(app: ASGIApp, origins: Collection[str]) -> ASGIApp:
    """Answer preflights of pages that may use the gateway, and let them read its answers."""
    return CORSMiddleware(
        app,
        allow_origins=origins,
        allow_methods=("GET", "POST", "DELETE"),
        allow_headers=("*",),
        expose_headers=tuple(RESPONSE_HEADERS),
    )


@contextmanager
def _on_signals(call: Callable[[], None]) -> Generator[None]:
    """Call `call` on SIGTERM and SIGINT, before the server's own handler; do nothing where it has none."""
    handlers: dict[int, Any] = {}
    if threading.current_thread() is threading.main_thread():
        handlers = {number: signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGINT)}

    def handle(number: int, frame: FrameType | None) -> None:
        call()
        handlers[number](number, frame)

    handlers = {number: handler for number, handler in handlers.items() if callable(handler)}
    for number in handlers:
        signal.signal(number, handle)
    try:
        yield
    finally:
        for number, handler in handlers.items():
            if signal.getsignal(number) is handle:
                signal.signal(number, handler)


@contextmanager
def _on_hangup(call: Callable[[], None]) -> Generator[None]:
    """Call `call` at SIGHUP, unless the host has a handler of its own; also where `nohup` has it ignored."""
    is_ours = threading.current_thread() is threading.main_thread() and hasattr(signal, "SIGHUP")
    if not is_ours or signal.getsignal(signal.SIGHUP) not in (signal.SIG_DFL, signal.SIG_IGN):
        yield
        return
    loop = asyncio.get_running_loop()
    loop.add_signal_handler(signal.SIGHUP, call)
    signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGHUP})  # a worker inherits it blocked
    try:
        yield
    finally:
        loop.remove_signal_handler(signal.SIGHUP)


def log_style() -> str:
    """Return the format of log lines: as the environment says, else ``console`` on a terminal."""
    return os.environ.get(LOG_VARIABLE) or ("console" if sys.stderr.isatty() else "json")


def create_app() -> Standalone:
    """Return the ASGI application. Raises `ConfigError`."""
    style = log_style()
    configure_logs(style)
    log = None if style == "console" else sys.stderr.buffer
    return Standalone(find_config(), find=find_config, more_hooks=_tracing(), grace=grace(), log=log)


def _tracing() -> Collection[Hook]:
    """Return the hook of OpenTelemetry where the process is to have it, with the SDK set up. Raises `ConfigError`."""
    if os.environ.get(OTEL_VARIABLE) != "1":
        return ()
    from imagegate.telemetry.otel_sdk import set_up

    set_up()
    from imagegate.telemetry.otel import OTelHook

    return (OTelHook(),)


def grace() -> int:
    """Return the seconds that the environment names. Raises `ConfigError`."""
    text = os.environ.get(GRACE_VARIABLE) or str(DEFAULT_GRACE)
    if not text.isdecimal():
        raise ConfigError(f"{GRACE_VARIABLE}: {text!r} is no number of seconds")
    return int(text)


class _Application:
    """What `create_app` makes, when a server first calls it: importing this module reads no configuration."""

    @cached_property
    def made(self) -> Standalone:
        return create_app()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        try:
            made = self.made
        except ConfigError as error:
            await report_failure(f"imagegate: {error}", scope, receive, send)
            raise
        await made(scope, receive, send)


class _Module(ModuleType):
    """This module, of which servers want ``app`` before they log anything.

    uvicorn and others ask for the attribute, and find the application made. hypercorn evaluates the name among the
    module's variables, where nothing can be made on demand, and makes it by its first call.
    """

    @property
    def app(self) -> Standalone:
        return _application.made


_application: Final = _Application()
app = _application
sys.modules[__name__].__class__ = _Module
