"""The guarded fetch: what it reads, what it refuses, and that refusing means not connecting."""

from __future__ import annotations

import asyncio
import contextlib
import gzip
import ipaddress
import socket
import ssl
import zlib
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Sequence

import httpx
import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.certificates import tls_of_images_test

from imagegate.http import AiohttpTransport, HTTPClient, Response
from imagegate.http.guarded_fetch import Fetched, FetchedStream, Fetcher, FetchFailed, FetchRefused, Resolver
from imagegate.http.messages import Request

pytestmark = pytest.mark.anyio

PUBLIC = "93.184.216.34"
PNG = b"\x89PNG\r\n\x1a\n" + bytes(100)


@pytest.fixture
async def client() -> AsyncIterator[HTTPClient]:
    # One connection at a time: whoever forgets to close a reply waits for ever.
    async with AiohttpTransport() as transport:
        yield HTTPClient(transport=transport)


class Site:
    """A web server with prepared replies by path; it counts connections and notes requests."""

    def __init__(self, replies: dict[str, bytes] | None = None) -> None:
        self.replies = replies or {}
        self.connections = 0
        self.heads: list[str] = []
        self.port = 0
        self._tasks: set[asyncio.Task[None]] = set()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._tasks.add(task)
        self.connections += 1
        try:
            while True:
                head = (await reader.readuntil(b"\r\n\r\n")).decode()
                self.heads.append(head)
                await self.answer(head.split(" ")[1], writer)
        except (asyncio.IncompleteReadError, ConnectionError, asyncio.CancelledError):
            pass
        finally:
            writer.close()
            self._tasks.discard(task)

    async def answer(self, path: str, writer: asyncio.StreamWriter) -> None:
        writer.write(self.replies.get(path, response(b"", "404 Not Found")))
        await writer.drain()

    @contextlib.asynccontextmanager
    async def running(
        self, host: str = "127.0.0.1", port: int = 0, tls: ssl.SSLContext | None = None
    ) -> AsyncGenerator[Site, None]:
        # In debug mode asyncio reports every handshake that a client breaks off, and anyio fails the test.
        asyncio.get_running_loop().set_debug(False)
        async with await asyncio.start_server(self._serve, host, port, ssl=tls) as server:
            self.port = server.sockets[0].getsockname()[1]
            yield self
            for task in self._tasks:
                task.cancel()


def response(body: bytes = PNG, status: str = "200 OK", **headers: str) -> bytes:
    lines = [f"HTTP/1.1 {status}"]
    lines += [f"{name.replace('_', '-')}: {value}" for name, value in headers.items()]
    if "transfer_encoding" not in headers and "content_length" not in headers:
        lines.append(f"content-length: {len(body)}")
    return "\r\n".join([*lines, "", ""]).encode() + body


def redirect(location: str, status: int = 302) -> bytes:
    return response(b"", f"{status} Moved", location=location)


def resolving(names: dict[str, list[str]]) -> Resolver:
    async def resolve(host: str, port: int) -> Sequence[str]:
        if host not in names:
            raise socket.gaierror(socket.EAI_NONAME, "Name or service not known")
        return names[host]

    return resolve


@contextlib.asynccontextmanager
async def watched() -> AsyncGenerator[tuple[HTTPClient, list[httpx.URL]], None]:
    """A real client, and the URLs that it was given to ask."""
    sent: list[httpx.URL] = []

    class Watched(AiohttpTransport):
        async def send(self, request: Request) -> Response:
            sent.append(httpx.URL(request.url))
            return await super().send(request)

    async with Watched() as transport:
        yield HTTPClient(transport=transport), sent


def recording(requests: list[httpx.Request]) -> HTTPClient:
    """A client that answers itself and notes what would have been sent."""

    def handler(request: httpx.Request) -> httpx.Response:
        requests.append(request)
        return httpx.Response(200, content=PNG, headers={"content-type": "image/png"})

    return HTTPClient(transport=httpx.MockTransport(handler))


def local(client: HTTPClient, site: Site, max_bytes: int = 1 << 30) -> Fetcher:
    """A fetcher for which images.test is `site`, and nothing else on this machine is allowed."""
    inside = {"inside.test": ["127.0.0.1"], "localhost": ["::1"], "gone.test": []}
    resolve = resolving({"images.test": ["127.0.0.1"], **inside})
    return Fetcher(client, allow=[f"images.test:{site.port}"], max_bytes=max_bytes, resolve=resolve)


