"""What one client or provider makes the gateway do keeps no other waiting: dense input, interim replies, lookups."""

from __future__ import annotations

import base64
import json
import socket
import threading
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import httpx
import pytest
from tests.waiting import until
from tests.wire.edit_support import picture
from tests.wire.faults import Behaviour, Connection, Request, Upstream

from imagegate import ImageGateway
from imagegate.config.loader import parse_config
from imagegate.demo.servers import serving

MIB = 1024 * 1024
PATH = "/v1/images/generations"
GOOD = {"created": 1, "data": [{"b64_json": base64.b64encode(picture()).decode()}]}
EVENT = f"data: {json.dumps({'type': 'image_generation.completed', **GOOD['data'][0]})}\n\n".encode()  # type: ignore[index]


async def good(connection: Connection, request: Request) -> None:
    await connection.body(request)
    await connection.json(200, GOOD)


def writes(content_type: str, *parts: tuple[bytes, int]) -> Behaviour:
    """Answers in chunks: each of `parts` so many times."""

    async def behave(connection: Connection, request: Request) -> None:
        await connection.body(request)
        head = f"HTTP/1.1 200 OK\r\ncontent-type: {content_type}\r\ntransfer-encoding: chunked\r\n\r\n"
        await connection.write(head.encode())
        for part, times in parts:
            for _ in range(times):
                await connection.write(b"%x\r\n%b\r\n" % (len(part), part))
        await connection.write(b"0\r\n\r\n")

    return behave


INTERIM = b"HTTP/1.1 102 Processing\r\nx: y\r\n\r\n"
WRITTEN = {"interim": 0}


async def interim(connection: Connection, request: Request) -> None:
    """Interim replies for as long as somebody takes them."""
    await connection.body(request)
    WRITTEN["interim"] = 0
    while WRITTEN["interim"] < 64 * MIB:
        await connection.write(INTERIM * 4096)
        WRITTEN["interim"] += len(INTERIM) * 4096


async def some_interim(connection: Connection, request: Request) -> None:
    await connection.body(request)
    for _ in range(200):
        await connection.write(INTERIM)
    await connection.json(200, GOOD)


BEHAVIOURS = {
    "good": good,
    "newlines": writes("text/event-stream", (b"\n" * 0x40000, 256), (EVENT, 1)),
    "comments": writes("text/event-stream", (b":\n" * 0x20000, 256), (EVENT, 1)),
    "lines": writes("text/event-stream", (b"data:\n" * 0x8000, 64)),
    "commas": writes("application/json", (b"[" + b"0," * 0x1FFFF, 1), (b"0," * 0x20000, 64)),
    "lists": writes("application/json", (b"[" + b"[]," * 0xFFFF, 1), (b"[]," * 0x10000, 64)),
    "small": writes("application/json", (b'{"data":[' + b"{}," * 300_000 + b"{}]}", 1)),
    "pictures": writes(
        "application/json",
        (b'{"data":[' + json.dumps(GOOD["data"][0]).encode(), 1),  # type: ignore[index]
        (b"," + json.dumps(GOOD["data"][0]).encode(), 5000),  # type: ignore[index]
        (b"]}", 1),
    ),
    "interim": interim,
    "some-interim": some_interim,
}


def config(port: int, folder: Path, *, host: str = "127.0.0.1", more: str = "") -> Any:
    upstreams = "\n".join(
        f'[[upstreams]]\nname = "{name}"\nadapter = "openai"\nbase_url = "http://{host}:{port}/{name}"\n'
        'api_key = "sk-0123456789abcdef"'
        for name in BEHAVIOURS
    )
    upstreams += (  # takes files only, so that links are fetched
        f'\n[[upstreams]]\nname = "files"\nadapter = "onetoken"\nbase_url = "http://{host}:{port}/good"\n'
        'api_key = "sk-0123456789abcdef"'
    )
    policy = "[policy]\nretries = 0\nbreaker_failures = 0"
    return parse_config(f'{upstreams}\n[delivery]\nstore = "file://{folder}"\n{more}\n{policy}')


