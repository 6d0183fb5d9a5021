"""Error boundary of the outermost layer: adds the gateway's response headers and turns errors into responses."""

from __future__ import annotations

from time import perf_counter

from starlette.types import ASGIApp, Message, Receive, Scope, Send

from imagegate.asgi.helpers import send_error
from imagegate.contracts.changes import header_value
from imagegate.errors import ImagegateError, forget_frames
from imagegate.telemetry.progress import PROGRESS_KEY, Progress


class ClientChannel:
    """The outermost `receive` and `send`: count what comes in and goes out, and add the gateway's headers."""

    def __init__(self, receive: Receive, send: Send, progress: Progress) -> None:
        self._receive = receive
        self._send = send
        self._progress = progress
        self._started = perf_counter()
        self.status: int | None = None
        """Of the response, once it has started."""
        self.is_whole = False
        """Whether the response is complete: a disconnect after it is not early."""

    async def receive(self) -> Message:
        """Receive a message of the request."""
        message = await self._receive()
        if body := message.get("body"):
            self._progress.bytes_in += len(body)
        return message

    async def send(self, message: Message) -> None:
        """Send a message of the response."""
        kind = message["type"]
        if kind == "http.response.body":
            self.is_whole = not message.get("more_body", False)
            if body := message.get("body"):
                progress = self._progress
                progress.bytes_out += len(body)
                if progress.first_byte_seconds is None:
                    progress.first_byte_seconds = perf_counter() - self._started
                if progress.capture:
                    progress.capture.answer(body)
        elif kind == "http.response.start":
            self.status = message["status"]
            own = self._headers()
            names = {name for name, _ in own}
            kept = [pair for pair in message.get("headers", ()) if pair[0].lower() not in names]
            message = {**message, "headers": kept + own}
        self._progress.is_client_awaited = True
        await self._send(message)
        self._progress.is_client_awaited = False

    def _headers(self) -> list[tuple[bytes, bytes]]:
        progress = self._progress
        headers: list[tuple[bytes, bytes]] = []
        if progress.request_id:
            headers.append((b"x-request-id", progress.request_id.encode()))
        if progress.upstream:
            headers.append((b"imagegate-upstream", progress.upstream.encode()))
        if not progress.contract:
            headers.append((b"imagegate-contract", b"none"))
        if progress.provenance:
            headers.append((b"imagegate-provenance", progress.provenance.encode()))
        headers += progress.limit_headers
        if changes := progress.changes:
            progress.changes_header = header_value(changes)
            headers.append((b"imagegate-changes", progress.changes_header.encode()))
        return headers


async def answer_errors(handle: ASGIApp, scope: Scope, client: ClientChannel) -> None:
    """Run a layer and send its error as the response; after the response has started, raise it to the server."""
    progress: Progress = scope[PROGRESS_KEY]
    try:
        await handle(scope, client.receive, client.send)
    except ImagegateError as error:
        progress.failed(error)
        if progress.upstream:
            error.details.setdefault("upstream", progress.upstream)
        if client.status is not None:
            raise
        await send_error(client.send, error)
        forget_frames(error)