# What it reads


async def test_reads_a_file(client: HTTPClient) -> None:
    """The body and the declared type come back, and nothing but four headers goes out."""
    async with Site({"/a%2Fb?c=d%2B": response(content_type="image/png")}).running() as site:
        fetched = await local(client, site).read(f"http://images.test:{site.port}/a%2Fb?c=d%2B#e")

    assert fetched == Fetched(content=PNG, content_type="image/png")
    assert sorted(site.heads[0].strip().split("\r\n")) == [
        "Accept-Encoding: identity",
        "Accept: image/*",
        "GET /a%2Fb?c=d%2B HTTP/1.1",
        f"Host: images.test:{site.port}",
        "User-Agent: imagegate",
    ]


async def test_streams_a_file(client: HTTPClient) -> None:
    """A stream yields the body in pieces."""
    async with (
        Site({"/": response(bytes(1 << 20))}).running() as site,
        local(client, site).open(f"http://images.test:{site.port}") as stream,
    ):
        assert stream.content_type == ""
        sizes = [len(piece) async for piece in stream]

    assert sum(sizes) == 1 << 20
    assert len(sizes) > 1


async def test_leaving_a_stream_early_closes_it(client: HTTPClient) -> None:
    """Half a body can be left unread."""
    async with Site({"/": response(bytes(1 << 20))}).running() as site:
        fetcher = local(client, site)
        for _ in range(2):
            async with fetcher.open(f"http://images.test:{site.port}/") as stream:
                await read_one(stream)

    assert site.connections == 2


async def read_one(stream: FetchedStream) -> bytes:
    async with contextlib.aclosing(aiter(stream)) as pieces:  # type: ignore[type-var]
        return await anext(pieces)


@pytest.mark.parametrize(
    ("encoding", "body"), [("gzip", gzip.compress(PNG)), ("deflate", zlib.compress(PNG)), ("identity", PNG)]
)
async def test_undoes_encodings_not_asked_for(client: HTTPClient, encoding: str, body: bytes) -> None:
    """Some stores send gzip whatever one accepts."""
    async with Site({"/": response(body, content_encoding=encoding)}).running() as site:
        assert (await local(client, site).read(f"http://images.test:{site.port}/")).content == PNG


@pytest.mark.parametrize("status", [301, 302, 303, 307, 308])
async def test_follows_redirects(client: HTTPClient, status: int) -> None:
    """Relative and absolute redirects are followed, up to three."""
    replies = {"/a/1": redirect("2", status), "/a/2": redirect("/3", status), "/4": response()}
    async with Site(replies).running() as site:
        replies["/3"] = redirect(f"//images.test:{site.port}/4", status)
        assert (await local(client, site).read(f"http://images.test:{site.port}/a/1")).content == PNG

    assert [head.split(" ")[1] for head in site.heads] == ["/a/1", "/a/2", "/3", "/4"]


async def test_tries_the_next_address(client: HTTPClient) -> None:
    """An address that refuses gives way to the next one of the same host."""
    async with Site({"/": response()}).running("127.0.0.2") as site:
        resolve = resolving({"images.test": ["127.0.0.3", "127.0.0.2"]})
        fetcher = Fetcher(client, allow=["127.0.0.2/31"], resolve=resolve)

        assert (await fetcher.read(f"http://images.test:{site.port}/")).content == PNG


@pytest.mark.parametrize(
    ("url", "sent", "host"),
    [
        ("HTTP://Images.Test/a", f"http://{PUBLIC}/a", "images.test"),
        ("http://images.test.:8080?a", f"http://{PUBLIC}:8080/?a", "images.test:8080"),
        ("http://images.test:80/", f"http://{PUBLIC}/", "images.test"),
        ("http://bücher.test/é", f"http://{PUBLIC}/%C3%A9", "xn--bcher-kva.test"),
        ("http://1572395042/", f"http://{PUBLIC}/", PUBLIC),
        ("http://[2606:4700:0::1111]/", "http://[2606:4700::1111]/", "[2606:4700::1111]"),
        ("http://six.test:8080/", "http://[2606:4700::1]:8080/", "six.test:8080"),
        ("http://images.test//a/@b", f"http://{PUBLIC}//a/@b", "images.test"),
    ],
)
async def test_pins_the_address(url: str, sent: str, host: str) -> None:
    """The connection goes to the address that was checked, the Host header carries the name."""
    requests: list[httpx.Request] = []
    names = {"images.test": [PUBLIC], "xn--bcher-kva.test": [PUBLIC], "six.test": ["2606:4700::1"]}
    await Fetcher(recording(requests), resolve=resolving(names)).read(url)

    assert [(str(request.url), request.headers["host"]) for request in requests] == [(sent, host)]


