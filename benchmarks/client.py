"""The least of an HTTP client: what it costs would else be taken for what a proxy costs, in throughput and latency.

Requests are written as they are, replies go through httptools. No redirects, cookies, compression or TLS.
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from typing import cast
from urllib.parse import urlsplit

import httptools


class HungUp(Exception):
    """The server closed the connection before its answer was complete."""


class _Connection(asyncio.Protocol):
    def __init__(self) -> None:
        self._parser = httptools.HttpResponseParser(self)
        self._transport: asyncio.Transport | None = None
        self._answer: asyncio.Future[tuple[int, bytes]] | None = None
        self._pieces: list[bytes] = []
        self.open = True

    def ask(self, pieces: list[bytes]) -> asyncio.Future[tuple[int, bytes]]:
        if self._transport is None or not self.open:
            raise HungUp("before the request")
        self._pieces = []
        self._answer = asyncio.get_running_loop().create_future()
        self._transport.writelines(pieces)
        return self._answer

    def close(self) -> None:
        self.open = False
        if self._transport is not None:
            self._transport.close()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast("asyncio.Transport", transport)

    def data_received(self, data: bytes) -> None:
        try:
            self._parser.feed_data(data)
        except httptools.HttpParserError as error:
            self._fail(f"{error!r} in {data[:100]!r}")

    def connection_lost(self, exc: Exception | None) -> None:
        self._fail(f"no complete answer: {exc or 'connection closed'}")

    def _fail(self, why: str) -> None:
        self.close()
        if self._answer is not None and not self._answer.done():
            self._answer.set_exception(HungUp(why))

    def on_body(self, body: bytes) -> None:
        self._pieces.append(body)

    def on_message_complete(self) -> None:
        if not self._parser.should_keep_alive():
            self.close()
        if self._answer is not None and not self._answer.done():
            self._answer.set_result((self._parser.get_status_code(), b"".join(self._pieces)))


class Client:
    """Connections to any number of servers, kept open."""

    def __init__(self) -> None:
        self._idle: dict[tuple[str, int], list[_Connection]] = {}

    async def open(self, url: str, many: int) -> None:
        """Make connections that wait for their first request."""
        server = _server(url)
        for start in range(0, many, 64):
            made = await asyncio.gather(*(self._connect(server) for _ in range(min(64, many - start))))
            self._idle.setdefault(server, []).extend(made)

    async def ask(
        self, method: str, url: str, headers: Mapping[str, str], body: bytes | None = None
    ) -> tuple[int, bytes]:
        """Send a request, and return status and body of the answer.

        Raises:
            HungUp: there is none, or no whole one.
            OSError: there is nobody.
        """
        server, parts = _server(url), urlsplit(url)
        lines = [f"{method} {parts.path}{'?' * bool(parts.query)}{parts.query} HTTP/1.1", f"host: {parts.netloc}"]
        lines += [f"{name}: {value}" for name, value in headers.items()]
        if body is not None:
            lines.append(f"content-length: {len(body)}")
        head = "\r\n".join([*lines, "", ""]).encode()
        idle = self._idle.setdefault(server, [])
        while idle and not idle[-1].open:
            idle.pop()
        connection = idle.pop() if idle else await self._connect(server)
        try:
            answer = await connection.ask([head, body] if body else [head])
        except BaseException:
            connection.close()
            raise
        if connection.open:
            idle.append(connection)
        return answer

    async def _connect(self, server: tuple[str, int]) -> _Connection:
        _, made = await asyncio.get_running_loop().create_connection(_Connection, *server)
        return made

    def close(self) -> None:
        for connections in self._idle.values():
            for each in connections:
                each.close()


def _server(url: str) -> tuple[str, int]:
    parts = urlsplit(url)
    return parts.hostname or "", parts.port or 80
