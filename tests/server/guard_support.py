"""An application behind the guard, under a real server, and raw clients of it."""

from __future__ import annotations

import asyncio
import contextlib
import socket
import threading
from collections.abc import Iterator
from typing import Any, NamedTuple

from starlette.types import Receive, Scope, Send

from imagegate.config.schema import LimitsConfig
from imagegate.demo.servers import serving
from imagegate.server.guard import Guard

SECONDS: float = 30.0
"""Until a socket that should have something is given up."""
BIG = 64 * 1024 * 1024
"""Bytes of an answer that no kernel takes whole."""


class Answered(NamedTuple):
    status: int
    headers: dict[str, str]
    body: bytes


class Recorder:
    """Records what it is asked, and answers by the path.

    ``/stop`` stops the event loop until `go_on` is set, ``/early`` is refused before the body is read, ``/wait`` is
    answered once `go_on` is set, ``/big`` never ends soon, everything else is answered once its body is read.
    """

    def __init__(self) -> None:
        self.seen: list[tuple[str, str, bytes]] = []
        """Method, path and body of every request that was read whole."""
        self.begun: list[str] = []
        self.ended: list[str] = []
        self.go_on = threading.Event()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            raise RuntimeError("only HTTP")
        path = scope["path"]
        self.begun.append(path)
        try:
            await self._answer(scope, path, receive, send)
        finally:
            self.ended.append(path)

    async def _answer(self, scope: Scope, path: str, receive: Receive, send: Send) -> None:
        if path == "/stop":  # the event loop itself
            self.go_on.wait(SECONDS)
        if path == "/early":
            await respond(send, 401, b"no")
            return
        body = await whole_body(receive)
        if body is None:
            return
        self.seen.append((scope["method"], path, body))
        if path == "/big":
            headers = [(b"content-length", str(BIG).encode())]
            await send({"type": "http.response.start", "status": 200, "headers": headers})
            for left in range(BIG - 65536, -1, -65536):
                await send({"type": "http.response.body", "body": bytes(65536), "more_body": left > 0})
            return
        while path == "/wait" and not self.go_on.is_set():
            await asyncio.sleep(0.005)
        await respond(send, 200, body)


async def whole_body(receive: Receive) -> bytes | None:
    body = b""
    while True:
        message = await receive()
        if message["type"] == "http.disconnect":
            return None
        body += message.get("body", b"")
        if not message.get("more_body", False):
            return body


async def respond(send: Send, status: int, body: bytes) -> None:
    headers = [(b"content-length", str(len(body)).encode())]
    await send({"type": "http.response.start", "status": status, "headers": headers})
    await send({"type": "http.response.body", "body": body})


class Client:
    """A raw connection."""

    def __init__(self, port: int, *, receive_buffer: int | None = None) -> None:
        self.socket = socket.socket()
        if receive_buffer is not None:
            self.socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, receive_buffer)
        self.socket.settimeout(SECONDS)
        self.socket.connect(("127.0.0.1", port))
        self._received = b""

    def send(self, data: bytes) -> None:
        self.socket.sendall(data)

    def answer(self) -> Answered:
        """The next response."""
        while b"\r\n\r\n" not in self._received:
            self._receive()
        head, _, self._received = self._received.partition(b"\r\n\r\n")
        first, *lines = head.decode("latin-1").split("\r\n")
        headers = {name.lower(): value.strip() for name, _, value in (line.partition(":") for line in lines)}
        length = int(headers.get("content-length", "0"))
        while len(self._received) < length:
            self._receive()
        body, self._received = self._received[:length], self._received[length:]
        return Answered(int(first.split(" ")[1]), headers, body)

    def _receive(self) -> None:
        data = self.socket.recv(65536)
        if not data:
            raise EOFError
        self._received += data

    def is_closed(self) -> bool:
        """Wait until the server has closed the connection, whatever comes before."""
        with contextlib.suppress(ConnectionResetError):
            while self.socket.recv(65536):
                pass
        return True

    def close(self) -> None:
        self.socket.close()


class Server:
    """What a test works with."""

    def __init__(self, port: int, app: Recorder) -> None:
        self.port = port
        self.app = app
        self._clients: list[Client] = []

    def client(self, **options: Any) -> Client:
        self._clients.append(Client(self.port, **options))
        return self._clients[-1]

    def ask(self, data: bytes) -> Answered:
        """The answer to a request on a connection of its own."""
        client = self.client()
        client.send(data)
        return client.answer()

    def close(self) -> None:
        self.app.go_on.set()
        for client in self._clients:
            client.close()


@contextlib.contextmanager
def guarded(**limits: Any) -> Iterator[Server]:
    """Run the application under uvicorn with the guard and these limits."""
    app = Recorder()
    with serving(app, http=Guard(LimitsConfig(**limits))) as port:
        server = Server(port, app)
        try:
            yield server
        finally:
            server.close()