async def test_tls_gets_the_name(client: HTTPClient) -> None:
    """Only https to a host that has a name sends a server name of its own."""
    requests: list[httpx.Request] = []
    fetcher = Fetcher(recording(requests), resolve=resolving({"images.test": [PUBLIC]}))
    for url in ("https://images.test/", "http://images.test/", f"https://{PUBLIC}/"):
        await fetcher.read(url)

    assert [request.extensions.get("sni_hostname") for request in requests] == ["images.test", None, None]


# What it refuses

PRIVATE_HOSTS = [
    "127.0.0.1",
    "127.1",
    "127.0.1",
    "127.0.0.1.",
    "2130706433",
    "0x7f000001",
    "0X7F.0.0.1",
    "0x7f.1",
    "0177.0.0.1",
    "0177.0x0.0.01",
    "017700000001",
    "00000000177.1",
    "127.0x1",
    "%31%32%37.0.0.1",
    "127%2e0%2e0%2e1",
    "\uff11\uff12\uff17.0.0.1",
    "127\u30020\u30020\u30021",
    "127\uff0e0\uff0e0\uff0e1",
    "127\uff610\uff610\uff611",
    "\u2460\u2461\u2466.0.0.1",
    "\u246b7.1",
    "\U0001d7cf\U0001d7d0\U0001d7d5.0.0.1",
    "127\N{SOFT HYPHEN}.0.0.1",
    "127.0.0.1\N{ZERO WIDTH SPACE}",
    "127.255.255.254",
    "0",
    "0.0.0.0",
    "0x0",
    "00",
    "[::]",
    "[::1]",
    "[0:0:0:0:0:0:0:1]",
    "[0000::0001]",
    "[::1%25lo]",
    "[::1%lo]",
    "[::127.0.0.1]",
    "[::ffff:127.0.0.1]",
    "[::FFFF:7F00:1]",
    "[::ffff:0:127.0.0.1]",
    "[64:ff9b::127.0.0.1]",
    "[64:ff9b:1::127.0.0.1]",
    "[2002:7f00:1::1]",
    "[2001:0:4136:e378:8000:63bf:80ff:fffe]",
    "[fe80::1]",
    "[fe80::1%25eth0]",
    "[fec0::1]",
    "[fc00::1]",
    "[fd00:ec2::254]",
    "[ff02::1]",
    "[2001:db8::1]",
    "10.0.0.1",
    "10.1",
    "012.1.1.1",
    "0xa.1",
    "167772161",
    "172.16.0.1",
    "172.31.255.255",
    "192.168.1.1",
    "192.168.257",
    "0xc0a80101",
    "169.254.169.254",
    "0xa9fea9fe",
    "2852039166",
    "0251.0376.0251.0376",
    "169.254.43518",
    "[::ffff:169.254.169.254]",
    "[::ffff:a9fe:a9fe]",
    "100.64.0.1",
    "100.100.100.200",
    "168.63.129.16",
    "192.0.0.192",
    "192.0.2.1",
    "198.18.0.1",
    "198.51.100.1",
    "203.0.113.1",
    "224.0.0.1",
    "240.0.0.1",
    "255.255.255.255",
    "4294967295",
    "localhost",
    "LOCALHOST.",
    "inside.test",
    "in\N{SOFT HYPHEN}side.test",
    "\uff49\uff4e\uff53\uff49\uff44\uff45.test",
    "half.test",
]
OTHER_NONSENSE = [
    "http://images.test@127.0.0.1:{port}/",
    "http://user:pass@127.0.0.1:{port}/",
    "http://@127.0.0.1:{port}/",
    "http://127.0.0.1:{port}\\@images.test/",
    "http:\\\\127.0.0.1:{port}/",
    "http://images.test\\@127.0.0.1:{port}/",
    "http://127.0.0.1:{port}#@images.test/",
    "http://127.0.0.1:{port}?@images.test/",
    "http://images.test#@127.0.0.1:{port}/",
    "http://images.test%00@127.0.0.1:{port}/",
    "http://127.0.0.1%00.images.test:{port}/",
    "http://127.0.0.1\t:{port}/",
    "ht\ntp://127.0.0.1:{port}/",
    " http://127.0.0.1:{port}/",
    "\x01http://127.0.0.1:{port}/",
    "http://127.0.0.1:{port}/\r\nX-A: b",
    "http://127.0.0.1:{port}/a b",
    "http://127.0.0.1:{port}/\N{NO-BREAK SPACE}",
    "http://127.0.0.1:{port}/\x7f",
    "http:/127.0.0.1:{port}/",
    "http:127.0.0.1:{port}/",
    "http:///127.0.0.1:{port}/",
    "//127.0.0.1:{port}/",
    "127.0.0.1:{port}/",
    "http://127.0.0.1:{port}:80/",
    "http://127.0.0.1:0/",
    "http://127.0.0.1:99999/",
    "http://127.0.0.1:x/",
    "http://[::1/",
    "http://[v1.::1]:{port}/",
    "http://256.0.0.1:{port}/",
    "http://08.0.0.1:{port}/",
    "http://images.0x7g:{port}\ud800/",
    "http://1.2.3.4.5:{port}/",
    "http://images.127:{port}/",
    "http://images.0x7f:{port}/",
    "http://ima|ges.test:{port}/",
    "http://images..test:{port}/",
    "http://.test:{port}/",
    "http://{long}.test:{port}/",
    "http://-\N{COMBINING ACUTE ACCENT}.test:{port}/",
    "ftp://images.test:{port}/",
    "file:///etc/passwd",
    "gopher://127.0.0.1:{port}/_GET",
    "data:image/png;base64,AAAA",
    "ws://127.0.0.1:{port}/",
    "javascript:alert(1)",
    "",
    "/etc/passwd",
    "http://127.0.0.1:{port}/{long}",
]


