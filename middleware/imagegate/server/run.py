"""The gateway under uvicorn, in one process or several: what ``imagegate serve`` runs."""

from __future__ import annotations

import contextlib
import gc
import os
import signal
import sys
import tempfile
from collections.abc import Generator
from importlib.util import find_spec
from math import ceil
from typing import Any, Final

from imagegate import standalone
from imagegate.config.schema import LimitsConfig
from imagegate.errors import ConfigError
from imagegate.server.descriptors import backlog, raise_descriptor_limit
from imagegate.server.hangup import forwarding_hangup
from imagegate.telemetry.prometheus import FOLDER_VARIABLE

_NEEDED: Final = "serving alone needs uvicorn: pip install 'imagegate[server]'"
_GENERATIONS: Final = (20, 50)
"""Collections of one generation for each of the next; Python's own are ten."""


def create_app() -> standalone.Standalone:
    """Make the application of a process that is ours, where full garbage collections are put off.

    They look through all objects, of which a request in flight has two hundred: with 2,000 in flight they take a
    quarter of the CPU. Young garbage is collected as usual. Raises `ConfigError`.
    """
    app = standalone.create_app()
    gc.collect()
    gc.freeze()
    gc.set_threshold(gc.get_threshold()[0], *_GENERATIONS)
    return app


def run(*, host: str, port: int, workers: int, grace: int, limits: LimitsConfig) -> None:
    """Serve `create_app` until a signal ends it.

    Args:
        workers: processes that share the port.
        grace: seconds that running exchanges have from the signal on.
        limits: of connections and of requests that are not admitted yet.

    Raises:
        ConfigError: uvicorn or its parser is not installed, or the guard does not know this uvicorn.
    """
    try:
        import uvicorn
    except ImportError:
        raise ConfigError(_NEEDED) from None
    if find_spec("httptools") is None:
        raise ConfigError(_NEEDED)
    raise_descriptor_limit()
    http = _guard(limits) if limits.guard else "httptools"
    idle = limits.idle_timeout + (limits.head_timeout if limits.guard else 0)  # the guard's own comes first
    # uvicorn raises the signal that ended it once more; having drained, that is no failure.
    signal.signal(signal.SIGTERM, _exit_well)
    with _shared_metrics(workers), forwarding_hangup(workers):
        uvicorn.run(
            "imagegate.server.run:create_app",
            factory=True,
            host=host,
            port=port,
            workers=workers,
            http=http,
            ws="none",
            backlog=backlog(),
            timeout_keep_alive=ceil(idle),
            access_log=False,  # the gateway writes a line of its own
            log_config=None,  # lines of the server look like the gateway's
            server_header=False,
            timeout_graceful_shutdown=grace,
        )


def _guard(limits: LimitsConfig) -> Any:
    """Return what uvicorn calls as a class of its protocols. Raises `ConfigError`."""
    try:
        from imagegate.server.guard import Guard
    except ImportError:
        raise ConfigError(
            "limits.guard does not know this uvicorn: install one that it was tested with, or set it to false"
        ) from None
    return Guard(limits)


@contextlib.contextmanager
def _shared_metrics(workers: int) -> Generator[None]:
    """Name a folder in which several processes count together, unless the operator has named one."""
    if workers == 1 or os.environ.get(FOLDER_VARIABLE):
        yield
        return
    with tempfile.TemporaryDirectory(prefix="imagegate-metrics-", ignore_cleanup_errors=True) as folder:
        os.environ[FOLDER_VARIABLE] = folder
        try:
            yield
        finally:
            del os.environ[FOLDER_VARIABLE]


def _exit_well(number: int, frame: object) -> None:
    sys.exit(0)
