"""The applications that are compared, as uvicorn's factories: each reads from the environment what it needs.

Floors and gateway are started by `serve.py` in the same way, so that none of them has a server, an event loop or a
setting of its own.
"""

from __future__ import annotations

import logging
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final

from starlette.types import ASGIApp

UPSTREAM_VARIABLE: Final = "BENCHMARK_UPSTREAM"


def use_config(path: Path) -> None:
    """Name the gateway's configuration, as its documentation says, for this process and its workers."""
    os.environ["IMAGEGATE_CONFIG"] = str(path)
    os.environ["IMAGEGATE_LOG"] = "json"


def alone() -> ASGIApp:
    """Return the gateway by itself: ``uvicorn imagegate.standalone:app``, with log lines, metrics and console."""
    from imagegate import standalone

    return standalone.app


def mounted() -> ASGIApp:
    """Return the gateway in front of a Starlette application, with log lines and metrics as there."""
    from prometheus_client import CollectorRegistry
    from starlette.applications import Starlette
    from starlette.requests import Request
    from starlette.responses import PlainTextResponse
    from starlette.routing import Route

    from imagegate import ImageGateway
    from imagegate.log import LogHook
    from imagegate.prometheus import PrometheusHook

    async def home(request: Request) -> PlainTextResponse:
        return PlainTextResponse("at home")

    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(levelname)s %(name)s %(message)s")
    app = Starlette(routes=[Route("/", home)])
    hooks = [LogHook(), PrometheusHook(registry=CollectorRegistry())]
    app.add_middleware(ImageGateway, config=os.environ["IMAGEGATE_CONFIG"], hooks=hooks)
    return app


def floor_aiohttp() -> ASGIApp:
    from floors import OnAiohttp

    return OnAiohttp(os.environ[UPSTREAM_VARIABLE])


def floor_httpx() -> ASGIApp:
    from floors import OnHttpx

    return OnHttpx(os.environ[UPSTREAM_VARIABLE])


APPS: Final[dict[str, Callable[[], Any]]] = {
    "alone": alone,
    "mounted": mounted,
    "aiohttp": floor_aiohttp,
    "httpx": floor_httpx,
}