@pytest.mark.parametrize("host", PRIVATE_HOSTS)
async def test_private_hosts(host: str) -> None:
    """No spelling of a private address, and no name of one, leads to a connection."""
    resolve = resolving(
        {
            "inside.test": ["127.0.0.1"],
            "half.test": [PUBLIC, "127.0.0.1"],
            "localhost": ["::1", "127.0.0.1"],
        }
    )
    async with Site().running() as trap, watched() as (client, sent):
        for url in (f"http://{host}:{trap.port}/", f"https://{host}:{trap.port}/"):
            with pytest.raises(FetchRefused) as caught:
                await Fetcher(client, resolve=resolve).read(url)
            assert_clean(str(caught.value))

    assert (trap.connections, sent) == (0, [])


@pytest.mark.parametrize("url", OTHER_NONSENSE)
async def test_urls_that_mean_two_things(url: str) -> None:
    """URLs that parsers read differently, or that are no http URLs, lead to no connection."""
    async with Site().running() as trap, watched() as (client, sent):
        resolve = resolving({"images.test": ["127.0.0.1"]})
        with pytest.raises(FetchRefused) as caught:
            await Fetcher(client, resolve=resolve).read(url.format(port=trap.port, long="a" * 8192))
        assert_clean(str(caught.value))

    assert (trap.connections, sent) == (0, [])


def assert_clean(text: str) -> None:
    """No address, port or host in an error text."""
    assert not any(fragment in text for fragment in ("127.", "::", "localhost", ".test", "169.254", "[Errno"))


@pytest.mark.parametrize(
    ("url", "text"),
    [
        ("http://a/" + "b" * 8184, "the URL is longer than 8192 characters"),
        ("http://a/ ", "the URL holds white space, control characters or backslashes"),
        ("ftp://a/", "only http and https URLs are allowed"),
        ("http://u:p@a/", "a URL with credentials is not allowed"),
        ("http://a:b/", "not a valid URL"),
        ("http://a:0/", "not a valid URL"),
        ("http://a%b/", "the URL's host is not a valid name"),
        ("http://10.0.0.1/", "the URL leads to an address that is not public"),
    ],
)
async def test_the_text_names_the_rule(client: HTTPClient, url: str, text: str) -> None:
    """Who is refused learns which rule it was."""
    with pytest.raises(FetchRefused) as caught:
        await Fetcher(client).read(url)

    assert str(caught.value) == text


async def test_a_url_of_the_greatest_length() -> None:
    """8192 characters are allowed."""
    requests: list[httpx.Request] = []
    url = f"http://{PUBLIC}/"
    await Fetcher(recording(requests)).read(url + "b" * (8192 - len(url)))

    assert len(requests) == 1


