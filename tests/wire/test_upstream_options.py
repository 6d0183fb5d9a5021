"""How an upstream is reached: proxies, trust stores, client certificates, headers and queries; each on real sockets."""

from __future__ import annotations

import asyncio
import base64
import contextlib
import json
import ssl
from collections.abc import AsyncGenerator, Awaitable, Callable, Coroutine
from pathlib import Path
from typing import Any

import httpx
import pytest
import uvloop
from tests.certificates import make_authority, sign
from tests.wire.edit_support import gateway_process, large_picture

from imagegate import ConfigError, ImageGateway
from imagegate.config.loader import parse_config
from imagegate.http import proxies

PNG = base64.b64encode(b"\x89PNG\r\n\x1a\n" + bytes(40)).decode()
BODY = {"model": "gpt-image-2", "prompt": "A cat", "response_format": "b64_json"}
Handler = Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]
Line = tuple[asyncio.StreamReader, asyncio.StreamWriter]


class Provider:
    """Answers every request with one picture, and notes what it got."""

    def __init__(self, document: dict[str, Any] | None = None) -> None:
        self.document = document or {"created": 1, "data": [{"b64_json": PNG}]}
        self.heads: list[str] = []
        self.status = "200 OK"

    async def __call__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(asyncio.IncompleteReadError, ConnectionError):
            while True:
                head = (await reader.readuntil(b"\r\n\r\n")).decode()
                self.heads.append(head)
                await reader.readexactly(length_in(head))
                body = json.dumps(self.document).encode()
                start = (
                    f"HTTP/1.1 {self.status}\r\ncontent-type: application/json\r\ncontent-length: {len(body)}\r\n\r\n"
                )
                writer.write(start.encode() + body)
                await writer.drain()
        writer.close()

    def field(self, name: str) -> list[str]:
        lines = self.heads[-1].split("\r\n")[1:]
        return [line.partition(":")[2].strip() for line in lines if line.lower().startswith(f"{name.lower()}:")]


def length_in(head: str) -> int:
    lines = [line for line in head.lower().split("\r\n") if line.startswith("content-length:")]
    return int(lines[0].partition(":")[2]) if lines else 0


class Proxy:
    """An HTTP proxy: tunnels by CONNECT, and forwards requests whose target is a whole URL."""

    def __init__(self, *, refuses: bool = False) -> None:
        self.heads: list[str] = []
        self._refuses = refuses

    async def __call__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(asyncio.IncompleteReadError, ConnectionError, asyncio.CancelledError):
            head = (await reader.readuntil(b"\r\n\r\n")).decode()
            self.heads.append(head)
            method, target, _ = head.split(" ", 2)
            if self._refuses:
                writer.write(b"HTTP/1.1 407 Proxy Authentication Required\r\ncontent-length: 0\r\n\r\n")
            elif method == "CONNECT":
                host, _, port = target.rpartition(":")
                there = await asyncio.open_connection(host, int(port))
                writer.write(b"HTTP/1.1 200 Connection established\r\n\r\n")
                await relay((reader, writer), there)
            else:
                url = httpx.URL(target)
                there = await asyncio.open_connection(url.host, url.port)
                there[1].write(head.replace(target, url.raw_path.decode(), 1).encode())
                await relay((reader, writer), there)
        writer.close()


