"""Pictures delivered into a bucket through the whole gateway, and what a client sees when the bucket fails."""

from __future__ import annotations

import base64
import contextlib
import json
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
import structlog
from starlette.types import Receive, Scope, Send
from tests.relay import Relay
from tests.stores.s3_support import BUCKET, KEY, SECRET, Answering, S3Server, s3_server
from tests.waiting import until
from tests.wire.edit_support import Process, gateway_process, large_picture, picture, sha
from tests.wire.leaving import leave_once

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
    port: int,
    bucket_port: int,
    delivery: str = "",
    cloud: str = "",
    secret: str = SECRET,
    bucket: str = BUCKET,
    timeout: str = "30s",
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
        timeout = "{timeout}"
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


def refused(
    url: str, upstream: Upstream, status: int, code: str, n: int = 1, *, paid: int = 1
) -> tuple[httpx.Response, dict[str, Any]]:
    """The error of a request whose picture could not be stored: no base64, no host, no key, no second try."""
    before = upstream.posts
    reply = post(url, n=n)
    error: dict[str, Any] = reply.json()["error"]
    assert (reply.status_code, error["code"], error["type"]) == (status, code, "server_error")
    assert upstream.posts == before + paid
    if paid:
        assert reply.headers["x-should-retry"] == "false"
    else:
        assert int(reply.headers["retry-after"]) > 0
    shown = reply.text + str(reply.headers)
    for content in upstream.pictures:
        assert base64.b64encode(content)[8:40].decode() not in shown
    for secret in ("b64_json", "127.0.0.1", BUCKET, KEY, SECRET, "sk-", "Signature", "Debug", "obstore"):
        assert secret not in reply.text
    assert len(reply.text) < 400
    return reply, error


SMALL, LARGE = 1000, 12 * MIB
"""Pictures that go to the bucket in one request, and in parts."""
REFUSAL = b"<Error><Code>AccessDenied</Code></Error>"


@pytest.mark.parametrize("wrong", [{"secret": "wrong"}, {"bucket": "elsewhere"}], ids=["secret", "bucket"])
def test_wrong_settings(
    upstream_port: tuple[Upstream, int], upstream: Upstream, server: S3Server, wrong: dict[str, str]
) -> None:
    """With a bucket that refuses the gateway, or is not there, nothing is paid, not even once."""
    with structlog.testing.capture_logs() as logs, gateway(document(upstream_port[1], server.port, **wrong)) as url:
        for _ in range(2):
            _, error = refused(url, upstream, 503, "store_unavailable", paid=0)
        assert post(url, "b64_json").json()["data"][0]["b64_json"]
    reasons = {log["reason"] for log in logs if log["event"] == "store takes no images"}
    assert reasons <= {
        "the store refuses the credentials (403 SignatureDoesNotMatch)",
        "there is no such bucket (404 NoSuchBucket)",
    }
    assert len(reasons) == 1
    assert error["message"] == "The gateway's image store cannot be used, so nothing was sent. Retry later."
    assert server.files == {}


@pytest.mark.parametrize("fault", ["down", "silent", "full"])
def test_store_that_does_not_work_from_the_start(
    upstream_port: tuple[Upstream, int], upstream: Upstream, server: S3Server, fault: str
) -> None:
    """Where nobody listens or answers, or there is no room, the first request finds out before it is paid for."""
    answering = Answering(507, b"<Error><Code>XMinioStorageFull</Code></Error>")
    line = Relay({"down": 1, "silent": server.port, "full": answering.port}[fault])
    if fault == "silent":
        line.silence()
    with gateway(document(upstream_port[1], line.port, timeout="2s")) as url:
        refused(url, upstream, 503, "no_room" if fault == "full" else "store_unavailable", paid=0)
    line.close()
    answering.close()


@contextlib.contextmanager
def good_until_now(upstream_port: int, server: S3Server, config: Path) -> Iterator[tuple[Process, str, Relay]]:
    """A gateway process whose bucket works, and the line to it, which can be led elsewhere."""
    line = Relay(server.port)
    config.write_text(document(upstream_port, line.port, timeout="4s"))
    with gateway_process(config) as process:
        url = f"{process.url}/v1/images/generations"
        reply = post(url)
        assert reply.status_code == 200, reply.text
        yield process, url, line
    line.close()


def readiness(process: Process) -> tuple[int, dict[str, str]]:
    reply = httpx.get(f"{process.url}/readyz")
    return reply.status_code, reply.json()