@pytest.mark.parametrize("answer", ["nonsense", "", "127.1", "93.184.216.34 ", "fe80::1%eth0"])
async def test_a_resolver_that_answers_nonsense(client: HTTPClient, answer: str) -> None:
    """What is not the address of a public host is refused, whatever it is."""
    with pytest.raises(FetchRefused):
        await Fetcher(client, resolve=resolving({"images.test": [answer]})).read("http://images.test/")


async def test_the_real_resolver(client: HTTPClient, monkeypatch: pytest.MonkeyPatch) -> None:
    """By default names are looked up by the machine's resolver, once, for every family."""
    calls: list[object] = []

    def getaddrinfo(host: str, port: int, *args: object, **kwargs: object) -> list[tuple[object, ...]]:
        calls.append(host)
        return [
            (socket.AF_INET, socket.SOCK_STREAM, 6, "", (PUBLIC, port)),
            (socket.AF_INET6, socket.SOCK_STREAM, 6, "", ("fe80::1%2", port, 0, 2)),
        ]

    monkeypatch.setattr(socket, "getaddrinfo", getaddrinfo)
    with pytest.raises(FetchRefused, match="not public"):
        await Fetcher(client).read("http://images.test/")

    assert calls == ["images.test"]


@pytest.mark.parametrize(
    "chain",
    [
        ["http://127.0.0.1:{trap}/"],
        ["/2", "http://inside.test:{trap}/"],
        ["http://images.test:{site}/2", "//[::1]:{trap}/", "http://0x7f.1:{trap}/"],
        ["/2", "/3", "http://2130706433:{trap}/"],
        ["http://127\u30020\u30020\u30021:{trap}/"],
        ["http://images.test@127.0.0.1:{trap}/"],
        ["http:\\\\127.0.0.1:{trap}/"],
        ["\\\\127.0.0.1:{trap}/"],
        ["http://127.0.0.1:{trap}/\tx"],
        ["http://images.test:{site}/x\ty"],
        ["file:///etc/passwd"],
        ["gopher://127.0.0.1:{trap}/"],
        ["http://[::1"],
        ["//localhost:{trap}/"],
    ],
)
@pytest.mark.parametrize("status", [301, 302, 303, 307, 308])
async def test_redirects_to_private_hosts(client: HTTPClient, chain: list[str], status: int) -> None:
    """Every hop is checked from scratch, so no chain ends at a private host."""
    async with Site().running() as trap, Site().running() as site:
        for number, location in enumerate(chain, start=1):
            site.replies[f"/{number}"] = redirect(location.format(trap=trap.port, site=site.port), status)
        fetcher = local(client, site)
        with pytest.raises(FetchRefused) as caught:
            await fetcher.read(f"http://images.test:{site.port}/1")
        assert_clean(str(caught.value))

    assert trap.connections == 0
    assert len(site.heads) >= 1


async def test_rebinding_between_check_and_connection(monkeypatch: pytest.MonkeyPatch) -> None:
    """A name that turns private after the check does not take the connection with it."""
    answers = [["127.0.0.2"], ["127.0.0.1"]]

    async def resolve(host: str, port: int) -> Sequence[str]:
        return answers.pop(0)

    def no_lookup(*_: object, **__: object) -> None:
        raise AssertionError("a second lookup")

    async with (
        Site({"/": response(b"secret")}).running("127.0.0.1") as trap,
        Site({"/": response()}).running("127.0.0.2", trap.port) as site,
        watched() as (client, sent),
    ):
        fetcher = Fetcher(client, allow=["127.0.0.2"], resolve=resolve)
        with monkeypatch.context() as patch:
            patch.setattr(socket, "getaddrinfo", no_lookup)
            assert (await fetcher.read(f"http://images.test:{site.port}/")).content == PNG
            with pytest.raises(FetchRefused):
                await fetcher.read(f"http://images.test:{site.port}/")

    assert len(sent) == 1
    assert (site.connections, trap.connections) == (1, 0)


