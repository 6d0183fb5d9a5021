"""The console: one page that shows the last exchanges and has a playground.

The page itself holds nothing secret and is public; what it shows is behind the gateway's own
keys, each of which sees its own exchanges. Prompts and pictures are kept only where there is a console, in memory, the
last few, and inline images only while they are viewed.
"""

from __future__ import annotations

import asyncio
import base64
import binascii
import hashlib
import os
import re
import time
from collections.abc import Awaitable, Callable, Collection
from functools import cache
from importlib import resources
from typing import Final

import msgspec
from starlette.types import Receive, Scope, Send

from imagegate.access.authenticator import Authenticator, Identity
from imagegate.asgi.browser_guard import BrowserGuard
from imagegate.asgi.helpers import header, route_path, send_error
from imagegate.errors import AuthenticationError, ImagegateError
from imagegate.spool.memory import Share
from imagegate.telemetry.capture import SMALL_ANSWER, Capture
from imagegate.telemetry.console.ring import Entry, Picture, Ring
from imagegate.telemetry.console.thumbnails import thumbnail
from imagegate.telemetry.progress import Progress
from imagegate.telemetry.record import ExchangeRecord

PATH: Final = "/console"
_LARGEST_ANSWER: Final = 12 * 1024**2
"""Bytes of an answer whose pictures are kept."""
IN_FLIGHT: Final = 32 * 1024**2
"""Bytes of all answers together that are kept while they are sent."""
_WATCHED_FOR: Final = 15.0
"""Seconds after a page has asked."""
_SOON: Final = 0.4
"""Seconds: an exchange that ends sooner, as every explanation does, is not shown as running."""
_OPERATIONS: Final = ("generations", "edits", "variations")
_SCRIPTS: Final = ("shared", "rewrite", "references", "mask", "code", "playground", "models", "exchanges", "start")
"""In the order in which they follow each other in the page."""
_PICTURE = re.compile(rf"{PATH}/pictures/([0-9]{{1,12}})/([0-9]{{1,4}})")

Figures = Callable[[str | None], Awaitable[object]]
"""Returns what was spent this month: by the principal of that id, or, where it is None, by everybody."""
LoadPicture = Callable[[str, str, Scope], Awaitable[bytes | None]]
"""Reads a link of an answer: link, upstream, scope of the request that wants to see it."""


def is_console_path(scope: Scope) -> bool:
    path = route_path(scope)
    return scope["method"] in ("GET", "HEAD") and (
        path in (PATH, f"{PATH}/exchanges", f"{PATH}/usage") or _PICTURE.fullmatch(path) is not None
    )


