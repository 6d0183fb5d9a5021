"""Pictures delivered into a bucket through the whole gateway, and what a client sees when the bucket fails."""

from __future__ import annotations

import base64
import contextlib
import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
import structlog
from starlette.types import Receive, Scope, Send
from tests.stores.s3_support import BUCKET, KEY, SECRET, Answering, Line, S3Server, s3_server
from tests.wire.edit_support import gateway_process, large_picture, picture, sha

from imagegate import ImageGateway
from imagegate.config.loader import parse_config
from imagegate.demo.servers import serving

pytestmark = pytest.mark.rclone

MIB = 1024 * 1024
CHUNK = 256 * 1024


class Upstream:
    """Answers with pictures in base64."""

    def __init__(self) -> None:
        self.pictures = [picture(1, 16)]
        self.posts = 0

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            return
        self.posts += 1
        while (await receive()).get("more_body"):
            pass
        await send({"type": "http.response.start", "status": 200, "headers": [(b"content-type", b"application/json")]})
        await self._send(send, b'{"created":7,"data":[')
        for place, content in enumerate(self.pictures):
            await self._send(send, b'%s{"b64_json":"' % (b"," if place else b""))
            for start in range(0, len(content), 3 * CHUNK):
                await self._send(send, base64.b64encode(content[start : start + 3 * CHUNK]))
            await self._send(send, b'"}')
        await self._send(send, b"]}", more=False)

    async def _send(self, send: Send, body: bytes, *, more: bool = True) -> None:
        await send({"type": "http.response.body", "body": body, "more_body": more})


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[S3Server]:
    with s3_server(tmp_path_factory.mktemp("s3")) as server:
        yield server


@pytest.fixture(scope="module")
def upstream_port() -> Iterator[tuple[Upstream, int]]:
    upstream = Upstream()
    with serving(upstream) as port:
        yield upstream, port


@pytest.fixture
def upstream(upstream_port: tuple[Upstream, int], server: S3Server) -> Upstream:
    upstream, _ = upstream_port
    upstream.__init__()  # type: ignore[misc]
    server.empty()
    return upstream


def document(
    port: int, bucket_port: int, delivery: str = "", cloud: str = "", secret: str = SECRET, bucket: str = BUCKET
) -> str:
    return f"""
        [[upstreams]]
        name = "openai"
        base_url = "http://127.0.0.1:{port}"
        api_key = "sk-key-of-the-gateway"
        [delivery]
        store = "s3://{bucket}/made"
        {delivery}
        [delivery.cloud]
        endpoint = "http://127.0.0.1:{bucket_port}"
        region = "us-east-1"
        access_key_id = "{KEY}"
        secret_access_key = "{secret}"
        timeout = "2s"
        {cloud}
    """


@contextlib.contextmanager
def gateway(text: str) -> Iterator[str]:
    with serving(ImageGateway(config=parse_config(text), hooks=())) as port:
        yield f"http://127.0.0.1:{port}/v1/images/generations"


def post(url: str, form: str = "url", n: int = 1, key: str = "sk-client") -> httpx.Response:
    body = {"model": "openai/dall-e-2", "prompt": "A kite", "response_format": form, "n": n}
    return httpx.post(url, json=body, headers={"authorization": f"Bearer {key}"}, timeout=60)


def test_links_to_the_bucket(upstream_port: tuple[Upstream, int], upstream: Upstream, server: S3Server) -> None:
    """Pictures of all sizes are in the bucket when the answer comes, and its links lead straight to them."""
    upstream.pictures = [picture(1, 16), large_picture(6 * MIB, 2), large_picture(12 * MIB, 3)]
    with gateway(document(upstream_port[1], server.port)) as url:
        reply = post(url, n=3)
        assert reply.status_code == 200, reply.text
        links = [item["url"] for item in reply.json()["data"]]
    assert all(link.startswith(f"http://127.0.0.1:{server.port}/{BUCKET}/made/") for link in links)
    loaded = [httpx.get(link) for link in links]
    assert [sha(content) for content in upstream.pictures] == [sha(each.content) for each in loaded]
    assert {each.headers["content-type"] for each in loaded} == {"image/png"}
    assert (len(server.files), server.uploads()) == (3, (2, 0))


def test_public_links_of_clients(upstream_port: tuple[Upstream, int], upstream: Upstream, server: S3Server) -> None:
    """With ``public_url`` and ``{tenant}`` each client's pictures stand under a place of its own."""
    delivery = 'public_url = "https://cdn.example.com"\nlink_secret = "secret-of-the-operator"'
    with gateway(document(upstream_port[1], server.port, delivery, 'key_prefix = "{tenant}/"')) as url:
        one, again, other = (post(url, key=key).json()["data"][0]["url"] for key in ("one", "one", "two"))
    shape = re.compile(r"https://cdn\.example\.com/(made/([0-9a-f]{16})/[A-Za-z0-9_-]{32}\.png)")
    found = [shape.fullmatch(link) for link in (one, again, other)]
    assert all(found)
    assert {match[1] for match in found if match} == set(server.files)
    places = [match[2] for match in found if match]
    assert places[0] == places[1] != places[2]