async def test_rebinding_between_redirects(client: HTTPClient) -> None:
    """A redirect to the same host looks it up again, and checks it again."""
    answers = [["127.0.0.2"], ["127.0.0.1"]]

    async def resolve(host: str, port: int) -> Sequence[str]:
        return answers.pop(0)

    async with (
        Site({"/2": response(b"secret")}).running("127.0.0.1") as trap,
        Site({"/": redirect("/2"), "/2": response()}).running("127.0.0.2", trap.port) as site,
    ):
        fetcher = Fetcher(client, allow=["127.0.0.2"], resolve=resolve)
        with pytest.raises(FetchRefused):
            await fetcher.read(f"http://images.test:{site.port}/")

    assert (len(site.heads), trap.connections) == (1, 0)


async def test_one_private_address_among_public_ones_is_enough(client: HTTPClient) -> None:
    """Every address of a name is checked before any is used."""
    async with Site({"/": response()}).running("127.0.0.2") as site:
        resolve = resolving({"images.test": ["127.0.0.2", "127.0.0.1"]})
        with pytest.raises(FetchRefused):
            await Fetcher(client, allow=["127.0.0.2"], resolve=resolve).read(f"http://images.test:{site.port}/")

    assert site.connections == 0


@st.composite
def private_hosts(draw: st.DrawFn) -> str:
    networks = "10.0.0.0/8 127.0.0.0/8 169.254.0.0/16 172.16.0.0/12 192.168.0.0/16 100.64.0.0/10"
    value = int(draw(st.ip_addresses(network=draw(st.sampled_from(networks.split())))))
    parts = draw(st.integers(1, 4))
    numbers = [value >> (24 - 8 * position) & 255 for position in range(parts - 1)]
    numbers.append(value & (1 << (8 * (5 - parts))) - 1)
    spellings: list[Callable[[int], str]] = [str, hex, "0{:o}".format, "0X{:X}".format, "000{:o}".format]
    text = ".".join(draw(st.sampled_from(spellings))(number) for number in numbers)
    if draw(st.booleans()):
        return f"[::ffff:{ipaddress.IPv4Address(value)}]"
    return text + draw(st.sampled_from(["", "."]))


@given(private_hosts())
def test_no_private_ipv4_address_in_any_spelling(host: str) -> None:
    """Whatever the spelling, nothing is handed to the client."""
    requests: list[httpx.Request] = []
    with pytest.raises(FetchRefused):
        asyncio.run(Fetcher(recording(requests)).read(f"http://{host}/"))

    assert requests == []


# Exceptions to the rule


@pytest.mark.parametrize(
    "entry",
    ["127.0.0.1", "127.0.0.0/8", "127.0.0.1/8", "127.0.0.1:{port}", "2130706433:{port}", "Inside.Test"],
)
async def test_the_operator_may_allow_private_hosts(client: HTTPClient, entry: str) -> None:
    """Names, addresses and networks, with or without a port, open what they name."""
    async with Site({"/": response()}).running() as site:
        fetcher = Fetcher(
            client,
            allow=[entry.format(port=site.port)],
            resolve=resolving({"inside.test": ["127.0.0.1"]}),
        )

        assert (await fetcher.read(f"http://inside.test:{site.port}/")).content == PNG


@pytest.mark.parametrize(
    "entry",
    ["127.0.0.1:1", "inside.test:1", "test", "side.test", "10.0.0.0/8", "::1", "[::1]:{port}", "fd00::/8"],
)
async def test_and_nothing_else_opens(client: HTTPClient, entry: str) -> None:
    """Another port, a parent domain or another network opens nothing."""
    async with Site({"/": response()}).running() as site:
        fetcher = Fetcher(
            client,
            allow=[entry.format(port=site.port)],
            resolve=resolving({"inside.test": ["127.0.0.1"]}),
        )
        with pytest.raises(FetchRefused):
            await fetcher.read(f"http://inside.test:{site.port}/")

    assert site.connections == 0


async def test_ipv6_may_be_allowed() -> None:
    """An address of IPv6 is written in brackets where a port follows."""
    requests: list[httpx.Request] = []
    fetcher = Fetcher(recording(requests), allow=["[fd00::1]:8080", "fd00::2"])
    for url in ("http://[fd00::1]:8080/", "http://[fd00:0::2]/"):
        await fetcher.read(url)
    with pytest.raises(FetchRefused):
        await fetcher.read("http://[fd00::1]/")

    assert [str(request.url) for request in requests] == ["http://[fd00::1]:8080/", "http://[fd00::2]/"]