class Console:
    """Serves the page, and is the hook that keeps what it shows.

    Args:
        access: finds out who clients are; each sees what it has asked for itself. None: everybody sees everything.
        operators: names of keys, and ids of the host's principals, that see everything.
        exchanges: how many of the last ones are kept.
        prefix: of the Images API, for the playground.
        guard: refuses what pages of other origins ask for; None: nothing is refused.
        load: reads links of answers.
        running_after: seconds after which an exchange is shown as running.
        room: for answers while they are sent; None: not counted.
    """

    def __init__(
        self,
        *,
        load: LoadPicture,
        access: Authenticator | None = None,
        operators: Collection[str] = (),
        exchanges: int = 50,
        prefix: str = "/v1",
        guard: BrowserGuard | None = None,
        running_after: float = _SOON,
        room: Share | None = None,
    ) -> None:
        self._load = load
        self._access = access
        self._operators = operators
        self._ring = Ring(exchanges)
        self._running: dict[str, tuple[float, Progress]] = {}
        self._prefix = prefix
        self._guard = guard
        self._running_after = running_after
        self._room = room
        self.figures: Figures | None = None
        """Set where spending is counted."""
        self._watched_until = 0.0
        self._instance = os.urandom(8).hex()
        self.enter_loop()

    def reconfigure(self, *, load: LoadPicture, access: Authenticator | None) -> None:
        """Go on under another configuration."""
        self._load, self._access = load, access

    def enter_loop(self) -> None:
        """Begin to serve another event loop, of which the lock then is."""
        self._one_at_a_time = asyncio.Lock()

    def capture(self) -> Capture:
        """Capture a new exchange. Whole pictures are only kept while a page is open."""
        most = _LARGEST_ANSWER if time.monotonic() < self._watched_until else SMALL_ANSWER
        return Capture(most=most, room=self._room)

    def exchange_started(self, progress: Progress) -> None:
        if progress.endpoint in _OPERATIONS:
            self._running[progress.request_id] = (time.time(), progress)

    def exchange_ended(self, record: ExchangeRecord) -> None:
        self._running.pop(record.request_id, None)
        if record.in_background:  # its client was answered in an exchange of its own
            return
        if record.endpoint in _OPERATIONS and record.capture is not None and not record.explained:
            self._ring.add(record)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        try:
            await self._answer(scope, send)
        except ImagegateError as error:
            await send_error(send, error)

    async def _answer(self, scope: Scope, send: Send) -> None:
        path = route_path(scope)
        if self._guard is not None and not (path == PATH and _is_visit(scope)):
            self._guard.check(scope)
        if path == PATH:
            await _send(send, page(self._prefix), "text/html; charset=utf-8", (b"content-security-policy", policy()))
            return
        viewer = None if self._access is None else self._access.known(scope) or await self._access.find(scope)
        self._watched_until = time.monotonic() + _WATCHED_FOR
        if path == f"{PATH}/usage":
            await self._send_usage(viewer, send)
        elif found := _PICTURE.fullmatch(path):
            await self._send_picture(int(found[1]), int(found[2]), viewer, scope, send)
        else:
            await _send(send, self._exchanges(scope, viewer), "application/json")

    def _sees_all(self, viewer: Identity | None) -> bool:
        return viewer is None or viewer.operator_name in self._operators

    def _sees(self, viewer: Identity | None, principal_id: str) -> bool:
        return viewer is None or viewer.principal.id == principal_id or self._sees_all(viewer)

    def _exchanges(self, scope: Scope, viewer: Identity | None) -> bytes:
        # With several workers the page may know entries of another one.
        asked = re.fullmatch(rb"of=([0-9a-f]{16})&after=([0-9]{1,12})", scope.get("query_string", b""))
        entries = self._ring.after(int(asked[2]) if asked and asked[1].decode() == self._instance else 0)
        now = time.time()
        running = [
            {"request_id": name, "began": began, "operation": progress.endpoint, "model": progress.model[:128]}
            for name, (began, progress) in self._running.items()
            if self._sees(viewer, progress.principal_id) and now - began > self._running_after
        ]
        document = {
            "instance": self._instance,
            "now": now,
            "key": "" if viewer is None else viewer.key_name or viewer.user,
            "everybody": self._sees_all(viewer),
            "usage": self.figures is not None,
            "running": running,
            "exchanges": [entry.shown for entry in entries if self._sees(viewer, entry.principal_id)],
        }
        return msgspec.json.encode(document)

    async def _send_usage(self, viewer: Identity | None, send: Send) -> None:
        if self.figures is None:
            raise _NoPicture("Nothing is counted here.")
        whose = None if viewer is None or self._sees_all(viewer) else viewer.principal.id
        await _send(send, msgspec.json.encode(await self.figures(whose)), "application/json")

    async def _send_picture(self, number: int, index: int, viewer: Identity | None, scope: Scope, send: Send) -> None:
        entry = self._ring.get(number)
        if entry is None or not self._sees(viewer, entry.principal_id) or index >= len(entry.pictures):
            raise _NoPicture("There is no such picture.")
        picture = entry.pictures[index]
        async with self._one_at_a_time:  # each may take some memory while it is made small
            if picture.small is None:
                await self._make_small(picture, entry, scope)
                self._ring.trim()
        if picture.small is None:  # not kept, or nothing that a browser shows; no error that its log would complain of
            await send({"type": "http.response.start", "status": 204, "headers": [(b"cache-control", b"no-store")]})
            await send({"type": "http.response.body", "body": b""})
            return
        await _send(send, picture.small.content, picture.small.media_type)

    async def _make_small(self, picture: Picture, entry: Entry, scope: Scope) -> None:
        content = _decoded(picture.base64) if picture.base64 else None
        if picture.link:
            content = await self._load(picture.link, entry.shown["upstream"], scope)
        if content is not None:
            picture.small = await asyncio.to_thread(thumbnail, content)
        picture.base64 = ""


