"""No request is paid for whose result cannot be kept: real disks that are full, and uploads that never end."""

from __future__ import annotations

import asyncio
import base64
import contextlib
import json
import os
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
from starlette.types import Receive, Scope, Send
from tests.wire.edit_support import Process, gateway_process, large_picture, picture

from imagegate.demo.servers import serving

MIB = 1024 * 1024
CHUNK = 300_000


class Upstream:
    """Makes pictures of any size: as base64 in a document or in a stream, or as links to itself."""

    def __init__(self) -> None:
        self.picture = picture(1, 16)
        self.posts = 0

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            return
        if scope["method"] == "GET":
            await self._answer(send, b"image/png", [self.picture])
            return
        self.posts += 1
        body = b""
        while (message := await receive())["type"] == "http.request":
            body += message.get("body", b"")
            if not message.get("more_body"):
                break
        images = int(json.loads(body).get("n", 1)) if body.startswith(b"{") else 1
        text = base64.b64encode(self.picture).decode()
        if b"LINK" in body:
            link = f"http://127.0.0.1:{scope['server'][1]}/p.png"
            await self._answer(send, b"application/json", [json.dumps({"data": [{"url": link}] * images}).encode()])
        elif b'"stream":true' in body:
            event = {"type": "image_generation.completed", "b64_json": text}
            stream = b"event: image_generation.completed\ndata: " + json.dumps(event).encode() + b"\n\n"
            await self._answer(send, b"text/event-stream", _cut(stream))
        else:
            document = json.dumps({"created": 1, "data": [{"b64_json": text}] * images}).encode()
            await self._answer(send, b"application/json", _cut(document))

    async def _answer(self, send: Send, kind: bytes, pieces: list[bytes]) -> None:
        await send({"type": "http.response.start", "status": 200, "headers": [(b"content-type", kind)]})
        for piece in pieces:
            await send({"type": "http.response.body", "body": piece, "more_body": True})
        await send({"type": "http.response.body", "body": b""})


def _cut(data: bytes) -> list[bytes]:
    return [data[start : start + CHUNK] for start in range(0, len(data), CHUNK)]


@pytest.fixture(scope="module")
def upstream_port() -> Iterator[tuple[Upstream, int]]:
    upstream = Upstream()
    with serving(upstream) as port:
        yield upstream, port


@pytest.fixture
def upstream(upstream_port: tuple[Upstream, int]) -> Upstream:
    upstream_port[0].__init__()  # type: ignore[misc]
    return upstream_port[0]


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A real file system of 8 MiB."""
    folder = tmp_path / "disk"
    folder.mkdir()
    command = ["mount", "-t", "tmpfs", "-o", "size=8m", "tmpfs", str(folder)]
    if os.name != "posix" or os.geteuid() or subprocess.run(command, capture_output=True, check=False).returncode:
        pytest.skip("file systems cannot be mounted here")
    yield folder
    subprocess.run(["umount", str(folder)], check=True)


@contextlib.contextmanager
def gateway(folder: Path, port: int, more: str = "", *, images: Path | None = None, **environment: str) -> Any:
    config = folder / "imagegate.toml"
    config.write_text(
        f"""
