"""The HTTP client against real servers that behave, and misbehave, on purpose."""

from __future__ import annotations

import asyncio
import contextlib
import errno
import gzip
import inspect
import shutil
import socket
import ssl
import struct
import threading
import tracemalloc
import zlib
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable
from pathlib import Path

import aiohttp
import certifi
import httpx
import pytest
import respx
from tests.certificates import tls_of_images_test
from tests.waiting import TIMEOUT

from imagegate.http import (
    CHUNK,
    DEFAULT_TIMEOUTS,
    AiohttpTransport,
    BodyTooLarge,
    HTTPClient,
    Interrupted,
    NotSent,
    Timeouts,
    close,
    iter_body,
    read_body,
)
from imagegate.http.tls import default_context

pytestmark = pytest.mark.anyio

OK = b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok"
SECRETS = ("127.0.0.1", "localhost", "sk-secret", "token=")


@pytest.fixture
async def client() -> AsyncIterator[HTTPClient]:
    client = HTTPClient()
    yield client
    await client.aclose()


class Origin:
    """A server that notes what it got and leaves every answer to a function."""

    tls: ssl.SSLContext | None = None

    def __init__(self, answer: Callable[[Origin, asyncio.StreamWriter], Awaitable[None]]) -> None:
        self.answer = answer
        self.connections = 0
        self.disconnected = asyncio.Event()
        self.readers: list[asyncio.StreamReader] = []
        self.heads: list[str] = []
        self.bodies: list[bytes] = []
        self.reads_bodies = True
        self._tasks: set[asyncio.Task[None]] = set()

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._tasks.add(task)
        self.connections += 1
        self.readers.append(reader)
        try:
            while not writer.is_closing():
                self.heads.append((await reader.readuntil(b"\r\n\r\n")).decode())
                if self.reads_bodies:
                    self.bodies.append(await read_request_body(reader, self.heads[-1]))
                await self.answer(self, writer)
        except (asyncio.IncompleteReadError, ConnectionError, asyncio.CancelledError):
            pass
        finally:
            self.disconnected.set()
            writer.close()
            self._tasks.discard(task)

    def stop(self) -> None:
        for task in self._tasks:
            task.cancel()

    @contextlib.asynccontextmanager
    async def running(self, tls: ssl.SSLContext | None = None) -> AsyncGenerator[str, None]:
        tls = tls or self.tls
        # In debug mode asyncio reports every handshake that a client breaks off, and anyio fails the test.
        asyncio.get_running_loop().set_debug(False)
        server = await asyncio.start_server(self.serve, "127.0.0.1", 0, ssl=tls)
        async with server:
            port = server.sockets[0].getsockname()[1]
            yield f"{'https' if tls else 'http'}://127.0.0.1:{port}"
            self.stop()


async def read_request_body(reader: asyncio.StreamReader, head: str) -> bytes:
    fields = dict(line.lower().split(": ", 1) for line in head.split("\r\n")[1:] if line)
    if "chunked" not in fields.get("transfer-encoding", ""):
        return await reader.readexactly(int(fields.get("content-length", "0")))
    body = b""
    while size := int(await reader.readuntil(b"\r\n"), 16):
        body += await reader.readexactly(size)
        await reader.readuntil(b"\r\n")
    await reader.readuntil(b"\r\n")
    return body


def says(*parts: bytes) -> Origin:
    """A server that answers every request with the same bytes."""

    async def answer(origin: Origin, writer: asyncio.StreamWriter) -> None:
        for part in parts:
            writer.write(part)
            await writer.drain()

    return Origin(answer)


def says_then_closes(*parts: bytes) -> Origin:
    async def answer(origin: Origin, writer: asyncio.StreamWriter) -> None:
        for part in parts:
            writer.write(part)
            await writer.drain()
        writer.close()

    return Origin(answer)


def says_then_resets(*parts: bytes) -> Origin:
    async def answer(origin: Origin, writer: asyncio.StreamWriter) -> None:
        for part in parts:
            writer.write(part)
            await writer.drain()
        await asyncio.sleep(0.05)  # the client shall see the bytes before the reset takes them away
        reset(writer)

    return Origin(answer)


def reset(writer: asyncio.StreamWriter) -> None:
    sock = writer.get_extra_info("socket")
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    writer.transport.abort()


def says_then_waits(*parts: bytes) -> Origin:
    """A server that keeps the connection open until the client closes it."""

    async def answer(origin: Origin, writer: asyncio.StreamWriter) -> None:
        for part in parts:
            writer.write(part)
        await origin.readers[-1].read()

    return Origin(answer)


def says_then_hangs(*parts: bytes) -> Origin:
    async def answer(origin: Origin, writer: asyncio.StreamWriter) -> None:
        for part in parts:
            writer.write(part)
        await asyncio.Event().wait()

    return Origin(answer)


def closed_port() -> int:
    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))
        port: int = sock.getsockname()[1]
        return port


async def fetch(client: HTTPClient, url: str, timeouts: Timeouts = DEFAULT_TIMEOUTS) -> bytes:
    response = await client.send("POST", url, content=b"{}", timeouts=timeouts)
    return await read_body(response, limit=1 << 20)


# Sending


async def test_sends_the_callers_headers_and_no_others(client: HTTPClient) -> None:
    """Beside the caller's headers only Host and Content-Length go out."""
    async with (origin := says(OK)).running() as url:
        headers = [("Authorization", "Bearer k"), ("X-Twice", "a"), ("X-Twice", "b")]
        response = await client.send("POST", f"{url}/a?b=%2F", headers=headers, content=b"hello")
        await read_body(response, limit=9)

    lines = origin.heads[0].strip().split("\r\n")
    assert lines[0] == "POST /a?b=%2F HTTP/1.1"
    assert sorted(line.lower() for line in lines[1:]) == [
        "authorization: bearer k",
        "content-length: 5",
        f"host: {url.removeprefix('http://')}",
        "x-twice: a",
        "x-twice: b",
    ]
    assert origin.bodies == [b"hello"]


@pytest.mark.parametrize(
    "target", ["/a%2Fb/%C3%A9?x=%20y&sig=a%2Bb%3D&e=", "/a+b;c?d=1,2", "/?next=https://x.test/?q=1%26r"]
)
async def test_sends_the_target_as_it_is(client: HTTPClient, target: str) -> None:
    """Signed URLs keep every percent sign."""
    async with (origin := says(OK)).running() as url:
        await fetch(client, url + target)

    assert origin.heads[0].split(" ")[1] == target


async def test_credentials_in_a_url_become_no_header(client: HTTPClient) -> None:
    """User information in a URL is dropped, not turned into Authorization."""
    async with (origin := says(OK)).running() as url:
        await fetch(client, url.replace("http://", "http://user:secret@"))

    assert "authorization" not in origin.heads[0].lower()


