"""Replies that say their length twice, from a real server."""

from __future__ import annotations

import asyncio

import pytest

from imagegate.http import HTTPClient, Interrupted, read_body
from imagegate.http.transports.framing import mended_head

BODY = b'{"ok":true}'
LENGTH = b"Content-Length: %d\r\n" % len(BODY)
CHUNKS = b"6\r\n" + BODY[:6] + b"\r\n5\r\n" + BODY[6:] + b"\r\n0\r\n\r\n"
CHUNKED = b"Transfer-Encoding: chunked\r\n"


def answered(
    head: bytes, body: bytes, *, before: bytes = b"", cut: int = 0, requests: int = 1
) -> list[tuple[dict[str, str], bytes]]:
    """What a client reads of a server's bytes, request after request on one connection."""

    async def run() -> list[tuple[dict[str, str], bytes]]:
        async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            whole = before + b"HTTP/1.1 200 OK\r\n" + head + b"\r\n" + body
            for _ in range(requests):
                await reader.readuntil(b"\r\n\r\n")
                for start in range(0, len(whole), cut or len(whole)):
                    writer.write(whole[start : start + (cut or len(whole))])
                    await writer.drain()
                    await asyncio.sleep(0)
            await reader.read()
            writer.close()

        server = await asyncio.start_server(serve, "127.0.0.1", 0)
        client = HTTPClient()
        try:
            found = []
            for _ in range(requests):
                response = await client.send("GET", f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}/")
                found.append((dict(response.headers), await read_body(response, limit=1000)))
            return found
        finally:
            await client.aclose()
            server.close()

    return asyncio.run(run())


@pytest.mark.parametrize("cut", [0, 1, 7])
@pytest.mark.parametrize(
    ("head", "body"),
    [
        (LENGTH, BODY),
        (LENGTH * 2, BODY),
        (LENGTH + b"X-A: b\r\n" + LENGTH.lower() * 2, BODY),
        (b"Content-Length: %d, %d\r\n" % (len(BODY), len(BODY)), BODY),
        (LENGTH + CHUNKED, CHUNKS),
        (CHUNKED + b"content-length: 7\r\n" + LENGTH, CHUNKS),
        (CHUNKED, CHUNKS),
    ],
)
def test_lengths(head: bytes, body: bytes, cut: int) -> None:
    assert [found for _, found in answered(head, body, cut=cut, requests=2)] == [BODY, BODY]


def test_interim_replies() -> None:
    """The head that counts is the last one."""
    hints = b"HTTP/1.1 103 Early Hints\r\nLink: x\r\n\r\n"
    ((headers, body),) = answered(LENGTH * 2, BODY, before=hints, cut=5)
    assert (headers["content-length"], body) == (str(len(BODY)), BODY)


def test_lengths_that_differ() -> None:
    with pytest.raises(Interrupted):
        answered(LENGTH + b"Content-Length: 5\r\n", BODY)


DIFFERENT = b"A\r\nContent-Length: 5\r\nContent-Length: 6\r\n\r\n"
CODED = b"A\r\nTransfer-Encoding: gzip, chunked\r\n\r\n"
OTHER = b"A\r\nX-Content-Length: 5\r\nContent-Length: 5\r\n\r\n"


@pytest.mark.parametrize(
    ("head", "right"),
    [
        (b"HTTP/1.1 200 OK\r\n\r\n", b"HTTP/1.1 200 OK\r\n\r\n"),
        (b"A\r\nContent-Length: 5\r\ncontent-length:5\r\nB: c\r\n\r\n", b"A\r\nContent-Length: 5\r\nB: c\r\n\r\n"),
        (DIFFERENT, DIFFERENT),
        (CODED.replace(b"\r\n\r\n", b"\r\nContent-Length: 5\r\n\r\n"), CODED),
        (OTHER, OTHER),
    ],
)
def test_heads(head: bytes, right: bytes) -> None:
    assert mended_head(head) == right