@pytest.mark.parametrize(
    "entry",
    ["", "http://a", "a/b", "a:b", "u@a", "a b", "10.0.0.0/99", "*.test", "a?b", "[::1"],
)
def test_entries_that_allow_nothing(entry: str) -> None:
    """A mistake in the configuration is named, not ignored."""
    with pytest.raises(ValueError, match="is not a host, an address or a network"):
        Fetcher(HTTPClient(transport=httpx.AsyncHTTPTransport()), allow=[entry])


@pytest.mark.parametrize("suffix", ["", "/", "/v1"])
async def test_a_trusted_origin_may_be_private(client: HTTPClient, suffix: str) -> None:
    """An upstream's own origin is fetched as it is."""
    async with Site({"/": response()}).running() as site:
        origin = f"http://127.0.0.1:{site.port}"
        fetched = await Fetcher(client).read(f"{origin}/", trusted_origins=[origin + suffix])

    assert fetched.content == PNG


@pytest.mark.parametrize("other", ["http://127.0.0.1:1", "https://127.0.0.1:{port}", "http://127.0.0.2:{port}"])
async def test_trust_is_for_one_origin(client: HTTPClient, other: str) -> None:
    """Another scheme, host or port is another origin."""
    async with Site({"/": response()}).running() as site:
        trusted = [other.format(port=site.port)]
        with pytest.raises(FetchRefused):
            await Fetcher(client).read(f"http://127.0.0.1:{site.port}/", trusted_origins=trusted)

    assert site.connections == 0


async def test_a_redirect_away_from_a_trusted_origin_is_checked(client: HTTPClient) -> None:
    """Trust does not extend to where a trusted origin points."""
    async with Site().running() as trap:
        replies = {"/": redirect("/2"), "/2": redirect(f"http://127.0.0.1:{trap.port}/")}
        async with Site(replies).running() as site:
            origin = f"http://127.0.0.1:{site.port}"
            with pytest.raises(FetchRefused, match="not public"):
                await Fetcher(client).read(f"{origin}/", trusted_origins=[origin])

    assert (len(site.heads), trap.connections) == (2, 0)


# What fails


@pytest.mark.parametrize(
    "status",
    ["201 Created", "204 No Content", "206 Partial Content", "304 Not Modified", "404 Not Found", "500 Oops"],
)
async def test_only_200_will_do(client: HTTPClient, status: str) -> None:
    """Any other status is no file."""
    body = b"" if status[:3] in ("204", "304") else PNG
    async with Site({"/": response(body, status)}).running() as site:
        with pytest.raises(FetchFailed, match=f"^the server answered with status {status[:3]}$"):
            await local(client, site).read(f"http://images.test:{site.port}/")


async def test_too_many_redirects(client: HTTPClient) -> None:
    """The fourth redirect is not followed."""
    async with Site({"/": redirect("/")}).running() as site:
        with pytest.raises(FetchFailed, match=r"^more than 3 redirects$"):
            await local(client, site).read(f"http://images.test:{site.port}/")

    assert len(site.heads) == 4


async def test_a_redirect_to_nowhere(client: HTTPClient) -> None:
    """A redirect without a location fails."""
    async with Site({"/": response(b"", "302 Found")}).running() as site:
        with pytest.raises(FetchFailed, match="redirect to nowhere"):
            await local(client, site).read(f"http://images.test:{site.port}/")


async def test_the_size_is_limited(client: HTTPClient) -> None:
    """A file of `max_bytes` is read, one byte more is not, whether or not the server says so up front."""
    replies = {
        "/fits": response(bytes(100)),
        "/declared": response(b"", content_length="101"),
        "/chunked": response(b"65\r\n" + bytes(101) + b"\r\n0\r\n\r\n", transfer_encoding="chunked"),
        "/bomb": response(gzip.compress(bytes(1 << 20)), content_encoding="gzip"),
    }
    async with Site(replies).running() as site:
        fetcher = local(client, site, max_bytes=100)
        assert (await fetcher.read(f"http://images.test:{site.port}/fits")).content == bytes(100)
        for path in ("/declared", "/chunked", "/bomb"):
            with pytest.raises(FetchFailed, match=r"^the file is larger than 100 bytes$"):
                await fetcher.read(f"http://images.test:{site.port}{path}")


async def test_a_cut_file(client: HTTPClient) -> None:
    """Half a file is no file."""

    class Cutting(Site):
        async def answer(self, path: str, writer: asyncio.StreamWriter) -> None:
            writer.write(response(PNG, content_length="1000"))
            writer.close()

    async with Cutting().running() as site:
        with pytest.raises(FetchFailed, match="connection closed before the reply was complete"):
            await local(client, site).read(f"http://images.test:{site.port}/")