[[upstreams]]
name = "openai"
base_url = "http://127.0.0.1:{port}"
api_key = "sk-upstream"
[delivery]
store = "file://{images or folder / "images"}"
{more}
"""
    )
    with gateway_process(config, **environment) as process:
        yield process


def ask(gate: Process, *, key: str = "", **fields: Any) -> httpx.Response:
    body = {"model": "openai/gpt-image-1", "prompt": "a fox", **fields}
    headers = {"idempotency-key": key} if key else {}
    return httpx.post(f"{gate.url}/v1/images/generations", json=body, headers=headers, timeout=30)


def images_of(answer: httpx.Response) -> list[bytes]:
    assert answer.status_code == 200, answer.text
    if answer.headers["content-type"].startswith("text/event-stream"):
        event = json.loads(answer.text.partition("data: ")[2].partition("\n")[0])
        return [base64.b64decode(event["b64_json"])]
    data = answer.json()["data"]
    return [
        base64.b64decode(image["b64_json"]) if "b64_json" in image else httpx.get(image["url"]).content
        for image in data
    ]


def code(answer: httpx.Response) -> tuple[int, str]:
    return answer.status_code, answer.json()["error"]["code"]


# The store


@pytest.mark.mount
@pytest.mark.parametrize("megabytes", [1, 2.5, 4.4, 6])
def test_a_full_store_buys_nothing(
    small_disk: Path, tmp_path: Path, upstream: Upstream, upstream_port: Any, megabytes: float
) -> None:
    """On a disk of 8 MB every request that is paid for is delivered; the others are told before."""
    upstream.picture = large_picture(int(megabytes * 1e6))
    delivered = 0
    with gateway(tmp_path, upstream_port[1], images=small_disk / "images") as gate:
        for _ in range(10):
            answer = ask(gate, response_format="url")
            if answer.status_code == 200:
                assert images_of(answer) == [upstream.picture]
                delivered += 1
            else:
                assert code(answer) == (503, "no_room")
                assert int(answer.headers["retry-after"]) > 0
                assert "x-should-retry" not in answer.headers
        assert upstream.posts == delivered > 0
        task = ask(gate, **{"async": True})
        assert code(task) == (503, "no_room")
        assert upstream.posts == delivered
        for file in (small_disk / "images").glob("*.png"):
            file.unlink()
        assert images_of(ask(gate, response_format="url")) == [upstream.picture]
        metrics = httpx.get(f"{gate.url}/metrics").text
    assert 'outcome="not_sent"' in metrics


@pytest.mark.mount
@pytest.mark.parametrize("more", ["", "max_bytes = 7000000", "content_addressed = true"])
def test_a_picture_larger_than_the_disk_is_paid_for_once(
    small_disk: Path, tmp_path: Path, upstream: Upstream, upstream_port: Any, more: str
) -> None:
    """What nobody could know is learned: nothing is bought until there is room for such a picture, and the first one is
    delivered from memory."""
    upstream.picture = large_picture(12_000_000)
    with gateway(tmp_path, upstream_port[1], images=small_disk / "images", more=more) as gate:
        answer = ask(gate, response_format="url")
        assert images_of(answer) == [upstream.picture]
        part = httpx.get(answer.json()["data"][0]["url"], headers={"range": "bytes=5-9"})
        assert part.content in (upstream.picture[5:10], upstream.picture)
        for _ in range(3):
            assert code(ask(gate, response_format="url")) == (503, "no_room")
        assert images_of(answer) == [upstream.picture]
    assert upstream.posts == 1


@pytest.mark.mount
def test_a_picture_that_waited_for_room_goes_to_disk(
    small_disk: Path, tmp_path: Path, upstream: Upstream, upstream_port: Any
) -> None:
    """As soon as there is some; then more is bought."""
    (small_disk / "other").write_bytes(bytes(4_200_000))
    upstream.picture = large_picture(6_000_000)
    with gateway(tmp_path, upstream_port[1], images=small_disk / "images") as gate:
        size = len(upstream.picture)
        assert images_of(ask(gate, response_format="url")) == [upstream.picture]
        assert code(ask(gate, response_format="url")) == (503, "no_room")
        assert list((small_disk / "images").glob("*.png*")) == []
        (small_disk / "other").unlink()
        upstream.picture = picture(2, 16)
        assert code(ask(gate, response_format="url")) == (503, "no_room")  # a picture of 6 MB does not fit beside it
        assert [file.stat().st_size for file in (small_disk / "images").glob("*.png")] == [size]
        for file in (small_disk / "images").glob("*.png"):
            file.unlink()
        assert images_of(ask(gate, response_format="url")) == [upstream.picture]
    assert upstream.posts == 2


@pytest.mark.mount
def test_room_for_all_pictures_of_a_request(
    small_disk: Path, tmp_path: Path, upstream: Upstream, upstream_port: Any
) -> None:
    """Room is secured for as many pictures as were asked for, and for all requests that are at work."""
    upstream.picture = large_picture(1_900_000)
    with gateway(tmp_path, upstream_port[1], images=small_disk / "images") as gate:
        assert code(ask(gate, response_format="url", n=4)) == (503, "no_room")
        assert upstream.posts == 0
        assert images_of(ask(gate, response_format="url", n=2)) == [upstream.picture] * 2

    async def many() -> list[httpx.Response]:
        body = {"model": "openai/gpt-image-1", "prompt": "a fox", "response_format": "url"}
        async with httpx.AsyncClient(timeout=30) as client:
            asked = (client.post(f"{gate.url}/v1/images/generations", json=body) for _ in range(12))
            return list(await asyncio.gather(*asked))

    for file in (small_disk / "images").glob("*.png"):
        file.unlink()
    upstream.posts = 0
    with gateway(tmp_path, upstream_port[1], images=small_disk / "images") as gate:
        statuses = [answer.status_code for answer in asyncio.run(many())]
    assert upstream.posts == statuses.count(200) > 0
    assert set(statuses) <= {200, 503}


@pytest.mark.mount
def test_links_that_are_passed_through_need_no_room(
    small_disk: Path, tmp_path: Path, upstream: Upstream, upstream_port: Any
) -> None:
    """A model that has answered with links is asked although the store is full."""
    with gateway(tmp_path, upstream_port[1], images=small_disk / "images") as gate:
        for _ in range(3):
            assert ask(gate, response_format="url", prompt="LINK").status_code == 200
        (small_disk / "other").write_bytes(bytes(8 * MIB - 100_000))
        time.sleep(1.1)  # a look at the disk is good for a second
        assert ask(gate, response_format="url", prompt="LINK").status_code == 200
        assert code(ask(gate, response_format="url", size="1536x1024")) == (503, "no_room")


# The spool


def test_results_that_are_larger_than_the_spool(tmp_path: Path, upstream: Upstream, upstream_port: Any) -> None:
    """`limits.spool` keeps others out; what is paid for arrives, and keeps them out for as long as it is there."""
    upstream.picture = large_picture(9_000_000)
    with gateway(tmp_path, upstream_port[1], more="[limits]\nspool = 6000000\nspool_memory = 1000000") as gate:
        delivered = 0
        for fields in ({"prompt": "LINK", "response_format": "b64_json"}, {"stream": True}, {"n": 1}):
            answer = ask(gate, **fields)
            if answer.status_code == 200:
                assert images_of(answer) == [upstream.picture]
                delivered += 1
            else:
                assert code(answer) == (503, "no_room")
        assert upstream.posts == delivered > 0


@pytest.mark.mount
@pytest.mark.parametrize("megabytes", [3, 7, 20])
def test_a_full_spool_disk_loses_nothing(
    small_disk: Path, tmp_path: Path, upstream: Upstream, upstream_port: Any, megabytes: int
) -> None:
    """In every form an answer arrives whole that was paid for; a form that has no room is told so."""
    (small_disk / "other").write_bytes(bytes(7 * MIB))
    upstream.picture = large_picture(megabytes * 1_000_000)
    with gateway(tmp_path, upstream_port[1], TMPDIR=str(small_disk)) as gate:
        for fields in ({}, {"prompt": "LINK", "response_format": "b64_json"}, {"stream": True}):
            assert images_of(ask(gate, **fields)) == [upstream.picture]
        assert upstream.posts == 3
        assert images_of(ask(gate, key="a")) == [upstream.picture]
        again = ask(gate, key="a")
        if megabytes > 7:
            assert code(again) == (410, "idempotency_reply_gone")
            assert again.headers["x-should-retry"] == "false"
        assert upstream.posts == 4
        files = {"image": ("a.png", large_picture(4_000_000), "image/png")}
        form = httpx.post(
            f"{gate.url}/v1/images/edits", data={"model": "openai/gpt-image-1", "prompt": "x"}, files=files, timeout=30
        )
        assert code(form) == (503, "spool_full")
        assert int(form.headers["retry-after"]) > 0
        assert upstream.posts == 4
        assert '"unexpected error"' not in (gate.folder / "gateway.log").read_text()


def test_uploads_that_stop_half_way_leave_room_for_results(
    tmp_path: Path, upstream: Upstream, upstream_port: Any
) -> None:
    """Uploads that never end take a part of the spool, and what others have paid for is delivered."""
    upstream.picture = large_picture(3_000_000)

    async def stall(port: int) -> asyncio.StreamWriter:
        _, writer = await asyncio.open_connection("127.0.0.1", port)
        head = (
            b'--B\r\nContent-Disposition: form-data; name="image"; filename="a.png"\r\nContent-Type: image/png\r\n\r\n'
        )
        writer.write(
            b"POST /v1/images/edits HTTP/1.1\r\nHost: x\r\nContent-Type: multipart/form-data; boundary=B\r\n"
            b"Content-Length: 60000000\r\n\r\n" + head + large_picture(11_900_000)
        )
        with contextlib.suppress(ConnectionError):
            await writer.drain()
        return writer

    async def work(gate: Process) -> None:
        writers = [await stall(gate.port) for _ in range(4)]
        await asyncio.sleep(0.5)
        for fields in ({"stream": True}, {"prompt": "LINK", "response_format": "b64_json"}):
            answer = await asyncio.to_thread(ask, gate, **fields)
            assert images_of(answer) == [upstream.picture]
        for writer in writers:
            writer.close()

    with gateway(tmp_path, upstream_port[1], "[limits]\nspool = 24000000") as gate:
        asyncio.run(work(gate))
    assert upstream.posts == 2