class _NoPicture(ImagegateError):
    status = 404
    type = "invalid_request_error"
    code = "not_found"


def _decoded(text: str) -> bytes | None:
    try:
        return base64.b64decode(text + "=" * (-len(text) % 4))
    except (binascii.Error, ValueError):
        return None


def _is_visit(scope: Scope) -> bool:
    """Return whether a browser loads the page for its own window, as it does where a link leads to it."""
    return header(scope, b"sec-fetch-mode") == b"navigate" and header(scope, b"sec-fetch-dest") == b"document"


async def refuse_console(scope: Scope, receive: Receive, send: Send) -> None:
    """Answer for the console of a gateway without keys that its operator has not switched on.

    Requests from this machine cannot be recognized: a proxy in front connects from it for every client.
    """
    await send_error(
        send,
        AuthenticationError(
            "The console of a gateway without keys is off, because anyone who reaches it could read it. "
            "Set keys, or console.enabled = true in the configuration.",
            status=403,
            code="console_disabled",
        ),
    )


@cache
def _template() -> str:
    """Return the page with its style and script in it."""
    folder = resources.files("imagegate.telemetry.console")
    style = folder.joinpath("page.css").read_text("utf-8")
    script = "\n".join(folder.joinpath("scripts", f"{name}.js").read_text("utf-8") for name in _SCRIPTS)
    text = folder.joinpath("page.html").read_text("utf-8")
    return text.replace("<style></style>", f"<style>\n{style}</style>").replace(
        "<script></script>", f"<script>\n{script}</script>"
    )


@cache
def page(prefix: str) -> bytes:
    """Return the page, which asks the API below `prefix`, a path of plain characters, as the configuration has it."""
    return _template().replace('data-prefix="/v1"', f'data-prefix="{prefix}"', 1).encode()


@cache
def policy() -> bytes:
    """Return the page's Content-Security-Policy: its own script and style by their hashes, nothing from elsewhere."""
    script, style = (_hashes(tag) for tag in ("script", "style"))
    return (
        f"default-src 'none'; script-src {script}; style-src {style}; img-src 'self' blob: data:; connect-src 'self'; "
        "base-uri 'none'; form-action 'none'; frame-ancestors 'none'; require-trusted-types-for 'script'; "
        "trusted-types 'none'"
    ).encode()


def _hashes(tag: str) -> str:
    bodies = re.findall(rf"<{tag}>(.*?)</{tag}>", _template(), re.DOTALL)
    digests = [base64.b64encode(hashlib.sha256(body.encode()).digest()).decode() for body in bodies]
    return " ".join(f"'sha256-{digest}'" for digest in digests)


async def _send(send: Send, body: bytes, content_type: str, *headers: tuple[bytes, bytes]) -> None:
    own = [
        (b"content-type", content_type.encode()),
        (b"content-length", str(len(body)).encode()),
        (b"cache-control", b"no-store"),
        (b"x-content-type-options", b"nosniff"),
        (b"referrer-policy", b"no-referrer"),
        (b"cross-origin-resource-policy", b"same-origin"),
        (b"cross-origin-opener-policy", b"same-origin"),
    ]
    await send({"type": "http.response.start", "status": 200, "headers": [*own, *headers]})
    await send({"type": "http.response.body", "body": body})