async def test_no_reply(client: HTTPClient) -> None:
    """A server that hangs up fails the fetch."""

    class Silent(Site):
        async def answer(self, path: str, writer: asyncio.StreamWriter) -> None:
            writer.close()

    async with Silent().running() as site:
        with pytest.raises(FetchFailed, match="connection closed without a reply") as caught:
            await local(client, site).read(f"http://images.test:{site.port}/")
        assert_clean(str(caught.value))


@pytest.mark.parametrize("slow", ["name", "head", "body", "drops"])
async def test_the_deadline_covers_everything(client: HTTPClient, slow: str) -> None:
    """Name lookup, head and body share one deadline, and drops in time do not extend it."""

    class Slow(Site):
        async def answer(self, path: str, writer: asyncio.StreamWriter) -> None:
            if slow != "head":
                writer.write(response(b"a", content_length="1000"))
            while slow == "drops":
                await asyncio.sleep(0.02)
                writer.write(b"a")
            await asyncio.Event().wait()

    async def resolve(host: str, port: int) -> Sequence[str]:
        if slow == "name":
            await asyncio.Event().wait()
        return ["127.0.0.1"]

    async with Slow().running() as site:
        fetcher = Fetcher(client, allow=["127.0.0.1"], timeout=0.2, resolve=resolve)
        with pytest.raises(FetchFailed, match=r"^(not complete|no reply) within 0\.2 s|the reply stopped"):
            await fetcher.read(f"http://images.test:{site.port}/")


@pytest.mark.parametrize(
    ("host", "text"),
    [
        ("unknown.test", "the host name cannot be resolved"),
        ("gone.test", "the host name cannot be resolved"),
        ("images.test", "connection refused"),
    ],
)
async def test_unreachable_hosts(client: HTTPClient, host: str, text: str) -> None:
    """A name without addresses, or an address without a server, fails without naming either."""
    site = Site()
    async with site.running():
        pass
    with pytest.raises(FetchFailed) as caught:
        await local(client, site).read(f"http://{host}:{site.port}/")

    assert str(caught.value) == text


# TLS


@pytest.fixture(scope="module")
def authority(tmp_path_factory: pytest.TempPathFactory) -> tuple[ssl.SSLContext, ssl.SSLContext]:
    """Contexts of a server that is images.test, and of a client that trusts its throwaway authority."""
    return tls_of_images_test(tmp_path_factory.mktemp("tls"))


async def test_the_certificate_is_checked_against_the_name(
    authority: tuple[ssl.SSLContext, ssl.SSLContext],
) -> None:
    """Pinning the address keeps TLS: the right name passes, another name at the same address does not."""
    server, trusting = authority
    asked: list[str | None] = []
    server.sni_callback = lambda connection, name, context: asked.append(name)
    async with (
        Site({"/": response()}).running(tls=server) as site,
        AiohttpTransport(tls=trusting) as transport,
    ):
        resolve = resolving({"images.test": ["127.0.0.1"], "other.test": ["127.0.0.1"]})
        fetcher = Fetcher(HTTPClient(transport=transport), allow=["127.0.0.1"], resolve=resolve)
        assert (await fetcher.read(f"https://images.test:{site.port}/")).content == PNG
        for host in ("other.test", "127.0.0.1"):
            with pytest.raises(FetchFailed, match=r"^TLS certificate not accepted$"):
                await fetcher.read(f"https://{host}:{site.port}/")

    assert asked == ["images.test", "other.test", None]
    assert len(site.heads) == 1


async def test_no_downgrade(authority: tuple[ssl.SSLContext, ssl.SSLContext]) -> None:
    """A redirect from https to http is refused, wherever it leads."""
    server, trusting = authority
    async with Site({"/": response()}).running() as plain:
        replies = {"/": redirect(f"http://images.test:{plain.port}/")}
        async with Site(replies).running(tls=server) as site, AiohttpTransport(tls=trusting) as transport:
            fetcher = Fetcher(
                HTTPClient(transport=transport),
                allow=["127.0.0.1"],
                resolve=resolving({"images.test": ["127.0.0.1"]}),
            )
            with pytest.raises(FetchRefused, match="from https to http"):
                await fetcher.read(f"https://images.test:{site.port}/")

    assert plain.connections == 0