@pytest.mark.parametrize("transport", [None, httpx.AsyncHTTPTransport])
async def test_streams_an_iterable_in_chunks(transport: type[httpx.AsyncHTTPTransport] | None) -> None:
    """An async iterable goes out chunked, whatever the size of its pieces."""

    async def pieces() -> AsyncIterator[bytes]:
        yield b"a"
        yield b""  # would be the end of the body
        yield b"b" * (2 * CHUNK + 1)

    async with (origin := says(OK)).running() as url, own(transport) as client:
        await read_body(await client.send("POST", url, content=pieces()), limit=9)

    assert "transfer-encoding: chunked" in origin.heads[0].lower()
    assert "content-length" not in origin.heads[0].lower()
    assert origin.bodies == [b"a" + b"b" * (2 * CHUNK + 1)]


async def test_chunked_requests_follow_each_other_on_a_connection(client: HTTPClient) -> None:
    """The end of a chunked body is where the server looks for it: the next request is read as one."""

    async def pieces(content: bytes) -> AsyncIterator[bytes]:
        for start in range(0, len(content), 10):
            yield content[start : start + 10]

    contents = [b"0\r\n\r\n" * 9, b"", b"x" * 1000]
    async with (origin := says(OK)).running() as url:
        for content in contents:
            await read_body(await client.send("POST", url, content=pieces(content)), limit=9)

    assert origin.bodies == contents


@contextlib.asynccontextmanager
async def own(transport: type[httpx.AsyncHTTPTransport] | None) -> AsyncGenerator[HTTPClient, None]:
    if transport is None:
        client = HTTPClient()
        yield client
        await client.aclose()
    else:
        async with transport() as opened:
            yield HTTPClient(transport=opened)


async def test_streams_an_iterable_of_known_length(client: HTTPClient) -> None:
    """With a content-length header an iterable goes out in one piece."""

    async def pieces() -> AsyncIterator[bytes]:
        yield b"ab"
        yield b"cd"

    async with (origin := says(OK)).running() as url:
        headers = [("content-length", "4")]
        await read_body(await client.send("POST", url, headers=headers, content=pieces()), limit=9)

    assert "transfer-encoding" not in origin.heads[0].lower()
    assert origin.bodies == [b"abcd"]


@pytest.mark.parametrize("length", ["3", "5"])
async def test_an_iterable_of_the_wrong_length(client: HTTPClient, length: str) -> None:
    """A body shorter or longer than its content-length is not passed off as whole."""

    async def pieces() -> AsyncIterator[bytes]:
        yield b"abcd"

    async with (origin := says(OK)).running() as url:
        with pytest.raises(Interrupted, match="not as long as announced"):
            await client.send("POST", url, headers=[("content-length", length)], content=pieces())
        await origin.disconnected.wait()

    assert origin.bodies == []


@pytest.mark.parametrize("transport", [None, httpx.AsyncHTTPTransport])
async def test_an_error_of_the_iterable_comes_out_as_it_is(
    transport: type[httpx.AsyncHTTPTransport] | None,
) -> None:
    """Whoever makes the body gets his own exception back, and the server no whole request."""

    async def pieces() -> AsyncIterator[bytes]:
        yield b"a"
        raise LookupError("the client went away")

    async with (origin := says(OK)).running() as url, own(transport) as client:
        with pytest.raises(LookupError, match="the client went away"):
            await client.send("POST", url, content=pieces())
        await origin.disconnected.wait()

    assert origin.bodies == []


@pytest.mark.parametrize(
    "error", [FileNotFoundError, TimeoutError, ConnectionResetError, aiohttp.ServerDisconnectedError]
)
async def test_an_error_of_the_iterable_is_not_the_networks(client: HTTPClient, error: type[Exception]) -> None:
    """Also where it looks like one: a file that is gone says nothing about the server."""

    async def pieces() -> AsyncIterator[bytes]:
        yield b"a"
        raise error("mine") from KeyError("why")

    async with says(OK).running() as url:
        with pytest.raises(error, match="mine") as caught:
            await client.send("POST", url, content=pieces())

    assert isinstance(caught.value.__cause__, KeyError)


async def test_an_iterable_that_is_cancelled(client: HTTPClient) -> None:
    """What the body waits for may be cancelled without us; the server gets half a request then."""

    async def pieces() -> AsyncIterator[bytes]:
        yield b"a"
        raise asyncio.CancelledError

    async with (origin := says(OK)).running() as url, asyncio.timeout(TIMEOUT):
        with pytest.raises(Interrupted):
            await client.send("POST", url, content=pieces())
        await origin.disconnected.wait()

    assert origin.bodies == []


@pytest.mark.parametrize("error", [LookupError, asyncio.CancelledError])
async def test_half_a_request_is_followed_by_no_other(client: HTTPClient, error: type[BaseException]) -> None:
    """A body that breaks off after the reply: the server would take the next request for the rest of it."""
    is_answered = asyncio.Event()

    async def pieces() -> AsyncIterator[bytes]:
        yield b"a"
        await is_answered.wait()
        raise error

    async with (origin := says(OK)).running() as url, asyncio.timeout(TIMEOUT):
        origin.reads_bodies = False
        response = await client.send("POST", url, content=pieces())
        is_answered.set()
        await asyncio.sleep(0.05)
        assert await read_body(response, limit=9) == b"ok"
        assert await fetch(client, url) == b"ok"

    assert origin.connections == 2


async def test_a_body_that_breaks_off_while_the_reply_stops(client: HTTPClient) -> None:
    """The reply's reader is told of its silence nevertheless."""
    is_answered = asyncio.Event()

    async def pieces() -> AsyncIterator[bytes]:
        yield b"a"
        await is_answered.wait()
        raise LookupError

    origin = says_then_hangs(CUT["length"])
    origin.reads_bodies = False
    async with origin.running() as url, asyncio.timeout(TIMEOUT):
        response = await client.send("POST", url, content=pieces(), timeouts=Timeouts(read=0.1))
        is_answered.set()
        with pytest.raises(Interrupted, match=r"^the reply stopped for 0\.1 s$"):
            await read_body(response, limit=9)


async def test_a_reply_before_the_end_of_the_body_leaves_no_timer(client: HTTPClient) -> None:
    """Once both are whole nothing is waited for, and the connection serves the next request."""
    is_answered = asyncio.Event()

    async def pieces() -> AsyncIterator[bytes]:
        yield b"a"
        await is_answered.wait()

    async def answer(origin: Origin, writer: asyncio.StreamWriter) -> None:
        writer.write(OK)
        await read_request_body(origin.readers[-1], origin.heads[-1])

    origin = Origin(answer)
    origin.reads_bodies = False
    async with origin.running() as url:
        response = await client.send("POST", url, content=pieces(), timeouts=Timeouts(read=0.1))
        is_answered.set()
        await asyncio.sleep(0.05)
        assert await read_body(response, limit=9) == b"ok"
        await asyncio.sleep(0.2)
        assert await fetch(client, url) == b"ok"


async def test_a_large_body_arrives_whole(client: HTTPClient) -> None:
    """Bytes beyond one piece are written piece by piece."""
    content = bytes(range(256)) * 40_000
    async with (origin := says(OK)).running() as url:
        await read_body(await client.send("POST", url, content=content), limit=9)

    assert origin.bodies == [content]


