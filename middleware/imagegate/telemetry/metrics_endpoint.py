"""``/metrics`` of a standalone gateway, for one process or for several that share files.

With several processes, prometheus-client keeps values in files of the folder that ``PROMETHEUS_MULTIPROC_DIR`` names;
``imagegate serve --workers N`` makes one and removes it.
"""

from __future__ import annotations

import asyncio
import os
import re
from pathlib import Path
from typing import Any, Final

from prometheus_client import CollectorRegistry, GCCollector, PlatformCollector, ProcessCollector, multiprocess
from prometheus_client.exposition import choose_encoder
from starlette.types import ASGIApp, Receive, Scope, Send

from imagegate.access.authenticator import APIKeys
from imagegate.asgi.browser_guard import BrowserGuard
from imagegate.asgi.helpers import header, route_path, send_error
from imagegate.errors import ImagegateError
from imagegate.telemetry.prometheus import FOLDER_VARIABLE

_multiprocess: Any = multiprocess  # has no types
PATH: Final = "/metrics"
_LIVE_FILE = re.compile(r"gauge_live[a-z]*_([0-9]+)\.db")


class ServeMetrics:
    """Answers ``GET /metrics`` in front of an application, which gets everything else.

    Args:
        registry: the metrics to serve; with several processes, those in the files of all of them.
        key: required in ``Authorization: Bearer``; empty: the page is public.
        guard: refuses what pages of other origins ask for, where there is no key.
    """

    def __init__(
        self, app: ASGIApp, *, registry: CollectorRegistry, key: str = "", guard: BrowserGuard | None = None
    ) -> None:
        self.app = app
        self._keys = APIKeys((key,) if key else ())
        self._guard = None if key else guard
        self._folder = os.environ.get(FOLDER_VARIABLE)
        self._registry = registry
        if self._folder is None:
            ProcessCollector(registry=registry)
            PlatformCollector(registry=registry)
            GCCollector(registry=registry)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http" or scope["method"] not in ("GET", "HEAD") or route_path(scope) != PATH:
            await self.app(scope, receive, send)
            return
        try:
            if self._guard is not None:
                self._guard.check(scope)
            self._keys.name_of(scope)
        except ImagegateError as error:
            await send_error(send, error)
            return
        accept = (header(scope, b"accept") or b"").decode("latin-1")
        encode, content_type = choose_encoder(accept)
        body = await asyncio.to_thread(self._encoded, encode)
        headers = [(b"content-type", content_type.encode()), (b"content-length", str(len(body)).encode())]
        await send({"type": "http.response.start", "status": 200, "headers": headers})
        await send({"type": "http.response.body", "body": body})

    def _encoded(self, encode: Any) -> bytes:
        registry = self._registry
        if self._folder is not None:
            _forget_the_dead(Path(self._folder))
            registry = CollectorRegistry()
            _multiprocess.MultiProcessCollector(registry, path=self._folder)
        body: bytes = encode(registry)
        return body


def _forget_the_dead(folder: Path) -> None:
    """Gauges of processes that have ended, perhaps without a word, no longer count."""
    for file in folder.glob("gauge_live*.db"):
        found = _LIVE_FILE.fullmatch(file.name)
        if found and not _is_alive(int(found[1])):
            _multiprocess.mark_process_dead(int(found[1]), str(folder))


def _is_alive(process: int) -> bool:
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    return True