@pytest.fixture(scope="module")
def url(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    with Upstream(BEHAVIOURS).running() as port:
        gateway = ImageGateway(config=config(port, tmp_path_factory.mktemp("images")), hooks=())
        with serving(gateway) as own:
            yield f"http://127.0.0.1:{own}"


def post(url: str, upstream: str, **members: Any) -> httpx.Response:
    document = {"model": f"{upstream}/any", "prompt": "A kite", **members}
    return httpx.post(f"{url}{PATH}", json=document, timeout=30)


def test_a_stream_of_nothing_is_read_as_fast_as_it_comes(url: str) -> None:
    """64 MiB of comments, which took minutes line by line."""
    reply = post(url, "comments", stream=True)
    assert reply.status_code == 200
    assert "image_generation.completed" in reply.text


def test_a_reply_that_does_not_begin_is_given_up(url: str) -> None:
    """Blank lines do not tell a stream from anything else, and are read to 4 MiB."""
    reply = post(url, "newlines", stream=True)
    assert (reply.status_code, reply.json()["error"]["code"]) == (502, "upstream_uncertain")
    assert "too large" in reply.json()["error"]["message"]


@pytest.mark.parametrize(
    ("upstream", "text"),
    [
        ("commas", "too large"),
        ("lists", "more members"),
        ("small", "not JSON"),
        ("pictures", "more pictures"),
    ],
)
@pytest.mark.parametrize("form", ["url", "b64_json"])
def test_dense_documents_are_uncertain_errors(url: str, upstream: str, text: str, form: str) -> None:
    reply = post(url, upstream, response_format=form)
    assert (reply.status_code, reply.json()["error"]["code"]) == (502, "upstream_uncertain")
    assert text in reply.json()["error"]["message"]
    assert post(url, "good").status_code == 200


def test_an_event_of_thousands_of_lines_is_an_error(url: str) -> None:
    reply = post(url, "lines", stream=True)
    assert reply.status_code == 502
    assert "too many lines" in reply.json()["error"]["message"]


def test_interim_replies_are_bounded(url: str) -> None:
    """aiohttp reads them for as long as they come: without a bound this takes until the deadline, and 64 MiB."""
    reply = post(url, "interim")
    assert (reply.status_code, reply.json()["error"]["code"]) == (502, "upstream_uncertain")
    assert WRITTEN["interim"] < 32 * MIB
    assert post(url, "some-interim").status_code == 200


@pytest.fixture
def names(monkeypatch: pytest.MonkeyPatch) -> Iterator[threading.Event]:
    """A resolver that knows the provider, and never answers for names that end in ``slow.example``."""
    let_go = threading.Event()
    resolve = socket.getaddrinfo
    asked: list[str] = []

    def getaddrinfo(host: str, port: int, *more: Any, **options: Any) -> Sequence[Any]:
        asked.append(host)
        if host.endswith("slow.example"):
            let_go.wait(30)
            raise socket.gaierror(socket.EAI_AGAIN, "no answer")
        return resolve("127.0.0.1" if host == "provider.example" else host, port, *more, **options)

    monkeypatch.setattr(socket, "getaddrinfo", getaddrinfo)
    let_go.asked = asked  # type: ignore[attr-defined]
    yield let_go
    let_go.set()


def test_links_of_clients_keep_no_provider_waiting(names: threading.Event, tmp_path: Path) -> None:
    """Not its lookups, and not the disk: 60 names that are never found are being looked up meanwhile."""
    more = '[tasks]\ncallback_secret = "whsec-0123456789abcdef"'
    with Upstream(BEHAVIOURS).running() as port, ThreadPoolExecutor(60) as pool:
        gateway = ImageGateway(config=config(port, tmp_path, host="provider.example", more=more), hooks=())
        with serving(gateway) as own:
            url = f"http://127.0.0.1:{own}"

            def edit(number: int) -> httpx.Response:
                images = [{"image_url": f"http://a{number}.slow.example/a.png"}]
                document = {"model": "files/gpt-image-2", "prompt": "A kite", "images": images}
                if number % 2:
                    document = {"model": "good/any", "prompt": "A kite", "async": True}
                    document["callback_url"] = f"http://b{number}.slow.example/hook"
                operation = "generations" if number % 2 else "edits"
                return httpx.post(f"{url}/v1/images/{operation}", json=document, timeout=60)

            slow = [pool.submit(edit, number) for number in range(60)]
            until(lambda: sum(name.endswith("slow.example") for name in names.asked) >= 4)  # type: ignore[attr-defined]
            for form in ("url", "b64_json") * 5:
                assert post(url, "good", response_format=form).status_code == 200
            assert not any(each.done() and each.result().status_code == 200 for each in slow)
            names.set()
            codes = {(each.result().status_code, each.result().json()["error"]["code"]) for each in slow}
            assert codes <= {(400, "invalid_image_url"), (400, "invalid_url"), (503, "overloaded")}