@pytest.mark.parametrize(
    "header",
    [("x", "b\r\nx-c: d"), ("x", "b\0"), ("x", "é"), ("x a", "b"), ("x:", "b"), ("", "b"), ("é", "b")],
)
async def test_headers_that_http_does_not_allow(client: HTTPClient, header: tuple[str, str]) -> None:
    """Nothing is sent when a header could be read as two, and its value stays out of the text."""
    async with (origin := says(OK)).running() as url:
        with pytest.raises(NotSent, match="a request header holds characters"):
            await client.send("GET", url, headers=[header])

    assert origin.connections == 0


@pytest.mark.parametrize("method", ["", "G T", "GÉT", "GET / HTTP/1.1\r\nx: y\r\n\r\nGET"])
async def test_methods_that_http_does_not_allow(client: HTTPClient, method: str) -> None:
    """A method that could be read as more is not sent."""
    async with (origin := says(OK)).running() as url:
        with pytest.raises(NotSent, match="not a valid HTTP method"):
            await client.send(method, url)

    assert origin.connections == 0


@pytest.mark.parametrize("length", [None, "1"])
async def test_what_frames_the_body_is_said_once(client: HTTPClient, length: str | None) -> None:
    """A caller's transfer-encoding would tell another end of the body than ours."""

    async def pieces() -> AsyncIterator[bytes]:
        yield b"a"

    headers = [("Transfer-Encoding", "chunked"), *([] if length is None else [("Content-Length", length)] * 2)]
    async with (origin := says(OK)).running() as url, asyncio.timeout(TIMEOUT):
        for content in (pieces(), b"a"):
            await read_body(await client.send("POST", url, headers=headers, content=content), limit=9)

    assert [head.lower().count("\r\ntransfer-encoding:") for head in origin.heads] == [int(length is None), 0]
    assert [head.lower().count("\r\ncontent-length:") for head in origin.heads] == [int(length is not None), 1]
    assert origin.bodies == [b"a", b"a"]


@pytest.mark.parametrize("lengths", [["1", "2"], ["x"], ["-1"], ["1_0"], [""]])
async def test_a_length_that_is_none(client: HTTPClient, lengths: list[str]) -> None:
    """Nothing is sent where client and server could take the announced length for two."""

    async def pieces() -> AsyncIterator[bytes]:
        yield b"a"

    async with (origin := says(OK)).running() as url, asyncio.timeout(TIMEOUT):
        with pytest.raises(NotSent, match="not one number"):
            await client.send("POST", url, headers=[("content-length", each) for each in lengths], content=pieces())

    assert origin.heads == []


@pytest.mark.parametrize("url", ["ftp://example.test/", "/images", "http://", "http://a:b/", "http://[::z]/"])
async def test_what_is_no_http_url(client: HTTPClient, url: str) -> None:
    """Other schemes and broken URLs are certainly not sent."""
    with pytest.raises(NotSent, match="not a valid http or https URL"):
        await client.send("GET", url)


async def test_redirects_and_cookies_are_left_alone(client: HTTPClient) -> None:
    """A redirect is the caller's to follow, and nothing of a reply goes into the next request."""
    reply = b"HTTP/1.1 302 Found\r\nlocation: /b\r\nset-cookie: a=b\r\ncontent-length: 0\r\n\r\n"
    async with (origin := says(reply)).running() as url:
        for _ in range(2):
            response = await client.send("GET", url)
            await close(response)
            assert response.status_code == 302

    assert len(origin.heads) == 2
    assert "cookie" not in "".join(origin.heads).lower()


async def test_the_environment_is_ignored(client: HTTPClient, monkeypatch: pytest.MonkeyPatch) -> None:
    """Proxy variables do not divert requests."""
    monkeypatch.setenv("HTTP_PROXY", f"http://127.0.0.1:{closed_port()}")
    monkeypatch.setenv("http_proxy", f"http://127.0.0.1:{closed_port()}")
    async with says(OK).running() as url:
        assert await fetch(client, url) == b"ok"


# Not sent


async def test_connection_refused(client: HTTPClient) -> None:
    """A closed port means that nothing was sent."""
    with pytest.raises(NotSent, match=r"^connection refused$") as caught:
        await client.send("POST", f"http://127.0.0.1:{closed_port()}/", content=b"{}")

    assert not caught.value.timed_out


@pytest.mark.parametrize("transport", [None, httpx.AsyncHTTPTransport])
async def test_refused_through_either_transport(transport: type[httpx.AsyncHTTPTransport] | None) -> None:
    """Both transports tell the same story, also when several addresses were tried."""
    async with own(transport) as client:
        with pytest.raises(NotSent, match=r"^connection refused$"):
            await client.send("POST", f"http://localhost:{closed_port()}/", content=b"{}")


async def test_the_reason_may_be_inside_a_group() -> None:
    """Several addresses fail with a group of errors; the first of them tells why."""

    def handler(request: httpx.Request) -> httpx.Response:
        refused = ConnectionRefusedError(errno.ECONNREFUSED, "refused")
        raise httpx.ConnectError("failed") from ExceptionGroup("failed", [TimeoutError(), refused])

    client = HTTPClient(transport=httpx.MockTransport(handler))
    with pytest.raises(NotSent, match=r"^connection refused$"):
        await client.send("POST", "http://example.test/")


@pytest.mark.parametrize("host", ["nowhere.test", f"{'a' * 64}.test"])
async def test_name_not_resolved(client: HTTPClient, monkeypatch: pytest.MonkeyPatch, host: str) -> None:
    """An unknown name, or one that DNS cannot hold, means that nothing was sent."""

    def getaddrinfo(host: str, *_: object, **__: object) -> list[object]:
        host.encode("idna")  # as the real one
        raise socket.gaierror(socket.EAI_NONAME, "Name or service not known")

    monkeypatch.setattr(socket, "getaddrinfo", getaddrinfo)
    with pytest.raises(NotSent, match=r"^(name not resolved|cannot connect)$"):
        await client.send("POST", f"http://{host}/", content=b"{}")


@pytest.fixture
def lookup_ends(monkeypatch: pytest.MonkeyPatch) -> threading.Event:
    """Looking up a name takes until this is set, and finds nothing."""
    goes_on = threading.Event()

    def getaddrinfo(*_: object, **__: object) -> list[object]:
        goes_on.wait(5)
        raise socket.gaierror(socket.EAI_NONAME, "Name or service not known")

    monkeypatch.setattr(socket, "getaddrinfo", getaddrinfo)
    return goes_on


async def test_closing_the_client_during_a_lookup(client: HTTPClient, lookup_ends: threading.Event) -> None:
    """Who waits for it was not cancelled and is not told so."""
    sending = [asyncio.create_task(client.send("POST", "http://nowhere.test/")) for _ in range(2)]
    await asyncio.sleep(0.05)
    await client.aclose()
    lookup_ends.set()
    for failure in await asyncio.gather(*sending, return_exceptions=True):
        assert isinstance(failure, NotSent)