async def socks5(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """A SOCKS proxy without authentication (RFC 1928)."""
    with contextlib.suppress(asyncio.IncompleteReadError, ConnectionError, asyncio.CancelledError):
        await reader.readexactly((await reader.readexactly(2))[1])
        writer.write(b"\x05\x00")
        kind = (await reader.readexactly(4))[3]
        if kind == 1:
            host = ".".join(map(str, await reader.readexactly(4)))
        else:
            host = (await reader.readexactly((await reader.readexactly(1))[0])).decode()
        port = int.from_bytes(await reader.readexactly(2), "big")
        there = await asyncio.open_connection(host, port)
        writer.write(b"\x05\x00\x00\x01" + bytes(6))
        await relay((reader, writer), there)
    writer.close()


async def relay(one: Line, other: Line) -> None:
    async def pump(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            with contextlib.suppress(ConnectionError):
                while data := await reader.read(65536):
                    writer.write(data)
                    await writer.drain()
        finally:
            writer.close()

    await asyncio.gather(pump(one[0], other[1]), pump(other[0], one[1]))


@contextlib.asynccontextmanager
async def listening(handler: Handler, tls: ssl.SSLContext | None = None) -> AsyncGenerator[int, None]:
    tasks: set[asyncio.Task[Any]] = set()

    async def noted(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        tasks.add(task)
        await handler(reader, writer)

    server = await asyncio.start_server(noted, "127.0.0.1", 0, ssl=tls)
    async with server:
        yield server.sockets[0].getsockname()[1]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


async def ask(config: str, folder: Path, body: dict[str, Any] = BODY, **options: Any) -> httpx.Response:
    headers = options.pop("headers", {})
    text = f'[delivery]\nstore = "file://{folder}/images"\n{options.pop("delivery", "")}\n{config}'
    async with ImageGateway(config=parse_config(text, directory=folder), hooks=(), **options) as gateway:
        transport = httpx.ASGITransport(app=gateway)
        async with httpx.AsyncClient(transport=transport, base_url="http://gateway") as client:
            return await client.post("/v1/images/generations", json=body, headers=headers)


def upstream(port: int, more: str = "", *, scheme: str = "http", host: str = "127.0.0.1", name: str = "openai") -> str:
    return f"""
[[upstreams]]
name = "{name}"
adapter = "openai"
base_url = "{scheme}://{host}:{port}"
api_key = "sk-of-the-gateway"
{more}
"""


@pytest.fixture(scope="module")
def authority(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A throwaway authority, and certificates of a server on 127.0.0.1 and of a client."""
    folder = tmp_path_factory.mktemp("authority")
    make_authority(folder)
    for name in ("server", "client"):
        sign(folder, name, "IP:127.0.0.1")
    return folder


def demanding(folder: Path) -> ssl.SSLContext:
    """What a server uses that lets in nobody without a certificate."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(folder / "server.pem")
    context.load_verify_locations(folder / "ca.pem")
    context.verify_mode = ssl.CERT_REQUIRED
    return context


Run = Callable[[Coroutine[Any, Any, None]], None]


@pytest.fixture(params=[asyncio.run, uvloop.run], ids=["asyncio", "uvloop"])
def on_loop(request: pytest.FixtureRequest) -> Run:
    """Runs a test: on asyncio's own loop, and on the one that uvicorn runs the gateway with."""
    run: Run = request.param
    return run


def test_through_an_http_proxy(on_loop: Run, tmp_path: Path) -> None:
    """The proxy gets the whole address and its own password; the provider gets the request alone."""

    async def run() -> None:
        provider, proxy = Provider(), Proxy()
        async with listening(provider) as port, listening(proxy) as way:
            config = upstream(port, f'proxy = "http://me:secret%2Fword@127.0.0.1:{way}"')
            assert (await ask(config, tmp_path)).status_code == 200
            assert proxy.heads[0].startswith(f"POST http://127.0.0.1:{port}/v1/images/generations HTTP/1.1\r\n")
            assert base64.b64encode(b"me:secret/word").decode() in proxy.heads[0]
            assert provider.field("authorization") == ["Bearer sk-of-the-gateway"]

    on_loop(run())


def test_through_a_tunnel_with_certificates(on_loop: Run, authority: Path, tmp_path: Path) -> None:
    """TLS goes through the proxy end to end: with our authority and our certificate, and with neither not at all."""

    async def run() -> None:
        provider, proxy = Provider(), Proxy()
        async with listening(provider, demanding(authority)) as port, listening(proxy) as way:
            through = f'proxy = "http://127.0.0.1:{way}"\n'
            files = f'ca_file = "{authority}/ca.pem"\nclient_cert = "{authority}/client.pem"'
            assert (await ask(upstream(port, through + files, scheme="https"), tmp_path)).status_code == 200
            assert [head.split("\r\n")[0] for head in proxy.heads] == [f"CONNECT 127.0.0.1:{port} HTTP/1.1"]
            assert "sk-of-the-gateway" not in "".join(proxy.heads)
            sent = len(provider.heads)
            reply = await ask(upstream(port, through, scheme="https"), tmp_path)
            assert (reply.status_code, len(provider.heads)) == (502, sent)
            assert "TLS certificate not accepted" in reply.text

    on_loop(run())


def test_through_a_socks_proxy(on_loop: Run, tmp_path: Path) -> None:
    """SOCKS needs an extra, and nothing else."""

    async def run() -> None:
        provider = Provider()
        async with listening(provider) as port, listening(socks5) as way:
            config = upstream(port, f'proxy = "socks5://127.0.0.1:{way}"')
            assert (await ask(config, tmp_path)).status_code == 200
            assert len(provider.heads) == 1

    on_loop(run())


def test_a_proxy_that_refuses_costs_nothing(on_loop: Run, tmp_path: Path) -> None:
    """Nothing was sent then, so the next candidate is asked."""

    async def run() -> None:
        provider, proxy = Provider(), Proxy(refuses=True)
        async with listening(provider) as port, listening(proxy) as way:
            first = upstream(port, f'proxy = "http://127.0.0.1:{way}"', scheme="https", name="first")
            route = '[routes]\n"both" = ["first/gpt-image-2", "second/gpt-image-2"]\n'
            config = route + first + upstream(port, name="second")
            assert (await ask(config, tmp_path, {**BODY, "model": "both"})).status_code == 200
            assert (len(proxy.heads), len(provider.heads)) == (1, 1)

    on_loop(run())


@pytest.mark.parametrize(("excepted", "through"), [("", 1), ("127.0.0.1", 0), ("example.com", 1)])
def test_the_environments_proxy(
    on_loop: Run, excepted: str, through: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Only where the configuration says so, and not for what NO_PROXY excepts."""

    async def run() -> None:
        provider, proxy = Provider(), Proxy()
        async with listening(provider) as port, listening(proxy) as way:
            for name in ("http_proxy", "https_proxy", "all_proxy", "no_proxy"):
                monkeypatch.delenv(name, raising=False)
                monkeypatch.delenv(name.upper(), raising=False)
            monkeypatch.setenv("http_proxy", f"http://127.0.0.1:{way}")
            monkeypatch.setenv("no_proxy", excepted)
            assert (await ask(upstream(port), tmp_path)).status_code == 200
            assert proxy.heads == []
            assert (await ask(upstream(port, "trust_env = true"), tmp_path)).status_code == 200
            assert (len(proxy.heads), len(provider.heads)) == (through, 2)

    proxies._of_environment.cache_clear()
    on_loop(run())
    proxies._of_environment.cache_clear()


def test_headers_and_query(on_loop: Run, tmp_path: Path) -> None:
    """They go with each request, take the place of our own, and are not shown."""
    more = """
headers = { "Ocp-Apim-Subscription-Key" = "subscription-secret", "authorization" = "Custom custom-secret" }
query = { "api-version" = "2025-04-01" }
"""

    async def run() -> None:
        provider = Provider()
        async with listening(provider) as port:
            assert (await ask(upstream(port, more), tmp_path)).status_code == 200
            assert "/v1/images/generations?api-version=2025-04-01 HTTP/1.1" in provider.heads[0]
            assert provider.field("ocp-apim-subscription-key") == ["subscription-secret"]
            assert provider.field("authorization") == ["Custom custom-secret"]
            shown = await ask(upstream(port, more), tmp_path, headers={"imagegate-explain": "?1"})
            assert shown.json()["url"].endswith("/v1/images/generations?api-version=2025-04-01")
            assert shown.json()["headers"]["Ocp-Apim-Subscription-Key"] == "[redacted]"
            assert "-secret" not in shown.text
            provider.status = "400 Bad Request"
            provider.document = {"error": {"message": "Key subscription-secret is wrong."}}
            refused = await ask(upstream(port, more), tmp_path)
            assert (refused.status_code, "subscription-secret" in refused.text) == (400, False)

    on_loop(run())


def test_a_header_is_a_key(on_loop: Run, tmp_path: Path) -> None:
    """An upstream whose headers have Authorization never gets the client's."""

    async def run() -> None:
        provider = Provider()
        async with listening(provider) as port:
            more = 'headers = { Authorization = "Basic abcdefgh" }'
            config = upstream(port, more).replace('api_key = "sk-of-the-gateway"\n', "")
            reply = await ask(config, tmp_path, headers={"authorization": "Bearer sk-of-a-client"})
            assert reply.status_code == 200
            assert provider.field("authorization") == ["Basic abcdefgh"]

    on_loop(run())


def test_headers_stay_with_their_upstream(on_loop: Run, tmp_path: Path) -> None:
    """A picture that the provider has elsewhere is fetched without them."""

    async def run() -> None:
        elsewhere = Provider()
        async with listening(elsewhere) as other:
            provider = Provider({"created": 1, "data": [{"url": f"http://127.0.0.1:{other}/picture.png"}]})
            async with listening(provider) as port:
                more = 'headers = { "x-secret" = "subscription-secret" }'
                await ask(upstream(port, more), tmp_path, delivery='fetch_allow = ["127.0.0.1"]')
                assert len(elsewhere.heads) == 1
                assert "secret" not in elsewhere.heads[0]

    on_loop(run())


def test_the_applications_transport(on_loop: Run, tmp_path: Path) -> None:
    """It gets what goes to upstreams; a link of the provider's goes past it, and through the guard."""
    asked: list[str] = []

    def handler(request: httpx.Request) -> httpx.Response:
        asked.append(str(request.url))
        return httpx.Response(200, json={"created": 1, "data": [{"url": "http://127.0.0.1:9/picture.png"}]})

    async def run() -> None:
        config = upstream(443, scheme="https", host="api.example.com")
        reply = await ask(config, tmp_path, transport=httpx.MockTransport(handler))
        assert asked == ["https://api.example.com/v1/images/generations"]
        assert (reply.status_code, reply.json()["error"]["code"]) == (502, "image_fetch_failed")

    on_loop(run())


@pytest.mark.parametrize(
    ("more", "message"),
    [
        ('headers = { "Content-Length" = "1" }', "upstreams[0].headers: Content-Length is set by the gateway"),
        ('headers = { "a b" = "1" }', "upstreams[0].headers: 'a b' or its value has characters"),
        ('proxy = "ftp://proxy:1"', "upstreams[0].proxy: must be http://, https:// or socks5://"),
        ('proxy = "http://proxy"', "upstreams[0].proxy: must be http://, https:// or socks5:// with a host and a port"),
        ('ca_file = "missing.pem"', "upstreams[0].ca_file: cannot be used: No such file or directory"),
        ('client_cert = "missing.pem"', "upstreams[0].client_cert: cannot be used: No such file or directory"),
    ],
)
def test_mistakes(more: str, message: str, tmp_path: Path) -> None:
    """Each is told with its key, before anything starts."""
    with pytest.raises(ConfigError) as caught:
        parse_config(upstream(1, more), directory=tmp_path)
    assert message in str(caught.value)


def test_served_alone_over_tls(authority: Path, tmp_path: Path) -> None:
    """`imagegate serve`, with the event loop that uvicorn takes, in front of a provider as all real ones are.

    Small and large requests and replies, on new connections and on kept ones, directly and through a proxy.
    """

    async def run() -> None:
        provider, proxy = Provider(), Proxy()
        files = f'ca_file = "{authority}/ca.pem"\nclient_cert = "{authority}/client.pem"\n'
        async with listening(provider, demanding(authority)) as port, listening(proxy) as way:
            through = f'proxy = "http://127.0.0.1:{way}"\n'
            config = tmp_path / "imagegate.toml"
            config.write_text(
                f'[delivery]\nstore = "file://{tmp_path}/images"\n'
                + upstream(port, files, scheme="https")
                + upstream(port, files + through, scheme="https", name="other")
            )
            await asyncio.to_thread(_ask_served, config)
            assert len(provider.heads) == 8
            assert [head.split("\r\n")[0] for head in proxy.heads[:1]] == [f"CONNECT 127.0.0.1:{port} HTTP/1.1"]

    asyncio.run(run())


def _ask_served(config: Path) -> None:
    with gateway_process(config) as served:
        for model in ("openai/gpt-image-2", "other/gpt-image-2"):
            for _ in range(3):  # the second one on a kept connection
                reply = httpx.post(f"{served.url}/v1/images/generations", json={**BODY, "model": model}, timeout=30)
                assert (reply.status_code, reply.json()["data"][0]["b64_json"]) == (200, PNG), reply.text
            fields = {"model": model, "prompt": "A cat", "response_format": "b64_json"}
            files = {"image": ("a.png", large_picture(12_000_000), "image/png")}
            reply = httpx.post(f"{served.url}/v1/images/edits", data=fields, files=files, timeout=60)
            assert (reply.status_code, reply.json()["data"][0]["b64_json"]) == (200, PNG), reply.text