def refused(url: str, upstream: Upstream, status: int, code: str, n: int = 1) -> dict[str, Any]:
    """The error of a request whose picture could not be stored: no base64, no host, no key, no second try."""
    reply = post(url, n=n)
    error: dict[str, Any] = reply.json()["error"]
    assert (reply.status_code, error["code"], error["type"]) == (status, code, "server_error")
    assert reply.headers["x-should-retry"] == "false"
    assert upstream.posts == 1
    shown = reply.text + str(reply.headers)
    for content in upstream.pictures:
        assert base64.b64encode(content)[8:40].decode() not in shown
    for secret in ("b64_json", "127.0.0.1", BUCKET, KEY, SECRET, "sk-", "Signature", "Debug", "obstore"):
        assert secret not in reply.text
    assert len(reply.text) < 400
    return error


SIZES = pytest.mark.parametrize("size", [1000, 12 * MIB], ids=["small", "large"])


@SIZES
@pytest.mark.parametrize("wrong", [{"secret": "wrong"}, {"bucket": "elsewhere"}], ids=["secret", "bucket"])
def test_wrong_settings(
    upstream_port: tuple[Upstream, int], upstream: Upstream, server: S3Server, size: int, wrong: dict[str, str]
) -> None:
    """A bucket that refuses the gateway, or that is not there, is a plain 502."""
    upstream.pictures = [large_picture(size, 1)]
    with gateway(document(upstream_port[1], server.port, **wrong)) as url:
        with structlog.testing.capture_logs() as logs:
            error = refused(url, upstream, 502, "storage_failed")
        reasons = {log["reason"] for log in logs if log["event"] == "store failed"}
        assert reasons <= {
            "the store refuses the credentials (403 SignatureDoesNotMatch)",
            "there is no such bucket (404 NoSuchBucket)",
        }
        assert len(reasons) == 1
        assert error["message"] == "The image was made, but could not be stored."
        assert post(url, "b64_json").json()["data"][0]["b64_json"]
    assert server.files == {}


@SIZES
def test_store_that_is_down(upstream_port: tuple[Upstream, int], upstream: Upstream, size: int) -> None:
    """A bucket where nobody listens is a 502 after seconds."""
    upstream.pictures = [large_picture(size, 1)]
    line = Line(1)
    line.close()
    with gateway(document(upstream_port[1], line.port)) as url:
        refused(url, upstream, 502, "storage_failed")


@SIZES
def test_store_that_is_silent(
    upstream_port: tuple[Upstream, int], upstream: Upstream, server: S3Server, size: int
) -> None:
    """A bucket that never answers is a 502 after ``timeout``."""
    upstream.pictures = [large_picture(size, 1)]
    line = Line(server.port)
    line.silence()
    with gateway(document(upstream_port[1], line.port)) as url:
        refused(url, upstream, 502, "storage_failed")
    line.close()


@SIZES
def test_store_that_is_full(upstream_port: tuple[Upstream, int], upstream: Upstream, size: int) -> None:
    """A bucket without room is a 507."""
    upstream.pictures = [large_picture(size, 1)]
    answering = Answering(507, b"<Error><Code>XMinioStorageFull</Code></Error>")
    with gateway(document(upstream_port[1], answering.port)) as url:
        error = refused(url, upstream, 507, "storage_full")
    answering.close()
    assert error["message"] == "The image was made, but could not be stored. The store is full."


def test_store_that_is_killed(upstream_port: tuple[Upstream, int], upstream: Upstream, tmp_path: Path) -> None:
    """A bucket whose server dies during an upload is a 502, with links to what was stored by then or without."""
    upstream.pictures = [large_picture(30 * MIB, 1)]
    with s3_server(tmp_path) as server:
        line = Line(server.port, on_bytes=(8 * MIB, server.popen.kill))
        with gateway(document(upstream_port[1], line.port)) as url:
            refused(url, upstream, 502, "storage_failed")
        line.close()
        assert line.passed >= 8 * MIB
        assert [name for name in server.files if name.endswith(".png")] == []


def test_client_that_leaves(upstream_port: tuple[Upstream, int], upstream: Upstream, server: S3Server) -> None:
    """A client that leaves during the upload cancels it, and no upload stays open in the bucket."""
    upstream.pictures = [large_picture(40 * MIB, 1)]
    before, _ = server.uploads()
    line = Line(server.port, delay=0.005)
    with gateway(document(upstream_port[1], line.port)) as url:
        body = {"model": "openai/dall-e-2", "prompt": "A kite", "response_format": "url"}
        with httpx.Client(timeout=httpx.Timeout(60, read=1.5)) as client, pytest.raises(httpx.ReadTimeout):
            client.post(url, json=body)
        assert line.passed > 0
    line.close()
    assert (server.files, server.uploads()) == ({}, (before + 1, 0))


@pytest.mark.memory
def test_ten_pictures_of_twenty_megabytes(
    upstream_port: tuple[Upstream, int], upstream: Upstream, server: S3Server, tmp_path: Path
) -> None:
    """200 MB go into the bucket through a gateway process that grows by less than 24 MiB."""
    config = tmp_path / "imagegate.toml"
    config.write_text(document(upstream_port[1], server.port))
    with gateway_process(config) as process:
        url = f"{process.url}/v1/images/generations"
        assert post(url).status_code == 200
        upstream.pictures = [large_picture(20_000_000, number)[:20_000_000] for number in range(10)]
        before = process.memory("VmHWM")
        reply = post(url, n=10)
        grown = process.memory("VmHWM") - before
        assert reply.status_code == 200, reply.text
        links = [item["url"] for item in json.loads(reply.text)["data"]]
    wanted = [sha(content) for content in upstream.pictures]
    assert wanted == [sha(httpx.get(link, timeout=60).content) for link in links]
    assert grown < 24 * MIB