async def test_cancelling_a_sender_during_a_lookup(client: HTTPClient, lookup_ends: threading.Event) -> None:
    """Who was cancelled is told so."""
    sending = asyncio.create_task(client.send("POST", "http://nowhere.test/"))
    await asyncio.sleep(0.05)
    sending.cancel()
    await client.aclose()
    lookup_ends.set()
    with pytest.raises(asyncio.CancelledError):
        await sending


async def test_tls_with_a_server_that_does_not_speak_it(client: HTTPClient) -> None:
    """A failed handshake means that nothing was sent."""

    async def greet(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(b"220 mail.example.test ESMTP\r\n")
        await reader.read()
        writer.close()

    async with await asyncio.start_server(greet, "127.0.0.1", 0) as server:
        port = server.sockets[0].getsockname()[1]
        with pytest.raises(NotSent, match=r"^TLS handshake failed$"):
            await client.send("POST", f"https://127.0.0.1:{port}/", content=b"{}")


async def test_connect_timeout(client: HTTPClient) -> None:
    """A server that accepts and then keeps silent in the handshake never got the request."""
    async with says(OK).running() as url:
        with pytest.raises(NotSent, match=r"^no connection within 0\.1 s$") as caught:
            await client.send("POST", url.replace("http", "https"), timeouts=Timeouts(connect=0.1))

    assert caught.value.timed_out


# Perhaps sent


@pytest.mark.parametrize("origin", [says_then_closes, says_then_resets])
async def test_no_reply_at_all(client: HTTPClient, origin: Callable[[], Origin]) -> None:
    """A POST that the server took, and did not answer, counts as perhaps sent, and is sent once."""
    async with (server := origin()).running() as url:
        with pytest.raises(Interrupted, match=r"^connection closed without a reply$") as caught:
            await fetch(client, url)

    assert not caught.value.timed_out
    assert len(server.heads) == 1


async def test_no_second_post_on_a_kept_connection(client: HTTPClient) -> None:
    """A server that drops a kept connection at the second POST gets that POST once."""

    async def answer(origin: Origin, writer: asyncio.StreamWriter) -> None:
        if len(origin.heads) == 1:
            writer.write(OK)
        else:
            writer.close()

    async with (origin := Origin(answer)).running() as url:
        assert await fetch(client, url) == b"ok"
        with pytest.raises(Interrupted, match="without a reply"):
            await fetch(client, url)

    assert (origin.connections, len(origin.heads)) == (1, 2)


async def test_what_does_nothing_twice_is_sent_again_once(client: HTTPClient) -> None:
    """A GET that a kept connection did not answer goes out a second time, and not a third."""

    async def answer(origin: Origin, writer: asyncio.StreamWriter) -> None:
        if len(origin.heads) in (1, 3):
            writer.write(OK)
        else:
            writer.close()

    async with (origin := Origin(answer)).running() as url:
        for _ in range(2):
            assert await read_body(await client.send("GET", url), limit=9) == b"ok"
        with pytest.raises(Interrupted, match="without a reply"):
            await client.send("GET", url)

    assert len(origin.heads) == 5


async def test_what_was_perhaps_sent_once_is_never_not_sent(client: HTTPClient) -> None:
    """A server that takes a PUT and goes away has perhaps done it, though the second attempt reaches nobody."""

    async def take_and_go(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        server.close()
        writer.close()

    async with await asyncio.start_server(take_and_go, "127.0.0.1", 0) as server:
        port = server.sockets[0].getsockname()[1]
        with pytest.raises(Interrupted, match="without a reply"):
            await client.send("PUT", f"http://127.0.0.1:{port}/")


async def test_a_body_that_is_read_once_is_sent_once(client: HTTPClient) -> None:
    """A PUT could go out again, but what its iterable gave is gone."""

    async def pieces() -> AsyncIterator[bytes]:
        yield b"a"

    async with (origin := says_then_closes()).running() as url:
        with pytest.raises(Interrupted, match="without a reply"):
            await client.send("PUT", url, content=pieces())

    assert origin.bodies == [b"a"]


CUT = {
    "length": b"HTTP/1.1 200 OK\r\ncontent-length: 9\r\n\r\nabc",
    "chunked": b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n3\r\nabc\r\n",
    "inside a chunk": b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n9\r\nabc",
}


@pytest.mark.parametrize("origin", [says_then_closes, says_then_resets])
@pytest.mark.parametrize("reply", CUT.values(), ids=CUT)
async def test_a_cut_body(client: HTTPClient, origin: Callable[[bytes], Origin], reply: bytes) -> None:
    """A reply that ends too early is an error, not a shorter reply."""
    async with (server := origin(reply)).running() as url:
        response = await client.send("POST", url, content=b"{}")
        with pytest.raises(Interrupted, match=r"^connection closed before the reply was complete$"):
            await read_body(response, limit=1 << 20)

    assert len(server.heads) == 1


async def test_a_damaged_body(client: HTTPClient) -> None:
    """A chunk that is none ends the reply at once, though the server keeps the connection open."""
    goes_on = asyncio.Event()

    async def answer(origin: Origin, writer: asyncio.StreamWriter) -> None:
        writer.write(CUT["chunked"])
        await goes_on.wait()
        writer.write(b"zz\r\n")
        await asyncio.Event().wait()

    async with Origin(answer).running() as url:
        response = await client.send("POST", url, content=b"{}")
        goes_on.set()
        with pytest.raises(Interrupted):
            await read_body(response, limit=1 << 20)


async def test_a_body_that_ends_with_the_connection(client: HTTPClient) -> None:
    """Without length and chunks the end of the connection is the end of the body."""
    async with says_then_closes(b"HTTP/1.1 200 OK\r\n\r\nabc").running() as url:
        assert await fetch(client, url) == b"abc"


async def test_a_cut_head(client: HTTPClient) -> None:
    """Half a head is no reply."""
    async with says_then_closes(b"HTTP/1.1 200 OK\r\ncontent-le").running() as url:
        with pytest.raises(Interrupted, match=r"^connection closed without a reply$"):
            await fetch(client, url)


@pytest.mark.parametrize("transport", [None, httpx.AsyncHTTPTransport])
async def test_what_is_not_http(transport: type[httpx.AsyncHTTPTransport] | None) -> None:
    """Garbage instead of a head is named as such."""
    async with says(b"SSH-2.0-OpenSSH_9.9\r\n\r\n").running() as url, own(transport) as client:
        with pytest.raises(Interrupted, match=r"^the reply is not valid HTTP$"):
            await fetch(client, url)


async def test_slow_head(client: HTTPClient) -> None:
    """Silence after the request is an interruption that timed out."""
    async with (origin := says_then_hangs()).running() as url:
        with pytest.raises(Interrupted, match=r"^no reply within 0\.1 s$") as caught:
            await fetch(client, url, timeouts=Timeouts(read=0.1))

    assert caught.value.timed_out
    assert len(origin.heads) == 1


@pytest.mark.parametrize("size", [2, 1 << 20])
async def test_silence_after_an_interim_reply(client: HTTPClient, size: int) -> None:
    """A server that says to go on, and no more, has not answered."""
    async with says_then_hangs(b"HTTP/1.1 100 Continue\r\n\r\n").running() as url, asyncio.timeout(TIMEOUT):
        with pytest.raises(Interrupted, match=r"^no reply within 0\.1 s$"):
            await client.send("POST", url, content=bytes(size), timeouts=Timeouts(read=0.1))


async def test_slow_body(client: HTTPClient) -> None:
    """Silence in mid-body is one too."""
    async with says_then_hangs(CUT["length"]).running() as url:
        response = await client.send("POST", url, timeouts=Timeouts(read=0.1))
        with pytest.raises(Interrupted, match=r"^the reply stopped for 0\.1 s$") as caught:
            await read_body(response, limit=9)

    assert caught.value.timed_out


LONG = bytes(range(256)) * (12 * CHUNK // 256)
HEADS = {
    "length": b"HTTP/1.1 200 OK\r\ncontent-length: %d\r\n\r\n" % len(LONG),
    "chunked": b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n%x\r\n" % len(LONG),
}
ENDS = {"length": b"", "chunked": b"\r\n0\r\n\r\n"}
framings = pytest.mark.parametrize("framing", HEADS)


@framings
async def test_long_bodies_keep_their_connection(client: HTTPClient, framing: str) -> None:
    """Whole, byte for byte, whoever is slower; and the connection serves the next request."""
    async with (origin := says(HEADS[framing], LONG, ENDS[framing])).running() as url:
        for pause in (None, 0, 0.005):
            response = await client.send("POST", url)
            body = b""
            async for piece in iter_body(response):
                body += piece
                if pause is not None:
                    await asyncio.sleep(pause)
            await close(response)
            assert body == LONG

    assert origin.connections == 1


@framings
async def test_a_long_body_that_stops(client: HTTPClient, framing: str) -> None:
    """Silence in mid-body is an interruption that timed out also after many pieces."""
    async with says_then_hangs(HEADS[framing], LONG[:-1]).running() as url:
        response = await client.send("POST", url, timeouts=Timeouts(read=0.2))
        with pytest.raises(Interrupted, match=r"^the reply stopped for 0\.2 s$") as caught:
            await read_body(response, limit=len(LONG))

    assert caught.value.timed_out


@framings
async def test_a_reader_who_takes_his_time(client: HTTPClient, framing: str) -> None:
    """The silence that counts is the server's."""
    async with says(HEADS[framing], LONG, ENDS[framing]).running() as url:
        response = await client.send("POST", url, timeouts=Timeouts(read=0.1))
        pieces: list[bytes] = []
        async for piece in iter_body(response):
            pieces.append(piece)
            if len(pieces) in (2, 8):
                await asyncio.sleep(0.3)
        await close(response)

    assert b"".join(pieces) == LONG


@framings
@pytest.mark.parametrize("ending", [says_then_closes, says_then_resets])
async def test_a_long_body_that_is_cut(client: HTTPClient, ending: Callable[..., Origin], framing: str) -> None:
    """One byte before its end."""
    async with ending(HEADS[framing], LONG[:-1]).running() as url:
        response = await client.send("POST", url)
        with pytest.raises(Interrupted, match=r"^connection closed before the reply was complete$"):
            await read_body(response, limit=len(LONG))


@framings
async def test_a_long_body_after_which_the_server_hangs_up(client: HTTPClient, framing: str) -> None:
    """What has come in whole stays readable."""
    async with (origin := says_then_closes(HEADS[framing], LONG, ENDS[framing])).running() as url:
        response = await client.send("POST", url)
        body = b""
        async for piece in iter_body(response):
            body += piece
            if len(LONG) - len(body) <= 2 * CHUNK and not origin.disconnected.is_set():
                await origin.disconnected.wait()
                await asyncio.sleep(0.05)
        await close(response)

    assert body == LONG


async def test_a_long_body_with_more_after_it(client: HTTPClient) -> None:
    """What nobody has asked for is nobody's reply; from then on each request has a connection of its own."""
    async with (origin := says(HEADS["length"], LONG + OK)).running() as url:
        response = await client.send("POST", url)
        assert await read_body(response, limit=len(LONG)) == LONG
        with pytest.raises(Interrupted, match="a reply before the request"):
            await client.send("POST", url)
        for _ in range(2):
            response = await client.send("POST", url)
            assert await read_body(response, limit=len(LONG)) == LONG

    assert origin.connections == 3


@pytest.mark.parametrize("size", [2, 12 * CHUNK])
@pytest.mark.parametrize("late", [OK, b"junk"], ids=["a reply", "junk"])
async def test_what_comes_on_an_idle_connection_answers_nobody(client: HTTPClient, size: int, late: bytes) -> None:
    """A server that says more than it was asked, a moment later, is not believed the next time."""
    sent_late = asyncio.Event()

    async def answer(origin: Origin, writer: asyncio.StreamWriter) -> None:
        number = b"%d" % len(origin.heads)
        writer.write(b"HTTP/1.1 200 OK\r\ncontent-length: %d\r\n\r\n" % size + number * size)
        await writer.drain()
        if number == b"1":
            await asyncio.sleep(0.05)
            writer.write(late)
            await writer.drain()
            sent_late.set()

    async with (origin := Origin(answer)).running() as url:
        taken = 0
        for number in range(1, 9):
            try:
                response = await client.send("POST", url)
            except Interrupted:
                continue
            taken += 1
            body = await read_body(response, limit=size)
            assert set(body) == set(b"%d" % len(origin.heads)), number
            await sent_late.wait()
            await asyncio.sleep(0.05)
        assert taken >= 7
        assert await read_body(await client.send("GET", url), limit=size)


async def test_leaving_a_long_body_drops_its_connection(client: HTTPClient) -> None:
    """In its midst; no timer stays behind."""
    async with (origin := says(HEADS["length"], LONG)).running() as url:
        response = await client.send("POST", url)
        size = 0
        async for piece in iter_body(response):
            size += len(piece)
            if size > len(LONG) // 2:
                break
        await close(response)
        await asyncio.wait_for(origin.disconnected.wait(), 5)
        assert await read_body(await client.send("POST", url), limit=len(LONG)) == LONG


@pytest.mark.parametrize("chunked", [True, False])
async def test_a_server_that_reads_no_more(client: HTTPClient, chunked: bool) -> None:
    """A body that nobody takes stops after `write` seconds."""

    async def pieces() -> AsyncIterator[bytes]:
        for _ in range(64):
            yield bytes(CHUNK)

    origin = says_then_hangs()
    origin.reads_bodies = False
    async with origin.running() as url:
        content = pieces() if chunked else bytes(64 * CHUNK)
        with pytest.raises(Interrupted, match=r"took no more of the request for 0\.1 s$") as caught:
            await client.send("POST", url, content=content, timeouts=Timeouts(write=0.1))

    assert caught.value.timed_out


@pytest.mark.parametrize("leaving", ["late", "cancelled", "refused"])
async def test_a_server_that_reads_no_more_keeps_no_connection(leaving: str) -> None:
    """What it did not take is dropped, and the socket with it."""
    has_left = asyncio.Event()

    async def answer(origin: Origin, writer: asyncio.StreamWriter) -> None:
        if leaving == "refused":
            writer.write(b"HTTP/1.1 413 Too Large\r\ncontent-length: 2\r\n\r\nno")
        await has_left.wait()
        while True:  # to somebody who is gone
            writer.write(b"x")
            await writer.drain()
            await asyncio.sleep(0.01)

    origin = Origin(answer)
    origin.reads_bodies = False
    async with origin.running() as url, AiohttpTransport() as transport:
        client = HTTPClient(transport=transport)
        write = 0.1 if leaving == "late" else 60
        sending = asyncio.create_task(
            client.send("POST", url, content=bytes(64 * CHUNK), timeouts=Timeouts(write=write))
        )
        if leaving == "refused":
            assert await read_body(await sending, limit=9) == b"no"
        else:
            await asyncio.sleep(0.05)
            if leaving == "cancelled":
                sending.cancel()
            with pytest.raises((Interrupted, asyncio.CancelledError)):
                await sending
        has_left.set()
        await asyncio.wait_for(origin.disconnected.wait(), 5)


async def test_closing_the_client_waits_for_no_server(client: HTTPClient) -> None:
    """A server that reads no more would never let a connection end as usual."""
    origin = says_then_hangs()
    origin.reads_bodies = False
    async with origin.running() as url:
        sending = asyncio.create_task(client.send("POST", url, content=bytes(64 * CHUNK)))
        await asyncio.sleep(0.05)
        await asyncio.wait_for(client.aclose(), 5)
        with pytest.raises(Interrupted):
            await sending


async def test_a_reply_before_the_body_was_read(client: HTTPClient) -> None:
    """A server may refuse a body that it did not read; the refusal comes through."""
    refusal = b"HTTP/1.1 413 Too Large\r\ncontent-length: 2\r\n\r\nno"
    origin = says_then_hangs(refusal)
    origin.reads_bodies = False
    async with origin.running() as url:
        response = await client.send("POST", url, content=bytes(64 * CHUNK))

        assert response.status_code == 413
        assert await read_body(response, limit=9) == b"no"


async def test_leaving_while_the_body_goes_out(client: HTTPClient) -> None:
    """A sender who is cancelled asks for no more of his iterable."""
    asked = 0

    async def pieces() -> AsyncIterator[bytes]:
        nonlocal asked
        while True:
            asked += 1
            yield b"a"
            await asyncio.sleep(0.01)

    async with (origin := says_then_hangs()).running() as url:
        sender = asyncio.create_task(client.send("POST", url, content=pieces()))
        while not asked:
            await asyncio.sleep(0.01)
        sender.cancel()
        with pytest.raises(asyncio.CancelledError):
            await sender
        await asyncio.wait_for(origin.disconnected.wait(), 5)
        before = asked
        await asyncio.sleep(0.05)

    assert asked == before


async def test_a_refusal_ends_the_upload(client: HTTPClient) -> None:
    """Once the refusal is read nobody sends the rest, and the connection serves nobody else."""
    ended = asyncio.Event()

    async def pieces() -> AsyncIterator[bytes]:
        try:
            while True:
                yield bytes(1000)
                await asyncio.sleep(0.01)
        finally:
            ended.set()

    async def answer(origin: Origin, writer: asyncio.StreamWriter) -> None:
        writer.write(b"HTTP/1.1 413 Too Large\r\ncontent-length: 2\r\n\r\nno")
        await origin.readers[-1].read()

    origin = Origin(answer)
    origin.reads_bodies = False
    async with origin.running() as url:
        response = await client.send("POST", url, content=pieces())
        assert (response.status_code, await read_body(response, limit=9)) == (413, b"no")
        await asyncio.wait_for(origin.disconnected.wait(), 5)
        await asyncio.wait_for(ended.wait(), 5)


# Replies


@pytest.mark.parametrize("early", [b"HTTP/1.1 100 Continue\r\n\r\n", b"HTTP/1.1 103 Early Hints\r\nlink: </a>\r\n\r\n"])
async def test_what_comes_before_the_reply_is_none(client: HTTPClient, early: bytes) -> None:
    """Interim replies are passed over, as many as there are, and leave no timer."""
    async with (origin := says(early + early + OK)).running() as url:
        for _ in range(2):
            assert await fetch(client, url, Timeouts(read=0.1)) == b"ok"
            await asyncio.sleep(0.2)

    assert origin.connections == 1


@pytest.mark.parametrize(
    ("method", "status"), [("HEAD", b"200 OK"), ("GET", b"304 Not Modified"), ("POST", b"204 No Content")]
)
async def test_replies_without_a_body(client: HTTPClient, method: str, status: bytes) -> None:
    """Whatever length they tell, nothing follows, and the connection goes on."""
    async with (origin := says(b"HTTP/1.1 %b\r\ncontent-length: 9\r\n\r\n" % status)).running() as url:
        for _ in range(2):
            response = await client.send(method, url)
            assert response.headers["content-length"] == "9"
            assert await read_body(response, limit=9) == b""

    assert origin.connections == 1


async def test_a_small_reply_gives_its_connection_back_at_once(client: HTTPClient) -> None:
    """Whoever looks at it for long keeps nobody waiting."""
    async with (origin := says(OK)).running() as url:
        first = await client.send("POST", url)
        assert await fetch(client, url) == b"ok"
        assert await read_body(first, limit=9) == b"ok"

    assert origin.connections == 1


async def test_a_server_that_changes_the_protocol(client: HTTPClient) -> None:
    """Nobody has asked for another one, so it has not answered, and its connection is no use."""
    async with (origin := says(b"HTTP/1.1 101 Switching\r\n\r\n")).running() as url:
        for _ in range(2):
            with pytest.raises(Interrupted, match="changed the protocol"):
                await client.send("POST", url)

    assert origin.connections == 2


@pytest.mark.filterwarnings("ignore:unclosed transport:ResourceWarning")  # of the loop that has ended
def test_a_pool_outlives_its_event_loop() -> None:
    """A program may run several loops one after the other; the connections of the last one are not used again."""
    pool = AiohttpTransport()

    async def once() -> None:
        async with says(OK).running() as url:
            assert await fetch(HTTPClient(transport=pool), url) == b"ok"

    for _ in range(2):
        asyncio.run(once())
    asyncio.run(pool.aclose())


# Connections


async def test_keeps_connections(client: HTTPClient) -> None:
    """Requests one after the other share a connection."""
    async with (origin := says(OK)).running() as url:
        for _ in range(3):
            assert await fetch(client, url) == b"ok"

    assert origin.connections == 1


@pytest.mark.parametrize("version", ["1.0", "1.1"])
@pytest.mark.parametrize("says_so", [b"", b"connection: keep-alive\r\n"])
async def test_no_connection_is_kept_after_an_error_of_the_server(version: str, says_so: bytes) -> None:
    """Servers whose application fails answer, and then close the connection without a word of it."""
    head = f"HTTP/{version} 500 Internal Server Error\r\ncontent-length: 2\r\n".encode() + says_so + b"\r\nno"
    async with (origin := says(head)).running() as url, AiohttpTransport(keepalive_expiry=30) as transport:
        for _ in range(3):
            assert await fetch(HTTPClient(transport=transport), url) == b"no"
    assert origin.connections == 3


async def test_lets_idle_connections_go() -> None:
    """A connection that was idle for longer than the expiry is not used again."""
    async with (origin := says(OK)).running() as url, AiohttpTransport(keepalive_expiry=0.01) as transport:
        client = HTTPClient(transport=transport)
        assert await fetch(client, url) == b"ok"
        await asyncio.sleep(0.1)
        assert await fetch(client, url) == b"ok"

    assert origin.connections == 2


async def test_the_default_expiry_is_shorter_than_the_servers() -> None:
    """Many servers close after five seconds, some after two; we must be first."""
    assert inspect.signature(AiohttpTransport).parameters["keepalive_expiry"].default <= 1


async def test_a_server_that_closes_idle_connections(client: HTTPClient) -> None:
    """A connection that the server closed while idle costs no request, and no second POST."""

    async def answer(origin: Origin, writer: asyncio.StreamWriter) -> None:
        writer.write(OK)
        await writer.drain()
        writer.close()

    async with (origin := Origin(answer)).running() as url:
        for _ in range(3):
            assert await fetch(client, url) == b"ok"
            await origin.disconnected.wait()
            await asyncio.sleep(0.05)

    assert (origin.connections, len(origin.heads)) == (3, 3)


async def test_closing_an_unread_reply_drops_its_connection(client: HTTPClient) -> None:
    """Nobody reads a large body just to keep a connection."""
    origin = says_then_waits(b"HTTP/1.1 200 OK\r\ncontent-length: 100000000\r\n\r\n", bytes(CHUNK))
    async with origin.running() as url:
        response = await client.send("POST", url, content=b"{}")
        await close(response)

        await origin.disconnected.wait()


async def test_cancelling_a_reader_leaves_the_pool_usable() -> None:
    """A reader cancelled in mid-body frees its slot and its connection, and the next request works."""
    origin = says_then_waits(CUT["length"])
    async with origin.running() as url, AiohttpTransport() as transport:
        client = HTTPClient(transport=transport)
        response = await client.send("POST", url, content=b"{}")
        reader = asyncio.create_task(read_body(response, limit=99))
        await asyncio.sleep(0.05)
        reader.cancel()
        with pytest.raises(asyncio.CancelledError):
            await reader
        assert response.is_closed
        await origin.disconnected.wait()

        origin.answer = says(OK).answer
        assert await fetch(client, url) == b"ok"


async def test_cancelling_a_sender_leaves_the_pool_usable() -> None:
    """A sender cancelled while it waits for the head frees its slot too."""
    async with (origin := says_then_hangs()).running() as url, AiohttpTransport() as transport:
        client = HTTPClient(transport=transport)
        sender = asyncio.create_task(client.send("POST", url, content=b"{}"))
        while not origin.heads:
            await asyncio.sleep(0.01)
        sender.cancel()
        with pytest.raises(asyncio.CancelledError):
            await sender

        origin.answer = says(OK).answer
        assert await fetch(client, url) == b"ok"


async def test_close_survives_cancellation() -> None:
    """A reply is closed even if the closing task is cancelled at that very moment."""
    release = asyncio.Event()
    closed = asyncio.Event()

    class Body(httpx.AsyncByteStream):
        async def __aiter__(self) -> AsyncIterator[bytes]:
            yield b""

        async def aclose(self) -> None:
            await release.wait()
            closed.set()

    client = HTTPClient(transport=httpx.MockTransport(lambda request: httpx.Response(200, stream=Body())))
    closing = asyncio.create_task(close(await client.send("GET", "http://example.test/")))
    await asyncio.sleep(0)
    closing.cancel()
    with pytest.raises(asyncio.CancelledError):
        await closing
    release.set()

    await asyncio.wait_for(closed.wait(), 5)


async def test_closing_the_client_wakes_readers() -> None:
    """Who still reads when the client is closed gets an error instead of waiting for ever."""
    client = HTTPClient()
    async with says_then_hangs(CUT["length"]).running() as url:
        response = await client.send("POST", url, content=b"{}")
        reader = asyncio.create_task(read_body(response, limit=99))
        await asyncio.sleep(0.05)
        await client.aclose()

        with pytest.raises(Interrupted, match="before the reply was complete"):
            await asyncio.wait_for(reader, 5)


async def test_a_transport_of_the_caller_stays_open() -> None:
    """The client closes only what it made."""
    async with says(OK).running() as url, AiohttpTransport() as transport:
        client = HTTPClient(transport=transport)
        await client.aclose()

        assert await fetch(client, url) == b"ok"


# Reading


def reply(body: bytes, encoding: str = "") -> bytes:
    return b"HTTP/1.1 200 OK\r\ncontent-encoding: %b\r\ncontent-length: %d\r\n\r\n%b" % (
        encoding.encode(),
        len(body),
        body,
    )


@pytest.mark.parametrize(
    ("encoding", "body"),
    [
        ("", b"picture" * 100),
        ("identity", b"picture" * 100),
        ("gzip", gzip.compress(b"picture" * 100)),
        ("x-gzip", gzip.compress(b"picture" * 100)),
        (" GZIP , identity", gzip.compress(b"picture" * 100)),
        ("gzip", gzip.compress(b"picture" * 40) + gzip.compress(b"picture" * 60)),
        ("deflate", zlib.compress(b"picture" * 100)),
    ],
)
async def test_undoes_encodings(client: HTTPClient, encoding: str, body: bytes) -> None:
    """gzip, also in several members, and deflate come out plain."""
    async with says(reply(body, encoding)).running() as url:
        assert await fetch(client, url) == b"picture" * 100


async def test_an_empty_encoded_body(client: HTTPClient) -> None:
    """No bytes at all are not a damaged gzip stream."""
    async with says(reply(b"", "gzip")).running() as url:
        assert await fetch(client, url) == b""


@pytest.mark.parametrize(
    ("encoding", "body", "text"),
    [
        ("gzip", gzip.compress(b"picture")[:-1], "connection closed before the reply was complete"),
        ("gzip", b"picture", "the compressed reply is damaged"),
        ("gzip", gzip.compress(b"picture") + b"!", "the compressed reply is damaged|was complete"),
        ("br", b"picture", "the reply is compressed in a way that was not asked for"),
        ("gzip, gzip", gzip.compress(gzip.compress(b"picture")), "not asked for"),
    ],
)
async def test_encodings_that_fail(client: HTTPClient, encoding: str, body: bytes, text: str) -> None:
    """A cut, damaged, unknown or nested encoding is an error, never a shorter body."""
    async with says(reply(body, encoding)).running() as url:
        with pytest.raises(Interrupted, match=text):
            await fetch(client, url)


@pytest.mark.parametrize("encoding", ["", "gzip"])
async def test_the_limit_is_exact(client: HTTPClient, encoding: str) -> None:
    """A body of `limit` bytes is read, one more is too many, and the connection is given up."""
    body = gzip.compress(bytes(9)) if encoding else bytes(9)
    async with says(reply(body, encoding)).running() as url:
        assert await read_body(await client.send("POST", url), limit=9) == bytes(9)
        response = await client.send("POST", url)
        with pytest.raises(BodyTooLarge) as caught:
            await read_body(response, limit=8)

    assert caught.value.limit == 8
    assert response.is_closed


async def test_a_bomb_is_caught_at_the_limit(client: HTTPClient) -> None:
    """A gibibyte in one network chunk costs little more than the limit."""
    squeeze = zlib.compressobj(9, wbits=31)
    bomb = b"".join(squeeze.compress(bytes(1 << 20)) for _ in range(128)) + squeeze.flush()
    assert len(bomb) < CHUNK
    async with says(reply(bomb, "gzip")).running() as url:
        tracemalloc.start()
        with pytest.raises(BodyTooLarge):
            await read_body(await client.send("POST", url), limit=1 << 20)
        peak = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()

    assert peak < 8 << 20


async def test_pieces_are_bounded(client: HTTPClient) -> None:
    """A large body comes in pieces of at most 256 KiB."""
    size = 0
    async with says(reply(bytes(8 << 20))).running() as url:
        async for piece in iter_body(response := await client.send("POST", url)):
            assert 0 < len(piece) <= CHUNK
            size += len(piece)
        await close(response)

    assert size == 8 << 20


async def test_raw_readers_get_our_exceptions_too(client: HTTPClient) -> None:
    """Who relays bytes as they are needs to know no other exceptions."""
    async with says_then_closes(CUT["length"]).running() as url:
        response = await client.send("POST", url)
        with pytest.raises(Interrupted):
            async for _ in response.body:
                pass
        await close(response)


# Transports


@pytest.mark.parametrize(
    ("error", "expected", "text"),
    [
        (httpx.ConnectError, NotSent, "cannot connect"),
        (httpx.ConnectTimeout, NotSent, "no connection within 10 s"),
        (httpx.PoolTimeout, NotSent, "no free connection within 10 s"),
        (httpx.ProxyError, NotSent, "cannot connect"),
        (httpx.UnsupportedProtocol, NotSent, "not a valid http or https URL"),
        (httpx.ReadTimeout, Interrupted, "no reply within 300 s"),
        (httpx.WriteTimeout, Interrupted, "the server took no more of the request for 60 s"),
        (httpx.ReadError, Interrupted, "connection closed without a reply"),
        (httpx.WriteError, Interrupted, "connection closed without a reply"),
        (httpx.CloseError, Interrupted, "connection closed without a reply"),
        (httpx.RemoteProtocolError, Interrupted, "the reply is not valid HTTP"),
        (httpx.LocalProtocolError, Interrupted, "the request is not as long as announced"),
        (httpx.DecodingError, Interrupted, "connection closed without a reply"),
    ],
)
async def test_every_exception_is_one_of_two(
    error: type[httpx.HTTPError], expected: type[NotSent | Interrupted], text: str
) -> None:
    """Whatever a transport raises comes out as not sent or perhaps sent, in words that name no host."""

    def handler(request: httpx.Request) -> httpx.Response:
        raise error("https://127.0.0.1:1/?token=sk-secret")

    client = HTTPClient(transport=httpx.MockTransport(handler))
    with pytest.raises((NotSent, Interrupted)) as caught:
        await client.send("POST", "https://localhost/?token=sk-secret")

    assert type(caught.value) is expected
    assert str(caught.value) == text
    assert not any(secret in str(caught.value) for secret in SECRETS)
    assert caught.value.timed_out is issubclass(error, httpx.TimeoutException)


async def test_an_error_in_mid_body_is_never_not_sent() -> None:
    """Even a connect error counts as perhaps sent once there was a head."""

    class Body(httpx.AsyncByteStream):
        async def __aiter__(self) -> AsyncIterator[bytes]:
            yield b"a"
            raise httpx.ConnectError("again")

    client = HTTPClient(transport=httpx.MockTransport(lambda request: httpx.Response(200, stream=Body())))
    with pytest.raises(Interrupted, match="before the reply was complete"):
        await fetch(client, "https://example.test/")


async def test_mocks_that_were_read_already() -> None:
    """A response made from bytes is read like any other."""
    mock = httpx.MockTransport(lambda request: httpx.Response(200, content=request.content))
    client = HTTPClient(transport=mock)

    assert await fetch(client, "https://example.test/") == b"{}"


@respx.mock
async def test_respx_sees_the_requests() -> None:
    """Tests may use httpx's transport, which respx patches."""
    route = respx.post("https://example.test/v1").respond(json={"a": 1})
    async with httpx.AsyncHTTPTransport() as transport:
        assert await fetch(HTTPClient(transport=transport), "https://example.test/v1") == b'{"a":1}'

    assert route.calls.last.request.content == b"{}"


# TLS


@pytest.fixture(scope="module")
def authority(tmp_path_factory: pytest.TempPathFactory) -> tuple[ssl.SSLContext, ssl.SSLContext]:
    """Contexts of a server called images.test and of a client that trusts its authority."""
    return tls_of_images_test(tmp_path_factory.mktemp("tls"))


async def test_the_certificate_must_carry_the_given_name(
    authority: tuple[ssl.SSLContext, ssl.SSLContext],
) -> None:
    """With `sni_hostname` the certificate is checked against that name, on every connection."""
    server, trusting = authority
    async with (
        (origin := says(OK)).running(server) as url,
        AiohttpTransport(tls=trusting) as transport,
    ):
        client = HTTPClient(transport=transport)
        for _ in range(2):
            response = await client.send("GET", url, sni_hostname="images.test")
            assert await read_body(response, limit=9) == b"ok"
        assert origin.connections == 1
        # A pooled connection that was checked for another name must not serve.
        for name in ("other.test", None):
            with pytest.raises(NotSent, match=r"^TLS certificate not accepted$"):
                await client.send("GET", url, sni_hostname=name)


async def test_an_unknown_authority_is_not_trusted(
    authority: tuple[ssl.SSLContext, ssl.SSLContext], client: HTTPClient
) -> None:
    """The default trust store does not know a throwaway authority."""
    async with says(OK).running(authority[0]) as url:
        with pytest.raises(NotSent, match=r"^TLS certificate not accepted$"):
            await client.send("POST", url, content=b"{}", sni_hostname="images.test")


@pytest.mark.parametrize("content", [None, "no certificate"], ids=["missing", "junk"])
async def test_a_trust_store_that_cannot_be_loaded(
    client: HTTPClient, content: str | None, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """Nothing was sent then, and the next request finds the file where it has come meanwhile."""
    file = tmp_path / "authorities.pem"
    if content is not None:
        file.write_text(content)
    default_context.cache_clear()
    monkeypatch.setenv("SSL_CERT_FILE", str(file))
    with pytest.raises(NotSent, match=r"^the certificates of trusted authorities cannot be loaded"):
        await client.send("POST", f"https://127.0.0.1:{closed_port()}/", content=b"{}")
    shutil.copy(certifi.where(), file)
    with pytest.raises(NotSent, match=r"^connection refused$"):
        await client.send("POST", f"https://127.0.0.1:{closed_port()}/", content=b"{}")
    default_context.cache_clear()