@pytest.mark.parametrize(
    ("size", "status", "body", "state"),
    [
        (SMALL, 403, REFUSAL, "unavailable"),
        (LARGE, 507, b"<Error><Code>XMinioStorageFull</Code></Error>", "full"),
    ],
    ids=["refuses", "full"],
)
def test_one_refusal_is_enough(
    upstream_port: tuple[Upstream, int],
    upstream: Upstream,
    server: S3Server,
    tmp_path: Path,
    size: int,
    status: int,
    body: bytes,
    state: str,
) -> None:
    """After the first picture that the bucket refuses nothing is paid for, until it takes one again."""
    answering = Answering(status, body)
    with good_until_now(upstream_port[1], server, tmp_path / "imagegate.toml") as (process, url, line):
        assert readiness(process) == (200, {"status": "ready", "store": "usable"})
        upstream.pictures = [large_picture(size, 1)]
        line.lead_to(answering.port)
        refused(url, upstream, *((507, "storage_full") if state == "full" else (502, "storage_failed")))
        for _ in range(3):
            refused(url, upstream, 503, "no_room" if state == "full" else "store_unavailable", paid=0)
        assert readiness(process) == (503, {"status": f"store {state}", "store": state})
        assert f'imagegate_store_state{{state="{state}"}} 1.0' in httpx.get(f"{process.url}/metrics").text
        checked = check_live(tmp_path / "imagegate.toml")
        assert (checked.returncode, "delivery.store: cannot be used: the store" in checked.stdout) == (1, True)
        line.lead_to(server.port)
        until(lambda: readiness(process)[0] == 200, what="the probe")
        assert post(url).status_code == 200
        assert check_live(tmp_path / "imagegate.toml").returncode == 0
    answering.close()
    assert [name for name in server.files if "probe" in name] == []


def check_live(config: Path) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "imagegate", "check", "--live", str(config)]
    return subprocess.run(command, capture_output=True, text=True, check=False, timeout=60)


def test_passing_trouble_closes_nothing_and_lasting_trouble_does(
    upstream_port: tuple[Upstream, int], upstream: Upstream, server: S3Server, tmp_path: Path
) -> None:
    """A bucket that fails once is asked again, with a probe: what it does not take then either is not paid for."""
    answering = Answering(500, b"<Error><Code>InternalError</Code></Error>")
    with good_until_now(upstream_port[1], server, tmp_path / "imagegate.toml") as (process, url, line):
        for _ in range(4):
            line.lead_to(answering.port)
            refused(url, upstream, 502, "storage_failed")
            line.lead_to(server.port)
            assert post(url).status_code == 200
        line.lead_to(answering.port)
        refused(url, upstream, 502, "storage_failed")
        for _ in range(2):
            refused(url, upstream, 503, "store_unavailable", paid=0)
        line.lead_to(server.port)
        until(lambda: readiness(process)[0] == 200, what="the probe")
        assert post(url).status_code == 200
    answering.close()


def test_store_that_is_killed(upstream_port: tuple[Upstream, int], upstream: Upstream, tmp_path: Path) -> None:
    """A bucket whose server dies during an upload is a 502, with links to what was stored by then or without."""
    upstream.pictures = [large_picture(30 * MIB, 1)]
    with s3_server(tmp_path) as server:
        line = Relay(server.port, on_bytes=(8 * MIB, server.popen.kill))
        with gateway(document(upstream_port[1], line.port, timeout="4s")) as url:
            refused(url, upstream, 502, "storage_failed")
        line.close()
        assert line.passed >= 8 * MIB
        assert [name for name in server.files if name.endswith(".png")] == []


def test_client_that_leaves(upstream_port: tuple[Upstream, int], upstream: Upstream, server: S3Server) -> None:
    """A client that leaves during the upload cancels it, and no upload stays open in the bucket."""
    upstream.pictures = [large_picture(40 * MIB, 1)]
    before, _ = server.uploads()
    line = Relay(server.port, delay=0.005)
    with gateway(document(upstream_port[1], line.port)) as url:
        body = {"model": "openai/dall-e-2", "prompt": "A kite", "response_format": "url"}
        leave_once(lambda: server.uploads()[0] == before + 1, url, json=body)
    line.close()
    assert (server.files, server.uploads()) == ({}, (before + 1, 0))


@pytest.mark.memory
def test_five_pictures_of_twenty_megabytes(
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
        reply = post(url, n=5)
        grown = process.memory("VmHWM") - before
        assert reply.status_code == 200, reply.text
        links = [item["url"] for item in json.loads(reply.text)["data"]]
    wanted = [sha(content) for content in upstream.pictures]
    assert wanted == [sha(httpx.get(link, timeout=60).content) for link in links]
    assert grown < 24 * MIB
